"""The head model: a linear shape model of a head, and its one file format.

A model is a mean mesh plus two linear bases (Blanz & Vetter, "A Morphable Model for the Synthesis of 3D
Faces", SIGGRAPH 1999, equations 1 and 2, with expressions as a second basis):

    ``vertices = mean + sum_k identity_k * identity basis_k + sum_e expression_e * expression basis_e``

File format, version 1: a compressed ``.npz`` (a zip of ``.npy`` arrays, never pickles) with the arrays of
``ARRAYS`` below. A file is untrusted until ``load`` has returned: sizes are checked before anything is
inflated, and every value after.
"""

from __future__ import annotations

import hashlib
import lzma
import os
import re
import struct
import zipfile
import zlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastface.atomic import whole_file
from fastface.errors import BadModelFile

FORMAT = "fastface-head-model"
VERSION = 1

MATERIALS = ("skin", "lips", "eyelids", "eyeballs", "teeth", "gums", "tongue", "mouth_interior", "other")

ARKIT_NAMES = (
    "browDownLeft", "browDownRight", "browInnerUp", "browOuterUpLeft", "browOuterUpRight", "cheekPuff",
    "cheekSquintLeft", "cheekSquintRight", "eyeBlinkLeft", "eyeBlinkRight", "eyeLookDownLeft",
    "eyeLookDownRight", "eyeLookInLeft", "eyeLookInRight", "eyeLookOutLeft", "eyeLookOutRight",
    "eyeLookUpLeft", "eyeLookUpRight", "eyeSquintLeft", "eyeSquintRight", "eyeWideLeft", "eyeWideRight",
    "jawForward", "jawLeft", "jawOpen", "jawRight", "mouthClose", "mouthDimpleLeft", "mouthDimpleRight",
    "mouthFrownLeft", "mouthFrownRight", "mouthFunnel", "mouthLeft", "mouthLowerDownLeft",
    "mouthLowerDownRight", "mouthPressLeft", "mouthPressRight", "mouthPucker", "mouthRight",
    "mouthRollLower", "mouthRollUpper", "mouthShrugLower", "mouthShrugUpper", "mouthSmileLeft",
    "mouthSmileRight", "mouthStretchLeft", "mouthStretchRight", "mouthUpperUpLeft", "mouthUpperUpRight",
    "noseSneerLeft", "noseSneerRight", "tongueOut",
)  # fmt: skip
"""Apple ARKit's 52 blend-shape locations, in the order MediaPipe's blendshape network gives them."""

MAX_VERTICES = 400_000
MAX_TRIANGLES = 800_000
MAX_MODES = 1_000
MAX_EXTENT_MM = 2_000.0
MAX_FILE_BYTES = 512 << 20
MAX_ARRAY_BYTES = 512 << 20
MAX_TOTAL_BYTES = 768 << 20
MAX_TEXT = 4_000
MAX_HEADER_BYTES = 2_000
_DAMAGE = (
    zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, EOFError, NotImplementedError, RuntimeError,
    ValueError, KeyError, OverflowError,
)  # fmt: skip
_KINDS = {"float": "f", "integer": "iu"}
_HEADER = re.compile(
    rb"\{'descr': '([<>|=]?[a-zA-Z]\d{0,6})', 'fortran_order': (True|False), "
    rb"'shape': \((|\d{1,12},|\d{1,12}(?:, \d{1,12}){1,4})\), \} *\n"
)

DEFAULT_MODEL = Path(__file__).parent / "assets" / "default_head.npz"


class ArraySpec(NamedTuple):
    """What one array of the file must be: element type ("float" and "integer": of any width), number of axes,
    and what it holds.
    """

    dtype: str
    axes: int
    meaning: str


