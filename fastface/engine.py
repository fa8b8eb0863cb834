"""The thin API: fit a photo once, then render any affect of it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from fastface.affect import Affect, AffectLabels, AffectPath, affect_model
from fastface.errors import BadAffect, BadArgument, BadModelFile, NoFaceFound, ProviderUnavailable
from fastface.face import FittedFace
from fastface.fitting import FaceFitter
from fastface.head_models import open_model
from fastface.images import read_image
from fastface.labels import Labels, Pose
from fastface.landmarks import FaceLandmarks, LandmarkDetector, landmarks68
from fastface.morphable import HeadModel
from fastface.rendering import GROUP, FaceRenderer, ImagePool
from fastface.rig import RigBuilder
from fastface.version import package_version

__all__ = ["Engine", "FittedFace", "Frame"]

Image = NDArray[np.uint8]
Float32 = NDArray[np.float32]

DEVICES: Final = ("cpu", "cuda", "auto")
MAX_COEFFICIENT: Final = 2.0  # beyond it no head model means anything
_LEAST_EYE_PX: Final = 14.0  # outer-eye distance below which there is no face to move
_MOST_YAW_DEG: Final = 50.0
_MOST_PITCH_DEG: Final = 45.0
_MOST_OUTSIDE: Final = 0.12  # share of the landmarks that may lie beyond the photo's border


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame of a stream: ``image (H, W, 3)`` uint8 RGB and its labels."""

    image: Image
    labels: Labels


