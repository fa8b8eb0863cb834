"""Texture models of one's own: what is learned of known faces, and the commands that learn."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner

from fastface.cli.app import app
from fastface.engine import Engine, FittedFace
from fastface.errors import BadArgument, BadModelFile
from fastface.exports.models.build_texture import build
from fastface.exports.models.rendered_heads import painted
from fastface.images import read_image, write_image
from fastface.morphable import HeadModel, load_default
from fastface.painted_face import Painter
from fastface.texture_model import DEFAULT_TEXTURE, TextureModel
from fastface.workshop.model_plots import shape_sheet, texture_sheet
from fastface.workshop.photographs import PhotoReader, Settings, gathered, photos_in, sample_photos
from fastface.workshop.texture import Learned, learn_texture

Array = NDArray[Any]
VERTICES = 400  # that the made-up faces have a texture at


@pytest.fixture(scope="module")
def head() -> HeadModel:
    return load_default()


def made_up(head: HeadModel, faces: int = 24, channels: int = 4) -> tuple[Array, Array, Array, Array]:
    """Faces of a known mean (V, C) and two known components (2, V, C); their amounts; values (M, V, C)."""
    rng = np.random.default_rng(0)
    known, true = rng.standard_normal((VERTICES, channels)), rng.standard_normal((2, VERTICES, channels))
    amounts = rng.standard_normal((faces, 2))
    values = np.zeros((faces, len(head.vertices), channels), np.float32)
    values[:, :VERTICES] = known + np.tensordot(amounts, true, axes=1)
    return known, true, amounts, values


def learned(head: HeadModel, values: Array, seen: Array, feature: str = "gradients", **more: Any) -> Learned:
    return learn_texture(head, values, seen, feature=feature, source="test", license="none", **more)


def missed(found: TextureModel, true: Array) -> float:
    """What of the true components is not spanned by the found ones, relative."""
    space = found.components[:, : true.shape[1]].reshape(len(found.components), -1).astype(float)
    flat = true.reshape(len(true), -1)
    off = flat - np.linalg.lstsq(space.T, flat.T, rcond=None)[0].T @ space
    return float(np.linalg.norm(off) / np.linalg.norm(true))


# ----------------------------------------------------------------------------------------------- statistics


@pytest.mark.parametrize("robust", [True, False])
def test_a_texture_is_learned_from_what_each_face_shows(head: HeadModel, robust: bool) -> None:
    """Mean and components of a known linear model come back, though no face shows every vertex."""
    known, true, amounts, values = made_up(head)
    rng = np.random.default_rng(1)
    values[:, :VERTICES] += 0.01 * rng.standard_normal((24, VERTICES, 4)).astype(np.float32)
    seen = np.zeros(values.shape[:2], bool)
    seen[:, :VERTICES] = rng.random((24, VERTICES)) < 0.7
    values[~seen] = 1e3  # what is not seen must not be looked at
    made = learned(head, values, seen, components=2, robust=robust).texture
    made.check(head)
    # Where a vertex is not understood, noise of 0.01 is told off here and there as something else.
    assert np.quantile(made.precision[:VERTICES], 0.05 if robust else 0) > 300
    assert not made.precision[VERTICES:].any()
    wanted = known + np.tensordot(amounts.mean(0), true, axes=1)
    off = np.abs(made.mean[:VERTICES] - wanted)
    assert np.quantile(off, 0.98 if robust else 1) < 0.05
    assert missed(made, true) < 0.05


def test_what_lies_before_faces_is_told_off(head: HeadModel) -> None:
    """A tenth of what is seen of the faces is something else, and large."""
    known, true, amounts, values = made_up(head)
    rng = np.random.default_rng(2)
    seen = np.zeros(values.shape[:2], bool)
    seen[:, :VERTICES] = rng.random((24, VERTICES)) < 0.8
    hand = rng.random((24, VERTICES)) < 0.1
    values[:, :VERTICES][hand] = rng.uniform(-8, 8, (int(hand.sum()), 4))
    plain = learned(head, values, seen, components=2, robust=False)
    robust = learned(head, values, seen, components=2)
    wanted = known + np.tensordot(amounts.mean(0), true, axes=1)
    off = [float(np.abs(each.texture.mean[:VERTICES] - wanted).mean()) for each in (plain, robust)]
    assert off[1] < 0.25 * off[0]
    assert missed(robust.texture, true) < 0.25 * missed(plain.texture, true)
    assert robust.gross == pytest.approx(0.1, abs=0.06)
    assert plain.gross == 0


@pytest.mark.parametrize("robust", [True, False])
def test_clean_and_whole_it_is_plain_principal_components(head: HeadModel, robust: bool) -> None:
    """Against the singular value decomposition, written out."""
    _, _, _, values = made_up(head)
    seen = np.zeros(values.shape[:2], bool)
    seen[:, :VERTICES] = True
    made = learned(head, values, seen, robust=robust)
    flat = values[:, :VERTICES].reshape(24, -1).astype(np.float64)
    _, strength, directions = np.linalg.svd(flat - flat.mean(0), full_matrices=False)
    assert len(made.explained) == 2
    np.testing.assert_allclose(made.explained, (strength**2 / (strength**2).sum())[:2], atol=1e-4)
    np.testing.assert_allclose(made.texture.mean[:VERTICES].ravel(), flat.mean(0), atol=1e-4)
    found = made.texture.components[:, :VERTICES].reshape(2, -1).astype(np.float64)
    for mode, direction, one in zip(found, directions, strength, strict=False):
        reference = direction * one / np.sqrt(23)
        sign = np.sign(mode @ reference)
        np.testing.assert_allclose(sign * mode, reference, atol=4e-3)


def test_components_are_as_many_as_the_variance_asks_for(head: HeadModel) -> None:
    rng = np.random.default_rng(3)
    values = np.zeros((40, len(head.vertices), 3), np.float32)
    turn = np.linalg.qr(rng.standard_normal((3 * VERTICES, 5)))[0].T
    strength = np.array([30.0, 20, 10, 5, 1])
    amounts = np.linalg.qr(rng.standard_normal((40, 6)) - 0)[0][:, :5]
    amounts -= amounts.mean(0)
    amounts = np.linalg.qr(amounts)[0]
    values[:, :VERTICES] = 128 + ((amounts * strength) @ turn).reshape(40, VERTICES, 3)
    seen = np.ones(values.shape[:2], bool)
    share = np.cumsum(strength**2) / (strength**2).sum()
    for variance in (0.5, 0.9, 0.995, 0.9999):
        made = learned(head, values, seen, "rgb", variance=variance, robust=False)
        assert len(made.explained) == int((share < variance).sum()) + 1
        assert made.explained.sum() >= variance
    assert len(learned(head, values, seen, "rgb", components=2, robust=False).explained) == 2


def test_a_vertex_that_no_two_faces_share_is_less_sure(head: HeadModel) -> None:
    _, _, _, values = made_up(head)
    rng = np.random.default_rng(4)
    noise = np.where(np.arange(VERTICES) % 2, 0.5, 0.05)[:, None]
    values[:, :VERTICES] += noise * rng.standard_normal((24, VERTICES, 4))
    seen = np.ones(values.shape[:2], bool)
    seen[:, VERTICES:] = False
    precision = learned(head, values, seen, components=2).texture.precision[:VERTICES]
    assert precision[1::2].max() < 0.7 * precision[::2].min()


def test_what_teaches_nothing_is_refused(head: HeadModel) -> None:
    _, _, _, values = made_up(head)
    seen = np.ones(values.shape[:2], bool)
    with pytest.raises(BadArgument, match="3 faces"):
        learned(head, values[:2], seen[:2])
    with pytest.raises(BadArgument, match="no vertex"):
        learned(head, values, np.zeros_like(seen))
    with pytest.raises(BadArgument, match="values"):
        learned(head, values[:, :10], seen[:, :10])
    with pytest.raises(BadArgument, match="finite"):
        learned(head, np.where(values > 1, np.nan, values), seen)
    with pytest.raises(BadArgument, match="variance"):
        learned(head, values, seen, variance=1.5)


# ----------------------------------------------------------------------------------------------- photographs


@pytest.fixture(scope="module")
def photos(head: HeadModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four painted people, a picture of nothing, and a file that is no picture."""
    folder = tmp_path_factory.mktemp("photos")
    rng, painter = np.random.default_rng(7), Painter(head)
    for index in range(4):
        write_image(folder / f"person{index}.png", painted(painter, rng).image)
    write_image(folder / "nobody.png", np.full((200, 200, 3), 90, np.uint8))
    (folder / "torn.jpg").write_bytes(b"\xff\xd8\xff\xe0 torn")
    (folder / "notes.txt").write_text("no photo, passed over")
    return folder


