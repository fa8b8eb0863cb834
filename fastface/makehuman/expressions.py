"""The 52 ARKit expressions as displacement fields of the model."""

from __future__ import annotations

import numpy as np

from fastface.makehuman.linear_map import LinearMap
from fastface.makehuman.sources import Floats, Ints, MakeHumanWheel
from fastface.morphable import ARKIT_NAMES


def expression_fields(wheel: MakeHumanWheel, carry: LinearMap, mirror: Ints) -> Floats:
    """Displacements (52, V, 3), in the order of ``ARKIT_NAMES``, left-right pairs exact mirror images."""
    fields = {name: carry(wheel.face_unit(name)) for name in ARKIT_NAMES}
    done = {}
    for name, field in fields.items():
        twin = fields[opposite(name)]
        done[name] = 0.5 * (field + twin[mirror] * [-1.0, 1.0, 1.0])
    return np.stack([done[name] for name in ARKIT_NAMES])


def opposite(name: str) -> str:
    """The expression's name on the other side; its own for one of the middle."""
    for side, other in (("Left", "Right"), ("Right", "Left")):
        if name.endswith(side):
            return name.removesuffix(side) + other
    return name
