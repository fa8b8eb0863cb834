"""Devices beside the processor: CUDA, and for tests an emulation of its schedules on the host.

``DeviceArray`` holds an array in a device's memory and hands it to torch, CuPy or any other library by DLPack
(``torch.from_dlpack(array)``) without a copy; ``array.numpy()`` or ``np.asarray(array)`` copy it to the host.
Work is enqueued and runs later: whoever takes an array by DLPack waits for it on his own stream, a copy to
the host waits by itself. Arrays of other libraries come in by ``Device.adopt``.

Work goes to CUDA's legacy default stream, where torch and CuPy work too, unless a call names another: a
``Stream`` of the device or a handle such as ``torch.cuda.current_stream().cuda_stream``.
"""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any, TypeVar

import numpy as np

from fastface import _core
from fastface._core import Device, DeviceArray, DeviceWorkspace, Graph, Stream
from fastface.errors import ProviderUnavailable

__all__ = [
    "Device",
    "DeviceArray",
    "DeviceWorkspace",
    "Graph",
    "Stream",
    "cuda_problem",
    "moved",
    "open_device",
]

Prepared = TypeVar("Prepared")


def open_device(kind: str = "cuda") -> Device:
    """The first GPU (``CUDA_VISIBLE_DEVICES`` chooses), or "emulated": its schedules on the host, slowly.

    Raises ``ProviderUnavailable`` where there is no GPU or this build has no CUDA kernels.
    """
    return _core.open_device(kind)


def cuda_problem() -> str:
    """Why there is no CUDA device; "" if there is one."""
    try:
        _core.open_device("cuda")
    except ProviderUnavailable as error:
        return str(error)
    return ""


def moved(prepared: Prepared, device: Device) -> Prepared:
    """A dataclass such as ``PackedBasis`` or ``PreparedShading`` with its arrays on the device, read-only."""
    held: Any = prepared
    arrays = {f.name: getattr(held, f.name) for f in fields(held)}
    put = {n: device.put(a, frozen=True) for n, a in arrays.items() if isinstance(a, np.ndarray)}
    on_device: Prepared = replace(held, **put)
    return on_device
