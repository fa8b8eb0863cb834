"""Eyelids that rest on the eyeballs: no vertex inside, the blink closed from rim to rim.

``level`` counts rings of quads outward from the rim of the socket: 0.5 is the lid's rim, 4.5 the end of the lid, the
crease lies near 8.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fastface.makehuman.rims import along, border_edges, halves, interpolation
from fastface.makehuman.sources import Floats, Ints
from fastface.makehuman.topology import Skin
from fastface.morphable import MATERIALS

CLEARANCE_MM = 0.35
LAP_MM = 0.25
"""How far the closed upper lid reaches over the rim of the lower."""
REACH_LEVELS = 9.0
STEPS = (0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True)
class Lids:
    """The lids of one eye: eyeball, rim vertices from its +x to its -x corner, and the skin that rests on the ball."""

    centre: Floats
    radius_mm: float
    upper: Ints
    lower: Ints
    near: Ints
    level: Floats

    def outside(self, vertices: Floats, displacement: Floats) -> Floats:
        """``displacement (V, 3)`` lengthened outwards until the lids stay clear of the ball all the way from 0 to 1."""
        moved = np.flatnonzero(np.abs(displacement[self.near]).max(axis=1) > 1e-3)
        rows = self.near[moved]
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

    def closed(self, vertices: Floats, displacement: Floats) -> Floats:
        """A blink whose upper rim comes to lie just over the lower, the rest of the upper lid following."""
        low = vertices[self.lower] + displacement[self.lower]
        across = interpolation(-along(vertices[self.upper]), -along(low))
        target = across @ low
        out = target - self.centre
        out /= np.linalg.norm(out, axis=1, keepdims=True)
        inner = np.ones((len(target), 1))
        inner[[0, -1]] = 0.0
        target = target + inner * (2.0 * CLEARANCE_MM * out + [0.0, -LAP_MM, 0.0])
        lack = target - (vertices[self.upper] + displacement[self.upper])
        rows = self.near[self._is_upper(vertices, self.near)]
        nearest = interpolation(vertices[rows, 0], vertices[self.upper, 0])
        fade = np.clip(1.0 - (self.level[rows] - 0.5) / (REACH_LEVELS - 1.5), 0.0, 1.0) ** 1.5
        result = displacement.copy()
        result[rows] += fade[:, None] * (nearest @ lack)
        result[self.upper] = displacement[self.upper] + lack
        return result

    def _is_upper(self, vertices: Floats, rows: Ints) -> np.ndarray:
        middle = 0.5 * sum(
            interpolation(vertices[rows, 0], vertices[half, 0]) @ vertices[half, 1] for half in (self.upper, self.lower)
        )
        upper: np.ndarray = vertices[rows, 1] > middle
        return upper


def lids_of(skin: Skin, vertices: Floats, centre: Floats, radius_mm: float) -> Lids:
    """The lids around the eyeball at ``centre``; ``vertices`` are the skin's on the mean head."""
    side = np.sign(centre[0])
    own = np.sign(vertices[skin.triangles].mean(axis=1)[:, 0]) == side
    socket = np.flatnonzero(own & (skin.materials == MATERIALS.index("other")))
    lids = np.flatnonzero(own & (skin.materials == MATERIALS.index("eyelids")))
    upper, lower = halves(border_edges(skin.triangles, socket, lids), vertices)
    near = np.flatnonzero((np.sign(vertices[:, 0]) == side) & (skin.lid_level > 0.0) & (skin.lid_level <= REACH_LEVELS))
    return Lids(centre, radius_mm, upper, lower, near, skin.lid_level)
