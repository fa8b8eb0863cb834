"""The whole check of the CUDA side on a machine with a GPU, in one command of under eight minutes.

    fastface bench --gpu            (or, where nothing is installed: python -m benchmarks.gpu)

Builds the package for this GPU into build/gpu, runs the device tests with none skipped, measures, lets
compute-sanitizer watch every kernel (memcheck, racecheck, initcheck, synccheck), and writes all of it to
benchmarks/results/YYYY-MM-DD-gpu-DEVICE.json, anew after every step. Ends with 1 when anything failed.
Needs the source tree, a CUDA compiler and what pip's build of the package needs; a network only where
scikit-build-core or pybind11 is missing.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

from fastface.errors import ProviderUnavailable
from fastface.runtime.cuda_driver import Device, devices

ROOT = Path(__file__).resolve().parents[1]
WORK = ROOT / "build" / "gpu"
SITE = WORK / "site"
TOOLS = ("memcheck", "racecheck", "initcheck", "synccheck")
BUDGET_S = 470
#: The most that a step may take, and what it leaves to those behind it.
LIMITS_S = {"build": (270, 150), "tests": (110, 110), "figures": (150, 30), "sanitizer": (240, 0)}
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
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        outcomes, path = check(found[0], start, quiet)
    finally:
        for process in list(_Running.alive):
            process.kill()
    if not quiet:
        print(f"{time.monotonic() - start:.0f} s in all")
    print(path)
    return 0 if all(outcome.ok for outcome in outcomes) else 1


def check(device: Device, start: float, quiet: bool) -> tuple[list[Outcome], Path]:
    """Every step that the build leaves room for; one that fails does not keep the next from being tried."""
    outcomes: list[Outcome] = []
    written = WORK / "figures.json"
    written.unlink(missing_ok=True)
    path = _result_path(device)

    def left(step: str) -> float:
        most, others = LIMITS_S[step]
        return max(min(most, BUDGET_S - others - (time.monotonic() - start)), 10.0)

    def note(made: list[Outcome]) -> None:
        outcomes.extend(made)
        figures = json.loads(written.read_text()) if written.is_file() else {}
        _save(path, device, outcomes, figures, time.monotonic() - start)
        for outcome in made:
            if not quiet or not outcome.ok:
                end = "" if outcome.ok and outcome.name != "figures" else f"\n{outcome.said}"
                words = "ok" if outcome.ok else "FAILED"
                print(f"{outcome.name}: {words}, {outcome.seconds:.0f} s{end}", file=sys.stderr, flush=True)

    note([build(device, left("build"))])
    if not outcomes[0].ok:
        return outcomes, path
    # What the emulated device shows any machine can show.
    tests = [sys.executable, "-P", "-m", "pytest", "-q", "-k", "not emulated", "--maxfail=20", "--tb=short"]
    tests += ["-p", "no:cacheprovider", *DEVICE_TESTS]
    note([_step("tests", tests, left("tests"), {"FASTFACE_REQUIRE_CUDA": "1"})])
    note([_step("figures", [*_module("gpu_figures"), "--out", str(written)], left("figures"))])
    note(sanitize(left("sanitizer")))
    return outcomes, path


def build(device: Device, limit_s: float) -> Outcome:
    """The package for this GPU alone, in a folder of its own."""
    shutil.rmtree(SITE, ignore_errors=True)
    WORK.mkdir(parents=True, exist_ok=True)
    major, minor = device.capability
    isolated = any(find_spec(name) is None for name in ("scikit_build_core", "pybind11"))
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(SITE)]
    command += ["--disable-pip-version-check"]
    command += [] if isolated else ["--no-build-isolation", "--no-index"]
    command += [f"-Ccmake.define.CMAKE_CUDA_ARCHITECTURES={major}{minor}-real", str(ROOT)]
    more = {"CMAKE_BUILD_PARALLEL_LEVEL": str(os.cpu_count() or 2)}
    if shutil.which("nvcc") is None and "CUDACXX" not in os.environ:
        more["CUDACXX"] = "/usr/local/cuda/bin/nvcc"
    outcome = _step("build", command, limit_s, more)
    if not outcome.ok:
        return outcome
    code = "from fastface.device import open_device; print(open_device().name)"
    opened = _step("build", [sys.executable, "-P", "-c", code], 60)
    return Outcome("build", opened.ok, outcome.seconds + opened.seconds, opened.said)


def sanitize(limit_s: float) -> list[Outcome]:
    """compute-sanitizer's four tools side by side. Nothing is timed meanwhile."""
    tool = shutil.which("compute-sanitizer") or "/usr/local/cuda/bin/compute-sanitizer"
    if not Path(tool).exists():
        return [
            Outcome("sanitizer", False, 0.0, "compute-sanitizer is not there; it comes with CUDA's toolkit")
        ]
    start = time.monotonic()
    running = {
        name: _Running([tool, "--tool", name, "--error-exitcode", "97", *_module("gpu_exercise")], name)
        for name in TOOLS
    }
    made = []
    for name, process in running.items():
        ended, said = process.end(limit_s - (time.monotonic() - start))
        # racecheck counts hazards instead of errors.
        clean = ended and ("ERROR SUMMARY: 0 errors" in said or "0 hazards displayed" in said)
        made.append(Outcome(name, clean, time.monotonic() - start, said[-3000:]))
    return made


