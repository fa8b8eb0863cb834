"""What a caller may not do with the engine, and what the engine does not cost."""

from __future__ import annotations

import _thread
import gc
import os
import threading
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fastface import ops
from fastface.affect import Affect
from fastface.engine import Engine, FittedFace, Frame
from fastface.errors import BadAffect, BadArgument, BadModelFile
from fastface.rendering import FaceRenderer

Image = NDArray[np.uint8]
SMILE = Affect.expression("happy", 0.8)


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine(threads=2)


@pytest.fixture(scope="module")
def face(engine: Engine, portrait: Callable[..., Image]) -> FittedFace:
    return engine.fit(portrait("042"))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "row",
    [
        np.zeros(51),
        np.zeros(0),
        np.zeros((2, 52)),
        np.full(52, np.nan),
        np.full(52, np.inf),
        np.full(52, 1e300),
        np.full(52, 2.5),
        np.full(52, -3.0),
        np.zeros(52, complex),
        ["happy"] * 52,
        [None] * 52,
        [[0.0], [0.0, 1.0]],
        "happy",
        {"jawOpen": 1.0},
        7.0,
    ],
    ids=lambda row: f"{type(row).__name__} {getattr(row, 'shape', '')}",
)
def test_bad_coefficients_are_refused(engine: Engine, face: FittedFace, row: Any) -> None:
    rows = row[None] if isinstance(row, np.ndarray) else [row, row]
    for call in (
        lambda: engine.render(face, coefficients=row),
        lambda: engine.mask(face, coefficients=row),
        lambda: engine.labels(face, coefficients=row),
        lambda: engine.render_batch(face, coefficients=rows),
        lambda: engine.stream(face, coefficients=rows),
    ):
        with pytest.raises(BadAffect, match="coefficients must"):
            call()


def test_bad_affects_are_refused(engine: Engine, face: FittedFace) -> None:
    zeros: Any = np.zeros(52)
    for affect in ("happy", 1.0, {"happy": 1}, [SMILE]):
        with pytest.raises(BadAffect, match="wanted"):
            engine.render(face, affect)  # type: ignore[arg-type]
    many: tuple[Any, ...] = (SMILE, "happy", 5, [SMILE, "happy"], [None])
    for affects in many:
        with pytest.raises(BadAffect, match="wanted"):
            engine.render_batch(face, affects)
        with pytest.raises(BadAffect, match="wanted"):
            engine.stream(face, affects)
    with pytest.raises(BadArgument, match="both"):
        engine.render(face, SMILE, coefficients=zeros)
    for call in (engine.render_batch, engine.stream):
        with pytest.raises(BadArgument, match="neither"):
            call(face)
        with pytest.raises(BadArgument, match="both"):
            call(face, [SMILE], coefficients=zeros[None])


def test_out_must_fit(engine: Engine, face: FittedFace) -> None:
    shape = (1, *face.photo.shape)
    locked = np.zeros(shape, np.uint8)
    locked.flags.writeable = False
    for out in (
        np.zeros((2, *face.photo.shape), np.uint8),
        np.zeros(face.photo.shape, np.uint8),
        np.zeros(shape, np.float32),
        np.zeros((1, *face.photo.shape[:2], 6), np.uint8)[..., ::2],
        np.asfortranarray(np.zeros(shape, np.uint8)),
        locked,
        [0],
    ):
        with pytest.raises(BadArgument, match=r"out must be \(1, 288, 288, 3\) uint8"):
            engine.render_batch(face, [SMILE], out=out)  # type: ignore[arg-type]


def test_faces_of_other_heads_are_refused(engine: Engine, face: FittedFace) -> None:
    model = engine.model
    other = Engine(replace(model, vertices=model.vertices * np.float32(1.01)), threads=1)
    for call in (other.render, other.labels, other.mask, lambda one: other.render_batch(one, [SMILE])):
        with pytest.raises(BadModelFile, match="another head model"):
            call(face)
    with pytest.raises(BadModelFile, match="another head model"):
        other.stream(face, [SMILE])
    with pytest.raises(BadModelFile, match="the texture that ships: made for another head model"):
        other.fit(face.photo, texture=True)
    things: tuple[Any, ...] = (None, "face.npz", face.photo)
    for thing in things:
        with pytest.raises(BadArgument, match="FittedFace"):
            engine.render(thing)


def test_engines_that_cannot_be_are_refused(tmp_path: Path, engine: Engine) -> None:
    for arguments in ({"device": "gpu"}, {"device": 3}, {"threads": 0}, {"threads": True}, {"threads": "2"}):
        with pytest.raises(BadArgument):
            Engine(engine.model, **arguments)
    (tmp_path / "bad.npz").write_bytes(b"no model")
    for model in ("no such model", tmp_path / "bad.npz", tmp_path / "missing.npz"):
        with pytest.raises(BadModelFile):
            Engine(model)


# -------------------------------------------------------------------------------------- cost and clean ends


