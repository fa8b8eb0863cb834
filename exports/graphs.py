"""What the exporters share: a module becomes one ONNX file, and the file is compared with a module.

A generator is a list of ``Part``s, one file each. Every kind of generator has a module here with

    parts(checkpoint, precision="fp32", **options) -> list[Part]

whose parts hold the weights of the checkpoint, in the form that runs best. ``verify`` compares a file with
the parts that ``reference_parts(checkpoint, **options)`` of the same module gives: the plain definitions, in
fp32.

Files: opset 17 (22 for bfloat16, whose convolutions are not in the standard before), the first axis of every
input and output but scalars is the batch "B", inputs and outputs are float32 (int64 for indices) whatever the
precision inside, no external data, ``metadata_props["fastface"]`` is JSON.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fastface.atomic import write_whole
from fastface.checkpoints.unpickling import shown
from fastface.errors import BadArgument, BadModelFile
from fastface.exports.tracing import shapes_suffice
from fastface.version import package_version

Precision = Literal["fp32", "fp16", "bf16"]
PRECISIONS: Final[dict[str, torch.dtype]] = {
    "fp32": torch.float32,
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
}
OPSET: Final = 17
#: The first opset whose Conv and ConvTranspose take bfloat16.
OPSET_BF16: Final = 22
METADATA_KEY: Final = "fastface"


@dataclass(frozen=True)
class Part:
    """One graph of a generator.

    ``example(batch, random)`` gives its inputs by name, in the order of ``module.forward``. ``scalars`` names
    those that have no batch axis. ``about`` joins the file's metadata.
    """

    name: str
    module: nn.Module
    example: Callable[[int, torch.Generator], dict[str, Tensor]]
    outputs: tuple[str, ...]
    scalars: frozenset[str] = frozenset()
    about: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Difference:
    """The worst disagreement of one output between a file and the definition."""

    part: str
    output: str
    worst: float
    #: Largest magnitude of the definition's output, so that the error can be read.
    scale: float
    provider: str


def load_strictly(module: nn.Module, tensors: Mapping[str, NDArray[Any]], source: str) -> None:
    """Give a module all its parameters and buffers.

    Raises ``BadModelFile`` naming what is missing, of another shape, or not known.
    """
    wanted = module.state_dict()
    missing = [name for name in wanted if name not in tensors]
    unknown = [name for name in tensors if name not in wanted]
    if missing or unknown:
        texts = [f"{_some(missing)} missing"] * bool(missing) + [f"{_some(unknown)} not known"] * bool(
            unknown
        )
        raise BadModelFile(f"{source}: {'; '.join(texts)}")
    for name, tensor in wanted.items():
        if tensors[name].shape != tuple(tensor.shape):
            raise BadModelFile(
                f"{source}: {name} has shape {tensors[name].shape}, wanted {tuple(tensor.shape)}"
            )
    # A copy: what is read from a file cannot be written to.
    module.load_state_dict({name: torch.from_numpy(np.array(tensors[name])) for name in wanted}, strict=True)


def _some(names: list[str]) -> str:
    more = f" and {len(names) - 4} more" if len(names) > 4 else ""
    return ", ".join(shown(name) for name in names[:4]) + more


def part_path(output: str | Path, part: str) -> Path:
    """net.onnx, "mapping" → net.mapping.onnx."""
    path = Path(output)
    stem = path.name.removesuffix(".onnx")
    return path.with_name(f"{stem}.{part}.onnx")


class InPrecision(nn.Module):
    """A module whose insides run in a shorter float; its inputs and outputs stay float32.

    Submodules of a type in ``keep`` (those that sum many squares, such as norms) stay float32.
    """

    def __init__(
        self, module: nn.Module, precision: Precision, keep: tuple[type[nn.Module], ...] = ()
    ) -> None:
        super().__init__()
        self.module = module.to(PRECISIONS[precision])
        self._dtype = PRECISIONS[precision]
        for part in self.module.modules():
            if keep and isinstance(part, keep):
                part.float()
                part.register_forward_pre_hook(_widen)
                part.register_forward_hook(self._narrow)

    def _narrow(self, _: nn.Module, __: Any, output: Tensor) -> Tensor:
        return output.to(self._dtype)

    def forward(self, *inputs: Tensor) -> Any:
        lowered = [value.to(self._dtype) if value.is_floating_point() else value for value in inputs]
        made = self.module(*lowered)
        return tuple(value.float() for value in made) if isinstance(made, tuple) else made.float()


def _widen(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(value.float() for value in inputs)


def export_part(
    part: Part,
    output: str | Path,
    *,
    kind: str,
    checkpoint_sha256: str,
    precision: Precision = "fp32",
    options: Mapping[str, Any] | None = None,
) -> Path:
    """Write one part beside ``output`` (see ``part_path``), whole or not at all. Raises ``WriteFailed``."""
    model = to_onnx(part, OPSET_BF16 if precision == "bf16" else OPSET)
    about = {
        "kind": kind,
        "part": part.name,
        **part.about,
        "precision": precision,
        "options": dict(options or {}),
        "checkpoint_sha256": checkpoint_sha256,
        "version": package_version(),
    }
    entry = model.metadata_props.add()
    entry.key, entry.value = METADATA_KEY, json.dumps(about, sort_keys=True)
    model.producer_name, model.producer_version = "fastface", package_version()
    path = part_path(output, part.name)
    write_whole(path, model.SerializeToString(deterministic=True))
    return path


def to_onnx(part: Part, opset: int) -> Any:
    """The part as an ``onnx.ModelProto`` that its checker accepts."""
    import onnx

    example = part.example(2, torch.Generator().manual_seed(0))
    axes = {name: {0: "B"} for name in (*example, *part.outputs) if name not in part.scalars}
    module = part.module.eval()
    with tempfile.TemporaryDirectory() as folder, torch.no_grad(), warnings.catch_warnings():
        # The tracing exporter is the one that needs no further package; torch says that it is the older one.
        warnings.simplefilter("ignore")
        file = Path(folder) / "graph.onnx"
        with shapes_suffice(module):
            torch.onnx.export(
                module,
                tuple(example.values()),
                str(file),
                dynamo=False,
                opset_version=OPSET,
                input_names=list(example),
                output_names=list(part.outputs),
                dynamic_axes=axes,
            )
        model = onnx.load(str(file))
    if opset != OPSET:
        model = onnx.version_converter.convert_version(model, opset)
    # The shapes of what lies between are no use to a runtime and make the file depend on torch's inference.
    del model.graph.value_info[:]
    _use_weights_themselves(model.graph)
    onnx.checker.check_model(model)
    return model


def _use_weights_themselves(graph: Any) -> None:
    """Take out copies of weights: torch writes equal ones once and an Identity for each other, at which
    onnxruntime's optimizer stumbles (1.31: "not a graph input, initializer, or output of a previous node").
    """
    weights = {weight.name for weight in graph.initializer}
    shown = {output.name for output in graph.output}
    copies = {
        node.output[0]: node
        for node in graph.node
        if node.op_type == "Identity" and node.input[0] in weights and node.output[0] not in shown
    }
    for copy in copies.values():
        graph.node.remove(copy)
    for node in graph.node:
        for index, name in enumerate(node.input):
            if name in copies:
                node.input[index] = copies[name].input[0]


def read_metadata(path: str | Path) -> dict[str, Any]:
    """The ``fastface`` metadata of an ONNX file. Raises ``BadModelFile``."""
    import onnx

    try:
        model = onnx.load(str(path), load_external_data=False)
    except OSError as error:
        raise BadModelFile(f"{path}: cannot be read ({error.strerror or error})") from error
    except Exception as error:  # protobuf's own
        raise BadModelFile(f"{path}: not an ONNX file, or truncated") from error
    for entry in model.metadata_props:
        if entry.key == METADATA_KEY:
            try:
                about = json.loads(entry.value)
            except ValueError as error:
                raise BadModelFile(f"{path}: its metadata is damaged") from error
            if isinstance(about, dict):
                return about
    raise BadModelFile(f"{path}: an ONNX file, but not one that fastface exported")


def file_sha256(path: str | Path) -> str:
    """SHA-256 of a file, in hex."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def verify_part(
    path: str | Path, part: Part, *, seed: int = 0, batches: Sequence[int] = (1, 2)
) -> list[Difference]:
    """Run a file and a definition on the same random inputs; the worst difference of each output.

    Raises ``BadModelFile`` when the file cannot be run or gives something of another shape or not finite.
    """
    run, provider = _runner(Path(path))
    worst = dict.fromkeys(part.outputs, 0.0)
    scale = dict.fromkeys(part.outputs, 0.0)
    for batch in batches:
        example = part.example(batch, torch.Generator().manual_seed(seed + batch))
        with torch.no_grad():
            wanted = part.module.eval()(*example.values())
        wanted = wanted if isinstance(wanted, tuple) else (wanted,)
        got = run({name: value.numpy() for name, value in example.items()})
        for name, tensor in zip(part.outputs, wanted, strict=True):
            expected = tensor.float().numpy()
            made = got.get(name)
            if made is None or made.shape != expected.shape:
                shape = "nothing" if made is None else made.shape
                raise BadModelFile(f"{path}: output {name} is {shape}, wanted {expected.shape}")
            if not np.isfinite(made).all():
                raise BadModelFile(f"{path}: output {name} is not finite")
            worst[name] = max(worst[name], float(np.abs(made - expected).max(initial=0.0)))
            scale[name] = max(scale[name], float(np.abs(expected).max(initial=0.0)))
    return [Difference(part.name, name, worst[name], scale[name], provider) for name in part.outputs]


