"""The fit by texture: its derivatives, what it recovers, how fast it is, what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner

from benchmarks.texture_fit import Errors, errors, own_texture
from fastface.cli.app import app
from fastface.engine import Engine, FittedFace
from fastface.errors import BadArgument, BadModelFile
from fastface.exports.models.rendered_heads import Head, painted
from fastface.features import FEATURES, dense_features, sample
from fastface.fitting import FaceFitter, Fit
from fastface.landmarks import LandmarkDetector
from fastface.morphable import load_default
from fastface.painted_face import Painter
from fastface.texture_fitting import TextureFitter, Weights, _started, _Term, face_vertices
from fastface.texture_model import DEFAULT_TEXTURE, TextureModel

Array = NDArray[np.float64]
Seen = tuple[Head, NDArray[np.float32]]


@pytest.fixture(scope="module")
def fitter() -> FaceFitter:
    return FaceFitter(load_default())


@pytest.fixture(scope="module")
def texture() -> TextureModel:
    return TextureModel.load(DEFAULT_TEXTURE)


@pytest.fixture(scope="module")
def heads(fitter: FaceFitter) -> list[Seen]:
    """Painted heads of known shape and camera, in light that the texture model has not seen, as detected."""
    rng, painter, detector = np.random.default_rng(3), Painter(fitter.model), LandmarkDetector()
    drawn = [painted(painter, rng) for _ in range(6)]
    return [(head, detector.detect(head.image)[0].points_px) for head in drawn]


def term_of(whole: TextureFitter, head: Head, points: NDArray[np.float32]) -> tuple[_Term, Fit]:
    fit = whole.fitter.fit(points, *head.image.shape[:2])
    scene = whole._scene(head.image, fit, None)
    return whole._robust(scene, _started(fit, 6.5)), fit


# ---------------------------------------------------------------------------------------------- derivatives


@pytest.mark.parametrize("name", FEATURES)
def test_slopes_of_samples_are_those_of_the_samples(name: str, heads: list[Seen]) -> None:
    features = dense_features(heads[0][0].image, name)
    assert features.shape[2] == FEATURES[name].channels
    points = np.random.default_rng(0).uniform(100, 500, (200, 2))
    points = np.floor(points) + 0.5 + np.clip(points % 1, 0.1, 0.9)  # off the kinks between pixels
    slopes = sample(features, points).slopes
    for axis in range(2):
        step = np.eye(2)[axis] * 0.05
        change = (sample(features, points + step).values - sample(features, points - step).values) / 0.1
        np.testing.assert_allclose(slopes[:, :, axis], change, atol=1e-4 * max(features.max(), 1))


def test_derivatives_are_those_of_the_cost(
    fitter: FaceFitter, texture: TextureModel, heads: list[Seen]
) -> None:
    """Half the gradient, by each number of the camera, some of identity and some of expression."""
    term, fit = term_of(TextureFitter(fitter, texture), *heads[0])
    state = _started(fit, 6.5)
    look = term.look(state)
    normal = term.normal(look)
    for unknown in (*range(7), 7, 12, 30, 66, 67, 80, 118):
        step = np.zeros(len(look.gradient))
        # Small, since samples have kinks between pixels, and no smaller than single precision bears.
        step[unknown] = 2e-3 / np.sqrt(max(normal[unknown, unknown], 1e-9))
        ahead, behind = term.look(state.moved(step)).cost, term.look(state.moved(-step)).cost
        slope = (ahead - behind) / (2 * step[unknown])
        scale = np.sqrt(normal[unknown, unknown] * look.cost)
        assert slope == pytest.approx(2 * look.gradient[unknown], abs=0.02 * scale), unknown


def test_matrix_is_that_of_the_projected_residuals(
    fitter: FaceFitter, texture: TextureModel, heads: list[Seen]
) -> None:
    """JᵀPJ made from 2 × 2 matrices a point is the one made from every channel by differences."""
    term, fit = term_of(TextureFitter(fitter, texture), *heads[1])
    state = _started(fit, 6.5)
    look = term.look(state)
    unknowns = [0, 1, 3, 5, 6, 7, 20, 70]
    columns = []
    for unknown in unknowns:
        step = np.zeros(len(look.gradient))
        step[unknown] = 1e-3 / np.sqrt((look.projection.jacobian(term.scene.axes)[unknown] ** 2).max())
        change = term.look(state.moved(step)).residual - term.look(state.moved(-step)).residual
        columns.append(term.left(change / np.float32(2 * step[unknown])).ravel())
    wanted = np.array(columns, np.float64) @ np.array(columns, np.float64).T
    size = np.sqrt(np.outer(np.diag(wanted), np.diag(wanted)))
    found = term.normal(look)[np.ix_(unknowns, unknowns)]
    np.testing.assert_allclose(np.tril(found / size), np.tril(wanted / size), atol=0.05)


def test_textures_of_the_model_are_projected_out(
    fitter: FaceFitter, texture: TextureModel, heads: list[Seen]
) -> None:
    """A face that differs from the mean by any texture of the model costs no more than the mean itself."""
    term, fit = term_of(TextureFitter(fitter, texture), *heads[0])
    amounts = np.linspace(-2, 2, len(term.scene.components)).astype(np.float32)
    other = term.scene.texture + np.tensordot(amounts, term.scene.components, axes=1)
    moved = replace(term, scene=replace(term.scene, texture=other.astype(np.float32)))
    state = _started(fit, 6.5)
    plain = float((term.look(state).residual ** 2).sum())
    assert float((moved.look(state).residual ** 2).sum()) > 1.1 * plain
    assert moved.look(state).cost == pytest.approx(term.look(state).cost, rel=1e-3)


# --------------------------------------------------------------------------------------------- what it gives


def mean_errors(
    fitter: FaceFitter, heads: list[Seen], fit: Callable[[Head, NDArray[np.float32]], Fit]
) -> Errors:
    face = face_vertices(fitter.model)
    found = [vars(errors(fitter.model, face, head, fit(head, points))) for head, points in heads]
    return Errors(**{name: float(np.mean([each[name] for each in found])) for name in found[0]})


def test_a_head_whose_texture_is_known_is_found(fitter: FaceFitter, heads: list[Seen]) -> None:
    """Within 1 % of the eyes' distance and 1°, from landmarks that are 2 % and 3° off."""

    def knowing(head: Head, points: NDArray[np.float32]) -> Fit:
        known = TextureFitter(fitter, own_texture(fitter, head), Weights(texture=10))
        return known.fit(head.image, points)

    both = mean_errors(fitter, heads, knowing)
    assert both.face < 0.5
    assert both.inner < 0.5
    assert both.pose_deg < 1.0


