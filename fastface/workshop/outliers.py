"""Which of many registered scans came out wrong.

Two tests, either is enough. Limits that no good registration of a face exceeds; and, from five scans on, the
distance from the others: of the logarithm of each measure the modified score 0.6745 (x - median) / MAD is
taken, and more than 3.5 is an outlier (Iglewicz & Hoaglin, "How to Detect and Handle Outliers", 1993). The
spread is never taken for less than ``_LEAST_SPREAD``, so that among scans that all came out alike none is
dropped for being 10 % worse.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np

LEAST_SCANS: Final = 5
LARGEST_SCORE: Final = 3.5
_LEAST_SPREAD: Final = 0.25  # of a logarithm, where 1 / 0.6745 MAD is one standard deviation


class Measure(NamedTuple):
    """``floor`` is added before the logarithm is taken: what is too little to matter. ``limit``: the most
    that a face may have; ``words`` say what it has."""

    floor: float
    limit: float
    words: str


MEASURES: Final = {
    "uncovered": Measure(0.1, 0.4, "of the face found no surface"),
    "median_mm": Measure(0.05, 1.5, "mm off the surface in the median"),
    "p95_mm": Measure(0.2, 4.0, "mm off the surface in the worst twentieth"),
    "landmark_mm": Measure(0.5, 8.0, "mm off the landmarks"),
    "distortion": Measure(0.1, 1.0, "distorted"),
}


@dataclass(frozen=True)
class Judged:
    """``scores``: how far each measure is from the other scans', in robust standard deviations, positive for
    worse; empty below five scans. ``reasons``: why it is an outlier; empty for one that is none."""

    scores: dict[str, float]
    reasons: list[str]


def judge(records: dict[str, dict[str, Any]]) -> dict[str, Judged]:
    """Judge the records of ``registration.register_scan``, by name."""
    names = list(records)
    values = {key: np.array([_value(records[name], key) for name in names]) for key in MEASURES}
    scores = {key: _scores(values[key], measure.floor) for key, measure in MEASURES.items()}
    judged = {}
    for row, name in enumerate(names):
        reasons = []
        for key, measure in MEASURES.items():
            value, score = float(values[key][row]), float(scores[key][row])
            shown, most = (
                f"{number:.0%}" if key == "uncovered" else f"{number:.2f}"
                for number in (value, measure.limit)
            )
            if not value <= measure.limit:
                reasons.append(f"{shown} {measure.words}, more than {most}")
            elif score > LARGEST_SCORE:
                reasons.append(f"{shown} {measure.words}, {score:.1f} deviations from the other scans")
        told = {key: round(float(scores[key][row]), 2) for key in MEASURES if len(names) >= LEAST_SCANS}
        judged[name] = Judged(told, reasons)
    return judged


def _value(record: dict[str, Any], key: str) -> float:
    value = record.get("covered" if key == "uncovered" else key)
    if not isinstance(value, int | float) or not math.isfinite(value):
        return math.inf  # nothing to measure is worse than anything
    return 1.0 - value if key == "uncovered" else float(value)


def _scores(values: np.ndarray[Any, np.dtype[np.float64]], floor: float) -> Any:
    if len(values) < LEAST_SCANS:
        return np.zeros(len(values))
    logs = np.log(np.minimum(values, 1e6) + floor)
    away = logs - np.median(logs)
    spread = max(float(np.median(np.abs(away))) / 0.6745, _LEAST_SPREAD)
    return away / spread
