"""The ops as TensorRT plug-ins, ahead of time: PTX made of the same sources, and how to launch it.

Importing this module registers them where TensorRT is installed (``tensorrt.plugin``, from 10.9 on): the
plug-ins "FastfaceDeform", "FastfaceRasterize", "FastfaceShade" and "FastfacePoissonBlend" of namespace
"fastface". The engine that is built holds the PTX and needs neither Python nor fastface.

Arrays are those of the ONNX operators, with two differences: TensorRT's plug-ins know no uint8, so that
bytes go in and come out as int8 of the same bits, and the last output is workspace that nobody need read.
Every size but the batch "B" must be known when the engine is built. One block of threads computes a frame.
"""

from __future__ import annotations

import ctypes
import hashlib
import inspect
import os
import re
import struct
from importlib.util import find_spec
from types import GenericAlias
from typing import Any, Final

from fastface.errors import BadArgument, ProviderUnavailable
from fastface.onnx_ops import DOMAIN, Argument, Operator, library_path, operators

THREADS: Final = 512  # kThreads in csrc/tensorrt/plugin.cu
LEAST: Final = (10, 9)
#: Sizes that are 1 or the batch: kOneOrEach in csrc/tensorrt/frame.h.
_ONE_OR_EACH: Final = {"deform": "C", "blend": "P"}
_TYPES: Final = {"float32": "float32", "float16": "float16", "int32": "int32", "uint8": "int8"}
_SIZE_ATTRIBUTES: Final = {"height": "H", "width": "W"}


def ptx(operator: Operator, *, half: bool = False) -> str:
    """The kernel of an operator; ``half``: its real numbers are float16.

    Raises ``ProviderUnavailable`` where fastface was built without a CUDA compiler.
    """
    path = library_path().parent / "ptx" / f"{operator.op}{'_half' if half else ''}.ptx"
    if not path.is_file():
        raise ProviderUnavailable(
            f"TensorRT plug-ins: there is no {path}; install fastface where nvcc is found (CUDA 12 or later)"
        )
    return path.read_text()


def digest() -> str:
    """SHA-256 of all kernels, in hex. Raises ``ProviderUnavailable`` where there are none."""
    found = hashlib.sha256()
    for operator in operators().values():
        for half in (False, True) if operator.op == "deform" else (False,):
            found.update(ptx(operator, half=half).encode())
    return found.hexdigest()


def entry_name(text: str) -> str:
    """The one kernel of a PTX text. Raises ``BadArgument``."""
    found: list[str] = re.findall(r"^\s*(?:\.visible\s+)?\.entry\s+([\w$]+)", text, re.MULTILINE)
    if len(found) != 1:
        raise BadArgument(f"wanted PTX with one kernel, got {len(found)}")
    return found[0]


def parameters(text: str) -> list[str]:
    """The types of its arguments, "u64" for an address. Raises ``BadArgument``."""
    head = text[text.index(entry_name(text)) :]
    return re.findall(r"\.param\s+\.(\w+)\s+[\w$]+", head[: head.index(")")])


def letters(operator: Operator) -> list[str]:
    """The letters of its shapes, each where it first stands: the order in which a kernel is told sizes."""
    arrays = (*operator.inputs, *outputs_of(operator))
    return list(dict.fromkeys(size for array in arrays for size in array.shape if not size.isdigit()))


def outputs_of(operator: Operator) -> list[Argument]:
    """What a plug-in gives, without the workspace: outputs that need not be taken are not made."""
    return [output for output in operator.outputs if not output.optional]


def attributes_of(operator: Operator) -> list[str]:
    """The attributes that a kernel is told by value; sizes are told as such, threads not at all."""
    return [name for name in operator.attributes if name not in ("threads", *_SIZE_ATTRIBUTES)]


def workspace_bytes(operator: Operator, sizes: dict[str, int]) -> int:
    """Bytes that one frame needs. Raises ``BadArgument`` when they are more than a plug-in can be told."""
    measure = ctypes.CDLL(os.fspath(library_path())).fastface_frame_workspace
    measure.restype = ctypes.c_int64
    table = (ctypes.c_int64 * 128)()
    for letter, size in sizes.items():
        table[ord(letter)] = size
    found = int(measure(operator.name.encode(), table))
    if not 0 <= found < 2**31:
        raise BadArgument(f"{operator.name}: a frame may need at most 2 GB of workspace, got {found} bytes")
    return found


def register(trt: Any = None, plugin: Any = None) -> list[str]:
    """Register the plug-ins with ``tensorrt``; their ids.

    Raises ``ProviderUnavailable`` where it is not installed, older than 10.9, or fastface has no PTX.
    """
    if trt is None or plugin is None:
        trt, plugin = _tensorrt()
    return [_register(operator, trt, plugin) for operator in operators().values()]


def _tensorrt() -> tuple[Any, Any]:
    try:
        import tensorrt
        import tensorrt.plugin as plugin
    except ImportError as error:
        raise ProviderUnavailable(
            f"TensorRT plug-ins: wanted tensorrt {LEAST[0]}.{LEAST[1]} or newer with tensorrt.plugin: {error}"
        ) from None
    if tuple(int(part) for part in tensorrt.__version__.split(".")[:2]) < LEAST:
        raise ProviderUnavailable(
            f"TensorRT plug-ins: wanted tensorrt {LEAST[0]}.{LEAST[1]} or newer, got {tensorrt.__version__}"
        )
    return tensorrt, plugin


