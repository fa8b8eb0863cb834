"""The texture model of the default head, from CC0 material.

    python -m fastface.exports.models.build_texture PHOTOS

PHOTOS is a folder of portraits; those in shared/data/photos/cc0 made the file that ships, together with heads
that ``fastface.painted_face`` paints. Each portrait is seen a second time in the mirror.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fastface.camera import Camera
from fastface.fitting import FaceFitter, Fit
from fastface.images import read_image
from fastface.landmark_tables import MIRROR478
from fastface.landmarks import LandmarkDetector
from fastface.morphable import HeadModel, load_default
from fastface.painted_face import Light, Painter, facing_view
from fastface.texture_fitting import observed
from fastface.texture_model import DEFAULT_TEXTURE, TextureModel

Float32 = NDArray[np.float32]
Seen = tuple[Float32, NDArray[np.bool_]]

FEATURE: Final = "gradients"
PAINTED: Final = 16
COMPONENTS: Final = 6
SEED: Final = 5


def of_portraits(fitter: FaceFitter, folder: Path) -> Iterator[Seen]:
    """Features and visibility of every vertex in each photo of a folder that shows a face, twice."""
    detector = LandmarkDetector()
    for path in sorted(folder.glob("*.jpg")):
        photo = read_image(path)
        for found in detector.detect(photo, max_faces=1):
            mirrored = found.points_px[np.array(MIRROR478)] * np.array([-1, 1], np.float32)
            mirrored[:, 0] += photo.shape[1]
            for image, points in ((photo, found.points_px), (np.ascontiguousarray(photo[:, ::-1]), mirrored)):
                yield observed(fitter, image, fitter.fit(points, *image.shape[:2]), FEATURE)


def of_painted_heads(fitter: FaceFitter, count: int, seed: int) -> Iterator[Seen]:
    """The same of painted heads, whose shape and camera are known."""
    model, rng = fitter.model, np.random.default_rng(seed)
    painter = Painter(model)
    for _ in range(count):
        identity = 0.8 * rng.standard_normal(40)
        yaw, pitch, roll = rng.uniform([-18, -12, -6], [18, 12, 6])
        lamp = np.array([rng.uniform(-0.6, 0.6), -rng.uniform(0.1, 0.6), -1.0])
        light = Light(lamp / np.linalg.norm(lamp), float(rng.uniform(0.4, 0.7)))
        view = facing_view(yaw, pitch, roll, distance_mm=float(rng.uniform(500, 1200)))
        skin, hair = int(rng.integers(4)), int(rng.integers(3))
        picture = painter.paint(model.shaped(identity), view, light, skin=skin, hair=hair)
        camera = Camera(view.rotation, view.translation_mm, view.focal_px, np.full(2, view.size_px / 2))
        expression, off = np.zeros(len(model.expression), np.float32), np.zeros((478, 2), np.float32)
        yield observed(
            fitter, picture.rgb, Fit(camera, identity.astype(np.float32), expression, off, 1), FEATURE
        )


def main() -> None:
    arguments = argparse.ArgumentParser(description="Make the texture model of the default head.")
    arguments.add_argument("photos", type=Path)
    arguments.add_argument("-o", "--output", type=Path, default=DEFAULT_TEXTURE)
    arguments.add_argument("--license", default="CC0-1.0", help="of the photos")
    arguments.add_argument("--components", type=int, default=COMPONENTS)
    asked = arguments.parse_args()
    fitter = FaceFitter(load_default())
    faces = [*of_portraits(fitter, asked.photos), *of_painted_heads(fitter, PAINTED, SEED)]
    values, seen = (np.stack(column) for column in zip(*faces, strict=True))
    texture = learn_texture(
        fitter.model,
        values,
        seen,
        asked.components,
        feature=FEATURE,
        source=f"{len(faces) - PAINTED} views of portraits, {PAINTED} painted heads",
        license=asked.license,
    )
    texture.save(asked.output)
    print(f"{asked.output}: {len(faces)} faces, {int((texture.precision > 0).sum())} vertices seen")


def learn_texture(
    model: HeadModel,
    values: Float32,
    seen: NDArray[np.bool_],
    components: int,
    *,
    feature: str,
    source: str,
    license: str,
    least_seen: int = 3,
    rounds: int = 8,
) -> TextureModel:
    """Mean, principal components and noise of ``values (M, V, C)`` where ``seen (M, V)``.

    What is missing is filled with what the model so far says of it, and the model made again (the EM
    algorithm of Roweis, NIPS 1998, without noise).
    """
    used = np.flatnonzero(seen.sum(axis=0) >= least_seen)
    data, there = values[:, used], seen[:, used, None]
    count, _, channels = data.shape
    mean = (data * there).sum(0) / there.sum(0)
    filled = np.where(there, data, mean).reshape(count, -1)
    kept = min(components, count - 2)
    for _ in range(rounds):
        centre = filled.mean(0)
        u, s, vt = np.linalg.svd(filled - centre, full_matrices=False)
        model_says = (u[:, :kept] * s[:kept]) @ vt[:kept] + centre
        filled = np.where(there.repeat(channels, 2).reshape(count, -1), data.reshape(count, -1), model_says)
    left = ((filled - model_says).reshape(data.shape) ** 2 * there).sum((0, 2)) / (
        there.sum((0, 2)) * channels
    )
    left *= count / (count - kept)
    # Noise learned of few faces is itself noisy: half of it is what vertices have on average.
    noise = 0.5 * left + 0.5 * float(left.mean())
    vertices = len(model.vertices)
    full_mean = np.zeros((vertices, channels), np.float32)
    full_mean[used] = centre.reshape(-1, channels)
    basis = np.zeros((kept, vertices, channels), np.float16)
    basis[:, used] = (vt[:kept] * (s[:kept, None] / np.sqrt(count - 1))).reshape(kept, -1, channels)
    precision = np.zeros(vertices, np.float32)
    precision[used] = 1 / noise
    return TextureModel(source, license, model.digest, feature, full_mean, basis, precision)


if __name__ == "__main__":
    main()
