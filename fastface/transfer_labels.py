"""Labels of a video that was made from another: the source's, carried over, and how each frame was made.

Beside ``clip.mp4`` may lie ``clip.json``, ``clip.csv``, ``clip.jsonl`` and ``clip.parquet``. A table is one
of frames when it has as many rows as the video frames, or a column that numbers them; else its rows are about
the clip, such as the onset, apex and offset of each expression. docs/transfer.md states what goes where.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from fastface.alignment import Array
from fastface.errors import BadArgument
from fastface.labels import read_table

#: In the order in which one is preferred for the rows of frames.
TABLES: Final = (".parquet", ".jsonl", ".csv")
FRAME_COLUMNS: Final = ("frame", "frame_index", "frame_number")
_POINTS: Final = ("landmarks68_px", "landmarks478_px")
_MOST_BYTES: Final = 64 << 20
_MOST_CLIP_ROWS: Final = 10_000


@dataclass
class SourceLabels:
    """What lies beside a source video. ``find`` it before the work, ``align`` it when the frames are counted.

    record: the JSON object, {} without one. table: the file whose rows go with the frames. columns: its
    columns → "int64", "float64", "bool", "string", or "" for what varies or nests.
    """

    record: dict[str, Any] = field(default_factory=dict)
    table: Path | None = None
    csv: Path | None = None
    columns: dict[str, str] = field(default_factory=dict)
    _listed: list[dict[str, Any]] = field(default_factory=list)
    _rows: int = 0
    _number: str = ""
    _least: int = 0
    _most: int = -1
    _first_frame: int | None = None
    _of_frames: bool = False

    @classmethod
    def find(cls, source: Path) -> SourceLabels:
        """Raises ``BadArgument`` for files that are no labels."""
        labels = cls()
        sidecar = source.with_suffix(".json")
        if sidecar.is_file():
            labels._read_json(sidecar)
        there = [source.with_suffix(suffix) for suffix in TABLES if source.with_suffix(suffix).is_file()]
        labels.csv = next((path for path in there if path.suffix == ".csv"), None)
        if there:
            labels.table = there[0]
        if labels.table or labels._listed:
            labels._scan()
        return labels

    def align(self, frames: int) -> None:
        """Decide what the rows are about. Raises ``BadArgument`` for numbers beyond the video's frames.

        As many rows as frames: one each, in order, wherever the numbers begin. Fewer, with numbers: from 0,
        or from 1 if the last frame's number says so.
        """
        if self._rows == frames and (not self._number or self._most - self._least == frames - 1):
            self._of_frames, self._first_frame = True, self._least if self._number else None
        elif self._number:
            self._of_frames = True
            self._first_frame = 1 if self._most == frames and self._least >= 1 else 0
            if self._least < 0 or self._most - self._first_frame >= frames:
                wrong = self._least if self._least < 0 else self._most
                raise BadArgument(
                    f"{self._name}: a label of frame {wrong}, but the video has {frames} frames, "
                    f"counted from {self._first_frame}"
                )

    def clip_rows(self) -> list[dict[str, Any]]:
        """The rows that are about the clip as a whole."""
        return [] if self._of_frames or not (self.table or self._listed) else list(self._read())

    def types(self) -> dict[str, str]:
        """Column → type, of those that rows of frames have and whose type is plain."""
        return {name: kind for name, kind in self.columns.items() if kind} if self._of_frames else {}

    def rows(self, frames: int) -> Iterator[dict[str, Any]]:
        """For each frame its row with every column, None where there is nothing."""
        empty: dict[str, Any] = dict.fromkeys(self.columns) if self._of_frames else {}
        dense = self._rows == frames
        numbered = self._numbered() if self._of_frames else iter(())
        at, row = next(numbered, (frames, {}))
        for frame in range(frames):
            if at != frame:
                yield dict(empty)
                continue
            yield empty | {name: self._fitted(name, value, dense) for name, value in row.items()}
            at, row = next(numbered, (frames, {}))

    @property
    def _name(self) -> str:
        return str(self.table or "labels")

    def _fitted(self, name: str, value: Any, dense: bool) -> Any:
        kind = self.columns[name]
        if value is None or (isinstance(value, float) and not math.isfinite(value)):
            return None
        if not kind and dense:
            return value
        if not kind:
            # A column that is sometimes empty and holds lists has no type to begin with: text has.
            return json.dumps(value, ensure_ascii=False)
        return {"string": str, "float64": float}.get(kind, lambda plain: plain)(value)

    def _numbered(self) -> Iterator[tuple[int, dict[str, Any]]]:
        for index, row in enumerate(self._read()):
            first = self._first_frame
            yield (index if first is None else int(row[self._number]) - first), row

    def _read_json(self, path: Path) -> None:
        try:
            if path.stat().st_size > _MOST_BYTES:
                raise ValueError(f"more than {_MOST_BYTES >> 20} MiB; use .jsonl or .parquet")
            found = json.loads(path.read_bytes(), parse_constant=lambda _: None)  # NaN is no JSON
        except (OSError, ValueError, RecursionError) as error:
            raise BadArgument(f"{path}: no labels ({error})") from None
        listed = found.pop("frames", None) if isinstance(found, dict) else found
        if isinstance(found, dict):
            self.record = found
            if not isinstance(listed, list) or not all(isinstance(row, dict) for row in listed):
                if listed is not None:
                    found["frames"] = listed
                return
        if not isinstance(listed, list) or not all(isinstance(row, dict) for row in listed):
            raise BadArgument(f"{path}: no labels (wanted an object, or a list of objects)")
        self._listed = listed

    def _read(self) -> Iterator[dict[str, Any]]:
        if self.table is None:
            yield from self._listed
        elif self.table.suffix == ".csv":
            yield from self._read_csv(self.table)
        else:
            for row in read_table(self.table):
                if not isinstance(row, dict):
                    raise BadArgument(f"{self.table}: not a label table (a row that is no object)")
                yield row

    def _read_csv(self, path: Path) -> Iterator[dict[str, Any]]:
        for row in read_csv(path):
            yield {name: _typed(value, self.columns.get(name, "string")) for name, value in row.items()}

    def _scan(self) -> None:
        """One pass: how many rows, the type of each column, the least and greatest frame number."""
        kinds: dict[str, set[str]] = {}
        text = self.table is not None and self.table.suffix == ".csv"
        before = None
        for row in read_csv(self.table) if text and self.table else self._read():
            for name, value in row.items():
                seen = kinds.setdefault(name, set())
                if value is not None and value != "":
                    seen.add(_kind_of_text(value) if text else _kind(value))
            if self._rows == 0:
                names = {name.casefold(): name for name in row}
                self._number = next((names[n] for n in FRAME_COLUMNS if n in names), "")
            self._rows += 1
            if self._number:
                number = _whole(row.get(self._number), f"{self._name}: row {self._rows}: {self._number}")
                if before is not None and number <= before:
                    raise BadArgument(
                        f"{self._name}: row {self._rows} is of frame {number}, after one of frame {before}; "
                        "wanted rows in the order of their frames, one each"
                    )
                self._least = number if before is None else self._least
                before = self._most = number
        self.columns = {name: _common(seen) for name, seen in kinds.items()}


def read_csv(path: Path) -> Iterator[dict[str, str]]:
    """The rows of a CSV file with a header. Raises ``BadArgument``."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, restkey="", strict=True)
            names = reader.fieldnames or []
            if not names or len(set(names)) != len(names):
                raise ValueError("wanted a header with a different name for each column")
            for row in reader:
                if "" in row or None in row.values():
                    raise ValueError(f"line {reader.line_num}: wanted {len(names)} values")
                yield row
    except (OSError, ValueError, csv.Error) as error:
        raise BadArgument(f"{path}: not a label table ({error})") from None


