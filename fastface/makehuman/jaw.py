"""The lower jaw as a rigid body: lower teeth, gums and tongue turn about the joint exactly as the chin does."""

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
    about_x = np.array([[1.0, 0.0, 0.0], [0.0, np.cos(pitch), np.sin(pitch)], [0.0, -np.sin(pitch), np.cos(pitch)]])
    moved: Floats = (points - centre) @ (about_y @ about_x).T + centre
    return moved - points
