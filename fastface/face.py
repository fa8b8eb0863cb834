"""A fitted face: the small, immutable result of looking at a photo once, and its file."""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fastface.atomic import whole_file
from fastface.camera import Camera, angles_deg
from fastface.errors import BadModelFile, NoFaceFound
from fastface.fitting import Fit
from fastface.morphable import SAYS, ArraySpec, read_format

Float32 = NDArray[np.float32]

FORMAT: Final = "fastface-face"
VERSION: Final = 1
MAX_SIDE: Final = 32767
_ARRAYS: Final = {
    **SAYS,
    "model_hash": ArraySpec("U", 0, "HeadModel.digest of the head it was fitted with"),
    "photo": ArraySpec("|u1", 3, "(H, W, 3) RGB"),
    "landmarks_px": ArraySpec("<f4", 2, "(478, 2)"),
    "rotation": ArraySpec("<f8", 2, "(3, 3) head to camera"),
    "translation_mm": ArraySpec("<f8", 1, "(3,)"),
    "focal_px": ArraySpec("<f8", 0, "focal length"),
    "identity": ArraySpec("<f4", 1, "(K,) standard deviations"),
    "expression": ArraySpec("<f4", 1, "(E,) what the photo itself shows"),
    "fit_residual_px": ArraySpec("<f4", 2, "(478, 2) landmark minus model"),
}
_SHAPES: Final = {
    "landmarks_px": (478, 2),
    "rotation": (3, 3),
    "translation_mm": (3,),
    "fit_residual_px": (478, 2),
}
#: Largest magnitudes that a fit of a real photo comes nowhere near.
_LIMITS: Final = {
    "landmarks_px": 1e6,
    "rotation": 1.01,
    "translation_mm": 1e6,
    "focal_px": 1e7,
    "identity": 30.0,
    "expression": 5.0,
    "fit_residual_px": 1e5,
}
LEAST_EYE_PX: Final = 14.0  # outer-eye distance below which there is no face to move
MOST_YAW_DEG: Final = 50.0
MOST_PITCH_DEG: Final = 45.0
MOST_OUTSIDE: Final = 0.12  # share of the landmarks that may lie beyond the photo's border


