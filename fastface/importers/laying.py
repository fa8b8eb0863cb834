"""The default head's mesh laid onto a face: its pose there, the map of space, and what its vertices read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fastface.correspondence import IRISES
from fastface.errors import BadModelFile
from fastface.fitting import FACE_RIM
from fastface.importers.correspondence_map import SpaceMap, Surface, fitted_map, similarity, space_map
from fastface.importers.pointing import Marks
from fastface.importers.published import need
from fastface.importers.template import OUTER, Template, spread
from fastface.painted_face import vertex_normals

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Rows = NDArray[np.int64]

#: Millimetres in the units that published models come in: micrometres, millimetres, centimetres, decimetres,
#: inches and metres.
UNITS_MM: Final = (0.001, 1.0, 10.0, 25.4, 100.0, 1000.0)
_UNIT_SLACK: Final = 1.45  # how far a face may be from the default's size; children are 0.8
_BROWS: Final = (
    *(46, 52, 53, 55, 63, 65, 66, 70, 105, 107),
    *(276, 282, 283, 285, 293, 295, 296, 300, 334, 336),
)
_LID_STIFFER: Final = 12.0  # lids follow landmarks and their surroundings: many meshes have no eye opening
_RIM_STIFFER: Final = 6.0
_TOUCH_MM: Final = 4.0
_LEAST_COSINE: Final = 0.5
_LEAST_COVERED: Final = 0.85  # of the face that must find itself on the imported surface
_MEDIAN_MM: Final = 0.8
_TAIL_MM: Final = 3.0
_SMOOTH: Final = 0.3  # of modes where they are not read but continued
_CONTROL: Final = 700  # points that modes are continued from
#: Of the eyeball's radius: within the first, skin keeps its distance from the ball; beyond the second not.
_EYE_HELD: Final = 1.2
_EYE_FREE: Final = 1.8


@dataclass(frozen=True)
class Fitted:
    """How well the default head's face lies on the imported one: the share of its vertices that found the
    surface, and how far they are from it, the median and the 95 % quantile; the lids do not count.
    """

    covered: float
    median_mm: float
    tail_mm: float


# -------------------------------------------------------------------------------------------------- pose


@dataclass(frozen=True)
class Pose:
    """From the file's axes and unit to head space: ``unit_mm · rotation @ point + translation``."""

    unit_mm: float
    rotation: Float64
    translation: Float64

    def points(self, points: Float64) -> Float64:
        """(…, 3) mm."""
        moved: Float64 = self.unit_mm * points @ self.rotation.T + self.translation
        return moved

    def shifts(self, shifts: Float32) -> Float32:
        """Displacements (…, 3), mm."""
        return shifts @ (self.unit_mm * self.rotation.T).astype(np.float32)


def _pairs(home: Template, marks: Marks) -> Rows:
    """Landmarks read on both heads. Those of silhouettes and irises are not on the surface, and brows are
    guessed on bare skin.
    """
    both = np.isfinite(home.marks.points[:, 0]) & np.isfinite(marks.points[:, 0])
    both[list(FACE_RIM)] = False
    both[list(IRISES)] = False
    both[list(_BROWS)] = False
    return np.flatnonzero(both)


def unit_of(scale: float, unit_mm: float | None, label: str) -> float:
    """Millimetres in the unit of a file whose face is as large as the default head's if they are ``scale``:
    ``unit_mm``, or where that is None the one of ``UNITS_MM`` that makes it of human size. Raises
    ``BadModelFile`` where it then is not."""
    unit = unit_mm or min(UNITS_MM, key=lambda unit: abs(np.log(scale / unit)))
    if not 1 / _UNIT_SLACK < scale / unit < _UNIT_SLACK:
        raise BadModelFile(
            f"{label}: wanted a face in micrometres, millimetres, centimetres, inches, decimetres or metres; "
            f"this one is of human size if its unit is {scale:.4g} mm (say so with --unit)"
        )
    return unit


def pose_of(home: Template, marks: Marks, unit_mm: float | None, label: str) -> Pose:
    rows = _pairs(home, marks)
    need(len(rows) >= 100, label, f"wanted 100 landmarks on its face, the landmark network found {len(rows)}")
    here, there = marks.points[rows], home.marks.points[rows]
    scale, rotation, _ = similarity(here, there)
    unit = unit_of(scale, unit_mm, label)
    return Pose(unit, rotation, there.mean(axis=0) - unit * rotation @ here.mean(axis=0))


# ------------------------------------------------------------------------------------------------ mapping


