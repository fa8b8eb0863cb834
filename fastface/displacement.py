"""How far each pixel of a frame has come: maps of motion, whole or by action unit, and their picture."""

from __future__ import annotations

from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from fastface import ops
from fastface.binding import CULL_BACKFACES, Binding

Float32 = NDArray[np.float32]
Image = NDArray[np.uint8]

_VEIL: Final = 0.75  # of the colour map over the frame where the motion is greatest


def displacement_px(bound: Binding, deltas: Float32) -> Float32:
    """(H, W, 2) px right and down that what each pixel shows has moved from its place in the photo; 0 where
    nothing of the face is. ``deltas (E,)`` as from ``FaceRenderer.deltas``."""
    _, screen = ops.deform(bound.neutral, bound.basis, deltas[None], bound.camera)
    height, width = bound.window.height, bound.window.width
    triangles = bound.shading.triangles
    found = ops.rasterize(screen, triangles, height, width, cull_backfaces=CULL_BACKFACES)
    moved = screen[0, :, :2] - bound.shading.rest_px
    there = found.triangle_id[0] >= 0
    corners = moved[triangles[found.triangle_id[0][there]]]  # (P, 3, 2)
    b, c = found.bary[0][there].T
    weights = np.stack([1 - b - c, b, c], axis=1)[:, :, None]
    field = np.zeros((*bound.photo.shape[:2], 2), np.float32)
    field[bound.window.slices][there] = (weights * corners).sum(axis=1)
    return field


def heat_map(image: Image, displacement: NDArray[Any], most_px: float | None = None) -> Image:
    """``image (H, W, 3)`` under a veil of colour that grows with the length of ``displacement (H, W, 2)`` px;
    the brightest stands for ``most_px``, the longest there is if None."""
    length = np.linalg.norm(displacement, axis=2)
    most = float(length.max()) if most_px is None else float(most_px)
    share = np.clip(length / max(most, 1e-6), 0, 1).astype(np.float32)
    colours = cv2.applyColorMap((share * 255).astype(np.uint8), cv2.COLORMAP_INFERNO)[:, :, ::-1]
    veil = (_VEIL * np.sqrt(share))[:, :, None]
    return np.asarray(np.rint((1 - veil) * image + veil * colours), np.uint8)
