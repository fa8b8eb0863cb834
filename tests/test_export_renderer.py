"""The renderer as one ONNX graph: the frames of ``Engine.render`` from a file that ONNX Runtime opens."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner

from fastface import onnx_ops
from fastface.engine import Engine, FittedFace
from fastface.errors import BadArgument, BadModelFile, NoFaceFound, ProviderUnavailable
from fastface.head_pose import HeadPose
from fastface.runtime import Session

onnx = pytest.importorskip("onnx")

Image = NDArray[np.uint8]


@dataclass(frozen=True)
class Exported:
    engine: Engine
    face: FittedFace
    path: Path
    about: dict[str, Any]
    session: Any

    def run(self, coefficients: Any, **more: Any) -> tuple[Image, Image]:
        frames, masks = self.session.run(["frames", "masks"], {"coefficients": coefficients, **more})
        return frames, masks

    def another(self, path: Path, **choices: Any) -> Exported:
        """The same face's graph in another way."""
        from fastface.exports.renderer import export_renderer

        about = export_renderer(self.engine.model, self.face, path, **choices)
        return replace(self, path=path, about=about, session=onnx_ops.session(path, threads=2))


@pytest.fixture(scope="module")
def exported(portrait: Callable[..., Image], tmp_path_factory: pytest.TempPathFactory) -> Exported:
    from fastface.exports.renderer import export_renderer, resized

    engine = Engine(threads=2)
    face = resized(engine.fit(portrait("042", 500, 500)), 256)
    path = tmp_path_factory.mktemp("renderer") / "r.onnx"
    about = export_renderer(engine.model, face, path)
    return Exported(engine, face, path, about, onnx_ops.session(path, threads=2))


@pytest.fixture(scope="module")
def for_tensorrt(exported: Exported) -> Exported:
    return exported.another(exported.path.with_name("t.onnx"), form="tensorrt")


@pytest.fixture(scope="module", params=["onnxruntime", "tensorrt"])
def turning(exported: Exported, request: pytest.FixtureRequest) -> Exported:
    return exported.another(exported.path.with_name("p.onnx"), pose=True, form=request.param)


def asked(exported: Exported, frames: int, seed: int = 0) -> NDArray[np.float32]:
    """Random expressions, some as strong as they may be; a neutral one among them."""
    rng = np.random.default_rng(seed)
    shape = frames, len(exported.engine.model.expression_names)
    rows = rng.uniform(-0.2, 1.2, shape) * (rng.random(shape) < 0.3)
    rows[2::5] = 0
    return rows.astype(np.float32)


@pytest.mark.parametrize("frames", [0, 1, 7])
def test_frames_and_masks_are_the_engines(exported: Exported, frames: int) -> None:
    rows = asked(exported, frames)
    got, masks = exported.run(rows)
    wanted = exported.engine.render_batch(exported.face, coefficients=rows)
    assert got.shape == wanted.shape == (frames, 256, 256, 3)
    difference = np.abs(got.astype(np.int16) - wanted)
    assert difference.max(initial=0) <= exported.about["tolerance_grey_levels"] == 1
    assert (difference > 0).mean() <= 1e-3 if frames else True
    for mask, row in zip(masks, rows, strict=True):
        np.testing.assert_array_equal(mask != 0, exported.engine.mask(exported.face, coefficients=row) != 0)


def test_neutral_is_the_photo_bit_for_bit(exported: Exported) -> None:
    rows = np.zeros((3, len(exported.about["expression_names"])), np.float32)
    rows[1] = 5e-5  # less than anything that moves
    frames, masks = exported.run(rows)
    for frame in frames:
        np.testing.assert_array_equal(frame, exported.face.photo)
    assert not masks.any()


def test_a_frame_does_not_depend_on_its_batch(exported: Exported) -> None:
    rows = asked(exported, 5, seed=3)
    together, _ = exported.run(rows)
    for row, frame in zip(rows, together, strict=True):
        np.testing.assert_array_equal(exported.run(row[None])[0][0], frame)


