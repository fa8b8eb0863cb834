"""Robust principal components: against plain ones, and against the conditions that prove a minimum."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray

from fastface.errors import BadArgument
from fastface.workshop.robust_pca import price_of, pursue

Array = NDArray[np.float64]


class Corrupted(NamedTuple):
    true: Array
    values: Array
    known: NDArray[np.bool_]
    wrong: NDArray[np.bool_]


def corrupted(
    rows: int, columns: int, rank: int, missing: float = 0.3, gross: float = 0.1, seed: int = 0
) -> Corrupted:
    """A matrix of low rank, parts of it missing (as huge numbers, which nobody may look at), others wrong."""
    rng = np.random.default_rng(seed)
    true = rng.standard_normal((rows, rank)) @ rng.standard_normal((rank, columns))
    wrong = rng.random(true.shape) < gross
    values = np.where(wrong, true + rng.uniform(-10, 10, true.shape), true)
    known = rng.random(true.shape) >= missing
    return Corrupted(true, np.where(known, values, 1e6), known, wrong)


def plain(case: Corrupted, rank: int) -> Array:
    """What is usual: gaps filled with the column's mean, then the best matrix of that rank."""
    mean = np.ma.masked_array(case.values, ~case.known).mean(axis=0).filled(0)
    u, s, vt = np.linalg.svd(np.where(case.known, case.values, mean) - mean, full_matrices=False)
    found: Array = (u[:, :rank] * s[:rank]) @ vt[:rank] + mean
    return found


def off(found: Array, true: Array) -> float:
    return float(np.linalg.norm(found - true) / np.linalg.norm(true))


def test_a_square_matrix_comes_back_exactly() -> None:
    case = corrupted(150, 150, 6)
    split = pursue(case.values, case.known)
    assert off(plain(case, 6), case.true) > 0.35
    assert off(split.low_rank, case.true) < 1e-5
    assert split.rank == 6
    found = np.abs(split.sparse) > 1e-3
    assert (found[case.known] == (case.wrong & (np.abs(case.values - case.true) > 1e-3))[case.known]).all()
    assert not split.sparse[~case.known].any()


@pytest.mark.parametrize(("rows", "columns", "rank", "wanted"), [(60, 3000, 5, 1e-5), (32, 8000, 4, 0.04)])
def test_few_faces_of_many_vertices_come_back(rows: int, columns: int, rank: int, wanted: float) -> None:
    """Of a column, 30 % are missing and 10 % wrong: no theorem holds for so few rows, but nearly."""
    case = corrupted(rows, columns, rank)
    error = off(pursue(case.values, case.known).low_rank, case.true)
    assert error < wanted
    assert error < 0.1 * off(plain(case, rank), case.true)


def test_either_way_round_is_the_same() -> None:
    case = corrupted(40, 90, 3)
    lying, standing = pursue(case.values, case.known), pursue(case.values.T, case.known.T)
    np.testing.assert_allclose(standing.low_rank.T, lying.low_rank, atol=1e-6)


def test_clean_and_whole_it_is_plain_principal_components() -> None:
    case = corrupted(50, 400, 4, missing=0, gross=0)
    split = pursue(case.true)
    assert off(split.low_rank, case.true) < 1e-6
    assert np.abs(split.sparse).max() < 1e-5
    for one, other in zip(
        np.linalg.svd(split.low_rank - split.low_rank.mean(0), full_matrices=False)[1][:4],
        np.linalg.svd(case.true - case.true.mean(0), full_matrices=False)[1][:4],
        strict=True,
    ):
        assert one == pytest.approx(other, rel=1e-6)


def test_what_is_found_is_the_minimum() -> None:
    """The conditions of Karush, Kuhn and Tucker: the multipliers are a subgradient of both norms (Candès et
    al. 2011, section 2), also on noisy data, where nothing is recovered exactly."""
    case = corrupted(40, 200, 3)
    noisy = case.values + np.random.default_rng(1).normal(0, 0.2, case.values.shape)
    split, price = pursue(noisy, case.known), price_of(case.known)
    assert not split.dual[~case.known].any()
    assert np.abs(split.dual).max() <= price * (1 + 1e-6)
    big = np.abs(split.sparse) > 1e-3
    assert big.any()
    np.testing.assert_allclose(split.dual[big], price * np.sign(split.sparse[big]), rtol=1e-5)
    u, s, vt = np.linalg.svd(split.low_rank, full_matrices=False)
    span = s > 1e-3 * s[0]
    # On the spectrum of L the multipliers are the identity, and elsewhere no longer than one.
    np.testing.assert_allclose(u[:, span].T @ split.dual @ vt[span].T, np.eye(int(span.sum())), atol=0.02)
    assert np.linalg.norm(split.dual, 2) < 1.02


def test_a_dearer_error_is_a_smaller_one() -> None:
    case = corrupted(40, 200, 3)
    told = [
        np.abs(pursue(case.values, case.known, factor * price_of(case.known)).sparse).sum()
        for factor in (0.7, 1.0, 1.4)
    ]
    assert told[0] > told[1] > told[2]


def test_progress_comes_nearer() -> None:
    case = corrupted(30, 60, 2)
    seen: list[tuple[int, float]] = []
    split = pursue(case.values, case.known, done=lambda *step: seen.append(step))
    assert [rounds for rounds, _ in seen] == list(range(1, split.rounds + 1))
    assert seen[-1][1] < 1e-7 < seen[0][1]


def test_nothing_is_nothing() -> None:
    split = pursue(np.zeros((4, 5)))
    assert not split.low_rank.any()
    assert split.rank == 0


@pytest.mark.parametrize(
    ("values", "known", "said"),
    [
        (np.zeros(5), None, "a matrix"),
        (np.ones((4, 5)), np.ones((5, 4), bool), "what is known"),
        (np.ones((4, 5)), np.zeros((4, 5), bool), "0 known"),
        (np.ones((4, 5)), np.ones((4, 5), np.uint8), "uint8"),
        (np.full((4, 5), np.nan), None, "finite"),
    ],
)
def test_what_is_no_matrix_is_refused(values: Array, known: NDArray[np.bool_] | None, said: str) -> None:
    with pytest.raises(BadArgument, match=said):
        pursue(values, known)


def test_a_price_of_nothing_is_refused() -> None:
    for price in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(BadArgument, match="sparsity"):
            pursue(np.ones((4, 5)), sparsity=price)
