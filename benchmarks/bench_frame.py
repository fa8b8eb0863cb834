"""Whole frames of a real face: how long, how far from the machine's limits, and beside what can be installed.

    python -m benchmarks.bench_frame [--seconds 1] [--model default] [--json]

The demonstration photo at 256 and 512 pixels, filled by the head and as a portrait; a full smile. Questions:
the ops of a frame one by one against the frame in one go, with warm and cold caches; a batch of 32 by one
thread and by all; the line put together from packages, drawn by OpenGL (moderngl) and by OpenCV. Prints a
table per question and writes benchmarks/results/YYYY-MM-DD-frames.json.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from rich.console import Console

from benchmarks import harness, kernel_peers
from benchmarks.harness import Row, Timing
from fastface import bench, ops
from fastface.affect import Affect
from fastface.engine import Engine, FittedFace
from fastface.images import read_image
from fastface.rendering import FaceRenderer
from fastface.roofline import Ceiling, frame_costs, measure_ceiling

PHOTO = Path(__file__).resolve().parents[1] / "fastface" / "assets" / "demo.jpg"
OURS = "fastface, 1 thread"
BATCH = 32


def _faces(engine: Engine) -> dict[str, FittedFace]:
    rgb = read_image(PHOTO)
    views = bench.framings(rgb, engine.fit(rgb).landmarks_px)
    resized = {
        f"{side}² {name}": cv2.resize(view, (side, side), interpolation=cv2.INTER_CUBIC)
        for name, view in views.items()
        for side in (256, 512)
    }
    return {name: engine.fit(np.asarray(image, np.uint8)) for name, image in resized.items()}


class _Frame:
    """One face and one full smile."""

    def __init__(self, engine: Engine, face: FittedFace) -> None:
        self.engine, self.face = engine, face
        engine.render(face)
        self.bound = engine._ready(face).bound
        self.row = Affect.expression("happy").coefficients(engine.model.expression_names)[None]
        renderer = FaceRenderer(self.bound, 1)
        changed = int(renderer.mask(self.row).sum())
        self.costs = frame_costs(self.bound, renderer.deltas(self.row)[0], changed)
        self.words = f"{len(self.bound.neutral)} vertices, {changed} px change"

    def whole(self, threads: int, frames: int = 1) -> Callable[[], object]:
        renderer = FaceRenderer(self.bound, threads)
        rows = np.repeat(self.row, frames, axis=0)
        out = np.empty((frames, *self.face.photo.shape), np.uint8)
        return lambda: renderer.render(rows, out)

    def steps(self) -> dict[str, Callable[[], Any]]:
        return bench.op_calls(self.bound, FaceRenderer(self.bound, 1), self.row)


def step_rows(name: str, frame: _Frame, seconds: float) -> list[Row]:
    """Each op by itself, and the frame in one go, by one thread."""
    contenders: dict[str, Callable[[], object]] = {OURS: frame.whole(1), **frame.steps()}
    title = f"a frame and its ops, 1 thread, {name}, {frame.words}"
    timings = harness.measure(contenders, seconds=seconds)
    cost = {OURS: frame.costs["render"], **frame.costs}
    return [Row(title, who, timing, cost=cost[who]) for who, timing in timings.items()]


def frame_rows(name: str, frame: _Frame, seconds: float, threads: int) -> list[Row]:
    """One frame: one thread and all, warm and cold, and the peers' lines."""
    whole = {OURS: frame.whole(1), f"fastface, {threads} threads": frame.whole(threads)}
    one, turn = Affect.expression("happy"), frame.engine
    peers: dict[str, Callable[[], object]] = {"numpy + OpenCV": bench._assembled_line(turn, frame.face)}
    drawn = _opengl_line(frame)
    if drawn is not None:
        peers["numpy + moderngl + cv2.remap + cv2.seamlessClone"] = drawn
    engine = {"Engine.render, all told": lambda: turn.render(frame.face, one)}
    title = f"one frame, {name}, {frame.words}"
    cost = frame.costs["render"]
    rows = [Row(title, who, t, cost=cost) for who, t in harness.measure(whole, seconds=seconds).items()]
    cold = harness.measure({OURS + ", cold caches": whole[OURS]}, seconds=seconds, cold=True)
    rows += [Row(title, who, timing, cost=cost) for who, timing in cold.items()]
    others = harness.measure({**engine, **peers}, seconds=seconds)
    notes = dict.fromkeys(peers, "no light, folds, eyes, mouth")
    return rows + [Row(title, who, timing, notes.get(who, "")) for who, timing in others.items()]


