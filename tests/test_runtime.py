"""Sessions: hostile model files, providers that are there or are errors, batches, inputs, threads."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import tiny_generators as tiny
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from fastface.errors import BadArgument, BadModelFile, FastfaceError, ProviderUnavailable
from fastface.runtime import Session, describe
from fastface.runtime.onnx_file import scan
from fastface.runtime.providers import provider_table

CPU = ["cpu"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A StarGAN of 16x16: image (B, 3, 16, 16) and label (B, 2) in, image out."""
    return tiny.stargan(tmp_path_factory.mktemp("model")).with_name("a.generator.onnx")


def inputs(batch: int, seed: int = 0) -> dict[str, NDArray[Any]]:
    random = np.random.default_rng(seed)
    return {
        "image": random.standard_normal((batch, 3, 16, 16), dtype=np.float32),
        "label": random.standard_normal((batch, 2), dtype=np.float32),
    }


def made(nodes: list[Any], weights: list[Any], *, domain: str = "", inputs: int = 4) -> onnx.ModelProto:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [inputs])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    opsets = [helper.make_opsetid("", 17)] + ([helper.make_opsetid(domain, 1)] if domain else [])
    return helper.make_model(
        helper.make_graph(nodes, "g", [x], [y], weights), opset_imports=opsets, ir_version=9
    )


def added(weight: Any) -> onnx.ModelProto:
    return made([helper.make_node("Add", ["x", weight.name], ["y"])], [weight])


# --- what a file says of itself ---


def test_a_file_is_described_without_a_runtime(model: Path) -> None:
    found = describe(model)
    assert {name: str(spec) for name, spec in found.inputs.items()} == {
        "image": "(B, 3, 16, 16) float32",
        "label": "(B, 2) float32",
    }
    assert list(found.outputs) == ["output"]
    assert found.metadata["kind"] == "stargan"


def test_the_outline_agrees_with_the_onnx_package() -> None:
    for path in sorted(
        (Path(describe.__globals__["__file__"]).parents[1] / "assets" / "landmarks").glob("*.onnx")
    ):
        graph = onnx.load(str(path)).graph
        found = scan(path)
        assert found.nodes == len(graph.node)
        for ours, theirs in ((found.inputs, graph.input), (found.outputs, graph.output)):
            shapes = {v.name: tuple(d.dim_value for d in v.type.tensor_type.shape.dim) for v in theirs}
            assert {name: spec.shape for name, spec in ours.items()} == shapes


@pytest.mark.parametrize("cut", [0, 1, 15, 200, 0.25, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_refused(model: Path, tmp_path: Path, cut: float) -> None:
    data = model.read_bytes()
    short = tmp_path / "short.onnx"
    short.write_bytes(data[: int(cut * len(data)) if cut < 1 else int(cut)])
    with pytest.raises(BadModelFile):
        Session(short, CPU)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"not a model at all, but words",
        bytes(5000),
        b"\x08\x07" * 500,
        os.urandom(1 << 16),
        b"PK\x03\x04" * 99,
    ],
    ids=["empty", "text", "zeros", "numbers", "noise", "zip"],
)
def test_what_is_no_model_is_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "x.onnx"
    path.write_bytes(data)
    with pytest.raises(BadModelFile, match=r"x\.onnx"):
        Session(path, CPU)


def test_missing_files_and_folders_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "none.onnx", tmp_path):
        with pytest.raises(BadModelFile):
            Session(path, CPU)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 1 << 30), st.integers(0, 255))
def test_one_wrong_byte_never_gets_past_our_errors(model: Path, tmp_path: Path, at: int, value: int) -> None:
    data = bytearray(model.read_bytes())
    data[at % len(data)] = value
    path = tmp_path / "bent.onnx"
    path.write_bytes(data)
    try:
        session = Session(path, CPU)
        session.run(inputs(2))
    except FastfaceError:
        pass


def external(folder: Path, location: str, **place: str) -> Path:
    weight = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4])
    weight.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **place}.items():
        entry = weight.external_data.add()
        entry.key, entry.value = key, value
    path = folder / "outside.onnx"
    path.write_bytes(added(weight).SerializeToString())
    return path


