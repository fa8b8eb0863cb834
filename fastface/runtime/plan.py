"""What is known of a TensorRT engine (``net.plan``): the record beside it, ``net.plan.json``.

An engine belongs to the GPU, the TensorRT version and the model that it was built for. The record names them,
so that a stale engine is told from a good one before TensorRT opens it. An engine is native code: load only
what you built.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from fastface.atomic import write_whole
from fastface.errors import BadModelFile
from fastface.runtime.onnx_file import OnnxFile, TensorSpec

FORMAT: Final = "fastface-plan"
VERSION: Final = 1


@dataclass(frozen=True)
class PlanRecord:
    """library: "tensorrt" or "tensorrt_rtx", with its version. gpu: the device it was built on, or "" for
    engines of tensorrt_rtx, which are built for ``targets`` such as SM89. batch: the smallest, best and
    largest B. plugins: what it holds of operators that are not TensorRT's own. inputs, outputs: name →
    [shape, dtype]."""

    library: str
    library_version: str
    gpu: str
    targets: list[str]
    model_sha256: str
    batch: list[int]
    plan_sha256: str = ""
    plugins: str = ""
    inputs: dict[str, Any] = field(default_factory=dict)
    outputs: dict[str, Any] = field(default_factory=dict)
    metadata: dict[str, Any] = field(default_factory=dict)

    def differences(self, other: PlanRecord) -> list[str]:
        """Why an engine with this record cannot stand for the other one; [] when it can."""
        names = {
            "library": "runtime",
            "library_version": "TensorRT version",
            "gpu": "GPU",
            "targets": "target GPUs",
            "model_sha256": "model",
            "plugins": "plug-ins",
            "batch": "batch range",
        }
        return [
            f"{words}: built for {_short(getattr(self, name))}, now {_short(getattr(other, name))}"
            for name, words in names.items()
            if getattr(self, name) != getattr(other, name)
        ]

    def write(self, plan: Path) -> None:
        """Write the record beside the engine. Raises ``WriteFailed``."""
        record = {"format": FORMAT, "version": VERSION, **asdict(self)}
        write_whole(record_path(plan), (json.dumps(record, indent=1) + "\n").encode())

    def model(self, plan: Path) -> OnnxFile:
        """The engine's inputs, outputs and metadata, as a model file's."""
        return OnnxFile(
            plan, inputs=_specs(self.inputs), outputs=_specs(self.outputs), metadata=self.metadata
        )


def record_path(plan: Path) -> Path:
    """Where the record of an engine lies."""
    return plan.with_name(plan.name + ".json")


def read_record(plan: Path) -> PlanRecord:
    """The record beside an engine. Raises ``BadModelFile`` when there is none, or it is damaged."""
    path = record_path(plan)
    try:
        record = json.loads(path.read_bytes())
        if record.pop("format") != FORMAT or record.pop("version") != VERSION:
            raise ValueError("another format")
        found = PlanRecord(**record)
        for name, kind in (("batch", list), ("targets", list), ("inputs", dict), ("outputs", dict)):
            if not isinstance(getattr(found, name), kind):
                raise ValueError(f"{name} is no {kind.__name__}")
        if len(found.batch) != 3 or not all(isinstance(b, int) and 1 <= b <= 4096 for b in found.batch):
            raise ValueError("batch is not three sizes")
        _specs(found.inputs), _specs(found.outputs)
    except FileNotFoundError:
        raise BadModelFile(
            f"{plan}: no record {path.name} beside it; engines come from `fastface export tensorrt`"
        ) from None
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise BadModelFile(f"{path}: no record of an engine, or damaged ({error})") from None
    return found


def checked_plan(plan: Path) -> tuple[PlanRecord, bytes]:
    """An engine with its record, the one the other belongs to. Raises ``BadModelFile``."""
    try:
        data = plan.read_bytes()
    except OSError as error:
        raise BadModelFile(f"{plan}: cannot be read ({error.strerror})") from None
    record = read_record(plan)
    if hashlib.sha256(data).hexdigest() != record.plan_sha256:
        raise BadModelFile(f"{plan}: is not the engine that its record {record_path(plan).name} describes")
    return record, data


def model_sha256(model: OnnxFile) -> str:
    """SHA-256 of a model with all its weights, in hex."""
    digest = hashlib.sha256()
    for path in (model.path, *sorted(model.external)):
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def _short(value: object) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return text if len(text) < 40 else text[:16] + "…"


def _specs(entries: dict[str, Any]) -> dict[str, TensorSpec]:
    return {name: TensorSpec(tuple(shape), np.dtype(dtype)) for name, (shape, dtype) in entries.items()}
