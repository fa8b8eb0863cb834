"""The NVIDIA driver by its C interface: device names, memory, copies. No toolkit and no package is needed.

Written against the CUDA driver API (cuda.h, the _v2 entry points). Only a machine with a GPU runs what lies
behind ``devices()``.
"""

from __future__ import annotations

import ctypes
import sys
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastface.errors import ProviderUnavailable

_MAJOR, _MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_…


@dataclass(frozen=True, slots=True)
class Device:
    """An NVIDIA GPU; ``capability`` such as (9, 0)."""

    name: str
    capability: tuple[int, int]


@lru_cache(maxsize=1)
def library() -> Any:
    """The driver. Raises ``ProviderUnavailable`` when there is none, or no usable device."""
    try:
        driver = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        raise ProviderUnavailable("no NVIDIA driver") from None
    count = ctypes.c_int(0)
    code = driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count))
    if code or not count.value:
        raise ProviderUnavailable(f"an NVIDIA driver, but no usable device (code {code})")
    return driver


@lru_cache(maxsize=1)
def devices() -> tuple[Device, ...]:
    """The GPUs of this machine, () when there are none."""
    try:
        driver = library()
    except ProviderUnavailable:
        return ()
    count = ctypes.c_int(0)
    driver.cuDeviceGetCount(ctypes.byref(count))
    return tuple(_device(driver, index) for index in range(count.value))


def _device(driver: Any, index: int) -> Device:
    handle, major, minor = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    name = ctypes.create_string_buffer(128)
    driver.cuDeviceGet(ctypes.byref(handle), index)
    driver.cuDeviceGetName(name, len(name), handle)
    driver.cuDeviceGetAttribute(ctypes.byref(major), _MAJOR, handle)
    driver.cuDeviceGetAttribute(ctypes.byref(minor), _MINOR, handle)
    return Device(name.value.decode(errors="replace"), (major.value, minor.value))


class Memory:
    """Pairs of pinned host and device buffers on one stream of the first GPU, kept and grown by name.

    Copies from pinned memory run beside the host; one ``synchronize`` a run is all that waits.
    """

    def __init__(self) -> None:
        self._cuda = library()
        device, self._context = ctypes.c_int(), ctypes.c_void_p()
        self._check(self._cuda.cuDeviceGet(ctypes.byref(device), 0))
        # The primary context is the one that the CUDA runtime, so TensorRT, uses.
        self._check(self._cuda.cuDevicePrimaryCtxRetain(ctypes.byref(self._context), device))
        self.enter()
        stream = ctypes.c_void_p()
        self._check(self._cuda.cuStreamCreate(ctypes.byref(stream), 1))  # 1: beside the default stream
        self.stream: int = stream.value or 0
        self._held: dict[str, tuple[ctypes.c_void_p, ctypes.c_void_p, int]] = {}

    def enter(self) -> None:
        """Make the context the calling thread's."""
        self._check(self._cuda.cuCtxSetCurrent(self._context))

    def pair(self, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> tuple[NDArray[Any], int]:
        """Pinned host memory as an array, and the address of as many bytes on the device."""
        wanted = max(int(np.prod(shape)) * dtype.itemsize, 1)
        if name not in self._held or self._held[name][2] < wanted:
            self._free(name)
            host, device = ctypes.c_void_p(), ctypes.c_void_p()
            self._check(self._cuda.cuMemAllocHost_v2(ctypes.byref(host), ctypes.c_size_t(wanted)))
            self._check(self._cuda.cuMemAlloc_v2(ctypes.byref(device), ctypes.c_size_t(wanted)))
            self._held[name] = (host, device, wanted)
        host, device, _ = self._held[name]
        view = memoryview((ctypes.c_uint8 * wanted).from_address(host.value or 0))
        return np.frombuffer(view, dtype, int(np.prod(shape))).reshape(shape), device.value or 0

    def upload(self, host: NDArray[Any], device: int) -> None:
        """Copy to the device, in the stream's order."""
        where, count = ctypes.c_void_p(host.ctypes.data), ctypes.c_size_t(host.nbytes)
        self._check(self._cuda.cuMemcpyHtoDAsync_v2(ctypes.c_void_p(device), where, count, self._handle))

    def download(self, device: int, host: NDArray[Any]) -> None:
        """Copy from the device, in the stream's order."""
        where, count = ctypes.c_void_p(host.ctypes.data), ctypes.c_size_t(host.nbytes)
        self._check(self._cuda.cuMemcpyDtoHAsync_v2(where, ctypes.c_void_p(device), count, self._handle))

    def synchronize(self) -> None:
        """Wait for all that the stream was given."""
        self._check(self._cuda.cuStreamSynchronize(self._handle))

    @property
    def _handle(self) -> ctypes.c_void_p:
        return ctypes.c_void_p(self.stream)

    def _free(self, name: str) -> None:
        if name in self._held:
            host, device, _ = self._held.pop(name)
            self._cuda.cuMemFreeHost(host)
            self._cuda.cuMemFree_v2(device)

    def _check(self, code: int) -> None:
        if code:
            text = ctypes.c_char_p()
            self._cuda.cuGetErrorString(code, ctypes.byref(text))
            raise ProviderUnavailable(f"CUDA: {(text.value or b'unknown error').decode()} (code {code})")
