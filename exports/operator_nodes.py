"""Nodes of fastface's own operators for ONNX graphs, by the names in the ops' descriptions.

As TensorRT's plug-ins they are in a domain of their own, take and give bytes as int8 of the same bits, and
say what TensorRT's parser asks for: which plug-in of which namespace is meant, every attribute of it, and
every output, the workspace too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import onnx
from onnx import helper

from fastface.errors import BadArgument
from fastface.onnx_ops import DOMAIN, PLUGIN_DOMAIN, operators

OPSET: Final = 18
IR_VERSION: Final = 10
#: numpy's names for element types → ONNX's.
ELEMENT: Final[dict[str, int]] = {
    "float32": onnx.TensorProto.FLOAT,
    "float16": onnx.TensorProto.FLOAT16,
    "int32": onnx.TensorProto.INT32,
    "int8": onnx.TensorProto.INT8,
    "uint8": onnx.TensorProto.UINT8,
}
#: Where ``tensorrt.plugin`` registers; its plug-ins are all of version 1.
PLUGIN: Final = {"plugin_namespace": DOMAIN, "plugin_version": "1"}


def operator_node(
    name: str,
    inputs: Mapping[str, str],
    outputs: Mapping[str, str],
    *,
    plugin: bool = False,
    **attributes: Any,
) -> onnx.NodeProto:
    """A node of ``name`` ("FastfaceDeform"); the mappings give the graph's name of each of its arrays.

    Optional outputs may be left out. plugin: in the form of TensorRT's plug-ins, which have none. Raises
    ``BadArgument`` when names are missing or too many.
    """
    try:
        operator = operators()[name]
    except KeyError:
        raise BadArgument(f"operator must be one of {', '.join(operators())}, got {name!r:.60}") from None
    wanted = {argument.name for argument in operator.inputs}
    needed = {argument.name for argument in operator.outputs if not argument.optional}
    possible = needed if plugin else {argument.name for argument in operator.outputs}
    if set(inputs) != wanted or not needed <= set(outputs) <= possible:
        raise BadArgument(
            f"{name} takes {', '.join(sorted(wanted))} and gives {', '.join(sorted(possible))}, got "
            f"{', '.join(sorted(inputs))} and {', '.join(sorted(outputs))}"
        )
    if not set(attributes) <= set(operator.attributes):
        raise BadArgument(
            f"{name} has the attributes {', '.join(operator.attributes)}, got {', '.join(attributes)}"
        )
    given = [outputs.get(argument.name, "") for argument in operator.outputs]
    while given and not given[-1]:
        given.pop()
    if plugin:
        given.append(f"{given[0]}_workspace")
    taken = [inputs[argument.name] for argument in operator.inputs]
    if not plugin:
        return helper.make_node(name, taken, given, domain=DOMAIN, **attributes)
    presets = {key: value for key, value in operator.attributes.items() if key != "threads"}
    return helper.make_node(name, taken, given, domain=PLUGIN_DOMAIN, **PLUGIN, **{**presets, **attributes})


def model_of(graph: onnx.GraphProto, domain: str = DOMAIN) -> onnx.ModelProto:
    """A model of a graph that may use the operators of a domain."""
    version = max(operator.version for operator in operators().values())
    imports = [helper.make_opsetid("", OPSET), helper.make_opsetid(domain, version)]
    return helper.make_model(graph, opset_imports=imports, ir_version=IR_VERSION, producer_name="fastface")
