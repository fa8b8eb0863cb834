"""Prototype search, apart from faces and judges: what a prototype costs and is worth, and where to look."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from benchmarks.judges import CLASSIFIERS
from fastface.affect_tables import CENTRAL_SHAPES, SIDED_SHAPES

Prototype = dict[str, float]

# Beyond this a higher probability is caricature, not expression: it gains nothing.
ENOUGH = 0.95
# Half a tenth below what is wanted of the mean, so that the person farthest off keeps a margin.
IDENTITY_LIMIT = {"happy": 0.25}
IDENTITY_LIMIT_OTHERS = 0.35
IDENTITY_WEIGHT = 3.0
# One coefficient of 1 must earn two hundredths of probability.
SPARSITY_WEIGHT = 0.02
CAP_WEIGHT = 2.0
# Where a face stops looking human, from looking at renderings; 1 for all others.
HUMAN_CAPS = {"eyeWide": 0.7, "browDown": 0.9, "mouthFunnel": 0.6, "jawOpen": 0.7, "eyeBlink": 0.4}
# No expression turns the eyes, the jaw or the tongue aside.
NEVER = ("Look", "jawLeft", "jawRight", "jawForward", "mouthLeft", "mouthRight", "tongueOut", "cheekPuff")
CANDIDATES = tuple(
    name for name in (*SIDED_SHAPES, *CENTRAL_SHAPES) if not any(word in name for word in NEVER)
)


@dataclass(frozen=True)
class Verdict:
    """What the judges say of one prototype over some people."""

    score: float
    probabilities: dict[str, list[float]] = field(repr=False)
    identity: list[float] = field(repr=False)
    travel: float = 0.0

    def row(self) -> list[str]:
        """Score, mean P and share at P ≥ 0.8 of each classifier, identity mean and maximum, travel."""
        cells = [f"{self.score:.3f}"]
        for judge in CLASSIFIERS:
            values = np.asarray(self.probabilities[judge])
            cells.append(f"{values.mean():.2f} ({(values >= 0.8).mean():.0%})")
        return [*cells, f"{np.mean(self.identity):.3f}", f"{np.max(self.identity):.3f}", f"{self.travel:.1f}"]


HEADINGS = ("score", *(f"{judge} P (share)" for judge in CLASSIFIERS), "identity", "max", "travel %")


def prior(prototype: Mapping[str, float]) -> float:
    """Cost of a prototype by itself: many and large coefficients, and steeply those beyond human."""
    total = SPARSITY_WEIGHT * sum(prototype.values())
    beyond = (max(0.0, value - HUMAN_CAPS.get(name, 1.0)) for name, value in prototype.items())
    return total + CAP_WEIGHT * sum(excess * excess for excess in beyond)


def score(probabilities: Mapping[str, Sequence[float]], identity: Sequence[float], limit: float) -> float:
    """Mean probability, capped at ENOUGH, minus what the identity distances exceed `limit` by."""
    readable = np.mean([np.minimum(values, ENOUGH) for values in probabilities.values()])
    excess = np.maximum(np.asarray(identity) - limit, 0.0).mean()
    return float(readable - IDENTITY_WEIGHT * excess)


def coefficient_vector(prototype: Mapping[str, float], names: Sequence[str]) -> NDArray[np.float32]:
    """(E,) float32; a name without side is both sides. KeyError for a shape the head does not have."""
    vector = np.zeros(len(names), np.float32)
    index = {name: i for i, name in enumerate(names)}
    for shape, value in prototype.items():
        sides = (shape,) if shape in index else (f"{shape}Left", f"{shape}Right")
        for side in sides:
            vector[index[side]] = value
    return vector


def moves(prototype: Prototype, step: float, random: np.random.Generator) -> Iterator[Prototype]:
    """One sweep of neighbours: every coefficient a step up, down and left out, then new ones."""
    for name in random.permutation(sorted(prototype)).tolist():
        value = prototype[name]
        without = {key: other for key, other in prototype.items() if key != name}
        yield {**prototype, name: round(value + step, 3)}
        yield {**without, name: round(value - step, 3)} if value - step > 0.02 else without
        yield without
    new = [name for name in CANDIDATES if name not in prototype]
    for name in random.permutation(new).tolist():
        yield {**prototype, name: round(1.5 * step, 3)}


def search(
    judge: Callable[[Prototype], Verdict],
    start: Prototype,
    budget: int,
    random: np.random.Generator,
    accepted: Callable[[Prototype, Verdict], None],
    step: float = 0.2,
) -> tuple[Prototype, Verdict]:
    """Greedy coordinate search: a neighbour that scores better is the new centre; a dry sweep narrows."""
    best, verdict = start, judge(start)
    accepted(best, verdict)
    seen = {tuple(sorted(start.items()))}
    spent = 1
    while spent < budget and step > 0.03:
        improved = False
        for candidate in moves(best, step, random):
            key = tuple(sorted(candidate.items()))
            if key in seen or not candidate:
                continue
            seen.add(key)
            found = judge(candidate)
            spent += 1
            if found.score > verdict.score + 1e-3:
                best, verdict, improved = candidate, found, True
                accepted(best, verdict)
                break
            if spent >= budget:
                break
        if not improved:
            step *= 0.6
    return best, verdict
