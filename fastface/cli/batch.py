"""A folder of photos, or a photo's set: every core busy, one bad photo reported and the others finished,
interrupted cleanly.

A photo is one task, done by one of as many processes as there are cores; processes, because a fit holds the
interpreter's lock for much of its time. Results come back in the order of the photos' names, a bounded number
under way, so that a manifest of a million images is the same from run to run and memory stays flat.
"""

from __future__ import annotations

import os
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from fastface.affect import Affect, AffectPath
from fastface.cli import options as opt
from fastface.cli import outputs
from fastface.cli.asked import varied, view_name
from fastface.cli.report import Report, one_line
from fastface.cli.tiles import Tiles, check_sheet
from fastface.cli.videos import write_video
from fastface.errors import BadArgument, BadImage, FastfaceError, WriteFailed
from fastface.head_pose import HeadPose
from fastface.labels import LabelTable, read_labels, table_suffix
from fastface.processes import Work, in_processes

if TYPE_CHECKING:
    from fastface.engine import Engine

_STALE_SECONDS: Final = 3600
_SHEET_COLUMNS: Final = 12


@dataclass(frozen=True)
class Job:
    """What to make of every photo of a folder, or of one photo; sent to each process once."""

    source: Path
    output: Path
    affects: tuple[Affect, ...]
    path: AffectPath | None
    path_name: str
    random: int
    seed: int
    suffix: str
    model: str
    device: str
    quality: int
    marked: bool
    affect_model: Path | None = None
    variants: tuple[int, ...] = ()
    poses: tuple[HeadPose, ...] = (HeadPose(),)
    sheet: Path | None = None

    @property
    def count(self) -> int:
        """Outputs of each photo."""
        affects = (len(self.affects) + self.random) * max(len(self.variants), 1)
        return len(self.poses) * (1 if self.path is not None else affects)


@dataclass(frozen=True)
class Wanted:
    """One output of a photo; without an affect it is the video along the job's path."""

    affect: Affect | None
    pose: HeadPose
    output: Path


@dataclass(frozen=True)
class Task:
    """One photo, what is still to be made of it, and the records of what is there already."""

    photo: Path
    wanted: tuple[Wanted, ...]
    kept: tuple[dict[str, Any], ...]


@dataclass
class Outcome:
    """What became of a task: the records of its outputs, and what went wrong, if anything did."""

    records: list[dict[str, Any]] = field(default_factory=list)
    error: str = ""


@dataclass
class Done:
    """What became of the run."""

    manifest: Path
    written: int = 0
    kept: int = 0
    seconds: float = 0.0
    failures: list[tuple[str, str]] = field(default_factory=list)


def checked_format(name: str, *, video: bool) -> str:
    """ "png" → ".png"; a folder of videos is always MP4. Raises ``BadArgument``."""
    suffix = "." + name.removeprefix(".").casefold()
    if suffix not in opt.IMAGE_SUFFIXES:
        raise BadArgument(f"--format is png, jpg or webp, got {name!r:.20}")
    return ".mp4" if video else suffix


def run(job: Job, report: Report, threads: int | None, *, resume: bool, overwrite: bool) -> Done:
    """Do the whole folder. A photo that fails is reported and counted; a disk that fails ends the run."""
    if resume and overwrite:
        raise BadArgument("--resume keeps what is there, --overwrite replaces it; give one")
    photos = _photos(job.source)
    if job.sheet is not None:
        check_sheet(job.sheet, len(photos) * job.count, job.output, job.source)
    _prepare_output(job)
    there = _there(job.output, clean=resume or overwrite)
    stems = _stems(photos)
    if not (resume or overwrite):
        _refuse_replacing(job, photos, stems, there)
    done = Done(job.output / f"manifest{table_suffix()}")
    workers = min(threads or available_cores(), max(len(photos), 1))
    start = time.perf_counter()
    # Made here first: an engine that cannot be had is one clear error, not one of each process.
    engine = _open(job, 1 if workers > 1 else threads)
    said = {**engine.made_with, "provenance": job.marked}
    tasks = (_task(job, photo, stems[photo.name], there if resume else set(), said) for photo in photos)
    tiles = Tiles()
    table = LabelTable(done.manifest, keep_partial=True, types={"variant": "int64"})
    with table as manifest, report.progress("photos") as progress:
        bar = progress.add_task(job.output.name, total=len(photos))
        for task, outcome in _outcomes(job, engine, tasks, workers):
            for record in (*task.kept, *outcome.records):
                manifest.append(record)
                if job.sheet is not None:
                    image = job.output / record["image"]
                    tiles.add(image, record, image.stem.removeprefix(stems[task.photo.name] + "."))
            done.written += len(outcome.records)
            done.kept += len(task.kept)
            if outcome.error:
                done.failures.append((task.photo.name, outcome.error))
                text = f"fastface: {task.photo.name}: {outcome.error}"
                progress.console.print(text, markup=False, highlight=False, soft_wrap=True)
            progress.advance(bar)
    if job.sheet is not None:
        tiles.write(job.sheet, _sheet_columns(job), job.quality)
    done.seconds = time.perf_counter() - start
    return done