def test_weights_beside_the_model_are_read(tmp_path: Path) -> None:
    (tmp_path / "w.bin").write_bytes(np.arange(4, dtype=np.float32).tobytes())
    session = Session(external(tmp_path, "w.bin", offset="0", length="16"), CPU)
    np.testing.assert_array_equal(session.run({"x": np.zeros(4, np.float32)})["y"], [0, 1, 2, 3])


@pytest.mark.parametrize("how", ["parent", "absolute", "link", "nothing"])
def test_weights_outside_the_models_folder_are_refused(tmp_path: Path, how: str) -> None:
    secret = tmp_path / "secret.bin"
    secret.write_bytes(bytes(16))
    folder = tmp_path / "models"
    folder.mkdir()
    (folder / "link.bin").symlink_to(secret)
    location = {"parent": "../secret.bin", "absolute": str(secret), "link": "link.bin", "nothing": ""}[how]
    with pytest.raises(BadModelFile, match="outside its folder"):
        Session(external(folder, location), CPU)


def test_weights_longer_than_their_file_are_refused(tmp_path: Path) -> None:
    (tmp_path / "w.bin").write_bytes(bytes(12))
    with pytest.raises(BadModelFile, match="does not fit"):
        Session(external(tmp_path, "w.bin"), CPU)
    with pytest.raises(BadModelFile, match="not beside it"):
        Session(external(tmp_path, "missing.bin"), CPU)


def absurd_weight() -> onnx.ModelProto:
    return added(
        TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[1 << 20, 1 << 20], raw_data=bytes(16))
    )


def hollow_weight() -> onnx.ModelProto:
    return added(TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[1 << 24]))


def negative_weight() -> onnx.ModelProto:
    return added(TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[-4], raw_data=bytes(16)))


def absurd_constant() -> onnx.ModelProto:
    shape = numpy_helper.from_array(np.array([1 << 18, 1 << 18], np.int64), "shape")
    nodes = [
        helper.make_node("ConstantOfShape", ["shape"], ["ones"]),
        helper.make_node("ReduceSum", ["ones"], ["sum"]),
        helper.make_node("Add", ["x", "sum"], ["y"]),
    ]
    return made(nodes, [shape])


def strange_operator() -> onnx.ModelProto:
    return made([helper.make_node("Launder", ["x"], ["y"], domain="evil.example")], [], domain="evil.example")


@pytest.mark.parametrize(
    ("build", "says"),
    [
        (absurd_weight, "would have"),
        (hollow_weight, "declares"),
        (negative_weight, "negative"),
        (absurd_constant, "ConstantOfShape"),
        (strange_operator, "'Launder' of the domain 'evil.example'"),
    ],
)
def test_absurd_models_are_refused_before_a_runtime_sees_them(
    tmp_path: Path, build: Callable[[], onnx.ModelProto], says: str
) -> None:
    path = tmp_path / "absurd.onnx"
    path.write_bytes(build().SerializeToString())
    with pytest.raises(BadModelFile, match=says):
        Session(path, CPU)


def test_graphs_nested_without_end_are_refused(tmp_path: Path) -> None:
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", [], [])
    for _ in range(20):
        graph = helper.make_graph([helper.make_node("If", ["c"], ["y"], then_branch=graph)], "g", [], [])
    path = tmp_path / "deep.onnx"
    path.write_bytes(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]).SerializeToString()
    )
    with pytest.raises(BadModelFile, match="nested"):
        Session(path, CPU)


def test_a_standard_operator_that_does_not_exist_is_a_model_fault(tmp_path: Path) -> None:
    path = tmp_path / "none.onnx"
    path.write_bytes(made([helper.make_node("NoSuchThing", ["x"], ["y"])], []).SerializeToString())
    with pytest.raises(BadModelFile, match="NoSuchThing"):
        Session(path, CPU)


# --- providers ---


def test_a_missing_provider_is_an_error_that_says_how_to_get_it(model: Path) -> None:
    missing = [name for name, provider in provider_table().items() if provider.missing]
    if not missing:
        pytest.skip("this machine has every provider")
    with pytest.raises(ProviderUnavailable, match=r"Installed: .*cpu\. To get it: pip") as caught:
        Session(model, [missing[0]])
    assert str(caught.value).startswith(f"{missing[0]}: ")


def test_onnxruntimes_own_names_are_understood(model: Path) -> None:
    assert "onnxruntime" in Session(model, ["CPUExecutionProvider"]).provider
    for wrong in ("cpu", ["warp-drive"], []):
        with pytest.raises(BadArgument, match="providers"):
            Session(model, wrong)


