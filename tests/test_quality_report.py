"""Summing up over people, and the prototype search, on made-up people and judges."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from benchmarks import prototype_search
from benchmarks.metrics import ErrorSummary
from benchmarks.quality_figures import FrameFigures, PersonFigures, SmileFigures
from benchmarks.quality_report import Figure, report, rival


def judged(happy: float) -> dict[str, dict[str, float]]:
    """Both classifiers: `happy`, and of the rest nine tenths neutral and one tenth sad."""
    rest = 1.0 - happy
    return {judge: {"happy": happy, "neutral": 0.9 * rest, "sad": 0.1 * rest} for judge in ("faceapi", "fer")}


def person(name: str, half: float, full: float, distance: float = 0.2) -> PersonFigures:
    """Somebody whose happy reads `half` at intensity 0.5 and `full` at 1."""
    frames = [
        FrameFigures("happy", level, 3.0, 0.2, 0, judged(p), distance, 6.0, 0.5, 1.0)
        for level, p in ((0.5, half), (1.0, full))
    ]
    smile = SmileFigures(judged(0.7), 0.22, 7.0, 6.5, 0.7, 0.9, [[float(i), -float(i)] for i in range(478)])
    fit = ErrorSummary(0.3, 0.5, 1.0, 2.0)
    return PersonFigures(
        name, fit=fit, neutral_identical=True, resting=judged(0.02), frames=frames, smile=smile
    )


def by_name(people: list[PersonFigures], section: str) -> dict[str, Figure]:
    return {figure.name: figure for figure in report(people, "default", ["happy"])[section]}


def test_shares_count_failed_and_undetected_people_as_misses() -> None:
    failed = PersonFigures("c", failure="NoFaceFound: turned away")
    unseen = person("d", 0.5, 0.95)
    unseen.frames[1] = FrameFigures("happy", 1.0, 3.0, 0.2, 0)
    figures = by_name([person("a", 0.5, 0.9), person("b", 0.95, 0.85), failed, unseen], "happy")
    assert figures["faceapi P≥0.8"].value == 0.5
    assert figures["faceapi P≥0.8"].met is False
    # b falls by 0.1, c and d have nothing to rise with.
    assert figures["faceapi rises"].value == 0.25
    # No face, no distance: it is not counted as a distance of 0.
    assert figures["identity mean"].value == pytest.approx(0.2)
    assert figures["identity mean"].count == 2


def test_limits_fail_when_exceeded_and_when_nothing_was_measured() -> None:
    assert by_name([person("a", 0.5, 0.9, distance=0.61)], "happy")["identity max"].met is False
    nobody = by_name([PersonFigures("a", failure="BadImage")], "happy")
    assert nobody["identity mean"].met is False
    assert nobody["faceapi P≥0.8"].value == 0.0


def test_a_single_changed_pixel_outside_the_mask_fails() -> None:
    people = [person("a", 0.5, 0.9), person("b", 0.5, 0.9)]
    name = "pixels changed outside the mask"
    assert by_name(people, "pixels")[name].met is True
    people[1].frames[0] = replace(people[1].frames[0], changed_outside_mask=1)
    assert by_name(people, "pixels")[name].met is False
    people[0].neutral_identical = False
    assert by_name(people, "pixels")["neutral renders the photo itself"].value == 0.5


def test_rival_is_the_strongest_other_class() -> None:
    name, value = rival([person("a", 0.5, 0.6), person("b", 0.5, 0.2)], "fer", "happy")
    assert name == "neutral"
    assert value == pytest.approx(0.9 * 0.6)


def test_search_finds_a_known_prototype_and_drops_what_is_useless() -> None:
    wanted = {"mouthSmile": 0.7, "cheekSquint": 0.4}

    def judge(prototype: prototype_search.Prototype) -> prototype_search.Verdict:
        names = {*prototype, *wanted}
        miss = sum((prototype.get(name, 0.0) - wanted.get(name, 0.0)) ** 2 for name in names)
        return prototype_search.Verdict(-miss, {}, [])

    accepted: list[float] = []
    best, verdict = prototype_search.search(
        judge,
        {"mouthSmile": 0.3, "mouthFrown": 0.5},
        400,
        np.random.default_rng(1),
        lambda _, found: accepted.append(found.score),
    )
    assert set(best) == set(wanted)
    assert all(abs(best[name] - value) < 0.06 for name, value in wanted.items())
    assert accepted == sorted(accepted)
    assert accepted[-1] == verdict.score


def test_score_rewards_reading_only_up_to_enough_and_punishes_another_face() -> None:
    plain = {"faceapi": [0.9, 0.8], "fer": [0.7, 0.6]}
    assert prototype_search.score(plain, [0.2, 0.3], 0.35) == pytest.approx(0.75)
    assert prototype_search.score(plain, [0.2, 0.45], 0.35) == pytest.approx(
        0.75 - prototype_search.IDENTITY_WEIGHT * 0.05
    )
    loud, louder = {"faceapi": [0.96], "fer": [0.96]}, {"faceapi": [1.0], "fer": [1.0]}
    assert prototype_search.score(loud, [0.1], 0.35) == prototype_search.score(louder, [0.1], 0.35)
    assert prototype_search.prior({"eyeWide": 1.0}) > prototype_search.prior({"browInnerUp": 1.0})


def test_coefficient_vector_takes_both_sides_and_refuses_what_the_head_lacks() -> None:
    names = ("jawOpen", "mouthSmileLeft", "mouthSmileRight")
    assert prototype_search.coefficient_vector({"mouthSmile": 0.5, "jawOpen": 0.25}, names).tolist() == [
        0.25,
        0.5,
        0.5,
    ]
    assert prototype_search.coefficient_vector({"mouthSmileRight": 0.5}, names).tolist() == [0.0, 0.0, 0.5]
    with pytest.raises(KeyError, match="noseSneer"):
        prototype_search.coefficient_vector({"noseSneer": 0.5}, names)
