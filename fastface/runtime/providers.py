"""What can run a network here: providers by name, whether they are there, and how to get them."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Final, Literal, get_args

from fastface.errors import BadArgument, ProviderUnavailable
from fastface.runtime import cuda_driver

Precision = Literal["fp32", "bf16", "fp16"]
PRECISIONS: Final[tuple[str, ...]] = get_args(Precision)

#: Fastest first: the order in which they are tried when nobody asks for one.
NAMES: Final = ("tensorrt", "cuda", "openvino", "cpu")
#: onnxruntime's own names, of those providers that it runs.
ORT_NAMES: Final = {
    "tensorrt": "TensorrtExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "cpu": "CPUExecutionProvider",
}
_ALIASES: Final = {value.casefold(): key for key, value in ORT_NAMES.items()}
_ADVICE: Final = {
    "tensorrt": "pip install 'onnxruntime-gpu>=1.20' 'tensorrt-cu13>=10,<11' (in the place of onnxruntime)",
    "cuda": "pip uninstall onnxruntime; pip install 'fastface[cuda]'",
    "openvino": "pip install 'fastface[openvino]'",
    "cpu": "pip install onnxruntime",
}


@dataclass(frozen=True, slots=True)
class Provider:
    """``missing`` is "" for one that is there, else what it lacks; ``advice`` says how to get it."""

    name: str
    missing: str
    advice: str


@lru_cache(maxsize=1)
def provider_table() -> dict[str, Provider]:
    """Every provider by name, fastest first."""
    found = {}
    for name, lack in zip(NAMES, (_no_tensorrt(), _no_cuda(), _no_openvino(), ""), strict=True):
        found[name] = Provider(name, lack, _ADVICE[name] if lack else "")
    return found


def _no_cuda() -> str:
    import onnxruntime

    if ORT_NAMES["cuda"] not in onnxruntime.get_available_providers():
        return f"this onnxruntime {onnxruntime.__version__} was built without CUDA"
    try:
        cuda_driver.library()
    except ProviderUnavailable as error:
        return str(error)
    return ""


def _no_tensorrt() -> str:
    import onnxruntime

    if lack := _no_cuda():
        return lack
    if ORT_NAMES["tensorrt"] not in onnxruntime.get_available_providers():
        return f"this onnxruntime {onnxruntime.__version__} was built without TensorRT"
    try:
        if find_spec("tensorrt_libs") is None:
            ctypes.CDLL("nvinfer_10.dll" if os.name == "nt" else "libnvinfer.so.10")
    except OSError:
        return "TensorRT 10 (libnvinfer.so.10) is not installed"
    return ""


def _no_openvino() -> str:
    return "" if find_spec("openvino") else "openvino is not installed"


def checked(asked: Sequence[str] | None) -> list[str] | None:
    """The names asked for, ours or onnxruntime's, as ours, each once. Raises ``BadArgument`` and, when one is
    not there, ``ProviderUnavailable``."""
    if asked is None:
        return None
    if isinstance(asked, str) or not isinstance(asked, Sequence) or not asked:
        raise BadArgument(f"providers: wanted a list of names such as ['openvino'], got {asked!r:.60}")
    names = []
    for word in asked:
        name = _ALIASES.get(str(word).casefold(), str(word).casefold())
        if name not in NAMES:
            raise BadArgument(f"providers: {word!r:.40} is none; there are {', '.join(NAMES)}")
        if name not in names:
            names.append(name)
    for name in names:
        require(name)
    if "openvino" in names and len(names) > 1:
        raise BadArgument("providers: openvino runs whole graphs by itself; name it alone")
    return names


def require(name: str) -> None:
    """Raise ``ProviderUnavailable``, with what is there and how to get it, unless the provider is there."""
    provider = provider_table()[name]
    if provider.missing:
        there = ", ".join(key for key, value in provider_table().items() if not value.missing)
        raise ProviderUnavailable(
            f"{name}: {provider.missing}. Installed: {there}. To get it: {provider.advice}"
        )


def available_cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@lru_cache(maxsize=1)
def bf16_instructions() -> str:
    """Which bfloat16 instructions this CPU has: "AMX", "AVX512_BF16" or ""; of Linux's word."""
    try:
        text = Path("/proc/cpuinfo").read_text(errors="replace")
    except OSError:
        return ""
    flags = next((line.split() for line in text.splitlines() if line.startswith("flags")), [])
    return "AMX" if "amx_bf16" in flags else "AVX512_BF16" if "avx512_bf16" in flags else ""
