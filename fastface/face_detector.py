"""Where faces are: the short-range detector on a photo, on its tiles, upright or turned.

The detector (BlazeFace, Bazarevsky et al. 2019, arXiv:1907.05047) sees 128x128 pixels and finds faces whose
side is about an eighth of that or more. So the photo is searched in levels: whole, with a margin around it
(for faces larger than the photo), then cut into ever smaller overlapping tiles.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Image = NDArray[np.uint8]
RunDetector = Callable[[Float32], tuple[Float32, Float32]]
"""(1, 128, 128, 3) in [-1, 1] to boxes (1, 896, 16) and score logits (1, 896, 1)."""

_SIZE: Final = 128
_THRESHOLD: Final = 0.5
_OVERLAP: Final = 0.3  # two boxes whose intersection over union is larger show the same face

_CERTAIN: Final = 0.85  # faces upright and in plain sight score above 0.9, those upside down below 0.8
_MARGIN_SCALE: Final = 0.6  # size of the photo in the view that has a margin
_TILE_STEP: Final = 80  # leaves an overlap of 48, wider than the faces that only this level finds
_FINEST_SCALE: Final = 0.7  # detector pixels per photo pixel; finer would look for faces below about 30 px
_MOST_TILES: Final = 400  # per level


@dataclass(frozen=True)
class Detection:
    """A face's square box (`centre_px` is (2,)), the angle of its eye line in radians, and its score."""

    centre_px: Float64
    side_px: float
    angle: float
    score: float

    def repeats(self, other: Detection) -> bool:
        """Tell whether both see the same face at about the same angle."""
        turn = abs(math.remainder(self.angle - other.angle, 2 * math.pi))
        return turn < math.pi / 4 and self.overlap(other) > _OVERLAP

    def overlap(self, other: Detection) -> float:
        """Return the intersection over union of the two upright boxes."""
        reach = (self.side_px + other.side_px) / 2 - np.abs(self.centre_px - other.centre_px)
        reach = np.clip(reach, 0.0, min(self.side_px, other.side_px))
        shared = float(reach[0] * reach[1])
        return shared / (self.side_px**2 + other.side_px**2 - shared)


@dataclass(frozen=True)
class Level:
    """The photo shrunk by `scale` (detector pixels per photo pixel, x and y) and the corners of its tiles."""

    shrunk: Image
    scale: Float64
    corners: tuple[tuple[int, int], ...]

    @property
    def view_px(self) -> float:
        """Side of one tile in photo pixels."""
        return _SIZE / float(self.scale.max())


def levels(rgb: Image) -> Iterator[Level]:
    """Yield the levels of search, coarse to fine."""
    whole = _SIZE / max(rgb.shape[:2])
    yield _level(rgb, whole)
    yield _level(rgb, whole * _MARGIN_SCALE)
    scale = 2 * whole
    while scale <= _FINEST_SCALE:
        level = _level(rgb, scale)
        if len(level.corners) > _MOST_TILES:
            return
        yield level
        scale *= 2


def find(level: Level, turned: bool, run: RunDetector) -> list[Detection]:
    """The faces on all tiles of a level, best first; one face several times if its angle is in doubt.

    turned: look at every tile turned by 90, 180 and 270 degrees. Otherwise only at tiles with a doubtful one:
    the detector takes many faces that lie or stand on their head for upright ones, with low scores.
    """
    found: list[Detection] = []
    for corner in level.corners:
        here = [] if turned else _find_on_tile(level, corner, 0, run)
        if turned or any(detection.score < _CERTAIN for detection in here):
            here += [each for turns in (1, 2, 3) for each in _find_on_tile(level, corner, turns, run)]
        found += here
    found.sort(key=lambda detection: -detection.score)
    distinct: list[Detection] = []
    for detection in found:
        if not any(detection.repeats(other) for other in distinct):
            distinct.append(detection)
    return distinct


def _find_on_tile(level: Level, corner: tuple[int, int], turns: int, run: RunDetector) -> list[Detection]:
    """Return, in photo coordinates, the faces on one tile seen turned counter-clockwise by quarter turns."""
    boxes, logits = run(_tensor(level.shrunk, corner, turns))
    faces = _decode(boxes[0].astype(np.float64), logits[0, :, 0].astype(np.float64))
    return [_to_photo(box, eyes, score, level, corner, turns) for box, eyes, score in faces]


