"""How long the ops and whole frames take on a GPU, against what the GPU bears and against torch.

    python -m benchmarks.gpu_figures [--out figures.json]

``fastface bench --gpu`` runs it as its last step.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from traceback import format_exc
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from benchmarks import gpu_peers
from benchmarks.bench_kernels import Scene, make_scene
from benchmarks.gpu_timing import Clock, Row, gflop_per_s, nbytes, records, report, torch_module
from benchmarks.harness import Timing, machine
from fastface import Affect, Engine, FittedFace, ops
from fastface.atomic import write_whole
from fastface.contact_sheet import face_box
from fastface.device import Device, DeviceWorkspace, moved, open_device
from fastface.device_rendering import DeviceRenderer
from fastface.images import read_image

BATCH = 64
OURS = "fastface"
DEMO = Path(__file__).resolve().parents[1] / "fastface" / "assets" / "demo.jpg"


def scene_rows(clock: Clock, scene: Scene, frames: int) -> list[Row]:
    """deform, rasterize and blend of one synthetic scene; cold where many frames share the caches anyway."""
    device = clock.device
    rng = np.random.default_rng(0)
    weights = rng.normal(0, 0.3, (frames, len(scene.basis))).astype(np.float32)
    workspace = DeviceWorkspace(device)
    neutral, camera, triangles, photo, coefficients = (
        _frozen(device, array)
        for array in (scene.neutral, scene.camera, scene.triangles, scene.photo[None], weights)
    )
    still = scene.photo.astype(np.float32)
    source, mask, nothing = (
        _frozen(device, np.repeat(array[None], frames, axis=0)) for array in (scene.source, scene.mask, still)
    )
    where = f"{scene.name}, {frames} at once"
    measure = Measure(clock, where, frames)
    vertices, modes = len(scene.neutral), len(scene.basis)
    flops = 2.0 * 3 * vertices * modes * frames
    shared: dict[str, Any] = {"workspace": workspace}
    model: Any = None
    arrays: Any
    more: dict[str, Any]
    drawn: Any
    for name, dtype in (("float32 basis", np.float32), ("float16 basis", np.float16)):
        basis = moved(ops.pack_basis(scene.basis, dtype=dtype), device)
        model = (neutral, basis, coefficients, camera)
        mesh = ops.deform(*model, **shared)
        arrays = (neutral, basis.blocks, coefficients, mesh.positions, mesh.screen)
        more = {"out": mesh, "least": arrays, "flops": flops, **shared}
        measure.add("deform", f"{OURS}, {name}", ops.deform, *model, **more)
    drawn = (mesh.screen, triangles, scene.size, scene.size)
    raster = ops.rasterize(*drawn, cull_backfaces=True, **shared)
    arrays = (mesh.screen, triangles, raster.triangle_id, raster.bary)
    more = {"out": raster, "cull_backfaces": True, "least": arrays, **shared}
    measure.add("rasterize", OURS, ops.rasterize, *drawn, **more)
    for name, pasted in ((OURS, source), (f"{OURS}, nothing to correct", nothing)):
        made = ops.blend(photo, pasted, mask, **shared)
        arrays = (photo, pasted, mask, made.image)
        measure.add("blend", name, ops.blend, photo, pasted, mask, out=made, least=arrays, **shared)

    def frame(stream: Any) -> None:
        ops.deform(*model, out=mesh, stream=stream, **shared)
        ops.rasterize(*drawn, out=raster, cull_backfaces=True, stream=stream, **shared)
        ops.blend(photo, source, mask, out=made, stream=stream, **shared)

    measure.work("a frame without shading, its blend solved", OURS, frame)
    return measure.rows


def peer_rows(clock: Clock, scene: Scene, frames: int) -> list[Row]:
    """The same by torch, where it has a GPU."""
    rng = np.random.default_rng(0)
    weights = rng.normal(0, 0.3, (frames, len(scene.basis))).astype(np.float32)
    where = f"{scene.name}, {frames} at once"
    return [
        Row(f"{op}, {where}", name, timing, frames)
        for op, name, timing in gpu_peers.torch_rows(scene, weights, clock.samples)
    ]


def _frozen(device: Device, array: NDArray[Any]) -> Any:
    return device.put(array, frozen=True)


class Measure:
    """Collects rows of one setting."""

    def __init__(self, clock: Clock, where: str, frames: int) -> None:
        self._clock, self._where, self._frames = clock, where, frames
        self.rows: list[Row] = []

    def work(self, question: str, name: str, work: Callable[[Any], object], **more: float) -> None:
        cold = self._frames > 1
        timing = self._clock.measure(work, cold=cold)
        note = "caches overwritten before" if cold else "caches warm"
        self.rows.append(Row(f"{question}, {self._where}", name, timing, self._frames, note=note, **more))

    def add(
        self,
        question: str,
        name: str,
        op: Callable[..., object],
        *arguments: Any,
        least: Any,
        flops: float = 0.0,
        **more: Any,
    ) -> None:
        self.work(
            question,
            name,
            lambda stream: op(*arguments, stream=stream, **more),
            least_bytes=nbytes(*least),
            flops=flops,
        )


def fitted(engine: Engine, side: int) -> FittedFace:
    """The demonstration photo's head at ``side``²."""
    rgb = read_image(DEMO)
    left, top, right, bottom = face_box(engine.fit(rgb).landmarks_px, *rgb.shape[:2])
    return engine.fit(cv2.resize(rgb[top:bottom, left:right], (side, side), interpolation=cv2.INTER_CUBIC))