def batch_rows(name: str, frame: _Frame, seconds: float, threads: int) -> list[Row]:
    """32 frames: milliseconds each."""
    counts = sorted({1, threads})
    works = {f"fastface, {n} thread{'s' * (n > 1)}": frame.whole(n, BATCH) for n in counts}
    rows = []
    for who, t in harness.measure(works, seconds=seconds).items():
        each = Timing(t.median_ms / BATCH, t.low_ms / BATCH, t.high_ms / BATCH, t.samples)
        note = f"{1e3 / each.median_ms:.0f} frames/s, {1e3 / each.low_ms:.0f} at best"
        title = f"a frame of a batch of {BATCH}, {name}, {frame.words}"
        rows.append(Row(title, who, each, note, frame.costs["render"]))
    return rows


def _opengl_line(frame: _Frame) -> Callable[[], object] | None:
    bound, shading = frame.bound, frame.bound.shading
    deltas = FaceRenderer(bound, 1).deltas(frame.row)
    vertices = len(bound.neutral)
    planes = bound.basis.blocks.transpose(1, 0, 3, 2).reshape(deltas.shape[1], -1, 3)[:, :vertices]
    basis = np.ascontiguousarray(planes, np.float32)
    deform = kernel_peers.numpy_deform(bound.neutral, basis, deltas, bound.camera)
    screen = ops.deform(bound.neutral, bound.basis, deltas, bound.camera).screen
    height, width = bound.window.height, bound.window.width
    drawn = kernel_peers.moderngl_rasterize(screen, shading.triangles, height, width, True)
    if drawn is None:
        return None
    window = np.ascontiguousarray(bound.photo[bound.window.slices])
    y, x = np.mgrid[:height, :width].astype(np.float32)
    offset = np.concatenate(
        [np.zeros((1, 2)), (shading.rest_px - screen[0, :, :2])[shading.triangles].mean(1)]
    )
    offset = offset.astype(np.float32)
    mask = np.zeros((height, width), np.uint8)
    marks = frame.face.landmarks_px - [bound.window.left, bound.window.top]
    cv2.fillConvexPoly(mask, cv2.convexHull(marks.astype(np.int32)), 1)
    mask[[0, -1]] = 0
    mask[:, [0, -1]] = 0
    clone = kernel_peers.opencv_clone(window, window.astype(np.float32), mask)

    def run() -> None:
        deform()
        moved = offset[np.maximum(drawn(), -1) + 1]  # what was cleared lies below
        cv2.remap(window, x + moved[..., 0], y + moved[..., 1], cv2.INTER_CUBIC)
        clone()

    return run


def figures(engine: Engine, seconds: float) -> list[Row]:
    rows: list[Row] = []
    for name, face in _faces(engine).items():
        frame = _Frame(engine, face)
        title = f"{engine.model.name}, {name}"
        rows += step_rows(title, frame, seconds)
        rows += frame_rows(title, frame, seconds, engine.threads)
        rows += batch_rows(title, frame, seconds, engine.threads)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=1.0, help="for each contender")
    parser.add_argument("--model", action="append", help="default, ict or a path; more than one may be given")
    parser.add_argument("--json", action="store_true", help="print the path of the written file only")
    arguments = parser.parse_args()
    console = Console(quiet=arguments.json, width=120)
    ceiling: Ceiling = measure_ceiling(min(arguments.seconds, 1.0))
    rows: list[Row] = []
    for model in arguments.model or ["default"]:
        rows += figures(Engine(model), arguments.seconds)
    console.print(
        f"ceilings: {ceiling.bytes_per_s / 1e9:.1f} GB/s copied by one thread, "
        f"{ceiling.flops_per_s / 1e9:.0f} GFLOP/s of matrix products by {os.cpu_count()} cores"
    )
    harness.report(rows, OURS, console, ceiling)
    print(harness.save(rows, "frames", ceiling=ceiling))


if __name__ == "__main__":
    main()
