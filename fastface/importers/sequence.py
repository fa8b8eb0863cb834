"""A folder of meshes in one topology: a neutral face and expressions named after ARKit's.

``neutral.obj`` (or ``.ply``) and ``jawOpen.obj``, ``mouthSmileLeft.obj``, ``eyeBlink_L.ply`` … Other files
are passed over. Every mesh must have the neutral's vertices in the neutral's order.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fastface.errors import BadModelFile
from fastface.importers.gltf import LEAST_NAMED
from fastface.importers.obj import HEADS, Limits, ObjMesh, read_obj
from fastface.importers.ply import read_ply
from fastface.importers.published import Published, arkit_name, check, need
from fastface.morphable import ARKIT_NAMES

_NEUTRAL = ("neutral", "basis", "base", "mean", "rest", "generic_neutral_mesh")
_MAX_FILES = 10_000


def read_sequence(path: str | os.PathLike[str]) -> Published:
    """Read a folder of OBJ or PLY files. Raises ``BadModelFile``."""
    folder = Path(path)
    label = os.fspath(path)
    try:
        files = sorted(entry for entry in folder.iterdir() if entry.suffix.lower() in (".obj", ".ply"))
    except OSError as error:
        raise BadModelFile(f"{label}: wanted a folder of meshes: {error.strerror or error}") from error
    need(len(files) <= _MAX_FILES, label, f"wanted at most {_MAX_FILES} meshes, got {len(files)}")
    neutrals = [file for name in _NEUTRAL for file in files if file.stem.lower() == name]
    need(len(neutrals) > 0, label, "wanted neutral.obj or neutral.ply, there is none")
    neutral = read_mesh(neutrals[0], faces=True)
    named: dict[str, Path] = {}
    for file in files:
        name = arkit_name(file.stem)
        if name is not None:
            need(name not in named, label, f"{name} is there twice")
            named[name] = file
    need(
        len(named) >= LEAST_NAMED,
        label,
        f"wanted {LEAST_NAMED} meshes with ARKit's names or more, got {len(named)}",
    )
    shapes: dict[str, NDArray[np.float32]] = {}
    for name in ARKIT_NAMES:
        if name in named:
            vertices = read_mesh(named[name], faces=False).vertices
            if vertices.shape != neutral.vertices.shape:
                raise BadModelFile(
                    f"{named[name]}: wanted {len(neutral.vertices)} vertices as in the neutral, got "
                    f"{len(vertices)}"
                )
            shapes[name] = np.asarray(vertices - neutral.vertices, np.float32)
    face = Published(
        name=f"meshes {folder.resolve().name[:60]}",
        source=f"Meshes in the folder {folder.resolve().name[:200]}",
        license="That of the files; they name none",
        vertices=neutral.vertices,
        triangles=neutral.triangles,
        identity=np.zeros((0, len(neutral.vertices), 3), np.float32),
        expressions=shapes,
    )
    check(face, label)
    return face


def read_mesh(path: Path, *, faces: bool = True, looks: bool = False, limits: Limits = HEADS) -> ObjMesh:
    """A PLY or, by any other name, an OBJ. Raises ``BadModelFile``."""
    if path.suffix.lower() == ".ply":
        return read_ply(path, limits=limits)
    return read_obj(path, faces=faces, looks=looks, limits=limits)
