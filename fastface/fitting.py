"""From 478 landmarks to pose, camera, identity and expression: damped Gauss-Newton on the landmarks.

The cost is that of Kollias et al. 2020, equation 4, without its texture term:

    sum_l w_l |project(R (mean_l + identity · a + expression · b) + t) - landmark_l|² / sigma²
    + |a|² / sigma_a² + sum_k (a_k / bound)⁴ + |b|² / sigma_b² + (log f - log f_0)² / sigma_f²

with landmarks measured in per cent of the outer-eye distance, so that nothing depends on the photo's size.
Landmarks of the face's rim lie on the silhouette, which slides over the head as it turns: they count fully
across the rim and little along it. Jacobians are analytic. What the model cannot express is left as a
residual, and ``FaceFitter.residual_warp`` carries it smoothly over the mesh.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fastface.camera import FLIP, Camera, rotation_of
from fastface.errors import BadArgument, NoFaceFound
from fastface.landmark_tables import POINT_COUNT
from fastface.lids import BLINKS, blink_share
from fastface.morphable import HeadModel

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

MODES: Final = 60  # identity modes in use; further ones fit noise of the landmarks
SIGMA_IDENTITY: Final = 1.5
BOUND_IDENTITY: Final = 2.0  # from here on the fourth power rules: nobody is ten standard deviations odd
SIGMA_EXPRESSION: Final = 0.12
SIGMA_LANDMARK: Final = 0.5  # per cent of the outer-eye distance
SIGMA_LOG_FOCAL: Final = 0.15  # of a face alone, shape explains perspective as well as distance does
SIGMA_ALONG_RIM: Final = 3.0  # times that across it
MATRIX_STEPS: Final = (1, 4, 4, 4, 4, 4)  # steps with each matrix; the first start far off
#: Mean distance of the landmarks from the fitted head, of the eyes' distance: no face is so odd.
MAX_ERROR: Final = 0.08
OUTER_EYE_CORNERS: Final = (33, 263)
#: The rim of the face in MediaPipe's numbering, in order, from the forehead over the subject's left cheek.
FACE_RIM: Final = (
    *(10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377),
    *(152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109),
)
_WARP_REACH_MM: Final = 14.0
_WARP_END_MM: Final = 80.0  # the kernel is 1e-3 there
#: Rows of a matrix that are dealt with at once: products so small that BLAS leaves its threads asleep. Waking
#: them saves nothing here and costs tens of milliseconds on a busy machine.
_BAND: Final = 8
_LEAST_EYE_PX: Final = 4.0
_NEAREST_MM: Final = 10.0
_ROUNDING: Final = 1e-3  # of the eyes' distance: what single precision may lose of a fit
_WARP_NOISE: Final = 0.05  # of the kernel's variance: the warp follows the landmarks, not their jitter
_STILL: Final = ("teeth", "gums", "tongue", "mouth_interior")


@dataclass(frozen=True)
class Fit:
    """What the landmarks say. ``residual_px (478, 2)``: landmark minus projected model point."""

    camera: Camera
    identity: Float32
    expression: Float32
    residual_px: Float32
    eye_distance_px: float


class FaceFitter:
    """Fits one head model; made once, used for every photo."""

    def __init__(self, model: HeadModel) -> None:
        self.model = model
        marks = model.landmarks478
        corners = model.triangles[marks.triangle]
        bary = marks.bary.astype(np.float32)
        self._mean = np.einsum("lcx,lc->lx", model.vertices[corners].astype(np.float64), marks.bary)
        self._modes = min(MODES, len(model.identity))
        bases = (model.identity[: self._modes], model.expression)
        used = [np.einsum("elcx,lc->elx", basis[:, corners].astype(np.float32), bary) for basis in bases]
        self._basis = np.ascontiguousarray(np.concatenate(used))  # (K + E, 478, 3)
        #: The same as (3, K + E, 478): what an axis of the head adds to the Jacobian, transposed.
        self._axes = np.ascontiguousarray(self._basis.transpose(2, 0, 1))
        sigma = [np.full(self._modes, SIGMA_IDENTITY), np.full(len(model.expression), SIGMA_EXPRESSION)]
        self._bound = np.pad(np.full(self._modes, BOUND_IDENTITY**-4), (7, len(model.expression)))
        self._prior = 1 / np.concatenate([[np.inf] * 6, [SIGMA_LOG_FOCAL], *sigma]) ** 2

    def fit(self, landmarks_px: Float32, height: int, width: int) -> Fit:
        """``landmarks_px (478, 2)`` of a photo of ``height × width`` px. Raises ``NoFaceFound`` when they are
        not the landmarks of a face that a camera can see.
        """
        target = checked_landmarks(landmarks_px, height, width)
        eye_px = _eye_distance(target)
        problem = _Problem(target, 100.0 / (SIGMA_LANDMARK * eye_px) * _rim_normals(target))
        state = self._minimise(problem, State.start(self._mean, target, height, width, len(self._basis)))
        identity, expression = np.split(state.shape.astype(np.float32), [self._modes])
        camera = state.camera()
        residual = (target - camera.project(self._posed(camera, state.shape))).astype(np.float32)
        fit = Fit(camera, identity, expression, residual, eye_px)
        self.check(fit, landmarks_px)
        return fit

    def _posed(self, camera: Camera, shape: Float64) -> Float64:
        """(478, 3) landmarks of a head in camera space; ``NoFaceFound`` if not before the camera."""
        posed = camera.to_camera(self._shaped(shape))
        if not (posed[:, 2] > _NEAREST_MM).all():  # false for NaN
            raise NoFaceFound("the landmarks fit no head before the camera")
        return posed

    def check(self, fit: Fit, landmarks_px: Float32) -> None:
        """Raise ``NoFaceFound`` unless ``fit`` is one of this model to these landmarks, and close."""
        unknowns = (self._modes, len(self._basis) - self._modes)
        if (len(fit.identity), len(fit.expression)) != unknowns:
            raise NoFaceFound(
                f"wanted a fit of {unknowns[0]} identity and {unknowns[1]} expression coefficients, got "
                f"{len(fit.identity)} and {len(fit.expression)}"
            )
        posed = self._posed(fit.camera, np.concatenate([fit.identity, fit.expression]).astype(np.float64))
        off = fit.camera.project(posed) + fit.residual_px - landmarks_px
        if not (np.abs(off) < _ROUNDING * fit.eye_distance_px + 1e-4 * np.abs(landmarks_px).max()).all():
            raise NoFaceFound("the landmarks are not those of the fit")
        error = float(np.linalg.norm(fit.residual_px, axis=1).mean()) / fit.eye_distance_px
        if error > MAX_ERROR:
            raise NoFaceFound(
                "the landmarks are not those of a face: wanted them within "
                f"{MAX_ERROR:.0%} of the eyes' distance of some head, got {error:.0%}"
            )

    def _minimise(self, problem: _Problem, state: State) -> State:
        """Gauss-Newton whose matrix serves several steps: the gradient is exact at each, and costs little."""
        here = self._linearise(problem, state)
        damping = 1e-6
        for steps in MATRIX_STEPS:
            factor = inverse_factor(self._normal(here), damping)
            for step in range(steps):
                moved = here.state.moved(-(factor.T @ (factor @ here.gradient)))
                there = self._linearise(problem, moved)
                gain = (here.cost - there.cost) / here.cost
                if not gain > 0:
                    damping = 30 * damping if step == 0 else damping
                    break
                here = there
                if gain < 1e-4:
                    return here.state
        return here.state

    def _shaped(self, shape: Float64) -> Float64:
        """(478, 3) landmarks of the head of these coefficients (K + E,), head space."""
        flat = shape.astype(np.float32) @ self._basis.reshape(len(self._basis), -1)
        shaped: Float64 = self._mean + flat.reshape(-1, 3)
        return shaped

    def _linearise(self, problem: _Problem, state: State) -> _Linear:
        """Cost and gradient at ``state``, and the pinhole's derivatives that the Jacobian is made of."""
        seen = Projection.of(self._shaped(state.shape), state, problem.weight)
        residual = (problem.weight @ (seen.pixel - problem.target)[:, :, None])[:, :, 0]
        shape = state.shape - state.rest
        offset = np.concatenate([np.zeros(6), [state.log_focal - state.log_focal_prior], shape])
        extreme = self._bound * offset**2
        gradient = self._prior * offset + 2 * extreme * offset
        gradient += seen.gradient(residual, self._basis)
        cost = float((residual**2).sum() + self._prior @ offset**2 + extreme @ offset**2)
        return _Linear(state, cost, gradient, seen)

    def _normal(self, at: _Linear) -> Float64:
        """The lower triangle of JᵀJ and the priors. Its precision sets the pace, not the result: single is
        enough.
        """
        normal = lower_gram(at.seen.jacobian(self._axes))
        extreme = 6 * self._bound[7:] * (at.state.shape - at.state.rest) ** 2
        normal[np.diag_indices_from(normal)] += self._prior + np.pad(extreme, (7, 0)) + 1e-9
        return normal

    def landmark_motion(self, fit: Fit) -> tuple[Float32, Float32]:
        """Landmarks (478, 3) of a fit in camera space and what each expression adds to them (E, 478, 3)."""
        points, turned = self._turned(fit)
        for row, share in self._blinks(fit, points, turned).items():
            turned[row] *= np.float32(share)
        return points, turned

    def blinks(self, fit: Fit) -> dict[int, float]:
        """Which expressions close an eye, and by how much of it this face's do (``fastface.lids``)."""
        return self._blinks(fit, *self._turned(fit))

    def _blinks(self, fit: Fit, points: Float32, turned: Float32) -> dict[int, float]:
        names = self.model.expression_names
        calm = points - np.tensordot(fit.expression, turned, 1)
        project = fit.camera.project
        open_px = project(calm) + fit.residual_px
        rows = ((eye, names.index(name)) for eye, name in enumerate(BLINKS) if name in names)
        return {
            row: blink_share(open_px, project(calm + turned[row]) + fit.residual_px, eye) for eye, row in rows
        }

    def _turned(self, fit: Fit) -> tuple[Float32, Float32]:
        head = self._shaped(np.concatenate([fit.identity, fit.expression]))
        turned = self._basis[self._modes :] @ fit.camera.rotation.T.astype(np.float32)
        return fit.camera.to_camera(head).astype(np.float32), turned

    @cached_property
    def residual_warp(self) -> Float32:
        """(V, 478): what a unit residual at each landmark moves each vertex by.

        Gaussian-process interpolation with a Matérn 3/2 kernel on the mean head: smooth, and zero far from
        any landmark. Teeth and tongue do not follow the lips.
        """
        marks, vertices = self._mean.astype(np.float32), self.model.vertices
        inner = _matern(self._mean, self._mean)
        inner[np.diag_indices_from(inner)] += _WARP_NOISE
        weights = np.linalg.inv(inner).astype(np.float32)
        near = ((vertices > marks.min(0) - _WARP_END_MM) & (vertices < marks.max(0) + _WARP_END_MM)).all(1)
        still = self.model.triangles[self.model.material_triangles(*_STILL)]
        moving = self.model.triangles[self.model.material_triangles("skin", "lips", "eyelids")]
        near[np.setdiff1d(still, moving)] = False
        warp = np.zeros((len(vertices), len(marks)), np.float32)
        warp[near] = _matern(vertices[near], marks) @ weights
        return warp


