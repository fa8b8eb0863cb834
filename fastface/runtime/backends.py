"""What every runtime behind a ``Session`` offers, and what it is asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from numpy.typing import NDArray

from fastface.runtime.onnx_file import OnnxFile
from fastface.runtime.providers import Precision

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Request:
    """How to run which model."""

    model: OnnxFile
    precision: Precision | None
    threads: int
    max_batch: int
    custom_ops: tuple[Path, ...] = ()


class Backend(Protocol):
    """A model, ready to run. ``words`` says what runs it, with version and precision."""

    words: str
    precision: str

    def run(self, inputs: Mapping[str, NDArray[Any]], outputs: Sequence[str]) -> Arrays:
        """One batch: checked, C-contiguous arrays in, arrays of the caller's own out: those named."""
        ...


def one_line(error: object, limit: int = 300) -> str:
    """What a runtime says of a failure, without its line breaks and stack."""
    return " ".join(str(error).split())[:limit]
