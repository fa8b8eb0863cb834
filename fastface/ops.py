"""The ops of a frame: deform, rasterize, shade and blend, on NumPy arrays or on arrays of one device.

Each has a plain twin of the same name and arguments in ``fastface.reference``. Arrays are C-contiguous
and of the stated dtype; nothing is converted in silence, and what does not fit raises ``BadArgument``.
With ``out=`` and a ``workspace`` that is kept between calls nothing is allocated. Results do not depend
on ``threads``. Axes, units and pixel centres: CONVENTIONS.md.

Where the arrays lie the work is done: all of a call's in one place, NumPy's or a device's
(``fastface.device``, or what torch and CuPy hold on a GPU). On a device a call enqueues its work on
``stream`` and returns; ``threads`` means nothing there, and triangles with an index out of range are
dropped, since nothing waits to report them. Annotations say ``NDArray``; ``DeviceArray`` goes in its place.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastface import _core
from fastface._core import DeviceArray, DeviceWorkspace
from fastface.errors import BadArgument
from fastface.reference import Shading
from fastface.shading import PreparedShading, prepare_shading

__all__ = [
    "DEFORM_BLOCK",
    "Blended",
    "Deformed",
    "PackedBasis",
    "PreparedShading",
    "Raster",
    "Shaded",
    "Shading",
    "Workspace",
    "blend",
    "deform",
    "face_arguments",
    "pack_basis",
    "prepare_shading",
    "rasterize",
    "shade",
]

DEFORM_BLOCK = 64  # kDeformBlock in csrc/ops/deform.h

Workspace = _core.Workspace
"""Scratch memory of the ops. Grows to the largest need it has met; for one thread at a time. On a device it
is a ``DeviceWorkspace``, for one stream at a time."""

AnyWorkspace = _core.Workspace | DeviceWorkspace

_default = threading.local()


def _workspace(like: object, given: AnyWorkspace | None) -> AnyWorkspace:
    if given is not None:
        return given
    kept: dict[str, AnyWorkspace] = _default.__dict__.setdefault("workspaces", {})
    kind = like.device.kind if isinstance(like, DeviceArray) else "cpu"
    if kind not in kept:
        kept[kind] = DeviceWorkspace(like.device) if isinstance(like, DeviceArray) else Workspace()
    return kept[kind]


def _array(op: str, name: str, value: Any, ndim: int) -> Any:
    """A NumPy array as it is; what another library holds on a GPU as a ``DeviceArray``."""
    found = value
    if is_on_gpu(value):
        found = _core.open_device("cuda").adopt(value)
    if not isinstance(found, (np.ndarray, DeviceArray)) or found.ndim != ndim:
        got = f"{found.shape} {found.dtype}" if hasattr(found, "dtype") else type(value).__name__
        raise BadArgument(f"{op}: {name} must be an array of {ndim} dimensions, got {got}")
    return found


def is_on_gpu(value: Any) -> bool:
    """Whether another library holds it in a GPU's memory, by what it says for DLPack."""
    if isinstance(value, (np.ndarray, DeviceArray)):
        return False
    place = getattr(value, "__dlpack_device__", None)
    return place is not None and int(place()[0]) == 2  # kDLCUDA


def _empty(like: Any, shape: tuple[int, ...], dtype: type) -> Any:
    """A new array where ``like`` lies."""
    if isinstance(like, DeviceArray):
        return like.device.empty(shape, dtype)
    return np.empty(shape, dtype)


def _run(op: str, like: Any, *arguments: Any, stream: Any, workspace: AnyWorkspace | None) -> None:
    """The compiled op where ``like`` lies."""
    scratch = _workspace(like, workspace)
    if isinstance(like, DeviceArray):
        taken = (like.device.adopt(value, stream) if is_on_gpu(value) else value for value in arguments)
        getattr(like.device, op)(stream, *taken, scratch)
    else:
        getattr(_core, op)(*arguments, scratch)


def _image_size(op: str, height: int, width: int) -> None:
    for name, size in (("height", height), ("width", width)):
        if not isinstance(size, (int, np.integer)) or not 0 <= size <= 32767:
            raise BadArgument(f"{op}: {name} must be an integer in 0 … 32767, got {size!r}")


