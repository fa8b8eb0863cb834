"""More asked, more shown: action units and the circumplex, as the landmark network sees the frames."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from fastface.affect import Affect
from fastface.engine import Engine, FittedFace
from fastface.fitting import FaceFitter
from fastface.lids import BLINKS

pytest.importorskip("scipy")

from benchmarks import action_units_report as report
from benchmarks.action_units import Bench
from benchmarks.circumplex import asked_points, learned, person_figures, ring_figures, seen_of
from benchmarks.portraits import Portrait
from benchmarks.rereading import Reader, Refit

Photo = NDArray[np.uint8]
LIDS = ((385, 386, 387, 380, 374, 373), (158, 159, 160, 153, 145, 144))


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine(threads=1)


@pytest.fixture(scope="module")
def faces(engine: Engine, portrait: Callable[..., Photo]) -> dict[str, FittedFace]:
    """005 has narrow eyes, 026 wide ones."""
    return {name: engine.fit(portrait(name, 512, 512)) for name in ("005", "026")}


def test_a_growing_affect_moves_the_face_along_a_straight_line(
    engine: Engine, faces: dict[str, FittedFace]
) -> None:
    for affect in (Affect.aus({"AU1": 1.0, "AU12": 0.5}), Affect.expression("sad")):
        face = faces["005"]
        assert np.abs(face.expression).max() > 0.1  # there is something to give way
        ready = engine._ready(face)
        whole = engine._affects.coefficients(affect, engine.model.expression_names)
        steps = ready.renderer.deltas(np.linspace(0, 1, 5, dtype=np.float32)[:, None] * whole)
        np.testing.assert_allclose(steps[1:4], steps[4] * np.array([[0.25], [0.5], [0.75]]), atol=2e-4)
        top = np.abs(whole).max()
        np.testing.assert_allclose(steps[4], whole - top * ready.bound.own, atol=2e-4)


def test_a_blink_closes_every_eye_and_goes_no_further(engine: Engine, faces: dict[str, FittedFace]) -> None:
    shut, half = ({unit: [] for unit in faces} for _ in range(2))
    for name, face in faces.items():
        for asked, kept in ((1.0, shut), (0.5, half)):
            points = engine.labels(face, Affect.aus({"AU43": asked})).landmarks478_px
            for upper, lower in zip((386, 159), (374, 145), strict=True):
                width = np.linalg.norm(points[33] - points[263])
                kept[name].append((points[lower, 1] - points[upper, 1]) / width)
    for name in faces:
        assert np.abs(shut[name]).max() < 0.02, name
        assert min(half[name]) > 0.02, name


def test_shut_eyes_in_a_photo_do_not_turn_a_blink_inside_out(
    engine: Engine, faces: dict[str, FittedFace]
) -> None:
    fitter, face = FaceFitter(engine.model), faces["026"]
    residual, lids = face.fit_residual_px.copy(), np.array(LIDS)
    residual[lids[:, :3]] += face.landmarks_px[lids[:, 3:]] - face.landmarks_px[lids[:, :3]]
    shares = fitter.blinks(replace(face.fit, residual_px=residual))
    assert list(shares) == [engine.model.expression_names.index(name) for name in BLINKS]
    assert all(0.4 <= share < 0.6 for share in shares.values())
    assert all(0.9 < share < 1.2 for share in fitter.blinks(face.fit).values())


def test_action_units_answer_on_a_face(engine: Engine, shared: object) -> None:
    """A few of ``benchmarks/results/action-units.md``, at fewer steps."""
    from pathlib import Path

    photo = Path(str(shared)) / "data" / "photos" / "london" / "neutral" / "005.jpg"
    answers = Bench("default", 5).person(Portrait("005", photo, None), ["AU1", "AU12", "AU43", "AU51"])
    assert all(map(report.answers, answers.values())), answers
    assert answers["AU12"]["movement"][1] > 0.5
    assert answers["AU51"]["score"][1] > 15  # degrees


@pytest.mark.parametrize("name", ["005", "026"])
def test_the_circumplex_is_seen_in_order(engine: Engine, faces: dict[str, FittedFace], name: str) -> None:
    asked = asked_points(8, (1.0,))
    seen = seen_of(Reader(engine), faces[name], asked)
    figures = person_figures(asked, seen.expected, 8)
    assert figures["valence"] > 0.9
    assert figures["arousal"] > 0.9
    assert figures["rings"][0]["in_order"] == 1
    assert figures["rings"][0]["angle_deg"] < 20


def test_ring_figures_tell_order_sense_and_angle() -> None:
    ring = asked_points(12, (1.0,))[1:]
    turned = ring @ np.array([[np.cos(0.2), np.sin(0.2)], [-np.sin(0.2), np.cos(0.2)]])
    kept = ring_figures(ring, 0.3 * turned)
    assert kept["in_order"] == 1
    assert kept["rank"] == pytest.approx(1)
    assert kept["angle_deg"] == pytest.approx(np.degrees(0.2))
    mirrored = ring_figures(ring, ring * [1, -1])
    assert mirrored["in_order"] == 0
    assert mirrored["rank"] == pytest.approx(-1)
    swapped = ring[[1, 0, *range(2, 12)]]
    assert ring_figures(ring, swapped)["in_order"] == pytest.approx(11 / 12)


def test_nobody_teaches_what_is_learned_about_themselves() -> None:
    random = np.random.default_rng(0)
    asked = asked_points()
    mix = random.normal(0, 1, (2, 5))
    people = [asked @ mix for _ in range(3)]
    strange = asked @ random.normal(0, 1, (2, 5))
    alone = learned([*people, strange], asked)[-1]
    again = learned([*people, 10 * strange], asked)[-1]
    np.testing.assert_allclose(again, 10 * alone)  # linear in what is judged: nothing was learned from it
    np.testing.assert_allclose(learned(people, asked)[0], asked, atol=0.01)


def test_refit_finds_the_amount_of_a_pattern_among_others() -> None:
    random = np.random.default_rng(0)
    movement = 0.1 * random.normal(0, 1, (6, 956))
    refit = Refit(movement)
    weights = np.array([1.0, 0.3, 0, 0, 0, 0])
    amounts = np.linspace(0, 1, 5)
    moved = amounts[:, None] * (weights @ movement)
    np.testing.assert_allclose(refit.amount(moved, weights), amounts, atol=1e-9)
    np.testing.assert_allclose(refit.amount(moved + movement[4], weights), amounts, atol=0.02)


def test_the_page_counts_and_names_who_does_not_answer() -> None:
    people = {
        "001": {"AU1": {"score": [0.99, 0.4], "movement": [0.5, 0.2]}, "AU51": {"score": [1.0, 30.0]}},
        "002": {"AU1": {"score": [0.2, 0.0], "movement": [0.9, 0.4]}, "AU51": {"score": [1.0, 29.0]}},
    }
    lines, failed = report.summary({"model": "m", "steps": 11, "people": people})
    assert failed
    assert lines[2] == "| AU1 | inner brow raiser | 1/2 | 1 | 0 | 0.30 | 002 (0.90) |"
    assert lines[3] == "| AU51 | head turn left | 2/2 | 2 | – | – |  |"