def checked_landmarks(landmarks_px: NDArray[Any], height: int, width: int) -> Float64:
    """The landmarks in double precision, if they can be a face of a photo of this size at all."""
    if landmarks_px.shape != (POINT_COUNT, 2):
        raise BadArgument(f"fit: landmarks_px must be ({POINT_COUNT}, 2), got {landmarks_px.shape}")
    target = landmarks_px.astype(np.float64)
    if not np.isfinite(target).all():
        raise NoFaceFound("wanted the landmarks of a face, got values that are not finite")
    far = float(np.abs(target).max())
    if far > 8 * max(height, width):
        raise NoFaceFound(f"wanted landmarks in a photo of {width}x{height} px, got one at {far:.3g} px")
    eye_px = _eye_distance(target)
    if eye_px < _LEAST_EYE_PX:
        raise NoFaceFound(
            f"wanted a face with at least {_LEAST_EYE_PX:.0f} px between the eyes, got {eye_px:.1f}"
        )
    return target


def _eye_distance(target: Float64) -> float:
    right, left = OUTER_EYE_CORNERS
    return float(np.linalg.norm(target[right] - target[left]))


@dataclass(frozen=True)
class _Problem:
    """Landmarks (478, 2) to reach and the rows (478, 2, 2) that weigh each residual."""

    target: Float64
    weight: Float64