@dataclass(frozen=True)
class PackedBasis:
    """A basis in the order ``deform`` reads it: by block of 64 vertices, then mode, then coordinate."""

    blocks: NDArray[Any]  # (N, K, 3, 64) float32 or float16
    moves: NDArray[np.uint8]  # (N, K): 0 where a mode moves no vertex of a block, which then costs nothing
    vertices: int


def pack_basis(basis: NDArray[Any], *, dtype: type | None = None, drop_below_mm: float = 0.0) -> PackedBasis:
    """Reorder ``basis (K, V, 3)`` (float16 or float32, mm in camera space) for ``deform``.

    ``dtype`` changes its precision: float16 halves what a single frame must read. Blocks of 64 vertices
    in which no coordinate of a mode exceeds ``drop_below_mm`` are skipped by ``deform``.
    """
    basis = _array("pack_basis", "basis", basis, 3)
    target = np.dtype(basis.dtype if dtype is None else dtype)
    if target not in (np.float16, np.float32) or basis.shape[2] != 3 or basis.dtype.kind != "f":
        got = f"{basis.shape} {basis.dtype}"
        raise BadArgument(f"pack_basis: basis must be (K, V, 3) float32 or float16, got {got}")
    modes, vertices, _ = basis.shape
    count = -(-vertices // DEFORM_BLOCK)
    size = np.abs(basis)
    with np.errstate(over="ignore"):
        if not np.isfinite(np.asarray(size.max(initial=0.0)).astype(target)):
            raise BadArgument(f"pack_basis: basis must be finite in {target}")
    blocks = np.zeros((count, modes, 3, DEFORM_BLOCK), target)
    moves = np.zeros((count, modes), np.uint8)
    whole = vertices // DEFORM_BLOCK
    for first, blocks_at_once in ((0, whole), (whole, count - whole)):
        start, end = first * DEFORM_BLOCK, min((first + blocks_at_once) * DEFORM_BLOCK, vertices)
        if start == end:
            continue
        split = 3, modes, blocks_at_once, (end - start) // blocks_at_once
        planes, sizes = (part.transpose(2, 0, 1)[:, :, start:end].reshape(split) for part in (basis, size))
        some = slice(first, first + blocks_at_once)
        blocks[some, :, :, : split[3]] = planes.transpose(2, 1, 0, 3)
        moves[some] = (sizes.max(axis=(0, 3)) > drop_below_mm).T
    return PackedBasis(blocks, moves, vertices)


class Deformed(NamedTuple):
    positions: NDArray[np.float32]  # (B, V, 3) camera space, mm
    screen: NDArray[np.float32]  # (B, V, 3) x_px, y_px, Z_mm


def deform(
    neutral: NDArray[np.float32],
    basis: PackedBasis | NDArray[Any],
    coefficients: NDArray[np.float32],
    camera: NDArray[np.float32],
    *,
    near_mm: float = 1.0,
    out: Deformed | tuple[NDArray[np.float32], NDArray[np.float32]] | None = None,
    threads: int = 1,
    workspace: AnyWorkspace | None = None,
    stream: Any = None,
) -> Deformed:
    """Add the weighted modes to the neutral mesh and project it.

    ``neutral (V, 3)`` and ``basis (K, V, 3)`` are in camera space already (rotated; ``neutral`` translated
    too), mm. ``coefficients (B, K)`` float32; zeros cost nothing. ``camera (B, 3)`` or ``(1, 3)`` float32:
    f_px, c_x, c_y. A vertex with Z <= ``near_mm`` gets the screen position (0, 0, 0), which ``rasterize``
    rejects. Give a ``PackedBasis`` wherever speed matters: a plain array is packed on every call.
    """
    neutral = _array("deform", "neutral", neutral, 2)
    if not isinstance(basis, PackedBasis):
        basis = pack_basis(basis)
    coefficients = _array("deform", "coefficients", coefficients, 2)
    camera = _array("deform", "camera", camera, 2)
    vertices, frames = len(neutral), len(coefficients)
    if basis.vertices != vertices:
        raise BadArgument(f"deform: basis must have {vertices} vertices like neutral, got {basis.vertices}")
    if len(camera) not in (1, frames):
        got = f"{camera.shape} {camera.dtype}"
        raise BadArgument(f"deform: camera must be ({frames}, 3) or (1, 3) float32, got {got}")
    if out is None:
        shape = (frames, vertices, 3)
        out = Deformed(_empty(neutral, shape, np.float32), _empty(neutral, shape, np.float32))
    positions, screen = out
    model = (neutral, basis.blocks, basis.moves)
    frame = (coefficients, camera, positions, screen, near_mm, threads)
    _run("deform", neutral, *model, *frame, stream=stream, workspace=workspace)
    return Deformed(positions, screen)


class Raster(NamedTuple):
    triangle_id: NDArray[np.int32]  # (B, H, W), -1 where no triangle is
    bary: NDArray[np.float32]  # (B, H, W, 2) weights of the second and third vertex, linear in screen space
    depth: NDArray[np.float32] | None  # (B, H, W), infinite where no triangle is


def rasterize(
    screen: NDArray[np.float32],
    triangles: NDArray[np.int32],
    height: int,
    width: int,
    *,
    cull_backfaces: bool = False,
    depth: bool = False,
    out: Raster | tuple[NDArray[Any], NDArray[Any], NDArray[Any] | None] | None = None,
    threads: int = 1,
    workspace: AnyWorkspace | None = None,
    stream: Any = None,
) -> Raster:
    """Find the nearest triangle at every pixel centre, and its barycentric coordinates.

    ``screen (B, V, 3)`` float32: x_px, y_px, Z > 0; ``triangles (F, 3)`` int32. The fill rule is that of
    CONVENTIONS.md: 1/256 px fixed point, top-left, nearest Z (linear in screen space), then lowest index.
    Triangles without area, with a corner that is not finite, beyond 2^40 px or at Z <= 0 are dropped; with
    ``cull_backfaces`` also those that are clockwise to the viewer. ``depth`` asks for the Z of the winner.
    The results are the same bit for bit on every machine.
    """
    screen = _array("rasterize", "screen", screen, 3)
    _image_size("rasterize", height, width)
    if out is None:
        shape = (len(screen), int(height), int(width))
        z = _empty(screen, shape, np.float32) if depth else None
        out = Raster(_empty(screen, shape, np.int32), _empty(screen, (*shape, 2), np.float32), z)
    triangle_id, bary, z = out
    if np.shape(triangle_id) != (len(screen), height, width):
        wanted, got = (len(screen), height, width), np.shape(triangle_id)
        raise BadArgument(f"rasterize: triangle_id must be {wanted} int32, got {got}")
    arguments = (screen, triangles, triangle_id, bary, z, int(cull_backfaces), threads)
    _run("rasterize", screen, *arguments, stream=stream, workspace=workspace)
    return Raster(triangle_id, bary, z)


class Shaded(NamedTuple):
    source: NDArray[np.float32]  # (B, H, W, 3) grey levels
    mask: NDArray[np.uint8]  # (B, H, W) 1 where the source is not the photo


def shade(
    positions: NDArray[np.float32],
    screen: NDArray[np.float32],
    triangle_id: NDArray[np.int32],
    bary: NDArray[np.float32],
    controls: NDArray[np.float32],
    shading: PreparedShading | Shading,
    *,
    out: Shaded | tuple[NDArray[np.float32], NDArray[np.uint8]] | None = None,
    threads: int = 1,
    workspace: AnyWorkspace | None = None,
    stream: Any = None,
) -> Shaded:
    """Colour every pixel of a deformed face from its photo.

    ``positions`` and ``screen (B, V, 3)`` are ``deform``'s, ``triangle_id (B, H, W)`` and ``bary (B, H, W,
    2)`` ``rasterize``'s. ``controls (B, S + 3 + D)`` float32: weights of the shifts; shares in 0 … 1 of the
    left bare eye, of the right one and of the painted mouth; weights of the folds. Where nothing moves the
    source is the photo, bit for bit, and the mask 0. A triangle index that is none of the face's is no
    triangle; values that are not finite spoil only the pixels they touch. Give ``prepare_shading``'s result
    wherever speed matters: a plain ``Shading`` is prepared on every call.
    """
    s = shading if isinstance(shading, PreparedShading) else prepare_shading(shading)
    positions = _array("shade", "positions", positions, 3)
    controls = _array("shade", "controls", controls, 2)
    triangle_id = _array("shade", "triangle_id", triangle_id, 3)
    wanted = len(s.shift_px) + 3 + len(s.folds)
    if controls.shape[1] != wanted:
        got = f"{controls.shape} {controls.dtype}"
        raise BadArgument(f"shade: controls must be ({len(controls)}, {wanted}) float32, got {got}")
    if out is None:
        shape = triangle_id.shape
        out = Shaded(_empty(positions, (*shape, 3), np.float32), _empty(positions, shape, np.uint8))
    source, mask = out
    frame = (positions, screen, triangle_id, bary, controls)
    arguments = (*frame, *face_arguments(s), source, mask, s.lit_faces, threads)
    _run("shade", positions, *arguments, stream=stream, workspace=workspace)
    return Shaded(source, mask)


def face_arguments(s: PreparedShading) -> tuple[NDArray[Any], ...]:
    """A face's arrays in the order of ``describe_face`` in csrc/ops/shade.h."""
    mesh = (s.triangles, s.layer, s.rest_px, s.shift_px, s.faces)
    lit = (s.lit, s.lit_fan_start, s.lit_fans, s.lit_relief, s.lit_rest_log)
    paint = (s.painted, s.painted_fan_start, s.painted_fans, s.paint_linear, s.lip_rim, s.light)
    images = (s.photo_rgb, s.photo, s.eyes, s.folds, s.fold_box, s.fold_block)
    return (*mesh, *lit, *paint, *images)


class Blended(NamedTuple):
    image: NDArray[np.uint8]  # (B, H, W, 3)
    exact: NDArray[np.float32] | None  # (B, H, W, 3) before rounding


def blend(
    photo: NDArray[np.uint8],
    source: NDArray[np.float32],
    mask: NDArray[np.uint8],
    *,
    tolerance: float = 0.25,
    exact: bool = False,
    out: Blended | tuple[NDArray[np.uint8], NDArray[np.float32] | None] | None = None,
    threads: int = 1,
    workspace: AnyWorkspace | None = None,
    stream: Any = None,
) -> Blended:
    """Paste ``source`` into ``photo`` where ``mask`` is not 0, keeping its gradients (Poisson blending).

    ``photo (H, W, 3)`` or ``(B, H, W, 3)`` uint8, ``source (B, H, W, 3)`` float32 grey levels,
    ``mask (B, H, W)`` uint8. Solves the exact masked problem (csrc/ops/blend.h states it) to within
    ``tolerance`` grey levels; pixels outside the mask are the photo's, bit for bit. ``source`` must be right
    on the mask and on the ring of pixels around it. There, a value that is not finite counts as the photo's;
    inside, NaN becomes 0. A mask without an outside, the whole image, gives ``source``. ``exact`` asks for
    the solution before rounding and clamping too.
    """
    source = _array("blend", "source", source, 4)
    if getattr(photo, "ndim", 0) == 3:
        photo = photo[None]
    photo = _array("blend", "photo", photo, 4)
    frames, height, width = source.shape[:3]
    _image_size("blend", height, width)
    if len(photo) not in (1, frames):
        got = f"{photo.shape} {photo.dtype}"
        raise BadArgument(f"blend: photo must be ({frames}, H, W, 3) or (H, W, 3) uint8, got {got}")
    if not 0 < tolerance < np.inf:
        raise BadArgument(f"blend: tolerance must be positive, got {tolerance!r}")
    if out is None:
        whole = _empty(source, source.shape, np.float32) if exact else None
        out = Blended(_empty(source, source.shape, np.uint8), whole)
    image, whole = out
    arguments = (photo, source, mask, image, whole, tolerance, threads)
    _run("blend", source, *arguments, stream=stream, workspace=workspace)
    return Blended(image, whole)