def _register(operator: Operator, trt: Any, plugin: Any) -> str:
    made = _Plugin(operator, trt, plugin)
    plugin_id = f"{DOMAIN}::{operator.name}"
    plugin.register(plugin_id)(made.described())
    plugin.aot_impl(plugin_id)(made.implemented())
    return plugin_id


class _Plugin:
    """One operator's two functions in the form that ``tensorrt.plugin`` reads: by their signatures."""

    def __init__(self, operator: Operator, trt: Any, plugin: Any) -> None:
        self._operator, self._trt, self._plugin = operator, trt, plugin
        ptx(operator)  # missing PTX is told when registering, not in the middle of a build
        desc: Any = plugin.TensorDesc
        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
        self._inputs = [inspect.Parameter(a.name, kind, annotation=desc) for a in operator.inputs]
        self._attributes = [
            inspect.Parameter(name, kind, annotation=type(preset))
            for name, preset in operator.attributes.items()
            if name != "threads"
        ]
        # One type, however many there are: TensorRT takes no ellipsis.
        self._rest = [
            inspect.Parameter("outputs", kind, annotation=_tuple_of(desc)),
            inspect.Parameter("tactic", kind, annotation=int),
        ]
        self._count = len(outputs_of(operator)) + 1

    def described(self) -> Any:
        """(inputs, attributes) → the outputs' types and shapes."""
        result = _tuple_of(*(self._plugin.TensorDesc,) * self._count)
        signature = inspect.Signature([*self._inputs, *self._attributes], return_annotation=result)

        def describe(*given: Any, **named: Any) -> tuple[Any, ...]:
            values = signature.bind(*given, **named).arguments
            sizes = self._sizes(values)
            made = [
                self._plugin.from_shape_expr(
                    tuple(int(size) if size.isdigit() else sizes[size] for size in output.shape),
                    getattr(self._trt, _TYPES[output.dtype]),
                )
                for output in outputs_of(self._operator)
            ]
            room = max(workspace_bytes(self._operator, self._constant(sizes)), 1)
            return (*made, self._plugin.from_shape_expr((sizes["B"], room), self._trt.int8))

        describe.__signature__ = signature  # type: ignore[attr-defined]
        return describe

    def implemented(self) -> Any:
        """(inputs, attributes, outputs, tactic) → kernel's name, PTX, launch, numbers."""
        plugin = self._plugin
        result = _tuple_of(str, str, plugin.KernelLaunchParams, plugin.SymIntExprs)
        signature = inspect.Signature(
            [*self._inputs, *self._attributes, *self._rest], return_annotation=result
        )

        def implement(*given: Any, **named: Any) -> tuple[str, str, Any, Any]:
            values = signature.bind(*given, **named).arguments
            sizes = self._sizes(values)
            launch = plugin.KernelLaunchParams()
            launch.grid_x, launch.block_x, launch.shared_mem = sizes["B"], THREADS, 0
            told = [
                *(sizes[letter] for letter in letters(self._operator)),
                workspace_bytes(self._operator, self._constant(sizes)),
                *(_bits(values[name]) for name in attributes_of(self._operator)),
            ]
            numbers = plugin.SymIntExprs(len(told))
            for index, number in enumerate(told):
                numbers[index] = plugin.SymInt32(number)
            text = ptx(self._operator, half=self._half(values))
            return entry_name(text), text, launch, numbers

        implement.__signature__ = signature  # type: ignore[attr-defined]
        return implement

    def _half(self, values: dict[str, Any]) -> bool:
        real = [argument.name for argument in self._operator.inputs if argument.half_too]
        return any(values[name].dtype == self._trt.float16 for name in real)

    def _sizes(self, values: dict[str, Any]) -> dict[str, Any]:
        """Every letter's size: a number, or an expression for what is known only when the engine runs."""
        sizes: dict[str, Any] = {
            letter: values[name] for name, letter in _SIZE_ATTRIBUTES.items() if name in values
        }
        for argument in self._operator.inputs:
            for axis, letter in enumerate(argument.shape):
                if not letter.isdigit():
                    sizes.setdefault(letter, values[argument.name].shape_expr[axis])
        return sizes

    def _constant(self, sizes: dict[str, Any]) -> dict[str, int]:
        """All but the batch. Raises ``BadArgument`` where another size is open."""
        known: dict[str, int] = {}
        for letter, size in sizes.items():
            if isinstance(size, int):
                known[letter] = size
            elif size.is_fake:  # while only the network's form is asked for
                known[letter] = 1
            elif size.is_constant:
                known[letter] = size.constant_value()
            elif letter not in ("B", _ONE_OR_EACH.get(self._operator.op)):
                raise BadArgument(
                    f"{self._operator.name}: size {letter} must be known when the engine is built"
                )
        return known


def _tuple_of(*types: Any) -> Any:
    """The annotation ``tuple[…]`` of types that are known only now."""
    return GenericAlias(tuple, types)


def _bits(value: float) -> int:
    """A number as the 32 bits that a kernel reads."""
    return value if isinstance(value, int) else int(struct.unpack("<i", struct.pack("<f", value))[0])


if find_spec("tensorrt") is not None:
    register()
