"""Contact sheets of fixed people, kept in tests/artefacts for looking at; and what a sheet must show."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fastface import Affect, Engine, write_image
from fastface.affect_tables import EXPRESSIONS
from fastface.contact_sheet import contact_sheet, face_box

ARTEFACTS = Path(__file__).parent / "artefacts"
#: Light and dark skin, a beard, a fringe, freckles, an older face.
PEOPLE = ("001", "026", "041", "042", "082", "120")
CLOSE_UPS = (
    {"AU12": 0.8, "AU25": 1.0},
    {"AU27": 1.0},
    {"AU45": 0.5},
    {"AU45": 1.0},
    {"AU5": 1.0},
    {"AU9": 1.0},
)


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine()


@pytest.mark.parametrize("person", PEOPLE)
def test_every_expression_of_a_person(engine: Engine, shared: Path, person: str) -> None:
    face = engine.fit(shared / f"data/photos/london/neutral/{person}.jpg")
    left, top, right, bottom = face_box(face.landmarks_px, *face.photo.shape[:2])
    rows = []
    for intensity in (0.6, 1.0):
        frames = [face.photo]
        frames += [engine.render(face, Affect.expression(name, intensity)) for name in EXPRESSIONS]
        rows.append([frame[top:bottom, left:right] for frame in frames])
    rows.append([engine.render(face, affect)[top:bottom, left:right] for affect in (
        Affect.neutral(), *(Affect.aus(units) for units in CLOSE_UPS), Affect.va(0.8, 0.4)
    )])  # fmt: skip
    names = ["neutral", *EXPRESSIONS]
    ARTEFACTS.mkdir(exist_ok=True)
    write_image(ARTEFACTS / f"{person}.png", contact_sheet(rows, names, ("0.6", "1.0", "units"), tile_px=320))
    weak, strong = (np.array([cell.astype(int) for cell in row[1:]]) for row in rows[:2])
    photo = rows[0][0].astype(int)
    changed = [np.abs(group - photo).mean(axis=(1, 2, 3)) for group in (weak, strong)]
    assert (changed[0] > 0.5).all()  # each shows something
    assert (changed[1] > changed[0]).all()  # and more of it at full intensity
    apart = np.abs(strong[:, None] - strong[None]).mean(axis=(2, 3, 4))
    assert (apart[~np.eye(len(strong), dtype=bool)] > 0.5).all()  # no two are the same


def test_a_long_caption_keeps_its_ends_and_stays_over_its_tile() -> None:
    tile = np.zeros((100, 100, 3), np.uint8)
    long = "AU4-0.50_AU6-0.50_AU7-0.50_AU9-0.50_AU10-0.50_AU43-0.50.yaw"
    sheet = contact_sheet([[tile, tile, tile]], ["", long, ""], tile_px=100)
    written = (sheet[:10] < 128).any(axis=(0, 2))
    assert written[104:204].mean() > 0.3
    assert not written[:100].any()
    assert not written[206:].any()
    left = contact_sheet([[tile, tile, tile]], ["", f"{long}-30", ""], tile_px=100)
    right = contact_sheet([[tile, tile, tile]], ["", f"{long}+30", ""], tile_px=100)
    assert (left != right).any()
