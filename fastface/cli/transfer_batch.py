"""Every video of a folder on every reference face: a data set with a manifest, its columns explained."""

from __future__ import annotations

import json
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from fastface.cli.options import PHOTO_SUFFIXES
from fastface.cli.report import Report, one_line
from fastface.codebook import KEY_NAME, Columns, types_of, write_key
from fastface.errors import BadArgument, BadImage, FastfaceError, NoFaceFound, WriteFailed
from fastface.labels import LabelTable, table_suffix
from fastface.transfer import FaceTransfer, Look, TransferOptions, digest
from fastface.transfer_files import FRAME_COLUMNS
from fastface.video_reading import VIDEO_SUFFIXES

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

#: Of the manifest.
MANIFEST_COLUMNS: Final[Columns] = {
    "video": ("string", "file name of the output"),
    "source": ("string", "file name of the source video"),
    "reference": ("string", "file name of the reference photo"),
    "domain": ("int64", "domain of the generator that the reference was read as"),
    "frames": ("int64", "frames of the output"),
    "source_frames": ("int64", "frames of the source"),
    "frames_with_face": ("int64", "frames of the source with a face"),
    "fps": ("float64", "frames a second, on average"),
    "time_base": ("string", "seconds a unit of pts, a fraction"),
    "width_px": ("int64", "of the output"),
    "height_px": ("int64", "of the output"),
    "sound": ("bool", "whether the source's sound was carried over"),
    "provenance": ("bool", "whether the video carries its marking as synthetic"),
    "smoothing_s": ("float64", "sigma of the smoothing of the square"),
    "track_every": ("int64", "landmarks were measured in one frame of so many"),
    "no_face": ("string", "what became of frames without a face: hold, skip or stop"),
    "paste": ("string", "how the face was put back into the frame; empty: the face itself is the video"),
    "reference_sha256": ("string", "of the reference's pixels"),
    "checkpoint_sha256": ("string", "of the weights that the generator was exported from"),
    "generator_sha256": ("string", "of the generator's file"),
    "source_sha256": ("string", "of the source's file"),
    "provider": ("string", "what computed it"),
    "engine_version": ("string", "the fastface that made it"),
    "job_sha256": ("string", "of all the above that the pixels depend on"),
    "source_labels": ("string", "JSON: what the source's own record says of the clip"),
}
_THEIRS: Final = {"(others)": ("", "columns of the source's own table, as they were")}
#: Keys of a clip's JSON that are ours, not the source's.
_OURS: Final = ("transfer", "source_transfer")


@dataclass(frozen=True)
class Reference:
    """A photo, the domain it is read as (None: the only one), and its name in the outputs."""

    path: Path
    domain: int | None
    name: str


@dataclass(frozen=True)
class Job:
    """What to make."""

    source: Path
    output: Path
    references: list[Reference]
    options: TransferOptions


@dataclass
class Done:
    """What became of it."""

    output: Path
    manifest: Path
    columns: Path
    written: int = 0
    kept: int = 0
    seconds: float = 0.0
    failures: list[tuple[str, str]] = field(default_factory=list)


class Bars:
    """Two progress bars, of the two passes over a video."""

    def __init__(self, progress: Progress, name: str) -> None:
        self._progress, self._name = progress, name
        self._bars: dict[str, TaskID] = {}

    def __call__(self, stage: Literal["track", "translate"], frames: int) -> None:
        if stage not in self._bars:
            # How long it is, is known when it was tracked.
            tracked = self._bars.get("track")
            total = self._progress.tasks[tracked].completed if tracked is not None else None
            self._bars[stage] = self._progress.add_task(f"{self._name}: {stage}", total=total)
        self._progress.advance(self._bars[stage], frames)

    def clear(self) -> None:
        for bar in self._bars.values():
            self._progress.update(bar, visible=False)


def references(paths: list[Path], domains: list[int]) -> list[Reference]:
    """The reference photos of files and folders, in order. Raises ``BadArgument``, ``BadImage``.

    In a folder of folders each is a domain, in the order of their names, as the authors' data sets have it;
    ``domains`` overrules that.
    """
    found: list[tuple[Path, int | None]] = []
    for path in paths:
        if not path.is_dir():
            if not path.exists():
                raise BadImage(f"{path}: no such file")
            found.append((path, None))
            continue
        photos: list[tuple[Path, int | None]] = [(photo, None) for photo in _files(path, PHOTO_SUFFIXES)]
        if not photos:
            folders = sorted(entry for entry in path.iterdir() if entry.is_dir() and entry.name[:1] != ".")
            photos = [(p, i) for i, folder in enumerate(folders) for p in _files(folder, PHOTO_SUFFIXES)]
        if not photos:
            raise BadArgument(f"{path}: no photos ({', '.join(PHOTO_SUFFIXES)})")
        found += photos
    if len(domains) not in (0, 1, len(found)):
        raise BadArgument(f"--domain: one for all, or one for each of {len(found)} references")
    asked: list[int | None] = [*domains] * (len(found) if len(domains) == 1 else 1)
    chosen = asked or [domain for _, domain in found]
    names = _names([path for path, _ in found])
    return [
        Reference(path, domain, name) for (path, _), domain, name in zip(found, chosen, names, strict=True)
    ]