@dataclass(frozen=True)
class Projection:
    """Points (L, 3) as a camera sees them, and the derivatives of where: all rows weighed."""

    rotation: Float64
    pixel: Float64  # (L, 2) not weighed
    turned: Float64  # (L, 3) about the head's origin, along camera axes
    pinhole: Float64  # (L, 2, 3) d(row)/d(camera point)
    nearer: Float64  # (L, 2) d(row)/d(log scale), the head coming nearer
    zoom: Float64  # (L, 2) d(row)/d(log focal length), the head staying where it is

    @classmethod
    def of(cls, head: Float64, state: State, weight: Float64) -> Projection:
        """``head (L, 3)`` mm in head space; ``weight (L, 2, 2)`` or ``(2, 2)`` times pixels: the rows."""
        turned = head @ state.rotation.T
        seen = turned + state.translation
        focal = np.exp(state.log_focal)
        inverse_z = 1.0 / np.maximum(seen[:, 2], 1.0)
        ray = seen[:, :2] * inverse_z[:, None]
        pinhole = np.zeros((len(seen), 2, 3))
        pinhole[:, 0, 0] = pinhole[:, 1, 1] = focal * inverse_z
        pinhole[:, :, 2] = -focal * ray * inverse_z[:, None]
        pinhole = weight @ pinhole
        zoom = focal * (weight @ ray[:, :, None])[:, :, 0]
        nearer = -state.translation[2] * pinhole[:, :, 2]
        return cls(state.rotation, focal * ray + state.centre, turned, pinhole, nearer, zoom)

    def gradient(self, rows: Float64, basis: Float32) -> Float64:
        """(7 + K,) of half the squared sum, where its derivative by each row is ``rows (L, 2)``; ``basis``
        (K, L, 3)."""
        pull = (rows[:, None] @ self.pinhole)[:, 0]  # by the camera point
        head = (pull @ self.rotation).astype(np.float32)
        return np.concatenate(
            [
                np.cross(self.turned, pull).sum(0),
                pull[:, :2].sum(0),
                [(self.nearer * rows).sum(), ((self.zoom - self.nearer) * rows).sum()],
                basis.reshape(len(basis), -1) @ head.ravel(),
            ]
        )

    def jacobian(self, axes: Float32) -> Float32:
        """(7 + K, 2 · L) d(rows)/d(unknowns), transposed; ``axes (3, K, L)`` is the basis by head axis."""
        jacobian = np.empty((7 + axes.shape[1], 2, len(self.turned)), np.float32)
        jacobian[:3] = np.cross(self.turned[:, None], self.pinhole).transpose(2, 1, 0)
        jacobian[3:5] = self.pinhole[:, :, :2].transpose(2, 1, 0)
        jacobian[5] = self.nearer.T
        jacobian[6] = (self.zoom - self.nearer).T
        head = np.ascontiguousarray((self.pinhole @ self.rotation).transpose(2, 1, 0), np.float32)
        for row in range(2):
            part = jacobian[7:, row]
            np.multiply(axes[0], head[0, row], out=part)
            part += axes[1] * head[1, row]
            part += axes[2] * head[2, row]
        return jacobian.reshape(len(jacobian), -1)


