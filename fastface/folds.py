"""Folds: what skin does at a scale finer than the mesh (first: none)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]


def fold_maps(marks: Float32, height: int, width: int, eye_px: float, light: Float32) -> Float32:
    return np.zeros((0, height, width), np.float32)


def fold_weights(coefficients: Float32, names: tuple[str, ...]) -> Float32:
    return np.zeros((len(coefficients), 0), np.float32)
