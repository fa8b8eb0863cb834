"""A face followed through time: micro-expressions survive, nothing trembles, every moment is exact."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from fastface import track_files
from fastface.affect import Affect
from fastface.alignment import (
    celeba_square,
    compose,
    crop,
    crop_to_frame,
    face_frame,
    inverse,
    reference_shape,
    relative,
    resample,
)
from fastface.engine import Engine
from fastface.errors import BadArgument, NoFaceFound
from fastface.landmarks import LandmarkDetector
from fastface.track_files import Track, write_track
from fastface.tracking import BETWEEN, MEASURED, NO_FACE, LiveSquare, OneEuro, Tracker, smoothed
from fastface.video_reading import SourceFrame

Image = NDArray[np.uint8]
Array = NDArray[np.float64]

FPS = 200
HEIGHT, WIDTH, SCALE = 300, 360, 1.0  # of the synthetic frames, and of the portrait in them


# --- squares and crops ---


@pytest.mark.parametrize("side_px", [150.0, 256.0, 700.0])
def test_crop_is_exact_between_pixels(side_px: float) -> None:
    """cv2's own quick ways round positions to 1/32 px: 0.03 px off. A micro-expression is a few tenths."""
    y, x = np.mgrid[0:640, 0:640] + 0.5
    wave = 20 * side_px / 256
    image = (128 + 60 * np.sin(x / wave) + 50 * np.cos(y / wave)).round().astype(np.uint8)
    for step in np.linspace(0, 1, 11):
        square = np.array([320 + step, 320.5 + step / 3, math.log(side_px), 0.1])
        matrix = crop_to_frame(square, 256)
        v, u = np.mgrid[0:256, 0:256] + 0.5
        at = np.tensordot(matrix[:, :2], np.stack([u, v]), 1) + matrix[:, 2][:, None, None]
        inside = (at > 4).all(axis=0) & (at < 636).all(axis=0)
        error = resample(image, matrix, 256, 256) - (
            128 + 60 * np.sin(at[0] / wave) + 50 * np.cos(at[1] / wave)
        )
        slope = 60 / wave * np.cos(at[0] / wave)
        shift_px = (error * slope)[inside].sum() / (slope**2)[inside].sum()
        assert abs(shift_px) < 0.004
        assert np.abs(error[inside]).max() < 3


@pytest.mark.parametrize("square", [(-900, 5, 5, 0), (1e6, -1e6, 3, 1), (30, 30, 9.5, 2), (3, 3, -2, 0)])
def test_squares_off_the_frame_are_filled(square: tuple[float, ...]) -> None:
    image = np.full((40, 60, 3), (10, 120, 240), np.uint8)
    made = crop(image, np.array(square, float), 32)
    assert made.shape == (32, 32, 3)
    assert (made == image[0, 0]).all()  # mirrored, so there is nothing black


def test_square_of_celeba_frames_eyes_and_mouth() -> None:
    points = np.zeros((478, 2))
    points[[33, 160, 158, 133, 153, 144]] = (100, 100)  # the subject's right eye
    points[[362, 385, 387, 263, 373, 380]] = (160, 100)
    points[[61, 291]] = (130, 170)
    x, y, side, angle = celeba_square(points)
    assert (x, y, angle) == pytest.approx((130, 107, 0))
    assert math.exp(side) == pytest.approx(3.6 * 70)  # the longer of 4 · 60 and 3.6 · 70


def test_frames_and_squares_turn_with_the_face() -> None:
    random = np.random.default_rng(0)
    face = random.normal(0, 40, (478, 2))
    reference = reference_shape(face)
    turn = np.array([[math.cos(2.5), -math.sin(2.5)], [math.sin(2.5), math.cos(2.5)]]) * 1.7
    turned = face @ turn.T + (300, 20)
    before, after = face_frame(face, reference), face_frame(turned, reference)
    assert after[2] - before[2] == pytest.approx(math.log(1.7))
    assert math.remainder(after[3] - before[3] - 2.5, math.tau) == pytest.approx(0, abs=1e-9)
    square = celeba_square(turned)
    assert compose(after, relative(after, square)) % math.tau == pytest.approx(square % math.tau)


# --- smoothing ---


