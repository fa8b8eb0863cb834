"""What is measured on one person: fit, render, judge. `quality_report` sums people up."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from benchmarks import metrics
from benchmarks.judges import CLASSES
from benchmarks.portraits import Detector, Image, Portrait, RenderingEngine, detect_landmarks
from fastface.affect import Affect
from fastface.errors import FastfaceError
from fastface.images import read_image

JUDGED = CLASSES[1:]
INTENSITIES = (0.5, 1.0)
# The everyday smile (CONVENTIONS.md), the one to compare with photos of people who were asked to smile.
EVERYDAY = 0.6
NAN = float("nan")

Probabilities = dict[str, dict[str, float]]


class Judging(Protocol):
    """What the measurements need of `benchmarks.judges.Judges`."""

    def expression(self, rgb: Image, landmarks: metrics.Points) -> Probabilities:
        """Probabilities over CLASSES by each classifier."""

    def descriptor(self, rgb: Image, landmarks: metrics.Points) -> NDArray[np.float32]:
        """Identity descriptor; Euclidean distance."""


@dataclass(frozen=True)
class FrameFigures:
    """One rendered frame; NaN, and no probabilities, where no face was found in it.

    `lip_corner_travel` and `label_error_*` are per cent of the neutral photo's outer-eye distance.
    """

    expression: str
    intensity: float
    render_ms: float
    changed_share: float
    changed_outside_mask: int | None
    probabilities: Probabilities = field(default_factory=dict)
    identity_distance: float = NAN
    lip_corner_travel: float = NAN
    label_error_mean: float = NAN
    label_error_p95: float = NAN


@dataclass(frozen=True)
class SmileFigures:
    """The person's real smile, and how the everyday synthesised one compares with it."""

    probabilities: Probabilities
    identity_distance: float
    travel_real: float
    travel_everyday: float
    correlation_face: float
    correlation_mouth: float
    field_real: list[list[float]] = field(repr=False)


@dataclass
class PersonFigures:
    """All figures of one person; `failure`: why there are none; `undetected`: frames that show no face."""

    id: str
    failure: str = ""
    undetected: list[str] = field(default_factory=list)
    fit: metrics.ErrorSummary | None = None
    fit_before_warp: metrics.ErrorSummary | None = None
    neutral_identical: bool = False
    resting: Probabilities = field(default_factory=dict)
    frames: list[FrameFigures] = field(default_factory=list)
    smile: SmileFigures | None = None


@dataclass(frozen=True)
class Bench:
    """What measuring needs; one for a whole run."""

    engine: RenderingEngine
    detector: Detector
    judges: Judging


@dataclass(frozen=True)
class Subject:
    """A fitted person and what is known of the neutral photo before anything is rendered."""

    face: Any
    photo: Image
    landmarks: NDArray[np.float64]
    descriptor: NDArray[np.float32]
    eye_distance_px: float


def measure_person(bench: Bench, portrait: Portrait, expressions: Sequence[str]) -> PersonFigures:
    """Fit, render and judge one person. A `FastfaceError` of the fit becomes the person's `failure`."""
    person = PersonFigures(portrait.id)
    try:
        subject = fit_subject(bench, portrait)
    except FastfaceError as error:
        person.failure = f"{type(error).__name__}: {error}"
        return person
    person.fit, person.fit_before_warp = fit_errors(bench.engine, subject)
    resting = bench.engine.render(subject.face, Affect.neutral())
    person.neutral_identical = bool(np.array_equal(resting, subject.photo))
    person.resting = bench.judges.expression(subject.photo, subject.landmarks)
    wanted = [(expression, intensity) for expression in expressions for intensity in INTENSITIES]
    if "happy" in expressions:
        wanted.append(("happy", EVERYDAY))
    for expression, intensity in wanted:
        figures, landmarks = measure_frame(bench, subject, expression, intensity)
        person.frames.append(figures)
        if landmarks is None:
            person.undetected.append(f"{expression} {intensity:g}")
        elif intensity == EVERYDAY and portrait.smiling is not None:
            person.smile = measure_smile(bench, subject, portrait.smiling, landmarks)
    return person


