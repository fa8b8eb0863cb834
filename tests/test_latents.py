"""Latents: files, ways between them, scored samples, and the commands on them. No torch."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import morphing_generator as morphing
import numpy as np
import pytest
import tiny_generators as tiny
from numpy.typing import NDArray
from typer.testing import CliRunner, Result

from fastface.cli.app import app
from fastface.errors import BadArgument, BadModelFile, NoFaceFound
from fastface.generators import StyleGAN, load
from fastface.generators.directions import Attribute, Directions, learn
from fastface.generators.latents import Latent, interpolate, mix, parse_layers
from fastface.generators.portraits import latent_of_seed, mean_latent, synthesize
from fastface.generators.sampling import PIECE, score_samples
from fastface.generators.scorers import FaceScorer, ImageInput, OnnxScorer, expression_score
from fastface.images import read_image
from fastface.labels import read_table
from fastface.provenance import GENERATED_SOURCE_TYPE, read_provenance
from fastface.video import frame_count

SHA = "ab" * 32
ZEROS = "0" * 64  # of the small generators' checkpoints
LAYERS, W_DIM = 6, 5


def drawn(seed: int) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=(LAYERS, W_DIM)).astype(np.float32)


# --- files ---


def test_a_latent_comes_back_from_its_file(tmp_path: Path) -> None:
    noise = {f"noise_{n}": np.full((1, 4 << n, 4 << n), n, np.float32) for n in range(2)}
    latent = Latent(drawn(0), SHA, {"made": "projection", "über": [1, 2]}, noise)
    latent.save(tmp_path / "a.npz")
    again = Latent.load(tmp_path / "a.npz")
    assert np.array_equal(again.w, latent.w)
    assert again.digest == latent.digest
    assert again.about["über"] == [1, 2]
    assert list(again.noise) == ["noise_0", "noise_1"]
    assert again.space == "w+"
    assert Latent(np.tile(drawn(0)[:1], (LAYERS, 1)), SHA).space == "w"
    assert Latent(drawn(0), SHA).digest != latent.digest  # the noise belongs to it


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("format", np.array("fastface-face")),
        ("version", np.array(9, "<i4")),
        ("w", np.full((LAYERS, W_DIM), np.inf, "<f4")),
        ("w", np.zeros((LAYERS, W_DIM), "<f8")),
        ("w", np.zeros((0, W_DIM), "<f4")),
        ("w", np.array([[{"a": 1}]], dtype=object)),
        ("generator_sha256", np.array("../../etc")),
        ("about", np.array("[1]")),
        ("about", np.array("{" * 2000)),
        ("noise_maps", np.array(3, "<i4")),
        ("noise_maps", np.array(-1, "<i4")),
        ("noise_0", np.full((1, 2, 2), np.nan, "<f4")),
        ("noise_0", np.zeros((2, 2), "<f4")),
    ],
)
def test_hostile_latents_are_refused(tmp_path: Path, name: str, value: NDArray[Any]) -> None:
    Latent(drawn(0), SHA, {}, {"noise_0": np.zeros((1, 2, 2), np.float32)}).save(tmp_path / "a.npz")
    good = dict(np.load(tmp_path / "a.npz"))
    np.savez(tmp_path / "bad.npz", **{**good, name: value})
    with pytest.raises(BadModelFile, match=r"bad\.npz"):
        Latent.load(tmp_path / "bad.npz")


def test_cut_and_foreign_files_are_refused(tmp_path: Path) -> None:
    Latent(drawn(0), SHA).save(tmp_path / "a.npz")
    (tmp_path / "cut.npz").write_bytes((tmp_path / "a.npz").read_bytes()[:200])
    (tmp_path / "text.npz").write_text("no archive")
    for name in ("cut.npz", "text.npz", "missing.npz"):
        with pytest.raises(BadModelFile):
            Latent.load(tmp_path / name)


# --- ways ---


def test_ends_are_exact_and_between_them_is_what_the_way_says() -> None:
    a, b = drawn(1), drawn(2)
    for way in ("linear", "spherical"):
        found = interpolate(a, b, [0, 0.25, 0.5, 1], way)  # type: ignore[arg-type]
        assert np.array_equal(found[0], a)
        assert np.array_equal(found[3], b)
    assert np.allclose(interpolate(a, b, [0.25])[0], 0.75 * a + 0.25 * b, atol=1e-6)


def test_spherical_ways_turn_evenly_about_the_centre() -> None:
    a, b, centre = drawn(3), drawn(4), drawn(5)
    t = np.linspace(0, 1, 9)
    found = interpolate(a, b, t, "spherical", centre).astype(np.float64) - centre
    lengths = np.linalg.norm(found, axis=2)
    assert np.allclose(lengths, (1 - t)[:, None] * lengths[0] + t[:, None] * lengths[-1], atol=1e-5)
    units = found / lengths[..., None]
    angles = np.arccos(np.clip((units[1:] * units[:-1]).sum(axis=2), -1, 1))
    assert np.allclose(angles, angles[0], atol=1e-3)
    assert angles.min() > 0.01
    # In the plane of the two ends.
    normal = np.linalg.svd(np.stack([units[0, 0], units[-1, 0]]))[2][2:]
    assert np.abs(units[:, 0] @ normal.T).max() < 1e-5


def test_ways_without_a_direction_are_refused() -> None:
    a = drawn(6)
    with pytest.raises(BadArgument, match="opposite each other"):
        interpolate(a, -a, [0.5], "spherical")
    with pytest.raises(BadArgument, match="has no direction"):
        interpolate(a, drawn(7), [0.5], "spherical", centre=a)
    assert np.allclose(interpolate(a, 2 * a, [0.5], "spherical")[0], 1.5 * a, atol=1e-6)  # parallel
    for wrong in ([1.5], [-0.1], [float("nan")], [[0.5]]):
        with pytest.raises(BadArgument, match="intensities must be"):
            interpolate(a, a, wrong)  # type: ignore[arg-type]
    with pytest.raises(BadArgument, match="one shape"):
        interpolate(a, a[:2], [0.5])


def test_mixing_takes_layers() -> None:
    a, b = drawn(8), drawn(9)
    mixed = mix(a, b, (2, 3))
    assert np.array_equal(mixed[[2, 3]], b[[2, 3]])
    assert np.array_equal(mixed[[0, 1, 4, 5]], a[[0, 1, 4, 5]])
    assert not np.shares_memory(mixed, a)
    with pytest.raises(BadArgument, match="layer 6"):
        mix(a, b, (6,))


def test_layers_by_name() -> None:
    assert parse_layers("4-7, 9", 12) == (4, 5, 6, 7, 9)
    assert parse_layers("all", 3) == (0, 1, 2)
    for wrong in ("4-", "-1", "a", "", "7-4"):
        with pytest.raises(BadArgument):
            parse_layers(wrong, 12)
    with pytest.raises(BadArgument, match="layers 0 to 3"):
        parse_layers("2-4", 4)


# --- images of latents ---


@pytest.fixture(scope="module")
def noise_net(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small network that was never trained."""
    return tiny.stylegan(tmp_path_factory.mktemp("tiny"), noise_inputs=False)


