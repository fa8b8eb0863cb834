"""Maps of how far each pixel of a frame has moved."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from fastface import Affect, Engine
from fastface.displacement import heat_map

Image = NDArray[np.uint8]


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine()


def test_the_field_agrees_with_the_landmarks(engine: Engine, portrait: Callable[..., Image]) -> None:
    face = engine.fit(portrait("134", 512, 512))
    smile = Affect.aus({"AU12": 1.0})
    field = engine.displacement(face, smile)
    points = engine.labels(face, smile).landmarks478_px
    for corner in (61, 291):
        x, y = points[corner].astype(int)
        np.testing.assert_allclose(field[y, x], points[corner] - face.landmarks_px[corner], atol=2.0)
    assert (field[: int(face.landmarks_px[:, 1].min() - 0.9 * face.eye_distance_px)] == 0).all()


def test_nothing_asked_nothing_moved(engine: Engine, portrait: Callable[..., Image]) -> None:
    face = engine.fit(portrait("042", 256, 256))
    assert np.abs(engine.displacement(face)).max() < 0.01
    assert engine.unit_displacements(face, Affect.neutral()) == {}


def test_each_unit_has_its_own_region(engine: Engine, portrait: Callable[..., Image]) -> None:
    face = engine.fit(portrait("042", 384, 384))
    fields = engine.unit_displacements(face, Affect.aus({"AU1": 1.0, "AU12": 1.0, "AU51": 1.0}))
    assert list(fields) == ["AU1", "AU12"]
    eyes, mouth = face.landmarks_px[[33, 263], 1].mean(), face.landmarks_px[13, 1]
    row = {name: np.average(np.arange(384), weights=np.abs(f).sum(axis=(1, 2))) for name, f in fields.items()}
    assert row["AU1"] < eyes - 0.1 * face.eye_distance_px
    assert abs(row["AU12"] - mouth) < 0.25 * face.eye_distance_px


def test_the_picture_is_brightest_where_most_moves() -> None:
    photo = np.full((8, 8, 3), 40, np.uint8)
    field = np.zeros((8, 8, 2), np.float32)
    field[2, 3] = (3, 4)
    seen = heat_map(photo, field)
    assert (seen[field.any(axis=2) == 0] == 40).all()
    assert seen[2, 3].sum() > 3 * 40 * 2
    assert heat_map(photo, field, most_px=50)[2, 3].sum() < seen[2, 3].sum()
