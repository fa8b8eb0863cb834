"""The ops inside ONNX Runtime: the same inputs and tolerances, and whatever else a graph may bring."""

from __future__ import annotations

import dataclasses
from operator import attrgetter
from typing import Any

import numpy as np
import pytest
from cases import (
    BLEND_TOLERANCE,
    POSITION_TOLERANCE_MM,
    SCREEN_TOLERANCE_PX,
    SHADE_TIES,
    SHADE_TOLERANCE,
    Case,
    blend_cases,
    deform_cases,
    rasterize_cases,
    shade_cases,
)

from fastface import onnx_ops, ops, reference

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")

NAMES = {operator.op: name for name, operator in onnx_ops.operators().items()}


def single(op: str, attributes: dict[str, Any], arrays: dict[str, Any], threads: int = 2) -> Any:
    """A session of one node whose arrays are all inputs of the graph, of any size."""
    from onnx import helper

    from fastface.exports.operator_nodes import ELEMENT, model_of, operator_node

    operator = onnx_ops.operators()[NAMES[op]]

    def value(argument: onnx_ops.Argument, dtype: str) -> Any:
        return helper.make_tensor_value_info(argument.name, ELEMENT[dtype], [None] * len(argument.shape))

    node = operator_node(
        operator.name,
        {argument.name: argument.name for argument in operator.inputs},
        {argument.name: argument.name for argument in operator.outputs},
        **attributes,
    )
    inputs = [
        value(a, "float16" if a.half_too and arrays[a.name].dtype == np.float16 else a.dtype)
        for a in operator.inputs
    ]
    graph = helper.make_graph([node], op, inputs, [value(a, a.dtype) for a in operator.outputs])
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4
    onnx_ops.register(options)
    model = model_of(graph).SerializeToString()
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def as_graph(op: str, case: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Attributes and arrays of a node that does what ``ops.<op>(**case)`` does."""
    arguments = dict(case)
    attributes: dict[str, Any] = {}
    if op == "deform":
        packed = ops.pack_basis(arguments.pop("basis"))
        arguments |= {"basis": packed.blocks, "moves": packed.moves}
    if op == "rasterize":
        attributes = {name: int(arguments.pop(name)) for name in ("height", "width")}
        attributes["cull_backfaces"] = int(arguments.pop("cull_backfaces", False))
    if op == "shade":
        prepared = ops.prepare_shading(arguments.pop("shading"))
        fields = {field.name: getattr(prepared, field.name) for field in dataclasses.fields(prepared)}
        attributes["lit_faces"] = fields.pop("lit_faces")
        arguments |= fields
    if op == "blend" and arguments["photo"].ndim == 3:
        arguments["photo"] = arguments["photo"][None]
    return attributes, arguments


def run(op: str, case: dict[str, Any], threads: int = 2) -> list[Any]:
    attributes, arrays = as_graph(op, case)
    outputs: list[Any] = single(op, attributes, arrays, threads).run(None, arrays)
    return outputs


def same(a: Any, b: Any) -> None:
    np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


# ---- against the definition, and against the same op called from Python ----------------------------------


@pytest.mark.parametrize("case", deform_cases(), ids=attrgetter("name"))
def test_deform(case: Case) -> None:
    positions, screen = run("deform", case.arguments)
    wanted = reference.deform(**case.arguments)
    np.testing.assert_allclose(positions, wanted.positions, rtol=0, atol=POSITION_TOLERANCE_MM)
    np.testing.assert_allclose(screen, wanted.screen, rtol=1e-4, atol=SCREEN_TOLERANCE_PX)
    for got, here in zip((positions, screen), ops.deform(**case.arguments), strict=True):
        same(got, here)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("case", rasterize_cases(), ids=attrgetter("name"))
def test_rasterize(case: Case, threads: int) -> None:
    wanted = reference.rasterize(**case.arguments, depth=True)
    for got, part in zip(run("rasterize", case.arguments, threads), wanted, strict=True):
        same(got, part)


@pytest.mark.parametrize("case", shade_cases(), ids=attrgetter("name"))
def test_shade(case: Case) -> None:
    source, mask = run("shade", case.arguments)
    wanted_source, wanted_mask = reference.shade(**case.arguments)
    agreed = mask == wanted_mask
    assert (~agreed).sum() <= SHADE_TIES * agreed.size
    np.testing.assert_allclose(source[agreed], wanted_source[agreed], rtol=0, atol=SHADE_TOLERANCE)
    here = ops.shade(**case.arguments)
    same(source, here.source)
    same(mask, here.mask)


@pytest.mark.parametrize("case", blend_cases(), ids=attrgetter("name"))
def test_blend(case: Case) -> None:
    image, exact = run("blend", case.arguments)
    wanted = reference.blend(**case.arguments, exact=True)
    np.testing.assert_allclose(exact, wanted.exact, rtol=0, atol=BLEND_TOLERANCE)
    here = ops.blend(**case.arguments, exact=True)
    same(image, here.image)
    same(exact, here.exact)
