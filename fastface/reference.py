"""Every op of ``fastface.ops`` in plain NumPy: slow, obvious, the definition of right.

Imports nothing else. Arguments are not checked; what ``fastface.ops`` accepts is meant. Axes, units and
pixel centres: CONVENTIONS.md.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray


class Deformed(NamedTuple):
    positions: NDArray[np.float32]
    screen: NDArray[np.float32]


def deform(
    neutral: NDArray[np.float32],
    basis: NDArray[Any],
    coefficients: NDArray[np.float32],
    camera: NDArray[np.float32],
    *,
    near_mm: float = 1.0,
) -> Deformed:
    """``neutral + coefficients · basis`` in camera space, and its perspective projection."""
    positions = neutral + np.einsum("bk,kvc->bvc", coefficients, basis.astype(np.float32))
    f_px, c_x, c_y = (camera[:, None, i] for i in range(3))
    x, y, z = (positions[..., i] for i in range(3))
    front = z > near_mm
    safe = np.where(front, z, 1.0)
    screen = np.stack([f_px * x / safe + c_x, f_px * y / safe + c_y, z], axis=-1)
    return Deformed(positions.astype(np.float32), np.where(front[..., None], screen, 0.0).astype(np.float32))


SUBPIXELS = 256
COORDINATE_LIMIT = 2.0**48  # in subpixels


class Raster(NamedTuple):
    triangle_id: NDArray[np.int32]
    bary: NDArray[np.float32]
    depth: NDArray[np.float32] | None


def rasterize(
    screen: NDArray[np.float32],
    triangles: NDArray[np.int32],
    height: int,
    width: int,
    *,
    cull_backfaces: bool = False,
    depth: bool = False,
) -> Raster:
    """Test each triangle in turn against the pixel centres of its bounding box, in whole numbers."""
    frames = len(screen)
    triangle_id = np.full((frames, height, width), -1, np.int32)
    bary = np.zeros((frames, height, width, 2), np.float32)
    z_nearest = np.full((frames, height, width), np.inf, np.float32)
    for b in range(frames):
        usable = _usable(screen[b])
        for t, corners in enumerate(triangles):
            if usable[corners].all():
                _draw(screen[b, corners], t, cull_backfaces, triangle_id[b], bary[b], z_nearest[b])
    return Raster(triangle_id, bary, z_nearest if depth else None)


def _usable(screen: NDArray[np.float32]) -> NDArray[np.bool_]:
    within = (np.abs(screen[:, :2].astype(np.float64)) * SUBPIXELS <= COORDINATE_LIMIT).all(axis=1)
    return np.asarray(within & np.isfinite(screen[:, 2]) & (screen[:, 2] > 0))


def _draw(
    corners: NDArray[np.float32],
    t: int,
    cull_backfaces: bool,
    triangle_id: NDArray[np.int32],
    bary: NDArray[np.float32],
    z_nearest: NDArray[np.float32],
) -> None:
    snapped = np.rint(corners[:, :2].astype(np.float64) * SUBPIXELS)
    # Python's own integers where 64 bits could overflow.
    exact: Any = np.int64 if np.abs(snapped).max() <= 2.0**29 else object
    x, y = ([int(v) for v in snapped[:, axis]] for axis in range(2))
    area = (x[1] - x[0]) * (y[2] - y[0]) - (x[2] - x[0]) * (y[1] - y[0])
    if area == 0 or (cull_backfaces and area > 0):
        return
    height, width = triangle_id.shape
    x_first, x_last = max(-((128 - min(x)) // 256), 0), min((max(x) - 128) // 256, width - 1)
    y_first, y_last = max(-((128 - min(y)) // 256), 0), min((max(y) - 128) // 256, height - 1)
    if x_first > x_last or y_first > y_last:
        return
    px = (np.arange(x_first, x_last + 1).astype(exact) * 256 + 128)[None, :]
    py = (np.arange(y_first, y_last + 1).astype(exact) * 256 + 128)[:, None]
    sign = 1 if area > 0 else -1
    weights, inside = [], np.ones((py.size, px.size), bool)
    for i in range(3):
        a, b = (i + 1) % 3, (i + 2) % 3
        per_x, per_y = (y[a] - y[b]) * sign, (x[b] - x[a]) * sign
        w = per_x * (px - x[a]) + per_y * (py - y[a])
        left_or_top = per_x > 0 or (per_x == 0 and per_y > 0)
        inside &= (w >= 0 if left_or_top else w > 0).astype(bool)
        weights.append(w)
    inverse_area = np.float32(1) / np.float32(area * sign)
    b1, b2 = (w.astype(np.float32) * inverse_area for w in weights[1:])
    z = corners[0, 2] + (b1 * (corners[1, 2] - corners[0, 2]) + b2 * (corners[2, 2] - corners[0, 2]))
    box = np.s_[y_first : y_last + 1, x_first : x_last + 1]
    wins = inside & (z < z_nearest[box])
    triangle_id[box][wins] = t
    bary[box][wins] = np.stack([b1, b2], axis=-1)[wins]
    z_nearest[box][wins] = z[wins]


SANE_JUMP = 1e5  # grey levels; beyond it the source around the mask is taken for the photo


class Blended(NamedTuple):
    image: NDArray[np.uint8]
    exact: NDArray[np.float32] | None


def blend(
    photo: NDArray[np.uint8],
    source: NDArray[np.float32],
    mask: NDArray[np.uint8],
    *,
    tolerance: float = 0.25,
    exact: bool = False,
) -> Blended:
    """Conjugate gradients on the masked Poisson equation, in double precision, far below ``tolerance``."""
    photos = np.broadcast_to(photo, source.shape)
    solution = np.empty(source.shape)
    for b in range(len(source)):
        inside = mask[b] != 0
        for c in range(source.shape[-1]):
            jump = photos[b, ..., c] - source[b, ..., c].astype(np.float64)
            jump[~(np.abs(jump) <= SANE_JUMP)] = 0
            h = _harmonic(inside, np.where(inside, 0, jump), 1e-6 * tolerance)
            solution[b, ..., c] = np.where(inside, source[b, ..., c] + h, photos[b, ..., c])
    grey = np.clip(np.nan_to_num(solution, nan=0), 0, 255)
    return Blended(np.floor(grey + 0.5).astype(np.uint8), solution.astype(np.float32) if exact else None)


def _harmonic(inside: NDArray[np.bool_], around: NDArray[np.float64], residual: float) -> NDArray[np.float64]:
    """The function that is the mean of its neighbours on ``inside`` and is ``around`` elsewhere."""
    degree = _neighbours(np.ones(inside.shape))
    h = np.zeros(inside.shape)
    r = np.where(inside, _neighbours(around), 0.0)
    p, rr = r.copy(), (r * r).sum()
    while rr > residual**2:
        q = np.where(inside, degree * p - _neighbours(p), 0.0)
        alpha = rr / (p * q).sum()
        h += alpha * p
        r -= alpha * q
        previous, rr = rr, (r * r).sum()
        p = r + rr / previous * p
    return h


def _neighbours(a: NDArray[np.float64]) -> NDArray[np.float64]:
    total = np.zeros_like(a)
    total[1:] += a[:-1]
    total[:-1] += a[1:]
    total[:, 1:] += a[:, :-1]
    total[:, :-1] += a[:, 1:]
    return total
