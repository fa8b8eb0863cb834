"""Where a face is in the world: from landmarks to unit, turn and place."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from fastface.errors import BadModelFile
from fastface.importers.correspondence_map import similarity
from fastface.importers.laying import Pose, unit_of

Float64 = NDArray[np.float64]

_ROUNDS: Final = 10
_LEAST_SPREAD_MM: Final = 1.0
_LARGEST_MEDIAN_MM: Final = 9.0


def placed(points: Float64, targets: Float64, unit_mm: float | None, label: str) -> Pose:
    """The pose that takes landmarks ``points (L, 3)`` of a file's axes and unit to ``targets (L, 3)`` mm in
    head space; the size stays. ``unit_mm``: millimetres in the unit, told by the size if None.

    A chin that an open mouth lowers, or a landmark that is wrong, counts less: weights of Geman and McClure,
    reweighted. Raises ``BadModelFile`` when the landmarks are not those of a face of human size.
    """
    if np.ptp(points, axis=0).max() <= 0:
        raise BadModelFile(f"{label}: wanted landmarks of a face, these lie in one place")
    scale, rotation, translation = similarity(points, targets)
    for _ in range(_ROUNDS):
        away = np.linalg.norm(scale * points @ rotation.T + translation - targets, axis=1)
        spread = max(2 * float(np.median(away)), _LEAST_SPREAD_MM)
        weights = 1 / (1 + (away / spread) ** 2) ** 2
        scale, rotation, translation = similarity(points, targets, weights)
    median = float(np.median(away))
    if median > _LARGEST_MEDIAN_MM:
        raise BadModelFile(
            f"{label}: wanted landmarks of a face, these are {median:.0f} mm from one's in the median: are "
            "left and right mixed up, or their names or order?"
        )
    unit = unit_of(scale, unit_mm, label)
    middle = np.average(points, axis=0, weights=weights)
    return Pose(unit, rotation, np.average(targets, axis=0, weights=weights) - unit * rotation @ middle)
