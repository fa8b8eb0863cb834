"""Linear directions in W: which way to move a latent so that one attribute changes and others do not.

An attribute's score is fitted as ``normal · w + intercept``: by ridge regression, or by logistic regression
for one that is there or not (InterFaceGAN: Shen et al., "Interpreting the Latent Space of GANs for Semantic
Face Editing", CVPR 2020, section 2.2). A direction is the normal less its part in the span of the normals
that are to stay (their conditional manipulation): along it the fitted scores of those do not change at all.

One unit of a direction is one standard deviation of the samples along it, so that a strength means the same
in every network.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from fastface.atomic import whole_file
from fastface.errors import BadArgument, BadModelFile
from fastface.generators.latents import LARGEST
from fastface.morphable import MAX_TEXT, SAYS, ArraySpec, read_format

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Model = Literal["ridge", "logistic"]
MODELS: Final[tuple[str, ...]] = ("ridge", "logistic")

FORMAT: Final = "fastface-directions"
VERSION: Final = 1
#: Share of the samples that no fit sees; what a fit is worth is measured on them.
HELD_OUT: Final = 0.2
LEAST_SAMPLES: Final = 50
#: A direction of which less than this is left beside the others is none of its own.
LEAST_LEFT: Final = 0.05
_PENALTIES: Final = np.logspace(-10, 0, 21)
_LOGISTIC_PENALTIES: Final = np.logspace(-6, 2, 9)
_NEWTON_STEPS: Final = 50
_ARRAYS: Final = {
    **SAYS,
    "generator_sha256": ArraySpec("U", 0, "of the generator's checkpoint"),
    "names": ArraySpec("U", 1, "(A,) the attributes"),
    "about": ArraySpec("U", 1, "(A,) JSON: how each was fitted"),
    "vectors": ArraySpec("<f4", 2, "(A, D) one unit of each"),
    "normals": ArraySpec("<f4", 2, "(A, D) gradients of the scores"),
    "intercepts": ArraySpec("<f4", 1, "(A,)"),
}


@dataclass(frozen=True, eq=False)
class Direction:
    """One attribute. vector (D,): one standard deviation. normal (D,), intercept: score ≈ normal · w +
    intercept (its log-odds, for a logistic fit). about: how it was fitted and what it is worth."""

    name: str
    vector: Float32
    normal: Float32
    intercept: float
    about: Mapping[str, Any]

    def score(self, w: NDArray[Any]) -> Float64:
        """(…): the fitted score of w (…, L, D), from the mean of its layers."""
        means = np.asarray(w, np.float64).mean(axis=-2)
        return np.asarray(means @ self.normal.astype(np.float64) + self.intercept, np.float64)

    def strength_to(self, w: NDArray[Any], score: float, layers: Sequence[int] | None = None) -> float:
        """The strength that brings w (L, D) to a fitted score when applied to ``layers``. ``BadArgument``
        where the direction does not change it."""
        share = 1.0 if layers is None else len(layers) / w.shape[0]
        slope = float(self.vector.astype(np.float64) @ self.normal.astype(np.float64)) * share
        if not abs(slope) > 1e-12:
            raise BadArgument(f"{self.name}: this direction does not change its score")
        return (score - float(self.score(w))) / slope


@dataclass(frozen=True, eq=False)
class Directions:
    """Directions of one generator, by name, in the order in which they were asked for."""

    generator_sha256: str
    by_name: Mapping[str, Direction]

    def __getitem__(self, name: str) -> Direction:
        """Raises ``BadArgument`` for one that is not there."""
        if name not in self.by_name:
            raise BadArgument(f"no direction {name!r:.60}; there are {', '.join(self.by_name)}")
        return self.by_name[name]

    def effects(self) -> Float64:
        """(A, A): what one unit of each direction (row) changes of each fitted score (column), in standard
        deviations of that score's fit."""
        parts = list(self.by_name.values())
        vectors = np.array([part.vector for part in parts], np.float64)
        normals = np.array([part.normal for part in parts], np.float64)
        spreads = np.array([float(part.about["score_spread"]) for part in parts])
        found: Float64 = vectors @ normals.T / spreads
        return found

    def save(self, path: str | Path) -> None:
        """Write a ``.npz`` that ``load`` reads, whole or not at all. Raises ``WriteFailed``,
        ``BadArgument``."""
        if Path(path).suffix.casefold() != ".npz":
            raise BadArgument(f"{path}: directions end in .npz")
        parts = list(self.by_name.values())
        about = [json.dumps(dict(part.about), ensure_ascii=False, allow_nan=False) for part in parts]
        if max(map(len, about)) > MAX_TEXT:
            raise BadArgument(f"directions: what is said of one must fit {MAX_TEXT} characters of JSON")
        arrays: dict[str, Any] = {
            "format": np.array(FORMAT),
            "version": np.array(VERSION, "<i4"),
            "generator_sha256": np.array(self.generator_sha256),
            "names": np.array([part.name for part in parts]),
            "about": np.array(about),
            "vectors": np.array([part.vector for part in parts], "<f4"),
            "normals": np.array([part.normal for part in parts], "<f4"),
            "intercepts": np.array([part.intercept for part in parts], "<f4"),
        }
        with whole_file(path) as temporary, temporary.open("wb") as stream:
            np.savez(stream, **arrays)

    @classmethod
    def load(cls, path: str | Path) -> Directions:
        """Read and check kept directions. Raises ``BadModelFile``."""
        arrays = read_format(path, FORMAT, VERSION, _ARRAYS)
        names = [str(name) for name in arrays["names"]]
        if not names or len(set(names)) < len(names):
            raise BadModelFile(f"{path}: wanted names, each once, got {len(names)}")
        size = arrays["vectors"].shape[1]
        for key, shape in {
            "about": (len(names),),
            "vectors": (len(names), size),
            "normals": (len(names), size),
            "intercepts": (len(names),),
        }.items():
            array = arrays[key]
            if array.shape != shape:
                raise BadModelFile(f"{path}: {key} must be {shape}, got {array.shape}")
            if array.dtype.kind == "f" and not np.isfinite(array).all():
                raise BadModelFile(f"{path}: {key} must be finite")
        if not (np.abs(arrays["vectors"]) <= LARGEST).all():
            raise BadModelFile(f"{path}: vectors must lie within ±{LARGEST:g}")
        parts = {}
        for row, name in enumerate(names):
            about = _json_object(str(arrays["about"][row]), f"{path}: {name!r:.40}")
            parts[name] = Direction(
                name,
                arrays["vectors"][row],
                arrays["normals"][row],
                float(arrays["intercepts"][row]),
                about,
            )
        return cls(str(arrays["generator_sha256"][()]), parts)


