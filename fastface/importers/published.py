"""A head model as its authors published it: what every importer reads out of its format, checked.

Nothing is changed yet: their vertices, order, axes and units. ``fastface.importers.carrying`` makes a
``HeadModel`` of it.
"""

from __future__ import annotations

import importlib
import os
import re
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fastface.errors import BadModelFile, ProviderUnavailable
from fastface.morphable import ARKIT_NAMES, MAX_MODES, MAX_TRIANGLES, MAX_VERTICES

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

#: Published models have up to 400 modes of 54,000 vertices: 260 MB in single precision.
MAX_BYTES: Final = 1 << 30
_BY_LOWER_CASE: Final = {name.lower(): name for name in ARKIT_NAMES}
_FARTHEST: Final = 1e9  # micrometres reach 10^5; beyond this, squares lose all meaning


@dataclass(frozen=True)
class Published:
    """``vertices (V, 3)`` mean neutral face and ``triangles (F, 3)``; ``identity (K, V, 3)`` per standard
    deviation; ``expressions``: ARKit's name → displacement ``(V, 3)`` at coefficient 1, empty where the
    authors name none so; ``colour (V, 3)`` sRGB 0…255, or None. Lengths in ``unit_mm`` millimetres, which is
    None where nothing in the file tells: then the size of the face does.
    """

    name: str
    source: str
    license: str
    vertices: Float64
    triangles: NDArray[np.int32]
    identity: Float32
    expressions: dict[str, Float32] = field(default_factory=dict)
    colour: NDArray[np.uint8] | None = None
    unit_mm: float | None = None


def check(face: Published, label: str) -> None:
    """Raise ``BadModelFile`` unless shapes, ranges and indices of ``face`` are as ``Published`` says."""
    count = len(face.vertices)
    need(face.vertices.shape == (count, 3), label, f"wanted vertices (V, 3), got {face.vertices.shape}")
    need(50 <= count <= MAX_VERTICES, label, f"wanted 50 to {MAX_VERTICES} vertices, got {count}")
    rows = face.triangles.shape
    need(len(rows) == 2 and rows[1] == 3, label, f"wanted triangles (F, 3), got {rows}")
    need(1 <= rows[0] <= MAX_TRIANGLES, label, f"wanted 1 to {MAX_TRIANGLES} triangles, got {rows[0]}")
    low, high = int(face.triangles.min()), int(face.triangles.max())
    need(
        low >= 0 and high < count, label, f"wanted triangles that index {count} vertices, got {low} … {high}"
    )
    need(
        len(face.identity) <= MAX_MODES, label, f"wanted at most {MAX_MODES} modes, got {len(face.identity)}"
    )
    unknown = [name[:40] for name in face.expressions if name not in ARKIT_NAMES]
    need(not unknown, label, f"wanted expressions with ARKit's names, got {unknown[:3]}")
    arrays: dict[str, NDArray[Any]] = {
        "vertices": face.vertices,
        "identity": face.identity,
        **face.expressions,
    }
    for name, array in arrays.items():
        shape = array.shape[-2:]
        need(shape == (count, 3), label, f"wanted {name} over {count} vertices, got {array.shape}")
        need(_finite(array), label, f"wanted {name} of finite numbers below {_FARTHEST:g}")
    if face.colour is not None:
        need(face.colour.shape == (count, 3), label, f"wanted colours ({count}, 3), got {face.colour.shape}")
    size = float(np.ptp(face.vertices, axis=0).max())
    need(size > 0, label, "wanted a mesh, got a single point")
    for name, array in list(arrays.items())[1:]:
        # Nobody differs from the mean by a head, and no expression moves a vertex by half of one.
        largest = float(np.abs(array).max(initial=0))
        need(
            largest <= size,
            label,
            f"wanted {name} in the unit of the mean ({size:.3g} across), got a shift of {largest:.3g}",
        )


def need(condition: bool | np.bool_, label: str, message: str) -> None:
    """Raise ``BadModelFile`` unless ``condition``."""
    if not condition:
        raise BadModelFile(f"{label}: {message}")


def _finite(array: NDArray[Any]) -> bool:
    if array.size == 0:
        return True
    low, high = float(array.min()), float(array.max())  # NaN passes through both
    return bool(np.isfinite([low, high]).all()) and max(-low, high) < _FARTHEST


