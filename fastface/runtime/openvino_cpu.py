"""OpenVINO on the CPU: the fastest there, and the only one with bfloat16.

bfloat16 keeps float32's range with 8 bits of mantissa: a step is 2^-8 of a value, and sums stay in float32.
What that costs a generator is measured in ``benchmarks/bench_generators.py`` and stated in
``docs/generators.md``.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fastface.errors import BadModelFile, ProviderUnavailable
from fastface.runtime.backends import Arrays, Request, one_line
from fastface.runtime.providers import bf16_instructions

_HINTS: Final = {"fp32": "f32", "bf16": "bf16", "fp16": "f16"}
_CAPABILITIES: Final = {"fp32": "FP32", "bf16": "BF16", "fp16": "FP16"}
_TYPE_NAMES: Final = {"fp32": "f32", "bf16": "bf16", "fp16": "f16"}


class OpenVino:
    """A model compiled by OpenVINO for the CPU."""

    def __init__(self, request: Request) -> None:
        if request.custom_ops:
            raise ProviderUnavailable("openvino: loads no operators made for onnxruntime")
        try:
            import openvino
        except ImportError as error:
            raise ProviderUnavailable(f"openvino: installed but broken ({one_line(error)})") from None
        core = openvino.Core()
        self.precision = _precision(core, request)
        settings = {
            "INFERENCE_PRECISION_HINT": _HINTS[self.precision],
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": request.threads,
        }
        try:
            model = core.read_model(str(request.model.path))
            self._compiled = core.compile_model(model, "CPU", settings)
        except Exception as error:  # RuntimeError, and what its Python layer raises
            raise BadModelFile(f"{request.model.path}: OpenVINO refuses it: {one_line(error)}") from None
        in_effect = self._compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
        if in_effect != _TYPE_NAMES[self.precision]:
            raise ProviderUnavailable(
                f"openvino: asked for {self.precision}, it would compute in {in_effect}"
            )
        # A port may bear several names of one tensor; ours is the graph's own, and the order is the graph's.
        self._names = list(enumerate(request.model.outputs))
        for (_, name), port in zip(self._names, self._compiled.outputs, strict=True):
            if name not in port.get_names():
                raise BadModelFile(f"{request.model.path}: OpenVINO finds no output {name!r:.60}")
        self._requests = threading.local()
        version = openvino.__version__.split("-")[0]
        unit = f" ({bf16_instructions()})" if self.precision == "bf16" and bf16_instructions() else ""
        where = f"{request.threads} thread{'s' if request.threads > 1 else ''}"
        self.words = f"OpenVINO {version} CPU, {self.precision}{unit}, {where}"

    def run(self, inputs: Mapping[str, NDArray[Any]], outputs: Sequence[str]) -> Arrays:
        """One batch. Threads may call it at once: each has a request of its own."""
        request = getattr(self._requests, "own", None)
        if request is None:
            request = self._requests.own = self._compiled.create_infer_request()
        try:
            found = request.infer(dict(inputs), share_inputs=True, share_outputs=True)
        except Exception as error:
            raise BadModelFile(f"{self.words}: the model fails to run: {one_line(error)}") from None
        # The request keeps its buffers for the next run; the caller gets memory of its own.
        return {name: np.array(found[index]) for index, name in self._names if name in outputs}


def _precision(core: Any, request: Request) -> str:
    able = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    if request.precision is None:
        return "bf16" if "BF16" in able else "fp32"
    if _CAPABILITIES[request.precision] not in able:
        there = ", ".join(key for key, value in _CAPABILITIES.items() if value in able)
        raise ProviderUnavailable(
            f"openvino: this CPU has no instructions for {request.precision}; it has {there}"
        )
    return request.precision
