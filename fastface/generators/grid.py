"""Identities × expressions × ages × intensities as a set of stimuli, with a codebook.

The design is that of SZU-EmoDage ("A Chinese Face Dataset with Dynamic Expressions and Diverse Ages
Synthesized by Deep Learning", Scientific Data 2023, doi:10.1038/s41597-023-02701-2): each person in each
expression at each age, from neutral to apex.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from fastface.codebook import Columns
from fastface.errors import BadArgument
from fastface.generators.directions import Direction, edit
from fastface.generators.latents import Floats, Latent, Way, interpolate

CODEBOOK_FORMAT: Final = "fastface-codebook"
CODEBOOK_VERSION: Final = 1
#: Of the codebook.
COLUMNS: Final[Columns] = {
    "image": ("string", "file name"),
    "identity": ("string", "who: the name of the latent"),
    "identity_sha256": ("string", "SHA-256 of that latent, hex"),
    "expression": ("string", "what was asked for; neutral at intensity 0"),
    "intensity": ("float64", "share of the way from neutral to the expression's apex, exact, 0 … 1"),
    "expression_strength": (
        "float64",
        "how far along the expression's direction, in standard deviations; empty where the apex is a latent",
    ),
    "apex": ("string", "where the apex comes from: direction, or the SHA-256 of a latent"),
    "age": ("float64", "the level asked for, in the unit of age_unit"),
    "age_unit": ("string", "strength: standard deviations along the age direction; score: its fitted score"),
    "age_strength": ("float64", "how far along the age direction, in standard deviations"),
    "age_score": ("float64", "fitted score of the finished latent; empty without an age direction"),
    "expression_layers": ("list", "layers of w that the expression moves, low to high"),
    "age_layers": ("list", "layers of w that age moves"),
    "way": ("string", "linear or spherical, between neutral and an apex latent"),
    "noise": ("string", "own: the latent's, const: the checkpoint's, none"),
    "w_sha256": ("string", "SHA-256 of the latent that the picture shows, hex"),
    "checkpoint_sha256": ("string", "SHA-256 of the generator's checkpoint, hex"),
    "width_px": ("int64", "of the picture"),
    "height_px": ("int64", "of the picture"),
    "provenance": ("bool", "whether the picture carries its marking as synthetic"),
    "face_found": (
        "bool",
        "measured: whether the landmark networks find a face; empty if not looked",
    ),
    "seen_expression": ("string", "measured: the nearest basic expression; empty without a face"),
    "seen_intensity": ("float64", "measured: of that expression, 0 … 1"),
    "valence": ("float64", "measured, by the blendshape network and the affect tables, -1 … 1"),
    "arousal": ("float64", "measured, likewise"),
}


@dataclass(frozen=True)
class Expression:
    """One expression of the grid: a direction and how far its apex is, or the apex as a latent."""

    name: str
    direction: Direction | None = None
    strength: float = 0.0
    apex: Latent | None = None


@dataclass(frozen=True)
class Design:
    """What the grid holds. ages: levels in ``age_unit``, "strength" or "score"; without an age direction
    they must be (0.0,)."""

    expressions: tuple[Expression, ...]
    intensities: tuple[float, ...]
    ages: tuple[float, ...] = (0.0,)
    age_unit: str = "strength"
    age: Direction | None = None
    expression_layers: tuple[int, ...] = ()
    age_layers: tuple[int, ...] = ()
    way: Way = "linear"

    def check(self, identities: int) -> None:
        """Raise ``BadArgument`` for what makes no sense."""
        for what, levels in (("intensity", self.intensities), ("age", self.ages)):
            if not levels or len(set(levels)) < len(levels):
                raise BadArgument(f"grid: wanted levels of {what}, each once, got {levels}")
        if not all(0 < level <= 1 for level in self.intensities):
            raise BadArgument(
                f"grid: intensities lie above 0 and up to 1 (neutral comes by itself), got {self.intensities}"
            )
        names = [expression.name for expression in self.expressions]
        if not names or len(set(names)) < len(names) or "neutral" in names:
            raise BadArgument(f"grid: wanted expressions besides neutral, each once, got {', '.join(names)}")
        if self.age is None and self.ages != (0.0,):
            raise BadArgument("grid: levels of age need a direction for it")
        if identities > 1 and any(expression.apex is not None for expression in self.expressions):
            raise BadArgument("grid: an apex latent belongs to one identity; use directions for several")

    def count(self, identities: int) -> int:
        """Pictures in all: one neutral for each age, and each expression at each intensity."""
        return identities * len(self.ages) * (1 + len(self.expressions) * len(self.intensities))


@dataclass(frozen=True)
class Cell:
    """One picture: its file's stem, its latent, its row of the codebook as far as it is known before."""

    stem: str
    w: Floats
    row: dict[str, Any]