def run(words: Sequence[object]) -> tuple[int, dict[str, Any], str]:
    done = CliRunner().invoke(app, [str(word) for word in (*words, "--json")])
    return done.exit_code, json.loads(done.stdout), done.stderr


@pytest.fixture(scope="module")
def built(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, dict[str, Any], str]:
    """The model, what was kept, what the command said to machines, and to people."""
    folder = tmp_path_factory.mktemp("built")
    words = ["model", "build-texture", photos, "-o", folder / "my.npz", "--jobs", 2, "--license", "mine"]
    code, told, said = run([*words, "--samples", folder / "samples"])
    assert code == 1  # some photos showed no face
    return folder / "my.npz", folder / "samples", told, said


def test_photographs_become_a_texture_model(
    built: tuple[Path, Path, dict[str, Any], str], head: HeadModel
) -> None:
    path, _, told, said = built
    texture = TextureModel.load(path)
    texture.check(head)
    assert texture.license == "mine"
    assert texture.feature == "gradients"
    assert told["photos"] == 4
    assert told["faces"] == 8  # each also in the mirror
    assert told["components"] == len(texture.components) >= 2
    assert told["explained"] > 0.98  # of eight faces no more than six components
    assert 2000 < told["vertices_seen"] == (texture.precision > 0).sum()
    assert [each["photo"] for each in told["failed"]] == ["nobody.png", "torn.jpg"]
    assert "found none" in told["failed"][0]["error"]
    assert "torn.jpg" in said
    assert "notes" not in said


