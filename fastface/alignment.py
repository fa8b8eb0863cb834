"""Where a face is, as a turned square; its pixels as a small upright image, and back.

The square is that of CelebA-HQ (Karras et al. 2018, "Progressive Growing of GANs", appendix C), on which
StarGAN v2 and its kin are trained. A *square* is a row of four float64: centre x and y in continuous pixels
of the frame, logarithm of the side in pixels, and angle of its x axis in radians. Rows can be averaged and
smoothed, boxes of corners cannot. A *face frame* is the same four numbers for the bones of the face: its
origin and unit are the centre and spread of the points that expressions hardly move.
"""

from __future__ import annotations

import math
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from fastface.landmarks import landmarks68

Array = NDArray[np.float64]
Image = NDArray[np.uint8]
Floats = NDArray[np.float32]

#: Inner corners of the eyes, ridge of the nose, temples: as a set, what carries a similarity from frame to
#: frame with the least error when only the expression changes. Figures in docs/transfer.md.
STEADY_POINTS: Final = (
    *(133, 155, 112, 243, 244, 232, 233, 362, 382, 341, 463, 464, 452, 453),
    *(6, 197, 195, 5, 4),
    *(127, 162, 234, 356, 389, 454),
)
#: Samples a crop pixel to interpolate linearly between; at three, the loss at the finest detail that the crop
#: can hold is at most 13 %, whatever the position between pixels, and so no shimmer when that changes.
_OVERSAMPLING: Final = 3
_MOST_UPSAMPLING: Final = 4
#: Spread of the blur before shrinking, in pixels of the result: halves the finest detail that the result can
#: hold and leaves 1 % of what would alias onto its middle frequencies.
_BLUR: Final = 0.4
_MARGIN_PX: Final = 8


def face_frame(points_px: Array, reference: Array) -> Array:
    """The similarity (4,) that carries ``reference (S, 2)`` nearest to the steady points of ``points_px (478,
    2)``: least squares in closed form (Umeyama 1991). For ``reference`` see ``reference_shape``."""
    points = np.asarray(points_px, np.float64)[list(STEADY_POINTS)]
    middle = points.mean(axis=0)
    offset = points - middle
    # As complex numbers a rotation with scale is one factor.
    z = offset @ np.array([1, 1j])
    r = reference @ np.array([1, 1j])
    factor = np.vdot(r, z) / np.vdot(r, r).real
    return np.array([*middle, math.log(max(abs(factor), 1e-6)), math.atan2(factor.imag, factor.real)])


def reference_shape(points_px: Array) -> Array:
    """The steady points (S, 2) of one face, centred, at a root mean square distance of 1, with level eyes."""
    points = np.asarray(points_px, np.float64)[list(STEADY_POINTS)]
    z = (points - points.mean(axis=0)) @ np.array([1, 1j])
    across = np.asarray(points_px[263] - points_px[33], np.float64) @ np.array([1, 1j])
    z *= np.conj(across) / abs(across) / math.sqrt(float(np.mean(np.abs(z) ** 2)))
    return np.stack([z.real, z.imag], axis=1)


def celeba_square(points_px: Array) -> Array:
    """The square (4,) that CelebA-HQ cuts around a face with these landmarks (478, 2)."""
    points = np.asarray(landmarks68(np.asarray(points_px, np.float64)), np.float64)
    right, left = points[36:42].mean(axis=0), points[42:48].mean(axis=0)
    mouth = (points[48] + points[54]) / 2
    eyes = (right + left) / 2
    across, down = left - right, mouth - eyes
    side = max(4.0 * float(np.hypot(*across)), 3.6 * float(np.hypot(*down)))
    # x' - rot90(y'): the eyes' direction and the perpendicular of the way down, which vote together.
    x = across + np.array([down[1], -down[0]])
    centre = eyes + 0.1 * down
    return np.array([*centre, math.log(max(side, 1e-6)), math.atan2(x[1], x[0])])


def compose(outer: Array, inner: Array) -> Array:
    """``inner (…, 4)``, given in the frame that ``outer (…, 4)`` describes, as seen from outside."""
    outer, inner = np.broadcast_arrays(outer, inner)
    scale, angle = np.exp(outer[..., 2]), outer[..., 3]
    cosine, sine = scale * np.cos(angle), scale * np.sin(angle)
    x, y = inner[..., 0], inner[..., 1]
    return np.stack(
        [
            outer[..., 0] + cosine * x - sine * y,
            outer[..., 1] + sine * x + cosine * y,
            outer[..., 2] + inner[..., 2],
            outer[..., 3] + inner[..., 3],
        ],
        axis=-1,
    )


