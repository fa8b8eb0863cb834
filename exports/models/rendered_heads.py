"""Random heads of the head model whose shape, pose and camera are known, rendered like photographs.

They wear portraits, laid over the mesh by their landmarks, or paint.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from fastface.camera import FLIP, Camera, rotation_of
from fastface.fitting import FaceFitter, Fit
from fastface.landmark_tables import POINT_COUNT
from fastface.landmarks import LandmarkDetector
from fastface.morphable import ARKIT_NAMES, HeadModel
from fastface.ops import rasterize
from fastface.painted_face import Light, Painter, View

Image = NDArray[np.uint8]
Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

SIZE_PX: Final = 640
MODES: Final = 40


@dataclass(frozen=True)
class Head:
    """A drawn head and the truth about it."""

    image: Image
    truth: Fit
    vertices: Float32

    @property
    def camera(self) -> Camera:
        return self.truth.camera

    @property
    def eye_px(self) -> float:
        return self.truth.eye_distance_px


@dataclass(frozen=True)
class Skin:
    """A portrait laid over the mesh: where each vertex lies in it, px."""

    photo: Image
    place_px: Float32

    @classmethod
    def of(cls, fitter: FaceFitter, detector: LandmarkDetector, photo: Image) -> Skin:
        points = detector.detect(photo)[0].points_px
        fit = fitter.fit(points, *photo.shape[:2])
        vertices = fitter.model.shaped(fit.identity, fit.expression)
        seen = fit.camera.project(fit.camera.to_camera(vertices.astype(np.float64)))
        return cls(photo, (seen + fitter.residual_warp @ fit.residual_px).astype(np.float32))


@dataclass(frozen=True)
class Shape:
    """Coefficients of a random head: an identity of the population, nearly neutral."""

    identity: Float64
    expression: Float64

    def vertices(self, model: HeadModel) -> Float32:
        return model.shaped(self.identity, self.expression)

    def fit(self, model: HeadModel, camera: Camera) -> Fit:
        """What a fit without error would find."""
        eyes = model.landmarks478.points(self.vertices(model), model.triangles)[[33, 263]].astype(np.float64)
        right, left = camera.project(camera.to_camera(eyes))
        none = np.zeros((POINT_COUNT, 2), np.float32)
        coefficients = self.identity.astype(np.float32), self.expression.astype(np.float32)
        return Fit(camera, *coefficients, none, float(np.linalg.norm(right - left)))


def _posed(rng: np.random.Generator, reach: float) -> tuple[Shape, Camera]:
    shape = Shape(rng.standard_normal(MODES), np.clip(rng.normal(0, 0.04, len(ARKIT_NAMES)), 0, 0.15))
    yaw, pitch, roll = reach * rng.uniform([-22, -12, -10], [22, 12, 10])
    distance = float(rng.uniform(450, 800))
    about = (rotation_of(np.radians(v)) for v in ([0, 0, roll], [pitch, 0, 0], [0, yaw, 0]))
    rotation = FLIP @ np.linalg.multi_dot(list(about))
    aim = np.array([*rng.uniform(-15, 15, 2), distance]) - rotation @ [0.0, -25.0, 0.0]
    focal = SIZE_PX * rng.uniform(1.0, 1.7)  # 53° to 33°: telephones held upright, portrait lenses
    return shape, Camera(rotation, aim, focal, np.full(2, SIZE_PX / 2))


def drawn(model: HeadModel, skin: Skin, rng: np.random.Generator, reach: float = 1.0) -> Head:
    """A random head in that skin, a little darker to one side, slightly blurred, with noise.

    It is turned by up to 22° and nodded by up to 12°, times ``reach``.
    """
    shape, camera = _posed(rng, reach)
    vertices = shape.vertices(model)
    points = camera.to_camera(vertices.astype(np.float64))
    screen = np.concatenate([camera.project(points), points[:, 2:]], axis=1).astype(np.float32)
    raster = rasterize(screen[None], model.triangles, SIZE_PX, SIZE_PX, cull_backfaces=True)
    seen = raster.triangle_id[0] >= 0
    corners = model.triangles[raster.triangle_id[0][seen]]
    bary = raster.bary[0][seen]
    weights = np.concatenate([1 - bary.sum(1, keepdims=True), bary], axis=1) / screen[corners, 2]
    weights /= weights.sum(1, keepdims=True)
    place = np.zeros((SIZE_PX, SIZE_PX, 2), np.float32)
    place[seen] = np.einsum("ncx,nc->nx", skin.place_px[corners], weights) - 0.5
    x, y = np.ascontiguousarray(place.transpose(2, 0, 1))
    rgb = cv2.remap(skin.photo, x, y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)[seen]
    image = np.empty((SIZE_PX, SIZE_PX, 3))
    image[:] = rng.uniform(90, 210, 3)
    side = np.tensordot(vertices[corners].mean(1)[:, :2] / 80, rng.normal(0, 0.12, 2), axes=1)
    image[seen] = rgb * (1 + np.clip(side, -0.35, 0.35))[:, None]
    soft = cv2.GaussianBlur(image, (0, 0), 0.7) + rng.normal(0, 2, image.shape)
    drawing = np.clip(soft, 0, 255).astype(np.uint8)
    return Head(drawing, shape.fit(model, camera), vertices)


def painted(painter: Painter, rng: np.random.Generator, reach: float = 1.0) -> Head:
    """The same head in paint, under a lamp of its own."""
    shape, camera = _posed(rng, reach)
    vertices = shape.vertices(painter.model)
    lamp = np.array([rng.uniform(-0.6, 0.6), -rng.uniform(0.1, 0.6), -1.0])
    light = Light(lamp / np.linalg.norm(lamp), float(rng.uniform(0.4, 0.7)))
    view = View(camera.rotation, camera.translation_mm, camera.focal_px, SIZE_PX)
    picture = painter.paint(vertices, view, light, int(rng.integers(4)), int(rng.integers(3)))
    return Head(picture.rgb, shape.fit(painter.model, camera), vertices)
