"""Lips that touch. The base mesh leaves a slit of half a millimetre, and its two sides have different
vertices.

The rim of the mouth is the loop of vertices at ``level`` 1.5 (between the hidden lip ring and the red of the
lips). Its upper and lower half are brought onto one line half-way between them, and the rings beside follow
with a falloff. The weights are fixed on the neutral head, so sealing is linear: a sealed mean plus sealed
modes is sealed for every head.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fastface.makehuman.rims import border_edges, halves, interpolation
from fastface.makehuman.sources import Floats, Ints
from fastface.makehuman.topology import Skin
from fastface.morphable import MATERIALS

FALLOFF_LEVELS = (0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 4.5, 5.0)
FALLOFF = (0.0, 0.55, 0.85, 1.0, 0.86, 0.64, 0.42, 0.24, 0.12, 0.04, 0.0)
OVERLAP_MM = np.array([0.0, 0.22, -0.30])
"""How far the lower rim is tucked up behind the upper, so that no ray slips between them."""


@dataclass(frozen=True)
class LipSeal:
    """``upper`` and ``lower`` rim vertices from left (+x) to right, and who follows them."""

    upper: Ints
    lower: Ints
    lower_on_upper: Floats
    upper_on_lower: Floats
    followers: Ints
    follower_weights: Floats

    def __call__(self, field: Floats, overlap: float = 0.0) -> Floats:
        """Seal a displacement field or positions ``(V, 3)``; ``overlap`` is 1 for positions, 0 for
        displacements.
        """
        line = 0.5 * (field[self.lower] + self.lower_on_upper @ field[self.upper])
        tuck = np.zeros((len(self.lower), 1))
        tuck[1:-1] = overlap
        shift = np.concatenate([self.upper_on_lower @ line - field[self.upper], line - field[self.lower]])
        shift[len(self.upper) :] += tuck * OVERLAP_MM
        sealed = field.copy()
        sealed[self.followers] += self.follower_weights @ shift
        return sealed


def lip_seal(skin: Skin, positions: Floats) -> LipSeal:
    """Weights of the seal for the neutral ``positions (V, 3)`` of the skin."""
    level = skin.level
    mouth, lips = (
        np.flatnonzero(skin.materials == MATERIALS.index(name)) for name in ("mouth_interior", "lips")
    )
    upper, lower = halves(border_edges(skin.triangles, mouth, lips), positions)
    reach = level <= FALLOFF_LEVELS[-1]
    followers = np.flatnonzero(reach & (level > 0.0))
    weights = np.zeros((len(followers), len(upper) + len(lower)))
    x = positions[followers, 0]
    on_upper, on_lower = interpolation(x, positions[upper, 0]), interpolation(x, positions[lower, 0])
    middle = 0.5 * (on_upper @ positions[upper, 1] + on_lower @ positions[lower, 1])
    above = (positions[followers, 1] > middle)[:, None]
    strength = np.interp(level[followers], FALLOFF_LEVELS, FALLOFF)
    beyond = np.abs(x) - np.abs(positions[upper, 0]).max()
    strength *= np.clip(1.0 - beyond / 6.0, 0.0, 1.0)
    weights[:, : len(upper)] = np.where(above, on_upper, 0.0) * strength[:, None]
    weights[:, len(upper) :] = np.where(above, 0.0, on_lower) * strength[:, None]
    for place, vertex in enumerate(np.concatenate([upper, lower])):
        row = np.flatnonzero(followers == vertex)[0]
        weights[row] = 0.0
        weights[row, place] = 1.0
    lower_on_upper = interpolation(positions[lower, 0], positions[upper, 0])
    upper_on_lower = interpolation(positions[upper, 0], positions[lower, 0])
    return LipSeal(upper, lower, lower_on_upper, upper_on_lower, followers, weights)
