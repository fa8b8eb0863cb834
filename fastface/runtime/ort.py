"""onnxruntime: CPU, CUDA and its TensorRT provider."""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from numpy.typing import NDArray

from fastface.errors import BadModelFile, ProviderUnavailable
from fastface.runtime import cuda_driver
from fastface.runtime.backends import Arrays, Request, one_line
from fastface.runtime.providers import ORT_NAMES

if TYPE_CHECKING:
    import onnxruntime

#: Work that must be where it was asked for. Shapes and indices are computed on the host by every runtime.
_HEAVY: Final = ("Conv", "ConvTranspose", "MatMul", "Gemm", "Einsum", "InstanceNormalization", "Resize")
#: Which operators run where, in newer onnxruntimes; older ones can only refuse all of the CPU.
_ASSIGNMENT: Final = "get_provider_graph_assignment_info"
#: onnxruntime's exceptions that speak of the model and not of the machine.
_MODEL_FAULTS: Final = ("InvalidGraph", "InvalidProtobuf", "InvalidArgument", "NotImplemented")


class OnnxRuntime:
    """A model in onnxruntime. ``names`` are ours, of ``ORT_NAMES``: the first runs, later ones fill in."""

    def __init__(self, request: Request, names: Sequence[str]) -> None:
        import onnxruntime

        self._check_precision(request, names[0])
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = request.threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 4  # what goes wrong comes as an exception
        options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
        if "cpu" not in names and not hasattr(onnxruntime.InferenceSession, _ASSIGNMENT):
            options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        asked = [(ORT_NAMES[name], _options(name, request)) for name in names]
        try:
            for library in request.custom_ops:
                options.register_custom_ops_library(str(library))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # a provider left out is an error below
                session = onnxruntime.InferenceSession(str(request.model.path), options, providers=asked)
        except Exception as error:  # onnxruntime's exceptions have no common base but this one
            # On a GPU most failures are of libraries that are missing or do not match.
            model_at_fault = names[0] == "cpu" or type(error).__name__ in _MODEL_FAULTS
            kind = BadModelFile if model_at_fault else ProviderUnavailable
            raise kind(f"{request.model.path}: onnxruntime refuses it: {one_line(error)}") from None
        self._session = session
        self._names = list(names)
        self._verify(request.model.path)
        self.precision = self._precision(request, names[0])
        self.words = self._words(onnxruntime.__version__, request.threads)
        self._outputs = [output.name for output in session.get_outputs()]
        self._lock = threading.Lock()
        self._bound = _Bound(session, "cuda") if names[0] != "cpu" else None

    def run(self, inputs: Mapping[str, NDArray[Any]], outputs: Sequence[str]) -> Arrays:
        """One batch. Raises ``BadModelFile`` when the graph cannot be computed."""
        try:
            if self._bound is not None:
                with self._lock:
                    return self._bound.run(inputs, outputs)
            return dict(zip(outputs, self._session.run(list(outputs), dict(inputs)), strict=True))
        except Exception as error:
            raise BadModelFile(f"{self.words}: the model fails to run: {one_line(error)}") from None

    def run_dlpack(self, inputs: Mapping[str, Any]) -> dict[str, onnxruntime.OrtValue]:
        """One batch without a copy: objects with ``__dlpack__`` on the session's device in, such out."""
        import onnxruntime

        binding = self._session.io_binding()
        try:
            values = {name: onnxruntime.OrtValue.from_dlpack(value) for name, value in inputs.items()}
            for name, value in values.items():
                binding.bind_ortvalue_input(name, value)
            for name in self._outputs:
                binding.bind_output(name, "cpu" if self._bound is None else "cuda")
            with self._lock:
                self._session.run_with_iobinding(binding)
            found = dict(zip(self._outputs, binding.get_outputs(), strict=True))
        except Exception as error:
            raise BadModelFile(f"{self.words}: the model fails to run: {one_line(error)}") from None
        return found

    @staticmethod
    def _check_precision(request: Request, name: str) -> None:
        if request.precision in (None, "fp32") or name == "tensorrt":
            return
        raise ProviderUnavailable(
            f"onnxruntime {name} computes in the precision that the file is in: precision "
            f"{request.precision} wants the provider openvino or tensorrt, or a file exported in it"
        )

    @staticmethod
    def _precision(request: Request, name: str) -> str:
        if name == "tensorrt":
            return request.precision or "as stored"
        return "fp32" if name == "cpu" or request.precision else "as stored, TF32"

    def _verify(self, path: Path) -> None:
        """What onnxruntime leaves out it only mutters about: here it is an error."""
        got = self._session.get_providers()
        for name in self._names:
            if ORT_NAMES[name] not in got:
                raise ProviderUnavailable(f"{name}: onnxruntime could not start it and would run {got[0]}")
        assignment = getattr(self._session, _ASSIGNMENT, None)
        if "cpu" in self._names or assignment is None:
            return
        strays = [
            node.op_type
            for part in assignment()
            if part.ep_name == ORT_NAMES["cpu"]
            for node in part.get_nodes()
            if node.op_type in _HEAVY
        ]
        if strays:
            kinds = ", ".join(sorted(set(strays)))
            raise ProviderUnavailable(
                f"{path}: {self._names[0]} cannot run {len(strays)} of its operators ({kinds}), which would "
                f"fall back to the CPU; allow it with providers={[*self._names, 'cpu']}"
            )

    def _words(self, version: str, threads: int) -> str:
        first = {"cpu": "CPU", "cuda": "CUDA", "tensorrt": "TensorRT"}[self._names[0]]
        where = f"{threads} thread{'s' if threads > 1 else ''}"
        if self._names[0] != "cpu":
            where = cuda_driver.devices()[0].name
        return f"onnxruntime {version} {first}, {self.precision}, {where}"


