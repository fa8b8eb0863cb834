"""From a fit to what the fast half needs: the face patch, the sheet around it, and how both are lit.

The mesh is cut to the **patch** inside the rim of the face, plus mouth and eyes. Everything outside it —
ears, hair, neck, background — lies on a **sheet**: a grid behind the patch that is carried along by the
patch's border and comes to rest some way out. So the motion has no seam: no silhouette is ever torn from
its background, and where nothing moves nothing changes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from fastface.camera import Camera
from fastface.eyes import bare_eyes, eye_whites
from fastface.fitting import FACE_RIM, FaceFitter, Fit
from fastface.folds import fold_maps
from fastface.head_pose import pivot_of
from fastface.lighting import LUMINANCE, blurred, estimate_light, linear_of, white_of
from fastface.morphable import MATERIALS, HeadModel
from fastface.reference import LEFT_EYE, PAINTED, RIGHT_EYE, SKIN, Shading, vertex_normals
from fastface.relaxation import SHIFTS, lid_shifts

Float32 = NDArray[np.float32]
Int32 = NDArray[np.int32]
Image = NDArray[np.uint8]

SHEET_REACH: Final = 0.8  # outer-eye distances that the sheet takes to come to rest
TURN_REACH: Final = 1.9  # the same when the head itself turns
SHEET_CELLS: Final = 11  # grid cells an outer-eye distance
_FACING: Final = -0.25  # cosine to the viewer up to which skin may turn into view
_FACING_TURN: Final = 0.12  # the same when the head turns and would show what lay under the jaw
_RELIEF: Final = 0.75  # of the irradiance change: what it says of fine relief is half wrong
_HAIR: Final = 0.012  # outer-eye distances
_FACING_RIM: Final = 0.3  # the same for skin that counts as the visible edge of the face
_IVORY: Final = 0.7  # linear albedo of teeth in a head model
_MOIST: Final = 0.75  # gums and tongue shine less than dry albedo says, and
_PALE: Final = 0.35  # are that much closer to grey in photographs
_WALL: Final = np.array([0.16, 0.06, 0.055], np.float32)  # least linear albedo of the mouth's walls
_LIP_RIMS: Final = (
    (78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308),
    (78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308),
)
_BAND: Final = 0.12  # outer-eye distances within the rim where the patch's motion gives way to the sheet's
_BORDER: Final = 0.06  # outer-eye distances within the rim whose motion is carried out
_SOFT: Final = 0.07  # outer-eye distances over which the border's motion is smoothed
_RELIEF_FADE: Final = 0.15  # outer-eye distances within the rim: silhouettes would brighten the background
_RECEDES: Final = 0.9  # outer-eye distances beyond the rim at which the head has its greatest width
_RECEDING: Final = 0.3  # how much of what shows there lies as far back as that
#: From the lips to behind the last teeth; half the throat's width there; what is kept of the depth beyond.
_TEETH_MM: Final = 50.0
_THROAT_MM: Final = 20.0
_THROAT_LENGTH: Final = 0.25
_PAINTED: Final = ("teeth", "gums", "tongue", "mouth_interior")


@dataclass(frozen=True)
class Window:
    """The part of the photo that can change: ``left, top, width, height`` px."""

    left: int
    top: int
    width: int
    height: int

    @property
    def slices(self) -> tuple[slice, slice]:
        return slice(self.top, self.top + self.height), slice(self.left, self.left + self.width)


@dataclass(frozen=True)
class Rig:
    """Everything a frame needs besides its coefficients. Positions are in camera space, mm."""

    window: Window
    neutral: Float32  # (V, 3)
    basis: Float32  # (E, V, 3)
    camera: Float32  # (3,) f_px, c_x, c_y within the window
    shading: Shading
    eye_rows: tuple[tuple[Int32, Int32], ...]  # vertices of the lids and of the eyeball, left and right
    hair_px: float  # once lids or lips have parted this far, what lies behind them is drawn anew
    lead: Lead | None = None  # what a turn of the head takes with it, where it may turn


@dataclass(frozen=True)
class Lead:
    """How vertices near and beyond the rim follow the head on the screen when it turns.

    ``pivot_mm (3,)`` camera space, between the ears; ``border (N,)`` vertices; ``rows (R,)`` those that
    follow, ``share (R,)`` by how much, the rest being their own motion. Close to the rim they follow the
    border, ``weights (R, N)``; farther out, where the head recedes, the ``body_mm (R, 3)``, points as far
    away as the pivot, ``body_share (R,)``.
    """

    pivot_mm: Float32
    border: NDArray[np.int64]
    rows: NDArray[np.int64]
    share: Float32
    weights: Float32
    body_mm: Float32
    body_share: Float32


class RigBuilder:
    """Builds rigs of one head model; made once. Keeps the model's bases in single precision."""

    def __init__(self, fitter: FaceFitter) -> None:
        self.fitter, self.model = fitter, fitter.model
        self._identity = self.model.identity.astype(np.float32)
        # (3, E, V): coordinate by coordinate, so that picking vertices and turning them are long runs.
        self._expression = np.ascontiguousarray(self.model.expression.transpose(2, 0, 1), np.float32)

    def shaped(self, fit: Fit) -> Float32:
        """(V, 3) head space: the mean with the fit's identity and expression."""
        vertices = self.model.vertices.copy()
        modes = self._identity[: len(fit.identity)]
        vertices += (fit.identity @ modes.reshape(len(modes), vertices.size)).reshape(-1, 3)
        for axis, modes in enumerate(self._expression):
            vertices[:, axis] += fit.expression @ modes[: len(fit.expression)]
        return vertices

    def turned(self, vertices: NDArray[np.int64], rotation: NDArray[np.float64]) -> Float32:
        """(E, N, 3) camera space: what the expressions add to some vertices."""
        picked = self._expression.take(vertices, axis=2)
        planes = rotation.astype(np.float32) @ picked.reshape(3, -1)
        return planes.reshape(picked.shape).transpose(1, 2, 0)

    def build(self, fit: Fit, photo: Image, landmarks_px: Float32, *, turns: bool = False) -> Rig:
        """Cut, bind and light one fitted face; ``photo (H, W, 3)``, ``landmarks_px (478, 2)`` in it. With
        ``turns`` the head may be turned: hair and neck come along."""
        return _build(self, fit, photo, landmarks_px, turns)


