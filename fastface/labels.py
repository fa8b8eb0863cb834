"""What is known of every frame this package makes: one record, and the files it goes into.

The format is versioned and stated in ``docs/labels.md`` and, for machines, in
``fastface/assets/labels.schema.json``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fastface.action_units import pspi
from fastface.atomic import whole_file, write_whole
from fastface.errors import BadArgument, FastfaceError

FORMAT: Final = "fastface-labels"
VERSION: Final = 1
SCHEMA_FILE: Final = Path(__file__).parent / "assets" / "labels.schema.json"
#: Enough for a hundredth of a pixel and a thousandth of a coefficient; more digits would be noise.
_PIXEL_DIGITS, _VALUE_DIGITS = 2, 4
_ROWS_PER_GROUP: Final = 256

Points = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Pose:
    """Where the head is. Angles are the subject's: yaw > 0 turns to the subject's left, pitch > 0 up, roll >
    0 tilts to the subject's left shoulder; translation and focal length are those of the camera in
    CONVENTIONS.md."""

    yaw_deg: float
    pitch_deg: float
    roll_deg: float
    translation_mm: tuple[float, float, float]
    focal_px: float


@dataclass(frozen=True, slots=True)
class Labels:
    """Labels of one output frame.

    ``expression`` is one of ``affect_tables.EXPRESSIONS`` or "neutral"; ``intensity`` and ``aus`` in [0, 1],
    absent units left out; ``valence`` and ``arousal`` in [-1, 1]; ``coefficients`` by the head's expression
    names; landmarks (68, 2) ibug and (478, 2) in continuous pixels of the output frame; hashes are SHA-256 in
    hex, of the photo's RGB pixels and of the head model.
    """

    expression: str
    intensity: float
    aus: Mapping[str, float]
    valence: float
    arousal: float
    coefficients: Mapping[str, float]
    landmarks68_px: Points
    landmarks478_px: Points
    pose: Pose
    width_px: int
    height_px: int
    photo_sha256: str
    model_sha256: str
    engine_version: str
    #: What valence and arousal look like: name of the model, or of its file, and SHA-256.
    affect_model: str = ""
    affect_model_sha256: str = ""
    #: What the file holds beside the labels: the output's name, the photo's name, frame number and time of a
    #: video.
    extra: Mapping[str, Any] = field(default_factory=dict)

    def record(self) -> dict[str, Any]:
        """The JSON object of ``docs/labels.md``, rounded, with plain Python values. Raises
        ``BadArgument``."""
        record = self.row()
        for name in ("landmarks68_px", "landmarks478_px"):
            record[name] = record[name].tolist()
        return record

    def row(self) -> dict[str, Any]:
        """``record`` with the landmarks left as arrays: much quicker, for tables that take them so."""
        return {
            "format": FORMAT,
            "version": VERSION,
            **self.extra,
            "expression": self.expression,
            "intensity": _number(self.intensity, "intensity"),
            "valence": _number(self.valence, "valence"),
            "arousal": _number(self.arousal, "arousal"),
            "aus": {name: _number(value, name) for name, value in self.aus.items()},
            "pain": _number(pspi(self.aus), "pain"),
            "coefficients": {name: _number(value, name) for name, value in self.coefficients.items()},
            "pose": {
                "yaw_deg": _number(self.pose.yaw_deg, "yaw_deg"),
                "pitch_deg": _number(self.pose.pitch_deg, "pitch_deg"),
                "roll_deg": _number(self.pose.roll_deg, "roll_deg"),
                "translation_mm": [_number(x, "translation_mm") for x in self.pose.translation_mm],
                "focal_px": _number(self.pose.focal_px, "focal_px"),
            },
            "width_px": int(self.width_px),
            "height_px": int(self.height_px),
            "landmarks68_px": _points(self.landmarks68_px, 68),
            "landmarks478_px": _points(self.landmarks478_px, 478),
            "photo_sha256": self.photo_sha256,
            "model_sha256": self.model_sha256,
            "engine_version": self.engine_version,
            **(
                {"affect_model": self.affect_model, "affect_model_sha256": self.affect_model_sha256}
                if self.affect_model_sha256
                else {}
            ),
        }

    def json(self, indent: int | None = None) -> str:
        """``record`` as JSON text; never NaN, which JSON has not."""
        return json.dumps(self.record(), ensure_ascii=False, allow_nan=False, indent=indent)


def _number(value: float, what: str) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise BadArgument(f"labels: {what} must be finite, got {number}")
    return round(number, _VALUE_DIGITS) + 0.0  # + 0.0: no minus zero


def _points(points: Points, count: int) -> NDArray[np.float64]:
    array = np.asarray(points)
    if array.shape != (count, 2) or not np.isfinite(array).all():
        raise BadArgument(f"labels: landmarks must be ({count}, 2) finite, got {array.shape}")
    # Through float64: a rounded float32 would print with all its binary digits.
    return np.asarray(np.round(array.astype(np.float64), _PIXEL_DIGITS), np.float64)


def write_labels(path: str | Path, labels: Labels) -> None:
    """One frame's labels as a JSON file, whole or not at all. Raises ``WriteFailed``."""
    write_whole(path, (labels.json(indent=1) + "\n").encode())


