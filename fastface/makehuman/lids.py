"""Eyelids that rest on the eyeballs: no vertex inside, the blink closed from rim to rim.

``level`` counts rings of quads outward from the rim of the socket: 0.5 is the lid's rim, 4.5 the end of the
lid, the crease lies near 7.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fastface.makehuman.rims import border_edges, halves
from fastface.makehuman.sources import Floats, Ints
from fastface.makehuman.topology import Skin
from fastface.morphable import MATERIALS

CLEARANCE_MM = 0.3
LAP_MM = 0.6
"""How far the closed upper lid reaches over the rim of the lower."""
MARGIN_LEVELS = 2.5
REACH_LEVELS = 11.0
BLUR_MM_PER_LEVEL = 0.55
STEPS = (0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True)
class Lids:
    """The lids of one eye: eyeball, rim vertices from its +x to its -x corner, and the skin on and behind the
    ball.
    """

    centre: Floats
    radius_mm: float
    upper: Ints
    lower: Ints
    near: Ints
    level: Floats

    def outside(self, vertices: Floats, displacement: Floats) -> Floats:
        """``displacement (V, 3)`` lengthened outwards until the lids stay clear of the ball all the way from
        0 to 1.
        """
        lid = self.near[self.level[self.near] > 0.0]
        rows = lid[np.abs(displacement[lid]).max(axis=1) > 1e-3]
        result = displacement.copy()
        least = self.radius_mm + CLEARANCE_MM
        end = vertices[rows] + displacement[rows] - self.centre
        start = vertices[rows] - self.centre
        for _ in range(30):
            short = np.zeros(len(rows))
            for step in STEPS:
                depth = least - np.linalg.norm(start + step * (end - start), axis=1)
                short = np.maximum(short, depth / step)
            if short.max(initial=0.0) < 0.01:
                break
            direction = end / np.linalg.norm(end, axis=1, keepdims=True)
            end = end + np.clip(short, 0.0, 1.0)[:, None] * direction
        result[rows] = end + self.centre - vertices[rows]
        return result

    def lowered(self, vertices: Floats, share: float) -> Floats:
        """Displacements (V, 3) of an upper lid that has gone ``share`` of the way to the lower; 1 is a blink.

        The lid turns with the ball's surface, about the axis through the ball's centre along x. Its margin
        turns as a whole, far enough for its rim to meet the lower rim at the same x; towards the crease the
        turn fades out.
        """
        rows = self.near[self._is_upper(vertices, self.near)]
        fade = np.clip((REACH_LEVELS - self.level[rows]) / (REACH_LEVELS - MARGIN_LEVELS), 0.0, 1.0) ** 2.0
        angle = share * fade * self._gap(vertices, rows)
        y, z = (vertices[rows] - self.centre)[:, 1:].T
        result = np.zeros_like(vertices)
        result[rows, 1] = np.cos(angle) * y - np.sin(angle) * z - y
        result[rows, 2] = np.sin(angle) * y + np.cos(angle) * z - z
        return result

    def _gap(self, vertices: Floats, rows: Ints) -> Floats:
        """Angle (radians) between the rims, as seen from the ball's centre, where the vertices ``rows``
        stand.

        The profile runs along x, 0 beyond the corners. The further a vertex is from the rim, the more the
        profile is blurred along x, so that the skin about the corners of the eye shears gently.
        """
        right, left = vertices[self.upper[-1], 0], vertices[self.upper[0], 0]
        grid = np.linspace(right, left, 61)[1:-1]
        lap = LAP_MM / self.radius_mm * np.sin(np.pi * (grid - right) / (left - right)) ** 0.5
        high, low = (self._elevation_at(vertices, rim, grid) for rim in (self.upper, self.lower))
        fit = high - low + lap
        margin = np.linspace(1.0, 12.0, 30)
        places = np.concatenate([right - margin[::-1], grid, left + margin])
        profile = np.concatenate([np.zeros(30), np.clip(fit, 0.0, None), np.zeros(30)])
        spacing = np.gradient(places)
        width = (0.3 + BLUR_MM_PER_LEVEL * np.clip(self.level[rows] - 1.0, 0.0, None))[:, None]
        weight = spacing * np.exp(-0.5 * ((vertices[rows, 0][:, None] - places) / width) ** 2)
        angle: Floats = weight @ profile / (weight.sum(axis=1) + 1e-12)
        return angle

    def _elevation_at(self, vertices: Floats, rim: Ints, x: Floats) -> Floats:
        offset = vertices[rim] - self.centre
        order = np.argsort(vertices[rim, 0])
        elevation: Floats = np.interp(
            x, vertices[rim, 0][order], np.arctan2(offset[:, 1], offset[:, 2])[order]
        )
        return elevation

    def is_lower(self, vertices: Floats) -> NDArray[np.bool_]:
        """Which vertices (V,) belong to the lower lid."""
        lower = np.zeros(len(vertices), bool)
        lower[self.near] = ~self._is_upper(vertices, self.near)
        return lower

    def _is_upper(self, vertices: Floats, rows: Ints) -> NDArray[np.bool_]:
        offset = vertices[rows] - self.centre
        high, low = (self._elevation_at(vertices, rim, vertices[rows, 0]) for rim in (self.upper, self.lower))
        upper: NDArray[np.bool_] = np.arctan2(offset[:, 1], offset[:, 2]) > 0.5 * (high + low)
        return upper


def lids_of(skin: Skin, vertices: Floats, centre: Floats, radius_mm: float) -> Lids:
    """The lids around the eyeball at ``centre``; ``vertices`` are the skin's on the mean head."""
    side = np.sign(centre[0])
    own = np.sign(vertices[skin.triangles].mean(axis=1)[:, 0]) == side
    socket = np.flatnonzero(own & (skin.materials == MATERIALS.index("other")))
    lids = np.flatnonzero(own & (skin.materials == MATERIALS.index("eyelids")))
    upper, lower = halves(border_edges(skin.triangles, socket, lids), vertices)
    near = np.flatnonzero((np.sign(vertices[:, 0]) == side) & (skin.lid_level <= REACH_LEVELS))
    return Lids(centre, radius_mm, upper, lower, near, skin.lid_level)