def _build(builder: RigBuilder, fit: Fit, photo: Image, landmarks_px: Float32, turns: bool) -> Rig:
    fitter, model = builder.fitter, builder.model
    reach = TURN_REACH if turns else SHEET_REACH
    window = _window(landmarks_px, fit.eye_distance_px, photo.shape, reach)
    camera = Camera(
        fit.camera.rotation,
        fit.camera.translation_mm,
        fit.camera.focal_px,
        fit.camera.centre_px - [window.left, window.top],
    )
    marks = landmarks_px - np.array([window.left, window.top], np.float32)
    crop = np.ascontiguousarray(photo[window.slices])

    shaped = builder.shaped(fit)
    if turns:
        _close_throat(model, shaped)
    posed = camera.to_camera(shaped).astype(np.float32)
    shift = fitter.residual_warp @ fit.residual_px
    posed[:, :2] += shift * (posed[:, 2:] / np.float32(camera.focal_px))
    rest = camera.project(posed).astype(np.float32)

    rim = _Rim(marks[list(FACE_RIM)], window)
    mesh = _cut(model, posed, rest, rim, _FACING_TURN if turns else _FACING)
    vertices = posed[mesh.vertices]
    turned = builder.turned(mesh.vertices, camera.rotation)
    for row, blink in fitter.blinks(fit).items():
        turned[row] *= np.float32(blink)
    place = rest[mesh.vertices]
    sheet = _sheet(vertices, place, turned, mesh, rim, camera, fit.eye_distance_px, window, reach)

    neutral = np.concatenate([vertices, sheet.vertices])
    triangles = np.concatenate([mesh.triangles, sheet.triangles + np.int32(len(vertices))])
    layer = np.concatenate([_layers(model, mesh), np.full(len(sheet.triangles), SKIN, np.uint8)])
    # In memory, too, coordinate by coordinate: that is how it will be packed.
    planes = np.concatenate([part.transpose(2, 0, 1) for part in (turned, sheet.basis)], axis=2)
    basis = planes.transpose(1, 2, 0)
    rest_px = np.concatenate([rest[mesh.vertices], sheet.rest_px])
    fan_start, fans = _fans(triangles[: len(mesh.triangles)], len(neutral))
    normals = vertex_normals(neutral, triangles, fan_start, fans)

    skin = np.unique(mesh.triangles[np.isin(mesh.materials, [MATERIALS.index("skin")])])
    smooth = blurred(crop, 0.015 * fit.eye_distance_px)
    skin_linear = linear_of(_nearest(smooth, rest_px[skin]))
    facing = normals[skin, 2] < -0.2
    light = estimate_light(skin_linear[facing] @ LUMINANCE, normals[skin][facing])
    white = white_of(crop, eye_whites(marks, crop.shape), np.median(skin_linear[facing], axis=0))

    lips = np.unique(mesh.triangles[np.isin(mesh.materials, [MATERIALS.index("lips")])])
    lip_linear = np.median(linear_of(_nearest(smooth, rest_px[lips])), axis=0)
    paint = np.zeros((len(neutral), 3), np.float32)
    paint[: len(vertices)] = _paint(model, mesh, white, lip_linear)

    relief = np.zeros(len(neutral), np.float32)
    relief[: len(vertices)] = _RELIEF * _smoothstep(
        rim.distance(rest[mesh.vertices]) / (_RELIEF_FADE * fit.eye_distance_px)
    )

    shading = Shading(
        triangles=triangles,
        layer=layer,
        rest_px=rest_px,
        shift_px=_closed_lids(fitter, fit, camera, neutral, basis, rest_px, marks, len(vertices)),
        fan_start=fan_start,
        fans=fans,
        rest_normal=normals,
        light=light,
        relief=relief,
        paint_linear=paint,
        lip_rim=_lip_rims(fitter, mesh),
        photo=_four_channels(crop),
        eyes=_four_channels(bare_eyes(crop, marks)),
        folds=fold_maps(marks, crop.shape[0], crop.shape[1], fit.eye_distance_px),
    )
    optics = np.array([camera.focal_px, *camera.centre_px], np.float32)
    rows = _eye_rows(model, mesh)
    lead = None
    if turns:
        pivot = pivot_of(fitter.landmark_motion(fit)[0], camera.rotation)
        led = np.concatenate([sheet.band, np.arange(len(vertices), len(neutral))])
        share = np.concatenate([1 - sheet.band_own, np.ones(len(sheet.vertices), np.float32)])
        lead = _lead(sheet, rest_px[led], led, share, pivot, optics, rim, fit.eye_distance_px)
    return Rig(window, neutral, basis, optics, shading, rows, _HAIR * fit.eye_distance_px, lead)


