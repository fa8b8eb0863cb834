"""Sparse localised components of a gallery of deformations.

T. Neumann et al., "Sparse Localized Deformation Components", ACM TOG 32(6), 2013, as used by Kollias et al.,
IJCV 2020, section 4.5.3, equation 5:

    min ‖X - W C‖² + Σ_k Σ_i Λ_ki ‖c_k^(i)‖₂   with either  max |W_k| = 1  or  max W_k = 1, W ≥ 0,

X (T, V, 3) deformations from neutral, C (K, V, 3) components, W (T, K) weights. Λ_ki is 0 close to the
component's centre and grows to the regularisation with the distance along the surface, so that components
stay local. Weights by coordinate descent, components by ADMM (S. Boyd et al., 2011), in turn; neither ever
forms the residual, so a sweep reads X once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from fastface.errors import BadArgument

Float32 = NDArray[np.float32]
Array = NDArray[np.float64]
Constraint = Literal["signed", "nonnegative"]

_ADMM_STEPS: Final = 10


@dataclass(frozen=True)
class Components:
    """``components (K, V, 3)`` mm, ``weights (T, K)``, ``centres (K,)`` vertices, ``energy`` by sweep."""

    components: Float32
    weights: Float32
    centres: NDArray[np.int64]
    energy: list[float]

    def reconstruction_error(self, deformations: NDArray[Any]) -> float:
        """Root mean square distance, mm, of the vertices of X from W C."""
        left = deformations.reshape(len(deformations), -1) - self.weights @ self.components.reshape(
            len(self.components), -1
        )
        return float(np.sqrt((left**2).sum() / (left.shape[0] * left.shape[1] / 3)))


def sparse_components(
    deformations: NDArray[Any],
    triangles: NDArray[Any],
    vertices: NDArray[Any],
    count: int,
    *,
    strength: float = 1.0,
    reach_mm: tuple[float, float] = (15.0, 60.0),
    constraint: Constraint = "signed",
    sweeps: int = 15,
    local: bool = True,
    progress: Callable[[int, int], None] | None = None,
) -> Components:
    """``deformations (T, V, 3)`` mm → ``count`` components on the mesh ``vertices (V, 3)``, ``triangles``.

    ``strength``: the regularisation, as a share of what makes the smallest component vanish at once (0.1 …
    10); ``reach_mm``: distances from the centre where it begins and is full. With ``local`` False the
    regularisation is the same everywhere: plain group-sparse components. Raises ``BadArgument``.
    """
    x = np.asarray(deformations, np.float32)
    if x.ndim != 3 or x.shape[2] != 3 or x.shape[1] != len(vertices) or not np.isfinite(x).all():
        raise BadArgument(f"components: wanted finite deformations (T, {len(vertices)}, 3), got {x.shape}")
    if not 1 <= count <= min(x.shape[0], x.shape[1]):
        raise BadArgument(f"components: wanted 1 … {min(x.shape[:2])} components, got {count}")
    if constraint not in ("signed", "nonnegative"):
        raise BadArgument(f"components: constraint must be signed or nonnegative, got {constraint!r:.40}")
    if not 0 < reach_mm[0] < reach_mm[1]:
        raise BadArgument(f"components: wanted 0 < near < far of the reach, got {reach_mm}")
    graph = _edges(np.asarray(vertices, np.float64), np.asarray(triangles))
    flat = x.reshape(len(x), -1)
    scale = float(np.sqrt((flat**2).sum() / len(x)))
    if scale == 0:
        raise BadArgument("components: nothing moves")
    weight, component, centre = _begin(flat, count, graph, reach_mm, constraint, local)
    penalty = np.float32(strength * scale * np.sqrt(len(x)) / 100)
    energy = []
    total = float((flat.astype(np.float64) ** 2).sum())
    for sweep in range(sweeps):
        _fit_weights(flat, component, weight, constraint)
        strengths = _strengths(component, graph, reach_mm, local) * penalty
        product = weight.T @ flat
        gram = weight.T @ weight
        _fit_components(product, gram, strengths, component)
        lengths = np.linalg.norm(component.reshape(count, -1, 3), axis=2)
        fit = total - 2 * float((product * component).sum()) + float(((gram @ component) * component).sum())
        energy.append(fit + float((strengths * lengths).sum()))
        if progress:
            progress(sweep + 1, sweeps)
    centre = np.linalg.norm(component.reshape(count, -1, 3), axis=2).argmax(axis=1)
    order = np.argsort(-np.square(component).sum(1) * np.square(weight).sum(0))
    return Components(
        component[order].reshape(count, -1, 3), weight[:, order], centre[order].astype(np.int64), energy
    )


def _edges(vertices: Array, triangles: NDArray[Any]) -> Any:
    from scipy.sparse import coo_matrix

    pairs = np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]])
    length = np.linalg.norm(vertices[pairs[:, 0]] - vertices[pairs[:, 1]], axis=1)
    shape = (len(vertices), len(vertices))
    keep = np.unique(np.sort(pairs, axis=1), axis=0, return_index=True)[1]
    return coo_matrix((np.maximum(length[keep], 1e-9), tuple(pairs[keep].T)), shape=shape).tocsr()


def _distance_mm(graph: Any, centres: NDArray[Any], far_mm: float) -> Array:
    """(K, V) along edges; infinite beyond ``far_mm``."""
    from scipy.sparse.csgraph import dijkstra

    return np.asarray(dijkstra(graph, directed=False, indices=centres, limit=far_mm * 1.01))


def _strengths(component: Float32, graph: Any, reach_mm: tuple[float, float], local: bool) -> Float32:
    """(K, V) 0 near each component's centre, 1 far from it."""
    lengths = np.linalg.norm(component.reshape(len(component), -1, 3), axis=2)
    if not local:
        return np.ones_like(lengths)
    near, far = reach_mm
    distance = _distance_mm(graph, lengths.argmax(axis=1), far)
    return np.asarray(np.clip((np.minimum(distance, far) - near) / (far - near), 0, 1), np.float32)


