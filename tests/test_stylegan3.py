"""StyleGAN3: its definition against the authors' code, its files, its graphs against its definition."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import stylegan_cases as cases

torch = pytest.importorskip("torch")
pytest.importorskip("onnx")

import nvidia_pickles as files  # noqa: E402

from fastface.checkpoints import Checkpoint, read_checkpoint  # noqa: E402
from fastface.errors import BadModelFile  # noqa: E402
from fastface.exports import stylegan3  # noqa: E402
from fastface.exports.generator_files import export_generator, verify_generator, within  # noqa: E402
from fastface.exports.graphs import read_metadata  # noqa: E402

PARITY = 1e-4
REFERENCE = np.load(Path(__file__).with_name("stylegan_reference.npz"))


def config(name: str) -> stylegan3.Config:
    """The settings of a case as a reader finds them."""
    arguments = dict(cases.STYLEGAN3[name])
    mapping = arguments.pop("mapping_kwargs", {})
    if "conv_clamp" in arguments:
        arguments["conv_clamp"] = float(arguments["conv_clamp"])
    return stylegan3.Config(
        cases.RESOLUTION,
        z_dim=cases.WIDTH,
        w_dim=cases.WIDTH,
        mapping_layers=mapping.get("num_layers", 2),
        mapping_lr=mapping.get("lr_multiplier", 0.01),
        **arguments,
    )


def checkpoint(name: str) -> Checkpoint:
    """The seeded weights of a case; its filters are designed here."""
    made = config(name)
    state = {key: tensor.numpy() for key, tensor in stylegan3.Generator(made).state_dict().items()}
    tensors = state | cases.weights({key: value.shape for key, value in state.items()})
    return Checkpoint("stylegan3", tensors, made.as_dict(), "seeded", "0" * 64)


def worst(made: Any, wanted: Any) -> float:
    return float(np.abs(made.numpy() - wanted).max())


@pytest.mark.parametrize("name", cases.STYLEGAN3)
def test_definition_is_the_authors(name: str) -> None:
    network = stylegan3.generator(checkpoint(name))
    z = torch.from_numpy(cases.latents())
    label = torch.from_numpy(cases.labels()) if network.config.c_dim else None
    w = network.mapping(z, label)
    drawn = network.mapping(z, label, cases.TRUNCATION, cases.CUTOFF)
    assert worst(w, REFERENCE[f"stylegan3/{name}/w"]) < PARITY
    assert worst(drawn, REFERENCE[f"stylegan3/{name}/drawn"]) < PARITY
    both = network.synthesis(w)
    assert worst(both[:1], REFERENCE[f"stylegan3/{name}/image"]) < PARITY
    # The authors average the styles over the batch; here an image does not depend on its neighbours.
    assert worst(network.synthesis(w[1:]), both[1:].numpy()) < PARITY


@pytest.mark.parametrize("radial", [False, True])
def test_filters_are_those_of_scipy(radial: bool) -> None:
    signal, special = pytest.importorskip("scipy.signal"), pytest.importorskip("scipy.special")
    taps, cutoff, width, rate = 12, 5.3, 7.1, 32.0
    if radial:
        at = (np.arange(taps) - (taps - 1) / 2) / rate
        r = np.hypot(*np.meshgrid(at, at))
        window = np.kaiser(taps, signal.kaiser_beta(signal.kaiser_atten(taps, width / (rate / 2))))
        wanted = special.j1(2 * cutoff * np.pi * r) / (np.pi * r) * np.outer(window, window)
        wanted /= wanted.sum()
    else:
        wanted = signal.firwin(taps, cutoff, width=width, fs=rate)
    made = stylegan3.low_pass(taps, cutoff, width, rate, radial=radial)
    np.testing.assert_allclose(made.numpy(), wanted, atol=1e-7)


@pytest.mark.parametrize("name", cases.STYLEGAN3)
def test_graphs_are_the_definition(name: str, tmp_path: Path) -> None:
    made = checkpoint(name)
    paths = export_generator(made, tmp_path / "net.onnx", cutoff=3)
    found = verify_generator(tmp_path / "net.onnx", made)
    assert [path.name for path, _, _ in found] == ["net.mapping.onnx", "net.synthesis.onnx"]
    assert max(difference.worst for _, _, difference in found) < PARITY
    about = read_metadata(paths[1])
    assert (about["kind"], about["resolution"], about["truncation_cutoff"]) == ("stylegan3", 32, 3)


@pytest.mark.parametrize(("precision", "low", "high"), [("fp16", 1e-6, 1e-2), ("bf16", 1e-4, 8e-2)])
def test_short_floats_stay_close_and_really_are_short(
    precision: Any, low: float, high: float, tmp_path: Path
) -> None:
    if precision == "bf16":
        pytest.importorskip("openvino")
    made = checkpoint("T")
    (_, path) = export_generator(made, tmp_path / "net.onnx", precision)
    (_, _, difference) = verify_generator(path, made)[0]
    assert within(precision, difference)
    assert low < difference.worst / max(difference.scale, 1.0) < high


@pytest.mark.parametrize("name", cases.STYLEGAN3)
def test_persistent_pickles(name: str, tmp_path: Path) -> None:
    made = checkpoint(name)
    arguments = {**cases.STYLEGAN3[name], "z_dim": 64, "w_dim": 64, "img_resolution": 32}
    attributes = {
        "": {"_init_kwargs": files.EasyDict(arguments)},
        "mapping.fc0": {"bias_gain": config(name).mapping_lr},
    }
    path = tmp_path / "net.pkl"
    path.write_bytes(files.persistent_pickle(files.modules(made.tensors, attributes)))
    read = read_checkpoint(path)
    assert read.kind == "stylegan3"
    assert stylegan3.Config.of(read) == config(name)
    assert read.tensors.keys() == made.tensors.keys()
    assert all(np.array_equal(read.tensors[key], value) for key, value in made.tensors.items())
    stylegan3.generator(read)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"resolution": 33}, "resolution 33"),
        ({"num_layers": 9}, "missing"),
        ({"num_layers": 10**9}, "num_layers is 1000000000"),
        ({"conv_kernel": 1}, "has shape"),
        ({"num_critical": 8}, "num_critical"),
        ({"first_cutoff": -1.0}, "first_cutoff is -1.0"),
        ({"channel_base": "wide"}, "damaged"),
        ({"first_stopband": float("nan")}, "first_stopband"),
    ],
)
def test_what_does_not_fit_is_named(settings: dict[str, Any], message: str) -> None:
    made = checkpoint("T")
    wrong = Checkpoint("stylegan3", made.tensors, {**made.config, **settings}, "wrong.pkl", "0")
    with pytest.raises(BadModelFile, match=message):
        stylegan3.generator(wrong)


def test_a_layer_that_is_missing_is_named(tmp_path: Path) -> None:
    made = checkpoint("T")
    tensors = {name: value for name, value in made.tensors.items() if not name.startswith("synthesis.L3_")}
    path = tmp_path / "net.pkl"
    path.write_bytes(files.persistent_pickle(files.modules(tensors, {})))
    with pytest.raises(BadModelFile, match="without a gap"):
        read_checkpoint(path)