def _level(rgb: Image, scale: float) -> Level:
    height, width = rgb.shape[:2]
    size = max(1, round(width * scale)), max(1, round(height * scale))
    # INTER_AREA is a proper mean only when it shrinks; tiny photos are enlarged.
    shrunk = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    corners = tuple(product(_starts(size[0]), _starts(size[1])))
    return Level(np.asarray(shrunk, np.uint8), np.array([size[0] / width, size[1] / height]), corners)


def _starts(length: int) -> list[int]:
    """Return where tiles begin along a side: one centred tile, or steps with the last one flush."""
    if length <= _SIZE:
        return [(length - _SIZE) // 2]
    return [*range(0, length - _SIZE, _TILE_STEP), length - _SIZE]


def _tensor(shrunk: Image, corner: tuple[int, int], turns: int) -> Float32:
    """Cut a tile (black where it leaves the photo), turn it, and scale it to [-1, 1]."""
    x, y = corner
    tensor = np.full((_SIZE, _SIZE, 3), -1.0, np.float32)
    part = shrunk[max(y, 0) : y + _SIZE, max(x, 0) : x + _SIZE]
    top, left = max(-y, 0), max(-x, 0)
    tensor[top : top + part.shape[0], left : left + part.shape[1]] = part * np.float32(1 / 127.5) - 1
    return np.ascontiguousarray(np.rot90(tensor, turns))[None]


def _anchors() -> Float64:
    """Return the (896, 2) anchor centres in [0, 1]: two a cell of a 16x16 grid, then six a cell of 8x8."""
    grids = []
    for cells, repeats in ((16, 2), (8, 6)):
        y, x = np.mgrid[:cells, :cells]
        centres = np.stack([x.ravel() + 0.5, y.ravel() + 0.5], axis=1) / cells
        grids.append(np.repeat(centres, repeats, axis=0))
    return np.concatenate(grids)


_ANCHORS: Final = _anchors()


def _decode(boxes: Float64, logits: Float64) -> Iterator[tuple[Float64, Float64, float]]:
    """Yield box (left, top, right, bottom), eyes (2, 2) and score of each face, in pixels of the tile.

    Overlapping detections are averaged with their scores as weights (BlazeFace, section 3.4).
    """
    scores = 1 / (1 + np.exp(-np.clip(logits, -100, 100)))
    kept = np.flatnonzero(scores >= _THRESHOLD)
    kept = kept[np.argsort(-scores[kept], kind="stable")]
    scores = scores[kept]
    offset = _ANCHORS[kept] * _SIZE
    centre, half = boxes[kept, 0:2] + offset, boxes[kept, 2:4] / 2
    corners = np.concatenate([centre - half, centre + half], axis=1)
    eyes = boxes[kept, 4:8].reshape(-1, 2, 2) + offset[:, None]
    open_ = np.all(np.isfinite(corners), axis=1) & np.all(half > 0, axis=1)
    while open_.any():
        best = int(np.argmax(open_))
        group = open_ & (_overlaps(corners, corners[best]) > _OVERLAP)
        weights = scores[group] / scores[group].sum()
        yield weights @ corners[group], np.tensordot(weights, eyes[group], 1), float(scores[best])
        open_ &= ~group


def _overlaps(boxes: Float64, box: Float64) -> Float64:
    """Return the intersection over union of each box with one of them."""
    reach = np.minimum(boxes[:, 2:], box[2:]) - np.maximum(boxes[:, :2], box[:2])
    shared = np.prod(np.clip(reach, 0, None), axis=1)
    areas = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    return np.asarray(shared / (areas + np.prod(box[2:] - box[:2]) - shared))


def _to_photo(
    box: Float64, eyes: Float64, score: float, level: Level, corner: tuple[int, int], turns: int
) -> Detection:
    """Turn a detection back and carry it from tile pixels to photo pixels."""
    points = np.concatenate([(box[:2] + box[2:])[None] / 2, eyes])
    for _ in range(turns):
        points = np.column_stack([_SIZE - points[:, 1], points[:, 0]])
    points = (points + np.array(corner)) / level.scale
    across = points[2] - points[1]
    side = float((box[2:] - box[:2]).max() / level.scale.min())
    return Detection(points[0], side, float(np.arctan2(across[1], across[0])), score)
