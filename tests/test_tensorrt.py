"""TensorRT engines, built for real by tensorrt_rtx, which needs no GPU: in processes of their own.

Skipped where no such wheel is installed; with FASTFACE_REQUIRE_TENSORRT=1 that is a failure.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
import tiny_generators as tiny
from onnx import TensorProto, helper
from typer.testing import CliRunner

import fastface
from fastface.cli.app import app
from fastface.engine import Engine
from fastface.errors import BadArgument, BadModelFile, ProviderUnavailable
from fastface.exports import tensorrt_engine, tensorrt_plugins
from fastface.exports.renderer import export_renderer, resized
from fastface.exports.tensorrt_engine import TARGETS, build_engine, build_generator
from fastface.onnx_ops import operators
from fastface.runtime import Session, cuda_driver
from fastface.runtime.plan import read_record, record_path
from fastface.runtime.tensorrt_engine import MODULES

NETWORKS = sorted((Path(fastface.__file__).parent / "assets" / "landmarks").glob("*.onnx"))
EVERY = ("SM75", *TARGETS)
INSTALLED = any(find_spec(module) for module in MODULES["tensorrt_rtx"])


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Timings go to the test's own folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def rtx() -> None:
    if not INSTALLED:
        if os.environ.get("FASTFACE_REQUIRE_TENSORRT") == "1":
            pytest.fail("tensorrt_rtx is not installed, and FASTFACE_REQUIRE_TENSORRT is set")
        pytest.skip("no tensorrt_rtx: pip install tensorrt-rtx-cu13-libs tensorrt-rtx-cu13-bindings")


def build(model: Path, plan: Path, **how: object):  # type: ignore[no-untyped-def]
    return build_engine(model, plan, library="tensorrt_rtx", **how)  # type: ignore[arg-type]


@pytest.mark.usefixtures("rtx")
@pytest.mark.parametrize("network", NETWORKS, ids=lambda path: path.stem)
def test_the_landmark_networks_build_for_every_gpu_family(network: Path, tmp_path: Path) -> None:
    built = build(network, tmp_path / "x.plan", targets=EVERY)
    assert built.reasons == ["there was none"]
    assert built.plan.stat().st_size > network.stat().st_size / 4
    record = read_record(built.plan)
    assert record.targets == list(EVERY)
    assert set(record.inputs) == {"points" if network.stem == "blendshapes" else "image"}


@pytest.mark.usefixtures("rtx")
@pytest.mark.parametrize("kind", [tiny.stylegan, tiny.starganv2, tiny.stargan, tiny.ganimation])
def test_each_part_of_a_generator_builds_with_a_varying_batch(
    kind: Callable[[Path], Path], tmp_path: Path
) -> None:
    net = kind(tmp_path)
    built = build_generator(net, tmp_path / "fast.plan", library="tensorrt_rtx", batch=(1, 2, 4))
    parts = {path.name.split(".")[1] for path in tmp_path.glob("*.onnx")}
    assert {engine.plan.name for engine in built} == {f"fast.{part}.plan" for part in parts}
    for engine in built:
        record = read_record(engine.plan)
        assert record.batch == [1, 2, 4]
        assert record.metadata["part"] == engine.plan.name.split(".")[1]


@pytest.mark.usefixtures("rtx")
def test_an_engine_is_kept_until_something_differs_and_says_what(tmp_path: Path) -> None:
    model = tiny.stargan(tmp_path).with_name("a.generator.onnx")
    plan = tmp_path / "a.plan"
    assert build(model, plan, targets=["SM86"]).reasons == ["there was none"]
    before = plan.read_bytes()
    assert build(model, plan, targets=["SM86"]).reasons == []
    assert plan.read_bytes() == before

    how: dict[str, object] = {"batch": (1, 2, 2), "targets": ["SM89"]}
    assert build(model, plan, **how).reasons == [
        "target GPUs: built for SM86, now SM89",
        "batch range: built for 1, 4, 16, now 1, 2, 2",
    ]
    record = json.loads(record_path(plan).read_text())
    record_path(plan).write_text(json.dumps({**record, "library_version": "0.1"}))
    (reason,) = build(model, plan, **how).reasons
    assert reason.startswith("TensorRT version: built for 0.1, now ")
    changed = onnx.load(str(model))
    changed.doc_string = "another"
    model.write_bytes(changed.SerializeToString())
    (reason,) = build(model, plan, **how).reasons
    assert reason.startswith("model: built for ")
    plan.write_bytes(plan.read_bytes()[:-1])
    (reason,) = build(model, plan, **how).reasons
    assert "is not the engine" in reason
    assert build(model, plan, **how, force=True).reasons == ["asked to"]


@pytest.mark.usefixtures("rtx")
def test_what_tensorrt_does_not_take_is_a_model_fault_in_its_words(tmp_path: Path) -> None:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["B", 4])
    y = helper.make_tensor_value_info("y", TensorProto.STRING, None)
    graph = helper.make_graph([helper.make_node("StringNormalizer", ["x"], ["y"])], "g", [x], [y])
    path = tmp_path / "words.onnx"
    path.write_bytes(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]).SerializeToString()
    )
    with pytest.raises(BadModelFile, match="tensorrt_rtx refuses it: UNSUPPORTED_NODE: StringNormalizer"):
        build(path, tmp_path / "x.plan")
    assert not list(tmp_path.glob("*plan*"))
    with pytest.raises(BadModelFile, match="SM42"):
        build(NETWORKS[0], tmp_path / "x.plan", targets=["SM42"])


@pytest.mark.usefixtures("rtx")
def test_the_command_says_what_it_built_and_what_it_kept(tmp_path: Path) -> None:
    net = tiny.ganimation(tmp_path)
    words = ["export", "tensorrt", str(net), "-o", str(tmp_path / "o.plan"), "--target", "SM86"]
    first = CliRunner().invoke(app, words)
    assert first.exit_code == 0, first.output
    assert "there was none" in first.output
    second = CliRunner().invoke(app, [*words, "--json"])
    (engine,) = json.loads(second.stdout)["engines"]
    assert (engine["built"], engine["targets"]) == (False, ["SM86"])


@pytest.mark.usefixtures("rtx")
@pytest.mark.parametrize(
    ("kind", "precision"),
    [
        ("stylegan2", "fp32"),
        ("stylegan2", "fp16"),
        ("stylegan3", "fp32"),
        ("starganv2", "fp32"),
        ("stargan", "fp16"),
        ("ganimation", "fp32"),
    ],
)
def test_what_the_exporters_write_is_clean_for_tensorrt(kind: Any, precision: Any, tmp_path: Path) -> None:
    """Every part of every kind, of few channels."""
    pytest.importorskip("torch")
    from benchmarks import random_networks

    resolution = 128 if kind == "starganv2" else 32
    found = random_networks.checkpoint(kind, resolution=resolution, small=True)
    given = {"resolution": 32} if kind in ("stargan", "ganimation") else {}
    for file in random_networks.write(found, tmp_path / "net.onnx", precision, **given):
        build(file, tmp_path / "x.plan")


# --- a renderer ---


@pytest.fixture(scope="module")
def renderer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A face's graph with all inputs that it may have, of a small photo."""
    engine = Engine(threads=1)
    face = resized(engine.fit(Path(fastface.__file__).parent / "assets" / "demo.jpg"), 160)
    path = tmp_path_factory.mktemp("renderer") / "r.onnx"
    export_renderer(engine.model, face, path, camera=True, pose=True, form="tensorrt")
    return path


