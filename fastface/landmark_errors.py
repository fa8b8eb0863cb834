"""What the landmark network gets wrong: where it puts its points on heads of known shape and pose.

Faces turned or nodded are read as less so, all points in concert: a bias that the direction in which the face
looks foretells, and errors of a covariance that is anything but diagonal. ``LandmarkTerm`` measures landmarks
by them:

    |landmarks - projection - bias(direction)|²  in units of that covariance.

Errors are in per cent of the distance between the outer corners of the eyes, in a frame turned so that these
lie level: x from the subject's right eye to the left one, y down.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fastface.atomic import whole_file
from fastface.camera import cross_matrix
from fastface.errors import BadModelFile
from fastface.fitting import OUTER_EYE_CORNERS, Projection, State, lower_gram
from fastface.landmark_tables import POINT_COUNT
from fastface.morphable import MAX_TEXT, SAYS, ArraySpec, read_format, write_archive

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

FORMAT: Final = "fastface-landmark-errors"
VERSION: Final = 1
DEFAULT_ERRORS: Final = Path(__file__).parent / "assets" / "landmark_errors.npz"
TERMS: Final = 6  # 1, x, y, x², x y, y² of the facing direction
MOST_MODES: Final = 200
_LARGEST: Final = 100.0  # per cent
_LEAST_REST: Final = 1e-2

ARRAYS: Final = {
    **SAYS,
    "source": ArraySpec("U", 0, "what it was measured on"),
    "license": ArraySpec("U", 0, "SPDX identifier or a sentence"),
    "bias": ArraySpec("<f2", 3, "(6, 478, 2) times 1, x, y, x², x y, y² of the facing direction"),
    "modes": ArraySpec("<f2", 3, "(K, 478, 2) errors in concert, one standard deviation each"),
    "rest": ArraySpec("<f2", 2, "(478, 2) standard deviation of what the modes leave"),
}


def terms(direction: Float64) -> Float64:
    """(..., 6) what the bias is linear in, for ``direction (..., 2)``: the first two entries of the unit
    vector along which the face looks, in the level frame."""
    x, y = direction[..., 0], direction[..., 1]
    return np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], axis=-1)


def level_frame(landmarks_px: Float64) -> tuple[Float64, float]:
    """Rotation (2, 2) of the image that brings the outer eye corners level, and their distance, px."""
    right, left = OUTER_EYE_CORNERS
    across = landmarks_px[left] - landmarks_px[right]
    length = float(np.linalg.norm(across))
    x, y = across / length
    return np.array([[x, y], [-y, x]]), length


@dataclass(frozen=True, eq=False)
class LandmarkErrors:
    """Bias and covariance of the network's landmarks. Shapes and units as in ``ARRAYS``."""

    source: str
    license: str
    bias: NDArray[np.float16]
    modes: NDArray[np.float16]
    rest: NDArray[np.float16]

    @cached_property
    def taken(self) -> Float64:
        """(2 · 478, K) T of the inverse covariance of errors over ``rest``, 1 - T Tᵀ: all x, then all y."""
        modes = (self.modes.astype(np.float64) / self.rest).transpose(2, 1, 0).reshape(2 * POINT_COUNT, -1)
        u, s, _ = np.linalg.svd(modes, full_matrices=False)
        taken: Float64 = u * (s / np.sqrt(1 + s * s))
        return taken

    def save(self, path: str | os.PathLike[str]) -> None:
        """Check and write the file, whole or not at all. Raises ``BadModelFile``, ``WriteFailed``."""
        self._validate("landmark errors")
        said = {"format": FORMAT, "version": VERSION}
        arrays = {
            name: np.array(
                said.get(name, getattr(self, name, None)),
                dtype=None if spec.dtype == "U" else spec.dtype,
                order="C",
            )
            for name, spec in ARRAYS.items()
        }
        with whole_file(Path(path)) as temporary, temporary.open("wb") as stream:
            write_archive(stream, arrays)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> LandmarkErrors:
        """Read and check a file. Raises ``BadModelFile``."""
        arrays: dict[str, Any] = read_format(path, FORMAT, VERSION, ARRAYS)
        arrays["source"], arrays["license"] = str(arrays["source"][()]), str(arrays["license"][()])
        errors = cls(**arrays)
        errors._validate(os.fspath(path))
        return errors

    def _validate(self, label: str) -> None:
        def need(condition: bool | np.bool_, message: str) -> None:
            if not condition:
                raise BadModelFile(f"{label}: {message}")

        shape = (POINT_COUNT, 2)
        need(self.bias.shape == (TERMS, *shape), f"bias must be ({TERMS}, {POINT_COUNT}, 2)")
        need(self.modes.shape[1:] == shape, f"modes must be (K, {POINT_COUNT}, 2)")
        need(len(self.modes) <= MOST_MODES, f"wanted at most {MOST_MODES} modes, got {len(self.modes)}")
        need(self.rest.shape == shape, f"rest must be ({POINT_COUNT}, 2), got {self.rest.shape}")
        for name in ("bias", "modes", "rest"):
            array = getattr(self, name)
            need((np.abs(array) <= _LARGEST).all(), f"{name} must be finite and within ±{_LARGEST:g} %")
        need((self.rest >= _LEAST_REST).all(), f"rest must be at least {_LEAST_REST:g} %")
        for name in ("source", "license"):
            need(0 < len(getattr(self, name)) <= MAX_TEXT, f"{name} must have 1 to {MAX_TEXT} characters")


