"""A gallery to learn from where there is none: people, what they feel over time, and how each shows it.

4DFAB, on which the paper's affect models were built (Kollias et al., IJCV 2020, section 4.2: 180 people,
600,000 annotated frames at 60 frames/s), is not public. This gallery stands in for it, and says so:

- **People.** Each has an identity, a resting face that is not quite neutral, and a way of expressing: every
  shape stronger or weaker than usual (log-normal), one half of the face leading (asymmetry), some muscles
  later than others.
- **Recordings.** From rest through onset, apex and offset back to rest, along minimum-jerk paths through the
  plane of valence and arousal; a share of them posed (exactly one expression of ``EXPRESSIONS``), the others
  to points of the unit disc, or from one point to another.
- **Annotation.** Valence and arousal of every frame, as raters give them: with slow errors, in thousandths.

What a point of the plane shows before a person makes it their own is ``circumplex.circumplex_weights`` of the
prototypes in ``affect_tables``. All of it follows from the seed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fastface.action_units import spread
from fastface.affect_csv import minimum_jerk
from fastface.affect_tables import EXPRESSIONS, PROTOTYPES, SHAPES
from fastface.errors import BadArgument
from fastface.workshop.circumplex import POINT_VA, POINTS, circumplex_weights
from fastface.workshop.gallery import GalleryWriter, Rows

Array = NDArray[np.float64]

_FEATURES: Final = tuple(name.removesuffix("Left").removesuffix("Right") for name in SHAPES)
#: What a sampled gallery says of itself.
MADE: Final = "sampled, no recordings of people"


@dataclass(frozen=True)
class Recipe:
    """How many, and how varied. Standard deviations unless said otherwise."""

    subjects: int = 60
    recordings: int = 48  # of each subject
    fps: float = 60.0
    posed: float = 0.25  # share of recordings
    strength: float = 0.18  # log of how strongly a person shows a shape
    asymmetry: float = 0.06  # of a shape, half against half
    lag_s: float = 0.03  # of a shape
    rest: float = 0.02  # coefficient of a shape at rest, never below 0
    rating: float = 0.025  # of the raters
    seed: int = 0

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if not np.isfinite(value) or value < 0:
                raise BadArgument(f"sample-gallery: {name} must not be negative, got {value}")
        if not (self.subjects >= 1 and self.recordings >= 1 and 1 <= self.fps <= 1000):
            raise BadArgument("sample-gallery: wanted at least one subject, one recording and 1 … 1000 fps")


def sample_gallery(
    folder: str | Path,
    family: str = "default",
    recipe: Recipe | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write a gallery of coefficients as the module's text says; ``family`` as in ``affect_tables``.

    ``progress(done, subjects)`` is called after each person. Raises ``BadArgument``, ``WriteFailed``.
    """
    recipe = recipe or Recipe()
    if family not in PROTOTYPES:
        raise BadArgument(f"family must be one of {', '.join(PROTOTYPES)}, got {family!r:.40}")
    prototypes = np.array([spread(PROTOTYPES[family][name]) for name in POINTS])
    about: dict[str, Any] = {"made": MADE, "family": family, **asdict(recipe)}
    labels: dict[str, Any] = {"names": SHAPES, "expressions": EXPRESSIONS, "about": about}
    with GalleryWriter(folder, "coefficients", len(SHAPES), **labels) as writer:
        for subject in range(recipe.subjects):
            random = np.random.default_rng([recipe.seed, subject])
            person = _Person(recipe, random)
            for number in range(recipe.recordings):
                rows = person.record(recipe, prototypes, random)
                writer.add(_numbered(rows, subject, subject * recipe.recordings + number))
            if progress:
                progress(subject + 1, recipe.subjects)