Runner = Callable[[dict[str, NDArray[Any]]], dict[str, NDArray[Any]]]


def _runner(path: Path) -> tuple[Runner, str]:
    """onnxruntime on the processor; OpenVINO for what that has no kernels for (bfloat16)."""
    import onnxruntime

    onnxruntime.set_default_logger_severity(3)
    try:
        options = onnxruntime.SessionOptions()
        options.enable_cpu_mem_arena = False  # the definition needs the memory, too
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime has a family of its own
        if "bfloat16" not in str(error) and "NOT_IMPLEMENTED" not in str(error):
            raise BadModelFile(f"{path}: onnxruntime does not run it ({str(error)[:200]})") from error
        return _openvino_runner(path, str(error)), "OpenVINO CPU"
    names = [output.name for output in session.get_outputs()]
    wanted = {entry.name for entry in session.get_inputs()}

    def run(inputs: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        if set(inputs) != wanted:
            raise BadModelFile(f"{path}: takes {sorted(wanted)}, the definition {sorted(inputs)}")
        return dict(zip(names, session.run(names, inputs), strict=True))

    return run, "onnxruntime CPU"


def _openvino_runner(path: Path, why: str) -> Runner:
    try:
        import openvino
    except ImportError as error:
        raise BadArgument(
            f"{path}: onnxruntime has no kernels for it on this processor ({why[:120]}); "
            "pip install 'fastface[openvino]'"
        ) from error
    compiled = openvino.Core().compile_model(str(path), "CPU")

    def run(inputs: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        made = compiled(inputs)
        # A tensor may have several names, one of them the output's.
        return {name: np.asarray(value) for port, value in made.items() for name in port.get_names()}

    return run
