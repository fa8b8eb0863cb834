"""The steps of a frame as nodes of an ONNX graph.

The ops are fastface's own operators (``fastface.onnx_ops``); the steps between them, which
``fastface.rendering`` takes in NumPy, are standard ONNX in the same order and precision.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from fastface.binding import CULL_BACKFACES, OWN_GONE_AT, ROUNDING_PX, STILL, Binding
from fastface.exports.operator_nodes import ELEMENT, model_of, operator_node
from fastface.folds import fold_weights
from fastface.onnx_ops import DOMAIN, operators
from fastface.relaxation import shift_weights
from fastface.rig import Lead

Float32 = NDArray[np.float32]
Image = NDArray[np.uint8]

_MOST_FOLD: Final = 1.2  # fold_weights' upper end


def corner_of(bound: Binding) -> Float32:
    """(1, 3) from a camera in the window to the same in the photo."""
    return np.array([[0, bound.window.left, bound.window.top]], np.float32)


class Graph:
    """Nodes in order, constants by name."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, onnx.TensorProto] = {}

    def constant(self, name: str, value: Any, dtype: type | None = None) -> str:
        array = np.ascontiguousarray(value, dtype)
        self.constants[name] = numpy_helper.from_array(array.reshape(np.shape(value)), name)
        return name

    def __call__(self, kind: str, *inputs: str, **attributes: Any) -> str:
        output = f"{kind.lower()}_{len(self.nodes)}"
        # Without names of their own nodes collide in optimizers of ONNX Runtime (1.18).
        self.nodes.append(helper.make_node(kind, list(inputs), [output], name=output, **attributes))
        return output


