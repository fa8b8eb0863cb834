"""The ops inside ONNX Runtime: the same inputs and tolerances, and whatever else a graph may bring."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
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
from devices import KINDS, opened

from fastface import onnx_ops, ops, reference

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")

NAMES = {operator.op: name for name, operator in onnx_ops.operators().items()}


def single(
    op: str,
    attributes: dict[str, Any],
    arrays: dict[str, Any],
    threads: int = 2,
    plugin: bool = False,
    provider: str = "CPUExecutionProvider",
) -> Any:
    """A session of one node whose arrays are all inputs of the graph, of any shape.

    plugin: in the form of TensorRT's plug-ins.
    """
    from onnx import helper

    from fastface.exports.operator_nodes import ELEMENT, model_of, operator_node

    operator = onnx_ops.operators()[NAMES[op]]

    def value(argument: onnx_ops.Argument, dtype: str) -> Any:
        dtype = "int8" if plugin and dtype == "uint8" else dtype
        return helper.make_tensor_value_info(argument.name, ELEMENT[dtype], None)

    outputs = [argument for argument in operator.outputs if not (plugin and argument.optional)]
    node = operator_node(
        operator.name,
        {argument.name: argument.name for argument in operator.inputs},
        {argument.name: argument.name for argument in outputs},
        plugin=plugin,
        **attributes,
    )
    inputs = [
        value(a, "float16" if a.half_too and arrays[a.name].dtype == np.float16 else a.dtype)
        for a in operator.inputs
    ]
    graph = helper.make_graph([node], op, inputs, [value(a, a.dtype) for a in outputs])
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4
    onnx_ops.register(options)
    domain = onnx_ops.PLUGIN_DOMAIN if plugin else onnx_ops.DOMAIN
    model = model_of(graph, domain).SerializeToString()
    return ort.InferenceSession(model, options, providers=[provider])


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


CASES: dict[str, Callable[[], list[Case]]] = {
    "deform": deform_cases,
    "rasterize": rasterize_cases,
    "shade": shade_cases,
    "blend": blend_cases,
}


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


@pytest.fixture(params=KINDS)
def provider(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Of ONNX Runtime: CUDA's, or the processor's with what runs on a GPU emulated on the host."""
    if request.param == "emulated":
        monkeypatch.setenv("FASTFACE_ORT_DEVICE", "emulated")
        return "CPUExecutionProvider"
    opened(request.param)
    if "CUDAExecutionProvider" not in ort.get_available_providers():
        if os.environ.get("FASTFACE_REQUIRE_CUDA") == "1":
            pytest.fail("FASTFACE_REQUIRE_CUDA=1, but this onnxruntime has no CUDA; wanted onnxruntime-gpu")
        pytest.skip("no onnxruntime-gpu")
    return "CUDAExecutionProvider"


@pytest.mark.parametrize("op", CASES)
def test_the_devices_schedules_hold_behind_the_same_schema(op: str, provider: str) -> None:
    for case in CASES[op]()[:: 7 if op == "blend" else 1]:
        attributes, arrays = as_graph(op, case.arguments)
        got = single(op, attributes, arrays, provider=provider).run(None, arrays)
        if op == "shade":
            source, mask = reference.shade(**case.arguments)
            agreed = got[1] == mask
            assert (~agreed).sum() <= SHADE_TIES * agreed.size
            np.testing.assert_allclose(got[0][agreed], source[agreed], rtol=0, atol=SHADE_TOLERANCE)
            continue
        asked = {"rasterize": {"depth": True}, "blend": {"exact": True}}.get(op, {})
        wanted = getattr(reference, op)(**case.arguments, **asked)
        if op == "rasterize":
            for part, wanted_part in zip(got, wanted, strict=True):
                same(part, wanted_part)
        elif op == "blend":
            np.testing.assert_allclose(got[1], wanted.exact, rtol=0, atol=BLEND_TOLERANCE)
        else:
            np.testing.assert_allclose(got[0], wanted.positions, rtol=0, atol=POSITION_TOLERANCE_MM)


@pytest.mark.parametrize("op", CASES)
def test_in_the_form_of_plug_ins_they_are_the_same_with_int8_for_bytes(op: str) -> None:
    for case in CASES[op]()[:: 9 if op == "blend" else 2]:
        attributes, arrays = as_graph(op, case.arguments)
        bits = {
            name: value.view(np.int8) if value.dtype == np.uint8 else value for name, value in arrays.items()
        }
        got = single(op, attributes, bits, plugin=True).run(None, bits)
        operator = onnx_ops.operators()[NAMES[op]]
        wanted = zip(operator.outputs, run(op, case.arguments), strict=True)
        for part, (output, wanted_part) in zip(got, wanted, strict=False):
            assert not output.optional
            assert part.dtype == ("int8" if output.dtype == "uint8" else output.dtype)
            same(part.view(wanted_part.dtype), wanted_part)


