"""What a caller can ask a face to show, and what that means in coefficients and in labels.

An ``Affect`` is one of: a mixture of basic expressions (usually one), a point of valence and arousal, or a
set of FACS action units. An ``AffectModel`` turns it into ARKit-named coefficients and into labels; the
tables behind the model and their sources stand in ``fastface.affect_tables``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, Protocol, overload

import numpy as np
from numpy.typing import NDArray

from fastface import action_units as au
from fastface.action_units import AU_COLUMNS, Array
from fastface.affect_csv import (
    KeyFrames,
    Kind,
    checked_number,
    frame_times,
    interpolate,
    read_key_frames,
)
from fastface.affect_tables import CIRCUMPLEX, EVERYDAY, EXPRESSIONS, PROTOTYPES, SHAPES, SUPPORTS
from fastface.class_model import AffectClasses, affect_classes, columns_of
from fastface.errors import BadAffect, BadModelFile

Coefficients = NDArray[np.float32]

#: Words people try first; only ever used to suggest the right one.
_SYNONYMS: Final = {
    "joy": "happy",
    "joyful": "happy",
    "smile": "happy",
    "happiness": "happy",
    "unhappy": "sad",
    "sorrow": "sad",
    "afraid": "fear",
    "scared": "fear",
    "angry": "anger",
    "mad": "anger",
    "rage": "anger",
    "shock": "surprise",
    "astonished": "surprise",
    "disdain": "contempt",
    "scorn": "contempt",
    "calm": "neutral",
}

_POINTS: Final = (*EXPRESSIONS, *SUPPORTS)
_POINT_VA: Final[Array] = np.array([CIRCUMPLEX[name] for name in _POINTS])
_EVERYDAY_INTENSITY: Final = 0.6
#: A face that resembles an expression less than this is called neutral.
_RESEMBLES: Final = 0.18


@dataclass(frozen=True, slots=True)
class AffectLabels:
    """What an affect shows, in every vocabulary at once.

    ``expression``: one of ``EXPRESSIONS`` or "neutral", the nearest; ``intensity`` [0, 1] of that expression,
    0 for neutral; ``aus``: the action units that show, [0, 1], absent ones left out; ``valence``, ``arousal``
    [-1, 1].
    """

    expression: str
    intensity: float
    aus: dict[str, float]
    valence: float
    arousal: float


@dataclass(frozen=True, slots=True)
class Affect:
    """One thing to show. Make it with the class methods; every number is checked (``BadAffect``)."""

    kind: Kind
    #: expressions: (name, intensity) with intensities summing to at most 1; action_units: (name, intensity);
    #: valence_arousal: ("valence", v), ("arousal", a). Zeros are left out of the first two; sorted by name.
    parts: tuple[tuple[str, float], ...] = field(default=())
    #: Of valence and arousal: None for the mean face, a number for one of those that people show there.
    variant: int | None = None

    def __post_init__(self) -> None:
        check = {"expressions": _check_blend, "action_units": _check_aus, "valence_arousal": _check_va}.get(
            self.kind
        )
        if check is None:
            raise BadAffect(
                f"an affect is expressions, action_units or valence_arousal, got {self.kind!r:.40}"
            )
        object.__setattr__(self, "parts", check(dict(self.parts)))
        if self.variant is not None and self.kind != "valence_arousal":
            raise BadAffect(f"variants are of valence and arousal, not of {self.kind}")
        whole = isinstance(self.variant, int) and not isinstance(self.variant, bool)
        if self.variant is not None and not (whole and 0 <= self.variant < 1 << 32):
            raise BadAffect(f"variant must be a whole number 0 … 2^32 - 1 or None, got {self.variant!r:.40}")

    @classmethod
    def neutral(cls) -> Affect:
        """Nothing: the photo itself."""
        return cls("expressions")

    @classmethod
    def expression(cls, name: str, intensity: float = 1.0) -> Affect:
        """A basic expression: ``name`` of ``EXPRESSIONS`` or "neutral"; 0.6 is everyday, 1 strong but
        human."""
        return cls.blend({name: intensity})

    @classmethod
    def blend(cls, intensities: Mapping[str, float]) -> Affect:
        """Several expressions at once, {"happy": 0.5, "surprise": 0.5}; the intensities sum to at most 1."""
        return cls("expressions", _pairs(intensities, "expressions"))

    @classmethod
    def va(cls, valence: float, arousal: float, variant: int | None = None) -> Affect:
        """A point of the circumplex, both in [-1, 1]; (0, 0) is neutral.

        ``variant``: not the mean face of that point but one of those that people show there; the same number,
        the same face.
        """
        return cls("valence_arousal", (("valence", valence), ("arousal", arousal)), variant)

    @classmethod
    def aus(cls, intensities: Mapping[str, float]) -> Affect:
        """FACS action units, {"AU1": 1.0, "AU12L": 0.5}, each in [0, 1]; L and R are the subject's left and
        right."""
        return cls("action_units", _pairs(intensities, "action units"))

    @classmethod
    def pain(cls, score: float) -> Affect:
        """The face of pain of that Prkachin and Solomon score, in [0, 16] (``action_units.pspi``)."""
        return cls.aus(au.units_in_pain(checked_number(score, "pain", 0.0, au.MOST_PAIN)))

    @staticmethod
    def path(points: Sequence[Any], fps: float = 30.0) -> AffectPath:
        """Affects over time at ``fps`` frames a second. ``points`` are all of one kind:

        ``(valence, arousal)`` or ``Affect``: one frame each; ``(time_s, valence, arousal)`` or
        ``(time_s, Affect)``: key frames, interpolated without overshoot.
        """
        return AffectPath.from_points(points, fps)

    def coefficients(self, names: Sequence[str], family: str = "default") -> Coefficients:
        """(E,) float32 for the ARKit-named expressions of a head; ``family``: which head's prototypes."""
        return affect_model(family).coefficients(self, names)

    @property
    def labels(self) -> AffectLabels:
        """Labels with the default head's prototypes; ``affect_model(family).labels`` for another head's."""
        return affect_model().labels(self)

    def scaled(self, factor: float) -> Affect:
        """The same affect at a fraction of its strength; ``factor`` in [0, 1]."""
        factor = checked_number(factor, "intensity", 0.0, 1.0)
        return Affect(self.kind, tuple((name, value * factor) for name, value in self.parts), self.variant)

    @property
    def slug(self) -> str:
        """Short, safe in a file name, two decimals: surprise-0.50, va+0.80-0.40, va+0.80-0.40.v3,
        AU1-1.00_AU12-0.80, neutral-0.00."""
        if self.kind == "valence_arousal":
            point = "va" + "".join(f"{value + 0.0:+.2f}" for _, value in self.parts)
            return point if self.variant is None else f"{point}.v{self.variant}"
        return "_".join(f"{name}-{value:.2f}" for name, value in self.parts) or "neutral-0.00"


