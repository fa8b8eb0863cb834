"""Splitting a matrix with gaps and gross errors into a part of low rank and a sparse one.

Principal component pursuit (Candès, Li, Ma, Wright, "Robust principal component analysis?", J. ACM 58(3),
2011) of what is known of a matrix (Shang, Liu, Cheng, Cheng, "Robust principal component analysis with
missing data", CIKM 2014; so Booth et al. 2017 make textures of photographs):

    minimise |L|_* + sparsity |S|_1  so that  L + S = values  wherever they are known.

Solved by the inexact augmented Lagrange multipliers of Lin, Chen, Ma (arXiv:1009.5055, algorithm 5).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fastface.errors import BadArgument

Array = NDArray[np.float64]
_GROWTH: Final = 1.1  # of the penalty by the round: faster ends before it has found the minimum
_CLOSE: Final = 1e-7  # of the size of the values: what L + S may be off
_MOST_ROUNDS: Final = 1000


@dataclass(frozen=True)
class Pursuit:
    """``low_rank (M, N)`` complete, ``sparse (M, N)`` zero where nothing is known, ``dual (M, N)``: the
    multipliers, which prove how near the minimum this is; ``rank`` of the first, ``rounds`` that it took."""

    low_rank: Array
    sparse: Array
    dual: Array
    rank: int
    rounds: int


def pursue(
    values: NDArray[Any],
    known: NDArray[np.bool_] | None = None,
    sparsity: float | None = None,
    done: Callable[[int, float], None] = lambda rounds, off: None,
) -> Pursuit:
    """Split ``values (M, N)`` where ``known (M, N)``; all if None. What is not known is not looked at.

    ``sparsity``: the price of gross errors; ``price_of(known)`` if None. ``done(rounds, off)`` is told how
    far L + S is off, relative. Raises ``BadArgument`` for what is no finite matrix, knows nothing, or does
    not settle.
    """
    there = np.ones(np.shape(values), np.bool_) if known is None else np.asarray(known)
    if np.ndim(values) != 2 or there.shape != np.shape(values) or there.dtype != np.bool_ or not there.any():
        raise BadArgument(
            f"robust PCA wants a matrix and what is known of it, got {np.shape(values)} and "
            f"{there.shape} {there.dtype}, {int(there.sum())} known"
        )
    given = np.where(there, values, 0).astype(np.float64)
    if not np.isfinite(given).all():
        raise BadArgument("robust PCA wants finite values wherever they are known")
    price = price_of(there) if sparsity is None else float(sparsity)
    if not 0 < price < np.inf:
        raise BadArgument(f"sparsity must be positive, got {sparsity!r:.40}")
    if not given.any():
        return Pursuit(given, given.copy(), given.copy(), 0, 0)
    if len(given) > given.shape[1]:  # the Gram matrix is that of the rows
        turned = _solve(np.ascontiguousarray(given.T), np.ascontiguousarray(there.T), price, done)
        return Pursuit(turned.low_rank.T, turned.sparse.T, turned.dual.T, turned.rank, turned.rounds)
    return _solve(given, there, price, done)


def price_of(known: NDArray[np.bool_]) -> float:
    """The price of gross errors at which Candès et al. prove recovery of square matrices (theorem 1.2).

    Theirs is 1 / sqrt(n · share known). What it must exceed is the spectral norm of a random matrix of signs,
    sqrt(M) + sqrt(N) in the mean, so for long matrices of few rows it is nearer to twice theirs.
    """
    return float(2 / (np.sqrt(known.shape).sum() * np.sqrt(known.mean())))


def _solve(
    given: Array, there: NDArray[np.bool_], price: float, done: Callable[[int, float], None]
) -> Pursuit:
    size, largest = float(np.linalg.norm(given)), float(np.linalg.norm(given, 2))
    dual = given / max(largest, float(np.abs(given).max()) / price)
    penalty = 1.25 / largest
    sparse = np.zeros_like(given)
    for rounds in range(1, _MOST_ROUNDS + 1):
        low_rank, rank = _shrunk_spectrum(given - sparse + dual / penalty, 1 / penalty)
        apart = given - low_rank + dual / penalty
        # Where nothing is known, S is free and takes all that L leaves, so the multipliers stay zero there.
        sparse = np.where(there, _shrunk(apart, price / penalty), apart)
        dual = penalty * (apart - sparse)
        off = float(np.linalg.norm((given - low_rank - sparse)[there])) / size
        done(rounds, off)
        if off < _CLOSE:
            return Pursuit(low_rank, np.where(there, sparse, 0), dual, rank, rounds)
        penalty *= _GROWTH
    raise BadArgument(f"robust PCA did not settle in {_MOST_ROUNDS} rounds: {off:.1e} off")


def _shrunk(values: Array, by: float) -> Array:
    """Every entry nearer to zero by so much (the proximal map of |·|_1)."""
    shrunk: Array = values - np.clip(values, -by, by)
    return shrunk


def _shrunk_spectrum(values: Array, by: float) -> tuple[Array, int]:
    """Every singular value smaller by so much (the proximal map of |·|_*; Cai, Candès, Shen, SIAM J. Optim.
    20(4), 2010), by the eigenvectors of the smaller Gram matrix; and how many are left."""
    squares, left = np.linalg.eigh(values @ values.T)
    singular = np.sqrt(np.maximum(squares, 0))
    kept = singular > by
    part = left[:, kept]
    low_rank: Array = (part * (1 - by / singular[kept])) @ (part.T @ values)
    return low_rank, int(kept.sum())
