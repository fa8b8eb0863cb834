"""Smooth displacement fields placed by hand on the mean head, for what the data set's expressions lack.

Coordinates are head space millimetres on the subject's left side (x >= 0) of the mean head. Both shapes act
on the surface they are placed on only: the field also fades along the normal direction of depth, so nothing
behind moves.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from fastface.makehuman.sources import Floats

Point = tuple[float, float, float]


@dataclass(frozen=True)
class Bump:
    """Skin within about ``radius_mm`` of ``centre`` moves along ``direction`` (mm), with a Gaussian falloff.

    ``radius_mm`` are the standard deviations along x, y and z.
    """

    centre: Point
    radius_mm: Point
    direction: Point

    def field(self, vertices: Floats, normals: Floats) -> Floats:
        """Displacements (V, 3)."""
        del normals
        offset = (vertices - self.centre) / self.radius_mm
        strength = np.exp(-0.5 * (offset**2).sum(axis=1))
        field: Floats = strength[:, None] * np.asarray(self.direction)
        return field


@dataclass(frozen=True)
class Furrow:
    """A fold along a polyline: a groove ``depth_mm`` deep with a rim on either side.

    The profile across is the second derivative of a Gaussian of width ``width_mm``: it sinks the line and
    raises its banks, so the volume of the skin stays. Along the line it fades in and out over a quarter of
    the length.
    """

    line: tuple[Point, ...]
    depth_mm: float
    width_mm: float

    def field(self, vertices: Floats, normals: Floats) -> Floats:
        """Displacements (V, 3) along the normals."""
        distance, along = _to_polyline(vertices, np.array(self.line))
        ratio = (distance / self.width_mm) ** 2
        profile = (1.0 - 0.8 * ratio) * np.exp(-0.5 * ratio)
        ends = np.clip(along / 0.25, 0.0, 1.0) * np.clip((1.0 - along) / 0.25, 0.0, 1.0)
        fade = ends * ends * (3.0 - 2.0 * ends)
        return -self.depth_mm * (profile * fade)[:, None] * normals


Shape = Bump | Furrow


def sculpted(shapes: Iterable[Shape], vertices: Floats, normals: Floats) -> Floats:
    """Sum of the shapes' displacement fields (V, 3)."""
    total = np.zeros_like(vertices)
    for shape in shapes:
        total += shape.field(vertices, normals)
    return total


def normals_of(vertices: Floats, triangles: np.ndarray) -> Floats:
    """Area-weighted unit vertex normals (V, 3)."""
    corners = vertices[triangles]
    faces = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normals = np.zeros_like(vertices)
    for corner in range(3):
        np.add.at(normals, triangles[:, corner], faces)
    unit: Floats = normals / (np.linalg.norm(normals, axis=1, keepdims=True) + 1e-12)
    return unit


def _to_polyline(points: Floats, line: Floats) -> tuple[Floats, Floats]:
    """Distance of points (n, 3) to a polyline (k, 3), and where along its length, 0…1, the nearest point
    lies.
    """
    lengths = np.linalg.norm(np.diff(line, axis=0), axis=1)
    before = np.concatenate([[0.0], np.cumsum(lengths)])
    best = np.full(len(points), np.inf)
    where = np.zeros(len(points))
    for index, length in enumerate(lengths):
        side = (line[index + 1] - line[index]) / length
        reach = np.clip((points - line[index]) @ side, 0.0, length)
        distance = np.linalg.norm(points - line[index] - reach[:, None] * side, axis=1)
        nearer = distance < best
        best[nearer] = distance[nearer]
        where[nearer] = (before[index] + reach[nearer]) / before[-1]
    return best, where
