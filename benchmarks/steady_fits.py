"""How steady fits to photographs are where the truth is not known but does not change.

    python -m benchmarks.steady_fits

- One person photographed from 15, 30, 45 and 60 cm: the shape of the face should stay.
- 27 people, neutral and smiling: each should be nearer to that person than to others.
- Their neutral photos in the mirror: poses should be mirrored.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from benchmarks.texture_fit import PHOTOS, Float64, Image, aligned_mm
from fastface.camera import angles_deg
from fastface.fitting import FaceFitter, Fit
from fastface.images import read_image
from fastface.landmark_tables import MIRROR478
from fastface.landmarks import LandmarkDetector
from fastface.morphable import load_default
from fastface.texture_fitting import TextureFitter, face_vertices
from fastface.texture_model import DEFAULT_TEXTURE, TextureModel

Seen = tuple[Image, NDArray[np.float32]]
Fitting = Callable[[Seen], Fit]

DISTANCES_CM = (15, 30, 45, 60)


def mirrored(seen: Seen) -> Seen:
    photo, points = seen
    turned = points[np.array(MIRROR478)] * np.array([-1, 1], np.float32)
    turned[:, 0] += photo.shape[1]
    return np.ascontiguousarray(photo[:, ::-1]), turned


def figures(
    fitter: FaceFitter, fit: Fitting, near: list[Seen], pairs: list[tuple[Seen, Seen]]
) -> list[float]:
    """Shape over distances, neutral against smiling, between people, mm; pose in the mirror, degrees."""
    face = face_vertices(fitter.model)

    def shape(found: Fit) -> Float64:
        """Of the face at rest."""
        return np.asarray(fitter.model.shaped(found.identity)[face], np.float64)

    def apart(shapes: list[Float64]) -> float:
        return float(np.mean([aligned_mm(a, b) for a, b in combinations(shapes, 2)]))

    neutral = [fit(calm) for calm, _ in pairs]
    own = [
        aligned_mm(shape(found), shape(fit(smile))) for found, (_, smile) in zip(neutral, pairs, strict=True)
    ]
    turns = []
    for found, (calm, _) in zip(neutral, pairs, strict=True):
        here, there = (angles_deg(each.camera.rotation) for each in (found, fit(mirrored(calm))))
        turns.append(np.linalg.norm(np.array(here) - np.array([-1, 1, -1]) * there))
    series = apart([shape(fit(seen)) for seen in near])
    return [series, float(np.mean(own)), apart([shape(found) for found in neutral]), float(np.mean(turns))]


def main() -> None:
    fitter, detector = FaceFitter(load_default()), LandmarkDetector()
    whole = TextureFitter(fitter, TextureModel.load(DEFAULT_TEXTURE))

    def seen(path: Path) -> Seen:
        photo = read_image(path)
        return photo, detector.detect(photo)[0].points_px

    near = [seen(PHOTOS / "cc0" / f"{distance}cm.jpg") for distance in DISTANCES_CM]
    people = sorted(PHOTOS.glob("london/neutral/*.jpg"))
    pairs = [(seen(path), seen(PHOTOS / "london" / "smiling" / path.name)) for path in people]
    contenders: dict[str, Fitting] = {
        "landmarks only": lambda seen: fitter.fit(seen[1], *seen[0].shape[:2]),
        "equation 4 (texture=True)": lambda seen: whole.fit(*seen),
    }
    shown = Table("fit", "15 … 60 cm, mm", "smile, mm", "between people, mm", "mirror, °")
    for name, fit in contenders.items():
        shown.add_row(name, *(f"{value:.2f}" for value in figures(fitter, fit, near, pairs)))
    Console(width=110).print(shown)


if __name__ == "__main__":
    main()
