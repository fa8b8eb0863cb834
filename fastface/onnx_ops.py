"""The ops inside ONNX Runtime: where their library lies, what it offers, and sessions that know them.

``register_custom_ops_library`` of any ONNX Runtime from 1.18 on takes ``library_path()``; graphs then use the
operators of domain ``fastface``, or of ``fastface.tensorrt``: the same in the form of TensorRT's plug-ins,
which take and give bytes as int8 of the same bits. Threads are the session's own: ``intra_op_num_threads``
bounds them.
"""

from __future__ import annotations

import ctypes
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

from fastface.errors import BadArgument, BadModelFile, ProviderUnavailable

__all__ = [
    "DOMAIN",
    "PLUGIN_DOMAIN",
    "Argument",
    "Operator",
    "library_path",
    "metadata",
    "operators",
    "register",
    "session",
]

DOMAIN: Final = "fastface"
PLUGIN_DOMAIN: Final = "fastface.tensorrt"
METADATA_KEY: Final = "fastface"
_LEAST: Final = (1, 18)


@dataclass(frozen=True, slots=True)
class Argument:
    """An array of an operator. A letter in ``shape`` is a size that is the same wherever it stands.

    ``half_too``: float16 as well as ``dtype``. ``optional``: an output that need not be taken.
    """

    name: str
    shape: tuple[str, ...]
    dtype: str
    half_too: bool
    optional: bool


@dataclass(frozen=True, slots=True)
class Operator:
    """One operator, as its own description says it; ``attributes`` are names with what they are when a node
    does not say, ``op`` is its name in ``fastface.ops``."""

    name: str
    op: str
    version: int
    inputs: tuple[Argument, ...]
    outputs: tuple[Argument, ...]
    attributes: dict[str, float]


def library_path() -> Path:
    """The library of operators. Raises ``ProviderUnavailable`` where it was not built."""
    from fastface import _core

    path = Path(_core.__file__).with_name("libfastface_ort.so")
    if not path.is_file():
        raise ProviderUnavailable(f"ONNX Runtime operators: there is no {path}; install fastface anew")
    return path


@cache
def operators() -> dict[str, Operator]:
    """Every operator by the name that graphs call it."""
    describe = ctypes.CDLL(os.fspath(library_path())).fastface_operators
    describe.restype = ctypes.c_char_p

    def arguments(records: list[dict[str, Any]]) -> tuple[Argument, ...]:
        return tuple(Argument(**{**record, "shape": tuple(record["shape"].split())}) for record in records)

    made = [
        Operator(
            record["name"],
            record["op"],
            record["version"],
            arguments(record["inputs"]),
            arguments(record["outputs"]),
            {
                attribute["name"]: (int if attribute["whole"] else float)(attribute["preset"])
                for attribute in record["attributes"]
            },
        )
        for record in json.loads(describe())
    ]
    return {operator.name: operator for operator in made}


def register(options: Any) -> None:
    """Make the operators known to ``onnxruntime.SessionOptions``. Raises ``ProviderUnavailable``."""
    import onnxruntime

    if tuple(int(part) for part in onnxruntime.__version__.split(".")[:2]) < _LEAST:
        raise ProviderUnavailable(
            f"ONNX Runtime operators: wanted onnxruntime {_LEAST[0]}.{_LEAST[1]} or newer, got "
            f"{onnxruntime.__version__}"
        )
    options.register_custom_ops_library(os.fspath(library_path()))


def session(
    path: str | os.PathLike[str],
    *,
    threads: int | None = None,
    providers: Sequence[str] = ("CPUExecutionProvider",),
) -> Any:
    """An ``onnxruntime.InferenceSession`` of a graph that uses the operators, such as an exported renderer.

    ``threads``: as many as the session may use; all cores if None. Raises ``BadModelFile``, ``BadArgument``;
    ``ProviderUnavailable`` for a provider that this onnxruntime does not have.
    """
    import onnxruntime

    if threads is not None and not 1 <= threads <= 1024:
        raise BadArgument(f"threads must be 1 … 1024 or None, got {threads!r}")
    missing = [name for name in providers if name not in onnxruntime.get_available_providers()]
    if missing or not providers:
        there = ", ".join(onnxruntime.get_available_providers())
        raise ProviderUnavailable(
            f"wanted {', '.join(missing) or 'a provider'}, this onnxruntime has {there}"
        )
    if not Path(path).is_file():
        raise BadModelFile(f"{os.fspath(path)}: no such file")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or 0
    register(options)
    try:
        return onnxruntime.InferenceSession(os.fspath(path), options, providers=list(providers))
    except Exception as error:  # its own exceptions share no base but this
        raise BadModelFile(f"{os.fspath(path)}: {' '.join(str(error).split())}") from error


def metadata(opened: Any) -> dict[str, Any]:
    """What an exported graph says of itself (docs/onnx.md), from a session. Raises ``BadModelFile``."""
    text = opened.get_modelmeta().custom_metadata_map.get(METADATA_KEY)
    try:
        record = json.loads(text)
    except (TypeError, ValueError) as error:
        raise BadModelFile(f"the graph carries no metadata named {METADATA_KEY!r}: {error}") from None
    if not isinstance(record, dict):
        raise BadModelFile(f"the graph's metadata must be an object, got {type(record).__name__}")
    return record
