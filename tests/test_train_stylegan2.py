"""Training a small StyleGAN2: a few steps on a processor. What it learns is for a GPU to show."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

torch = pytest.importorskip("torch")
pytest.importorskip("onnx")

import fastface  # noqa: E402
from fastface.checkpoints import read_checkpoint  # noqa: E402
from fastface.errors import BadArgument  # noqa: E402
from fastface.exports.stylegan2 import Config, generator  # noqa: E402
from fastface.exports.train_stylegan2 import (  # noqa: E402
    Discriminator,
    Recipe,
    Training,
    render_frames,
    run,
    spread,
)

TINY = Recipe(
    resolution=16, channel_base=256, channel_max=16, width=16, mapping_layers=2, batch=8, ema_images=20.0
)


@pytest.fixture(scope="module")
def frames() -> NDArray[np.uint8]:
    """Dark discs on a bright ground, of one colour: easily told from noise."""
    random = np.random.default_rng(0)
    y, x = np.mgrid[:16, :16]
    made = np.full((64, 16, 16, 3), (200, 180, 60), np.uint8)
    for image in made:
        cx, cy = random.uniform(5, 11, 2)
        image[(x - cx) ** 2 + (y - cy) ** 2 < 16] = 30
    return made


def test_training_learns_the_colours(frames: NDArray[np.uint8]) -> None:
    torch.set_num_threads(1)
    training = Training(frames, TINY)
    mean = frames.reshape(-1, 3).mean(axis=0)

    def off() -> float:
        return float(np.abs(training.sheet().reshape(-1, 3).mean(axis=0) - mean).max())

    before = off()
    told = [training.advance() for _ in range(60)]
    assert before > 40
    assert off() < 0.6 * before
    assert told[0].keys() >= {"d", "g", "r1", "path"}
    assert "r1" not in told[1]  # lazily
    assert "path" in told[4]
    assert all(np.isfinite(list(line.values())).all() for line in told)


def test_a_run_goes_on_as_if_it_had_not_stopped(frames: NDArray[np.uint8], tmp_path: Path) -> None:
    torch.set_num_threads(1)
    whole = run(frames, TINY, tmp_path / "a", 64, 8, "cpu")
    run(frames, TINY, tmp_path / "b", 32, 4, "cpu")
    again = run(frames, TINY, tmp_path / "b", 64, 8, "cpu")
    for name, tensor in whole.ema.state_dict().items():
        assert torch.equal(tensor, again.ema.state_dict()[name]), name
    curves = [(tmp_path / name / "curve.jsonl").read_text() for name in "ab"]
    assert curves[0] == curves[1]
    assert [json.loads(line)["step"] for line in curves[0].splitlines()] == list(range(1, 9))
    shutil.copy(tmp_path / "a" / "state.pt", tmp_path / "state.pt")
    with pytest.raises(BadArgument, match="another recipe"):
        Training(frames, Recipe(**{**TINY.__dict__, "seed": 1})).load(tmp_path / "a")


def test_what_is_trained_is_a_checkpoint_like_any_other(frames: NDArray[np.uint8], tmp_path: Path) -> None:
    training = run(frames, TINY, tmp_path, 16, 2, "cpu")
    checkpoint = read_checkpoint(tmp_path / "net.safetensors")
    assert checkpoint.kind == "stylegan2"
    network = generator(checkpoint)
    z = torch.randn(2, 16, generator=torch.Generator().manual_seed(0))
    assert torch.equal(network(z), training.ema(z))
    assert (tmp_path / "faces000002.png").is_file()


def test_the_discriminator_sees_how_alike_a_batch_is() -> None:
    one = torch.randn(1, 5, 4, 4, generator=torch.Generator().manual_seed(1))
    assert float(spread(one.repeat(4, 1, 1, 1)).max()) < 1e-3
    four = torch.randn(4, 5, 4, 4, generator=torch.Generator().manual_seed(2))
    wanted = float(four.numpy().std(axis=0).mean())
    assert float(spread(four)[0, 0, 0, 0]) == pytest.approx(wanted, rel=1e-4)
    config = Config.standard(32, channel_base=512, channel_max=16)
    assert Discriminator(config)(torch.randn(4, 3, 32, 32)).shape == (4,)


def test_frames_are_rendered_from_photos(tmp_path: Path) -> None:
    shutil.copy(Path(fastface.__file__).parent / "assets" / "demo.jpg", tmp_path / "a.jpg")
    (tmp_path / "b.png").write_text("no photo")
    made = np.stack(list(render_frames(tmp_path, 3, 32)))
    assert made.shape == (3, 32, 32, 3)
    assert np.abs(made[0].astype(int) - made[1]).mean() > 1
    (tmp_path / "a.jpg").unlink()
    with pytest.raises(BadArgument, match="no photo with a face"):
        next(render_frames(tmp_path, 1, 32))


def test_frames_of_another_size_are_refused() -> None:
    with pytest.raises(BadArgument, match=r"frames must be \(N, 16, 16, 3\)"):
        Training(np.zeros((4, 8, 8, 3), np.uint8), TINY)