#: What every ``.npz`` of ours says of itself.
SAYS: dict[str, ArraySpec] = {
    "format": ArraySpec("U", 0, "what the file is"),
    "version": ArraySpec("<i4", 0, "of its format"),
}
ARRAYS: dict[str, ArraySpec] = {
    **SAYS,
    "name": ArraySpec("U", 0, "short name"),
    "source": ArraySpec("U", 0, "where the data comes from"),
    "license": ArraySpec("U", 0, "SPDX identifier or a sentence"),
    "vertices": ArraySpec("<f4", 2, "(V, 3) mean neutral face, head space, mm"),
    "triangles": ArraySpec("<i4", 2, "(F, 3) vertex indices, counter-clockwise from outside"),
    "materials": ArraySpec("|u1", 1, "(F,) index into MATERIALS"),
    "identity": ArraySpec("<f2", 3, "(K, V, 3) mm per standard deviation"),
    "expression": ArraySpec("<f2", 3, "(E, V, 3) mm at coefficient 1"),
    "expression_names": ArraySpec("U", 1, "(E,) names out of ARKIT_NAMES"),
    "albedo": ArraySpec("|u1", 2, "(V, 3) sRGB"),
    "landmarks478_triangle": ArraySpec("<i4", 1, "(478,) triangle of each MediaPipe landmark"),
    "landmarks478_bary": ArraySpec("<f4", 2, "(478, 3) its barycentric weights"),
    "landmarks68_triangle": ArraySpec("<i4", 1, "(68,) triangle of each ibug landmark"),
    "landmarks68_bary": ArraySpec("<f4", 2, "(68, 3) its barycentric weights"),
    "mirror": ArraySpec("<i4", 1, "(V,) left-right vertex permutation, or (0,)"),
}


@dataclass(frozen=True)
class Correspondence:
    """Points on the surface: ``triangle (L,)`` int32 and ``bary (L, 3)`` float32 weights that sum to 1."""

    triangle: NDArray[np.int32]
    bary: NDArray[np.float32]

    def points(self, vertices: NDArray[np.float32], triangles: NDArray[np.int32]) -> NDArray[np.float32]:
        """Positions (L, 3) on a mesh of ``vertices (V, 3)`` and ``triangles (F, 3)``."""
        corners = vertices[triangles[self.triangle]]
        points: NDArray[np.float32] = np.einsum("lcx,lc->lx", corners, self.bary).astype(np.float32)
        return points