def test_outside_the_mask_every_pixel_is_the_photos(exported: Exported) -> None:
    frames, masks = exported.run(asked(exported, 4, seed=4))
    assert 0.02 < (masks != 0).mean() < 0.7
    photo = np.broadcast_to(exported.face.photo, frames.shape)
    np.testing.assert_array_equal(frames[masks == 0], photo[masks == 0])


def test_the_graph_says_what_it_is(exported: Exported) -> None:
    about = onnx_ops.metadata(exported.session)
    assert about == exported.about
    assert about["kind"] == "renderer"
    assert about["model_sha256"] == exported.engine.model.digest == exported.face.model_hash
    assert about["photo_sha256"] == exported.face.photo_sha256
    assert about["expression_names"] == list(exported.engine.model.expression_names)
    assert (about["height"], about["width"]) == (256, 256)
    assert about["operators"] == {name: o.version for name, o in onnx_ops.operators().items()}
    assert "compositeWithTrainedAlgorithmicMedia" in about["provenance"]["digital_source_type"]
    (coefficients,) = exported.session.get_inputs()
    assert (coefficients.name, coefficients.shape) == ("coefficients", ["B", len(about["expression_names"])])
    assert [(o.name, o.shape) for o in exported.session.get_outputs()] == [
        ("frames", ["B", 256, 256, 3]),
        ("masks", ["B", 256, 256]),
    ]


def test_a_given_camera_moves_the_face_and_the_photos_own_does_not(
    exported: Exported, tmp_path: Path
) -> None:
    from fastface.exports.renderer import export_renderer

    path = tmp_path / "camera.onnx"
    about = export_renderer(exported.engine.model, exported.face, path, camera=True)
    opened = onnx_ops.session(path)
    rows = asked(exported, 3, seed=5)[[0, 1]]
    wanted, _ = exported.run(rows)
    own = np.array([about["camera"]], np.float32)
    for camera in (own, np.repeat(own, 2, axis=0)):
        (frames,) = opened.run(["frames"], {"coefficients": rows, "camera": camera})
        np.testing.assert_array_equal(frames, wanted)
    shifted = own + np.array([[0, 2, 0]], np.float32)
    (frames,) = opened.run(["frames"], {"coefficients": rows, "camera": shifted})
    # Two pixels to the right: nearer to the same frame two pixels on than to the frame itself.
    box = slice(90, 170), slice(90, 160)
    moved = wanted[:, box[0], 88:158].astype(int) - frames[:, box[0], box[1]]
    still = wanted[:, box[0], box[1]].astype(int) - frames[:, box[0], box[1]]
    assert np.abs(moved).mean() < 0.5 * np.abs(still).mean()


def test_a_fit_is_carried_to_another_size(portrait: Callable[..., Image]) -> None:
    """Sides that do not divide: the model stays on the landmarks, which stay on the face."""
    from fastface.exports.renderer import resized
    from fastface.fitting import FaceFitter

    engine = Engine(threads=2)
    face = engine.fit(portrait("030", 487, 461))
    fitter = FaceFitter(engine.model)
    for longest in (203, 487, 800):
        made = resized(face, longest)
        assert max(made.photo.shape) == longest
        scale = np.array(made.photo.shape[1::-1]) / np.array(face.photo.shape[1::-1])
        np.testing.assert_allclose(made.landmarks_px, face.landmarks_px * scale, rtol=0, atol=1e-3)
        on_model = made.camera.project(fitter.landmark_motion(made.fit)[0]) + made.fit_residual_px
        before = face.camera.project(fitter.landmark_motion(face.fit)[0]) + face.fit_residual_px
        np.testing.assert_allclose(on_model, before * scale, rtol=0, atol=0.02)
    assert resized(face, 487) is face
    with pytest.raises(NoFaceFound, match="too small"):
        resized(face, 20)
    with pytest.raises(BadArgument, match="size must be 1"):
        resized(face, 0)


