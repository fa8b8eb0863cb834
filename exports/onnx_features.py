"""Any feed-forward ONNX network as the feature distance of a projection: read with ``onnx``, computed by
torch, so that gradients reach the image. No TorchScript, no torchvision, no code from the file: its nodes are
looked up in the table below, and one that is not there is an error.

Features are the tensors before each pooling, where a network has said all it says at that size, or the ones
that are named.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

import fastface
from fastface.errors import BadArgument, BadModelFile
from fastface.generators.scorers import ImageInput, read_description

#: Our own landmark network: its features tell where eyes, brows and lips are and what shape they have.
LANDMARKS: Final = "landmarks"
_LANDMARK_NETWORK: Final = Path(fastface.__file__).parent / "assets" / "landmarks" / "landmarks478.onnx"
_POOLING: Final = ("MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool")
_MAX_BYTES: Final = 1 << 30
Inputs = list[Any]
Attributes = dict[str, Any]


class OnnxFeatures:
    """Images (1, 3, R, R) in about [-1, 1] → feature maps. ``taps``: names of tensors in the graph."""

    def __init__(
        self, path: str | Path, taps: Sequence[str] = (), device: str | torch.device = "cpu"
    ) -> None:
        """path: an ``.onnx`` file, a JSON description of one (``docs/latents.md``), or "landmarks".

        Raises ``BadModelFile``, ``BadArgument``, and for a missing onnx package ``BadArgument``.
        """
        from fastface.exports.graphs import file_sha256

        if str(path) == LANDMARKS:
            model_path, self._input = _LANDMARK_NETWORK, _landmark_input()
            input_name = "image"
        else:
            described = read_description(path)
            model_path, self._input, input_name = described.model, described.image, described.input_name
        graph = _read(model_path)
        self._device = torch.device(device)
        self._nodes = list(graph.node)
        self._input_name = input_name
        self._constants = {entry.name: self._constant(entry) for entry in graph.initializer}
        for node in self._nodes:
            if node.op_type not in OPERATORS or node.domain not in ("", "ai.onnx"):
                raise BadModelFile(
                    f"{model_path}: features cannot be taken from a network with the operator "
                    f"{node.op_type!r:.40}; there are {', '.join(sorted(OPERATORS))}"
                )
        produced = {name for node in self._nodes for name in node.output}
        for tap in taps:
            if tap not in produced:
                raise BadArgument(f"{model_path}: computes no tensor {tap!r:.60}")
        pooled = [node.input[0] for node in self._nodes if node.op_type in _POOLING]
        self._taps = list(taps) or list(dict.fromkeys(pooled)) or [entry.name for entry in graph.output]
        self.name = f"{model_path.name} {file_sha256(model_path)[:16]} {' '.join(self._taps)}"

    def __call__(self, image: Tensor) -> list[Tensor]:
        values: dict[str, Any] = {**self._constants, self._input_name: prepare(image, self._input)}
        wanted = set(self._taps)
        for node in self._nodes:
            attributes = {entry.name: _attribute(entry) for entry in node.attribute}
            try:
                made = OPERATORS[node.op_type](
                    [values[name] if name else None for name in node.input], attributes
                )
            except (RuntimeError, IndexError, KeyError, TypeError, ValueError) as error:
                raise BadModelFile(
                    f"features: {node.op_type} {node.name!r:.40} cannot be computed ({str(error)[:120]})"
                ) from error
            values[node.output[0]] = made
            wanted.discard(node.output[0])
            if not wanted:
                break
        return [values[name] for name in self._taps]

    def _constant(self, entry: Any) -> Any:
        import onnx

        array = np.array(onnx.numpy_helper.to_array(entry))
        if array.dtype.kind == "f":
            return torch.from_numpy(array.astype(np.float32)).to(self._device)
        return array  # shapes, axes, paddings


def _landmark_input() -> ImageInput:
    # A head in the generators' crop fills about the share of the square that the network's own crops give it.
    return ImageInput(
        size=256, layout="NHWC", mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0), crop=(0.09, 0.14, 0.91, 0.96)
    )


def prepare(image: Tensor, wanted: ImageInput) -> Tensor:
    """The image as a network takes it; what ``ImageInput.prepare`` does, with gradients."""
    side = image.shape[2]
    left, top, right, bottom = (round(share * side) for share in wanted.crop)
    part = image[:, :, top : max(bottom, top + 1), left : max(right, left + 1)]
    size = (wanted.size, wanted.size)
    part = functional.interpolate(part, size, mode="bilinear", antialias=True, align_corners=False)
    mean, std = (
        torch.tensor(values, device=image.device)[:, None, None] for values in (wanted.mean, wanted.std)
    )
    part = (part * 0.5 + 0.5 - mean) / std
    if wanted.channels == "BGR":
        part = part.flip(1)
    return part.permute(0, 2, 3, 1) if wanted.layout == "NHWC" else part


def _read(path: Path) -> Any:
    try:
        import onnx
    except ImportError:
        raise BadArgument("features from ONNX need onnx: pip install 'fastface[export]'") from None
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise BadModelFile(f"{path}: more than {_MAX_BYTES >> 30} GiB")
        return onnx.load(str(path), load_external_data=False).graph
    except OSError as error:
        raise BadModelFile(f"{path}: cannot be read ({error.strerror or error})") from None
    except BadModelFile:
        raise
    except Exception as error:  # protobuf's own
        raise BadModelFile(f"{path}: not an ONNX file, or truncated") from error


def _attribute(entry: Any) -> Any:
    import onnx

    return onnx.helper.get_attribute_value(entry)


# --- the operators: (inputs, attributes) → output, after https://onnx.ai/onnx/operators ---


def _conv(x: Inputs, a: Attributes) -> Any:
    image, weight = x[0], x[1]
    bias = x[2] if len(x) > 2 else None
    if (
        weight.shape[1:] == (1, 1, 1)
        and weight.shape[0] == a.get("group", 1) == image.shape[1]
        and bias is None
    ):
        return (
            image * weight[:, 0]
        )  # one factor a channel: many times as quick as torch's grouped convolution
    axes = weight.ndim - 2
    strides, dilations = a.get("strides", [1] * axes), a.get("dilations", [1] * axes)
    taps = [(size - 1) * dilation + 1 for size, dilation in zip(weight.shape[2:], dilations, strict=True)]
    image = functional.pad(image, _window_padding(a, image, taps, strides))
    return functional.conv2d(image, weight, bias, strides, 0, dilations, a.get("group", 1))


def _window_padding(a: Attributes, image: Tensor, taps: Sequence[int], strides: Sequence[int]) -> list[int]:
    """In torch's order: left, right, top, bottom."""
    mode = a.get("auto_pad", b"NOTSET").decode()
    if mode in ("SAME_UPPER", "SAME_LOWER"):
        found = []
        for size, length, stride in zip(image.shape[2:], taps, strides, strict=True):
            whole = max((-(-size // stride) - 1) * stride + length - size, 0)
            small, large = whole // 2, whole - whole // 2
            found.append((small, large) if mode == "SAME_UPPER" else (large, small))
        return [amount for pair in reversed(found) for amount in pair]
    top, left, bottom, right = a.get("pads", [0, 0, 0, 0])
    return [left, right, top, bottom]


def _pool(x: Inputs, a: Attributes, *, largest: bool) -> Any:
    taps = a["kernel_shape"]
    strides = a.get("strides", [1] * len(taps))
    padding = _window_padding(a, x[0], taps, strides)
    ceil = bool(a.get("ceil_mode", 0))
    if largest:
        return functional.max_pool2d(
            functional.pad(x[0], padding, value=float("-inf")), taps, strides, ceil_mode=ceil
        )
    if any(padding) and not a.get("count_include_pad", 0):
        ones = functional.pad(torch.ones_like(x[0]), padding)
        summed = functional.avg_pool2d(functional.pad(x[0], padding), taps, strides, ceil_mode=ceil)
        return summed / functional.avg_pool2d(ones, taps, strides, ceil_mode=ceil)
    return functional.avg_pool2d(functional.pad(x[0], padding), taps, strides, ceil_mode=ceil)


def _pad(x: Inputs, a: Attributes) -> Any:
    if a.get("mode", b"constant") != b"constant":
        raise ValueError("padding other than by a constant")
    amounts = [int(amount) for amount in (x[1] if len(x) > 1 else a["pads"])]
    axes = len(amounts) // 2
    pairs = [pair for axis in reversed(range(axes)) for pair in (amounts[axis], amounts[axis + axes])]
    value = float(x[2]) if len(x) > 2 and x[2] is not None else 0.0
    return functional.pad(x[0], pairs, value=value)


def _reshape(x: Inputs, _: Attributes) -> Any:
    shape = [x[0].shape[n] if size == 0 else int(size) for n, size in enumerate(x[1])]
    return x[0].reshape(shape)


def _cast(x: Inputs, a: Attributes) -> Any:
    # Whatever float a file is kept in, it is computed in float32.
    return (
        x[0] if isinstance(x[0], Tensor) or a["to"] in (6, 7) else torch.as_tensor(x[0], dtype=torch.float32)
    )


def _norm(x: Inputs, a: Attributes) -> Any:
    image, scale, bias, mean, variance = x
    return functional.batch_norm(image, mean, variance, scale, bias, eps=a.get("epsilon", 1e-5))


def _gemm(x: Inputs, a: Attributes) -> Any:
    left = x[0].T if a.get("transA", 0) else x[0]
    right = x[1].T if a.get("transB", 0) else x[1]
    made = a.get("alpha", 1.0) * (left @ right)
    return made + a.get("beta", 1.0) * x[2] if len(x) > 2 and x[2] is not None else made


def _clip(x: Inputs, a: Attributes) -> Any:
    low = float(x[1]) if len(x) > 1 and x[1] is not None else a.get("min")
    high = float(x[2]) if len(x) > 2 and x[2] is not None else a.get("max")
    return x[0].clamp(low, high)


def _prelu(x: Inputs, _: Attributes) -> Any:
    return torch.where(x[0] < 0, x[0] * x[1], x[0])


def _binary(operator: Callable[[Any, Any], Any]) -> Callable[[Inputs, Attributes], Any]:
    return lambda x, _: operator(x[0], x[1])


def _unary(operator: Callable[[Tensor], Tensor]) -> Callable[[Inputs, Attributes], Any]:
    return lambda x, _: operator(x[0])


OPERATORS: Final[dict[str, Callable[[Inputs, Attributes], Any]]] = {
    "Add": _binary(lambda a, b: a + b),
    "Sub": _binary(lambda a, b: a - b),
    "Mul": _binary(lambda a, b: a * b),
    "Div": _binary(lambda a, b: a / b),
    "MatMul": _binary(lambda a, b: a @ b),
    "AveragePool": lambda x, a: _pool(x, a, largest=False),
    "BatchNormalization": _norm,
    "Cast": _cast,
    "Clip": _clip,
    "Concat": lambda x, a: torch.cat(x, dim=a["axis"]),
    "Conv": _conv,
    "Dropout": _unary(lambda x: x),
    "Flatten": lambda x, a: x[0].flatten(a.get("axis", 1)),
    "Gemm": _gemm,
    "GlobalAveragePool": _unary(lambda x: x.mean(dim=(2, 3), keepdim=True)),
    "GlobalMaxPool": _unary(lambda x: x.amax(dim=(2, 3), keepdim=True)),
    "Identity": _unary(lambda x: x),
    "LeakyRelu": lambda x, a: functional.leaky_relu(x[0], a.get("alpha", 0.01)),
    "MaxPool": lambda x, a: _pool(x, a, largest=True),
    "PRelu": _prelu,
    "Pad": _pad,
    "Relu": _unary(torch.relu),
    "Reshape": _reshape,
    "Sigmoid": _unary(torch.sigmoid),
    "Tanh": _unary(torch.tanh),
    "Transpose": lambda x, a: x[0].permute(a["perm"]),
}
