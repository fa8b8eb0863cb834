"""Timing on a device, and what a figure is held against: bytes and operations over measured ceilings."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.harness import Timing
from fastface.device import Device, DeviceArray, Stream

SAMPLES = 30
FLUSH_BYTES = 256 << 20  # more than any second-level cache holds


@dataclass(frozen=True)
class Row:
    """One contender in one setting. ``least_bytes``: what must be read and written, once each."""

    question: str
    contender: str
    timing: Timing
    frames: int = 1
    least_bytes: float = 0.0
    flops: float = 0.0
    note: str = ""


class Clock:
    """Times work on one stream of a device.

    Short work is captured several times over in one graph, so that launches by the host are not what is
    measured; with ``cold=True`` each sample is a single call after the caches were overwritten.
    """

    def __init__(self, device: Device, samples: int = SAMPLES, flush_bytes: int = FLUSH_BYTES) -> None:
        self.device, self.samples, self.stream = device, samples, device.stream()
        self._flush = [device.empty((flush_bytes,), np.uint8) for _ in range(2)]
        self._flush[0].copy_from(np.zeros(flush_bytes, np.uint8), self.stream)

    def measure(self, work: Callable[[Any], object], *, times: int = 20, cold: bool = False) -> Timing:
        """Milliseconds of one call of ``work(stream)``."""
        work(self.stream)
        self.stream.wait()
        times = 1 if cold else times

        def several() -> None:
            for _ in range(times):
                work(self.stream)

        graph = self.device.capture(self.stream, several)
        run = several if graph is None else lambda: graph.replay(self.stream)
        return self.measure_as_it_is(run, times, cold)

    def measure_as_it_is(self, run: Callable[[], object], times: int = 1, cold: bool = False) -> Timing:
        """Milliseconds of a call of ``run``, which enqueues on this clock's stream, over ``times``."""
        values = []
        for _ in range(self.samples + 3):
            if cold:
                self.flush()
            before = self.device.mark(self.stream)
            run()
            values.append(before.elapsed_ms(self.device.mark(self.stream)) / times)
        low, median, high = np.percentile(values[3:], [10, 50, 90])
        return Timing(float(median), float(low), float(high), self.samples)

    def on(self, stream: Stream) -> Clock:
        """The same for another stream."""
        other = copy(self)
        other.stream = stream
        return other

    def flush(self) -> None:
        self._flush[1].copy_from(self._flush[0], self.stream, wait=False)

    def copy_gb_per_s(self) -> float:
        """What the memory bears: bytes read and written by a large copy."""
        moved = 2 * self._flush[0].nbytes
        return moved / self.measure_as_it_is(self.flush).median_ms / 1e6


def torch_module() -> Any:
    """torch, if it is there and has a GPU."""
    try:
        import torch

        return torch if torch.cuda.is_available() else None
    except Exception:  # missing, or built for another driver
        return None


def gflop_per_s(torch: Any, dtype: Any) -> float:
    """What the arithmetic units bear: a large product of random matrices."""
    a = torch.randn(4096, 4096, device="cuda", dtype=dtype)
    best = float("inf")
    for _ in range(8):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        a @ a
        end.record()
        end.synchronize()
        best = min(best, start.elapsed_time(end))
    return float(2 * 4096**3 / best / 1e6)


def report(rows: list[Row], copy_gb_per_s: float, fp32_gflop_per_s: float, console: Console) -> None:
    """A table per question, with how near each figure is to what the device bears."""
    for question in dict.fromkeys(row.question for row in rows):
        table = Table(title=question, title_justify="left")
        for heading in ("", "ms: median (deciles)", "frames/s", "GB/s", "% of copy", "% of fp32", ""):
            table.add_column(heading, justify="left" if heading == "" else "right")
        for row in (row for row in rows if row.question == question):
            table.add_row(row.contender, *_columns(row, copy_gb_per_s, fp32_gflop_per_s), row.note)
        console.print(table)


def _columns(row: Row, copy_rate: float, fp32: float) -> list[str]:
    ms = max(row.timing.median_ms, 1e-9)
    rate, operations = row.least_bytes / ms / 1e6, row.flops / ms / 1e6
    return [
        str(row.timing),
        f"{row.frames / ms * 1e3:,.0f}",
        f"{rate:,.0f}" if row.least_bytes else "",
        f"{100 * rate / copy_rate:.1f}" if row.least_bytes and copy_rate else "",
        f"{100 * operations / fp32:.1f}" if row.flops and fp32 else "",
    ]


def records(rows: list[Row]) -> list[dict[str, Any]]:
    return [asdict(row) for row in rows]


def nbytes(*arrays: DeviceArray | None) -> float:
    """Of all that is not None, once each."""
    return float(sum(array.nbytes for array in arrays if array is not None))