@pytest.fixture(scope="module")
def untrained(noise_net: Path) -> StyleGAN:
    found = load(noise_net, ["cpu"])
    assert isinstance(found, StyleGAN)
    return found


@pytest.fixture(scope="module")
def face_net(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return morphing.write(tmp_path_factory.mktemp("faces"))


@pytest.fixture(scope="module")
def faces(face_net: Path) -> StyleGAN:
    found = load(face_net, ["cpu"])
    assert isinstance(found, StyleGAN)
    return found


def test_images_do_not_depend_on_the_batch(untrained: StyleGAN) -> None:
    """One grey level is what a runtime may round differently; the docstring of ``synthesize`` says so."""
    w = np.stack([latent_of_seed(untrained, seed).w for seed in range(11)])
    wanted = np.stack(list(synthesize(untrained, w, batch=1))).astype(int)
    for batch in (2, 4, 11):
        found = np.stack(list(synthesize(untrained, w, batch=batch)))
        assert np.abs(found - wanted).max() <= 1
    assert np.abs(wanted[0] - wanted[1]).max() > 20  # seeds do something


def test_the_mean_latent_is_where_truncation_draws_to(faces: StyleGAN) -> None:
    assert np.allclose(mean_latent(faces), 0.5)
    near = latent_of_seed(faces, 3, 0.01).w
    assert np.abs(near - 0.5).max() < 0.02


class Brightness:
    """Counts what it is asked."""

    names = ("brightness", "redness")
    digest = "1"

    def __init__(self, stop_after: int | None = None) -> None:
        self.seen, self.stop_after = 0, stop_after

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        if self.stop_after is not None and self.seen >= self.stop_after:
            raise KeyboardInterrupt
        self.seen += len(images)
        mean = images.mean(axis=(1, 2)) / 255
        return np.column_stack([mean.mean(axis=1), mean[:, 0] - mean[:, 2]]).astype(np.float32)


def test_samples_are_the_same_whatever_the_batch_and_the_cache(untrained: StyleGAN, tmp_path: Path) -> None:
    seeds = range(10, 10 + 2 * PIECE)
    wanted = score_samples(untrained, [Brightness()], seeds, batch=64)
    interrupted = Brightness(stop_after=PIECE + 10)
    with pytest.raises(KeyboardInterrupt):
        score_samples(untrained, [interrupted], seeds, batch=5, cache=tmp_path / "c")
    kept = sorted(path.name for path in (tmp_path / "c").glob("*.npz"))
    assert kept == ["0000000010-0000000064.npz"]
    again = Brightness()
    found = score_samples(untrained, [again], seeds, batch=7, cache=tmp_path / "c")
    assert again.seen == 2 * PIECE - 54  # the first piece was there
    assert np.abs(found.w - wanted.w).max() < 1e-6
    assert np.abs(found.scores - wanted.scores).max() < 1 / 255
    third = Brightness()
    score_samples(untrained, [third], seeds, cache=tmp_path / "c")
    assert third.seen == 0
    (tmp_path / "c" / kept[0]).write_bytes(b"damaged")
    mended = score_samples(untrained, [third], seeds, cache=tmp_path / "c")
    assert third.seen == 54
    assert np.abs(mended.scores - wanted.scores).max() < 1 / 255


def test_a_cache_of_other_samples_is_refused(untrained: StyleGAN, tmp_path: Path) -> None:
    score_samples(untrained, [Brightness()], range(3), cache=tmp_path / "c")
    with pytest.raises(BadArgument, match="another truncation"):
        score_samples(untrained, [Brightness()], range(3), cache=tmp_path / "c", truncation=1.0)
    other = Brightness()
    other.digest = "2"
    with pytest.raises(BadArgument, match="another scorers"):
        score_samples(untrained, [other], range(3), cache=tmp_path / "c")


def test_a_generator_without_faces_is_refused(untrained: StyleGAN) -> None:
    with pytest.raises(NoFaceFound, match="0 of 8 samples show a face, wanted at least 5%"):
        score_samples(untrained, [FaceScorer()], range(8))


# --- scorers ---


def scoring_network(path: Path, shape: list[int | str], outputs: int) -> Path:
    """The mean of each channel, and ``outputs`` sums of them."""
    g = tiny.Graph(5)
    axes = [1, 2] if shape[3] == 3 else [2, 3]
    means = g.op("ReduceMean", "photo", axes=axes, keepdims=0)
    table = np.arange(3 * outputs, dtype=np.float32).reshape(3, outputs) / 10
    made = g.op("MatMul", means, g.weight(table))
    g.write(path, {"photo": shape}, {"out": (made, [shape[0], outputs])}, {"kind": "scorer"})
    return path


def test_a_bare_network_is_fed_by_its_shapes(tmp_path: Path) -> None:
    images = np.random.default_rng(1).integers(0, 255, (5, 32, 32, 3), dtype=np.uint8)
    means = images.mean(axis=(1, 2)) / 127.5 - 1
    wanted = means @ (np.arange(6).reshape(3, 2) / 10)
    for shape in (["B", 3, 16, 16], [1, 3, 16, 16], ["B", 16, 16, 3]):
        scorer = OnnxScorer(scoring_network(tmp_path / "mood.onnx", shape, 2))
        assert scorer.names == ("mood.0", "mood.1")
        assert np.abs(scorer(images) - wanted).max() < 1e-3


def test_a_description_says_how_a_network_is_fed_and_read(tmp_path: Path) -> None:
    scoring_network(tmp_path / "net.onnx", ["B", 3, 8, 8], 3)
    about = {
        "model": "net.onnx",
        "input": {
            "size": 8, "channels": "BGR", "mean": [0, 0, 0], "std": [0.5, 1, 2], "crop": [0.5, 0, 1, 1],
        },
        "scores": {
            "age": {"output": "out", "weights": [0, 1, 2], "scale": 10, "offset": 5},
            "last": {"index": -1},
        },
    }  # fmt: skip
    (tmp_path / "age.json").write_text(json.dumps(about))
    scorer = OnnxScorer(tmp_path / "age.json")
    assert scorer.names == ("age", "last")
    images = np.random.default_rng(2).integers(0, 255, (4, 16, 16, 3), dtype=np.uint8)
    right = images[:, :, 8:].mean(axis=(1, 2)) / 255 / np.array([0.5, 1, 2])
    out = right[:, ::-1] @ (np.arange(9).reshape(3, 3) / 10)
    assert np.abs(scorer(images)[:, 0] - (10 * (out @ [0, 1, 2]) + 5)).max() < 0.05
    assert np.abs(scorer(images)[:, 1] - out[:, 2]).max() < 1e-2
    bare = OnnxScorer(tmp_path / "net.onnx")
    assert bare.digest != scorer.digest


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"model": "none.onnx"}, "none.onnx"),
        ({"model": 3}, "wanted an object with a model"),
        ({"input": {"name": "x"}}, "no input 'x'"),
        ({"input": {"channel": "RGB"}}, "no setting 'channel'"),
        ({"input": {"std": [0, 1, 1]}}, "std must not be 0"),
        ({"input": {"layout": "CHW"}}, "layout is NCHW or NHWC"),
        ({"input": {"crop": [0.5, 0, 0.2, 1]}}, "no part of the image"),
        ({"scores": {"a": {"output": "y"}}}, "no output 'y'"),
        ({"scores": {}}, "scores must be an object"),
        ({"scores": {"a": {"index": "b"}}}, "age.json"),
    ],
)
def test_descriptions_that_make_no_sense_are_refused(
    tmp_path: Path, change: dict[str, Any], says: str
) -> None:
    scoring_network(tmp_path / "net.onnx", ["B", 3, 8, 8], 1)
    (tmp_path / "age.json").write_text(json.dumps({"model": "net.onnx", **change}))
    with pytest.raises((BadModelFile, BadArgument), match=says):
        OnnxScorer(tmp_path / "age.json")


