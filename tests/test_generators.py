"""Generators from ONNX, without torch: files, latents, the same picture from the same seed, commands."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_generators as tiny
from typer.testing import CliRunner, Result

import fastface as ff
from fastface.cli.app import app
from fastface.cli.generate import parse_seeds
from fastface.errors import BadArgument, BadModelFile, ProviderUnavailable
from fastface.generators import GANimation, StarGAN, StarGANv2, StyleGAN, load
from fastface.generators.ganimation import ACTION_UNITS
from fastface.generators.pixels import to_images, to_network
from fastface.images import read_image
from fastface.labels import read_table
from fastface.provenance import GENERATED_SOURCE_TYPE, read_provenance
from fastface.runtime.providers import provider_table

CPU = ["cpu"]
R = tiny.RESOLUTION


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("nets")
    tiny.stylegan(folder, noise_inputs=False)
    tiny.starganv2(folder)
    tiny.stargan(folder)
    tiny.ganimation(folder)
    return folder


@pytest.fixture(scope="module")
def stylegan(folder: Path) -> StyleGAN:
    found = load(folder / "net.onnx", CPU)
    assert isinstance(found, StyleGAN)
    return found


# --- files ---


@pytest.mark.parametrize("name", ["net.onnx", "net", "net.mapping.onnx", "net.synthesis.onnx"])
def test_a_generator_is_found_by_any_of_its_names(folder: Path, name: str) -> None:
    assert ff.generators.load(folder / name, CPU).kind == "stylegan2"


def test_each_kind_is_what_its_files_say(folder: Path) -> None:
    kinds = {"net": StyleGAN, "s": StarGANv2, "a": StarGAN, "u": GANimation}
    for name, kind in kinds.items():
        found = load(folder / name, CPU)
        assert type(found) is kind
        assert found.resolution == R
        assert "onnxruntime" in found.provider


def test_missing_and_foreign_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadModelFile, match=r"wanted files such as face\.generator\.onnx"):
        load(tmp_path / "face.onnx")
    tiny.stylegan(tmp_path)
    (tmp_path / "net.mapping.onnx").unlink()
    generator = load(tmp_path / "net.onnx", CPU)
    assert isinstance(generator, StyleGAN)
    with pytest.raises(BadModelFile, match="part mapping"):
        generator.sample(0)
    landmarks = Path(ff.__file__).parent / "assets" / "landmarks" / "detector.onnx"
    (tmp_path / "x.generator.onnx").write_bytes(landmarks.read_bytes())
    with pytest.raises(BadModelFile, match="not the generator"):
        load(tmp_path / "x")


def test_parts_of_two_checkpoints_do_not_go_together(tmp_path: Path) -> None:
    import onnx

    tiny.stylegan(tmp_path)
    path = tmp_path / "net.mapping.onnx"
    model = onnx.load(str(path))
    about = json.loads(model.metadata_props[0].value)
    model.metadata_props[0].value = json.dumps({**about, "checkpoint_sha256": "f" * 64})
    path.write_bytes(model.SerializeToString())
    with pytest.raises(BadModelFile, match="another checkpoint"):
        load(tmp_path / "net")


def test_metadata_that_does_not_fit_the_graph_is_refused(tmp_path: Path) -> None:
    tiny.stargan(tmp_path)
    data = (tmp_path / "a.generator.onnx").read_bytes()
    (tmp_path / "a.generator.onnx").write_bytes(data.replace(b'"stargan"', b'"styl_x2"'))
    with pytest.raises(BadModelFile):
        load(tmp_path / "a", CPU)


def test_a_missing_provider_is_an_error_here_too(folder: Path) -> None:
    missing = [name for name, provider in provider_table().items() if provider.missing]
    if not missing:
        pytest.skip("this machine has every provider")
    with pytest.raises(ProviderUnavailable):
        load(folder / "net.onnx", [missing[0]])


def test_weights_that_give_nan_are_told(tmp_path: Path) -> None:
    generator = load(tiny.stylegan(tmp_path, noise_inputs=False, poison=True), CPU)
    assert isinstance(generator, StyleGAN)
    with pytest.raises(BadModelFile, match="NaN"):
        generator.synthesize(generator.map(generator.sample([0])))


def test_running_a_generator_needs_no_torch(folder: Path) -> None:
    code = (
        "import sys, fastface as ff; g = ff.generators.load(sys.argv[1], ['cpu']);"
        "g.synthesize(g.map(g.sample([1]))); assert 'torch' not in sys.modules and 'onnx' not in sys.modules"
    )
    path = str(Path(ff.__file__).parents[1])
    subprocess.run(
        [sys.executable, "-c", code, str(folder / "net.onnx")],
        check=True,
        env={"PYTHONPATH": path},
        timeout=60,
    )


# --- pixels ---


def test_pixels_survive_the_way_there_and_back() -> None:
    ramp = np.arange(256, dtype=np.uint8).repeat(3).reshape(1, 16, 16, 3)
    planes = to_network(ramp, 16, "images")
    assert planes.shape == (1, 3, 16, 16)
    assert planes.min() == -1
    assert planes.max() == pytest.approx(1, abs=1e-6)
    np.testing.assert_array_equal(to_images(planes, "test"), ramp)


def test_colours_keep_their_places_and_what_lies_beyond_is_clipped() -> None:
    planes = np.full((1, 3, 2, 2), [[[-2.0]], [[0.0]], [[9.0]]], np.float32)
    assert to_images(planes, "test")[0, 0, 0].tolist() == [0, 128, 255]
    red = np.zeros((1, 4, 4, 3), np.uint8)
    red[..., 0] = 255
    assert to_network(red, 4, "images")[0, :, 0, 0].tolist() == pytest.approx([1, -1, -1])


@pytest.mark.parametrize("shape", [(1, 8, 8, 3), (1, 16, 16), (16, 16, 4), (1, 1, 16, 16, 3)])
def test_images_of_another_size_are_refused(folder: Path, shape: tuple[int, ...]) -> None:
    generator = load(folder / "a", CPU)
    assert isinstance(generator, StarGAN)
    with pytest.raises(BadArgument, match=r"\(B, 16, 16, 3\) uint8"):
        generator.translate(np.zeros(shape, np.uint8), np.zeros(2))


# --- latents ---


def test_a_seed_is_the_authors_sequence_whatever_it_is_asked_with(stylegan: StyleGAN) -> None:
    wanted = np.random.RandomState(7).randn(1, tiny.W_DIM).astype(np.float32)
    np.testing.assert_array_equal(stylegan.sample(7), wanted)
    np.testing.assert_array_equal(stylegan.sample([3, 7, 9])[1:2], wanted)


@pytest.mark.parametrize("seed", [-1, 1 << 32, 0.5, True, "7"])
def test_seeds_are_whole_numbers(stylegan: StyleGAN, seed: object) -> None:
    with pytest.raises(BadArgument, match="seed"):
        stylegan.sample([seed])  # type: ignore[list-item]


@pytest.mark.parametrize("noise", ["const", "none", "random"])
def test_the_same_seed_is_the_same_image_in_every_batch(tmp_path: Path, noise: str) -> None:
    """Within one grey level: sums of another order differ in their last bits, and rounding may tip."""
    generator = load(tiny.stylegan(tmp_path, noise_inputs=noise == "random"), CPU)
    assert isinstance(generator, StyleGAN)
    seeds = list(range(20))
    w = generator.map(generator.sample(seeds))
    together = generator.synthesize(w, noise, seeds)  # type: ignore[arg-type]
    for seed in (0, 7, 19):
        alone = generator.map(generator.sample(seed))
        np.testing.assert_allclose(alone[0], w[seed], atol=1e-6)
        image = generator.synthesize(alone, noise, seed)[0]  # type: ignore[arg-type]
        assert np.abs(image.astype(int) - together[seed]).max() <= 1


@pytest.mark.parametrize(("precision", "worst", "mean"), [("fp32", 1, 0.02), (None, 6, 0.6)])
def test_the_same_seed_is_the_same_image_on_every_provider(
    folder: Path, stylegan: StyleGAN, precision: str | None, worst: int, mean: float
) -> None:
    """In grey levels: fp32 within rounding, the provider's own precision (bfloat16) within a few."""
    wanted = stylegan.synthesize(stylegan.map(stylegan.sample(range(8)))).astype(int)
    for name, provider in provider_table().items():
        if not provider.missing:
            other = load(folder / "net", [name], precision)  # type: ignore[arg-type]
            assert isinstance(other, StyleGAN)
            image = other.synthesize(other.map(other.sample(range(8))))
            error = np.abs(image - wanted)
            assert error.max() <= worst, other.provider
            assert error.mean() <= mean, other.provider


