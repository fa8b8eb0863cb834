"""Folds of the skin that are finer than a head's mesh, as shading in the photo's own place.

Where muscles bunch the skin, it folds at right angles to their pull: the nasolabial fold (AU12, AU10, AU9),
furrows between the brows (AU4), lines of the forehead (AU1, AU2), across the root of the nose (AU9), at the
outer corners of the eyes (AU6), below the lids (AU6, AU7), under the lip (AU17) and at the mouth's corners
(AU15); P. Ekman et al., *Facial Action Coding System*, 2002, appearance changes of each unit. A fold is a
curve through landmarks with a profile across it: a dark groove and a soft bright shoulder, which is what
light from the whole hemisphere makes of a crease. Its map is drawn once a photo and moves with the skin.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fastface.landmark_tables import MIRROR478

Float32 = NDArray[np.float32]
#: A point: one landmark, or (a, b, t) for a + t (b - a), t beyond [0, 1] too.
Point = int | tuple[int, int, float]


@dataclass(frozen=True)
class Fold:
    """``curves`` on the subject's right half or across the face; widths in outer-eye distances.

    ``drivers``: coefficient → weight, without a side where the shape has two; ``depth``: log gain in the
    groove at full strength; ``shoulder``: share of it that comes back beside the groove, on the curve's left;
    ``slope``: how many times wider the groove runs out on its right, where the skin beneath a bulge lies in
    its shade; ``joins``: the curve's start runs into another feature and does not fade.
    """

    curves: tuple[tuple[Point, ...], ...]
    drivers: dict[str, float]
    depth: float
    width: float
    shoulder: float = 0.3
    sided: bool = True
    slope: float = 1.0
    joins: bool = False


_BROW_TO_HAIR: Final = ((105, 103), (66, 67), (107, 109), (9, 10), (336, 338), (296, 297), (334, 332))
FOLDS: Final = (
    Fold(
        ((129, (129, 203, 0.8), 206, 216, (216, 212, 0.75)),),
        {
            "mouthSmile": 0.5,
            "mouthUpperUp": 0.45,
            "noseSneer": 0.8,
            "mouthStretch": 0.35,
            "mouthDimple": 0.15,
        },
        0.17,
        0.018,
        slope=1.5,
        joins=True,
    ),
    Fold(
        (
            ((33, 133, -0.17), (33, 226, 1.4), (33, 127, 0.55)),
            ((33, 133, -0.2), (33, 127, 0.42), (33, 127, 0.62)),
            ((33, 133, -0.15), (33, 227, 0.28), (33, 227, 0.42)),
        ),
        {"cheekSquint": 0.8, "eyeSquint": 0.35, "mouthSmile": 0.2},
        0.13,
        0.008,
    ),
    Fold(
        (((31, 228, 0.2), 229, 230, (231, 232, 0.5)),),
        {"cheekSquint": 0.8, "eyeSquint": 0.5, "noseSneer": 0.3},
        0.13,
        0.012,
    ),
    Fold(
        (((61, 291, -0.05), (61, 43, 0.6), (43, 204, 0.7)),),
        {"mouthFrown": 0.8, "mouthStretch": 0.2, "mouthShrugLower": 0.2},
        0.12,
        0.017,
    ),
    Fold(
        (((9, 107, 0.55), (8, 55, 0.55), (168, 193, 0.55)),),
        {"browDown": 0.8, "noseSneer": 0.35},
        0.26,
        0.011,
    ),
    Fold(
        (
            ((6, 122, 1.2), 6, (6, 351, 1.2)),
            ((168, 193, 0.9), 168, (168, 417, 0.9)),
            ((198, 217, 0.5), (122, 188, 0.7), (6, 122, 0.9)),
            ((420, 437, 0.5), (351, 412, 0.7), (6, 351, 0.9)),
        ),
        {"noseSneer": 0.95},
        0.15,
        0.010,
        sided=False,
    ),
    Fold(
        tuple(tuple((brow, hair, t) for brow, hair in _BROW_TO_HAIR) for t in (0.30, 0.52, 0.74)),
        {"browInnerUp": 0.65, "browOuterUp": 0.55},
        0.14,
        0.013,
        0.5,
        sided=False,
    ),
    Fold(
        ((182, 83, 18, 313, 406),),
        {"mouthShrugLower": 0.7, "mouthFrown": 0.25, "mouthPress": 0.15},
        0.18,
        0.016,
        sided=False,
    ),
)


def fold_weights(coefficients: Float32, names: tuple[str, ...]) -> Float32:
    """(B, E) → (B, D) in [0, 1.2]: how deep each fold is."""
    weights: Float32 = np.clip(coefficients @ _weight_matrix(names), 0.0, 1.2)
    return weights


_matrices: dict[tuple[str, ...], Float32] = {}


def _weight_matrix(names: tuple[str, ...]) -> Float32:
    if names not in _matrices:
        columns = [(fold, side) for fold in FOLDS for side in (("Right", "Left") if fold.sided else ("",))]
        matrix = np.zeros((len(names), len(columns)), np.float32)
        for column, (fold, side) in enumerate(columns):
            for row, name in enumerate(names):
                bare = name.removesuffix("Left").removesuffix("Right")
                if bare in fold.drivers and (not side or name == bare or name.endswith(side)):
                    both = not side and name != bare  # a fold across the face is driven by either half
                    matrix[row, column] = fold.drivers[bare] * (0.5 if both else 1.0)
        _matrices[names] = matrix
    return _matrices[names]


def fold_maps(marks: Float32, height: int, width: int, eye_px: float) -> Float32:
    """(D, H, W) log gain of each fold at full strength; ``marks (478, 2)`` px in that window."""
    mirror = np.array(MIRROR478)
    drawn = [
        (fold, points, side)
        for fold in FOLDS
        for side, points in ((1.0, marks), (-1.0, marks[mirror]))[: 2 if fold.sided else 1]
    ]
    maps = np.zeros((len(drawn), height, width), np.float32)
    for target, (fold, points, side) in zip(maps, drawn, strict=True):
        for curve in fold.curves:
            _draw(target, np.stack([_place(point, points) for point in curve]), fold, eye_px, side)
    return maps


def _place(point: Point, marks: Float32) -> Float32:
    if isinstance(point, int):
        there: Float32 = marks[point]
        return there
    a, b, t = point
    placed: Float32 = marks[a] + np.float32(t) * (marks[b] - marks[a])
    return placed


def _draw(target: Float32, points: Float32, fold: Fold, eye_px: float, side: float) -> None:
    """Add one crease: Gaussian groove along the curve, fading towards its ends."""
    sigma = max(fold.width * eye_px, 0.7)
    curve = _smooth(points)
    reach = 5 * sigma * max(fold.slope, 1.0)
    low = np.maximum(np.floor(curve.min(0) - reach), 0).astype(int)
    high = np.minimum(np.ceil(curve.max(0) + reach), target.shape[::-1]).astype(int)
    if (high <= low).any():
        return
    y, x = np.mgrid[low[1] : high[1], low[0] : high[0]].astype(np.float32) + np.float32(0.5)
    start, along = curve[:-1], np.diff(curve, axis=0)
    length2 = np.maximum((along**2).sum(1), 1e-9)
    nearest, piece = np.full(x.shape, np.inf, np.float32), np.zeros(x.shape, np.int8)
    for index, ((sx, sy), (ax, ay), squared_length) in enumerate(zip(start, along, length2, strict=True)):
        x0, y0 = x - sx, y - sy
        t = np.minimum(np.maximum((x0 * ax + y0 * ay) / squared_length, 0), 1)
        x0 -= t * ax
        y0 -= t * ay
        squared = x0 * x0 + y0 * y0
        np.copyto(piece, index, where=squared < nearest)
        np.minimum(nearest, squared, out=nearest)
    x0, y0, ax, ay = x - start[piece, 0], y - start[piece, 1], along[piece, 0], along[piece, 1]
    t = np.minimum(np.maximum((x0 * ax + y0 * ay) / length2[piece], 0), 1)
    signed = ax * (y0 - t * ay) - ay * (x0 - t * ax)
    at = (piece + t) / len(along)
    distance = np.sqrt(nearest)
    left = signed * side > 0
    groove = np.exp(-0.5 * (distance / np.where(left, sigma, fold.slope * sigma)) ** 2)
    beside = np.exp(-0.5 * ((distance - 2.2 * sigma) / (1.1 * sigma)) ** 2) * left
    fade = np.clip(np.minimum(at * (12 if fold.joins else 4), (1 - at) * 4), 0, 1)
    fade = fade * fade * (3 - 2 * fade)
    target[low[1] : high[1], low[0] : high[0]] += fold.depth * fade * (fold.shoulder * beside - groove)


def _smooth(points: Float32, steps: int = 4) -> Float32:
    """Catmull-Rom through the points."""
    ends = np.concatenate([2 * points[:1] - points[1:2], points, 2 * points[-1:] - points[-2:-1]])
    t = (np.arange(steps) / steps)[:, None]
    pieces = [
        0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3)
        for a, b, c, d in zip(ends[:-3], ends[1:-2], ends[2:-1], ends[3:], strict=True)
    ]
    curve: Float32 = np.concatenate([*pieces, points[-1:]]).astype(np.float32)
    return curve