@dataclass(frozen=True)
class LandmarkTerm:
    """Squared errors of the landmarks of one photo, times ``share``, and their derivatives.

    Rows are weighed by what the modes leave; the modes are then taken out by Woodbury's identity:
    (1 + A Aᵀ)⁻¹ = 1 - T Tᵀ, just as textures are projected out.
    """

    mean: Float64  # (478, 3)
    basis: Float32  # (K + E, 478, 3)
    axes: Float32  # (3, K + E, 478)
    target: Float64  # (478, 2) px
    level: Float64  # (2, 2)
    weight: Float64  # (478, 2, 2) px → rows
    bias: Float64  # (6, 478, 2) of the rows
    taken: Float64  # (2 · 478, K) T

    @classmethod
    def of(
        cls,
        errors: LandmarkErrors,
        share: float,
        head: tuple[Float64, Float32, Float32],
        landmarks_px: Float64,
    ) -> LandmarkTerm:
        """``head``: ``mean``, ``basis`` and ``axes`` of the landmarks as below."""
        level, eye_px = level_frame(landmarks_px)
        scale = np.sqrt(share) / errors.rest.astype(np.float64)
        weight = scale[:, :, None] * level * (100 / eye_px)
        return cls(*head, landmarks_px, level, weight, errors.bias * scale, errors.taken)

    def look(self, state: State) -> LandmarkLook:
        flat = state.shape.astype(np.float32) @ self.basis.reshape(len(self.basis), -1)
        projection = Projection.of(self.mean + flat.reshape(-1, 3), state, self.weight)
        facing = state.rotation[:, 2]
        x, y = direction = self.level @ facing[:2]
        off = (self.weight @ (projection.pixel - self.target)[:, :, None])[:, :, 0]
        rows = (off + np.tensordot(terms(direction), self.bias, axes=1)).T.ravel()
        inner = np.einsum("rk,r->k", self.taken, rows)  # too little to wake BLAS's threads for
        left = rows - np.einsum("rk,k->r", self.taken, inner)
        # A turn by w moves the direction by w × facing.
        turned = self.level @ -cross_matrix(facing)[:2]
        by_direction = np.array([[0, 0], [1, 0], [0, 1], [2 * x, 0], [y, x], [0, 2 * y]])
        swing = np.einsum("tw,tlr->wrl", by_direction @ turned, self.bias).reshape(3, -1)
        gradient = projection.gradient(left.reshape(2, -1).T, self.basis)
        gradient[:3] += swing @ left
        return LandmarkLook(float(rows @ rows - inner @ inner), gradient, projection, swing)

    def jacobian(self, look: LandmarkLook) -> Float32:
        """(7 + K + E, 2 · 478) d(rows)/d(unknowns), transposed: all x, then all y."""
        jacobian = look.projection.jacobian(self.axes)
        jacobian[:3] += look.swing.astype(np.float32)
        return jacobian

    def normal(self, look: LandmarkLook) -> Float64:
        """The lower triangle of JᵀΣ⁻¹J."""
        jacobian = self.jacobian(look)
        taken = self.taken.astype(np.float32)
        inner = np.concatenate([jacobian[row : row + 2] @ taken for row in range(0, len(jacobian), 2)])
        normal: Float64 = lower_gram(jacobian) - np.tril(inner @ inner.T)
        return normal


@dataclass(frozen=True)
class LandmarkLook:
    """The landmark term around a state: half its gradient."""

    cost: float
    gradient: Float64
    projection: Projection
    swing: Float64  # (3, 2 · 478) what a turn adds to the rows by the bias
