"""Matrices of numbers out of an untrusted MATLAB file, version 5 (what MATLAB's ``-v6`` and ``-v7`` and scipy
write).

scipy's own reader follows the lengths in a damaged file out of its buffers and ends the process; this one
reads the little that published models need, within bounds. Layout: MathWorks, "MAT-File Format", chapter 1.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fastface.errors import BadModelFile
from fastface.importers.published import MAX_BYTES, need, read_bytes

_HEADER: Final = 128
_MAX_VARIABLES: Final = 1000
_HEAD: Final = 512  # bytes of a matrix that surely hold its flags, its sizes and its name
_MAX_AXES: Final = 32
_MAX_NAME: Final = 63
_COMPRESSED: Final = 15
_MATRIX: Final = 14
_NUMERIC: Final = range(6, 16)  # classes double, single and the integers
_COMPLEX: Final = 0x0800
#: Types of stored numbers; a matrix of doubles may be stored as bytes where they suffice.
_STORED: Final = {
    1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8",
}  # fmt: skip
_HDF5: Final = b"\x89HDF"


def read_matlab(
    path: str | os.PathLike[str], wanted: tuple[str, ...], optional: tuple[str, ...] = ()
) -> dict[str, NDArray[Any]]:
    """The named matrices, each (rows, columns); ``optional`` ones where they are there. Other variables are
    passed over. Raises ``BadModelFile``.
    """
    label = os.fspath(path)
    data = read_bytes(path)
    need(data[:4] != _HDF5, label, "wanted a MATLAB file of version 7 or before; save it with -v7")
    try:
        found = _variables(data, {*wanted, *optional}, label)
    except (struct.error, zlib.error, UnicodeDecodeError) as error:
        raise BadModelFile(f"{label}: wanted an undamaged MATLAB file ({error})") from error
    missing = [name for name in wanted if name not in found]
    need(not missing, label, f"wanted the variables {', '.join(wanted)}; missing: {', '.join(missing)}")
    return found


def _variables(data: bytes, names: set[str], label: str) -> dict[str, NDArray[Any]]:
    found: dict[str, NDArray[Any]] = {}
    budget = MAX_BYTES
    for order, body, packed in _elements(data, label):
        head = zlib.decompressobj().decompress(body, _HEAD) if packed else bytes(body[:_HEAD])
        kind, size = struct.unpack_from(f"{order}II", head)
        if kind != _MATRIX:
            continue
        flags, sizes, name, start = _described(head, order, label)
        if name not in names:
            continue
        need(name not in found, label, f"{name} is there twice")
        real = flags & 0xFF in _NUMERIC and not flags & _COMPLEX
        need(real, label, f"wanted {name} to be a matrix of real numbers")
        need(len(sizes) == 2 and min(sizes) >= 0, label, f"wanted {name} to be a matrix, got {sizes}")
        budget -= size
        need(budget >= 0, label, f"wanted at most {MAX_BYTES} bytes of matrices, it declares more")
        whole = zlib.decompressobj().decompress(body, 8 + size) if packed else bytes(body[: 8 + size])
        need(len(whole) == 8 + size, label, f"truncated: {name} has {len(whole)} of {8 + size} bytes")
        found[name] = _numbers(whole, start, sizes, order, f"{label}: {name}")
    return found


def _elements(data: bytes, label: str) -> Iterator[tuple[str, memoryview, bool]]:
    """Byte order, bytes with their tag, and whether these are compressed, of each variable."""
    mark = data[126:_HEADER]
    need(mark in (b"IM", b"MI"), label, "wanted a MATLAB file of version 5")
    order = "<" if mark == b"IM" else ">"
    at = _HEADER
    for _ in range(_MAX_VARIABLES):
        if at == len(data):
            return
        kind, size = struct.unpack_from(f"{order}II", data, at)
        left = len(data) - at - 8
        need(size <= left, label, f"truncated: {size} bytes wanted, {left} are left")
        packed = kind == _COMPRESSED
        yield order, memoryview(data)[at + 8 * packed : at + 8 + size], packed
        at = min(at + 8 + size + (0 if packed else -size % 8), len(data))
    raise BadModelFile(f"{label}: wanted at most {_MAX_VARIABLES} variables")


def _part(data: bytes, at: int, order: str, label: str) -> tuple[int, int, int, int]:
    """Type, first byte, length and end of the part at ``at``; short ones share their tag's eight bytes."""
    kind, size = struct.unpack_from(f"{order}II", data, at)
    if kind >> 16:
        kind, size = kind & 0xFFFF, kind >> 16
        need(size <= 4, label, "damaged: a short part is too long")
        return kind, at + 4, size, at + 8
    return kind, at + 8, size, at + 8 + size + -size % 8


def _described(head: bytes, order: str, label: str) -> tuple[int, tuple[int, ...], str, int]:
    """Flags, sizes and name of a matrix, and where its numbers begin, all within its first bytes."""
    _, first, _, at = _part(head, 8, order, label)
    (flags,) = struct.unpack_from(f"{order}I", head, first)
    _, first, size, at = _part(head, at, order, label)
    need(size <= 4 * _MAX_AXES, label, "wanted matrices of two axes")
    sizes = struct.unpack_from(f"{order}{size // 4}i", head, first)
    _, first, size, at = _part(head, at, order, label)
    need(size <= _MAX_NAME, label, f"wanted names of at most {_MAX_NAME} letters")
    return flags, sizes, head[first : first + size].decode("latin-1"), at


def _numbers(whole: bytes, at: int, sizes: tuple[int, ...], order: str, label: str) -> NDArray[Any]:
    count = sizes[0] * sizes[1]
    if count == 0:
        return np.zeros(sizes)
    kind, first, size, _ = _part(whole, at, order, label)
    need(kind in _STORED, label, f"wanted numbers, got type {kind}")
    dtype = np.dtype(order + _STORED[kind])
    need(size == count * dtype.itemsize, label, f"wanted {sizes} numbers, got {size} bytes of {dtype}")
    need(first + size <= len(whole), label, "truncated")
    stored = np.frombuffer(whole, dtype, count, first)
    return stored.astype(dtype.newbyteorder("=")).reshape(sizes, order="F")
