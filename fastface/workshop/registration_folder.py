"""A folder of scans on to one mesh: all cores, one bad scan reported and the others finished, resumed after a
stop, and what came out judged.

``report.json`` in the output folder says how the run was set up, and of every scan whether it was
``registered``, is an ``outlier`` (its mesh then lies in ``outliers/``) or ``failed``, with residuals and
reasons. A run into a folder that was made with other settings is refused. Scans that did not change are not
made again; a scan or its landmarks that did are, by their SHA-256.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from fastface.atomic import write_whole
from fastface.errors import BadArgument, BadModelFile, FastfaceError, WriteFailed
from fastface.morphable import read_arrays
from fastface.processes import Work, in_processes
from fastface.workshop.outliers import Judged, judge
from fastface.workshop.registered import ARRAYS, SUFFIXES, Registered
from fastface.workshop.registration import ROUNDS, register_scan
from fastface.workshop.scan_landmarks import Landmarks
from fastface.workshop.scans import Scan, read_scan
from fastface.workshop.template import Template, open_template

FORMAT: Final = "fastface-registration"
VERSION: Final = 1
REPORT: Final = "report.json"
OUTLIERS: Final = "outliers"
PICTURES: Final = "pictures"
_STALE_SECONDS: Final = 3600
_MOST_SCANS: Final = 20_000
_MOST_REPORT_BYTES: Final = 64 << 20
_MOST: Final = 1e9
_TEXTS: Final = ("scan", "sha256")
_NUMBERS: Final = ("covered", "mean_mm", "median_mm", "p95_mm", "landmark_mm", "distortion")
_ENTRY: Final = frozenset({"name", "status", "scores", "reasons"})
_RECORD: Final = {"record": ARRAYS["record"]}


@dataclass(frozen=True)
class Settings:
    """``template``: default, ict, or a file; ``template_landmarks``, ``landmarks``: files or folders of
    ``scan_landmarks``; ``unit_mm``: millimetres in the scans' unit, told by size if None."""

    template: str = "default"
    template_landmarks: Path | None = None
    landmarks: Path | None = None
    unit_mm: float | None = None


@dataclass(frozen=True)
class Task:
    """A scan and the name of its mesh."""

    scan: Path
    name: str


@dataclass(frozen=True)
class Outcome:
    """What became of a scan: its record, or why there is none."""

    record: dict[str, Any] = field(default_factory=dict)
    error: str = ""


@dataclass(frozen=True)
class Done:
    """What became of the run: ``entries`` of the report, in the order of names; ``kept`` of them were there
    before."""

    report: Path
    entries: list[dict[str, Any]]
    kept: int

    def of(self, status: str) -> list[dict[str, Any]]:
        """The entries that are "registered", "outlier" or "failed"."""
        return [entry for entry in self.entries if entry["status"] == status]


def register_folder(
    scans: Path,
    output: Path,
    settings: Settings,
    *,
    processes: int = 1,
    overwrite: bool = False,
    keep_outliers: bool = False,
    pictures: bool = False,
    begin: Callable[[int, int], None] = lambda total, kept: None,
    advance: Callable[[Task, Outcome], None] = lambda task, outcome: None,
) -> Done:
    """Register every scan of ``scans`` into ``output/NAME.npz`` (``workshop.registered``).

    ``overwrite``: begin anew where ``output`` was made before, perhaps with other settings; else what is
    there is kept. ``keep_outliers``: leave their meshes among the others. ``pictures``: draw each scan that
    is made into ``output/pictures``. ``begin`` is told how many scans there are and how many are made
    already, ``advance`` of each that is made. Raises ``BadArgument`` and ``BadModelFile`` for settings,
    template and folders, ``WriteFailed``; a bad scan is in the report.
    """
    tasks = _tasks(scans)
    landmarks = None if settings.landmarks is None else Landmarks(settings.landmarks)
    template = open_template(settings.template, settings.template_landmarks, reading=landmarks is None)
    _prepare(scans, output, _said(settings, template), overwrite=overwrite, pictures=pictures)
    made = _made(output)
    wanted = [task for task in tasks if _differs(made.get(task.name), task, landmarks)]
    begin(len(tasks), len(tasks) - len(wanted))
    job = Job(template, landmarks, settings.unit_mm, output, pictures)
    failed: dict[str, dict[str, Any]] = {}
    for task, outcome in _outcomes(job, wanted, processes):
        if outcome.error:
            failed[task.name] = {"scan": task.scan.name, "error": outcome.error}
            for place in (output, output / OUTLIERS):  # of what the scan was before
                with suppress(OSError):
                    (place / f"{task.name}.npz").unlink(missing_ok=True)
        advance(task, outcome)
    made = _made(output)
    judged = judge({name: record for name, record in made.items() if name not in failed})
    _sort_out(output, judged, keep_outliers=keep_outliers)
    entries = _entries(made, judged, failed)
    report = output / REPORT
    _write(report, _said(settings, template), entries)
    return Done(report, entries, len(tasks) - len(wanted))


# ---------------------------------------------------------------------------------------------- the folder


