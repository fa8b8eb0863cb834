"""A folder of photographs, each fitted and its features read off at the vertices of the fitted head.

One photo is one file of samples, named after what is in the photo and after the settings: a run that stops
goes on where it was, and a photo that was replaced is read again.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fastface.atomic import whole_file
from fastface.errors import BadArgument, BadImage, BadModelFile, FastfaceError, NoFaceFound, WriteFailed
from fastface.features import FEATURES
from fastface.fitting import FaceFitter
from fastface.head_models import open_model
from fastface.images import read_image
from fastface.landmark_tables import MIRROR478
from fastface.landmarks import LandmarkDetector
from fastface.morphable import ArraySpec, read_arrays
from fastface.processes import Work, in_processes
from fastface.texture_fitting import observed
from fastface.workshop.texture import MOST_VALUES

Float32 = NDArray[np.float32]
Seen = tuple[Float32, NDArray[np.bool_]]

SUFFIXES: Final = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".avif")
_USUALLY_SEEN: Final = 5_000  # vertices
_RECIPE: Final = "1"  # changes whenever the same photo would give other samples
_SPEC: Final = {
    "seen": ArraySpec("|b1", 2, "(S, V) of each view"),
    "values": ArraySpec("<f4", 2, "(P, C) where they are seen"),
}


@dataclass(frozen=True)
class Settings:
    """How photos are read: the head model's name or file, the feature, and whether also in the mirror."""

    model: str = "default"
    feature: str = "gradients"
    mirror: bool = True


@dataclass(frozen=True)
class Outcome:
    """A photo and the file of its samples, or why it has none."""

    photo: Path
    samples: Path
    error: str = ""
    kept: bool = False