def _json_object(text: str, what: str) -> dict[str, Any]:
    try:
        about = json.loads(text)
    except (ValueError, RecursionError):
        about = None
    if not isinstance(about, dict):
        raise BadModelFile(f"{what}: about must be a JSON object")
    spread = about.get("score_spread")
    if isinstance(spread, bool) or not isinstance(spread, int | float) or not spread > 0:
        raise BadModelFile(f"{what}: score_spread must be a number above 0, got {spread!r:.40}")
    return about


def edit(
    w: NDArray[Any], moves: Sequence[tuple[Direction, float]], layers: Sequence[int] | None = None
) -> Float32:
    """w (L, D) + strength · direction for each move, in ``layers`` (all if None). ``BadArgument``."""
    moved = np.array(w, np.float64)
    for direction, strength in moves:
        if direction.vector.shape != moved.shape[1:]:
            raise BadArgument(
                f"{direction.name}: a direction of {direction.vector.shape} does not fit w {moved.shape}"
            )
        if not abs(strength) <= 1e3:  # false for NaN
            raise BadArgument(f"{direction.name}: strength must be within ±1000, got {strength:g}")
        rows = slice(None) if layers is None else list(layers)
        moved[rows] += strength * direction.vector.astype(np.float64)
    edited: Float32 = moved.astype(np.float32)
    return edited


# --- learning ---


@dataclass(frozen=True)
class Attribute:
    """What to learn: scores (N,), NaN where a sample has none; how to fit them; which others are to stay."""

    name: str
    scores: NDArray[Any]
    model: Model = "ridge"
    against: tuple[str, ...] = ()
    source: str = ""