def _close_throat(model: HeadModel, shaped: Float32) -> None:
    """Narrow and shorten, in place, what lies deeper in the mouth than its teeth: as deep as it is modelled,
    it would show past the jaw of a turned head, where the patch ends. Head space, mm."""
    lips = shaped[np.unique(model.triangles[model.material_triangles("lips")])]
    fixed = np.unique(model.triangles[model.material_triangles("skin", "lips", "teeth")])
    inner = np.unique(model.triangles[model.material_triangles("mouth_interior", "gums", "tongue")])
    inner = np.setdiff1d(inner, fixed)
    depth = lips[:, 2].max() - shaped[inner, 2]
    shaped[inner, 2] += (1 - _THROAT_LENGTH) * np.maximum(depth - _TEETH_MM, 0)
    lining = np.isin(inner, model.triangles[model.material_triangles("mouth_interior")])
    deep, inner = depth[lining], inner[lining]
    middle = lips[:, :2].mean(0)
    away = shaped[inner, :2] - middle
    wide = np.clip(away, -_THROAT_MM, _THROAT_MM) - away
    shaped[inner, :2] += np.clip((deep - _TEETH_MM) / 10 + 1, 0, 1)[:, None] * wide


def _lead(
    sheet: _Sheet,
    places: Float32,
    led: NDArray[np.int64],
    share: Float32,
    pivot: Float32,
    optics: Float32,
    rim: _Rim,
    eye_px: float,
) -> Lead:
    beyond = np.maximum(-rim.distance(places), 0)
    receded = (_RECEDING * _smoothstep(beyond / (_RECEDES * eye_px))).astype(np.float32)
    weights = sheet.carried.weights(places)
    moves = weights.sum(1)
    ray = np.concatenate([(places - optics[1:]) / optics[0], np.ones((len(places), 1), np.float32)], axis=1)
    border = (1 - receded)[:, None] * weights
    return Lead(pivot, sheet.border, led, share, border, ray * pivot[2], receded * moves)


