"""A renderer's graph through TensorRT's own parser and builder, with no GPU: a program.

    python tests/rtx_renderer.py renderer.onnx

tensorrt_rtx takes no plug-ins that are kernels (``tensorrt.plugin``), but ones that are objects. So each of
fastface's plug-ins is there as an object whose types and shapes are those of ``tensorrt_plugins``, and which
computes nothing. What that shows: the parser finds every plug-in by name, version and namespace, reads all
its attributes, knows every other operator with these types, and an engine can be built. Prints JSON.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from fastface.exports import tensorrt_plugins as plugins
from fastface.onnx_ops import DOMAIN, Operator, operators
from fastface.runtime.tensorrt_engine import load_library

trt: Any = load_library("tensorrt_rtx")


class Size:
    """A size as ``tensorrt.plugin`` gives it; without an expression it may not be looked at."""

    def __init__(self, expression: Any = None) -> None:
        self.expression, self.is_fake = expression, expression is None

    @property
    def is_constant(self) -> bool:
        return bool(self.expression.is_constant())

    def constant_value(self) -> int:
        return int(self.expression.get_constant_value())


def described(shape: Any, dtype: Any) -> Any:
    return SimpleNamespace(shape_expr=shape, dtype=dtype)


#: Of ``tensorrt.plugin``: what says types and shapes.
PLUGIN: Any = SimpleNamespace(TensorDesc=object, from_shape_expr=described)
alive: list[Any] = []  # TensorRT does not hold on to Python's objects


class Plugin(trt.IPluginV3, trt.IPluginV3OneCore, trt.IPluginV3OneBuild, trt.IPluginV3OneRuntime):  # type: ignore[misc]
    """An operator that computes nothing."""

    def __init__(self, operator: Operator, attributes: dict[str, float]) -> None:
        for base in (trt.IPluginV3, trt.IPluginV3OneCore, trt.IPluginV3OneBuild, trt.IPluginV3OneRuntime):
            base.__init__(self)
        self.operator, self.attributes = operator, attributes
        self.plugin_name, self.plugin_version, self.plugin_namespace = operator.name, "1", DOMAIN
        self.num_outputs = len(plugins.outputs_of(operator)) + 1
        self.types: list[Any] = []
        alive.append(self)

    def described(self, shapes: list[list[Size]]) -> Any:
        inputs = [described(*each) for each in zip(shapes, self.types, strict=True)]
        return plugins._Plugin(self.operator, trt, PLUGIN).described()(*inputs, **self.attributes)

    def get_capability_interface(self, kind: Any) -> Any:
        return self

    def get_output_data_types(self, types: list[Any]) -> list[Any]:
        self.types = list(types)
        shapes = [[Size() for _ in argument.shape] for argument in self.operator.inputs]
        return [output.dtype for output in self.described(shapes)]

    def get_output_shapes(self, inputs: list[Any], shape_inputs: list[Any], expressions: Any) -> list[Any]:
        shapes = [[Size(shape[axis]) for axis in range(len(shape))] for shape in inputs]
        made = []
        for output in self.described(shapes):
            sizes = trt.DimsExprs(len(output.shape_expr))
            for axis, size in enumerate(output.shape_expr):
                sizes[axis] = expressions.constant(size) if isinstance(size, int) else size.expression
            made.append(sizes)
        return made

    def supports_format_combination(self, index: int, arrays: list[Any], inputs: int) -> bool:
        given = [plugins._TYPES[output.dtype] for output in plugins.outputs_of(self.operator)]
        wanted = [*self.types, *(getattr(trt, name) for name in given), trt.int8]
        desc = arrays[index].desc
        return bool(desc.format == trt.TensorFormat.LINEAR and desc.type == wanted[index])

    def clone(self) -> Plugin:
        made = Plugin(self.operator, self.attributes)
        made.types = self.types
        return made

    def attach_to_context(self, context: Any) -> Plugin:
        return self.clone()

    def get_fields_to_serialize(self) -> Any:
        return trt.PluginFieldCollection([])

    def get_valid_tactics(self) -> list[int]:
        return []

    def configure_plugin(self, inputs: Any, outputs: Any) -> None: ...

    def on_shape_change(self, inputs: Any, outputs: Any) -> None: ...

    def set_tactic(self, tactic: int) -> None: ...

    def enqueue(self, *arrays: Any) -> None: ...


class Creator(trt.IPluginCreatorV3One):  # type: ignore[misc]
    """What the parser looks up; as ``tensorrt.plugin``'s own, of version 1."""

    def __init__(self, operator: Operator) -> None:
        super().__init__()
        self.operator = operator
        self.name, self.plugin_namespace, self.plugin_version = operator.name, DOMAIN, "1"
        kinds = {int: trt.PluginFieldType.INT64, float: trt.PluginFieldType.FLOAT64}
        self.presets = {name: preset for name, preset in operator.attributes.items() if name != "threads"}
        fields = [trt.PluginField(name, np.array([]), kinds[type(it)]) for name, it in self.presets.items()]
        self.field_names = trt.PluginFieldCollection(fields)

    def create_plugin(self, name: str, fields: Any, phase: Any) -> Plugin:
        given = {field.name: type(self.presets[field.name])(field.data[0]) for field in fields}
        assert set(given) == set(self.presets), given
        seen[self.operator.name] = given
        return Plugin(self.operator, given)


seen: dict[str, dict[str, float]] = {}


def main(path: str) -> dict[str, Any]:
    """What came of the graph: attributes of its plug-ins, inputs and outputs, the engine's bytes, errors."""
    plugins.ptx = lambda operator, half=False: ""  # not asked for, and not there without a CUDA compiler
    registry = trt.get_plugin_registry()
    creators = [Creator(operator) for operator in operators().values()]
    for creator in creators:
        assert registry.register_creator(creator, DOMAIN)
    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    flag = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    network = builder.create_network(0 if flag is None else 1 << int(flag))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(path):
        found = [parser.get_error(index) for index in range(parser.num_errors)]
        return {"errors": [f"{error.node_operator()}: {error.desc()}" for error in found]}
    config, profile = builder.create_builder_config(), builder.create_optimization_profile()
    config.clear_flag(trt.BuilderFlag.TF32)
    inputs = [network.get_input(index) for index in range(network.num_inputs)]
    for value in inputs:
        profile.set_shape(value.name, *([batch, *value.shape[1:]] for batch in (1, 4, 16)))
    config.add_optimization_profile(profile)
    config.num_compute_capabilities = 1
    config.set_compute_capability(trt.ComputeCapability.SM89, 0)
    engine = builder.build_serialized_network(network, config)
    outputs = [network.get_output(index) for index in range(network.num_outputs)]
    return {
        "errors": [],
        "plugins": seen,
        "inputs": {value.name: list(value.shape) for value in inputs},
        "outputs": {value.name: [list(value.shape), value.dtype.name] for value in outputs},
        "engine_bytes": 0 if engine is None else len(memoryview(engine)),
    }


if __name__ == "__main__":
    print(json.dumps(main(str(Path(sys.argv[1]).resolve()))), flush=True)