class Engine:
    """Fits and renders with one head model.

    ``model``: "default", "ict", a path to a head model file or a ``HeadModel``. ``device``: "cpu", "cuda" or
    "auto"; a device that is not there raises ``ProviderUnavailable``. ``threads``: all cores if None.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | HeadModel = "default",
        *,
        device: str = "cpu",
        threads: int | None = None,
    ) -> None:
        if device not in DEVICES:
            raise BadArgument(f"device must be one of {', '.join(DEVICES)}, got {device!r:.40}")
        if device == "cuda":
            raise ProviderUnavailable("device cuda: this build of fastface has no CUDA kernels; use device='cpu'")
        if threads is not None and (not isinstance(threads, int) or not 1 <= threads <= 1024):
            raise BadArgument(f"threads must be 1 … 1024 or None, got {threads!r:.40}")
        self.model = open_model(model)
        self.device = "cpu"
        self.threads = threads or len(os.sched_getaffinity(0))
        self._affects = affect_model(self.model.name)
        self._fitter = FaceFitter(self.model)
        self._rigs = RigBuilder(self._fitter)
        self._detector = LandmarkDetector()
        self._renderers: WeakKeyDictionary[FittedFace, FaceRenderer] = WeakKeyDictionary()

    # ------------------------------------------------------------------------------------------- once a photo

    def fit(self, photo: object) -> FittedFace:
        """The largest face of a photo: a path, bytes, PIL image, numpy array or torch tensor.

        Raises ``BadImage``, or ``NoFaceFound`` when there is no face, or none that can be fitted: smaller
        than about 30 px, cut by the border, turned away by more than 50°.
        """
        rgb = read_image(photo)
        found = self._detector.detect(rgb, max_faces=1)
        if not found:
            raise NoFaceFound(f"wanted a photo with a face, found none in {rgb.shape[1]}x{rgb.shape[0]} px")
        return self._fitted(rgb, found[0])

    def fit_all(self, photo: object, *, max_faces: int = 16) -> list[FittedFace]:
        """Every face that can be fitted, the largest first. Raises ``BadImage``; ``NoFaceFound`` if none."""
        rgb = read_image(photo)
        faces: list[FittedFace] = []
        reason = "found none"
        for found in self._detector.detect(rgb, max_faces=max_faces):
            try:
                faces.append(self._fitted(rgb, found))
            except NoFaceFound as error:
                reason = str(error)
        if not faces:
            raise NoFaceFound(f"wanted a photo with a face that can be fitted: {reason}")
        return faces

    def _fitted(self, rgb: Image, found: FaceLandmarks) -> FittedFace:
        height, width = rgb.shape[:2]
        points = found.points_px
        eye_px = float(np.linalg.norm(points[33] - points[263]))
        if eye_px < _LEAST_EYE_PX:
            raise NoFaceFound(
                f"the face is too small: wanted {_LEAST_EYE_PX:.0f} px between the outer corners of the eyes, "
                f"got {eye_px:.0f}"
            )
        outside = ((points < 0) | (points > [width, height])).any(axis=1).mean()
        if outside > _MOST_OUTSIDE:
            raise NoFaceFound(f"the face is cut by the photo's border: {outside:.0%} of it lies outside")
        fit = self._fitter.fit(points, height, width)
        face = FittedFace(
            photo=rgb.copy() if rgb.base is not None else rgb,
            landmarks_px=points.copy(),
            rotation=fit.camera.rotation,
            translation_mm=fit.camera.translation_mm,
            focal_px=fit.camera.focal_px,
            identity=fit.identity,
            expression=fit.expression,
            fit_residual_px=fit.residual_px,
            model_hash=self.model.digest,
        )
        if abs(face.yaw_deg) > _MOST_YAW_DEG or abs(face.pitch_deg) > _MOST_PITCH_DEG:
            raise NoFaceFound(
                f"the face is turned away: yaw {face.yaw_deg:.0f}°, pitch {face.pitch_deg:.0f}°; at most "
                f"{_MOST_YAW_DEG:.0f}° and {_MOST_PITCH_DEG:.0f}° can be rendered"
            )
        return face

    # ------------------------------------------------------------------------------------------- every frame

    def render(
        self, face: FittedFace, affect: Affect | None = None, *, coefficients: object = None
    ) -> Image:
        """One frame ``(H, W, 3)`` uint8 of the photo's size. ``affect``, or ``coefficients (E,)`` in the order
        of ``model.expression_names``; neutral, or neither, gives the photo exactly.

        Raises ``BadAffect``; ``BadModelFile`` when the face was fitted with another head model.
        """
        one = None if coefficients is None else _rows(coefficients, 1)[None]
        row = self._coefficients(None if affect is None else [affect], one)
        out = np.empty((1, *face.photo.shape), np.uint8)
        self._renderer(face).render(row, out)
        image: Image = out[0]
        return image

    def render_batch(
        self,
        face: FittedFace,
        affects: Sequence[Affect] | AffectPath | None = None,
        *,
        coefficients: object = None,
        out: Image | None = None,
    ) -> Image:
        """Frames ``(B, H, W, 3)`` uint8, into ``out`` if given. ``coefficients`` is then (B, E)."""
        many = None if coefficients is None else _rows(coefficients, 2)
        rows = self._coefficients(affects, many)
        shape = (len(rows), *face.photo.shape)
        if out is None:
            out = np.empty(shape, np.uint8)
        elif out.shape != shape or out.dtype != np.uint8 or not out.flags.c_contiguous:
            raise BadArgument(f"render_batch: out must be {shape} uint8, contiguous, got {out.shape} {out.dtype}")
        self._renderer(face).render(rows, out)
        return out

    def stream(
        self,
        face: FittedFace,
        path: AffectPath | Sequence[Affect] | None = None,
        *,
        coefficients: object = None,
    ) -> Iterator[Frame]:
        """Frames one by one, rendered ahead by another thread while the caller works on the last ones.

        Memory is flat however long the path: an image is used again as soon as nobody refers to it.
        """
        many = None if coefficients is None else _rows(coefficients, 2)
        if path is None and many is None:
            raise BadArgument("stream: wanted a path or coefficients")
        count = len(many) if many is not None else len(path or ())
        renderer = self._renderer(face)
        return self._frames(face, renderer, path, many, count)

    def _frames(
        self,
        face: FittedFace,
        renderer: FaceRenderer,
        path: AffectPath | Sequence[Affect] | None,
        many: Float32 | None,
        count: int,
    ) -> Iterator[Frame]:
        pool = ImagePool((GROUP, *face.photo.shape))

        def made(start: int) -> tuple[Image, list[Labels]]:
            group = slice(start, min(start + GROUP, count))
            part = None if path is None else path[group]
            rows = self._coefficients(part, None if many is None else many[group])
            images = pool.take()
            renderer.render(rows, images[: len(rows)])
            return images, self._labels(face, rows, part)

        with ThreadPoolExecutor(1, thread_name_prefix="fastface-stream") as ahead:
            waiting = ahead.submit(made, 0) if count else None
            for start in range(0, count, GROUP):
                assert waiting is not None
                images, labels = waiting.result()
                waiting = ahead.submit(made, start + GROUP) if start + GROUP < count else None
                for index, label in enumerate(labels):
                    yield Frame(images[index], label)

    def labels(
        self, face: FittedFace, affect: Affect | None = None, coefficients: object = None
    ) -> Labels:
        """The labels of the frame that ``render`` makes of the same arguments."""
        one = None if coefficients is None else _rows(coefficients, 1)[None]
        row = self._coefficients(None if affect is None else [affect], one)
        return self._labels(face, row, None if affect is None else [affect])[0]

    def mask(
        self, face: FittedFace, affect: Affect | None = None, *, coefficients: object = None
    ) -> Image:
        """(H, W) 1 where the frame may differ from the photo; elsewhere it is the photo, bit for bit."""
        one = None if coefficients is None else _rows(coefficients, 1)[None]
        row = self._coefficients(None if affect is None else [affect], one)
        masked: Image = self._renderer(face).mask(row)[0]
        return masked

    # ------------------------------------------------------------------------------------------- within

    def _coefficients(
        self, affects: Sequence[Affect] | AffectPath | None, given: Float32 | None
    ) -> Float32:
        names = self.model.expression_names
        if given is not None:
            if affects is not None:
                raise BadArgument("give an affect or coefficients, not both")
            if given.shape[1] != len(names):
                raise BadAffect(f"coefficients must have {len(names)} columns, one per expression of the head, got {given.shape[1]}")
            if not np.isfinite(given).all() or np.abs(given).max(initial=0.0) > MAX_COEFFICIENT:
                raise BadAffect(f"coefficients must be finite and within ±{MAX_COEFFICIENT:g}")
            return given
        if affects is None:
            return np.zeros((1, len(names)), np.float32)
        if isinstance(affects, AffectPath):
            return self._affects.batch(affects.kind, affects.columns, affects.values, names)
        for affect in affects:
            if not isinstance(affect, Affect):
                raise BadAffect(f"wanted an Affect, got {type(affect).__name__}")
        rows = [self._affects.coefficients(affect, names) for affect in affects]
        return np.stack(rows) if rows else np.zeros((0, len(names)), np.float32)

    def _renderer(self, face: FittedFace) -> FaceRenderer:
        renderer = self._renderers.get(face)
        if renderer is None:
            self._check(face)
            rig = self._rigs.build(face.fit, face.photo, face.landmarks_px)
            names = self.model.expression_names
            renderer = FaceRenderer(rig, face.photo, face.expression, names, self.threads)
            self._renderers[face] = renderer
        return renderer

    def _check(self, face: FittedFace) -> None:
        if not isinstance(face, FittedFace):
            raise BadArgument(f"wanted a FittedFace, from fit or FittedFace.load, got {type(face).__name__}")
        if face.model_hash != self.model.digest:
            raise BadModelFile(
                f"the face was fitted with another head model ({face.model_hash[:12]}…) than this engine's "
                f"{self.model.name} ({self.model.digest[:12]}…)"
            )

    def _labels(
        self, face: FittedFace, rows: Float32, affects: Sequence[Affect] | AffectPath | None
    ) -> list[Labels]:
        moved = self._landmarks(face, self._renderer(face).deltas(rows))
        height, width = face.photo.shape[:2]
        yaw, pitch, roll = face.yaw_deg, face.pitch_deg, face.roll_deg
        x, y, z = (float(t) for t in face.translation_mm)
        pose = Pose(yaw, pitch, roll, (x, y, z), face.focal_px)
        names, version = self.model.expression_names, package_version()
        said = list(affects) if affects is not None else None
        made = []
        for index, row in enumerate(rows):
            shown: AffectLabels = (
                self._affects.labels(said[index]) if said is not None else self._affects.explain(row, names)
            )
            made.append(
                Labels(
                    expression=shown.expression,
                    intensity=shown.intensity,
                    aus=shown.aus,
                    valence=shown.valence,
                    arousal=shown.arousal,
                    coefficients=dict(zip(names, row.tolist(), strict=True)),
                    landmarks68_px=landmarks68(moved[index]),
                    landmarks478_px=moved[index],
                    pose=pose,
                    width_px=width,
                    height_px=height,
                    photo_sha256=face.photo_sha256,
                    model_sha256=face.model_hash,
                    engine_version=version,
                )
            )
        return made

    def _landmarks(self, face: FittedFace, deltas: Float32) -> Float32:
        """(B, 478, 2): the detected landmarks, moved as the model moves."""
        rest, basis = self._fitter.landmark_motion(face.fit)
        flat = deltas @ basis.reshape(len(basis), -1)
        moved = rest + flat.reshape(len(deltas), *rest.shape)
        camera = face.camera
        points: Float32 = face.landmarks_px + camera.project(moved) - camera.project(rest)
        return points.astype(np.float32)


def _rows(coefficients: object, axes: int) -> Float32:
    try:
        rows = np.ascontiguousarray(coefficients, np.float32)
    except (TypeError, ValueError) as error:
        raise BadAffect(f"coefficients must be an array of numbers: {error}") from error
    if rows.ndim != axes:
        raise BadAffect(f"coefficients must have {axes} axes, got shape {rows.shape}")
    return rows
