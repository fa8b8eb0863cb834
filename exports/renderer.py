"""The renderer of one face as one ONNX graph: coefficients in, frames and masks out, any number at once."""

from __future__ import annotations

import dataclasses
import json
import os
from typing import Any, Final

import cv2
import numpy as np
import onnx
from onnx import helper

from fastface.atomic import write_whole
from fastface.binding import Binding, bind
from fastface.errors import BadArgument, BadModelFile
from fastface.exports.renderer_graph import RendererGraph, corner_of
from fastface.exports.renderer_tensorrt import TensorRtGraph
from fastface.face import MAX_SIDE, FittedFace
from fastface.fitting import FaceFitter
from fastface.morphable import HeadModel
from fastface.onnx_ops import METADATA_KEY, operators
from fastface.provenance import DIGITAL_SOURCE_TYPE
from fastface.rig import RigBuilder
from fastface.version import package_version

#: The largest difference, in grey levels, that a frame of the graph may have from ``Engine.render``.
TOLERANCE: Final = 1
_FORMS: Final = {"onnxruntime": RendererGraph, "tensorrt": TensorRtGraph}


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
    model: HeadModel, face: FittedFace, output: str | os.PathLike[str], **choices: Any
) -> dict[str, Any]:
    """Write the graph of ``face``, with the choices of ``renderer_model``; returns its metadata.

    Raises ``BadArgument``, ``WriteFailed``; ``BadModelFile`` when the face was fitted with another head.
    """
    graph = renderer_model(model, face, **choices)
    write_whole(os.fspath(output), graph.SerializeToString())
    (record,) = (prop.value for prop in graph.metadata_props if prop.key == METADATA_KEY)
    made: dict[str, Any] = json.loads(record)
    return made


def renderer_model(
    model: HeadModel,
    face: FittedFace,
    *,
    camera: bool = False,
    pose: bool = False,
    form: str = "onnxruntime",
) -> onnx.ModelProto:
    """The graph of ``face``.

    Inputs: ``coefficients (B, E)`` float32 in the order of ``model.expression_names``, within ±2; with
    ``camera`` also ``camera (1, 3)`` or ``(B, 3)`` float32: focal length and principal point in px of the
    whole photo, a little off the photo's own, which the metadata give; with ``pose`` also ``pose (B, 4)``
    float32: yaw, pitch, roll in degrees and mm towards the camera, as ``HeadPose`` has them and clipped to
    its limits. Outputs: ``frames (B, H, W, 3)`` uint8 RGB and ``masks (B, H, W)`` uint8, 0 where a frame is
    the photo.

    form: "onnxruntime", or "tensorrt" for a graph of operators and types that TensorRT has, with fastface's
    plug-ins; onnxruntime runs that one too.
    """
    if form not in _FORMS:
        raise BadArgument(f"form must be one of {', '.join(_FORMS)}, got {form!r:.30}")
    if face.model_hash != model.digest:
        raise BadModelFile(
            f"the face was fitted with another head model ({face.model_hash[:12]}…) than {model.name} "
            f"({model.digest[:12]}…)"
        )
    face.check()
    fitter = FaceFitter(model)
    fitter.check(face.fit, face.landmarks_px)
    rig = RigBuilder(fitter).build(face.fit, face.photo, face.landmarks_px, turns=pose)
    bound = bind(rig, face.photo, face.expression, model.expression_names)
    made = _FORMS[form](bound, camera=camera, lead=rig.lead).model()
    about = _about(model, face, bound) | {"form": form, "pose": pose}
    record = json.dumps(about, ensure_ascii=False, sort_keys=True)
    helper.set_model_props(made, {METADATA_KEY: record})
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
        "camera": (bound.camera + corner_of(bound))[0].tolist(),
        "window": [window.left, window.top, window.width, window.height],
        "vertices": len(bound.neutral),
        "triangles": len(bound.shading.triangles),
        "tolerance_grey_levels": TOLERANCE,
        "provenance": {
            "digital_source_type": DIGITAL_SOURCE_TYPE,
            "note": "What this graph renders is synthetic. Mark it so wherever it is stored or shown.",
        },
    }