def write_csv(path: Path, source: Path, extra: Mapping[str, Any]) -> None:
    """Every row of ``source`` as it is, with the columns of ``extra`` added to each."""
    rows = read_csv(source)
    first = next(rows, None)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        names = [] if first is None else list(first)
        added = {name: value for name, value in extra.items() if name not in names}
        writer.writerow([*names, *added])
        for row in [] if first is None else [first]:
            writer.writerow([*row.values(), *added.values()])
        for row in rows:
            writer.writerow([*row.values(), *added.values()])


def merged(own: dict[str, Any], carried: dict[str, Any]) -> dict[str, Any]:
    """A row: ours, then the source's; a column of a name that is ours is called ``label_…``."""
    return own | {renamed(name, own): value for name, value in carried.items()}


def renamed(name: str, own: Mapping[str, Any]) -> str:
    """What a source's column is called beside ours."""
    return f"label_{name}" if name in own else name


def moved(row: dict[str, Any], to_output: Array | None) -> dict[str, Any]:
    """The landmarks of the source's frame in pixels of the output (None: the output is the frame)."""
    if to_output is None:
        return row
    for name in _POINTS:
        if isinstance(row.get(name), list) and row[name]:
            points = np.asarray(row[name], np.float64)
            if points.ndim == 2 and points.shape[1] == 2:
                row = {**row, name: np.round(points @ to_output[:, :2].T + to_output[:, 2], 2).tolist()}
    return row


# --- types ---


def _kind(value: Any) -> str:
    kinds = {bool: "bool", int: "int64", float: "float64", list: "", dict: ""}
    return kinds.get(type(value), "string")


def _kind_of_text(value: str) -> str:
    for kind, read in (("int64", int), ("float64", float)):
        try:
            read(value)
        except ValueError:
            continue
        # 007 is a name, and so is nan to those who have no other word for nothing.
        plain = value.strip() == value and not (kind == "int64" and value.lstrip("+-")[:1] == "0" != value)
        return kind if plain and abs(float(value)) < 2**63 else "string"
    return "string"


def _common(kinds: set[str]) -> str:
    if len(kinds) <= 1:
        return next(iter(kinds), "string")
    return "float64" if kinds == {"int64", "float64"} else "string" if "" not in kinds else ""


def _typed(value: str, kind: str) -> Any:
    if value == "":
        return None
    return {"int64": int, "float64": float}.get(kind, str)(value)


def _whole(value: Any, what: str) -> int:
    try:
        number = float(value)
        if not number.is_integer():
            raise ValueError
    except (TypeError, ValueError, OverflowError):
        raise BadArgument(f"{what}: wanted a frame number, got {value!r:.40}") from None
    return int(number)