def test_smoothing_keeps_parabolas_and_adds_no_delay() -> None:
    random = np.random.default_rng(1)
    times = np.sort(random.uniform(0, 4, 300))  # as irregular as a variable frame rate can be
    at = np.linspace(0.5, 3.5, 50)
    parabola = smoothed(times, (3 * times**2 - times + 7)[:, None], at, 0.1)[:, 0]
    assert parabola == pytest.approx(3 * at**2 - at + 7, abs=2e-3)
    even = np.arange(0, 4, 0.01)
    sway = smoothed(even, np.sin(2 * math.pi * 0.5 * even)[:, None], even, 0.2)[:, 0]
    inner = slice(100, 300)
    phase = np.angle(np.vdot(np.exp(2j * math.pi * 0.5 * even[inner]), sway[inner])) + math.pi / 2
    assert abs(phase) < 1e-3
    assert np.abs(sway - np.sin(2 * math.pi * 0.5 * even))[inner].max() < 0.06


def test_smoothing_of_lone_samples_and_gaps_stays_near_them() -> None:
    at = np.linspace(-5, 5, 101)
    assert smoothed(np.array([0.0]), np.array([[7.0]]), at, 0.2) == pytest.approx(np.full((101, 1), 7.0))
    times = np.array([0, 0.03, 0.06, 0.9, 0.93])
    values = np.array([10, 10.1, 10.2, 14.0, 14.1])[:, None]
    bridged = smoothed(times, values, np.linspace(0, 0.93, 94), 0.2)
    assert 9.5 < bridged.min() < bridged.max() < 14.6
    assert np.abs(np.diff(bridged, axis=0)).max() < 0.35


def test_one_euro_is_causal_still_at_rest_and_quick() -> None:
    random = np.random.default_rng(2)
    times = np.arange(300) / 30
    truth = np.array([100.0, 100.0, math.log(200), 0.0]) + np.zeros((300, 4))
    truth[150:, 0] += np.minimum(np.arange(150) * 3.0, 120)  # three pixels a frame, then still again
    noisy = truth + random.normal(0, 1, (300, 4)) * (0.5, 0.5, 0.003, 0.003)
    live, prefix = OneEuro(), OneEuro()
    made = np.array([live.update(t, row) for t, row in zip(times, noisy, strict=True)])
    assert np.array_equal(
        made[:80], [prefix.update(t, r) for t, r in zip(times[:80], noisy[:80], strict=True)]
    )
    trembling = np.abs(np.diff(made[30:150, 0], 2)).mean() / np.abs(np.diff(noisy[30:150, 0], 2)).mean()
    assert trembling < 0.2
    assert np.abs(made[200:, 0] - truth[200:, 0]).max() < 2  # arrived
    assert np.abs(made[150:190, 0] - truth[150:190, 0]).max() < 30  # and never far behind
    jump = live.update(10.1, truth[0] + (500, 0, 0, 0))
    assert jump[0] == 600


# --- what is tracked ---


@dataclass
class Script:
    """A detector whose answers are known: frame number (the first pixels' red) → centre of the face."""

    centre: Callable[[int], tuple[float, float] | None]
    noise: float = 0.0
    asked: int = 0

    def detect(self, rgb: Image, max_faces: int = 1) -> list[Any]:
        self.asked += 1
        number = int(rgb[0, 0, 0]) + 256 * int(rgb[0, 1, 0])
        at = self.centre(number)
        if at is None:
            return []
        random = np.random.default_rng(number)
        points = FACE + at + random.normal(0, 1, (478, 2)) * self.noise
        return [SimpleNamespace(points_px=points.astype(np.float32), score=0.999)]

    def follow(self, rgb: Image, points_px: Any) -> Any:
        return next(iter(self.detect(rgb)), None)


FACE = np.random.default_rng(5).normal(0, 30, (478, 2))
FACE[[33, 160, 158, 133, 153, 144]] = np.array([-30, -20]) + FACE[:6] / 30
FACE[[362, 385, 387, 263, 373, 380]] = np.array([30, -20]) + FACE[6:12] / 30
FACE[[61, 291]] = (-20, 40), (20, 40)


def numbered(count: int) -> Iterator[SourceFrame]:
    for number in range(count):
        image = np.zeros((4, 4, 3), np.uint8)
        image[0, 0, 0], image[0, 1, 0] = number % 256, number // 256
        yield SourceFrame(image, number, 1)


def scripted(number: int) -> tuple[float, float] | None:
    if number < 9 or 40 <= number < 45:
        return None
    return (100.0 + number / 10, 100.0) if number < 73 else (300.0, 90.0)