def _pairs(intensities: object, what: str) -> tuple[tuple[str, float], ...]:
    if not isinstance(intensities, Mapping):
        raise BadAffect(f"{what} must be a mapping of name to intensity, got {type(intensities).__name__}")
    return tuple(intensities.items())


def _suggestion(name: object, known: Sequence[str]) -> str:
    import difflib

    word = str(name)[:80].casefold()
    folded = {candidate.casefold(): candidate for candidate in known}
    close = difflib.get_close_matches(word, [*folded, *_SYNONYMS], n=1, cutoff=0.6)
    found = folded.get(_SYNONYMS.get(close[0], close[0])) if close else None
    return f"; did you mean {found!r}?" if found else f"; known: {', '.join(known)}"


def _check_blend(parts: dict[str, float]) -> tuple[tuple[str, float], ...]:
    known = ("neutral", *EXPRESSIONS)
    for name in parts:
        if name not in known:
            raise BadAffect(f"unknown expression {name!r:.40}{_suggestion(name, known)}")
    checked = {name: checked_number(value, f"{name}: intensity", 0.0, 1.0) for name, value in parts.items()}
    checked.pop("neutral", None)
    # A hundredth of slack for sums of rounded numbers; what is stored sums to 1 at most.
    total = sum(checked.values())
    if total > 1.01:
        raise BadAffect(f"the intensities of blended expressions must sum to at most 1, got {total:g}")
    return tuple(sorted((name, value / max(total, 1.0)) for name, value in checked.items() if value > 0))


