"""What the texture term of the fit is worth, on heads whose pose, shape and camera are known.

    python -m benchmarks.texture_fit --heads 12

Random identities of the head model are drawn before random perspective cameras and fitted as any photo is:
landmarks by the network, then with and without texture. They wear

- skins: portraits that no texture model here has seen, laid over the mesh by their landmarks. Where their
  brows and lips lie on the mesh is only as true as those landmarks;
- paint: what ``fastface.painted_face`` paints, in other light than any that the texture model has seen. Its
  colours are those of the training set: the best case.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from fastface.camera import Camera, angles_deg
from fastface.exports.models.rendered_heads import Head, Skin, drawn, painted
from fastface.fitting import FaceFitter, Fit
from fastface.images import read_image
from fastface.importers.correspondence_map import similarity
from fastface.landmarks import LandmarkDetector
from fastface.morphable import HeadModel, load_default
from fastface.painted_face import Painter
from fastface.texture_fitting import TextureFitter, Weights, face_vertices, observed
from fastface.texture_model import DEFAULT_TEXTURE, TextureModel
from fastface.workshop.texture import learn_texture

Image = NDArray[np.uint8]
Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

PHOTOS: Final = Path(__file__).resolve().parents[2] / "shared" / "data" / "photos"
INNER68: Final = slice(17, None)  # brows, nose, eyes, mouth: the jaw's landmarks slide along the silhouette


Fitting = Callable[[Head, Float32], Fit]


@dataclass(frozen=True)
class Errors:
    """Of one fit: where its face and its inner landmarks lie in the image (mean distance, % of that between
    the outer corners of the eyes), its pose, and its shape after the best similarity."""

    face: float
    inner: float
    pose_deg: float
    pitch_deg: float
    shape_mm: float


def errors(model: HeadModel, face: NDArray[np.int64], head: Head, fit: Fit) -> Errors:
    vertices, truth = model.shaped(fit.identity, fit.expression), head.vertices
    place = [vertices[face], model.landmarks68.points(vertices, model.triangles)[INNER68]]
    true = [truth[face], model.landmarks68.points(truth, model.triangles)[INNER68]]
    off = [
        100 * _apart(fit.camera, a, head.camera, b) / head.eye_px for a, b in zip(place, true, strict=True)
    ]
    turn = fit.camera.rotation @ head.camera.rotation.T
    pose = float(np.degrees(np.arccos(np.clip((np.trace(turn) - 1) / 2, -1, 1))))
    pitch = abs(angles_deg(fit.camera.rotation)[1] - angles_deg(head.camera.rotation)[1])
    return Errors(
        off[0], off[1], pose, pitch, aligned_mm(place[0].astype(np.float64), true[0].astype(np.float64))
    )


def _apart(one: Camera, a: Float32, other: Camera, b: Float32) -> float:
    """Mean distance in the image, px, of points (N, 3) that two cameras see."""
    first = one.project(one.to_camera(a.astype(np.float64)))
    second = other.project(other.to_camera(b.astype(np.float64)))
    return float(np.linalg.norm(first - second, axis=1).mean())


def aligned_mm(found: Float64, truth: Float64) -> float:
    """Mean distance after the best similarity: what a camera cannot tell is left out."""
    scale, turn, shift = similarity(found, truth)
    return float(np.linalg.norm(scale * found @ turn.T + shift - truth, axis=1).mean())


def fittings(fitter: FaceFitter, portraits: TextureModel | None) -> dict[str, Fitting]:
    """What is compared, by name."""
    shipped, told = TextureModel.load(DEFAULT_TEXTURE), Weights()

    def alone(head: Head, points: Float32) -> Fit:
        return fitter.fit(points, *head.image.shape[:2])

    def knowing(head: Head, points: Float32) -> Fit:
        known = TextureFitter(fitter, own_texture(fitter, head), replace(told, texture=10))
        return known.fit(head.image, points)

    def with_texture(texture: TextureModel, weights: Weights) -> Fitting:
        whole = TextureFitter(fitter, texture, weights)
        return lambda head, points: whole.fit(head.image, points)

    # Landmarks in pixels of faces that are 200 px from corner to corner, as the authors' images: eyes 95 px.
    # Errors of one standard deviation are 1.7 % of that.
    taken = replace(told, landmarks=told.landmarks * (0.017 * 95) ** 2 / 30)
    contenders: dict[str, Fitting] = {
        "landmarks only (fit)": alone,
        "equation 4 without texture (c_t = 0)": with_texture(shipped, replace(told, texture=0)),
        "equation 4 (fit, texture=True)": with_texture(shipped, told),
        "the same, texture counting tenfold": with_texture(shipped, replace(told, texture=10)),
        "the same, landmarks in the paper's pixels": with_texture(shipped, taken),
    }
    if portraits is not None:
        contenders["equation 4, texture of other portraits"] = with_texture(portraits, told)
    contenders["equation 4, this very texture known, tenfold"] = knowing
    return contenders


def own_texture(fitter: FaceFitter, head: Head) -> TextureModel:
    """The texture of that head alone, read where its vertices truly lie."""
    values, seen = observed(fitter, head.image, head.truth, "gradients")
    none = np.zeros((1, *values.shape), np.float16)
    precision = np.where(seen, 30, 0).astype(np.float32)
    return TextureModel("one head", "none", fitter.model.digest, "gradients", values, none, precision)


def of_portraits(fitter: FaceFitter, photos: Sequence[Image]) -> TextureModel:
    """A texture model of these portraits and their mirror images, for comparison."""
    detector = LandmarkDetector()
    both = [side for photo in photos for side in (photo, np.ascontiguousarray(photo[:, ::-1]))]
    points = [detector.detect(photo)[0].points_px for photo in both]
    fits = [fitter.fit(marks, *photo.shape[:2]) for photo, marks in zip(both, points, strict=True)]
    seen = [observed(fitter, photo, fit, "gradients") for photo, fit in zip(both, fits, strict=True)]
    values, there = (np.stack(column) for column in zip(*seen, strict=True))
    return learn_texture(
        fitter.model,
        values,
        there,
        feature="gradients",
        source="portraits",
        license="CC-BY-4.0",
        components=16,
    ).texture


def table(title: str, model: HeadModel, heads: Sequence[Head], contenders: dict[str, Fitting]) -> Table:
    """Mean errors, and the fastest and the median time that a fit took."""
    shown = Table(
        "fit", "face, %", "landmarks, %", "pose, °", "pitch, °", "shape, mm", "ms (least)", title=title
    )
    detector, face = LandmarkDetector(), face_vertices(model)
    found: dict[str, list[tuple[float, ...]]] = {name: [] for name in contenders}
    took: dict[str, list[float]] = {name: [] for name in contenders}
    for head in heads:
        faces = detector.detect(head.image, max_faces=1)
        for name, fit in contenders.items() if faces else ():
            start = time.perf_counter()
            result = fit(head, faces[0].points_px)
            took[name].append(1e3 * (time.perf_counter() - start))
            found[name].append(astuple(errors(model, face, head, result)))
    for name, rows in found.items():
        means = [f"{value:.2f}" for value in np.mean(rows, axis=0)]
        shown.add_row(name, *means, f"{np.median(took[name]):.0f} ({min(took[name]):.0f})")
    return shown


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    arguments.add_argument("--heads", type=int, default=12, help="of each kind, at most 13")
    arguments.add_argument("--seed", type=int, default=1)
    asked = arguments.parse_args()
    fitter, rng = FaceFitter(load_default()), np.random.default_rng(asked.seed)
    detector = LandmarkDetector()
    order = rng.permutation(sorted(PHOTOS.glob("london/neutral/*.jpg"))).tolist()
    photos = [read_image(path) for path in order]
    worn, others = photos[: asked.heads], photos[13:]
    contenders = fittings(fitter, of_portraits(fitter, others) if others else None)
    skins = [drawn(fitter.model, Skin.of(fitter, detector, photo), rng) for photo in worn]
    painter = Painter(fitter.model)
    paint = [painted(painter, rng) for _ in range(asked.heads)]
    console = Console(width=130)
    console.print(table(f"{len(skins)} heads in the skins of portraits", fitter.model, skins, contenders))
    contenders.pop("equation 4, texture of other portraits", None)
    console.print(table(f"{len(paint)} painted heads", fitter.model, paint, contenders))


if __name__ == "__main__":
    main()
