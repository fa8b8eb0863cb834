"""Checking the vectors that drive a translation: styles, labels, action units."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastface.errors import BadArgument


def one_each(values: Any, what: str, length: int, batch: int) -> NDArray[np.float32]:
    """(B, length) float32 for ``batch`` images, from that or from one vector for all. ``BadArgument``."""
    array = np.asarray(values)
    if array.ndim == 1:
        array = array[None]
    if array.ndim != 2 or array.shape[1] != length or array.dtype.kind not in "fiub":
        raise BadArgument(f"{what} must be ({length},) or (B, {length}), got {array.shape} {array.dtype}")
    if len(array) not in (1, batch):
        raise BadArgument(f"{what}: wanted one for all, or one for each of {batch} images, got {len(array)}")
    array = np.asarray(array, np.float32)
    if not np.isfinite(array).all():
        raise BadArgument(f"{what} must be finite, got NaN or infinity")
    return np.broadcast_to(array, (batch, length))
