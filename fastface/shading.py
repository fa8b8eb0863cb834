"""What ``ops.shade`` needs of a face in the order it is read in: put so once for a face, not for a frame."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fastface.errors import BadArgument
from fastface.lighting import harmonics
from fastface.reference import GAMMA, LIT_LEAST, PAINTED, SKIN, Shading

Float32 = NDArray[np.float32]
Int32 = NDArray[np.int32]
Image = NDArray[np.uint8]

SHADE_BLOCK: Final = 16  # kShadeBlock in csrc/ops/shade.h
SHADE_BORDER: Final = 2  # kShadeBorder there
SHADE_FOLD_BLOCK: Final = 8  # kShadeFoldBlock there


@dataclass(frozen=True)
class PreparedShading:
    """A ``Shading`` as the compiled op reads it; csrc/ops/shade.h says what each array is."""

    triangles: Int32  # (F, 3)
    layer: NDArray[np.uint8]  # (F,)
    rest_px: Float32  # (V, 2)
    shift_px: Float32  # (S, V, 2)
    faces: Int32  # (T, 3)
    lit: Int32  # (L,)
    lit_fan_start: Int32
    lit_fans: Int32
    lit_relief: Float32  # (L,)
    lit_rest_log: Float32  # (L,)
    painted: Int32  # (P,)
    painted_fan_start: Int32
    painted_fans: Int32
    paint_linear: Float32  # (P, 3)
    lip_rim: Int32  # (2, R)
    light: Float32  # (9,)
    photo_rgb: Image  # (H, W, 3)
    photo: Image  # (H + 3, W + 4, 8)
    eyes: Image  # (H + 3, W + 4, 8)
    folds: Float32  # (D, H + 4, W + 4)
    fold_box: Int32  # (D, 4)
    fold_block: NDArray[np.uint8]  # (D, ⌈(H + 4) / 8⌉, ⌈(W + 4) / 8⌉)
    lit_faces: int


def prepare_shading(shading: Shading) -> PreparedShading:
    """Check a face's ``Shading`` and put it in order. Raises ``BadArgument``."""
    _check(shading)
    s = shading
    vertices = len(s.rest_px)
    lit = (s.relief != 0) & _corners(s.triangles[s.layer == SKIN], vertices)
    painted = _corners(s.triangles[s.layer == PAINTED], vertices)
    fan_vertex = np.repeat(np.arange(vertices), np.diff(s.fan_start))
    needed = np.zeros((2, len(s.triangles)), bool)
    needed[0, s.fans[lit[fan_vertex]]] = True
    needed[1, s.fans[painted[fan_vertex]]] = True
    of_lit, of_painted = np.flatnonzero(needed[0]), np.flatnonzero(needed[1] & ~needed[0])
    chosen = np.concatenate([of_lit, of_painted])
    place = np.zeros(len(s.triangles), np.int32)
    place[chosen] = np.arange(len(chosen), dtype=np.int32)
    lit_list, lit_start, lit_fans = _fan_list(lit, s.fan_start, s.fans, place)
    painted_list, painted_start, painted_fans = _fan_list(painted, s.fan_start, s.fans, place)
    rest = np.maximum(harmonics(s.rest_normal[lit_list]) @ s.light, LIT_LEAST)
    folds, boxes = _bordered_folds(s.folds)
    return PreparedShading(
        triangles=s.triangles.copy(),  # its indices stay as they were checked
        layer=s.layer,
        rest_px=s.rest_px,
        shift_px=s.shift_px,
        faces=np.ascontiguousarray(s.triangles[chosen]),
        lit=lit_list,
        lit_fan_start=lit_start,
        lit_fans=lit_fans,
        lit_relief=(s.relief[lit_list] / np.float32(GAMMA)).astype(np.float32),
        lit_rest_log=np.log(rest).astype(np.float32),
        painted=painted_list,
        painted_fan_start=painted_start,
        painted_fans=painted_fans,
        paint_linear=np.ascontiguousarray(s.paint_linear[painted_list]),
        lip_rim=s.lip_rim.copy(),
        light=s.light,
        photo_rgb=np.ascontiguousarray(s.photo[:, :, :3]),
        photo=_row_pairs(_bordered(s.photo)),
        eyes=_row_pairs(_bordered(s.eyes)),
        folds=folds,
        fold_box=boxes,
        fold_block=_blocks(folds, boxes),
        lit_faces=len(of_lit),
    )


def _corners(triangles: Int32, vertices: int) -> NDArray[np.bool_]:
    marked = np.zeros(vertices, bool)
    marked[triangles] = True
    return marked


def _fan_list(
    chosen: NDArray[np.bool_], fan_start: Int32, fans: Int32, place: Int32
) -> tuple[Int32, Int32, Int32]:
    """Vertices by size of fan, so that loops over fans are as long as the last one; and those fans."""
    size = np.diff(fan_start)
    order = np.flatnonzero(chosen)
    order = order[np.argsort(size[order], kind="stable")]
    if len(order):
        order = np.pad(order, (0, -len(order) % SHADE_BLOCK), mode="edge")
    start = np.zeros(len(order) + 1, np.int32)
    np.cumsum(size[order], out=start[1:])
    row = np.arange(start[-1], dtype=np.int64) + np.repeat(fan_start[order] - start[:-1], size[order])
    return order.astype(np.int32), start, place[fans[row]]


def _bordered(image: NDArray[Any]) -> NDArray[Any]:
    """(H, W, …) with its borders repeated, so that no sample needs to look where it is."""
    width = [(SHADE_BORDER, SHADE_BORDER)] * 2 + [(0, 0)] * (image.ndim - 2)
    return np.ascontiguousarray(np.pad(image, width, mode="edge"))