def test_what_onnxruntime_drops_in_silence_is_an_error(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fastface.runtime import ort
    from fastface.runtime import providers as table

    if not table.provider_table()["cuda"].missing:
        pytest.skip("CUDA is there: nothing is dropped")
    # A machine that looks as if it had CUDA, whose onnxruntime then leaves the provider out with a warning.
    monkeypatch.setattr(table, "require", lambda name: None)
    with pytest.raises(ProviderUnavailable, match="cuda"):
        Session(model, ["cuda"])
    assert ort.ORT_NAMES["cuda"] == "CUDAExecutionProvider"


def test_the_fastest_is_taken_and_named(model: Path) -> None:
    session = Session(model)
    there = [name for name, provider in provider_table().items() if not provider.missing]
    words = {"openvino": "OpenVINO", "cpu": "CPU", "cuda": "CUDA", "tensorrt": "TensorRT"}[there[0]]
    assert words in session.provider
    assert all(session.passed_over.values())
    assert there[0] not in session.passed_over


def test_onnxruntime_has_no_other_precision_than_the_files(model: Path) -> None:
    assert Session(model, CPU, "fp32").precision == "fp32"
    with pytest.raises(ProviderUnavailable, match="bf16"):
        Session(model, CPU, "bf16")
    with pytest.raises(BadArgument, match="precision"):
        Session(model, CPU, "fp8")  # type: ignore[arg-type]


def test_openvino_agrees_with_onnxruntime_in_fp32_and_says_what_it_computes_in(model: Path) -> None:
    pytest.importorskip("openvino")
    batch = inputs(5)
    wanted = Session(model, CPU).run(batch)["output"]
    exact = Session(model, ["openvino"], "fp32")
    assert exact.precision == "fp32"
    assert "fp32" in exact.provider
    np.testing.assert_allclose(exact.run(batch)["output"], wanted, atol=1e-5)


def test_bfloat16_costs_what_its_mantissa_says(model: Path) -> None:
    openvino = pytest.importorskip("openvino")
    if "BF16" not in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        with pytest.raises(ProviderUnavailable, match="no instructions"):
            Session(model, ["openvino"], "bf16")
        return
    short = Session(model, ["openvino"])
    assert short.precision == "bf16"
    batch = inputs(5)
    error = np.abs(short.run(batch)["output"] - Session(model, CPU).run(batch)["output"])
    assert 0 < error.max() < 2**-8 * 8  # three layers of sums, each a few steps of 2^-8
    assert error.mean() < 2**-8


def test_a_precision_that_the_processor_lacks_is_an_error(model: Path) -> None:
    openvino = pytest.importorskip("openvino")
    if "FP16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        pytest.skip("this processor computes in fp16")
    with pytest.raises(ProviderUnavailable, match="fp16"):
        Session(model, ["openvino"], "fp16")
    with pytest.raises(ProviderUnavailable, match="fp16"):
        Session(model, precision="fp16")


# --- inputs and batches ---


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"label": None}, "label' is missing"),
        ({"extra": np.zeros(1, np.float32)}, "no input 'extra'"),
        ({"label": np.zeros((3, 2))}, "float64"),
        ({"label": np.zeros((3, 3), np.float32)}, r"\(B, 2\) float32, got \(3, 3\)"),
        ({"label": np.zeros(2, np.float32)}, r"got \(2,\)"),
        ({"label": np.zeros((2, 2), np.float32)}, "B is 2, but 3"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(model: Path, change: dict[str, Any], says: str) -> None:
    batch = {**inputs(3), **change}
    with pytest.raises(BadArgument, match=says):
        Session(model, CPU).run({name: value for name, value in batch.items() if value is not None})


def test_a_large_batch_in_pieces_is_the_same(model: Path) -> None:
    batch = inputs(11)
    whole = Session(model, CPU, max_batch=11).run(batch)["output"]
    pieces = Session(model, CPU, max_batch=4).run(batch)["output"]
    assert pieces.shape == (11, 3, 16, 16)
    np.testing.assert_allclose(pieces, whole, atol=1e-6)


def test_only_the_outputs_asked_for_come(model: Path) -> None:
    session = Session(model, CPU)
    assert list(session.run(inputs(1), ["output"])) == ["output"]
    assert session.run(inputs(1), []) == {}
    with pytest.raises(BadArgument, match="no output 'nothing'"):
        session.run(inputs(1), ["nothing"])


def test_a_batch_of_none_gives_none(model: Path) -> None:
    assert Session(model, CPU).run(inputs(0))["output"].shape == (0, 3, 16, 16)


def test_views_are_read_as_what_they_show(model: Path) -> None:
    batch = inputs(3)
    session = Session(model, CPU)
    turned = {"image": batch["image"].transpose(0, 1, 3, 2), "label": batch["label"][::-1]}
    copied = {name: np.ascontiguousarray(value) for name, value in turned.items()}
    np.testing.assert_array_equal(session.run(turned)["output"], session.run(copied)["output"])


@pytest.mark.parametrize("name", ["cpu", "openvino"])
def test_results_are_the_callers_own_and_threads_may_share(model: Path, name: str) -> None:
    if provider_table()[name].missing:
        pytest.skip(f"no {name}")
    session = Session(model, [name], "fp32")
    batches = [inputs(2, seed) for seed in range(8)]
    wanted = [session.run(batch)["output"] for batch in batches]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda batch: session.run(batch)["output"], batches * 4))
    for index, array in enumerate(found):
        np.testing.assert_array_equal(array, wanted[index % 8])


