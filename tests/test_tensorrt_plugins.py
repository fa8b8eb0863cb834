"""TensorRT plug-ins: kernels, the order of their arguments, and what TensorRT is told of them.

TensorRT itself is not here. What is real: the PTX assembles for GPUs, its arguments are as many and of the
kind that TensorRT passes, and the code that reads them computes on a processor what the ops compute. What a
stand-in for ``tensorrt.plugin`` shows is only that the calls have the documented form.
"""

from __future__ import annotations

import ctypes
import inspect
import os
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from cases import (
    BLEND_TOLERANCE,
    POSITION_TOLERANCE_MM,
    SHADE_TIES,
    SHADE_TOLERANCE,
    blend_cases,
    deform_cases,
    rasterize_cases,
    shade_cases,
)
from test_onnx_ops import NAMES, as_graph

from fastface import onnx_ops, reference
from fastface.errors import BadArgument, ProviderUnavailable
from fastface.exports import tensorrt_plugins as plugins

KERNELS = [(name, False) for name in onnx_ops.operators()] + [("FastfaceDeform", True)]
needs_ptx = pytest.mark.skipif(
    not (onnx_ops.library_path().parent / "ptx").is_dir(), reason="built without a CUDA compiler"
)


# ---- kernels ---------------------------------------------------------------------------------------------


@needs_ptx
@pytest.mark.parametrize(("name", "half"), KERNELS)
def test_a_kernel_takes_inputs_then_numbers_then_outputs(name: str, half: bool) -> None:
    operator = onnx_ops.operators()[name]
    wanted = [
        *["u64"] * len(operator.inputs),
        *["u32"] * (len(plugins.letters(operator)) + 1 + len(plugins.attributes_of(operator))),
        *["u64"] * (len(plugins.outputs_of(operator)) + 1),
    ]
    assert plugins.parameters(plugins.ptx(operator, half=half)) == wanted


