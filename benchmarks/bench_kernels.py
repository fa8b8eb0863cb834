"""How long deform, rasterize, shade and blend take beside what can be installed in their place.

    python -m benchmarks.bench_kernels [--seconds 1] [--json] [--only blend]

Settings: 4.9k vertices and 52 modes and 10k and 100, at 256 and 512 pixels, 21k and 85k of them covered; and,
where the photos are, a real portrait's full smile at both sizes (`shade` and `face`). Prints a table per
question and writes benchmarks/results/YYYY-MM-DD-kernels.json.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from benchmarks import harness, kernel_peers, real_face
from benchmarks.harness import Row
from fastface import ops

OURS = "fastface, 1 thread"
COVERED = 0.322  # of the image, as in docs/anchors.md: 21k of 256²


@dataclass(frozen=True)
class Scene:
    """An egg for a head: front and back, triangles in mesh order, and a photo to paste it into."""

    name: str
    size: int
    neutral: NDArray[np.float32]
    triangles: NDArray[np.int32]
    basis: NDArray[np.float32]
    camera: NDArray[np.float32]
    photo: NDArray[np.uint8]
    source: NDArray[np.float32]
    mask: NDArray[np.uint8]


def make_scene(side: int, modes: int, size: int) -> Scene:
    """``side²`` vertices. The source meets the photo within about 20 grey levels, as a re-lit face does."""
    rng = np.random.default_rng(0)
    polar, turn = np.meshgrid(
        np.linspace(0.02, np.pi - 0.02, side), np.arange(side) / side * 2 * np.pi, indexing="ij"
    )
    f_px, distance_mm = 2.0 * size, 600.0
    radius_mm = np.sqrt(COVERED / np.pi) * size * distance_mm / f_px
    head = [0.85 * np.sin(polar) * np.cos(turn), -1.15 * np.cos(polar), -0.9 * np.sin(polar) * np.sin(turn)]
    neutral = np.stack(head, -1).reshape(-1, 3) * radius_mm + [0, 0, distance_mm]
    neutral += rng.normal(0, 0.02, neutral.shape)
    corner = np.arange((side - 1) * side).reshape(side - 1, side)
    beside = corner // side * side + (corner + 1) % side
    quads = np.stack([corner, corner + side, beside, beside, corner + side, beside + side], -1)
    y, x = np.mgrid[:size, :size].astype(np.float32) / size
    waves = np.stack([np.sin(9 * x), np.cos(8 * y), np.sin(7 * (x + y))], -1)
    photo = np.clip(128 + 60 * waves + rng.normal(0, 6, waves.shape), 0, 255).astype(np.uint8)
    source = photo + 20 * waves[::-1, ::-1] + rng.normal(0, 4, waves.shape)
    mask = (np.hypot(x - 0.5, y - 0.5) < np.sqrt(COVERED / np.pi)).astype(np.uint8)
    return Scene(
        name=f"{side * side / 1000:.1f}k vertices, {modes} modes, {size}²",
        size=size,
        neutral=neutral.astype(np.float32),
        triangles=np.ascontiguousarray(quads.reshape(-1, 3), np.int32),
        basis=rng.normal(0, 0.05, (modes, side * side, 3)).astype(np.float32),
        camera=np.array([[f_px, size / 2, size / 2]], np.float32),
        photo=photo,
        source=source.astype(np.float32),
        mask=mask,
    )


def timed(question: str, contenders: dict[str, Callable[[], Any] | None], seconds: float) -> list[Row]:
    present = {name: run for name, run in contenders.items() if run is not None}
    return [Row(question, name, timing) for name, timing in harness.measure(present, seconds=seconds).items()]


def deform_rows(scene: Scene, seconds: float) -> list[Row]:
    rng = np.random.default_rng(1)
    workspace = ops.Workspace()
    rows = []
    half = ops.pack_basis(scene.basis, dtype=np.float16)
    single = ops.pack_basis(scene.basis)
    for frames in (1, 32):
        weights = rng.normal(size=(frames, len(scene.basis))).astype(np.float32)
        sparse = np.where(np.arange(len(scene.basis)) % 6 == 0, weights, 0).astype(np.float32)

        def ours(basis: ops.PackedBasis, c: NDArray[np.float32], threads: int) -> Callable[[], object]:
            out = ops.deform(scene.neutral, basis, c, scene.camera)
            return lambda: ops.deform(
                scene.neutral, basis, c, scene.camera, out=out, threads=threads, workspace=workspace
            )

        contenders: dict[str, Callable[[], Any] | None] = {
            OURS: ours(half, weights, 1),
            "fastface, 2 threads": ours(half, weights, 2),
            "fastface, float32 basis, 1 thread": ours(single, weights, 1),
            "fastface, a sixth of the modes, 1 thread": ours(half, sparse, 1),
            "numpy (BLAS, all cores)": kernel_peers.numpy_deform(
                scene.neutral, scene.basis, weights, scene.camera
            ),
        }
        rows += timed(f"deform, {scene.name}, {frames} at once", contenders, seconds)
    return rows


def rasterize_rows(scene: Scene, seconds: float) -> list[Row]:
    still = np.zeros((1, len(scene.basis)), np.float32)
    screen = ops.deform(scene.neutral, scene.basis, still, scene.camera).screen
    size = scene.size
    workspace = ops.Workspace()

    def ours(threads: int, cull: bool) -> Callable[[], object]:
        out = ops.rasterize(screen, scene.triangles, size, size)
        return lambda: ops.rasterize(
            screen,
            scene.triangles,
            size,
            size,
            cull_backfaces=cull,
            out=out,
            threads=threads,
            workspace=workspace,
        )

    contenders = {
        OURS: ours(1, False),
        "fastface, 2 threads": ours(2, False),
        "fastface, back faces culled, 1 thread": ours(1, True),
        "fastface, back faces culled, 2 threads": ours(2, True),
        "moderngl, index only": kernel_peers.moderngl_rasterize(screen, scene.triangles, size, size, False),
    }
    return timed(f"rasterize, {scene.name}", contenders, seconds)


def blend_rows(scene: Scene, seconds: float) -> list[Row]:
    workspace = ops.Workspace()
    source, mask = scene.source[None], scene.mask[None]
    photo_itself = scene.photo[None].astype(np.float32)
    system = kernel_peers.PoissonSystem(scene.photo, scene.source, scene.mask)
    exact = kernel_peers.scipy_solve_only(system)()

    def ours(threads: int, pasted: NDArray[np.float32]) -> Callable[[], object]:
        out = ops.blend(scene.photo, pasted, mask)
        return lambda: ops.blend(scene.photo, pasted, mask, out=out, threads=threads, workspace=workspace)

    unrounded = ops.blend(scene.photo, source, mask, exact=True).exact
    assert unrounded is not None
    amg = kernel_peers.pyamg_solve(system)
    clone = kernel_peers.opencv_clone(scene.photo, scene.source, scene.mask)
    contenders = {
        OURS: ours(1, source),
        "fastface, 2 threads": ours(2, source),
        "fastface, nothing to correct, 1 thread": ours(1, photo_itself),
        "cv2.seamlessClone": clone,
        "scipy, factor and solve": kernel_peers.scipy_factor_and_solve(system),
        "scipy, solve only": kernel_peers.scipy_solve_only(system),
        "pyamg, set-up and solve": amg,
    }
    found = {OURS: unrounded[0], "cv2.seamlessClone": clone()}
    if amg is not None:
        found["pyamg, set-up and solve"] = amg()
    notes = {name: f"error {np.abs(image - exact).max():.2f} grey levels" for name, image in found.items()}
    rows = timed(f"blend, {int(scene.mask.sum())} unknowns, {scene.size}²", contenders, seconds)
    return [Row(row.question, row.contender, row.timing, notes.get(row.contender, "")) for row in rows]


def frame_rows(scene: Scene, seconds: float) -> list[Row]:
    """deform, rasterize and blend in a row, and the same line put together from packages."""
    size = scene.size
    weights = np.random.default_rng(2).normal(0, 0.3, (1, len(scene.basis))).astype(np.float32)
    basis = ops.pack_basis(scene.basis, dtype=np.float16)
    workspace = ops.Workspace()
    mesh = ops.deform(scene.neutral, basis, weights, scene.camera)
    raster = ops.rasterize(mesh.screen, scene.triangles, size, size)
    blended = ops.blend(scene.photo, scene.source[None], scene.mask[None])

    def ours(threads: int) -> Callable[[], object]:
        common: dict[str, Any] = {"threads": threads, "workspace": workspace}

        def run() -> None:
            ops.deform(scene.neutral, basis, weights, scene.camera, out=mesh, **common)
            ops.rasterize(mesh.screen, scene.triangles, size, size, cull_backfaces=True, out=raster, **common)
            ops.blend(scene.photo, scene.source[None], scene.mask[None], out=blended, **common)

        return run

    deform = kernel_peers.numpy_deform(scene.neutral, scene.basis, weights, scene.camera)
    drawn = kernel_peers.moderngl_rasterize(mesh.screen, scene.triangles, size, size, True)
    clone = kernel_peers.opencv_clone(scene.photo, scene.source, scene.mask)
    map_y, map_x = np.mgrid[:size, :size].astype(np.float32) + np.float32(0.5)

    def assembled() -> None:
        deform()
        assert drawn is not None
        drawn()
        cv2.remap(scene.photo, map_x, map_y, cv2.INTER_LINEAR)
        clone()

    contenders = {
        OURS: ours(1),
        "fastface, 2 threads": ours(2),
        "numpy + moderngl + cv2.remap + cv2.seamlessClone": assembled if drawn is not None else None,
    }
    return timed(f"a frame without shading, {scene.name}", contenders, seconds)


QUESTIONS = {
    "deform": deform_rows,
    "rasterize": rasterize_rows,
    "blend": blend_rows,
    "frame": frame_rows,
}
FACE_QUESTIONS = {"shade": real_face.shade_rows, "face": real_face.frame_rows}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=1.0, help="for each contender")
    parser.add_argument("--only", choices=sorted({*QUESTIONS, *FACE_QUESTIONS}), action="append")
    parser.add_argument("--json", action="store_true", help="print the path of the written file only")
    arguments = parser.parse_args()
    console = Console(quiet=arguments.json, width=110)
    rows: list[Row] = []
    asked = arguments.only or [*QUESTIONS, *FACE_QUESTIONS]
    for side, modes, size in ((70, 52, 256), (100, 100, 256), (100, 100, 512)):
        scene = make_scene(side, modes, size)
        for name in (name for name in asked if name in QUESTIONS):
            if name == "blend" and side == 70:
                continue
            rows += QUESTIONS[name](scene, arguments.seconds)
    for size in (256, 512):
        face = real_face.real_face(size) if any(name in FACE_QUESTIONS for name in asked) else None
        for name in (name for name in asked if name in FACE_QUESTIONS and face is not None):
            assert face is not None
            rows += FACE_QUESTIONS[name](face, arguments.seconds)
    harness.report(rows, OURS, console)
    print(harness.save(rows, "kernels"))


if __name__ == "__main__":
    main()