def test_texture_brings_heads_of_known_shape_nearer(
    fitter: FaceFitter, texture: TextureModel, heads: list[Seen]
) -> None:
    whole = TextureFitter(fitter, texture)
    alone = mean_errors(fitter, heads, lambda head, points: fitter.fit(points, *head.image.shape[:2]))
    both = mean_errors(fitter, heads, lambda head, points: whole.fit(head.image, points))
    assert both.face < 0.8 * alone.face
    assert both.inner < 1.1
    assert both.inner < 0.75 * alone.inner
    assert both.shape_mm < 0.85 * alone.shape_mm
    assert both.pose_deg < alone.pose_deg


def test_what_a_mask_hides_does_not_matter(
    fitter: FaceFitter, texture: TextureModel, heads: list[Seen]
) -> None:
    head, points = heads[0]
    whole = TextureFitter(fitter, texture)
    height, width = head.image.shape[:2]
    middle = points[5].astype(int)  # the nose: half the face is covered
    mask = np.ones((height, width), bool)
    mask[:, : middle[0]] = False
    covered = head.image.copy()
    covered[~mask] = np.random.default_rng(0).integers(0, 255, covered[~mask].shape)
    kept = [whole.fit(image, points, mask=mask) for image in (head.image, covered)]
    # The border of the mask is seen through the features' reach.
    assert np.abs(kept[0].identity - kept[1].identity).max() < 0.5
    unmasked = whole.fit(covered, points)
    assert (
        np.abs(kept[0].identity - unmasked.identity).max() > np.abs(kept[0].identity - kept[1].identity).max()
    )


