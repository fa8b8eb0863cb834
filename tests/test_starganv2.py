"""StarGAN v2 against what its authors' code gives, and from their checkpoint to images without torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from translation_cases import (
    STARGANV2,
    Arrays,
    Authors,
    drawn_state,
    heatmaps,
    image,
    soft_masks,
    vectors,
)
from typer.testing import CliRunner

torch = pytest.importorskip("torch")
pytest.importorskip("onnx")

from fastface.checkpoints import Checkpoint, read_checkpoint  # noqa: E402
from fastface.cli.app import app  # noqa: E402
from fastface.errors import BadArgument, BadModelFile, FastfaceError  # noqa: E402
from fastface.exports import fan, starganv2  # noqa: E402
from fastface.exports.generator_files import export_generator, verify_generator  # noqa: E402
from fastface.exports.graphs import file_sha256  # noqa: E402
from fastface.generators import load  # noqa: E402

PARITY = 1e-3
NETWORKS = ("generator", "mapping_network", "style_encoder")


@pytest.fixture(scope="module")
def authors() -> Authors:
    return Authors()


def state_of(authors: Authors, case: str) -> dict[str, Arrays]:
    """A small checkpoint, by network."""
    state = {name: drawn_state(authors.shapes[f"{case}/{name}"]) for name in NETWORKS}
    if STARGANV2[case][3]:
        state["fan"] = drawn_state(authors.shapes["fan"])
    return state


def checkpoint_of(state: dict[str, Arrays], path: Path, prefix: str = "") -> Path:
    """As the authors save it; ``prefix``: what torch.nn.DataParallel puts before every name."""
    torch.save(
        {
            part: {prefix + name: torch.from_numpy(tensor) for name, tensor in tensors.items()}
            for part, tensors in state.items()
        },
        path,
    )
    return path


def described(state: dict[str, Arrays]) -> Checkpoint:
    """A checkpoint without a file."""
    from fastface.checkpoints.translation import recognise_starganv2

    found = recognise_starganv2(state, "net.ckpt")
    assert found is not None
    return Checkpoint("starganv2", *found, "net.ckpt", "0" * 64)


# -- against the authors' code -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("title", "network"),
    [
        ("generator", starganv2.Generator(starganv2.Config())),
        ("generator_faces", starganv2.Generator(starganv2.Config(w_hpf=1.0))),
        ("mapping_network", starganv2.MappingNetwork(starganv2.Config())),
        ("style_encoder", starganv2.StyleEncoder(starganv2.Config())),
        ("fan", fan.FAN()),
    ],
)
def test_the_published_names_and_shapes(authors: Authors, title: str, network: Any) -> None:
    ours = {name: list(tensor.shape) for name, tensor in network.state_dict().items()}
    assert ours == authors.shapes[title]


@pytest.mark.parametrize("case", STARGANV2)
@pytest.mark.parametrize("folded", [False, True], ids=["definition", "folded"])
def test_computes_what_the_authors_code_does(authors: Authors, case: str, folded: bool) -> None:
    """The plain definition, and the form that is exported, whose convolutions are other ones."""
    size, _, domains, w_hpf = STARGANV2[case]
    checkpoint = described(state_of(authors, case))
    strength = {"w_hpf": w_hpf} if w_hpf else {}
    make = starganv2.parts if folded else starganv2.reference_parts
    made = {part.name: part.module for part in make(checkpoint, **strength)}
    x, style = torch.from_numpy(image(size, 1)), torch.from_numpy(vectors(64, 1))
    domain = torch.tensor([domains - 1, 0])
    with torch.no_grad():
        if not (folded and w_hpf):  # an exported high-pass generator always has its masks
            assert authors.worst(f"{case}/generator", made["generator"](x, style)) < PARITY
        if w_hpf:
            masked = made["generator"](x, style, torch.from_numpy(soft_masks(1)))
            assert authors.worst(f"{case}/masked", masked) < PARITY
        mapped = made["mapping"](torch.from_numpy(vectors(16)), domain)
        assert authors.worst(f"{case}/mapping_network", mapped) < PARITY
        read = made["style_encoder"](torch.from_numpy(image(size)), domain)
        assert authors.worst(f"{case}/style_encoder", read) < PARITY


@pytest.mark.parametrize("size", [256, 512])
def test_landmark_heat_maps_are_the_authors(authors: Authors, size: int) -> None:
    network = fan.FAN()
    state = drawn_state(authors.shapes["fan"])
    network.load_state_dict({name: torch.from_numpy(tensor) for name, tensor in state.items()}, strict=True)
    with torch.no_grad():
        found = network.eval().heatmaps(torch.from_numpy(image(size, 1)))
    assert authors.worst(f"fan/{size}", found) < PARITY


def test_masks_are_the_authors(authors: Authors) -> None:
    both = fan.masks(torch.from_numpy(heatmaps()))
    assert authors.worst("masks/face", both[:, :1]) < 1e-5
    assert authors.worst("masks/inner", both[:, 1:]) < 1e-5


# -- from a checkpoint to images -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def faces(authors: Authors, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A checkpoint with the high-pass path, and the name that its graphs were given."""
    folder = tmp_path_factory.mktemp("starganv2")
    checkpoint = checkpoint_of(state_of(authors, "faces"), folder / "100000_nets_ema.ckpt", "module.")
    found = CliRunner().invoke(
        app, ["export", "starganv2", str(checkpoint), "-o", str(folder / "net.onnx"), "--json"]
    )
    assert found.exit_code == 0, found.output
    return checkpoint, folder / "net.onnx"


