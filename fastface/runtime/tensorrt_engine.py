"""Running a TensorRT engine (``.plan``) by TensorRT itself, with pinned memory, on the first GPU.

Written against TensorRT 10 and 11; it wants a GPU and has not met one yet. Building engines is the exporter's
work, in ``fastface.exports.tensorrt_engine``.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fastface.errors import BadArgument, BadModelFile, ProviderUnavailable
from fastface.runtime import cuda_driver
from fastface.runtime.backends import Arrays
from fastface.runtime.plan import PlanRecord, checked_plan

#: Module names of each library: the package proper, and the bindings that its wheels are made of.
MODULES: Final = {
    "tensorrt": ("tensorrt", "tensorrt_bindings"),
    "tensorrt_rtx": ("tensorrt_rtx", "tensorrt_rtx_bindings"),
}
ADVICE: Final = {
    "tensorrt": "pip install tensorrt-cu13",
    "tensorrt_rtx": "pip install tensorrt-rtx-cu13-libs tensorrt-rtx-cu13-bindings",
}


def load_library(name: str) -> Any:
    """TensorRT's Python module. Raises ``ProviderUnavailable``."""
    for module in MODULES[name]:
        try:
            return import_module(module)
        except ImportError:
            continue
    raise ProviderUnavailable(f"{name} is not installed. To get it: {ADVICE[name]}")


class TensorRtEngine:
    """An engine with one execution context, on a stream of its own."""

    def __init__(self, plan: Path, names: list[str] | None, precision: str | None) -> None:
        record, data = checked_plan(plan)
        if names not in (None, ["tensorrt"]):
            raise ProviderUnavailable(
                f"{plan}: an engine runs in TensorRT alone, not in {', '.join(names or ())}"
            )
        if precision is not None:
            raise BadArgument(
                f"{plan}: an engine's precision was fixed when it was built; leave precision out"
            )
        self._check_device(plan, record)
        trt = load_library(record.library)
        if trt.__version__ != record.library_version:
            raise ProviderUnavailable(
                f"{plan}: built by {record.library} {record.library_version}, here is {trt.__version__}; "
                "build it anew: fastface export tensorrt"
            )
        self._memory = cuda_driver.Memory()
        self._logger = trt.Logger(trt.Logger.ERROR)
        self._engine = trt.Runtime(self._logger).deserialize_cuda_engine(data)
        if self._engine is None:
            raise BadModelFile(
                f"{plan}: {record.library} cannot open it; build it anew: fastface export tensorrt"
            )
        self._context = self._engine.create_execution_context()
        self._lock = threading.Lock()
        self.model = record.model(plan)
        self.largest_batch = record.batch[2]
        self.precision = "as built"
        device = cuda_driver.devices()[0].name
        self.words = f"{record.library} {record.library_version} engine, {device}"

    def run(self, inputs: Mapping[str, NDArray[Any]], outputs: Sequence[str]) -> Arrays:
        """One batch; calls from several threads take turns."""
        with self._lock:
            memory, context = self._memory, self._context
            memory.enter()
            for name, array in inputs.items():
                host, device = memory.pair(name, array.shape, array.dtype)
                host[...] = array
                memory.upload(host, device)
                if not context.set_input_shape(name, array.shape):
                    raise BadArgument(f"{self.words}: {name} {array.shape} is beyond what it was built for")
                context.set_tensor_address(name, device)
            found: Arrays = {}
            for name, spec in self.model.outputs.items():
                host, device = memory.pair(name, tuple(context.get_tensor_shape(name)), spec.dtype)
                context.set_tensor_address(name, device)
                found[name] = host
            if not context.execute_async_v3(memory.stream):
                raise BadModelFile(f"{self.words}: the engine fails to run")
            for name in outputs:
                host = found[name]
                memory.download(memory.pair(name, host.shape, host.dtype)[1], host)
            memory.synchronize()
            return {name: np.array(found[name]) for name in outputs}

    @staticmethod
    def _check_device(plan: Path, record: PlanRecord) -> None:
        devices = cuda_driver.devices()
        if not devices:
            raise ProviderUnavailable(
                f"{plan}: a TensorRT engine wants an NVIDIA GPU, and there is none; run the .onnx instead"
            )
        name, (major, minor) = devices[0].name, devices[0].capability
        fits = f"SM{major}{minor}" in record.targets if record.targets else name == record.gpu
        if not fits:
            raise ProviderUnavailable(
                f"{plan}: built for {record.gpu or ', '.join(record.targets)}, here is {name} "
                f"(SM{major}{minor}); build it anew: fastface export tensorrt"
            )