def test_engine_fits_photographs_by_texture(portrait: Callable[..., NDArray[np.uint8]]) -> None:
    engine = Engine(threads=1)
    photo = portrait("001", 512, 512)
    plain, textured = engine.fit(photo), engine.fit(photo, texture=True)
    assert np.abs(plain.identity - textured.identity).max() > 0.01
    assert textured.fit_error_unwarped_px.mean() < 0.03 * textured.eye_distance_px
    turn = plain.rotation @ textured.rotation.T
    assert np.degrees(np.arccos((np.trace(turn) - 1) / 2)) < 6
    assert (engine.render(textured) == photo).all()  # neutral stays the photo


def test_the_command_fits_by_texture(shared: Path, tmp_path: Path) -> None:
    photo = str(shared / "data" / "photos" / "cc0" / "lisa1.jpg")
    for name, options in (("plain", []), ("textured", ["--texture"])):
        command = ["fit", photo, *options, "-o", str(tmp_path / f"{name}.npz")]
        assert CliRunner().invoke(app, command).exit_code == 0
    plain, textured = (FittedFace.load(tmp_path / f"{name}.npz") for name in ("plain", "textured"))
    assert np.abs(plain.identity - textured.identity).max() > 0.01


# ------------------------------------------------------------------------------------------------- refusals


def test_a_texture_model_survives_its_file(texture: TextureModel, tmp_path: Path) -> None:
    texture.save(tmp_path / "texture.npz")
    again = TextureModel.load(tmp_path / "texture.npz")
    for name, value in vars(texture).items():
        np.testing.assert_array_equal(getattr(again, name), value)


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("feature", "colours", "feature must be"),
        ("model_hash", "short", "64 hex"),
        ("mean", np.zeros((10, 3), np.float32), "mean must be"),
        ("components", np.zeros((2, 10, 4), np.float16), "components must be"),
        ("precision", np.full(9249, np.nan, np.float32), "precision must be finite"),
        ("precision", np.full(9249, -1, np.float32), "negative"),
        ("precision", np.zeros(9249, np.float32), "some vertex"),
        ("license", "", "license must have"),
    ],
)
def test_a_wrong_texture_model_is_refused(
    texture: TextureModel, tmp_path: Path, field: str, value: object, said: str
) -> None:
    with pytest.raises(BadModelFile, match=said):
        replace(texture, **{field: value}).save(tmp_path / "texture.npz")  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "texture.npz").write_bytes(b"PK\x03\x04 not a model")
    with pytest.raises(BadModelFile):
        TextureModel.load(tmp_path / "texture.npz")


def test_a_texture_of_another_head_is_refused(fitter: FaceFitter, texture: TextureModel) -> None:
    with pytest.raises(BadModelFile, match="another head model"):
        TextureFitter(fitter, replace(texture, model_hash="0" * 64))


def test_wrong_arguments_are_refused(fitter: FaceFitter, texture: TextureModel, heads: list[Seen]) -> None:
    head, points = heads[0]
    for weights in ({"shape": 0.0}, {"texture": -1.0}, {"landmarks": float("nan")}):
        with pytest.raises(BadArgument, match="weights"):
            Weights(**weights)
    with pytest.raises(BadArgument, match="mask must be"):
        TextureFitter(fitter, texture).fit(head.image, points, mask=np.ones((3, 3), bool))
    with pytest.raises(BadArgument, match="texture must be"):
        Engine(threads=1).fit(head.image, texture="yes")  # type: ignore[arg-type]
    with pytest.raises(BadArgument, match="wanted one of the features"):
        dense_features(head.image, "colours")