class _Person:
    """How somebody expresses: (52,) arrays over ``SHAPES``."""

    def __init__(self, recipe: Recipe, random: np.random.Generator) -> None:
        features, place = np.unique(_FEATURES, return_inverse=True)
        strength = np.exp(random.normal(0, recipe.strength, len(features)))
        leaning = random.normal(0, recipe.asymmetry, len(features))
        side = np.array([name.endswith("Left") * 1.0 - name.endswith("Right") for name in SHAPES])
        self.strength: Array = (strength[place] * (1 + side * leaning[place])).clip(0, None)
        self.lag_s: Array = random.normal(0, recipe.lag_s, len(features))[place]
        self.rest: Array = np.abs(random.normal(0, recipe.rest, len(features)))[place]

    def record(self, recipe: Recipe, prototypes: Array, random: np.random.Generator) -> dict[str, Any]:
        """One recording: coefficients (F, 52) and annotations."""
        expression = int(random.integers(len(EXPRESSIONS))) if random.random() < recipe.posed else -1
        times_s, path = _feelings(expression, recipe.fps, random)
        felt = circumplex_weights(path[:, 0], path[:, 1]) @ prototypes
        later = times_s[:, None] - self.lag_s
        shown = np.stack([np.interp(later[:, k], times_s, felt[:, k]) for k in range(felt.shape[1])], axis=1)
        values = np.clip(self.rest + self.strength * shown, 0, 1.2)
        errors = np.cumsum(random.normal(0, recipe.rating / 4, path.shape), axis=0)
        errors -= np.linspace(0, 1, len(path))[:, None] * errors[-1]  # right at rest, before and after
        rated = np.round(np.clip(path + np.clip(errors, -3 * recipe.rating, 3 * recipe.rating), -1, 1), 3)
        calm = np.hypot(*path.T)
        return {
            "values": values,
            "valence": rated[:, 0],
            "arousal": rated[:, 1],
            "expression": np.where(calm > 0.95 * calm.max(), expression, -1),
            "neutral": calm < 1e-9,
        }


def _feelings(expression: int, fps: float, random: np.random.Generator) -> tuple[Array, Array]:
    """Times (F,) s and the way through the plane (F, 2)."""
    if expression >= 0:
        stops = [POINT_VA[expression] * random.uniform(0.7, 1.0)]
    else:
        stops = [_place(random) for _ in range(1 if random.random() < 0.7 else 2)]
    seconds, places = [0.0, random.uniform(0.1, 0.3)], [np.zeros(2), np.zeros(2)]
    for stop in stops:
        for wait, drift in ((random.uniform(0.35, 1.1), 0.0), (random.uniform(0.2, 0.9), 0.03)):
            seconds.append(seconds[-1] + wait)
            places.append(stop + (0 if expression >= 0 else random.normal(0, drift, 2)))
    for wait in (random.uniform(0.4, 1.3), random.uniform(0.1, 0.3)):
        seconds.append(seconds[-1] + wait)
        places.append(np.zeros(2))
    times = np.arange(int(seconds[-1] * fps) + 1) / fps
    part = np.clip(np.searchsorted(seconds, times, side="right") - 1, 0, len(seconds) - 2)
    begin, end = np.array(seconds)[part], np.array(seconds)[part + 1]
    t = minimum_jerk((times - begin) / (end - begin))[:, None]
    way = (1 - t) * np.array(places)[part] + t * np.array(places)[part + 1]
    radius = np.maximum(np.hypot(*way.T), 1.0)[:, None]
    return times, np.asarray(way / radius)


def _place(random: np.random.Generator) -> Array:
    angle, radius = random.uniform(0, 2 * np.pi), random.uniform(0.15**1.5, 1) ** (1 / 1.5)
    return np.array([radius * np.cos(angle), radius * np.sin(angle)])


def _numbered(record: dict[str, Any], subject: int, sequence: int) -> Rows:
    count = len(record["values"])
    return Rows(
        subject=np.full(count, subject, np.int32),
        sequence=np.full(count, sequence, np.int32),
        frame=np.arange(count, dtype=np.int32),
        **record,
    )