def read_labels(path: str | Path) -> dict[str, Any]:
    """The record of a JSON sidecar. Raises ``BadArgument`` when it is none or of a later version."""
    try:
        record = json.loads(Path(path).read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise BadArgument(f"{path}: no labels ({error})") from None
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise BadArgument(f"{path}: not a {FORMAT} file")
    if record.get("version") != VERSION:
        raise BadArgument(f"{path}: labels version {record.get('version')!r:.20}, this reads {VERSION}")
    return record


def table_suffix() -> str:
    """What many labels are written to here: ".parquet" where pyarrow is installed, else ".jsonl"."""
    return ".parquet" if find_spec("pyarrow") else ".jsonl"


class LabelTable:
    """Records of many frames in one file: Parquet (``.parquet``) or JSON lines (``.jsonl``), by the name's
    suffix.

    A context manager. The file appears when the block ends, whole; when it ends by an exception, nothing
    appears unless ``keep_partial``: then the rows so far are kept, which is what a manifest of an interrupted
    run wants. Memory does not grow with the number of rows. ``types``: column → "int64", "float64", "bool",
    "string", of columns that may be empty (None) in the first rows, where Parquet cannot tell.
    """

    def __init__(
        self, path: str | Path, *, keep_partial: bool = False, types: Mapping[str, str] | None = None
    ) -> None:
        self.path = Path(path)
        self.rows = 0
        self._keep_partial = keep_partial
        self._types = types or {}
        self._stack = ExitStack()
        self._sink: _JsonLines | _Parquet | None = None
        if self.path.suffix not in (".jsonl", ".parquet"):
            raise BadArgument(f"{self.path}: a label table ends in .jsonl or .parquet")

    def __enter__(self) -> LabelTable:
        temporary = self._stack.enter_context(whole_file(self.path))
        try:
            parquet = self.path.suffix == ".parquet"
            self._sink = _Parquet(temporary, self._types) if parquet else _JsonLines(temporary)
        except BaseException as error:
            self._stack.__exit__(type(error), error, error.__traceback__)
            raise
        return self

    def append(self, labels: Labels | Mapping[str, Any]) -> None:
        """Add one row: labels, or a record of the caller's own (for a manifest)."""
        if self._sink is None:
            raise BadArgument("a label table is used in a with block")
        if not isinstance(labels, Labels):
            self._sink.append(dict(labels))
        else:
            self._sink.append(labels.row() if isinstance(self._sink, _Parquet) else labels.record())
        self.rows += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        sink, self._sink = self._sink, None
        try:
            if sink is not None:
                sink.close()
        except BaseException as failure:
            self._stack.__exit__(type(failure), failure, failure.__traceback__)
            raise
        if error is not None and self._keep_partial:
            self._stack.__exit__(None, None, None)
        else:
            self._stack.__exit__(kind, error, trace)


class _JsonLines:
    def __init__(self, path: Path) -> None:
        self._file = path.open("w", encoding="utf-8")

    def append(self, record: dict[str, Any]) -> None:
        self._file.write(json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n")

    def close(self) -> None:
        self._file.close()


class _Parquet:
    """Rows gathered into groups; the schema is that of the first group, so all rows must share their
    columns."""

    def __init__(self, path: Path, types: Mapping[str, str]) -> None:
        try:
            import pyarrow.parquet
        except ImportError:
            raise BadArgument(
                "Parquet needs pyarrow: pip install 'fastface[parquet]', or write .jsonl"
            ) from None
        self._parquet = pyarrow.parquet
        self._arrow = pyarrow
        self._path = path
        self._types = types
        self._writer: Any = None
        self._schema: Any = None
        self._rows: list[dict[str, Any]] = []
        self._points: dict[str, list[NDArray[np.float32]]] = {}

    def append(self, record: dict[str, Any]) -> None:
        # Points go aside as arrays: as lists they would be nine tenths of the work.
        for name in [name for name in record if name.startswith("landmarks")]:
            self._points.setdefault(name, []).append(np.asarray(record.pop(name), np.float32))
        # Which units show differs from row to row: a map column holds that, a struct would grow with each.
        if "aus" in record:
            record["aus"] = list(record["aus"].items())
        self._rows.append(record)
        if len(self._rows) >= _ROWS_PER_GROUP:
            self._flush()

    def _flush(self) -> None:
        arrow = self._arrow
        if self._schema is None:
            self._schema = self._inferred()
        table = arrow.Table.from_pylist(self._rows, self._schema)
        for name, arrays in self._points.items():
            points = np.stack(arrays)
            pairs = arrow.FixedSizeListArray.from_arrays(arrow.array(points.ravel()), 2)
            column = arrow.FixedSizeListArray.from_arrays(pairs, points.shape[1])
            table = table.append_column(name, column)
        if self._writer is None:
            self._writer = self._parquet.ParquetWriter(self._path, table.schema, compression="zstd")
        self._writer.write_table(table)
        self._rows, self._points = [], {}

    def _inferred(self) -> Any:
        arrow = self._arrow
        seen = arrow.Table.from_pylist([_without(row, "aus") for row in self._rows]).schema
        known = {name: arrow.type_for_alias(kind) for name, kind in self._types.items()}
        fields = [arrow.field(field.name, known.get(field.name, field.type)) for field in seen]
        if self._rows and "aus" in self._rows[0]:
            fields.append(arrow.field("aus", arrow.map_(arrow.string(), arrow.float64())))
        return arrow.schema(fields, metadata={"format": FORMAT, "version": str(VERSION)})

    def close(self) -> None:
        if self._rows or self._writer is None:
            self._flush()
        self._writer.close()


def _without(record: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in record.items() if key != name}


def read_table(path: str | Path) -> Iterator[dict[str, Any]]:
    """The rows of a label table, one at a time. Raises ``BadArgument`` for a damaged file."""
    path = Path(path)
    try:
        if path.suffix == ".parquet":
            import pyarrow.parquet

            with pyarrow.parquet.ParquetFile(path) as file:
                for batch in file.iter_batches(_ROWS_PER_GROUP):
                    for row in batch.to_pylist():
                        yield {k: dict(v) if k == "aus" and v is not None else v for k, v in row.items()}
        else:
            with path.open(encoding="utf-8") as lines:
                for line in lines:
                    yield json.loads(line)
    except FastfaceError:
        raise
    except (OSError, ValueError, ImportError) as error:
        raise BadArgument(f"{path}: not a label table ({error})") from None
