"""The whole check of the CUDA side on a machine with a GPU, in one command of under eight minutes.

    fastface bench --gpu            (or: python -m benchmarks.gpu)

Builds the package for this GPU into build/gpu, runs the device tests with none skipped, lets
compute-sanitizer watch every kernel (memcheck, racecheck, initcheck, synccheck), measures, and writes all of
it to benchmarks/results/YYYY-MM-DD-gpu-DEVICE.json. Ends with 1 when anything failed. Needs the source tree,
a CUDA compiler and what pip's build of the package needs.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from fastface.errors import ProviderUnavailable
from fastface.runtime.cuda_driver import Device, devices

ROOT = Path(__file__).resolve().parents[1]
WORK = ROOT / "build" / "gpu"
SITE = WORK / "site"
TOOLS = ("memcheck", "racecheck", "initcheck", "synccheck")
LIMITS_S = {"build": 240, "tests": 180, "sanitizer": 200, "figures": 200}
BUDGET_S = 470
DEVICE_TESTS = ("tests/test_cuda_ops.py", "tests/test_cuda_engine.py")


@dataclass(frozen=True)
class Outcome:
    """One step: whether it did what it should, how long it took, and the end of what it said."""

    name: str
    ok: bool
    seconds: float
    said: str


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print the path of the written file only")
    quiet = parser.parse_args().json
    found = devices()
    if not found:
        print("fastface: error: bench --gpu wants an NVIDIA GPU and its driver, found none", file=sys.stderr)
        return 1
    start = time.monotonic()
    outcomes, figures = check(found[0], start, quiet)
    path = _save(found[0], outcomes, figures, time.monotonic() - start)
    if not quiet:
        print(f"{time.monotonic() - start:.0f} s in all")
    print(path)
    return 0 if all(outcome.ok for outcome in outcomes) else 1


def check(device: Device, start: float, quiet: bool) -> tuple[list[Outcome], dict[str, Any]]:
    """Every step that the build leaves room for; one that fails does not keep the next from being tried."""
    outcomes: list[Outcome] = []

    def left(step: str) -> float:
        return max(min(LIMITS_S[step], BUDGET_S - (time.monotonic() - start)), 1.0)

    def note(made: list[Outcome]) -> None:
        outcomes.extend(made)
        for outcome in made:
            if not quiet or not outcome.ok:
                end = "" if outcome.ok and outcome.name != "figures" else f"\n{outcome.said}"
                words = "ok" if outcome.ok else "FAILED"
                print(f"{outcome.name}: {words}, {outcome.seconds:.0f} s{end}", file=sys.stderr, flush=True)

    note([build(device, left("build"))])
    if not outcomes[0].ok:
        return outcomes, {}
    tests = [sys.executable, "-P", "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *DEVICE_TESTS]
    note([_step("tests", tests, left("tests"), {"FASTFACE_REQUIRE_CUDA": "1"})])
    note(sanitize(left("sanitizer")))
    written = WORK / "figures.json"
    written.unlink(missing_ok=True)
    note([_step("figures", [*_module("gpu_figures"), "--out", str(written)], left("figures"))])
    return outcomes, json.loads(written.read_text()) if written.is_file() else {}


def build(device: Device, limit_s: float) -> Outcome:
    """The package for this GPU alone, in a folder of its own."""
    shutil.rmtree(SITE, ignore_errors=True)
    WORK.mkdir(parents=True, exist_ok=True)
    major, minor = device.capability
    isolated = any(find_spec(name) is None for name in ("scikit_build_core", "pybind11"))
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(SITE)]
    command += [] if isolated else ["--no-build-isolation"]
    command += [f"-Ccmake.define.CMAKE_CUDA_ARCHITECTURES={major}{minor}", str(ROOT)]
    outcome = _step("build", command, limit_s, {"CMAKE_BUILD_PARALLEL_LEVEL": str(os.cpu_count() or 2)})
    if not outcome.ok:
        return outcome
    code = "from fastface.device import open_device; print(open_device().name)"
    opened = _step("build", [sys.executable, "-P", "-c", code], 60)
    return Outcome("build", opened.ok, outcome.seconds + opened.seconds, opened.said)


def sanitize(limit_s: float) -> list[Outcome]:
    """compute-sanitizer's four tools side by side."""
    tool = shutil.which("compute-sanitizer") or "/usr/local/cuda/bin/compute-sanitizer"
    if not Path(tool).exists():
        return [
            Outcome("sanitizer", False, 0.0, "compute-sanitizer is not there; it comes with CUDA's toolkit")
        ]
    start = time.monotonic()
    running = {
        name: subprocess.Popen(
            [tool, "--tool", name, "--error-exitcode", "97", *_module("gpu_exercise")],
            cwd=WORK,
            env=_environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for name in TOOLS
    }
    made = []
    for name, process in running.items():
        try:
            said, _ = process.communicate(timeout=max(limit_s - (time.monotonic() - start), 1.0))
        except subprocess.TimeoutExpired:
            process.kill()
            said = f"not done within {limit_s:.0f} s\n" + process.communicate()[0]
        clean = process.returncode == 0 and "ERROR SUMMARY: 0 errors" in said
        # racecheck counts hazards instead of errors.
        clean = clean or (process.returncode == 0 and "0 hazards displayed" in said)
        made.append(Outcome(name, clean, time.monotonic() - start, said[-3000:]))
    return made


def _module(name: str) -> list[str]:
    return [sys.executable, "-m", f"benchmarks.{name}"]


def _environment(more: dict[str, str] | None = None) -> dict[str, str]:
    """The package that was built, then the benchmarks beside it."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(SITE), str(ROOT)]), **(more or {})}


def _step(name: str, command: Sequence[str], limit_s: float, more: dict[str, str] | None = None) -> Outcome:
    start = time.monotonic()
    try:
        done = subprocess.run(
            command,
            cwd=ROOT if name == "tests" else WORK,  # where no sources are taken for the package
            env=_environment(more),
            timeout=limit_s,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        ok, said = done.returncode == 0, done.stdout
    except subprocess.TimeoutExpired:
        ok, said = False, f"not done within {limit_s:.0f} s"
    return Outcome(name, ok, time.monotonic() - start, said[-20000:])


def _save(device: Device, outcomes: list[Outcome], figures: dict[str, Any], seconds: float) -> Path:
    from fastface.atomic import write_whole

    named = re.sub(r"[^a-z0-9]+", "-", device.name.lower()).strip("-")
    path = ROOT / "benchmarks" / "results" / f"{datetime.now(UTC):%Y-%m-%d}-gpu-{named}.json"
    steps = [{**asdict(outcome), "said": outcome.said[-2000:]} for outcome in outcomes]
    record = {
        "device": device.name,
        "capability": list(device.capability),
        "seconds": seconds,
        "steps": [step if not step["ok"] else {**step, "said": ""} for step in steps],
        "figures": figures,
    }
    write_whole(path, (json.dumps(record, indent=1) + "\n").encode())
    return path


if __name__ == "__main__":
    try:
        sys.exit(main())
    except ProviderUnavailable as error:
        print(f"fastface: error: {error}", file=sys.stderr)
        sys.exit(1)
