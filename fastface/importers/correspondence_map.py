"""A smooth map of space that takes the default head onto an imported face.

Landmarks first, then points of the surface: each round moves sample points of the default's skin onto the
nearest place of the imported surface that faces the same way and fits a smoother map to fewer liberties, from
stiff to supple (the schedule of Amberg, Romdhani & Vetter, "Optimal Step Nonrigid ICP Algorithms for Surface
Registration", CVPR 2007). The map is an interpolation by the biharmonic kernel of three dimensions with a
linear part. Being a map of space, it takes what touches to what touches: closed lips stay closed, and a lid
that meets its partner on the default head meets it on the imported one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastface.importers.published import workshop
from fastface.painted_face import vertex_normals
from fastface.surface import on_triangles

Float64 = NDArray[np.float64]
Int32 = NDArray[np.int32]

_CANDIDATES: Final = 12  # triangles looked at for the nearest point
#: Rounds: how far a point may be, the least cosine between normals, and how stiff the map is.
_ROUNDS: Final = (
    (25.0, 0.5, 40.0),
    (15.0, 0.6, 15.0),
    (10.0, 0.7, 5.0),
    (8.0, 0.7, 2.0),
    (6.0, 0.7, 0.7),
    (5.0, 0.7, 0.3),
)
_LANDMARK_STIFFNESS: Final = 4.0  # of a landmark's reading: they wander by a millimetre or two
_CHUNK: Final = 4096
_MOST_STEPS: Final = 16  # that a large triangle's side is divided by


class Touch(NamedTuple):
    """For each query: ``triangle (N,)`` and ``weights (N, 3)`` of the nearest point, its ``distance (N,)``,
    and ``fits (N,)``: whether it is near enough, faces the same way and is not on the mesh's border.
    """

    triangle: NDArray[np.int64]
    weights: Float64
    distance: Float64
    fits: NDArray[np.bool_]


class Surface:
    """A mesh to find nearest points on; ``vertices (V, 3)`` mm, ``triangles (F, 3)`` wound outwards.

    Triangles are found by their centres; with ``spacing_mm``, those that are larger by points that far apart.
    """

    def __init__(self, vertices: Float64, triangles: Int32, spacing_mm: float | None = None) -> None:
        self.vertices, self.triangles = vertices, triangles
        centres = vertices[triangles].mean(axis=1)
        self._owner = np.arange(len(triangles))
        if spacing_mm is not None:
            spread, owner = _scattered(vertices[triangles], spacing_mm)
            centres = np.concatenate([centres, spread])
            self._owner = np.concatenate([self._owner, owner])
        self._tree = workshop("scipy.spatial").cKDTree(centres)
        self._normals = vertex_normals(vertices.astype(np.float32), triangles).astype(np.float64)
        self._border = _on_border(triangles, len(vertices))

    def touch(self, points: Float64, normals: Float64, farthest_mm: float, least_cosine: float) -> Touch:
        """Nearest places to ``points (N, 3)``; of the nearest triangles, one that faces like ``normals (N,
        3)`` is preferred: beyond the lips' slit the other lip is nearer than it looks.
        """
        count = min(_CANDIDATES, len(self.triangles))
        _, rows = self._tree.query(points, k=count)
        rows = self._owner[rows.reshape(len(points), count)]
        corners = self.vertices[self.triangles[rows]]
        faces = np.cross(corners[:, :, 1] - corners[:, :, 0], corners[:, :, 2] - corners[:, :, 0])
        faces /= np.linalg.norm(faces, axis=2, keepdims=True) + 1e-12
        weights, squared = on_triangles(points[:, None], corners)
        turned = np.einsum("ncx,nx->nc", faces, normals) < least_cosine
        best = (squared + np.where(turned, 1e6, 0.0)).argmin(axis=1)
        pick = np.arange(len(points))
        triangle, bary = rows[pick, best], weights[pick, best]
        distance = np.sqrt(squared[pick, best])
        smooth = self.at(triangle, bary, self._normals)
        facing = np.einsum("nx,nx->n", smooth, normals) > least_cosine
        at_border = (self._border[self.triangles[triangle]] & (bary > 1e-6)).sum(axis=1) == (bary > 1e-6).sum(
            axis=1
        )
        return Touch(triangle, bary, distance, (distance < farthest_mm) & facing & ~at_border)

    def at(self, triangle: NDArray[np.int64], weights: Float64, values: NDArray[Any]) -> Float64:
        """``values (V, C)`` at places on the mesh (N, C)."""
        mixed: Float64 = np.einsum("nc,ncx->nx", weights, values[self.triangles[triangle]])
        return mixed


def _scattered(corners: Float64, spacing_mm: float) -> tuple[Float64, NDArray[np.int64]]:
    """Points on the triangles ``corners (F, 3, 3)`` whose sides are longer than ``spacing_mm``, and whose."""
    sides = np.linalg.norm(corners - np.roll(corners, 1, axis=1), axis=2).max(axis=1)
    steps = np.minimum(np.ceil(sides / spacing_mm), _MOST_STEPS).astype(np.int64)
    points, owners = [np.zeros((0, 3))], [np.zeros(0, np.int64)]
    for step in np.unique(steps[steps > 1]):
        rows = np.flatnonzero(steps == step)
        lattice = [(i, j, step - i - j) for i in range(step + 1) for j in range(step + 1 - i)]
        weights = np.array(lattice) / step
        points.append(np.einsum("lc,ncx->nlx", weights, corners[rows]).reshape(-1, 3))
        owners.append(np.repeat(rows, len(weights)))
    return np.concatenate(points), np.concatenate(owners)


def _on_border(triangles: Int32, count: int) -> NDArray[np.bool_]:
    edges = np.sort(
        np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]]), axis=1
    )
    key = edges[:, 0].astype(np.int64) * count + edges[:, 1]
    _, first, times = np.unique(key, return_index=True, return_counts=True)
    border = np.zeros(count, bool)
    border[edges[first[times == 1]].ravel()] = True
    return border


@dataclass(frozen=True)
class SpaceMap:
    """``points (N, 3)`` of the default head's space → the imported face's, mm."""

    interpolator: Any

    def __call__(self, points: Float64) -> Float64:
        mapped = np.empty(points.shape)
        for start in range(0, len(points), _CHUNK):
            mapped[start : start + _CHUNK] = self.interpolator(points[start : start + _CHUNK])
        return mapped


def space_map(places: Float64, targets: Float64, stiffness: Float64 | float) -> SpaceMap:
    """The smooth map with ``places (N, 3)`` → ``targets (N, 3)``, looser the larger ``stiffness (N,)`` is."""
    interpolate = workshop("scipy.interpolate").RBFInterpolator
    return SpaceMap(interpolate(places, targets, smoothing=stiffness, kernel="linear", degree=1))


def fitted_map(
    landmarks: Float64,
    readings: Float64,
    samples: Float64,
    normals: Float64,
    stiffer: Float64,
    surface: Surface,
) -> SpaceMap:
    """Fit a map: ``landmarks (L, 3)`` on the default head to ``readings (L, 3)`` on the imported face, and
    ``samples (S, 3)`` of its skin with ``normals (S, 3)`` onto ``surface``; ``stiffer (S,)`` ≥ 1 multiplies
    the stiffness where the surface says less.
    """
    mapping = space_map(landmarks, readings, 50.0)
    for farthest, cosine, stiffness in _ROUNDS:
        moved = mapping(samples)
        ahead = mapping(samples + normals) - moved  # normals turn with the map, near enough
        ahead /= np.linalg.norm(ahead, axis=1, keepdims=True) + 1e-12
        touch = surface.touch(moved, ahead, farthest, cosine)
        onto = surface.at(touch.triangle, touch.weights, surface.vertices)
        rows = np.flatnonzero(touch.fits)
        places = np.concatenate([samples[rows], landmarks])
        targets = np.concatenate([onto[rows], readings])
        loose = np.concatenate(
            [stiffness * stiffer[rows], np.full(len(landmarks), max(stiffness, _LANDMARK_STIFFNESS))]
        )
        mapping = space_map(places, targets, loose)
    return mapping


def similarity(
    places: Float64, targets: Float64, weights: Float64 | None = None
) -> tuple[float, Float64, Float64]:
    """Scale, rotation (3, 3) and translation (3,) of least squares with ``targets = scale R places + t``;
    ``weights (N,)``: what each pair counts, the same if None.

    Umeyama, "Least-squares estimation of transformation parameters between two point patterns", IEEE TPAMI
    13(4), 1991.
    """
    share = np.ones(len(places)) if weights is None else weights
    here, there = np.average(places, axis=0, weights=share), np.average(targets, axis=0, weights=share)
    centred = places - here
    left, singular, right = np.linalg.svd((targets - there).T @ (share[:, None] * centred))
    signs = np.array([1.0, 1.0, np.sign(np.linalg.det(left @ right))])
    rotation = left @ np.diag(signs) @ right
    scale = float((singular * signs).sum() / (share[:, None] * centred**2).sum())
    return scale, rotation, there - scale * rotation @ here