def _check_aus(parts: dict[str, float]) -> tuple[tuple[str, float], ...]:
    for name in parts:
        if name not in AU_COLUMNS:
            raise BadAffect(f"unknown action unit {name!r:.40}{_suggestion(name, AU_COLUMNS)}")
        if name[-1] in "LR" and name[:-1] in parts:
            raise BadAffect(
                f"{name[:-1]} and {name} overlap; give {name[:-1]}, or {name[:-1]}L and {name[:-1]}R"
            )
    checked = {name: checked_number(value, name, 0.0, 1.0) for name, value in parts.items()}
    order = {name: index for index, name in enumerate(AU_COLUMNS)}
    return tuple(sorted(((n, v) for n, v in checked.items() if v > 0), key=lambda part: order[part[0]]))


def _check_va(parts: dict[str, float]) -> tuple[tuple[str, float], ...]:
    if set(parts) != {"valence", "arousal"}:
        raise BadAffect(f"wanted valence and arousal, got {sorted(parts)}")
    return tuple((name, checked_number(parts[name], name, -1.0, 1.0)) for name in ("valence", "arousal"))


class AffectModel(Protocol):
    """Anything that knows what an affect looks like on one family of heads."""

    def coefficients(self, affect: Affect, names: Sequence[str]) -> Coefficients:
        """(E,) float32, one per expression name of the head; all zero for neutral."""
        ...

    def labels(self, affect: Affect) -> AffectLabels:
        """What is shown, in every vocabulary."""
        ...

    def explain(self, coefficients: NDArray[np.floating[Any]], names: Sequence[str]) -> AffectLabels:
        """Labels of coefficients that a caller brought."""
        ...


def _bend(family: str, name: str) -> float:
    """q of the intensity curve s + q s (1 - s), from what shows at the everyday intensity."""
    everyday = EVERYDAY.get(family, {}).get(name, _EVERYDAY_INTENSITY)
    bend = (everyday - _EVERYDAY_INTENSITY) / (_EVERYDAY_INTENSITY * (1 - _EVERYDAY_INTENSITY))
    if abs(bend) > 1 + 1e-9:
        raise BadAffect(
            f"{family} {name}: the intensity curve is monotone only for 0.36 … 0.84, got {everyday:g}"
        )
    return bend