def test_an_expression_is_scored_by_the_affect_tables() -> None:
    from fastface.affect import Affect, affect_model

    names = FaceScorer.names
    shapes = names[:-3]
    table = affect_model().coefficients(Affect.expression("surprise"), shapes)
    scores = np.zeros((3, len(names)), np.float32)
    scores[1, :-3] = table
    scores[2, :-3] = 0.5 * table
    assert np.allclose(expression_score(scores, names, "surprise"), [0, 1, 0.5], atol=1e-5)
    with pytest.raises(BadArgument, match="an expression is one of"):
        expression_score(scores, names, "gloom")


def test_images_are_prepared_as_described() -> None:
    image = np.zeros((1, 4, 4, 3), np.uint8)
    image[..., 0] = 255
    made = ImageInput(size=2, layout="NHWC", channels="BGR").prepare(image)
    assert made.shape == (1, 2, 2, 3)
    assert np.allclose(made, [-1, -1, 1])


# --- learning from faces, and what is made of it ---


def invoke(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


def must(*words: object) -> Result:
    result = invoke(*words)
    assert result.exit_code == 0, result.output
    return result


def refused(*words: object) -> str:
    result = invoke(*words)
    assert result.exit_code == 1, result.output
    (line,) = result.stderr.strip().splitlines()
    return line


@pytest.fixture(scope="module")
def learned(face_net: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("learned") / "dirs.npz"
    must(
        *("directions", "learn", "-g", face_net, "-o", output, "--samples", 100, "--truncation", 0.7),
        *("-a", "jawOpen", "-a", "eyeBlinkLeft", "--provider", "cpu"),
    )
    return output


def test_directions_are_learned_from_what_faces_show(learned: Path) -> None:
    directions = Directions.load(learned)
    jaw, blink = directions["jawOpen"], directions["eyeBlinkLeft"]
    assert jaw.about["r2"] > 0.5
    strongest = int(np.abs(jaw.normal).argmax())
    assert strongest == morphing.JAW
    assert jaw.normal[morphing.JAW] > 0
    assert blink.normal[morphing.EYES] > 0
    assert abs(directions.effects()[0, 1]) < 1e-3
    told = json.loads(must("directions", "show", learned, "--json").stdout)
    assert [entry["name"] for entry in told["directions"]] == ["jawOpen", "eyeBlinkLeft"]
    assert told["directions"][0]["r2"] == jaw.about["r2"]
    assert "R²" in must("directions", "show", learned).stdout


def test_an_edit_changes_what_it_names(face_net: Path, learned: Path, tmp_path: Path) -> None:
    output = tmp_path / "sweep"
    must(
        *("edit", "seed:5", "-g", face_net, "-d", learned, "-o", output, "--move", "jawOpen=-2..0"),
        *("--steps", 3, "--sheet", tmp_path / "sheet.png", "--provider", "cpu"),
    )
    rows = list(read_table(next(output.glob("manifest.*"))))
    assert [row["strengths"]["jawOpen"] for row in rows] == [-2, -1, 0]
    opened = [row["blendshapes"]["jawOpen"] for row in rows]
    assert all(row["face_found"] for row in rows)
    assert np.all(np.diff(opened) > 0)
    assert opened[-1] - opened[0] > 0.25
    fitted = [row["fitted_scores"]["jawOpen"] for row in rows]
    assert np.allclose(np.diff(fitted, n=2), 0, atol=1e-3)  # the score is linear in the strength
    record = json.loads((output / "seed0005.0000.jawOpen-2.00.json").read_bytes())
    assert len(record["landmarks478_px"]) == 478
    assert record["checkpoint_sha256"] == ZEROS
    mark = read_provenance(output / "seed0005.0000.jawOpen-2.00.png")
    assert mark is not None
    assert mark.digital_source_type == GENERATED_SOURCE_TYPE
    assert mark.parameters["strengths"] == {"jawOpen": -2.0}


def test_an_edit_to_a_score_gets_there(face_net: Path, learned: Path, tmp_path: Path) -> None:
    output = tmp_path / "o.png"
    told = must(
        *("edit", "seed:5", "-g", face_net, "-d", learned, "-o", output, "--score", "jawOpen=0.5"),
        *("--save-latent", tmp_path / "o.npz", "--json", "--provider", "cpu"),
    )
    record = json.loads(told.stdout)["record"]
    assert record["fitted_scores"]["jawOpen"] == pytest.approx(0.5, abs=1e-3)
    assert record["blendshapes"]["jawOpen"] == pytest.approx(0.5, abs=0.2)
    again = must("mix", "--identity", tmp_path / "o.npz", "--expression", "seed:1", "-g", face_net,
                 "-o", tmp_path / "m.png", "--layers", "0", "--provider", "cpu")  # fmt: skip
    assert "1 image" in again.stdout


def test_layers_alone_are_edited(face_net: Path, learned: Path, tmp_path: Path) -> None:
    for name, layers in (("a", "all"), ("b", "1")):
        must(
            *("edit", "seed:5", "-g", face_net, "-d", learned, "-o", tmp_path / f"{name}.png", "--layers"),
            *(layers, "--move", "jawOpen=1", "--no-measure", "--save-latent", tmp_path / f"{name}.npz"),
        )
    whole, part = (Latent.load(tmp_path / f"{name}.npz") for name in "ab")
    assert (whole.space, part.space) == ("w", "w+")
    assert np.array_equal(part.w[1], whole.w[1])
    assert not np.array_equal(part.w[0], whole.w[0])


@pytest.mark.parametrize("way", ["linear", "spherical"])
def test_interpolation_has_exact_intensities(face_net: Path, tmp_path: Path, way: str) -> None:
    output = tmp_path / "steps"
    common = ("-g", face_net, "--provider", "cpu", "--way", way)
    must("interpolate", "seed:1", "seed:2", "-o", output, "--steps", 3, "--expression", "happy", *common)
    rows = list(read_table(next(output.glob("manifest.*"))))
    assert [row["intensity"] for row in rows] == [0, 0.5, 1]
    assert {row["expression"] for row in rows} == {"happy"}
    assert {row["way"] for row in rows} == {way}
    for seed, name in ((1, "0.0000"), (2, "1.0000")):
        must("generate", face_net, "--seeds", seed, "-o", tmp_path / f"{seed}.png", "--provider", "cpu")
        ours = read_image(output / f"seed0001.happy-{name}.png")
        assert np.abs(ours.astype(int) - read_image(tmp_path / f"{seed}.png")).max() <= 1


def test_interpolation_as_a_video_with_labels(face_net: Path, tmp_path: Path) -> None:
    output = tmp_path / "o.mp4"
    words = (
        "interpolate",
        "seed:1",
        "seed:2",
        "-g",
        face_net,
        "-o",
        output,
        "--fps",
        25,
        "--provider",
        "cpu",
    )
    must(*words, "-i", 0, "-i", 0.3, "-i", 1, "--no-measure")
    assert frame_count(output) == 3
    rows = list(read_table(next(path for path in tmp_path.iterdir() if path != output)))
    assert [row["intensity"] for row in rows] == [0, 0.3, 1]
    assert [row["time_s"] for row in rows] == [0, 0.04, 0.08]
    mark = read_provenance(output)
    assert mark is not None
    assert mark.is_synthetic
    assert "exists; --overwrite" in refused(*words, "--steps", 2)


def test_a_mixture_is_of_both(face_net: Path, tmp_path: Path) -> None:
    must(
        *("mix", "--identity", "seed:1", "--expression", "seed:2", "-g", face_net, "-o", tmp_path / "m.png"),
        *("--layers", "2-3", "--save-latent", tmp_path / "m.npz", "--provider", "cpu", "--no-measure"),
    )
    generator = load(face_net, ["cpu"])
    assert isinstance(generator, StyleGAN)
    a, b = (latent_of_seed(generator, seed).w for seed in (1, 2))
    mixed = Latent.load(tmp_path / "m.npz").w
    assert np.array_equal(mixed[:2], a[:2])
    assert np.array_equal(mixed[2:], b[2:])
    picture = read_image(tmp_path / "m.png").astype(int)
    assert np.abs(picture - generator.synthesize(mixed)[0]).max() <= 1


# --- the grid ---


def make_grid(face_net: Path, learned: Path, output: Path, *words: object) -> Result:
    return invoke(
        *("grid", "seeds:1-2", "-g", face_net, "-d", learned, "-o", output, "-e", "jawOpen=2"),
        *("-i", 0.5, "-i", 1, "--age-direction", "eyeBlinkLeft", "--age", -1, "--age", 1),
        *("--provider", "cpu", *words),
    )


def test_a_grid_has_every_cell_once_and_a_codebook(face_net: Path, learned: Path, tmp_path: Path) -> None:
    output = tmp_path / "grid"
    result = make_grid(face_net, learned, output)
    assert result.exit_code == 0, result.output
    with (output / "codebook.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * 2 * 3
    cells = {(row["identity"], row["expression"], row["intensity"], row["age"]) for row in rows}
    assert len(cells) == 12
    assert ("seed0002", "neutral", "0.0", "-1.0") in cells
    about = json.loads((output / "codebook.json").read_bytes())
    with (output / "columns.csv").open(newline="") as file:
        assert [line["column"] for line in csv.DictReader(file)] == list(rows[0])
    assert about["design"]["intensities"] == [0.5, 1.0]
    images = {path.name for path in output.glob("*.png")}
    assert {row["image"] for row in rows} == images
    by_cell = {(r["identity"], r["age"], r["expression"], r["intensity"]): r for r in rows}
    generator, directions = load(face_net, ["cpu"]), Directions.load(learned)
    assert isinstance(generator, StyleGAN)
    for (identity, age, expression, intensity), row in by_cell.items():
        w = latent_of_seed(generator, int(identity.removeprefix("seed"))).w
        w = w + float(age) * directions["eyeBlinkLeft"].vector
        if expression != "neutral":
            w = w + 2 * float(intensity) * directions["jawOpen"].vector
        wanted = generator.synthesize(w.astype(np.float32))[0].astype(int)
        assert np.abs(read_image(output / row["image"]) - wanted).max() <= 1
        assert float(row["age_score"]) == pytest.approx(float(directions["eyeBlinkLeft"].score(w)), abs=2e-3)
        assert row["face_found"] == "true"


def test_an_unfinished_grid_goes_on(face_net: Path, learned: Path, tmp_path: Path) -> None:
    output = tmp_path / "grid"
    assert make_grid(face_net, learned, output, "--no-measure").exit_code == 0
    book = (output / "codebook.csv").read_text()
    images = sorted(output.glob("*.png"))
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in images}
    images[3].unlink()
    images[4].with_suffix(".json").write_text("{}")
    os.remove(output / "codebook.csv")
    assert "exists; --overwrite" in make_grid(face_net, learned, output, "--no-measure").stderr
    assert make_grid(face_net, learned, output, "--no-measure", "--resume").exit_code == 0
    after = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in images}
    assert [path for path in images if after[path][0] != before[path][0]] == images[3:5]
    assert {path: data for path, (_, data) in after.items()} == {p: data for p, (_, data) in before.items()}
    assert (output / "codebook.csv").read_text() == book


def test_a_grid_to_an_apex_latent_and_ages_by_score(face_net: Path, learned: Path, tmp_path: Path) -> None:
    output = tmp_path / "grid"
    must(
        *("grid", "seed:1", "-g", face_net, "-d", learned, "-o", output, "-e", "wow=seed:2", "-i", 1),
        *("--age-direction", "eyeBlinkLeft", "--age-score", 0.1, "--codebook", "parquet", "--no-measure"),
        *("--provider", "cpu"),
    )
    pytest.importorskip("pyarrow")
    rows = list(read_table(output / "codebook.parquet"))
    assert [row["expression"] for row in rows] == ["neutral", "wow"]
    assert rows[0]["age_score"] == pytest.approx(0.1, abs=1e-3)
    assert rows[0]["age_unit"] == "score"
    generator = load(face_net, ["cpu"])
    assert isinstance(generator, StyleGAN)
    assert rows[1]["apex"] == latent_of_seed(generator, 2).digest


# --- refusals ---


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("edit seed:1 -g NET -d DIRS -o o.png", "nothing to change"),
        ("edit seed:1 -g NET -d DIRS -o o.png --move smile=1", "no direction 'smile'; there are jawOpen"),
        ("edit seed:1 -g NET -d DIRS -o o.png --move jawOpen", "NAME=NUMBER"),
        ("edit seed:1 -g NET -d DIRS -o o.png --move jawOpen=nan", "NAME=NUMBER"),
        ("edit seed:1 -g NET -d DIRS -o o.png --move jawOpen=1e9", "within ±1000"),
        ("edit seed:1 -g NET -d DIRS -o o.png --move jawOpen=0..1", "one image, but 9"),
        ("edit seed:1 -g NET -d DIRS -o o.png --move jawOpen=1 --steps 3", "for a sweep"),
        ("edit seed:1 -g NET -d DIRS -o o.png --move jawOpen=1 --layers 4", "layers 0 to 3"),
        ("edit seed:1 -g NET -d DIRS -o o.png --move jawOpen=1 --no-provenance", "always marked"),
        ("edit seed:1 -g OTHER -d DIRS -o o.png --move jawOpen=1", "another generator"),
        ("edit seed:1 -g none.onnx -d DIRS -o o.png --move jawOpen=1", "no generator there"),
        ("edit seed:1 -g NET -d LATENT -o o.png --move jawOpen=1", "LATENT"),
        ("edit face.png -g NET -d DIRS -o o.png --move jawOpen=1", "a .npz file or seed:N"),
        ("edit LATENT -g NET -d DIRS -o o.png --move jawOpen=1", "another generator"),
        ("interpolate seed:1 seed:2 -g NET -o o --way round", "linear, spherical"),
        ("interpolate seed:1 seed:2 -g NET -o o --steps 1", "at least 2"),
        ("interpolate seed:1 seed:2 -g NET -o o -i 1.5", "0 … 1"),
        ("interpolate seed:1 seed:2 -g NET -o o -i 0.5 -i 0.5", "two pictures"),
        ("interpolate seed:1 seed:2 -g NET -o o -i 0.5 --steps 3", "give one"),
        ("mix --identity seed:1 --expression seed:2 -g NET -o folder", "one image"),
        ("mix --identity seed:1 --expression seed:2 -g NET -o o.png", "has only 4 layers"),
        ("grid seed:1 -g NET -o o -e happy", "needs --directions"),
        ("grid seed:1 -g NET -d DIRS -o o -e jawOpen --age 1", "no direction 'age'"),
        ("grid seed:1 seed:1 -g NET -d DIRS -o o -e jawOpen", "each name once"),
        ("grid seed:1 -g NET -d DIRS -o o -e jawOpen -i 0", "above 0"),
        ("grid seeds:1-2 -g NET -o o -e a=seed:3", "belongs to one identity"),
        ("grid seed:1 -g NET -d DIRS -o o.mp4 -e jawOpen", "goes into a folder"),
        ("directions learn -g NET -o d.npz -a gloom", "no attribute 'gloom'"),
        ("directions learn -g NET -o d.png -a happy", "end in .npz"),
        ("directions learn -g NET -o d.npz -a happy --against sad:happy", "--against wants"),
        ("directions learn -g NET -o d.npz -a happy --logistic sad", "is no --attribute"),
        ("directions learn -g OTHER -o d.npz -a happy --samples 50", "0 of 50 samples show a face"),
        ("directions show none.npz", "none.npz"),
    ],
)
def test_what_makes_no_sense_is_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    face_net: Path,
    noise_net: Path,
    learned: Path,
    words: str,
    says: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Latent(np.zeros((4, 6), np.float32), SHA).save("LATENT.npz")
    other = tmp_path / "other"
    other.mkdir()
    for part in ("mapping", "synthesis"):  # the same graphs of another checkpoint
        data = noise_net.with_name(f"net.{part}.onnx").read_bytes()
        (other / f"net.{part}.onnx").write_bytes(data.replace(ZEROS.encode(), SHA.encode()))
    names = {"NET": face_net, "OTHER": other / "net.onnx", "DIRS": learned, "LATENT": "LATENT.npz"}
    before = sorted(os.listdir())
    line = refused(*(names.get(word, word) for word in words.split()))
    assert says in line
    assert [name for name in sorted(os.listdir()) if name not in (*before, "o")] == []


