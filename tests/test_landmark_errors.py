"""What the landmark network gets wrong: the term's derivatives, how it is learned, what the file says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from fastface.camera import FLIP, rotation_of
from fastface.errors import BadModelFile
from fastface.exports.models.build_landmark_errors import Readings, learn_errors, painted_heads, read
from fastface.fitting import FaceFitter, State
from fastface.landmark_errors import (
    DEFAULT_ERRORS,
    LandmarkErrors,
    LandmarkTerm,
    level_frame,
    terms,
)
from fastface.landmark_tables import MIRROR478, POINT_COUNT
from fastface.morphable import load_default

Array = NDArray[np.float64]
MIRROR = np.array(MIRROR478)


@pytest.fixture(scope="module")
def fitter() -> FaceFitter:
    return FaceFitter(load_default())


@pytest.fixture(scope="module")
def errors() -> LandmarkErrors:
    return LandmarkErrors.load(DEFAULT_ERRORS)


@pytest.fixture(scope="module")
def marks_mm(fitter: FaceFitter) -> Array:
    model = fitter.model
    return model.landmarks478.points(model.vertices, model.triangles).astype(np.float64)


def photographed(fitter: FaceFitter, seed: int = 0) -> tuple[State, Array]:
    """A state, and landmarks that it does not fit."""
    rng = np.random.default_rng(seed)
    rotation = rotation_of(np.radians([8, 14, 5])) @ FLIP
    shape = np.concatenate([rng.standard_normal(60), rng.uniform(0, 0.2, len(fitter._basis) - 60)])
    place = np.array([10.0, -5.0, 620.0])
    state = State(rotation, place, np.log(800), 6.7, np.full(2, 320.0), shape, 0 * shape)
    true = state.camera().project(fitter._shaped(shape) @ rotation.T + place)
    return state, true + rng.normal(0, 1.5, (POINT_COUNT, 2))


def term_of(fitter: FaceFitter, errors: LandmarkErrors, landmarks_px: Array) -> LandmarkTerm:
    return LandmarkTerm.of(errors, 0.5, (fitter._mean, fitter._basis, fitter._axes), landmarks_px)


# ------------------------------------------------------------------------------------------------- the term


def test_cost_is_that_of_the_covariance(fitter: FaceFitter, errors: LandmarkErrors) -> None:
    """Half of eᵀ Σ⁻¹ e, with Σ written out and e read off the landmarks."""
    state, landmarks = photographed(fitter)
    level, eye_px = level_frame(landmarks)
    model = fitter._shaped(state.shape) @ state.rotation.T + state.translation
    off = (landmarks - state.camera().project(model)) @ level.T * (100 / eye_px)
    bias, modes, rest = (getattr(errors, name).astype(np.float64) for name in ("bias", "modes", "rest"))
    off = (off - np.tensordot(terms(level @ state.rotation[:2, 2]), bias, axes=1)).ravel()
    flat = modes.reshape(len(modes), -1)
    wanted = off @ np.linalg.solve(flat.T @ flat + np.diag(rest.ravel() ** 2), off)
    assert term_of(fitter, errors, landmarks).look(state).cost == pytest.approx(0.5 * wanted, rel=1e-3)


def test_derivatives_are_those_of_the_cost(fitter: FaceFitter, errors: LandmarkErrors) -> None:
    state, landmarks = photographed(fitter)
    term = term_of(fitter, errors, landmarks)
    look = term.look(state)
    normal = term.normal(look)
    for unknown in (*range(7), 7, 12, 30, 66, 67, 80, 118):
        step = np.zeros(len(look.gradient))
        step[unknown] = 1e-2 / np.sqrt(normal[unknown, unknown])
        ahead, behind = (term.look(state.moved(sign * step)).cost for sign in (1, -1))
        slope = (ahead - behind) / (2 * step[unknown])
        scale = np.sqrt(normal[unknown, unknown] * look.cost)
        assert slope == pytest.approx(2 * look.gradient[unknown], abs=2e-3 * scale), unknown


def test_matrix_is_that_of_the_jacobian(fitter: FaceFitter, errors: LandmarkErrors) -> None:
    """By differences of half the gradient, where landmarks fit: there it is the Hessian."""
    state, _ = photographed(fitter)
    true = state.camera().project(fitter._shaped(state.shape) @ state.rotation.T + state.translation)
    landmarks = true
    for _ in range(8):  # the level frame is that of the landmarks themselves
        level, eye_px = level_frame(landmarks)
        bias = np.tensordot(terms(level @ state.rotation[:2, 2]), errors.bias.astype(np.float64), axes=1)
        landmarks = true + bias @ level * (eye_px / 100)
    term = term_of(fitter, errors, landmarks)
    assert term.look(state).cost < 1e-6
    normal = term.normal(term.look(state))
    normal = np.tril(normal) + np.tril(normal, -1).T
    for unknown in (0, 1, 2, 3, 5, 6, 9, 70):
        step = np.zeros(len(normal))
        step[unknown] = 1e-2 / np.sqrt(normal[unknown, unknown])
        ahead, behind = (term.look(state.moved(sign * step)).gradient for sign in (1, -1))
        change = (ahead - behind) / (2 * step[unknown])
        size = np.sqrt(np.diag(normal) * normal[unknown, unknown])
        np.testing.assert_allclose(change / size, normal[unknown] / size, atol=5e-3)


def test_the_bias_turns_with_the_face(fitter: FaceFitter, errors: LandmarkErrors) -> None:
    """A roll of the camera changes neither cost nor what a turn by the bias costs."""
    state, landmarks = photographed(fitter)
    roll = rotation_of(np.array([0, 0, 0.3]))
    rolled = replace(state, rotation=roll @ state.rotation, translation=roll @ state.translation)
    turned = (landmarks - 320) @ roll[:2, :2].T + 320
    cost = term_of(fitter, errors, landmarks).look(state).cost
    assert term_of(fitter, errors, turned).look(rolled).cost == pytest.approx(cost, rel=1e-4)


# ------------------------------------------------------------------------------------------ how it is learned


def test_bias_and_covariance_come_back(marks_mm: Array) -> None:
    """A known bias in the direction, and errors in concert, of two kinds that differ by a constant."""
    rng = np.random.default_rng(0)

    def symmetric(field: Array, sign: int) -> Array:
        return (field + sign * field[MIRROR] * [-1, 1]) / 2

    by_x, by_y = (symmetric(rng.standard_normal((POINT_COUNT, 2)), sign) * 4 for sign in (-1, 1))
    mode = symmetric(rng.standard_normal((POINT_COUNT, 2)), 1) / 2
    constant = symmetric(rng.standard_normal((POINT_COUNT, 2)), 1)
    kinds = []
    for sign in (1, -1):
        directions = rng.uniform(-0.4, 0.4, (600, 2))
        amounts = rng.standard_normal((600, 1, 1))
        noise = 0.1 * rng.standard_normal((600, POINT_COUNT, 2))
        x, y = directions.T[:, :, None, None]
        kinds.append(Readings(directions, x * by_x + y * by_y + sign * constant + amounts * mode + noise))
    made = learn_errors(kinds, marks_mm, source="test", license="none")
    np.testing.assert_allclose(made.bias[1], by_x, atol=0.5)
    np.testing.assert_allclose(made.bias[2], by_y, atol=0.5)
    assert np.abs(made.bias[0]).max() < 0.2  # what the kinds do not agree about is error
    variance = (made.modes.astype(float) ** 2).sum(axis=0) + made.rest.astype(float) ** 2
    wanted = mode**2 + 2 / 3 * constant**2 + 0.01
    assert np.corrcoef(variance.ravel(), wanted.ravel())[0, 1] > 0.95
    space = made.modes.reshape(len(made.modes), -1)[:4].astype(float)
    for known in (mode.ravel(), constant.ravel()):
        left = known - np.linalg.lstsq(space.T, known, rcond=None)[0] @ space
        assert np.linalg.norm(left) < 0.3 * np.linalg.norm(known)


def test_the_file_that_ships_foretells_errors(
    fitter: FaceFitter, errors: LandmarkErrors, marks_mm: Array
) -> None:
    """Of heads that it has not seen: part of them, and in which modes the rest lies."""
    seen = read(fitter.model, painted_heads(fitter.model, 24, seed=99))
    left = seen.errors - np.tensordot(terms(seen.directions), errors.bias.astype(float), axes=1)
    assert (left**2).mean() < 0.8 * (seen.errors**2).mean()
    flat = errors.modes.reshape(len(errors.modes), -1).astype(float)
    rest = errors.rest.astype(float).ravel()
    covariance = flat.T @ flat + np.diag(rest**2)

    def surprise(covariance: Array) -> float:
        """-2 log of the likelihood of what the direction leaves."""
        off = left.reshape(len(left), -1)
        squares = np.einsum("nl,lm,nm->n", off, np.linalg.inv(covariance), off).mean()
        return float(squares + np.linalg.slogdet(covariance)[1])

    assert surprise(covariance) < surprise(np.diag(np.diag(covariance)))


def test_the_file_that_ships_is_symmetric(errors: LandmarkErrors) -> None:
    """A mirrored face has mirrored errors."""
    signs = np.array([1, -1, 1, 1, -1, 1])[:, None, None]  # of x and x y
    mirrored = errors.bias[:, MIRROR] * [-1, 1] * signs
    np.testing.assert_allclose(errors.bias.astype(float), mirrored, atol=0.02)
    np.testing.assert_allclose(errors.rest, errors.rest[MIRROR], atol=2e-3)


# ------------------------------------------------------------------------------------------------- refusals


def test_errors_survive_their_file(errors: LandmarkErrors, tmp_path: Path) -> None:
    errors.save(tmp_path / "errors.npz")
    again = LandmarkErrors.load(tmp_path / "errors.npz")
    assert (again.source, again.license) == (errors.source, errors.license)
    for name in ("bias", "modes", "rest"):
        np.testing.assert_array_equal(getattr(again, name), getattr(errors, name))
    assert DEFAULT_ERRORS.stat().st_size < 300_000


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("bias", np.zeros((5, POINT_COUNT, 2), np.float16), "bias must be"),
        ("bias", np.full((6, POINT_COUNT, 2), np.nan, np.float16), "bias must be finite"),
        ("modes", np.zeros((3, 68, 2), np.float16), "modes must be"),
        ("modes", np.zeros((201, POINT_COUNT, 2), np.float16), "at most 200 modes"),
        ("rest", np.ones((POINT_COUNT, 3), np.float16), "rest must be"),
        ("rest", np.zeros((POINT_COUNT, 2), np.float16), "rest must be at least"),
        ("license", "", "license must have"),
    ],
)
def test_wrong_errors_are_refused(
    errors: LandmarkErrors, tmp_path: Path, field: str, value: object, said: str
) -> None:
    with pytest.raises(BadModelFile, match=said):
        replace(errors, **{field: value}).save(tmp_path / "errors.npz")  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "errors.npz").write_bytes(b"PK\x03\x04 not a model")
    with pytest.raises(BadModelFile):
        LandmarkErrors.load(tmp_path / "errors.npz")
