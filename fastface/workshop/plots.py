"""Pictures of the plane of valence and arousal: how it was rated, and into which classes it falls (after
figures 3 and 5 of Kollias et al., IJCV 2020)."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastface.affect_tables import CIRCUMPLEX, EXPRESSIONS
from fastface.class_model import AffectClasses
from fastface.errors import BadArgument
from fastface.images import read_image

Image = NDArray[np.uint8]


def histogram(valence: NDArray[Any], arousal: NDArray[Any], bins: int = 40) -> Image:
    """How many faces were rated where, on a logarithmic scale."""
    figure, axes = _plane("ratings")
    counts, x, y = np.histogram2d(valence, arousal, bins, range=((-1, 1), (-1, 1)))
    from matplotlib.colors import LogNorm

    shown = axes.pcolormesh(x, y, np.maximum(counts.T, 0.5), norm=LogNorm(1), cmap="viridis")
    figure.colorbar(shown, label="faces")
    return _drawn(figure)


def class_map(classes: AffectClasses) -> Image:
    """Class centres, larger for more faces, with the triangulation that joins them and the expressions."""
    figure, axes = _plane(f"{len(classes.va)} classes")
    axes.triplot(*classes.node_va.T, classes.triangles, linewidth=0.2, color="0.7")
    size = 4 + 30 * np.sqrt(classes.counts / classes.counts.max())
    angle = np.arctan2(classes.va[:, 1], classes.va[:, 0])
    axes.scatter(*classes.va.T, s=size, c=angle, cmap="twilight", edgecolors="none")
    for name in EXPRESSIONS:
        axes.annotate(name, CIRCUMPLEX[name], ha="center", fontsize=9, fontweight="bold")
    return _drawn(figure)


def _plane(title: str) -> tuple[Any, Any]:
    try:
        import matplotlib
    except ImportError as error:
        raise BadArgument("plots need matplotlib: pip install 'fastface[workshop]'") from error
    matplotlib.use("Agg")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 7), dpi=110)
    axes = figure.add_subplot()
    axes.set(xlim=(-1, 1), ylim=(-1, 1), xlabel="valence", ylabel="arousal", title=title, aspect="equal")
    return figure, axes


def _drawn(figure: Any) -> Image:
    stream = io.BytesIO()
    figure.savefig(stream, format="png", bbox_inches="tight")
    return read_image(stream.getvalue())