def arkit_name(name: str) -> str | None:
    """ARKit's name for a shape that is named so but for case, a side written ``_L`` or ``_R``, and the object
    before a dot (``head.eyeBlink_L``); None for another.
    """
    stem = re.split(r"[.:/|]", name)[-1].strip()
    stem = re.sub(r"[_-][Ll](eft)?$", "Left", stem)
    stem = re.sub(r"[_-][Rr](ight)?$", "Right", stem)
    return _BY_LOWER_CASE.get(stem.replace("_", "").lower())


def principal_modes(components: NDArray[Any], deviations: NDArray[Any], label: str) -> Float32:
    """Modes (K, V, 3) per standard deviation from ``components (3V, K)``, interleaved x, y, z, and standard
    deviations (K,) along them. Raises ``BadModelFile``.
    """
    sigma = np.asarray(deviations, np.float64).ravel()
    need(
        components.ndim == 2 and components.shape[0] % 3 == 0 and components.shape[1] == len(sigma),
        label,
        f"wanted components (3 V, K) with {len(sigma)} standard deviations, got {components.shape}",
    )
    need(
        bool(np.isfinite(sigma).all() and (sigma >= 0).all()), label, "wanted variances that are not negative"
    )
    scaled = np.asarray(components, np.float32).T * sigma[:, None].astype(np.float32)
    return scaled.reshape(len(sigma), -1, 3)


def deviations_of(variances: NDArray[Any], label: str) -> Float64:
    """Standard deviations (K,) from variances. Raises ``BadModelFile`` for a negative one."""
    flat = np.asarray(variances, np.float64).ravel()
    need(bool(np.isfinite(flat).all() and (flat >= 0).all()), label, "wanted variances that are not negative")
    root: Float64 = np.sqrt(flat)
    return root


def triangles_of(indices: NDArray[Any], label: str, first: int = 0) -> NDArray[np.int32]:
    """Triangles (F, 3) int32 from a table of whole numbers, either way up, that counts from ``first``."""
    table = np.asarray(indices)
    if table.ndim == 2 and table.shape[1] != 3 and table.shape[0] == 3:
        table = table.T
    need(table.ndim == 2 and table.shape[1] == 3, label, f"wanted triangles (F, 3), got {table.shape}")
    need(table.dtype.kind in "iuf", label, f"wanted triangles of whole numbers, got {table.dtype}")
    with np.errstate(invalid="ignore"):
        whole = table.astype(np.int64)
    need(bool((whole == table).all()), label, "wanted triangles of whole numbers")
    low, high = (int(whole.min()), int(whole.max())) if whole.size else (0, 0)
    need(low >= first, label, f"wanted triangles that count from {first}, got {low}")
    need(high - first < MAX_VERTICES, label, f"wanted triangles below {MAX_VERTICES}, got {high}")
    return np.ascontiguousarray(whole - first, np.int32)


def file_size(path: str | os.PathLike[str], most: int = MAX_BYTES) -> int:
    """Bytes of a file. Raises ``BadModelFile`` when it is not there, no file, or larger than ``most``."""
    label = os.fspath(path)
    try:
        if not os.path.isfile(path):
            raise BadModelFile(f"{label}: wanted a file, there is none")
        size = os.stat(path).st_size
    except OSError as error:
        raise BadModelFile(f"{label}: cannot be read: {error.strerror or error}") from error
    need(size <= most, label, f"wanted at most {most} bytes, got {size}")
    return size


def read_bytes(path: str | os.PathLike[str], most: int = MAX_BYTES) -> bytes:
    """A whole file of at most ``most`` bytes. Raises ``BadModelFile``."""
    file_size(path, most)
    try:
        with open(path, "rb") as stream:
            data = stream.read(most + 1)
    except OSError as error:
        raise BadModelFile(f"{os.fspath(path)}: cannot be read: {error.strerror or error}") from error
    need(len(data) <= most, os.fspath(path), f"wanted at most {most} bytes, got more")
    return data


def workshop(module: str) -> ModuleType:
    """A module of the extra ``workshop``. Raises ``ProviderUnavailable`` naming the extra."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ProviderUnavailable(
            f"importing this format needs {module.split('.')[0]}: pip install 'fastface[workshop]'"
        ) from error
