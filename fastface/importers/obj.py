"""A bounded reader for Wavefront OBJ: positions and polygons, everything else passed over."""

from __future__ import annotations

import os
import re
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fastface.errors import BadModelFile
from fastface.morphable import MAX_TRIANGLES, MAX_VERTICES

MAX_OBJ_BYTES = 32 << 20
MAX_LINES = 2_000_000
MAX_POLYGON_BYTES = 4_096
MAX_CORNERS = 64
_AFTER_SLASH = re.compile(rb"/[^ \t]*")


@dataclass(frozen=True)
class ObjMesh:
    """``vertices (V, 3)`` float64 in the file's units; ``triangles (F, 3)`` int32, polygons cut into fans."""

    vertices: NDArray[np.float64]
    triangles: NDArray[np.int32]


def read_obj(path: str | os.PathLike[str], *, faces: bool = True) -> ObjMesh:
    """Read an OBJ file; with ``faces=False`` polygons are skipped and ``triangles`` is empty.

    Raises ``BadModelFile`` for a file that cannot be read, is too large, is not text, holds numbers that are
    not finite, or whose polygons index vertices that are not there (relative, negative indices are refused
    too).
    """
    label = os.fspath(path)
    lines = _read_bytes(path).splitlines()
    vertices = _vertices([line[2:] for line in lines if line.startswith((b"v ", b"v\t"))], label)
    triangles = np.zeros((0, 3), np.int32)
    if faces:
        polygons = [line[2:] for line in lines if line.startswith((b"f ", b"f\t"))]
        triangles = _triangles(polygons, len(vertices), label)
    return ObjMesh(vertices, triangles)


def _read_bytes(path: str | os.PathLike[str]) -> bytes:
    label = os.fspath(path)
    try:
        if not Path(path).is_file():
            raise BadModelFile(f"{label}: wanted an OBJ file, there is none")
        with open(path, "rb") as stream:
            data = stream.read(MAX_OBJ_BYTES + 1)
    except OSError as error:
        raise BadModelFile(f"{label}: cannot be read: {error.strerror or error}") from error
    if len(data) > MAX_OBJ_BYTES:
        raise BadModelFile(f"{label}: wanted at most {MAX_OBJ_BYTES} bytes, got more")
    if b"\0" in data:
        raise BadModelFile(f"{label}: wanted an OBJ text file, got binary data")
    if data.count(b"\n") + data.count(b"\r") > MAX_LINES:
        raise BadModelFile(f"{label}: wanted at most {MAX_LINES} lines, got more")
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadModelFile(f"{label}: wanted UTF-8 text, byte {error.start} is not") from error
    return data


def _vertices(lines: list[bytes], label: str) -> NDArray[np.float64]:
    if not 3 <= len(lines) <= MAX_VERTICES:
        raise BadModelFile(f"{label}: wanted 3 to {MAX_VERTICES} vertices, got {len(lines)}")
    try:
        vertices = np.loadtxt(lines, dtype=np.float64, usecols=(0, 1, 2), comments=None, ndmin=2)
    except (ValueError, IndexError) as error:
        raise BadModelFile(f"{label}: wanted three numbers a vertex: {str(error)[:120]}") from error
    if vertices.shape != (len(lines), 3) or not np.isfinite(vertices).all():
        raise BadModelFile(f"{label}: wanted three finite numbers on each of {len(lines)} vertex lines")
    return vertices


def _triangles(lines: list[bytes], vertex_count: int, label: str) -> NDArray[np.int32]:
    if not lines:
        raise BadModelFile(f"{label}: wanted polygons, got none")
    if len(lines) > MAX_TRIANGLES:
        raise BadModelFile(f"{label}: wanted at most {MAX_TRIANGLES} polygons, got {len(lines)}")
    if max(map(len, lines)) > MAX_POLYGON_BYTES:
        raise BadModelFile(f"{label}: wanted polygons of 3 to {MAX_CORNERS} corners, got a longer one")
    corners = [line.split() for line in lines]
    counts = np.array([len(polygon) for polygon in corners])
    if counts.min() < 3 or counts.max() > MAX_CORNERS or int((counts - 2).sum()) > MAX_TRIANGLES:
        raise BadModelFile(
            f"{label}: wanted polygons of 3 to {MAX_CORNERS} corners, at most {MAX_TRIANGLES} triangles"
        )
    text = _AFTER_SLASH.sub(b"", b" ".join(corner for polygon in corners for corner in polygon))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # numpy only warns about text that is not a number
            indices = np.fromstring(text.decode("ascii"), dtype=np.int64, sep=" ")
    except (ValueError, DeprecationWarning, UnicodeDecodeError, OverflowError) as error:
        raise BadModelFile(f"{label}: wanted whole numbers as polygon corners") from error
    if len(indices) != counts.sum() or indices.min() < 1 or indices.max() > vertex_count:
        raise BadModelFile(f"{label}: wanted polygon corners from 1 to {vertex_count}, got one outside")
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    # The k-th triangle of a polygon's fan is (first, k-th, next) corner; fans stay in the file's order.
    polygon = np.repeat(np.arange(len(counts)), counts - 2)
    step = np.arange(len(polygon)) - np.repeat(np.cumsum(counts - 2) - (counts - 2), counts - 2) + 1
    first = starts[polygon]
    fans = np.stack([indices[first], indices[first + step], indices[first + step + 1]], axis=1)
    return (fans - 1).astype(np.int32)