@pytest.mark.parametrize("every", [1, 4, 7, 50])
def test_moments_are_exact_however_few_frames_are_measured(every: int) -> None:
    script = Script(scripted)
    tracker = Tracker(script, every)  # type: ignore[arg-type]
    rows = tracker.rows(numbered(120))
    assert len(rows) == 120
    if every < 50:  # a gap of five frames can fall between samples that are further apart
        assert np.flatnonzero(rows.state == NO_FACE).tolist() == [*range(9), *range(40, 45)]
    assert np.flatnonzero(rows.cut).tolist() == [73]
    measured = rows.state == MEASURED
    assert np.isfinite(rows.frame[measured]).all()
    assert np.isnan(rows.frame[rows.state == BETWEEN]).all()
    if every == 7:
        assert script.asked < 75


def test_face_that_comes_back_is_found_beside_a_larger_one() -> None:
    """Two people; the one that was followed looks away for a while."""

    class Two:
        def detect(self, rgb: Image, max_faces: int = 1) -> list[Any]:
            number = int(rgb[0, 0, 0])
            there = [2 * FACE + (600, 100)] if number >= 5 else []
            there += [FACE + np.full(2, 100.0)] if number < 10 or number >= 20 else []
            return [SimpleNamespace(points_px=p.astype(np.float32), score=0.99) for p in there][:max_faces]

        def follow(self, rgb: Image, points_px: Any) -> Any:
            near = [f for f in self.detect(rgb, 2) if abs(f.points_px[0] - points_px[0]).max() < 50]
            return near[0] if near else None

    tracker = Tracker(Two())  # type: ignore[arg-type]
    rows = tracker.rows(numbered(12))
    assert rows.frame[[0, 9], 0] == pytest.approx(100, abs=20)
    assert rows.frame[10, 0] > 500  # gone: the other is what there is
    tracker = Tracker(Two())  # type: ignore[arg-type]
    tracker.rows(numbered(8))
    tracker.points = None
    assert tracker.rows(list(numbered(21))[20:]).frame[0, 0] == pytest.approx(100, abs=20)


class Numbered:
    """Stands for a reader."""

    path, time_base, rate = Path("numbered"), Fraction(1, 100), Fraction(100)

    def __init__(self, count: int) -> None:
        self.count = count

    def frames(self, from_pts: int | None = None) -> Iterator[SourceFrame]:
        return (frame for frame in numbered(self.count) if frame.pts >= (from_pts or 0))


def tracked(folder: Path, script: Script, count: int, every: int, **smooth: float) -> Track:
    folder.mkdir(exist_ok=True)
    write_track(Numbered(count), folder, script, every)  # type: ignore[arg-type]
    return Track(folder, Fraction(1, 100), smooth.get("sigma", 0.1), "numbered")


def test_track_holds_bridges_and_starts_anew(tmp_path: Path) -> None:
    track = tracked(tmp_path / "t", Script(scripted, noise=0.2), 120, 3)
    assert (track.frames, track.faces, track.first_without) == (120, 106, 0)
    squares = track.squares(0, 120)
    assert (squares[:9] == squares[9]).all()  # held until the face is there
    steps = np.hypot(*np.diff(squares[:, :2], axis=0).T)
    assert steps[72] == pytest.approx(192.9, abs=1.5)  # the cut, at once
    assert np.delete(steps, 72).max() < 0.3  # and the gap bridged without a jump


def test_windows_of_a_track_agree_and_chunks_leave_no_trace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = tracked(tmp_path / "whole", Script(scripted, noise=0.2), 120, 1).squares(0, 120)
    monkeypatch.setattr(track_files, "_CHUNK", 16)
    track = tracked(tmp_path / "parts", Script(scripted, noise=0.2), 120, 1)
    parts = [track.squares(start, start + 11) for start in range(0, 120, 11)]
    assert np.concatenate(parts) == pytest.approx(whole, abs=1e-9)


def test_killed_tracking_goes_on_where_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(track_files, "_CHUNK", 16)
    expected = tracked(tmp_path / "once", Script(scripted, noise=0.2), 120, 3)
    folder = tmp_path / "twice"
    folder.mkdir()
    done = 0

    def stop(frames: int) -> None:
        nonlocal done
        done += frames
        if done > 70:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_track(Numbered(120), folder, Script(scripted, noise=0.2), 3, stop)  # type: ignore[arg-type]
    script = Script(scripted, noise=0.2)
    again = tracked(folder, script, 120, 3)
    assert np.array_equal(again.squares(0, 120), expected.squares(0, 120))
    assert script.asked < 45
    assert sorted(path.name for path in folder.iterdir()) == [f"track-{i:05d}.npz" for i in range(8)]


def test_video_without_any_face_is_told(tmp_path: Path) -> None:
    with pytest.raises(NoFaceFound, match="no face in any of 30 frames"):
        tracked(tmp_path / "t", Script(lambda number: None), 30, 4)


