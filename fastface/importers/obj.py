"""A bounded reader for Wavefront OBJ: positions and polygons, on request also colours; the rest is passed
over."""

from __future__ import annotations

import os
import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastface.errors import BadModelFile
from fastface.morphable import MAX_TRIANGLES, MAX_VERTICES

MAX_OBJ_BYTES = 32 << 20
MAX_LINES = 2_000_000
MAX_POLYGON_BYTES = 4_096
MAX_CORNERS = 64
_FARTHEST_UV = 1e4  # tiles of a repeated image; beyond it, float32 has no pixels left
_AFTER_SLASH = re.compile(rb"/[^ \t]*")


class Limits(NamedTuple):
    """What a mesh file may have at most; the bytes are those of a text file, a binary one may have four times
    as many."""

    bytes: int
    lines: int
    vertices: int
    triangles: int


HEADS: Final = Limits(MAX_OBJ_BYTES, MAX_LINES, MAX_VERTICES, MAX_TRIANGLES)


@dataclass(frozen=True)
class ObjMesh:
    """``vertices (V, 3)`` float64 in the file's units; ``triangles (F, 3)`` int32, polygons cut into fans.

    Where looks were asked for and are there: ``colors (V, 3)`` uint8 sRGB; ``uv (F, 3, 2)`` float32, texture
    coordinates of the triangles' corners, v up; ``material``, the name of the material library.
    """

    vertices: NDArray[np.float64]
    triangles: NDArray[np.int32]
    colors: NDArray[np.uint8] | None = None
    uv: NDArray[np.float32] | None = None
    material: str = ""


def read_obj(
    path: str | os.PathLike[str], *, faces: bool = True, looks: bool = False, limits: Limits = HEADS
) -> ObjMesh:
    """Read an OBJ file; with ``faces=False`` polygons are skipped and ``triangles`` is empty; ``looks``:
    colours too.

    Raises ``BadModelFile`` for a file that cannot be read, is too large, is not text, holds numbers that are
    not finite, or whose polygons index vertices that are not there (relative, negative indices are refused
    too).
    """
    label = os.fspath(path)
    lines = _read_bytes(path, limits).splitlines()
    places = [line[2:] for line in lines if line.startswith((b"v ", b"v\t"))]
    vertices = _vertices(places, limits.vertices, label)
    if not faces:
        return ObjMesh(vertices, np.zeros((0, 3), np.int32))
    polygons = [line[2:] for line in lines if line.startswith((b"f ", b"f\t"))]
    corners, fans = _fans(polygons, limits.triangles, label)
    triangles = _indexed(corners, len(vertices), label)[fans].astype(np.int32)
    if not looks:
        return ObjMesh(vertices, triangles)
    coordinates = [line[3:] for line in lines if line.startswith((b"vt ", b"vt\t"))]
    uv = _coordinates(coordinates, corners, label)
    libraries = [line[7:].strip() for line in lines if line.startswith(b"mtllib ")]
    material = libraries[0].decode("utf-8") if len(libraries) == 1 else ""
    return ObjMesh(vertices, triangles, _colors(places, label), None if uv is None else uv[fans], material)


def _read_bytes(path: str | os.PathLike[str], limits: Limits) -> bytes:
    label = os.fspath(path)
    try:
        if not Path(path).is_file():
            raise BadModelFile(f"{label}: wanted an OBJ file, there is none")
        with open(path, "rb") as stream:
            data = stream.read(limits.bytes + 1)
    except OSError as error:
        raise BadModelFile(f"{label}: cannot be read: {error.strerror or error}") from error
    if len(data) > limits.bytes:
        raise BadModelFile(f"{label}: wanted at most {limits.bytes} bytes, got more")
    if b"\0" in data:
        raise BadModelFile(f"{label}: wanted an OBJ text file, got binary data")
    if data.count(b"\n") + data.count(b"\r") > limits.lines:
        raise BadModelFile(f"{label}: wanted at most {limits.lines} lines, got more")
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadModelFile(f"{label}: wanted UTF-8 text, byte {error.start} is not") from error
    return data


