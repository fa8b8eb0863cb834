"""Between FACS action units and ARKit-named shapes, both ways, on whole batches.

A batch of action units is two arrays (N, U), the subject's left and right half of the face, in the order of
``AU_NAMES``; a batch of shapes is one array (N, 52) in the order of ``affect_tables.SHAPES``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fastface.affect_tables import (
    ACTION_UNITS,
    HEAD_UNITS,
    ONE_SIDED_UNITS,
    PRIMARY_SHAPE,
    SHAPES,
    SIDED_SHAPES,
)

Array = NDArray[np.float64]

#: The units of the face, then those of the head: the columns of a batch.
AU_NAMES: Final[tuple[str, ...]] = (*ACTION_UNITS, *HEAD_UNITS)
#: Every spelling of a unit: both sides or one; the head has no sides, a wink has but one.
AU_COLUMNS: Final = (
    *(name + side for name in ACTION_UNITS for side in ("", "L", "R") if side or name not in ONE_SIDED_UNITS),
    *HEAD_UNITS,
)
SHAPE_INDEX: Final[dict[str, int]] = {shape: index for index, shape in enumerate(SHAPES)}
_AU_INDEX: Final[dict[str, int]] = {name: index for index, name in enumerate(AU_NAMES)}

#: Jaw opening at which the lips part by themselves, so that AU25 has nothing left to do.
_JAW_PARTS_LIPS: Final = 0.3
_LIPS_PART: Final = ACTION_UNITS["AU25"][1]["mouthLowerDown"]
_JAW_DROP: Final = ACTION_UNITS["AU26"][1]["jawOpen"]
_GAZE: Final = {
    "AU61": ("eyeLookOutLeft", "eyeLookInRight"),
    "AU62": ("eyeLookInLeft", "eyeLookOutRight"),
}
#: The units with a shape of their own, and for each half of the face the columns of those shapes and of the
#: lower lip.
_READ_UNITS: Final = [_AU_INDEX[name] for name in PRIMARY_SHAPE]
_READ_SIDES: Final = [
    (
        [SHAPE_INDEX[shape + side if shape in SIDED_SHAPES else shape] for shape in PRIMARY_SHAPE.values()],
        SHAPE_INDEX["mouthLowerDown" + side],
    )
    for side in ("Left", "Right")
]
#: Below this an action unit counts as absent; well under FACS' faintest level, A = 1/5.
ABSENT_BELOW: Final = 1e-3
#: Halves that differ by less than this share of the stronger one are called alike: nobody sees it.
ONE_SIDED_ABOVE: Final = 0.08


def spread(weights: dict[str, float]) -> Array:
    """(52,) from a table row; a sided shape without its side fills both sides."""
    vector = np.zeros(len(SHAPES))
    for shape, weight in weights.items():
        for full in (shape + "Left", shape + "Right") if shape in SIDED_SHAPES else (shape,):
            vector[SHAPE_INDEX[full]] = weight
    return vector


def shapes_of_action_units(left: Array, right: Array) -> Array:
    """What action units look like: (N, U) left and right in [0, 1] → (N, 52) shapes in [0, 1].

    Each shape takes the largest demand of any unit; a shape of the whole face takes the mean of both halves,
    the jaw's way aside their difference. The head's units move no shape (``head_pose``).
    """
    middle = (left + right) / 2
    shapes = np.zeros((len(left), len(SHAPES)))
    jaw = np.maximum(_JAW_DROP * middle[:, _AU_INDEX["AU26"]], middle[:, _AU_INDEX["AU27"]])
    lips_left_to_part = np.clip(1 - jaw / _JAW_PARTS_LIPS, 0, 1)
    for name, (_, weights) in ACTION_UNITS.items():
        unit = _AU_INDEX[name]
        if name == "AU30":
            aside = left[:, unit] - right[:, unit]
            shapes[:, SHAPE_INDEX["jawLeft"]] = np.maximum(aside, 0)
            shapes[:, SHAPE_INDEX["jawRight"]] = np.maximum(-aside, 0)
            continue
        free = lips_left_to_part if name == "AU25" else 1.0
        for shape, weight in weights.items():
            sides = (("Left", left), ("Right", right)) if shape in SIDED_SHAPES else (("", middle),)
            for side, half in sides:
                column = shapes[:, SHAPE_INDEX[shape + side]]
                np.maximum(column, weight * free * half[:, unit], out=column)
    return shapes


def read_action_units(shapes: Array) -> tuple[Array, Array]:
    """Which action units a face shows: (N, 52) shapes → (N, U) left and right, clipped to [0, 1]."""
    jaw_open = shapes[:, SHAPE_INDEX["jawOpen"]]
    lips_by_jaw = (jaw_open - shapes[:, SHAPE_INDEX["mouthClose"]]) / _JAW_PARTS_LIPS
    rolled = np.minimum(shapes[:, SHAPE_INDEX["mouthRollLower"]], shapes[:, SHAPE_INDEX["mouthRollUpper"]])
    gaze = {
        name: np.minimum(*(shapes[:, SHAPE_INDEX[shape]] for shape in pair)) for name, pair in _GAZE.items()
    }
    aside = shapes[:, SHAPE_INDEX["jawLeft"]] - shapes[:, SHAPE_INDEX["jawRight"]]
    halves = []
    for (columns, lower_lip), sign in zip(_READ_SIDES, (1, -1), strict=True):
        half = np.zeros((len(shapes), len(AU_NAMES)))
        half[:, _READ_UNITS] = shapes[:, columns]
        half[:, _AU_INDEX["AU25"]] = np.maximum(shapes[:, lower_lip] / _LIPS_PART, lips_by_jaw)
        half[:, _AU_INDEX["AU26"]] = jaw_open / _JAW_DROP
        half[:, _AU_INDEX["AU27"]] = (jaw_open - _JAW_DROP) / (1 - _JAW_DROP)
        half[:, _AU_INDEX["AU28"]] = rolled
        half[:, _AU_INDEX["AU30"]] = sign * aside
        for name, turned in gaze.items():
            half[:, _AU_INDEX[name]] = turned
        halves.append(np.clip(half, 0, 1, out=half))
    return halves[0], halves[1]


def name_action_units(left: Array, right: Array) -> dict[str, float]:
    """(U,) left and right → {"AU6": 0.4, "AU12R": 0.5}: only what shows, a side named only where the halves
    differ."""
    named: dict[str, float] = {}
    for index, name in enumerate(AU_NAMES):
        a, b = float(left[index]), float(right[index])
        if abs(a - b) < max(ABSENT_BELOW, ONE_SIDED_ABOVE * max(a, b)):
            if max(a, b) >= ABSENT_BELOW:
                named[name] = (a + b) / 2
            continue
        named.update({name + side: value for side, value in (("L", a), ("R", b)) if value >= ABSENT_BELOW})
    return named


def split_action_units(columns: Sequence[str], values: Array) -> tuple[Array, Array]:
    """The way back for a batch: checked names with optional L or R, (N, C) values → (N, U) left and right."""
    left = np.zeros((len(values), len(AU_NAMES)))
    right = np.zeros_like(left)
    for column, name in enumerate(columns):
        unit = _AU_INDEX[name.rstrip("LR")]
        if not name.endswith("R"):
            left[:, unit] = values[:, column]
        if not name.endswith("L"):
            right[:, unit] = values[:, column]
    return left, right


#: Of the FACS intensities 0 … 5 that pain is scored in.
_FACS_LEVELS: Final = 5.0
MOST_PAIN: Final = 16.0


def pspi(aus: Mapping[str, float]) -> float:
    """Prkachin and Solomon's pain intensity, 0 … 16: AU4 + max(AU6, AU7) + max(AU9, AU10) + AU43, the first
    three in FACS levels (5 at intensity 1), closed eyes 0 … 1; of both sides the stronger. K. M. Prkachin,
    P. E. Solomon, "The structure, reliability and validity of pain expression", Pain 139 (2008)."""

    def of(*units: str) -> float:
        return max(aus.get(unit + side, 0.0) for unit in units for side in ("", "L", "R"))

    return _FACS_LEVELS * (of("AU4") + of("AU6", "AU7") + of("AU9", "AU10")) + of("AU43", "AU45")


def units_in_pain(score: float) -> dict[str, float]:
    """Action units whose ``pspi`` is ``score`` in [0, 16]: all that it counts, equally strong."""
    return {unit: score / MOST_PAIN for unit in ("AU4", "AU6", "AU7", "AU9", "AU10", "AU43") if score > 0}
