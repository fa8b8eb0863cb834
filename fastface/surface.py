"""Nearest points on triangles and edges, for a few hundred queries against a mesh."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]
Indices = NDArray[Any]


class Nearest(NamedTuple):
    """For each query: row of the triangle or edge, weights of its corners, squared distance."""

    row: NDArray[np.int64]
    weights: Float64
    squared_distance: Float64


def nearest_on_triangles(
    queries: Float64, vertices: Float64, triangles: Indices, candidates: int = 96
) -> Nearest:
    """Nearest points to ``queries (N, 3)`` on ``triangles (F, 3)``; weights (N, 3).

    Searched among the ``candidates`` triangles whose centres are nearest: exact where triangles are of
    similar size.
    """
    corners = vertices[triangles]
    centres = corners.mean(axis=1)
    count = min(candidates, len(triangles))
    rows = np.empty((len(queries), count), np.int64)
    for first in range(0, len(queries), 64):  # blocks bound the memory of the distance table
        block = queries[first : first + 64]
        table = ((block[:, None] - centres[None]) ** 2).sum(axis=2)
        rows[first : first + 64] = np.argpartition(table, count - 1, axis=1)[:, :count]
    weights, squared = on_triangles(queries[:, None], corners[rows])
    best = squared.argmin(axis=1)
    pick = np.arange(len(queries))
    return Nearest(rows[pick, best], weights[pick, best], squared[pick, best])


def nearest_on_edges(queries: Float64, starts: Float64, ends: Float64) -> Nearest:
    """Nearest points to ``queries (N, 3)`` on edges from ``starts`` to ``ends (M, 3)``; weights (N, 2)."""
    share, squared = _on_edge(queries[:, None], starts[None], ends[None])
    best = squared.argmin(axis=1)
    pick = np.arange(len(queries))
    along = share[pick, best]
    return Nearest(best, np.stack([1 - along, along], axis=1), squared[pick, best])


def on_triangles(points: Float64, corners: Float64) -> tuple[Float64, Float64]:
    """Weights (..., 3) and squared distances of the nearest points on triangles ``corners (..., 3, 3)``.

    The foot of the perpendicular if it lies inside, else the nearest point of the three edges.
    """
    origin = corners[..., 0, :]
    one, two = corners[..., 1, :] - origin, corners[..., 2, :] - origin
    to_point = points - origin
    a, b, c = (one * one).sum(-1), (one * two).sum(-1), (two * two).sum(-1)
    d, e = (to_point * one).sum(-1), (to_point * two).sum(-1)
    determinant = np.maximum(a * c - b * b, 1e-18)
    v, w = (c * d - b * e) / determinant, (a * e - b * d) / determinant
    weights = np.stack([1 - v - w, v, w], axis=-1)
    foot = (weights[..., None] * corners).sum(-2)
    squared = np.where((weights >= 0).all(-1), ((points - foot) ** 2).sum(-1), np.inf)
    for first, second in ((0, 1), (1, 2), (2, 0)):
        share, distance = _on_edge(points, corners[..., first, :], corners[..., second, :])
        on_edge = np.zeros_like(weights)
        on_edge[..., first], on_edge[..., second] = 1 - share, share
        nearer = distance < squared
        weights = np.where(nearer[..., None], on_edge, weights)
        squared = np.where(nearer, distance, squared)
    return weights, squared


def _on_edge(points: Float64, starts: Float64, ends: Float64) -> tuple[Float64, Float64]:
    """Share (0 at the start, 1 at the end) and squared distance of the nearest points on edges."""
    along = ends - starts
    share = ((points - starts) * along).sum(-1) / np.maximum((along * along).sum(-1), 1e-18)
    share = np.clip(share, 0, 1)
    squared = ((points - starts - share[..., None] * along) ** 2).sum(-1)
    return share, squared