def test_the_command_fits_by_a_texture_of_ones_own(
    built: tuple[Path, Path, dict[str, Any], str], photos: Path, tmp_path: Path
) -> None:
    path, *_ = built
    fits = {}
    for name, words in (("ships", ["--texture"]), ("own", ["--texture-model", path])):
        code, _, _ = run(["fit", photos / "person0.png", *words, "-o", tmp_path / f"{name}.npz"])
        assert code == 0
        fits[name] = FittedFace.load(tmp_path / f"{name}.npz")
    engine = Engine(threads=1)
    wanted = engine.fit(photos / "person0.png", texture=TextureModel.load(path))
    np.testing.assert_allclose(fits["own"].identity, wanted.identity, atol=1e-6)
    assert np.abs(fits["own"].identity - fits["ships"].identity).max() > 0.01


def test_a_texture_that_is_none_is_refused(
    built: tuple[Path, Path, dict[str, Any], str], photos: Path, tmp_path: Path
) -> None:
    def refused(texture: Path) -> str:
        words = ["fit", photos / "person0.png", "--texture-model", texture, "-o", tmp_path / "fit.npz"]
        code, told, said = run(words)
        assert code == 1
        assert len(said.splitlines()) == 1
        assert told["error"]["type"] == "BadModelFile"
        return str(told["error"]["message"])

    path, samples, _, _ = built
    (tmp_path / "torn.npz").write_bytes(path.read_bytes()[:5000])
    assert "undamaged" in refused(tmp_path / "torn.npz")
    assert "missing" in refused(next(samples.iterdir()))
    assert "cannot be read" in refused(tmp_path / "none.npz")
    replace(TextureModel.load(path), model_hash="0" * 64).save(tmp_path / "other.npz")
    assert "another head model" in refused(tmp_path / "other.npz")
    arrays = dict(np.load(path))
    np.savez(tmp_path / "pickled.npz", **{**arrays, "mean": np.array([{}], object)})
    assert "mean" in refused(tmp_path / "pickled.npz")
    np.savez(tmp_path / "huge.npz", **{**arrays, "mean": arrays["mean"] + np.float32(1e30)})
    assert "finite" in refused(tmp_path / "huge.npz")
    assert not (tmp_path / "fit.npz").exists()


