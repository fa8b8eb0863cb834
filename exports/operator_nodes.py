"""Nodes of fastface's own operators for ONNX graphs, by the names in the ops' descriptions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import onnx
from onnx import helper

from fastface.errors import BadArgument
from fastface.onnx_ops import DOMAIN, operators

OPSET: Final = 18
IR_VERSION: Final = 10
#: numpy's names for element types → ONNX's.
ELEMENT: Final[dict[str, int]] = {
    "float32": onnx.TensorProto.FLOAT,
    "float16": onnx.TensorProto.FLOAT16,
    "int32": onnx.TensorProto.INT32,
    "uint8": onnx.TensorProto.UINT8,
}


def operator_node(
    name: str, inputs: Mapping[str, str], outputs: Mapping[str, str], **attributes: Any
) -> onnx.NodeProto:
    """A node of ``name`` ("FastfaceDeform"); the mappings give the graph's name of each of its arrays.

    Optional outputs may be left out. Raises ``BadArgument`` when names are missing or too many.
    """
    try:
        operator = operators()[name]
    except KeyError:
        raise BadArgument(f"operator must be one of {', '.join(operators())}, got {name!r:.60}") from None
    wanted = {argument.name for argument in operator.inputs}
    needed = {argument.name for argument in operator.outputs if not argument.optional}
    possible = {argument.name for argument in operator.outputs}
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
    return helper.make_node(
        name, [inputs[argument.name] for argument in operator.inputs], given, domain=DOMAIN, **attributes
    )


def model_of(graph: onnx.GraphProto) -> onnx.ModelProto:
    """A model of a graph that may use the operators."""
    version = max(operator.version for operator in operators().values())
    imports = [helper.make_opsetid("", OPSET), helper.make_opsetid(DOMAIN, version)]
    return helper.make_model(graph, opset_imports=imports, ir_version=IR_VERSION, producer_name="fastface")