class PhotoReader:
    """Fits photos and reads features off them; made once for many photos."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.head = open_model(settings.model)
        self._fitter, self._detector = FaceFitter(self.head), LandmarkDetector()

    def read(self, photo: object) -> list[Seen]:
        """Features (V, C) and which vertices show (V,) of the largest face; the mirror image's after them.

        Raises ``BadImage``, ``NoFaceFound``.
        """
        image = read_image(photo)
        found = self._detector.detect(image, max_faces=1)
        if not found:
            raise NoFaceFound(f"wanted a photo with a face, found none in {image.shape[1]}x{image.shape[0]}")
        views = [(image, found[0].points_px)]
        if self.settings.mirror:
            turned = found[0].points_px[np.array(MIRROR478)] * np.array([-1, 1], np.float32)
            turned[:, 0] += image.shape[1]
            views.append((np.ascontiguousarray(image[:, ::-1]), turned))
        return [
            observed(self._fitter, view, self._fitter.fit(points, *view.shape[:2]), self.settings.feature)
            for view, points in views
        ]


def photos_in(folder: Path) -> list[Path]:
    """The photos of a folder, by name. Raises ``BadArgument`` for a folder without."""
    try:
        found = sorted(
            path
            for path in folder.iterdir()
            if path.suffix.casefold() in SUFFIXES and not path.name.startswith(".") and path.is_file()
        )
    except OSError as error:
        raise BadArgument(f"{folder}: cannot be read ({error.strerror or error})") from None
    if not found:
        raise BadArgument(f"{folder}: no photos ({', '.join(SUFFIXES)})")
    return found


def sample_photos(
    photos: Sequence[Path],
    folder: Path,
    settings: Settings,
    *,
    processes: int = 1,
    done: Callable[[Outcome], None] = lambda outcome: None,
) -> list[Outcome]:
    """Sample each photo into a file of ``folder``, in the photos' order; what is there already is kept.

    A photo without a face is reported and the others go on. Raises ``WriteFailed``, ``BadModelFile``;
    ``BadArgument`` for more photos than could be learned from.
    """
    if settings.feature not in FEATURES:
        raise BadArgument(f"wanted one of the features {', '.join(FEATURES)}, got {settings.feature!r:.40}")
    most = MOST_VALUES // (_USUALLY_SEEN * FEATURES[settings.feature].channels * (1 + settings.mirror))
    if len(photos) > most:
        raise BadArgument(f"wanted at most {most:,} photos, got {len(photos):,}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WriteFailed(f"{folder}: cannot be made ({error.strerror or error})") from None
    stamp = f"{_RECIPE} {open_model(settings.model).digest} {settings.feature} {settings.mirror}"
    outcomes = []
    for outcome in _outcomes(photos, Job(settings, folder, stamp), processes):
        outcomes.append(outcome)
        done(outcome)
    return outcomes


def gathered(outcomes: Sequence[Outcome], vertices: int, feature: str) -> Seen:
    """Values (M, V, C) and what is seen of them (M, V) of all samples, view by view. Raises
    ``BadModelFile`` for samples that are damaged or of another head."""
    channels = FEATURES[feature].channels
    views = [view for each in outcomes if not each.error for view in _loaded(each.samples, channels)]
    for there, _ in views:
        if len(there) != vertices:
            raise BadModelFile(f"wanted samples of {vertices} vertices, got {len(there)}")
    values = np.zeros((len(views), vertices, channels), np.float32)
    seen = np.zeros((len(views), vertices), np.bool_)
    for index, (there, rows) in enumerate(views):
        seen[index] = there
        values[index, there] = rows
    return values, seen


@dataclass(frozen=True)
class Job:
    """What every process needs to know: how photos are read, where their samples go, and what marks them."""

    settings: Settings
    folder: Path
    stamp: str


def _outcomes(photos: Sequence[Path], job: Job, processes: int) -> Iterator[Outcome]:
    if processes <= 1:
        _Worker.job, _Worker.reader = job, None
        yield from map(_sampled, photos)
        return
    for photo, outcome in in_processes(Work(_sampled, _start, (job,), _died), iter(photos), processes):
        yield replace(outcome, photo=photo)


class _Worker:
    """What a process keeps from photo to photo."""

    job: Job
    reader: PhotoReader | None = None
    stop: Any = None


def _start(job: Job, stop: Any) -> None:
    _Worker.job, _Worker.reader, _Worker.stop = job, None, stop


def _died() -> Outcome:
    return Outcome(Path(), Path(), "the process died on this photo (out of memory, or a fault)")


def _sampled(photo: Path) -> Outcome:
    job = _Worker.job
    if _Worker.stop is not None and _Worker.stop.is_set():
        return Outcome(photo, job.folder, "interrupted")
    try:
        target = job.folder / f"{_fingerprint(photo, job.stamp)}.npz"
        if _is_whole(target, FEATURES[job.settings.feature].channels):
            return Outcome(photo, target, kept=True)
        _Worker.reader = _Worker.reader or PhotoReader(job.settings)
        views = _Worker.reader.read(photo)
    except (BadImage, NoFaceFound) as error:
        return Outcome(photo, job.folder, str(error))
    there = np.stack([seen for _, seen in views])
    rows = np.concatenate([values[seen] for values, seen in views]).astype(np.float32)
    with whole_file(target) as temporary, temporary.open("wb") as stream:
        np.savez_compressed(stream, seen=there, values=rows)
    return Outcome(photo, target)


def _fingerprint(photo: Path, stamp: str) -> str:
    """Of what is in the photo and how it is read. Raises ``BadImage``."""
    try:
        with photo.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256")
    except OSError as error:
        raise BadImage(f"{os.fspath(photo)}: cannot be read: {error.strerror or error}") from None
    digest.update(stamp.encode())
    return digest.hexdigest()[:32]


def _is_whole(samples: Path, channels: int) -> bool:
    try:
        return samples.exists() and bool(_loaded(samples, channels))
    except FastfaceError:
        return False  # of another make, or damaged: made anew


def _loaded(samples: Path, channels: int) -> list[tuple[NDArray[np.bool_], Float32]]:
    """For each view what is seen (V,) and the values there (P, C). Raises ``BadModelFile``."""
    arrays: dict[str, Any] = read_arrays(samples, _SPEC)
    seen, values = arrays["seen"], arrays["values"]
    counts = seen.sum(axis=1)
    if not len(seen) or values.shape != (counts.sum(), channels) or not np.isfinite(values).all():
        raise BadModelFile(
            f"{samples}: wanted finite values ({int(counts.sum())}, {channels}), got {values.shape}"
        )
    return list(zip(seen, np.split(values, np.cumsum(counts)[:-1]), strict=True))
