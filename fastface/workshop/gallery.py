"""A gallery: many annotated faces of known people, in shards, read one shard at a time.

A folder with ``gallery.json`` and ``NNNNN.npz``. Each row is one face: ``values (D,)``, either expression
coefficients (kind "coefficients", D = E, named) or registered vertices (kind "vertices", D = 3 V, mm); whose
it is, where in which sequence, and how it was annotated. Written whole: ``gallery.json`` comes last.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fastface.atomic import whole_file, write_whole
from fastface.errors import BadArgument, BadModelFile, WriteFailed
from fastface.morphable import ArraySpec, read_arrays, write_archive

FORMAT: Final = "fastface-gallery"
VERSION: Final = 1
KINDS: Final = ("coefficients", "vertices")
ROWS_PER_SHARD: Final = 4096
_MOST_SHARDS: Final = 100_000
_MOST_JSON_BYTES: Final = 64 << 20

_COLUMNS: Final = {
    "subject": ArraySpec("<i4", 1, "(N,) number of the person"),
    "sequence": ArraySpec("<i4", 1, "(N,) number of the recording"),
    "frame": ArraySpec("<i4", 1, "(N,) frame within it"),
    "valence": ArraySpec("<f4", 1, "(N,) -1 … 1"),
    "arousal": ArraySpec("<f4", 1, "(N,) -1 … 1"),
    "expression": ArraySpec("|i1", 1, "(N,) index into the gallery's expressions, -1 for none"),
    "neutral": ArraySpec("|u1", 1, "(N,) 1 where the face is at rest"),
}
_VALUES: Final = {"values": ArraySpec("<f2", 2, "(N, D)")}


@dataclass(frozen=True)
class Rows:
    """Faces and what is known of them; ``values`` (N, D) float16, the others (N,) as in the module's text."""

    values: NDArray[np.float16]
    subject: NDArray[np.int32]
    sequence: NDArray[np.int32]
    frame: NDArray[np.int32]
    valence: NDArray[np.float32]
    arousal: NDArray[np.float32]
    expression: NDArray[np.int8]
    neutral: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.subject)


@dataclass(frozen=True)
class Gallery:
    """An opened gallery; iterate for its ``Rows``, shard by shard."""

    folder: Path
    kind: str
    names: tuple[str, ...]  # of the coefficients; empty for vertices
    width: int  # D
    expressions: tuple[str, ...]
    shards: tuple[int, ...]  # rows of each
    about: Mapping[str, Any]

    @classmethod
    def open(cls, folder: str | Path) -> Gallery:
        """Read and check ``gallery.json``. Raises ``BadModelFile``."""
        folder = Path(folder)
        label = folder / "gallery.json"
        try:
            if label.stat().st_size > _MOST_JSON_BYTES:
                raise BadModelFile(f"{label}: wanted at most {_MOST_JSON_BYTES} bytes")
            said = json.loads(label.read_bytes())
            if said["format"] != FORMAT or said["version"] != VERSION:
                got = f"{str(said['format'])[:80]!r} {str(said['version'])[:20]}"
                raise BadModelFile(f"{label}: wanted {FORMAT!r} version {VERSION}, got {got}")
            names, expressions = (tuple(map(str, said[key])) for key in ("names", "expressions"))
            shards, width, kind = tuple(map(int, said["shards"])), int(said["width"]), str(said["kind"])
            about = dict(said["about"])
        except OSError as error:
            raise BadModelFile(f"{label}: cannot be read: {error.strerror or error}") from error
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise BadModelFile(f"{label}: wanted the description of a gallery: {error!r:.120}") from error
        sound = 0 < width <= 1_200_000 and len(shards) <= _MOST_SHARDS and all(n > 0 for n in shards)
        if kind not in KINDS or not sound or (kind == "coefficients" and len(names) != width):
            raise BadModelFile(f"{label}: kind, width, names and shards do not agree")
        return cls(folder, kind, names, width, expressions, shards, about)

    def __len__(self) -> int:
        return sum(self.shards)

    def __iter__(self) -> Iterator[Rows]:
        for index in range(len(self.shards)):
            yield Rows(**self._read(index, {**_VALUES, **_COLUMNS}))

    def annotations(self) -> dict[str, NDArray[Any]]:
        """All columns but ``values``, of all rows: a few bytes a face."""
        parts = [self._read(index, _COLUMNS) for index in range(len(self.shards))]
        return {name: np.concatenate([part[name] for part in parts]) for name in _COLUMNS}

    def _read(self, index: int, specs: dict[str, ArraySpec]) -> dict[str, NDArray[Any]]:
        path = self.folder / f"{index:05d}.npz"
        arrays = read_arrays(path, specs)
        for name, array in arrays.items():
            wanted = (self.shards[index], self.width) if name == "values" else (self.shards[index],)
            if array.shape != wanted:
                raise BadModelFile(f"{path}: {name} must be {wanted}, got {array.shape}")
            if not np.isfinite(array).all():
                raise BadModelFile(f"{path}: {name} must be finite")
        if (np.abs([arrays["valence"], arrays["arousal"]]) > 1).any():
            raise BadModelFile(f"{path}: valence and arousal must be within -1 … 1")
        if (arrays["subject"] < 0).any() or (arrays["expression"] >= len(self.expressions)).any():
            raise BadModelFile(f"{path}: subjects count from 0, expressions are those of gallery.json")
        return arrays


class GalleryWriter:
    """Writes a gallery in batches of any size; a context manager, and only its good end makes a gallery."""

    def __init__(
        self,
        folder: str | Path,
        kind: str,
        width: int,
        *,
        names: tuple[str, ...] = (),
        expressions: tuple[str, ...] = (),
        about: Mapping[str, Any] | None = None,
    ) -> None:
        if kind not in KINDS or (kind == "coefficients" and len(names) != width):
            raise BadArgument(f"a gallery holds {' or '.join(KINDS)}, coefficients with a name each")
        self._folder = Path(folder)
        if (self._folder / "gallery.json").exists():
            raise BadArgument(f"{folder}: there is a gallery already")
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise WriteFailed(f"{folder}: cannot be made ({error.strerror})") from None
        self._said: dict[str, Any] = {
            "format": FORMAT,
            "version": VERSION,
            "kind": kind,
            "width": width,
            "names": list(names),
            "expressions": list(expressions),
            "about": dict(about or {}),
        }
        self._width, self._waiting, self._shards = width, list[Rows](), list[int]()

    def add(self, rows: Rows) -> None:
        if rows.values.shape != (len(rows), self._width):
            raise BadArgument(
                f"gallery: values must be ({len(rows)}, {self._width}), got {rows.values.shape}"
            )
        self._waiting.append(rows)
        if sum(map(len, self._waiting)) >= ROWS_PER_SHARD:
            self._flush()

    def __enter__(self) -> GalleryWriter:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if kind is None:
            self._flush()
            text = json.dumps({**self._said, "shards": self._shards}, ensure_ascii=False, indent=1)
            write_whole(self._folder / "gallery.json", text.encode())

    def _flush(self) -> None:
        if not self._waiting:
            return
        specs = {**_VALUES, **_COLUMNS}
        joined = {
            field.name: np.concatenate([getattr(rows, field.name) for rows in self._waiting]).astype(
                specs[field.name].dtype
            )
            for field in fields(Rows)
        }
        path = self._folder / f"{len(self._shards):05d}.npz"
        with whole_file(path) as temporary, temporary.open("wb") as stream:
            write_archive(stream, joined)
        self._shards.append(len(joined["subject"]))
        self._waiting = []