def stream_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("fastface-stream")]


def test_an_abandoned_stream_ends_at_once(engine: Engine, face: FittedFace) -> None:
    def long() -> Any:
        return engine.stream(face, [SMILE] * 5000)

    assert not stream_threads()
    stream = long()
    next(stream)
    assert stream_threads()
    stream.close()
    assert not stream_threads()
    stream = long()
    next(stream)
    del stream
    gc.collect()
    assert not stream_threads()
    long()  # never begun
    assert (engine.render(face, SMILE) != face.photo).any()


def test_ctrl_c_ends_a_stream_and_leaves_the_engine_whole(engine: Engine, face: FittedFace) -> None:
    wanted = engine.render(face, SMILE)
    frames = 0
    timer = threading.Timer(0.3, _thread.interrupt_main)
    timer.start()
    try:
        for _ in engine.stream(face, Affect.path([(0, SMILE), (3000, Affect.neutral())], fps=30)):
            frames += 1
        pytest.fail("the stream went on to its end")
    except KeyboardInterrupt:
        pass
    timer.join()
    gc.collect()
    assert frames > 0
    assert not stream_threads()
    np.testing.assert_array_equal(engine.render(face, SMILE), wanted)


def test_frames_that_are_kept_are_not_written_over(engine: Engine, face: FittedFace) -> None:
    path = Affect.path([(0, Affect.neutral()), (2, SMILE)], fps=20)
    kept: list[Frame] = []
    copies: list[Image] = []
    for index, frame in enumerate(engine.stream(face, path)):
        if index % 3 == 0:
            kept.append(frame)
            copies.append(frame.image.copy())
    for frame, copy in zip(kept, copies, strict=True):
        np.testing.assert_array_equal(frame.image, copy)


def test_a_stream_allocates_nothing_in_steady_state(
    engine: Engine, portrait: Callable[..., Image], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Frames 50 to 350: under half a kilobyte each, and at no moment as much as one image."""
    workspaces: list[None] = []
    made = ops.Workspace

    def counted() -> ops.Workspace:
        workspaces.append(None)
        return made()

    monkeypatch.setattr(ops, "Workspace", counted)
    face = engine.fit(portrait("042", 384, 384))
    coefficients = Affect.path([(0, Affect.neutral()), (40, SMILE)], fps=10).coefficients(
        engine.model.expression_names
    )
    held: list[int] = []
    tracemalloc.start()
    try:
        for index, frame in enumerate(engine.stream(face, coefficients=coefficients)):
            del frame
            if index == 50:
                gc.collect()
                tracemalloc.reset_peak()
            if index >= 50:
                held.append(tracemalloc.get_traced_memory()[0])
            if index == 350:
                peak = tracemalloc.get_traced_memory()[1]
                break
    finally:
        tracemalloc.stop()
    # The least held in the first and last hundred: how many finished labels wait for the caller varies.
    assert min(held[200:]) - min(held[:100]) < 100_000
    assert peak - min(held) < face.photo.nbytes
    assert 1 <= len(workspaces) <= engine.threads


def test_memory_is_flat_over_thousands_of_frames(engine: Engine, portrait: Callable[..., Image]) -> None:
    face = engine.fit(portrait("042", 128, 128))
    rows = Affect.path([(0, Affect.neutral()), (1, SMILE)], fps=100).coefficients(
        engine.model.expression_names
    )
    rows = np.tile(rows, (25, 1))

    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    if not Path("/proc/self/statm").exists():
        pytest.skip("looks into /proc")
    after = []
    for index, _ in enumerate(engine.stream(face, coefficients=rows)):
        if index % 500 == 499:
            after.append(resident())
    assert len(after) >= 4
    assert after[-1] - after[0] < 4 << 20


def test_rendering_goes_on_while_the_caller_works(
    engine: Engine, face: FittedFace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the caller holds one frame and asks for no other, more are rendered."""
    rendered: list[int] = []
    render_group = FaceRenderer.render_group

    def counted(self: FaceRenderer, coefficients: Any, *rest: Any) -> None:
        render_group(self, coefficients, *rest)
        rendered.append(len(coefficients))

    monkeypatch.setattr(FaceRenderer, "render_group", counted)
    frames = engine.stream(face, [SMILE] * 160)
    next(frames)
    until = time.monotonic() + 30
    while len(rendered) < 2 and time.monotonic() < until:
        time.sleep(0.01)
    assert len(rendered) >= 2
    assert sum(rendered) < 160
    frames.close()  # type: ignore[attr-defined]


def test_faces_are_forgotten_with_their_last_user(engine: Engine, portrait: Callable[..., Image]) -> None:
    gc.collect()
    before = len(engine._faces)
    face = engine.fit(portrait("042", 128, 128))
    engine.render(face, SMILE)
    assert len(engine._faces) == before + 1
    del face
    gc.collect()
    assert len(engine._faces) == before
