"""Parts of a mesh that hang together, across seams where a vertex is stored twice."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from fastface.importers.published import workshop

_SAME: Final = 1e-6  # of the mesh's size: nearer vertices are one


def main_part(
    vertices: NDArray[np.float64],
    triangles: NDArray[np.int32],
    seen: NDArray[np.int64] | None = None,
    moved: NDArray[np.float64] | None = None,
) -> NDArray[np.int32]:
    """Triangles (F', 3) of the part that most of the triangles ``seen`` belong to (negative ones are none);
    without ``seen`` all triangles that have an area. Vertices at the same place become one, unless they part:
    ``moved (V, 3)`` is where they are in another pose.
    """
    welded, rows = weld(vertices, triangles, moved)
    if seen is None:
        return welded
    part_of = part_of_each(welded, len(vertices))
    of_triangle = np.full(len(triangles), -1)
    of_triangle[rows] = part_of
    voted = of_triangle[seen[seen >= 0]]
    votes = np.bincount(voted[voted >= 0], minlength=1)
    return np.ascontiguousarray(welded[part_of == votes.argmax()])


def weld(
    vertices: NDArray[np.float64], triangles: NDArray[np.int32], moved: NDArray[np.float64] | None = None
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Triangles whose vertices at the same place are one, those that keep an area, and their rows before."""
    size = float(np.ptp(vertices, axis=0).max())
    poses = [vertices] if moved is None else [vertices, moved]
    place = np.concatenate(
        [np.round((pose - vertices.min(axis=0)) / (_SAME * size)) for pose in poses], axis=1
    )
    _, first, same = np.unique(place, axis=0, return_index=True, return_inverse=True)
    welded = first[same.reshape(-1)][triangles].astype(np.int32)
    whole = (welded[:, 0] != welded[:, 1]) & (welded[:, 1] != welded[:, 2]) & (welded[:, 2] != welded[:, 0])
    rows = np.flatnonzero(whole)
    return np.ascontiguousarray(welded[rows]), rows


def part_of_each(triangles: NDArray[np.int32], count: int) -> NDArray[np.int64]:
    """The number of the part that each triangle (F, 3) over ``count`` vertices hangs together with."""
    sparse = workshop("scipy.sparse")
    rows, columns = np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]]]).T
    links = sparse.coo_matrix((np.ones(len(rows), bool), (rows, columns)), shape=(count, count))
    _, part = workshop("scipy.sparse.csgraph").connected_components(links, directed=False)
    of_each: NDArray[np.int64] = part[triangles[:, 0]].astype(np.int64)
    return of_each
