"""Directions in W, where the truth is known: scorers that are linear in w."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from fastface.errors import BadArgument, BadModelFile
from fastface.generators.directions import Attribute, Directions, edit, learn

SHA = "ab" * 32
SIZE = 48


def cosine(a: NDArray[np.floating], b: NDArray[np.floating]) -> float:
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


@pytest.fixture(scope="module")
def latents() -> NDArray[np.float32]:
    """Correlated, off the origin, of uneven spread: as mapping networks give them."""
    random = np.random.default_rng(3)
    blend = random.normal(size=(SIZE, SIZE)) / np.sqrt(SIZE) + np.eye(SIZE)
    return (random.normal(size=(600, SIZE)) @ blend + random.normal(size=SIZE)).astype(np.float32)


@pytest.fixture(scope="module")
def truths() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Two attributes whose directions have a cosine of 0.6."""
    random = np.random.default_rng(4)
    first, other = np.linalg.qr(random.normal(size=(SIZE, 2)))[0].T
    return first, 0.6 * first + 0.8 * other


def test_a_linear_score_gives_its_direction_back(
    latents: NDArray[np.float32], truths: tuple[NDArray[np.float64], ...]
) -> None:
    noise = np.random.default_rng(5).normal(size=len(latents))
    scores = latents @ truths[0] * 2.5 + 7 + 0.3 * noise
    found = learn(latents, [Attribute("age", scores)], SHA)["age"]
    assert cosine(found.vector, truths[0]) > 0.98
    assert found.about["r2"] > 0.95
    spread = (latents @ truths[0]).std()
    assert np.linalg.norm(found.vector) == pytest.approx(spread, rel=0.05)  # a unit is a standard deviation
    w = np.tile(latents[0], (4, 1))
    assert found.score(w) == pytest.approx(scores[0], abs=1.5)
    reached = edit(w, [(found, found.strength_to(w, 20.0))])
    assert found.score(reached) == pytest.approx(20.0, abs=1e-3)


def test_worth_is_measured_on_samples_that_no_fit_saw(latents: NDArray[np.float32]) -> None:
    noise = np.random.default_rng(6).normal(size=len(latents))
    found = learn(latents[:100], [Attribute("chance", noise[:100])], SHA)["chance"]
    assert found.about["r2"] < 0.2  # 80 samples, 48 unknowns: in-sample it would be above a half


def test_yes_or_no_is_fitted_by_logistic_regression(
    latents: NDArray[np.float32], truths: tuple[NDArray[np.float64], ...]
) -> None:
    clear = (latents - latents.mean(axis=0)) @ truths[0]
    glasses = (clear + 0.05 * np.random.default_rng(7).normal(size=len(clear)) > 0.2).astype(float)
    found = learn(latents, [Attribute("glasses", glasses, "logistic")], SHA)["glasses"]
    assert cosine(found.vector, truths[0]) > 0.95
    assert found.about["accuracy"] > 0.9
    assert 0.2 < found.about["share_with"] < 0.5


def test_correlated_attributes_move_one_and_leave_the_other(
    latents: NDArray[np.float32], truths: tuple[NDArray[np.float64], ...]
) -> None:
    scores = [latents @ truth for truth in truths]
    plain = learn(latents, [Attribute("smile", scores[0]), Attribute("age", scores[1])], SHA)
    kept = learn(
        latents,
        [Attribute("smile", scores[0], against=("age",)), Attribute("age", scores[1], against=("smile",))],
        SHA,
    )
    w = np.tile(latents[1], (6, 1))

    def change(directions: Directions, of: int) -> float:
        moved = edit(w, [(directions["smile"], 2.0)])
        return float((moved - w)[0] @ truths[of])

    assert abs(change(plain, 1)) > 1  # without orthogonalisation age moves along
    assert change(kept, 0) > 1
    assert abs(change(kept, 1)) < 0.01 * change(kept, 0)
    effects = kept.effects()
    assert abs(effects[0, 1]) < 1e-4
    assert abs(effects[1, 0]) < 1e-4
    assert effects[0, 0] > 0.5
    assert kept["smile"].about["left_beside_others"] == pytest.approx(0.8, abs=0.02)


