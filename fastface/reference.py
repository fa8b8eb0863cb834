"""Every op of ``fastface.ops`` in plain NumPy: slow, obvious, the definition of right.

Imports nothing else. Arguments are not checked; what ``fastface.ops`` accepts is meant. Axes, units and
pixel centres: CONVENTIONS.md.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]


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


class Shading(NamedTuple):
    """What ``shade`` knows of a fitted face; V vertices, F triangles, an image of H × W px.

    The rest is the face as the photo shows it: there every pixel is its own source.
    """

    triangles: NDArray[np.int32]  # (F, 3)
    layer: NDArray[np.uint8]  # (F,) SKIN, LEFT_EYE, RIGHT_EYE or PAINTED
    rest_px: Float32  # (V, 2) where each vertex lies in the photo
    shift_px: Float32  # (S, V, 2) how far a control moves the place where a vertex takes its colour from
    fan_start: NDArray[np.int32]  # (V + 1,) into ``fans``
    fans: NDArray[np.int32]  # triangles around each vertex
    rest_normal: Float32  # (V, 3)
    light: Float32  # (9,) irradiance, fastface.lighting
    relief: Float32  # (V,) how much of the change of irradiance shows
    paint_linear: Float32  # (V, 3) linear-light colour of painted parts under even light
    lip_rim: NDArray[np.int32]  # (2, R) vertices along the slit, right to left: upper lip, lower lip
    photo: NDArray[np.uint8]  # (H, W, 4)
    eyes: NDArray[np.uint8]  # (H, W, 4) the eyeballs without lids
    folds: Float32  # (D, H, W) log gain of each fold at full strength, in the photo's place


SKIN, LEFT_EYE, RIGHT_EYE, PAINTED = 0, 1, 2, 3
GAMMA = 2.2  # gains of linear light act on sRGB values by this root
GAIN_LIMIT = 0.5  # log gain on sRGB values
HAIR_PX = 0.01  # motion below this is none
LIT_LEAST = 0.15
SCATTERED = 0.12
PAINT_LIT_MOST = 1.0


def vertex_normals(
    positions: Float32, triangles: NDArray[np.int32], fan_start: NDArray[np.int32], fans: NDArray[np.int32]
) -> Float32:
    """(V, 3) area-weighted unit normals; zero where a vertex has no triangle."""
    a, b, c = (positions[triangles[:, i]] for i in range(3))
    faces = np.cross(b - a, c - a)
    running = np.concatenate([np.zeros((1, 3)), np.cumsum(faces[fans].astype(np.float64), axis=0)])
    sums = running[fan_start[1:]] - running[fan_start[:-1]]
    length = np.linalg.norm(sums, axis=1, keepdims=True)
    normals: Float32 = (sums / np.maximum(length, 1e-12)).astype(np.float32)
    return normals


def _irradiance(light: Float32, normal: Float32) -> Float32:
    x, y, z = normal[:, 0], normal[:, 1], normal[:, 2]
    terms = (np.ones_like(x), y, z, x, x * y, y * z, 3 * z * z - 1, x * z, x * x - y * y)
    irradiance: Float32 = np.maximum(np.stack(terms, axis=1) @ light, np.float32(LIT_LEAST))
    return irradiance


def _smoothstep(low: float, high: float, x: Float32) -> Float32:
    t = np.clip((x - low) / (high - low), 0, 1)
    smooth: Float32 = t * t * (3 - 2 * t)
    return smooth


def mouth_light(positions: Float32, lip_rim: NDArray[np.int32]) -> Float32:
    """(V,) share of the light that gets through the opened lips to each vertex.

    Along the line between the mouth's corners the opening is as high as the two rims are apart. A point at
    depth d behind the rims sees s / sqrt(s² + d²) of it, s half the height plus what thin lips let through
    (form factor of a strip); the upper lip throws a soft shadow, and beyond the corners it is dark.
    """
    upper, lower = positions[lip_rim[0]], positions[lip_rim[1]]
    corner = 0.5 * (upper[0] + lower[0])
    axis = 0.5 * (upper[-1] + lower[-1]) - corner
    axis2 = float(axis @ axis)
    t = (positions - corner) @ axis / max(axis2, 1e-6)
    at = np.clip(t, 0, 1) * (len(upper) - 1)
    i = np.minimum(at.astype(np.int32), len(upper) - 2)
    w = (at - i)[:, None].astype(np.float32)
    top = upper[i] * (1 - w) + upper[i + 1] * w
    bottom = lower[i] * (1 - w) + lower[i + 1] * w
    gap = bottom - top
    height = np.sqrt((gap[:, :2] ** 2).sum(1))
    below = ((positions - top)[:, :2] * gap[:, :2]).sum(1) / np.maximum(height, 1e-3)
    depth = np.maximum(positions[:, 2] - 0.5 * (top + bottom)[:, 2], 0)
    s = 0.5 * height + 4.0
    open_ = s / np.sqrt(s * s + depth * depth)
    shadow = 0.6 + 0.4 * _smoothstep(-1.0, 4.0, below)
    inside = _smoothstep(-0.1, 0.12, t) * _smoothstep(-0.1, 0.12, 1 - t)
    direct = open_ * shadow * (0.3 + 0.7 * inside)
    light: Float32 = (SCATTERED + (1 - SCATTERED) * direct).astype(np.float32)
    return light


def _cubic(t: Float32) -> list[Float32]:
    """Catmull-Rom weights of four neighbours: exact at t = 0."""
    t2, t3 = t * t, t * t * t
    return [
        -0.5 * t + t2 - 0.5 * t3,
        1 - 2.5 * t2 + 1.5 * t3,
        0.5 * t + 2 * t2 - 1.5 * t3,
        -0.5 * t2 + 0.5 * t3,
    ]


def sample(image: NDArray[Any], x_px: Float32, y_px: Float32) -> Float32:
    """Catmull-Rom samples of ``image (H, W, ...)`` at continuous pixel coordinates, borders repeated."""
    height, width = image.shape[:2]
    x = np.clip(x_px, 0, width) - np.float32(0.5)
    y = np.clip(y_px, 0, height) - np.float32(0.5)
    x0, y0 = np.floor(x).astype(np.int32), np.floor(y).astype(np.int32)
    wx, wy = _cubic(x - x0), _cubic(y - y0)
    total = np.zeros((*x.shape, *image.shape[2:]), np.float32)
    extra = (...,) + (None,) * (image.ndim - 2)
    for j in range(4):
        rows = np.clip(y0 + j - 1, 0, height - 1)
        line = np.zeros_like(total)
        for i in range(4):
            columns = np.clip(x0 + i - 1, 0, width - 1)
            line += wx[i][extra] * image[rows, columns].astype(np.float32)
        total += wy[j][extra] * line
    return total


def encode_srgb(linear: Float32) -> Float32:
    """Linear light → grey levels 0 … 255 (IEC 61966-2-1)."""
    x = np.clip(linear, 0, 1)
    return np.float32(255) * np.where(x <= 0.0031308, 12.92 * x, 1.055 * x ** (1 / 2.4) - 0.055)


def shade(
    positions: Float32,
    screen: Float32,
    triangle_id: NDArray[np.int32],
    bary: Float32,
    controls: Float32,
    shading: Shading,
) -> tuple[Float32, NDArray[np.uint8]]:
    """Colour of every pixel of a deformed face, and the mask of those that differ from the photo.

    ``controls (B, S + 3 + D)``: weights of the shifts; how much of the left eye, of the right eye (without
    their lids) and of the painted mouth shows instead of the photo; weights of the folds. → source
    (B, H, W, 3) grey levels, mask (B, H, W). Where nothing moves the source is the photo and the mask 0.
    """
    s = shading
    frames, height, width = triangle_id.shape
    shifts = len(s.shift_px)
    source = np.empty((frames, height, width, 3), np.float32)
    mask = np.zeros((frames, height, width), np.uint8)
    rest_light = _irradiance(s.light, s.rest_normal)
    for b in range(frames):
        mix, fold_weight = controls[b, shifts : shifts + 3], controls[b, shifts + 3 :]
        offset = s.rest_px - screen[b, :, :2]
        for k in range(shifts):
            offset = offset + controls[b, k] * s.shift_px[k]
        lit = _irradiance(s.light, vertex_normals(positions[b], s.triangles, s.fan_start, s.fans))
        gain = np.clip(s.relief * np.log(lit / rest_light) / GAMMA, -GAIN_LIMIT, GAIN_LIMIT)
        paint = (
            s.paint_linear * (np.minimum(lit, PAINT_LIT_MOST) * mouth_light(positions[b], s.lip_rim))[:, None]
        )
        values = np.concatenate([offset, gain[:, None], paint], axis=1).astype(np.float32)

        source[b] = s.photo[:, :, :3]
        row, column = np.nonzero(triangle_id[b] >= 0)
        triangle = triangle_id[b][row, column]
        b1, b2 = bary[b][row, column, 0, None], bary[b][row, column, 1, None]
        v0, v1, v2 = (values[s.triangles[triangle, i]] for i in range(3))
        at = v0 + b1 * (v1 - v0) + b2 * (v2 - v0)
        x, y = column + np.float32(0.5) + at[:, 0], row + np.float32(0.5) + at[:, 1]
        fold = np.tensordot(fold_weight, s.folds, axes=1).astype(np.float32)
        layer = s.layer[triangle]
        colour = sample(s.photo, x, y)[:, :3]
        log_gain = at[:, 2] + (sample(fold, x, y) if fold.any() else np.float32(0))
        colour = np.where((layer == SKIN)[:, None], colour * np.exp(log_gain)[:, None], colour)
        moved = np.abs(at[:, :2]).max(1) > HAIR_PX
        moved |= (layer == SKIN) & (np.abs(log_gain) > 1e-3)
        for kind in (LEFT_EYE, RIGHT_EYE, PAINTED):
            chosen, share = layer == kind, mix[kind - LEFT_EYE]
            if share > 0 and chosen.any():
                under = (
                    encode_srgb(at[chosen, 3:])
                    if kind == PAINTED
                    else sample(s.eyes, x[chosen], y[chosen])[:, :3]
                )
                colour[chosen] += share * (under - colour[chosen])
                moved |= chosen
        source[b][row[moved], column[moved]] = colour[moved]
        mask[b][row[moved], column[moved]] = 1
        # Edges between what the photo shows and what is drawn anew are softened, as a lens would.
        share = np.zeros((height, width), np.float32)
        share[row, column] = np.concatenate([[0.0], mix])[layer]
        share = _widened(share) * (mask[b] != 0)
        source[b] += share[:, :, None] * (_binomial(source[b]) - source[b])
    return source, mask


def _widened(share: Float32) -> Float32:
    """The largest of a pixel and its four neighbours."""
    wide = share.copy()
    for axis in (0, 1):
        one, other = [slice(None)] * 2, [slice(None)] * 2
        one[axis], other[axis] = slice(1, None), slice(None, -1)
        wide[tuple(one)] = np.maximum(wide[tuple(one)], share[tuple(other)])
        wide[tuple(other)] = np.maximum(wide[tuple(other)], share[tuple(one)])
    return wide


def _binomial(image: Float32) -> Float32:
    """1 2 1 in both directions, borders repeated: a lens is never as sharp as a triangle's edge."""
    for axis in (0, 1):
        size = image.shape[axis]
        before = np.take(image, np.maximum(np.arange(size) - 1, 0), axis)
        after = np.take(image, np.minimum(np.arange(size) + 1, size - 1), axis)
        image = np.float32(0.25) * (before + after) + np.float32(0.5) * image
    return image