@dataclass(frozen=True, eq=False)
class FittedFace:
    """One face of one photo, fitted with one head model. Axes and units: CONVENTIONS.md.

    ``photo (H, W, 3)`` uint8 RGB; ``landmarks_px (478, 2)`` as detected; ``rotation (3, 3)``,
    ``translation_mm (3,)``, ``focal_px``: pose and camera; ``identity (K,)`` in standard deviations;
    ``expression (E,)`` what the photo shows already, near 0 for a neutral one; ``fit_residual_px (478, 2)``
    what the model leaves of each landmark; ``model_hash``: ``HeadModel.digest``.
    """

    photo: NDArray[np.uint8]
    landmarks_px: Float32
    rotation: NDArray[np.float64]
    translation_mm: NDArray[np.float64]
    focal_px: float
    identity: Float32
    expression: Float32
    fit_residual_px: Float32
    model_hash: str

    def __post_init__(self) -> None:
        for value in vars(self).values():
            if isinstance(value, np.ndarray):
                value.flags.writeable = False

    @property
    def camera(self) -> Camera:
        height, width = self.photo.shape[:2]
        return Camera(self.rotation, self.translation_mm, self.focal_px, np.array([width / 2, height / 2]))

    @property
    def fit(self) -> Fit:
        return Fit(self.camera, self.identity, self.expression, self.fit_residual_px, self.eye_distance_px)

    @property
    def eye_distance_px(self) -> float:
        """Between the outer corners of the eyes."""
        return float(np.linalg.norm(self.landmarks_px[33] - self.landmarks_px[263]))

    @property
    def fit_error_unwarped_px(self) -> Float32:
        """(478,) distance of each landmark from the fitted model, before the residual is carried over."""
        error: Float32 = np.linalg.norm(self.fit_residual_px, axis=1)
        return error

    @property
    def yaw_deg(self) -> float:
        """Turn of the head, positive to the subject's left."""
        return angles_deg(self.rotation)[0]

    @property
    def pitch_deg(self) -> float:
        """Positive up."""
        return angles_deg(self.rotation)[1]

    @property
    def roll_deg(self) -> float:
        """Tilt, positive to the subject's left shoulder."""
        return angles_deg(self.rotation)[2]

    @cached_property
    def photo_sha256(self) -> str:
        """SHA-256 (hex) of the photo's shape and RGB pixels, the name of the photo in labels."""
        state = hashlib.sha256(repr(self.photo.shape).encode())
        state.update(np.ascontiguousarray(self.photo).tobytes())
        return state.hexdigest()

    def check(self) -> None:
        """Raise ``NoFaceFound`` unless the face can be rendered: large enough, in the photo, facing us."""
        if not self.eye_distance_px >= LEAST_EYE_PX:
            raise NoFaceFound(
                f"the face is too small: wanted {LEAST_EYE_PX:.0f} px between the outer corners of the eyes, "
                f"got {self.eye_distance_px:.0f}"
            )
        height, width = self.photo.shape[:2]
        outside = ((self.landmarks_px < 0) | (self.landmarks_px > [width, height])).any(axis=1).mean()
        if outside > MOST_OUTSIDE:
            raise NoFaceFound(
                f"the face is cut by the photo's border: {outside:.0%} of its landmarks lie outside, "
                f"at most {MOST_OUTSIDE:.0%} may"
            )
        if abs(self.yaw_deg) > MOST_YAW_DEG or abs(self.pitch_deg) > MOST_PITCH_DEG:
            raise NoFaceFound(
                f"the face is turned away: yaw {self.yaw_deg:.0f}°, pitch {self.pitch_deg:.0f}°; at most "
                f"{MOST_YAW_DEG:.0f}° and {MOST_PITCH_DEG:.0f}° can be rendered"
            )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a ``.npz`` that ``load`` reads, whole or not at all. Raises ``WriteFailed``."""
        fields: dict[str, Any] = {**vars(self), "format": FORMAT, "version": VERSION}
        arrays: dict[str, Any] = {
            name: np.array(fields[name], dtype=None if spec.dtype == "U" else spec.dtype, order="C")
            for name, spec in _ARRAYS.items()
        }
        with whole_file(Path(path)) as temporary, temporary.open("wb") as stream:
            np.savez_compressed(stream, **arrays)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> FittedFace:
        """Read and check a saved face. Raises ``BadModelFile``."""
        arrays = read_format(path, FORMAT, VERSION, _ARRAYS)
        label = os.fspath(path)
        try:
            face = cls._of(arrays)
            face.check()
        except (BadModelFile, NoFaceFound) as error:
            raise BadModelFile(f"{label}: {error}") from None
        return face

    @classmethod
    def _of(cls, arrays: dict[str, NDArray[Any]]) -> FittedFace:
        for name, shape in _SHAPES.items():
            if arrays[name].shape != shape:
                raise BadModelFile(f"{name} must be {shape}, got {arrays[name].shape}")
        photo = arrays["photo"]
        if photo.shape[2] != 3 or not 1 <= min(photo.shape[:2]) <= max(photo.shape[:2]) <= MAX_SIDE:
            raise BadModelFile(f"photo must be (H, W, 3) of 1 to {MAX_SIDE} px a side, got {photo.shape}")
        for name, limit in _LIMITS.items():
            if not (np.abs(arrays[name]) <= limit).all():  # false for NaN
                raise BadModelFile(f"{name} must be finite and within ±{limit:g}")
        turn, focal = arrays["rotation"], float(arrays["focal_px"])
        if not (np.allclose(turn @ turn.T, np.eye(3), atol=1e-3) and np.linalg.det(turn) > 0):
            raise BadModelFile("rotation must be a rotation")
        if focal < 1 or arrays["translation_mm"][2] < 1:
            raise BadModelFile("focal_px and the head's distance must be at least 1")
        name = str(arrays["model_hash"][()])
        if not re.fullmatch("[0-9a-f]{64}", name):
            raise BadModelFile(f"model_hash must be 64 hexadecimal digits, got {name[:80]!r}")
        return cls(
            photo=photo,
            landmarks_px=arrays["landmarks_px"],
            rotation=turn,
            translation_mm=arrays["translation_mm"],
            focal_px=focal,
            identity=arrays["identity"],
            expression=arrays["expression"],
            fit_residual_px=arrays["fit_residual_px"],
            model_hash=name,
        )
