"""Affects, their coefficients and their labels."""

# ruff: noqa: PT017 (what is raised is one of two right outcomes; its text is checked too)
from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastface import action_units as au
from fastface.affect import Affect, AffectPath, affect_model
from fastface.affect_csv import interpolate
from fastface.affect_tables import (
    ACTION_UNITS,
    CIRCUMPLEX,
    EMFACS_CORE,
    EVERYDAY,
    EXPRESSIONS,
    ONE_SIDED_UNITS,
    PROTOTYPES,
    SHAPES,
    SUPPORTS,
)
from fastface.errors import BadAffect
from fastface.workshop.circumplex import circumplex_weights

unit = st.floats(0, 1)
signed = st.floats(-1, 1)
FAMILIES = sorted(PROTOTYPES)


# --- the tables ---


def test_the_shape_names_are_the_52_of_arkit() -> None:
    assert len(SHAPES) == len(set(SHAPES)) == 52
    assert {"jawOpen", "mouthSmileLeft", "tongueOut", "eyeLookOutRight", "browInnerUp"} <= set(SHAPES)


def test_every_table_entry_names_a_shape_and_a_human_weight() -> None:
    for table in (*PROTOTYPES.values(), {name: weights for name, (_, weights) in ACTION_UNITS.items()}):
        for weights in table.values():
            vector = au.spread(weights)  # KeyError for a name that is no shape
            assert 0 < vector.max() <= 1.5
            assert vector.min() >= 0


@pytest.mark.parametrize("family", FAMILIES)
def test_prototypes_are_complete_and_independent(family: str) -> None:
    assert set(PROTOTYPES[family]) == {*EXPRESSIONS, *SUPPORTS} == set(CIRCUMPLEX)
    matrix = np.array([au.spread(weights) for weights in PROTOTYPES[family].values()])
    assert np.linalg.svd(matrix, compute_uv=False)[-1] > 0.02


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", EXPRESSIONS)
def test_prototypes_show_the_units_of_emfacs(family: str, name: str) -> None:
    shown = affect_model(family).labels(Affect.expression(name)).aus
    for needed in EMFACS_CORE[name]:
        assert shown.get(needed, shown.get(needed.rstrip("LR"), 0.0)) >= 0.1, needed


# --- expressions ---


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", EXPRESSIONS)
def test_an_expression_rises_from_nothing_to_its_prototype(family: str, name: str) -> None:
    rising = np.array(
        [Affect.expression(name, s).coefficients(SHAPES, family) for s in np.linspace(0, 1, 21)]
    )
    assert not rising[0].any()
    assert np.all(np.diff(rising, axis=0) >= 0)
    assert np.abs(np.diff(rising, axis=0)).max() < 0.15
    assert np.allclose(rising[-1], au.spread(PROTOTYPES[family][name]), atol=1e-6)


def test_the_intensity_curve_passes_through_the_everyday_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(EVERYDAY["default"], "happy", 0.45)
    model = type(affect_model())("default")
    smile = SHAPES.index("mouthSmileLeft")
    shown = [model.coefficients(Affect.expression("happy", s), SHAPES)[smile] for s in (0.6, 1.0)]
    assert shown[0] / shown[1] == pytest.approx(0.45, abs=1e-6)
    for s in (0.1, 0.37, 0.8):
        found = model.explain(model.coefficients(Affect.expression("happy", s), SHAPES), SHAPES)
        assert found.expression == "happy"
        assert found.intensity == pytest.approx(s, abs=1e-4)
    monkeypatch.setitem(EVERYDAY["default"], "happy", 0.9)
    with pytest.raises(BadAffect, match="monotone"):
        type(affect_model())("default")


def test_shapes_a_head_lacks_are_left_out_and_foreign_names_stay_zero() -> None:
    row = Affect.expression("happy").coefficients(("jawOpen", "wiggleEars", "mouthSmileLeft"))
    assert row.dtype == np.float32
    assert row[1] == 0
    assert row[0] > 0
    assert row[2] > 0
    with pytest.raises(BadAffect, match="ARKit"):
        Affect.neutral().coefficients(("wiggleEars",))