@pytest.mark.parametrize("points", [np.zeros((68, 2)), np.full((478, 2), np.nan), None])
def test_points_that_are_none_cannot_be_followed(points: Any) -> None:
    with pytest.raises(BadArgument, match="follow: points_px"):
        LandmarkDetector().follow(np.zeros((9, 9, 3), np.uint8), points)


@pytest.mark.parametrize("every", [0, -1, 1001, True])
def test_strides_that_make_no_sense_are_refused(every: int) -> None:
    with pytest.raises(BadArgument, match="every"):
        Tracker(LandmarkDetector(), every)


# --- a real face, with expressions of a third of a second on a head that moves ---


def head(time_s: float) -> Array:
    """Where the portrait lies: (2, 3), a slow similarity."""
    angle = math.radians(2) * math.sin(2 * math.pi * 0.27 * time_s + 2)
    scale = SCALE * (1 + 0.02 * math.sin(2 * math.pi * 0.17 * time_s))
    turn = scale * np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    sway = 9 * math.sin(2 * math.pi * 0.23 * time_s + 0.3)
    nod = 6 * math.sin(2 * math.pi * 0.31 * time_s + 1)
    centre = np.array([WIDTH / 2 + sway, HEIGHT / 2 + nod])
    return np.column_stack([turn, centre - turn @ np.full(2, 144.0)])


def pulse(time_s: float) -> float:
    """Onset, apex at 0.6 s, offset; 0.3 s in all, as micro-expressions are."""
    return 0.2 * max(0.0, math.cos((time_s - 0.6) / 0.3 * math.pi)) if abs(time_s - 0.6) < 0.15 else 0.0


@dataclass
class Clip:
    """frames with the expression and without; truth: the landmarks in them (n, 478, 2)."""

    frames: list[Image]
    truth: Array


@pytest.fixture(scope="module")
def clips(portrait: Callable[..., Image]) -> tuple[Clip, Clip]:
    engine = Engine(threads=2)
    face = engine.fit(portrait("001"))
    made = (Clip([], np.zeros((0, 478, 2))), Clip([], np.zeros((0, 478, 2))))
    random = np.random.default_rng(3)
    truths: tuple[list[Array], list[Array]] = ([], [])
    for number in range(int(1.2 * FPS)):
        time_s = number / FPS
        matrix = head(time_s)
        grain = random.normal(0, 1.5, (HEIGHT, WIDTH, 1)).astype(np.float32)
        for clip, truth, strength in zip(made, truths, (pulse(time_s), 0.0), strict=True):
            if clip is made[1] and not pulse(time_s):  # the same picture
                clip.frames.append(made[0].frames[-1])
                truth.append(truths[0][-1])
                continue
            affect = Affect.expression("happy", strength) if strength else Affect.neutral()
            picture = resample(engine.render(face, affect), inverse(matrix), HEIGHT, WIDTH)
            clip.frames.append(np.clip(np.rint(picture + grain), 0, 255).astype(np.uint8))
            points = engine.labels(face, affect).landmarks478_px.astype(np.float64)
            truth.append(points @ matrix[:, :2].T + matrix[:, 2])
    return Clip(made[0].frames, np.array(truths[0])), Clip(made[1].frames, np.array(truths[1]))


@pytest.fixture(scope="module")
def squares(clips: tuple[Clip, Clip], tmp_path_factory: pytest.TempPathFactory) -> tuple[Array, Array]:
    """The smooth squares of both clips, landmarks measured in every seventh frame."""
    made = []
    for clip in clips:
        reader = SimpleNamespace(path=Path("clip"), frames=lambda from_pts=None, clip=clip: stream(clip))
        folder = tmp_path_factory.mktemp("track")
        write_track(reader, folder, LandmarkDetector(2), track_files.default_every(Fraction(FPS), 30.0))  # type: ignore[arg-type]
        made.append(Track(folder, Fraction(1, FPS), 0.2, "clip").squares(0, len(clip.frames)))
    return made[0], made[1]


def stream(clip: Clip) -> Iterator[SourceFrame]:
    return (SourceFrame(image, number, 1) for number, image in enumerate(clip.frames))


def corners(rows: Array) -> Array:
    ends = np.array([[0, 1, 0, 1], [0, 0, 1, 1]])
    maps = [crop_to_frame(row, 1) for row in rows]
    return np.array([(m[:, :2] @ ends + m[:, 2:]).ravel() for m in maps])


def trembling_px(rows: Array, truth: Array) -> float:
    """Root mean square acceleration of the corners against the truth's, in pixels a frame squared."""
    return float(np.sqrt(np.mean(np.diff(corners(rows) - corners(truth), 2, axis=0) ** 2)))


