"""A synthetic part of the head (eyeballs, teeth, gums, tongue): its mesh at the neutral, and what carries it.

A part rides on a helper group of the base mesh. Each of its vertices is the affine combination of the
helper's vertices that gives the vertex at the neutral; applied to any target, the part undergoes the affine
map that fits the helper's motion best (least squares). So interior parts move consistently with identity, and
never buckle.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fastface.makehuman.linear_map import LinearMap
from fastface.makehuman.sources import Floats, Ints

Colours = NDArray[np.uint8]


@dataclass(frozen=True)
class Part:
    """``vertices (n, 3)`` mm, ``triangles (f, 3)`` and ``materials (f,)``, ``albedo (n, 3)``, own ``mirror
    (n,)``.
    """

    vertices: Floats
    triangles: Ints
    materials: NDArray[np.uint8]
    albedo: Colours
    mirror: Ints


def ride(vertices: Floats, helper: Ints, neutral: Floats) -> LinearMap:
    """Weights (n rows over base vertices) that carry ``vertices`` along with the ``helper`` vertices."""
    rest = np.column_stack([neutral[helper], np.ones(len(helper))])
    weights = np.column_stack([vertices, np.ones(len(vertices))]) @ np.linalg.pinv(rest)
    starts = np.arange(len(vertices) + 1) * len(helper)
    return LinearMap(starts, np.tile(helper, len(vertices)), weights.ravel())


def grid_triangles(rows: int, columns: int, closed: bool = False) -> Ints:
    """Triangles of a ``rows × columns`` vertex grid; counter-clockwise when seen with rows going up, columns
    right.
    """
    triangles = []
    for row in range(rows - 1):
        for column in range(columns if closed else columns - 1):
            a, b = row * columns + column, row * columns + (column + 1) % columns
            triangles += [(a, b, b + columns), (a, b + columns, a + columns)]
    return np.array(triangles, np.int64)


def flipped(triangles: Ints) -> Ints:
    """The same triangles seen from the other side."""
    return triangles[:, [0, 2, 1]]


def merged(parts: list[Part]) -> Part:
    """Several parts as one, in order; each keeps its own mirror."""
    offsets = np.concatenate([[0], np.cumsum([len(part.vertices) for part in parts])])
    return Part(
        np.concatenate([part.vertices for part in parts]),
        np.concatenate([part.triangles + offset for part, offset in zip(parts, offsets, strict=False)]),
        np.concatenate([part.materials for part in parts]),
        np.concatenate([part.albedo for part in parts]),
        np.concatenate([part.mirror + offset for part, offset in zip(parts, offsets, strict=False)]),
    )


def with_mirror_image(part: Part) -> Part:
    """A part of the subject's right side (x < 0) followed by its image on the left."""
    count = len(part.vertices)
    both = np.arange(2 * count)
    return Part(
        np.concatenate([part.vertices, part.vertices * [-1.0, 1.0, 1.0]]),
        np.concatenate([part.triangles, flipped(part.triangles) + count]),
        np.concatenate([part.materials, part.materials]),
        np.concatenate([part.albedo, part.albedo]),
        np.concatenate([both[count:], both[:count]]),
    )
