"""Thins out a triangle mesh by half-edge collapses, cheapest first, by the quadric error of Garland &
Heckbert ("Surface simplification using quadric error metrics", SIGGRAPH 1997, sections 4 and 6).

A half-edge collapse moves no vertex, it only drops some. So the vertices that stay keep their weights and
displacements.
"""

from __future__ import annotations

import heapq
from collections import defaultdict

import numpy as np
from numpy.typing import NDArray

from fastface.makehuman.sources import Floats, Ints

RIM_WEIGHT = 10.0


def collapse(
    triangles: Ints, positions: Floats, droppable: NDArray[np.bool_], drops: int
) -> tuple[Ints, Ints]:
    """Drop ``drops`` of the ``droppable`` vertices (fewer if no collapse is left).

    Returns the remaining triangles and the row each had. A triangle never flips its normal, and a vertex on
    the rim slides along the rim only.
    """
    mesh = _Mesh(triangles, positions, droppable)
    heap: list[tuple[float, int, int]] = []
    for vertex in np.flatnonzero(droppable).tolist():
        mesh.offer(vertex, heap)
    while drops and heap:
        cost, vertex, onto = heapq.heappop(heap)
        if mesh.best.get(vertex) != (cost, onto):
            continue
        neighbours = mesh.neighbours(vertex)
        mesh.drop(vertex, onto)
        drops -= 1
        for neighbour in sorted(neighbours):
            mesh.offer(neighbour, heap)
    kept = np.array(sorted(mesh.faces))
    return np.array([mesh.faces[index] for index in kept.tolist()], np.int64), kept


class _Mesh:
    def __init__(self, triangles: Ints, positions: Floats, droppable: NDArray[np.bool_]) -> None:
        self.positions = positions
        self.droppable = droppable
        self.faces: dict[int, tuple[int, int, int]] = {}
        self.around: dict[int, set[int]] = defaultdict(set)
        self.quadrics = np.zeros((len(positions), 4, 4))
        self.best: dict[int, tuple[float, int]] = {}
        for index, (a, b, c) in enumerate(triangles.tolist()):
            self.faces[index] = (a, b, c)
            for vertex in (a, b, c):
                self.around[vertex].add(index)
        self._add_quadrics()

    def neighbours(self, vertex: int) -> set[int]:
        return {other for face in self.around[vertex] for other in self.faces[face]} - {vertex}

    def offer(self, vertex: int, heap: list[tuple[float, int, int]]) -> None:
        """Find the cheapest allowed collapse of ``vertex`` and queue it."""
        self.best.pop(vertex, None)
        if not self.droppable[vertex] or not self.around[vertex]:
            return
        options = [
            (self._cost(vertex, onto), onto)
            for onto in self.neighbours(vertex)
            if self._allowed(vertex, onto)
        ]
        if options:
            self.best[vertex] = min(options)
            heapq.heappush(heap, (*min(options)[:1], vertex, min(options)[1]))

    def drop(self, vertex: int, onto: int) -> None:
        for index in sorted(self.around.pop(vertex)):
            old = self.faces[index]
            if onto in old:
                del self.faces[index]
                for other in old:
                    if other != vertex:
                        self.around[other].discard(index)
            else:
                a, b, c = (onto if corner == vertex else corner for corner in old)
                self.faces[index] = (a, b, c)
                self.around[onto].add(index)
        self.quadrics[onto] += self.quadrics[vertex]
        self.best.pop(vertex, None)
        self.around[vertex] = set()

    def _is_rim(self, vertex: int) -> bool:
        return len(self.neighbours(vertex)) != len(self.around[vertex])

    def _allowed(self, vertex: int, onto: int) -> bool:
        shared = self.around[vertex] & self.around[onto]
        common = self.neighbours(vertex) & self.neighbours(onto)
        if len(common) != len(shared):
            return False
        if self._is_rim(vertex) and len(shared) != 1:
            return False
        return all(self._keeps_normal(index, vertex, onto) for index in self.around[vertex] - shared)

    def _keeps_normal(self, index: int, vertex: int, onto: int) -> bool:
        old = self.positions[list(self.faces[index])]
        new = self.positions[[onto if corner == vertex else corner for corner in self.faces[index]]]
        before, after = _cross(old), _cross(new)
        lengths = np.linalg.norm(before) * np.linalg.norm(after)
        longest = max(np.linalg.norm(new - np.roll(new, 1, axis=0), axis=1))
        sliver = np.linalg.norm(after) < 0.12 * longest**2
        return bool(before @ after > 0.3 * lengths) and not sliver

    def _cost(self, vertex: int, onto: int) -> float:
        point = np.append(self.positions[onto], 1.0)
        length = float(np.linalg.norm(self.positions[onto] - self.positions[vertex]))
        error = float(point @ (self.quadrics[vertex] + self.quadrics[onto]) @ point)
        return round(max(error, 0.0) + 1e-3 * length**2, 9)

    def _add_quadrics(self) -> None:
        sides: dict[tuple[int, int], list[int]] = defaultdict(list)
        for index, (a, b, c) in self.faces.items():
            normal = _cross(self.positions[[a, b, c]])
            area = float(np.linalg.norm(normal)) + 1e-12
            self._add_plane((a, b, c), normal / area, a, area)
            for start, end in ((a, b), (b, c), (c, a)):
                sides[(min(start, end), max(start, end))].append(index)
        for (start, end), touching in sides.items():
            if len(touching) == 1:
                along = self.positions[end] - self.positions[start]
                across = np.cross(along, _cross(self.positions[list(self.faces[touching[0]])]))
                across /= np.linalg.norm(across) + 1e-12
                self._add_plane((start, end), across, start, RIM_WEIGHT * float(along @ along))

    def _add_plane(self, corners: tuple[int, ...], normal: Floats, through: int, weight: float) -> None:
        plane = np.append(normal, -normal @ self.positions[through])
        for corner in corners:
            self.quadrics[corner] += weight * np.outer(plane, plane)


def _cross(corners: Floats) -> Floats:
    result: Floats = np.cross(corners[1] - corners[0], corners[2] - corners[0])
    return result
