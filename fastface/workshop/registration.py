"""Raw scans on to the default head's mesh: dense correspondence, one scan at a time.

A scan is drawn from several sides and its landmarks are read off the pictures; the default head's mesh is
then laid on it by a smooth map of space, from stiff to supple, landmarks first and then the surface (the
schedule of Amberg, Romdhani, Vetter, "Optimal Step Nonrigid ICP Algorithms", CVPR 2007;
``importers.correspondence_map``). What comes out are meshes of one topology, for ``workshop.statistics``.
"""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from fastface.atomic import whole_file
from fastface.errors import BadModelFile, FastfaceError
from fastface.morphable import ArraySpec, read_arrays

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from fastface.importers.published import Published

_SPEC: Final = {"vertices": ArraySpec("float", 2, "(V, 3)"), "triangles": ArraySpec("integer", 2, "(F, 3)")}


@dataclass(frozen=True)
class Residual:
    """What became of a scan: the share of the face that found its surface, the median and the 95 % quantile
    of the distances left, mm; or why it was refused."""

    scan: str
    covered: float = 0.0
    median_mm: float = float("nan")
    tail_mm: float = float("nan")
    error: str = ""


def register_scans(
    scans: Sequence[Path],
    output: Path,
    *,
    unit_mm: float | None = None,
    processes: int = 1,
    done: Callable[[Residual], None] = lambda residual: None,
) -> list[Residual]:
    """Register each scan into ``output/NAME.npz`` (``vertices``, mm, head space); one that fails is reported
    and the others finish. What is there already is not made again."""
    wanted = [(scan, target) for scan in scans if not (target := output / f"{scan.stem}.npz").exists()]
    found: list[Residual] = []
    if processes <= 1:
        for pair in wanted:
            found.append(_register(*pair, unit_mm))
            done(found[-1])
        return found
    with ProcessPoolExecutor(processes, get_context("spawn")) as pool:
        for future in as_completed([pool.submit(_register, *pair, unit_mm) for pair in wanted]):
            found.append(future.result())
            done(found[-1])
    return sorted(found, key=lambda residual: residual.scan)


def _register(scan: Path, target: Path, unit_mm: float | None) -> Residual:
    from fastface.importers.carrying import carry

    try:
        model, fitted = carry(_read(scan), str(scan), unit_mm=unit_mm)
        with whole_file(target) as temporary, temporary.open("wb") as stream:
            np.savez_compressed(stream, vertices=model.vertices)
    except FastfaceError as error:
        return Residual(scan.name, error=str(error))
    return Residual(scan.name, fitted.covered, fitted.median_mm, fitted.tail_mm)


def _read(path: Path) -> Published:
    from fastface.importers.published import Published
    from fastface.importers.sequence import read_mesh

    if path.suffix.casefold() == ".npz":
        arrays = read_arrays(path, _SPEC)
        vertices, triangles = arrays["vertices"], arrays["triangles"]
    else:
        mesh = read_mesh(path)
        vertices, triangles = mesh.vertices, mesh.triangles
    if vertices.ndim != 2 or not np.isfinite(vertices).all():
        raise BadModelFile(f"{path}: wanted finite vertices (V, 3), got {vertices.shape}")
    return Published(
        name=path.stem,
        source=str(path.name),
        license="not stated",
        vertices=np.asarray(vertices, np.float64),
        triangles=np.asarray(triangles, np.int32),
        identity=np.zeros((1, len(vertices), 3), np.float32),
    )
