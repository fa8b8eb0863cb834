"""The whole cost of the fit: landmarks, both priors, and what the face looks like.

Kollias et al. 2020, equation 4, after Booth et al. 2017: beside the landmarks, measured by what their network
gets wrong (``fastface.landmark_errors``), the features of the photo, sampled where the vertices are seen,
should be a texture that the texture model knows:

    c_t |F(W(p, c)) - mean - U t|²  + c_l |landmarks|²  + c_s |p|²

Texture coefficients are not solved for: the residual is measured in the orthogonal complement of U ("project
out": Matthews & Baker, IJCV 2004, section 4.2). Gauss-Newton over the 7 numbers of the camera and the shape.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from fastface.camera import angles_deg
from fastface.errors import BadArgument
from fastface.features import dense_features, sample
from fastface.fitting import (
    SIGMA_IDENTITY,
    FaceFitter,
    Fit,
    Projection,
    State,
    checked_landmarks,
    inverse_factor,
    lower_gram,
)
from fastface.landmark_errors import DEFAULT_ERRORS, LandmarkErrors, LandmarkTerm, level_frame
from fastface.morphable import HeadModel
from fastface.ops import rasterize
from fastface.painted_face import vertex_normals
from fastface.texture_model import TextureModel

Image = NDArray[np.uint8]
Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

CROP_MM: Final = (200, 240)  # of the face's plane, one millimetre to the pixel: width, height
CROP_MIDDLE_MM: Final = (0.0, -15.0, 40.0)  # what it is centred on
MOST_POINTS: Final = 1400
LEAST_FACING: Final = 0.35  # cosine between a vertex's normal and the ray to the camera
_BEHIND_MM: Final = 4.0  # a vertex this far behind what is drawn there is hidden
#: What a face shows beyond hair and neck, head space mm.
FACE_MM: Final = ((-72.0, 72.0), (-92.0, 55.0), (0.0, 200.0))
STEPS: Final = (2, 3)  # with each matrix: more change nothing
#: Units that make the paper's weights those of the statistics: an error of the landmarks of one standard
#: deviation and an identity of one cost the same. See docs/fitting.md for what other units would give.
_LANDMARK_UNIT: Final = 30**0.5
#: Errors are measured on faces nearly neutral: a whole expression adds so many of their variances.
_EXPRESSIVE: Final = 2.0
_FEATURE_UNIT: Final = 260.0
_COUNTED: Final = 2000  # as so many points a face counts, however many are sampled
_ROBUST: Final = 4.0  # times the median residual: from here on a point counts less
_LEAST_NOISE: Final = 0.4  # of that of the faces which the texture model was made of
_SMALL_EXPRESSION: Final = 0.25  # what landmarks say of weaker ones is as often noise


@dataclass(frozen=True)
class Weights:
    """c_t, c_l and c_s of the cost, the paper's by default. Only their ratios matter to the result.

    The paper gives no units. Here: features over the standard deviation of what the texture model leaves of
    them in this very photo, times ``_FEATURE_UNIT``; landmarks over the covariance of the network's errors
    (``fastface.landmark_errors``), times ``_LANDMARK_UNIT``; shape in standard deviations of identity.
    """

    texture: float = 1.0
    landmarks: float = 1e5
    shape: float = 3e6

    def __post_init__(self) -> None:
        if not (self.shape > 0 and self.landmarks >= 0 and self.texture >= 0):  # false for NaN
            raise BadArgument(f"weights must not be negative, that of the shape positive, got {self}")

    @property
    def texture_share(self) -> float:
        """What multiplies squares of whitened features when identities have a prior of ``SIGMA_IDENTITY``."""
        return self.texture / self.shape * _FEATURE_UNIT**2 / SIGMA_IDENTITY**2

    @property
    def landmark_share(self) -> float:
        """What multiplies the squared errors of landmarks, in units of their covariance, then."""
        return self.landmarks / self.shape * _LANDMARK_UNIT**2 / SIGMA_IDENTITY**2


@dataclass(frozen=True)
class Crop:
    """A photo brought upright, one millimetre a pixel at the face; ``affine (2, 3)``: photo to crop px."""

    features: Float32
    known: NDArray[np.bool_]
    affine: Float64

    @classmethod
    def of(cls, photo: Image, fit: Fit, feature: str, mask: NDArray[np.bool_] | None = None) -> Crop:
        """``mask (H, W)``: True where the photo shows the face and nothing before it."""
        middle = fit.camera.to_camera(np.array(CROP_MIDDLE_MM))
        scale = float(middle[2]) / fit.camera.focal_px
        roll = np.radians(angles_deg(fit.camera.rotation)[2])
        turn = np.array([[np.cos(roll), np.sin(roll)], [-np.sin(roll), np.cos(roll)]]) * scale
        affine = np.column_stack([turn, np.array(CROP_MM) / 2 - turn @ fit.camera.project(middle)])
        image = warped(photo, affine, cv2.BORDER_REPLICATE)
        seen = (
            np.full(photo.shape[:2], 255, np.uint8)
            if mask is None
            else np.where(mask, 255, 0).astype(np.uint8)
        )
        known = warped(seen, affine, cv2.BORDER_CONSTANT) > 250
        return cls(dense_features(image, feature), known, affine)


def warped(image: Image, affine: Float64, border: int) -> Image:
    """``image`` seen through ``affine``, averaged over what becomes one pixel."""
    shrink = float(np.sqrt(np.abs(np.linalg.det(affine[:, :2]))))
    if shrink < 0.7:
        softened = cv2.GaussianBlur(image, (0, 0), 0.45 * np.sqrt(1 / shrink**2 - 1))
        image = np.asarray(softened, np.uint8)
    half = affine.copy()  # OpenCV counts from the middle of a pixel
    half[:, 2] += affine[:, :2] @ [0.5, 0.5] - 0.5
    return np.asarray(
        cv2.warpAffine(image, half, CROP_MM, flags=cv2.INTER_LINEAR, borderMode=border), np.uint8
    )


def face_vertices(model: HeadModel) -> NDArray[np.int64]:
    """Vertices of the face's outer skin."""
    outer = np.unique(model.triangles[model.material_triangles("skin", "lips", "eyelids")])
    bounds = np.array(FACE_MM)
    place = model.vertices[outer]
    return np.asarray(outer[((place > bounds[:, 0]) & (place < bounds[:, 1])).all(axis=1)], np.int64)


