"""Closed edge loops of a quad mesh: lines of edges that go straight on through every vertex they meet.

The base mesh lays such loops around each eye, one behind another, so a loop marks the lid's rim exactly.
"""

from __future__ import annotations

from collections import defaultdict

import numpy as np

from fastface.makehuman.sources import Floats, Ints
from fastface.makehuman.subdivision import Edge, edge_faces

LONGEST = 400


def eye_loop(quads: Ints, vertices: Floats, centre: Floats, distance_mm: float) -> list[Edge]:
    """The loop around the line of sight (from ``centre`` along z) whose vertices lie ``distance_mm`` off on
    average.
    """
    faces = edge_faces(quads)
    spokes: dict[int, list[Edge]] = defaultdict(list)
    for edge in faces:
        for end in edge:
            spokes[end].append(edge)
    ends = np.array(sorted(faces))
    offset = vertices[ends].mean(axis=1) - centre
    along = np.abs(vertices[ends[:, 1]] - vertices[ends[:, 0]])
    above = (np.abs(offset[:, 0]) < 4.0) & (offset[:, 1] > 0.0) & (offset[:, 1] < 14.0) & (offset[:, 2] > 0.0)
    above &= along[:, 0] > along[:, 1:].max(axis=1)
    loops = []
    for start in map(tuple, ends[above].tolist()):
        loop = _walk((start[0], start[1]), faces, spokes)
        if loop is None:
            continue
        members = vertices[np.unique(loop)] - centre
        if members[:, 1].min() < 0.0:
            loops.append((abs(float(np.linalg.norm(members, axis=1).mean()) - distance_mm), loop))
    return min(loops)[1]


def _walk(start: Edge, faces: dict[Edge, list[int]], spokes: dict[int, list[Edge]]) -> list[Edge] | None:
    """The loop through ``start``, or None where the mesh is irregular or the line does not close."""
    loop, edge, vertex = [start], start, start[1]
    while len(loop) < LONGEST:
        onward = [other for other in spokes[vertex] if not set(faces[edge]) & set(faces[other])]
        if len(spokes[vertex]) != 4 or len(onward) != 1:
            return None
        edge = onward[0]
        if edge == start:
            return loop
        loop.append(edge)
        vertex = edge[0] if edge[1] == vertex else edge[1]
    return None
