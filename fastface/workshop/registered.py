"""A folder of registered meshes: one topology, one mesh a file.

What ``fastface model register`` writes, ``NAME.npz`` for each scan, holds the arrays of ``ARRAYS``, no
pickles:

- ``vertices (V, 3)`` float32, mm, head space, in the template's order;
- ``valid (V,)`` bool: true where the vertex was read off the scan's surface, false where the scan has a hole
  or ends, and where only the template knows (the inside of the mouth, teeth);
- ``residual_mm (V,)`` float32: distance from the scan's surface, NaN where not ``valid``;
- ``colors (V, 3)`` uint8, **sRGB** 0…255, from the scan's colours or its texture image, to be trusted only
  where ``valid``; of shape ``(0, 3)`` when the scan has no colours;
- ``record`` text, JSON: the scan's name, its residuals and how it was placed.

``report.json`` beside them lists every scan. Those left out as outliers lie in the subfolder ``outliers``.
Meshes from elsewhere (``.obj``, ``.ply``, ``.npz`` with ``vertices`` alone) can lie in such a folder too.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fastface.atomic import whole_file
from fastface.errors import BadModelFile
from fastface.importers.sequence import read_mesh
from fastface.morphable import MAX_TEXT, ArraySpec, read_arrays, write_archive

SUFFIXES: Final = (".obj", ".ply", ".npz")
ARRAYS: Final = {
    "vertices": ArraySpec("float", 2, "(V, 3) mm, head space"),
    "valid": ArraySpec("|b1", 1, "(V,) read off the scan"),
    "residual_mm": ArraySpec("<f4", 1, "(V,) distance from the scan, NaN where not valid"),
    "colors": ArraySpec("|u1", 2, "(V, 3) sRGB, or (0, 3)"),
    "record": ArraySpec("U", 0, "JSON"),
}
_MOST_MESHES: Final = 20_000
_SPEC: Final = {"vertices": ARRAYS["vertices"]}


@dataclass(frozen=True, eq=False)
class Registered:
    """One scan on the template's mesh; see the module. ``colors`` is None when the scan has none."""

    vertices: NDArray[np.float32]
    valid: NDArray[np.bool_]
    residual_mm: NDArray[np.float32]
    colors: NDArray[np.uint8] | None
    record: dict[str, Any]

    def save(self, path: Path) -> None:
        """Write ``path`` whole or not at all. Raises ``WriteFailed``."""
        text = json.dumps(self.record, ensure_ascii=True)
        if len(text) > MAX_TEXT:
            raise BadModelFile(f"{path}: wanted a record of at most {MAX_TEXT} characters, got {len(text)}")
        colors = np.zeros((0, 3), np.uint8) if self.colors is None else self.colors
        arrays = {
            "vertices": self.vertices,
            "valid": self.valid,
            "residual_mm": self.residual_mm,
            "colors": colors,
            "record": np.array(text),
        }
        with whole_file(path) as temporary, temporary.open("wb") as stream:
            write_archive(stream, arrays)

    @classmethod
    def load(cls, path: Path) -> Registered:
        """Read what ``save`` wrote. Raises ``BadModelFile``."""
        arrays = read_arrays(path, ARRAYS)
        vertices = arrays["vertices"].astype(np.float32)
        count = len(vertices)
        colors = arrays["colors"]
        shapes = [vertices.shape[1:], arrays["valid"].shape, arrays["residual_mm"].shape, colors.shape[1:]]
        if shapes != [(3,), (count,), (count,), (3,)] or len(colors) not in (0, count):
            raise BadModelFile(f"{path}: wanted arrays over {count} vertices, got {shapes}")
        if not np.isfinite(vertices).all():
            raise BadModelFile(f"{path}: wanted finite vertices")
        try:
            record = json.loads(str(arrays["record"][()]))
        except (ValueError, RecursionError) as error:
            raise BadModelFile(f"{path}: wanted a record in JSON ({error!s:.80})") from error
        if not isinstance(record, dict):
            raise BadModelFile(f"{path}: wanted a record in JSON, an object")
        return cls(vertices, arrays["valid"], arrays["residual_mm"], colors if len(colors) else None, record)


def read_vertices(path: Path) -> NDArray[np.float64]:
    """(V, 3) of an OBJ, a PLY, or an ``.npz`` with ``vertices``. Raises ``BadModelFile``."""
    if path.suffix.casefold() == ".npz":
        vertices = read_arrays(path, _SPEC)["vertices"].astype(np.float64)
    else:
        vertices = np.asarray(read_mesh(path).vertices, np.float64)
    if vertices.ndim != 2 or vertices.shape[1] != 3 or not np.isfinite(vertices).all():
        raise BadModelFile(f"{path}: wanted finite vertices (V, 3), got {vertices.shape}")
    return vertices


def read_registered(folder: Path) -> tuple[list[str], NDArray[np.float32]]:
    """Names and ``(N, V, 3)`` of a folder's meshes, by name. Raises ``BadModelFile``, also when they differ
    in topology."""
    try:
        paths = sorted(path for path in folder.iterdir() if path.suffix.casefold() in SUFFIXES)
    except OSError as error:
        raise BadModelFile(f"{folder}: cannot be read: {error.strerror or error}") from error
    if not 2 <= len(paths) <= _MOST_MESHES:
        kinds = ", ".join(SUFFIXES)
        raise BadModelFile(f"{folder}: wanted 2 to {_MOST_MESHES:,} meshes ({kinds}), got {len(paths)}")
    first = read_vertices(paths[0])
    meshes = np.empty((len(paths), *first.shape), np.float32)
    for target, path in zip(meshes, paths, strict=True):
        vertices = read_vertices(path)
        if vertices.shape != first.shape:
            raise BadModelFile(f"{path}: has {len(vertices)} vertices, {paths[0].name} has {len(first)}")
        target[:] = vertices
    return [path.stem for path in paths], meshes
