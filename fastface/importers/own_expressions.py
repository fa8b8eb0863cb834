"""Expressions that an imported model has under ARKit's names, read at the default head's vertices."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from fastface.importers.correspondence_map import Surface
from fastface.importers.published import Published, workshop
from fastface.morphable import MATERIALS

if TYPE_CHECKING:
    from fastface.importers.carrying import Placed, Pose, Reading, Template

Float32 = NDArray[np.float32]

_OPEN: Final = 0.6  # of jawOpen, at which the two lips are told apart
_INSIDE: Final = ("teeth", "gums", "tongue", "mouth_interior")
_FADE_MM: Final = 8.0  # behind the lips, within which the inside of the mouth follows their own motion
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
    nearest, share = _behind(placed.vertices, inside, lips)
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
        residual = out[row, nearest] - strength * carried[row, nearest]
        out[row, inside] = strength * carried[row, inside] + share[:, None] * residual
    return out


class _Softening:
    """Evens a field out along the skin where it was continued, and over the lips, which are read from two
    meshes whose slits do not lie alike.
    """

    def __init__(self, home: Template, rows: NDArray[np.int64]) -> None:
        sparse = workshop("scipy.sparse")
        faces = home.model.triangles[home.model.material_triangles("skin", "lips", "eyelids")]
        one, two = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]).T
        count = len(home.vertices)
        links = sparse.coo_matrix((np.ones(len(one), np.float32), (one, two)), shape=(count, count)).tocsr()
        links = ((links + links.T) > 0).astype(np.float32)
        degree = np.maximum(np.asarray(links.sum(axis=1)).ravel(), 1)
        self._mean = (sparse.diags_array(1 / degree) @ links).tocsr()[rows]
        self._rows = rows

    def __call__(self, field: Float32) -> Float32:
        """``field (V, 3)``, softened."""
        soft = field.copy()
        for _ in range(_SOFTENINGS):
            soft[self._rows] += 0.5 * (self._mean @ soft - soft[self._rows])
        return soft


def _behind(
    vertices: NDArray[np.float64], inside: NDArray[np.int64], lips: NDArray[np.int64]
) -> tuple[NDArray[np.int64], Float32]:
    """For each vertex of the mouth's inside the nearest one of the lips, and how far it follows that."""
    away = np.linalg.norm(vertices[inside][:, None] - vertices[lips][None], axis=2)
    share = np.exp(-0.5 * (away.min(axis=1) / _FADE_MM) ** 2)
    return lips[away.argmin(axis=1)], share.astype(np.float32)