def test_a_second_run_goes_on_where_the_first_was(
    built: tuple[Path, Path, dict[str, Any], str], photos: Path, tmp_path: Path
) -> None:
    """One sample is gone and one damaged: these are made again, and the model is the same."""
    path, samples, _, _ = built
    first, second, *_ = sorted(samples.iterdir())
    first.unlink()
    second.write_bytes(b"half")
    again = tmp_path / "again.npz"
    words = ["model", "build-texture", photos, "-o", again, "--jobs", 1, "--license", "mine"]
    _, told, _ = run([*words, "--samples", samples])
    assert told["kept"] == 2
    one, other = TextureModel.load(path), TextureModel.load(again)
    np.testing.assert_allclose(one.mean, other.mean, atol=1e-5)
    _, told, _ = run([*words, "--samples", samples, "--feature", "orientations", "--components", 2])
    assert told["kept"] == 0  # samples of another feature are no samples of this one
    assert TextureModel.load(again).components.shape[0] == 2
    assert TextureModel.load(again).feature == "orientations"


def test_samples_are_kept_only_until_the_model_is_there(photos: Path, tmp_path: Path) -> None:
    run(["model", "build-texture", photos, "-o", tmp_path / "my.npz", "--no-mirror", "--jobs", 1])
    assert [path.name for path in tmp_path.iterdir()] == ["my.npz"]
    others = tmp_path / "my.npz.samples" / "mine.txt"
    others.parent.mkdir()
    others.write_text("not to be lost")
    run(["model", "build-texture", photos, "-o", tmp_path / "my.npz", "--no-mirror", "--jobs", 1])
    assert [path.name for path in others.parent.iterdir()] == ["mine.txt"]


def test_the_mirror_shows_the_other_side(photos: Path, head: HeadModel) -> None:
    """Red, green and blue at a vertex and at the one opposite in the mirror image, where both show."""
    reader = PhotoReader(Settings(feature="rgb"))
    (values, seen), (turned, turned_seen) = reader.read(photos / "person0.png")
    both = seen & turned_seen[head.mirror]
    assert both.sum() > 1000
    off = np.abs(values - turned[head.mirror])[both]
    assert np.median(off) < 1  # the fit's own asymmetry apart, they are the same pixels
    assert values[seen].min() >= 0
    assert values[seen].max() <= 255


def test_folders_that_teach_nothing_are_refused(photos: Path, tmp_path: Path) -> None:
    def refused(*words: object) -> str:
        code, told, said = run(["model", "build-texture", *words, "--jobs", 1])
        assert code == 1
        assert len(said.splitlines()) >= 1
        return str(told["error"]["message"])

    out = ("-o", tmp_path / "my.npz")
    assert "cannot be read" in refused(tmp_path / "none", *out)
    assert "no photos" in refused(tmp_path, *out)
    assert "features" in refused(photos, *out, "--feature", "colours")
    assert "no folder" in refused(photos, "-o", tmp_path / "none" / "my.npz")
    (tmp_path / "one").mkdir()
    write_image(tmp_path / "one" / "a.png", read_image(photos / "person1.png"))
    assert "3 faces" in refused(tmp_path / "one", *out)
    assert not (tmp_path / "my.npz").exists()


def test_more_photos_than_memory_holds_are_refused_before_they_are_read(tmp_path: Path) -> None:
    with pytest.raises(BadArgument, match="at most 3,750 photos"):
        sample_photos([tmp_path / "photo.jpg"] * 3751, tmp_path, Settings())
    with pytest.raises(BadArgument, match="at most 10,000 photos"):
        sample_photos([tmp_path / "photo.jpg"] * 10_001, tmp_path, Settings(feature="rgb", mirror=False))


def test_samples_that_are_none_are_refused(photos: Path, tmp_path: Path) -> None:
    outcomes = sample_photos(photos_in(photos)[1:3], tmp_path, Settings(mirror=False))
    seen = np.zeros((1, 9249), bool)
    seen[0, :5] = True
    np.savez(outcomes[0].samples, seen=seen, values=np.full((4, 4), 1, np.float32))
    with pytest.raises(BadModelFile, match="9248 vertices"):
        gathered(outcomes[1:], 9248, "gradients")
    with pytest.raises(BadModelFile, match=r"wanted finite values \(5, 4\)"):
        gathered(outcomes, 9249, "gradients")