def test_an_untrained_generator_says_that_there_are_no_faces(noise_net: Path, tmp_path: Path) -> None:
    result = must("interpolate", "seed:1", "seed:2", "-g", noise_net, "-o", tmp_path / "o", "--steps", 2)
    assert "no face was found in 2 of 2 images" in result.stderr
    record = json.loads(next((tmp_path / "o").glob("*.json")).read_bytes())
    assert record["face_found"] is False
    assert record["landmarks68_px"] is None
    assert record["seen_expression"] is None
    assert len(list(read_table(next((tmp_path / "o").glob("manifest.*"))))) == 2


def test_directions_by_a_network_from_outside(noise_net: Path, tmp_path: Path) -> None:
    """Any generator and any scorer: the mean of the red channel of noise."""
    scoring_network(tmp_path / "red.onnx", ["B", 3, 16, 16], 1)
    (tmp_path / "red.json").write_text(
        json.dumps({"model": "red.onnx", "scores": {"red": {"output": "out"}}})
    )
    words = ("directions", "learn", "-g", noise_net, "-a", "red", "--scorer", tmp_path / "red.json")
    output, cache = tmp_path / "d.npz", tmp_path / "cache"
    must(*words, "-o", output, "--samples", 300, "--cache", cache, "--batch", 16)
    first = Directions.load(output)["red"]
    assert first.about["r2"] > 0.3
    must(*words, "-o", output, "--samples", 300, "--cache", cache, "--batch", 3, "--overwrite")
    assert np.array_equal(Directions.load(output)["red"].vector, first.vector)
    generator = load(noise_net, ["cpu"])
    assert isinstance(generator, StyleGAN)
    scorer = OnnxScorer(tmp_path / "red.json")

    def moved(strength: float) -> float:
        w = np.stack([latent_of_seed(generator, seed).w for seed in range(20)]) + strength * first.vector
        return float(scorer(generator.synthesize(w.astype(np.float32))).mean())

    assert moved(-1) < moved(0) < moved(1)