@dataclass(frozen=True)
class HeadModel:
    """A head that identity and expression coefficients deform linearly. Shapes and units as in ``ARRAYS``."""

    name: str
    source: str
    license: str
    vertices: NDArray[np.float32]
    triangles: NDArray[np.int32]
    materials: NDArray[np.uint8]
    identity: NDArray[np.float16]
    expression: NDArray[np.float16]
    expression_names: tuple[str, ...]
    albedo: NDArray[np.uint8]
    landmarks478: Correspondence
    landmarks68: Correspondence
    mirror: NDArray[np.int32]

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) of everything that decides the shape; a saved fit names its model by it."""
        state = hashlib.sha256()
        state.update("\n".join(self.expression_names).encode())
        for array in (self.vertices, self.triangles, self.materials, self.identity, self.expression):
            state.update(repr((array.shape, array.dtype.str)).encode())
            state.update(np.ascontiguousarray(array).tobytes())
        return state.hexdigest()

    def shaped(
        self, identity: NDArray[Any] | None = None, expression: NDArray[Any] | None = None
    ) -> NDArray[np.float32]:
        """Vertices (V, 3) in mm for coefficients ``identity (k <= K,)`` and ``expression (E,)``; None is all
        zero.
        """
        vertices = self.vertices.copy()
        for coefficients, basis in ((identity, self.identity), (expression, self.expression)):
            if coefficients is not None:
                used = basis[: len(coefficients)].astype(np.float32)
                vertices += np.tensordot(np.asarray(coefficients, np.float32), used, axes=1)
        return vertices

    def material_triangles(self, *names: str) -> NDArray[np.int64]:
        """Indices of the triangles whose material is one of ``names``."""
        wanted = [MATERIALS.index(name) for name in names]
        return np.flatnonzero(np.isin(self.materials, wanted))


# ------------------------------------------------------------------------------------------------ reading


def load(path: str | os.PathLike[str]) -> HeadModel:
    """Read and check a head model file; raises ``BadModelFile`` when anything about it is not as ``ARRAYS``
    says.
    """
    arrays = read_format(path, FORMAT, VERSION, ARRAYS)
    label = os.fspath(path)
    model = HeadModel(
        name=str(arrays["name"][()]),
        source=str(arrays["source"][()]),
        license=str(arrays["license"][()]),
        vertices=arrays["vertices"],
        triangles=arrays["triangles"],
        materials=arrays["materials"],
        identity=arrays["identity"],
        expression=arrays["expression"],
        expression_names=tuple(str(name) for name in arrays["expression_names"]),
        albedo=arrays["albedo"],
        landmarks478=Correspondence(arrays["landmarks478_triangle"], arrays["landmarks478_bary"]),
        landmarks68=Correspondence(arrays["landmarks68_triangle"], arrays["landmarks68_bary"]),
        mirror=arrays["mirror"],
    )
    validate(model, label)
    return model


def load_default() -> HeadModel:
    """The head model that ships with the package (CC0; see NOTICE)."""
    return load(DEFAULT_MODEL)


def read_arrays(path: str | os.PathLike[str], specs: dict[str, ArraySpec]) -> dict[str, NDArray[Any]]:
    """Read the arrays named in ``specs`` out of an untrusted ``.npz``.

    Declared sizes are checked before anything is inflated, element types and numbers of axes before anything
    is read, and no object (pickled) array is ever touched. Raises ``BadModelFile``.
    """
    label = os.fspath(path)
    try:
        size = os.stat(path).st_size
        if size > MAX_FILE_BYTES:
            raise BadModelFile(f"{label}: wanted at most {MAX_FILE_BYTES} bytes, got {size}")
        with zipfile.ZipFile(path) as archive:
            members = _checked_members(archive, specs, label)
            arrays = {}
            for key, spec in specs.items():
                with archive.open(members[key]) as stream:
                    arrays[key] = _read_array(stream, members[key].file_size, spec, f"{label}: {key}")
            return arrays
    except OSError as error:
        raise BadModelFile(f"{label}: cannot be read: {error.strerror or error}") from error
    except _DAMAGE as error:
        raise BadModelFile(f"{label}: wanted an undamaged .npz archive: {error!s:.200}") from error


def read_format(
    path: str | os.PathLike[str], format: str, version: int, specs: dict[str, ArraySpec]
) -> dict[str, NDArray[Any]]:
    """``read_arrays`` of a ``.npz`` that says what it is, in the arrays ``format`` and ``version``, which are
    looked at before the others. Raises ``BadModelFile``."""
    said = read_arrays(path, SAYS)
    found = str(said["format"][()])[:80], int(said["version"])
    if found != (format, version):
        raise BadModelFile(
            f"{os.fspath(path)}: wanted {format!r} version {version}, got {found[0]!r} version {found[1]}"
        )
    return read_arrays(path, {name: spec for name, spec in specs.items() if name not in SAYS})


def _checked_members(
    archive: zipfile.ZipFile, specs: dict[str, ArraySpec], label: str
) -> dict[str, zipfile.ZipInfo]:
    infos = archive.infolist()
    if len(infos) > 4 * len(ARRAYS):
        raise BadModelFile(f"{label}: wanted at most {4 * len(ARRAYS)} arrays, got {len(infos)}")
    members: dict[str, zipfile.ZipInfo] = {}
    for info in infos:
        key = info.filename.removesuffix(".npy")
        if key in members:
            raise BadModelFile(f"{label}: the array {key[:80]!r} is there twice")
        members[key] = info
    missing = [key for key in specs if key not in members]
    if missing:
        raise BadModelFile(f"{label}: wanted the arrays {', '.join(specs)}; missing: {', '.join(missing)}")
    sizes = [members[key].file_size for key in specs]
    if max(sizes) > MAX_ARRAY_BYTES or sum(sizes) > MAX_TOTAL_BYTES:
        raise BadModelFile(
            f"{label}: wanted at most {MAX_TOTAL_BYTES} bytes of arrays, the archive declares {sum(sizes)}"
        )
    return members


def _read_array(stream: IO[bytes], declared_bytes: int, spec: ArraySpec, label: str) -> NDArray[Any]:
    shape, fortran, dtype = _read_header(stream, label)
    if spec.dtype == "U":
        right_type = dtype.kind == "U" and dtype.itemsize <= 4 * MAX_TEXT
    else:
        right_type = dtype.str == spec.dtype or dtype.kind in _KINDS.get(spec.dtype, "")
    if not right_type or len(shape) != spec.axes or fortran:
        raise BadModelFile(
            f"{label}: wanted a C-ordered array of type {spec.dtype} with {spec.axes} axes ({spec.meaning}), "
            f"got {dtype.str} of shape {shape}{' in Fortran order' if fortran else ''}"
        )
    count = 1
    for length in shape:
        count *= length
    wanted_bytes = count * dtype.itemsize
    if wanted_bytes > declared_bytes:
        raise BadModelFile(
            f"{label}: its header promises {wanted_bytes} bytes, the archive holds {declared_bytes}"
        )
    data = stream.read(wanted_bytes)
    if len(data) != wanted_bytes or stream.read(1):
        got = "fewer" if len(data) < wanted_bytes else "more"
        raise BadModelFile(f"{label}: wanted {wanted_bytes} bytes of data, got {got}")
    if count == 0 or dtype.itemsize == 0:
        return np.zeros(shape, dtype)
    return np.frombuffer(data, dtype).reshape(shape).copy()


def _read_header(stream: IO[bytes], label: str) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, order and type out of a .npy header, by pattern: what numpy writes, and nothing evaluated."""
    start = stream.read(8)
    version = tuple(start[6:8])
    if start[:6] != b"\x93NUMPY" or version not in ((1, 0), (2, 0)):
        raise BadModelFile(f"{label}: wanted a .npy array of version 1 or 2, got {start[:8]!r}")
    width = 2 * version[0]
    length = int.from_bytes(stream.read(width), "little")
    if length > MAX_HEADER_BYTES:
        raise BadModelFile(f"{label}: wanted a header of at most {MAX_HEADER_BYTES} bytes, got {length}")
    header = stream.read(length)
    found = _HEADER.fullmatch(header)
    if found is None:
        raise BadModelFile(f"{label}: wanted a header of a plain array, got {header[:80]!r}")
    descr, order, shape = (group.decode() for group in found.groups())
    try:
        dtype = np.dtype(descr)
    except (TypeError, ValueError) as error:
        raise BadModelFile(f"{label}: wanted a type of numbers or text, got {descr!r}") from error
    return tuple(int(length) for length in re.findall(r"\d+", shape)), order == "True", dtype


