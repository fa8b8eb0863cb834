"""The track of a long video on disk: written as it grows, gone on with after a kill, read by windows."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields
from fractions import Fraction
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fastface.alignment import Array, compose
from fastface.atomic import whole_file
from fastface.errors import BadImage, BadModelFile, NoFaceFound
from fastface.landmarks import LandmarkDetector
from fastface.tracking import MEASURED, NO_FACE, Tracker, TrackRows, smoothed
from fastface.video_reading import SourceFrame, VideoReader

_CHUNK: Final = 1024
#: A face that is gone for longer comes back as another shot; the square waits for it where it was.
LONGEST_BRIDGE_S: Final = 1.0
_FAR_SIGMAS: Final = 4.0
#: The square's place on the face is the mean over the shot, shrunk to that of the whole video by as many
#: samples: a shot of few frames has no better one.
_SHRINKAGE: Final = 10.0
_ROWS: Final = tuple(item.name for item in fields(TrackRows))


def write_track(
    reader: VideoReader,
    folder: Path,
    detector: LandmarkDetector,
    every: int,
    advance: Callable[[int], object] = lambda frames: None,
) -> None:
    """Track a whole video into ``folder``, from where an earlier run stopped.

    ``advance`` is called with the number of frames done since the last call. Raises ``BadImage`` when the
    video breaks, ``WriteFailed``.
    """
    done = 0
    tracker = Tracker(detector, every)
    last_pts: int | None = None
    while (file := _chunk(folder, done)).exists():
        rows, state = _load(file)
        _restore(tracker, state)
        last_pts = int(rows.pts[-1]) if len(rows) else last_pts
        advance(len(rows))
        done += 1
        if len(rows) < _CHUNK:
            return
    frames = reader.frames(last_pts)
    if last_pts is not None:
        first = next(frames, None)
        if first is None or first.pts != last_pts:
            raise BadImage(f"{reader.path}: changed, or cannot be entered in its midst; remove {folder}")
    while True:
        rows = tracker.rows(_counted(islice(frames, _CHUNK), advance))
        _save(_chunk(folder, done), rows, tracker)
        done += 1
        if len(rows) < _CHUNK:
            return


def _counted(frames: Iterator[SourceFrame], advance: Callable[[int], object]) -> Iterator[SourceFrame]:
    for frame in frames:
        yield frame
        advance(1)


def _chunk(folder: Path, index: int) -> Path:
    return folder / f"track-{index:05d}.npz"


def _save(path: Path, rows: TrackRows, tracker: Tracker) -> None:
    state = {"points": tracker.points, "reference": tracker.reference, "last": tracker.last}
    arrays: dict[str, Any] = {name: getattr(rows, name) for name in _ROWS}
    arrays |= {f"state_{name}": value for name, value in state.items() if value is not None}
    with whole_file(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **arrays)


def _restore(tracker: Tracker, state: dict[str, NDArray[Any]]) -> None:
    tracker.points = state.get("points")
    tracker.reference = state.get("reference")
    tracker.last = state.get("last")


def _load(path: Path) -> tuple[TrackRows, dict[str, NDArray[Any]]]:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            rows = TrackRows(**{name: arrays[name] for name in _ROWS})
            state = {
                name.removeprefix("state_"): arrays[name] for name in arrays if name.startswith("state_")
            }
        if len({len(getattr(rows, name)) for name in _ROWS if name != "shape"}) != 1:
            raise ValueError("columns of different lengths")
    except Exception as error:  # whatever numpy and zipfile make of damaged bytes
        raise BadModelFile(f"{path}: a damaged track ({error}); remove it and run again") from None
    return rows, state


@dataclass
class _Shot:
    """Frames from ``first`` on that one smooth square follows, and when the face is first and last seen."""

    first: int
    begin_s: float
    end_s: float
    square_sum: Array = field(default_factory=lambda: np.zeros(4))
    samples: int = 0


class Track:
    """What ``write_track`` wrote, smoothed.

    frames: how many. faces: how many of them show a face. first_without: the first that does not, or None.
    Memory is that of a few thousand frames, whatever the length. Raises ``NoFaceFound`` when no frame shows
    a face.
    """

    def __init__(self, folder: Path, time_base: Fraction, smoothing_s: float, name: str) -> None:
        self._folder, self._tick_s, self._smoothing_s = folder, float(time_base), smoothing_s
        self._rows_of = lru_cache(maxsize=4)(lambda index: _load(_chunk(folder, index))[0])
        self.frames = self.faces = 0
        self.first_without: int | None = None
        self._shots: list[_Shot] = []
        shape, measured = np.zeros((478, 2)), 0
        self._origin = 0
        for rows in self._chunks():
            if self.frames == 0 and len(rows):
                self._origin = int(rows.pts[0])
            self._add_shots(rows)
            absent = np.flatnonzero(rows.state == NO_FACE)
            if self.first_without is None and len(absent):
                self.first_without = self.frames + int(absent[0])
            self.frames += len(rows)
            self.faces += len(rows) - len(absent)
            measured += int(np.count_nonzero(rows.state == MEASURED))
            shape += rows.shape
        if self.frames == 0:
            raise BadImage(f"{name}: a video without frames")
        if not self._shots:
            raise NoFaceFound(f"{name}: no face in any of {self.frames} frames")
        mean = np.sum([shot.square_sum for shot in self._shots], axis=0) / measured
        self._squares = np.array(
            [(shot.square_sum + _SHRINKAGE * mean) / (shot.samples + _SHRINKAGE) for shot in self._shots]
        )
        self.mean_square = mean
        self.mean_shape = shape / measured

    def _chunks(self) -> Iterator[TrackRows]:
        index = 0
        while True:
            rows, _ = _load(_chunk(self._folder, index))
            yield rows
            if len(rows) < _CHUNK:
                return
            index += 1

    def _add_shots(self, rows: TrackRows) -> None:
        times = self._times(rows)
        for row in np.flatnonzero(rows.state == MEASURED):
            time_s = float(times[row])
            shots = self._shots
            if not shots or rows.cut[row] or time_s - shots[-1].end_s > LONGEST_BRIDGE_S:
                shots.append(_Shot(self.frames + int(row), time_s, time_s))
            shots[-1].end_s = time_s
            shots[-1].square_sum = shots[-1].square_sum + rows.square[row]
            shots[-1].samples += 1

    def _times(self, rows: TrackRows) -> Array:
        return np.asarray((rows.pts - self._origin) * self._tick_s, np.float64)

    def rows(self, start: int, stop: int) -> TrackRows:
        """The rows of the frames ``start`` to ``stop``, as tracked."""
        stop = min(stop, self.frames)
        parts = []
        for index in range(start // _CHUNK, -(-stop // _CHUNK)):
            rows = self._rows_of(index)
            here = slice(max(start - index * _CHUNK, 0), stop - index * _CHUNK)
            parts.append([getattr(rows, name)[here] for name in _ROWS if name != "shape"])
        joined: list[Any] = [np.concatenate(columns) for columns in zip(*parts, strict=True)]
        joined.append(np.zeros((478, 2)))
        return TrackRows(*joined)

    def squares(self, start: int, stop: int) -> Array:
        """The smooth squares (n, 4) of the frames ``start`` to ``stop``: the same, to rounding, however the
        video is divided into such ranges."""
        stop = min(stop, self.frames)
        made = np.empty((stop - start, 4))
        firsts = [shot.first for shot in self._shots]
        firsts[0] = 0
        for index, shot in enumerate(self._shots):
            end = firsts[index + 1] if index + 1 < len(firsts) else self.frames
            low, high = max(start, firsts[index]), min(stop, end)
            if low >= high:
                continue
            # Where there is no face at either end of the shot, the square is held.
            at_s = np.clip(self._times(self.rows(low, high)), shot.begin_s, shot.end_s)
            times, frames = self._samples(shot.first, end, low, high, at_s)
            bones = smoothed(times, frames, at_s, self._smoothing_s)
            made[low - start : high - start] = compose(bones, self._squares[index])
        return made

    def _samples(self, first: int, end: int, low: int, high: int, at_s: Array) -> tuple[Array, Array]:
        """Times (m,) and face frames (m, 4) measured in a shot, as far around its frames as they matter."""
        margin_s = max(_FAR_SIGMAS * self._smoothing_s, LONGEST_BRIDGE_S) + 1e-6
        low, high = max(low, first), max(high, first + 1)
        while low > first and self._time_of(low) > at_s[0] - margin_s:
            low = max(low - 64, first)
        while high < end and self._time_of(high - 1) < at_s[-1] + margin_s:
            high = min(high + 64, end)
        rows = self.rows(low, high)
        measured = rows.state == MEASURED
        frames = rows.frame[measured].copy()
        frames[:, 3] = np.unwrap(frames[:, 3])
        return self._times(rows)[measured], frames

    def _time_of(self, row: int) -> float:
        pts = self._rows_of(row // _CHUNK).pts[row % _CHUNK]
        return (int(pts) - self._origin) * self._tick_s


def mask_points(track: Track, size_px: int) -> Array:
    """The mean landmarks (478, 2) of the video in pixels of the crop."""
    square = track.mean_square
    z = (track.mean_shape - square[:2]) @ np.array([1, 1j]) * np.exp(-square[2] - 1j * square[3])
    return np.asarray(np.stack([z.real, z.imag], axis=1) * size_px + size_px / 2)


def default_every(rate: Fraction, samples_per_second: float) -> int:
    """Measure one frame in so many, for about that many samples a second."""
    return max(1, math.floor(float(rate) / samples_per_second + 0.5))