class RendererGraph:
    """``FaceRenderer``, step by step, as nodes; with ``lead`` it is ``TurningRenderer``.

    ``camera``: whether the camera is an input.
    """

    domain = DOMAIN

    def __init__(self, bound: Binding, *, camera: bool = False, lead: Lead | None = None) -> None:
        self.bound, self.graph = bound, Graph()
        self._camera_given, self._lead = camera, lead
        for name, value in (("zero", 0.0), ("one", 1.0), ("two", 2.0), ("three", 3.0)):
            self.graph.constant(name, np.float32(value))
        self._axis1 = self.graph.constant("axis1", [1], np.int64)
        rows, columns = bound.window.slices
        self.crop = np.ascontiguousarray(bound.photo[rows, columns])
        self.whole = self.crop.shape == bound.photo.shape

    def model(self) -> onnx.ModelProto:
        """The graph as a model without metadata."""
        height, width = self.bound.photo.shape[:2]
        deltas, moves = self._deltas("coefficients")
        camera = self._camera()
        positions, screen = self._deform(deltas, camera)
        controls = self._controls(deltas, screen)
        if self._lead is not None:
            from fastface.exports.renderer_pose import turn

            turning, positions, screen = turn(
                self.graph, self.bound, self._lead, "pose", camera, positions, screen
            )
            moves = self.graph("Or", moves, turning)
        source, mask = self._shade(positions, screen, self._rasterize(screen), controls)
        self.compose(source, mask, moves)
        inputs = [value_info("coefficients", "float32", ["B", len(self.bound.own)])]
        if self._camera_given:
            inputs.append(value_info("camera", "float32", ["C", 3]))
        if self._lead is not None:
            inputs.append(value_info("pose", "float32", ["B", 4]))
        return model_of(
            helper.make_graph(
                self.graph.nodes,
                "fastface renderer",
                inputs,
                [
                    value_info("frames", "uint8", ["B", height, width, 3]),
                    value_info("masks", "uint8", ["B", height, width]),
                ],
                list(self.graph.constants.values()),
            ),
            self.domain,
        )

    # ---- what hangs on the form of the operators

    def operator(self, kind: str, inputs: dict[str, str], outputs: list[str], **attributes: Any) -> list[str]:
        """A node of ours; its outputs, whose names are the graph's too."""
        node = operator_node(kind, inputs, {name: name for name in outputs}, **attributes)
        self.graph.nodes.append(node)
        return outputs

    def array(self, name: str, value: Any) -> str:
        """A constant that one of our operators reads."""
        return self.graph.constant(name, value)

    def compose(self, source: str, mask: str, moves: str) -> None:
        """From the shaded window to the outputs ``frames`` and ``masks``; ``moves (B, 1)``."""
        g = self.graph
        # Where nothing was asked not even rounding may show, however large the photo.
        all_or_none = [g.constant(name, value, np.uint8) for name, value in (("all", 255), ("none", 0))]
        kept = g("Where", g("Unsqueeze", moves, g.constant("axis_2", [2], np.int64)), *all_or_none)
        mask = g("BitwiseAnd", mask, kept)
        self.output("Identity", self.pasted(self.blended(source, mask), self.graph.constant), "frames")
        self.output("Identity", self.bordered(mask), "masks")

    # ---- parts that both forms have

    def output(self, kind: str, value: str, name: str, **attributes: Any) -> None:
        self.graph.nodes.append(helper.make_node(kind, [value], [name], **attributes))

    def blended(self, source: str, mask: str) -> str:
        photo = self.array("window", self.crop[None])
        inputs = {"photo": photo, "source": source, "mask": mask}
        return self.operator("FastfacePoissonBlend", inputs, ["image"])[0]

    def pasted(self, image: str, pixels: Any) -> str:
        """The window's frames in the whole photo. ``pixels(name, array)`` makes a part of the photo a value
        of the image's type."""
        if self.whole:
            return image
        g, window, photo = self.graph, self.bound.window, self.bound.photo
        bottom, right = window.top + window.height, window.left + window.width
        rows = slice(window.top, bottom)
        batch = g("Shape", "coefficients", start=0, end=1)
        shape = g("Concat", batch, g.constant("as_they_are", [1, 1, 1], np.int64), axis=0)

        def around(axis: int, before: tuple[str, Image], middle: str, after: tuple[str, Image]) -> str:
            def piece(name: str, part: Image) -> list[str]:
                return [g("Expand", pixels(name, part[None]), shape)] if part.size else []

            parts = [*piece(*before), middle, *piece(*after)]
            return g("Concat", *parts, axis=axis) if len(parts) > 1 else middle

        middle = around(2, ("left", photo[rows, : window.left]), image, ("right", photo[rows, right:]))
        return around(1, ("top", photo[: window.top]), middle, ("bottom", photo[bottom:]))

    def bordered(self, mask: str) -> str:
        """The window's masks in the whole photo."""
        if self.whole:
            return mask
        window = self.bound.window
        height, width = self.bound.photo.shape[:2]
        after = height - window.top - window.height, width - window.left - window.width
        pads = self.graph.constant("pads", [0, window.top, window.left, 0, *after], np.int64)
        return self.graph("Pad", mask, pads)

    # ---- steps

    def _deltas(self, asked: str) -> tuple[str, str]:
        """What is added to the face as the photo shows it (B, E), and whether it is anything (B, 1)."""
        g = self.graph
        strength = g("ReduceMax", g("Abs", asked), self._axis1, keepdims=1)
        gone = g("Div", strength, g.constant("own_gone_at", np.float32(OWN_GONE_AT)))
        share = g("Clip", gone, "zero", "one")
        own = g.constant("own", self.bound.own)
        delta = g("Sub", asked, g("Mul", share, own))
        still = g("Less", g("Abs", delta), g.constant("still", np.float32(STILL)))
        delta = g("Where", still, "zero", delta)
        return delta, g("Greater", g("ReduceMax", g("Abs", delta), self._axis1, keepdims=1), "zero")

    def _smooth(self, x: str) -> str:
        """t² (3 - 2 t) of t = x clipped to 0 … 1."""
        g = self.graph
        t = g("Clip", x, "zero", "one")
        return g("Mul", g("Mul", t, t), g("Sub", "three", g("Mul", "two", t)))

    def _camera(self) -> str:
        if not self._camera_given:
            return self.graph.constant("window_camera", self.bound.camera)
        return self.graph("Sub", "camera", self.graph.constant("window_corner", corner_of(self.bound)))

    def _deform(self, deltas: str, camera: str) -> list[str]:
        bound = self.bound
        inputs = {
            "neutral": self.array("neutral", bound.neutral),
            "basis": self.array("basis", bound.basis.blocks),
            "moves": self.array("moves", bound.basis.moves),
            "coefficients": deltas,
            "camera": camera,
        }
        return self.operator("FastfaceDeform", inputs, ["positions", "screen"])

    def _rasterize(self, screen: str) -> list[str]:
        height, width = self.crop.shape[:2]
        return self.operator(
            "FastfaceRasterize",
            {"screen": screen, "triangles": self._shading("triangles")},
            ["triangle_id", "bary"],
            height=height,
            width=width,
            cull_backfaces=int(CULL_BACKFACES),
        )

    def _controls(self, deltas: str, screen: str) -> str:
        """(B, S + 3 + D): weights of the shifts, shares of eyes and mouth, weights of the folds."""
        bound, g = self.bound, self.graph
        each = np.eye(len(bound.own), dtype=np.float32)
        shifts, folds = shift_weights(each, bound.names), fold_weights(each, bound.names)
        count = shifts.shape[1]
        most = np.concatenate([np.ones(count), np.full(folds.shape[1], _MOST_FOLD)])
        weights = g("MatMul", deltas, g.constant("control_weights", np.concatenate([shifts, folds], axis=1)))
        weights = g("Min", g("Max", weights, "zero"), g.constant("control_most", most, np.float32))
        ends = [g.constant(f"control_{end}", [end], np.int64) for end in (0, count, len(most))]
        shift, fold = (g("Slice", weights, *part, self._axis1) for part in (ends[:2], ends[1:]))
        return g("Concat", shift, self._shares(screen), fold, axis=1)

    def _shares(self, screen: str) -> str:
        """(B, 3) how much of each bare eye and of the painted mouth is drawn."""
        bound, g = self.bound, self.graph
        xy = [g.constant(name, [value], np.int64) for name, value in (("x", 0), ("z", 2), ("last", -1))]

        def places(name: str, rows: NDArray[Any]) -> str:
            picked = g("Gather", screen, g.constant(f"{name}_rows", rows, np.int64), axis=1)
            return g("Slice", picked, *xy)

        def farthest(distance: str) -> str:
            return g("ReduceMax", g("Flatten", distance, axis=1), self._axis1, keepdims=1)

        parted = []
        for name, rows, rest in zip(("left", "right"), bound.eye_rows, bound.eye_rest, strict=True):
            if len(rows):
                away = g("Sub", places(f"{name}_eye", rows), g.constant(f"{name}_eye_rest", rest))
                parted.append(farthest(g("Abs", away)))
            else:  # a head without eyes: nothing is ever bare
                parted.append(g("Mul", farthest(places(f"{name}_eye", np.zeros(1))), "zero"))
        upper, lower = (
            places(f"{name}_lip", rim)
            for name, rim in zip(("upper", "lower"), bound.shading.lip_rim, strict=True)
        )
        gap = g("ReduceL2", g("Sub", upper, lower), g.constant("axis2", [2], np.int64), keepdims=0)
        parted.append(farthest(g("Sub", gap, g.constant("lip_gap", bound.lip_gap))))
        beyond = g("Sub", g("Concat", *parted, axis=1), g.constant("rounding_px", np.float32(ROUNDING_PX)))
        return self._smooth(g("Div", beyond, g.constant("hair_px", np.float32(bound.hair_px))))

    def _shading(self, name: str) -> str:
        return self.array(name, getattr(self.bound.shading, name))

    def _shade(self, positions: str, screen: str, raster: list[str], controls: str) -> tuple[str, str]:
        inputs = {
            "positions": positions,
            "screen": screen,
            **dict(zip(("triangle_id", "bary"), raster, strict=True)),
            "controls": controls,
        }
        for argument in operators()["FastfaceShade"].inputs:
            if argument.name not in inputs:
                inputs[argument.name] = self._shading(argument.name)
        lit_faces = self.bound.shading.lit_faces
        source, mask = self.operator("FastfaceShade", inputs, ["source", "mask"], lit_faces=lit_faces)
        return source, mask


def value_info(name: str, dtype: str, shape: list[str | int]) -> onnx.ValueInfoProto:
    """An input or output of the graph."""
    return helper.make_tensor_value_info(name, ELEMENT[dtype], shape)