def relative(outer: Array, square: Array) -> Array:
    """``square (4,)`` as seen from the frame ``outer (4,)``: the inverse of ``compose``."""
    scale, angle = math.exp(-outer[2]), -outer[3]
    x, y = square[:2] - outer[:2]
    cosine, sine = scale * math.cos(angle), scale * math.sin(angle)
    turn = math.remainder(square[3] - outer[3], math.tau)
    return np.array([cosine * x - sine * y, sine * x + cosine * y, square[2] - outer[2], turn])


def crop_to_frame(square: Array, size_px: int) -> Array:
    """(2, 3): continuous coordinates of a crop ``[0, size] × [0, size]`` to those of the frame."""
    scale = math.exp(square[2]) / size_px
    cosine, sine = scale * math.cos(square[3]), scale * math.sin(square[3])
    turn = np.array([[cosine, -sine], [sine, cosine]])
    return np.column_stack([turn, square[:2] - turn @ np.full(2, size_px / 2)])


def inverse(matrix: Array) -> Array:
    """The inverse (2, 3) of an affine map (2, 3)."""
    turn = np.linalg.inv(matrix[:, :2])
    return np.column_stack([turn, -turn @ matrix[:, 2]])


def crop(image: Image, square: Array, size_px: int) -> Image:
    """The square of a frame (H, W, 3) uint8 as (size, size, 3) uint8; beyond its borders it is mirrored."""
    made = resample(image, crop_to_frame(square, size_px), size_px, size_px)
    return np.asarray(cv2.convertScaleAbs(made), np.uint8)


def resample(image: NDArray[np.uint8] | Floats, matrix: Array, height: int, width: int) -> Floats:
    """(height, width, C) float32, sampled at ``matrix`` (2, 3) of its continuous coordinates.

    Positions between pixels are exact, not rounded to the 1/32 px that cv2 rounds them to in its quicker
    ways, or a face that moves slowly would move in steps. Where the result is coarser than the image, the
    image is blurred first; where it is finer, it is enlarged by a cubic first, so that sharpness does not
    change with the position between pixels.
    """
    scale = math.sqrt(abs(float(np.linalg.det(matrix[:, :2]))))
    part, corner = _part(image, matrix, height, width, scale)
    part = part.astype(np.float32)
    if scale > 1:
        part = np.asarray(cv2.GaussianBlur(part, (0, 0), _BLUR * math.sqrt(scale * scale - 1)), np.float32)
    finer = min(_MOST_UPSAMPLING, math.ceil(_OVERSAMPLING / scale - 1e-6))
    if finer > 1:
        size = (part.shape[1] * finer, part.shape[0] * finer)
        part = np.asarray(cv2.resize(part, size, interpolation=cv2.INTER_CUBIC), np.float32)
    to_part = (matrix - np.array([[0, 0, corner[0]], [0, 0, corner[1]]])) * finer
    # cv2 counts from pixel centres: continuous = index + 0.5 on both sides.
    to_part[:, 2] += to_part[:, :2] @ np.full(2, 0.5) - 0.5
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    made = cv2.warpAffine(part, to_part, (width, height), flags=flags, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(made, np.float32)


def _part(
    image: NDArray[np.uint8] | Floats, matrix: Array, height: int, width: int, scale: float
) -> tuple[NDArray[np.uint8] | Floats, tuple[int, int]]:
    """What of the image the result needs, with a margin, mirrored at its borders; and where it begins."""
    corners = matrix[:, :2] @ np.array([[0, width, 0, width], [0, 0, height, height]]) + matrix[:, 2:]
    margin = _MARGIN_PX + math.ceil(2 * scale)
    rows, columns = image.shape[:2]
    left, top = (math.floor(v) - margin for v in corners.min(axis=1))
    right, bottom = (math.ceil(v) + margin for v in corners.max(axis=1))
    # Far off the image its mirror images repeat; one is enough for any square that holds part of a face.
    left, right = min(max(left, -columns), columns - 1), max(min(right, 2 * columns), 1)
    top, bottom = min(max(top, -rows), rows - 1), max(min(bottom, 2 * rows), 1)
    inside = image[max(top, 0) : bottom, max(left, 0) : right]
    padding = (max(-top, 0), max(bottom - rows, 0), max(-left, 0), max(right - columns, 0))
    if any(padding):
        return _mirrored(inside, padding), (left, top)
    return inside, (left, top)


def _mirrored(image: NDArray[np.uint8] | Floats, padding: tuple[int, int, int, int]) -> Floats:
    return np.asarray(cv2.copyMakeBorder(image, *padding, cv2.BORDER_REFLECT), np.float32)
