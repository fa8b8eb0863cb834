"""Where the expressions lie on the circumplex of valence and arousal, and what lies between them.

The generative assumption of ``sampling``: published positions of the expressions (``affect_tables``), joined
smoothly. What a face shows at a point of the plane is then learned from the sampled gallery.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fastface.affect_tables import CIRCUMPLEX, EXPRESSIONS, SUPPORTS

Array = NDArray[Any]

POINTS: Final = (*EXPRESSIONS, *SUPPORTS)
POINT_VA: Final[Array] = np.array([CIRCUMPLEX[name] for name in POINTS])
#: The points by angle: their indices, angles in [0, 2 pi) and radii.
_RING: Final = np.argsort(np.arctan2(POINT_VA[:, 1], POINT_VA[:, 0]) % (2 * np.pi))
_RING_ANGLE: Final[Array] = np.arctan2(POINT_VA[_RING, 1], POINT_VA[_RING, 0]) % (2 * np.pi)
_RING_RADIUS: Final[Array] = np.hypot(POINT_VA[_RING, 0], POINT_VA[_RING, 1])
_EASED_BELOW: Final = 0.2


def circumplex_weights(valence: Array, arousal: Array) -> Array:
    """Valence and arousal (N,) → how much of each point of the circumplex (N, P), order ``EXPRESSIONS +
    SUPPORTS``.

    In polar form: the angle chooses between its two neighbours on the circle (a smoothstep, so the map is
    smooth in the angle), the radius over the radius of the blend of those neighbours is the intensity, at
    most 1. Neutral at the origin, exactly one expression on the ray through its published position, smooth
    up to the rim of the circumplex; a path through the origin starts and ends there without a jerk.
    """
    turn = 2 * np.pi
    angle = np.arctan2(arousal, valence) % turn
    upper = np.searchsorted(_RING_ANGLE, angle, side="right") % len(_RING)
    lower = upper - 1  # -1 is the last one, which is right
    gap = (_RING_ANGLE[upper] - _RING_ANGLE[lower]) % turn
    t = np.minimum((angle - _RING_ANGLE[lower]) % turn / gap, 1)
    t = t * t * (3 - 2 * t)
    reach = (1 - t) * _RING_RADIUS[lower] + t * _RING_RADIUS[upper]
    intensity = _eased(np.minimum(np.hypot(valence, arousal) / reach, 1.0))
    rows = np.arange(len(angle))
    weights = np.zeros((len(angle), len(_RING)))
    weights[rows, _RING[lower]] = intensity * (1 - t)
    weights[rows, _RING[upper]] = intensity * t
    return weights


def _eased(intensity: Array) -> Array:
    """The identity from 0.2 up; below, the cubic 2 t² - t³ that leaves zero flat and joins it smoothly."""
    t = np.minimum(intensity / _EASED_BELOW, 1)
    return np.where(t < 1, _EASED_BELOW * t * t * (2 - t), intensity)
