"""What robust components are worth to a texture model, beside plain ones.

    python -m benchmarks.texture_building --heads 13 --seed 1

Portraits that no head of the test wears become texture models: as they are, and with things held before two
thirds of them (ellipses of coloured noise over up to a quarter of the face). Each model is then asked

- what it leaves of the other portraits' faces, which are clean: how far from each of them its nearest texture
  is (root mean square, in units of the feature, over the vertices that show);
- how far off the heads of ``benchmarks.texture_fit`` are that it helps to fit.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import astuple
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from benchmarks.texture_fit import PHOTOS, Float32, Image, errors
from fastface.exports.models.rendered_heads import Head, Skin, drawn
from fastface.fitting import FaceFitter
from fastface.images import read_image
from fastface.landmarks import LandmarkDetector
from fastface.morphable import load_default
from fastface.texture_fitting import TextureFitter, face_vertices, observed
from fastface.texture_model import TextureModel
from fastface.workshop.texture import learn_texture

Faces = tuple[NDArray[Any], NDArray[np.bool_]]  # values (M, V, C) and what is seen of them (M, V)

COVERED: Final = 2 / 3
BLOTS: Final = 2


def read(
    fitter: FaceFitter, photos: Sequence[Image], rng: np.random.Generator | None, feature: str = "gradients"
) -> Faces:
    """Features of photos and of their mirror images, with things before them if ``rng`` is given."""
    detector, found = LandmarkDetector(), []
    for photo in photos:
        for view in (photo, np.ascontiguousarray(photo[:, ::-1])):
            points = detector.detect(view, max_faces=1)[0].points_px
            fit = fitter.fit(points, *view.shape[:2])  # of the face itself: what is measured is the texture
            shown = view if rng is None or rng.random() > COVERED else covered(view, points, rng)
            found.append(observed(fitter, shown, fit, feature))
    values, seen = zip(*found, strict=True)
    return np.stack(values), np.stack(seen)


def covered(photo: Image, points: Float32, rng: np.random.Generator) -> Image:
    """A photo with ellipses of coloured noise before the face."""
    low, high = points.min(axis=0), points.max(axis=0)
    image = photo.copy()
    for _ in range(BLOTS):
        middle, axes = rng.uniform(low, high), rng.uniform(0.12, 0.28, 2) * (high - low)
        mask = np.zeros(photo.shape[:2], np.uint8)
        where = [tuple(int(v) for v in pair) for pair in (middle, axes)]
        cv2.ellipse(mask, where[0], where[1], float(rng.uniform(0, 180)), 0, 360, (255,), -1)
        noise = rng.integers(0, 255, (24, 24, 3)).astype(np.uint8)
        image[mask > 0] = cv2.resize(noise, photo.shape[1::-1], interpolation=cv2.INTER_CUBIC)[mask > 0]
    return image


def left_over(texture: TextureModel, faces: Faces, points: NDArray[np.int64]) -> float:
    """Root mean square of what of ``faces`` no texture of the model explains, at these ``points``."""
    values, seen = faces
    left, count = 0.0, 0
    for face, there in zip(values, seen, strict=True):
        rows = points[there[points] & (texture.precision[points] > 0)]
        off = (face[rows] - texture.mean[rows]).ravel().astype(np.float64)
        basis = texture.components[:, rows].reshape(len(texture.components), -1).astype(np.float64)
        rest = off - basis.T @ np.linalg.lstsq(basis.T, off, rcond=None)[0]
        left, count = left + float(rest @ rest), count + len(rest)
    return float(np.sqrt(left / count))


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    arguments.add_argument("--heads", type=int, default=13, help="at most 13")
    arguments.add_argument("--seed", type=int, default=1)
    asked = arguments.parse_args()
    fitter, detector = FaceFitter(load_default()), LandmarkDetector()
    rng = np.random.default_rng(asked.seed)
    order = rng.permutation(sorted(PHOTOS.glob("london/neutral/*.jpg"))).tolist()
    photos = [read_image(path) for path in order]
    worn, others = photos[: asked.heads], photos[13:]
    heads = [drawn(fitter.model, Skin.of(fitter, detector, photo), rng) for photo in worn]
    found = [(head, detector.detect(head.image, max_faces=1)[0].points_px) for head in heads]
    unseen = read(fitter, worn, None)
    table = Table("texture model", "K", "told off, %", "unseen left", "face, %", "landmarks, %", "shape, mm")
    for kind, blots in (("clean", None), ("covered", np.random.default_rng(asked.seed))):
        faces = read(fitter, others, blots)
        for robust in (False, True):
            for count in (8, 16):
                learned = learn_texture(
                    fitter.model,
                    *faces,
                    feature="gradients",
                    source="portraits",
                    license="CC-BY-4.0",
                    components=count,
                    robust=robust,
                )
                name = f"{kind}, {'robust' if robust else 'plain'}"
                row = [left_over(learned.texture, unseen, face_vertices(fitter.model))]
                row += fitted(fitter, learned.texture, found)
                table.add_row(
                    name,
                    str(count),
                    f"{100 * learned.gross:.1f}",
                    f"{row[0]:.4f}",
                    *(f"{v:.2f}" for v in row[1:]),
                )
    Console(width=110).print(table)


def fitted(
    fitter: FaceFitter, texture: TextureModel, heads: Sequence[tuple[Head, Float32]]
) -> tuple[float, float, float]:
    """Mean errors of the face, its landmarks (% of the eyes' distance) and its shape (mm)."""
    whole, face = TextureFitter(fitter, texture), face_vertices(fitter.model)
    rows = [
        astuple(errors(fitter.model, face, head, whole.fit(head.image, points))) for head, points in heads
    ]
    mean = np.mean(rows, axis=0)
    return float(mean[0]), float(mean[1]), float(mean[4])


if __name__ == "__main__":
    main()
