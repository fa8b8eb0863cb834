"""Where a face is on a bare mesh: pictures of it are shown to the landmark network, as for the default model.

A published mesh may lie any way up, in any unit, and wind its triangles either way. It is drawn from the
places a face can look to until the network sees one, then turned upright and read from several sides. The
landmarks come back as points on the mesh. The default head is read in the same way, and what the network gets
wrong on unpainted skin it gets wrong on both alike.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from itertools import product
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastface.correspondence import Detector
from fastface.errors import NoFaceFound
from fastface.landmark_tables import POINT_COUNT
from fastface.ops import rasterize
from fastface.painted_face import View, facing_view, vertex_normals

Float64 = NDArray[np.float64]
Int32 = NDArray[np.int32]

EYE_CORNERS: Final = (33, 263)  # outer, the subject's right and left
_CHIN, _FOREHEAD = 152, 10
_SIZE_PX: Final = 512
_FIRST_PX: Final = 320
_SKIN: Final = (205.0, 160.0, 138.0)
_EYES_MM: Final = 90.0  # outer-eye distance at which a mesh of unknown unit is drawn
_POSES_DEG: Final = ((0, 0), (-22, 0), (22, 0), (0, 12), (0, -12), (-12, 6), (12, 6))
_LAMPS: Final = ((0.0, -0.35, -1.0), (0.45, -0.3, -1.0), (-0.45, -0.3, -1.0))
_MIN_READINGS: Final = 3
_REACH: Final = 0.012  # of the picture's width
_SPREAD: Final = 0.045  # of the outer-eye distance: readings that lie farther apart are of a silhouette


@dataclass(frozen=True)
class Bare:
    """``vertices (V, 3)`` in any unit, ``triangles (F, 3)``, ``colour (V, 3)`` sRGB 0…255."""

    vertices: Float64
    triangles: Int32
    colour: Float64

    @classmethod
    def plain(cls, vertices: Float64, triangles: Int32) -> Bare:
        """The same with skin all over."""
        return cls(vertices, triangles, np.tile(np.array(_SKIN), (len(vertices), 1)))


class Marks(NamedTuple):
    """``points (478, 3)`` on the mesh in its own axes and unit, NaN where they could not be read; ``frame (3,
    3)``: rows are the face's right-to-left, up and out-of-the-face axes; ``flipped``: the triangles wind
    clockwise seen from outside; ``triangle (478,)`` one that each landmark was seen on, -1 for none.
    """

    points: Float64
    frame: Float64
    flipped: bool
    triangle: NDArray[np.int64]


def point_out(mesh: Bare, detector: Detector, label: str) -> Marks:
    """Find the face on ``mesh``. Raises ``NoFaceFound`` when the network sees none from anywhere."""
    flipped, frame, points = _first_sight(mesh, detector, label)
    triangles = mesh.triangles[:, ::-1] if flipped else mesh.triangles
    mesh = Bare(mesh.vertices, np.ascontiguousarray(triangles), mesh.colour)
    for _ in range(2):  # the second time with the face upright and at its right size
        frame, origin, scale = _upright(points, frame)
        readings, seen = _readings(mesh, frame, origin, scale, detector)
        count = np.isfinite(readings[:, :, 0]).sum(axis=0)
        if np.median(count) < _MIN_READINGS:
            raise NoFaceFound(f"{label}: the landmark network sees no face on this mesh from several sides")
        points = _median(readings)
        if not np.isfinite(points[list(EYE_CORNERS)]).all():
            raise NoFaceFound(f"{label}: the corners of the eyes are not on this mesh")
    spread = _median(np.linalg.norm(readings - points, axis=2)[:, :, None])[:, 0]
    eyes = np.linalg.norm(points[EYE_CORNERS[0]] - points[EYE_CORNERS[1]])
    points[(count < _MIN_READINGS) | ~(spread < _SPREAD * eyes)] = np.nan
    return Marks(points, frame, flipped, seen)


def _median(readings: Float64) -> Float64:
    """Over the first axis, passing over NaN; NaN where there is nothing else."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # numpy warns of landmarks that nobody saw
        median: Float64 = np.nanmedian(readings, axis=0)
    return median


def _first_sight(mesh: Bare, detector: Detector, label: str) -> tuple[bool, Float64, Float64]:
    low, high = mesh.vertices.min(axis=0), mesh.vertices.max(axis=0)
    middle, size = (low + high) / 2, float((high - low).max())
    for frame in _frames():
        for flipped in (False, True):
            triangles = np.ascontiguousarray(mesh.triangles[:, ::-1]) if flipped else mesh.triangles
            seen = Bare(mesh.vertices, triangles, mesh.colour)
            # From the whole mesh to its middle: a head on shoulders is small in the picture.
            for scale in (190.0 / size, 300.0 / size):
                picture, places, _ = drawn(seen, frame, middle, scale, facing_view(size_px=_FIRST_PX), 0)
                faces = detector.detect(picture)
                if not faces:
                    continue
                points = _picked(places, faces[0].points_px)
                if _is_face(points, frame):
                    return flipped, frame, points
    raise NoFaceFound(f"{label}: the landmark network sees no face on this mesh, whichever way it is turned")


def _frames() -> list[Float64]:
    """Axes (3, 3) of a viewer on each of the six sides, as published models lie most often, first; then from
    between two sides and between three, as scans may lie. Which way is up, the detector finds by itself.
    """
    sides = [(0, 0, 1), (0, 0, -1), (0, -1, 0), (0, 1, 0), (1, 0, 0), (-1, 0, 0)]
    between = [side for side in product((0, 1, -1), repeat=3) if np.count_nonzero(side) > 1]
    frames = []
    for side in [*sides, *sorted(between, key=np.count_nonzero)]:
        out = np.array(side) / np.linalg.norm(side)
        up = np.eye(3)[2 if side[1] and not side[2] else 1]
        across = np.cross(up, out)
        across /= np.linalg.norm(across)
        frames.append(np.stack([across, np.cross(out, across), out]))
    return frames


