"""Landmarks of scans, as a lab has them: by name, or the 68 points of ibug in their order.

In the scan's own axes and unit. Formats:

- ``.csv``: a head line ``name,x,y,z`` and a landmark a line; or 68 lines ``x,y,z`` without a head line;
- ``.json``: ``{"nose_tip": [x, y, z], …}`` or a list of 68 ``[x, y, z]``;
- ``.pp``: the picked points of MeshLab.

A folder has a file a scan, named like it (``anna.csv`` for ``anna.obj``). One file for all scans is a
``.csv`` with a column ``scan`` before ``name``, or a ``.json`` ``{"anna": {…}, …}``.

Names are ``NAMES`` or the number of an ibug point from ``0`` to ``67``; left is the subject's. A landmark
that a scan lacks is left out, or ``nan``. With a template mesh of one's own and its landmarks, names can be
any.
"""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fastface.errors import BadArgument, BadModelFile
from fastface.importers.published import need, read_bytes

Float64 = NDArray[np.float64]
Named = dict[str, Float64]

SUFFIXES: Final = (".csv", ".json", ".pp")
#: Words for ibug points, by their number from 0.
NAMES: Final = {
    "chin": 8,
    "nasion": 27,
    "nose_tip": 30,
    "right_alare": 31,
    "subnasale": 33,
    "left_alare": 35,
    "right_eye_outer": 36,
    "right_eye_inner": 39,
    "left_eye_inner": 42,
    "left_eye_outer": 45,
    "right_mouth_corner": 48,
    "upper_lip": 51,
    "left_mouth_corner": 54,
    "lower_lip": 57,
}
LEAST: Final = 5
_MOST: Final = 10_000
_MOST_BYTES: Final = 64 << 20
_FARTHEST: Final = 1e9
_POINT: Final = re.compile(rb"<point\b([^<>]{0,1000})/?>")
_ATTRIBUTE: Final = re.compile(rb"([A-Za-z]\w{0,20})\s*=\s*\"([^\"<>]{0,100})\"")


def ibug(points: NDArray[Any]) -> Named:
    """68 points (68, 3) by their numbers."""
    return {str(row): np.asarray(point, np.float64) for row, point in enumerate(points)}


class Landmarks:
    """The landmarks that a lab gives: of each scan by its name."""

    def __init__(self, source: Path) -> None:
        self._source = source
        self._table: dict[str, Named] | None = None
        if source.is_file():
            self._table = _read_table(source)
        elif not source.is_dir():
            raise BadArgument(f"{source}: wanted a file or a folder of landmarks, there is none")

    def file(self, stem: str) -> Path | None:
        """The file that says of this scan, if there is one."""
        if self._table is not None:
            return self._source
        for suffix in SUFFIXES:
            for end in (suffix, suffix.upper()):
                if (path := self._source / f"{stem}{end}").is_file():
                    return path
        return None

    def of(self, stem: str) -> Named:
        """Those of a scan. Raises ``BadModelFile`` when there are none, or too few."""
        path = self.file(stem)
        if path is None:
            kinds = ", ".join(SUFFIXES)
            raise BadModelFile(f"{self._source}: no landmarks of {stem} (wanted {stem} with {kinds})")
        if self._table is None:
            return read_landmarks(path)
        if stem not in self._table:
            raise BadModelFile(f"{path}: no landmarks of {stem}")
        return _enough(self._table[stem], f"{path}: {stem}")


def read_landmarks(path: Path) -> Named:
    """The landmarks of one scan. Raises ``BadModelFile``."""
    data = read_bytes(path, _MOST_BYTES)
    kind, label = path.suffix.casefold(), str(path)
    if kind == ".pp":
        return _enough(_picked(data, label), label)
    if kind == ".json":
        return _enough(_from_json(_json(data, label), label), label)
    need(kind == ".csv", label, f"wanted landmarks in {', '.join(SUFFIXES)}")
    rows = _rows(data, label)
    if rows and [word.strip().casefold() for word in rows[0]] == ["name", "x", "y", "z"]:
        return _enough(_collected([(row[0], row[1:]) for row in rows[1:]], label), label)
    need(len(rows) == 68, label, f"wanted a head line name,x,y,z, or 68 lines x,y,z; got {len(rows)} lines")
    return _enough(_collected([(str(index), row) for index, row in enumerate(rows)], label), label)


