"""The perspective camera and the head's pose (CONVENTIONS.md, "Space and camera")."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]

FLIP: Final[Float64] = np.diag([1.0, -1.0, -1.0])
"""Head axes (y up, z to the viewer) seen by a camera (y down, z away) straight in front."""


@dataclass(frozen=True)
class Camera:
    """``rotation (3, 3)`` head → camera, ``translation_mm (3,)``, ``focal_px``, ``centre_px (2,)``."""

    rotation: Float64
    translation_mm: Float64
    focal_px: float
    centre_px: Float64

    def to_camera(self, points: NDArray[Any]) -> NDArray[Any]:
        """Head space ``(..., 3)`` mm → camera space mm."""
        turned = points @ self.rotation.T.astype(points.dtype)
        moved: NDArray[Any] = turned + self.translation_mm.astype(points.dtype)
        return moved

    def project(self, points: NDArray[Any]) -> NDArray[Any]:
        """Camera space ``(..., 3)`` mm → ``(..., 2)`` px."""
        ray = points[..., :2] * (self.focal_px / points[..., 2:])
        screen: NDArray[Any] = ray + self.centre_px.astype(points.dtype)
        return screen


def rotation_of(vector: NDArray[Any]) -> Float64:
    """Rotation matrix of an axis-angle vector (Rodrigues' formula), radians."""
    angle = float(np.linalg.norm(vector))
    cross = cross_matrix(np.asarray(vector, np.float64))
    if angle < 1e-12:
        return np.eye(3) + cross
    turned: Float64 = (
        np.eye(3) + math.sin(angle) / angle * cross + (1 - math.cos(angle)) / angle**2 * cross @ cross
    )
    return turned


def cross_matrix(v: Float64) -> Float64:
    """The matrix whose product with w is v × w."""
    return np.array([[0, -v[2], v[1]], [v[2], 0, -v[0]], [-v[1], v[0], 0]], np.float64)


def angles_deg(rotation: Float64) -> tuple[float, float, float]:
    """Yaw, pitch, roll of a head in degrees: positive to the subject's left, up, to the left shoulder.

    ``FLIP · rotation`` = R_z(-roll) R_x(-pitch) R_y(yaw), all about head axes: the head is turned, then
    nodded, then tilted. The face looks along the third column; the first of its entries is the subject's
    left, the second is up.
    """
    turn = FLIP @ rotation
    pitch = math.asin(float(np.clip(-turn[2, 1], -1.0, 1.0)))
    yaw = math.atan2(-turn[2, 0], turn[2, 2])
    roll = math.atan2(turn[0, 1], turn[1, 1])
    return math.degrees(yaw), math.degrees(pitch), math.degrees(roll)
