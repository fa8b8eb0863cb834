"""Rotations, the pinhole, and which way the head's angles count."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from fastface.camera import FLIP, Camera, angles_deg, rotation_of
from fastface.fitting import FaceFitter
from fastface.images import read_image
from fastface.landmarks import LandmarkDetector
from fastface.morphable import load_default

Array = NDArray[np.float64]
#: Head axes: x to the subject's left, y up, z out of the face.
LEFT, UP, OUT = np.eye(3)


def turned(x: float = 0.0, y: float = 0.0, z: float = 0.0) -> Array:
    """A head turned about one of its own axes, degrees, right-handed, before a camera straight in front."""
    return FLIP @ rotation_of(np.radians([x, y, z]))


@pytest.mark.parametrize("vector", [(0.3, -0.2, 0.9), (0.0, 0.0, 0.0), (1e-9, 0, 0), (3.0, 0.4, -0.5)])
def test_rotation_of_is_the_matrix_exponential(vector: tuple[float, float, float]) -> None:
    from scipy.linalg import expm

    x, y, z = vector
    wanted = expm(np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]]))
    np.testing.assert_allclose(rotation_of(np.array(vector)), wanted, atol=1e-14)


def test_a_quarter_turn_is_right_handed() -> None:
    np.testing.assert_allclose(rotation_of(np.array([0, 0, math.pi / 2])) @ [1, 0, 0], [0, 1, 0], atol=1e-15)


def test_project_puts_left_up_and_near_where_a_photo_has_them() -> None:
    camera = Camera(FLIP, np.array([0.0, 0.0, 500.0]), 1000.0, np.array([320.0, 240.0]))
    seen = camera.to_camera(np.array([0 * LEFT, 10 * LEFT, 10 * UP, 100 * OUT]))
    np.testing.assert_allclose(seen[:, 2], [500, 500, 500, 400])
    pixels = camera.project(seen)
    np.testing.assert_allclose(pixels[:3], [[320, 240], [340, 240], [320, 220]])


def test_precision_of_the_points_is_kept() -> None:
    camera = Camera(FLIP, np.array([1.0, 2.0, 500.0]), 1000.0, np.array([320.0, 240.0]))
    points = np.ones((4, 3), np.float32)
    assert camera.to_camera(points).dtype == np.float32
    assert camera.project(camera.to_camera(points)).dtype == np.float32


def test_angles_say_where_the_face_looks() -> None:
    assert angles_deg(FLIP) == (0, 0, 0)
    for degrees in (-40.0, 15.0, 60.0):
        to_the_left = turned(y=degrees)
        assert np.sign((FLIP @ to_the_left @ OUT)[0]) == np.sign(degrees)
        np.testing.assert_allclose(angles_deg(to_the_left), (degrees, 0, 0), atol=1e-9)
        down = turned(x=degrees)
        assert np.sign((FLIP @ down @ OUT)[1]) == -np.sign(degrees)
        np.testing.assert_allclose(angles_deg(down), (0, -degrees, 0), atol=1e-9)
        to_the_right_shoulder = turned(z=degrees)
        assert np.sign((FLIP @ to_the_right_shoulder @ UP)[0]) == -np.sign(degrees)
        np.testing.assert_allclose(angles_deg(to_the_right_shoulder), (0, 0, -degrees), atol=1e-9)


def test_angles_compose_as_stated() -> None:
    yaw, pitch, roll = 25.0, -12.0, 33.0
    head = turned(z=-roll) @ rotation_of(np.radians([-pitch, 0, 0])) @ rotation_of(np.radians([0, yaw, 0]))
    np.testing.assert_allclose(angles_deg(head), (yaw, pitch, roll), atol=1e-9)


def test_yaw_moves_the_nose_across_the_photo() -> None:
    """To the subject's left is to the right of the photo; up is up."""
    model = load_default()
    nose, eyes = 1, (33, 263)
    for yaw, pitch in ((30.0, 0.0), (-30.0, 0.0), (0.0, 20.0), (0.0, -20.0)):
        rotation = turned(x=-pitch) @ rotation_of(np.radians([0, yaw, 0]))
        camera = Camera(rotation, np.array([0.0, 0.0, 700.0]), 1000.0, np.zeros(2))
        points = model.landmarks478.points(model.vertices, model.triangles)
        pixels = camera.project(camera.to_camera(points))
        level = FLIP @ np.eye(3)
        front = Camera(level, camera.translation_mm, 1000.0, np.zeros(2))
        rest = front.project(front.to_camera(points))
        moved = (pixels[nose] - pixels[list(eyes)].mean(0)) - (rest[nose] - rest[list(eyes)].mean(0))
        assert np.sign(moved[0]).item() == np.sign(yaw) or yaw == 0
        assert np.sign(moved[1]).item() == -np.sign(pitch) or pitch == 0


def test_photos_are_read_the_way_they_look(shared: Path) -> None:
    """One woman tilts her head by 20° to her right shoulder, and bows it before a camera above her."""
    fitter, detector = FaceFitter(load_default()), LandmarkDetector()

    def angles(name: str) -> tuple[float, float, float]:
        photo = read_image(shared / "data" / "photos" / "cc0" / name)
        points = detector.detect(photo)[0].points_px
        return angles_deg(fitter.fit(points, *photo.shape[:2]).camera.rotation)

    assert angles("lisa3.jpg")[2] == pytest.approx(-20, abs=3)
    bowed, straight = angles("lisa1.jpg"), angles("lisa2.jpg")
    assert abs(bowed[2]) < 4
    assert bowed[1] < straight[1] - 5