def _is_face(points: Float64, frame: Float64) -> bool:
    """Whether what was read is a face and bulges towards the viewer: one seen from behind, through its open
    back, is hollow.
    """
    eyes, nose = points[list(EYE_CORNERS)], points[1]
    if not np.isfinite(np.concatenate([eyes.ravel(), nose])).all():
        return False
    across = eyes[1] - eyes[0]
    up = np.cross(frame[2], across)
    upright = np.nan_to_num(points[_FOREHEAD] - points[_CHIN], nan=1.0) @ up > 0
    nose_out = (nose - eyes.mean(axis=0)) @ frame[2] > 0.05 * np.linalg.norm(across)
    return bool(upright and nose_out)


def _upright(points: Float64, frame: Float64) -> tuple[Float64, Float64, float]:
    """Axes (3, 3), the point between the eyes and millimetres a unit from landmarks."""
    right, left = points[list(EYE_CORNERS)]
    across = left - right
    known = np.isfinite(points[[_CHIN, _FOREHEAD]]).all()
    up = points[_FOREHEAD] - points[_CHIN] if known else np.cross(frame[2], across)
    x = across / np.linalg.norm(across)
    y = up - (up @ x) * x
    y /= np.linalg.norm(y)
    return np.stack([x, y, np.cross(x, y)]), (left + right) / 2, _EYES_MM / float(np.linalg.norm(across))


def _readings(
    mesh: Bare, frame: Float64, origin: Float64, scale: float, detector: Detector
) -> tuple[Float64, NDArray[np.int64]]:
    readings = np.full((len(_POSES_DEG), POINT_COUNT, 3), np.nan)
    seen = np.full(POINT_COUNT, -1, np.int64)
    for index, (yaw, pitch) in enumerate(_POSES_DEG):
        view = facing_view(yaw, pitch, size_px=_SIZE_PX)
        picture, places, triangle = drawn(mesh, frame, origin, scale, view, index)
        faces = detector.detect(picture)
        if faces:
            readings[index] = _picked(places, faces[0].points_px)
            row, column = _pixels(faces[0].points_px, triangle.shape)
            seen = np.where(seen < 0, triangle[row, column], seen)
    return readings, seen


def drawn(
    mesh: Bare, frame: Float64, origin: Float64, scale: float, view: View, lamp: int
) -> tuple[NDArray[np.uint8], Float64, NDArray[np.int32]]:
    """Picture (S, S, 3), the point of the mesh that each pixel shows (S, S, 3) and its triangle (S, S)."""
    vertices = ((mesh.vertices - origin) @ frame.T * scale).astype(np.float32)
    screen = view.screen(vertices)
    size = view.size_px
    picture = np.full((size, size, 3), 150.0)
    places = np.full((size, size, 3), np.nan)
    if screen[:, 2].min() < 10:  # a mesh that reaches the camera cannot be drawn
        return picture.astype(np.uint8), places, np.full((size, size), -1, np.int32)
    raster = rasterize(screen[None], mesh.triangles, size, size, cull_backfaces=True)
    triangle, bary = raster.triangle_id[0], raster.bary[0]
    hit = triangle >= 0
    corners = mesh.triangles[triangle[hit]]
    weights = np.concatenate([1 - bary[hit].sum(axis=1, keepdims=True), bary[hit]], axis=1)
    weights = weights / screen[corners, 2]  # linear on the screen over Z is linear on the surface
    weights /= weights.sum(axis=1, keepdims=True)
    normals = vertex_normals(vertices, mesh.triangles)
    normal = np.einsum("ncx,nc->nx", normals[corners], weights) @ view.rotation.T
    normal /= np.linalg.norm(normal, axis=1, keepdims=True) + 1e-9
    light = np.array(_LAMPS[lamp % len(_LAMPS)])
    lit = 0.45 + 0.55 * np.clip(normal @ (light / np.linalg.norm(light)), 0, 1)
    colour = np.einsum("ncx,nc->nx", mesh.colour[corners], weights)
    picture[hit] = colour * lit[:, None]
    places[hit] = np.einsum("ncx,nc->nx", mesh.vertices[corners], weights)
    return np.clip(picture, 0, 255).astype(np.uint8), places, triangle


def _picked(places: Float64, points_px: NDArray[np.float32]) -> Float64:
    """What each landmark's pixel shows; beside the mesh or in one of its holes, what the nearest pixel within
    reach shows: on a mesh without eyeballs the corners of the eyes are seen beside the lids.
    """
    row, column = _pixels(points_px, places.shape)
    picked = places[row, column]
    reach = round(_REACH * places.shape[0])
    for mark in np.flatnonzero(np.isnan(picked[:, 0])):
        top, left = max(row[mark] - reach, 0), max(column[mark] - reach, 0)
        window = places[top : row[mark] + reach + 1, left : column[mark] + reach + 1]
        y, x = np.nonzero(np.isfinite(window[:, :, 0]))
        if len(y):
            away = (y + top - row[mark]) ** 2 + (x + left - column[mark]) ** 2
            nearest = int(away.argmin())
            if away[nearest] <= reach**2:
                picked[mark] = window[y[nearest], x[nearest]]
    return picked


def _pixels(points_px: NDArray[np.float32], shape: tuple[int, ...]) -> tuple[NDArray[np.int64], ...]:
    column, row = np.floor(np.nan_to_num(np.asarray(points_px, np.float64), nan=-1.0)).astype(np.int64).T
    return row.clip(0, shape[0] - 1), column.clip(0, shape[1] - 1)