def test_runs_as_the_authors_code_does(authors: Authors, faces: tuple[Path, Path]) -> None:
    """Graphs alone, in the runtime: style of a reference, masks of the source, images."""
    from fastface.runtime import Session

    checkpoint, net = faces
    names = ("generator", "style_encoder", "mapping", "fan")
    run = {part: Session(net.with_name(f"net.{part}.onnx"), ["cpu"]) for part in names}
    domain = np.array([1, 0])
    style = run["style_encoder"].run({"image": image(256), "domain": domain})["style"]
    assert authors.worst("faces/style_encoder", style) < PARITY
    style = run["mapping"].run({"z": vectors(16), "domain": domain})["style"]
    assert authors.worst("faces/mapping_network", style) < PARITY
    x = image(256, 1)
    assert authors.worst("fan/256", run["fan"].run({"image": x})["heatmaps"]) < PARITY
    inputs = {"image": x, "style": vectors(64, 1), "masks": soft_masks(1)}
    assert authors.worst("faces/masked", run["generator"].run(inputs)["image_out"]) < PARITY
    about = run["generator"].metadata
    assert (about["kind"], about["part"], about["resolution"]) == ("starganv2", "generator", 256)
    assert about["config"]["num_domains"] == 2
    assert about["checkpoint_sha256"] == file_sha256(checkpoint)


def test_loads_as_a_generator(faces: tuple[Path, Path]) -> None:
    generator = load(faces[1], providers=["cpu"])
    pictures = np.random.default_rng(0).integers(0, 256, (3, 256, 256, 3), np.uint8)
    style = generator.style(pictures[:1], domain=1)  # type: ignore[union-attr]
    made = generator.translate(pictures[1:], style)  # type: ignore[union-attr]
    assert made.shape == (2, 256, 256, 3)
    alone = generator.translate(pictures[2:], style)  # type: ignore[union-attr]
    assert np.abs(made[1].astype(int) - alone[0]).max() <= 1


def test_converted_checkpoint_is_the_same(authors: Authors, tmp_path: Path) -> None:
    original = checkpoint_of(state_of(authors, "plain"), tmp_path / "net.ckpt")
    found = CliRunner().invoke(
        app, ["convert", str(original), "-o", str(tmp_path / "net.safetensors"), "--json"]
    )
    assert found.exit_code == 0, found.output
    first, second = read_checkpoint(original), read_checkpoint(tmp_path / "net.safetensors")
    assert (second.kind, second.config, second.sha256) == ("starganv2", first.config, first.sha256)
    assert first.config["num_domains"] == 3
    assert first.config["w_hpf"] == 0.0
    assert first.tensors.keys() == second.tensors.keys()
    assert all(np.array_equal(first.tensors[name], second.tensors[name]) for name in first.tensors)


@pytest.mark.parametrize(("precision", "share"), [("fp16", 0.02), ("bf16", 0.12)])
def test_short_floats_stay_near(authors: Authors, tmp_path: Path, precision: Any, share: float) -> None:
    if precision == "bf16":
        pytest.importorskip("openvino")
    state = state_of(authors, "plain")
    checkpoint = described({"generator": state["generator"]})
    export_generator(checkpoint, tmp_path / "net.onnx", precision)
    for _, _, seen in verify_generator(tmp_path / "net.onnx", checkpoint):
        assert 0 < seen.worst < share * seen.scale


