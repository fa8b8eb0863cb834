"""Tables and a drawing of what ``benchmarks.circumplex`` measures."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np

_INTRODUCTION: Final = """# Valence and arousal, there and back

Twelve directions at radii 1/3, 2/3 and 1 are rendered on 27 neutral portraits
(`../shared/data/photos/london`), the landmark network reads the frames, and what it sees is mapped back
without the person who is judged: the point from which the models **expect** what was seen; a regression from
refitted **coefficients**, and one from the network's own **scores**, learned from all other people. Mean over
people (worst person). Neighbours are 30° apart. Made by

    python -m benchmarks.circumplex --model default --model ict.npz \\
        --json benchmarks/results/circumplex.json --page benchmarks/results/circumplex.md \\
        --plot docs/images/circumplex.png
"""
_RADII: Final = ("1/3", "2/3", "1")


def page(found: list[dict[str, Any]]) -> str:
    """Markdown tables of all head models."""
    return "\n".join([_INTRODUCTION, *(_tables(one) for one in found)])


def _tables(one: dict[str, Any]) -> str:
    people = list(one["people"].values())
    lines = [
        f"## {one['model']}, {len(people)} people\n",
        "| reading | valence, Spearman | arousal, Spearman | radius | angle error | neighbours in order "
        "| circular rank correlation | people in perfect order |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for reading in people[0]:
        valence, arousal = (
            _mean_worst([person[reading][key] for person in people], min) for key in ("valence", "arousal")
        )
        for ring, radius in enumerate(_RADII):
            of = [person[reading]["rings"][ring] for person in people]
            angle = _mean_worst([figures["angle_deg"] for figures in of], max, "{:.0f}°")
            order = _mean_worst([100 * figures["in_order"] for figures in of], min, "{:.0f} %")
            rank = _mean_worst([figures["rank"] for figures in of], min)
            whole = sum(figures["in_order"] == 1 for figures in of)
            lines.append(
                f"| {reading} | {valence} | {arousal} | {radius} | {angle} | {order} | {rank} "
                f"| {whole}/{len(of)} |"
            )
    return "\n".join(lines) + "\n"


def _mean_worst(values: list[float], worst: Any, form: str = "{:.2f}") -> str:
    return f"{form.format(np.mean(values))} ({form.format(worst(values))})"


def plot(found: list[dict[str, Any]], path: Path) -> None:
    """Where each asked point was read: people as dots, their mean as a ring; a panel a head."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, len(found), figsize=(5.4 * len(found), 5.4), squeeze=False)
    for panel, one in zip(panels[0], found, strict=True):
        asked = np.array(one["asked"])
        read = np.array([person["coefficients"]["read"] for person in one["people"].values()])
        count = (len(asked) - 1) // len(_RADII)
        colours = pyplot.colormaps["hsv"](np.arange(count) / count)
        for first in range(1, len(asked), count):
            ring = slice(first, first + count)
            wanted, mean = asked[ring], read[:, ring].mean(0)
            for points, style in ((wanted, "0.75"), (mean, "0.25")):
                closed = np.concatenate([points, points[:1]])
                panel.plot(*closed.T, "-", color=style, linewidth=1, zorder=1)
            panel.scatter(*wanted.T, s=40, facecolors="none", edgecolors=colours, zorder=3)
            panel.scatter(*mean.T, s=28, color=colours, zorder=4)
            for person in read[:, ring]:
                panel.scatter(*person.T, s=3, color=colours, alpha=0.45, zorder=2, linewidths=0)
        panel.set(xlabel="valence", ylabel="arousal", title=one["model"], aspect="equal")
        panel.set(xlim=(-1.25, 1.25), ylim=(-1.25, 1.25))
        panel.axhline(0, color="0.9", zorder=0)
        panel.axvline(0, color="0.9", zorder=0)
    figure.tight_layout()
    figure.savefig(path, dpi=90)
    pyplot.close(figure)
