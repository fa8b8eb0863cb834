"""The renderer of one face as one ONNX graph: coefficients in, frames and masks out, any number at once.

The ops are fastface's own operators (``fastface.onnx_ops``); the steps between them, which
``fastface.rendering`` takes in NumPy, are standard ONNX in the same order and precision.
"""

from __future__ import annotations

import dataclasses
import json
import os
from typing import Any, Final

import cv2
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from fastface.atomic import write_whole
from fastface.binding import CULL_BACKFACES, OWN_GONE_AT, ROUNDING_PX, STILL, Binding, bind
from fastface.errors import BadArgument, BadModelFile
from fastface.exports.operator_nodes import ELEMENT, model_of, operator_node
from fastface.face import MAX_SIDE, FittedFace
from fastface.fitting import FaceFitter
from fastface.folds import fold_weights
from fastface.morphable import HeadModel
from fastface.onnx_ops import METADATA_KEY, operators
from fastface.provenance import DIGITAL_SOURCE_TYPE
from fastface.relaxation import shift_weights
from fastface.rig import RigBuilder
from fastface.version import package_version

Float32 = NDArray[np.float32]

#: The largest difference, in grey levels, that a frame of the graph may have from ``Engine.render``.
TOLERANCE: Final = 1
_MOST_FOLD: Final = 1.2  # fold_weights' upper end


def resized(face: FittedFace, longest_px: int) -> FittedFace:
    """The same fit in a photo whose longer side has ``longest_px`` pixels.

    Raises ``BadArgument``; ``NoFaceFound`` when the face would be too small to move.
    """
    if not 1 <= longest_px <= MAX_SIDE:
        raise BadArgument(f"size must be 1 … {MAX_SIDE} px, got {longest_px}")
    height, width = face.photo.shape[:2]
    scale = longest_px / max(height, width)
    if scale == 1:
        return face
    size = max(round(height * scale), 1), max(round(width * scale), 1)
    ratio = np.array([size[1] / width, size[0] / height])  # sides are whole numbers: not quite alike
    way = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    photo = np.asarray(cv2.resize(face.photo, size[::-1], interpolation=way), np.uint8)
    focal_px = face.focal_px * float(np.sqrt(ratio.prod()))
    # The model's own landmarks, by the new camera; what is left of the detected ones is the new residual.
    centre = np.array([width, height]) / 2
    fitted = (face.landmarks_px - face.fit_residual_px - centre) * (focal_px / face.focal_px)
    marks = face.landmarks_px * ratio
    made = dataclasses.replace(
        face,
        photo=photo,
        landmarks_px=marks.astype(np.float32),
        focal_px=focal_px,
        fit_residual_px=(marks - (fitted + centre * ratio)).astype(np.float32),
    )
    made.check()
    return made


def export_renderer(
    model: HeadModel, face: FittedFace, output: str | os.PathLike[str], *, camera: bool = False
) -> dict[str, Any]:
    """Write the graph of ``face`` (``renderer_model``); returns its metadata.

    Raises ``BadModelFile`` when the face was fitted with another head model, ``WriteFailed``.
    """
    graph = renderer_model(model, face, camera=camera)
    write_whole(os.fspath(output), graph.SerializeToString())
    (record,) = (prop.value for prop in graph.metadata_props if prop.key == METADATA_KEY)
    made: dict[str, Any] = json.loads(record)
    return made


def renderer_model(model: HeadModel, face: FittedFace, *, camera: bool = False) -> onnx.ModelProto:
    """The graph of ``face``.

    Inputs: ``coefficients (B, E)`` float32 in the order of ``model.expression_names``, within ±2; with
    ``camera`` also ``camera (1, 3)`` or ``(B, 3)`` float32: focal length and principal point in px of the
    whole photo, a little off the photo's own, which the metadata give. Outputs: ``frames (B, H, W, 3)`` uint8
    RGB and ``masks (B, H, W)`` uint8, 0 where a frame is the photo.
    """
    if face.model_hash != model.digest:
        raise BadModelFile(
            f"the face was fitted with another head model ({face.model_hash[:12]}…) than {model.name} "
            f"({model.digest[:12]}…)"
        )
    face.check()
    fitter = FaceFitter(model)
    fitter.check(face.fit, face.landmarks_px)
    rig = RigBuilder(fitter).build(face.fit, face.photo, face.landmarks_px)
    bound = bind(rig, face.photo, face.expression, model.expression_names)
    made = _Renderer(bound, camera=camera).model()
    about = json.dumps(_about(model, face, bound), ensure_ascii=False, sort_keys=True)
    helper.set_model_props(made, {METADATA_KEY: about})
    made.producer_version = package_version()
    onnx.checker.check_model(made)
    return made


