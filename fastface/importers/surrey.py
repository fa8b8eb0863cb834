"""The Surrey Face Model (Huber et al., "A Multiresolution 3D Morphable Face Model and Fitting Framework",
VISAPP 2016) in the file of its library, eos: ``sfm_shape_3448.bin`` and its like.

The layout is what the serialisation library cereal writes of eos' ``MorphableModel``, little-endian and
without padding:

    u32 version (1 to 4)
    shape model, colour model: each
        mean           i32 rows, i32 columns, f32 data, column by column
        basis          likewise (3V, K), orthonormal columns
        eigenvalues    likewise (K, 1), variances
        triangles      u64 count, then i32 × 3 each, from 0
    … expressions, landmark names and texture coordinates, by version: not read

Millimetres. A colour model of 0 vertices means that there is none.
"""

from __future__ import annotations

import os
import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastface.importers.published import (
    Float32,
    Published,
    check,
    deviations_of,
    need,
    principal_modes,
    read_bytes,
    triangles_of,
)
from fastface.morphable import MAX_MODES, MAX_TRIANGLES, MAX_VERTICES

_VERSIONS = range(1, 5)


def read_surrey(path: str | os.PathLike[str]) -> Published:
    """Read a ``.bin`` of eos. Raises ``BadModelFile``."""
    label = os.fspath(path)
    stream = _Stream(read_bytes(path), label)
    version = stream.number("<I")
    need(version in _VERSIONS, label, f"wanted a model of eos, version 1 to 4, got version {version}")
    mean, identity, triangles = _pca(stream, "shape")
    colour, *_ = _pca(stream, "colour")
    face = Published(
        name="surrey",
        source="Surrey Face Model, University of Surrey, https://github.com/patrikhuber/eos",
        license="The University of Surrey's licence for non-commercial use, or as its file came",
        vertices=mean.reshape(-1, 3).astype(np.float64),
        triangles=triangles,
        identity=identity,
        colour=np.clip(255 * np.nan_to_num(colour.reshape(-1, 3)), 0, 255).astype(np.uint8)
        if len(colour)
        else None,
    )
    check(face, label)
    return face


class _Stream:
    """Reads on from where it stands; never beyond the end, and nothing larger than a model can be."""

    def __init__(self, data: bytes, label: str) -> None:
        self.data, self.label, self.position = data, label, 0

    def number(self, code: str) -> int:
        """One whole number."""
        value: int = struct.unpack(code, self._take(struct.calcsize(code)))[0]
        return value

    def array(self, dtype: str, count: int) -> NDArray[Any]:
        """``count`` elements."""
        return np.frombuffer(self._take(count * np.dtype(dtype).itemsize), dtype)

    def _take(self, size: int) -> bytes:
        left = len(self.data) - self.position
        need(size <= left, self.label, f"truncated: wanted {size} more bytes, {left} are left")
        self.position += size
        return self.data[self.position - size : self.position]

    def matrix(self, what: str, most_columns: int) -> Float32:
        """An Eigen matrix, column by column: (columns, rows)."""
        rows, columns = self.number("<i"), self.number("<i")
        need(
            0 <= rows <= 3 * MAX_VERTICES and 0 <= columns <= most_columns,
            self.label,
            f"wanted {what} of at most {3 * MAX_VERTICES} × {most_columns}, got {rows} × {columns}",
        )
        return self.array("<f4", rows * columns).reshape(columns, rows)


def _pca(stream: _Stream, what: str) -> tuple[Float32, Float32, NDArray[np.int32]]:
    """Mean (3V,), modes per standard deviation (K, V, 3), triangles (F, 3)."""
    label = f"{stream.label}: {what}"
    mean = stream.matrix(f"the {what} mean", 1).ravel()
    basis = stream.matrix(f"the {what} basis", MAX_MODES)
    variances = stream.matrix(f"the {what} eigenvalues", MAX_MODES).ravel()
    count = stream.number("<Q")
    need(count <= MAX_TRIANGLES, label, f"wanted at most {MAX_TRIANGLES} triangles, got {count}")
    corners = triangles_of(stream.array("<i4", 3 * count).reshape(-1, 3), label)
    need(len(mean) % 3 == 0, label, f"wanted a mean of three numbers a vertex, got {len(mean)}")
    if not basis.size:
        return mean, np.zeros((0, len(mean) // 3, 3), np.float32), corners
    return mean, principal_modes(basis.T, deviations_of(variances, label), label), corners