def test_truth_in_w_is_found_through_the_whole_chain(faces: StyleGAN, tmp_path: Path) -> None:
    """A scorer that reads the latent back off the image is linear in w: its direction is known."""
    lower = morphing.RESOLUTION // 2

    class Redness(Brightness):
        names = ("red",)

        def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
            part = images[:, :lower].astype(np.float32).mean(axis=(1, 2))
            return (part[:, :1] - part[:, 1:2]).astype(np.float32)

    samples = score_samples(faces, [Redness()], range(120), cache=tmp_path / "c")
    found = learn(samples.w, [Attribute("red", samples.scores[:, 0])], ZEROS)["red"]
    assert found.about["r2"] > 0.97
    truth = np.array([measured(faces, Redness(), entry) for entry in range(morphing.W_DIM)])
    cosine = found.vector @ truth / np.linalg.norm(found.vector) / np.linalg.norm(truth)
    assert cosine > 0.98


def measured(
    generator: StyleGAN, scorer: Callable[[NDArray[np.uint8]], NDArray[np.float32]], entry: int
) -> float:
    """How the score changes with one entry of w, by finite differences about the mean."""
    low, high = mean_latent(generator).copy(), mean_latent(generator).copy()
    low[:, entry] -= 0.3
    high[:, entry] += 0.3
    scores = scorer(generator.synthesize(np.stack([low, high])))
    return float(scores[1, 0] - scores[0, 0])