class TableAffectModel:
    """The tables of ``affect_tables`` as a model; valence and arousal by the classes of ``class_model``. An
    unknown family of heads uses the default head's."""

    def __init__(self, family: str = "default", classes: AffectClasses | None = None) -> None:
        self.family = family if family in PROTOTYPES else "default"
        self.classes = classes or affect_classes(self.family)
        if self.classes.family not in ("", self.family):
            raise BadModelFile(
                f"wanted an affect model for heads of the family {self.family!r}, this one was learned from "
                f"a gallery of {self.classes.family!r}"
            )
        self._class_columns = columns_of(self.classes, SHAPES)
        table = PROTOTYPES[self.family]
        self._prototypes: Array = np.array([au.spread(table[name]) for name in _POINTS])
        self._bend: Array = np.array([_bend(self.family, name) for name in _POINTS])
        self._gram: Array = self._prototypes @ self._prototypes.T

    def coefficients(self, affect: Affect, names: Sequence[str]) -> Coefficients:
        """(E,) float32 for the named expressions of a head; shapes that the head lacks are left out."""
        row: Coefficients = self.rows([affect], names)[0]
        return row

    def rows(self, affects: Sequence[Affect], names: Sequence[str]) -> Coefficients:
        """Affects of any kind → (N, E) float32; those of the same kind and names at once."""
        alike: dict[tuple[Kind, tuple[str, ...]], list[int]] = {}
        out = np.empty((len(affects), len(names)), np.float32)
        for index, affect in enumerate(affects):
            if affect.variant is None:
                alike.setdefault((affect.kind, tuple([name for name, _ in affect.parts])), []).append(index)
            else:
                out[index] = self._varied(affect, affect.variant, names)
        for (kind, columns), where in alike.items():
            values = np.array([[value for _, value in affects[index].parts] for index in where], np.float64)
            out[where] = self.batch(kind, columns, values, names)
        return out

    def _varied(self, affect: Affect, variant: int, names: Sequence[str]) -> Coefficients:
        (_, valence), (_, arousal) = affect.parts
        face = self.classes.sample(valence, arousal, np.random.default_rng(variant))
        row: Coefficients = _for_head(face[None, self._class_columns], names)[0]
        return row

    def batch(self, kind: Kind, columns: Sequence[str], values: Array, names: Sequence[str]) -> Coefficients:
        """Many affects of one kind: ``values`` (N, C) with a name per column → (N, E) float32."""
        columns = tuple(columns)
        if kind == "action_units":
            shapes = au.shapes_of_action_units(*au.split_action_units(columns, values))
        elif kind == "valence_arousal":
            shapes = self.classes.at(values[:, 0], values[:, 1])[:, self._class_columns]
        else:
            weights = np.zeros((len(values), len(_POINTS)))
            weights[:, [_POINTS.index(name) for name in columns]] = values
            shapes = self._shown(weights) @ self._prototypes
        return _for_head(shapes, names)

    def labels(self, affect: Affect) -> AffectLabels:
        """Labels of an affect. What was asked for is kept as asked; the other vocabularies follow from the
        tables.

        Action units are those that the face shows; valence and arousal of action units come from the mixture
        of prototypes nearest to them and agree with the circumplex to about 0.15.
        """
        if affect.kind == "action_units":
            found = self.explain(self.coefficients(affect, SHAPES), SHAPES)
            return AffectLabels(
                found.expression, found.intensity, dict(affect.parts), found.valence, found.arousal
            )
        shapes = self.coefficients(affect, SHAPES).astype(np.float64)
        if affect.kind == "expressions":
            return self._named(np.array([dict(affect.parts).get(name, 0.0) for name in _POINTS]), shapes)
        row = _row(affect)
        named = self.explain(shapes, SHAPES)
        return AffectLabels(named.expression, named.intensity, named.aus, float(row[0, 0]), float(row[0, 1]))

    def explain(self, coefficients: NDArray[np.floating[Any]], names: Sequence[str]) -> AffectLabels:
        """Labels of coefficients (E,) that a caller brought: the mixture of prototypes nearest to them."""
        head, table = _matching(tuple(names))
        shapes = np.zeros(len(SHAPES))
        shapes[table] = np.asarray(coefficients, dtype=np.float64)[head]
        shown = _nonnegative_least_squares(self._gram, self._prototypes @ shapes)
        return self._named(self._asked(shown), shapes)

    def _named(self, intensities: Array, shapes: Array) -> AffectLabels:
        """Labels from how much of each point shows, (P,), and from the face itself, (52,)."""
        left, right = au.read_action_units(shapes[None])
        aus = au.name_action_units(left[0], right[0])
        valence, arousal = (float(x) for x in np.clip(intensities @ _POINT_VA, -1, 1))
        top = int(np.argmax(intensities))
        if _POINTS[top] in SUPPORTS:
            # A calm face has no name of its own among the basic expressions: which of them does it resemble?
            count = len(EXPRESSIONS)
            resembled = self._prototypes[:count] @ shapes
            intensities = self._asked(_nonnegative_least_squares(self._gram[:count, :count], resembled))
            top = int(np.argmax(intensities))
            if intensities[top] < _RESEMBLES:
                return AffectLabels("neutral", 0.0, aus, valence, arousal)
        if intensities[top] < au.ABSENT_BELOW:
            return AffectLabels("neutral", 0.0, aus, valence, arousal)
        return AffectLabels(_POINTS[top], float(intensities[top]), aus, valence, arousal)

    def _shown(self, intensities: Array) -> Array:
        shown: Array = intensities * (1 + self._bend * (1 - intensities))
        return shown

    def _asked(self, shown: Array) -> Array:
        """The inverse of ``_shown`` for the first points, in the form of the quadratic's root that does not
        cancel."""
        shown = np.clip(shown, 0, 1)
        bend = self._bend[: len(shown)]
        b = 1 + bend
        root = np.sqrt(np.maximum(b * b - 4 * bend * shown, 0))
        asked: Array = np.clip(2 * shown / np.maximum(b + root, 1e-12), 0, 1)
        return asked