def test_ict_renders_the_same_too(shared: Path, portrait: Callable[..., Image], tmp_path: Path) -> None:
    from fastface.exports.renderer import export_renderer
    from fastface.importers.ict import import_ict

    engine = Engine(import_ict(shared / "data" / "ict_facekit" / "ict_facekit.npz"), threads=2)
    face = engine.fit(portrait("019", 230, 251))
    about = export_renderer(engine.model, face, tmp_path / "ict.onnx")
    made = Exported(engine, face, tmp_path / "ict.onnx", about, onnx_ops.session(tmp_path / "ict.onnx"))
    rows = asked(made, 3, seed=6)
    frames, _ = made.run(rows)
    difference = np.abs(frames.astype(np.int16) - engine.render_batch(face, coefficients=rows))
    assert difference.max() <= 1


# ---- as TensorRT has it ----------------------------------------------------------------------------------

#: Of the operators that TensorRT's parser lists as supported, for float32, bool and int64 indices.
OPERATORS_OF_TENSORRT = (
    "Abs, Add, Cast, Clip, Concat, Cos, Div, Expand, Flatten, Gather, Greater, Less, MatMul, Max, Min, Mul, "
    "Or, Pad, ReduceL2, ReduceMax, Shape, Sin, Slice, Sub, Unsqueeze, Where"
)


@pytest.mark.parametrize("frames", [0, 1, 6])
def test_the_graph_for_tensorrt_renders_the_same_bit_for_bit(
    exported: Exported, for_tensorrt: Exported, frames: int
) -> None:
    rows = asked(exported, frames, seed=1)
    for got, wanted in zip(for_tensorrt.run(rows), exported.run(rows), strict=True):
        assert got.dtype == np.uint8
        np.testing.assert_array_equal(got, wanted)
    session = Session(for_tensorrt.path, providers=["cpu"])
    np.testing.assert_array_equal(session.run({"coefficients": rows})["masks"], exported.run(rows)[1])


def test_a_photo_that_is_window_all_over_renders_the_same_too(exported: Exported, tmp_path: Path) -> None:
    top, left, size = 40, 40, 150
    photo = np.ascontiguousarray(exported.face.photo[top : top + size, left : left + size])
    close = replace(exported, face=exported.engine.fit(photo))
    plain, other = (close.another(tmp_path / f"{f}.onnx", form=f) for f in ("onnxruntime", "tensorrt"))
    rows = asked(exported, 2, seed=2)
    wanted = exported.engine.render_batch(close.face, coefficients=rows)
    assert plain.about["window"] == [0, 0, size, size]
    for made in (plain, other):
        assert np.abs(made.run(rows)[0].astype(np.int16) - wanted).max() <= 1


@pytest.mark.parametrize("more", [False, True])
def test_the_graph_for_tensorrt_has_operators_and_types_that_tensorrt_has(
    exported: Exported, more: bool, tmp_path: Path
) -> None:
    made = exported.another(tmp_path / "r.onnx", form="tensorrt", camera=more, pose=more)
    graph = onnx.load(made.path).graph
    types = onnx.TensorProto
    bytes_of_plugins = {value.name for value in graph.initializer if value.data_type == types.INT8}
    kinds = {value.data_type for value in graph.initializer}
    assert kinds <= {types.FLOAT, types.FLOAT16, types.INT8, types.INT32, types.INT64, types.BOOL}
    plugins = [node for node in graph.node if node.domain]
    assert {node.op_type for node in plugins} == set(onnx_ops.operators())
    for node in plugins:
        given = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
        assert (given.pop("plugin_namespace"), given.pop("plugin_version")) == (b"fastface", b"1")
        operator = onnx_ops.operators()[node.op_type]
        assert set(given) == set(operator.attributes) - {"threads"}
        assert len(node.output) == sum(not output.optional for output in operator.outputs) + 1
        assert all(node.output)
    for node in graph.node:
        if node.domain:
            continue
        assert node.op_type in OPERATORS_OF_TENSORRT.split(", ")
        assert not bytes_of_plugins & set(node.input)
        to = [onnx.helper.get_attribute_value(a) for a in node.attribute if a.name == "to"]
        assert (to == [types.UINT8]) == (node.output[0] in ("frames", "masks"))


