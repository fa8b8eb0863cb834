"""Turning a head away from where the photo shows it: relative poses, and the head's action units.

A pose is relative to the photo's, about camera axes through a point between the ears: the head is turned,
then nodded, then tilted (CONVENTIONS.md gives the signs). FACS scores a head's position as AU51 to AU58;
``affect_tables.HEAD_UNITS`` says how far each goes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fastface.affect_tables import HEAD_UNITS
from fastface.errors import BadAffect

Float64 = NDArray[np.float64]

#: As far as one photo can be turned and still be looked at.
LIMITS: Final = {"yaw_deg": 45.0, "pitch_deg": 30.0, "roll_deg": 45.0, "forward_mm": 150.0}

PIVOT_BACK_MM: Final = 25.0
PIVOT_DOWN_MM: Final = 30.0


@dataclass(frozen=True, slots=True)
class HeadPose:
    """How far a head is moved from the photo's pose: degrees to the subject's left, up, and to the left
    shoulder; millimetres towards the camera. Raises ``BadAffect`` beyond ``LIMITS``."""

    yaw_deg: float = 0.0
    pitch_deg: float = 0.0
    roll_deg: float = 0.0
    forward_mm: float = 0.0

    def __post_init__(self) -> None:
        for name, limit in LIMITS.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float | np.number):
                raise BadAffect(f"{name} must be a number, got {type(value).__name__}")
            if not abs(float(value)) <= limit:  # true for NaN
                raise BadAffect(f"{name} must be within ±{limit:g}, got {value:g}")

    def row(self) -> list[float]:
        """(4,) in the order of the fields."""
        return [float(getattr(self, field.name)) for field in fields(self)]


def rotation_of_pose(pose: Float64) -> Float64:
    """(4,) → (3, 3) about camera axes (x right, y down, z away): R_z(roll) R_x(pitch) R_y(-yaw).

    The subject's left is the camera's right, so a turn to the left carries the nose to +x; up is -y.
    """
    yaw, pitch, roll = (math.radians(value) for value in pose[:3])
    cy, sy, cp, sp, cr, sr = (f(a) for a in (yaw, pitch, roll) for f in (math.cos, math.sin))
    about_y = np.array([[cy, 0, -sy], [0, 1, 0], [sy, 0, cy]])
    about_x = np.array([[1, 0, 0], [0, cp, sp], [0, -sp, cp]])
    about_z = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
    turned: Float64 = about_z @ about_x @ about_y
    return turned


def turned(points: NDArray[Any], pose: Float64, pivot_mm: NDArray[Any]) -> NDArray[Any]:
    """(N, 3) camera space mm, moved by ``pose (4,)`` (``HeadPose.row``) about the pivot."""
    moved = (points - pivot_mm) @ rotation_of_pose(pose).T + pivot_mm
    moved[:, 2] -= pose[3]
    return np.asarray(moved, points.dtype)


def poses_of_action_units(columns: Sequence[str], values: Float64) -> Float64:
    """(N, C) intensities by name → (N, 4): what the head's units among them ask for, opposite ones summed."""
    poses = np.zeros((len(values), 4))
    order = tuple(LIMITS)
    for column, name in enumerate(columns):
        if name in HEAD_UNITS:
            _, axis, reach = HEAD_UNITS[name]
            poses[:, order.index(axis)] += reach * values[:, column]
    return poses


def pivot_of(landmarks_mm: NDArray[Any], rotation: Float64) -> NDArray[np.float32]:
    """Where a head turns, camera space mm: between the ears, behind the sides of the face (landmarks 234 and
    454 of ``landmarks_mm (478, 3)``)."""
    back = rotation @ np.array([0.0, -PIVOT_DOWN_MM, -PIVOT_BACK_MM])
    return np.asarray((landmarks_mm[234] + landmarks_mm[454]) / 2 + back, np.float32)