def _options(name: str, request: Request) -> dict[str, str]:
    if name == "cuda":
        # A search for the best convolution pays off at once here: few shapes, many runs.
        tf32 = "0" if request.precision == "fp32" else "1"
        return {"cudnn_conv_algo_search": "EXHAUSTIVE", "use_tf32": tf32}
    if name != "tensorrt":
        return {}
    cache = _cache_folder()
    options = {
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": str(cache),
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": str(cache),
        "trt_fp16_enable": "1" if request.precision == "fp16" else "0",
        "trt_bf16_enable": "1" if request.precision == "bf16" else "0",
    }
    for key, batch in (("min", 1), ("opt", request.max_batch), ("max", request.max_batch)):
        shapes = [
            f"{tensor}:{'x'.join(str(batch if isinstance(d, str) else d) for d in spec.shape)}"
            for tensor, spec in request.model.inputs.items()
            if any(isinstance(d, str) for d in spec.shape)
        ]
        if shapes:  # one engine for every batch, instead of a new one at each
            options[f"trt_profile_{key}_shapes"] = ",".join(shapes)
    return options


def _cache_folder() -> Path:
    """Where engines are kept: onnxruntime keys them by model, GPU and TensorRT version."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(base) / "fastface" / "onnxruntime-tensorrt"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


class _Bound:
    """Runs on a GPU with inputs and outputs in pinned memory where this onnxruntime offers it.

    Pinned buffers are kept by name and shape; copies to and from the device then need no staging.
    Written against onnxruntime-gpu 1.31's interface; no test here has a GPU.
    """

    def __init__(self, session: onnxruntime.InferenceSession, device: str) -> None:
        self._session, self._device = session, device
        self._pinned: dict[tuple[str, tuple[int, ...]], onnxruntime.OrtValue] = {}
        self._memory = self._host_accessible()

    def run(self, inputs: Mapping[str, NDArray[Any]], outputs: Sequence[str]) -> Arrays:
        binding = self._session.io_binding()
        for name, array in inputs.items():
            held = self._buffer(name, array)
            if held is None:
                binding.bind_cpu_input(name, array)
            else:
                held.numpy()[...] = array
                binding.bind_ortvalue_input(name, held)
        for name in outputs:
            binding.bind_output(name, self._device)
        self._session.run_with_iobinding(binding)
        return dict(zip(outputs, binding.copy_outputs_to_cpu(), strict=True))

    def _host_accessible(self) -> Any:
        import onnxruntime

        try:
            for device in onnxruntime.get_ep_devices():
                if device.ep_name == self._session.get_providers()[0]:
                    return device.memory_info(onnxruntime.OrtDeviceMemoryType.HOST_ACCESSIBLE)
        except AttributeError:  # an older onnxruntime: pageable memory does
            pass
        return None

    def _buffer(self, name: str, array: NDArray[Any]) -> onnxruntime.OrtValue | None:
        import onnxruntime

        if self._memory is None:
            return None
        key = (name, array.shape)
        if key not in self._pinned:
            self._pinned[key] = onnxruntime.OrtValue.ortvalue_from_shape_and_type(
                array.shape, array.dtype.type, memory_info=self._memory
            )
        return self._pinned[key]