def _closed_lids(
    fitter: FaceFitter,
    fit: Fit,
    camera: Camera,
    neutral: Float32,
    basis: Float32,
    rest_px: Float32,
    marks: Float32,
    patch: int,
) -> Float32:
    points, motion = fitter.landmark_motion(fit)
    rest_marks = camera.project(points)
    names = fitter.model.expression_names
    shifts = np.zeros((len(SHIFTS), len(neutral), 2), np.float32)
    if not all(name in names for name in SHIFTS):
        return shifts
    modes = [names.index(name) for name in SHIFTS]
    closed = tuple(camera.project(neutral[:patch] + basis[mode, :patch]) for mode in modes)
    closed_marks = tuple(marks + camera.project(points + motion[mode]) - rest_marks for mode in modes)
    shifts[:, :patch] = lid_shifts(rest_px[:patch], closed, marks, closed_marks)
    return shifts


def _window(landmarks_px: Float32, eye_px: float, shape: tuple[int, ...], reach: float) -> Window:
    rim = landmarks_px[list(FACE_RIM)]
    margin = (reach + 0.1) * eye_px
    low = np.floor(rim.min(0) - margin).astype(int)
    high = np.ceil(rim.max(0) + margin).astype(int)
    left, top = max(int(low[0]), 0), max(int(low[1]), 0)
    return Window(left, top, min(int(high[0]), shape[1]) - left, min(int(high[1]), shape[0]) - top)


@dataclass(frozen=True)
class _Mesh:
    vertices: NDArray[np.int64]  # (V,) vertices of the model that are kept
    triangles: Int32  # (F, 3) over them
    materials: NDArray[np.uint8]  # (F,)
    kept: NDArray[np.int64]  # (F,) triangles of the model


def _cut(model: HeadModel, posed: Float32, rest: Float32, rim: _Rim, least_facing: float) -> _Mesh:
    """The patch: skin inside the rim that faces the viewer, lids, lips and all that lies in the mouth."""
    corners = posed[model.triangles]
    facing = _facing(corners)
    skin = model.materials == MATERIALS.index("skin")
    first, second, third = (rest.take(corner, axis=0) for corner in model.triangles.T)
    inside = rim.distance((first + second + third) / 3) > 0
    depth = corners[:, :, 2]
    depth_limit = np.median(depth[skin & inside]) + 90.0
    mouth = np.isin(model.materials, [MATERIALS.index(name) for name in _PAINTED])
    keep = mouth | (inside & (~skin | (facing > least_facing)) & (depth.mean(1) < depth_limit))
    kept = np.flatnonzero(keep)
    used = np.zeros(len(model.vertices), bool)
    used[model.triangles[kept]] = True
    number = np.cumsum(used, dtype=np.int32) - 1
    return _Mesh(np.flatnonzero(used), number[model.triangles[kept]], model.materials[kept], kept)