def spread_out(model: HeadModel, among: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """About ``count`` of these vertices, even over the surface: one to a cell of a grid."""
    place = model.vertices[among]
    low, high = 0.5, 20.0
    best = among
    for _ in range(20):
        cell = (low + high) / 2
        _, first = np.unique(np.floor(place / cell).astype(np.int64), axis=0, return_index=True)
        if len(first) > count:
            low = cell
        else:
            high, best = cell, among[np.sort(first)]
    return best


def visible(
    model: HeadModel, vertices: Float32, fit: Fit, crop: Crop, chosen: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """(N,) whether each of the ``chosen`` vertices faces the camera and nothing of the head hides it."""
    posed = fit.camera.to_camera(vertices.astype(np.float64))
    normals = vertex_normals(vertices, model.triangles)[chosen] @ fit.camera.rotation.T
    rays = posed[chosen] / np.linalg.norm(posed[chosen], axis=1, keepdims=True)
    facing = -(normals * rays).sum(axis=1) > LEAST_FACING
    pixels = fit.camera.project(posed) @ crop.affine[:, :2].T + crop.affine[:, 2]
    screen = np.concatenate([pixels, posed[:, 2:]], axis=1).astype(np.float32)
    width, height = CROP_MM
    raster = rasterize(screen[None], model.triangles, height, width, cull_backfaces=True)
    column, row = np.floor(pixels[chosen]).astype(np.int64).T
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    face = raster.triangle_id[0][np.where(inside, row, 0), np.where(inside, column, 0)]
    nearest = posed[model.triangles[face], 2].max(axis=1)
    known = crop.known[np.where(inside, row, 0), np.where(inside, column, 0)]
    return np.asarray(
        facing & inside & known & (posed[chosen, 2] < nearest + _BEHIND_MM) & (face >= 0), np.bool_
    )


@dataclass(frozen=True)
class _Scene:
    """A photo and the N points of the head that it shows."""

    crop: Crop
    mean: Float64  # (N, 3)
    basis: Float32  # (K + E, N, 3)
    axes: Float32  # (3, K + E, N)
    texture: Float32  # (N, C)
    components: Float32  # (k, N, C)
    weight: Float32  # (N,) inverse standard deviations

    def points(self, shape: Float64) -> Float64:
        flat = shape.astype(np.float32) @ self.basis.reshape(len(self.basis), -1)
        points: Float64 = self.mean + flat.reshape(-1, 3)
        return points


@dataclass(frozen=True)
class _Term:
    """The texture term while one matrix serves: weights of the points, and what is projected out."""

    scene: _Scene
    weight: Float32  # (N,)
    out: Float32  # (N · C, k) orthonormal

    @classmethod
    def of(cls, scene: _Scene, weight: Float32) -> _Term:
        basis = (scene.components * weight[:, None]).reshape(len(scene.components), -1).astype(np.float64)
        size, turn = np.linalg.eigh(basis @ basis.T)
        kept = size > 1e-9 * max(float(size.max(initial=0)), 1e-9)
        return cls(scene, weight, (basis.T @ (turn[:, kept] / np.sqrt(size[kept]))).astype(np.float32))

    def left(self, residual: Float32) -> Float32:
        """What no texture of the model explains of ``residual (N, C)``."""
        flat = residual.ravel()
        left: Float32 = (flat - self.out @ (self.out.T @ flat)).reshape(residual.shape)
        return left

    def look(self, state: State) -> _Look:
        affine = self.scene.crop.affine
        projection = Projection.of(self.scene.points(state.shape), state, affine[:, :2])
        sampled = sample(self.scene.crop.features, projection.pixel @ affine[:, :2].T + affine[:, 2])
        weight = self.weight * sampled.inside
        residual = weight[:, None] * (sampled.values - self.scene.texture)
        slopes = sampled.slopes * weight[:, None, None]
        left = self.left(residual)
        rows = np.einsum("nc,ncd->nd", left, slopes).astype(np.float64)
        cost = float((left.astype(np.float64) ** 2).sum())
        return _Look(cost, projection.gradient(rows, self.scene.basis), projection, residual, slopes)

    def normal(self, look: _Look) -> Float64:
        """The lower triangle of JᵀPJ. Of JᵀJ the features' part is a 2 × 2 matrix a point, whose Cholesky
        factor weighs the rows; P takes a few directions away from it."""
        rows = look.projection.jacobian(self.scene.axes)
        tensor = np.einsum("nci,ncj->nij", look.slopes, look.slopes)
        a = np.sqrt(tensor[:, 0, 0] + 1e-9)
        b = tensor[:, 0, 1] / a
        d = np.sqrt(np.maximum(tensor[:, 1, 1] - b * b, 0))
        out = self.out.reshape(*look.residual.shape, self.out.shape[1])
        taken = np.einsum("nck,ncd->kdn", out, look.slopes, optimize=True)
        taken = taken.reshape(out.shape[2], 2 * len(out))
        inner = np.einsum("ur,kr->uk", rows, taken)  # too little to wake BLAS's threads for
        pairs = rows.reshape(len(rows), 2, -1)
        pairs[:, 0] *= a
        pairs[:, 0] += b * pairs[:, 1]
        pairs[:, 1] *= d
        normal: Float64 = lower_gram(rows) - np.tril(inner @ inner.T)
        return normal


@dataclass(frozen=True)
class _Look:
    """The texture term around a state: half its gradient."""

    cost: float
    gradient: Float64
    projection: Projection
    residual: Float32  # (N, C) not projected, weighed
    slopes: Float32  # (N, C, 2) weighed


class _Held(NamedTuple):
    """The priors around a state: half their gradient, and their part of the matrix's diagonal."""

    cost: float
    gradient: Float64
    stiffness: Float64


class TextureFitter:
    """Refines fits by a texture model; made once, used for every photo.

    ``errors``: what the landmark network gets wrong; None takes the file that ships. Raises ``BadModelFile``
    when ``texture`` belongs to another head model.
    """

    def __init__(
        self,
        fitter: FaceFitter,
        texture: TextureModel,
        weights: Weights | None = None,
        errors: LandmarkErrors | None = None,
    ) -> None:
        texture.check(fitter.model)
        self.fitter, self.texture = fitter, texture
        self.weights = weights or Weights()
        self.errors = errors or LandmarkErrors.load(DEFAULT_ERRORS)
        self._landmarks = fitter._mean, fitter._basis, fitter._axes
        model = fitter.model
        known = np.intersect1d(face_vertices(model), np.flatnonzero(texture.precision > 0))
        self.points = spread_out(model, known, MOST_POINTS)
        self._mean = model.vertices[self.points].astype(np.float64)
        #: (K + E, V, 3) in single precision: to convert it for every photo would take half of a fit.
        self._whole = np.concatenate([model.identity[: fitter._modes], model.expression]).astype(np.float32)
        self._basis = self._whole[:, self.points]
        self._texture_mean = texture.mean[self.points]
        self._components = texture.components[:, self.points].astype(np.float32)
        share = self.weights.texture_share * _COUNTED / max(len(self.points), 1)
        self._whitening = np.sqrt(texture.precision[self.points] * np.float32(share))
        #: Length of a point's residual in a face that the model knows as well as those it was made of.
        self._usual = max(float(np.sqrt(share * texture.mean.shape[1])), 1e-9)

    def fit(
        self,
        photo: Image,
        landmarks_px: Float32,
        start: Fit | None = None,
        mask: NDArray[np.bool_] | None = None,
    ) -> Fit:
        """Fit ``photo (H, W, 3)`` with its landmarks (478, 2), beginning at ``start``: the fit to the
        landmarks alone if None.

        ``mask (H, W)`` bool: True where nothing lies before the face. A strong expression is held to that
        of ``start``, which the landmarks tell surely. Raises ``NoFaceFound`` like ``FaceFitter.fit``,
        ``BadArgument`` for a mask that is none.
        """
        height, width = photo.shape[:2]
        if mask is not None and (mask.shape != (height, width) or mask.dtype != np.bool_):
            raise BadArgument(f"mask must be ({height}, {width}) bool, got {mask.shape} {mask.dtype}")
        target = checked_landmarks(landmarks_px, height, width)
        first = start or self.fitter.fit(landmarks_px, height, width)
        scene = self._scene(photo, first, mask)
        state = _started(first, float(np.log(1.3 * max(height, width))))
        share = self.weights.landmark_share / (1 + _EXPRESSIVE * float(state.rest @ state.rest) ** 2)
        marks = LandmarkTerm.of(self.errors, share, self._landmarks, target)
        for steps in STEPS:
            state = self._improve(marks, state, scene, steps)
        fit = self._fit_of(state, target)
        self.fitter.check(fit, landmarks_px)
        return fit

    def _fit_of(self, state: State, target: Float64) -> Fit:
        identity, expression = np.split(state.shape.astype(np.float32), [self.fitter._modes])
        camera = state.camera()
        seen = camera.project(self.fitter._posed(camera, state.shape))
        return Fit(camera, identity, expression, (target - seen).astype(np.float32), level_frame(target)[1])

    def _scene(self, photo: Image, fit: Fit, mask: NDArray[np.bool_] | None) -> _Scene:
        crop = Crop.of(photo, fit, self.texture.feature, mask)
        flat = np.concatenate([fit.identity, fit.expression]) @ self._whole.reshape(len(self._whole), -1)
        vertices = self.fitter.model.vertices + flat.reshape(-1, 3)
        seen = np.flatnonzero(visible(self.fitter.model, vertices, fit, crop, self.points))
        basis = np.ascontiguousarray(self._basis[:, seen])
        return _Scene(
            crop,
            self._mean[seen],
            basis,
            np.ascontiguousarray(basis.transpose(2, 0, 1)),
            self._texture_mean[seen],
            self._components[:, seen],
            self._whitening[seen],
        )

    def _improve(self, marks: LandmarkTerm, state: State, scene: _Scene, steps: int) -> State:
        term = self._robust(scene, state)
        held, seen, look = here = self._held(state), marks.look(state), term.look(state)
        normal = np.diag(held.stiffness) + marks.normal(seen) + term.normal(look)
        factor = inverse_factor(normal, 1e-6)
        for _ in range(steps):
            moved = state.moved(-(factor.T @ (factor @ sum(part.gradient for part in here))))
            there = self._held(moved), marks.look(moved), term.look(moved)
            if not sum(part.cost for part in there) < sum(part.cost for part in here):
                break
            state, here = moved, there
        return state

    def _held(self, state: State) -> _Held:
        """The priors: those of the landmark fit."""
        prior, focal = self.fitter._prior, state.log_focal - state.log_focal_prior
        offset = np.concatenate([np.zeros(6), [focal], state.shape - state.rest])
        extreme = self.fitter._bound * offset**2
        cost = float((prior + extreme) @ offset**2)
        return _Held(cost, (prior + 2 * extreme) * offset, prior + 6 * extreme + 1e-9)

    def _robust(self, scene: _Scene, state: State) -> _Term:
        """Weighed by how well the model knows this face at all, and where it does: what no texture explains,
        a hand or a strand of hair, counts less (Geman & McClure 1987)."""
        term = _Term.of(scene, scene.weight)
        off = np.linalg.norm(term.left(term.look(state).residual), axis=1)
        usual = max(float(np.median(off)), 1e-9)
        noise = max(usual / self._usual, _LEAST_NOISE)
        return _Term.of(
            scene, np.asarray(scene.weight / (noise * (1 + (off / (_ROBUST * usual)) ** 2)), np.float32)
        )


def _started(fit: Fit, log_focal_prior: float) -> State:
    """Where Gauss-Newton begins. Expressions are held to those of the fit, small ones to none."""
    camera, expression = fit.camera, fit.expression.astype(np.float64)
    shape = np.concatenate([fit.identity, expression])
    sure = expression**4 / (expression**4 + _SMALL_EXPRESSION**4)
    rest = np.concatenate([np.zeros(len(fit.identity)), sure * expression])
    focal = float(np.log(camera.focal_px))
    return State(
        camera.rotation, camera.translation_mm, focal, log_focal_prior, camera.centre_px, shape, rest
    )


def observed(fitter: FaceFitter, photo: Image, fit: Fit, feature: str) -> tuple[Float32, NDArray[np.bool_]]:
    """Features (V, C) at the vertices of a fitted head, and which vertices the photo shows (V,).

    The head follows its landmarks to the last pixel (``FaceFitter.residual_warp``), as the texture should.
    """
    model = fitter.model
    vertices = model.shaped(fit.identity, fit.expression)
    crop = Crop.of(photo, fit, feature)
    every = np.arange(len(vertices))
    seen = visible(model, vertices, fit, crop, every)
    place = fit.camera.project(fit.camera.to_camera(vertices.astype(np.float64)))
    place = place + fitter.residual_warp @ fit.residual_px
    sampled = sample(crop.features, place @ crop.affine[:, :2].T + crop.affine[:, 2])
    return sampled.values, np.asarray(seen & sampled.inside, np.bool_)
