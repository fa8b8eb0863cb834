"""What a torch user would write in the place of each op, on the same GPU; nvdiffrast where it is there."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.bench_kernels import Scene
from benchmarks.gpu_timing import torch_module
from benchmarks.harness import Timing


def torch_rows(scene: Scene, weights: NDArray[np.float32], samples: int) -> list[tuple[str, str, Timing]]:
    """(op, name, timing) of every peer that can be had; none without torch's CUDA."""
    torch = torch_module()
    if torch is None:
        return []
    made: list[tuple[str, str, Callable[[], Any] | None]] = [
        ("deform", "torch, float32", _deform(torch, scene, weights, torch.float32))
    ]
    made.append(("deform", "torch, float16 basis", _deform(torch, scene, weights, torch.float16)))
    made.append(("rasterize", "nvdiffrast", _nvdiffrast(torch, scene, weights)))
    made.append(("blend", "torch, sine transform of the rectangle", _sine_solve(torch, scene, len(weights))))
    made.append(("blend", "torch, 500 Jacobi sweeps", _jacobi(torch, scene, len(weights), 500)))
    frame = "a frame without shading, its blend solved"
    solve = _sine_solve(torch, scene, len(weights))
    drawn = _nvdiffrast(torch, scene, weights)
    steps = (
        _deform(torch, scene, weights, torch.float16),
        drawn,
        _texture(torch, scene, len(weights)),
        solve,
    )

    def assembled() -> None:
        for step in steps:
            if step is not None:
                step()

    parts = "torch + nvdiffrast" if drawn is not None else "torch, without any rasterization"
    made.append((frame, f"{parts}: product, sampling, sine transform", assembled))
    return [(op, name, _time(torch, work, samples)) for op, name, work in made if work is not None]


def _time(torch: Any, work: Callable[[], object], samples: int) -> Timing:
    values = []
    for _ in range(samples + 3):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        work()
        end.record()
        end.synchronize()
        values.append(start.elapsed_time(end))
    low, median, high = np.percentile(values[3:], [10, 50, 90])
    return Timing(float(median), float(low), float(high), samples)


def _on(torch: Any, array: NDArray[Any], dtype: Any = None) -> Any:
    tensor = torch.from_numpy(np.ascontiguousarray(array)).cuda()
    return tensor if dtype is None else tensor.to(dtype)


def _deform(torch: Any, scene: Scene, weights: NDArray[np.float32], dtype: Any) -> Callable[[], Any]:
    flat = _on(torch, scene.basis.reshape(len(scene.basis), -1), dtype)
    coefficients, neutral = _on(torch, weights, dtype), _on(torch, scene.neutral)
    f_px, c_x, c_y = (float(v) for v in scene.camera[0])
    centre = torch.tensor([c_x, c_y], device="cuda")

    def run() -> Any:
        positions = (coefficients @ flat).float().view(len(weights), -1, 3) + neutral
        depth = positions[..., 2:]
        return torch.cat([positions[..., :2] * (f_px / depth) + centre, depth], dim=-1)

    return run


def _nvdiffrast(torch: Any, scene: Scene, weights: NDArray[np.float32]) -> Callable[[], Any] | None:
    try:
        dr: Any = import_module("nvdiffrast.torch")
        context = dr.RasterizeCudaContext()
    except Exception:  # not installed, or it cannot compile itself here
        return None
    screen = _deform(torch, scene, weights, torch.float32)()
    size, depth = scene.size, screen[..., 2:]
    place = screen[..., :2] / size * 2 - 1
    nearest, furthest = float(depth.min()), float(depth.max())
    level = (depth - nearest) / (furthest - nearest) * 1.8 - 0.9
    clip = torch.cat([place, level, torch.ones_like(depth)], dim=-1).contiguous()
    triangles = _on(torch, scene.triangles)
    return lambda: dr.rasterize(context, clip, triangles, resolution=[size, size])


def _texture(torch: Any, scene: Scene, frames: int) -> Callable[[], Any]:
    photo = _on(torch, scene.photo, torch.float32).permute(2, 0, 1)[None].expand(frames, -1, -1, -1)
    axis = torch.linspace(-1, 1, scene.size, device="cuda")
    grid = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), -1)[None].expand(frames, -1, -1, -1)
    return lambda: torch.nn.functional.grid_sample(photo, grid, mode="bicubic", align_corners=False)


def _sine_solve(torch: Any, scene: Scene, frames: int) -> Callable[[], Any]:
    """The Poisson problem on the whole rectangle by FFT: without a mask it is another, easier problem."""
    size = scene.size - 2
    jump = _on(torch, scene.photo.astype(np.float32) - scene.source).permute(2, 0, 1)[None]
    jump = jump.expand(frames, -1, -1, -1).contiguous()
    angle = torch.arange(1, size + 1, device="cuda") * (np.pi / (size + 1))
    scale = (2 * torch.cos(angle) - 2)[:, None] + (2 * torch.cos(angle) - 2)[None]

    def sines(x: Any) -> Any:
        odd = torch.nn.functional.pad(x, (1, 1))
        odd = torch.cat([odd, -odd[..., 1:-1].flip(-1)], dim=-1)
        return -torch.fft.rfft(odd, dim=-1).imag[..., 1 : size + 1]

    def run() -> Any:
        right = torch.zeros_like(jump[..., 1:-1, 1:-1])
        right[..., 0, :] -= jump[..., 0, 1:-1]
        right[..., -1, :] -= jump[..., -1, 1:-1]
        right[..., 0] -= jump[..., 1:-1, 0]
        right[..., -1] -= jump[..., 1:-1, -1]
        spectrum = sines(sines(right).transpose(-1, -2)) / scale
        return sines(sines(spectrum).transpose(-1, -2)) / (size + 1) ** 2

    return run


def _jacobi(torch: Any, scene: Scene, frames: int, sweeps: int) -> Callable[[], Any]:
    inside = _on(torch, scene.mask)[None, None].bool().expand(frames, 3, -1, -1)
    jump = _on(torch, scene.photo.astype(np.float32) - scene.source).permute(2, 0, 1)[None]
    around = torch.where(inside, torch.zeros_like(jump), jump)

    def run() -> Any:
        h = around.clone()
        for _ in range(sweeps):
            edged = torch.nn.functional.pad(h, (1, 1, 1, 1), mode="replicate")
            mean = (
                edged[..., :-2, 1:-1] + edged[..., 2:, 1:-1] + edged[..., 1:-1, :-2] + edged[..., 1:-1, 2:]
            ) / 4
            h = torch.where(inside, mean, around)
        return h

    return run
