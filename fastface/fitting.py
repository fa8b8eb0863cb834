"""From 478 landmarks to pose, camera, identity and expression: damped Gauss-Newton on the landmarks.

The cost is that of Kollias et al. 2020, equation 4, without its texture term:

    sum_l w_l |project(R (mean_l + identity · a + expression · b) + t) - landmark_l|² / sigma²
    + |a|² / sigma_a² + |b|² / sigma_b² + (log f - log f_0)² / sigma_f²

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

from fastface.camera import FLIP, Camera, cross_matrix, rotation_of
from fastface.errors import NoFaceFound
from fastface.morphable import HeadModel

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

MODES: Final = 60  # identity modes in use; further ones fit noise of the landmarks
SIGMA_IDENTITY: Final = 1.5
SIGMA_EXPRESSION: Final = 0.12
SIGMA_LANDMARK: Final = 0.5  # per cent of the outer-eye distance
SIGMA_LOG_FOCAL: Final = 0.4
SIGMA_ALONG_RIM: Final = 3.0  # times that across it
ITERATIONS: Final = 9
OUTER_EYE_CORNERS: Final = (33, 263)
#: The rim of the face in MediaPipe's numbering, in order, from the forehead over the subject's left cheek.
FACE_RIM: Final = (
    *(10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377),
    *(152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109),
)
_WARP_REACH_MM: Final = 14.0
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
        self._corners = model.triangles[marks.triangle]
        self._bary = marks.bary.astype(np.float64)
        self._mean = self._at_landmarks(model.vertices)
        self._modes = min(MODES, len(model.identity))
        used = [self._at_landmarks(mode) for mode in (*model.identity[: self._modes], *model.expression)]
        self._basis = np.stack(used)  # (K + E, 478, 3)
        self._sigma = np.concatenate(
            [np.full(self._modes, SIGMA_IDENTITY), np.full(len(model.expression), SIGMA_EXPRESSION)]
        )
        self._mean.flags.writeable = False

    def _at_landmarks(self, field: NDArray[Any]) -> Float64:
        picked: Float64 = np.einsum("lcx,lc->lx", field[self._corners].astype(np.float64), self._bary)
        return picked

    def fit(self, landmarks_px: Float32, height: int, width: int) -> Fit:
        """``landmarks_px (478, 2)`` of a photo of ``height × width`` px. Raises ``NoFaceFound`` when they are
        not the landmarks of a face that a camera can see.
        """
        target = landmarks_px.astype(np.float64)
        eye_px = float(np.linalg.norm(target[OUTER_EYE_CORNERS[0]] - target[OUTER_EYE_CORNERS[1]]))
        if not np.isfinite(target).all() or eye_px < 4.0:
            raise NoFaceFound(f"wanted a face with at least 4 px between the eyes, got {eye_px:.1f}")
        state = _State.start(self._mean, target, height, width, len(self._basis))
        weight = np.full(len(target), 100.0 / (SIGMA_LANDMARK * eye_px))
        across = _rim_normals(target)
        cost, system = self._linearise(state, target, weight, across)
        damping = 1e-4
        for _ in range(ITERATIONS):
            step = np.linalg.solve(system[0] + damping * np.diag(np.diag(system[0])), -system[1])
            tried = state.moved(step)
            tried_cost, tried_system = self._linearise(tried, target, weight, across)
            if tried_cost < cost:
                done = cost - tried_cost < 1e-4 * cost
                state, cost, system, damping = tried, tried_cost, tried_system, damping * 0.1
                if done:
                    break
            else:
                damping *= 30.0
        camera = state.camera()
        posed = camera.to_camera(self._mean + np.tensordot(state.shape, self._basis, axes=1))
        if not (np.isfinite(posed).all() and (posed[:, 2] > 10.0).all()):
            raise NoFaceFound("the landmarks fit no head before the camera")
        residual = target - camera.project(posed)
        return Fit(
            camera,
            state.shape[: self._modes].astype(np.float32),
            state.shape[self._modes :].astype(np.float32),
            residual.astype(np.float32),
            eye_px,
        )

    def _linearise(
        self, state: _State, target: Float64, weight: Float64, across: Float64
    ) -> tuple[float, tuple[Float64, Float64]]:
        """The cost and the normal equations (JᵀJ, Jᵀr) at ``state``."""
        rotation = state.rotation
        turned = (self._mean + np.tensordot(state.shape, self._basis, axes=1)) @ rotation.T
        seen = turned + state.translation
        focal = np.exp(state.log_focal)
        inverse_z = 1.0 / np.maximum(seen[:, 2], 1.0)
        ray = seen[:, :2] * inverse_z[:, None]
        residual = focal * ray + state.centre - target
        # d(pixel)/d(camera point): two rows of the pinhole's derivative.
        pinhole = np.zeros((len(target), 2, 3))
        pinhole[:, 0, 0] = pinhole[:, 1, 1] = focal * inverse_z
        pinhole[:, :, 2] = -focal * ray * inverse_z[:, None]
        jacobian = np.empty((len(target), 2, 7 + len(self._basis)))
        jacobian[:, :, :3] = -pinhole @ _cross_matrices(turned)
        jacobian[:, :, 3:6] = pinhole
        jacobian[:, :, 6] = focal * ray
        jacobian[:, :, 7:] = (pinhole @ rotation) @ self._basis.transpose(1, 2, 0)
        residual = (across @ residual[:, :, None])[:, :, 0] * weight[:, None]
        jacobian = (across @ jacobian) * weight[:, None, None]
        flat, r = jacobian.reshape(-1, jacobian.shape[2]), residual.ravel()
        normal, gradient = flat.T @ flat, flat.T @ r
        prior = np.concatenate([np.zeros(6), [1 / SIGMA_LOG_FOCAL**2], 1 / self._sigma**2])
        offset = np.concatenate([np.zeros(6), [state.log_focal - state.log_focal_prior], state.shape])
        normal[np.diag_indices_from(normal)] += prior + 1e-9
        cost = float(r @ r + prior @ offset**2)
        return cost, (normal, gradient + prior * offset)

    def landmark_motion(self, fit: Fit) -> tuple[Float32, Float32]:
        """Landmarks (478, 3) of a fit in camera space and what each expression adds to them (E, 478, 3)."""
        shape = np.concatenate([fit.identity, fit.expression]).astype(np.float64)
        head = self._mean + np.tensordot(shape, self._basis, axes=1)
        turned = self._basis[self._modes :] @ fit.camera.rotation.T
        return fit.camera.to_camera(head).astype(np.float32), turned.astype(np.float32)

    @cached_property
    def residual_warp(self) -> Float32:
        """(V, 478): what a unit residual at each landmark moves each vertex by.

        Gaussian-process interpolation with a Matérn 3/2 kernel on the mean head: smooth, and zero far from
        any landmark. Teeth and tongue do not follow the lips.
        """
        marks = self._mean
        inner = _matern(marks, marks)
        inner[np.diag_indices_from(inner)] += _WARP_NOISE
        reach = _matern(self.model.vertices.astype(np.float64), marks)
        warp: Float32 = np.linalg.solve(inner, reach.T).T.astype(np.float32)
        still = np.unique(self.model.triangles[self.model.material_triangles(*_STILL)])
        moving = np.unique(self.model.triangles[self.model.material_triangles("skin", "lips", "eyelids")])
        warp[np.setdiff1d(still, moving)] = 0.0
        return warp


@dataclass(frozen=True)
class _State:
    """The unknowns of a fit."""

    rotation: Float64
    translation: Float64
    log_focal: float
    log_focal_prior: float
    centre: Float64
    shape: Float64

    @classmethod
    def start(cls, mean: Float64, target: Float64, height: int, width: int, modes: int) -> _State:
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
        return cls(rotation, translation, np.log(focal), np.log(focal), centre, np.zeros(modes))

    def moved(self, step: Float64) -> _State:
        return _State(
            rotation_of(step[:3]) @ self.rotation,
            self.translation + step[3:6],
            self.log_focal + float(np.clip(step[6], -0.5, 0.5)),
            self.log_focal_prior,
            self.centre,
            self.shape + step[7:],
        )

    def camera(self) -> Camera:
        return Camera(self.rotation, self.translation, float(np.exp(self.log_focal)), self.centre)


def _cross_matrices(points: Float64) -> Float64:
    """(N, 3) → (N, 3, 3), ``cross_matrix`` of each."""
    basis = np.stack([cross_matrix(axis) for axis in np.eye(3)])
    matrices: Float64 = np.tensordot(points, basis, axes=1)
    return matrices


def _rim_normals(target: Float64) -> Float64:
    """(478, 2, 2): rows that weigh a residual; on the rim, across it and weakly along it."""
    frames = np.tile(np.eye(2), (len(target), 1, 1))
    rim = np.array(FACE_RIM)
    along = target[np.roll(rim, -1)] - target[np.roll(rim, 1)]
    along /= np.maximum(np.linalg.norm(along, axis=1, keepdims=True), 1e-9)
    frames[rim, 0] = np.stack([-along[:, 1], along[:, 0]], axis=1)
    frames[rim, 1] = along / SIGMA_ALONG_RIM
    return frames


def _matern(a: Float64, b: Float64) -> Float64:
    """Matérn 3/2 covariance between points (N, 3) and (M, 3), mm."""
    squared = (a**2).sum(1)[:, None] + (b**2).sum(1)[None] - 2 * a @ b.T
    scaled = np.sqrt(np.maximum(squared, 0.0)) * (3**0.5 / _WARP_REACH_MM)
    kernel: Float64 = (1 + scaled) * np.exp(-scaled)
    return kernel