# -- bad input -----------------------------------------------------------------------------------------------


def spoilt(state: dict[str, Arrays], part: str, name: str, tensor: Any) -> dict[str, Arrays]:
    tensors = {key: value for key, value in state[part].items() if key != name}
    if tensor is not None:
        tensors[name] = tensor
    return {**state, part: tensors}


@pytest.mark.parametrize(
    ("part", "name", "tensor", "words"),
    [
        ("generator", "decode.3.norm1.fc.bias", None, "generator: decode.3.norm1.fc.bias missing"),
        ("generator", "from_rgb.weight", None, "generator.from_rgb.weight is missing"),
        ("generator", "extra.weight", np.zeros(3, np.float32), "extra.weight not known"),
        ("generator", "to_rgb.2.weight", np.zeros((3, 9, 1, 1), np.float32), "to_rgb.2.weight has shape"),
        ("generator", "from_rgb.weight", np.zeros((48, 3, 3, 3), np.float32), "48 channels"),
        ("generator", "encode.9.conv1.bias", np.zeros(48, np.float32), "encode.6.conv2.weight is missing"),
        ("mapping_network", "unshared.9.0.weight", np.zeros((512, 512), np.float32), "domains do not agree"),
        ("style_encoder", "unshared.1.bias", np.zeros(9, np.float32), "unshared.1.bias has shape"),
    ],
)
def test_names_what_does_not_fit(authors: Authors, part: str, name: str, tensor: Any, words: str) -> None:
    with pytest.raises(BadModelFile, match=words):
        starganv2.parts(described(spoilt(state_of(authors, "plain"), part, name, tensor)))


def test_high_pass_needs_its_landmark_network(authors: Authors) -> None:
    state = state_of(authors, "faces")
    del state["fan"]
    with pytest.raises(BadModelFile, match="without the landmark network"):
        starganv2.parts(described(state))


@pytest.mark.parametrize(("case", "w_hpf"), [("plain", 1.0), ("faces", 0.0), ("faces", float("nan"))])
def test_strength_must_suit_the_network(authors: Authors, case: str, w_hpf: float) -> None:
    with pytest.raises(BadArgument, match="w_hpf"):
        starganv2.parts(described(state_of(authors, case)), w_hpf=w_hpf)


def test_damaged_files_are_refused(authors: Authors, tmp_path: Path) -> None:
    state = state_of(authors, "plain")
    whole = checkpoint_of(state, tmp_path / "net.ckpt")
    cut = tmp_path / "cut.ckpt"
    cut.write_bytes(whole.read_bytes()[:-5000])
    state["generator"]["from_rgb.bias"][3] = np.nan
    holes = checkpoint_of(state, tmp_path / "holes.ckpt")
    optimiser = tmp_path / "other.ckpt"
    torch.save({"state": {}, "param_groups": [{"lr": 1e-4}]}, optimiser)
    for file, words in ((cut, "cut.ckpt"), (holes, "from_rgb.bias"), (optimiser, "starganv2")):
        with pytest.raises(FastfaceError, match=words):
            read_checkpoint(file, "starganv2")
        found = CliRunner().invoke(
            app, ["export", "starganv2", str(file), "-o", str(tmp_path / "bad.onnx"), "--json"]
        )
        assert found.exit_code != 0
    assert not list(tmp_path.glob("bad*"))


def test_sizes_that_no_tensor_backs_take_no_memory(authors: Authors) -> None:
    """Small tensors that ask for a network of terabytes; settings that a converted file lies about."""
    state = state_of(authors, "plain")
    state["mapping_network"]["shared.0.weight"] = np.zeros((4096, 16), np.float32)
    for domain in range(3, 400):
        state["mapping_network"][f"unshared.{domain}.0.bias"] = np.zeros(1, np.float32)
        state["style_encoder"][f"unshared.{domain}.bias"] = np.zeros(64, np.float32)
    with pytest.raises(BadModelFile, match="missing"):
        starganv2.parts(described(state))
    whole = described(state_of(authors, "plain"))
    lying = Checkpoint("starganv2", whole.tensors, {**whole.config, "resolution": 0}, "net", "0" * 64)
    assert [part.name for part in starganv2.parts(lying)] == ["generator", "mapping", "style_encoder"]