def lower_gram(rows: Float32, columns: int = 512) -> Float64:
    """The lower triangle of ``rows @ rows.T``, by bands and so many columns at once."""
    normal = np.zeros((len(rows), len(rows)))
    for first in range(0, rows.shape[1], columns):
        part = rows[:, first : first + columns]
        for start in range(0, len(rows), _BAND):
            end = start + _BAND
            normal[start:end, :end] += part[start:end] @ part[:end].T
    return normal


@dataclass(frozen=True)
class _Linear:
    """The cost around a state: half its gradient, and what its Jacobian is made of."""

    state: State
    cost: float
    gradient: Float64  # (7 + K + E,)
    seen: Projection


@dataclass(frozen=True)
class State:
    """The unknowns of a fit."""

    rotation: Float64
    translation: Float64
    log_focal: float
    log_focal_prior: float
    centre: Float64
    shape: Float64
    rest: Float64  # the shape that the priors hold to

    @classmethod
    def start(cls, mean: Float64, target: Float64, height: int, width: int, modes: int) -> State:
        """A scaled orthographic pose of the mean face (Horn 1987 on two image axes), set at the distance that
        a portrait's focal length gives it.
        """
        centred, seen = mean - mean.mean(0), target - target.mean(0)
        rows = np.linalg.lstsq(centred, seen, rcond=None)[0].T  # (2, 3): scale times two rows of R
        scale = float(np.linalg.norm(rows, axis=1).mean())
        u, _, vt = np.linalg.svd(np.vstack([rows, np.cross(rows[0], rows[1]) / max(scale, 1e-9)]))
        rotation = u @ np.diag([1.0, 1.0, np.linalg.det(u @ vt)]) @ vt
        if not np.isfinite(rotation).all() or scale < 1e-6 or (FLIP @ rotation)[2, 2] < 0:
            raise NoFaceFound("the landmarks are not those of a face seen from the front")
        centre = np.array([width / 2, height / 2])
        focal = 1.3 * max(height, width)
        depth = focal / scale
        ray = (target.mean(0) - centre) / focal * depth
        translation = np.array([ray[0], ray[1], depth]) - rotation @ mean.mean(0)
        rest = np.zeros(modes)
        return cls(rotation, translation, np.log(focal), np.log(focal), centre, rest, rest)

    def moved(self, step: Float64) -> State:
        """Turned by a vector, moved sideways (mm), scaled (log), zoomed at constant scale (log), reshaped.

        Scale is what landmarks tell surely and focal length what they hardly tell; with depth for an unknown
        the two would depend on each other.
        """
        scaled, zoomed = np.clip(step[5:7], -0.5, 0.5)
        depth = self.translation[2] * np.exp(zoomed - scaled)
        return State(
            rotation_of(step[:3]) @ self.rotation,
            np.array([*(self.translation[:2] + step[3:5]), depth]),
            self.log_focal + float(zoomed),
            self.log_focal_prior,
            self.centre,
            self.shape + step[7:],
            self.rest,
        )

    def camera(self) -> Camera:
        return Camera(self.rotation, self.translation, float(np.exp(self.log_focal)), self.centre)


