"""Devices that tests run on: CUDA where there is one, and always the emulation of its schedules."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest

from fastface import ops
from fastface.device import Device, cuda_problem, moved, open_device

KINDS = ("emulated", "cuda")


def opened(kind: str) -> Device:
    """Skips without a GPU; with FASTFACE_REQUIRE_CUDA=1 that is a failure."""
    problem = cuda_problem() if kind == "cuda" else ""
    if problem and os.environ.get("FASTFACE_REQUIRE_CUDA") == "1":
        pytest.fail(f"FASTFACE_REQUIRE_CUDA=1, but {problem}")
    if problem:
        pytest.skip(problem)
    return open_device(kind)


def on(device: Device, arguments: dict[str, Any]) -> dict[str, Any]:
    """The arguments of an op with everything that an op reads in bulk on the device."""
    placed: dict[str, Any] = {}
    for name, value in arguments.items():
        if name == "basis":
            value = moved(value if isinstance(value, ops.PackedBasis) else ops.pack_basis(value), device)
        elif name == "shading":
            ready = isinstance(value, ops.PreparedShading)
            value = moved(value if ready else ops.prepare_shading(value), device)
        elif isinstance(value, np.ndarray):
            value = device.put(value)
        placed[name] = value
    return placed
