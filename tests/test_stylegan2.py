"""StyleGAN2: its definition against the authors' code, its files, its graphs against its definition."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import stylegan_cases as cases
from numpy.typing import NDArray

torch = pytest.importorskip("torch")
pytest.importorskip("onnx")

import nvidia_pickles as files  # noqa: E402

from fastface.checkpoints import Checkpoint, read_checkpoint, write_checkpoint  # noqa: E402
from fastface.errors import BadArgument, BadModelFile  # noqa: E402
from fastface.exports import resampling, stylegan2  # noqa: E402
from fastface.exports.generator_files import export_generator, verify_generator, within  # noqa: E402
from fastface.exports.graphs import read_metadata  # noqa: E402

PARITY = 1e-4  # ten times closer than what is promised
REFERENCE = np.load(Path(__file__).with_name("stylegan_reference.npz"))


def config(name: str) -> stylegan2.Config:
    """The settings of a case as a reader finds them."""
    arguments = cases.STYLEGAN2[name]
    synthesis, mapping = dict(arguments["synthesis_kwargs"]), arguments.get("mapping_kwargs", {})
    taps = len(synthesis.pop("resample_filter", [1, 3, 3, 1]))
    synthesis.pop("num_fp16_res", None)
    return stylegan2.Config.standard(
        cases.RESOLUTION,
        z_dim=cases.WIDTH,
        w_dim=cases.WIDTH,
        c_dim=arguments.get("c_dim", 0),
        embed_features=mapping.get("embed_features", 0),
        mapping_features=mapping.get("layer_features", cases.WIDTH),
        mapping_layers=mapping.get("num_layers", 8),
        mapping_lr=mapping.get("lr_multiplier", 0.01),
        filter_shape=(taps, taps),
        conv_clamp=float(synthesis.pop("conv_clamp", 0)),
        **synthesis,
    )


def checkpoint(name: str = "skip") -> Checkpoint:
    """The seeded weights of a case."""
    made = config(name)
    state = {key: tensor.numpy() for key, tensor in stylegan2.Generator(made).state_dict().items()}
    tensors = state | cases.weights({key: value.shape for key, value in state.items()})
    if name == "three taps":
        f = np.outer([1, 4, 2], [1, 4, 2]).astype(np.float32) / 49
        tensors |= {key: f for key, value in state.items() if value.shape == (3, 3) and "filter" in key}
    return Checkpoint("stylegan2", tensors, made.as_dict(), "seeded", "0" * 64)


def worst(made: Any, wanted: NDArray[Any]) -> float:
    return float(np.abs(made.numpy() - wanted).max())


@pytest.mark.parametrize("name", cases.STYLEGAN2)
def test_definition_is_the_authors(name: str) -> None:
    network = stylegan2.generator(checkpoint(name))
    z = torch.from_numpy(cases.latents())
    label = torch.from_numpy(cases.labels()) if network.config.c_dim else None
    w = network.mapping(z, label)
    drawn = network.mapping(z, label, cases.TRUNCATION, cases.CUTOFF)
    assert worst(w, REFERENCE[f"stylegan2/{name}/w"]) < PARITY
    assert worst(drawn, REFERENCE[f"stylegan2/{name}/drawn"]) < PARITY
    assert worst(network.synthesis(w)[:1], REFERENCE[f"stylegan2/{name}/image"]) < PARITY
    if name == "skip":
        assert worst(network.synthesis(w, "none")[:1], REFERENCE["stylegan2/skip/quiet"]) < PARITY


def test_random_noise_differs_each_time_and_given_noise_is_used() -> None:
    network = stylegan2.generator(checkpoint())
    w = network.mapping(torch.from_numpy(cases.latents()))
    one, other = network.synthesis(w, "random"), network.synthesis(w, "random")
    assert float((one - other).abs().max()) > 0.1
    own = [layer.noise_const for layer in network.synthesis.convolutions]
    assert torch.equal(network.synthesis(w, own), network.synthesis(w, "const"))


@pytest.mark.parametrize("name", cases.STYLEGAN2)
def test_graphs_are_the_definition(name: str, tmp_path: Path) -> None:
    made = checkpoint(name)
    export_generator(made, tmp_path / "net.onnx", noise="const", cutoff=None)
    found = verify_generator(tmp_path / "net.onnx", made)
    assert [path.name for path, _, _ in found] == ["net.mapping.onnx", "net.synthesis.onnx"]
    assert max(difference.worst for _, _, difference in found) < PARITY


def test_graphs_give_the_authors_image_whatever_the_batch(tmp_path: Path) -> None:
    import onnxruntime

    paths = export_generator(checkpoint(), tmp_path / "net.onnx", noise="const")
    mapping, synthesis = (onnxruntime.InferenceSession(str(path)) for path in paths)
    z = cases.latents()
    strength, one = np.array(1, np.float32), np.array(1, np.float32)
    (w,) = mapping.run(None, {"z": z, "truncation": one})
    (image,) = synthesis.run(None, {"w": w, "noise_strength": strength})
    assert np.abs(image[:1] - REFERENCE["stylegan2/skip/image"]).max() < PARITY
    (alone,) = synthesis.run(None, {"w": w[:1], "noise_strength": strength})
    assert np.abs(alone - image[:1]).max() < PARITY
    (quiet,) = synthesis.run(None, {"w": w[:1], "noise_strength": np.array(0, np.float32)})
    assert np.abs(quiet - REFERENCE["stylegan2/skip/quiet"]).max() < PARITY


@pytest.mark.parametrize(("noise", "cutoff"), [("random", None), ("none", 2)])
def test_noise_modes_and_cutoff_are_exported(noise: str, cutoff: int | None, tmp_path: Path) -> None:
    made = checkpoint("resnet")
    paths = export_generator(made, tmp_path / "net.onnx", noise=noise, cutoff=cutoff)
    found = verify_generator(tmp_path / "net.onnx", made)
    assert max(difference.worst for _, _, difference in found) < PARITY
    about = read_metadata(paths[1])
    assert (about["noise"], about["truncation_cutoff"]) == (noise, cutoff)


@pytest.mark.parametrize(("precision", "low", "high"), [("fp16", 1e-6, 5e-3), ("bf16", 1e-4, 4e-2)])
def test_short_floats_stay_close_and_really_are_short(
    precision: Any, low: float, high: float, tmp_path: Path
) -> None:
    if precision == "bf16":
        pytest.importorskip("openvino")
    made = checkpoint("config-e widths")
    (_, path) = export_generator(made, tmp_path / "net.onnx", precision, noise="const")
    (_, kept, difference) = verify_generator(path, made)[0]
    assert kept == precision
    assert within(precision, difference)
    assert low < difference.worst / difference.scale < high


def test_fp16_does_not_overflow_where_kernels_and_styles_are_huge(tmp_path: Path) -> None:
    made = checkpoint()
    big = {
        name: tensor * np.float32(3e4) if name.endswith(("conv0.weight", "conv1.weight")) else tensor
        for name, tensor in made.tensors.items()
    }
    big = {
        name: value * np.float32(1e3) if ".conv1.affine." in name else value for name, value in big.items()
    }
    huge = Checkpoint("stylegan2", big, made.config, "huge", "1" * 64)
    (_, path) = export_generator(huge, tmp_path / "net.onnx", "fp16", noise="const")
    (_, _, difference) = verify_generator(path, huge)[0]
    assert within("fp16", difference)


def test_metadata_and_form_of_the_files(tmp_path: Path) -> None:
    import onnx

    paths = export_generator(checkpoint("classes"), tmp_path / "net.onnx", noise="const")
    about = read_metadata(paths[1])
    assert about["kind"] == "stylegan2"
    assert about["part"] == "synthesis"
    assert about["resolution"] == cases.RESOLUTION
    assert about["checkpoint_sha256"] == "0" * 64
    graphs = [onnx.load(str(path)) for path in paths]
    for graph in graphs:
        onnx.checker.check_model(graph, full_check=True)
        assert graph.opset_import[0].version >= 17
        assert not any(tensor.external_data for tensor in graph.graph.initializer)
    names = [[entry.name for entry in graph.graph.input] for graph in graphs]
    assert names == [["z", "label", "truncation"], ["w", "noise_strength"]]
    first = graphs[1].graph.input[0].type.tensor_type.shape.dim
    assert [first[0].dim_param, first[1].dim_value, first[2].dim_value] == ["B", 8, cases.WIDTH]


# -- files ---------------------------------------------------------------------------------------------------


def _attributes(made: stylegan2.Config) -> dict[str, dict[str, Any]]:
    layer = {"activation": made.activation, "conv_clamp": made.conv_clamp or None}
    dense = {"activation": made.mapping_activation, "bias_gain": made.mapping_lr}
    block = {"architecture": made.architecture}
    return {"mapping.fc0": dense, "synthesis.b4": block, "synthesis.b4.conv1": layer}


def _same(read: Checkpoint, made: Checkpoint) -> None:
    assert read.kind == "stylegan2"
    assert read.tensors.keys() == made.tensors.keys()
    for name, tensor in made.tensors.items():
        np.testing.assert_allclose(read.tensors[name], tensor, rtol=1e-6, atol=1e-6, err_msg=name)
    assert stylegan2.Config.of(read) == stylegan2.Config.of(made)
    stylegan2.generator(read)


@pytest.mark.parametrize("name", ["config-e widths", "resnet", "orig", "classes", "no noise", "swish"])
@pytest.mark.parametrize("protocol", [3, 4])
def test_persistent_pickles(name: str, protocol: int, tmp_path: Path) -> None:
    made = checkpoint(name)
    path = tmp_path / "net.pkl"
    network = files.modules(made.tensors, _attributes(config(name)))
    path.write_bytes(files.persistent_pickle(network, protocol))
    _same(read_checkpoint(path), made)


@pytest.mark.parametrize("name", ["skip", "resnet", "orig", "classes"])
def test_tensorflow_pickles(name: str, tmp_path: Path) -> None:
    made, settings = checkpoint(name), config(name)
    if name == "classes":  # TensorFlow's code has one width for all
        settings = stylegan2.Config.standard(
            32, z_dim=64, w_dim=64, c_dim=5, mapping_layers=2, channel_base=512, channel_max=24
        )
        state = stylegan2.Generator(settings).state_dict()
        tensors = {key: value.numpy() for key, value in state.items()}
        made = Checkpoint("stylegan2", tensors, settings.as_dict(), "made", "0")
    arrays = files.tensorflow_arrays(made.tensors, settings.resolution, settings.architecture)
    kwargs = {
        "latent_size": 64, "dlatent_size": 64, "resolution": 32, "num_channels": 3,
        "label_size": settings.c_dim, "architecture": settings.architecture,
        "mapping_layers": settings.mapping_layers, "truncation_psi": 0.5,
        "conv_clamp": settings.conv_clamp or None,
    }  # fmt: skip
    own = arrays.pop("")
    path = tmp_path / "net.pkl"
    path.write_bytes(files.tensorflow_pickle(kwargs, own, arrays))
    _same(read_checkpoint(path), made)
    arrays["synthesis"].pop("8x8/Conv0_up/weight")
    path.write_bytes(files.tensorflow_pickle(kwargs, own, arrays))
    with pytest.raises(BadModelFile, match="8x8/Conv0_up/weight is missing"):
        read_checkpoint(path)
    path.write_bytes(files.tensorflow_pickle(kwargs, own, arrays, version=2))
    with pytest.raises(BadModelFile, match="version 2"):
        read_checkpoint(path)
    path.write_bytes(files.tensorflow_pickle({**kwargs, "fancy": 1}, own, arrays))
    with pytest.raises(BadModelFile, match="fancy"):
        read_checkpoint(path)


@pytest.mark.parametrize("new", [True, False])
def test_rosinality(new: bool, tmp_path: Path) -> None:
    import argparse

    made = checkpoint()
    theirs = {
        name: torch.from_numpy(np.array(v)) for name, v in files.rosinality_state(made.tensors, 32).items()
    }
    average = torch.from_numpy(made.tensors["mapping.w_avg"])
    whole = {
        "g_ema": theirs,
        "latent_avg": average,
        "args": argparse.Namespace(size=32),
        "g_optim": {"state": {}},
    }
    path = tmp_path / "net.pt"
    path.write_bytes(files.torch_file(whole, new=new))
    _same(read_checkpoint(path), made)
    network = stylegan2.generator(read_checkpoint(path))
    image = network(torch.from_numpy(cases.latents()))[:1]
    assert worst(image, REFERENCE["rosinality/image"]) < PARITY
    del whole["latent_avg"]
    path.write_bytes(files.torch_file(whole, new=new))
    w = network.mapping.embedded(torch.randn(20_000, 64))
    estimated = read_checkpoint(path).tensors["mapping.w_avg"]
    assert np.abs(estimated - w.mean(dim=0).numpy()).max() < 0.1 * float(w.std())
    silent = {name: tensor for name, tensor in theirs.items() if not name.startswith("noises.")}
    path.write_bytes(files.torch_file({"g_ema": silent}, new=new))
    drawn = [read_checkpoint(path).tensors["synthesis.b8.conv1.noise_const"] for _ in range(2)]
    assert drawn[0].shape == (8, 8)
    assert np.array_equal(*drawn)
    stylegan2.generator(read_checkpoint(path))
    del theirs["convs.1.activate.bias"]
    path.write_bytes(files.torch_file(whole, new=new))
    with pytest.raises(BadModelFile, match=r"convs\.1\.activate\.bias is missing"):
        read_checkpoint(path)


def test_converted_is_the_same_and_knows_where_it_came_from(tmp_path: Path) -> None:
    made = checkpoint("classes")
    path = tmp_path / "net.pkl"
    path.write_bytes(files.persistent_pickle(files.modules(made.tensors, _attributes(config("classes")))))
    read = read_checkpoint(path)
    write_checkpoint(read, tmp_path / "net.safetensors")
    again = read_checkpoint(tmp_path / "net.safetensors")
    assert (again.kind, again.config, again.sha256) == (read.kind, read.config, read.sha256)
    assert all(np.array_equal(again.tensors[name], tensor) for name, tensor in read.tensors.items())


# -- what does not fit ---------------------------------------------------------------------------------------


def _without(made: Checkpoint, name: str) -> dict[str, Any]:
    return {key: value for key, value in made.tensors.items() if key != name}


WRONG: dict[str, tuple[Callable[[Checkpoint], tuple[dict[str, Any], dict[str, Any]]], str]] = {
    "missing": (
        lambda c: (_without(c, "synthesis.b16.conv0.bias"), c.config),
        r"synthesis\.b16\.conv0\.bias missing",
    ),
    "unknown": (lambda c: ({**c.tensors, "synthesis.extra": np.zeros(1)}, c.config), "extra not known"),
    "shape": (
        lambda c: ({**c.tensors, "mapping.w_avg": np.zeros(3)}, c.config),
        r"w_avg has shape \(3,\), wanted \(64,\)",
    ),
    "resolution": (lambda c: (c.tensors, {**c.config, "resolution": 48}), "resolution 48"),
    "larger": (lambda c: (c.tensors, {**c.config, "resolution": 64}), "do not fit resolution 64"),
    "architecture": (lambda c: (c.tensors, {**c.config, "architecture": "unet"}), "architecture unet"),
    "activation": (lambda c: (c.tensors, {**c.config, "activation": "os.system"}), "activation"),
    "settings": (lambda c: (c.tensors, {**c.config, "channels": "many"}), "damaged"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_does_not_fit_is_named(name: str) -> None:
    change, message = WRONG[name]
    made = checkpoint()
    tensors, settings = change(made)
    with pytest.raises(BadModelFile, match=message):
        stylegan2.generator(Checkpoint("stylegan2", tensors, settings, "wrong.pkl", "0"))


def test_nan_weights_another_kind_and_truncated_files_are_refused(tmp_path: Path) -> None:
    made = checkpoint()
    broken = {**made.tensors, "synthesis.b8.conv1.bias": np.full(24, np.nan, np.float32)}
    path = tmp_path / "net.pkl"
    path.write_bytes(files.persistent_pickle(files.modules(broken, _attributes(config("skip")))))
    with pytest.raises(BadModelFile, match=r"synthesis\.b8\.conv1\.bias .* not finite"):
        read_checkpoint(path)
    with pytest.raises(BadModelFile, match="not a checkpoint of stylegan3; it is one of stylegan2"):
        read_checkpoint(path, "stylegan3")
    with pytest.raises(BadArgument, match="kind must be one of"):
        read_checkpoint(path, "dcgan")
    whole = path.read_bytes()
    for part in (0.1, 0.5, 0.99):
        path.write_bytes(whole[: int(len(whole) * part)])
        with pytest.raises(BadModelFile, match="truncated"):
            read_checkpoint(path)
    path.write_bytes(pickle.dumps({"G_ema": {"weight": [1, 2]}}))
    assert read_checkpoint(path).kind is None


def test_files_of_another_checkpoint_are_not_verified(tmp_path: Path) -> None:
    export_generator(checkpoint("no noise"), tmp_path / "net.onnx")
    other = checkpoint("no noise")
    other = Checkpoint(other.kind, other.tensors, other.config, "other.pkl", "f" * 64)
    with pytest.raises(BadModelFile, match=r"other\.pkl"):
        verify_generator(tmp_path / "net.onnx", other)
    with pytest.raises(BadModelFile, match="no such file"):
        verify_generator(tmp_path / "none.onnx", other)
    changed = {**other.tensors, "synthesis.b8.conv1.bias": other.tensors["synthesis.b8.conv1.bias"] + 0.1}
    silent = Checkpoint(other.kind, changed, other.config, "x", "0" * 64)
    found = verify_generator(tmp_path / "net.onnx", silent)
    assert not all(within(precision, difference) for _, precision, difference in found)


# -- filters -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("taps", [3, 4, 5, 8])
@pytest.mark.parametrize("separable", [True, False])
def test_filters_are_zero_insertion_and_convolution(taps: int, separable: bool) -> None:
    """Against scipy on the widened image, for every direction, and in the form that is exported."""
    signal = pytest.importorskip("scipy.signal")
    random = np.random.default_rng(taps)
    f = random.standard_normal(taps).astype(np.float32)
    whole = np.outer(f, f)
    x = random.standard_normal((1, 2, 6, 7)).astype(np.float32)
    given = torch.from_numpy(f if separable else whole)
    for up, down, padding in (
        (1, 1, (taps - 1, taps)),
        (2, 1, (taps, 1)),
        (1, 2, (taps, taps)),
        (2, 1, (taps - 2, -1)),
    ):
        wide = np.zeros((1, 2, 6 * up, 7 * up), np.float32)
        wide[:, :, ::up, ::up] = x
        around = (padding[0], max(padding[1], 0))
        wide = np.pad(wide, [(0, 0), (0, 0), around, around])
        cut = min(padding[1], 0)
        wide = wide[:, :, : wide.shape[2] + cut, : wide.shape[3] + cut]
        wanted = np.stack([signal.convolve2d(plane, whole, "valid")[::down, ::down] for plane in wide[0]])
        got = resampling.resample(torch.from_numpy(x), given, up=up, down=down, padding=padding)
        np.testing.assert_allclose(got[0].numpy(), wanted, rtol=1e-4, atol=1e-4)
        layer = resampling.Filter(given, 2, torch.float32, up=up, down=down, padding=padding)
        np.testing.assert_allclose(layer(torch.from_numpy(x))[0].numpy(), wanted, rtol=1e-4, atol=1e-4)


def test_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """convert → export → verify by their command lines."""
    from typer.testing import CliRunner

    from fastface.cli.app import app

    made = checkpoint()
    pkl, model, net = tmp_path / "net.pkl", tmp_path / "net.safetensors", tmp_path / "net.onnx"
    pkl.write_bytes(files.persistent_pickle(files.modules(made.tensors, _attributes(config("skip")))))
    run = CliRunner().invoke
    done = run(app, ["convert", str(pkl), "-o", str(model), "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["kind"] == "stylegan2"
    done = run(app, ["export", "stylegan2", str(model), "-o", str(net)])
    assert done.exit_code == 0, done.output
    assert (tmp_path / "net.synthesis.onnx").is_file()
    done = run(app, ["verify", str(net), "--checkpoint", str(pkl), "--json"])
    assert done.exit_code == 0, done.output
    outputs = json.loads(done.stdout)["outputs"]
    assert {entry["output"] for entry in outputs} == {"w", "image"}
    assert max(entry["worst"] for entry in outputs) < PARITY
    assert run(app, ["convert", str(pkl), "-o", str(tmp_path / "net.bin")]).exit_code == 1
    assert run(app, ["export", "stylegan3", str(pkl), "-o", str(net)]).exit_code == 1
    assert run(app, ["export", "stylegan2", str(tmp_path / "none"), "-o", str(net)]).exit_code == 1
    assert run(app, ["verify", str(pkl), "--checkpoint", str(pkl)]).exit_code == 1
