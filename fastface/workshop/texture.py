"""Learning a texture model: what faces look like at each vertex, from what each of them shows of it.

Kollias et al., IJCV 2020, section 3.4. Photographs never show all of a face, and hands, hair and glasses lie
before it: robust principal components with missing values (``workshop.robust_pca``; Booth et al., "3D Face
Morphable Models In-the-Wild", CVPR 2017, section 3.2) first tell the faces, which resemble each other, from
what lies on them, which does not. Scans made in a studio need no such doubt: there plain components, whose
gaps are filled with what the model itself says of them (the EM algorithm of Roweis, NIPS 1998, without
noise).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fastface.errors import BadArgument
from fastface.morphable import MAX_MODES, HeadModel
from fastface.texture_model import TextureModel
from fastface.workshop.robust_pca import price_of, pursue

Array = NDArray[Any]
Known = NDArray[np.bool_]

VARIANCE: Final = 0.995
LEAST_FACES: Final = 3
LEAST_SEEN: Final = 3  # faces that must show a vertex
MOST_VALUES: Final = 150_000_000  # faces x vertices x channels: some 10 GB of memory while they are split
_EM_ROUNDS: Final = 60
_STILL: Final = 1e-4  # of the values' size: a change that ends the rounds
_GROSS: Final = 1e-3  # of the largest value: what the sparse part is called an error from
#: Noise is never called less than this, of what varies: precisions must stay finite where few faces agree.
_LEAST_NOISE: Final = 1e-4
_LEAST_VARIANCE: Final = 2e-4


@dataclass(frozen=True)
class Learned:
    """A texture model and how it came out: ``explained (K,)`` share of the variance of the completed faces
    that each component explains; ``gross``: share of the values that were told off as no face's; ``faces``
    it was made of."""

    texture: TextureModel
    explained: NDArray[np.float64]
    gross: float
    faces: int


def learn_texture(
    head: HeadModel,
    values: Array,
    seen: Known,
    *,
    feature: str,
    source: str,
    license: str,
    components: int | None = None,
    variance: float = VARIANCE,
    robust: bool = True,
    leniency: float = 1.0,
    done: Callable[[int, float], None] = lambda rounds, off: None,
) -> Learned:
    """Learn from ``values (M, V, C)`` of M faces at the vertices of ``head`` where they are ``seen (M, V)``.

    As few components as explain ``variance``, at most ``components``. ``robust``: split off
    gross errors first, at ``leniency`` times the price that theory gives (``robust_pca.price_of``);
    ``done(rounds, off)`` is told how far that is. Raises ``BadArgument`` for arrays that do not fit, too few
    faces or too many values.
    """
    _check(head, values, seen, components, variance)
    used = np.flatnonzero(seen.sum(axis=0) >= LEAST_SEEN)
    if not len(used):
        raise BadArgument(f"no vertex is seen in {LEAST_SEEN} of the {len(values)} faces")
    count, channels = len(values), values.shape[2]
    if count * len(used) * channels > MOST_VALUES:
        most = MOST_VALUES // (len(used) * channels)
        raise BadArgument(f"wanted at most {most:,} faces of {len(used)} vertices, got {count:,}")
    data = np.ascontiguousarray(values[:, used]).reshape(count, -1)
    there = seen[:, used].repeat(channels, axis=1)
    if not np.isfinite(data[there]).all():
        raise BadArgument("wanted finite values wherever a vertex is seen")

    def wanted(strength: Array) -> int:
        """Of the components of these singular values."""
        share = np.cumsum(strength.astype(np.float64) ** 2)
        enough = int(np.searchsorted(share, (variance - 1e-12) * share[-1])) + 1
        return min(enough, components or enough, count - 2, MAX_MODES)

    gross = 0.0
    if robust:
        whole, gross = _without_gross(data, there, leniency, done)
    else:
        whole = _filled_in(data, there, wanted)
    centre, strength, directions = _components(whole)
    kept = wanted(strength)
    basis = directions[:kept] * (strength[:kept, None] / np.sqrt(count - 1))
    says = _said(whole, centre, directions[:kept])
    noise = _noise(np.where(there, data - says, 0), there, channels, kept)
    noise = np.maximum(noise, max(_LEAST_NOISE * float((basis**2).sum(0).mean()), _LEAST_VARIANCE))

    vertices = len(head.vertices)
    mean = np.zeros((vertices, channels), np.float32)
    mean[used] = centre.reshape(-1, channels)
    modes = np.zeros((kept, vertices, channels), np.float16)
    modes[:, used] = basis.reshape(kept, -1, channels)
    precision = np.zeros(vertices, np.float32)
    precision[used] = 1 / noise
    share = strength.astype(np.float64) ** 2
    texture = TextureModel(source, license, head.digest, feature, mean, modes, precision)
    return Learned(texture, share[:kept] / max(float(share.sum()), 1e-300), gross, count)


def _check(head: HeadModel, values: Array, seen: Known, components: int | None, variance: float) -> None:
    if values.ndim != 3 or values.shape[1] != len(head.vertices) or seen.shape != values.shape[:2]:
        raise BadArgument(
            f"wanted values (M, {len(head.vertices)}, C) and what is seen of them, got {values.shape} and "
            f"{seen.shape}"
        )
    if len(values) < LEAST_FACES:
        raise BadArgument(f"a texture wants {LEAST_FACES} faces to learn from, got {len(values)}")
    if not 0 < variance <= 1 or (components is not None and components < 1):
        raise BadArgument(
            f"wanted a variance in 0 … 1 and 1 or more components, got {variance}, {components}"
        )


def _without_gross(
    data: Array, there: Known, leniency: float, done: Callable[[int, float], None]
) -> tuple[Array, float]:
    """``data (M, N)`` completed, its gross errors split off, and the share that they were.

    About the median, so that where a face shows little it is taken for a usual one.
    """
    usual = np.nanmedian(np.where(there, data, np.nan).astype(np.float64), axis=0)
    split = pursue(data - usual, there, leniency * price_of(there), done)
    wrong = np.abs(split.sparse[there]) > _GROSS * float(np.abs(data[there]).max(initial=0))
    return split.low_rank + usual, float(wrong.mean())


def _filled_in(data: Array, there: Known, wanted: Callable[[Array], int]) -> Array:
    """``data (M, N)`` completed by as few components of its own as are ``wanted`` then.

    Counted up from one: what gaps are filled with at first is itself a component, and would stay one.
    """
    filled = np.where(there, data, (data * there).sum(axis=0) / there.sum(axis=0))
    count = 1
    while not there.all():
        for _ in range(_EM_ROUNDS):
            centre, strength, directions = _components(filled)
            says = np.where(there, data, _said(filled, centre, directions[:count]))
            change, filled = float(np.linalg.norm(says - filled)), says
            if change < _STILL * float(np.linalg.norm(filled)):
                break
        if count >= (enough := wanted(strength)):
            break
        count = min(count + 1 + count // 4, enough)
    return filled


def _components(data: Array) -> tuple[Array, Array, Array]:
    """Mean (N,), singular values (M,) and directions (M, N) of ``data (M, N)``."""
    centre = data.mean(axis=0)
    _, strength, directions = np.linalg.svd(data - centre, full_matrices=False)
    return centre, strength, directions


def _said(data: Array, centre: Array, directions: Array) -> Array:
    said: Array = (data - centre) @ directions.T @ directions + centre
    return said


def _noise(left: Array, there: Known, channels: int, kept: int) -> NDArray[np.float64]:
    """Variance (V,) of what the components leave, of a channel, by the vertex.

    Learned of few faces it is itself noisy: half of it is what vertices have on average.
    """
    count = len(left)
    squares = (left.astype(np.float64) ** 2).reshape(count, -1, channels).sum(axis=(0, 2))
    each = squares / there.sum(axis=0).reshape(-1, channels).sum(axis=1) * count / (count - kept)
    noise: NDArray[np.float64] = 0.5 * each + 0.5 * float(each.mean())
    return noise
