"""The expression of a video on the look of another face: StarGAN v2 on video of any length.

Three passes, each of which can be stopped and gone on with: track the face through the whole video,
translate its crops part by part, join the parts. What is finished lies in a folder beside the output until
the output is whole; a run that is killed and started again gives the same bytes as one that was not.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from fastface.alignment import Array, celeba_square, crop, crop_to_frame, inverse
from fastface.errors import BadArgument, BadImage, BadModelFile, NoFaceFound
from fastface.generators import Generator, StarGANv2, load
from fastface.images import read_image
from fastface.landmarks import LandmarkDetector
from fastface.pasting import PASTES, Paste, Paster
from fastface.runtime import Precision
from fastface.track_files import Track, default_every, mask_points, write_track
from fastface.tracking import NO_FACE, SAMPLES_PER_SECOND, LiveSquare
from fastface.transfer_files import Outputs, WorkFolder, sha256_of
from fastface.transfer_labels import SourceLabels
from fastface.version import package_version
from fastface.video import FORMATS, VideoWriter
from fastface.video_joining import join, sound_fits
from fastface.video_reading import SourceFrame, VideoReader

Image = NDArray[np.uint8]
NoFace = Literal["hold", "skip", "stop"]
NO_FACE_WAYS: Final = ("hold", "skip", "stop")
#: Frames a part: what a kill costs at most, and no more key frames than a video has anyway.
_PART: Final = 240

_LEFT_OUT, _AS_IT_IS, _MADE = range(3)

Advance = Callable[[Literal["track", "translate"], int], object]


@dataclass(frozen=True)
class Look:
    """What a face is to take on: style (1, 64), from a reference face (its name and the SHA-256 of its
    pixels) read as of a domain."""

    style: NDArray[np.float32]
    reference: str
    reference_sha256: str
    domain: int


@dataclass(frozen=True)
class TransferOptions:
    """How a video is transferred.

    smoothing_s: sigma in seconds of the smoothing of the square, 0 for none. every: track one frame in so
    many; None for about 30 a second. no_face: what becomes of frames without a face: "hold" the square where
    it was, "skip" them, or "stop" with ``NoFaceFound``. paste: None for the face itself as the video,
    "feather" or "poisson" for the face put back into the frame. batch: frames the generator gets at a time.
    quality: 1 … 100 of MP4. sound: carry it over. marked: write XMP (only a data set's may go without).
    """

    smoothing_s: float = 0.2
    every: int | None = None
    no_face: NoFace = "hold"
    paste: Paste | None = None
    batch: int = 8
    quality: int = 90
    sound: bool = True
    marked: bool = True

    def __post_init__(self) -> None:
        if not 0 <= self.smoothing_s <= 10:
            raise BadArgument(f"smoothing must be 0 … 10 seconds, got {self.smoothing_s:g}")
        if self.no_face not in NO_FACE_WAYS:
            raise BadArgument(f"no_face is {', '.join(NO_FACE_WAYS)}, got {self.no_face!r:.20}")
        if self.paste is not None and self.paste not in PASTES:
            raise BadArgument(f"paste is {' or '.join(PASTES)}, got {self.paste!r:.20}")
        for name, most in (("batch", 240), ("quality", 100)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
                raise BadArgument(f"{name}: wanted a whole number from 1 to {most}, got {value!r:.20}")


@dataclass(frozen=True)
class Transferred:
    """What was made: the video, its tables of labels, the record of the clip, and what should be known."""

    video: Path
    labels: tuple[Path, ...]
    record: dict[str, Any]
    notes: tuple[str, ...] = ()


@dataclass
class _Clip:
    """One source while it is worked on."""

    reader: VideoReader
    output: Path
    track: Track
    look: Look
    options: TransferOptions
    parts: Path
    paster: Paster | None
    advance: Advance
    kept: list[int] = field(default_factory=list)


class FaceTransfer:
    """A StarGAN v2 generator and what it takes to run it over videos. The generator's sessions are made once.

    generator: a name given to ``fastface export starganv2``, or one that is loaded. Raises ``BadModelFile``
    for a generator of another kind, ``ProviderUnavailable``.
    """

    def __init__(
        self,
        generator: str | Path | Generator,
        providers: Sequence[str] | None = None,
        precision: Precision | None = None,
        threads: int | None = None,
    ) -> None:
        made = generator
        if isinstance(made, str | Path):
            made = load(made, providers=providers, precision=precision, threads=threads)
        if not isinstance(made, StarGANv2):
            file = next(iter(made.parts.files.values()))
            raise BadModelFile(f"{file}: of a {made.kind}; wanted a starganv2")
        self.generator = made
        self.detector = LandmarkDetector(threads=min(threads or 2, 2))
        self.generator_sha256 = sha256_of(made.parts.files["generator"])
        self._sources: dict[tuple[Path, int, int], str] = {}

    def look(self, reference: object, domain: int | None = None, name: str = "") -> Look:
        """The look of a reference photo, of anything that ``read_image`` reads, cut as the videos are.

        ``domain``: may be left out where the generator has one only. Raises ``BadImage``, ``NoFaceFound``,
        ``BadArgument`` when the domain is missing or none of the generator's.
        """
        if domain is None:
            if self.generator.domains > 1:
                raise BadArgument(
                    f"the generator has {self.generator.domains} domains: say which the reference is of, "
                    f"0 … {self.generator.domains - 1}"
                )
            domain = 0
        rgb = read_image(reference)
        shown = name or (Path(reference).name if isinstance(reference, str | Path) else "reference")
        faces = self.detector.detect(rgb, max_faces=1)
        if not faces:
            raise NoFaceFound(f"{shown}: wanted a reference photo with a face, found none")
        square = celeba_square(faces[0].points_px.astype(np.float64))
        style = self.generator.style(crop(rgb, square, self.generator.resolution), domain)
        pixels = hashlib.sha256(repr(rgb.shape).encode() + rgb.tobytes()).hexdigest()
        return Look(style, shown, pixels, domain)

    def run(
        self,
        source: Path,
        output: Path,
        look: Look,
        options: TransferOptions | None = None,
        *,
        tracks: Path | None = None,
        advance: Advance = lambda stage, frames: None,
    ) -> Transferred:
        """Transfer one video, going on where a run of the same job stopped.

        ``tracks``: a folder that keeps tracks for further looks; ``output``'s work folder by default.
        ``advance`` is told how many frames of a stage were done since the last call.

        Raises ``BadImage`` for a video that cannot be read to its end, ``NoFaceFound``, ``BadArgument``,
        ``BadModelFile``, ``WriteFailed``. Nothing half-written is left but the work folder.
        """
        options = options or TransferOptions()
        if output.suffix.casefold() not in FORMATS:
            raise BadArgument(f"{output}: a video ends in {' or '.join(FORMATS)}")
        reader = VideoReader(source)
        carried = SourceLabels.find(source)
        every = options.every or default_every(reader.rate, SAMPLES_PER_SECOND)
        outputs = Outputs(output, source, carried)
        job = self.job(source, look, options)
        tracked = {"source_sha256": job["source_sha256"], "every": every, "version": job["version"]}
        with WorkFolder(outputs.work_folder, job) as work:
            with WorkFolder(tracks or work.path / "track", tracked) as folder:
                write_track(reader, folder.path, self.detector, every, lambda n: advance("track", n))
                track = Track(folder.path, reader.time_base, options.smoothing_s, source.name)
                carried.align(track.frames)
                clip = self._clip(reader, output, track, look, options, work.path, advance)
                self._translate(clip)
                made = self._finish(clip, outputs, job, every)
            work.remove()
        return made

    def job(self, source: Path, look: Look, options: TransferOptions) -> dict[str, Any]:
        """All that the pixels depend on: where it is equal, the bytes are. ``digest`` makes it one number."""
        return {
            "source_sha256": self._sha256_of(source),
            "version": package_version(),
            "every": options.every or 0,
            "generator_sha256": self.generator_sha256,
            "provider": self.generator.provider,
            "style_sha256": hashlib.sha256(look.style.tobytes()).hexdigest(),
            "smoothing_s": options.smoothing_s,
            "no_face": options.no_face,
            "paste": options.paste or "",
            "batch": options.batch,
            "quality": options.quality,
            "marked": options.marked,
            "sound": options.sound,
            "part": _PART,
        }

    def stream(
        self, frames: Iterable[tuple[float, Image]], look: Look, live: LiveSquare | None = None
    ) -> Iterator[tuple[Image | None, Array | None, bool]]:
        """Frames of a camera, (time in seconds, (H, W, 3) uint8), one by one and without delay.

        Yields (generated face, its square (4,) in the frame, whether a face was found); None before the first
        face.
        """
        live = live or LiveSquare(self.detector)
        for time_s, image in frames:
            square, found = live.update(image, time_s)
            if square is None:
                yield None, None, found
                continue
            face = crop(image, square, self.generator.resolution)
            yield self.generator.translate(face[None], look.style)[0], square, found

    # --- within ---

    def _sha256_of(self, source: Path) -> str:
        about = source.stat()
        key = (source, about.st_size, about.st_mtime_ns)
        if key not in self._sources:
            self._sources[key] = sha256_of(source)
        return self._sources[key]

    def _clip(
        self,
        reader: VideoReader,
        output: Path,
        track: Track,
        look: Look,
        options: TransferOptions,
        parts: Path,
        advance: Advance,
    ) -> _Clip:
        if options.no_face == "stop" and track.first_without is not None:
            pts = int(track.rows(track.first_without, track.first_without + 1).pts[0])
            raise NoFaceFound(
                f"{reader.path}: no face in frame {track.first_without} "
                f"({float(pts * reader.time_base):.3f} s)"
            )
        size = self.generator.resolution
        paster = Paster(mask_points(track, size), size, options.paste) if options.paste else None
        return _Clip(reader, output, track, look, options, parts, paster, advance)

    def _translate(self, clip: _Clip) -> None:
        """Every part that is not there yet."""
        frames: Iterator[SourceFrame] = iter(())
        at = -1  # the number of the next of them
        for index, low in enumerate(range(0, clip.track.frames, _PART)):
            rows = clip.track.rows(low, low + _PART)
            keep = (rows.state != NO_FACE) | (clip.options.no_face != "skip")
            path = _part(clip.parts, index, clip.output.suffix)
            if keep.any():
                clip.kept.append(index)
            if path.exists() or not keep.any():
                clip.advance("translate", len(rows))
                continue
            if at != low:
                frames = clip.reader.frames(int(rows.pts[0]) if low else None)
            here = _checked(clip.reader, islice(frames, len(rows)), rows.pts)
            squares = clip.track.squares(low, low + _PART)
            # Into a frame without a face none is pasted; it stays as it is.
            ways = np.where(rows.state == NO_FACE, _AS_IT_IS if clip.paster else _MADE, _MADE)
            self._write_part(clip, path, here, squares, np.where(keep, ways, _LEFT_OUT))
            at = low + len(rows)

    def _write_part(
        self,
        clip: _Clip,
        path: Path,
        frames: Iterator[SourceFrame],
        squares: Array,
        ways: NDArray[np.int_],
    ) -> None:
        rows = zip(frames, squares, ways, strict=True)
        with VideoWriter(
            path, float(clip.reader.rate), quality=clip.options.quality, in_order=True
        ) as writer:
            while group := list(islice(rows, clip.options.batch)):
                crops = [
                    crop(frame.image, square, self.generator.resolution)
                    for frame, square, way in group
                    if way == _MADE
                ]
                made: Iterator[Image] = iter(())
                if crops:
                    made = iter(self.generator.translate(np.stack(crops), clip.look.style))
                for frame, square, way in group:
                    if way == _AS_IT_IS:
                        writer.write(frame.image)
                    elif way == _MADE:
                        face = next(made)
                        writer.write(clip.paster.paste(frame.image, face, square) if clip.paster else face)
                clip.advance("translate", len(group))

    def _finish(self, clip: _Clip, outputs: Outputs, job: dict[str, Any], every: int) -> Transferred:
        track, reader, options = clip.track, clip.reader, clip.options
        notes = []
        audio = reader.path if options.sound and reader.has_audio else None
        if audio is not None and (why := sound_fits(audio, clip.output)):
            audio = None
            notes.append(f"sound left out: {why}")
        skipped = track.frames - track.faces if options.no_face == "skip" else 0
        record = {
            "video": clip.output.name,
            "source": reader.path.name,
            "reference": clip.look.reference,
            "domain": clip.look.domain,
            "frames": track.frames - skipped,
            "source_frames": track.frames,
            "frames_with_face": track.faces,
            "fps": float(reader.rate),
            "time_base": str(reader.time_base),
            **self._size(clip),
            "sound": audio is not None,
            "provenance": options.marked,
            "smoothing_s": options.smoothing_s,
            "track_every": every,
            "no_face": options.no_face,
            "paste": options.paste or "",
            "reference_sha256": clip.look.reference_sha256,
            "checkpoint_sha256": self.generator.metadata.get("checkpoint_sha256", ""),
            "generator_sha256": self.generator_sha256,
            "source_sha256": job["source_sha256"],
            "provider": self.generator.provider,
            "engine_version": package_version(),
            "job_sha256": digest(job),
            "notes": notes,
        }
        labels = outputs.write_labels(track, record, reader.time_base, self._to_output(clip))
        frames = join(
            clip.output,
            [_part(clip.parts, index, clip.output.suffix) for index in clip.kept],
            _times(track, options.no_face == "skip"),
            reader.time_base,
            audio_from=audio,
            xmp=outputs.xmp(record) if options.marked else None,
        )
        assert frames == record["frames"], "as many frames as labels"
        return Transferred(clip.output, labels, record, tuple(notes))

    def _size(self, clip: _Clip) -> dict[str, int]:
        if clip.paster:
            return {"width_px": clip.reader.width_px, "height_px": clip.reader.height_px}
        return {"width_px": self.generator.resolution, "height_px": self.generator.resolution}

    def _to_output(self, clip: _Clip) -> Callable[[Array], Array] | None:
        """Square → map (2, 3) from the frame's pixels to the output's; None where they are the same."""
        size = self.generator.resolution
        return None if clip.paster else lambda square: inverse(crop_to_frame(square, size))


def _part(folder: Path, index: int, suffix: str) -> Path:
    return folder / f"part-{index:05d}{suffix.casefold()}"


def _checked(
    reader: VideoReader, frames: Iterator[SourceFrame], pts: NDArray[np.int64]
) -> Iterator[SourceFrame]:
    """The frames, if they are those that were tracked."""
    for wanted in pts:
        frame = next(frames, None)
        if frame is None or frame.pts != wanted:
            raise BadImage(
                f"{reader.path}: changed while it was read; wanted the frame at "
                f"{float(int(wanted) * reader.time_base):.3f} s"
            )
        yield frame


def _times(track: Track, skip: bool) -> Iterator[tuple[int, int]]:
    for low in range(0, track.frames, _PART):
        rows = track.rows(low, low + _PART)
        for pts, duration, state in zip(rows.pts, rows.duration, rows.state, strict=True):
            if not (skip and state == NO_FACE):
                yield int(pts), int(duration)


def digest(job: dict[str, Any]) -> str:
    """One number for a job."""
    return hashlib.sha256(json.dumps(job, sort_keys=True).encode()).hexdigest()
