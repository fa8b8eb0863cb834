"""Sparse linear maps from base-mesh vertices to model vertices, in plain numpy.

Every model vertex is a fixed weighted sum of base vertices, so one map carries the mean, each identity target
and each expression target alike, and linearity (what a morphable model is) survives subdivision.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fastface.makehuman.sources import Floats, Ints

Row = Mapping[int, float]


@dataclass(frozen=True)
class LinearMap:
    """Rows of weights in compressed form: row ``r`` holds entries ``starts[r]:starts[r + 1]``; no row is
    empty.
    """

    starts: Ints
    columns: Ints
    weights: Floats

    @classmethod
    def from_rows(cls, rows: Sequence[Row]) -> LinearMap:
        lengths = np.array([len(row) for row in rows])
        columns = np.array([column for row in rows for column in row], np.int64)
        weights = np.array([weight for row in rows for weight in row.values()])
        return cls(np.concatenate([[0], np.cumsum(lengths)]), columns, weights)

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __call__(self, field: Floats) -> Floats:
        """Apply to positions or displacements ``(N, 3)``; gives ``(len(self), 3)``."""
        products = self.weights[:, None] * field[self.columns]
        result: Floats = np.add.reduceat(products, self.starts[:-1], axis=0)
        return result


def blend(rows: Sequence[Row], weights: Sequence[float]) -> dict[int, float]:
    """The weighted sum of rows."""
    total: dict[int, float] = {}
    for row, weight in zip(rows, weights, strict=True):
        for column, value in row.items():
            total[column] = total.get(column, 0.0) + weight * value
    return total
