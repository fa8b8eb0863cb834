"""Affect models from a gallery: classes by valence and arousal, their means and blendshape models.

Kollias et al., "Deep Neural Network Augmentation", IJCV 2020, sections 4.5.1 and 4.5.3. The gallery is read
in three passes, one shard at a time: annotations and each person's neutral face; class means; each class's
covariance (coefficients) or a sketch of it (vertices). Every face is taken relative to its person's own
neutral, so that who somebody is does not leak into what they show.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fastface.class_model import AffectClasses
from fastface.errors import BadArgument
from fastface.workshop.clustering import ward_classes
from fastface.workshop.gallery import Gallery, Rows

Array = NDArray[np.float64]
Progress = Callable[[str, int, int], None]

#: Rating steps of valence and arousal that are told apart when clustering.
STEP: Final = 0.01
_RING: Final = 96  # directions in which the outermost classes are repeated
_RING_RADIUS: Final = 3.0
_WIDE: Final = 512  # beyond so many numbers a face is sketched, not correlated
_SKETCH: Final = 16  # directions a sketch keeps while it reads


def build_classes(
    gallery: Gallery,
    classes: int = 550,
    *,
    modes: int = 3,
    step: float = STEP,
    subtract_neutral: bool = True,
    progress: Progress | None = None,
) -> AffectClasses:
    """Learn an affect model; ``modes``: length of each class's blendshape model.

    Raises ``BadArgument`` when the gallery has too few distinct annotations, or a person without a neutral
    face.
    """
    marks = gallery.annotations()
    va = np.stack([marks["valence"], marks["arousal"]], axis=1).astype(np.float64)
    label, centre = ward_classes(va, classes, step=step)
    counts = np.bincount(label, minlength=classes)
    told = _Telling(progress, len(gallery.shards))
    rest = neutral_faces(gallery, marks["subject"], told) if subtract_neutral else None
    means, expression_means = _means(gallery, label, counts, rest, told)
    own = _modes(gallery, label, counts, means, rest, modes, told)
    nodes, node_class, triangles = triangulated(centre)
    return AffectClasses(
        about=json.dumps({"gallery": dict(gallery.about), "faces": len(gallery), "step": step}),
        names=gallery.names,
        va=centre.astype(np.float32),
        counts=counts.astype(np.int32),
        means=means.astype(np.float32),
        modes=own.astype(np.float32),
        expressions=gallery.expressions,
        expression_means=expression_means.astype(np.float32),
        node_va=nodes.astype(np.float32),
        node_class=node_class,
        triangles=triangles,
    )


def neutral_faces(gallery: Gallery, subject: NDArray[np.int32], told: Any = None) -> Array:
    """(S, D) the mean of each person's faces at rest. Raises ``BadArgument`` when somebody has none."""
    people = int(subject.max()) + 1
    sums, counts = np.zeros((people, gallery.width)), np.zeros(people)
    for rows in gallery:
        at_rest = rows.neutral > 0
        np.add.at(sums, rows.subject[at_rest], rows.values[at_rest].astype(np.float64))
        counts += np.bincount(rows.subject[at_rest], minlength=people)
        if told:
            told("neutral faces")
    without = np.setdiff1d(np.unique(subject), np.flatnonzero(counts))
    if len(without):
        raise BadArgument(f"subject {without[0]} of the gallery ({len(without)} in all) has no neutral face")
    return sums / np.maximum(counts, 1)[:, None]


def deformations(rows: Rows, rest: Array | None) -> Array:
    """(N, D) what each face adds to its person's neutral one."""
    values = rows.values.astype(np.float64)
    return values if rest is None else values - rest[rows.subject]


def _means(
    gallery: Gallery, label: NDArray[np.int32], counts: NDArray[Any], rest: Array | None, told: Any
) -> tuple[Array, Array]:
    sums = np.zeros((len(counts), gallery.width))
    posed = np.zeros((len(gallery.expressions), gallery.width))
    posed_counts = np.zeros(len(posed))
    start = 0
    for rows in gallery:
        added = deformations(rows, rest)
        _add_by(sums, label[start : start + len(rows)], added)
        start += len(rows)
        shows = rows.expression >= 0
        _add_by(posed, rows.expression[shows], added[shows])
        posed_counts += np.bincount(rows.expression[shows], minlength=len(posed))
        told("class means")
    return sums / counts[:, None], posed / np.maximum(posed_counts, 1)[:, None]


def _add_by(sums: Array, label: NDArray[Any], values: Array) -> None:
    """``sums[label] += values``, by sorting: many times quicker than ``np.add.at`` for wide rows."""
    if len(label) == 0:
        return
    order = np.argsort(label, kind="stable")
    groups, begin = np.unique(label[order], return_index=True)
    sums[groups] += np.add.reduceat(values[order], begin, axis=0)


