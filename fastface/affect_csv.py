"""Key frames of an affect over time: reading them from CSV, and interpolating them to a frame rate."""

from __future__ import annotations

import csv
import io
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from fastface.action_units import AU_COLUMNS
from fastface.affect_tables import EXPRESSIONS
from fastface.errors import BadAffect

Array = NDArray[np.float64]
Kind = Literal["valence_arousal", "action_units", "expressions"]

MAX_CSV_BYTES: Final = 16 << 20
MAX_KEYS: Final = 100_000
MAX_FRAMES: Final = 1_000_000
MAX_FPS: Final = 1000.0


@dataclass(frozen=True)
class KeyFrames:
    """``values`` (K, C) float64 at ``times_s`` (K,), strictly rising; what the columns are is told by
    ``kind``."""

    kind: Kind
    columns: tuple[str, ...]
    times_s: Array
    values: Array


def checked_number(value: object, what: str, low: float, high: float) -> float:
    """``value`` as a float in [low, high]; numbers and numeric strings only, never NaN. Raises
    ``BadAffect``."""
    wanted = f"{what} must be a number in [{low:g}, {high:g}]"
    if isinstance(value, bool) or not isinstance(value, (int, float, str, np.number)):
        raise BadAffect(f"{wanted}, got {type(value).__name__}")
    try:
        number = float(value)
    except (ValueError, OverflowError, TypeError):
        raise BadAffect(f"{wanted}, got {value!r:.40}") from None
    if not low <= number <= high:  # false for NaN too
        raise BadAffect(f"{wanted}, got {number:g}")
    return number


def minimum_jerk(t: Array) -> Array:
    """From 0 to 1 as ``t`` does, clipped, at rest at both ends: T. Flash, N. Hogan, J. Neuroscience 5(7),
    1985, equation 5."""
    t = np.clip(t, 0, 1)
    smooth: Array = t**3 * (10 - 15 * t + 6 * t * t)
    return smooth


def read_key_frames(path: str | Path) -> KeyFrames:
    """Read a CSV of key frames: UTF-8, comma separated, one header line, ``time_s`` rising, and one of

    - ``valence``, ``arousal`` in [-1, 1];
    - one column per action unit (``AU12``, ``AU14R``), in [0, 1];
    - ``expression``, ``intensity``: a name of ``EXPRESSIONS`` or "neutral", and [0, 1];
    - one column per expression, in [0, 1], together at most 1.

    A column ``phase``, as courses have, and blank lines are passed over. Raises ``BadAffect`` naming the file
    and line; at most 16 MiB and 100,000 rows.
    """
    path = Path(path)
    rows = _rows(path, _decoded(path))
    if not rows:
        raise BadAffect(f"{path}: empty; wanted a header such as time_s,valence,arousal and at least one row")
    header_line, header = rows[0]
    names = _canonical_header(header, f"{path} line {header_line}")
    if len(rows) == 1:
        raise BadAffect(f"{path}: a header but no rows")
    if len(rows) - 1 > MAX_KEYS:
        raise BadAffect(f"{path}: at most {MAX_KEYS:,} rows, got {len(rows) - 1:,}")
    times = np.empty(len(rows) - 1)
    table: list[list[float]] = []
    for index, (line, cells) in enumerate(rows[1:]):
        where = f"{path} line {line}"
        if len(cells) != len(names):
            raise BadAffect(f"{where}: wanted {len(names)} cells ({','.join(names)}), got {len(cells)}")
        record = dict(zip(names, cells, strict=True))
        times[index] = checked_number(record.pop("time_s"), f"{where}: time_s", 0.0, 1e7)
        if index and times[index] <= times[index - 1]:
            raise BadAffect(
                f"{where}: time_s must rise from row to row, got {times[index]:g} after {times[index - 1]:g}"
            )
        record.pop("phase", None)
        table.append(_row_values(record, where))
    return KeyFrames(_kind(names), _columns(names), times, np.array(table, dtype=np.float64))


def _decoded(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_CSV_BYTES + 1)
    except OSError as error:
        raise BadAffect(f"{path}: cannot be read ({error.strerror or error})") from None
    if len(data) > MAX_CSV_BYTES:
        raise BadAffect(f"{path}: larger than {MAX_CSV_BYTES >> 20} MiB")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise BadAffect(f"{path} line {line}: not UTF-8 text") from None


def _rows(path: Path, text: str) -> list[tuple[int, list[str]]]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    rows: list[tuple[int, list[str]]] = []
    try:
        for cells in reader:
            stripped = [cell.strip() for cell in cells]
            if any(stripped):
                rows.append((reader.line_num, stripped))
    except csv.Error as error:
        raise BadAffect(f"{path} line {max(reader.line_num, 1)}: not CSV ({error})") from None
    return rows