@needs_ptx
@pytest.mark.parametrize(("name", "half"), KERNELS)
def test_a_kernel_assembles(name: str, half: bool, tmp_path: Path) -> None:
    assembler = shutil.which("ptxas") or shutil.which("ptxas", path="/usr/local/cuda/bin")
    if assembler is None:
        pytest.skip("no ptxas here")
    (tmp_path / "kernel.ptx").write_text(plugins.ptx(onnx_ops.operators()[name], half=half))
    command = [assembler, "-arch=sm_90", "-O1", "-v", "kernel.ptx", "-o", "kernel.cubin"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert plugins.entry_name((tmp_path / "kernel.ptx").read_text()) in done.stderr


def test_damaged_ptx_is_refused() -> None:
    with pytest.raises(BadArgument, match="wanted PTX with one kernel, got 0"):
        plugins.entry_name(".version 8.0")


# ---- arguments, computed with on a processor -------------------------------------------------------------


class Slot(ctypes.Union):
    _fields_ = (("address", ctypes.c_void_p), ("number", ctypes.c_int32))


def computed(op: str, case: dict[str, Any]) -> dict[str, Any]:
    """The outputs of a plug-in's kernel, given its arguments as TensorRT would give them."""
    operator = onnx_ops.operators()[NAMES[op]]
    attributes, arrays = as_graph(op, case)
    preset = {"near_mm": 1.0, "tolerance": 0.25, "cull_backfaces": 0}
    sizes = {"H": attributes.pop("height", None), "W": attributes.pop("width", None)}
    for argument in operator.inputs:
        for letter, size in zip(argument.shape, arrays[argument.name].shape, strict=True):
            if not letter.isdigit():
                sizes[letter] = size
    frames = sizes["B"]
    room = max(plugins.workspace_bytes(operator, {k: v for k, v in sizes.items() if v is not None}), 1)
    made = {
        output.name: np.full([int(sizes.get(s, s)) for s in output.shape], 77, output.dtype)
        for output in plugins.outputs_of(operator)
    }
    workspace = np.full(frames * room + 128, 0xCD, np.uint8)
    start = -workspace.ctypes.data % 64
    numbers = [sizes[letter] for letter in plugins.letters(operator)]
    told = [{**preset, **attributes}[name] for name in plugins.attributes_of(operator)]
    numbers = [*numbers, room, *(plugins._bits(value) for value in told)]
    slots = [
        *(Slot(address=arrays[a.name].ctypes.data) for a in operator.inputs),
        *(Slot(number=number) for number in numbers),
        *(Slot(address=array.ctypes.data) for array in made.values()),
        Slot(address=workspace.ctypes.data + start),
    ]
    run = ctypes.CDLL(os.fspath(onnx_ops.library_path())).fastface_plugin_on_host
    half = op == "deform" and arrays["basis"].dtype == np.float16
    status = run(operator.name.encode(), (Slot * len(slots))(*slots), int(half), ctypes.c_int64(frames))
    assert status == 0
    assert (workspace[:start] == 0xCD).all()
    assert (workspace[start + frames * room :] == 0xCD).all()  # not a byte more than was said
    return made


@pytest.mark.parametrize("index", range(len(deform_cases())))
def test_deform(index: int) -> None:
    case = deform_cases()[index].arguments
    wanted = reference.deform(**case)
    positions = computed("deform", case)["positions"]
    np.testing.assert_allclose(positions, wanted.positions, rtol=0, atol=POSITION_TOLERANCE_MM)


@pytest.mark.parametrize("name", ["sheet", "soup", "hostile", "culled", "no triangles"])
def test_rasterize(name: str) -> None:
    case = next(c for c in rasterize_cases() if c.name == name).arguments
    wanted = reference.rasterize(**case)
    got = computed("rasterize", case)
    np.testing.assert_array_equal(got["triangle_id"], wanted.triangle_id)
    np.testing.assert_array_equal(got["bary"], wanted.bary)


@pytest.mark.parametrize("name", ["all layers", "batch", "no folds, no shifts", "out of the image"])
def test_shade(name: str) -> None:
    case = next(c for c in shade_cases() if c.name == name).arguments
    source, mask = reference.shade(**case)
    got = computed("shade", case)
    agreed = got["mask"] == mask
    assert (~agreed).sum() <= SHADE_TIES * agreed.size
    np.testing.assert_allclose(got["source"][agreed], source[agreed], rtol=0, atol=SHADE_TOLERANCE)


@pytest.mark.parametrize("name", ["batch", "one photo", "two rooms, smooth"])
def test_blend(name: str) -> None:
    case = next(c for c in blend_cases() if c.name == name).arguments
    wanted = reference.blend(**case, exact=True).exact
    rounded = np.clip(wanted, 0, 255)
    np.testing.assert_allclose(computed("blend", case)["image"], rounded, rtol=0, atol=BLEND_TOLERANCE + 0.5)


def test_too_much_workspace_is_refused() -> None:
    operator = onnx_ops.operators()["FastfacePoissonBlend"]
    with pytest.raises(BadArgument, match="at most 2 GB of workspace"):
        plugins.workspace_bytes(operator, {"H": 30000, "W": 30000, "P": 1})


# ---- what TensorRT is told -------------------------------------------------------------------------------


class Desc:
    def __init__(self, shape: tuple[Any, ...], dtype: str) -> None:
        self.shape_expr, self.dtype = [Size(size) for size in shape], dtype


class Size:
    """An expression that is a number, or open."""

    is_fake = False

    def __init__(self, value: Any) -> None:
        self.value = value

    @property
    def is_constant(self) -> bool:
        return isinstance(self.value, int)

    def constant_value(self) -> int:
        assert isinstance(self.value, int)
        return self.value


class Launch:
    grid_x = block_x = shared_mem = None


class Numbers(list):  # type: ignore[type-arg]
    def __init__(self, count: int) -> None:
        super().__init__([None] * count)


def stand_in() -> tuple[Any, Any, dict[str, Any]]:
    """Keeps to the documented form: typed inputs before attributes, a typed result, outputs and tactic."""
    known: dict[str, Any] = {}

    def registers(plugin_id: str) -> Any:
        def accept(function: Any) -> Any:
            signature = inspect.signature(function)
            kinds = [p.annotation for p in signature.parameters.values()]
            assert set(kinds) <= {Desc, int, float}
            assert kinds == sorted(kinds, key=lambda kind: kind is not Desc)
            assert set(signature.return_annotation.__args__) == {Desc}
            known[plugin_id] = SimpleNamespace(describe=function)
            return function

        return accept

    def implements(plugin_id: str) -> Any:
        def accept(function: Any) -> Any:
            before = list(inspect.signature(known[plugin_id].describe).parameters)
            assert list(inspect.signature(function).parameters) == [*before, "outputs", "tactic"]
            outputs = inspect.signature(function).parameters["outputs"].annotation
            assert all(issubclass(kind, Desc) for kind in outputs.__args__)
            returned = inspect.signature(function).return_annotation.__args__
            assert returned == (str, str, Launch, Numbers)
            known[plugin_id].implement = function
            return function

        return accept

    trt = SimpleNamespace(float32="float32", float16="float16", int32="int32", int8="int8")
    plugin = SimpleNamespace(
        TensorDesc=Desc,
        KernelLaunchParams=Launch,
        SymIntExprs=Numbers,
        SymInt32=lambda value: getattr(value, "value", value),
        from_shape_expr=lambda shape, dtype: Desc(tuple(getattr(s, "value", s) for s in shape), dtype),
        register=registers,
        aot_impl=implements,
    )
    return trt, plugin, known


@needs_ptx
def test_registration_has_the_documented_form() -> None:
    trt, plugin, known = stand_in()
    assert plugins.register(trt, plugin) == [f"fastface::{name}" for name in onnx_ops.operators()]
    rasterize = known["fastface::FastfaceRasterize"]
    inputs = Desc(("B", 500, 3), "float32"), Desc((900, 3), "int32")
    attributes = {"cull_backfaces": 1, "height": 64, "width": 48}
    ids, bary, workspace = rasterize.describe(*inputs, **attributes)
    assert [size.value for size in ids.shape_expr] == ["B", 64, 48]
    assert [size.value for size in bary.shape_expr] == ["B", 64, 48, 2]
    assert workspace.dtype == "int8"
    assert workspace.shape_expr[1].value >= 64 * 48 * 8
    name, text, launch, numbers = rasterize.implement(
        *inputs, **attributes, outputs=(ids, bary, workspace), tactic=0
    )
    assert f".entry {name}(" in text
    assert (launch.grid_x.value, launch.block_x, launch.shared_mem) == ("B", plugins.THREADS, 0)
    assert numbers == ["B", 500, 900, 64, 48, workspace.shape_expr[1].value, 1]
    deform = known["fastface::FastfaceDeform"]
    model = [Desc((500, 3), "float32"), Desc((8, 52, 3, 64), "float16"), Desc((8, 52), "int8")]
    given = [*model, Desc(("B", 52), "float32"), Desc((1, 3), "float32")]
    half, _, _, told = deform.implement(*given, near_mm=1.0, outputs=(), tactic=0)
    assert "Lb1E" in half  # the kernel of half precision
    assert told == [500, 8, 52, "B", 1, 0, 0x3F800000]
    with pytest.raises(BadArgument, match="size V must be known when the engine is built"):
        rasterize.describe(Desc(("B", "V", 3), "float32"), inputs[1], **attributes)


def test_without_tensorrt_registration_says_how_to_get_it() -> None:
    if plugins.find_spec("tensorrt") is not None:
        pytest.skip("tensorrt is installed")
    with pytest.raises(ProviderUnavailable, match=r"wanted tensorrt 10\.9 or newer"):
        plugins.register()
