"""The renderer's graph as TensorRT takes it.

TensorRT has no uint8 but at a network's edge, no operator on bits, and no custom operators but plug-ins. So
bytes pass between fastface's plug-ins (``fastface.exports.tensorrt_plugins``) as int8 of the same bits, what
happens to pixels between them and the frames is done in float32, where whole numbers up to 255 are exact, and
the last step casts to uint8.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx

from fastface.exports.operator_nodes import operator_node
from fastface.exports.renderer_graph import RendererGraph
from fastface.onnx_ops import PLUGIN_DOMAIN


class TensorRtGraph(RendererGraph):
    """``RendererGraph`` of plug-ins, and of operators and types that TensorRT has."""

    domain = PLUGIN_DOMAIN

    def operator(self, kind: str, inputs: dict[str, str], outputs: list[str], **attributes: Any) -> list[str]:
        named = {name: name for name in outputs}
        self.graph.nodes.append(operator_node(kind, inputs, named, plugin=True, **attributes))
        return outputs

    def array(self, name: str, value: Any) -> str:
        array = np.asarray(value)
        return self.graph.constant(name, array.view(np.int8) if array.dtype == np.uint8 else array)

    def compose(self, source: str, mask: str, moves: str) -> None:
        g = self.graph
        image = self._levels(self.blended(source, mask))
        # Where nothing was asked not even rounding may show, however large the photo.
        photo = self._pixels("window_levels", self.crop[None])
        each = g("Unsqueeze", moves, g.constant("axes23", [2, 3], np.int64))
        image = g("Where", each, image, photo)
        drawn = g("Cast", mask, to=onnx.TensorProto.FLOAT)
        drawn = g("Where", g("Unsqueeze", moves, g.constant("axis_2", [2], np.int64)), drawn, "zero")
        for values, name in ((self.pasted(image, self._pixels), "frames"), (self.bordered(drawn), "masks")):
            self.output("Cast", values, name, to=onnx.TensorProto.UINT8)

    def _pixels(self, name: str, part: Any) -> str:
        """A part of the photo. Constants of int8 are for plug-ins alone; float16 holds bytes exactly."""
        return self.graph("Cast", self.graph.constant(name, part, np.float16), to=onnx.TensorProto.FLOAT)

    def _levels(self, values: str) -> str:
        """Grey levels of bytes that come as int8."""
        g = self.graph
        signed = g("Cast", values, to=onnx.TensorProto.FLOAT)
        wrapped = g("Add", signed, g.constant("bytes", np.float32(256)))
        return g("Where", g("Less", signed, "zero"), wrapped, signed)
