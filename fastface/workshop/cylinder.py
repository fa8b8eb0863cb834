"""Dense correspondences in the plane of an unrolled cylinder.

Template and scan are projected on to one cylinder around the head's axis; the template's plane is warped by
thin plates (Bookstein, "Principal warps", IEEE TPAMI 11(6), 1989) that take its landmarks to the scan's, and
each of its vertices takes the place of the scan that the plane shows where it came to lie: Cosker, Krumhuber,
Hilton, "A FACS valid 3D dynamic action unit database", ICCV 2011, section 4; Booth et al., "A 3D morphable
model learnt from 10,000 faces", CVPR 2016.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fastface.importers.published import workshop
from fastface.ops import rasterize

Float64 = NDArray[np.float64]

_PIXEL_MM: Final = 1.0
_AXIS_BEHIND_MM: Final = 95.0  # half a head's length, Farkas, "Anthropometry of the Head and Face", 1994
_SMOOTH_MM2: Final = 4e-5  # of the radius squared; multiplied by how far each landmark is to be believed
_BEHIND_DEG: Final = (110.0, 145.0, 180.0, -145.0, -110.0)  # where the head is held that no landmark reaches
_BEHIND_MM: Final = (-120.0, -60.0, 0.0, 60.0, 120.0)
_STEEPEST_MM: Final = 6.0  # between neighbouring pixels: beyond it one surface hides another
_LEAST_RADIUS: Final = 0.35  # of the cylinder's: nearer the axis, directions mean nothing
_MOST_PIXELS: Final = 4_000


@dataclass(frozen=True)
class Cylinder:
    """Upright, through ``(x_mm, z_mm)``, of ``radius_mm``; unrolled it is a plane of millimetres."""

    x_mm: float
    z_mm: float
    radius_mm: float

    @classmethod
    def around(cls, face: Float64) -> Cylinder:
        """The cylinder of the head whose face is ``face (N, 3)``; its axis is the middle of the head, not of
        the circle that fits the face, which is of tighter bend."""
        depth = float(np.quantile(face[:, 2], 0.95)) - _AXIS_BEHIND_MM
        return cls(0.0, depth, float(np.median(np.hypot(face[:, 0], face[:, 2] - depth))))

    def unrolled(self, points: Float64) -> Float64:
        """(N, 3): along the circumference from the front to the subject's left, up, and the distance from the
        axis; mm."""
        x, z = points[:, 0] - self.x_mm, points[:, 2] - self.z_mm
        return np.stack([self.radius_mm * np.arctan2(x, z), points[:, 1], np.hypot(x, z)], axis=1)


class Panorama:
    """What the unrolled cylinder shows of a mesh: at every pixel the outermost place of its surface."""

    def __init__(self, cylinder: Cylinder, vertices: Float64, triangles: NDArray[np.int32]) -> None:
        self.cylinder = cylinder
        flat = cylinder.unrolled(vertices)
        half = np.pi * cylinder.radius_mm
        self._top = float(flat[:, 1].max()) + 2 * _PIXEL_MM
        width = int(np.ceil(2 * half / _PIXEL_MM))
        height = int(np.clip((self._top - flat[:, 1].min()) / _PIXEL_MM + 4, 8, _MOST_PIXELS))
        self._left = -half
        # Triangles across the seam behind the head would be drawn all over the front.
        along = flat[triangles, 0]
        drawn = np.ascontiguousarray(triangles[np.ptp(along, axis=1) < half])
        screen = self._pixels(flat[:, :2])
        depth = 1.0 + flat[:, 2].max() - flat[:, 2]
        raster = rasterize(
            np.column_stack([screen, depth]).astype(np.float32)[None],
            drawn,
            height,
            width,
            cull_backfaces=True,
        )
        triangle, bary = raster.triangle_id[0], raster.bary[0].astype(np.float64)
        self.places = np.full((height, width, 3), np.nan)
        seen = triangle >= 0
        corners = vertices[drawn[triangle[seen]]]
        weights = np.concatenate([1 - bary[seen].sum(axis=1, keepdims=True), bary[seen]], axis=1)
        self.places[seen] = np.einsum("ncx,nc->nx", corners, weights)

    def _pixels(self, flat: Float64) -> Float64:
        return np.stack([(flat[:, 0] - self._left) / _PIXEL_MM, (self._top - flat[:, 1]) / _PIXEL_MM], axis=1)

    def at(self, flat: Float64) -> tuple[Float64, NDArray[np.bool_]]:
        """Places (N, 3) shown at ``flat (N, 2)``, between pixels linearly, and where there is one surface."""
        height, width = self.places.shape[:2]
        pixel = self._pixels(flat) - 0.5
        column, row = np.floor(pixel).astype(np.int64).T
        inside = (column >= 0) & (column + 1 < width) & (row >= 0) & (row + 1 < height)
        column, row = np.clip(column, 0, width - 2), np.clip(row, 0, height - 2)
        four = np.stack([self.places[row + down, column + right] for down in (0, 1) for right in (0, 1)])
        across, down = (pixel - np.floor(pixel)).T
        shares = [(1 - down) * (1 - across), (1 - down) * across, down * (1 - across), down * across]
        found = np.einsum("fn,fnx->nx", np.stack(shares), four)
        steep = np.linalg.norm(four - four[[1, 3, 0, 2]], axis=2)
        with np.errstate(invalid="ignore"):
            single = inside & np.isfinite(found[:, 0]) & ~(steep > _STEEPEST_MM).any(axis=0)
        return found, single


def warped(cylinder: Cylinder, points: Float64, marks: Float64, targets: Float64, doubt: Float64) -> Float64:
    """Where thin plates that take the landmarks ``marks (L, 3)`` to ``targets (L, 3)`` take ``points (N, 3)``
    in the unrolled plane, (N, 2). ``doubt (L,)``: how loosely each is held, 0 exactly."""
    interpolate = workshop("scipy.interpolate").RBFInterpolator
    scale = cylinder.radius_mm
    here, there = cylinder.unrolled(marks)[:, :2] / scale, cylinder.unrolled(targets)[:, :2] / scale
    angles, heights = np.meshgrid(np.radians(_BEHIND_DEG), np.array(_BEHIND_MM) / scale)
    behind = np.stack([angles.ravel(), heights.ravel() + here[:, 1].mean()], axis=1)
    shift = np.array([0.0, (there - here)[:, 1].mean()])
    plate = interpolate(
        np.concatenate([here, behind]),
        np.concatenate([there - here, np.tile(shift, (len(behind), 1))]),
        kernel="thin_plate_spline",
        smoothing=np.concatenate([_SMOOTH_MM2 * doubt, np.full(len(behind), 1e-2)]),
    )
    flat = cylinder.unrolled(points)[:, :2]
    moved: Float64 = flat + scale * plate(flat / scale)
    return moved


def correspondences(
    cylinder: Cylinder,
    template: tuple[Float64, NDArray[np.int32]],
    scan: tuple[Float64, NDArray[np.int32]],
    marks: Float64,
    targets: Float64,
    doubt: Float64,
) -> tuple[Float64, NDArray[np.bool_]]:
    """For each template vertex its place on the scan (N, 3), and whether it has one (N,).

    ``template``, ``scan``: vertices and triangles in one space, mm; landmarks as in ``warped``.
    """
    vertices = template[0]
    flat = warped(cylinder, vertices, marks, targets, doubt)
    places, found = Panorama(cylinder, *scan).at(flat)
    own = cylinder.unrolled(vertices)
    shown, there = Panorama(cylinder, *template).at(own[:, :2])
    with np.errstate(invalid="ignore"):
        outermost = there & (np.linalg.norm(shown - vertices, axis=1) < 2 * _PIXEL_MM)
    trusted = found & outermost & (own[:, 2] > _LEAST_RADIUS * cylinder.radius_mm)
    return np.where(trusted[:, None], places, vertices), trusted