def test_samples_without_a_score_are_left_out(
    latents: NDArray[np.float32], truths: tuple[NDArray[np.float64], ...]
) -> None:
    scores = latents @ truths[0]
    holes = scores.copy()
    holes[::3] = np.nan
    found = learn(latents, [Attribute("yaw", holes), Attribute("all", scores)], SHA)
    assert found["yaw"].about["samples"] == 400
    assert found["all"].about["samples"] == 600
    assert cosine(found["yaw"].vector, truths[0]) > 0.999


def test_layers_are_moved_alone(latents: NDArray[np.float32]) -> None:
    found = learn(latents, [Attribute("x", latents[:, 0])], SHA)["x"]
    w = np.tile(latents[0], (8, 1))
    moved = edit(w, [(found, -1.5)], layers=(4, 5))
    assert np.array_equal(moved[[0, 1, 2, 3, 6, 7]], w[[0, 1, 2, 3, 6, 7]])
    assert np.allclose(moved[4] - w[4], -1.5 * found.vector, atol=1e-5)
    w[:] = 0.0
    strength = found.strength_to(w, 3.0, layers=(4, 5))
    assert found.score(edit(w, [(found, strength)], layers=(4, 5))) == pytest.approx(3.0, abs=1e-3)


@pytest.mark.parametrize(
    ("attributes", "says"),
    [
        ([Attribute("a", np.zeros(600))], "the same for all"),
        ([Attribute("a", np.full(600, np.nan))], "at least 50 samples with a score, got 0 of 600"),
        ([Attribute("a", np.zeros(10))], "wanted (600,) scores"),
        ([], "wanted attributes"),
        ([Attribute("a", np.arange(600.0)), Attribute("a", np.arange(600.0))], "each once"),
        ([Attribute("a", np.arange(600.0), against=("b",))], "cannot be kept apart from 'b'"),
        ([Attribute("a", np.ones(600), "logistic")], "only one kind"),
    ],
)
def test_what_cannot_be_learned_is_refused(
    latents: NDArray[np.float32], attributes: list[Attribute], says: str
) -> None:
    with pytest.raises(BadArgument, match=says.replace("(", r"\(").replace(")", r"\)")):
        learn(latents, attributes, SHA)


def test_one_attribute_under_two_names_cannot_be_kept_apart(latents: NDArray[np.float32]) -> None:
    score = latents[:, 0] * 2 + 1
    with pytest.raises(BadArgument, match="next to nothing of it"):
        learn(latents, [Attribute("a", score, against=("b",)), Attribute("b", -3 * score)], SHA)


def test_directions_come_back_from_their_file(tmp_path: Path, latents: NDArray[np.float32]) -> None:
    found = learn(latents, [Attribute("a", latents[:, 0]), Attribute("é", latents[:, 1])], SHA)
    found.save(tmp_path / "d.npz")
    again = Directions.load(tmp_path / "d.npz")
    assert list(again.by_name) == ["a", "é"]
    assert again.generator_sha256 == SHA
    assert np.array_equal(again["é"].vector, found["é"].vector)
    assert again["a"].about == found["a"].about
    with pytest.raises(BadArgument, match="no direction 'b'; there are a, é"):
        again["b"]


def test_hostile_files_are_refused(tmp_path: Path, latents: NDArray[np.float32]) -> None:
    learn(latents, [Attribute("a", latents[:, 0])], SHA).save(tmp_path / "d.npz")
    good = dict(np.load(tmp_path / "d.npz"))
    bad = {
        "format": np.array("fastface-latent"),
        "version": np.array(2, "<i4"),
        "vectors": np.full((1, SIZE), np.nan, "<f4"),
        "normals": np.zeros((1, SIZE + 1), "<f4"),
        "about": np.array([json.dumps({"score_spread": -1})]),
        "names": np.array([{"a": 1}], dtype=object),
    }
    for name, value in bad.items():
        np.savez(tmp_path / "bad.npz", **{**good, name: value})
        with pytest.raises(BadModelFile):
            Directions.load(tmp_path / "bad.npz")
    data = (tmp_path / "d.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(data[: len(data) // 2])
    with pytest.raises(BadModelFile):
        Directions.load(tmp_path / "cut.npz")
