"""The eyeballs of a photo as they would look without lids: what shows when the eyes widen.

Irises are round, so a hidden part of one looks like the visible part at the same radius; the white goes on in
its own colour, darker towards the lids.
"""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]
Image = NDArray[np.uint8]

#: MediaPipe's landmarks of each eye: the lids' contour, the iris' middle, and four points of its edge.
_EYES: Final = (
    ((33, 246, 161, 160, 159, 158, 157, 173, 133, 155, 154, 153, 145, 144, 163, 7), 468),
    ((362, 398, 384, 385, 386, 387, 388, 466, 263, 249, 390, 373, 374, 380, 381, 382), 473),
)
_SHRINK: Final = 0.045  # of the eye's width: lashes and the wet rim are no eyeball
_REACH: Final = 0.45  # of the eye's width beyond the lids that is made up

_SHADE: Final = 0.5  # how much darker the eyeball gets under the lid, and within which part of its width
_SHADE_REACH: Final = 0.16


def _opening(marks: Float32, contour: tuple[int, ...], shape: tuple[int, ...]) -> NDArray[np.uint8]:
    mask = np.zeros(shape[:2], np.uint8)
    # fillPoly counts pixel centres from 0, in 1/16 px here.
    cv2.fillPoly(mask, [np.round((marks[list(contour)] - 0.5) * 16).astype(np.int32)], 1, shift=4)
    return mask


def eye_whites(marks: Float32, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """(H, W) the visible white of both eyes."""
    white = np.zeros(shape[:2], bool)
    for contour, iris in _EYES:
        width = float(np.linalg.norm(marks[contour[0]] - marks[contour[8]]))
        size = max(round(0.05 * width), 1)
        opening = cv2.erode(_opening(marks, contour, shape), np.ones((2 * size + 1,) * 2, np.uint8))
        y, x = np.nonzero(opening)
        far = np.hypot(x + 0.5 - marks[iris, 0], y + 0.5 - marks[iris, 1]) > 1.15 * _radius(marks, iris)
        white[y[far], x[far]] = True
    return white


def _radius(marks: Float32, iris: int) -> float:
    return float(np.linalg.norm(marks[iris + 1 : iris + 5] - marks[iris], axis=1).mean())


def bare_eyes(photo: Image, marks: Float32) -> Image:
    """A copy of ``photo (H, W, 3)`` with the lids around each eye replaced by eyeball."""
    out = photo.copy()
    for contour, iris in _EYES:
        _bare(out, photo, marks, contour, iris)
    return out


def _bare(out: Image, photo: Image, marks: Float32, contour: tuple[int, ...], iris: int) -> None:
    width = float(np.linalg.norm(marks[contour[0]] - marks[contour[8]]))
    points = marks[list(contour)]
    margin = _REACH * width
    left, top = np.maximum(np.floor(points.min(0) - margin), 0).astype(int)
    right, bottom = np.ceil(points.max(0) + margin).astype(int)
    patch = photo[top:bottom, left:right].astype(np.float32)
    if min(patch.shape[:2]) < 4 or width < 6:
        return
    local = marks - np.array([left, top], np.float32)
    opening = _opening(local, contour, patch.shape)
    size = max(round(_SHRINK * width), 1)
    seen = cv2.erode(opening, np.ones((2 * size + 1,) * 2, np.uint8)).astype(bool)
    y, x = np.mgrid[0 : patch.shape[0], 0 : patch.shape[1]].astype(np.float32) + np.float32(0.5)
    centre, radius = local[iris], _radius(marks, iris)
    dx, dy = x - centre[0], y - centre[1]
    r = np.hypot(dx, dy)
    white = seen & (r > 1.15 * radius)
    if seen.sum() < 12:
        return
    sclera = _sclera(patch, white, seen, x, width)
    filled = np.where(
        (r < 1.05 * radius)[..., None], _iris(patch, seen, centre, radius, dx, dy, r, sclera), sclera
    )
    # The limbus is a soft edge.
    soft = np.clip((r - 0.93 * radius) / (0.17 * radius), 0, 1)[..., None]
    filled = filled * (1 - soft) + sclera * soft
    beyond = cv2.distanceTransform((~seen).astype(np.uint8), cv2.DIST_L2, 3)
    filled *= (1 - _SHADE * np.clip(beyond / (_SHADE_REACH * width), 0, 1))[..., None]
    keep = np.clip(1 - beyond / max(0.03 * width, 1.0), 0, 1)[..., None]
    keep = np.where(seen[..., None], 1.0, keep * opening[..., None])
    out[top:bottom, left:right] = np.clip(np.rint(patch * keep + filled * (1 - keep)), 0, 255).astype(
        np.uint8
    )


def _sclera(
    patch: Float32, white: NDArray[np.bool_], seen: NDArray[np.bool_], x: Float32, width: float
) -> Float32:
    """The white's own colour, smoothly continued from what is visible of it."""
    source = white if white.sum() >= 8 else seen
    bright = patch.mean(2)
    source = source & (bright >= np.quantile(bright[source], 0.4))
    sigma = 0.18 * width
    mass = cv2.GaussianBlur(source.astype(np.float32), (0, 0), sigma) + 1e-4
    total = cv2.GaussianBlur(patch * source[..., None], (0, 0), sigma)
    smooth: Float32 = (total + 1e-4 * patch[source].mean(0)) / mass[..., None]
    return smooth


def _iris(
    patch: Float32,
    seen: NDArray[np.bool_],
    centre: Float32,
    radius: float,
    dx: Float32,
    dy: Float32,
    r: Float32,
    sclera: Float32,
) -> Float32:
    """Rings: the median colour of the visible pixels at each radius, in steps of a pixel."""
    bins = max(int(np.ceil(radius * 1.1)), 2)
    index = np.minimum((r / (1.1 * radius) * bins).astype(int), bins - 1)
    inside = seen & (r < 1.1 * radius)
    rings = np.empty((bins, 3), np.float32)
    last = patch[seen].min(0)
    for ring in range(bins):
        pixels = patch[inside & (index == ring)]
        if len(pixels) >= 3:
            last = np.median(pixels, axis=0)
        rings[ring] = last
    at = np.clip(r / (1.1 * radius) * bins - 0.5, 0, bins - 1)
    low = at.astype(int)
    high = np.minimum(low + 1, bins - 1)
    t = (at - low)[..., None]
    mixed: Float32 = (rings[low] * (1 - t) + rings[high] * t).astype(np.float32)
    return mixed