def test_truncation_pulls_towards_the_mean(stylegan: StyleGAN) -> None:
    z = stylegan.sample([1, 2])
    w1, w5, w0 = (stylegan.map(z, psi) for psi in (1.0, 0.5, 0.0))
    assert w1.shape == (2, tiny.LAYERS, tiny.W_DIM)
    np.testing.assert_allclose(w5, (w1 + w0) / 2, atol=1e-6)
    np.testing.assert_allclose(w0[0], w0[1], atol=1e-6)
    with pytest.raises(BadArgument, match="truncation"):
        stylegan.map(z, float("nan"))


def test_noise_is_the_checkpoints_none_or_drawn(tmp_path: Path, stylegan: StyleGAN) -> None:
    w = stylegan.map(stylegan.sample([1, 2]))
    const, none = stylegan.synthesize(w), stylegan.synthesize(w, "none")
    assert (const != none).any()
    with pytest.raises(BadModelFile, match="without inputs for noise"):
        stylegan.synthesize(w, "random")
    with pytest.raises(BadArgument, match="noise is one of"):
        stylegan.synthesize(w, "loud")  # type: ignore[arg-type]
    drawn = load(tiny.stylegan(tmp_path, noise_inputs=True), CPU)
    assert isinstance(drawn, StyleGAN)
    first = drawn.synthesize(w, "random", 5)
    np.testing.assert_array_equal(first, drawn.synthesize(w, "random", 5))
    np.testing.assert_array_equal(first[1], drawn.synthesize(w, "random", [6, 5])[1])
    assert (first != drawn.synthesize(w, "random", 6)).any()
    assert drawn.synthesize(w, "none").shape == first.shape
    for seeds in ([1, 2, 3], []):
        with pytest.raises(BadArgument, match="one seed"):
            drawn.synthesize(w, "random", seeds)
    with pytest.raises(BadArgument, match="exported to be given noise"):
        drawn.synthesize(w, "const")