# ------------------------------------------------------------------------------------------------ checking


def validate(model: HeadModel, label: str = "head model") -> None:
    """Check every shape, type, range and index of ``model``; raises ``BadModelFile`` naming the first that is
    wrong.
    """
    count = len(model.vertices)
    faces = len(model.triangles)
    modes = len(model.identity)
    names = model.expression_names

    def need(condition: bool | np.bool_, message: str) -> None:
        if not condition:
            raise BadModelFile(f"{label}: {message}")

    def array(value: NDArray[Any], field: str, dtype: str, shape: tuple[int, ...]) -> None:
        got = f"{value.dtype} {value.shape}"
        need(
            value.dtype == np.dtype(dtype) and value.shape == shape,
            f"{field} must be {dtype} {shape}, got {got}",
        )

    need(3 <= count <= MAX_VERTICES, f"wanted 3 to {MAX_VERTICES} vertices, got {count}")
    need(1 <= faces <= MAX_TRIANGLES, f"wanted 1 to {MAX_TRIANGLES} triangles, got {faces}")
    need(modes <= MAX_MODES, f"wanted at most {MAX_MODES} identity modes, got {modes}")
    array(model.vertices, "vertices", "float32", (count, 3))
    array(model.triangles, "triangles", "int32", (faces, 3))
    array(model.materials, "materials", "uint8", (faces,))
    array(model.identity, "identity", "float16", (modes, count, 3))
    array(model.expression, "expression", "float16", (len(names), count, 3))
    array(model.albedo, "albedo", "uint8", (count, 3))
    for field in ("vertices", "identity", "expression"):
        largest = _largest_magnitude(getattr(model, field))
        need(
            largest <= MAX_EXTENT_MM,
            f"{field} must be finite and within ±{MAX_EXTENT_MM:g} mm, got {largest}",
        )
    need(_within(model.triangles, count), f"triangles must index the {count} vertices, got one out of range")
    need(_within(model.materials, len(MATERIALS)), f"materials must be below {len(MATERIALS)}")
    need(len(set(names)) == len(names), "expression_names must differ from one another")
    unknown = [name for name in names if name not in ARKIT_NAMES]
    need(not unknown, f"expression_names must be ARKit's, got {[name[:40] for name in unknown[:3]]}")
    for field, length in (("landmarks478", 478), ("landmarks68", 68)):
        marks: Correspondence = getattr(model, field)
        array(marks.triangle, f"{field}.triangle", "int32", (length,))
        array(marks.bary, f"{field}.bary", "float32", (length, 3))
        need(_within(marks.triangle, faces), f"{field}.triangle must index the {faces} triangles")
        need(_is_barycentric(marks.bary), f"{field}.bary must be weights in [0, 1] that sum to 1")
    if len(model.mirror):
        array(model.mirror, "mirror", "int32", (count,))
        need(_within(model.mirror, count), f"mirror must index the {count} vertices")
        twice = model.mirror[model.mirror]
        need((twice == np.arange(count)).all(), "mirror must be its own inverse")
    for field in ("name", "source", "license"):
        text = getattr(model, field)
        need(0 < len(text) <= MAX_TEXT, f"{field} must have 1 to {MAX_TEXT} characters, got {len(text)}")