def _bordered_folds(folds: Float32) -> tuple[Float32, Int32]:
    """Folds with borders repeated, and (D, 4) first row and column, end row and column of what is not 0.

    A fold is a small part of its map: the rest is never touched, so it takes neither time nor memory.
    """
    count, height, width = folds.shape
    bordered = np.zeros((count, height + 2 * SHADE_BORDER, width + 2 * SHADE_BORDER), np.float32)
    boxes = np.zeros((count, 4), np.int32)
    for fold, map_, box in zip(folds, bordered, boxes, strict=True):
        rows, columns = np.flatnonzero(fold.any(1)), np.flatnonzero(fold.any(0))
        if not len(rows):
            continue
        top, left, end_row, end_column = rows[0], columns[0], rows[-1] + 1, columns[-1] + 1
        above, below = SHADE_BORDER * (top == 0), SHADE_BORDER * (end_row == height)
        before, behind = SHADE_BORDER * (left == 0), SHADE_BORDER * (end_column == width)
        part = np.pad(fold[top:end_row, left:end_column], ((above, below), (before, behind)), mode="edge")
        box[:2] = top + SHADE_BORDER - above, left + SHADE_BORDER - before
        box[2:] = box[:2] + part.shape
        map_[box[0] : box[2], box[1] : box[3]] = part
    return bordered, boxes


def _row_pairs(image: Image) -> Image:
    """(H, W, 4) → (H - 1, W, 8): each byte and the one below it side by side."""
    pairs = np.stack([image[:-1], image[1:]], axis=-1)
    return pairs.reshape(*pairs.shape[:2], 8)


def _blocks(folds: Float32, boxes: Int32) -> NDArray[np.uint8]:
    """Where the 4 × 4 pixels from one in a block on are not all 0."""
    count, height, width = folds.shape
    size = SHADE_FOLD_BLOCK
    blocks = np.zeros((count, -(-height // size), -(-width // size)), np.uint8)
    for block, fold, (top, left, end_row, end_column) in zip(blocks, folds, boxes, strict=True):
        rows, columns = np.nonzero(fold[top:end_row, left:end_column])
        for back in (0, 3):  # of the pixels that a sample reads, the first and the last
            for before in (0, 3):
                row, column = np.maximum(rows + top - back, 0), np.maximum(columns + left - before, 0)
                block[row // size, column // size] = 1
    return blocks


# ---- checks

_FORMATS: Final[dict[str, tuple[str, type]]] = {
    "triangles": ("F 3", np.int32),
    "layer": ("F", np.uint8),
    "rest_px": ("V 2", np.float32),
    "shift_px": ("S V 2", np.float32),
    "fan_start": ("V+1", np.int32),
    "fans": ("N", np.int32),
    "rest_normal": ("V 3", np.float32),
    "light": ("9", np.float32),
    "relief": ("V", np.float32),
    "paint_linear": ("V 3", np.float32),
    "lip_rim": ("2 R", np.int32),
    "photo": ("H W 4", np.uint8),
    "eyes": ("H W 4", np.uint8),
    "folds": ("D H W", np.float32),
}


def _check(shading: Shading) -> None:
    if not isinstance(shading, Shading):
        raise BadArgument(f"shade: shading must be a Shading, got {type(shading).__name__}")
    sizes: dict[str, int] = {}
    for name in ("rest_px", *_FORMATS):  # V before V + 1
        _check_array(name, getattr(shading, name), *_FORMATS[name], sizes)
    s = shading
    for name, indices, end in (
        ("triangles", s.triangles, sizes["V"]),
        ("lip_rim", s.lip_rim, sizes["V"]),
        ("fans", s.fans, sizes["F"]),
        ("layer", s.layer, PAINTED + 1),
    ):
        if indices.size and not (indices.min() >= 0 and indices.max() < end):
            raise BadArgument(
                f"shade: {name} must lie in 0 … {end - 1}, got {indices.min()} … {indices.max()}"
            )
    if s.fan_start[0] != 0 or s.fan_start[-1] != len(s.fans) or (np.diff(s.fan_start) < 0).any():
        raise BadArgument(f"shade: fan_start must rise from 0 to {len(s.fans)}")
    if sizes["R"] < 2 or not 1 <= sizes["H"] <= 32767 or not 1 <= sizes["W"] <= 32767:
        got = f"{sizes['R']} and {sizes['H']} × {sizes['W']}"
        raise BadArgument(
            f"shade: lip_rim must have at least 2 columns and photo 1 … 32767 px a side, got {got}"
        )


def _check_array(name: str, value: object, shape: str, dtype: type, sizes: dict[str, int]) -> None:
    letters = shape.split()
    wanted: list[Any] = []
    fits = isinstance(value, np.ndarray) and value.dtype == dtype and value.ndim == len(letters)
    got = f"{value.shape} {value.dtype}" if isinstance(value, np.ndarray) else type(value).__name__
    for axis, letter in enumerate(letters):
        if letter.isdigit():
            size: int | None = int(letter)
        elif letter == "V+1":
            size = sizes["V"] + 1
        else:
            if fits and isinstance(value, np.ndarray):
                sizes.setdefault(letter, value.shape[axis])
            size = sizes.get(letter)
        wanted.append(letter if size is None else size)
        fits = fits and isinstance(value, np.ndarray) and value.shape[axis] == size
    if not fits or not isinstance(value, np.ndarray):
        words = ", ".join(str(size) for size in wanted)
        raise BadArgument(f"shade: {name} must be ({words}) {np.dtype(dtype)}, got {got}")
    if not value.flags.c_contiguous:
        raise BadArgument(f"shade: {name} must be C-contiguous")
    if value.dtype.kind == "f" and not np.isfinite(value).all():
        raise BadArgument(f"shade: {name} must be finite")
