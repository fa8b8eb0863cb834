"""Shape models from registered meshes: generalised Procrustes alignment, then principal components.

Kollias et al., IJCV 2020, section 3.4; J. C. Gower, "Generalized Procrustes analysis", Psychometrika 40
(1975). Size is kept unless asked otherwise: it is part of a face in millimetres.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fastface.errors import BadArgument
from fastface.importers.correspondence_map import similarity
from fastface.morphable import HeadModel

Array = NDArray[np.float64]
_ROUNDS: Final = 20
_STILL_MM: Final = 1e-4


@dataclass(frozen=True)
class ShapeModel:
    """``mean (V, 3)`` mm, ``modes (K, V, 3)`` mm at one standard deviation, ``explained (K,)`` share of the
    variance that each explains."""

    mean: Array
    modes: Array
    explained: Array


def mirrored(meshes: NDArray[Any], head: HeadModel) -> NDArray[Any]:
    """``meshes (N, V, 3)`` of the head's topology and after them their mirror images: (2 N, V, 3).

    Raises ``BadArgument`` when the head does not say which vertex lies opposite which.
    """
    if len(head.mirror) != meshes.shape[1]:
        raise BadArgument(f"{head.name}: does not say which of {meshes.shape[1]} vertices lie opposite")
    return np.concatenate([meshes, meshes[:, head.mirror] * np.array([-1, 1, 1], meshes.dtype)])


def aligned(meshes: NDArray[Any], rigid_on: NDArray[Any] | None = None, *, same_size: bool = False) -> Array:
    """``meshes (N, V, 3)``, turned and moved on to their common mean; ``rigid_on``: vertices that decide, all
    if None. ``same_size``: scaled too, to their mean centroid size (Dryden & Mardia, "Statistical
    Shape Analysis", 1998). Raises ``BadArgument``."""
    placed = np.array(meshes, np.float64)
    if placed.ndim != 3 or placed.shape[2] != 3 or min(placed.shape[:2]) < 1 or not np.isfinite(placed).all():
        raise BadArgument(f"alignment wants finite meshes (N, V, 3), got {np.shape(meshes)}")
    on = np.arange(placed.shape[1]) if rigid_on is None else np.asarray(rigid_on)
    placed -= placed[:, on].mean(axis=1, keepdims=True)
    size = np.linalg.norm(placed[:, on], axis=(1, 2))
    if not (size > 0).all():
        raise BadArgument("alignment wants meshes of some size, got one that is a point")
    if same_size:
        placed *= (size.mean() / size)[:, None, None]
    mean = placed[0]
    for _ in range(_ROUNDS):
        for mesh in placed:
            mesh[:] = mesh @ rotation_on_to(mesh[on], mean[on]).T
        before, mean = mean, placed.mean(axis=0)
        if np.abs(mean - before).max() < _STILL_MM:
            break
    return placed


def rotation_on_to(points: Array, target: Array) -> Array:
    """(3, 3) that turns centred ``points (N, 3)`` on to ``target (N, 3)`` with the least squares; never a
    mirror image."""
    _, turn, _ = similarity(points, target)
    return turn


def shape_model(meshes: NDArray[Any], variance: float = 0.995) -> ShapeModel:
    """Principal components of aligned ``meshes (N, V, 3)``: as few as explain ``variance`` of what varies.

    Raises ``BadArgument`` when fewer than two meshes are given, or they are all the same.
    """
    flat = np.asarray(meshes, np.float64).reshape(len(meshes), -1)
    if len(flat) < 2 or not 0 < variance <= 1:
        raise BadArgument(f"a model wants two meshes and a variance in 0 … 1, got {len(flat)}, {variance:g}")
    mean = flat.mean(axis=0)
    centred = flat - mean
    strength, directions = np.linalg.eigh(centred @ centred.T)  # N is much smaller than 3 V
    strength, directions = np.maximum(strength[::-1], 0), directions[:, ::-1]
    if strength[0] <= 1e-12 * max(float((flat**2).sum()), 1e-12):
        raise BadArgument("the meshes are all the same")
    share = strength / strength.sum()
    count = min(int(np.searchsorted(np.cumsum(share), variance - 1e-12)) + 1, len(flat) - 1)
    modes = (directions[:, :count].T @ centred) / np.sqrt(len(flat) - 1)
    shape = (-1, flat.shape[1] // 3, 3)
    return ShapeModel(mean.reshape(shape[1:]), modes.reshape(shape), share[:count])


def between_the_eyes(head: HeadModel, vertices: Array) -> Array:
    """(3,) between the eyeballs' centres, where head space begins (CONVENTIONS.md); between all vertices of a
    head without eyes."""
    eyes = np.unique(head.triangles[head.material_triangles("eyeballs")])
    sides = [vertices[eyes[side]] for side in (head.vertices[eyes, 0] > 0, head.vertices[eyes, 0] < 0)]
    if not all(map(len, sides)):
        return np.asarray(vertices.mean(axis=0), np.float64)
    low, high = (np.mean([limit(side, axis=0) for side in sides], axis=0) for limit in (np.min, np.max))
    return np.asarray((low + high) / 2, np.float64)


def head_model(template: HeadModel, model: ShapeModel, name: str, source: str, license: str) -> HeadModel:
    """The template with another mean and other identities; expressions, materials and landmarks stay.

    Raises ``BadArgument`` when the meshes are not of the template's topology.
    """
    if model.mean.shape != template.vertices.shape:
        raise BadArgument(
            f"the meshes have {len(model.mean)} vertices, the template {len(template.vertices)}"
        )
    target = template.vertices.astype(np.float64)
    middle = model.mean.mean(axis=0)
    turn = rotation_on_to(model.mean - middle, target - target.mean(axis=0))
    mean = (model.mean - middle) @ turn.T
    mean -= between_the_eyes(template, mean) - between_the_eyes(template, target)
    return replace(
        template,
        name=name,
        source=source,
        license=license,
        vertices=mean.astype(np.float32),
        identity=(model.modes @ turn.T).astype(np.float16),
    )