def _read_table(path: Path) -> dict[str, Named]:
    data, label = read_bytes(path, _MOST_BYTES), str(path)
    if path.suffix.casefold() == ".json":
        table = _json(data, label)
        need(isinstance(table, dict), label, "wanted an object: a scan's name and its landmarks")
        return {str(stem): _from_json(value, f"{label}: {stem!s:.80}") for stem, value in table.items()}
    need(path.suffix.casefold() == ".csv", label, "wanted one .csv or .json for all scans, or a folder")
    rows = _rows(data, label)
    head = [word.strip().casefold() for word in rows[0]] if rows else []
    need(head == ["scan", "name", "x", "y", "z"], label, "wanted a head line scan,name,x,y,z")
    of: dict[str, list[tuple[str, list[str]]]] = {}
    for row in rows[1:]:
        need(len(row) == 5, label, f"wanted scan,name,x,y,z in each line, got {row!s:.80}")
        of.setdefault(Path(row[0].strip()).stem, []).append((row[1], row[2:]))
    return {stem: _collected(entries, f"{label}: {stem}") for stem, entries in of.items()}


def _rows(data: bytes, label: str) -> list[list[str]]:
    try:
        text = data.decode("utf-8-sig")
        rows = [row for row in csv.reader(text.splitlines()) if any(word.strip() for word in row)]
    except (UnicodeDecodeError, csv.Error) as error:
        raise BadModelFile(f"{label}: wanted a CSV table in UTF-8 ({error!s:.80})") from error
    return rows


def _json(data: bytes, label: str) -> Any:
    try:
        return json.loads(data.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise BadModelFile(f"{label}: wanted JSON in UTF-8 ({error!s:.80})") from error


def _from_json(value: Any, label: str) -> Named:
    if isinstance(value, list):
        need(len(value) == 68, label, f"wanted 68 points, got {len(value)}")
        value = {str(index): point for index, point in enumerate(value)}
    need(isinstance(value, dict), label, "wanted landmarks by name, or a list of 68")
    return _collected(list(value.items()), label)


def _picked(data: bytes, label: str) -> Named:
    entries = []
    for found in _POINT.findall(data):
        said = {name.decode(): text.decode("utf-8", "replace") for name, text in _ATTRIBUTE.findall(found)}
        if said.get("active", "1") != "0":
            entries.append((said.get("name", ""), [said.get(axis, "") for axis in "xyz"]))
    return _collected(entries, label)


def _collected(entries: list[tuple[str, Any]], label: str) -> Named:
    """Entries of a name and three numbers, those that are known; ibug's words become their numbers."""
    need(len(entries) <= _MOST, label, f"wanted at most {_MOST} landmarks, got {len(entries)}")
    named: Named = {}
    for name, numbers in entries:
        name = str(name).strip()
        key = str(NAMES.get(name.casefold(), name))
        need(0 < len(key) <= 80, label, f"wanted a name of 1 to 80 characters, got {name!r:.90}")
        need(key not in named, label, f"the landmark {name!r} is there twice")
        try:
            if not isinstance(numbers, list) or len(numbers) != 3:
                raise ValueError
            place = np.array([float("nan" if word is None else word) for word in numbers])
        except (TypeError, ValueError, OverflowError):
            raise BadModelFile(f"{label}: wanted x, y, z of {name!r}, got {numbers!s:.80}") from None
        if np.isnan(place).any():
            continue
        need(bool((np.abs(place) < _FARTHEST).all()), label, f"wanted {name!r} within ±{_FARTHEST:g}")
        named[key] = place
    return named


def _enough(named: Named, label: str) -> Named:
    need(len(named) >= LEAST, label, f"wanted {LEAST} landmarks or more, got {len(named)}")
    return named
