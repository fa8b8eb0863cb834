"""The skin: which part of the base mesh is kept, where it is refined, where thinned, and what each triangle
is made of.

Everything is decided on the subject's right half (x <= 0) of a symmetric neutral head and mirrored, so the
result is exactly symmetric.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fastface.makehuman.decimation import collapse
from fastface.makehuman.edge_loops import eye_loop
from fastface.makehuman.linear_map import LinearMap
from fastface.makehuman.sources import BaseMesh, Floats, Ints
from fastface.makehuman.subdivision import Refined, edge_faces, refine, triangulate
from fastface.morphable import MATERIALS

Mask = NDArray[np.bool_]

NECK_CUT_MM = -164.0
EYE_SCALE = 0.935
"""The helper eyeballs are a little too large for the lids to glide over: a blink is a straight line, the ball
is not.
"""
RIM_DISTANCE = 0.98
"""Mean distance of the lids' rim from the eye's centre, in helper eyeball radii: picks the loop of edges that
is it.
"""
LIP_RINGS = 7
HIDDEN_RINGS = 1
LIP_CORNER_MM = 24.0
LIP_CORNER_RINGS = 4
EYELID_RINGS = 4
FAR_DROPS = 300


@dataclass(frozen=True)
class Skin:
    """The body part of the model: vertices as weights over base vertices, triangles, materials, mirror.

    ``level (V,)`` counts rings of quads outward from the mouth bag: 0 in the bag, 1 in the middle of the
    first ring, 1.5 between the first and the second. ``lid_level`` counts likewise from what the eyeballs
    hide outward over the lids.
    """

    weights: LinearMap
    triangles: Ints
    materials: NDArray[np.uint8]
    mirror: Ints
    level: Floats
    lid_level: Floats


@dataclass(frozen=True)
class Quads:
    """The quads of the base mesh that are kept, with what is known of each.

    ``ring`` counts from the mouth bag (0) outward, ``eye_ring`` from what the eyeballs hide (0) outward over
    the lids.
    """

    corners: Ints
    centre: Floats
    side_mm: Floats
    ring: Ints
    eye_ring: Ints
    neighbours: list[list[int]]


def kept_quads(base: BaseMesh, neutral: Floats, inside_mouth: NDArray[np.uint8]) -> Quads:
    """Head and neck without the closed pockets behind the eyeballs, which nothing ever shows."""
    body = base.quad_groups == "body"
    corners = base.vertices[base.quads]
    body &= (corners[:, :, 1] > NECK_CUT_MM).all(axis=1) & (np.abs(corners[:, :, 0]) < 175.0).all(axis=1)
    centre = neutral[base.quads].mean(axis=1)
    for eyeball in base.eyeballs:
        middle = neutral[eyeball].mean(axis=0)
        body &= ~((np.linalg.norm(centre - middle, axis=1) < 17.5) & (centre[:, 2] < 6.0))
    quads = base.quads[body]
    middle = centre[body]
    diagonals = neutral[quads[:, 2:]] - neutral[quads[:, :2]]
    side = np.sqrt(0.5 * np.linalg.norm(np.cross(diagonals[:, 0], diagonals[:, 1]), axis=1))
    neighbours: list[list[int]] = [[] for _ in quads]
    rim = np.zeros(len(quads), bool)
    for edge, touching in edge_faces(quads).items():
        if len(touching) == 2:
            neighbours[touching[0]].append(touching[1])
            neighbours[touching[1]].append(touching[0])
        elif neutral[edge[0], 1] > NECK_CUT_MM / 2:
            rim[touching[0]] = True
    rings = _rings(_sample(inside_mouth, base.quad_uv[body]) > 127, neighbours)
    hidden = _behind_lids(base, neutral, quads, neighbours, rim)
    return Quads(quads, middle, side, rings, _rings(hidden, neighbours), neighbours)


def _behind_lids(
    base: BaseMesh, neutral: Floats, quads: Ints, neighbours: list[list[int]], rim: Mask
) -> Mask:
    """What lies inside the loops of edges along the lids' rims: flooded from the open ``rim`` of the eye
    sockets.
    """
    walls: set[frozenset[int]] = set()
    for eyeball in base.eyeballs:
        centre = neutral[eyeball].mean(axis=0)
        radius = float(np.linalg.norm(neutral[eyeball] - centre, axis=1).mean())
        loop = eye_loop(quads, neutral, centre, RIM_DISTANCE * radius)
        walls |= {frozenset(edge) for edge in loop}
    corners = [set(quad) for quad in quads.tolist()]
    hidden = rim.copy()
    front = np.flatnonzero(rim).tolist()
    while front:
        face = front.pop()
        for other in neighbours[face]:
            if not hidden[other] and frozenset(corners[face] & corners[other]) not in walls:
                hidden[other] = True
                front.append(other)
    return hidden


def _sample(mask: NDArray[np.uint8], uv: Floats) -> NDArray[np.uint8]:
    height, width = mask.shape
    rows = np.clip(((1.0 - uv[:, 1]) * height).astype(int), 0, height - 1)
    columns = np.clip((uv[:, 0] * width).astype(int), 0, width - 1)
    sampled: NDArray[np.uint8] = mask[rows, columns]
    return sampled


def _rings(seed: Mask, neighbours: list[list[int]]) -> Ints:
    ring = np.full(len(seed), 1000)
    front = np.flatnonzero(seed).tolist()
    ring[front] = 0
    distance = 0
    while front:
        distance += 1
        front = sorted({other for face in front for other in neighbours[face] if ring[other] > distance})
        ring[front] = distance
    return ring


def refined_region(quads: Quads) -> Mask:
    """Lips, nose, nasolabial folds, cheeks below the eyes, chin, brows and lower forehead, where quads are
    coarse.
    """
    x, y, z = np.abs(quads.centre[:, 0]), quads.centre[:, 1], quads.centre[:, 2]

    def ellipse(cx: float, cy: float, rx: float, ry: float) -> Mask:
        inside: Mask = ((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2 < 1.0
        return inside

    mouth = ellipse(0, -72, 44, 39)
    nose = ellipse(0, -27, 25, 40)
    eyes = ellipse(34, 0, 29, 26)
    cheeks = ellipse(33, -33, 18, 24)
    brows = (x < 50) & (y > 11) & (y < 38)
    region = (mouth | nose | eyes | cheeks | brows) & (z > -2) & (quads.ring > 0)
    lips = (quads.ring > 0) & (quads.ring <= LIP_RINGS)
    chosen = (region & (quads.side_mm > 1.9)) | (lips & (quads.ring > 1))
    for _ in range(4):
        beside = np.array([chosen[others].sum() for others in quads.neighbours])
        chosen = (chosen | ((beside >= 3) & (quads.ring > 0) & (quads.eye_ring > EYELID_RINGS))) & (
            beside > 1
        )
    return chosen


def build_skin(base: BaseMesh, neutral: Floats, quads: Quads) -> Skin:
    """Refine, triangulate, thin out and mirror."""
    fine = refine(quads.corners, refined_region(quads), base.mirror)
    weights = LinearMap.from_rows(fine.rows)
    positions = weights(neutral)
    positions = 0.5 * (positions + positions[fine.mirror] * [-1.0, 1.0, 1.0])
    half, parents = _right_half(fine, quads, positions)
    half, kept = collapse(half, positions, _far_away(half, positions, quads, parents), FAR_DROPS)
    material = _materials(quads)[parents[kept]]
    triangles = np.concatenate([half, fine.mirror[half][:, [0, 2, 1]]])
    used = np.unique(triangles)
    renumber = np.full(len(fine.rows), -1)
    renumber[used] = np.arange(len(used))
    level, lid_level = _levels(fine, quads.ring), _levels(fine, quads.eye_ring)
    skin_weights = LinearMap.from_rows([fine.rows[vertex] for vertex in used])
    mirror = renumber[fine.mirror[used]]
    materials = np.concatenate([material, material])
    return Skin(skin_weights, renumber[triangles], materials, mirror, level[used], lid_level[used])


def _materials(quads: Quads) -> NDArray[np.uint8]:
    """Material of each quad. The innermost lip ring lies behind the line where the closed lips touch."""
    material = np.full(len(quads.ring), MATERIALS.index("skin"), np.uint8)
    material[quads.eye_ring <= EYELID_RINGS] = MATERIALS.index("eyelids")
    material[quads.eye_ring == 0] = MATERIALS.index("other")
    corner = np.abs(quads.centre[:, 0]) > LIP_CORNER_MM
    lips = (quads.ring <= LIP_RINGS) & ~(corner & (quads.ring > LIP_CORNER_RINGS))
    material[lips] = MATERIALS.index("lips")
    material[quads.ring <= HIDDEN_RINGS] = MATERIALS.index("mouth_interior")
    return material


def _right_half(fine: Refined, quads: Quads, positions: Floats) -> tuple[Ints, Ints]:
    triangles: list[tuple[int, int, int]] = []
    parents: list[int] = []
    for polygon, parent in zip(fine.polygons, fine.parents, strict=True):
        if quads.centre[parent, 0] < 0.0:
            pieces = triangulate(polygon, positions, fine.first_extra)
            triangles += pieces
            parents += [parent] * len(pieces)
    return np.array(triangles), np.array(parents)


def _far_away(triangles: Ints, positions: Floats, quads: Quads, parents: Ints) -> Mask:
    """Vertices where coarseness does no harm: back of the head, ears, neck, depth of the mouth bag."""
    centre = positions[triangles].mean(axis=1)
    in_mouth = quads.ring[parents] == 0
    far = (centre[:, 2] < -60.0) | (centre[:, 1] > 92.0) | (centre[:, 1] < -136.0)
    far = np.where(in_mouth, centre[:, 2] < -22.0, far)
    near = np.unique(triangles[~far])
    droppable = np.ones(len(positions), bool)
    droppable[near] = False
    return droppable


def _levels(fine: Refined, ring: Ints) -> Floats:
    inner = np.full(len(fine.rows), 1000)
    outer = np.zeros(len(fine.rows), np.int64)
    for polygon, parent in zip(fine.polygons, fine.parents, strict=True):
        inner[polygon] = np.minimum(inner[polygon], ring[parent])
        outer[polygon] = np.maximum(outer[polygon], ring[parent])
    level: Floats = 0.5 * (inner + outer).astype(np.float64)
    return level
