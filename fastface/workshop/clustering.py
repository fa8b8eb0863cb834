"""Ward's agglomerative clustering of many weighted points in the plane.

J. H. Ward, "Hierarchical Grouping to Optimize an Objective Function", JASA 58 (1963): at each step the two
clusters are merged whose union adds least to the sum of squares within,

    cost(A, B) = |A| |B| / (|A| + |B|) · ‖mean(A) - mean(B)‖².

Annotations repeat: equal points merge at no cost, so they are merged beforehand and weighted, which changes
nothing. The rest is merged along chains of nearest neighbours (J.-P. Benzécri, 1982; F. Murtagh, "A survey of
recent advances in hierarchical clustering algorithms", 1983), which for Ward's cost gives the same hierarchy
as the greedy order, with no matrix of distances: memory grows with the number of points, not with its square.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fastface.errors import BadArgument

#: Distinct points that are clustered in minutes; more are first put on a finer and finer common grid.
MOST_POINTS: Final = 60_000


def ward_classes(
    points: NDArray[Any], classes: int, *, step: float = 0.0
) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
    """``points (N, 2)`` → the class of each ``(N,)``, numbered by angle then radius, and the class means
    ``(classes, 2)``.

    ``step``: coordinates are first rounded to multiples of it (the resolution of the annotation); 0 keeps
    them. Raises ``BadArgument`` when there are fewer distinct points than classes, or more than
    ``MOST_POINTS``.
    """
    points = np.asarray(points, np.float64)
    if points.ndim != 2 or points.shape[1] != 2 or not np.isfinite(points).all():
        raise BadArgument(f"clustering wants finite points (N, 2), got {points.shape} {points.dtype}")
    placed = np.round(points / step) * step if step > 0 else points
    distinct, which, counts = np.unique(placed, axis=0, return_inverse=True, return_counts=True)
    if not 1 <= classes <= len(distinct):
        raise BadArgument(f"wanted {classes} classes, but there are {len(distinct)} distinct points")
    if len(distinct) > MOST_POINTS:
        raise BadArgument(
            f"{len(distinct):,} distinct points, at most {MOST_POINTS:,} can be clustered: round them more, "
            f"to steps above {step:g}"
        )
    label = _cut(_merges(distinct, counts.astype(np.float64)), len(distinct), classes)[which.ravel()]
    return _in_order(label, points, classes)


def _merges(points: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """(M - 1, 3): representatives of the two clusters that were merged and the cost, in chain order."""
    mean, weight = points.copy(), weights.copy()
    alive = np.ones(len(points), bool)
    merged = np.empty((len(points) - 1, 3))
    chain: list[int] = []
    active = np.arange(len(points))
    for step in range(len(merged)):
        if step % 256 == 0:  # the dead are swept out now and then
            active = active[alive[active]]
        if not chain:
            chain.append(int(active[np.argmax(alive[active])]))
        while True:
            a = chain[-1]
            towards = mean[active] - mean[a]
            other = weight[active]
            cost = other * weight[a] / (other + weight[a]) * (towards * towards).sum(1)
            cost[~alive[active]] = np.inf
            cost[active == a] = np.inf
            b = int(active[np.argmin(cost)])
            least = float(cost.min())
            if len(chain) > 1 and _cost(mean, weight, a, chain[-2]) <= least:
                b, least = chain[-2], _cost(mean, weight, a, chain[-2])
                chain = chain[:-2]
                break
            chain.append(b)
        total = weight[a] + weight[b]
        mean[a] = (weight[a] * mean[a] + weight[b] * mean[b]) / total
        weight[a] = total
        alive[b] = False
        merged[step] = a, b, least
    return merged


def _cost(mean: NDArray[np.float64], weight: NDArray[np.float64], a: int, b: int) -> float:
    apart = mean[b] - mean[a]
    return float(weight[b] * weight[a] / (weight[b] + weight[a]) * (apart * apart).sum())


def _cut(merges: NDArray[np.float64], count: int, classes: int) -> NDArray[np.int64]:
    """The partition into ``classes``: all merges but the dearest, by cost."""
    parent = np.arange(count)
    cheapest = np.argsort(merges[:, 2], kind="stable")[: count - classes]
    # In chain order, so that a representative is merged before it is merged away.
    for a, b in merges[np.sort(cheapest), :2].astype(np.int64):
        parent[_root(parent, int(b))] = _root(parent, int(a))
    return np.array([_root(parent, index) for index in range(count)])


def _root(parent: NDArray[np.int64], index: int) -> int:
    while parent[index] != index:
        parent[index] = parent[parent[index]]
        index = int(parent[index])
    return index


def _in_order(
    label: NDArray[np.int64], points: NDArray[np.float64], classes: int
) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
    _, label = np.unique(label, return_inverse=True)
    label = label.ravel()
    sums = np.stack([np.bincount(label, points[:, axis], classes) for axis in (0, 1)], axis=1)
    means = sums / np.bincount(label, minlength=classes)[:, None]
    angle, radius = np.arctan2(means[:, 1], means[:, 0]), np.hypot(means[:, 0], means[:, 1])
    order = np.lexsort((radius, angle))
    place = np.empty(classes, np.int32)
    place[order] = np.arange(classes)
    return place[label], means[order]