def test_a_form_that_there_is_not_is_refused(exported: Exported, tmp_path: Path) -> None:
    with pytest.raises(BadArgument, match="form must be one of onnxruntime, tensorrt, got 'openvino'"):
        exported.another(tmp_path / "r.onnx", form="openvino")


# ---- heads that turn -------------------------------------------------------------------------------------


def test_turned_heads_are_the_engines(turning: Exported) -> None:
    rows = asked(turning, 3, seed=11)
    for pose in (HeadPose(20, 5, -8, 20), HeadPose(-45, -30, 45, -150), HeadPose(pitch_deg=12)):
        poses = np.array([pose.row()] * 3, np.float32)
        got, masks = turning.run(rows, pose=poses)
        wanted = turning.engine.render_batch(turning.face, coefficients=rows, pose=pose)
        difference = np.abs(got.astype(np.int16) - wanted)
        # A silhouette may pass a pixel's centre by the last bit of a float; nothing else may show.
        assert (difference > 1).mean() <= 1e-5
        assert (difference > 0).mean() <= 1e-3
        for mask, row in zip(masks, rows, strict=True):
            theirs = turning.engine.mask(turning.face, coefficients=row, pose=pose)
            assert ((mask != 0) != (theirs != 0)).mean() <= 1e-4


def test_heads_turn_each_on_its_own_and_not_beyond_their_limits(turning: Exported) -> None:
    rows = asked(turning, 4, seed=12)
    rows[0] = rows[3] = 0
    poses = np.array([[0, 0, 0, 0], [15, 0, 0, 0], [0, 0, 0, 0], [90, -90, 90, 900]], np.float32)
    frames, masks = turning.run(rows, pose=poses)
    for row, pose, frame in zip(rows, poses, frames, strict=True):
        np.testing.assert_array_equal(turning.run(row[None], pose=pose[None])[0][0], frame)
    np.testing.assert_array_equal(frames[0], turning.face.photo)
    assert not masks[0].any()
    assert masks[3].any()
    limit = np.array([[45, -30, 45, 150]], np.float32)
    np.testing.assert_array_equal(turning.run(rows[3:], pose=limit)[0][0], frames[3])


# ---- from outside ----------------------------------------------------------------------------------------


def test_plain_onnxruntime_needs_the_library_and_nothing_else(exported: Exported) -> None:
    import onnxruntime

    with pytest.raises(Exception, match=r"(?i)fastface"):
        onnxruntime.InferenceSession(exported.path, providers=["CPUExecutionProvider"])
    options = onnxruntime.SessionOptions()
    options.register_custom_ops_library(str(onnx_ops.library_path()))
    opened = onnxruntime.InferenceSession(exported.path, options, providers=["CPUExecutionProvider"])
    rows = asked(exported, 2, seed=8)
    np.testing.assert_array_equal(opened.run(None, {"coefficients": rows})[0], exported.run(rows)[0])


def test_a_program_in_c_plus_plus_renders_the_same(exported: Exported, tmp_path: Path) -> None:
    import onnxruntime

    compiler = shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")
    runtimes = sorted((Path(onnxruntime.__file__).parent / "capi").glob("libonnxruntime.so.*"))
    root = Path(__file__).resolve().parents[1]
    if not compiler or not runtimes:
        pytest.skip("needs a C++ compiler and a Linux wheel of onnxruntime")
    program = tmp_path / "onnx_renderer"
    source = [f"-I{root / 'csrc'}", str(root / "tests" / "cpp" / "onnx_renderer.cpp"), "-ldl"]
    subprocess.run([compiler, "-std=c++17", "-o", str(program), *source], check=True)
    rows = asked(exported, 3, seed=9)
    rows.tofile(tmp_path / "rows")
    where = [runtimes[0], onnx_ops.library_path(), exported.path, tmp_path / "rows"]
    command = [str(word) for word in (program, *where, 3, 256, 256, tmp_path / "frames")]
    subprocess.run(command, check=True, timeout=60)
    frames = np.fromfile(tmp_path / "frames", np.uint8).reshape(3, 256, 256, 3)
    np.testing.assert_array_equal(frames, exported.run(rows)[0])


