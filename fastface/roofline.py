"""What a frame's steps must at least move and compute, and how fast this machine moves and computes.

The least time of a step is that of its bytes or that of its floating-point operations, whichever is longer;
the share of it tells how far a step is from what the hardware allows (Williams, Waterman, Patterson,
*Roofline*, 2009). Bytes are those of arrays, read or written once; operations those of formulas, not of
schedules. Memory is what copies go through: a step whose arrays stay in the caches may be beyond 100 %.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fastface.binding import Binding

Float32 = NDArray[np.float32]


@dataclass(frozen=True)
class Cost:
    """The least a step does."""

    bytes: float
    flops: float


@dataclass(frozen=True)
class Ceiling:
    """Of this machine: copying within memory by one thread, products of matrices by all."""

    bytes_per_s: float
    flops_per_s: float

    def least_s(self, cost: Cost) -> float:
        """Seconds that ``cost`` takes at the ceilings."""
        return max(cost.bytes / self.bytes_per_s, cost.flops / self.flops_per_s)

    def share(self, cost: Cost, seconds: float) -> float:
        """Of the ceiling that is reached when ``cost`` takes so long."""
        return self.least_s(cost) / seconds


def measure_ceiling(seconds: float = 0.3) -> Ceiling:
    """Take the machine's ceilings: the best of what fits ``seconds`` for each."""
    source, target = np.ones(1 << 24, np.float32), np.empty(1 << 24, np.float32)
    copy_s = _best(lambda: np.copyto(target, source), seconds)
    side = 1024
    a = np.random.default_rng(0).random((side, side), dtype=np.float32)
    out = np.empty_like(a)
    product_s = _best(lambda: np.matmul(a, a, out=out), seconds)
    return Ceiling(2 * source.nbytes / copy_s, 2 * side**3 / product_s)


def _best(work: Callable[[], object], seconds: float) -> float:
    work()
    best, end = np.inf, time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - start)
    return float(best)


def frame_costs(bound: Binding, deltas: Float32, changed: int) -> dict[str, Cost]:
    """Of one frame with ``deltas (E,)``, of whose pixels ``changed`` change: by step, and of the whole, in
    which nothing between the steps needs to be stored."""
    pixels = bound.window.height * bound.window.width
    vertices, triangles = len(bound.neutral), len(bound.shading.triangles)
    used = int(bound.basis.moves[:, deltas != 0].sum()) * bound.basis.blocks[0, 0].nbytes
    moved = used / bound.basis.blocks.itemsize
    lit, faces = len(bound.shading.lit), bound.shading.lit_faces
    cubic = 2 * 4 * (4 + 1) * 3  # of a pixel's 4 x 4 neighbours, three channels
    deform = Cost(used + vertices * (12 + 24), 2 * moved + 8 * vertices)
    rasterize = Cost(vertices * 12 + triangles * 12 + pixels * 12, 30 * triangles + 10 * pixels)
    shading = faces * 30 + lit * 90 + changed * (cubic + 60)
    shade = Cost(vertices * 40 + pixels * (12 + 3 + 12 + 1) + changed * 4, shading)
    blend = Cost(pixels * (1 + 3 + 3) + changed * (12 + 3), 3 * changed)
    whole = Cost(
        used + vertices * (12 + 8) + triangles * 12 + pixels * (3 + 3) + changed * 4,
        deform.flops + rasterize.flops + shade.flops + blend.flops,
    )
    return {"deform": deform, "rasterize": rasterize, "shade": shade, "blend": blend, "render": whole}
