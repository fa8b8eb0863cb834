"""A real photo's face as the fast half gets it, and how long shading and whole frames of it take."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks import kernel_peers
from benchmarks.harness import Row, measure
from benchmarks.portraits import LONDON, find_portraits
from fastface import ops
from fastface.affect import Affect
from fastface.fitting import FaceFitter
from fastface.folds import fold_weights
from fastface.head_models import open_model
from fastface.images import read_image
from fastface.landmarks import LandmarkDetector
from fastface.relaxation import shift_weights
from fastface.rig import Rig, RigBuilder

OURS = "fastface, 1 thread"


@dataclass(frozen=True)
class RealFace:
    """One frame of a full smile, up to blending."""

    name: str
    rig: Rig
    window: NDArray[np.uint8]
    basis: ops.PackedBasis
    shading: ops.PreparedShading
    coefficients: NDArray[np.float32]
    controls: NDArray[np.float32]
    mesh: ops.Deformed
    raster: ops.Raster
    shaded: ops.Shaded


def real_face(size: int) -> RealFace | None:
    """The first London portrait, scaled so that its window is ``size`` px high; None without photos."""
    try:
        photo = read_image(find_portraits(LONDON, limit=1)[0].neutral)
    except FileNotFoundError:
        return None
    model = open_model("default")
    fitter = FaceFitter(model)
    builder = RigBuilder(fitter)
    detector = LandmarkDetector()
    marks = detector.detect(photo, 1)[0].points_px
    whole = builder.build(fitter.fit(marks, *photo.shape[:2]), photo, marks).window
    scale = size / max(whole.height, whole.width)
    resized = cv2.resize(photo, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    photo = np.asarray(resized, np.uint8)
    marks = detector.detect(photo, 1)[0].points_px
    rig = builder.build(fitter.fit(marks, *photo.shape[:2]), photo, marks)
    weights = Affect.expression("happy").coefficients(model.expression_names)[None].astype(np.float32)
    mixes = np.ones((1, 3), np.float32)  # eyes and mouth drawn anew
    names = model.expression_names
    controls = np.concatenate([shift_weights(weights, names), mixes, fold_weights(weights, names)], axis=1)
    basis = ops.pack_basis(rig.basis, dtype=np.float16, drop_below_mm=0.005)
    shading = ops.prepare_shading(rig.shading)
    mesh = ops.deform(rig.neutral, basis, weights, rig.camera[None])
    raster = ops.rasterize(mesh.screen, rig.shading.triangles, rig.window.height, rig.window.width)
    controls = np.ascontiguousarray(controls, np.float32)
    shaded = ops.shade(*mesh, raster.triangle_id, raster.bary, controls, shading)
    covered = f"{rig.window.width}x{rig.window.height}, {int(shaded.mask.sum())} px change"
    return RealFace(
        name=f"{len(rig.neutral) / 1000:.1f}k vertices, {covered}",
        rig=rig,
        window=np.ascontiguousarray(photo[rig.window.slices]),
        basis=basis,
        shading=shading,
        coefficients=weights,
        controls=controls,
        mesh=mesh,
        raster=raster,
        shaded=shaded,
    )


def _timed(question: str, contenders: dict[str, Callable[[], Any] | None], seconds: float) -> list[Row]:
    present = {name: run for name, run in contenders.items() if run is not None}
    return [Row(question, name, timing) for name, timing in measure(present, seconds=seconds).items()]


def _maps(face: RealFace) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Where each pixel takes its colour from, by NumPy over all pixels."""
    shading = face.rig.shading
    offset = shading.rest_px - face.mesh.screen[0, :, :2]
    triangle = face.raster.triangle_id[0]
    corner = offset[shading.triangles[np.maximum(triangle, 0)]]
    b1, b2 = face.raster.bary[0, ..., 0, None], face.raster.bary[0, ..., 1, None]
    at = corner[:, :, 0] + b1 * (corner[:, :, 1] - corner[:, :, 0]) + b2 * (corner[:, :, 2] - corner[:, :, 0])
    y, x = np.mgrid[: triangle.shape[0], : triangle.shape[1]].astype(np.float32)
    return x + at[..., 0], y + at[..., 1]


