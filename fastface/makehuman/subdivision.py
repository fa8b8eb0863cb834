"""One Catmull-Clark step on part of a quad mesh (Catmull & Clark, "Recursively generated B-spline surfaces on
arbitrary topological meshes", CAD 10(6), 1978), without cracks towards the part that stays coarse.

The rules are evaluated for the whole mesh; a coarse face keeps its four (smoothed) corners and takes up the
edge points it shares with a refined neighbour, so both sides of the border use the very same vertices.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fastface.makehuman.linear_map import Row, blend
from fastface.makehuman.sources import Floats, Ints

Edge = tuple[int, int]


@dataclass(frozen=True)
class Refined:
    """Weight rows of the new vertices over the old, polygons over the new, and the old quad each polygon lies
    in.

    Vertices from ``first_extra`` on are edge and face points; those before are moved corners of the old mesh.
    """

    rows: list[Row]
    polygons: list[list[int]]
    parents: list[int]
    mirror: Ints
    first_extra: int


def edge_faces(quads: Ints) -> dict[Edge, list[int]]:
    """Undirected edges and the one or two faces on them."""
    table: dict[Edge, list[int]] = defaultdict(list)
    for index, quad in enumerate(quads.tolist()):
        for start, end in zip(quad, quad[1:] + quad[:1], strict=True):
            table[(min(start, end), max(start, end))].append(index)
    return dict(table)


def refine(quads: Ints, chosen: NDArray[np.bool_], mirror: Ints) -> Refined:
    """Subdivide the ``chosen`` quads. ``mirror`` is the base mesh's vertex permutation; the result has its
    own.
    """
    edges = edge_faces(quads)
    faces = [blend([{int(corner): 1.0} for corner in quad], [0.25] * 4) for quad in quads]
    edge_rows = {edge: _edge_point(edge, adjacent, faces) for edge, adjacent in edges.items()}
    vertex_rows = _vertex_points(quads, edges, faces)
    split = {edge for edge, adjacent in edges.items() if any(chosen[face] for face in adjacent)}

    number: dict[object, int] = {}
    rows: list[Row] = []

    def add(key: object, row: Row) -> None:
        number[key] = len(rows)
        rows.append(row)

    for vertex in sorted(vertex_rows):
        add(vertex, vertex_rows[vertex])
    for edge in sorted(split):
        add(edge, edge_rows[edge])
    for face in np.flatnonzero(chosen).tolist():
        add(("face", frozenset(quads[face].tolist())), faces[face])

    polygons: list[list[int]] = []
    parents: list[int] = []
    for index, quad in enumerate(quads.tolist()):
        pieces = _split_quad(quad, split, bool(chosen[index]), number)
        polygons += pieces
        parents += [index] * len(pieces)
    return Refined(rows, polygons, parents, _mirrored(number, mirror), len(vertex_rows))


def _split_quad(
    quad: list[int], split: set[Edge], chosen: bool, number: dict[object, int]
) -> list[list[int]]:
    ring: list[int] = []
    for start, end in zip(quad, quad[1:] + quad[:1], strict=True):
        ring.append(number[start])
        edge = (min(start, end), max(start, end))
        if edge in split:
            ring.append(number[edge])
    if not chosen:
        return [ring]
    centre = number[("face", frozenset(quad))]
    return [[ring[k - 1], ring[k], ring[k + 1], centre] for k in (0, 2, 4, 6)]


def _edge_point(edge: Edge, adjacent: list[int], faces: list[dict[int, float]]) -> Row:
    ends: list[Row] = [{edge[0]: 1.0}, {edge[1]: 1.0}]
    if len(adjacent) == 1:
        return blend(ends, [0.5, 0.5])
    return blend([*ends, faces[adjacent[0]], faces[adjacent[1]]], [0.25] * 4)


def _vertex_points(
    quads: Ints, edges: dict[Edge, list[int]], faces: list[dict[int, float]]
) -> dict[int, Row]:
    around: dict[int, list[int]] = defaultdict(list)
    for index, quad in enumerate(quads.tolist()):
        for corner in quad:
            around[corner].append(index)
    spokes: dict[int, list[Edge]] = defaultdict(list)
    for edge in edges:
        for end in edge:
            spokes[end].append(edge)
    rows: dict[int, Row] = {}
    for vertex, touching in around.items():
        rim = [edge for edge in spokes[vertex] if len(edges[edge]) == 1]
        own: Row = {vertex: 1.0}
        if rim:
            others: list[Row] = [{edge[0] if edge[1] == vertex else edge[1]: 1.0} for edge in rim]
            rows[vertex] = blend([own, *others], [0.75] + [0.25 / len(others)] * len(others))
            continue
        n = len(touching)
        middles = [blend([{edge[0]: 1.0}, {edge[1]: 1.0}], [0.5, 0.5]) for edge in spokes[vertex]]
        rows[vertex] = blend(
            [own, *(faces[face] for face in touching), *middles],
            [(n - 3.0) / n] + [1.0 / n**2] * n + [2.0 / n**2] * n,
        )
    return rows


def _mirrored(number: dict[object, int], mirror: Ints) -> Ints:
    image = np.empty(len(number), np.int64)
    for key, index in number.items():
        if isinstance(key, int):
            twin: object = int(mirror[key])
        elif isinstance(key, tuple) and isinstance(key[1], frozenset):
            twin = ("face", frozenset(int(mirror[corner]) for corner in key[1]))
        else:
            assert isinstance(key, tuple)
            first, second = int(mirror[key[0]]), int(mirror[key[1]])
            twin = (min(first, second), max(first, second))
        image[index] = number[twin]
    return image


def triangulate(polygon: list[int], positions: Floats, first_extra: int) -> list[tuple[int, int, int]]:
    """Triangles of a quad that may carry extra points (indices from ``first_extra`` on) on its sides.

    A plain quad is cut along its shorter diagonal. A polygon with extra points is a fan about one of them: a
    fan about a corner would give flat triangles along the sides beside it.
    """
    if len(polygon) == 4:
        a, b, c, d = polygon
        straight = np.linalg.norm(positions[a] - positions[c]) <= np.linalg.norm(positions[b] - positions[d])
        return [(a, b, c), (a, c, d)] if straight else [(b, c, d), (b, d, a)]
    hub = next(place for place, vertex in enumerate(polygon) if vertex >= first_extra)
    turned = polygon[hub:] + polygon[:hub]
    return [(turned[0], turned[k], turned[k + 1]) for k in range(1, len(polygon) - 1)]