def _about(model: HeadModel, face: FittedFace, bound: Binding) -> dict[str, Any]:
    height, width = face.photo.shape[:2]
    window = bound.window
    return {
        "kind": "renderer",
        "version": package_version(),
        "model": model.name,
        "model_sha256": model.digest,
        "model_license": model.license,
        "photo_sha256": face.photo_sha256,
        "operators": {name: operator.version for name, operator in operators().items()},
        "expression_names": list(bound.names),
        "height": height,
        "width": width,
        "camera": (bound.camera + _corner(bound))[0].tolist(),
        "window": [window.left, window.top, window.width, window.height],
        "vertices": len(bound.neutral),
        "triangles": len(bound.shading.triangles),
        "tolerance_grey_levels": TOLERANCE,
        "provenance": {
            "digital_source_type": DIGITAL_SOURCE_TYPE,
            "note": "What this graph renders is synthetic. Mark it so wherever it is stored or shown.",
        },
    }


def _corner(bound: Binding) -> Float32:
    """From a camera in the window to the same in the photo."""
    return np.array([[0, bound.window.left, bound.window.top]], np.float32)


class _Graph:
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
        self.nodes.append(helper.make_node(kind, list(inputs), [output], **attributes))
        return output

    def ours(self, kind: str, inputs: dict[str, str], outputs: list[str], **attributes: Any) -> list[str]:
        self.nodes.append(operator_node(kind, inputs, {name: name for name in outputs}, **attributes))
        return outputs


