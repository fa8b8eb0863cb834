"""What lies beside a set of stimuli or a data set: a table with a row for each output, and what its columns
mean."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from fastface.atomic import write_whole
from fastface.errors import BadArgument
from fastface.labels import LabelTable

#: Column → its type ("string", "int64", "float64", "bool" or "list") and what stands in it, in table order.
Columns = Mapping[str, tuple[str, str]]

#: Of the file that says what the columns of the tables beside it mean.
KEY_NAME: Final = "columns.csv"


def types_of(columns: Columns) -> dict[str, str]:
    """Column → type, as ``LabelTable`` takes them."""
    return {name: kind for name, (kind, _) in columns.items() if kind != "list"}


def write_codebook(path: str | Path, rows: Iterable[Mapping[str, Any]], columns: Columns) -> None:
    """A row for each output, as ``.csv`` or ``.parquet``; what a row lacks is left empty.

    Raises ``BadArgument``, ``WriteFailed``.
    """
    path = Path(path)
    if path.suffix == ".csv":
        lines = [list(columns), *([_cell(row.get(name)) for name in columns] for row in rows)]
        write_whole(path, _csv(lines))
    elif path.suffix == ".parquet":
        with LabelTable(path, types=types_of(columns)) as table:
            for row in rows:
                table.append({name: row.get(name) for name in columns})
    else:
        raise BadArgument(f"{path}: a codebook ends in .csv or .parquet")


def write_key(folder: Path, tables: Mapping[str, Columns]) -> Path:
    """Say what the columns of each table mean, in a file of its own; returns its path. Raises
    ``WriteFailed``."""
    lines = [["table", "column", "type", "meaning"]]
    for table, columns in tables.items():
        lines += [[table, name, kind, meaning] for name, (kind, meaning) in columns.items()]
    write_whole(folder / KEY_NAME, _csv(lines))
    return folder / KEY_NAME


def _csv(lines: Iterable[Iterable[Any]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(lines)
    return text.getvalue().encode()


def _cell(value: Any) -> Any:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return " ".join(map(str, value)) if isinstance(value, list) else value
