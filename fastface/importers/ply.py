"""A bounded reader for Stanford PLY (text and binary): positions, colours and polygons; the rest is passed
over."""

from __future__ import annotations

import os
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastface.errors import BadModelFile
from fastface.importers.obj import HEADS, MAX_CORNERS, Limits, ObjMesh
from fastface.importers.published import need, read_bytes

_BINARY: Final = 4  # times the bytes that a text may have
_MAX_HEADER: Final = 20_000
_TYPES: Final = {
    "char": "i1", "int8": "i1", "uchar": "u1", "uint8": "u1", "short": "i2", "int16": "i2", "ushort": "u2",
    "uint16": "u2", "int": "i4", "int32": "i4", "uint": "u4", "uint32": "u4", "float": "f4", "float32": "f4",
    "double": "f8", "float64": "f8",
}  # fmt: skip
_ORDERS: Final = {"ascii": "", "binary_little_endian": "<", "binary_big_endian": ">"}


class _Property(NamedTuple):
    name: str
    kind: str
    counted_by: str  # type of a list's length; "" for a single number


class _Element(NamedTuple):
    name: str
    size: int
    properties: list[_Property]


def read_ply(path: str | os.PathLike[str], *, limits: Limits = HEADS) -> ObjMesh:
    """Read a PLY file; polygons are cut into fans. Raises ``BadModelFile``."""
    label = os.fspath(path)
    data = read_bytes(path, _BINARY * limits.bytes)
    colors: NDArray[np.uint8] | None = None
    try:
        order, elements, start = _header(data, limits, label)
        body = _text(data[start:], limits, label) if order == "" else _Binary(data, start, order)
        vertices: NDArray[np.float64] | None = None
        triangles = np.zeros((0, 3), np.int32)
        for element in elements:
            if element.name == "vertex":
                vertices, colors = _vertices(body, element, limits.vertices, label)
            elif element.name == "face" and vertices is not None:
                triangles = _triangles(body, element, len(vertices), limits.triangles, label)
            else:
                body.skip(element)
            if vertices is not None and len(triangles):
                break
    except (ValueError, KeyError, IndexError, TypeError, OverflowError, UnicodeDecodeError) as error:
        raise BadModelFile(f"{label}: wanted an undamaged PLY file ({error!s:.120})") from error
    if vertices is None:
        raise BadModelFile(f"{label}: wanted vertices before the faces, there are none")
    return ObjMesh(vertices, triangles, colors)


def _header(data: bytes, limits: Limits, label: str) -> tuple[str, list[_Element], int]:
    end = data.find(b"end_header", 0, _MAX_HEADER)
    need(data[:3] == b"ply" and end >= 0, label, "wanted a PLY file with a header")
    start = data.find(b"\n", end) + 1
    need(start > 0, label, "wanted a line break behind the header")
    order, elements = None, []
    for line in data[:end].decode("ascii").splitlines()[1:]:
        words = line.split()
        if not words or words[0] in ("comment", "obj_info"):
            continue
        if words[0] == "format":
            order = _ORDERS[words[1]]
        elif words[0] == "element":
            count = int(words[2])
            need(0 <= count <= 4 * limits.triangles, label, f"wanted fewer elements than {count}")
            elements.append(_Element(words[1], count, []))
        elif words[0] == "property" and words[1] == "list":
            elements[-1].properties.append(_Property(words[4], _TYPES[words[3]], _TYPES[words[2]]))
        elif words[0] == "property":
            elements[-1].properties.append(_Property(words[2], _TYPES[words[1]], ""))
        else:
            raise ValueError(f"unknown line {line[:40]!r}")
    if order is None:
        raise ValueError("no format")
    return order, elements, start


class _Text:
    """The numbers of a text file, line by line."""

    def __init__(self, data: bytes) -> None:
        self._lines = data.splitlines()
        self._at = 0

    def _rows(self, element: _Element) -> list[str]:
        rows = self._lines[self._at : self._at + element.size]
        if len(rows) < element.size:
            raise ValueError(f"{element.size} lines of {element.name} wanted, {len(rows)} are left")
        self._at += element.size
        return [row.decode("ascii") for row in rows]

    def table(self, element: _Element) -> NDArray[np.float64]:
        """(count, properties) of an element without lists."""
        return np.loadtxt(self._rows(element), np.float64, comments=None, ndmin=2)

    def lists(self, element: _Element) -> list[NDArray[np.int64]]:
        """The first list of each row; it must be the first property."""
        found = []
        for row in self._rows(element):
            numbers = np.array(row.split()[: MAX_CORNERS + 1], np.int64)
            found.append(numbers[1 : 1 + int(numbers[0])])
        return found

    def skip(self, element: _Element) -> None:
        """Pass over an element."""
        self._rows(element)


