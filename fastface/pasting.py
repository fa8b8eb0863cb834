"""A generated face put back where its crop came from, inside the outline of the face only."""

from __future__ import annotations

from typing import Any, Final, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from fastface.alignment import Array, crop_to_frame, inverse, resample
from fastface.ops import blend

Image = NDArray[np.uint8]
Paste = Literal["feather", "poisson"]
PASTES: Final = ("feather", "poisson")

#: The seam lies inside the outline by a share of the crop's side, and is as soft.
_INSET: Final = 1 / 32
_RING_PX: Final = 3


class Paster:
    """Pastes crops of ``size_px`` that all have the same outline: it stays with the smooth square, so that
    the seam does not tremble.

    points_px: (478, 2) mean landmarks in the crop. "feather" fades at the seam; "poisson" keeps the
    generated gradients and takes its colours at the seam from the frame (``ops.blend``).
    """

    def __init__(self, points_px: Array, size_px: int, how: Paste) -> None:
        self._how, self._size_px = how, size_px
        hull = cv2.convexHull(points_px.astype(np.float32))
        outline = np.zeros((size_px, size_px), np.float32)
        # In 1/16 px, with pixel centres at +0.5.
        cv2.fillPoly(outline, [np.round((hull - 0.5) * 16).astype(np.int32)], 1.0, cv2.LINE_AA, 4)
        inset = max(size_px * _INSET, 1.0)
        disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * round(inset) + 1,) * 2)
        inner = cv2.erode(outline, disc, borderType=cv2.BORDER_CONSTANT, borderValue=0)
        soft = inner if how == "poisson" else cv2.GaussianBlur(inner, (0, 0), inset / 2)
        self._mask = np.asarray(soft, np.float32)[:, :, None]

    def paste(self, frame: Image, face: Image, square: Array) -> Image:
        """A copy of the frame (H, W, 3) with the face (size, size, 3) in its square (4,); outside the outline
        not one pixel differs."""
        to_frame = crop_to_frame(square, self._size_px)
        ends = np.array([[0.0, self._size_px], [0.0, self._size_px]])
        corners = to_frame[:, :2] @ np.array([ends[0, [0, 1, 0, 1]], ends[1, [0, 0, 1, 1]]]) + to_frame[:, 2:]
        low = np.floor(corners.min(axis=1)).astype(int) - _RING_PX
        high = np.ceil(corners.max(axis=1)).astype(int) + _RING_PX
        (left, top), (right, bottom) = np.maximum(low, 0), np.minimum(high, frame.shape[1::-1])
        made = frame.copy()
        if left >= right or top >= bottom:
            return made
        part = made[top:bottom, left:right]
        to_crop = inverse(to_frame)
        to_crop[:, 2] += to_crop[:, :2] @ np.array([left, top], np.float64)
        both = np.concatenate([face.astype(np.float32), self._mask * 255], axis=2)
        sampled = resample(both, to_crop, *part.shape[:2])
        source, weight = sampled[:, :, :3], np.clip(sampled[:, :, 3:] / 255, 0, 1)
        if self._how == "poisson":
            mask = np.ascontiguousarray(weight[:, :, 0] > 0.5, np.uint8)
            pixels: Any = np.ascontiguousarray(part)
            part[:] = blend(pixels, np.ascontiguousarray(source)[None], mask[None]).image[0]
        else:
            weight[weight < 1 / 512] = 0  # what an 8-bit image cannot show
            part[:] = np.rint(part + weight * (np.clip(source, 0, 255) - part)).astype(np.uint8)
        return made