def _modes(
    gallery: Gallery,
    label: NDArray[np.int32],
    counts: NDArray[Any],
    means: Array,
    rest: Array | None,
    modes: int,
    told: Any,
) -> Array:
    """(C, R, D): principal directions of each class, one standard deviation long."""
    sketch = _Sketches(len(counts), gallery.width, max(_SKETCH, 2 * modes))
    start = 0
    for rows in gallery:
        here = label[start : start + len(rows)]
        start += len(rows)
        sketch.add(here, deformations(rows, rest) - means[here])
        told("blendshape models")
    length = np.sqrt(np.maximum(counts - 1, 1))[:, None, None]
    return np.asarray(sketch.directions(modes) / length, np.float64)


class _Sketches:
    """A sketch of each class's rows that keeps their leading directions (Frequent Directions: E. Liberty,
    "Simple and Deterministic Matrix Sketching", KDD 2013), or, where rows are short, their exact scatter."""

    def __init__(self, classes: int, width: int, length: int) -> None:
        self._exact = width <= _WIDE
        self._length = length
        self._scatter = np.zeros((classes, width, width), np.float32) if self._exact else None
        self._rows: list[NDArray[np.float32]] = [np.zeros((0, width), np.float32) for _ in range(classes)]

    def add(self, label: NDArray[Any], values: Array) -> None:
        order = np.argsort(label, kind="stable")
        groups, begin = np.unique(label[order], return_index=True)
        for index, rows in zip(groups, np.split(values[order].astype(np.float32), begin[1:]), strict=True):
            if self._scatter is not None:
                self._scatter[index] += rows.T @ rows
                continue
            kept = np.concatenate([self._rows[index], rows])
            self._rows[index] = self._shrunk(kept) if len(kept) > 2 * self._length else kept

    def _shrunk(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        strength2, directions = _principal(rows)
        left = np.sqrt(np.maximum(strength2 - strength2[self._length], 0))[: self._length]
        return np.asarray(left[:, None] * directions[: self._length], np.float32)

    def directions(self, count: int) -> Array:
        """(C, count, D), each as long as the root of its sum of squares."""
        if self._scatter is not None:
            strength, vectors = np.linalg.eigh(self._scatter.astype(np.float64))
            best = vectors[:, :, ::-1][:, :, :count].transpose(0, 2, 1)
            return np.asarray(best * np.sqrt(np.maximum(strength[:, ::-1][:, :count], 0))[:, :, None])
        out = np.zeros((len(self._rows), count, self._rows[0].shape[1]))
        for target, rows in zip(out, self._rows, strict=True):
            if len(rows):
                strength2, vectors = _principal(rows)
                found = (np.sqrt(strength2)[:, None] * vectors)[:count]
                target[: len(found)] = found
        return out


def _principal(rows: NDArray[np.float32]) -> tuple[Array, Array]:
    """Squared singular values of few long rows, largest first, and their right singular vectors."""
    values, vectors = np.linalg.eigh((rows @ rows.T).astype(np.float64))
    values, vectors = np.maximum(values[::-1], 0), vectors[:, ::-1]
    directions = (vectors.T @ rows) / np.sqrt(np.maximum(values, 1e-20))[:, None]
    return values, np.asarray(directions * (values > 1e-12 * values[0])[:, None])


def triangulated(centre: Array) -> tuple[Array, NDArray[np.int32], NDArray[np.int32]]:
    """Class centres (C, 2) → nodes (M, 2), the class of each (-1: neutral, at the origin), triangles (T, 3)
    over them."""
    from scipy.spatial import Delaunay

    angle = np.arange(_RING) * (2 * np.pi / _RING)
    ring = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    outermost = (ring @ centre.T).argmax(axis=1)
    nodes = np.concatenate([centre, np.zeros((1, 2)), _RING_RADIUS * ring])
    node_class = np.concatenate([np.arange(len(centre)), [-1], outermost]).astype(np.int32)
    return nodes, node_class, Delaunay(nodes).simplices.astype(np.int32)


def identity_leak(gallery: Gallery, classes: AffectClasses, subtract_neutral: bool = True) -> float:
    """How much of the faces' variance within classes is told by whose face it is, 0 … 1 (eta squared)."""
    marks = gallery.annotations()
    rest = neutral_faces(gallery, marks["subject"]) if subtract_neutral else None
    people = int(marks["subject"].max()) + 1
    sums, counts, total = np.zeros((people, gallery.width)), np.zeros(people), 0.0
    for rows in gallery:
        at = classes.at(rows.valence, rows.arousal)
        left = deformations(rows, rest) - at
        _add_by(sums, rows.subject, left)
        counts += np.bincount(rows.subject, minlength=people)
        total += float((left**2).sum())
    centre = sums.sum(0) / counts.sum()
    between = float((counts[:, None] * (sums / np.maximum(counts, 1)[:, None] - centre) ** 2).sum())
    return between / max(total - float(counts.sum() * (centre**2).sum()), 1e-12)


class _Telling:
    """Progress over the passes."""

    def __init__(self, progress: Progress | None, shards: int) -> None:
        self._progress, self._shards, self._done = progress, shards, dict[str, int]()

    def __call__(self, stage: str) -> None:
        self._done[stage] = self._done.get(stage, 0) + 1
        if self._progress:
            self._progress(stage, self._done[stage], self._shards)