def _facing(corners: Float32) -> Float32:
    """(F, 3, 3) corners in camera space → cosine between each triangle's normal and the viewer."""
    ux, uy, uz = (corners[:, 1] - corners[:, 0]).T
    vx, vy, vz = (corners[:, 2] - corners[:, 0]).T
    nx, ny, nz = uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx
    x, y, z = corners[:, 0].T
    length2 = (nx * nx + ny * ny + nz * nz) * (x * x + y * y + z * z)
    cosine: Float32 = -(nx * x + ny * y + nz * z) / np.sqrt(np.maximum(length2, 1e-12))
    return cosine


class _Rim:
    """Distance to the rim of the face, px, positive inside: a map of the window, read at points."""

    def __init__(self, polygon: Float32, window: Window) -> None:
        inside = np.zeros((window.height, window.width), np.uint8)
        # fillPoly counts pixel centres from 0, in 1/16 px here.
        cv2.fillPoly(inside, [np.round((polygon - 0.5) * 16).astype(np.int32)], 1, shift=4)
        within, beyond = (
            cv2.distanceTransform(mask, cv2.DIST_L2, cv2.DIST_MASK_5) for mask in (inside, 1 - inside)
        )
        self._map = np.asarray(within - beyond, np.float32)

    def distance(self, points: Float32) -> Float32:
        """(N,) for points (N, 2); one beyond the window has the distance of the window's nearest pixel."""
        return _nearest(self._map, points)


@dataclass(frozen=True)
class _Sheet:
    vertices: Float32
    triangles: Int32
    rest_px: Float32
    basis: Float32
    border: NDArray[np.int64]  # vertices of the patch
    band: NDArray[np.int64]  # vertices of the patch whose motion gives way to the border's
    band_own: Float32  # how much of their own motion those keep
    carried: _Carried


