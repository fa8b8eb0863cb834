"""The texture model of the default head, from CC0 material.

    python -m fastface.exports.models.build_texture PHOTOS

PHOTOS is a folder of portraits; those in shared/data/photos/cc0 made the file that ships, together with heads
that ``fastface.painted_face`` paints. For photos alone there is ``fastface model build-texture``.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np

from fastface.camera import Camera
from fastface.fitting import FaceFitter, Fit
from fastface.painted_face import Light, Painter, facing_view
from fastface.texture_fitting import observed
from fastface.texture_model import DEFAULT_TEXTURE
from fastface.workshop.photographs import PhotoReader, Seen, Settings, photos_in
from fastface.workshop.texture import Learned, learn_texture

FEATURE: Final = "gradients"
PAINTED: Final = 16
COMPONENTS: Final = 16
SEED: Final = 5


def of_painted_heads(fitter: FaceFitter, count: int, seed: int) -> Iterator[Seen]:
    """Features and visibility of every vertex of painted heads, whose shape and camera are known."""
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


def build(photos: Path, components: int = COMPONENTS, license: str = "CC0-1.0") -> Learned:
    """The texture model of ``photos``, each also in the mirror, and of painted heads."""
    reader = PhotoReader(Settings(feature=FEATURE))
    faces = [view for photo in photos_in(photos) for view in reader.read(photo)]
    portraits = len(faces)
    faces += of_painted_heads(FaceFitter(reader.head), PAINTED, SEED)
    values, seen = (np.stack(column) for column in zip(*faces, strict=True))
    return learn_texture(
        reader.head,
        values,
        seen,
        feature=FEATURE,
        source=f"{portraits} views of portraits, {PAINTED} painted heads",
        license=license,
        components=components,
    )


def main() -> None:
    arguments = argparse.ArgumentParser(description="Make the texture model of the default head.")
    arguments.add_argument("photos", type=Path)
    arguments.add_argument("-o", "--output", type=Path, default=DEFAULT_TEXTURE)
    arguments.add_argument("--license", default="CC0-1.0", help="of the photos")
    arguments.add_argument("--components", type=int, default=COMPONENTS)
    asked = arguments.parse_args()
    learned = build(asked.photos, asked.components, asked.license)
    learned.texture.save(asked.output)
    print(
        f"{asked.output}: {learned.faces} faces, {len(learned.explained)} components explain "
        f"{learned.explained.sum():.1%}, {int((learned.texture.precision > 0).sum())} vertices seen"
    )


if __name__ == "__main__":
    main()