@lru_cache(maxsize=16)
def affect_model(family: str = "default", classes: AffectClasses | None = None) -> TableAffectModel:
    """The model for a family of heads: "default" (MakeHuman), "ict", or a head model's name, "ict-facekit";
    ``classes`` in the place of those that ship."""
    return TableAffectModel(family if family in PROTOTYPES else family.split("-")[0].casefold(), classes)


def _for_head(shapes: Array, names: Sequence[str]) -> Coefficients:
    """(N, 52) of ``SHAPES`` → (N, E) float32 of a head's expressions; those without a shape are 0."""
    out = np.zeros((len(shapes), len(names)), dtype=np.float32)
    head, table = _matching(tuple(names))
    out[:, head] = shapes[:, table]
    return out


@lru_cache(maxsize=32)
def _matching(names: tuple[str, ...]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Where a head's expressions meet the table's: (indices into names, indices into SHAPES)."""
    pairs = [(i, au.SHAPE_INDEX[name]) for i, name in enumerate(names) if name in au.SHAPE_INDEX]
    if not pairs:
        raise BadAffect(
            f"wanted expression names after ARKit (jawOpen, …), got {', '.join(map(str, names))!r:.80}"
        )
    head, table = zip(*pairs, strict=True)
    return np.array(head, dtype=np.intp), np.array(table, dtype=np.intp)


def _row(affect: Affect) -> Array:
    return np.array([[value for _, value in affect.parts]], dtype=np.float64)


def _nonnegative_least_squares(gram: Array, target: Array) -> Array:
    """min |A x - b| with x >= 0, given AᵀA and Aᵀb. C. L. Lawson, R. J. Hanson, *Solving Least Squares
    Problems*, 1974, algorithm 23.10; the nine prototypes are linearly independent (a test says so), so the
    answer is unique."""
    count = len(target)
    x = np.zeros(count)
    passive = np.zeros(count, dtype=bool)
    for _ in range(3 * count):
        gradient = np.where(passive, -np.inf, target - gram @ x)
        best = int(np.argmax(gradient))
        if gradient[best] <= 1e-9:
            break
        passive[best] = True
        while True:
            z = np.zeros(count)
            z[passive] = np.linalg.solve(gram[np.ix_(passive, passive)], target[passive])
            falling = passive & (z <= 0)
            if not falling.any():
                x = z
                break
            x += float(np.min(x[falling] / np.maximum(x[falling] - z[falling], 1e-300))) * (z - x)
            passive &= x > 1e-12
            x[~passive] = 0
    return x


@dataclass(frozen=True)
class AffectPath:
    """Affects at a fixed frame rate: a sequence, lazily made. ``values`` (N, C), a column per name in
    ``columns``."""

    kind: Kind
    columns: tuple[str, ...]
    values: Array
    fps: float

    @classmethod
    def from_points(cls, points: Sequence[Any], fps: float = 30.0) -> AffectPath:
        """See ``Affect.path``."""
        fps = float(checked_number(fps, "fps", 1e-3, 1000.0))
        if (
            isinstance(points, (str, bytes))
            or not hasattr(points, "__len__")
            or not hasattr(points, "__getitem__")
        ):
            raise BadAffect(f"a path is a sequence of points, got {type(points).__name__}")
        if not 1 <= len(points) <= 1_000_000:
            raise BadAffect(f"a path has 1 to 1,000,000 points, got {len(points):,}")
        times, affects = _read_points(points)
        kind, columns, values = _tabulate(affects)
        if times is None:
            return cls(kind, columns, values, fps)
        return cls._resampled(KeyFrames(kind, columns, times, values), fps)

    @classmethod
    def from_csv(cls, path: str | Path, fps: float = 30.0) -> AffectPath:
        """Key frames from a CSV file (``affect_csv.read_key_frames``), interpolated to ``fps`` without
        overshoot."""
        return cls._resampled(read_key_frames(path), fps)

    @classmethod
    def _resampled(cls, keys: KeyFrames, fps: float) -> AffectPath:
        at_s = keys.times_s[0] + frame_times(float(keys.times_s[-1] - keys.times_s[0]), fps)
        return cls(keys.kind, keys.columns, interpolate(keys.times_s, keys.values, at_s), float(fps))

    @property
    def times_s(self) -> Array:
        """(N,) seconds since the first frame."""
        return np.arange(len(self)) / self.fps

    @property
    def duration_s(self) -> float:
        """How long the frames are on screen: one frame longer than from first to last."""
        return len(self) / self.fps

    def coefficients(
        self, names: Sequence[str], family: str = "default", frames: slice = slice(None)
    ) -> Coefficients:
        """(N, E) float32 of all or some frames at once; equal to asking each frame's ``Affect``."""
        return affect_model(family).batch(self.kind, self.columns, self.values[frames], names)

    def __len__(self) -> int:
        return len(self.values)

    def __iter__(self) -> Iterator[Affect]:
        return (self._affect(row) for row in self.values)

    @overload
    def __getitem__(self, index: int) -> Affect: ...
    @overload
    def __getitem__(self, index: slice) -> AffectPath: ...
    def __getitem__(self, index: int | slice) -> Affect | AffectPath:
        if isinstance(index, slice):
            return AffectPath(self.kind, self.columns, self.values[index], self.fps)
        return self._affect(self.values[index])

    def _affect(self, row: Array) -> Affect:
        return Affect(self.kind, tuple(zip(self.columns, row.tolist(), strict=True)))


def _read_points(points: Sequence[Any]) -> tuple[Array | None, list[Affect]]:
    """Times (None when every point is one frame) and affects, from any of the four forms of a point."""
    times: list[float] = []
    affects: list[Affect] = []
    for index, point in enumerate(points):
        time_s, affect = _read_point(point, f"point {index}")
        if index and (time_s is None) != (not times):
            raise BadAffect(f"point {index}: either every point has a time or none")
        if time_s is not None:
            if times and time_s <= times[-1]:
                raise BadAffect(f"point {index}: time_s must rise, got {time_s:g} after {times[-1]:g}")
            times.append(time_s)
        affects.append(affect)
    return (np.array(times) if times else None), affects


def _read_point(point: Any, where: str) -> tuple[float | None, Affect]:
    if isinstance(point, Affect):
        return None, point
    try:
        cells = list(point)[:4]
    except TypeError:
        cells = []
    if len(cells) == 2 and not isinstance(cells[1], Affect):
        return None, _va_at(cells, where)
    if len(cells) not in (2, 3):
        raise BadAffect(
            f"{where}: wanted (valence, arousal), (time_s, valence, arousal), an Affect or (time_s, Affect), "
            f"got {point!r:.60}"
        )
    time_s = checked_number(cells[0], f"{where}: time_s", 0.0, 1e7)
    return time_s, cells[1] if len(cells) == 2 else _va_at(cells[1:], where)


def _va_at(cells: list[Any], where: str) -> Affect:
    valence = checked_number(cells[0], f"{where}: valence", -1.0, 1.0)
    return Affect.va(valence, checked_number(cells[1], f"{where}: arousal", -1.0, 1.0))


def _tabulate(affects: list[Affect]) -> tuple[Kind, tuple[str, ...], Array]:
    """Affects of one kind → kind, column names, (N, C) values. Neutral goes with any kind."""
    if any(affect.variant is not None for affect in affects):
        raise BadAffect("a path goes through the mean faces; its points cannot be variants")
    kinds = {affect.kind for affect in affects if affect.parts} or {"expressions"}
    if len(kinds) > 1:
        raise BadAffect(f"the points of a path must be of one kind, got {' and '.join(sorted(kinds))}")
    kind = next(iter(kinds))
    if kind == "valence_arousal":
        columns: tuple[str, ...] = ("valence", "arousal")
    elif kind == "expressions":
        columns = EXPRESSIONS
    else:
        asked = {name for affect in affects for name, _ in affect.parts}
        # A unit given whole here and by side there is kept by side everywhere.
        sided = {name[:-1] for name in asked if name[-1] in "LR"}
        columns = tuple(
            n for n in AU_COLUMNS if (n[:-1] in sided if n[-1] in "LR" else n in asked and n not in sided)
        )
    place = {name: column for column, name in enumerate(columns)}
    values = np.zeros((len(affects), len(columns)))
    for row, affect in zip(values, affects, strict=True):
        for name, value in affect.parts:
            for full in (name,) if name in place else (name + "L", name + "R"):
                row[place[full]] = value
    return kind, columns, values
