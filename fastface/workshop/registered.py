"""Reading a folder of registered meshes: one topology, one mesh a file."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fastface.errors import BadModelFile
from fastface.importers.sequence import read_mesh
from fastface.morphable import ArraySpec, read_arrays

SUFFIXES: Final = (".obj", ".ply", ".npz")
_MOST_MESHES: Final = 20_000
_SPEC: Final = {"vertices": ArraySpec("float", 2, "(V, 3) mm")}


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