# ---- what a graph may bring ------------------------------------------------------------------------------


def example(op: str) -> dict[str, Any]:
    return CASES[op]()[1].arguments


def refused(op: str, attributes: dict[str, Any] | None = None, **changes: Any) -> str:
    """What ONNX Runtime says of a node with some arrays or attributes exchanged."""
    wanted, arrays = as_graph(op, example(op))
    arrays |= changes
    with pytest.raises(Exception) as raised:  # noqa: PT011 - its exceptions share no base but this
        single(op, {**wanted, **(attributes or {})}, arrays).run(None, arrays)
    return str(raised.value)


@pytest.mark.parametrize(
    ("op", "changes", "message"),
    [
        (
            "deform",
            {"neutral": np.zeros((5, 4), np.float32)},
            "FastfaceDeform: neutral must be (5, 3) float32, got (5, 4) float32",
        ),
        (
            "deform",
            {"coefficients": np.zeros((2, 9), np.float32)},
            "coefficients must be (2, 17) float32, got (2, 9) float32",
        ),
        (
            "deform",
            {"camera": np.ones((7, 3), np.float32)},
            "camera must have one row, or one for every frame",
        ),
        (
            "deform",
            {"neutral": np.zeros((70, 3), np.float32)},
            "basis must have a block for every 64 vertices",
        ),
        (
            "rasterize",
            {"triangles": np.array([[0, 1, 99]], np.int32)},
            "triangles must hold vertex indices in [0, V), got one outside",
        ),
        ("rasterize", {"screen": np.zeros((1, 2, 2, 3), np.float32)}, "screen must be (B, V, 3) float32"),
        ("blend", {"photo": np.zeros((2, 48, 48, 3), np.uint8)}, "photo must be one image, or one for every"),
        ("blend", {"mask": np.zeros((1, 48, 47), np.uint8)}, "mask must be (1, 48, 48) uint8"),
        ("shade", {"triangles": np.full((874, 3), -1, np.int32)}, "triangles must hold indices of vertices"),
        ("shade", {"lip_rim": np.full((2, 4), 480, np.int32)}, "lip_rim must hold indices of vertices"),
        (
            "shade",
            {"controls": np.zeros((5, 6), np.float32)},
            "must fit each other, the image and the controls",
        ),
        ("shade", {"fold_box": np.full((2, 4), 999, np.int32)}, "fold_box must lie within the folds"),
        ("shade", {"rest_px": np.full((480, 2), np.nan, np.float32)}, "rest_px and shift_px must be finite"),
    ],
)
def test_arrays_that_do_not_fit_are_refused_in_words(op: str, changes: dict[str, Any], message: str) -> None:
    assert message in refused(op, **changes)


@pytest.mark.parametrize(
    ("op", "attributes", "message"),
    [
        ("rasterize", {"height": -1}, "attribute height must be an integer in 0 to 32767"),
        ("rasterize", {"width": 40000}, "attribute width must be an integer in 0 to 32767, got 40000"),
        ("rasterize", {"height": 8.0}, "attribute height must be an integer, got another type"),
        ("deform", {"near_mm": "far"}, "attribute near_mm must be a float, got another type"),
        ("deform", {"threads": -2}, "threads must be 0 (as many as the session has) to 1024, got -2"),
        ("blend", {"tolerance": 0.0}, "tolerance must be positive"),
        ("blend", {"tolerance": float("nan")}, "tolerance must be positive"),
        ("shade", {"lit_faces": -1}, "lit_fans must hold indices of the first lit_faces faces"),
        ("shade", {"lit_faces": 10**12}, "lit_faces must be a 32-bit integer"),
    ],
)
def test_attributes_that_make_no_sense_are_refused(op: str, attributes: dict[str, Any], message: str) -> None:
    assert message in refused(op, attributes)


def test_a_wrong_element_type_is_refused_when_the_graph_is_loaded() -> None:
    from onnx import TensorProto, helper

    from fastface.exports.operator_nodes import model_of, operator_node

    attributes, arrays = as_graph("blend", example("blend"))
    operator = onnx_ops.operators()["FastfacePoissonBlend"]
    node = operator_node(operator.name, {name: name for name in arrays}, {"image": "image"}, **attributes)
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.DOUBLE, array.shape) for name, array in arrays.items()
    ]
    outputs = [helper.make_tensor_value_info("image", TensorProto.UINT8, None)]
    options = ort.SessionOptions()
    onnx_ops.register(options)
    model = model_of(helper.make_graph([node], "wrong", inputs, outputs)).SerializeToString()
    with pytest.raises(Exception, match=r"Type 'tensor\(double\)' of input parameter \(photo\)"):
        ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def test_the_only_type_with_a_choice_says_which() -> None:
    packed = as_graph("deform", example("deform"))[1]["basis"]
    assert "basis must be (N, K, 3, 64) float32 or float16, got (6, 17, 3, 64) int32" in _deform_with_basis(
        packed.astype(np.int32)
    )


