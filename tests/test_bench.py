"""What ``fastface bench`` tells, and how a step's distance from the machine's limits is counted."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import harness
from fastface.bench import measure
from fastface.cli.demo import DEMO_PHOTO
from fastface.engine import Engine
from fastface.roofline import Ceiling, Cost, frame_costs


def test_the_longer_of_bytes_and_operations_counts() -> None:
    ceiling = Ceiling(bytes_per_s=1e9, flops_per_s=1e10)
    assert ceiling.least_s(Cost(bytes=2e6, flops=1e6)) == pytest.approx(2e-3)
    assert ceiling.least_s(Cost(bytes=1e3, flops=5e7)) == pytest.approx(5e-3)
    assert ceiling.share(Cost(bytes=2e6, flops=1e6), 4e-3) == pytest.approx(0.5)


def test_what_is_not_asked_costs_nothing() -> None:
    engine = Engine(threads=1)
    face = engine.fit(DEMO_PHOTO)
    engine.render(face)
    bound = engine._ready(face).bound
    asked = np.zeros(len(bound.names), np.float32)
    still = frame_costs(bound, asked, 0)
    asked[:10] = 1
    moved = frame_costs(bound, asked, 5000)
    for name, cost in moved.items():
        assert cost.bytes >= still[name].bytes
        assert cost.flops >= still[name].flops
    assert moved["deform"].bytes > still["deform"].bytes
    assert moved["render"].bytes < sum(
        moved[name].bytes for name in ("deform", "rasterize", "shade", "blend")
    )


def test_bench_names_every_figure_once() -> None:
    figures = measure(Engine(threads=2), DEMO_PHOTO, 0.05)
    assert all(figure.value > 0 for figure in figures)
    names = [(figure.name, figure.note.split(",")[0]) for figure in figures]
    assert len(set(names)) == len(names)
    told = {figure.name for figure in figures}
    for side in ("256x256", "512x512"):
        for what in ("one frame", "batch of 32", "numpy + OpenCV line", "  rasterize", "a frame in one go"):
            assert f"{what}, {side}" in told
        assert f"portrait: batch of 32, {side}" in told


def test_cold_contenders_are_called_with_flushed_caches(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    monkeypatch.setattr(harness, "flush_caches", lambda: order.append("flush"))
    timings = harness.measure({"one": lambda: order.append("call")}, seconds=0.0, cold=True)
    assert timings["one"].samples == 5
    assert order == ["call", *["flush", "call"] * 5]
