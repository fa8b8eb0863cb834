"""What the landmark network gets wrong, measured on rendered heads.

    python -m fastface.exports.models.build_landmark_errors PHOTOS

PHOTOS is a folder of portraits; those in shared/data/photos/cc0 made the file that ships. Random heads of the
default model wear their skins, others wear paint, each before a camera of its own. Where the network reads
their landmarks is compared with where these truly are.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from rich.progress import track

from fastface.exports.models.rendered_heads import Head, Skin, drawn, painted
from fastface.fitting import FaceFitter
from fastface.images import read_image
from fastface.landmark_errors import DEFAULT_ERRORS, LandmarkErrors, level_frame, terms
from fastface.landmark_tables import MIRROR478
from fastface.landmarks import LandmarkDetector
from fastface.morphable import HeadModel, load_default
from fastface.painted_face import Painter

Float64 = NDArray[np.float64]

HEADS: Final = 600  # of each kind
SEED: Final = 11
REACH: Final = 1.5  # times the turns that the fit is measured with
MODES: Final = 110
#: The covariance of some hundred heads is drawn towards one that falls off with distance on the face: by this
#: share, over this many mm, with this share of it each landmark's own.
SHRINKAGE: Final = 0.15
REACH_MM: Final = 20.0
OWN: Final = 0.5


class Readings(NamedTuple):
    """Facing directions (N, 2) of heads of one kind, and errors (N, 478, 2) of their landmarks, % of the
    eyes' distance: both in the level frame of ``fastface.landmark_errors``."""

    directions: Float64
    errors: Float64


def heads_in_skins(fitter: FaceFitter, folder: Path, count: int, seed: int) -> Iterator[Head]:
    """Random heads in the skins of a folder's portraits and of their mirror images."""
    detector, rng = LandmarkDetector(), np.random.default_rng(seed)
    photos = [read_image(path) for path in sorted(folder.glob("*.jpg"))]
    sides = [side for photo in photos for side in (photo, np.ascontiguousarray(photo[:, ::-1]))]
    skins = [Skin.of(fitter, detector, side) for side in sides]
    for _ in range(count):
        yield drawn(fitter.model, skins[int(rng.integers(len(skins)))], rng, REACH)


def painted_heads(model: HeadModel, count: int, seed: int) -> Iterator[Head]:
    """Random heads in paint."""
    painter, rng = Painter(model), np.random.default_rng(seed)
    return (painted(painter, rng, REACH) for _ in range(count))


def read(model: HeadModel, heads: Iterable[Head]) -> Readings:
    """What the network says of these heads; those that it does not find are left out."""
    detector, directions, errors = LandmarkDetector(), [], []
    for head in heads:
        for found in detector.detect(head.image, max_faces=1):
            points = found.points_px.astype(np.float64)
            level, eye_px = level_frame(points)
            marks = model.landmarks478.points(head.vertices, model.triangles).astype(np.float64)
            true = head.camera.project(head.camera.to_camera(marks))
            directions.append(level @ head.camera.rotation[:2, 2])
            errors.append((points - true) @ level.T * (100 / eye_px))
    return Readings(np.array(directions), np.array(errors))


def learn_errors(
    kinds: Sequence[Readings], marks_mm: Float64, *, source: str, license: str, modes: int = MODES
) -> LandmarkErrors:
    """Bias and covariance of the errors of heads of several kinds, each kind counting alike.

    ``marks_mm (478, 3)``: where the landmarks lie on a face. Mirrored faces are added: what is learned is
    symmetric. What no direction explains of the bias, differs by kind, and so by photo: its mean is taken
    over the kinds and one without, and what is off this mean counts as error.
    """
    points = len(marks_mm)
    bias, covariance = np.zeros((6, 2 * points)), np.zeros((2 * points, 2 * points))
    constants = [np.zeros(2 * points)]
    for kind in kinds:
        mirrored = kind.errors[:, np.array(MIRROR478)] * [-1, 1]
        known = terms(np.concatenate([kind.directions, kind.directions * [-1, 1]]))
        seen = np.concatenate([kind.errors, mirrored]).reshape(len(known), -1)
        found = np.linalg.lstsq(known, seen, rcond=None)[0]
        left = seen - known @ found
        covariance += left.T @ left / len(left) / len(kinds)
        bias += found / len(kinds)
        constants.append(found[0])
    bias[0] = np.mean(constants, axis=0)
    covariance += np.cov(np.array(constants).T, bias=True)
    shrunk = covariance + SHRINKAGE * (_falling_off(covariance, marks_mm) - covariance)
    deviation = np.sqrt(np.diag(shrunk))
    size, direction = np.linalg.eigh(shrunk / np.outer(deviation, deviation))
    in_concert = (direction[:, -modes:] * np.sqrt(size[-modes:])).T[::-1] * deviation
    rest = np.sqrt(deviation**2 - (in_concert**2).sum(axis=0))
    return LandmarkErrors(
        source,
        license,
        bias.reshape(6, points, 2).astype(np.float16),
        in_concert.reshape(-1, points, 2).astype(np.float16),
        rest.reshape(points, 2).astype(np.float16),
    )


def _falling_off(covariance: Float64, marks_mm: Float64) -> Float64:
    """A covariance with the same mean variance a landmark that falls off with distance."""
    apart = np.linalg.norm(marks_mm[:, None] - marks_mm, axis=2)
    smooth = (1 - OWN) * np.exp(-apart / REACH_MM) + OWN * np.eye(len(marks_mm))
    spread = np.sqrt(np.diag(covariance).reshape(-1, 2).mean(axis=1))
    falling: Float64 = np.kron(smooth * np.outer(spread, spread), np.eye(2))
    return falling


def main() -> None:
    arguments = argparse.ArgumentParser(description="Measure the errors of the landmark network.")
    arguments.add_argument("photos", type=Path)
    arguments.add_argument("-o", "--output", type=Path, default=DEFAULT_ERRORS)
    arguments.add_argument("--license", default="CC0-1.0", help="of the photos")
    arguments.add_argument("--heads", type=int, default=HEADS, help="of each kind")
    asked = arguments.parse_args()
    fitter, count = FaceFitter(load_default()), asked.heads
    model = fitter.model
    heads = heads_in_skins(fitter, asked.photos, count, SEED), painted_heads(model, count, SEED + 1)
    kinds = [
        read(model, track(each, f"heads in {what}", count))
        for what, each in zip(("skins", "paint"), heads, strict=True)
    ]
    marks_mm = model.landmarks478.points(model.vertices, model.triangles).astype(np.float64)
    source = " and ".join(f"{len(kind.errors)}" for kind in kinds) + " rendered heads, in skins and in paint"
    made = learn_errors(kinds, marks_mm, source=source, license=asked.license)
    made.save(asked.output)
    print(f"{asked.output}: {source}")


if __name__ == "__main__":
    main()
