"""What a generator's image costs on this machine, by provider and precision, against the floor.

    python -m benchmarks.bench_generators                        # full-size networks of random weights
    python -m benchmarks.bench_generators --net net.onnx         # a generator of your own
    python -m benchmarks.bench_generators --busy                 # on a machine that others are using

Columns: milliseconds an image, the share of the machine's measured rate of matrix products in that precision
that the operations of the published network come to, the worst and the mean error against onnxruntime in fp32
in grey levels. torch eager runs the plain definition beside them in the same run. Needs the extra [export],
openvino where it is to be measured.

``--busy`` counts processor time of one thread instead of the clock's: what else runs then matters little.
"""

from __future__ import annotations

import argparse
import gc
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console

from benchmarks import random_networks
from benchmarks.harness import RESULTS, Row, Timing, measure, report, save
from fastface.runtime import Precision, Session, describe
from fastface.runtime.providers import available_cores, provider_table

ORDER = 2048
#: (kind, resolution, the part that draws, in how large batches). StyleGAN2 is the authors' config-f.
NETWORKS = (
    ("stylegan2", 256, "synthesis", (1, 4)),
    ("starganv2", 256, "generator", (1, 4)),
    ("stargan", 128, "generator", (1,)),
    ("ganimation", 128, "generator", (1,)),
)
LARGE = (("stylegan2", 1024, "synthesis", (1,)),)
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Contender:
    """A way to run the network: ``run`` takes the inputs of one batch."""

    name: str
    precision: str
    run: Callable[[Mapping[str, NDArray[Any]]], NDArray[Any]]


@dataclass(frozen=True)
class Clock:
    """How time is taken: on so many threads, by the clock on the wall or by the processor's account."""

    threads: int
    busy: bool

    def now(self) -> float:
        return time.process_time() if self.busy else time.perf_counter()

    def measure(self, ways: Mapping[str, Callable[[], object]], seconds: float) -> dict[str, Timing]:
        """All ways in turns."""
        if not self.busy:
            return measure(ways, seconds=seconds)
        samples: dict[str, list[float]] = {name: [] for name in ways}
        for way in ways.values():
            way()
        while min(sum(taken) for taken in samples.values()) < seconds * 1e3:
            for name, way in ways.items():
                start = self.now()
                way()
                samples[name].append((self.now() - start) * 1e3)
        return {name: _spread(taken) for name, taken in samples.items()}


def _spread(taken: list[float]) -> Timing:
    low, median, high = (float(value) for value in np.percentile(taken, [10, 50, 90]))
    return Timing(median, low, high, len(taken))


def gemm_gflops(precision: str, clock: Clock, seconds: float = 1.0) -> float:
    """The best rate of a square matrix product, in GFLOP/s, of torch's library."""
    dtype = PRECISIONS[precision]
    a, b = (torch.randn(ORDER, ORDER).to(dtype) for _ in range(2))
    best, end = float("inf"), clock.now() + seconds
    while clock.now() < end:
        start = clock.now()
        torch.mm(a, b)
        best = min(best, clock.now() - start)
    return 2 * ORDER**3 / best / 1e9


def gflop(module: torch.nn.Module, inputs: Mapping[str, NDArray[Any]]) -> float:
    """Operations of the convolutions and matrix products for one batch, in GFLOP, as torch counts them."""
    from torch.utils.flop_counter import FlopCounterMode

    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        module(*(torch.from_numpy(np.array(value)) for value in inputs.values()))
    return counter.get_total_flops() / 1e9


def contenders(file: Path, output: str, module: torch.nn.Module | None, threads: int) -> list[Contender]:
    """Every provider that is there, in each precision that it has, and torch."""
    found = []
    for name, provider in provider_table().items():
        precisions: tuple[Precision | None, ...] = ("fp32",) if name == "cpu" else ("fp32", None)
        for precision in precisions:
            if provider.missing:
                continue
            session = Session(file, [name], precision, threads)
            if precision is None and session.precision == "fp32":
                continue
            label = f"{name} {session.precision}"
            found.append(Contender(label, session.precision, _session_run(session, output)))
    if module is not None:
        found.append(Contender("torch eager fp32", "fp32", _torch_run(module)))
    return found


def _session_run(session: Session, output: str) -> Callable[[Mapping[str, NDArray[Any]]], NDArray[Any]]:
    return lambda inputs: session.run(inputs, [output])[output]


