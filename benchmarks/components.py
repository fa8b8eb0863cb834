"""Sparse localised components against plain sparse and principal ones, on faces they have not seen.

    python -m benchmarks.components GALLERY [--counts 10,30,50] [--samples 2000] [--markdown FILE]

Every method learns as many components from the first four fifths of the samples; the rest are taken apart by
least squares, so that the error is the components' alone. *width*: how far a component's motion lies from its
middle, root mean square, the median component; *still*: vertices that a component does not move. Plain sparse
components: scikit-learn's MiniBatchSparsePCA (J. Mairal et al., "Online dictionary learning for sparse
coding", ICML 2009), for several strengths, and fastface's own without locality. Principal components are the
bound that no method can pass; they are as wide as the face.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, Final

import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from fastface.atomic import write_whole
from fastface.morphable import load_default
from fastface.workshop.component_file import FaceMesh, gallery_deformations
from fastface.workshop.components import locality_mm, sparse_components
from fastface.workshop.gallery import Gallery

Float32 = NDArray[np.float32]
Method = Callable[[Float32, int], NDArray[Any]]

COLUMNS: Final = ("method", "components", "error, mm", "width, mm", "still", "CPU s")
STRENGTHS: Final = (0.3, 1.0, 3.0)
_STILL_MM: Final = 1e-6


def methods(mesh: FaceMesh) -> Iterator[tuple[str, Method]]:
    """Each takes deformations (T, V, 3) and a count and gives components (K, V, 3)."""

    def own(**how: Any) -> Method:
        return lambda x, count: sparse_components(x, mesh.triangles, mesh.vertices, count, **how).components

    yield "sparse, localised", own()
    yield "sparse, localised, weights ≥ 0", own(constraint="nonnegative")
    yield "sparse, not localised", own(local=False)
    yield "principal", _principal
    try:
        from sklearn.decomposition import MiniBatchSparsePCA
    except ImportError:
        return

    def plain(strength: float) -> Method:
        def found(x: Float32, count: int) -> NDArray[Any]:
            model = MiniBatchSparsePCA(count, alpha=strength, max_iter=100, random_state=0)
            return np.asarray(model.fit(x.reshape(len(x), -1)).components_).reshape(count, -1, 3)

        return found

    for strength in STRENGTHS:
        yield f"scikit-learn, alpha {strength:g}", plain(strength)


def _principal(x: Float32, count: int) -> NDArray[Any]:
    flat = x.reshape(len(x), -1)
    values, vectors = np.linalg.eigh(flat @ flat.T)
    axes = vectors[:, ::-1][:, :count].T @ flat
    return np.asarray(axes / np.sqrt(np.maximum(values[::-1][:count, None], 1e-9))).reshape(count, -1, 3)


def judge(mesh: FaceMesh, method: Method, count: int) -> tuple[float, float, float, float]:
    """Error on unseen faces (mm), median width (mm), share of still vertices, processor time (s)."""
    split = len(mesh.deformations) * 4 // 5
    seen, unseen = mesh.deformations[:split], mesh.deformations[split:]
    start = time.process_time()
    components = method(seen, count)
    took = time.process_time() - start
    axes, faces = components.reshape(count, -1), unseen.reshape(len(unseen), -1)
    codes = np.linalg.lstsq(axes.T, faces.T, rcond=None)[0]
    error = float(np.sqrt(3 * np.square(faces - codes.T @ axes).mean()))
    moved = np.linalg.norm(components, axis=2)
    still = float((moved <= _STILL_MM * moved.max(axis=1, keepdims=True).clip(1e-12)).mean())
    alive = moved.max(axis=1) > 0
    return error, float(np.median(locality_mm(components[alive], mesh.vertices))), still, took


def main(
    gallery: Annotated[Path, typer.Argument(help="made by fastface affect sample-gallery")],
    counts: Annotated[str, typer.Option(help="comma-separated")] = "10,30,50",
    samples: Annotated[int, typer.Option(min=50)] = 2000,
    markdown: Annotated[Path | None, typer.Option(help="write the table here")] = None,
) -> None:
    """Learn, take unseen faces apart, print."""
    mesh = gallery_deformations(Gallery.open(gallery), load_default(), samples)
    order = np.random.default_rng(0).permutation(len(mesh.deformations))
    mesh = FaceMesh(mesh.deformations[order], mesh.kept, mesh.vertices, mesh.triangles)
    title = f"{len(mesh.deformations)} faces of {len(mesh.vertices)} vertices"
    table, lines = Table(*COLUMNS, title=title), [" | ".join(COLUMNS), "|".join(["---"] * len(COLUMNS))]
    for count in (int(word) for word in counts.split(",")):
        for name, method in methods(mesh):
            error, width, still, took = judge(mesh, method, count)
            row = [name, str(count), f"{error:.3f}", f"{width:.0f}", f"{still:.0%}", f"{took:.0f}"]
            table.add_row(*row)
            lines.append(" | ".join(row))
    Console(width=100).print(table)
    if markdown:
        write_whole(markdown, "".join(f"| {line} |\n" for line in lines).encode())


if __name__ == "__main__":
    typer.run(main)
