"""Where stretched skin takes its colour from: lids that close show skin, not lashes drawn out to stripes.

A closing lid unrolls from a strip of a few pixels. Carrying that strip's pixels along would smear lashes over
the lid, so the stretch is spread evenly from the lashes to the brow instead: each vertex takes its colour
from the place that divides the open lid as the vertex divides the closed one.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]

SHIFTS: Final = ("eyeBlinkLeft", "eyeBlinkRight")
#: Of each eye, left first: upper lid from corner to corner and the lower edge of the brow above it.
_UPPER_LID: Final = (
    (362, 398, 384, 385, 386, 387, 388, 466, 263),
    (33, 246, 161, 160, 159, 158, 157, 173, 133),
)
_BROW: Final = ((285, 295, 282, 283, 276), (46, 53, 52, 65, 55))
_LASHES: Final = 0.16  # of the eye's width: height above the lid's rim that lashes may cover
_BARE: Final = 0.74  # of the way from the rim to the brow's landmarks: skin without the brow's hair
_RIM: Final = (0.015, 0.06)  # of the eye's width: below, the rim itself, which keeps its lashes


def shift_weights(coefficients: Float32, names: tuple[str, ...]) -> Float32:
    """(B, E) → (B, 2): how far each lid has closed."""
    weights = np.zeros((len(coefficients), len(SHIFTS)), np.float32)
    for column, name in enumerate(SHIFTS):
        if name in names:
            weights[:, column] = np.clip(coefficients[:, names.index(name)], 0.0, 1.0)
    return weights


def lid_shifts(
    rest_px: Float32, closed_px: tuple[Float32, ...], marks: Float32, closed_marks: tuple[Float32, ...]
) -> Float32:
    """(2, V, 2) px: what to add to ``rest_px (V, 2)`` when the left, the right eye is closed.

    ``closed_px``, ``closed_marks``: vertices and the 478 landmarks with that eye closed.
    """
    shifts = np.zeros((2, *rest_px.shape), np.float32)
    for eye in range(2):
        shifts[eye] = _lid_shift(rest_px, closed_px[eye], marks, closed_marks[eye], eye)
    return shifts


def _lid_shift(rest: Float32, closed: Float32, marks: Float32, closed_marks: Float32, eye: int) -> Float32:
    lid = list(_UPPER_LID[eye])
    origin = marks[lid[0]]
    width = float(np.linalg.norm(marks[lid[-1]] - origin))
    along = (marks[lid[-1]] - origin) / max(width, 1e-6)
    up = np.array([along[1], -along[0]], np.float32)

    def local(points: Float32) -> tuple[Float32, Float32]:
        to = points - origin
        return to @ along / width, to @ up / width

    def height(points: Float32, x: Float32) -> Float32:
        at, h = local(points)
        order = np.argsort(at)
        found: Float32 = np.interp(x, at[order], h[order]).astype(np.float32)
        return found

    x, y = local(rest)
    x_closed, y_closed = local(closed)
    rim, rim_closed = height(marks[lid], x), height(closed_marks[lid], x_closed)
    brow = np.maximum(rim + _BARE * (height(marks[list(_BROW[eye])], x) - rim), rim + 0.22)
    lashes = np.minimum(rim + _LASHES, 0.5 * (rim + brow))
    share = np.clip((y_closed - rim_closed) / np.maximum(brow - rim_closed, 0.05), 0, 1)
    wanted = lashes + share * (brow - lashes)
    inside = _smoothstep(-0.15, 0.15, x) * _smoothstep(-0.15, 0.15, 1 - x)
    inside = inside * _smoothstep(*_RIM, y - rim) * (y < brow)
    shift: Float32 = ((wanted - y) * inside * width)[:, None] * up
    return shift.astype(np.float32)


def _smoothstep(low: float, high: float, x: Float32) -> Float32:
    t = np.clip((x - low) / (high - low), 0, 1)
    smooth: Float32 = t * t * (3 - 2 * t)
    return smooth
