"""Projection: images that the generator made are found again; runs can be interrupted."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner, Result

torch = pytest.importorskip("torch")
pytest.importorskip("onnx")

import small_stylegan2 as small  # noqa: E402

from fastface.cli.app import app  # noqa: E402
from fastface.errors import BadArgument, BadModelFile  # noqa: E402
from fastface.exports.inversion import (  # noqa: E402
    Projection,
    Settings,
    feature_distance,
    multiscale_distance,
    noise_correlation,
    psnr_db,
)
from fastface.exports.onnx_features import OnnxFeatures, prepare  # noqa: E402
from fastface.generators import StyleGAN, load  # noqa: E402
from fastface.generators.latents import Latent, mix  # noqa: E402
from fastface.images import read_image, write_image  # noqa: E402

SHA = "cd" * 32
Image = NDArray[np.uint8]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def network() -> Any:
    return small.network()


def latents_of(network: Any, seed: int, count: int = 1) -> Any:
    z = torch.randn(count, network.config.z_dim, generator=torch.Generator().manual_seed(seed))
    return network.mapping(z)


def shown(network: Any, w: Any, *noise: Any) -> Image:
    with torch.no_grad():
        image = network.synthesis(w, *noise)[0].permute(1, 2, 0) * 127.5 + 127.5
    return np.ascontiguousarray(image.round().clamp(0, 255).numpy().astype(np.uint8))


def quick(**others: Any) -> Settings:
    return Settings(**{"steps": 150, "mean_samples": 500, **others})


# --- what it finds ---


@pytest.mark.parametrize("seed", [11, 12])
def test_an_image_of_the_generator_is_found_in_w(network: Any, seed: int) -> None:
    target = shown(network, latents_of(network, seed))
    run = Projection(network, target, SHA, quick())
    start = run.psnr_db()
    run.run()
    assert start < 22
    assert run.psnr_db() >= 30
    found = run.latent()
    assert found.space == "w"
    assert psnr_db(shown(network, torch.from_numpy(found.w.copy())[None]), target) >= 30


def test_an_image_of_two_latents_is_found_in_w_plus(network: Any) -> None:
    a, b = (latents_of(network, seed)[0].numpy() for seed in (13, 14))
    target = shown(network, torch.from_numpy(mix(a, b, (2, 3, 4)))[None])
    wide = Projection(network, target, SHA, quick(space="w+", steps=200))
    wide.run()
    assert wide.psnr_db() >= 30
    assert wide.latent().space == "w+"


def test_noise_that_is_fitted_helps_and_stays_noise() -> None:
    """The target has noise maps that the generator does not have."""
    network = small.network()
    for layer in network.synthesis.convolutions:
        layer.noise_strength.fill_(0.3)
    random = torch.Generator().manual_seed(5)
    other = [
        torch.randn(layer.noise_const.shape, generator=random) for layer in network.synthesis.convolutions
    ]
    target = shown(network, latents_of(network, 15), other)

    def projected(**settings: Any) -> Projection:
        run = Projection(network, target, SHA, quick(steps=100, **settings))
        run.run()
        return run

    def correlation(run: Projection) -> float:
        return sum(float(noise_correlation(value)) for value in run.state.values[1:])

    without, fitted = projected(), projected(fit_noise=True, noise_weight=1.0)
    assert fitted.psnr_db() > without.psnr_db() + 3
    noise = fitted.latent().noise
    assert list(noise) == [f"noise_{n}" for n in range(len(other))]
    for values in noise.values():
        assert abs(values.mean()) < 1e-4
        assert values.std() == pytest.approx(1, abs=1e-3)
    # Without the regulariser the noise carries the picture.
    assert correlation(fitted) < 0.01 * correlation(projected(fit_noise=True, noise_weight=0.0))


def test_stylegan3_is_projected_too_and_has_no_noise() -> None:
    from fastface.exports import stylegan3

    torch.manual_seed(3)
    config = stylegan3.Config(16, z_dim=24, w_dim=24, channel_base=512, channel_max=24, num_layers=5)
    network = stylegan3.Generator(config).eval()
    target = shown(network, latents_of(network, 4))
    run = Projection(network, target, SHA, quick(steps=80))
    start = run.psnr_db()
    run.run()
    assert run.psnr_db() > max(30, start + 5)
    with pytest.raises(BadArgument, match="has no noise"):
        Projection(network, target, SHA, quick(fit_noise=True))


def test_the_noise_regulariser_is_that_of_the_appendix() -> None:
    """By hand on a 16x16 map: two scales, neighbours in x and y, wrapped round."""
    noise = torch.randn(1, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    fine = noise[0, 0].numpy().astype(np.float64)
    coarse = fine.reshape(8, 2, 8, 2).mean(axis=(1, 3)) * 2
    wanted = sum((scale * np.roll(scale, 1, axis)).mean() ** 2 for scale in (fine, coarse) for axis in (0, 1))
    assert float(noise_correlation(noise)) == pytest.approx(wanted, rel=1e-4)
    stripes = torch.ones(1, 1, 16, 16)
    assert float(noise_correlation(stripes)) > 100 * wanted


def test_ramps_are_those_of_the_appendix() -> None:
    settings = Settings(steps=1000)
    assert settings.rate(0) == 0
    assert settings.rate(25) == pytest.approx(0.05)  # half of the first 5 %
    assert settings.rate(500) == pytest.approx(0.1)
    assert settings.rate(875) == pytest.approx(0.05)  # half way down the cosine of the last 25 %
    assert settings.rate(1000) == pytest.approx(0, abs=1e-12)
    assert settings.jitter(0) == pytest.approx(0.05)
    assert settings.jitter(375) == pytest.approx(0.05 / 4)
    assert settings.jitter(750) == 0


def test_distances_see_what_they_should() -> None:
    random = torch.Generator().manual_seed(1)
    image = torch.rand(1, 3, 32, 32, generator=random)
    assert float(multiscale_distance(image, image)) == 0
    fine = image + 0.1 * (-1) ** torch.arange(32)  # vanishes at every coarser scale
    level = image + 0.1
    assert float(multiscale_distance(fine, image)) == pytest.approx(0.01 / 3, rel=1e-3)
    assert float(multiscale_distance(level, image)) == pytest.approx(0.01, rel=1e-3)
    maps = [torch.rand(1, 4, 5, 5, generator=random)]
    assert float(feature_distance(maps, [3 * maps[0]])) == pytest.approx(0, abs=1e-6)
    assert float(feature_distance(maps, [-maps[0]])) == pytest.approx(4, rel=1e-4)


# --- any features ---


def test_features_of_any_module_pull_the_image(network: Any) -> None:
    """With pixels switched off, features alone must bring the image near."""
    random = torch.Generator().manual_seed(2)
    kernels = torch.randn(24, 3, 5, 5, generator=random)

    def features(image: Any) -> list[Any]:
        return [torch.relu(torch.nn.functional.conv2d(image, kernels))]

    target = shown(network, latents_of(network, 16))
    run = Projection(
        network, target, SHA, quick(pixel_weight=0.0, steps=100), features=features, features_name="mine"
    )
    start = run.psnr_db()
    run.run()
    assert run.psnr_db() > start + 5
    assert run.latent().about["features"] == "mine"


def test_the_landmark_network_in_torch_is_the_one_in_onnxruntime() -> None:
    import onnxruntime

    features = OnnxFeatures("landmarks", ["points"])
    image = torch.rand(1, 3, 96, 96, generator=torch.Generator().manual_seed(3)) * 2 - 1
    image.requires_grad_()
    (points,) = features(image)
    prepared = prepare(image, features._input).detach().numpy()
    from fastface import landmarks

    file = Path(landmarks.__file__).parent / "assets" / "landmarks" / "landmarks478.onnx"
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    wanted = session.run(["points"], {"image": prepared})[0]
    assert np.abs(points.detach().numpy() - wanted).max() < 1e-2  # of 256 px
    (gradient,) = torch.autograd.grad(points.sum(), image)
    assert torch.isfinite(gradient).all()
    assert gradient.abs().sum() > 0
    assert len(OnnxFeatures("landmarks")(image)) == 6


def onnx_network(path: Path, nodes: list[Any], weights: dict[str, Any], outputs: tuple[str, ...]) -> Path:
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    graph = helper.make_graph(
        nodes,
        "features",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["B", 3, 24, 24])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    path.write_bytes(onnx.ModelProto.SerializeToString(model))
    return path


def test_a_network_from_outside_in_torch_is_the_one_in_onnxruntime(tmp_path: Path) -> None:
    import onnxruntime
    from onnx import helper

    random = np.random.default_rng(4)

    def drawn(*shape: int) -> Any:
        return random.standard_normal(shape).astype(np.float32)

    weights = {
        "w1": drawn(8, 3, 3, 3), "b1": drawn(8), "s": drawn(8), "o": drawn(8), "m": drawn(8),
        "v": np.abs(drawn(8)) + 0.5, "slope": drawn(8, 1, 1), "w2": drawn(4, 8, 3, 3), "wg": drawn(5, 4),
        "bg": drawn(5), "low": np.float32(-1), "high": np.float32(1),
    }  # fmt: skip
    nodes = [
        helper.make_node("Conv", ["image", "w1", "b1"], ["c1"], auto_pad="SAME_UPPER", strides=[2, 2]),
        helper.make_node("BatchNormalization", ["c1", "s", "o", "m", "v"], ["n1"]),
        helper.make_node("PRelu", ["n1", "slope"], ["p1"]),
        helper.make_node(
            "AveragePool", ["p1"], ["a1"], kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]
        ),
        helper.make_node("Conv", ["a1", "w2"], ["c2"], pads=[0, 1, 1, 2]),
        helper.make_node("MaxPool", ["c2"], ["m2"], kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1),
        helper.make_node("LeakyRelu", ["m2"], ["l2"], alpha=0.2),
        helper.make_node("GlobalAveragePool", ["l2"], ["g2"]),
        helper.make_node("Flatten", ["g2"], ["f2"]),
        helper.make_node("Gemm", ["f2", "wg", "bg"], ["y"], transB=1, alpha=0.5),
        helper.make_node("Clip", ["y", "low", "high"], ["z"]),
    ]
    path = onnx_network(tmp_path / "net.onnx", nodes, weights, ("z", "m2", "n1", "a1"))
    image = torch.rand(1, 3, 24, 24, generator=torch.Generator().manual_seed(5)) * 2 - 1
    names = ["z", "m2", "n1", "a1"]
    made = OnnxFeatures(path, names)(image)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    for mine, theirs in zip(made, session.run(names, {"image": image.numpy()}), strict=True):
        assert np.abs(mine.numpy() - theirs).max() < 1e-4
    assert [entry.shape[1] for entry in OnnxFeatures(path)(image)] == [8, 4, 4]  # before each pooling
    with pytest.raises(BadArgument, match="no tensor 'nope'"):
        OnnxFeatures(path, ["nope"])


def test_operators_that_are_not_known_are_named(tmp_path: Path) -> None:
    from onnx import helper

    path = onnx_network(tmp_path / "net.onnx", [helper.make_node("Erf", ["image"], ["y"])], {}, ("y",))
    with pytest.raises(BadModelFile, match="operator 'Erf'"):
        OnnxFeatures(path)
    (tmp_path / "text.onnx").write_text("no network")
    with pytest.raises(BadModelFile):
        OnnxFeatures(tmp_path / "text.onnx")


# --- going on later ---


def test_a_run_that_goes_on_later_ends_the_same(network: Any, tmp_path: Path) -> None:
    target = shown(network, latents_of(network, 17))
    settings = quick(steps=40, fit_noise=True, seed=3)
    whole = Projection(network, target, SHA, settings)
    whole.run()
    first = Projection(network, target, SHA, settings)
    for _ in range(17):
        first.step()
    first.save_state(tmp_path / "s.npz")
    second = Projection(network, target, SHA, settings)
    second.load_state(tmp_path / "s.npz")
    assert second.state.step == 17
    second.run()
    assert np.array_equal(second.latent().w, whole.latent().w)
    for name, values in whole.latent().noise.items():
        assert np.array_equal(values, second.latent().noise[name])
    other = Projection(network, target, SHA, quick(steps=40, fit_noise=True, seed=4))
    other.run()
    assert not np.array_equal(other.latent().w, whole.latent().w)  # the seed does something


def test_states_of_other_runs_and_damaged_ones_are_refused(network: Any, tmp_path: Path) -> None:
    target = shown(network, latents_of(network, 18))
    run = Projection(network, target, SHA, quick())
    run.step()
    path = tmp_path / "s.npz"
    run.save_state(path)
    for other, says in (
        (Projection(network, 255 - target, SHA, quick()), "another target image"),
        (Projection(network, target, "ef" * 32, quick()), "another generator"),
        (Projection(network, target, SHA, quick(seed=1)), "another setting seed"),
        (Projection(network, target, SHA, quick(space="w+")), "another setting space"),
    ):
        with pytest.raises(BadArgument, match=says):
            other.load_state(path)
    good = dict(np.load(path))
    for name, value in {
        "step": np.array(1000, "<i4"),
        "value_0": np.full_like(good["value_0"], np.nan),
        "first_0": np.zeros((1, 2, 3), "<f4"),
        "format": np.array("other"),
    }.items():
        np.savez(tmp_path / "bad.npz", **{**good, name: value})
        with pytest.raises(BadModelFile):
            run.load_state(tmp_path / "bad.npz")
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(BadModelFile):
        run.load_state(path)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"space": "z"}, "space is w or w\\+"),
        ({"steps": 0}, "steps must be"),
        ({"learning_rate": float("nan")}, "learning_rate must be"),
        ({"noise_weight": -1.0}, "noise_weight must be"),
        ({"ramp_up": 2.0}, "ramp_up is a share"),
        ({"label": (1.0,)}, "takes no values, got 1"),
    ],
)
def test_settings_that_make_no_sense_are_refused(network: Any, settings: dict[str, Any], says: str) -> None:
    with pytest.raises(BadArgument, match=says):
        Projection(network, np.zeros((32, 32, 3), np.uint8), SHA, quick(**settings))


def test_a_target_of_another_size_is_refused(network: Any) -> None:
    with pytest.raises(BadArgument, match=r"target must be \(32, 32, 3\) uint8, got \(16, 16, 3\)"):
        Projection(network, np.zeros((16, 16, 3), np.uint8), SHA, quick())


# --- the command ---


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, network: Any) -> Path:
    folder = tmp_path_factory.mktemp("net")
    small.write(folder, network)
    (folder / "noisy").mkdir()
    small.write(folder / "noisy", network, noise="random")
    write_image(folder / "made.png", shown(network, latents_of(network, 19)))
    return folder


def invoke(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


def project(folder: Path, output: Path, *words: object) -> Result:
    net = folder / "net.safetensors"
    common = ("-g", net, "-o", output, "--no-align", "--features", "none")
    return invoke("project", folder / "made.png", *common, *words)


def test_project_then_show(folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "face.npz"
    result = project(folder, output, "--steps", 150, "--image", tmp_path / "face.png", "--json")
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert told["psnr_db"] >= 30
    assert sorted(os.listdir(tmp_path)) == ["face.npz", "face.png"]
    latent = Latent.load(output)
    assert latent.digest == told["latent_sha256"]
    generator = load(folder / "net.onnx", ["cpu"])
    assert isinstance(generator, StyleGAN)
    by_graph = generator.synthesize(latent.w)[0]
    assert np.abs(by_graph.astype(int) - read_image(tmp_path / "face.png")).max() <= 1
    assert psnr_db(by_graph, read_image(folder / "made.png")) >= 30
    again = project(folder, tmp_path / "again.npz", "--steps", 150)
    assert again.exit_code == 0
    assert Latent.load(tmp_path / "again.npz").digest == latent.digest  # same seed, same latent


def test_fitted_noise_is_shown_by_a_graph_with_noise_inputs(folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "face.npz"
    result = project(folder, output, "--steps", 20, "--fit-noise", "--image", tmp_path / "face.png")
    assert result.exit_code == 0, result.output
    latent = Latent.load(output)
    generator = load(folder / "noisy" / "net.onnx", ["cpu"])
    assert isinstance(generator, StyleGAN)
    made = generator.synthesize(latent.w, latent.noise)[0]
    without = generator.synthesize(latent.w, "none")[0]
    wanted = read_image(tmp_path / "face.png").astype(int)
    assert np.abs(made - wanted).max() <= 1
    assert np.abs(without - wanted).max() > 5


def test_ctrl_c_keeps_the_state_and_resume_ends_the_same(folder: Path, tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole.npz", tmp_path / "broken.npz"
    steps = 60
    assert project(folder, whole, "--steps", steps, "--threads", 1).exit_code == 0
    words = [
        *("project", folder / "made.png", "-g", folder / "net.safetensors", "-o", broken, "--no-align"),
        *("--features", "none", "--steps", steps, "--threads", 1, "--save-every", 5),
    ]
    command = [sys.executable, "-P", "-m", "fastface", *map(str, words)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    state = tmp_path / "broken.state.npz"
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 60
        while not state.exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    assert not broken.exists()
    assert 5 <= int(np.load(state)["step"]) < steps
    refused = project(folder, broken, "--steps", steps)
    assert refused.exit_code == 1
    assert "--resume goes on with it" in refused.stderr
    resumed = project(folder, broken, "--steps", steps, "--threads", 1, "--resume")
    assert resumed.exit_code == 0, resumed.output
    assert "going on at step" in resumed.stdout
    assert Latent.load(broken).digest == Latent.load(whole).digest
    assert not state.exists()


def test_photos_are_turned_and_cut_as_in_ffhq(tmp_path: Path) -> None:
    import cv2

    import fastface
    from fastface.cli.project import face_square
    from fastface.landmarks import LandmarkDetector, landmarks68

    photo = Path(fastface.__file__).parent / "assets" / "demo.jpg"
    rgb = read_image(photo)
    turn = cv2.getRotationMatrix2D((256, 256), 20, 0.9)
    write_image(tmp_path / "turned.png", np.asarray(cv2.warpAffine(rgb, turn, (512, 512)), np.uint8))
    squares = [face_square(file, 256, align=True) for file in (photo, tmp_path / "turned.png")]
    for square in squares:
        points = landmarks68(LandmarkDetector().detect(square)[0].points_px)
        eyes = [points[36:42].mean(axis=0), points[42:48].mean(axis=0)]
        # An upright face, eyes level, a tenth of the way to the mouth above the middle.
        assert abs(np.degrees(np.arctan2(*(eyes[1] - eyes[0])[::-1]))) < 4
        mouth = (points[48] + points[54]) / 2
        middle = sum(eyes) / 2
        assert np.abs(middle + 0.1 * (mouth - middle) - 128).max() < 4
    assert psnr_db(*squares) > 22
    middle_square = face_square(photo, 64, align=False)
    assert middle_square.shape == (64, 64, 3)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["photo.png", "-g", "net.onnx", "-o", "f.npz"], "needs gradients"),
        (["photo.png", "-g", "none.safetensors", "-o", "f.npz"], "no such file"),
        (["photo.png", "-g", "net.safetensors", "-o", "f.png"], "must end in one of .npz"),
        (["photo.png", "-g", "net.safetensors", "-o", "f.npz"], "no face"),
        (["missing.png", "-g", "net.safetensors", "-o", "f.npz"], "missing.png"),
        (["photo.png", "-g", "net.safetensors", "-o", "f.npz", "--space", "z"], "space is w or w+"),
        (["photo.png", "-g", "photo.png", "-o", "f.npz"], "photo.png"),
        (["photo.png", "-g", "net.safetensors", "-o", "f.npz", "--device", "cuda"], "cuda"),
        (["photo.png", "-g", "net.safetensors", "-o", "f.npz", "--resume", "--overwrite"], "give one"),
    ],
)
def test_what_cannot_be_projected_is_one_line(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], says: str
) -> None:
    if says == "cuda" and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    monkeypatch.chdir(tmp_path)
    for name in ("net.safetensors", "net.synthesis.onnx", "net.mapping.onnx"):
        os.symlink(folder / name, name)
    write_image("photo.png", np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8))
    result = invoke("project", *words)
    assert result.exit_code == 1, result.output
    assert says in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert not Path("f.npz").exists()