def test_an_unknown_family_falls_back_and_a_model_name_finds_its_family() -> None:
    happy = Affect.expression("happy")
    assert np.array_equal(happy.coefficients(SHAPES, "flame"), happy.coefficients(SHAPES, "default"))
    assert np.array_equal(happy.coefficients(SHAPES, "ict-facekit"), happy.coefficients(SHAPES, "ict"))
    assert not np.array_equal(happy.coefficients(SHAPES, "ict"), happy.coefficients(SHAPES, "default"))


# --- valence and arousal ---


def test_the_plane_shows_each_expression_near_where_it_was_published() -> None:
    """The mean of many people who show it: a little weaker than the prototype, and named like it."""
    for family in FAMILIES:
        model = affect_model(family)
        for name in EXPRESSIONS:
            valence, arousal = CIRCUMPLEX[name]
            for share in (0.35, 0.6, 0.95):
                found = Affect.va(valence * share, arousal * share)
                direct = model.coefficients(Affect.expression(name, share), SHAPES)
                assert np.abs(model.coefficients(found, SHAPES) - direct).max() < 0.17
                labels = model.labels(found)
                assert labels.expression == name
                assert labels.intensity == pytest.approx(share, abs=0.17)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_plane_is_continuous_and_neutral_in_the_middle(family: str) -> None:
    model = affect_model(family)
    assert not model.coefficients(Affect.va(0, 0), SHAPES).any()
    angle = np.linspace(0, 2 * np.pi, 1801)
    for radius in (0.2, 0.6, 1.0):
        around = np.clip(radius * np.stack([np.cos(angle), np.sin(angle)], axis=1), -1, 1)
        shown = model.batch("valence_arousal", ("valence", "arousal"), around, SHAPES)
        # 0.2 degrees a step; no coefficient crosses its range in less than 4 degrees.
        assert np.abs(np.diff(shown, axis=0)).max() < 0.05
        assert np.allclose(shown[0], shown[-1], atol=1e-6)


@given(signed, signed)
def test_circumplex_weights_are_a_share_of_at_most_two_neighbours(valence: float, arousal: float) -> None:
    weights = circumplex_weights(np.array([valence]), np.array([arousal]))[0]
    assert weights.min() >= 0
    assert weights.sum() <= 1 + 1e-12
    assert (weights > 0).sum() <= 2


def test_the_circumplex_is_continuous_everywhere() -> None:
    angle = np.linspace(0, 2 * np.pi, 3601)
    for radius in (1e-9, 0.1, 0.5, 1.0):
        around = circumplex_weights(
            np.clip(radius * np.cos(angle), -1, 1), np.clip(radius * np.sin(angle), -1, 1)
        )
        # 0.1 degrees a step; the closest two neighbours stand 13 degrees apart.
        assert np.abs(np.diff(around, axis=0)).max() < 0.02 * max(radius, 1e-9) / 0.5
        assert np.allclose(around[0], around[-1], atol=1e-9)
    through = circumplex_weights(np.linspace(-0.6, 0.6, 2401), np.linspace(-0.3, 0.3, 2401)).sum(axis=1)
    assert np.abs(np.diff(through, n=2)).max() < 3e-5  # no kink at the origin; one would be 1e-3
    outward = circumplex_weights(np.linspace(0, 1, 1001) * 0.7, np.linspace(0, 1, 1001) * -0.6)
    assert not outward[0].any()
    assert np.abs(np.diff(outward, axis=0)).max() < 0.003


@settings(deadline=None, max_examples=60)
@given(st.floats(0, 2 * math.pi), st.floats(0, 0.75))
def test_valence_and_arousal_survive_the_way_through_action_units(angle: float, radius: float) -> None:
    valence, arousal = radius * math.cos(angle), radius * math.sin(angle)
    asked = Affect.va(valence, arousal).labels
    assert (asked.valence, asked.arousal) == (valence, arousal)
    back = Affect.aus(asked.aus).labels
    assert math.hypot(back.valence - valence, back.arousal - arousal) < 0.16


