"""Stimuli over time and as a set: onset, apex and offset of an expression, a path through the plane of
valence and arousal as a picture, and a row of the codebook of a set.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fastface.affect import Affect, AffectPath
from fastface.affect_csv import MAX_FPS, checked_number, minimum_jerk
from fastface.affect_tables import CIRCUMPLEX, EXPRESSIONS
from fastface.codebook import Columns
from fastface.errors import BadAffect

PHASES: Final = ("rest", "onset", "apex", "offset")

#: Of the codebook of a set.
CODEBOOK: Final[Columns] = {
    "image": ("string", "file name of the stimulus"),
    "photo": ("string", "file name of the photo it was made from"),
    "affect": ("string", "what was asked for"),
    "expression": ("string", "the basic expression that shows, or the nearest"),
    "intensity": ("float64", "of that expression, 0 … 1"),
    "valence": ("float64", "-1 … 1"),
    "arousal": ("float64", "-1 … 1"),
    "pain": ("float64", "Prkachin and Solomon's score, 0 … 16"),
    "aus": ("string", "FACS action units that show, as AU12=0.80 AU25=0.30"),
    "yaw_deg": ("float64", "turn of the head, positive to the subject's left"),
    "pitch_deg": ("float64", "positive up"),
    "roll_deg": ("float64", "positive to the subject's left shoulder"),
    "photo_sha256": ("string", "of the photo's pixels"),
    "model_sha256": ("string", "of the head model"),
    "affect_model_sha256": ("string", "of the affect model, which says what valence and arousal look like"),
    "engine_version": ("string", "the fastface that made it"),
}


@dataclass(frozen=True)
class Course:
    """Seconds of rest before, onset, apex, offset and rest after."""

    onset_s: float
    apex_s: float
    offset_s: float
    rest_s: float = 0.2

    def __post_init__(self) -> None:
        for name in ("onset_s", "apex_s", "offset_s", "rest_s"):
            checked_number(getattr(self, name), name, 0.0, 3600.0)
        if self.onset_s + self.apex_s + self.offset_s <= 0:
            raise BadAffect("a course needs an onset, an apex or an offset")

    def intensities(self, fps: float) -> tuple[NDArray[np.float64], list[str]]:
        """(N,) share of the affect in each frame, and each frame's phase; along ``minimum_jerk`` curves."""
        fps = checked_number(fps, "fps", 1e-3, MAX_FPS)
        ends = np.cumsum([self.rest_s, self.onset_s, self.apex_s, self.offset_s, self.rest_s])
        times = np.arange(int(np.floor(ends[-1] * fps + 1e-6)) + 1) / fps
        if len(times) > 1_000_000:
            raise BadAffect(f"a course has at most 1,000,000 frames, got {len(times):,}")
        up = minimum_jerk((times - ends[0]) / max(self.onset_s, 1e-9))
        down = minimum_jerk((times - ends[2]) / max(self.offset_s, 1e-9))
        part = np.searchsorted(ends, times + 1e-9, side="right")
        phases = [("rest", "onset", "apex", "offset", "rest", "rest")[index] for index in part]
        return np.clip(up - down, 0, 1), phases


def course_of(affect: Affect, course: Course, fps: float) -> tuple[AffectPath, list[str]]:
    """An affect that comes and goes: its path and each frame's phase, one of ``PHASES``."""
    shares, phases = course.intensities(fps)
    steps = [affect.scaled(float(share)) for share in shares]
    return AffectPath.from_points(steps, fps), phases


def path_csv(path: AffectPath, phases: Iterable[str] = ()) -> str:
    """A path as a table: time_s, the columns of its kind, and the phase of each frame if known."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    named = list(phases)
    writer.writerow(["time_s", *path.columns, *(["phase"] if named else [])])
    for index, (time_s, row) in enumerate(zip(path.times_s, path.values, strict=True)):
        phase = [named[index]] if named else []
        writer.writerow([f"{time_s:.6f}", *(f"{value:.6f}" for value in row), *phase])
    return stream.getvalue()


def path_svg(points: NDArray[Any], side_px: int = 480) -> str:
    """A path (N, 2) through the plane of valence and arousal as an SVG picture, from pale to dark."""
    points = np.asarray(points, np.float64)
    if points.ndim != 2 or points.shape[1] != 2 or not (np.abs(points) <= 1).all():
        raise BadAffect(f"a path to draw is (N, 2) valence and arousal within -1 … 1, got {points.shape}")
    margin = 24
    scale = side_px / 2 - margin

    def place(valence: float, arousal: float) -> tuple[float, float]:
        return side_px / 2 + scale * valence, side_px / 2 - scale * arousal

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{side_px}" height="{side_px}" '
        f'viewBox="0 0 {side_px} {side_px}" font-family="sans-serif" font-size="12">',
        f'<rect width="{side_px}" height="{side_px}" fill="#fafaf8"/>',
        f'<circle cx="{side_px / 2}" cy="{side_px / 2}" r="{scale}" fill="none" stroke="#ccc"/>',
        f'<path d="M{margin} {side_px / 2}H{side_px - margin}M{side_px / 2} {margin}V{side_px - margin}" '
        'stroke="#ccc"/>',
        f'<text x="{side_px - margin}" y="{side_px / 2 - 6}" text-anchor="end" fill="#888">valence</text>',
        f'<text x="{side_px / 2 + 6}" y="{margin + 4}" fill="#888">arousal</text>',
    ]
    for name in EXPRESSIONS:
        x, y = place(*CIRCUMPLEX[name])
        parts.append(f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="middle" fill="#b55">{name}</text>')
    for index, ((v0, a0), (v1, a1)) in enumerate(pairwise(points)):
        (x0, y0), (x1, y1) = place(v0, a0), place(v1, a1)
        shade = int(190 - 170 * index / max(len(points) - 2, 1))
        colour = f"rgb({shade},{shade},{min(shade + 40, 255)})"
        line = f'<line x1="{x0:.1f}" y1="{y0:.1f}" x2="{x1:.1f}" y2="{y1:.1f}"'
        parts.append(f'{line} stroke="{colour}" stroke-width="2" stroke-linecap="round"/>')
    return "\n".join([*parts, "</svg>\n"])


def codebook_row(record: Mapping[str, Any]) -> dict[str, Any]:
    """A row of the codebook from a stimulus's labels (``Labels.record``)."""
    row = {name: record.get(name) for name in CODEBOOK}
    row["aus"] = " ".join(f"{name}={value:.2f}" for name, value in dict(record.get("aus", {})).items())
    return row | {name: record["pose"][name] for name in ("yaw_deg", "pitch_deg", "roll_deg")}