def _module(name: str) -> list[str]:
    return [sys.executable, "-m", f"benchmarks.{name}"]


def _environment(more: dict[str, str] | None = None) -> dict[str, str]:
    """The package that was built, then the benchmarks beside it."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(SITE), str(ROOT)]), **(more or {})}


def _step(name: str, command: Sequence[str], limit_s: float, more: dict[str, str] | None = None) -> Outcome:
    start = time.monotonic()
    # Away from the sources, so that none is taken for the package; tests need theirs.
    ok, said = _Running(command, name, ROOT if name == "tests" else WORK, more).end(limit_s)
    return Outcome(name, ok, time.monotonic() - start, said[-20000:])


class _Running:
    """A process with all that it starts, and what it says so far in build/gpu/NAME.log."""

    alive: ClassVar[set[_Running]] = set()

    def __init__(
        self, command: Sequence[str], name: str, cwd: Path = WORK, more: dict[str, str] | None = None
    ) -> None:
        self._log = WORK / f"{name}.log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                command,
                cwd=cwd,
                env=_environment(more),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.alive.add(self)

    def end(self, limit_s: float) -> tuple[bool, str]:
        """Whether it ended well within that time, and what it said."""
        late = ""
        try:
            self._process.wait(max(limit_s, 1.0))
        except subprocess.TimeoutExpired:
            late = f"\nnot done within {limit_s:.0f} s"
            self.kill()
        self.alive.discard(self)
        said = self._log.read_text(errors="replace") + late
        return self._process.returncode == 0 and not late, said

    def kill(self) -> None:
        os.killpg(self._process.pid, signal.SIGTERM)  # so that a build ends the jobs it gave out
        try:
            self._process.wait(3)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


def _result_path(device: Device) -> Path:
    named = re.sub(r"[^a-z0-9]+", "-", device.name.lower()).strip("-")
    return ROOT / "benchmarks" / "results" / f"{datetime.now(UTC):%Y-%m-%d}-gpu-{named}.json"


def _save(
    path: Path, device: Device, outcomes: list[Outcome], figures: dict[str, Any], seconds: float
) -> None:
    from fastface.atomic import write_whole

    steps = [{**asdict(outcome), "said": outcome.said[-2000:]} for outcome in outcomes]
    record = {
        "device": device.name,
        "capability": list(device.capability),
        "seconds": seconds,
        "steps": [step if not step["ok"] else {**step, "said": ""} for step in steps],
        "figures": figures,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, (json.dumps(record, indent=1) + "\n").encode())


if __name__ == "__main__":
    try:
        sys.exit(main())
    except ProviderUnavailable as error:
        print(f"fastface: error: {error}", file=sys.stderr)
        sys.exit(1)