def test_what_cannot_be_opened_is_refused(exported: Exported, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.onnx"
    damaged.write_bytes(exported.path.read_bytes()[:5000])
    with pytest.raises(BadModelFile, match=r"damaged\.onnx: "):
        onnx_ops.session(damaged)
    with pytest.raises(BadModelFile, match="no such file"):
        onnx_ops.session(tmp_path / "none.onnx")
    with pytest.raises(ProviderUnavailable, match="wanted TensorrtExecutionProvider, this onnxruntime has"):
        onnx_ops.session(exported.path, providers=["TensorrtExecutionProvider"])
    with pytest.raises(BadArgument, match="threads must be"):
        onnx_ops.session(exported.path, threads=0)
    graph = onnx.load(exported.path)
    del graph.metadata_props[:]
    onnx.save(graph, damaged)
    with pytest.raises(BadModelFile, match="no metadata"):
        onnx_ops.metadata(onnx_ops.session(damaged))


def test_a_face_of_another_head_is_refused(exported: Exported, tmp_path: Path) -> None:
    from fastface.exports.renderer import export_renderer

    other = replace(exported.face, model_hash="0" * 64)
    with pytest.raises(BadModelFile, match="fitted with another head model"):
        export_renderer(exported.engine.model, other, tmp_path / "r.onnx")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("more", [[], ["--for", "tensorrt", "--pose", "--camera"]])
def test_the_command_writes_it(portrait: Callable[..., Image], more: list[str], tmp_path: Path) -> None:
    from fastface.cli.app import app
    from fastface.images import write_image

    write_image(tmp_path / "photo.png", portrait("117", 300, 280))
    words = ["export", "renderer", "--face", tmp_path / "photo.png", "--size", 200, "-o", tmp_path / "r.onnx"]
    done = CliRunner().invoke(app, [*map(str, words), *more, "--json"])
    assert done.exit_code == 0, done.output
    record = json.loads(done.stdout)
    assert (record["width"], record["height"]) == (187, 200)
    assert record["worst_grey_levels"] <= (1 if more else 0)
    asked_for = ("tensorrt", True, []) if more else ("onnxruntime", False, [])
    assert (record["form"], record["pose"], record["engines"]) == asked_for
    given = {"coefficients": np.zeros((1, len(record["expression_names"])), np.float32)}
    if more:
        given |= {"pose": np.zeros((1, 4), np.float32), "camera": np.array([record["camera"]], np.float32)}
    (frames,) = onnx_ops.session(tmp_path / "r.onnx").run(["frames"], given)
    assert frames.shape == (1, 200, 187, 3)


def test_a_graph_whose_frames_are_off_is_not_left_behind(
    exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fastface.cli import export_renderer
    from fastface.cli.app import app

    monkeypatch.setattr(export_renderer, "_difference", lambda *_: 2)
    exported.face.save(tmp_path / "face.npz")
    words = ["export", "renderer", "--face", str(tmp_path / "face.npz"), "-o", str(tmp_path / "r.onnx")]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 1
    assert "r.onnx: this onnxruntime's frames are 2 grey levels off" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["face.npz"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--face", "none.jpg", "-o", "r.onnx"], "none.jpg: no such file"),
        (["--face", "none.npz", "-o", "r.onnx"], "none.npz: cannot be read"),
        (["--face", "none.npz", "-o", "r.txt"], "a graph ends in .onnx"),
        (["--face", "none.npz", "-o", "nowhere/r.onnx"], "there is no folder"),
        (["--face", "none.npz", "-o", "r.onnx", "--tensorrt", "r.engine"], "an engine's name ends in .plan"),
        (["--face", "x", "-o", "r.onnx", "--tensorrt", "r.plan", "--batch", "4", "2", "1"], "batch: wanted"),
    ],
)
def test_the_command_says_in_a_line_what_is_wrong(
    words: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fastface.cli.app import app

    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["export", "renderer", *words])
    assert done.exit_code == 1
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