@dataclass(frozen=True)
class Ball:
    """An eyeball: its ``centre`` and ``radius`` on the default head, ``moved`` centre and ``scale`` here."""

    centre: Float64
    radius: float
    moved: Float64
    scale: float

    def held(self, points: Float64, mapped: Float64) -> Float64:
        """``mapped`` points with the distance from this ball that ``points`` have on the default head."""
        offset = np.linalg.norm(points - self.centre, axis=1)
        share = np.clip((_EYE_FREE - offset / self.radius) / (_EYE_FREE - _EYE_HELD), 0, 1)
        near = np.flatnonzero(share > 0)
        ray = mapped[near] - self.moved
        now = np.linalg.norm(ray, axis=1)
        wanted = now + share[near] * (self.scale * offset[near] - now)
        mapped = mapped.copy()
        mapped[near] = self.moved + ray * (wanted / np.maximum(now, 1e-6))[:, None]
        return mapped


@dataclass(frozen=True)
class Mapping:
    """The map of space with round eyeballs in it."""

    smooth: SpaceMap
    balls: tuple[Ball, Ball]
    shift: Float64

    def __call__(self, points: Float64) -> Float64:
        mapped = self.smooth(points)
        for ball in self.balls:
            mapped = ball.held(points, mapped)
        moved: Float64 = mapped + self.shift
        return moved


@dataclass(frozen=True)
class Placed:
    """``vertices (V, 3)`` of the default mesh on the imported face; ``balls`` in the same place."""

    vertices: Float64
    balls: tuple[Ball, Ball]
    shift: Float64


def lay(
    home: Template, pose: Pose, marks: Marks, surface: Surface, label: str
) -> tuple[Mapping, Placed, Fitted]:
    rows = _pairs(home, marks)
    stiffer = np.ones(len(home.vertices))
    stiffer[np.concatenate(home.lids)] = _LID_STIFFER
    stiffer[home.rims] = np.maximum(stiffer[home.rims], _RIM_STIFFER)
    smooth = fitted_map(
        home.marks.points[rows],
        pose.points(marks.points[rows]),
        home.vertices[home.samples],
        home.normals[home.samples],
        stiffer[home.samples],
        surface,
    )
    face = smooth(home.vertices[home.face])
    ahead = smooth(home.vertices[home.face] + home.normals[home.face]) - face
    ahead /= np.linalg.norm(ahead, axis=1, keepdims=True) + 1e-12
    touch = surface.touch(face, ahead, _TOUCH_MM, _LEAST_COSINE)
    free = ~np.isin(home.face, np.concatenate(home.lids))
    fits = touch.fits[free]
    median, tail = np.quantile(touch.distance[free][fits], [0.5, 0.95]) if fits.any() else (np.inf, np.inf)
    fitted = Fitted(float(fits.mean()), float(median), float(tail))
    if fitted.covered < _LEAST_COVERED or median > _MEDIAN_MM or tail > _TAIL_MM:
        raise BadModelFile(
            f"{label}: wanted a face that the default head can be laid onto: {_LEAST_COVERED:.0%} of it, "
            f"{_MEDIAN_MM:g} mm off in the median and {_TAIL_MM:g} mm in the worst twentieth; got "
            f"{fitted.covered:.0%}, {median:.2f} mm and {tail:.2f} mm"
        )
    balls = tuple(_ball(home, smooth, side) for side in (0, 1))
    shift = -(balls[0].moved + balls[1].moved) / 2
    mapping = Mapping(smooth, (balls[0], balls[1]), shift)
    vertices = mapping(home.vertices)
    for ball, eye in zip(balls, home.eyes, strict=True):
        vertices[eye] = ball.scale * (home.vertices[eye] - ball.centre) + ball.moved + shift
    return mapping, Placed(vertices, (balls[0], balls[1]), shift), fitted


def _ball(home: Template, smooth: SpaceMap, side: int) -> Ball:
    """An eyeball of the size and at the place that its lids ask for."""
    eye, lids = home.vertices[home.eyes[side]], home.vertices[home.lids[side]]
    centre = (eye.min(axis=0) + eye.max(axis=0)) / 2
    radius = float(np.linalg.norm(eye - centre, axis=1).mean())
    scale, _, _ = similarity(lids, smooth(lids))
    scale = float(np.clip(scale, 0.8, 1.25))
    moved = smooth(lids).mean(axis=0) + scale * (centre - lids.mean(axis=0))
    return Ball(centre, radius, moved, scale)


# ------------------------------------------------------------------------------------------------ reading