def test_a_conditional_generator_wants_its_label(tmp_path: Path, stylegan: StyleGAN) -> None:
    generator = load(tiny.stylegan(tmp_path, noise_inputs=False, label_dim=3), CPU)
    assert isinstance(generator, StyleGAN)
    assert generator.label_dim == 3
    z = generator.sample([1, 2])
    one = generator.map(z, 1.0, np.array([1, 0, 0]))
    assert (one != generator.map(z, 1.0, np.array([0, 1, 0]))).any()
    np.testing.assert_array_equal(one, generator.map(z, 1.0, np.array([[1, 0, 0], [1, 0, 0]])))
    for wrong in (None, np.zeros(2), np.array([np.nan, 0, 0])):
        with pytest.raises(BadArgument, match="label"):
            generator.map(z, 1.0, wrong)
    with pytest.raises(BadArgument, match="no label"):
        stylegan.map(stylegan.sample(1), 1.0, np.zeros(3))


@pytest.mark.parametrize(
    "w", [np.zeros((2, 3, 32)), np.zeros((2, 4, 31)), np.full((4, 32), np.inf), np.array("w")]
)
def test_latents_that_do_not_fit_are_refused(stylegan: StyleGAN, w: np.ndarray) -> None:  # type: ignore[type-arg]
    with pytest.raises(BadArgument, match="w must be"):
        stylegan.synthesize(w)


# --- translation ---


def test_styles_follow_reference_domain_and_seed(folder: Path) -> None:
    generator = load(folder / "s", CPU)
    assert isinstance(generator, StarGANv2)
    assert (generator.style_dim, generator.domains) == (64, 3)
    faces = tiny.faces(3)
    styles = generator.style(faces, np.array([0, 1, 2]))
    assert styles.shape == (3, 64)
    np.testing.assert_allclose(generator.style(faces[1], 1)[0], styles[1], atol=1e-6)
    assert np.abs(generator.style(faces[1], 0) - styles[1]).max() > 1e-3
    drawn = generator.random_style([4, 5], 1)
    np.testing.assert_allclose(generator.random_style(5, 1)[0], drawn[1], atol=1e-6)
    moved = generator.translate(faces, styles[0])
    assert moved.shape == (3, R, R, 3)
    one = generator.translate(faces[2], styles[0])[0].astype(int)
    assert np.abs(one - moved[2]).max() <= 1
    for wrong in (3, -1, 0.5, np.array([0, 1])):
        with pytest.raises(BadArgument, match="domain"):
            generator.style(faces, wrong)  # type: ignore[arg-type]
    with pytest.raises(BadArgument, match="style"):
        generator.translate(faces, styles[:2])