def _text(data: bytes, limits: Limits, label: str) -> _Text:
    need(len(data) <= limits.bytes, label, f"wanted at most {limits.bytes} bytes of text, got {len(data)}")
    lines = data.count(b"\n") + data.count(b"\r")
    need(lines <= limits.lines, label, f"wanted at most {limits.lines} lines, got {lines}")
    return _Text(data)


class _Binary:
    """The numbers of a binary file."""

    def __init__(self, data: bytes, at: int, order: str) -> None:
        self._data, self._at, self._order = data, at, order

    def _take(self, dtype: Any, count: int) -> NDArray[Any]:
        size = np.dtype(dtype).itemsize * count
        if size > len(self._data) - self._at:
            raise ValueError(f"truncated: {size} bytes wanted, {len(self._data) - self._at} are left")
        self._at += size
        return np.frombuffer(self._data, dtype, count, self._at - size)

    def table(self, element: _Element) -> NDArray[np.float64]:
        """(count, properties) of an element without lists."""
        rows = self._rows(element)
        return np.stack([rows[name].astype(np.float64) for name in rows.dtype.names or ()], axis=1)

    def _rows(self, element: _Element) -> NDArray[Any]:
        fields = [(str(i), self._order + p.kind) for i, p in enumerate(element.properties)]
        return self._take(np.dtype(fields), element.size)

    def lists(self, element: _Element) -> list[NDArray[np.int64]] | NDArray[np.int64]:
        """The first list of each row; (rows, 3) when all are triangles."""
        if len(element.properties) == 1:  # nearly always all triangles: read at once
            item = element.properties[0]
            row = np.dtype([("n", self._order + item.counted_by), ("corners", self._order + item.kind, (3,))])
            if row.itemsize * element.size <= len(self._data) - self._at:
                table = np.frombuffer(self._data, row, element.size, self._at)
                if (table["n"] == 3).all():
                    self._at += row.itemsize * element.size
                    return table["corners"].astype(np.int64)
        found = []
        for _ in range(element.size):
            lists = [self._row(item) for item in element.properties]
            found.append(
                next(
                    values for values, item in zip(lists, element.properties, strict=True) if item.counted_by
                )
            )
        return found

    def _row(self, item: _Property) -> NDArray[np.int64]:
        count = int(self._take(self._order + item.counted_by, 1)[0]) if item.counted_by else 1
        if not 0 <= count <= MAX_CORNERS:
            raise ValueError(f"a list of {count} numbers")
        return self._take(self._order + item.kind, count).astype(np.int64)

    def skip(self, element: _Element) -> None:
        """Pass over an element."""
        if not any(item.counted_by for item in element.properties):
            self._rows(element)  # at once: rows without lists may be millions that take up no byte
            return
        for _ in range(element.size):
            for item in element.properties:
                self._row(item)


def _vertices(
    body: _Text | _Binary, element: _Element, most: int, label: str
) -> tuple[NDArray[np.float64], NDArray[np.uint8] | None]:
    need(3 <= element.size <= most, label, f"wanted 3 to {most} vertices, got {element.size}")
    names = [item.name for item in element.properties]
    need(not any(item.counted_by for item in element.properties), label, "wanted vertices without lists")
    columns = [names.index(axis) for axis in ("x", "y", "z")]
    table = body.table(element)
    need(len(table) == element.size and table.shape[1] >= 3, label, "wanted three numbers a vertex")
    vertices = table[:, columns]
    need(bool(np.isfinite(vertices).all()), label, "wanted finite vertices")
    colors: NDArray[np.uint8] | None = None
    if {"red", "green", "blue"} <= set(names):
        whole = element.properties[names.index("red")].kind == "u1"
        levels = table[:, [names.index(name) for name in ("red", "green", "blue")]]
        largest = 255 if whole else 1
        need(bool(((levels >= 0) & (levels <= largest)).all()), label, f"wanted colours in 0 … {largest}")
        colors = np.round(levels * (255 / largest)).astype(np.uint8)
    return np.ascontiguousarray(vertices), colors


def _triangles(
    body: _Text | _Binary, element: _Element, vertices: int, most: int, label: str
) -> NDArray[np.int32]:
    need(element.size <= most, label, f"wanted at most {most} polygons, got {element.size}")
    need(any(item.counted_by for item in element.properties), label, "wanted polygons as lists of corners")
    polygons = body.lists(element)
    if isinstance(polygons, np.ndarray):
        triangles = polygons
    else:
        fans = [
            (polygon[0], polygon[corner], polygon[corner + 1])
            for polygon in polygons
            for corner in range(1, len(polygon) - 1)
        ]
        triangles = np.array(fans, np.int64)
    count = len(triangles)
    need(0 < count <= most, label, f"wanted 1 to {most} triangles, got {count}")
    low, high = int(triangles.min()), int(triangles.max())
    need(low >= 0 and high < vertices, label, f"wanted corners from 0 to {vertices - 1}, got {low} … {high}")
    return triangles.astype(np.int32)
