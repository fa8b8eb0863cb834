"""How many components a texture model should have, and what more of them and more faces cost.

    python -m benchmarks.texture_components ../shared/data/photos/cc0 --seed 11

1. The texture model that ships, made with other numbers of components: how far off the heads of
   ``benchmarks.texture_fit`` are that it helps to fit, and the processor's time for a fit.
2. Made-up faces of 5,000 vertices: the processor's time to learn of so many, and the memory.
"""

from __future__ import annotations

import argparse
import resource
import time
from dataclasses import astuple
from pathlib import Path
from typing import Final

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.texture_fit import PHOTOS, errors
from fastface.exports.models.build_texture import build
from fastface.exports.models.rendered_heads import Skin, drawn, painted
from fastface.fitting import FaceFitter
from fastface.images import read_image
from fastface.landmarks import LandmarkDetector
from fastface.morphable import HeadModel, load_default
from fastface.painted_face import Painter
from fastface.texture_fitting import TextureFitter, face_vertices
from fastface.workshop.texture import learn_texture

COUNTS: Final = (6, 12, 16, 20, 28)
FACES: Final = (100, 200, 500)
VERTICES: Final = 5_000
RANK: Final = 30


def of_components(fitter: FaceFitter, folder: Path, heads: int, seed: int) -> Table:
    """Mean errors by the number of components, in the skins of portraits and in paint."""
    rng, detector, painter = np.random.default_rng(seed), LandmarkDetector(), Painter(fitter.model)
    order = rng.permutation(sorted(PHOTOS.glob("london/neutral/*.jpg"))).tolist()
    skins = [Skin.of(fitter, detector, read_image(path)) for path in order[:heads]]
    kinds = [
        [drawn(fitter.model, skin, rng) for skin in skins],
        [painted(painter, rng) for _ in range(heads)],
    ]
    seen = [
        [(head, detector.detect(head.image, max_faces=1)[0].points_px) for head in kind] for kind in kinds
    ]
    face = face_vertices(fitter.model)
    table = Table("K", *(f"{kind}: {what}" for kind in ("skins", "paint") for what in _SHOWN), "ms")
    for count in COUNTS:
        whole, row, took = TextureFitter(fitter, build(folder, count).texture), [str(count)], []
        for kind in seen:
            off = []
            for head, points in kind:
                start = time.process_time()
                fit = whole.fit(head.image, points)
                took.append(1e3 * (time.process_time() - start))
                off.append(astuple(errors(fitter.model, face, head, fit)))
            mean = np.mean(off, axis=0)
            row += [f"{mean[index]:.2f}" for index in _SHOWN.values()]
        table.add_row(*row, f"{min(took):.0f}")
    return table


_SHOWN: Final = {"face, %": 0, "landmarks, %": 1, "pose, °": 2, "shape, mm": 4}


def of_faces(head: HeadModel) -> Table:
    """Time and memory by the number of faces, a quarter of each not seen, with noise."""
    table = Table("faces", "s of a core", "GB at most")
    for count in FACES:
        rng = np.random.default_rng(0)
        values = np.zeros((count, len(head.vertices), 4), np.float32)
        amounts, modes = rng.standard_normal((count, RANK)), rng.standard_normal((RANK, VERTICES, 4))
        values[:, :VERTICES] = 0.4 * np.tensordot(amounts, modes, axes=1) / np.sqrt(RANK)
        values[:, :VERTICES] += 0.2 * rng.standard_normal((count, VERTICES, 4))
        seen = np.zeros(values.shape[:2], np.bool_)
        seen[:, :VERTICES] = rng.random((count, VERTICES)) < 0.75
        start = time.process_time()
        learn_texture(head, values, seen, feature="gradients", source="none", license="none", components=50)
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        table.add_row(str(count), f"{time.process_time() - start:.0f}", f"{most:.1f}")
    return table


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    arguments.add_argument("photos", type=Path, help="shared/data/photos/cc0")
    arguments.add_argument("--heads", type=int, default=13, help="of each kind")
    arguments.add_argument("--seed", type=int, default=11)
    asked = arguments.parse_args()
    console, head = Console(width=130), load_default()
    console.print(of_faces(head))
    console.print(of_components(FaceFitter(head), asked.photos, asked.heads, asked.seed))


if __name__ == "__main__":
    main()