def _tasks(folder: Path) -> list[Task]:
    try:
        scans = sorted(
            path
            for path in folder.iterdir()
            if path.suffix.casefold() in SUFFIXES and not path.name.startswith(".") and path.is_file()
        )
    except OSError as error:
        raise BadArgument(f"{folder}: wanted a folder of scans ({error.strerror or error})") from None
    if not 1 <= len(scans) <= _MOST_SCANS:
        kinds = ", ".join(SUFFIXES)
        raise BadArgument(f"{folder}: wanted 1 to {_MOST_SCANS:,} scans ({kinds}), got {len(scans)}")
    times = Counter(scan.stem for scan in scans)
    tasks = [
        Task(scan, scan.stem if times[scan.stem] == 1 else f"{scan.stem}_{scan.suffix[1:]}") for scan in scans
    ]
    name, most = Counter(task.name for task in tasks).most_common(1)[0]
    if most > 1:
        raise BadArgument(f"{folder}: {most} scans would both be {name}.npz; rename one")
    return tasks


def _said(settings: Settings, template: Template) -> dict[str, Any]:
    """The settings that decide what a mesh is, as the report has them."""
    landmarks = hashlib.sha256()
    for key in sorted(template.named):
        landmarks.update(f"{key} {template.named[key].round(4).tolist()}".encode())
    return {
        "template": settings.template,
        "template_sha256": template.digest,
        "template_vertices": len(template.vertices),
        "template_landmarks_sha256": landmarks.hexdigest(),
        "landmarks": "read off pictures" if settings.landmarks is None else "given",
        "unit_mm": settings.unit_mm,
        "rounds": [list(round) for round in ROUNDS],
    }


def _prepare(scans: Path, output: Path, said: dict[str, Any], *, overwrite: bool, pictures: bool) -> None:
    try:
        if output.exists() and output.samefile(scans):
            raise BadArgument(f"{output}: the output folder must not be the folder of the scans")
        for folder in (OUTLIERS, *([PICTURES] if pictures else [])):
            (output / folder).mkdir(parents=True, exist_ok=True)
        there = [path for place in (output, output / OUTLIERS) for path in place.glob("*.npz")]
        for path in (path for place in (output, output / OUTLIERS) for path in place.glob(".*.tmp")):
            if time.time() - path.stat().st_mtime > _STALE_SECONDS:
                path.unlink()
    except OSError as error:
        raise WriteFailed(f"{output}: cannot be made or read ({error.strerror or error})") from None
    before = _read_report(output / REPORT)
    if before is None and there:
        raise BadArgument(f"{output}: holds meshes, but no {REPORT} that says how they were made")
    if before is not None and before != said and not overwrite:
        differ = [key for key in said if before.get(key) != said[key]]
        told = "; ".join(f"{key} {before.get(key)!s:.60}, now {said[key]!s:.60}" for key in differ)
        raise BadArgument(
            f"{output}: was made with other settings ({told}); --overwrite begins anew, or name another "
            "folder"
        )
    if overwrite:
        for path in there:
            path.unlink()
    if before is None or overwrite:
        _write(output / REPORT, said, [])


