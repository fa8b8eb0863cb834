"""Where each judge network looks: square crops of a photo, placed by the 478 face-mesh landmarks.

Each crop copies the geometry its network was trained or published with, so that its probabilities mean
what they mean elsewhere. Coordinates are continuous pixels (CONVENTIONS.md).
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float32] | NDArray[np.float64]
Image = NDArray[np.uint8]

# Face-mesh landmarks nearest to the 68 ibug points, in ibug order of the groups.
JAW = (127, 234, 93, 58, 172, 136, 149, 148, 152, 377, 378, 365, 397, 288, 323, 454, 356)
BROWS = (70, 63, 105, 66, 107, 336, 296, 334, 293, 300)
RIGHT_EYE = (33, 160, 158, 133, 153, 144)
LEFT_EYE = (362, 385, 387, 263, 373, 380)
MOUTH = (61, 39, 37, 0, 267, 269, 291, 405, 314, 17, 84, 181, 78, 82, 13, 312, 308, 317, 14, 87)
FACE_68 = (*JAW, *BROWS, *RIGHT_EYE, *LEFT_EYE, *MOUTH)

# dlib's five-point face shape in the unit square: left eye outer and inner corner, right eye outer and inner
# corner, base of the nose (dlib/image_transforms/interpolation.h, get_face_chip_details).
DLIB_FIVE = np.array(
    [
        (0.8595674595992, 0.2134981538014),
        (0.6460604764104, 0.2289674387677),
        (0.1205750620789, 0.2137274526848),
        (0.3340850613712, 0.2290642403242),
        (0.4901123135679, 0.6277975316475),
    ]
)
DLIB_FIVE_MESH = (263, 362, 33, 133, 2)
DLIB_PADDING = 0.25

# OpenCV's frontal-face cascade, which `fer` crops with, against the outer eye corners: median over 53 of the
# 54 London portraits. Centre below the eye line and side, both in outer-eye distances; `fer` adds 10 px a
# side, which is 0.1 at the cascade's usual working size.
CASCADE_CENTRE_DOWN = 0.178
CASCADE_SIDE = 1.906 + 0.1


def similarity(source: Points, target: Points) -> NDArray[np.float64]:
    """Least-squares similarity (2, 3) that takes `source` (N, 2) to `target` (N, 2), no reflection.

    Umeyama 1991, eq. 40 to 42, in the closed form of two dimensions.
    """
    centre_s, centre_t = source.mean(0, dtype=np.float64), target.mean(0, dtype=np.float64)
    s, t = source - centre_s, target - centre_t
    norm = float((s * s).sum())
    if norm == 0.0:
        raise ValueError("similarity: the source points coincide")
    a = float((s * t).sum()) / norm
    b = float((s[:, 0] * t[:, 1] - s[:, 1] * t[:, 0]).sum()) / norm
    linear = np.array([[a, -b], [b, a]])
    return np.column_stack([linear, centre_t - linear @ centre_s])


def warped(rgb: Image, matrix: NDArray[np.float64], size_px: int) -> NDArray[np.float32]:
    """`rgb` under `matrix` (2, 3, photo → crop), (size, size, 3) float32 0…255; averages when it shrinks."""
    scale = float(np.sqrt(abs(np.linalg.det(matrix[:, :2]))))
    factor = max(1, int(np.ceil(1.0 / scale)))
    # OpenCV puts pixel centres on integers, we put them on halves: conjugate with the shift.
    fine = matrix * factor
    fine[:, 2] += fine[:, :2] @ np.array([0.5, 0.5]) - 0.5
    side = size_px * factor
    enlarged = cv2.warpAffine(
        rgb, fine, (side, side), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    if factor == 1:
        return enlarged.astype(np.float32)
    return np.asarray(
        cv2.resize(enlarged.astype(np.float32), (size_px, size_px), interpolation=cv2.INTER_AREA)
    )


def square_crop(rgb: Image, centre: Points, side_px: float, size_px: int) -> NDArray[np.float32]:
    """The upright square of side `side_px` about `centre`; beyond the photo its border pixels go on."""
    scale = size_px / side_px
    matrix = np.array(
        [[scale, 0.0, size_px / 2 - scale * centre[0]], [0.0, scale, size_px / 2 - scale * centre[1]]]
    )
    return warped(rgb, matrix, size_px)


def face_api_box(points: Points, padding: float) -> tuple[Points, float]:
    """Centre and side of face-api's expression crop: bounding box of the 68 points, padded, made square."""
    chosen = points[list(FACE_68)]
    low, high = chosen.min(0), chosen.max(0)
    return (low + high) / 2, float((high - low).max()) * (1.0 + padding)


def cascade_box(points: Points, scale: float) -> tuple[Points, float]:
    """Centre and side of the square OpenCV's cascade would find, its side times `scale`."""
    eyes = points[33].astype(np.float64), points[263].astype(np.float64)
    distance = float(np.linalg.norm(eyes[1] - eyes[0]))
    centre = (eyes[0] + eyes[1]) / 2 + np.array([0.0, CASCADE_CENTRE_DOWN * distance])
    return centre, CASCADE_SIDE * scale * distance


def dlib_chip(rgb: Image, points: Points, size_px: int) -> NDArray[np.float32]:
    """dlib's aligned face chip, which its recognition network was trained on."""
    target = (DLIB_FIVE + DLIB_PADDING) / (1 + 2 * DLIB_PADDING) * size_px
    return warped(rgb, similarity(points[list(DLIB_FIVE_MESH)], target), size_px)