def inverse_factor(normal: Float64, damping: float) -> NDArray[Any]:
    """L⁻¹ of the Cholesky factorisation N = L Lᵀ of the damped normal matrix (its lower triangle)."""
    damped = normal.copy()
    damped[np.diag_indices_from(damped)] *= 1 + damping
    try:
        lower = np.linalg.cholesky(damped)
    except np.linalg.LinAlgError:
        raise NoFaceFound("the landmarks do not say where the head is") from None
    return _inverse_of_lower(lower)


def _inverse_of_lower(lower: NDArray[Any]) -> NDArray[Any]:
    """By halves: the inverse of [[A, 0], [B, C]] is [[A⁻¹, 0], [-C⁻¹ B A⁻¹, C⁻¹]]."""
    half = len(lower) // 2
    if half <= 2 * _BAND:
        return np.linalg.inv(lower)
    inverse = np.zeros_like(lower)
    inverse[:half, :half] = _inverse_of_lower(lower[:half, :half])
    inverse[half:, half:] = _inverse_of_lower(lower[half:, half:])
    inverse[half:, :half] = -(inverse[half:, half:] @ lower[half:, :half]) @ inverse[:half, :half]
    return inverse


def _rim_normals(target: Float64) -> Float64:
    """(478, 2, 2): rows that weigh a residual; on the rim, across it and weakly along it."""
    frames = np.tile(np.eye(2), (len(target), 1, 1))
    rim = np.array(FACE_RIM)
    along = target[np.roll(rim, -1)] - target[np.roll(rim, 1)]
    along /= np.maximum(np.linalg.norm(along, axis=1, keepdims=True), 1e-9)
    frames[rim, 0] = np.stack([-along[:, 1], along[:, 0]], axis=1)
    frames[rim, 1] = along / SIGMA_ALONG_RIM
    return frames


def _matern(a: NDArray[Any], b: NDArray[Any]) -> NDArray[Any]:
    """Matérn 3/2 covariance between points (N, 3) and (M, 3), mm."""
    scaled = (a**2).sum(1)[:, None] + (b**2).sum(1) - 2 * a @ b.T
    np.sqrt(np.maximum(scaled, 0, out=scaled), out=scaled)
    scaled *= 3**0.5 / _WARP_REACH_MM
    kernel: NDArray[Any] = np.exp(-scaled)
    kernel *= 1 + scaled
    return kernel