class Reading:
    """Reads fields over the imported mesh at the vertices of the laid-on one, and continues them to the rest:
    the inside of the mouth, and what lies beyond the imported mesh.

    ``places (V, 3)``: where the laid-on mesh is on ``surface``; ``rows``: the vertices that read there.
    ``apart``: whether the lips are, so that the nearest place cannot be the other lip's.
    """

    def __init__(
        self, home: Template, surface: Surface, places: Float64, placed: Placed, *, apart: bool = False
    ) -> None:
        self._home, self.surface, self._places, self._placed = home, surface, places, placed
        outer = home.outer
        faces = home.model.triangles[home.model.material_triangles(*OUTER)]
        normals = vertex_normals(places.astype(np.float32), faces).astype(np.float64)
        touch = surface.touch(places[outer], normals[outer], _TOUCH_MM, _LEAST_COSINE)
        read = touch.fits & (apart | ~np.isin(outer, home.rims))
        self.rows = outer[read]
        self._triangle, self._weights = touch.triangle[read], touch.weights[read]
        balls = np.concatenate(home.eyes)
        self._rest = np.setdiff1d(np.arange(len(places)), np.concatenate([self.rows, balls]))
        self._control = np.isin(self.rows, spread(places, self.rows, _CONTROL)).nonzero()[0]

    def posed(self, moved: Float32, surface: Surface) -> Reading:
        """The same where the laid-on mesh has moved by ``moved (V, 3)`` and the imported one likewise."""
        return Reading(self._home, surface, self._places + moved, self._placed, apart=True)

    def at(self, fields: Float32) -> Float32:
        """``fields (K, V', 3)`` over the imported mesh → (K, len(rows), 3)."""
        corners = self.surface.triangles[self._triangle]
        weights = self._weights.astype(np.float32)
        found = np.empty((len(fields), len(self.rows), 3), np.float32)
        for index, one in enumerate(fields):
            np.einsum("ncx,nc->nx", one[corners], weights, out=found[index])
        return found

    def fields(self, fields: Float32) -> Float32:
        """``fields (K, V', 3)`` over the imported mesh → (K, V, 3) on the default one; eyes stay round."""
        whole = np.zeros((len(fields), len(self._placed.vertices), 3), np.float32)
        if len(fields):
            read = self.at(fields)
            whole[:, self.rows] = read
            whole[:, self._rest] = self.continued(read, self._rest)
            self._round(whole)
        return whole

    def continued(self, read: Float32, rows: Rows) -> Float32:
        """Fields (K, len(rows), 3) at further vertices from those (K, len(self.rows), 3) that were read."""
        flat = read[:, self._control].transpose(1, 0, 2).reshape(len(self._control), -1).astype(np.float64)
        places = self._places
        mapping = space_map(places[self.rows[self._control]], flat, _SMOOTH)
        out = np.empty((len(rows), flat.shape[1]))
        for start in range(0, len(rows), 1024):
            out[start : start + 1024] = mapping.interpolator(places[rows[start : start + 1024]])
        return out.reshape(len(rows), -1, 3).transpose(1, 0, 2).astype(np.float32)

    def _round(self, whole: Float32) -> None:
        """Eyeballs move and grow with their lids, and near them skin keeps to the ball."""
        home, placed = self._home, self._placed
        for ball, eye, lids in zip(placed.balls, home.eyes, home.lids, strict=True):
            centre = ball.moved + placed.shift
            arm = (placed.vertices[lids] - centre).astype(np.float32)
            middle = arm.mean(axis=0)
            moved = whole[:, lids].mean(axis=1)
            arms = arm - middle
            grown = np.einsum("klx,lx->k", whole[:, lids] - moved[:, None], arms) / (arms**2).sum()
            shift = moved - grown[:, None] * middle
            out = (placed.vertices[eye] - centre).astype(np.float32)
            whole[:, eye] = shift[:, None] + grown[:, None, None] * out
            offset = placed.vertices - centre
            far = np.linalg.norm(offset, axis=1)
            share = np.clip((_EYE_FREE - far / (ball.scale * ball.radius)) / (_EYE_FREE - _EYE_HELD), 0, 1)
            share[np.concatenate(home.eyes)] = 0
            near = np.flatnonzero(share > 0)
            ray = (offset[near] / far[near, None]).astype(np.float32)
            asked = shift[:, None] + grown[:, None, None] * offset[near].astype(np.float32)
            lack = np.einsum("knx,nx->kn", asked - whole[:, near], ray) * share[near].astype(np.float32)
            whole[:, near] += lack[:, :, None] * ray