# --- action units ---


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", EXPRESSIONS)
def test_an_expression_survives_the_way_through_action_units(family: str, name: str) -> None:
    model = affect_model(family)
    for share in (0.3, 0.6, 0.8):
        asked = model.labels(Affect.expression(name, share))
        again = Affect.aus(asked.aus)
        back = model.labels(again)
        assert back.expression == name
        assert back.intensity == pytest.approx(share, abs=0.06)
        direct = model.coefficients(Affect.expression(name, share), SHAPES)
        assert np.abs(model.coefficients(again, SHAPES) - direct).max() < 0.1


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from([n for n in au.AU_COLUMNS if n[-1] not in "LR"]), unit, max_size=6))
def test_action_units_give_coefficients_in_range_and_labels_as_asked(asked: dict[str, float]) -> None:
    affect = Affect.aus(asked)
    row = affect.coefficients(SHAPES)
    assert row.min() >= 0
    assert row.max() <= 1
    assert affect.labels.aus == {name: value for name, value in asked.items() if value > 0}


def test_a_side_is_the_subjects_and_both_sides_are_the_whole() -> None:
    left = Affect.aus({"AU12L": 0.8}).coefficients(SHAPES)
    assert left[SHAPES.index("mouthSmileLeft")] == np.float32(0.8)
    assert left[SHAPES.index("mouthSmileRight")] == 0
    both = Affect.aus({"AU1L": 0.8, "AU1R": 0.8}).coefficients(SHAPES)
    assert np.array_equal(both, Affect.aus({"AU1": 0.8}).coefficients(SHAPES))
    assert Affect.expression("contempt").labels.aus["AU14R"] > 0.5
    assert "AU14L" not in Affect.expression("contempt").labels.aus


def test_lips_already_parted_by_the_jaw_are_not_parted_twice() -> None:
    wide = Affect.aus({"AU27": 1.0}).coefficients(SHAPES)
    assert np.array_equal(Affect.aus({"AU25": 1.0, "AU26": 1.0, "AU27": 1.0}).coefficients(SHAPES), wide)
    alone = Affect.aus({"AU25": 1.0}).coefficients(SHAPES)
    assert alone[SHAPES.index("mouthLowerDownLeft")] == np.float32(0.3)


# --- refusing nonsense ---


@pytest.mark.parametrize("bad", [math.nan, math.inf, -0.01, 1.01, "x", None, True, [0.5], 1 + 1j])
def test_bad_numbers_are_refused(bad: object) -> None:
    builds: tuple[Callable[[], object], ...] = (
        lambda: Affect.expression("happy", bad),  # type: ignore[arg-type]
        lambda: Affect.aus({"AU12": bad}),  # type: ignore[dict-item]
        lambda: Affect.expression("happy").scaled(bad),  # type: ignore[arg-type]
    )
    for build in builds:
        with pytest.raises(BadAffect, match=r"must be a number in \[0, 1\], got"):
            build()


@pytest.mark.parametrize("bad", [math.nan, -1.01, 1.01, math.inf])
def test_bad_valence_is_refused(bad: float) -> None:
    with pytest.raises(BadAffect, match="valence must be"):
        Affect.va(bad, 0)
    with pytest.raises(BadAffect, match="arousal must be"):
        Affect.va(0, bad)


@pytest.mark.parametrize(
    ("word", "meant"), [("hapy", "happy"), ("Surprised", "surprise"), ("joy", "happy"), ("angry", "anger")]
)
def test_a_misspelt_expression_is_answered_with_the_right_one(word: str, meant: str) -> None:
    with pytest.raises(BadAffect, match=f"did you mean '{meant}'"):
        Affect.expression(word)


