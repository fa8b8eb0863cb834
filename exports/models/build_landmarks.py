"""Make the landmark files that ship: where MediaPipe's 478 points lie on the default head and on ICT-FaceKit.

    python -m fastface.exports.models.build_landmarks ict --ict ict_facekit.npz photos/…/*.jpg
    python -m fastface.exports.models.build_landmarks default photos/…/*.jpg

Painted heads give a first guess (``fastface.correspondence``); photographs of neutral faces, a few dozen
people who look straight at the camera, then move it until the fits leave over the same everywhere. The files
hold vertex indices and weights only, nothing of the photographs.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastface.atomic import whole_file
from fastface.correspondence import Fit, calibrate, make_correspondences, residual_mm
from fastface.exports.models import ict_regions
from fastface.importers import ict
from fastface.landmarks import LandmarkDetector
from fastface.morphable import Correspondence, HeadModel, load_default, write_archive

Array = NDArray[Any]
FitAll = Callable[[HeadModel], Sequence[Fit]]

ASSETS = Path(__file__).parents[2] / "fastface" / "assets"
ROUNDS = 6
RENDERS = 60
OUTER_LIPS = (61, 185, 40, 39, 37, 0, 267, 269, 270, 409, 291, 375, 321, 405, 314, 17, 84, 181, 91, 146)


def calibrated(model: HeadModel, fit_all: FitAll, rounds: int = ROUNDS) -> HeadModel:
    """``model`` with landmarks found on painted heads, then moved by ``rounds`` of fits to photographs."""
    marks = make_correspondences(model, LandmarkDetector(), renders=RENDERS)
    model = replace(model, landmarks478=marks[0], landmarks68=marks[1])
    for _ in range(rounds):
        marks = calibrate(model, fit_all(model))
        model = replace(model, landmarks478=marks[0], landmarks68=marks[1])
    return model


def build_default(fit_all: FitAll) -> dict[str, Array]:
    """Arrays of ``default_landmarks.npz``, over the default model's own vertices."""
    return _as_arrays(calibrated(load_default(), fit_all))


def build_ict(path: Path, fit_all: FitAll) -> dict[str, Array]:
    """Arrays of ``ict_landmarks.npz``, over the authors' 26,719 vertices.

    Where the red of the lips ends is taken from the calibrated outer lip landmarks, so the landmarks are made
    twice.
    """
    shapes = ict.read_npz(path)
    with np.load(path, allow_pickle=False) as arrays:
        mesh = ict_regions.IctMesh(
            shapes.neutral,
            shapes.triangles,
            arrays["uv"],
            arrays["triangles_uv"],
            arrays["landmarks68"],
            shapes.expression,
        )
    topology = _topology(mesh, shapes, None)
    first = calibrated(ict.build(shapes, topology), fit_all, rounds=3)
    points = first.landmarks478.points(first.vertices, first.triangles)[list(OUTER_LIPS)]
    origin = ict.origin_of(shapes.neutral, topology.region)
    topology = _topology(mesh, shapes, points[:, :2] / 10 + origin[:2])
    model = calibrated(ict.build(shapes, topology), fit_all)
    authors = np.flatnonzero(topology.region != ict.DROPPED).astype(np.int32)
    return {**_as_arrays(model, authors), "region": topology.region, "mirror": topology.mirror}


def _topology(mesh: ict_regions.IctMesh, shapes: ict.Shapes, lip_outline: Array | None) -> ict.Topology:
    region = ict_regions.material_of_vertices(mesh, lip_outline)
    mirror = ict_regions.mirror_of_vertices(mesh.vertices, region)
    any_triangle = np.tile(mesh.triangles[:1], (478, 1)).astype(np.int32)
    third = np.full((478, 3), 1 / 3, np.float32)
    topology = ict.Topology(any_triangle, third, any_triangle[:68], third[:68], region, mirror)
    expression = ict.arkit_expressions(shapes, topology, "ICT-FaceKit")
    still = ict_regions.still_head(mesh, expression)
    region[still & still[mirror]] = ict.DROPPED
    seen = ict_regions.ever_seen(mesh, region, shapes.identity, expression)
    region[~(seen | seen[mirror])] = ict.DROPPED
    kept = mesh.triangles[(region[mesh.triangles] != ict.DROPPED).all(axis=1)][:1].astype(np.int32)
    return topology._replace(vertices478=np.tile(kept, (478, 1)), vertices68=np.tile(kept, (68, 1)))


def _as_arrays(model: HeadModel, authors: Array | None = None) -> dict[str, Array]:
    """Corners and weights of the landmarks; ``authors`` maps the model's vertices to the authors' numbers."""
    arrays: dict[str, Array] = {}
    marks: Correspondence
    for count, marks in ((478, model.landmarks478), (68, model.landmarks68)):
        corners = model.triangles[marks.triangle]
        arrays[f"vertices{count}"] = (corners if authors is None else authors[corners]).astype(np.int32)
        arrays[f"weights{count}"] = marks.bary.astype(np.float32)
    return arrays


def write(arrays: dict[str, Array], path: Path) -> None:
    """Write the file, the same bytes for the same arrays."""
    with whole_file(path) as temporary, temporary.open("wb") as stream:
        write_archive(stream, arrays)


def engine_fits(photos: Sequence[Path]) -> FitAll:
    """Fit every photo with the package's own engine; the largest face of each counts."""
    from fastface.engine import Engine
    from fastface.images import read_image

    images = [read_image(path) for path in photos]

    def fit_all(model: HeadModel) -> Sequence[Fit]:
        engine = Engine(model)
        fits = [engine.fit(image) for image in images]
        left_over = np.concatenate([residual_mm(model, fit) for fit in fits])
        print(f"{model.name}: {np.linalg.norm(left_over, axis=1).mean():.3f} mm left over", flush=True)
        return fits

    return fit_all


def main() -> None:
    """Command line; see the module's description."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", choices=["default", "ict"])
    parser.add_argument("--ict", type=Path, help="ict_facekit.npz, for ict")
    parser.add_argument("photos", type=Path, nargs="+", help="portraits of neutral faces")
    given = parser.parse_args()
    fit_all = engine_fits(given.photos)
    if given.model == "ict":
        write(build_ict(given.ict, fit_all), ASSETS / "ict_landmarks.npz")
    else:
        write(build_default(fit_all), ASSETS / "default_landmarks.npz")


if __name__ == "__main__":
    main()
