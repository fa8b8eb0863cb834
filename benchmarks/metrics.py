"""The figures of quality, as plain functions of arrays. numpy only.

Landmarks are the 478 of the face mesh, (478, 2) pixels or (478, 3) with relative depth in pixels as third
coordinate. Distances are in per cent of the outer-eye distance of the neutral photo unless a name says other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Points = NDArray[np.float32] | NDArray[np.float64]

RIGHT_EYE_OUTER, LEFT_EYE_OUTER = 33, 263
RIGHT_LIP_CORNER, LEFT_LIP_CORNER = 61, 291
OUTER_LIP = (61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 185, 40, 39, 37, 0, 267, 269, 270, 409)
INNER_LIP = (78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308, 191, 80, 81, 82, 13, 312, 311, 310, 415)
LIPS = (*OUTER_LIP, *INNER_LIP)
CHEEKS = (
    *(50, 36, 205, 206, 207, 187, 147, 123, 117, 118, 101, 203, 142, 100, 119, 216, 212, 214, 192, 213),
    *(280, 266, 425, 426, 427, 411, 376, 352, 346, 347, 330, 423, 371, 329, 348, 436, 432, 434, 416, 433),
)
MOUTH_AND_CHEEKS = (*LIPS, *CHEEKS)
# What a smile moves least: hairline, temples, bridge of the nose, corners of the eyes.
STABLE = (
    *(10, 338, 297, 332, 284, 251, 21, 54, 103, 67, 109, 127, 356, 8, 9),
    *(6, 168, 197, 195, 5, 133, 362, 33, 263),
)


def outer_eye_distance_px(points: Points) -> float:
    """Distance of the outer eye corners in the picture; ValueError when they coincide."""
    distance = float(np.linalg.norm(points[RIGHT_EYE_OUTER, :2] - points[LEFT_EYE_OUTER, :2]))
    if not distance > 0.0:
        raise ValueError(f"outer eye corners must be apart, got a distance of {distance}")
    return distance


@dataclass(frozen=True)
class ErrorSummary:
    """Distances over landmarks, per cent of the outer-eye distance."""

    mean: float
    lips_mean: float
    p95: float
    maximum: float


def summarise_errors(errors_px: Points, eye_distance_px: float) -> ErrorSummary:
    """`errors_px` (478,) distances in pixels."""
    if errors_px.shape != (478,):
        raise ValueError(f"landmark errors must be (478,), got {errors_px.shape}")
    percent = errors_px.astype(np.float64) * (100.0 / eye_distance_px)
    return ErrorSummary(
        float(percent.mean()),
        float(percent[list(LIPS)].mean()),
        float(np.percentile(percent, 95)),
        float(percent.max()),
    )


def aligned(points: Points, reference: Points, stable: Sequence[int] = STABLE) -> Floats:
    """`points` (N, D) moved onto `reference` by the similarity that fits the `stable` rows best.

    With D = 3 this takes turning and nodding of the head out as well, as far as the depths can be trusted.
    Umeyama 1991, eq. 40 to 42.
    """
    source = points[list(stable)].astype(np.float64)
    target = reference[list(stable)].astype(np.float64)
    centre_s, centre_t = source.mean(0), target.mean(0)
    s, t = source - centre_s, target - centre_t
    variance = float((s * s).sum())
    if variance == 0.0:
        raise ValueError("aligned: the stable points coincide")
    u, singular, vt = np.linalg.svd(t.T @ s)
    signs = np.ones(source.shape[1])
    signs[-1] = np.sign(np.linalg.det(u @ vt))
    rotation = u @ np.diag(signs) @ vt
    scale = float((singular * signs).sum()) / variance
    return np.asarray(scale * (points - centre_s) @ rotation.T + centre_t)


def displacement_percent(neutral: Points, expressive: Points) -> Floats:
    """How far every landmark moved in the picture, (N, 2), with the motion of the head taken out."""
    if neutral.shape != expressive.shape:
        raise ValueError(f"landmarks must agree in shape, got {neutral.shape} and {expressive.shape}")
    moved = aligned(expressive, neutral) - neutral
    return np.asarray(moved[:, :2] * (100.0 / outer_eye_distance_px(neutral)))


def lip_corner_travel(displacement: Floats) -> float:
    """Mean length of the two lip corners' displacement."""
    return float(np.linalg.norm(displacement[[RIGHT_LIP_CORNER, LEFT_LIP_CORNER]], axis=1).mean())


def field_correlation(a: Floats, b: Floats, rows: Sequence[int] | None = None) -> float:
    """Pearson correlation of two displacement fields (N, 2), both components together.

    NaN when one of them does not move at all: there is nothing to correlate.
    """
    chosen = slice(None) if rows is None else list(rows)
    x, y = a[chosen].ravel(), b[chosen].ravel()
    x, y = x - x.mean(), y - y.mean()
    norm = float(np.linalg.norm(x) * np.linalg.norm(y))
    return float(x @ y) / norm if norm > 0.0 else float("nan")


def share_at_least(values: Sequence[float], threshold: float) -> float:
    """Share of `values` ≥ `threshold`; NaN counts as a miss. ValueError on none at all."""
    if not len(values):
        raise ValueError("a share needs at least one value")
    return float(np.mean(np.asarray(values, np.float64) >= threshold))


def rises(probabilities: Sequence[float], slack: float) -> bool:
    """Whether every value is at least the one before it minus `slack`, and the last above the first.

    The slack forgives the saturated end, where 0.998 after 0.999 means nothing. A NaN never rises.
    """
    p = np.asarray(probabilities, np.float64)
    return bool((np.diff(p) >= -slack).all() and p[-1] > p[0])


def changed_outside(photo: NDArray[np.uint8], frame: NDArray[np.uint8], mask: NDArray[np.bool_]) -> int:
    """Number of pixels outside `mask` (H, W) that differ in any channel."""
    if photo.shape != frame.shape or mask.shape != photo.shape[:2]:
        raise ValueError(
            f"photo, frame and mask must agree, got {photo.shape}, {frame.shape} and {mask.shape}"
        )
    return int(((photo != frame).any(axis=2) & ~mask).sum())


def changed_share(photo: NDArray[np.uint8], frame: NDArray[np.uint8]) -> float:
    """Share of pixels that differ in any channel."""
    if photo.shape != frame.shape:
        raise ValueError(f"photo and frame must agree in shape, got {photo.shape} and {frame.shape}")
    return float((photo != frame).any(axis=2).mean())
