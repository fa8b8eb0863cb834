"""GANimation against what its authors' code gives, and from their checkpoint to images without torch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from translation_cases import ACTION_UNITS, Arrays, Authors, drawn_state, image, vectors
from typer.testing import CliRunner

torch = pytest.importorskip("torch")
pytest.importorskip("onnx")

from fastface.checkpoints import read_checkpoint  # noqa: E402
from fastface.cli.app import app  # noqa: E402
from fastface.errors import BadModelFile  # noqa: E402
from fastface.exports import ganimation  # noqa: E402
from fastface.exports.generator_files import export_generator, verify_generator  # noqa: E402
from fastface.generators import load  # noqa: E402

PARITY = 1e-3


@pytest.fixture(scope="module")
def authors() -> Authors:
    return Authors()


@pytest.fixture
def state(authors: Authors) -> Arrays:
    return drawn_state(authors.shapes["ganimation/small"])


def saved(state: Arrays, path: Path, *, legacy: bool = False) -> Path:
    """As several GPUs save it: every name behind ``module.``."""
    tensors = {f"module.{name}": torch.from_numpy(tensor) for name, tensor in state.items()}
    torch.save(tensors, path, _use_new_zipfile_serialization=not legacy)
    return path


def test_the_published_names_and_shapes(authors: Authors) -> None:
    ours = {name: list(tensor.shape) for name, tensor in ganimation.Generator().state_dict().items()}
    assert ours == authors.shapes["ganimation"]


@pytest.mark.parametrize("saturate", [False, True], ids=["soft", "saturated"])
def test_exported_graph_gives_what_the_authors_code_does(
    authors: Authors, state: Arrays, tmp_path: Path, saturate: bool
) -> None:
    from fastface.runtime import Session

    conv_dim, c_dim, repeat_num = ACTION_UNITS
    # PyTorch 0.3, which the authors used, also stored statistics that nothing reads.
    state["main.1.running_mean"] = np.ones(conv_dim, np.float32)
    checkpoint = read_checkpoint(saved(state, tmp_path / "net_epoch_30_id_G.pth", legacy=True))
    assert checkpoint.kind == "ganimation"
    assert checkpoint.config == {"c_dim": c_dim, "conv_dim": conv_dim, "repeat_num": repeat_num}
    (path,) = export_generator(checkpoint, tmp_path / "net.onnx", resolution=64, saturate_mask=saturate)
    made = Session(path, ["cpu"]).run({"image": image(64), "aus": vectors(c_dim)})
    title = "saturated" if saturate else "soft"
    assert authors.worst(f"ganimation/{title}/image_out", made["image_out"]) < PARITY
    assert authors.worst(f"ganimation/{title}/attention", made["attention"]) < PARITY
    assert authors.worst("ganimation/colour", made["colour"]) < PARITY
    assert max(seen.worst for _, _, seen in verify_generator(path, checkpoint)) < PARITY


def test_command_line_and_generator(state: Arrays, tmp_path: Path) -> None:
    checkpoint, net = saved(state, tmp_path / "net_epoch_30_id_G.pth"), tmp_path / "net.onnx"
    runner = CliRunner()
    found = runner.invoke(app, ["export", "ganimation", str(checkpoint), "-o", str(net), "--json"])
    assert found.exit_code == 0, found.output
    found = runner.invoke(app, ["verify", str(net), "-c", str(checkpoint)])
    assert found.exit_code == 0, found.output
    generator = load(net, providers=["cpu"])
    pictures = np.random.default_rng(0).integers(0, 256, (2, 128, 128, 3), np.uint8)
    made = generator.animate(pictures, np.full(17, 0.5, np.float32))  # type: ignore[union-attr]
    assert made.shape == (2, 128, 128, 3)


@pytest.mark.parametrize("name", ["attetion_reg.0.weight", "img_reg.0.weight", "main.9.main.1.bias"])
def test_names_what_is_missing(state: Arrays, tmp_path: Path, name: str) -> None:
    del state[name]
    checkpoint = read_checkpoint(saved(state, tmp_path / "net.pth"), "ganimation")
    with pytest.raises(BadModelFile, match=f"{name} missing"):
        ganimation.parts(checkpoint)


def test_damaged_files_are_refused(state: Arrays, tmp_path: Path) -> None:
    whole = saved(state, tmp_path / "net.pth", legacy=True)
    (tmp_path / "cut.pth").write_bytes(whole.read_bytes()[:-100])
    with pytest.raises(BadModelFile, match=r"cut\.pth"):
        read_checkpoint(tmp_path / "cut.pth")
    state["main.3.weight"][0] = np.inf
    with pytest.raises(BadModelFile, match=r"main\.3\.weight"):
        read_checkpoint(saved(state, tmp_path / "holes.pth"))
