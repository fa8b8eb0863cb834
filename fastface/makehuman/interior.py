"""What moves inside: the lower jaw, a rigid body that turns exactly as the chin does; the eyeballs; the
tongue.
"""

from __future__ import annotations

import numpy as np

from fastface.makehuman.sources import Floats

CHIN_BOX = ((-16.0, -125.0, 0.0), (16.0, -98.0, 60.0))
"""The skin over the bone of the chin, on the mean head (mm): it moves with the jaw and hardly slides."""


def jaw_motion(vertices: Floats, displacement: Floats) -> tuple[Floats, Floats]:
    """The rotation (3, 3) and translation (3,) that the chin undergoes, by least squares.

    Kabsch, "A solution for the best rotation to relate two sets of vectors", Acta Cryst. A32, 1976.
    """
    low, high = np.array(CHIN_BOX)
    chin = ((vertices > low) & (vertices < high)).all(axis=1)
    before, after = vertices[chin], (vertices + displacement)[chin]
    centre_before, centre_after = before.mean(axis=0), after.mean(axis=0)
    left, _, right = np.linalg.svd((before - centre_before).T @ (after - centre_after))
    reflection = np.diag([1.0, 1.0, float(np.sign(np.linalg.det(left @ right)))])
    rotation = (left @ reflection @ right).T
    translation: Floats = centre_after - rotation @ centre_before
    return rotation, translation


def carried(points: Floats, motion: tuple[Floats, Floats]) -> Floats:
    """Displacements of points that move rigidly with the jaw."""
    rotation, translation = motion
    moved: Floats = points @ rotation.T + translation
    return moved - points


def turned(points: Floats, centre: Floats, right_deg: float, up_deg: float) -> Floats:
    """Displacements of an eyeball's ``points`` when its gaze turns: positive to +x and to +y."""
    yaw, pitch = np.radians([right_deg, up_deg])
    about_y = np.array([[np.cos(yaw), 0.0, np.sin(yaw)], [0.0, 1.0, 0.0], [-np.sin(yaw), 0.0, np.cos(yaw)]])
    about_x = np.array(
        [[1.0, 0.0, 0.0], [0.0, np.cos(pitch), np.sin(pitch)], [0.0, -np.sin(pitch), np.cos(pitch)]]
    )
    moved: Floats = (points - centre) @ (about_y @ about_x).T + centre
    return moved - points


TONGUE_COURSE_MM = np.array(
    [
        (-70.0, 0.0, 1.0),
        (-12.0, 0.0, 1.0),
        (12.0, 5.0, 1.05),
        (24.0, 6.5, 0.95),
        (32.0, 3.5, 1.0),
        (44.0, -7.0, 0.85),
    ]
)
"""The course of a tongue put out, by depth z: how far its middle is lifted, and its thickness over that at
rest.
"""
TONGUE_REACH_MM = 31.0


def tongue_out(points: Floats) -> Floats:
    """Displacements of the tongue's ``points`` (head space of the mean head) when it is put out over the
    lower teeth.

    The front slides forward, ever more towards the tip, and follows a course over the teeth and down on the
    lip.
    """
    root, tip = points[:, 2].min(), points[:, 2].max()
    share = np.clip((points[:, 2] - root) / (tip - root), 0.0, 1.0)
    forward = TONGUE_REACH_MM * share**1.6
    depth = points[:, 2] + forward
    lift, thickness = (
        np.interp(depth, TONGUE_COURSE_MM[:, 0], column) for column in TONGUE_COURSE_MM[:, 1:].T
    )
    middle = np.median(points[:, 1])
    height = middle + lift + thickness * (points[:, 1] - middle)
    width = points[:, 0] * (1.0 - 0.12 * share)
    moved: Floats = np.stack([width, height, depth], axis=1)
    return moved - points
