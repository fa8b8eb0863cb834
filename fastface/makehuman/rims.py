"""Loops of vertices around an opening (mouth, eye), cut at their corners into an upper and a lower half."""

from __future__ import annotations

import numpy as np

from fastface.makehuman.sources import Floats, Ints


def border_edges(triangles: Ints, inside: Ints, outside: Ints) -> Ints:
    """Edges (n, 2) that a triangle in ``inside`` (indices) shares with one in ``outside``."""

    def sides(rows: Ints) -> Ints:
        picked = triangles[rows]
        edges = np.concatenate([picked[:, [0, 1]], picked[:, [1, 2]], picked[:, [2, 0]]])
        return np.unique(np.sort(edges, axis=1), axis=0)

    both = np.concatenate([sides(inside), sides(outside)])
    edges, count = np.unique(both, axis=0, return_counts=True)
    shared: Ints = edges[count == 2]
    return shared


def halves(edges: Ints, positions: Floats) -> tuple[Ints, Ints]:
    """Upper and lower half of the loop that ``edges`` form, both from its greatest to its least x."""
    beside: dict[int, set[int]] = {int(vertex): set() for vertex in np.unique(edges)}
    for first, second in edges.tolist():
        beside[first].add(second)
        beside[second].add(first)
    start = max(beside, key=lambda vertex: positions[vertex, 0])
    end = min(beside, key=lambda vertex: positions[vertex, 0])
    paths = [_walk(beside, start, step, end) for step in beside[start]]
    upper, lower = sorted(paths, key=lambda path: -positions[path, 1].mean())
    return upper, lower


def interpolation(at: Floats, knots: Floats) -> Floats:
    """Weights (n, k) of linear interpolation at ``at`` between descending ``knots``; constant beyond the
    ends.
    """
    ascending = knots[::-1]
    index = np.clip(np.searchsorted(ascending, at) - 1, 0, len(knots) - 2)
    share = np.clip((at - ascending[index]) / (ascending[index + 1] - ascending[index]), 0.0, 1.0)
    weights = np.zeros((len(at), len(knots)))
    rows = np.arange(len(at))
    weights[rows, index] = 1.0 - share
    weights[rows, index + 1] += share
    reverse: Floats = weights[:, ::-1]
    return reverse


def _walk(beside: dict[int, set[int]], start: int, step: int, end: int) -> Ints:
    path = [start, step]
    while path[-1] != end:
        (following,) = beside[path[-1]] - {path[-2]}
        path.append(following)
    return np.array(path)
