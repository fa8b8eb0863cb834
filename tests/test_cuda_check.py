"""The check of a GPU, as far as it goes without one: what fails or hangs keeps nothing else from its turn."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks import gpu, gpu_figures
from fastface.device import open_device
from fastface.runtime.cuda_driver import Device

H100 = Device("NVIDIA H100 80GB HBM3", (9, 0))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """In the place of the checkout."""
    monkeypatch.setattr(gpu, "WORK", tmp_path / "build")
    monkeypatch.setattr(gpu, "ROOT", tmp_path)
    (tmp_path / "build").mkdir()
    return tmp_path


def test_every_step_has_its_turn_and_the_figures_are_kept(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tried: list[str] = []

    def step(name: str, *_: object) -> gpu.Outcome:
        tried.append(name)
        if name == "figures":
            (folder / "build" / "figures.json").write_text('{"rows": [1]}')
        return gpu.Outcome(name, name != "tests", 1.0, "words")

    def watched(_: float) -> list[gpu.Outcome]:
        raise KeyboardInterrupt  # what was measured before is there all the same

    monkeypatch.setattr(gpu, "build", lambda *_: step("build"))
    monkeypatch.setattr(gpu, "_step", step)
    monkeypatch.setattr(gpu, "sanitize", watched)
    with pytest.raises(KeyboardInterrupt):
        gpu.check(H100, time.monotonic(), quiet=False)
    assert tried == ["build", "tests", "figures"]
    (written,) = (folder / "benchmarks" / "results").glob("*-gpu-nvidia-h100-80gb-hbm3.json")
    record = json.loads(written.read_text())
    assert record["figures"] == {"rows": [1]}
    assert [(s["name"], s["ok"], s["said"]) for s in record["steps"]] == [
        ("build", True, ""),
        ("tests", False, "words"),
        ("figures", True, ""),
    ]
    assert "tests: FAILED" in capsys.readouterr().err


def test_a_build_that_fails_is_reported(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "build", lambda *_: gpu.Outcome("build", False, 1.0, "no compiler"))
    outcomes, written = gpu.check(H100, time.monotonic(), quiet=True)
    assert [outcome.ok for outcome in outcomes] == [False]
    assert json.loads(written.read_text())["steps"][0]["said"] == "no compiler"


def test_a_step_that_hangs_comes_to_an_end(folder: Path) -> None:
    made = gpu._step("hangs", [sys.executable, "-c", "import time; time.sleep(600)"], 1.0)
    assert not made.ok
    assert made.said.endswith("not done within 1 s")
    assert gpu._step("works", [sys.executable, "-c", "print('done')"], 60.0).said == "done\n"
    assert not gpu._step("fails", [sys.executable, "-c", "raise SystemExit(3)"], 60.0).ok


def test_a_setting_that_fails_leaves_the_others(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def breaks(*_: object) -> list[gpu_figures.Row]:
        raise RuntimeError("out of paper")

    monkeypatch.setattr(gpu_figures, "face_rows", breaks)
    saved: list[int] = []
    with (tmp_path / "said.txt").open("w") as stream:
        figures = gpu_figures.measure_all(
            open_device("emulated"),
            Console(file=stream, width=130),
            samples=1,
            small=True,
            save=lambda so_far: saved.append(len(so_far["rows"])),
        )
    assert "out of paper" in figures["failed"]["a face, 96²"]
    assert saved[0] == 0
    assert saved[-1] == len(figures["rows"]) > 3