def test_the_high_pass_path_needs_and_uses_its_landmark_network(tmp_path: Path) -> None:
    net = tiny.starganv2(tmp_path, high_pass=True)
    faces, style = tiny.faces(2), np.ones(64)
    with_masks = load(net, CPU)
    assert isinstance(with_masks, StarGANv2)
    assert with_masks.high_pass
    plain_folder = tmp_path / "plain"
    plain_folder.mkdir()
    plain = load(tiny.starganv2(plain_folder), CPU)
    assert isinstance(plain, StarGANv2)
    assert (with_masks.translate(faces, style) != plain.translate(faces, style)).any()
    (tmp_path / "s.fan.onnx").unlink()
    with pytest.raises(BadModelFile, match=r"s\.fan\.onnx is not beside it"):
        load(net, CPU)


def test_ganimation_blends_by_its_attention(folder: Path) -> None:
    generator = load(folder / "u", CPU)
    assert isinstance(generator, GANimation)
    faces, aus = tiny.faces(3), np.linspace(0, 1, len(ACTION_UNITS))
    found = generator.animate_parts(faces, aus)
    share = found.attention[..., None]
    blended = share * faces + (1 - share) * found.colour.astype(float)
    assert np.abs(blended - found.images).max() <= 1.01
    np.testing.assert_array_equal(generator.animate(faces, aus), found.images)
    with pytest.raises(BadArgument, match="aus"):
        generator.animate(faces, np.zeros(16))


def test_labels_are_one_for_all_or_one_each(folder: Path) -> None:
    generator = load(folder / "a", CPU)
    assert isinstance(generator, StarGAN)
    faces = tiny.faces(3)
    each = generator.translate(faces, np.array([[0, 0], [0.5, -0.5], [1, 1]]))
    one = generator.translate(faces, np.array([0.5, -0.5]))
    assert np.abs(each[1].astype(int) - one[1]).max() <= 1
    for wrong in (np.zeros(3), np.zeros((2, 2)), np.array([np.nan, 0]), "happy"):
        with pytest.raises(BadArgument, match="label"):
            generator.translate(faces, wrong)  # type: ignore[arg-type]


# --- commands ---