def shade_rows(face: RealFace, seconds: float) -> list[Row]:
    """Colours of one frame; the peers warp only: no light, folds, eyes or mouth."""
    workspace = ops.Workspace()
    inputs = (*face.mesh, face.raster.triangle_id, face.raster.bary, face.controls, face.shading)

    def ours(threads: int) -> Callable[[], object]:
        out = ops.Shaded(face.shaded.source.copy(), face.shaded.mask.copy())
        return lambda: ops.shade(*inputs, out=out, threads=threads, workspace=workspace)

    ready = _maps(face)
    contenders: dict[str, Callable[[], Any] | None] = {
        OURS: ours(1),
        "fastface, 2 threads": ours(2),
        "cv2.remap alone, maps made beforehand": lambda: cv2.remap(face.window, *ready, cv2.INTER_CUBIC),
        "numpy maps + cv2.remap": lambda: cv2.remap(face.window, *_maps(face), cv2.INTER_CUBIC),
    }
    return _timed(f"shade, {face.name}", contenders, seconds)


def frame_rows(face: RealFace, seconds: float) -> list[Row]:
    """Coefficients to blended frame, and the same line put together from packages."""
    window, rig = face.window, face.rig
    workspace = ops.Workspace()
    blended = ops.blend(window, face.shaded.source, face.shaded.mask)

    def steps(threads: int) -> dict[str, Callable[[], object]]:
        common: dict[str, Any] = {"threads": threads, "workspace": workspace}
        mesh, raster, shaded = face.mesh, face.raster, face.shaded
        triangles, size = rig.shading.triangles, window.shape[:2]
        camera, inputs = (
            rig.camera[None],
            (*mesh, raster.triangle_id, raster.bary, face.controls, face.shading),
        )
        weights = face.coefficients
        return {
            "deform": lambda: ops.deform(rig.neutral, face.basis, weights, camera, out=mesh, **common),
            "rasterize": lambda: ops.rasterize(mesh.screen, triangles, *size, out=raster, **common),
            "shade": lambda: ops.shade(*inputs, out=shaded, **common),
            "blend": lambda: ops.blend(window, shaded.source, shaded.mask, out=blended, **common),
        }

    def ours(threads: int) -> Callable[[], object]:
        line = list(steps(threads).values())

        def run() -> None:
            for step in line:
                step()

        return run

    contenders: dict[str, Callable[[], Any] | None] = {
        OURS: ours(1),
        "fastface, 2 threads": ours(2),
        "numpy + moderngl + cv2.remap + cv2.seamlessClone": _assembled(face),
    }
    for threads in (1, 2):
        contenders |= {f"{name} alone, {threads} threads": step for name, step in steps(threads).items()}
    return _timed(f"a real frame, {face.name}", contenders, seconds)


def _assembled(face: RealFace) -> Callable[[], Any] | None:
    """The maps of the warp are made beforehand; light, folds, eyes and mouth are left out."""
    rig, window = face.rig, face.window
    weights = face.coefficients
    deform = kernel_peers.numpy_deform(rig.neutral, rig.basis, weights, rig.camera[None])
    triangles = rig.shading.triangles
    height, width = window.shape[:2]
    drawn = kernel_peers.moderngl_rasterize(face.mesh.screen, triangles, height, width, False)
    if drawn is None:
        return None
    ready = _maps(face)
    # seamlessClone takes no mask that touches the border.
    mask = face.shaded.mask[0].copy()
    mask[[0, -1]] = 0
    mask[:, [0, -1]] = 0
    clone = kernel_peers.opencv_clone(window, face.shaded.source[0], mask)

    def run() -> None:
        deform()
        drawn()
        cv2.remap(window, *ready, cv2.INTER_CUBIC)
        clone()

    return run
