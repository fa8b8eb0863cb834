"""The files of a transfer: what is finished so far, and the labels beside the output."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from fastface.alignment import Array
from fastface.atomic import destination, whole_file, write_whole
from fastface.codebook import Columns, types_of
from fastface.errors import BadArgument, BadImage, WriteFailed
from fastface.labels import LabelTable, table_suffix
from fastface.provenance import xmp_packet
from fastface.track_files import Track
from fastface.tracking import MEASURED, NO_FACE
from fastface.transfer_labels import SourceLabels, merged, moved, renamed, write_csv

FORMAT: Final = "fastface-transfer"
VERSION: Final = 1
_BLOCK: Final = 240
#: What the XMP of a video says: how it was made, and no names, which may be a person's.
_IN_XMP: Final = (
    "domain",
    "frames",
    "fps",
    "paste",
    "smoothing_s",
    "reference_sha256",
    "checkpoint_sha256",
    "generator_sha256",
    "source_sha256",
    "engine_version",
)
#: Of the rows of frames.
FRAME_COLUMNS: Final[Columns] = {
    "format": ("string", "fastface-transfer"),
    "version": ("int64", "of the format"),
    "image": ("string", "file name of the output video"),
    "frame": ("int64", "number in the output, from 0; empty for a frame that was skipped"),
    "source_frame": ("int64", "number in the source, from 0"),
    "time_s": ("float64", "seconds, of output and source alike"),
    "pts": ("int64", "the same in units of the clip's time_base, exactly"),
    "face": ("bool", "whether a face is in the source's frame"),
    "measured": ("bool", "whether landmarks were measured in it, or it lies between such frames"),
    "cut": ("bool", "whether another shot begins here"),
    "score": ("float64", "probability 0 … 1 that it is a face, where measured"),
    "square_x_px": ("float64", "centre of the square that was cut out of the source's frame"),
    "square_y_px": ("float64", "centre of the square, downwards"),
    "square_side_px": ("float64", "its side"),
    "square_angle_deg": ("float64", "its turn, clockwise as seen"),
}


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex. Raises ``BadImage``."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise BadImage(f"{path}: cannot be read ({error.strerror or error})") from None


class WorkFolder:
    """A folder for what is finished of one job. A context manager: the folder is there and ours alone; what
    another job left in it is gone. It stays when the block ends, until ``remove``."""

    def __init__(self, path: Path, job: dict[str, Any]) -> None:
        self.path = path
        self._job = json.dumps(job, sort_keys=True).encode()
        self._lock: int | None = None

    def __enter__(self) -> WorkFolder:
        try:
            self.path.mkdir(exist_ok=True)
            self._take()
            known = self.path / "job.json"
            if not known.is_file() or known.read_bytes() != self._job:
                for entry in self.path.iterdir():
                    if entry.is_file() and entry.name != "lock":  # folders in it look after themselves
                        entry.unlink()
                write_whole(known, self._job)
            for left in self.path.glob(".*.tmp"):  # of a run that was killed while it wrote
                left.unlink()
        except OSError as error:
            self.__exit__(None, None, None)
            if isinstance(error, WriteFailed):
                raise
            raise WriteFailed(f"{self.path}: cannot be used ({error.strerror or error})") from error
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def _take(self) -> None:
        self._lock = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT, 0o666)
        try:
            import fcntl
        except ImportError:  # not on Windows; there it is up to the user
            return
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BadArgument(f"{self.path}: another run is at work on this output") from None

    def remove(self) -> None:
        """The job is done."""
        shutil.rmtree(self.path, ignore_errors=True)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


class Outputs:
    """Where a transfer writes: ``out.mp4``, ``out.parquet`` or ``out.jsonl`` with a row a frame, ``out.json``
    about the clip, and ``out.csv`` where the source has one. Raises ``WriteFailed``, ``BadArgument``."""

    def __init__(self, video: Path, source: Path, carried: SourceLabels) -> None:
        self._video, self._carried = video, carried
        self._table = video.with_suffix(table_suffix())
        self._clip = video.with_suffix(".json")
        self._csv = video.with_suffix(".csv") if carried.csv else None
        self.work_folder = video.parent / f".{video.name}.parts"
        for path in (video, self._table, self._clip, *([self._csv] if self._csv else [])):
            final = destination(path)
            if final.exists() and any(other.exists() and final.samefile(other) for other in _inputs(source)):
                raise BadArgument(f"{path}: is the input itself")

    def xmp(self, record: dict[str, Any]) -> bytes:
        """The marking of the video."""
        made = {key: record[key] for key in _IN_XMP}
        return xmp_packet(made, f"fastface {record['engine_version']}")

    def write_labels(
        self,
        track: Track,
        record: dict[str, Any],
        time_base: Fraction,
        to_output: Callable[[Array], Array] | None,
    ) -> tuple[Path, ...]:
        """Write all that goes beside the video. Returns the paths."""
        self._write_frames(track, record, time_base, to_output)
        written = [self._table, self._clip]
        about = {"transfer": {"format": FORMAT, "version": VERSION, **record}}
        if "transfer" in self._carried.record:  # a transfer of a transfer
            about["source_transfer"] = self._carried.record["transfer"]
        rows = self._carried.clip_rows()
        if rows:
            about["source_rows"] = rows  # type: ignore[assignment]
        text = json.dumps({**self._carried.record, **about}, ensure_ascii=False, indent=1, default=str)
        if self._csv is not None and self._carried.csv is not None:
            with whole_file(self._csv) as temporary:
                write_csv(temporary, self._carried.csv, _csv_columns(record))
            written.append(self._csv)
        write_whole(self._clip, (text + "\n").encode())
        return tuple(written)

    def _write_frames(
        self,
        track: Track,
        record: dict[str, Any],
        time_base: Fraction,
        to_output: Callable[[Array], Array] | None,
    ) -> None:
        own = types_of(FRAME_COLUMNS)
        types = own | {renamed(name, own): kind for name, kind in self._carried.types().items()}
        carried = self._carried.rows(track.frames)
        made = 0
        with LabelTable(self._table, types=types) as table:
            for low in range(0, track.frames, _BLOCK):
                rows, squares = track.rows(low, low + _BLOCK), track.squares(low, low + _BLOCK)
                for index, square in enumerate(squares):
                    face = bool(rows.state[index] != NO_FACE)
                    measured = bool(rows.state[index] == MEASURED)
                    kept = face or record["no_face"] != "skip"
                    row = {
                        "format": FORMAT,
                        "version": VERSION,
                        "image": record["video"],
                        "frame": made if kept else None,
                        "source_frame": low + index,
                        "time_s": round(float(int(rows.pts[index]) * time_base), 9),
                        "pts": int(rows.pts[index]),
                        "face": face,
                        "measured": measured,
                        "cut": bool(rows.cut[index]),
                        "score": round(float(rows.score[index]), 4) if measured else None,
                        **_square_columns(square),
                    }
                    made += kept
                    theirs = moved(next(carried), None if to_output is None else to_output(square))
                    table.append(merged(row, theirs))


def _square_columns(square: Array) -> dict[str, float]:
    import math

    return {
        "square_x_px": round(float(square[0]), 4),
        "square_y_px": round(float(square[1]), 4),
        "square_side_px": round(math.exp(square[2]), 4),
        "square_angle_deg": round(math.degrees(math.remainder(square[3], math.tau)), 4),
    }


def _csv_columns(record: dict[str, Any]) -> dict[str, Any]:
    keys = ("video", "source", "reference", "domain", "paste", "reference_sha256", "generator_sha256")
    return {f"transfer_{key}": record[key] for key in keys}


def _inputs(source: Path) -> list[Path]:
    return [source, *(source.with_suffix(suffix) for suffix in (".json", ".csv", ".jsonl", ".parquet"))]