class _Renderer:
    """``FaceRenderer``, step by step, as nodes."""

    def __init__(self, bound: Binding, *, camera: bool) -> None:
        self._bound, self._camera_given, self._graph = bound, camera, _Graph()
        for name, value in (("zero", 0.0), ("one", 1.0), ("two", 2.0), ("three", 3.0)):
            self._graph.constant(name, np.float32(value))
        self._axis1 = self._graph.constant("axis1", [1], np.int64)

    def model(self) -> onnx.ModelProto:
        bound, g = self._bound, self._graph
        height, width = bound.photo.shape[:2]
        rows, columns = bound.window.slices
        crop = np.ascontiguousarray(bound.photo[rows, columns])
        deltas, moves = self._deltas("coefficients")
        positions, screen = self._deform(deltas)
        raster = g.ours(
            "FastfaceRasterize",
            {"screen": screen, "triangles": self._shading("triangles")},
            ["triangle_id", "bary"],
            height=crop.shape[0],
            width=crop.shape[1],
            cull_backfaces=int(CULL_BACKFACES),
        )
        source, mask = self._shade(positions, screen, raster, self._controls(deltas, screen), moves)
        (image,) = g.ours(
            "FastfacePoissonBlend",
            {"photo": g.constant("window", crop[None]), "source": source, "mask": mask},
            ["image"],
        )
        whole = crop.shape == bound.photo.shape
        frames = image if whole else self._pasted(image)
        masks = mask if whole else self._bordered(mask)
        camera = [_value("camera", "float32", ["C", 3])] if self._camera_given else []
        g.nodes.append(helper.make_node("Identity", [frames], ["frames"]))
        g.nodes.append(helper.make_node("Identity", [masks], ["masks"]))
        return model_of(
            helper.make_graph(
                g.nodes,
                "fastface renderer",
                [_value("coefficients", "float32", ["B", len(bound.own)]), *camera],
                [
                    _value("frames", "uint8", ["B", height, width, 3]),
                    _value("masks", "uint8", ["B", height, width]),
                ],
                list(g.constants.values()),
            )
        )

    def _deltas(self, asked: str) -> tuple[str, str]:
        """What is added to the face as the photo shows it (B, E), and whether it is anything (B, 1)."""
        g = self._graph
        strength = g("ReduceMax", g("Abs", asked), self._axis1, keepdims=1)
        share = self._smooth(g("Div", strength, g.constant("own_gone_at", np.float32(OWN_GONE_AT))))
        own = g.constant("own", self._bound.own)
        delta = g("Sub", asked, g("Mul", share, own))
        still = g("Less", g("Abs", delta), g.constant("still", np.float32(STILL)))
        delta = g("Where", still, "zero", delta)
        return delta, g("Greater", g("ReduceMax", g("Abs", delta), self._axis1, keepdims=1), "zero")

    def _smooth(self, x: str) -> str:
        """t² (3 - 2 t) of t = x clipped to 0 … 1."""
        g = self._graph
        t = g("Clip", x, "zero", "one")
        return g("Mul", g("Mul", t, t), g("Sub", "three", g("Mul", "two", t)))

    def _deform(self, deltas: str) -> list[str]:
        bound, g = self._bound, self._graph
        if self._camera_given:
            camera = g("Sub", "camera", g.constant("window_corner", _corner(bound)))
        else:
            camera = g.constant("window_camera", bound.camera)
        inputs = {
            "neutral": g.constant("neutral", bound.neutral),
            "basis": g.constant("basis", bound.basis.blocks),
            "moves": g.constant("moves", bound.basis.moves),
            "coefficients": deltas,
            "camera": camera,
        }
        return g.ours("FastfaceDeform", inputs, ["positions", "screen"])

    def _controls(self, deltas: str, screen: str) -> str:
        """(B, S + 3 + D): weights of the shifts, shares of eyes and mouth, weights of the folds."""
        bound, g = self._bound, self._graph
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
        bound, g = self._bound, self._graph
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
        return self._graph.constant(name, getattr(self._bound.shading, name))

    def _shade(
        self, positions: str, screen: str, raster: list[str], controls: str, moves: str
    ) -> tuple[str, str]:
        g = self._graph
        inputs = {
            "positions": positions,
            "screen": screen,
            **dict(zip(("triangle_id", "bary"), raster, strict=True)),
            "controls": controls,
        }
        for argument in operators()["FastfaceShade"].inputs:
            if argument.name not in inputs:
                inputs[argument.name] = self._shading(argument.name)
        lit_faces = self._bound.shading.lit_faces
        source, mask = g.ours("FastfaceShade", inputs, ["source", "mask"], lit_faces=lit_faces)
        # Where nothing was asked not even rounding may show, however large the photo.
        all_or_none = [g.constant(name, value, np.uint8) for name, value in (("all", 255), ("none", 0))]
        kept = g("Where", g("Unsqueeze", moves, g.constant("axis_2", [2], np.int64)), *all_or_none)
        return source, g("BitwiseAnd", mask, kept)

    def _pasted(self, image: str) -> str:
        """The window's frames in the whole photo."""
        bound, g = self._bound, self._graph
        window, photo = bound.window, bound.photo
        bottom, right = window.top + window.height, window.left + window.width
        rows = slice(window.top, bottom)
        batch = g("Shape", "coefficients", start=0, end=1)
        shape = g("Concat", batch, g.constant("as_they_are", [1, 1, 1], np.int64), axis=0)

        def around(
            axis: int, before: tuple[str, NDArray[Any]], middle: str, after: tuple[str, NDArray[Any]]
        ) -> str:
            def piece(name: str, pixels: NDArray[Any]) -> list[str]:
                return [g("Expand", g.constant(name, pixels[None]), shape)] if pixels.size else []

            parts = [*piece(*before), middle, *piece(*after)]
            return g("Concat", *parts, axis=axis) if len(parts) > 1 else middle

        middle = around(2, ("left", photo[rows, : window.left]), image, ("right", photo[rows, right:]))
        return around(1, ("top", photo[: window.top]), middle, ("bottom", photo[bottom:]))

    def _bordered(self, mask: str) -> str:
        bound, g = self._bound, self._graph
        window = bound.window
        height, width = bound.photo.shape[:2]
        after = height - window.top - window.height, width - window.left - window.width
        pads = g.constant("pads", [0, window.top, window.left, 0, *after], np.int64)
        return g("Pad", mask, pads)


def _value(name: str, dtype: str, shape: list[str | int]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, ELEMENT[dtype], shape)