def _deform_with_basis(basis: Any) -> str:
    from onnx import TensorProto, helper

    from fastface.exports.operator_nodes import ELEMENT, model_of, operator_node

    _, arrays = as_graph("deform", example("deform"))
    arrays["basis"] = basis
    node = operator_node("FastfaceDeform", {n: n for n in arrays}, {"positions": "p", "screen": "s"})
    inputs = [
        helper.make_tensor_value_info(n, ELEMENT[str(a.dtype)], [None] * a.ndim) for n, a in arrays.items()
    ]
    outputs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in "ps"]
    options = ort.SessionOptions()
    options.log_severity_level = 4
    onnx_ops.register(options)
    model = model_of(helper.make_graph([node], "basis", inputs, outputs)).SerializeToString()
    opened = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    with pytest.raises(Exception) as raised:  # noqa: PT011
        opened.run(None, arrays)
    return str(raised.value)


def test_damaged_arrays_never_end_the_process() -> None:
    """Random shapes, types' extremes, indices and attributes: a result or an error, whatever comes."""
    rng = np.random.default_rng(5)
    done, refusals = 0, []
    for _ in range(150):
        op = str(rng.choice(["deform", "rasterize", "shade", "shade", "blend"]))
        attributes, arrays = as_graph(op, example(op))
        name = str(rng.choice(sorted(arrays)))
        arrays[name] = _damaged(arrays[name], rng)
        if attributes and rng.random() < 0.2:
            attributes[str(rng.choice(sorted(attributes)))] = int(rng.choice([-1, 0, 5, 70000]))
        try:
            single(op, attributes, arrays).run(None, arrays)
            done += 1
        except Exception as error:
            refusals.append(str(error))
    assert min(done, len(refusals)) > 20
    assert all("Fastface" in refusal for refusal in refusals)


def _damaged(array: Any, rng: Any) -> Any:
    if rng.random() < 0.4 and array.ndim:
        axis = int(rng.integers(array.ndim))
        size = max(array.shape[axis] + int(rng.choice([-1, 1, 40, -array.shape[axis]])), 0)
        return np.ascontiguousarray(np.resize(array, (*array.shape[:axis], size, *array.shape[axis + 1 :])))
    odd = {"f": [np.nan, np.inf, -1e38, 1e-40], "i": [-1, 2**31 - 1, -(2**31), 1000], "u": [4, 255]}
    damaged = array.copy()
    damaged[rng.random(array.shape) < rng.choice([0.01, 1.0])] = rng.choice(odd[array.dtype.kind])
    return damaged


# ---- what ONNX Runtime is told ---------------------------------------------------------------------------


def test_sizes_are_known_before_anything_runs() -> None:
    from onnx import TensorProto, helper

    from fastface.exports.operator_nodes import model_of, operator_node

    node = operator_node(
        "FastfaceRasterize",
        {"screen": "screen", "triangles": "triangles"},
        {"triangle_id": "triangle_id", "bary": "bary"},
        height=20,
        width=30,
    )
    inputs = [
        helper.make_tensor_value_info("screen", TensorProto.FLOAT, ["frames", 7, 3]),
        helper.make_tensor_value_info("triangles", TensorProto.INT32, [5, 3]),
    ]
    outputs = [
        helper.make_tensor_value_info("triangle_id", TensorProto.INT32, None),
        helper.make_tensor_value_info("bary", TensorProto.FLOAT, None),
    ]
    options = ort.SessionOptions()
    onnx_ops.register(options)
    model = model_of(helper.make_graph([node], "shapes", inputs, outputs)).SerializeToString()
    found = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"]).get_outputs()
    assert [value.shape for value in found] == [["frames", 20, 30], ["frames", 20, 30, 2]]
    assert [value.type for value in found] == ["tensor(int32)", "tensor(float)"]


def test_operators_are_what_the_ops_say() -> None:
    import inspect

    assert set(NAMES) == {"deform", "rasterize", "shade", "blend"}
    assert NAMES["blend"] == "FastfacePoissonBlend"
    for op, name in NAMES.items():
        operator = onnx_ops.operators()[name]
        known = set(inspect.signature(getattr(ops, op)).parameters) | {"moves"}
        known |= {field.name for field in dataclasses.fields(ops.PreparedShading)}
        assert {argument.name for argument in operator.inputs} <= known
        assert operator.version >= 1


