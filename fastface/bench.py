"""A few figures of this machine, measured in one run; the full set stands in ``benchmarks/``.

Times are medians. The peer is the line a user would assemble from the same base packages: numpy for the blend
shapes, ``cv2.fillConvexPoly`` from back to front for the triangles, ``cv2.remap`` for the texture,
``cv2.seamlessClone`` for the seam; it draws no light, folds, eyes or mouth.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from fastface import ops
from fastface.affect import Affect
from fastface.binding import CULL_BACKFACES, Binding
from fastface.contact_sheet import face_box
from fastface.engine import Engine, FittedFace
from fastface.images import read_image
from fastface.rendering import FaceRenderer
from fastface.roofline import Ceiling, Cost, frame_costs, measure_ceiling

Image = NDArray[np.uint8]

_SIDES_PX = (256, 512)
_BATCH = 32


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured figure."""

    name: str
    value: float
    unit: str
    note: str = ""

    def record(self) -> dict[str, Any]:
        """For --json."""
        return asdict(self)


def measure(engine: Engine, photo: Path, seconds: float) -> list[Figure]:
    """All figures, each measured for about ``seconds``. ``photo`` must show a face."""
    rgb = read_image(photo)
    whole = engine.fit(rgb)
    head, portrait = framings(rgb, whole.landmarks_px).values()
    size = f"{rgb.shape[1]}x{rgb.shape[0]}"
    ceiling = measure_ceiling(min(seconds, 0.5))
    figures = [
        Figure("memory, copied by one thread", ceiling.bytes_per_s / 1e9, "GB/s"),
        Figure("matrices, multiplied by all cores", ceiling.flops_per_s / 1e9, "GFLOP/s"),
        Figure("photo to fitted face", _median_ms(lambda: engine.fit(rgb), seconds), "ms", size),
    ]
    for side in _SIDES_PX:
        face = engine.fit(_resized(head, side))
        start = time.perf_counter()
        engine.render(face)
        first = Figure(f"first frame of a face, {side}x{side}", (time.perf_counter() - start) * 1e3, "ms")
        figures += [first, *_frames(engine, face, side, seconds)]
        if engine.device == "cpu":
            figures += _steps(engine, face, side, seconds, ceiling)
        face = engine.fit(_resized(portrait, side))
        figures += [
            replace(one, name=f"portrait: {one.name}") for one in _frames(engine, face, side, seconds)
        ]
    if engine.model.name == "default":
        figures += _finer_head(engine, head, seconds)
    return figures


def _finer_head(engine: Engine, head: Image, seconds: float) -> list[Figure]:
    """The same frames with ICT-FaceKit's head, where that is installed."""
    from fastface.download import ict_path

    if not ict_path().is_file():
        return []
    finer = Engine("ict", device=engine.device, threads=engine.threads)
    side = _SIDES_PX[0]
    figures = _frames(finer, finer.fit(_resized(head, side)), side, seconds, peer=False)
    return [Figure(f"ICT head: {one.name}", one.value, one.unit, one.note) for one in figures]


