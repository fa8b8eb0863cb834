"""The renderer as one ONNX graph: the frames of ``Engine.render`` from a file that ONNX Runtime opens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fastface import onnx_ops
from fastface.engine import Engine, FittedFace

onnx = pytest.importorskip("onnx")

Image = NDArray[np.uint8]


@dataclass(frozen=True)
class Exported:
    engine: Engine
    face: FittedFace
    path: Path
    about: dict[str, Any]
    session: Any

    def run(self, coefficients: Any) -> tuple[Image, Image]:
        frames, masks = self.session.run(["frames", "masks"], {"coefficients": coefficients})
        return frames, masks


@pytest.fixture(scope="module")
def exported(portrait: Callable[..., Image], tmp_path_factory: pytest.TempPathFactory) -> Exported:
    from fastface.exports.renderer import export_renderer, resized

    engine = Engine(threads=2)
    face = resized(engine.fit(portrait("042", 500, 500)), 256)
    path = tmp_path_factory.mktemp("renderer") / "r.onnx"
    about = export_renderer(engine.model, face, path)
    return Exported(engine, face, path, about, onnx_ops.session(path, threads=2))


def asked(exported: Exported, frames: int, seed: int = 0) -> NDArray[np.float32]:
    """Random expressions, some as strong as they may be; a neutral one among them."""
    rng = np.random.default_rng(seed)
    shape = frames, len(exported.engine.model.expression_names)
    rows = rng.uniform(-0.2, 1.2, shape) * (rng.random(shape) < 0.3)
    rows[2::5] = 0
    return rows.astype(np.float32)


@pytest.mark.parametrize("frames", [0, 1, 7])
def test_frames_and_masks_are_the_engines(exported: Exported, frames: int) -> None:
    rows = asked(exported, frames)
    got, masks = exported.run(rows)
    wanted = exported.engine.render_batch(exported.face, coefficients=rows)
    assert got.shape == wanted.shape == (frames, 256, 256, 3)
    difference = np.abs(got.astype(np.int16) - wanted)
    assert difference.max(initial=0) <= exported.about["tolerance_grey_levels"] == 1
    assert (difference > 0).mean() <= 1e-3 if frames else True
    for mask, row in zip(masks, rows, strict=True):
        np.testing.assert_array_equal(mask != 0, exported.engine.mask(exported.face, coefficients=row) != 0)