def _begin(
    flat: Float32,
    count: int,
    graph: Any,
    reach_mm: tuple[float, float],
    constraint: Constraint,
    local: bool,
) -> tuple[Float32, Float32, NDArray[np.int64]]:
    """One after the other where most is left over: that vertex's own motion, and what goes with it."""
    left = flat.copy()
    weights, components, centres = [], [], []
    for _ in range(count):
        vertex = int((left**2).reshape(len(left), -1, 3).sum(axis=(0, 2)).argmax())
        own = left[:, 3 * vertex : 3 * vertex + 3]
        direction = np.linalg.svd(own.T @ own)[0][:, 0]
        signal = _allowed(own @ direction, constraint)
        along = (signal @ left) / max(float(signal @ signal), 1e-12)
        if local:
            distance = _distance_mm(graph, np.array([vertex]), reach_mm[1])[0]
            inside = np.clip((reach_mm[1] - np.minimum(distance, reach_mm[1])) / np.ptp(reach_mm), 0, 1)
            along *= np.repeat(inside, 3).astype(np.float32)
        left -= np.outer(signal, along)
        weights.append(signal)
        components.append(along)
        centres.append(vertex)
    return (
        np.ascontiguousarray(np.stack(weights, axis=1), np.float32),
        np.ascontiguousarray(np.stack(components), np.float32),
        np.array(centres, np.int64),
    )


def _allowed(signal: NDArray[Any], constraint: Constraint) -> Float32:
    """The nearest signal that meets the constraint, up to its length."""
    if constraint == "nonnegative":
        up, down = np.maximum(signal, 0), np.maximum(-signal, 0)
        signal = up if (up**2).sum() >= (down**2).sum() else down
    return np.asarray(signal / max(float(np.abs(signal).max()), 1e-12), np.float32)


def _fit_weights(flat: Float32, component: Float32, weight: Float32, constraint: Constraint) -> None:
    """Each weight in turn, in place, and its component's length with it so that the largest weight is 1."""
    product = flat @ component.T
    gram = component @ component.T
    for k in range(len(component)):
        if gram[k, k] <= 1e-12:
            weight[:, k] = 0
            continue
        best = weight[:, k] + (product[:, k] - weight @ gram[:, k]) / gram[k, k]
        if constraint == "nonnegative":
            best = np.maximum(best, 0)
        length = float(np.abs(best).max())
        if length <= 1e-12:
            weight[:, k] = 0
            continue
        weight[:, k] = best / length
        component[k] *= length
        product[:, k] *= length
        gram[k] *= length
        gram[:, k] *= length


def _fit_components(product: Float32, gram: Float32, strengths: Float32, component: Float32) -> None:
    """ADMM on C with the groups of each vertex's three coordinates, in place."""
    count = len(component)
    step = 10 * float(np.trace(gram)) / count
    inverse = np.linalg.inv(gram.astype(np.float64) + step * np.eye(count)).astype(np.float32)
    split, dual = component.copy(), np.zeros_like(component)
    for _ in range(_ADMM_STEPS):
        free = inverse @ (product + step * (split - dual))
        moved = (free + dual).reshape(count, -1, 3)
        length = np.linalg.norm(moved, axis=2)
        # The proximal map of Λ‖·‖₂ / (2 step): the misfit is not halved in equation 5.
        keep = np.maximum(1 - strengths / (2 * step) / np.maximum(length, 1e-12), 0)
        split = (moved * keep[:, :, None]).reshape(count, -1)
        dual += free - split
    component[:] = split


def locality_mm(components: Float32, vertices: NDArray[Any]) -> Array:
    """(K,) how far, mm, a component's motion lies from its middle, root mean square."""
    weight = np.square(components.astype(np.float64)).sum(axis=2)
    weight /= np.maximum(weight.sum(axis=1, keepdims=True), 1e-12)
    middle = weight @ vertices
    apart = np.square(vertices[None] - middle[:, None]).sum(axis=2)
    return np.asarray(np.sqrt((weight * apart).sum(axis=1)))
