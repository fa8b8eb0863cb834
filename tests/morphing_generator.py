"""A generator that shows a real face: its latent opens the mouth and closes the eyes of a photo.

No network is trained: the image is the photo plus weighted differences to frames that the engine rendered. So
it is known what each entry of w does, and the landmark networks can see it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tiny_generators import Graph

RESOLUTION, LAYERS, W_DIM = 128, 4, 6
#: What the first two entries of w do; the others change light and colour. Opening the mouth also closes the
#: eyes by a third, so that the two scores are correlated.
JAW, EYES = 0, 1
MIXED = 0.35


@cache
def frames() -> tuple[NDArray[np.float32], ...]:
    """The photo, with its mouth open, with its eyes closed: (R, R, 3) in [-1, 1]."""
    import fastface as ff
    from fastface.alignment import celeba_square, crop
    from fastface.images import read_image

    photo = read_image(Path(ff.__file__).parent / "assets" / "demo.jpg")
    engine = ff.Engine(threads=1)
    face = engine.fit(photo)
    shown = engine.render_batch(face, [ff.Affect.aus({"AU27": 1.0}), ff.Affect.aus({"AU43": 1.0})])
    square = celeba_square(face.landmarks_px.astype(np.float64))
    crops = [crop(image, square, RESOLUTION) for image in (photo, *shown)]
    return tuple((image / 127.5 - 1).astype(np.float32) for image in crops)


def write(folder: Path) -> Path:
    """net.mapping.onnx and net.synthesis.onnx; returns net.onnx, which is not a file."""
    photo, jaw, eyes = frames()
    about = {"kind": "stylegan2", "resolution": RESOLUTION, "config": {}}
    g = Graph(7)
    # Entries of w lie in (0, 1); at truncation 0 all are a half.
    inner = g.op("Mul", g.op("Mul", "z", "truncation"), g.weight(np.float32(2)))
    rows = g.op("Unsqueeze", g.op("Sigmoid", inner), g.weight(np.array([1], np.int64)))
    w = g.op("Tile", rows, g.weight(np.array([1, LAYERS, 1], np.int64)))
    inputs: dict[str, Sequence[int | str]] = {"z": ["B", W_DIM], "truncation": []}
    g.write(
        folder / "net.mapping.onnx", inputs, {"w": (w, ["B", LAYERS, W_DIM])}, {**about, "part": "mapping"}
    )

    basis = np.zeros((W_DIM, *photo.shape), np.float32)
    basis[JAW] = (jaw - photo) + MIXED * (eyes - photo)
    basis[EYES] = (1 - MIXED) * (eyes - photo)
    slope = np.linspace(-0.15, 0.15, RESOLUTION, dtype=np.float32)
    basis[2], basis[3] = slope[:, None, None], slope[None, :, None]
    basis[4, ..., 0], basis[5, ..., 2] = 0.15, 0.15
    g = Graph(8)
    mean = g.op("ReduceMean", "w", axes=[1], keepdims=0)
    flat = basis.transpose(0, 3, 1, 2).reshape(W_DIM, -1)
    pixels = g.op("MatMul", mean, g.weight(flat))
    image = g.op("Reshape", pixels, g.weight(np.array([-1, 3, RESOLUTION, RESOLUTION], np.int64)))
    image = g.op("Add", image, g.weight(photo.transpose(2, 0, 1)[None]))
    shape = ["B", 3, RESOLUTION, RESOLUTION]
    inputs = {"w": ["B", LAYERS, W_DIM]}
    g.write(folder / "net.synthesis.onnx", inputs, {"image": (image, shape)}, {**about, "part": "synthesis"})
    return folder / "net.onnx"
