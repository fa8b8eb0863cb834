"""StarGAN against what its authors' code gives, and from their checkpoint to images without torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from translation_cases import HOURGLASS, Arrays, Authors, drawn_state, image, vectors
from typer.testing import CliRunner

torch = pytest.importorskip("torch")
pytest.importorskip("onnx")

from fastface.checkpoints import Checkpoint, read_checkpoint  # noqa: E402
from fastface.cli.app import app  # noqa: E402
from fastface.errors import BadArgument, BadModelFile  # noqa: E402
from fastface.exports import stargan  # noqa: E402
from fastface.exports.generator_files import export_generator, verify_generator  # noqa: E402
from fastface.generators import load  # noqa: E402

PARITY = 1e-3


@pytest.fixture(scope="module")
def authors() -> Authors:
    return Authors()


def saved(state: Arrays, path: Path) -> Path:
    torch.save({name: torch.from_numpy(tensor) for name, tensor in state.items()}, path)
    return path


def described(state: Arrays) -> Checkpoint:
    from fastface.checkpoints.translation import recognise_stargan

    found = recognise_stargan(state, "200000-G.ckpt")
    assert found is not None
    return Checkpoint("stargan", *found, "200000-G.ckpt", "0" * 64)


def test_the_published_names_and_shapes(authors: Authors) -> None:
    ours = {name: list(tensor.shape) for name, tensor in stargan.Generator().state_dict().items()}
    assert ours == authors.shapes["stargan"]


@pytest.mark.parametrize("case", HOURGLASS)
@pytest.mark.parametrize("statistics", ["instance", "running"])
def test_exported_graph_gives_what_the_authors_code_does(
    authors: Authors, tmp_path: Path, case: str, statistics: Any
) -> None:
    """Attributes and continuous labels; as the authors' own test runs it, and in evaluation mode."""
    from fastface.runtime import Session

    conv_dim, c_dim, repeat_num = HOURGLASS[case]
    checkpoint = read_checkpoint(saved(drawn_state(authors.shapes[f"stargan/{case}"]), tmp_path / "9-G.ckpt"))
    assert checkpoint.kind == "stargan"
    assert checkpoint.config == {
        "c_dim": c_dim,
        "conv_dim": conv_dim,
        "repeat_num": repeat_num,
        "running_statistics": True,
    }
    options = {"resolution": 64, "statistics": statistics}
    (path,) = export_generator(checkpoint, tmp_path / "net.onnx", **options)
    session = Session(path, ["cpu"])
    made = session.run({"image": image(64), "label": vectors(c_dim)})["image_out"]
    assert authors.worst(f"stargan/{case}/{statistics}", made) < PARITY
    assert session.metadata["resolution"] == 64
    for _, _, seen in verify_generator(tmp_path / "net.onnx", checkpoint):
        assert seen.worst < PARITY


def test_modes_are_those_of_the_authors_class(authors: Authors) -> None:
    case = "attributes"
    conv_dim, c_dim, repeat_num = HOURGLASS[case]
    network = stargan.Generator(c_dim, conv_dim, repeat_num)
    state = drawn_state(authors.shapes[f"stargan/{case}"])
    network.load_state_dict({name: torch.from_numpy(tensor) for name, tensor in state.items()}, strict=True)
    x, label = torch.from_numpy(image(64)), torch.from_numpy(vectors(c_dim))
    with torch.no_grad():
        assert authors.worst(f"stargan/{case}/running", network.eval()(x, label)) < PARITY
        assert authors.worst(f"stargan/{case}/instance", network.train()(x, label)) < PARITY


def test_command_line_and_generator(authors: Authors, tmp_path: Path) -> None:
    state = drawn_state(authors.shapes["stargan/circumplex"])
    checkpoint, net = saved(state, tmp_path / "9-G.ckpt"), tmp_path / "net.onnx"
    runner = CliRunner()
    options = ["--resolution", "64", "--statistics", "running", "--json"]
    found = runner.invoke(app, ["export", "stargan", str(checkpoint), "-o", str(net), *options])
    assert found.exit_code == 0, found.output
    found = runner.invoke(app, ["verify", str(net), "-c", str(checkpoint)])
    assert found.exit_code == 0, found.output
    generator = load(net, providers=["cpu"])
    pictures = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), np.uint8)
    made = generator.translate(pictures, np.array([0.5, -0.25], np.float32))  # type: ignore[union-attr]
    assert made.shape == (2, 64, 64, 3)


def test_checkpoints_older_and_without_running_statistics(authors: Authors) -> None:
    """Counters came with PyTorch 0.4.1; a network trained without running statistics has none."""
    state = drawn_state(authors.shapes["stargan/circumplex"])
    older = {name: tensor for name, tensor in state.items() if not name.endswith("num_batches_tracked")}
    assert stargan.parts(described(older), resolution=32)
    bare = {name: tensor for name, tensor in older.items() if ".running_" not in name}
    wanted, got = (stargan.parts(described(tensors), resolution=64)[0].module for tensors in (state, bare))
    x, label = torch.from_numpy(image(64)), torch.from_numpy(vectors(2))
    with torch.no_grad():
        assert torch.equal(wanted(x, label), got(x, label))
    with pytest.raises(BadArgument, match="no running statistics"):
        stargan.parts(described(bare), statistics="running")


@pytest.mark.parametrize(
    ("name", "tensor", "words"),
    [
        ("main.10.main.3.weight", None, "main.10.main.3.weight missing"),
        ("main.0.weight", None, "main.0.weight is missing"),
        ("main.0.weight", np.zeros((8, 5, 4, 4), np.float32), r"wanted \(N, 3 \+ C, 7, 7\)"),
        ("main.1.bias", np.zeros(9, np.float32), "main.1.bias has shape"),
        ("conv1.weight", np.zeros((1, 8, 3, 3), np.float32), "conv1.weight not known"),
        ("main.4.running_var", None, "main.4.running_var missing"),
    ],
)
def test_names_what_does_not_fit(authors: Authors, name: str, tensor: Any, words: str) -> None:
    state = drawn_state(authors.shapes["stargan/circumplex"])
    state.pop(name, None)
    if tensor is not None:
        state[name] = tensor
    with pytest.raises(BadModelFile, match=words):
        stargan.parts(described(state))


@pytest.mark.parametrize("options", [{"resolution": 66}, {"resolution": 4}, {"statistics": "batch"}])
def test_bad_options(authors: Authors, options: dict[str, Any]) -> None:
    with pytest.raises(BadArgument):
        stargan.parts(described(drawn_state(authors.shapes["stargan/circumplex"])), **options)


def test_a_discriminator_is_no_generator(tmp_path: Path) -> None:
    state = {
        "main.0.weight": np.zeros((64, 3, 4, 4), np.float32),
        "conv1.weight": np.zeros((1, 64, 3, 3), "f4"),
    }
    file = saved(state, tmp_path / "200000-D.ckpt")
    with pytest.raises(BadModelFile, match="not a checkpoint of stargan"):
        read_checkpoint(file, "stargan")
