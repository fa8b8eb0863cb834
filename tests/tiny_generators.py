"""Small seeded generators in the exporters' file format, made of ONNX operators alone: no torch is needed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

RESOLUTION = 16
LAYERS, W_DIM, CHANNELS = 4, 32, 8


class Graph:
    """A graph under construction; every call adds one operator and returns its output's name."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.nodes: list[Any] = []
        self.weights: list[Any] = []

    def op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        name = f"{kind}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], name, **attributes))
        return name

    def weight(self, values: Any) -> str:
        name = f"weight_{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(values), name))
        return name

    def drawn(self, *shape: int) -> str:
        fan_in = int(np.prod(shape[1:])) or 1
        return self.weight((self.random.standard_normal(shape) / np.sqrt(fan_in)).astype(np.float32))

    def convolution(self, x: str, wide_in: int, wide_out: int) -> str:
        return self.op("Conv", x, self.drawn(wide_out, wide_in, 3, 3), pads=[1, 1, 1, 1])

    def linear(self, x: str, wide_in: int, wide_out: int) -> str:
        return self.op("Gemm", x, self.drawn(wide_out, wide_in), transB=1)

    def planes(self, vector: str) -> str:
        """(B, C) → (B, C, 1, 1)."""
        return self.op("Unsqueeze", vector, self.weight(np.array([2, 3], np.int64)))

    def write(
        self,
        path: Path,
        inputs: dict[str, Sequence[int | str]],
        outputs: dict[str, tuple[str, Sequence[int | str]]],
        about: dict[str, Any],
    ) -> Path:
        for name, (made, _) in outputs.items():
            self.nodes.append(helper.make_node("Identity", [made], [name], f"give_{name}"))
        graph = helper.make_graph(
            self.nodes,
            "tiny",
            [_value(name, shape) for name, shape in inputs.items()],
            [_value(name, shape) for name, (_, shape) in outputs.items()],
            self.weights,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
        entry = model.metadata_props.add()
        entry.key, entry.value = "fastface", json.dumps({"checkpoint_sha256": "0" * 64, **about})
        onnx.checker.check_model(model)
        path.write_bytes(model.SerializeToString())
        return path


def _value(name: str, shape: Sequence[int | str]) -> Any:
    kind = TensorProto.INT64 if name == "domain" else TensorProto.FLOAT
    return helper.make_tensor_value_info(name, kind, shape)


def stylegan(folder: Path, *, noise_inputs: bool = True, label_dim: int = 0, poison: bool = False) -> Path:
    """net.mapping.onnx and net.synthesis.onnx; returns net.onnx, which is not a file."""
    about = {"kind": "stylegan2", "resolution": RESOLUTION, "config": {}}
    g = Graph(1)
    z = g.linear("z", W_DIM, W_DIM)
    if label_dim:
        z = g.op("Add", z, g.linear("label", label_dim, W_DIM))
    w = g.op("Mul", g.op("Tanh", z), "truncation")
    rows = g.op("Unsqueeze", w, g.weight(np.array([1], np.int64)))
    w = g.op("Tile", rows, g.weight(np.array([1, LAYERS, 1], np.int64)))
    inputs: dict[str, Sequence[int | str]] = {"z": ["B", W_DIM], "truncation": []}
    if label_dim:
        inputs["label"] = ["B", label_dim]
    g.write(
        folder / "net.mapping.onnx", inputs, {"w": (w, ["B", LAYERS, W_DIM])}, {**about, "part": "mapping"}
    )

    g = Graph(2)
    inputs = {"w": ["B", LAYERS, W_DIM], "noise_strength": []}
    style = [
        g.planes(g.linear(g.op("Gather", "w", g.weight(np.int64(i)), axis=1), W_DIM, CHANNELS))
        for i in range(LAYERS)
    ]
    x = g.op("Mul", g.drawn(1, CHANNELS, 4, 4), style[0])
    for i in range(2):
        size = 8 << i
        scales = g.weight(np.array([1, 1, 2, 2], np.float32))
        x = g.op("Resize", x, "", scales, mode="nearest")
        x = g.convolution(g.op("Mul", x, style[i + 1]), CHANNELS, CHANNELS)
        name = f"noise_{i}" if noise_inputs else g.drawn(1, 1, size, size)
        if noise_inputs:
            inputs[name] = ["B", 1, size, size]
        x = g.op("LeakyRelu", g.op("Add", x, g.op("Mul", name, "noise_strength")), alpha=0.2)
    image = g.convolution(g.op("Mul", x, style[3]), CHANNELS, 3)
    if poison:
        image = g.op("Add", image, g.weight(np.full((3, 1, 1), np.nan, np.float32)))
    shape = ["B", 3, RESOLUTION, RESOLUTION]
    g.write(folder / "net.synthesis.onnx", inputs, {"image": (image, shape)}, {**about, "part": "synthesis"})
    return folder / "net.onnx"


def starganv2(folder: Path, *, high_pass: bool = False, domains: int = 3) -> Path:
    """s.generator.onnx, s.style_encoder.onnx, s.mapping.onnx, and s.fan.onnx with ``high_pass``."""
    about = {"kind": "starganv2", "resolution": RESOLUTION, "config": {"num_domains": domains}}
    image = ["B", 3, RESOLUTION, RESOLUTION]

    def of_domain(g: Graph, features: str, wide: int) -> str:
        every = [g.linear(features, wide, 64) for _ in range(domains)]
        stacked = g.op("Concat", *[g.op("Unsqueeze", e, g.weight(np.array([1]))) for e in every], axis=1)
        index = g.op("Unsqueeze", "domain", g.weight(np.array([1, 2])))
        wide_index = g.op("Expand", index, g.weight(np.array([1, 1, 64])))
        return g.op("Squeeze", g.op("GatherElements", stacked, wide_index, axis=1), g.weight(np.array([1])))

    g = Graph(3)
    pooled = g.op("Flatten", g.op("GlobalAveragePool", g.convolution("image", 3, CHANNELS)))
    style = of_domain(g, pooled, CHANNELS)
    g.write(
        folder / "s.style_encoder.onnx",
        {"image": image, "domain": ["B"]},
        {"style": (style, ["B", 64])},
        {**about, "part": "style_encoder"},
    )
    g = Graph(4)
    style = of_domain(g, g.linear("z", 16, CHANNELS), CHANNELS)
    g.write(
        folder / "s.mapping.onnx",
        {"z": ["B", 16], "domain": ["B"]},
        {"style": (style, ["B", 64])},
        {**about, "part": "mapping"},
    )
    g = Graph(5)
    inputs: dict[str, Sequence[int | str]] = {"image": image, "style": ["B", 64]}
    x = g.op("Mul", g.convolution("image", 3, CHANNELS), g.planes(g.linear("style", 64, CHANNELS)))
    if high_pass:
        inputs["masks"] = ["B", 2, RESOLUTION, RESOLUTION]
        x = g.op("Add", x, g.op("ReduceMean", "masks", axes=[1]))
    made = g.op("Tanh", g.convolution(x, CHANNELS, 3))
    g.write(folder / "s.generator.onnx", inputs, {"output": (made, image)}, {**about, "part": "generator"})
    if high_pass:
        g = Graph(6)
        masks = g.op("Sigmoid", g.convolution("image", 3, 2))
        g.write(
            folder / "s.fan.onnx",
            {"image": image},
            {"masks": (masks, ["B", 2, RESOLUTION, RESOLUTION])},
            {**about, "part": "fan", "checkpoint_sha256": "1" * 64},
        )
    return folder / "s.onnx"


def stargan(folder: Path) -> Path:
    """a.generator.onnx with a label of two, such as valence and arousal."""
    g = Graph(7)
    x = g.op("Add", g.convolution("image", 3, CHANNELS), g.planes(g.linear("label", 2, CHANNELS)))
    image = ["B", 3, RESOLUTION, RESOLUTION]
    g.write(
        folder / "a.generator.onnx",
        {"image": image, "label": ["B", 2]},
        {"output": (g.op("Tanh", g.convolution(g.op("Relu", x), CHANNELS, 3)), image)},
        {"kind": "stargan", "part": "generator", "resolution": RESOLUTION, "config": {"c_dim": 2}},
    )
    return folder / "a.onnx"


def ganimation(folder: Path) -> Path:
    """u.generator.onnx, whose image is attention · source + (1 - attention) · colour."""
    g = Graph(8)
    x = g.op("Add", g.convolution("image", 3, CHANNELS), g.planes(g.linear("aus", 17, CHANNELS)))
    attention = g.op("Sigmoid", g.convolution(x, CHANNELS, 1))
    colour = g.op("Tanh", g.convolution(x, CHANNELS, 3))
    rest = g.op("Sub", g.weight(np.float32(1)), attention)
    blended = g.op("Add", g.op("Mul", attention, "image"), g.op("Mul", rest, colour))
    image = ["B", 3, RESOLUTION, RESOLUTION]
    g.write(
        folder / "u.generator.onnx",
        {"image": image, "aus": ["B", 17]},
        {
            "output": (blended, image),
            "attention": (attention, ["B", 1, RESOLUTION, RESOLUTION]),
            "colour": (colour, image),
        },
        {"kind": "ganimation", "part": "generator", "resolution": RESOLUTION, "config": {}},
    )
    return folder / "u.onnx"


def faces(batch: int) -> NDArray[np.uint8]:
    """(B, R, R, 3) uint8, each another."""
    random = np.random.default_rng(9)
    return random.integers(0, 256, (batch, RESOLUTION, RESOLUTION, 3), dtype=np.uint8)