def learn(
    w: NDArray[Any], attributes: Sequence[Attribute], generator_sha256: str, seed: int = 0
) -> Directions:
    """Fit directions to latents w (N, D) and their scores.

    ``seed`` picks the samples that are held out. Raises ``BadArgument``: too few samples, a score that does
    not vary, a direction that is only a mixture of those it must leave alone.
    """
    latents = np.asarray(w, np.float64)
    if latents.ndim != 2 or not np.isfinite(latents).all():
        raise BadArgument(f"directions: w must be (N, D) and finite, got {latents.shape}")
    names = [attribute.name for attribute in attributes]
    if not names or len(set(names)) < len(names):
        raise BadArgument(f"directions: wanted attributes, each once, got {', '.join(names) or 'none'}")
    decompositions: dict[bytes, _Decomposition] = {}
    fits = {a.name: _fit(latents, a, seed, decompositions) for a in attributes}
    parts = {}
    for attribute in attributes:
        for other in attribute.against:
            if other not in fits or other == attribute.name:
                raise BadArgument(
                    f"{attribute.name}: cannot be kept apart from {other!r:.60}; "
                    f"learned are {', '.join(names)}"
                )
        parts[attribute.name] = _direction(latents, attribute, fits)
    return Directions(generator_sha256, parts)


@dataclass(frozen=True)
class _Fit:
    normal: Float64
    intercept: float
    rows: NDArray[np.intp]
    worth: dict[str, float]
    penalty: float


def _direction(latents: Float64, attribute: Attribute, fits: Mapping[str, _Fit]) -> Direction:
    fit = fits[attribute.name]
    others = np.array([fits[name].normal for name in attribute.against])
    rest = fit.normal.copy()
    if len(others):
        # An orthonormal basis of the others, however alike they are among themselves.
        _, sizes, basis = np.linalg.svd(others, full_matrices=False)
        basis = basis[sizes > 1e-9 * max(sizes[0], 1e-300)]
        for _ in range(2):  # twice is enough (Kahan, in Parlett 1998, section 6.9)
            rest = rest - basis.T @ (basis @ rest)
    length = float(np.linalg.norm(rest))
    left = length / float(np.linalg.norm(fit.normal))
    if left < LEAST_LEFT:
        raise BadArgument(
            f"{attribute.name}: next to nothing of it ({left:.1%}) is left beside "
            f"{', '.join(attribute.against)}; they are the same attribute here"
        )
    unit = rest / length
    spread = float((latents[fit.rows] @ unit).std())
    score_spread = float((latents[fit.rows] @ fit.normal).std())
    about = {
        "model": attribute.model,
        **{name: round(value, 4) for name, value in fit.worth.items()},
        "samples": len(fit.rows),
        "held_out": HELD_OUT,
        "penalty": fit.penalty,
        "against": list(attribute.against),
        "left_beside_others": round(left, 4),
        "unit_length": spread,
        "score_spread": score_spread,
        "score_mean": float(np.nanmean(attribute.scores)),
        "source": attribute.source,
    }
    vector = (unit * spread).astype(np.float32)
    return Direction(attribute.name, vector, fit.normal.astype(np.float32), fit.intercept, about)


def _fit(
    latents: Float64, attribute: Attribute, seed: int, decompositions: dict[bytes, _Decomposition]
) -> _Fit:
    scores = np.asarray(attribute.scores, np.float64)
    if scores.shape != (len(latents),):
        raise BadArgument(f"{attribute.name}: wanted ({len(latents)},) scores, got {scores.shape}")
    there = np.isfinite(scores)
    rows = np.flatnonzero(there)
    if len(rows) < LEAST_SAMPLES:
        raise BadArgument(
            f"{attribute.name}: wanted at least {LEAST_SAMPLES} samples with a score, got {len(rows)} of "
            f"{len(scores)}"
        )
    order = np.random.default_rng(seed).permutation(len(rows))
    cut = max(round(HELD_OUT * len(rows)), 1)
    test, train = rows[np.sort(order[:cut])], rows[np.sort(order[cut:])]
    if attribute.model == "logistic":
        return _logistic(latents, scores, rows, train, test, attribute.name)
    if attribute.model != "ridge":
        raise BadArgument(f"a fit is one of {', '.join(MODELS)}, got {attribute.model!r:.20}")
    if not scores[train].std() > 1e-9 * (1 + abs(scores[train].mean())) or not scores[test].std() > 0:
        raise BadArgument(f"{attribute.name}: the score is the same for all samples")
    key = there.tobytes()
    if key not in decompositions:
        decompositions[key] = _Decomposition.of(latents[train])
    normal, intercept, penalty = decompositions[key].ridge(scores[train])
    if not np.linalg.norm(normal) > 0:
        raise BadArgument(f"{attribute.name}: does not depend on the latent")
    error = scores[test] - latents[test] @ normal - intercept
    explained = 1 - float(error @ error) / float(((scores[test] - scores[test].mean()) ** 2).sum())
    return _Fit(normal, intercept, rows, {"r2": explained}, penalty)