def test_other_nonsense_is_refused() -> None:
    builds: tuple[Callable[[], object], ...] = (
        lambda: Affect.expression("tired"),
        lambda: Affect.expression(""),
        lambda: Affect.aus({"AU3": 1.0}),
        lambda: Affect.aus({"AU12": 0.5, "AU12L": 0.5}),
        lambda: Affect.aus([("AU12", 1.0)]),  # type: ignore[arg-type]
        lambda: Affect.blend({"happy": 0.7, "surprise": 0.7}),
        lambda: Affect("moods"),  # type: ignore[arg-type]
    )
    for build in builds:
        with pytest.raises(BadAffect):
            build()
    with pytest.raises(BadAffect, match="did you mean 'AU17'"):
        Affect.aus({"au17": 1.0})


def test_slugs_are_stable() -> None:
    assert Affect.expression("surprise", 0.5).slug == "surprise-0.50"
    assert Affect.neutral().slug == Affect.expression("neutral", 0.4).slug == "neutral-0.00"
    assert Affect.va(0.8, -0.4).slug == "va+0.80-0.40"
    assert Affect.va(-0.0, 0.0).slug == "va+0.00+0.00"
    assert Affect.aus({"AU12": 0.8, "AU1": 1.0}).slug == "AU1-1.00_AU12-0.80"


# --- paths ---


def test_a_path_of_points_is_one_frame_each() -> None:
    path = Affect.path([(0.0, 0.0), (0.8, 0.4)], fps=25)
    assert len(path) == 2
    assert path[1] == Affect.va(0.8, 0.4)
    assert next(iter(path)) == Affect.va(0, 0)
    assert path.times_s.tolist() == [0.0, 0.04]
    assert path.duration_s == 0.08


def test_key_frames_are_met_and_never_overshot() -> None:
    path = Affect.path([(1.0, 0.0, 0.0), (1.5, 1.0, 0.2), (2.0, 1.0, -1.0)], fps=30)
    assert len(path) == 31
    assert path[15] == Affect.va(1.0, 0.2)
    assert path[30] == Affect.va(1.0, -1.0)
    assert path.values[:, 0].max() == 1.0
    assert np.all(np.diff(path.values[:, 0]) >= 0)


@settings(deadline=None, max_examples=80)
@given(st.lists(st.tuples(st.floats(1e-3, 10), signed), min_size=1, max_size=12))
def test_interpolation_stays_between_its_keys(steps: list[tuple[float, float]]) -> None:
    times = np.cumsum([gap for gap, _ in steps])
    values = np.array([[value] for _, value in steps])
    at = np.linspace(times[0], times[-1], 257)
    curve = interpolate(times, values, at)
    for k in range(len(times) - 1):
        inside = curve[(at >= times[k]) & (at <= times[k + 1])]
        low, high = sorted((values[k, 0], values[k + 1, 0]))
        assert np.all((inside >= low) & (inside <= high))
        assert np.all(np.diff(inside[:, 0]) * np.sign(values[k + 1, 0] - values[k, 0]) >= -1e-12)
    assert np.array_equal(interpolate(times, values, times), values)


def test_a_path_of_affects_mixes_smoothly_and_equals_its_frames() -> None:
    path = Affect.path(
        [(0, Affect.neutral()), (0.5, Affect.expression("happy")), (1.0, Affect.expression("surprise", 0.5))],
        fps=60,
    )
    batch = path.coefficients(SHAPES)
    assert batch.shape == (61, 52)
    for index, affect in enumerate(path):
        assert np.allclose(affect.coefficients(SHAPES), batch[index], atol=1e-6)
    assert np.array_equal(path.coefficients(SHAPES, frames=slice(10, 20)), batch[10:20])
    assert np.abs(np.diff(batch, axis=0)).max() < 0.08
    assert path[30] == Affect.expression("happy")
    assert path[10:20][5] == path[15]


def test_sided_and_whole_action_units_share_a_path() -> None:
    path = Affect.path([Affect.aus({"AU12": 0.5}), Affect.neutral(), Affect.aus({"AU12L": 1.0})])
    assert path[0].coefficients(SHAPES).tolist() == Affect.aus({"AU12": 0.5}).coefficients(SHAPES).tolist()
    assert path[2] == Affect.aus({"AU12L": 1.0})


