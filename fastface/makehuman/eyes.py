"""Eyeballs: the front of a sphere each, fine enough for lids to rest on."""

from __future__ import annotations

import numpy as np

from fastface.makehuman.parts import Part, grid_triangles
from fastface.makehuman.sources import Floats
from fastface.morphable import MATERIALS

RINGS = 7
SEGMENTS = 20
COVER_DEG = 105.0
IRIS_DEG = 21.0
PUPIL_DEG = 8.0
SCLERA = (226, 219, 214)
IRIS = (92, 66, 48)
PUPIL = (16, 13, 12)


def eyeball(centre: Floats, radius_mm: float) -> Part:
    """One eyeball about ``centre``: a pole that looks to +z and ``RINGS`` rings around it, up to
    ``COVER_DEG`` away.

    The first rings end at the pupil and the iris, so that their colours have sharp borders. Its mirror
    permutation maps it to an eyeball built alike on the other side.
    """
    angles = np.radians([PUPIL_DEG, IRIS_DEG, IRIS_DEG + 2.0, 40.0, 60.0, 82.0, COVER_DEG])
    turns = np.radians(90.0 + np.arange(SEGMENTS) * 360.0 / SEGMENTS)
    rim = np.stack([np.cos(turns), np.sin(turns)], axis=1)
    rings = [np.column_stack([np.sin(angle) * rim, np.full(SEGMENTS, np.cos(angle))]) for angle in angles]
    directions = np.concatenate([[[0.0, 0.0, 1.0]], *rings])
    fan = np.array([(0, 1 + k, 1 + (k + 1) % SEGMENTS) for k in range(SEGMENTS)])
    band = 1 + grid_triangles(RINGS, SEGMENTS, closed=True)[:, [0, 2, 1]]
    triangles = np.concatenate([fan, band])
    colours = np.array(
        [PUPIL] * (1 + SEGMENTS) + [IRIS] * SEGMENTS + [SCLERA] * (RINGS - 2) * SEGMENTS, np.uint8
    )
    ring_mirror = (-np.arange(SEGMENTS)) % SEGMENTS
    mirror = np.concatenate([[0], *(1 + ring * SEGMENTS + ring_mirror for ring in range(RINGS))])
    materials = np.full(len(triangles), MATERIALS.index("eyeballs"), np.uint8)
    return Part(centre + radius_mm * directions, triangles, materials, colours, mirror)