def _vertices(lines: list[bytes], most: int, label: str) -> NDArray[np.float64]:
    if not 3 <= len(lines) <= most:
        raise BadModelFile(f"{label}: wanted 3 to {most} vertices, got {len(lines)}")
    try:
        vertices = np.loadtxt(lines, dtype=np.float64, usecols=(0, 1, 2), comments=None, ndmin=2)
    except (ValueError, IndexError) as error:
        raise BadModelFile(f"{label}: wanted three numbers a vertex: {str(error)[:120]}") from error
    if vertices.shape != (len(lines), 3) or not np.isfinite(vertices).all():
        raise BadModelFile(f"{label}: wanted three finite numbers on each of {len(lines)} vertex lines")
    return vertices


def _fans(lines: list[bytes], most: int, label: str) -> tuple[list[bytes], NDArray[np.int64]]:
    """The words of all polygons' corners, and which three of them make each triangle (F, 3)."""
    if not lines:
        raise BadModelFile(f"{label}: wanted polygons, got none")
    if len(lines) > most:
        raise BadModelFile(f"{label}: wanted at most {most} polygons, got {len(lines)}")
    if max(map(len, lines)) > MAX_POLYGON_BYTES:
        raise BadModelFile(f"{label}: wanted polygons of 3 to {MAX_CORNERS} corners, got a longer one")
    corners = [line.split() for line in lines]
    counts = np.array([len(polygon) for polygon in corners])
    if counts.min() < 3 or counts.max() > MAX_CORNERS or int((counts - 2).sum()) > most:
        raise BadModelFile(
            f"{label}: wanted polygons of 3 to {MAX_CORNERS} corners, at most {most} triangles"
        )
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    # The k-th triangle of a polygon's fan is (first, k-th, next) corner; fans stay in the file's order.
    polygon = np.repeat(np.arange(len(counts)), counts - 2)
    step = np.arange(len(polygon)) - np.repeat(np.cumsum(counts - 2) - (counts - 2), counts - 2) + 1
    first = starts[polygon]
    fans = np.stack([first, first + step, first + step + 1], axis=1)
    return [corner for polygon in corners for corner in polygon], fans


def _indexed(corners: list[bytes], count: int, label: str) -> NDArray[np.int64]:
    """Which vertex each corner is, from 0."""
    text = _AFTER_SLASH.sub(b"", b" ".join(corners))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # numpy only warns about text that is not a number
            indices = np.fromstring(text.decode("ascii"), dtype=np.int64, sep=" ")
    except (ValueError, DeprecationWarning, UnicodeDecodeError, OverflowError) as error:
        raise BadModelFile(f"{label}: wanted whole numbers as polygon corners") from error
    if len(indices) != len(corners) or indices.min() < 1 or indices.max() > count:
        got = "a relative, negative one" if (indices < 0).any() else "one outside"
        raise BadModelFile(f"{label}: wanted polygon corners from 1 to {count}, got {got}")
    return indices - 1


def _coordinates(lines: list[bytes], corners: list[bytes], label: str) -> NDArray[np.float32] | None:
    """Texture coordinates (corners, 2), or None where a corner has none."""
    words = [corner.split(b"/")[1:2] for corner in corners] if lines else [[]]
    if not all(word and word[0] for word in words):
        return None
    rows = _indexed([word[0] for word in words], len(lines), label)
    try:
        table = np.loadtxt(lines, dtype=np.float64, usecols=(0, 1), comments=None, ndmin=2)
    except (ValueError, IndexError) as error:
        raise BadModelFile(f"{label}: wanted two numbers a texture coordinate: {str(error)[:120]}") from error
    if len(table) != len(lines) or not np.isfinite(table).all() or np.abs(table).max() > _FARTHEST_UV:
        raise BadModelFile(f"{label}: wanted {len(lines)} texture coordinates within ±{_FARTHEST_UV:g}")
    return table[rows].astype(np.float32)


def _colors(lines: list[bytes], label: str) -> NDArray[np.uint8] | None:
    """(V, 3) where red, green and blue in 0 … 1 (or 0 … 255) stand behind the place; None without."""
    if any(len(line.split()) != 6 for line in lines):
        return None
    try:
        table = np.loadtxt(lines, dtype=np.float64, usecols=(3, 4, 5), comments=None, ndmin=2)
    except ValueError as error:
        raise BadModelFile(f"{label}: wanted three numbers a colour: {str(error)[:120]}") from error
    if not np.isfinite(table).all() or table.min() < 0 or table.max() > 255:
        raise BadModelFile(f"{label}: wanted colours in 0 … 1 or 0 … 255")
    scale = 255.0 if table.max() <= 1 else 1.0
    return np.round(table * scale).astype(np.uint8)