def _largest_magnitude(array: NDArray[Any]) -> float:
    """max |value|, or infinity when a value is not finite (NaN passes through min and max)."""
    if array.size == 0:
        return 0.0
    low, high = float(array.min()), float(array.max())
    return max(abs(low), abs(high)) if np.isfinite(low) and np.isfinite(high) else float("inf")


def _within(indices: NDArray[Any], limit: int) -> bool:
    return indices.size == 0 or (int(indices.min()) >= 0 and int(indices.max()) < limit)


def _is_barycentric(bary: NDArray[np.float32]) -> bool:
    finite = bool(np.isfinite(bary).all())
    return finite and bool((bary >= -1e-4).all()) and bool((np.abs(bary.sum(axis=1) - 1.0) < 1e-3).all())


# ------------------------------------------------------------------------------------------------ writing


def save(model: HeadModel, path: str | os.PathLike[str]) -> None:
    """Check ``model`` and write it: to a temporary file beside ``path`` first, then renamed.

    Raises ``BadModelFile`` when the model is not valid and ``WriteFailed`` when the file cannot be written.
    """
    validate(model)
    arrays: dict[str, Any] = {
        "format": np.array(FORMAT),
        "version": np.array(VERSION, np.int32),
        "expression_names": np.array(model.expression_names, dtype="U32"),
        "landmarks478_triangle": model.landmarks478.triangle,
        "landmarks478_bary": model.landmarks478.bary,
        "landmarks68_triangle": model.landmarks68.triangle,
        "landmarks68_bary": model.landmarks68.bary,
    }
    for field, spec in ARRAYS.items():
        if field not in arrays:
            value = getattr(model, field)
            arrays[field] = np.ascontiguousarray(value) if spec.axes else np.array(value)
    with whole_file(os.fspath(path)) as temporary, open(temporary, "wb") as stream:
        write_archive(stream, {field: arrays[field] for field in ARRAYS})


def write_archive(stream: IO[bytes], arrays: dict[str, NDArray[Any]]) -> None:
    """Write a compressed ``.npz`` whose bytes depend on the arrays alone (``numpy.savez`` stores the time of
    day).
    """
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for key, array in arrays.items():
            info = zipfile.ZipInfo(f"{key}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            info.compress_type = zipfile.ZIP_DEFLATED
            with archive.open(info, "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, version=(1, 0), allow_pickle=False)
