"""Engines on a device against the engine on the processor, and how frames leave the device."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from devices import KINDS, opened
from numpy.typing import NDArray

from fastface import Affect, Engine, FittedFace, _core
from fastface.binding import OWN_GONE_AT, STILL
from fastface.device import Device, DeviceArray, DeviceWorkspace, cuda_problem, open_device
from fastface.device_rendering import DeviceRenderer, _DeskOnDevice, control_weights
from fastface.errors import BadAffect, BadArgument, ProviderUnavailable
from fastface.head_pose import HeadPose

AFFECTS = [
    Affect.neutral(),
    Affect.expression("happy", 0.6),
    Affect.expression("surprise"),
    Affect.aus({"AU43": 1.0, "AU4": 0.5}),
    Affect.expression("anger", 0.3),
]


@pytest.fixture(scope="module")
def cpu() -> Engine:
    return Engine(threads=1)


@pytest.fixture(scope="module")
def face(cpu: Engine) -> FittedFace:
    return cpu.fit(Path(_core.__file__).parent / "assets" / "demo.jpg")


@pytest.fixture(scope="module")
def close_face(cpu: Engine, face: FittedFace) -> FittedFace:
    """One whose window is the whole photo."""
    left, top = face.landmarks_px.min(axis=0).astype(int) - 10
    right, bottom = face.landmarks_px.max(axis=0).astype(int) + 10
    return cpu.fit(np.ascontiguousarray(face.photo[top:bottom, left:right]))


@pytest.fixture(scope="module", params=KINDS)
def device(request: pytest.FixtureRequest) -> Iterator[Device]:
    yield opened(request.param)
    _core.emulated_order(0)


@pytest.fixture(scope="module")
def engine(device: Device, cpu: Engine) -> Engine:
    return Engine(cpu.model, device=device, threads=1)


def frames_of(made: Any) -> NDArray[np.uint8]:
    assert isinstance(made, DeviceArray)
    return np.asarray(made)


def test_frames_are_those_of_the_processor(
    engine: Engine, cpu: Engine, face: FittedFace, close_face: FittedFace
) -> None:
    for each in (face, close_face):
        wanted = cpu.render_batch(each, AFFECTS)
        got = frames_of(engine.render_batch(each, AFFECTS))
        assert got.shape == wanted.shape
        np.testing.assert_array_equal(got[0], each.photo)  # a neutral frame is the photo, bit for bit
        difference = np.abs(got.astype(int) - wanted)
        assert difference.max() <= 8  # where a hair's motion is one on one side only
        assert (difference > 1).mean() < 1e-5
        for affect in AFFECTS[1:3]:
            differs = engine.mask(each, affect) != cpu.mask(each, affect)
            assert differs.mean() < 1e-4


def test_a_frame_is_the_same_in_any_batch_and_order(engine: Engine, face: FittedFace, device: Device) -> None:
    several = frames_of(engine.render_batch(face, AFFECTS))
    for order in (1, 6):
        _core.emulated_order(order)
        np.testing.assert_array_equal(frames_of(engine.render_batch(face, AFFECTS)), several)
    _core.emulated_order(0)
    for index in (1, 3):
        np.testing.assert_array_equal(frames_of(engine.render(face, AFFECTS[index])), several[index])


def test_the_same_frames_on_the_host(engine: Engine, face: FittedFace, device: Device) -> None:
    wanted = frames_of(engine.render_batch(face, AFFECTS))
    out = np.zeros_like(wanted)
    assert engine.render_batch(face, AFFECTS, out=out) is out
    np.testing.assert_array_equal(out, wanted)
    held = []
    for frame, image in zip(engine.stream(face, AFFECTS), wanted, strict=True):
        assert isinstance(frame.image, np.ndarray)
        np.testing.assert_array_equal(frame.image, image)
        held.append(frame)
    for frame, image in zip(held, wanted, strict=True):  # what is held is not overwritten
        np.testing.assert_array_equal(frame.image, image)
    there = device.empty(wanted.shape, np.uint8)
    assert engine.render_batch(face, AFFECTS, out=there) is there  # type: ignore[arg-type, comparison-overlap]
    np.testing.assert_array_equal(there.numpy(), wanted)


def test_coefficients_may_lie_on_the_device(
    engine: Engine, cpu: Engine, face: FittedFace, device: Device
) -> None:
    names = cpu.model.expression_names
    rows = np.zeros((4, len(names)), np.float32)
    rows[1, names.index("jawOpen")] = 0.7
    rows[2, names.index("jawOpen")] = 7.0  # clipped to 2: nothing waits to refuse it
    rows[3, 3] = np.nan  # counts as 0
    rows[3, names.index("jawOpen")] = 0.7
    got = frames_of(engine.render_batch(face, coefficients=device.put(rows)))
    plain = np.array([rows[0], rows[1], np.minimum(rows[2], 2), np.nan_to_num(rows[3])])
    np.testing.assert_array_equal(got, frames_of(engine.render_batch(face, coefficients=plain)))
    with pytest.raises(BadAffect, match="within ±2"):
        engine.render_batch(face, coefficients=rows)
    for wrong in (device.put(rows[:, :5].copy()), device.put(rows.astype(np.float64)), device.put(rows[0])):
        with pytest.raises(BadAffect):
            engine.render_batch(face, coefficients=wrong)
    labels = engine.labels(face, coefficients=device.put(rows[1]))
    assert labels.coefficients["jawOpen"] == pytest.approx(0.7)


def test_turned_heads_are_those_of_the_processor(
    engine: Engine, cpu: Engine, face: FittedFace, close_face: FittedFace
) -> None:
    for each, pose in (
        (face, HeadPose(yaw_deg=20.0, forward_mm=30.0)),
        (close_face, HeadPose(pitch_deg=-9.0)),
    ):
        wanted = cpu.render(each, AFFECTS[1], pose=pose)
        got = frames_of(engine.render(each, AFFECTS[1], pose=pose))
        difference = np.abs(got.astype(int) - wanted)
        # Where a silhouette's edge goes through a pixel's centre, rounding decides who covers it.
        assert (difference > 1).mean() < 2e-3
        assert np.median(difference[wanted != each.photo]) <= 1
        assert (got != each.photo).mean() > 0.05
        masks = (made.mask(each, AFFECTS[1], pose=pose) for made in (engine, cpu))
        assert np.not_equal(*masks).mean() < 2e-3
    turning = [Affect.aus({"AU51": 0.5}), Affect.neutral(), Affect.aus({"AU54": 0.3, "AU12": 0.4})]
    several = frames_of(engine.render_batch(face, turning))
    np.testing.assert_array_equal(several[1], face.photo)  # a frame that stays among others that turn
    for frame, image in zip(engine.stream(face, turning), several, strict=True):
        np.testing.assert_array_equal(frame.image, image)
    np.testing.assert_array_equal(frames_of(engine.render(face, turning[2])), several[2])


@pytest.fixture
def late() -> Iterator[Device]:
    """A device whose streams do nothing before somebody waits for them, and whose work is captured."""
    _core.emulated_lazy(True)
    yield open_device("emulated")
    _core.emulated_lazy(False)


def test_streams_that_run_late_make_the_same_frames(cpu: Engine, face: FittedFace, late: Device) -> None:
    """By graphs, in lanes and on the default stream: whoever forgets to wait for another reads old memory."""
    engine = Engine(cpu.model, device=late, threads=2)
    many = [AFFECTS[1 + i % 4].scaled(0.2 + 0.01 * i) if i % 7 else AFFECTS[0] for i in range(35)]
    _core.emulated_lazy(False)
    wanted = frames_of(engine.render_batch(face, many))
    _core.emulated_lazy(True)
    for count in (1, 3, 35, 2):  # groups grow, and with them memory and graphs
        np.testing.assert_array_equal(frames_of(engine.render_batch(face, many[:count])), wanted[:count])
    engine = Engine(cpu.model, device=late, threads=2)
    unread = [engine.render_batch(face, many[:count]) for count in (1, 2, 9, 5)]
    out = np.zeros_like(wanted)
    engine.render_batch(face, many, out=out)
    np.testing.assert_array_equal(out, wanted)
    for frame, image in zip(engine.stream(face, many), wanted, strict=True):
        np.testing.assert_array_equal(frame.image, image)
    for made in unread:
        np.testing.assert_array_equal(frames_of(made), wanted[: len(made)])


def test_memory_in_use_by_a_graph_is_given_to_nobody(cpu: Engine, face: FittedFace, late: Device) -> None:
    engine = Engine(cpu.model, device=late, threads=1)
    renderer = engine._ready(face).renderer
    assert isinstance(renderer, DeviceRenderer)
    rows = np.stack([engine._affects.coefficients(a, engine.model.expression_names) for a in AFFECTS[1:3]])
    desk = _DeskOnDevice(renderer._face, late.stream())  # captured on one stream, replayed on another
    images = desk.render(rows, None).images
    fixed = (*vars(renderer._face).values(), *vars(renderer._face.shading).values())
    sizes = sorted((array.nbytes for array in fixed if isinstance(array, DeviceArray)), reverse=True)
    del desk, renderer, engine, fixed
    gc.collect()
    for size in sizes:  # whatever was given back is overwritten
        late.put(np.full(size, 77, np.uint8))
    again = Engine(cpu.model, device=late, threads=1)
    np.testing.assert_array_equal(images.numpy(), frames_of(again.render_batch(face, coefficients=rows)))


def test_an_adopted_array_is_awaited_on_every_stream(late: Device) -> None:
    source, copied = late.empty((4, 5), np.float32), late.empty((4, 5), np.float32)
    first, second = late.stream(), late.stream()
    values = np.arange(20, dtype=np.float32).reshape(4, 5)
    source.copy_from(values, first, wait=False)
    copied.copy_from(source, second, wait=False)
    np.testing.assert_array_equal(copied.numpy(), values)
    np.testing.assert_array_equal(np.from_dlpack(copied[1:]), values[1:])  # type: ignore[arg-type]
    shifted = np.zeros(21, np.uint8)[1:].view(np.uint8)
    odd: Any = np.ndarray((4,), np.float32, shifted.data, 1 if shifted.ctypes.data % 2 == 0 else 0)
    with pytest.raises(BadArgument, match="not aligned"):
        late.adopt(odd)


def test_nothing_is_allocated_while_work_is_captured(late: Device) -> None:
    stream = late.stream()
    kept = late.put(np.zeros(3, np.uint8))

    def allocates() -> None:
        late.empty(((1 << 26) + 7,), np.uint8)

    def waits() -> None:
        stream.wait()

    for work in (allocates, waits):
        with pytest.raises(ProviderUnavailable):
            late.capture(stream, work)
    graph = late.capture(stream, lambda: kept.copy_from(kept, stream, wait=False))
    assert graph is not None
    graph.replay(stream, kept)
    assert (kept.numpy() == 0).all()


def test_an_output_that_does_not_fit_is_refused(engine: Engine, face: FittedFace, device: Device) -> None:
    shape = (len(AFFECTS), *face.photo.shape)
    for out in (
        device.empty(shape, np.float32),
        device.empty(shape[1:], np.uint8),
        device.put(np.zeros(shape, np.uint8), frozen=True),
        np.zeros(shape, np.float32),
        "somewhere",
    ):
        with pytest.raises(BadArgument, match="render_batch: out must be"):
            engine.render_batch(face, AFFECTS, out=out)  # type: ignore[arg-type]


def test_dlpack_hands_over_the_memory_itself(device: Device) -> None:
    torch = pytest.importorskip("torch")
    if device.kind == "cuda" and not torch.cuda.is_available():
        pytest.skip("this torch has no CUDA")
    array = device.put(np.arange(12, dtype=np.float32).reshape(3, 4))
    theirs = torch.from_dlpack(array)
    assert tuple(theirs.shape) == (3, 4)
    theirs[1, 2] = 99.0
    assert array.numpy()[1, 2] == 99.0
    ours = device.adopt(theirs)
    assert ours.shape == (3, 4)
    assert ours.dtype == np.float32
    del array
    gc.collect()
    filler = [device.put(np.zeros((3, 4), np.float32)) for _ in range(20)]
    assert float(theirs[1, 2]) == 99.0  # the memory lives as long as its last holder
    assert len(filler) == 20
    part = torch.from_dlpack(ours[1:])
    assert part[0, 2] == 99.0


def test_arrays_follow_the_protocols(device: Device) -> None:
    values = np.arange(24, dtype=np.int32).reshape(2, 3, 4)
    array = device.put(values)
    assert (array.shape, array.ndim, array.nbytes, len(array)) == (values.shape, 3, values.nbytes, 2)
    np.testing.assert_array_equal(np.asarray(array), values)
    np.testing.assert_array_equal(np.asarray(array[1]), values[1])
    np.testing.assert_array_equal(np.asarray(array[-1][1:]), values[-1][1:])
    np.testing.assert_array_equal(np.asarray(array[None], dtype=np.float64), values[None])
    np.testing.assert_array_equal(np.from_dlpack(array, device="cpu"), values)  # type: ignore[arg-type]
    assert array.__dlpack_device__() == ({"cuda": 2, "emulated": 1}[device.kind], 0)
    for index in (2, -3):
        with pytest.raises(IndexError):
            array[index]
    for key in (slice(None, None, 2), (0, 0)):
        with pytest.raises(BadArgument):
            array[key]  # type: ignore[index]
    with pytest.raises(ValueError, match="copy"):
        np.asarray(array, copy=False)
    with pytest.raises(BadArgument, match="must not be negative"):
        device.empty((-1, 2), np.float32)
    with pytest.raises(BadArgument, match="numbers"):
        device.empty((2,), np.complex64)
    assert device.empty((0, 5), np.float32).numpy().shape == (0, 5)
    pinned = device.pinned((3, 5), np.uint8)
    pinned[:] = 7
    there = device.empty((3, 5), np.uint8)
    there.copy_from(pinned, wait=False)
    assert (there.numpy() == 7).all()


def test_a_graph_renders_what_its_input_says(engine: Engine, face: FittedFace, device: Device) -> None:
    names = engine.model.expression_names
    renderer = engine._ready(face).renderer
    assert isinstance(renderer, DeviceRenderer)
    graph = renderer.frames(2)
    for value in (0.2, 0.9):
        rows = np.zeros((2, len(names)), np.float32)
        rows[1, names.index("mouthSmileLeft")] = value
        graph.coefficients.copy_from(rows, graph.stream)
        graph.replay()
        wanted = frames_of(engine.render_batch(face, coefficients=rows))
        np.testing.assert_array_equal(graph.images.numpy(), wanted)


def test_drive_is_deltas_and_weights_of_the_renderer(
    engine: Engine, face: FittedFace, device: Device
) -> None:
    ready = engine._ready(face)
    names, renderer = ready.bound.names, ready.renderer
    rng = np.random.default_rng(0)
    rows = (rng.uniform(-0.3, 1.2, (7, len(names))) * (rng.random((7, len(names))) < 0.4)).astype(np.float32)
    rows[0] = 0
    shifts = len(ready.bound.shading.shift_px)
    weights, most = control_weights(names, shifts)
    deltas, controls = (device.put(np.full((7, n), 7, np.float32)) for n in (len(names), len(most)))
    moves = device.empty((7,), np.uint8)
    inputs = map(device.put, (rows, ready.bound.own, weights, most))
    outputs = (deltas, controls, moves)
    device.drive(None, *inputs, *outputs, OWN_GONE_AT, STILL, 2.0, DeviceWorkspace(device))
    wanted = renderer.deltas(rows)
    np.testing.assert_allclose(deltas.numpy(), wanted, atol=1e-6)
    np.testing.assert_array_equal(moves.numpy(), wanted.any(axis=1))
    made = controls.numpy()
    assert (made[:, shifts : shifts + 3] == 7).all()  # left to `part`
    np.testing.assert_allclose(made[:, 0], np.clip(wanted[:, names.index("eyeBlinkLeft")], 0, 1), atol=1e-6)
    assert made[:, shifts + 3 :].max() <= 1.2
    assert made[:, shifts + 3 :].max() > 0.1


def test_engines_open_the_device_that_is_asked_for(cpu: Engine) -> None:
    problem = cuda_problem()
    if problem:
        with pytest.raises(ProviderUnavailable, match="device cuda"):
            Engine(cpu.model, device="cuda")
    assert Engine(cpu.model, device="auto").device == ("cpu" if problem else "cuda")
    assert Engine(cpu.model, device=open_device("emulated")).device == "emulated"


def test_the_package_imports_and_reports_without_a_gpu() -> None:
    """With no device visible, whatever the machine has."""
    code = (
        "from fastface.device import cuda_problem; from fastface.doctor import _cuda_kernels; "
        "assert 'device cuda' in cuda_problem(); "
        "print([check.status for check in _cuda_kernels()][0])"
    )
    environment = {
        **os.environ,
        "CUDA_VISIBLE_DEVICES": "",
        "PYTHONPATH": str(Path(_core.__file__).parents[1]),
    }
    command = [sys.executable, "-P", "-c", code]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["missing"]


def test_the_figures_of_a_gpu_can_be_taken(tmp_path: Path) -> None:
    """All of ``benchmarks.gpu_figures`` and what compute-sanitizer is shown, on the emulated device."""
    from rich.console import Console

    from benchmarks.gpu_exercise import exercise
    from benchmarks.gpu_figures import measure_all

    emulated = open_device("emulated")
    written = tmp_path / "figures.txt"
    with written.open("w") as stream:
        figures = measure_all(emulated, Console(file=stream, width=130), samples=1, small=True)
    questions = {row["question"].split(",")[0] for row in figures["rows"]}
    assert {"deform", "rasterize", "blend", "a real face's whole frame"} <= questions
    assert all(row["timing"]["median_ms"] > 0 for row in figures["rows"])
    assert figures["device"] == emulated.name
    assert "% of copy" in written.read_text()
    exercise(emulated)


@pytest.mark.skipif(not cuda_problem(), reason="there is a GPU")
def test_the_check_of_a_gpu_says_when_there_is_none() -> None:
    from typer.testing import CliRunner

    from fastface.cli.app import app

    told = CliRunner().invoke(app, ["bench", "--gpu"])
    assert told.exit_code == 1
    assert "wants an NVIDIA GPU and its driver, found none" in told.output