def _sheet(
    vertices: Float32,
    rest: Float32,
    basis: Float32,
    mesh: _Mesh,
    rim: _Rim,
    camera: Camera,
    eye_px: float,
    window: Window,
    reach: float,
) -> _Sheet:
    """A grid over the window behind the patch that its border carries along (``_Carried``).

    Towards the rim the patch's own motion, ``basis``, gives way to the carried one, in place: both move as
    one there, and nothing tears or shows twice.
    """
    border = _border(mesh, vertices, rest, rim, eye_px)
    carried = _Carried(vertices[border], rest[border], basis[:, border], rim, eye_px, reach)
    band = np.flatnonzero(rim.distance(rest) < _BAND * eye_px)
    own = _smoothstep(rim.distance(rest[band]) / (_BAND * eye_px)).astype(np.float32)[None, :, None]
    basis[:, band] = own * basis[:, band] + (1 - own) * carried.motion(rest[band], vertices[band, 2])

    nodes, columns = _grid(window, eye_px / SHEET_CELLS)
    depth = np.float32(vertices[:, 2].max() + 120.0)
    ray = (nodes - camera.centre_px.astype(np.float32)) * (depth / np.float32(camera.focal_px))
    place = np.concatenate([ray, np.full((len(nodes), 1), depth)], axis=1).astype(np.float32)
    triangles = _grid_triangles(len(nodes) // columns, columns)
    motion = carried.motion(nodes, np.full(len(nodes), depth, np.float32))
    # Neither where the patch lies in front nor where nothing ever moves: there the photo stays as it is.
    behind = rim.distance(nodes) < 2.5 * eye_px / SHEET_CELLS
    moving = (motion != 0).any(axis=(0, 2))
    triangles = triangles[behind[triangles].any(1) & moving[triangles].any(1)]
    used = np.unique(triangles)
    number = np.zeros(len(nodes), np.int32)
    number[used] = np.arange(len(used), dtype=np.int32)
    kept = place[used], number[triangles], nodes[used], motion[:, used]
    return _Sheet(*kept, border, band, own[0, :, 0], carried)


class _Carried:
    """How a place on the screen moves with the patch's border: inverse-distance weights (Shepard 1968) over
    the border's vertices, fading with the distance from the rim.
    """

    def __init__(
        self, vertices: Float32, rest: Float32, basis: Float32, rim: _Rim, eye_px: float, reach: float
    ) -> None:
        self._rest, self._rim, self._eye_px, self._reach = rest, rim, eye_px, reach
        z = vertices[:, 2:]
        # d(x / z): motion on the screen in units of the focal length.
        self._screen = (basis[:, :, :2] - basis[:, :, 2:] * (vertices[:, :2] / z)) / z
        self._modes = len(basis)

    def weights(self, points: Float32) -> Float32:
        """(N, M) of the border's M vertices for places (N, 2) px; they sum to 1 at the rim, to 0 far out."""
        # |p - r|² = |p|² - 2 p·r + |r|², about the border's middle so that nothing cancels.
        p, r = points - self._rest.mean(0), self._rest - self._rest.mean(0)
        squared = (p * p).sum(1)[:, None] - 2 * (p @ r.T) + (r * r).sum(1)
        weights = 1.0 / (np.maximum(squared, 0) + np.float32(_SOFT * self._eye_px) ** 2) ** 2
        weights /= weights.sum(1, keepdims=True)
        beyond = np.maximum(-self._rim.distance(points), 0)
        weights *= (1 - _smoothstep(beyond / (self._reach * self._eye_px)))[:, None]
        return np.asarray(weights, np.float32)

    def motion(self, points: Float32, depth: Float32) -> Float32:
        """(E, N, 3) mm for places (N, 2) px at camera depths (N,) mm."""
        weights = self.weights(points) * depth[:, None]
        flat = self._screen.transpose(1, 0, 2).reshape(len(self._rest), -1)
        moved = np.zeros((self._modes, len(points), 3), np.float32)
        moved[:, :, :2] = (weights @ flat).reshape(len(points), -1, 2).transpose(1, 0, 2)
        return moved


def _grid(window: Window, cell_px: float) -> tuple[Float32, int]:
    columns, rows = (max(int(np.ceil(n / cell_px)), 1) + 1 for n in (window.width, window.height))
    x, y = np.linspace(0, window.width, columns), np.linspace(0, window.height, rows)
    nodes = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2).astype(np.float32)
    return nodes, columns


def _grid_triangles(rows: int, columns: int) -> Int32:
    corner = (np.arange(rows - 1)[:, None] * columns + np.arange(columns - 1)).ravel()
    a, b, c, d = corner, corner + 1, corner + columns, corner + columns + 1
    # Counter-clockwise to the viewer, as the rows run down the image.
    return np.concatenate([np.stack([a, c, b], 1), np.stack([b, c, d], 1)]).astype(np.int32)


def _border(mesh: _Mesh, vertices: Float32, rest: Float32, rim: _Rim, eye_px: float) -> NDArray[np.int64]:
    """Vertices along the rim that the viewer sees; what lies under the jaw moves less than its edge."""
    seen = _facing(vertices[mesh.triangles]) > _FACING_RIM
    skin = mesh.materials == MATERIALS.index("skin")
    facing = np.zeros(len(vertices), bool)
    facing[mesh.triangles[seen & skin]] = True
    distance = rim.distance(rest)
    reach = np.array([_BORDER, 2 * _BORDER]) * eye_px
    near = [np.flatnonzero(facing & (distance < width)) for width in reach]
    return near[0] if len(near[0]) >= 24 else near[1]