@dataclass(frozen=True)
class _Decomposition:
    """Latents (N, D) about their mean as U S Vᵀ: made once for all attributes of the same samples."""

    mean: Float64
    u: Float64
    s: Float64
    vt: Float64

    @classmethod
    def of(cls, latents: Float64) -> _Decomposition:
        mean = latents.mean(axis=0)
        u, s, vt = np.linalg.svd(latents - mean, full_matrices=False)
        there = s > 1e-12 * max(float(s[0]), 1e-300)
        return cls(mean, u[:, there], s[there], vt[there])

    def ridge(self, scores: Float64) -> tuple[Float64, float, float]:
        """Normal, intercept, and the penalty with the least error when each sample in turn is left out
        (Golub, Heath and Wahba 1979; the error in closed form, from the diagonal of the hat matrix)."""
        middle = float(scores.mean())
        y = scores - middle
        along = self.u.T @ y
        squares = self.u**2
        best: tuple[float, float] | None = None
        for share in _PENALTIES:
            penalty = float(share * self.s[0] ** 2)
            kept = self.s**2 / (self.s**2 + penalty)
            leverage = squares @ kept + 1 / len(y)
            left_out = (y - self.u @ (kept * along)) / np.maximum(1 - leverage, 1e-9)
            error = float(left_out @ left_out)
            if best is None or error < best[0]:
                best = (error, penalty)
        assert best is not None
        normal: Float64 = self.vt.T @ (self.s / (self.s**2 + best[1]) * along)
        return normal, middle - float(self.mean @ normal), best[1]


def _logistic(
    latents: Float64,
    scores: Float64,
    rows: NDArray[np.intp],
    train: NDArray[np.intp],
    test: NDArray[np.intp],
    name: str,
) -> _Fit:
    """A score of two values is taken as it is, any other cut at its median."""
    values = np.unique(scores[rows])
    cut = float(values.mean()) if len(values) == 2 else float(np.median(scores[train]))
    labels = (scores > cut).astype(np.float64)
    for part in (train, test):
        if not 0 < labels[part].sum() < len(part):
            raise BadArgument(f"{name}: wanted samples with and without it, got only one kind")
    mean, scale = latents[train].mean(axis=0), float(latents[train].std()) or 1.0
    x = (latents - mean) / scale
    # A fifth of the training samples chooses the penalty, then all of them fit.
    inner = np.arange(len(train)) % 5 == 0
    errors = []
    for penalty in _LOGISTIC_PENALTIES:
        beta, bias = _newton(x[train[~inner]], labels[train[~inner]], float(penalty))
        logits = x[train[inner]] @ beta + bias
        errors.append(float(np.logaddexp(0, -(2 * labels[train[inner]] - 1) * logits).mean()))
    penalty = float(_LOGISTIC_PENALTIES[int(np.argmin(errors))])
    beta, bias = _newton(x[train], labels[train], penalty)
    normal = beta / scale
    intercept = bias - float(mean @ normal)
    right = (latents[test] @ normal + intercept > 0) == (labels[test] > 0)
    worth = {"accuracy": float(right.mean()), "share_with": float(labels[rows].mean()), "cut": cut}
    return _Fit(normal, intercept, rows, worth, penalty)


def _newton(x: Float64, labels: Float64, penalty: float) -> tuple[Float64, float]:
    """Least mean log loss + penalty / (2 N) |beta|², by damped Newton steps."""
    count, size = x.shape
    wide = np.column_stack([x, np.ones(count)])
    ridge = np.append(np.full(size, penalty), 0.0) / count
    signs = 2 * labels - 1
    beta = np.zeros(size + 1)

    def loss(at: Float64) -> float:
        return float(np.logaddexp(0, -signs * (wide @ at)).mean() + 0.5 * (ridge * at * at).sum())

    value = loss(beta)
    for _ in range(_NEWTON_STEPS):
        likely = 1 / (1 + np.exp(-np.clip(wide @ beta, -500, 500)))
        gradient = wide.T @ (likely - labels) / count + ridge * beta
        curvature = np.maximum(likely * (1 - likely), 1e-12)
        hessian = (wide * curvature[:, None]).T @ wide / count + np.diag(ridge + 1e-12)
        step = np.linalg.solve(hessian, gradient)
        length = 1.0
        while length > 1e-6 and loss(beta - length * step) > value:
            length /= 2
        beta = beta - length * step
        before, value = value, loss(beta)
        if before - value < 1e-10 * max(before, 1e-3):
            break
    return beta[:-1], float(beta[-1])
