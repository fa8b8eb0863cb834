"""Dense features of an image: what a texture model holds of a face instead of its colours.

Colours change with every lamp and camera; where edges lie and how they run changes little. That is why Booth
et al. ("3D Face Morphable Models In-the-Wild", CVPR 2017, section 3.2) learn texture in a feature space.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from fastface.errors import BadArgument

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

_LEAST_ENERGY: Final = 2.0  # grey levels a pixel: gradients weaker than this are noise and stay small


class Feature(NamedTuple):
    """``of`` an image (H, W, 3) uint8 gives ``channels`` of the same size."""

    channels: int
    of: Callable[[NDArray[np.uint8]], Float32]


def _grey(rgb: NDArray[np.uint8]) -> Float32:
    return np.asarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), np.float32)


def _gradients(gray: Float32, sigma: float, reach: float) -> Float32:
    """(H, W, 2) gradient of the smoothed image over its root mean square nearby."""
    smooth = cv2.GaussianBlur(gray, (0, 0), sigma)
    along = cv2.Sobel(smooth, cv2.CV_32F, 1, 0, ksize=3, scale=0.125)
    down = cv2.Sobel(smooth, cv2.CV_32F, 0, 1, ksize=3, scale=0.125)
    energy = cv2.GaussianBlur(along * along + down * down, (0, 0), reach)
    scale = 1 / np.sqrt(energy + (_LEAST_ENERGY / sigma) ** 2)
    return np.dstack([along * scale, down * scale])


def _two_scales(rgb: NDArray[np.uint8]) -> Float32:
    gray = _grey(rgb)
    return np.concatenate([_gradients(gray, 1.6, 8.0), _gradients(gray, 4.0, 20.0)], axis=2)


def _orientations(rgb: NDArray[np.uint8]) -> Float32:
    """(H, W, 8): gradient strength by direction, pooled over a few pixels, to unit length (as in HOG and
    SIFT: Dalal & Triggs 2005, Lowe 2004)."""
    smooth = cv2.GaussianBlur(_grey(rgb), (0, 0), 1.0)
    along = cv2.Sobel(smooth, cv2.CV_32F, 1, 0, ksize=3, scale=0.125)
    down = cv2.Sobel(smooth, cv2.CV_32F, 0, 1, ksize=3, scale=0.125)
    angles = np.arange(8) * (np.pi / 4)
    bins = [np.maximum(along * np.cos(a) + down * np.sin(a), 0) for a in angles.astype(np.float32)]
    pooled = np.dstack([cv2.GaussianBlur(b, (0, 0), 2.5) for b in bins])
    norm = np.sqrt((pooled**2).sum(axis=2, keepdims=True) + _LEAST_ENERGY**2)
    return np.asarray(pooled / norm, np.float32)


FEATURES: Final[dict[str, Feature]] = {
    "gradients": Feature(4, _two_scales),
    "orientations": Feature(8, _orientations),
    # sRGB levels 0 … 255, as scanners give them: to look at, and to fit where light and camera are the same.
    "rgb": Feature(3, lambda rgb: rgb.astype(np.float32)),
}


def dense_features(rgb: NDArray[np.uint8], name: str) -> Float32:
    """(H, W, C) features ``name`` of an image ``(H, W, 3)``. Raises ``BadArgument`` for an unknown name."""
    if name not in FEATURES:
        raise BadArgument(f"wanted one of the features {', '.join(FEATURES)}, got {name!r:.40}")
    return FEATURES[name].of(rgb)


class Sampled(NamedTuple):
    """Values (N, C) at points, their slopes (N, C, 2) per pixel, and which points lie inside (N,)."""

    values: Float32
    slopes: Float32
    inside: NDArray[np.bool_]


def sample(features: Float32, points_px: NDArray[Any]) -> Sampled:
    """Bilinear samples of ``features (H, W, C)`` at ``points_px (N, 2)`` (CONVENTIONS.md: pixel centres at
    halves), with the exact derivatives of that interpolation. Outside: zeros."""
    height, width, _ = features.shape
    place = np.asarray(points_px, np.float64) - 0.5
    corner = np.floor(place)
    inside = np.asarray(((corner >= 0) & (corner < [width - 1, height - 1])).all(axis=1))
    column, row = np.where(inside[:, None], corner, 0).astype(np.intp).T
    x, y = np.where(inside[:, None], place - corner, 0).astype(np.float32).T[:, :, None]
    a, b = features[row, column], features[row, column + 1]
    c, d = features[row + 1, column], features[row + 1, column + 1]
    upper, lower = a + x * (b - a), c + x * (d - c)
    slopes = np.stack([(b - a) + y * ((d - c) - (b - a)), lower - upper], axis=2)
    keep = inside[:, None]
    return Sampled((upper + y * (lower - upper)) * keep, slopes * keep[:, :, None], inside)