def _smoothstep(x: NDArray[Any]) -> NDArray[Any]:
    t = np.clip(x, 0, 1)
    smooth: NDArray[Any] = t * t * (3 - 2 * t)
    return smooth


def _layers(model: HeadModel, mesh: _Mesh) -> NDArray[np.uint8]:
    layer = np.full(len(mesh.materials), SKIN, np.uint8)
    layer[np.isin(mesh.materials, [MATERIALS.index(name) for name in _PAINTED])] = PAINTED
    eye = mesh.materials == MATERIALS.index("eyeballs")
    left = model.vertices[model.triangles[mesh.kept]][:, :, 0].mean(1) > 0
    layer[eye] = np.where(left[eye], LEFT_EYE, RIGHT_EYE)
    return layer


def _fans(triangles: Int32, vertices: int) -> tuple[Int32, Int32]:
    flat = triangles.ravel()
    order = np.argsort(flat, kind="stable")
    start = np.zeros(vertices + 1, np.int32)
    np.cumsum(np.bincount(flat, minlength=vertices), out=start[1:])
    return start, (order // 3).astype(np.int32)


def _nearest(image: NDArray[Any], points_px: Float32) -> NDArray[Any]:
    column = np.clip(points_px[:, 0].astype(int), 0, image.shape[1] - 1)
    row = np.clip(points_px[:, 1].astype(int), 0, image.shape[0] - 1)
    picked: NDArray[Any] = image[row, column]
    return picked


def _paint(model: HeadModel, mesh: _Mesh, white: Float32, lip_linear: Float32) -> Float32:
    """Linear colour of painted parts in this photo: albedo under the photo's white; what is lip-coloured in
    the model has the colour of these lips."""
    albedo = model.albedo[mesh.vertices]
    linear = linear_of(albedo)
    lining = np.unique(mesh.triangles[mesh.materials == MATERIALS.index("mouth_interior")])
    linear[lining] = np.maximum(linear[lining], _WALL)
    soft = np.unique(
        mesh.triangles[np.isin(mesh.materials, [MATERIALS.index(m) for m in ("gums", "tongue")])]
    )
    grey = linear[soft] @ LUMINANCE
    linear[soft] = _MOIST * (linear[soft] + _PALE * (grey[:, None] - linear[soft]))
    colour = linear / _IVORY * white
    red = linear[lining, 0]
    share = np.clip((red - 0.10) / (0.35 - 0.10), 0, 1)[:, None]
    own = lip_linear * np.minimum(linear[lining] / 0.35, 1.0).max(1, keepdims=True)
    colour[lining] = share * own + (1 - share) * colour[lining]
    return colour.astype(np.float32)


def _lip_rims(fitter: FaceFitter, mesh: _Mesh) -> Int32:
    """(2, 11) vertices of the rig nearest to the landmarks along the slit."""
    model = fitter.model
    marks = model.landmarks478
    place = np.full(len(model.vertices), -1, np.int64)
    place[mesh.vertices] = np.arange(len(mesh.vertices))
    rims = np.array(_LIP_RIMS)
    corners = model.triangles[marks.triangle[rims]]
    best = np.take_along_axis(corners, marks.bary[rims].argmax(-1)[..., None], axis=-1)[..., 0]
    rows: Int32 = place[best].astype(np.int32)
    return rows


def _eye_rows(model: HeadModel, mesh: _Mesh) -> tuple[tuple[Int32, Int32], ...]:
    def of(material: str, left: bool) -> Int32:
        rows = np.unique(mesh.triangles[mesh.materials == MATERIALS.index(material)]).astype(np.int32)
        side: Int32 = rows[(model.vertices[mesh.vertices[rows], 0] > 0) == left]
        return side

    return tuple((of("eyelids", left), of("eyeballs", left)) for left in (True, False))


def _four_channels(image: Image) -> Image:
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2RGBA), np.uint8)