def run(job: Job, maker: FaceTransfer, report: Report, *, resume: bool, overwrite: bool) -> Done:
    """Do it all. A video or reference that is broken is reported and counted, the others are finished; a disk
    that fails ends the run."""
    if resume and overwrite:
        raise BadArgument("--resume keeps what is there, --overwrite replaces it; give one")
    videos = _files(job.source, VIDEO_SUFFIXES) if job.source.is_dir() else [job.source]
    if not videos:
        raise BadArgument(f"{job.source}: no videos ({', '.join(VIDEO_SUFFIXES)})")
    try:
        job.output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WriteFailed(f"{job.output}: cannot be made ({error.strerror})") from None
    if job.source.is_dir() and job.output.samefile(job.source):
        raise BadArgument(f"{job.output}: the output folder must not be the folder of the videos")
    done = Done(job.output, job.output / f"manifest{table_suffix()}", job.output / KEY_NAME)
    stems = _names(videos)
    wanted = [
        (video, stem, [(photo, job.output / f"{stem}.{photo.name}.mp4") for photo in job.references])
        for video, stem in zip(videos, stems, strict=True)
    ]
    if not (resume or overwrite):
        for output in (output for _, _, outputs in wanted for _, output in outputs):
            if output.exists():
                raise BadArgument(f"{output} exists; --resume keeps what is there, --overwrite replaces it")
    start = time.perf_counter()
    manifest = LabelTable(done.manifest, keep_partial=True, types=types_of(MANIFEST_COLUMNS))
    with manifest as table, report.progress("") as progress:
        bar = progress.add_task(job.output.name, total=len(videos) * len(job.references))
        looks = _looks(job, maker, done, progress)
        for video, stem, outputs in wanted:
            tracks = job.output / f".{stem}.track"
            pairs = [(looks[photo.name], output) for photo, output in outputs if photo.name in looks]
            for row in _rows(job, maker, video, pairs, tracks, done, progress, resume):
                table.append(row)
                progress.advance(bar)
            shutil.rmtree(tracks, ignore_errors=True)
    write_key(job.output, {"manifest": MANIFEST_COLUMNS, "frames": {**FRAME_COLUMNS, **_THEIRS}})
    done.seconds = time.perf_counter() - start
    return done


def _rows(
    job: Job,
    maker: FaceTransfer,
    video: Path,
    pairs: list[tuple[Look, Path]],
    tracks: Path,
    done: Done,
    progress: Progress,
    resume: bool,
) -> Iterator[dict[str, Any]]:
    """One video on every face: rows of the manifest, up to the first fault, which is reported."""
    for look, output in pairs:
        bars = Bars(progress, output.name)
        try:
            row = _kept(maker, video, output, look, job.options) if resume else None
            if row is not None:
                done.kept += 1
            else:
                made = maker.run(video, output, look, job.options, tracks=tracks, advance=bars)
                done.written += 1
                row = _row(made.record, output)
        except WriteFailed:
            raise  # the next one would meet the same disk
        except FastfaceError as error:
            return _failed(done, progress, video.name, one_line(error))
        except Exception as error:
            fault = f"internal fault ({type(error).__name__}: {error})"
            return _failed(done, progress, video.name, one_line(fault))
        finally:
            bars.clear()
        yield row


def _failed(done: Done, progress: Progress, name: str, error: str) -> None:
    done.failures.append((name, error))
    progress.console.print(f"fastface: {name}: {error}", markup=False, highlight=False, soft_wrap=True)


def _looks(job: Job, maker: FaceTransfer, done: Done, progress: Progress) -> dict[str, Look]:
    looks = {}
    for photo in job.references:
        try:
            looks[photo.name] = maker.look(photo.path, photo.domain)
        except (BadImage, NoFaceFound) as error:
            _failed(done, progress, photo.path.name, one_line(error))
    if not looks:
        raise NoFaceFound(f"no reference can be used: {done.failures[0][1]}")
    return looks


def _kept(
    maker: FaceTransfer, video: Path, output: Path, look: Look, options: TransferOptions
) -> dict[str, Any] | None:
    """The row of an output that an earlier run of the same job finished."""
    if not output.is_file():
        return None
    try:
        record = json.loads(output.with_suffix(".json").read_bytes())["transfer"]
        same = record["job_sha256"] == digest(maker.job(video, look, options))
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return _row(record, output) if same else None


def _row(record: dict[str, Any], output: Path) -> dict[str, Any]:
    try:
        clip = json.loads(output.with_suffix(".json").read_bytes())
    except (OSError, ValueError, RecursionError):
        clip = {}
    theirs = {key: value for key, value in clip.items() if key not in _OURS}
    row = {name: record.get(name) for name in MANIFEST_COLUMNS}
    row["source_labels"] = json.dumps(theirs, ensure_ascii=False) if theirs else None
    return row


def _files(folder: Path, suffixes: tuple[str, ...]) -> list[Path]:
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        raise BadArgument(f"{folder}: cannot be read ({error.strerror})") from None
    return [
        entry
        for entry in entries
        if entry.suffix.casefold() in suffixes and not entry.name.startswith(".") and entry.is_file()
    ]


def _names(paths: list[Path]) -> list[str]:
    """A stem for each, all different: of namesakes with the suffix, then with the folder."""
    names = [path.stem for path in paths]
    for further in (_with_suffix, _with_folder):
        count = Counter(names)
        names = [further(p) if count[n] > 1 else n for p, n in zip(paths, names, strict=True)]
    doubled = next((name for name, count in Counter(names).items() if count > 1), None)
    if doubled is not None:
        raise BadArgument(f"two inputs would be named {doubled}")
    return names


def _with_suffix(path: Path) -> str:
    return f"{path.stem}_{path.suffix[1:]}"


def _with_folder(path: Path) -> str:
    return f"{path.parent.name}_{path.stem}"