def cells(
    identities: Sequence[tuple[str, Latent]], design: Design, centre: Floats | None = None
) -> Iterator[Cell]:
    """All pictures of a grid, identity by identity, then age, then expression, then intensity.

    centre: (L, D) that spherical ways go about. Raises ``BadArgument``.
    """
    design.check(len(identities))
    names = [name for name, _ in identities]
    if not names or len(set(names)) < len(names):
        raise BadArgument(f"grid: wanted identities, each name once, got {', '.join(names) or 'none'}")
    for name, latent in identities:
        for level in design.ages:
            strength, moved = _aged(latent, design, level)
            shared = {
                "identity": name,
                "identity_sha256": latent.digest,
                "age": level,
                "age_unit": design.age_unit,
                "age_strength": round(strength, 6),
                "expression_layers": list(design.expression_layers),
                "age_layers": list(design.age_layers),
                "way": design.way,
            }
            yield _cell(latent.w + moved, design, shared, "neutral", 0.0, None)
            for expression in design.expressions:
                for intensity in design.intensities:
                    shown = _shown(latent, expression, intensity, design, centre)
                    yield _cell(shown + moved, design, shared, expression.name, intensity, expression)


def _aged(latent: Latent, design: Design, level: float) -> tuple[float, Floats]:
    """Strength along the age direction, and what it adds to w."""
    if design.age is None:
        return 0.0, latent.w * 0
    if design.age_unit == "score":
        strength = design.age.strength_to(latent.w, level, design.age_layers)
    else:
        strength = level
    return strength, edit(latent.w * 0, [(design.age, strength)], design.age_layers)


def _shown(
    latent: Latent, expression: Expression, intensity: float, design: Design, centre: Floats | None
) -> Floats:
    layers = list(design.expression_layers)
    if expression.apex is None:
        assert expression.direction is not None
        return edit(latent.w, [(expression.direction, intensity * expression.strength)], layers)
    apex = latent.w.copy()
    apex[layers] = expression.apex.w[layers]
    (shown,) = interpolate(latent.w, apex, [intensity], design.way, centre)
    return np.asarray(shown, np.float32)


def _cell(
    w: Floats,
    design: Design,
    shared: dict[str, Any],
    name: str,
    intensity: float,
    expression: Expression | None,
) -> Cell:
    direct = expression is not None and expression.direction is not None
    strength = intensity * expression.strength if expression is not None and direct else None
    apex = "" if expression is None else "direction" if expression.apex is None else expression.apex.digest
    row = {
        **shared,
        "expression": name,
        "intensity": intensity,
        "expression_strength": None if strength is None else round(strength, 6),
        "apex": apex,
        "age_score": None if design.age is None else round(float(design.age.score(w)), 4),
    }
    stem = f"{shared['identity']}.{name}-{intensity:.2f}.age{shared['age']:+g}"
    return Cell(stem, w.astype("float32", copy=False), row)


def described(design: Design, identities: Sequence[str], pictures: int) -> dict[str, Any]:
    """What a grid is, for a JSON file beside its codebook."""
    return {
        "format": CODEBOOK_FORMAT,
        "version": CODEBOOK_VERSION,
        "pictures": pictures,
        "design": {
            "identities": list(identities),
            "expressions": ["neutral", *(expression.name for expression in design.expressions)],
            "intensities": list(design.intensities),
            "ages": list(design.ages),
            "age_unit": design.age_unit,
        },
    }