def test_the_file_that_ships_is_what_its_script_makes(shared: Path) -> None:
    made = build(shared / "data" / "photos" / "cc0").texture
    ships = TextureModel.load(DEFAULT_TEXTURE)
    assert made.source == ships.source
    assert made.model_hash == ships.model_hash
    np.testing.assert_allclose(made.mean, ships.mean, atol=1e-3)
    np.testing.assert_allclose(made.precision, ships.precision, rtol=1e-2)
    assert missed(made, ships.components.astype(float)) < 0.02


# ------------------------------------------------------------------------------------------------- pictures


def tile(sheet: Array, row: int, column: int) -> Array:
    """One of the heads, 100 px, beside the margin with labels and under the captions."""
    top, left = 12 + row * 102, 22 + column * 102
    return np.asarray(sheet[top : top + 100, left : left + 100])


@pytest.mark.parametrize("feature", ["rgb", "gradients", "orientations"])
def test_a_plot_shows_mean_noise_and_components(head: HeadModel, feature: str, tmp_path: Path) -> None:
    channels = {"rgb": 3, "gradients": 4, "orientations": 8}[feature]
    size = 60 if feature == "rgb" else 1
    mean = np.full((len(head.vertices), channels), 100 if feature == "rgb" else 0, np.float32)
    modes = np.zeros((3, len(head.vertices), channels), np.float16)
    modes[0, head.vertices[:, 0] > 0, 0] = size / 2  # the first changes the left half alone
    texture = TextureModel("test", "none", head.digest, feature, mean, modes, np.ones(len(mean), np.float32))
    texture.save(tmp_path / "texture.npz")
    sheet = texture_sheet(head, texture, 2, tile_px=100).astype(int)
    assert sheet.shape == (12 + 2 * 102 + 2, 20 + 3 * 102 + 2, 3)
    change = np.abs(tile(sheet, 0, 1) - tile(sheet, 1, 1)).max(axis=2) > 8
    assert change.mean() > 0.05
    ahead = np.flatnonzero(change.any(axis=0))
    assert ahead.min() > 35  # the subject's left is the viewer's right
    assert (tile(sheet, 0, 2) == tile(sheet, 1, 2)).all()  # the second changes nothing
    words = ["model", "plot", tmp_path / "texture.npz", "-o", tmp_path / "plot.png", "--tile", 64]
    code, told, _ = run(words)
    assert code == 0
    assert read_image(tmp_path / "plot.png").shape[:2] == (told["height_px"], told["width_px"])


def test_a_plot_of_a_head_shows_its_identities(head: HeadModel, tmp_path: Path) -> None:
    modes = np.zeros((2, len(head.vertices), 3), np.float16)
    modes[0, :, 1] = np.where(head.vertices[:, 1] < -60, -6, 0)  # the first makes chins longer
    sheet = shape_sheet(replace(head, identity=modes), 2, tile_px=100).astype(int)
    change = [np.abs(tile(sheet, 0, column) - tile(sheet, 1, column)).max(axis=2) > 30 for column in (1, 2)]
    assert change[0][55:].any()
    assert not change[0][:50].any()
    assert not change[1].any()
    code, told, _ = run(["model", "plot", "default", "-o", tmp_path / "head.png", "--tile", 64])
    assert code == 0
    assert read_image(tmp_path / "head.png").shape[:2] == (told["height_px"], told["width_px"])


def test_a_plot_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "texture.npz").write_bytes(b"PK\x03\x04 no model")
    code, told, _ = run(["model", "plot", tmp_path / "texture.npz", "-o", tmp_path / "plot.png"])
    assert code == 1
    assert told["error"]["type"] == "BadModelFile"
    code, told, _ = run(["model", "plot", tmp_path / "none.npz", "-o", tmp_path / "plot.png"])
    assert code == 1
    code, told, _ = run(["model", "plot", DEFAULT_TEXTURE, "-o", tmp_path / "plot.gif"])
    assert code == 1
    assert "must end in" in told["error"]["message"]