def _read_report(path: Path) -> dict[str, Any] | None:
    """The settings of the run that made this folder; None when there was none."""
    if not path.exists():
        return None
    try:
        if path.stat().st_size > _MOST_REPORT_BYTES:
            raise BadModelFile(f"{path}: wanted at most {_MOST_REPORT_BYTES} bytes")
        report = json.loads(path.read_text(encoding="utf-8"))
        if (report["format"], report["version"]) != (FORMAT, VERSION):
            raise ValueError(f"format {report['format']!s:.40} version {report['version']!s:.10}")
        settings: dict[str, Any] = dict(report["settings"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise BadModelFile(f"{path}: wanted a report of a registration ({error!s:.80})") from None
    return settings


def _write(path: Path, said: dict[str, Any], entries: list[dict[str, Any]]) -> None:
    counts = {
        status: sum(entry["status"] == status for entry in entries)
        for status in ("registered", "outlier", "failed")
    }
    report = {"format": FORMAT, "version": VERSION, "settings": said, "counts": counts, "scans": entries}
    write_whole(path, (json.dumps(report, ensure_ascii=False, indent=1) + "\n").encode())


def _made(output: Path) -> dict[str, dict[str, Any]]:
    """Records of the meshes that are there, outliers too, by name. A damaged file is as if it were not."""
    records: dict[str, dict[str, Any]] = {}
    for place in (output, output / OUTLIERS):
        for path in sorted(place.glob("*.npz")):
            try:
                record = json.loads(str(read_arrays(path, _RECORD)["record"][()]))
            except (BadModelFile, ValueError, RecursionError):
                continue
            if _is_record(record):
                records[path.stem] = record
    return records


def _is_record(record: object) -> bool:
    """Whether it holds what is told of a mesh, and nothing that only the report says."""
    if not isinstance(record, dict) or not _ENTRY.isdisjoint(record) or record.get("covered") is None:
        return False
    texts, numbers = ([record.get(key, b"") for key in keys] for keys in (_TEXTS, _NUMBERS))
    return all(isinstance(text, str) for text in texts) and all(
        number is None or (isinstance(number, int | float) and abs(number) < _MOST) for number in numbers
    )


def _differs(record: dict[str, Any] | None, task: Task, landmarks: Landmarks | None) -> bool:
    return record is None or record.get("sha256") != _digest(task, landmarks)


def _digest(task: Task, landmarks: Landmarks | None) -> str:
    """SHA-256 of a scan and its landmarks."""
    state = hashlib.sha256()
    with suppress(OSError), task.scan.open("rb") as stream:
        while block := stream.read(1 << 20):
            state.update(block)
    if landmarks is not None:
        with suppress(FastfaceError):
            named = landmarks.of(task.scan.stem)
            state.update(repr([(key, named[key].tolist()) for key in sorted(named)]).encode())
    return state.hexdigest()


def _sort_out(output: Path, judged: dict[str, Judged], *, keep_outliers: bool) -> None:
    """Outliers into their folder, and out of it those that are none any more."""
    for name, found in judged.items():
        aside = output / OUTLIERS / f"{name}.npz"
        among = output / f"{name}.npz"
        source, target = (among, aside) if found.reasons and not keep_outliers else (aside, among)
        if source.exists():
            try:
                os.replace(source, target)
            except OSError as error:
                raise WriteFailed(f"{target}: cannot be written ({error.strerror or error})") from None


def _entries(
    made: dict[str, dict[str, Any]], judged: dict[str, Judged], failed: dict[str, dict[str, Any]]
) -> list[dict[str, Any]]:
    entries = []
    for name in sorted({*judged, *failed}):
        if name in failed:
            entries.append({"name": name, "status": "failed", **failed[name]})
            continue
        found = judged[name]
        entry = {"name": name, "status": "outlier" if found.reasons else "registered", **made[name]}
        entry["scores"] = found.scores
        if found.reasons:
            entry["reasons"] = found.reasons
        entries.append(entry)
    return entries


# ------------------------------------------------------------------------------------------------- doing it


@dataclass(frozen=True)
class Job:
    """What every process needs to know; sent to each once."""

    template: Template
    landmarks: Landmarks | None
    unit_mm: float | None
    output: Path
    pictures: bool


class _Stopped(BaseException):
    """Raised in a process whose run was interrupted; passes every ``except Exception``."""


class _Worker:
    """What a process keeps from scan to scan."""

    job: Job
    stop: Any


def _outcomes(job: Job, tasks: Sequence[Task], processes: int) -> Iterator[tuple[Task, Outcome]]:
    workers = min(processes, len(tasks))
    if workers <= 1:
        return ((task, _do(job, task, lambda: None)) for task in tasks)
    # Each process is one core's: its algebra must not start as many threads as there are cores.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    return in_processes(Work(_work, _start, (job,), _died), iter(tasks), workers)


def _start(job: Job, stop: Any) -> None:
    _Worker.job, _Worker.stop = job, stop


def _work(task: Task) -> Outcome:
    def go_on() -> None:
        if _Worker.stop.is_set():
            raise _Stopped

    try:
        return _do(_Worker.job, task, go_on)
    except _Stopped:
        return Outcome(error="interrupted")


def _died() -> Outcome:
    return Outcome(error="the process died on this scan (out of memory, or a fault)")


def _do(job: Job, task: Task, go_on: Callable[[], None]) -> Outcome:
    """One scan, into its file."""
    start = time.perf_counter()
    try:
        named = None if job.landmarks is None else job.landmarks.of(task.scan.stem)
        digest = _digest(task, job.landmarks)
        scan = read_scan(task.scan)
        found = register_scan(
            job.template,
            scan,
            task.scan.name,
            landmarks=named,
            unit_mm=job.unit_mm,
            go_on=go_on,
        )
        seconds = round(time.perf_counter() - start, 2)
        found.record.update(scan=task.scan.name[:200], sha256=digest, seconds=seconds)
        with suppress(OSError):  # a mesh of this scan that was an outlier before
            (job.output / OUTLIERS / f"{task.name}.npz").unlink(missing_ok=True)
        if job.pictures:
            _draw(job, task, scan, found)
        found.save(job.output / f"{task.name}.npz")
        return Outcome(record=found.record)
    except WriteFailed:
        raise  # the next scan would meet the same disk
    except FastfaceError as error:
        said = str(error).removeprefix(f"{task.scan}: ").removeprefix(f"{task.scan.name}: ")
        return Outcome(error=" ".join(said.split()))  # whoever tells it names the scan
    except Exception as error:
        return Outcome(error=f"internal fault ({type(error).__name__}: {error!s:.200})")


def _draw(job: Job, task: Task, scan: Scan, found: Registered) -> None:
    from fastface.images import write_image
    from fastface.workshop.registration_picture import registration_picture

    picture = registration_picture(job.template, scan, found)
    write_image(job.output / PICTURES / f"{task.name}.jpg", picture, quality=92)
