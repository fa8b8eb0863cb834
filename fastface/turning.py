"""Frames of a head that is turned away from where the photo shows it.

The patch of the face turns as a solid body with its expression on it; the sheet around it follows the
patch's border, then the head's outline (``rig.Lead``), and comes to rest well beyond hair and neck. What the
photo does not show, it stretches.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fastface import ops
from fastface.binding import CULL_BACKFACES, Binding
from fastface.errors import BadArgument
from fastface.head_pose import turned
from fastface.relaxation import SHIFTS
from fastface.rendering import FaceRenderer
from fastface.rig import Rig

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Image = NDArray[np.uint8]

#: The columns of ``FaceRenderer.controls`` that it leaves open.
_SHARES: Final = slice(len(SHIFTS), len(SHIFTS) + 3)


class TurningRenderer(FaceRenderer):
    """Renders a face bound with ``turns=True``; one frame after the other, threads may share it."""

    def __init__(self, bound: Binding, rig: Rig, threads: int) -> None:
        super().__init__(bound, threads)
        if rig.lead is None:
            raise BadArgument("wanted a rig that was built with turns=True")
        self._bound, self.lead = bound, rig.lead
        self._ray = bound.camera[0]
        self._rest_border = self._screen(bound.neutral[self.lead.border])
        self._rest_rows = bound.shading.rest_px[self.lead.rows]
        self._window = np.ascontiguousarray(bound.photo[bound.window.slices])

    def render_turned(self, coefficients: Float32, poses: Float64, out: Image) -> None:
        """``coefficients (B, E)``, ``poses (B, 4)`` → ``out (B, H, W, 3)``, every byte written."""
        rows, columns = self._bound.window.slices
        with self._workspace() as workspace:
            shared: dict[str, Any] = {"threads": self.threads, "workspace": workspace}
            for row, pose, image in zip(coefficients, poses, out, strict=True):
                source, mask = self._turned(row[None], pose, shared)
                image[:] = self._photo
                image[rows, columns] = ops.blend(self._window, source, mask, **shared).image[0]

    def mask_turned(self, coefficients: Float32, pose: Float64) -> Image:
        """(H, W) 1 where that frame may differ from the photo; ``coefficients (E,)``, ``pose (4,)``."""
        mask = np.zeros(self._photo.shape[:2], np.uint8)
        with self._workspace() as workspace:
            shared: dict[str, Any] = {"threads": self.threads, "workspace": workspace}
            mask[self._bound.window.slices] = self._turned(coefficients[None], pose, shared)[1][0]
        return mask

    def _turned(self, coefficients: Float32, pose: Float64, shared: dict[str, Any]) -> tuple[Float32, Image]:
        bound = self._bound
        deltas = self.deltas(coefficients)
        positions, screen = ops.deform(bound.neutral, bound.basis, deltas, bound.camera, **shared)
        controls = self.controls(deltas)
        controls[:, _SHARES] = self.shares(screen)
        if pose.any():
            self._turn(positions[0], screen[0], pose)
        height, width = bound.window.height, bound.window.width
        mesh = bound.shading.triangles
        found = ops.rasterize(screen, mesh, height, width, cull_backfaces=CULL_BACKFACES, **shared)
        triangles = found.triangle_id, found.bary
        source, mask = ops.shade(positions, screen, *triangles, controls, bound.shading, **shared)
        if not (deltas.any() or pose.any()):
            mask[:] = 0
        return source, mask

    def _turn(self, positions: Float32, screen: Float32, pose: Float64) -> None:
        """Move the patch as a solid body, then lay what follows its border where that has gone."""
        lead = self.lead
        moved = turned(positions, pose, lead.pivot_mm)
        place = self._screen(moved)
        body = self._screen(turned(lead.body_mm, pose, lead.pivot_mm)) - self._rest_rows
        border = place[lead.border] - self._rest_border
        led = self._rest_rows + lead.weights @ border + lead.body_share[:, None] * body
        share = lead.share[:, None]
        depth = np.where(share < 1, moved[lead.rows, 2:], positions[lead.rows, 2:])
        place[lead.rows] = share * led + (1 - share) * place[lead.rows]
        positions[:] = moved
        positions[lead.rows, 2:] = depth
        positions[lead.rows, :2] = (place[lead.rows] - self._ray[1:]) * (depth / self._ray[0])
        screen[:, :2], screen[:, 2] = place, positions[:, 2]

    def _screen(self, points: Float32) -> Float32:
        projected: Float32 = points[:, :2] * (self._ray[0] / points[:, 2:]) + self._ray[1:]
        return projected