def _canonical_header(header: list[str], where: str) -> list[str]:
    known = {
        name.casefold(): name
        for name in (
            *("time_s", "phase", "valence", "arousal", "expression", "intensity"),
            *(*EXPRESSIONS, *AU_COLUMNS),
        )
    }
    names = [known.get(cell.casefold(), cell) for cell in header]
    doubled = {name for name in names if names.count(name) > 1} if len(names) <= len(known) else set(names)
    if doubled:
        raise BadAffect(f"{where}: column {sorted(doubled)[0]!r:.40} stands twice")
    rest = set(names) - {"time_s", "phase"}
    fits = rest in ({"valence", "arousal"}, {"expression", "intensity"}) or (
        rest and (rest <= set(AU_COLUMNS) or rest <= set(EXPRESSIONS))
    )
    if "time_s" not in names or not fits:
        raise BadAffect(
            f"{where}: wanted the columns time_s,valence,arousal or time_s,expression,intensity "
            f"or time_s and action units (AU1,AU12L,…) or expressions (happy,sad,…), "
            f"got {','.join(header)!r:.80}"
        )
    for name in rest:
        if name[-1] in "LR" and name[:-1] in rest:
            raise BadAffect(f"{where}: {name[:-1]} and {name} overlap; give both sides or one column")
    return names


def _kind(names: list[str]) -> Kind:
    if "valence" in names:
        return "valence_arousal"
    return "expressions" if {"expression", *EXPRESSIONS} & set(names) else "action_units"


def _columns(names: list[str]) -> tuple[str, ...]:
    kind = _kind(names)
    if kind == "valence_arousal":
        return ("valence", "arousal")
    if kind == "expressions":
        return EXPRESSIONS
    return tuple(name for name in names if name not in ("time_s", "phase"))


def _row_values(record: dict[str, str], where: str) -> list[float]:
    if "valence" in record:
        return [
            checked_number(record[name], f"{where}: {name}", -1.0, 1.0) for name in ("valence", "arousal")
        ]
    if not record.keys().isdisjoint(EXPRESSIONS):
        shares = [checked_number(record.get(name, 0), f"{where}: {name}", 0.0, 1.0) for name in EXPRESSIONS]
        if sum(shares) > 1 + 1e-5:  # tables have six digits
            raise BadAffect(f"{where}: expressions together must be at most 1, got {sum(shares):g}")
        return shares
    if "expression" not in record:
        return [checked_number(value, f"{where}: {name}", 0.0, 1.0) for name, value in record.items()]
    intensity = checked_number(record["intensity"], f"{where}: intensity", 0.0, 1.0)
    name = record["expression"].casefold()
    if name not in (*EXPRESSIONS, "neutral"):
        raise BadAffect(f"{where}: unknown expression {name!r:.40}; known: neutral, {', '.join(EXPRESSIONS)}")
    return [intensity if name == known else 0.0 for known in EXPRESSIONS]


def frame_times(duration_s: float, fps: float) -> Array:
    """Times of the frames that fit into a duration, both ends included: 0, 1/fps, … Raises ``BadAffect``."""
    fps = checked_number(fps, "fps", 1e-3, MAX_FPS)
    # A hair of tolerance: at 30 fps a path of 0.1 s has 4 frames although 0.1 * 30 is not quite 3 in binary.
    count = math.floor(duration_s * fps + 1e-6) + 1
    if count > MAX_FRAMES:
        raise BadAffect(
            f"a path of {duration_s:g} s at {fps:g} fps has {count:,} frames, at most {MAX_FRAMES:,}"
        )
    return np.arange(count, dtype=np.float64) / fps


def interpolate(times_s: Array, values: Array, at_s: Array) -> Array:
    """Monotone cubic interpolation: (K,) key times, (K, C) values → (N, C) at ``at_s``. Never overshoots a
    key.

    Slopes after F. N. Fritsch and J. Butland, SIAM J. Sci. Stat. Comput. 5(2), 1984, eq. 5: the weighted
    harmonic mean of the neighbouring secants, zero at an extremum; the ends are flat, so that a path starts
    and stops at rest.
    """
    if len(times_s) == 1:
        return np.repeat(values, len(at_s), axis=0)
    step = np.diff(times_s)[:, None]
    secant = np.diff(values, axis=0) / step
    slopes = np.zeros_like(values)
    before, after = secant[:-1], secant[1:]
    near, far = step[:-1] + 2 * step[1:], 2 * step[:-1] + step[1:]
    same_sign = before * after > 0
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        mean = (near + far) / (near / after + far / before)
    slopes[1:-1] = np.where(same_sign, mean, 0.0)
    interval = np.clip(np.searchsorted(times_s, at_s, side="right") - 1, 0, len(step) - 1)
    width = step[interval]
    t = np.clip((at_s - times_s[interval])[:, None] / width, 0, 1)
    # Hermite basis, written so that t = 0 and t = 1 return the keys exactly.
    rise = t * t * (3 - 2 * t)
    result: Array = (
        values[interval] * (1 - rise)
        + values[interval + 1] * rise
        + width * t * (1 - t) * ((1 - t) * slopes[interval] - t * slopes[interval + 1])
    )
    low = np.minimum(values[interval], values[interval + 1])
    high = np.maximum(values[interval], values[interval + 1])
    return np.clip(result, low, high)  # rounding only: the cubic itself stays between the keys