def run(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


def test_generate_writes_images_labels_manifest_and_sheet(folder: Path, tmp_path: Path) -> None:
    out, sheet = tmp_path / "out", tmp_path / "sheet.png"
    done = run("generate", folder / "net.onnx", "--seeds", "0-3,9", "-o", out, "--sheet", sheet, "--batch", 2)
    assert done.exit_code == 0, done.output
    names = [f"seed{seed:04d}" for seed in (0, 1, 2, 3, 9)]
    assert sorted(path.stem for path in out.glob("*.png")) == names
    generator = load(folder / "net.onnx")
    assert isinstance(generator, StyleGAN)
    shown = read_image(out / "seed0009.png").astype(int)
    assert np.abs(shown - generator.synthesize(generator.map(generator.sample(9)))[0]).max() <= 6
    record = json.loads((out / "seed0009.json").read_text())
    assert (record["seed"], record["truncation"], record["generator"]) == (9, 0.7, "stylegan2")
    (manifest,) = out.glob("manifest.*")
    assert [row["seed"] for row in read_table(manifest)] == [0, 1, 2, 3, 9]
    said = read_provenance(out / "seed0009.png")
    assert said is not None
    assert said.digital_source_type == GENERATED_SOURCE_TYPE
    assert said.parameters["seed"] == 9
    assert read_provenance(sheet) is not None
    again = run("generate", folder / "net.onnx", "--seeds", "9", "-o", out)
    assert again.exit_code == 1
    assert "--overwrite" in again.output


def test_generate_makes_one_image_of_one_seed(folder: Path, tmp_path: Path) -> None:
    image = tmp_path / "face.jpg"
    for _ in range(2):  # its own output may be replaced
        done = run("generate", folder / "net.onnx", "--seeds", "5", "-o", image, "--json")
        assert done.exit_code == 0, done.output
        assert json.loads(done.stdout)["record"]["seed"] == 5
    unmarked = run("generate", folder / "net.onnx", "-o", tmp_path / "x.png", "--no-provenance")
    assert unmarked.exit_code == 1
    assert "always marked" in unmarked.output


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["generate", "none.onnx", "-o", "out"], "no generator there"),
        (["generate", "{net}", "--seeds", "5-1", "-o", "out"], "--seeds"),
        (["generate", "{net}", "--seeds", "0-3", "-o", "x.png"], "one image, but 4 seeds"),
        (["generate", "{net}", "--noise", "loud", "-o", "out"], "noise is one of"),
        (["generate", "{net}", "--precision", "fp8", "-o", "out"], "--precision"),
        (["generate", "{net}", "--provider", "abacus", "-o", "out"], "abacus"),
        (["generate", "{va}", "-o", "out"], "fastface translate"),
        (["translate", "{net}", "{photo}", "--va", 0, 0, "-o", "x.png"], "fastface generate"),
        (["translate", "{va}", "{photo}", "-o", "x.png"], "--label or --va"),
        (["translate", "{va}", "{photo}", "--au", "AU12=1", "-o", "x.png"], "--label or --va"),
        (["translate", "{va}", "{photo}", "--label", "a", "-o", "x.png"], "--label wants numbers"),
        (["translate", "{va}", "{photo}", "--label", "1,2,3", "-o", "x.png"], "label must be"),
        (["translate", "{va}", "{photo}", "--va", 0, 0, "-o", "x.mp4"], "must end in"),
    ],
)
def test_commands_refuse_in_one_line(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    places = {"net": folder / "net.onnx", "va": folder / "a.onnx", "photo": DEMO}
    done = run(*(str(word).format(**places) for word in words))
    assert done.exit_code == 1, done.output
    assert says in done.output
    assert done.output.count("\n") <= 2
    assert not list(tmp_path.glob("*.png"))


DEMO = Path(ff.__file__).parent / "assets" / "demo.jpg"


@pytest.mark.parametrize(
    ("net", "words"),
    [
        ("a", ["--va", "0.5", "-0.2"]),
        ("a", ["--label", "1,0"]),
        ("u", ["--au", "AU12=0.8", "--au", "AU6=0.5"]),
        ("s", ["--seed", "3", "--domain", "2"]),
        ("s", ["--reference", str(DEMO)]),
    ],
)
def test_translate_writes_the_face_and_what_was_asked(
    folder: Path, tmp_path: Path, net: str, words: list[str]
) -> None:
    out, sheet = tmp_path / "out.png", tmp_path / "sheet.png"
    done = run("translate", folder / f"{net}.onnx", DEMO, *words, "-o", out, "--sheet", sheet, "--json")
    assert done.exit_code == 0, done.output
    assert read_image(out).shape == (R, R, 3)
    record = json.loads((tmp_path / "out.json").read_text())
    assert record == json.loads(done.stdout)["record"]
    assert len(record["photo_sha256"]) == 64
    said = read_provenance(out)
    assert said is not None
    assert said.is_synthetic
    assert said.digital_source_type != GENERATED_SOURCE_TYPE
    assert sheet.is_file()


def test_seeds_are_numbers_and_ranges() -> None:
    assert parse_seeds("0-3, 9,2") == [0, 1, 2, 3, 9]
    for wrong in ("", "a", "3-1", "-1", "1--2", "4294967296", "0-4000000000"):
        with pytest.raises(BadArgument, match="--seeds"):
            parse_seeds(wrong)


# --- what the exporters write ---


@pytest.mark.parametrize("kind", ["stylegan2", "stylegan3", "starganv2", "stargan", "ganimation"])
def test_what_the_exporters_write_runs_here_and_agrees_between_providers(kind: Any, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from benchmarks import random_networks

    side = 128 if kind == "starganv2" else 32
    checkpoint = random_networks.checkpoint(kind, resolution=side, small=True)
    given = {"resolution": side} if kind in ("stargan", "ganimation") else {}
    random_networks.write(checkpoint, tmp_path / "net.onnx", **given)
    photo = np.random.default_rng(0).integers(0, 256, (2, side, side, 3), dtype=np.uint8)
    made = []
    for name, provider in provider_table().items():
        if provider.missing:
            continue
        found = load(tmp_path / "net.onnx", [name], "fp32")
        if isinstance(found, StyleGAN):
            made.append(found.synthesize(found.map(found.sample([1, 2]))))
        elif isinstance(found, StarGANv2):
            made.append(found.translate(photo, found.style(photo, 1)))
        elif isinstance(found, StarGAN):
            made.append(found.translate(photo, np.ones(found.label_dim)))
        else:
            made.append(found.animate(photo, np.full(17, 0.5)))
    assert made[0].shape == (2, side, side, 3)
    assert made[0].std() > 1
    for other in made[1:]:
        assert np.abs(other.astype(int) - made[0]).max() <= 1