@pytest.mark.parametrize("op", CASES)
def test_arrays_that_are_not_contiguous_are_taken_for_what_they_hold(op: str) -> None:
    attributes, arrays = as_graph(op, example(op))
    strided = {name: np.asfortranarray(value) for name, value in arrays.items()}
    last = next(name for name in reversed(arrays) if arrays[name].ndim > 1)
    strided[last] = np.repeat(arrays[last], 2, axis=-1)[..., ::2]
    assert not strided[last].flags.c_contiguous
    opened = single(op, attributes, arrays)
    for got, wanted in zip(opened.run(None, strided), opened.run(None, arrays), strict=True):
        same(got, wanted)


# ---- threads ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("op", CASES)
def test_results_do_not_depend_on_threads(op: str) -> None:
    attributes, arrays = as_graph(op, example(op))
    for given in (0, 1, 3):
        for session_threads in (1, 2):
            got = single(op, {**attributes, "threads": given}, arrays, session_threads).run(None, arrays)
            for part, wanted in zip(got, run(op, example(op), 1), strict=True):
                same(part, wanted)


def test_the_sessions_threads_are_the_only_ones() -> None:
    from pathlib import Path

    tasks = Path("/proc/self/task")
    if not tasks.is_dir():
        pytest.skip("threads cannot be counted here")
    attributes, arrays = as_graph("rasterize", rasterize_cases()[3].arguments)
    opened = single("rasterize", {**attributes, "threads": 8}, arrays, 2)
    before = len(list(tasks.iterdir()))
    for _ in range(3):
        opened.run(None, arrays)
    assert len(list(tasks.iterdir())) == before


def test_a_session_may_run_on_many_threads_at_once() -> None:
    from concurrent.futures import ThreadPoolExecutor

    attributes, arrays = as_graph("shade", example("shade"))
    opened = single("shade", attributes, arrays)
    wanted = opened.run(None, arrays)
    with ThreadPoolExecutor(4) as workers:
        for got in workers.map(lambda _: opened.run(None, arrays), range(24)):
            same(got[0], wanted[0])
            same(got[1], wanted[1])


# ---- registration ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("release", "has_first"), [(b"1.9.0", True), (b"1.99.0", True), (b"2.0.0", False)])
def test_a_runtime_without_the_interface_is_refused_in_words(
    release: bytes, has_first: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    """An older or a much newer runtime than the one that is needed, made of ctypes."""
    import ctypes

    library = ctypes.CDLL(os.fspath(onnx_ops.library_path()))
    said: list[tuple[int, bytes]] = []

    @ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_int, ctypes.c_char_p)
    def create_status(code: int, message: bytes) -> int:
        said.append((code, message))
        return 1

    table = (ctypes.c_void_p * 3)(ctypes.cast(create_status, ctypes.c_void_p), None, None)

    @ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_uint32)
    def table_of(version: int) -> int | None:
        return ctypes.addressof(table) if version == 1 and has_first else None

    words = ctypes.create_string_buffer(release)

    @ctypes.CFUNCTYPE(ctypes.c_void_p)
    def version() -> int:
        return ctypes.addressof(words)

    base = (ctypes.c_void_p * 2)(*(ctypes.cast(f, ctypes.c_void_p) for f in (table_of, version)))
    library.RegisterCustomOps.restype = ctypes.c_void_p
    status = library.RegisterCustomOps(None, base)
    wanted = (
        "need version 18 of ONNX Runtime's interface (release 1.18 or newer); this is " + release.decode()
    )
    if has_first:
        (code, message), *more = said
        assert (status, code, more) == (1, 9, [])
        assert wanted in message.decode()
    else:  # not even an error can be made
        assert status is None
        assert wanted in capfd.readouterr().err


def test_a_wrong_instruction_set_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTFACE_ISA", "mmx")
    with pytest.raises(Exception, match="FASTFACE_ISA names no instruction set of this machine: mmx"):
        onnx_ops.register(ort.SessionOptions())


def test_a_device_that_cannot_be_chosen_so_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTFACE_ORT_DEVICE", "cuda")
    with pytest.raises(Exception, match=r"may be emulated and nothing else .*, got cuda"):
        onnx_ops.register(ort.SessionOptions())


def test_options_serve_several_sessions() -> None:
    attributes, arrays = as_graph("blend", example("blend"))
    first, second = single("blend", attributes, arrays), single("blend", attributes, arrays)
    wanted = first.run(None, arrays)
    del first
    same(second.run(None, arrays)[0], wanted[0])
