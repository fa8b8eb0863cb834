"""Timing for every benchmark: contenders take turns in one run, so that they share the machine's moods.

Two calls warm a contender up. A cold one finds the caches full of something else at every call. Where a row
says what its step must at least move and compute, tables show how far it is from the machine's ceilings,
measured in the same run. Figures say what was seen; nothing passes or fails by them.
"""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from fastface import _core
from fastface.atomic import write_whole
from fastface.roofline import Ceiling, Cost

RESULTS = Path(__file__).resolve().parent / "results"
SHORTEST_SAMPLE_S = 1e-3  # calls shorter than this are timed several at once


@dataclass(frozen=True)
class Timing:
    """Milliseconds a call took: the median of all samples, and the first and last decile."""

    median_ms: float
    low_ms: float
    high_ms: float
    samples: int

    def __str__(self) -> str:
        return f"{self.median_ms:.3f} ({self.low_ms:.3f} … {self.high_ms:.3f})"


def _sample(function: Callable[[], object], calls: int) -> float:
    start = time.perf_counter()
    for _ in range(calls):
        function()
    return (time.perf_counter() - start) / calls * 1e3


_OTHER_MEMORY = np.zeros(1 << 24, np.float32)  # more than any cache holds


def flush_caches() -> None:
    """Leave nothing in the caches that the next call could use."""
    np.add(_OTHER_MEMORY, 1, out=_OTHER_MEMORY)


def measure(
    contenders: Mapping[str, Callable[[], object]], *, seconds: float = 1.0, cold: bool = False
) -> dict[str, Timing]:
    """Time each contender for about ``seconds``, in turns, after two calls that do not count; ``cold`` with
    caches flushed before every call."""
    if cold:
        return {name: _timing(_cold_samples(function, seconds)) for name, function in contenders.items()}
    calls, samples = {}, {}
    for name, function in contenders.items():
        function()
        once_s = _sample(function, 1) / 1e3
        calls[name] = max(1, int(SHORTEST_SAMPLE_S / max(once_s, 1e-7)))
        samples[name] = [once_s * 1e3] if once_s > seconds / 3 else []
    spent = dict.fromkeys(contenders, 0.0)
    while waiting := [name for name in contenders if spent[name] < seconds]:
        for name in waiting:
            took_ms = _sample(contenders[name], calls[name])
            samples[name].append(took_ms)
            spent[name] += took_ms * calls[name] / 1e3
    return {name: _timing(values) for name, values in samples.items()}


def _cold_samples(function: Callable[[], object], seconds: float) -> list[float]:
    function()
    samples: list[float] = []
    end = time.perf_counter() + seconds
    while len(samples) < 5 or time.perf_counter() < end:
        flush_caches()
        samples.append(_sample(function, 1))
    return samples


def _timing(values: list[float]) -> Timing:
    low, median, high = np.percentile(values, [10, 50, 90])
    return Timing(float(median), float(low), float(high), len(values))


def machine() -> dict[str, Any]:
    """What a reader must know about where the figures come from."""
    packages = {}
    for name in ("numpy", "scipy", "opencv-python-headless", "pyamg", "moderngl", "onnxruntime"):
        try:
            packages[name] = version(name)
        except PackageNotFoundError:
            continue
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "load_1min": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "system": platform.platform(),
        "python": platform.python_version(),
        "instruction_set": _core.isa(),
        "packages": packages,
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "")


@dataclass(frozen=True)
class Row:
    """One contender in one setting. ``note``: what else was found, such as the error; ``cost``: the least
    that the question asks for, a call."""

    question: str
    contender: str
    timing: Timing
    note: str = ""
    cost: Cost | None = None


def report(rows: list[Row], ours: str, console: Console, ceiling: Ceiling | None = None) -> None:
    """A table per question; "×" is how many times as long as ``ours`` a contender took."""
    for question in dict.fromkeys(row.question for row in rows):
        table = Table(title=question, title_justify="left")
        asked = [row for row in rows if row.question == question]
        roofline = ceiling is not None and any(row.cost is not None for row in asked)
        costs = ("MB", "MFLOP", "% of ceiling") if roofline else ()
        for heading in ("", "ms: median (deciles)", f"× {ours}", *costs, ""):
            table.add_column(heading, justify="left" if heading == "" else "right")
        base = next((row.timing.median_ms for row in asked if row.contender == ours), None)
        for row in asked:
            ratio = "" if base is None else f"{row.timing.median_ms / base:.2f}"
            cells = _roofline(row, ceiling) if roofline and ceiling is not None else ()
            table.add_row(row.contender, str(row.timing), ratio, *cells, row.note)
        console.print(table)


def _roofline(row: Row, ceiling: Ceiling) -> tuple[str, str, str]:
    if row.cost is None:
        return "", "", ""
    share = ceiling.share(row.cost, row.timing.median_ms * 1e-3)
    return f"{row.cost.bytes / 1e6:.2f}", f"{row.cost.flops / 1e6:.1f}", f"{100 * share:.0f}"


def save(rows: list[Row], name: str, folder: Path = RESULTS, ceiling: Ceiling | None = None) -> Path:
    """Write ``folder/YYYY-MM-DD-name.json`` and return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{datetime.now(UTC):%Y-%m-%d}-{name}.json"
    figures = [
        {**vars(row), "timing": vars(row.timing), "cost": None if row.cost is None else vars(row.cost)}
        for row in rows
    ]
    told: dict[str, Any] = {"machine": machine(), "rows": figures}
    if ceiling is not None:
        told["ceiling"] = vars(ceiling)
    write_whole(path, (json.dumps(told, indent=1) + "\n").encode())
    return path