def test_dlpack_goes_in_and_out(model: Path) -> None:
    batch = inputs(2)
    session = Session(model, CPU)
    out = session.run_dlpack(batch)["output"]
    np.testing.assert_array_equal(np.from_dlpack(out), session.run(batch)["output"])
    with pytest.raises(BadArgument, match="__dlpack__"):
        session.run_dlpack({**batch, "label": [0.0, 1.0]})
    with pytest.raises(BadArgument, match="must be"):
        session.run_dlpack({**batch, "label": np.zeros((2, 3), np.float32)})


def test_bound_runs_give_what_plain_runs_give(model: Path) -> None:
    """The way that GPU sessions take, on the processor: inputs and outputs are bound, then copied out."""
    import onnxruntime

    from fastface.runtime.ort import _Bound

    plain = Session(model, CPU)
    bound = _Bound(onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"]), "cpu")
    for batch in (inputs(3), inputs(1, 1), inputs(3, 2)):
        np.testing.assert_array_equal(bound.run(batch, ["output"])["output"], plain.run(batch)["output"])


@pytest.mark.parametrize("threads", [0, -1, True, 2.0, 5000])
def test_threads_are_a_whole_number(model: Path, threads: Any) -> None:
    with pytest.raises(BadArgument, match="threads"):
        Session(model, CPU, threads=threads)


def test_one_thread_gives_what_two_give(model: Path) -> None:
    batch = inputs(3)
    one, two = (Session(model, CPU, threads=n) for n in (1, 2))
    assert "1 thread" in one.provider
    np.testing.assert_allclose(one.run(batch)["output"], two.run(batch)["output"], atol=1e-6)


# --- engines ---


def test_an_engine_needs_its_record_and_a_gpu(tmp_path: Path) -> None:
    import hashlib

    from fastface.runtime import cuda_driver

    plan = tmp_path / "net.plan"
    plan.write_bytes(b"engine")
    with pytest.raises(BadModelFile, match="no record"):
        Session(plan)
    record = {
        **{"format": "fastface-plan", "version": 1, "library": "tensorrt", "library_version": "11.4"},
        **{"gpu": "GPU of another house", "targets": [], "model_sha256": "0", "batch": [1, 4, 16]},
        **{"plan_sha256": "0", "inputs": {}, "outputs": {}, "metadata": {}},
    }
    beside = tmp_path / "net.plan.json"
    beside.write_text(json.dumps(record))
    with pytest.raises(BadModelFile, match="is not the engine"):
        Session(plan)
    record["plan_sha256"] = hashlib.sha256(b"engine").hexdigest()
    beside.write_text(json.dumps(record))
    lacks = "built for GPU of another house" if cuda_driver.devices() else "wants an NVIDIA GPU"
    with pytest.raises(ProviderUnavailable, match=lacks):
        Session(plan)
    beside.write_text(json.dumps({**record, "batch": "many"}))
    with pytest.raises(BadModelFile, match="damaged"):
        Session(plan)