def true_squares(count: int, like: Array) -> Array:
    """Squares that sit on the head without fault, where those of ``like`` sit on average."""
    frames = []
    for number in range(count):
        m = head(number / FPS)
        frames.append(
            [m[0, 2], m[1, 2], math.log(math.hypot(m[0, 0], m[1, 0])), math.atan2(m[1, 0], m[0, 0])]
        )
    heads = np.array(frames)
    return compose(heads, np.mean([relative(h, s) for h, s in zip(heads, like, strict=True)], axis=0))


def test_square_does_not_tremble(clips: tuple[Clip, Clip], squares: tuple[Array, Array]) -> None:
    count = len(clips[0].frames)
    detector = LandmarkDetector(2)
    points = detector.detect(clips[1].frames[0])[0].points_px
    each = []
    for image in clips[1].frames[:40]:
        face = detector.follow(image, points)
        assert face is not None
        points = face.points_px
        each.append(celeba_square(points.astype(np.float64)))
    by_frame = trembling_px(np.array(each), true_squares(40, np.array(each)))
    for rows in squares:
        truth = true_squares(count, rows)
        assert trembling_px(rows, truth) < 0.0005 < by_frame / 100
        assert np.sqrt(np.mean((corners(rows) - corners(truth)) ** 2)) < 0.35


def test_micro_expression_survives_the_crop(clips: tuple[Clip, Clip], squares: tuple[Array, Array]) -> None:
    """The displacement of the lip corners, with the expression against without it, before and after the
    crop: by the known landmarks, and as the pixels show it."""
    shown, neutral = clips
    apex = round(0.6 * FPS)
    size = 256
    to_crop = [inverse(crop_to_frame(rows[apex], size)) for rows in squares]
    pixels = [crop(clip.frames[apex], rows[apex], size) for clip, rows in zip(clips, squares, strict=True)]
    scale = size / math.exp(squares[1][apex, 2])
    for corner in (61, 291):
        before = (shown.truth - neutral.truth)[apex, corner] * scale
        after = [
            m[:, :2] @ clip.truth[apex, corner] + m[:, 2] for m, clip in zip(to_crop, clips, strict=True)
        ]
        assert 1 < np.linalg.norm(before) < 4
        assert np.linalg.norm(after[0] - after[1]) / np.linalg.norm(before) == pytest.approx(1, abs=0.05)
        source = flow(neutral.frames[apex], shown.frames[apex], neutral.truth[apex, corner], 21)
        result = flow(pixels[1], pixels[0], after[1], round(21 * scale))
        direction = before / np.linalg.norm(before)
        turned = to_crop[1][:, :2] @ source
        assert 0.95 < (result @ direction) / (turned @ direction) < 1.08


def test_expression_is_not_taken_for_motion_of_the_head(squares: tuple[Array, Array]) -> None:
    """The two clips differ in the expression only: so should their squares not at all."""
    apart = corners(squares[0]) - corners(squares[1])
    assert np.abs(apart).max() < 0.3
    assert np.sqrt(np.mean(np.diff(apart, 2, axis=0) ** 2)) < 0.001


def test_live_square_follows_without_trembling(clips: tuple[Clip, Clip]) -> None:
    frames = clips[1].frames[::7]
    live = LiveSquare(LandmarkDetector(2))
    made = []
    for number, image in enumerate(frames):
        square, found = live.update(image, number * 7 / FPS)
        assert found
        assert square is not None
        made.append(square)
    truth = true_squares(len(clips[1].frames), np.array(made)[[0] * len(clips[1].frames)])[::7]
    gap = corners(np.array(made))[:, :2] - corners(truth)[:, :2]
    assert np.abs(gap - gap.mean(axis=0)).max() < 2
    held, found = live.update(np.zeros((HEIGHT, WIDTH, 3), np.uint8), 99.0)
    assert not found
    assert held is not None
    assert np.array_equal(held, made[-1])


def flow(before: Image, after: Image, at: Array, window: int) -> Array:
    """Displacement (2,) of what is at a point, in pixels (Lucas & Kanade 1981)."""
    grey = [cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in (before, after)]
    start = (at - 0.5).astype(np.float32).reshape(1, 1, 2)
    size = (window | 1, window | 1)
    criteria = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 60, 1e-4)
    end, _, _ = cv2.calcOpticalFlowPyrLK(
        *grey, start, start.copy(), winSize=size, maxLevel=1, criteria=criteria
    )
    return np.asarray((end - start).ravel(), np.float64)
