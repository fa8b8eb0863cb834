"""Expressions that an imported model has under ARKit's names, read at the default head's vertices."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fastface.importers.correspondence_map import Surface
from fastface.importers.laying import Placed, Pose, Reading
from fastface.importers.published import Published, workshop
from fastface.importers.template import Template
from fastface.morphable import MATERIALS

Float32 = NDArray[np.float32]

_OPEN: Final = 0.6  # of jawOpen, at which the two lips are told apart
_INSIDE: Final = ("teeth", "gums", "tongue", "mouth_interior")
_STEPS_INWARDS: Final = 30
_DECAY: Final = 0.9  # a step
_LARGEST_SHARE: Final = 2.0
_SOFTENINGS: Final = 4


def with_own(
    home: Template, reading: Reading, placed: Placed, pose: Pose, face: Published, carried: Float32
) -> Float32:
    """``carried (E, V, 3)`` with the authors' motion of the skin where ``face`` has a shape of that name. The
    inside of the mouth moves as carried, by as much as the lips and chin do, and follows the lips close to
    them; eyeballs turn as carried.
    """
    names = home.model.expression_names
    own = {name: pose.shifts(shape) for name, shape in face.expressions.items() if name in names}
    if "jawOpen" in own:
        jaw = _OPEN * own["jawOpen"].astype(np.float64)
        opened = Surface(reading.surface.vertices + jaw, reading.surface.triangles)
        reading = reading.posed(_OPEN * carried[names.index("jawOpen")], opened)
    out = carried.copy()
    rows = reading.rows
    rest = np.setdiff1d(home.outer, rows)
    inside = np.unique(home.model.triangles[home.model.material_triangles(*_INSIDE)]).astype(np.int64)
    inside = np.setdiff1d(inside, home.outer)
    lips = np.unique(home.model.triangles[home.model.materials == MATERIALS.index("lips")]).astype(np.int64)
    soft = _Softening(home, np.union1d(lips, rest))
    lining = _Lining(home, inside)
    for name, shape in own.items():
        row = names.index(name)
        read = reading.at(shape[None])
        out[row, rows] = read[0]
        out[row, rest] = reading.continued(read, rest)[0]
        out[row] = soft(out[row])
        before, after = carried[row, lips], out[row, lips]
        power = float((before**2).sum())
        strength = float((before * after).sum()) / power if power > 1e-6 else 0.0
        strength = min(max(strength, 0.0), _LARGEST_SHARE)
        out[row, inside] = strength * carried[row, inside]
        out[row] += lining(out[row] - strength * carried[row])
    return out


def _neighbours(home: Template, materials: tuple[str, ...], rows: NDArray[np.int64]) -> Any:
    """Sparse (len(rows), V): the mean over each row's neighbours in the mesh of these materials."""
    sparse = workshop("scipy.sparse")
    faces = home.model.triangles[home.model.material_triangles(*materials)]
    one, two = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]).T
    count = len(home.vertices)
    links = sparse.coo_matrix((np.ones(len(one), np.float32), (one, two)), shape=(count, count)).tocsr()
    links = ((links + links.T) > 0).astype(np.float32)
    degree = np.maximum(np.asarray(links.sum(axis=1)).ravel(), 1)
    return (sparse.diags_array(1 / degree) @ links).tocsr()[rows]


class _Softening:
    """Evens a field out along the skin where it was continued, and over the lips, which are read from two
    meshes whose slits do not lie alike.
    """

    def __init__(self, home: Template, rows: NDArray[np.int64]) -> None:
        self._mean, self._rows = _neighbours(home, ("skin", "lips", "eyelids"), rows), rows

    def __call__(self, field: Float32) -> Float32:
        """``field (V, 3)``, softened."""
        soft = field.copy()
        for _ in range(_SOFTENINGS):
            soft[self._rows] += 0.5 * (self._mean @ soft - soft[self._rows])
        return soft


class _Lining:
    """Takes what the lips do on their own into the mouth's lining behind each, along the mesh, so that the
    lining of one lip never follows the other; it dies away inwards.
    """

    def __init__(self, home: Template, inside: NDArray[np.int64]) -> None:
        lining = np.unique(home.model.triangles[home.model.material_triangles("mouth_interior")])
        self._rows = np.intersect1d(lining, inside).astype(np.int64)
        self._mean = _neighbours(home, ("lips", "mouth_interior"), self._rows)

    def __call__(self, residual: Float32) -> Float32:
        """``residual (V, 3)``, of which the lips' is read; (V, 3) of the lining, zero elsewhere."""
        field = residual.copy()
        field[self._rows] = 0
        for _ in range(_STEPS_INWARDS):
            field[self._rows] = _DECAY * (self._mean @ field)
        taken = np.zeros_like(field)
        taken[self._rows] = field[self._rows]
        return taken
