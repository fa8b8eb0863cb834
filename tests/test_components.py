"""Sparse localised components."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from fastface.errors import BadArgument
from fastface.workshop.components import Constraint, locality_mm, sparse_components

Array = NDArray[np.float64]


@pytest.fixture(scope="module")
def bumps() -> tuple[Array, Array, NDArray[np.int32], Array]:
    """A flat sheet on which four bumps of 12 mm come and go: (vertices, X, triangles, truth)."""
    side = 24
    y, x = np.mgrid[:side, :side] * 5.0
    vertices = np.stack([x.ravel(), y.ravel(), np.zeros(side * side)], axis=1)
    corner = (np.arange(side - 1)[:, None] * side + np.arange(side - 1)).ravel()
    a, b, c, d = corner, corner + 1, corner + side, corner + side + 1
    triangles = np.concatenate([np.stack([a, b, c], 1), np.stack([b, d, c], 1)]).astype(np.int32)
    centres = np.array([[25.0, 25], [90, 25], [25, 90], [90, 90]])
    near = np.exp(-0.5 * (np.linalg.norm(vertices[:, None, :2] - centres, axis=2) / 12) ** 2).T
    truth = near[:, :, None] * np.array([[0, 0, 4.0], [2, 0, 3], [0, -3, 2], [1, 1, 4]])[:, None]
    random = np.random.default_rng(0)
    weights = np.where(random.random((120, 4)) < 0.5, random.random((120, 4)), 0)
    return vertices, np.einsum("tk,kvx->tvx", weights, truth), triangles, truth


@pytest.mark.parametrize("constraint", ["signed", "nonnegative"])
def test_what_moves_by_itself_is_found(bumps: tuple[Array, ...], constraint: Constraint) -> None:
    vertices, x, triangles, truth = bumps
    found = sparse_components(
        x, triangles, vertices, 4, strength=0.2, reach_mm=(25, 60), constraint=constraint, sweeps=25
    )
    assert np.diff(found.energy).max() < 0.02 * found.energy[0]
    assert found.energy[-1] < found.energy[0]
    np.testing.assert_allclose(np.abs(found.weights).max(axis=0), 1, atol=1e-5)
    if constraint == "nonnegative":
        assert found.weights.min() >= 0
    flat, true = found.components.reshape(4, -1), truth.reshape(4, -1)
    cosine = np.abs(flat @ true.T) / np.outer(np.linalg.norm(flat, axis=1), np.linalg.norm(true, axis=1))
    assert cosine.max(axis=1).min() > 0.97
    assert len(set(cosine.argmax(axis=1))) == 4
    assert found.reconstruction_error(x) < 0.15
    assert locality_mm(found.components, vertices).max() < 25


def test_where_nothing_local_is_wanted_components_reach_as_far(bumps: tuple[Array, ...]) -> None:
    """At the same regularisation, and as many components, what is free near its centre explains more."""
    vertices, x, triangles, _ = bumps
    errors = {}
    for local in (True, False):
        found = sparse_components(x, triangles, vertices, 4, strength=2.0, reach_mm=(25, 60), local=local)
        errors[local] = found.reconstruction_error(x)
    assert errors[True] < 0.9 * errors[False]


def test_what_cannot_be_is_refused(bumps: tuple[Array, ...]) -> None:
    vertices, x, triangles, _ = bumps
    with pytest.raises(BadArgument, match="finite"):
        sparse_components(np.full_like(x, np.nan), triangles, vertices, 4)
    with pytest.raises(BadArgument, match="components"):
        sparse_components(x, triangles, vertices, 0)
    with pytest.raises(BadArgument, match="nothing moves"):
        sparse_components(np.zeros_like(x), triangles, vertices, 2)
    with pytest.raises(BadArgument, match="reach"):
        sparse_components(x, triangles, vertices, 2, reach_mm=(50, 10))
    with pytest.raises(BadArgument, match="constraint"):
        sparse_components(x, triangles, vertices, 2, constraint="loose")  # type: ignore[arg-type]
