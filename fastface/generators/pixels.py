"""Images: (B, H, W, 3) uint8 RGB for callers, (B, 3, H, W) float32 in [-1, 1] for networks."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from fastface.errors import BadArgument, BadModelFile

Images = NDArray[np.uint8]
Floats = NDArray[np.float32]


def to_network(images: Any, resolution: int, what: str) -> Floats:
    """(B, R, R, 3) or (R, R, 3) uint8 to (B, 3, R, R) in [-1, 1]; 0 is -1 and 255 is 1. ``BadArgument``."""
    array = np.asarray(images)
    if array.ndim == 3:
        array = array[None]
    if array.dtype != np.uint8 or array.ndim != 4 or array.shape[1:] != (resolution, resolution, 3):
        raise BadArgument(
            f"{what} must be (B, {resolution}, {resolution}, 3) uint8, got {array.shape} {array.dtype}"
        )
    planes = np.empty((len(array), 3, resolution, resolution), np.float32)
    np.multiply(array.transpose(0, 3, 1, 2), np.float32(1 / 127.5), out=planes)
    planes -= 1
    return planes


def to_images(planes: Floats, maker: str) -> Images:
    """(B, 3, H, W) about [-1, 1] to (B, H, W, 3) uint8, what lies beyond clipped.

    ``BadModelFile`` for NaN or infinity: damaged weights, or an overflow in fp16.
    """
    if planes.ndim != 4 or planes.shape[1] != 3:
        raise BadModelFile(f"{maker}: gave {planes.shape} for images (B, 3, H, W)")
    if not np.isfinite(planes).all():
        raise BadModelFile(f"{maker}: gave NaN or infinity; its weights are damaged, or overflow in fp16")
    batch, _, height, width = planes.shape
    images = np.empty((batch, height, width, 3), np.uint8)
    for image, channels in zip(images, planes, strict=True):
        # Rounds and saturates in one pass, four times as quick as numpy's steps.
        merged = cv2.merge(list(channels))
        cv2.addWeighted(merged, 127.5, merged, 0.0, 127.5, image, cv2.CV_8U)
    return images