@pytest.mark.parametrize(
    "points",
    [
        [],
        "path",
        7,
        [(0, 0), (0.1, 0.2, 0.3)],
        [(0.0, 0.1, 0.1), (0.0, 0.2, 0.2)],
        [(0, 0), 3],
        [(math.nan, 0)],
        [(0.0, math.inf, 0.0)],
        [(0, 0, 0, 0, 0)],
        [Affect.va(0.1, 0.1), Affect.expression("happy")],
        [(0.0, 0, 0), (9e6, 0, 0)],
    ],
)
def test_bad_points_are_refused(points: object) -> None:
    with pytest.raises(BadAffect):
        Affect.path(points)  # type: ignore[arg-type]


@pytest.mark.parametrize("fps", [0, -1, math.nan, 1e9, "fast"])
def test_bad_rates_are_refused(fps: float) -> None:
    with pytest.raises(BadAffect, match="fps"):
        Affect.path([(0, 0)], fps)


# --- paths from files ---


def read(tmp_path: Path, data: str | bytes, fps: float = 10) -> AffectPath:
    file = tmp_path / "path.csv"
    file.write_bytes(data.encode() if isinstance(data, str) else data)
    return AffectPath.from_csv(file, fps)


def test_csv_of_valence_and_arousal(tmp_path: Path) -> None:
    path = read(tmp_path, "\ufefftime_s, Valence ,arousal\r\n\r\n0,0,0\r\n0.5,0.8,0.4\r\n1,-1,1\r\n")
    assert len(path) == 11
    assert path[5] == Affect.va(0.8, 0.4)
    assert path[10] == Affect.va(-1, 1)


def test_csv_of_action_units_and_of_expressions(tmp_path: Path) -> None:
    path = read(tmp_path, "au12,AU1L,time_s\n0,0,0\n1,0.5,0.2\n")
    assert path[2] == Affect.aus({"AU12": 1.0, "AU1L": 0.5})
    path = read(tmp_path, "time_s,expression,intensity\n0,neutral,0\n1,Happy,1\n2,sad,0.5\n")
    assert path[10] == Affect.expression("happy")
    assert path[20] == Affect.expression("sad", 0.5)
    assert {name for name, _ in path[15].parts} == {"happy", "sad"}


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ("", "empty"),
        ("\n\n", "empty"),
        ("time_s,valence,arousal\n", "no rows"),
        ("valence,arousal\n0,0\n", "line 1"),
        ("time_s,valence\n0,0\n", "line 1"),
        ("time_s,valence,arousal,AU1\n0,0,0,0\n", "line 1"),
        ("time_s,valence,valence\n0,0,0\n", "twice"),
        ("time_s,AU12,AU12L\n0,0,0\n", "overlap"),
        ("time_s;valence;arousal\n0;0;0\n", "line 1"),
        ("time_s,valence,arousal\n0,0,0\n1,nan,0\n", "line 3: valence"),
        ("time_s,valence,arousal\n0,0,0\n1,0\n", "line 3"),
        ("time_s,valence,arousal\n0,0,0,9\n", "line 2"),
        ("time_s,valence,arousal\n0,0,0\n\n0,0,0\n", "line 4: time_s must rise"),
        ("time_s,valence,arousal\n-1,0,0\n", "line 2: time_s"),
        ("time_s,valence,arousal\n0,0,two\n", "line 2: arousal"),
        ("time_s,valence,arousal\n0,0,1.5\n", "line 2: arousal"),
        ("time_s,expression,intensity\n0,gloomy,1\n", "line 2: unknown expression"),
        ("time_s,AU12\n0,1e400\n", "line 2: AU12"),
        ("time_s,AU12\n0,1\n1e7,1\n", "frames"),
        (b"time_s,AU12\n0,\xff\xfe\n", "line 2: not UTF-8"),
        (b"\x00\x01\x02\x03" * 100, "line 1"),
        (b"time_s,AU12\n0,1\n\x001,1\n", "line 3"),
        ('time_s,AU12\n0,"' + "1" * 200_000, "line 2: not CSV"),
        ("," * 5000, "empty"),
        ("a," * 5000, "twice"),
    ],
)
def test_hostile_csv_is_refused_with_its_line(tmp_path: Path, data: str | bytes, says: str) -> None:
    with pytest.raises(BadAffect, match=r"path\.csv|a path of") as caught:
        read(tmp_path, data)
    assert says in str(caught.value)
    assert len(str(caught.value)) < 400
    assert "\n" not in str(caught.value)