def _torch_run(module: torch.nn.Module) -> Callable[[Mapping[str, NDArray[Any]]], NDArray[Any]]:
    def run(inputs: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
        with torch.inference_mode():
            made = module(*(torch.from_numpy(np.array(value)) for value in inputs.values()))
        made = made[0] if isinstance(made, tuple) else made
        return np.asarray(made.numpy())

    return run


def random_inputs(file: Path, batch: int) -> dict[str, NDArray[Any]]:
    """Normal noise for every input, in the order of the file; scalars are 1."""
    random = np.random.default_rng(0)
    return {
        name: np.ones((), spec.dtype)
        if not spec.shape
        else random.standard_normal([batch, *(int(d) for d in spec.shape[1:])]).astype(spec.dtype)
        for name, spec in describe(file).inputs.items()
    }


def timed(
    title: str,
    file: Path,
    module: torch.nn.Module | None,
    batch: int,
    ceilings: Mapping[str, float],
    seconds: float,
    clock: Clock,
) -> list[Row]:
    """All contenders on one network and batch, in turns."""
    output = next(iter(describe(file).outputs))
    ways = contenders(file, output, module, clock.threads)
    inputs = random_inputs(file, batch)
    work = gflop(module, random_inputs(file, 1)) if module is not None else 0.0
    exact = next(way for way in ways if way.name == "cpu fp32").run(inputs)
    times = clock.measure({way.name: _call(way, inputs) for way in ways}, seconds)
    rows = []
    for way in ways:
        timing = _an_image(times[way.name], batch)
        error = np.abs(_grey(way.run(inputs)) - _grey(exact))
        share = work / timing.low_ms * 1e5 / ceilings.get(way.precision, np.inf)
        of_floor = f"{share:.0f} % of gemm, " if share > 0 else ""
        note = f"{of_floor}error max {error.max():.1f}, mean {error.mean():.2f}"
        rows.append(Row(title, way.name, timing, note))
    gc.collect()
    return rows


def _call(way: Contender, inputs: Mapping[str, NDArray[Any]]) -> Callable[[], object]:
    return lambda: way.run(inputs)


def _an_image(timing: Timing, batch: int) -> Timing:
    return Timing(timing.median_ms / batch, timing.low_ms / batch, timing.high_ms / batch, timing.samples)


def _grey(planes: NDArray[Any]) -> NDArray[Any]:
    """Grey levels. Images of random weights have any range: their spread is made a photo's, 50."""
    return planes / (planes.std() or 1.0) * 50


def networks(large: bool) -> tuple[tuple[str, int, str, tuple[int, ...]], ...]:
    """What is measured without ``--net``."""
    return NETWORKS + LARGE if large else NETWORKS


def main() -> None:
    """Measure, print, save."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--net", type=Path, help="an exported generator instead of random ones")
    parser.add_argument("--only", help="one kind: stylegan2, starganv2, stargan, ganimation")
    parser.add_argument("--large", action="store_true", help="StyleGAN2 at 1024, too")
    parser.add_argument("--seconds", type=float, default=4.0, help="for each contender")
    parser.add_argument("--output", type=Path, default=RESULTS, help="a folder for the JSON file")
    parser.add_argument("--busy", action="store_true", help="processor time of one thread")
    given = parser.parse_args()
    clock = Clock(1 if given.busy else available_cores(), given.busy)
    torch.set_num_threads(clock.threads)
    console = Console(width=110)
    ceilings = {precision: gemm_gflops(precision, clock) for precision in PRECISIONS}
    rates = ", ".join(f"{name} {rate:,.0f} GFLOP/s" for name, rate in ceilings.items())
    console.print(f"matrix products on {clock.threads} thread(s): {rates}")
    rows = [
        Row("gemm", name, Timing(2 * ORDER**3 / rate / 1e6, 0, 0, 0), f"{rate:.0f} GFLOP/s")
        for name, rate in ceilings.items()
    ]
    rows += _own(given, ceilings, clock) if given.net else _random(given, ceilings, clock)
    report([row for row in rows if row.question != "gemm"], "cpu fp32", console)
    console.print(f"written to {save(rows, 'generators', given.output)}")


def _own(given: Any, ceilings: Mapping[str, float], clock: Clock) -> list[Row]:
    from fastface.generators.parts import Parts

    files = Parts(given.net).files
    file = files.get("synthesis") or files["generator"]
    rows = []
    for batch in (1, 4):
        rows += timed(f"{file.name}, batch {batch}", file, None, batch, ceilings, given.seconds, clock)
    return rows


def _random(given: Any, ceilings: Mapping[str, float], clock: Clock) -> list[Row]:
    rows = []
    for kind, resolution, drawn, batches in networks(given.large):
        if given.only not in (None, kind):
            continue
        checkpoint = random_networks.checkpoint(kind, resolution=resolution)  # type: ignore[arg-type]
        (part,) = (p for p in random_networks.definitions(checkpoint) if p.name == drawn)
        with tempfile.TemporaryDirectory() as folder:
            files = random_networks.write(checkpoint, Path(folder) / "net.onnx")
            (file,) = (path for path in files if path.name == f"net.{drawn}.onnx")
            for batch in batches:
                title = f"{kind} {resolution}, batch {batch}"
                rows += timed(title, file, part.module.eval(), batch, ceilings, given.seconds, clock)
    return rows


if __name__ == "__main__":
    main()
