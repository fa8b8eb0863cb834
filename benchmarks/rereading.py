"""Reading rendered frames back: what the landmark network sees in them, and what that says in coefficients.

Nothing here knows what was asked for. Every frame is read where the photo's face was; a reading is the mean
of two, one of them mirrored (``LandmarkDetector.follow``).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fastface.engine import Engine, FittedFace
from fastface.fitting import FaceFitter
from fastface.landmarks import FaceLandmarks, LandmarkDetector

Array = NDArray[np.float64]

#: Of a coefficient that moves all landmarks by one eye distance: what keeps the refit from explaining noise.
_RIDGE: Final = 0.1
#: Where frames are read: size of the crop, and how far aside, in outer-eye distances.
_CROPS: Final = (
    (1.0, 0, 0),
    (0.96, 0.02, -0.02),
    (1.04, -0.02, 0.02),
    (0.98, -0.03, -0.01),
    (1.02, 0.03, 0.01),
)
_STEP: Final = 0.5  # coefficient by which derivatives are taken


class Reader:
    """Reads frames of one engine's faces; threads may share it."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._fitter, self._detector = FaceFitter(engine.model), LandmarkDetector()

    def read(
        self, face: FittedFace, frames: Iterable[NDArray[Any]], *, again: bool = False
    ) -> list[FaceLandmarks | None]:
        """What is seen in each frame ``(H, W, 3)`` of a face; None where there is no face. ``again``: the
        mean of five readings, four of them from crops a little larger or smaller and aside."""
        middle = face.landmarks_px.mean(axis=0)
        places = [
            middle + scale * (face.landmarks_px - middle) + face.eye_distance_px * np.array([x, y])
            for scale, x, y in (_CROPS if again else _CROPS[:1])
        ]
        return [_mean([self._detector.follow(frame, place) for place in places]) for frame in frames]

    def refit(self, face: FittedFace) -> Refit:
        """How movements of this face's landmarks are read as coefficients."""
        rest, motion = self._fitter.landmark_motion(face.fit)
        place = face.camera.project(rest)
        moved = np.stack([face.camera.project(rest + np.float32(_STEP) * mode) for mode in motion])
        return Refit(((moved - place) / (_STEP * face.eye_distance_px)).reshape(len(motion), -1))


class Refit:
    """Coefficients that explain how landmarks have moved: least squares with a ridge.

    ``movement (E, 956)``: what one of each coefficient does to the 478 landmarks, in outer-eye distances.
    """

    def __init__(self, movement: NDArray[np.floating[Any]]) -> None:
        self._movement = movement.astype(np.float64)
        gram = self._movement @ self._movement.T
        self._inverse = np.linalg.inv(gram + _RIDGE * np.eye(len(gram)))

    def moved(self, coefficients: NDArray[np.floating[Any]]) -> Array:
        """(N, E) → (N, 956), what they are expected to do to the landmarks, in outer-eye distances."""
        return np.asarray(coefficients @ self._movement, np.float64)

    def coefficients(self, moved: Array) -> Array:
        """(N, 956) in outer-eye distances → (N, E)."""
        return np.asarray(moved @ self._movement.T @ self._inverse, np.float64)

    def amount(self, moved: Array, weights: NDArray[np.floating[Any]]) -> Array:
        """(N,) how much of ``weights (E,)`` is in a movement: 1 for just what the model expects of them."""
        pattern = self.coefficients((weights @ self._movement)[None])[0]
        return np.asarray(self.coefficients(moved) @ pattern / (pattern @ pattern), np.float64)


def movements(face: FittedFace, found: list[FaceLandmarks | None]) -> Array:
    """(N, 956) of the landmarks since the first frame, in outer-eye distances; NaN where no face was."""
    nothing = np.full_like(face.landmarks_px, np.nan)
    points = np.stack([nothing if one is None else one.points_px for one in found])
    return np.asarray(((points - points[0]) / face.eye_distance_px).reshape(len(found), -1), np.float64)


def _mean(read: list[FaceLandmarks | None]) -> FaceLandmarks | None:
    seen = [one for one in read if one is not None]
    if len(seen) < len(read):
        return None
    points, depth, scores = (
        np.asarray(np.mean([getattr(one, name) for one in seen], axis=0), np.float32)
        for name in ("points_px", "depth_px", "blendshapes")
    )
    return replace(seen[0], points_px=points, depth_px=depth, blendshapes=scores)
