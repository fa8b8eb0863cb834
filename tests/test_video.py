"""Videos: every frame there, in time, in colour, marked; and nothing left behind when something fails."""

# ruff: noqa: PT012 (context managers under test need a block inside pytest.raises)
from __future__ import annotations

import errno
import os
import threading
import time
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from fastface import video
from fastface.errors import BadArgument, WriteFailed
from fastface.provenance import DIGITAL_SOURCE_TYPE, read_provenance, xmp_packet
from fastface.video import VideoWriter, frame_count

Image = NDArray[np.uint8]


def smooth_frames(count: int, height: int = 96, width: int = 128) -> list[Image]:
    """Moving gradients: what a codec can keep, so that a wrong colour matrix shows and noise does not."""
    y, x = np.mgrid[0:height, 0:width]
    frames = []
    for i in range(count):
        red, green = 60 + 120 * x / width, 200 - 140 * y / height
        blue = 100 + 80 * np.sin((x + y) / 40 + i / 5)
        frames.append(np.stack([red, green, blue], axis=2).astype(np.uint8))
    return frames


def decoded(path: Path) -> list[Image]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24").astype(np.uint8) for frame in container.decode(video=0)]


@pytest.mark.parametrize("size", [(96, 128), (95, 127), (1, 1)])
def test_lossless_video_returns_every_pixel(tmp_path: Path, size: tuple[int, int]) -> None:
    frames = smooth_frames(9, *size)
    with VideoWriter(tmp_path / "x.mkv", 25) as writer:
        for frame in frames:
            writer.write(frame)
    assert np.array_equal(np.array(decoded(tmp_path / "x.mkv")), np.array(frames))


@pytest.mark.parametrize("size", [(96, 128), (95, 127)])
def test_mp4_keeps_colour_and_pads_odd_sides(tmp_path: Path, size: tuple[int, int]) -> None:
    frames = smooth_frames(12, *size)
    with VideoWriter(tmp_path / "x.mp4", 25, quality=95) as writer:
        for frame in frames:
            writer.write(frame)
    back = decoded(tmp_path / "x.mp4")
    assert len(back) == writer.frames == 12
    assert back[0].shape == (96, 128, 3)
    for frame, seen in zip(frames, back, strict=True):
        error = seen[: size[0], : size[1]].astype(np.float64) - frame
        # ffmpeg's way back to RGB rounds down; another matrix or range would be off by 5 and more.
        assert np.abs(error.mean(axis=(0, 1))).max() < 2.2
        assert np.abs(error).mean() < 3


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
@pytest.mark.parametrize("fps", [12.5, 30, 29.97, 60000 / 1001])
def test_frames_stand_at_their_times(tmp_path: Path, suffix: str, fps: float) -> None:
    file = tmp_path / f"x{suffix}"
    with VideoWriter(file, fps) as writer:
        for frame in smooth_frames(40, 32, 32):
            writer.write(frame)
    with av.open(str(file)) as container:
        stream = container.streams.video[0]
        assert float(stream.average_rate or 0) == pytest.approx(fps, rel=1e-5)
        times = [frame.time for frame in container.decode(stream)]
    # Matroska counts in milliseconds.
    assert np.allclose(np.array(times, float), np.arange(40) / fps, atol=6e-4)
    assert frame_count(file) == 40


def test_the_index_of_an_mp4_stands_in_front(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "x.mp4", 30, xmp=xmp_packet({})) as writer:
        for frame in smooth_frames(3):
            writer.write(frame)
    data = (tmp_path / "x.mp4").read_bytes()
    assert 0 < data.index(b"moov") < data.index(b"mdat") < data.index(b"uuid")


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_a_video_says_what_it_is(tmp_path: Path, suffix: str) -> None:
    parameters = {"affect": "path <a&b>", "fps": 30, "name": "Zoë"}
    with VideoWriter(tmp_path / f"x{suffix}", 30, xmp=xmp_packet(parameters, "fastface 1")) as writer:
        writer.write(smooth_frames(1)[0])
    found = read_provenance(tmp_path / f"x{suffix}")
    assert found is not None
    assert found.is_synthetic
    assert found.digital_source_type == DIGITAL_SOURCE_TYPE
    assert found.parameters == parameters
    assert found.software == "fastface 1"
    with VideoWriter(tmp_path / f"y{suffix}", 30) as writer:
        writer.write(smooth_frames(1)[0])
    assert read_provenance(tmp_path / f"y{suffix}") is None