def _sheet_columns(job: Job) -> int:
    """A row of the sheet for each photo where that is not too wide; views of one face never part."""
    views = len(job.poses)
    return job.count if job.count <= _SHEET_COLUMNS else max(_SHEET_COLUMNS // views, 1) * views


def _open(job: Job, threads: int | None) -> Engine:
    return opt.open_engine(job.model, opt.Device(job.device), threads, job.affect_model)


def available_cores() -> int:
    """The cores this process may use, which in a container can be fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _photos(folder: Path) -> list[Path]:
    if not folder.is_dir():
        if not folder.exists():
            raise BadImage(f"{folder}: no such file")
        return [folder]
    suffixes = (*opt.PHOTO_SUFFIXES, ".npz")
    try:
        with os.scandir(folder) as entries:
            names = [
                entry.name
                for entry in entries
                if not entry.name.startswith(".") and Path(entry.name).suffix.casefold() in suffixes
            ]
    except OSError as error:
        raise BadArgument(f"{folder}: cannot be read ({error.strerror})") from None
    if not names:
        raise BadArgument(f"{folder}: no photos ({', '.join(suffixes)})")
    return [folder / name for name in sorted(names)]


def _prepare_output(job: Job) -> None:
    try:
        job.output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WriteFailed(f"{job.output}: cannot be made ({error.strerror})") from None
    if job.source.is_dir() and job.output.samefile(job.source):
        raise BadArgument(f"{job.output}: the output folder must not be the folder of the photos")


def _refuse_replacing(job: Job, photos: list[Path], stems: dict[str, str], there: set[str]) -> None:
    for photo in photos:
        for wanted in _wanted(job, photo, stems[photo.name]):
            if wanted.output.name in there:
                raise BadArgument(
                    f"{wanted.output} exists; --resume keeps what is there, --overwrite replaces it"
                )


def _there(folder: Path, *, clean: bool) -> set[str]:
    """The names in the output folder; with ``clean``, what a killed run left half-written is removed."""
    names = set()
    with os.scandir(folder) as entries:
        for entry in entries:
            if clean and entry.name.startswith(".") and entry.name.endswith(".tmp"):
                with suppress(OSError):
                    if time.time() - entry.stat().st_mtime > _STALE_SECONDS:
                        os.unlink(entry.path)
            names.add(entry.name)
    return names


def _stems(photos: list[Path]) -> dict[str, str]:
    """Photo name → stem of its outputs; a.jpg beside a.png keeps its suffix, a_jpg."""
    count: dict[str, int] = {}
    for photo in photos:
        count[photo.stem] = count.get(photo.stem, 0) + 1
    return {
        photo.name: photo.stem if count[photo.stem] == 1 else photo.stem + "_" + photo.suffix[1:]
        for photo in photos
    }


def _wanted(job: Job, photo: Path, stem: str) -> list[Wanted]:
    shown: list[Affect | None] = [None]
    if job.path is None:
        bases = [*job.affects, *_random_affects(job, photo.name)]
        shown = [affect for base in bases for affect in varied(base, job.variants)]
    return [
        Wanted(
            affect,
            pose,
            job.output
            / f"{stem}.{affect.slug if affect else job.path_name}{view_name(pose, job.poses)}{job.suffix}",
        )
        for affect in shown
        for pose in job.poses
    ]


def _random_affects(job: Job, name: str) -> list[Affect]:
    """Points drawn evenly from the unit disc, to two decimals, none twice; they depend on seed and photo
    only."""
    random = np.random.default_rng([job.seed, zlib.crc32(name.encode())])
    drawn: dict[str, Affect] = {}
    # A disc holds about 31,000 points of two decimals: most requests need few draws beyond their number.
    for _ in range(20 * job.random):
        if len(drawn) == job.random:
            break
        radius, angle = np.sqrt(random.uniform()), random.uniform(0, 2 * np.pi)
        affect = Affect.va(round(float(radius * np.cos(angle)), 2), round(float(radius * np.sin(angle)), 2))
        drawn.setdefault(affect.slug, affect)
    return list(drawn.values())


def _task(job: Job, photo: Path, stem: str, there: set[str], said: dict[str, Any]) -> Task:
    wanted = []
    kept = []
    for one in _wanted(job, photo, stem):
        shown = one.affect.slug if one.affect else f"path {job.path_name}"
        asked = {**said, "image": one.output.name, "affect": shown}
        record = _record_of(one.output, asked) if one.output.name in there else None
        if record is None:
            wanted.append(one)
        else:
            kept.append(record)
    return Task(photo, tuple(wanted), tuple(kept))


def _record_of(output: Path, said: dict[str, Any]) -> dict[str, Any] | None:
    """The labels of an output that an earlier run finished; None when they are missing or say another thing:
    another affect, head model or affect model."""
    try:
        record = read_labels(outputs.sidecar(output))
    except FastfaceError:
        return None
    return record if all(record.get(key) == value for key, value in said.items()) else None


# --- doing it ---


def _outcomes(
    job: Job, engine: Engine, tasks: Iterator[Task], workers: int
) -> Iterator[tuple[Task, Outcome]]:
    if workers == 1 or job.device != "cpu":
        return ((task, _do(job, engine, task)) for task in tasks)
    return in_processes(Work(_work, _start_worker, (job,), _died), tasks, workers)


def _do(job: Job, engine: Engine, task: Task, go_on: Callable[[], None] = lambda: None) -> Outcome:
    """One photo. ``go_on`` is called between outputs and frames, and raises to stop."""
    outcome = Outcome()
    if not task.wanted:
        return outcome
    try:
        face = opt.open_face(engine, task.photo)
        for one in task.wanted:
            go_on()
            if one.affect is None:
                assert job.path is not None
                record = write_video(
                    one.output,
                    engine,
                    face,
                    job.path,
                    photo=task.photo.name,
                    path_name=job.path_name,
                    quality=job.quality,
                    marked=job.marked,
                    threads=1,
                    advance=go_on,
                    pose=one.pose,
                )
                outputs.write_record(outputs.sidecar(one.output), record)
            else:
                record = outputs.write_output(
                    one.output,
                    np.asarray(engine.render(face, one.affect, pose=one.pose)),
                    engine.labels(face, one.affect, pose=one.pose),
                    one.affect,
                    task.photo.name,
                    quality=job.quality,
                    marked=job.marked,
                )
            outcome.records.append(record)
    except WriteFailed:
        raise  # the next photo would meet the same disk
    except FastfaceError as error:
        outcome.error = one_line(error)
    except Exception as error:
        outcome.error = one_line(f"internal fault ({type(error).__name__}: {error})")
    return outcome


class _Stopped(BaseException):
    """Raised in a process whose run was interrupted; passes every ``except Exception``."""


class _Worker:
    """What a process keeps from task to task."""

    job: Job
    engine: Engine
    stop: Any


def _start_worker(job: Job, stop: Any) -> None:
    _Worker.job, _Worker.stop = job, stop
    _Worker.engine = _open(job, 1)


def _work(task: Task) -> Outcome:
    def go_on() -> None:
        if _Worker.stop.is_set():
            raise _Stopped

    try:
        return _do(_Worker.job, _Worker.engine, task, go_on)
    except _Stopped:
        return Outcome(error="interrupted")


def _died() -> Outcome:
    return Outcome(error="the process died on this photo (out of memory, or a fault)")