def fit_subject(bench: Bench, portrait: Portrait) -> Subject:
    """The portrait fitted; FastfaceError when the engine or the detector finds nobody in it."""
    face = bench.engine.fit(portrait.neutral)
    photo = np.asarray(face.photo, np.uint8)
    landmarks = detect_landmarks(bench.detector, photo)
    if landmarks is None:
        raise FastfaceError("no face detected in the photo that the engine fitted")
    distance = metrics.outer_eye_distance_px(landmarks)
    return Subject(face, photo, landmarks, bench.judges.descriptor(photo, landmarks), distance)


def fit_errors(
    engine: RenderingEngine, subject: Subject
) -> tuple[metrics.ErrorSummary, metrics.ErrorSummary | None]:
    """Landmark error of the fit after and, where the face object tells it, before the residual warp.

    `fit_error_px` and `fit_error_unwarped_px` (478,) are the face's own; without the first the neutral labels
    are compared with the landmarks the fit was made from.
    """
    own = getattr(subject.face, "fit_error_px", None)
    if own is None:
        claimed = engine.labels(subject.face, Affect.neutral()).landmarks478_px
        own = np.linalg.norm(claimed - subject.face.landmarks_px, axis=1)
    before = getattr(subject.face, "fit_error_unwarped_px", None)
    after = metrics.summarise_errors(np.asarray(own), subject.eye_distance_px)
    if before is None:
        return after, None
    return after, metrics.summarise_errors(np.asarray(before), subject.eye_distance_px)


def measure_frame(
    bench: Bench, subject: Subject, expression: str, intensity: float
) -> tuple[FrameFigures, NDArray[np.float64] | None]:
    """One rendered frame judged, and the landmarks (478, 3) detected in it."""
    affect = Affect.expression(expression, intensity)
    start = time.perf_counter()
    frame = bench.engine.render(subject.face, affect)
    render_ms = (time.perf_counter() - start) * 1e3
    changed = metrics.changed_share(subject.photo, frame)
    outside = changed_outside_mask(bench.engine, subject, affect, frame)
    found = detect_landmarks(bench.detector, frame)
    if found is None:
        return FrameFigures(expression, intensity, render_ms, changed, outside), None
    claimed = np.asarray(bench.engine.labels(subject.face, affect).landmarks478_px, np.float64)
    label_errors = np.linalg.norm(claimed - found[:, :2], axis=1)
    labels = metrics.summarise_errors(label_errors, subject.eye_distance_px)
    displacement = metrics.displacement_percent(subject.landmarks, found)
    figures = FrameFigures(
        expression,
        intensity,
        render_ms,
        changed,
        outside,
        bench.judges.expression(frame, found),
        _distance(bench.judges.descriptor(frame, found), subject.descriptor),
        metrics.lip_corner_travel(displacement),
        labels.mean,
        labels.p95,
    )
    return figures, found


def changed_outside_mask(
    engine: RenderingEngine, subject: Subject, affect: Affect, frame: Image
) -> int | None:
    """Changed pixels outside the engine's own mask; None when the engine shows none."""
    mask = getattr(engine, "mask", None)
    if mask is None:
        return None
    return metrics.changed_outside(subject.photo, frame, np.asarray(mask(subject.face, affect)) > 0)


def measure_smile(
    bench: Bench, subject: Subject, smiling: Path, everyday: NDArray[np.float64]
) -> SmileFigures | None:
    """The real smile against the landmarks of the everyday one; None when no face is found in the photo."""
    photo = read_image(smiling)
    real = detect_landmarks(bench.detector, photo)
    if real is None:
        return None
    field_real = metrics.displacement_percent(subject.landmarks, real)
    field_made = metrics.displacement_percent(subject.landmarks, everyday)
    return SmileFigures(
        bench.judges.expression(photo, real),
        _distance(bench.judges.descriptor(photo, real), subject.descriptor),
        metrics.lip_corner_travel(field_real),
        metrics.lip_corner_travel(field_made),
        metrics.field_correlation(field_made, field_real),
        metrics.field_correlation(field_made, field_real, metrics.MOUTH_AND_CHEEKS),
        np.round(field_real, 3).tolist(),
    )


def _distance(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    return float(np.linalg.norm(a - b))