def test_the_callers_array_may_be_reused_at_once(tmp_path: Path) -> None:
    frames = smooth_frames(20, 16, 16)
    shared = np.empty_like(frames[0])
    with VideoWriter(tmp_path / "x.mkv", 30) as writer:
        for frame in frames:
            np.copyto(shared, frame)
            writer.write(shared)
            shared[:] = 0
    assert np.array_equal(np.array(decoded(tmp_path / "x.mkv")), np.array(frames))


def test_writing_overlaps_with_encoding_and_never_runs_far_ahead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = VideoWriter._as_encoded
    under_way = threading.Event()

    def slow(self: VideoWriter, frame: Image) -> tuple[Image, str]:
        under_way.set()
        time.sleep(0.02)
        under_way.clear()
        return real(self, frame)

    monkeypatch.setattr(VideoWriter, "_as_encoded", slow)
    frame = smooth_frames(1, 16, 16)[0]
    copies = 0

    class Counting(VideoWriter):
        def _own_copy(self, image: Image) -> Image:
            nonlocal copies
            copies += self._spare.empty()
            return super()._own_copy(image)

    with Counting(tmp_path / "x.mkv", 30) as writer:
        overlapped = 0
        for _ in range(40):
            time.sleep(0.02)
            writer.write(frame)
            overlapped += under_way.wait(0.01)
    assert overlapped > 0  # the caller goes on while a frame is being encoded
    copies_paced, copies = copies, 0
    with Counting(tmp_path / "x.mkv", 30) as writer:
        for _ in range(40):
            writer.write(frame)
    assert copies_paced <= 8
    assert copies <= 8


def test_frames_of_another_kind_are_refused_and_nothing_is_left(tmp_path: Path) -> None:
    frame = smooth_frames(1)[0]
    for bad in (
        frame[:50],
        frame.astype(np.float32),
        frame[:, :, :2],
        frame[:, :, 0],
        np.zeros((0, 4, 3), np.uint8),
    ):
        with pytest.raises(BadArgument, match="video frame"), VideoWriter(tmp_path / "x.mp4", 30) as writer:
            if bad.ndim == 3 and bad.shape[0] != 0:
                writer.write(frame)
            writer.write(bad)  # type: ignore[arg-type]
    with pytest.raises(BadArgument, match="at least one frame"), VideoWriter(tmp_path / "x.mp4", 30):
        pass
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("name", "kwargs"),
    [
        ("x.avi", {}),
        ("x", {}),
        ("x.mp4", {"fps": 0.0}),
        ("x.mp4", {"fps": float("nan")}),
        ("x.mp4", {"quality": 101}),
    ],
)
def test_bad_settings_are_refused(tmp_path: Path, name: str, kwargs: dict[str, Any]) -> None:
    with pytest.raises(BadArgument):
        VideoWriter(tmp_path / name, **{"fps": 30.0, **kwargs})


@pytest.mark.parametrize("stop", [KeyboardInterrupt, ValueError])
def test_an_interrupted_video_leaves_what_was_there(tmp_path: Path, stop: type[BaseException]) -> None:
    (tmp_path / "x.mp4").write_bytes(b"old")
    with pytest.raises(stop), VideoWriter(tmp_path / "x.mp4", 30) as writer:
        for frame in smooth_frames(20):
            writer.write(frame)
        raise stop
    assert os.listdir(tmp_path) == ["x.mp4"]
    assert (tmp_path / "x.mp4").read_bytes() == b"old"
    assert not [thread for thread in threading.enumerate() if thread.name == "encode"]


def test_a_full_disk_is_told_to_the_caller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(video, "append_to_mp4", full)
    with (
        pytest.raises(WriteFailed, match="No space left"),
        VideoWriter(tmp_path / "x.mp4", 30, xmp=xmp_packet({})) as writer,
    ):
        writer.write(smooth_frames(1)[0])
    monkeypatch.setattr(VideoWriter, "_as_encoded", full)
    with pytest.raises(WriteFailed, match="No space left"), VideoWriter(tmp_path / "x.mkv", 30) as writer:
        for frame in smooth_frames(100):  # more than the queue holds: the failure must not block the caller
            writer.write(frame)
    assert os.listdir(tmp_path) == []


def test_a_really_full_disk(tmp_path: Path) -> None:
    """A file-size limit of the process stands in for the disk: the kernel itself refuses the bytes."""
    import resource
    import signal

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    noise = np.random.default_rng(0).integers(0, 256, (64, 256, 256, 3), dtype=np.uint8)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, before[1]))
        with pytest.raises(WriteFailed, match=r"x\.mkv"), VideoWriter(tmp_path / "x.mkv", 30) as writer:
            for frame in noise:
                writer.write(frame)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert os.listdir(tmp_path) == []