def test_csv_limits(tmp_path: Path) -> None:
    with pytest.raises(BadAffect, match="100,000 rows"):
        read(tmp_path, "time_s,AU12\n" + "".join(f"{i},0\n" for i in range(100_001)))
    with pytest.raises(BadAffect, match="16 MiB"):
        read(tmp_path, b"x" * ((16 << 20) + 1))
    for missing in (tmp_path, tmp_path / "nothing.csv"):
        with pytest.raises(BadAffect, match="cannot be read"):
            AffectPath.from_csv(missing)


@settings(deadline=None, max_examples=200)
@given(st.binary(max_size=200))
def test_any_bytes_are_a_path_or_a_clear_refusal(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    folder = tmp_path_factory.mktemp("csv")
    try:
        read(folder, b"time_s,valence,arousal\n" + data)
    except BadAffect as error:
        assert "\n" not in str(error)


def test_a_smile_alone_is_called_happy_and_a_calm_face_what_it_resembles() -> None:
    smile = Affect.aus({"AU12": 0.8}).labels
    assert smile.expression == "happy"
    assert smile.intensity > 0.4
    assert smile.valence > 0.6
    assert Affect.va(*CIRCUMPLEX["content"]).labels.expression == "happy"
    tired = Affect.va(*CIRCUMPLEX["tired"]).labels
    assert (tired.expression, tired.intensity) == ("neutral", 0.0)
    assert tired.aus["AU43"] > 0.4


def test_units_of_one_side_want_their_side() -> None:
    for name in ONE_SIDED_UNITS:
        with pytest.raises(BadAffect, match=f"{name}[LR]"):
            Affect.aus({name: 1.0})
    names = ("jawLeft", "jawRight")
    assert Affect.aus({"AU30L": 0.5}).coefficients(names).tolist() == [0.5, 0.0]
    assert Affect.aus({"AU30R": 0.5}).coefficients(names).tolist() == [0.0, 0.5]
    assert affect_model().explain(np.array([0.0, 0.7], np.float32), names).aus == {
        "AU30R": pytest.approx(0.7)
    }


def test_both_eyes_look_the_same_way_and_are_read_back() -> None:
    names = ("eyeLookInLeft", "eyeLookOutLeft", "eyeLookInRight", "eyeLookOutRight")
    to_the_left = Affect.aus({"AU61": 0.5}).coefficients(names)
    assert to_the_left.tolist() == [0.0, 0.5, 0.5, 0.0]
    assert affect_model().explain(to_the_left, names).aus == {"AU61": pytest.approx(0.5)}


def test_a_path_of_one_sided_units_has_no_columns_of_others() -> None:
    path = Affect.path([Affect.aus({"AU2L": 1.0}), Affect.aus({"AU2": 0.5})])
    assert path.columns == ("AU2L", "AU2R")


@given(st.floats(0, 16))
def test_pain_is_scored_as_it_was_asked(score: float) -> None:
    assert au.pspi(Affect.pain(score).labels.aus) == pytest.approx(score, abs=1e-5)


def test_pain_counts_what_its_score_counts() -> None:
    assert au.pspi(
        {"AU4": 0.2, "AU6": 0.4, "AU7": 0.6, "AU9": 1.0, "AU43": 1.0, "AU12": 1.0}
    ) == pytest.approx(10)
    assert au.pspi({"AU4L": 1.0, "AU10R": 0.2}) == pytest.approx(6)
    with pytest.raises(BadAffect, match=r"pain.*16"):
        Affect.pain(17)