def face_rows(clock: Clock, side: int, batch: int = BATCH) -> list[Row]:
    """Whole frames of a real face: the latency of one, the rate of many, and what reaches the host."""
    engine = Engine(device=clock.device, threads=1)
    face = fitted(engine, side)
    affects = [Affect.expression("happy", 0.2 + 0.8 * i / batch) for i in range(batch)]
    rows = np.stack([engine._affects.coefficients(a, engine.model.expression_names) for a in affects])
    renderer = engine._ready(face).renderer
    assert isinstance(renderer, DeviceRenderer)
    question = f"a real face's whole frame, {side}²"
    made = []
    for frames in (1, batch):
        graph = renderer.frames(frames)
        graph.coefficients.copy_from(rows[:frames], graph.stream)
        timing = clock.on(graph.stream).measure_as_it_is(graph.replay)
        made.append(Row(question, f"{OURS}, graph of {frames}", timing, frames, note="on the device"))
    wall = _wall(lambda: np.asarray(engine.render(face, affects[0])), clock.samples)
    made.append(Row(question, f"{OURS}, Engine.render to the host", wall, 1, note="wall clock"))
    many = np.tile(rows, (4, 1))
    host = clock.device.pinned((len(many), *face.photo.shape), np.uint8)
    wall = _wall(lambda: renderer.render(many, host), max(clock.samples // 5, 2))
    made.append(Row(question, f"{OURS}, {len(many)} frames to the host", wall, len(many), note="wall clock"))
    return made


def _wall(work: Callable[[], object], samples: int) -> Timing:
    values = []
    for _ in range(samples + 2):
        start = time.perf_counter()
        work()
        values.append((time.perf_counter() - start) * 1e3)
    low, median, high = np.percentile(values[2:], [10, 50, 90])
    return Timing(float(median), float(low), float(high), samples)


def measure_all(
    device: Device,
    console: Console,
    *,
    samples: int,
    small: bool = False,
    save: Callable[[dict[str, Any]], object] = lambda figures: None,
) -> dict[str, Any]:
    """Every figure; ``small`` tries the paths and means nothing. ``save`` is given what there is after each
    setting. A setting that fails is told of under "failed" and the others are measured all the same.
    """
    clock = Clock(device, samples, 1 << 16) if small else Clock(device, samples)
    torch = None if small else torch_module()
    copy = clock.copy_gb_per_s()
    fp32 = gflop_per_s(torch, torch.float32) if torch else 0.0
    bf16 = gflop_per_s(torch, torch.bfloat16) if torch else 0.0
    console.print(f"{device.name}: copies {copy:,.0f} GB/s, fp32 {fp32:,.0f} and bf16 {bf16:,.0f} GFLOP/s")
    ceilings = {"copy_gb_per_s": copy, "fp32_gflop_per_s": fp32, "bf16_gflop_per_s": bf16}
    rows: list[Row] = []
    failed: dict[str, str] = {}

    def figures() -> dict[str, Any]:
        made = {"device": device.name, "machine": machine(), "ceilings": ceilings, "rows": records(rows)}
        return {**made, "failed": failed} if failed else made

    for name, measure in _settings(clock, small):
        try:
            made = measure()
        except Exception:
            failed[name] = format_exc()
            console.print(f"{name}: FAILED\n{failed[name]}")
        else:
            rows += made
        save(figures())
    report(rows, copy, fp32, console)
    return figures()


def _settings(clock: Clock, small: bool) -> Iterator[tuple[str, Callable[[], list[Row]]]]:
    """What is measured, the most telling first."""
    batch = 2 if small else BATCH
    for side in (96,) if small else (256, 512):
        yield f"a face, {side}²", partial(face_rows, clock, side, batch)
    for side, modes, size in ((12, 5, 32),) if small else ((100, 100, 256), (70, 52, 256), (100, 100, 512)):
        scene = make_scene(side, modes, size)
        for frames in (1, batch):
            yield f"{scene.name}, {frames}", partial(scene_rows, clock, scene, frames)
            yield f"{scene.name}, {frames}, peers", partial(peer_rows, clock, scene, frames)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    parser.add_argument("--samples", type=int, default=30)
    parser.add_argument("--small", action="store_true", help="on the emulated device, to try the paths")
    arguments = parser.parse_args()
    device = open_device("emulated" if arguments.small else "cuda")
    console = Console(width=130)

    def save(figures: dict[str, Any]) -> None:
        if arguments.out is not None:
            write_whole(arguments.out, (json.dumps(figures, indent=1) + "\n").encode())

    figures = measure_all(device, console, samples=arguments.samples, small=arguments.small, save=save)
    if "failed" in figures:
        sys.exit(1)


if __name__ == "__main__":
    main()