def framings(rgb: Image, landmarks_px: NDArray[np.float32]) -> dict[str, Image]:
    """Squares around the face, moved into the photo: one that the head fills, three quarters of whose pixels
    are drawn, and a portrait, of which a third is (21,000 of 256 x 256)."""
    left, top, right, bottom = face_box(landmarks_px, *rgb.shape[:2])
    height, width = rgb.shape[:2]
    cut = {}
    for name, sides in (("head", 1.0), ("portrait", 1.53)):
        side = min(round((right - left) * sides), height, width)
        x = min(max((left + right - side) // 2, 0), width - side)
        y = min(max((top + bottom - side) // 2, 0), height - side)
        cut[name] = rgb[y : y + side, x : x + side]
    return cut


def _resized(head: Image, side: int) -> Image:
    return np.asarray(cv2.resize(head, (side, side), interpolation=cv2.INTER_CUBIC), np.uint8)


def _smiles() -> list[Affect]:
    return [Affect.expression("happy", 0.2 + 0.8 * i / _BATCH) for i in range(_BATCH)]


def _frames(
    engine: Engine, face: FittedFace, side: int, seconds: float, *, peer: bool = True
) -> list[Figure]:
    affects, turn = _smiles(), iter(range(1 << 62))

    def one() -> object:
        return np.asarray(engine.render(face, affects[next(turn) % _BATCH]))

    frame = _median_ms(one, seconds)
    figures = [Figure(f"one frame, {side}x{side}", frame, "ms", f"{engine.threads} threads")]
    rates = {}
    for threads in sorted({1, engine.threads}) if engine.device == "cpu" else [engine.threads]:
        batch_engine = engine if threads == engine.threads else _with_threads(engine, threads)
        out = np.empty((_BATCH, *face.photo.shape), np.uint8)

        def batch(one: Engine = batch_engine, out: Image = out) -> object:
            return np.asarray(one.render_batch(face, affects, out=out if one.device == "cpu" else None))

        rates[threads] = 1e3 * _BATCH / _median_ms(batch, seconds)
        note = f"{threads} thread{'s' if threads > 1 else ''}"
        if threads > 1 in rates:
            note += f", {rates[threads] / rates[1]:.2f}x one"
        figures.append(Figure(f"batch of {_BATCH}, {side}x{side}", rates[threads], "frames/s", note))
    if peer and engine.device == "cpu":
        line = _median_ms(_assembled_line(engine, face), seconds)
        note = f"{line / frame:.1f}x one frame; no light, folds, eyes, mouth"
        figures.append(Figure(f"numpy + OpenCV line, {side}x{side}", line, "ms", note))
    return figures


def _with_threads(engine: Engine, threads: int) -> Engine:
    return Engine(engine.model, device=engine.device, threads=threads)


def _steps(engine: Engine, face: FittedFace, side: int, seconds: float, ceiling: Ceiling) -> list[Figure]:
    """The ops of a full smile one by one, and the frame in one go, all by one thread."""
    bound = engine._ready(face).bound
    renderer = FaceRenderer(bound, 1)
    row = Affect.expression("happy").coefficients(engine.model.expression_names)[None]
    changed = int(renderer.mask(row).sum())
    costs = frame_costs(bound, renderer.deltas(row)[0], changed)
    out = np.empty((1, *face.photo.shape), np.uint8)
    works = {**op_calls(bound, renderer, row), "render": lambda: renderer.render(row, out)}
    figures = []
    for name, work in works.items():
        took = _median_ms(work, seconds / 2)
        label = "a frame in one go" if name == "render" else f"  {name}"
        figures.append(
            Figure(f"{label}, {side}x{side}", took, "ms", "1 thread; " + _reached(ceiling, costs[name], took))
        )
    return figures


def _reached(ceiling: Ceiling, cost: Cost, took_ms: float) -> str:
    share = ceiling.share(cost, took_ms * 1e-3)
    return f"{cost.bytes / 1e6:.2f} MB, {cost.flops / 1e6:.1f} MFLOP, {share:.0%} of the ceiling"


def op_calls(
    bound: Binding, renderer: FaceRenderer, row: NDArray[np.float32]
) -> dict[str, Callable[[], Any]]:
    """Each op of a frame with ``row (1, E)`` of coefficients, on what those before it made, as a call."""
    shared: dict[str, Any] = {"workspace": ops.Workspace()}
    deltas = renderer.deltas(row)
    mesh = ops.deform(bound.neutral, bound.basis, deltas, bound.camera)
    triangles, size = bound.shading.triangles, (bound.window.height, bound.window.width)

    def rasterize(out: ops.Raster | None = None) -> ops.Raster:
        return ops.rasterize(mesh.screen, triangles, *size, cull_backfaces=CULL_BACKFACES, out=out, **shared)

    found = rasterize()
    controls = renderer.controls(deltas)
    shifts = len(bound.shading.shift_px)
    controls[:, shifts : shifts + 3] = renderer.shares(mesh.screen)
    inputs = (*mesh, found.triangle_id, found.bary, controls, bound.shading)
    shaded = ops.shade(*inputs)
    window = np.ascontiguousarray(bound.photo[bound.window.slices])
    made = ops.blend(window, *shaded)
    return {
        "deform": lambda: ops.deform(bound.neutral, bound.basis, deltas, bound.camera, out=mesh, **shared),
        "rasterize": lambda: rasterize(found),
        "shade": lambda: ops.shade(*inputs, out=shaded, **shared),
        "blend": lambda: ops.blend(window, *shaded, out=made, **shared),
    }


def _assembled_line(engine: Engine, face: FittedFace) -> Callable[[], object]:
    """A frame of the same mesh by numpy and OpenCV."""
    bound = engine._ready(face).bound
    row = Affect.expression("happy").coefficients(engine.model.expression_names)
    vertices = len(bound.neutral)
    planes = bound.basis.blocks.transpose(1, 0, 3, 2).reshape(len(row), -1, 3)[:, :vertices]
    basis = np.ascontiguousarray(planes, np.float32).reshape(len(row), -1)
    f_px, *centre_px = bound.camera[0]
    triangles, rest = bound.shading.triangles, bound.shading.rest_px
    height, width = bound.window.height, bound.window.width
    window = np.ascontiguousarray(bound.photo[bound.window.slices])
    y, x = np.mgrid[:height, :width].astype(np.float32)
    mask = np.zeros((height, width), np.uint8)
    hull = cv2.convexHull((face.landmarks_px - [bound.window.left, bound.window.top]).astype(np.int32))
    cv2.fillConvexPoly(mask, hull, 255)
    mask[[0, -1]] = 0
    mask[:, [0, -1]] = 0
    left, top, across, down = cv2.boundingRect(mask)
    middle = (left + across // 2, top + down // 2)

    def frame() -> NDArray[Any]:
        place = bound.neutral + (row @ basis).reshape(-1, 3)
        screen = place[:, :2] * (f_px / place[:, 2:]) + np.asarray(centre_px, np.float32)
        corners = screen[triangles]
        one, two = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
        front = np.flatnonzero(one[:, 0] * two[:, 1] - one[:, 1] * two[:, 0] < 0)
        front = front[np.argsort(-place[triangles[front], 2].sum(1))]
        painted = np.zeros((height, width), np.float32)
        for number, corner in zip(front.tolist(), np.rint(corners[front]).astype(np.int32), strict=True):
            cv2.fillConvexPoly(painted, corner, number + 1)
        offset = np.concatenate([np.zeros((1, 2)), (rest - screen)[triangles].mean(1)]).astype(np.float32)
        moved = offset[painted.astype(np.int32)]
        warped = cv2.remap(window, x + moved[..., 0], y + moved[..., 1], cv2.INTER_CUBIC)
        # It overwrites a one-channel mask, so it gets its own each time.
        return cv2.seamlessClone(warped, window, mask.copy(), middle, cv2.NORMAL_CLONE)

    return frame


def _median_ms(work: Callable[[], object], seconds: float) -> float:
    work()
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < 3 or time.perf_counter() < end:
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times) * 1e3