@pytest.mark.usefixtures("rtx")
def test_tensorrts_parser_and_builder_take_a_renderer(renderer: Path, tmp_path: Path) -> None:
    """All of it; only the kernels' place is taken by plug-ins that compute nothing (``rtx_renderer``)."""
    libraries = find_spec("tensorrt_rtx_libs")
    assert libraries is not None
    assert libraries.origin is not None
    # The parser looks for its library by a name that the wheels do not have.
    (library,) = Path(libraries.origin).parent.glob("libtensorrt_rtx.so.*")
    (tmp_path / "libtensorrt_rtx.so").symlink_to(library)
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("rtx_renderer.py")), str(renderer)],
        env={**os.environ, "LD_LIBRARY_PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    made = json.loads(done.stdout.splitlines()[-1])
    assert made["errors"] == []
    assert set(made["plugins"]) == set(operators())
    assert made["plugins"]["FastfaceRasterize"]["cull_backfaces"] == 1
    modes = made["inputs"]["coefficients"][1]
    assert made["inputs"] == {"coefficients": [-1, modes], "camera": [-1, 3], "pose": [-1, 4]}
    about = json.loads(next(p.value for p in onnx.load(str(renderer)).metadata_props if p.key == "fastface"))
    size = [-1, about["height"], about["width"]]
    assert made["outputs"] == {"frames": [[*size, 3], "UINT8"], "masks": [size, "UINT8"]}
    assert made["engine_bytes"] > 1_000_000


def test_only_the_full_tensorrt_builds_a_renderer(
    renderer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(BadArgument, match="tensorrt_rtx has no place for kernels"):
        build_engine(renderer, tmp_path / "x.plan", library="tensorrt_rtx")
    monkeypatch.setattr(tensorrt_engine, "find_spec", lambda name: None if name.startswith("tensorrt") else 1)
    with pytest.raises(ProviderUnavailable, match="takes the full one"):
        build_engine(renderer, tmp_path / "x.plan")
    words = ["export", "renderer", "--face", "none.npz", "-o", str(tmp_path / "r.onnx")]
    done = CliRunner().invoke(app, [*words, "--tensorrt", str(tmp_path / "x.plan")])
    assert done.exit_code == 1
    assert "pip install tensorrt-cu13" in done.stderr
    assert not list(tmp_path.iterdir())


def test_an_engine_of_a_renderer_is_built_anew_for_another_gpu_or_other_kernels(
    renderer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TensorRT and the GPU are told, not there: what is asked of it, and what the record keeps."""
    jobs: list[dict[str, Any]] = []

    def answered(job: dict[str, Any], what: str) -> dict[str, Any]:
        jobs.append(job)
        if job["job"] == "build":
            Path(job["output"]).write_bytes(b"an engine")
        return {"done": True, "version": "11.4.0"}

    gpus = [SimpleNamespace(name="H100", capability=(9, 0))]
    kernels = ["first"]
    monkeypatch.setattr(tensorrt_engine, "find_spec", lambda name: name == "tensorrt")
    monkeypatch.setattr(tensorrt_engine, "_in_process", answered)
    monkeypatch.setattr(tensorrt_engine.cuda_driver, "devices", lambda: gpus)
    monkeypatch.setattr(tensorrt_plugins, "digest", lambda: kernels[0])
    plan = tmp_path / "r.plan"
    assert build_engine(renderer, plan, batch=(1, 8, 32)).reasons == ["there was none"]
    (job,) = (job for job in jobs if job["job"] == "build")
    assert (job["library"], job["batch"], job["targets"]) == ("tensorrt", [1, 8, 32], [])
    assert job["plugins"] == ["fastface.exports.tensorrt_plugins"] == jobs[0]["plugins"]
    assert [shape[0] for shape in job["inputs"].values()] == ["B", "C", "B"]
    assert job["timing_cache"].endswith("tensorrt-11.4.0-H100.timing")
    assert build_engine(renderer, plan, batch=(1, 8, 32)).reasons == []
    kernels[0] = "second"
    (reason,) = build_engine(renderer, plan, batch=(1, 8, 32)).reasons
    assert reason.startswith("plug-ins: built for first")
    gpus[0].name = "B200"
    assert build_engine(renderer, plan, batch=(1, 8, 32)).reasons == ["GPU: built for H100, now B200"]
    gpus.clear()
    with pytest.raises(ProviderUnavailable, match=r"no NVIDIA GPU to build an engine for$"):
        build_engine(renderer, plan)


def test_an_engine_renders_what_the_graph_renders(renderer: Path, tmp_path: Path) -> None:
    """On a machine with a GPU and the full TensorRT."""
    if not (find_spec("tensorrt_libs") and cuda_driver.devices()):
        pytest.skip("no full TensorRT, or no GPU")
    build_engine(renderer, tmp_path / "r.plan", batch=(1, 4, 8))
    graph, engine = Session(renderer, providers=["cpu"]), Session(tmp_path / "r.plan")
    modes = int(graph.inputs["coefficients"].shape[1])
    rng = np.random.default_rng(0)
    for frames in (1, 8):
        given = {
            "coefficients": rng.uniform(0, 0.8, (frames, modes)) * (rng.random((frames, modes)) < 0.3),
            "camera": np.repeat([graph.metadata["camera"]], frames, axis=0),
            "pose": rng.uniform(-15, 15, (frames, 4)),
        }
        inputs = {name: value.astype(np.float32) for name, value in given.items()}
        wanted, got = graph.run(inputs)["frames"], engine.run(inputs)["frames"]
        difference = np.abs(got.astype(np.int16) - wanted)
        assert (difference > 1).mean() < 1e-4


# --- without TensorRT ---


def test_an_engine_without_our_plugins_does_without_their_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, tensorrt_engine.PLUGINS, None)  # as where nvcc was missing
    assert tensorrt_engine._identity([]) == ""
    assert tensorrt_engine._identity(["mine"]) == "mine"


def test_without_tensorrt_it_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastface.exports.tensorrt_engine.find_spec", lambda name: None)
    with pytest.raises(ProviderUnavailable, match="pip install tensorrt-cu13"):
        build_engine(NETWORKS[0], tmp_path / "x.plan")


@pytest.mark.parametrize(
    ("how", "says"),
    [({"batch": (4, 2, 8)}, "batch"), ({"batch": (0, 1, 1)}, "batch"), ({"library": "cudnn"}, "library")],
)
def test_arguments_out_of_range_are_refused(tmp_path: Path, how: dict[str, object], says: str) -> None:
    with pytest.raises(BadArgument, match=says):
        build_engine(NETWORKS[0], tmp_path / "x.plan", **how)  # type: ignore[arg-type]
    with pytest.raises(BadArgument, match=r"ends in \.plan"):
        build_engine(NETWORKS[0], tmp_path / "x.engine")


def test_operators_that_tensorrt_has_not_are_refused_before_a_build(tmp_path: Path) -> None:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["B", 4])
    graph = helper.make_graph(
        [helper.make_node("FastfaceDeform", ["x"], ["y"], domain="fastface")], "g", [x], [x]
    )
    path = tmp_path / "ours.onnx"
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("fastface", 1)]
    path.write_bytes(helper.make_model(graph, opset_imports=opsets).SerializeToString())
    with pytest.raises(BadModelFile, match=r"FastfaceDeform … are ONNX Runtime's; .* --for tensorrt"):
        build_engine(path, tmp_path / "x.plan")
    path.write_bytes(path.read_bytes().replace(b"fastface", b"fastfood"))
    with pytest.raises(BadModelFile, match="no operator 'FastfaceDeform' of the domain 'fastfood'"):
        build_engine(path, tmp_path / "x.plan")
    assert np.all([not found.name.endswith(".plan") for found in tmp_path.iterdir()])
