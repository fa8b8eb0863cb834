"""Where the face is in every frame of a video: landmarks over time, and a square that follows them smoothly.

A face that moves by tenths of a pixel must do so in the crop too. A square that is fitted to each frame by
itself adds the landmarks' noise to every frame and takes part of the expression away; so the square follows
the bones only (``alignment.STEADY_POINTS``), and slowly: for files by local quadratic regression in time
(Cleveland 1979, with a Gaussian kernel), which sees as far ahead as back and so adds no delay, for streams by
a 1-euro filter (Casiez, Roussel & Vogel 2012).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fastface.alignment import Array, celeba_square, compose, face_frame, reference_shape, relative
from fastface.errors import BadArgument
from fastface.landmarks import FaceLandmarks, LandmarkDetector
from fastface.video_reading import SourceFrame

Image = NDArray[np.uint8]

NO_FACE, BETWEEN, MEASURED = 0, 1, 2
"""State of a frame: no face in it; a face, by the samples before and after; a face, measured."""

#: A face cannot go a third of its square, or change its size by a fourth, from one sample to the next: that
#: is another shot, or another face.
_JUMP_SIDES: Final = 1 / 3
_JUMP_SCALE: Final = math.log(1.25)
#: Enough samples a second to follow any head; what lies between is closer to a curve than to their noise.
SAMPLES_PER_SECOND: Final = 30.0
_FAR_SIGMAS: Final = 4.0
#: Among so many the one that was followed is looked for when it comes back.
_MOST_FACES: Final = 4
#: Pull of the slope and the bend to zero, in units of the samples' weight: nothing in the midst of many
#: samples, and what keeps the ends and lone samples from swinging.
_RIDGE: Final = 1e-3


@dataclass
class TrackRows:
    """Frames one after another, n of them. pts, duration (n,) int64 in the video's time base; state (n,)
    uint8; cut (n,) bool: another shot begins here; score (n,) float32; frame, square (n, 4) float64: face
    frame, and the CelebA square as seen from it, NaN where not measured. shape (478, 2): sum of the measured
    landmarks as seen from their face frames."""

    pts: NDArray[np.int64]
    duration: NDArray[np.int64]
    state: NDArray[np.uint8]
    cut: NDArray[np.bool_]
    score: NDArray[np.float32]
    frame: Array
    square: Array
    shape: Array

    def __len__(self) -> int:
        return len(self.pts)


@dataclass
class _Row:
    pts: int
    duration: int
    state: int = NO_FACE
    cut: bool = False
    score: float = 0.0
    frame: Array = field(default_factory=lambda: np.full(4, np.nan))
    square: Array = field(default_factory=lambda: np.full(4, np.nan))


@dataclass
class Tracker:
    """Follows one face, the largest at first. ``every``: measure one frame in so many; the frames between are
    measured too wherever the face comes, goes or jumps, so that these moments are exact.

    ``points``, ``reference`` and ``last`` are all that it remembers: a tracker made with them goes on where
    another stopped.
    """

    detector: LandmarkDetector
    every: int = 1
    points: NDArray[np.float32] | None = None
    reference: Array | None = None
    last: Array | None = None

    def __post_init__(self) -> None:
        if isinstance(self.every, bool) or not isinstance(self.every, int) or not 1 <= self.every <= 1000:
            raise BadArgument(
                f"every: wanted a whole number of frames from 1 to 1000, got {self.every!r:.20}"
            )

    def find(self, image: Image) -> FaceLandmarks | None:
        """The face in the next frame: near where it was, else the nearest to that place, else the largest."""
        if self.points is not None:
            face = self.detector.follow(image, self.points)
            if face is not None:
                self.points = face.points_px
                return face
        faces = self.detector.detect(image, max_faces=1 if self.last is None else _MOST_FACES)
        if faces and self.last is not None:
            centre, side = self.last[:2], math.exp(self.last[2])
            apart = [math.hypot(*(face.points_px.mean(axis=0) - centre)) for face in faces]
            if min(apart) < side:
                faces = [faces[apart.index(min(apart))]]
        if faces:
            self.points = faces[0].points_px
        return faces[0] if faces else None

    def rows(self, frames: Iterable[SourceFrame]) -> TrackRows:
        """Track the next frames of the video. At most ``every`` of them are held at a time."""
        rows: list[_Row] = []
        shape = np.zeros((478, 2))
        waiting: list[tuple[_Row, SourceFrame]] = []
        before: int | None = None  # state of the last sample
        for frame in frames:
            row = _Row(frame.pts, frame.duration)
            rows.append(row)
            waiting.append((row, frame))
            if before is None or len(waiting) == self.every:
                before = self._settle(waiting, before, shape)
                waiting = []
        if waiting:
            self._settle(waiting, before, shape)
        return _table(rows, shape)

    def _settle(self, waiting: list[tuple[_Row, SourceFrame]], before: int | None, shape: Array) -> int:
        """Measure the last of the waiting frames, and those before it where that leaves them in doubt."""
        sample, last = waiting[-1]
        between = waiting[:-1]
        kept = (self.points, self.last, shape.copy())
        self._measure(sample, last.image, shape)
        if between and (sample.state != before or sample.cut):
            self.points, self.last = kept[:2]
            shape[:] = kept[2]
            sample.cut, sample.state = False, NO_FACE
            for row, waited in waiting:
                self._measure(row, waited.image, shape)
        elif sample.state == MEASURED:
            for row, _ in between:
                row.state = BETWEEN
        return sample.state

    def _measure(self, row: _Row, image: Image, shape: Array) -> None:
        face = self.find(image)
        if face is None:
            self.points = None
            return
        points = face.points_px.astype(np.float64)
        if self.reference is None:
            self.reference = reference_shape(points)
        row.state, row.score = MEASURED, face.score
        row.frame = face_frame(points, self.reference)
        square = celeba_square(points)
        row.square = relative(row.frame, square)
        row.cut = self.last is not None and _jumped(self.last, square)
        self.last = square
        turned = np.exp(-row.frame[2] - 1j * row.frame[3]) * ((points - row.frame[:2]) @ np.array([1, 1j]))
        shape += np.stack([turned.real, turned.imag], axis=1)


def _jumped(before: Array, now: Array) -> bool:
    step = math.hypot(*(now[:2] - before[:2])) / math.exp(max(before[2], now[2]))
    return step > _JUMP_SIDES or abs(now[2] - before[2]) > _JUMP_SCALE


def _table(rows: list[_Row], shape: Array) -> TrackRows:
    return TrackRows(
        pts=np.array([row.pts for row in rows], np.int64),
        duration=np.array([row.duration for row in rows], np.int64),
        state=np.array([row.state for row in rows], np.uint8),
        cut=np.array([row.cut for row in rows], np.bool_),
        score=np.array([row.score for row in rows], np.float32),
        frame=np.array([row.frame for row in rows]).reshape(-1, 4),
        square=np.array([row.square for row in rows]).reshape(-1, 4),
        shape=shape,
    )


def smoothed(times_s: Array, values: Array, at_s: Array, sigma_s: float) -> Array:
    """Local quadratic regression: the value (n, C) at each of ``at_s`` (n,) of samples ``values`` (m, C) at
    ``times_s`` (m,), weighted by a Gaussian of ``sigma_s`` in time. Zero phase; a parabola passes unchanged.

    Where no sample is within four sigmas, the nearest one's value. ``sigma_s`` 0: linear between samples.
    """
    if sigma_s <= 0 or len(times_s) == 1:
        columns = [np.interp(at_s, times_s, column) for column in values.T]
        return np.stack(columns, axis=1)
    u = (times_s[None, :] - at_s[:, None]) / sigma_s
    nearest = np.abs(u).min(axis=1, keepdims=True)
    # Distances count from the nearest sample, so that the weights do not all vanish in a gap.
    weights = np.where(np.abs(u) <= np.maximum(_FAR_SIGMAS, nearest), np.exp((nearest**2 - u**2) / 2), 0.0)
    powers = np.stack([np.ones_like(u), u, u * u], axis=1)  # (n, 3, m)
    weighted = powers * weights[:, None, :]
    origin = values.mean(axis=0)
    normal = weighted @ powers.transpose(0, 2, 1)
    normal[:, [1, 2], [1, 2]] += _RIDGE * weights.sum(axis=1)[:, None]
    fitted = np.linalg.solve(normal, weighted @ (values - origin))
    return np.asarray(fitted[:, 0] + origin)


class OneEuro:
    """The causal filter for streams, on rows (4,) of a face frame or square.

    Low-pass whose cutoff rises with speed: still when the face is, quick when it moves. ``cutoff_hz``: at
    rest. ``beta``: how much it rises for a speed of one face size a second.
    """

    def __init__(self, cutoff_hz: float = 0.6, beta: float = 4.0, speed_cutoff_hz: float = 1.0) -> None:
        if not (cutoff_hz > 0 and beta >= 0 and speed_cutoff_hz > 0):
            raise BadArgument(
                "OneEuro: cutoff_hz and speed_cutoff_hz must be positive, beta not negative, got "
                f"{cutoff_hz:g}, {speed_cutoff_hz:g}, {beta:g}"
            )
        self._cutoff, self._beta, self._speed_cutoff = cutoff_hz, beta, speed_cutoff_hz
        self._time = 0.0
        self._value: Array | None = None
        self._speed = np.zeros(4)

    def update(self, time_s: float, row: Array) -> Array:
        """The smoothed row at the time of the newest one; a jump starts anew."""
        if self._value is None or time_s <= self._time or _jumped(self._value, row):
            self._time, self._value, self._speed = time_s, row.astype(np.float64), np.zeros(4)
            return self._value.copy()
        step, self._time = time_s - self._time, time_s
        ahead = row - self._value
        ahead[3] = math.remainder(ahead[3], math.tau)
        size = np.array([math.exp(row[2]), math.exp(row[2]), 1.0, 1.0])
        self._speed += _share(self._speed_cutoff, step) * (ahead / size / step - self._speed)
        speed = math.hypot(self._speed[0], self._speed[1]) + abs(self._speed[2]) + abs(self._speed[3])
        self._value = self._value + _share(self._cutoff + self._beta * speed, step) * ahead
        return self._value.copy()


def _share(cutoff_hz: float, step_s: float) -> float:
    """What a first-order low-pass takes of the new value after a step."""
    return 1.0 - math.exp(-2 * math.pi * cutoff_hz * step_s)


class LiveSquare:
    """The square of a face in a stream, frame by frame, with nothing known of what is to come."""

    def __init__(self, detector: LandmarkDetector | None = None, smoothing: OneEuro | None = None) -> None:
        self._tracker = Tracker(detector or LandmarkDetector())
        self._filter = smoothing or OneEuro()
        self._offset: Array | None = None
        self._square: Array | None = None

    def update(self, image: Image, time_s: float) -> tuple[Array | None, bool]:
        """(square (4,) of the newest frame, whether a face is in it). Without a face the last square is held;
        None before the first."""
        face = self._tracker.find(image)
        if face is None:
            self._tracker.points = None
            return self._square, False
        points = face.points_px.astype(np.float64)
        if self._tracker.reference is None:
            self._tracker.reference = reference_shape(points)
        bones = face_frame(points, self._tracker.reference)
        if self._offset is None:
            self._offset = relative(bones, celeba_square(points))
        self._square = compose(self._filter.update(time_s, bones), self._offset)
        return self._square, True
