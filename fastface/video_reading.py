"""Reading videos frame by frame: every frame once, at its own time, upright, in square pixels.

A video that is damaged or cut short is refused with the number of the frame where it breaks, never read as a
shorter one: labels count frames.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import IO, Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from fastface.errors import BadImage
from fastface.images import MAX_PIXELS

MAX_SIDE_PX: Final = 16384
#: Files in which frames may lie; audio and subtitles alone are refused later.
VIDEO_SUFFIXES: Final = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".wmv")
#: What a frame without a colour matrix has: BT.709 (1) from this height on, BT.601 (5) below, as players do.
_HIGH_DEFINITION_PX: Final = 720
_UNSPECIFIED: Final = 2
_MAX_BOXES: Final = 1_000_000

Image = NDArray[np.uint8]


@dataclass(slots=True)
class SourceFrame:
    """``pts`` and ``duration`` in units of the reader's ``time_base``; ``duration`` is 0 where the file does
    not say. ``pixels``: the image, or what makes it: colours are converted only in frames that are looked
    at."""

    pixels: Image | Callable[[], Image]
    pts: int
    duration: int

    @property
    def image(self) -> Image:
        """(H, W, 3) uint8 RGB."""
        if callable(self.pixels):
            self.pixels = self.pixels()
        return self.pixels


class VideoReader:
    """The first video stream of a file.

    width_px, height_px: of the frames as given, upright and with square pixels. time_base: seconds a unit of
    ``pts``. rate: frames a second on average (Fraction). has_audio.

    Raises ``BadImage`` for a file that is missing, is no video, has no frames or absurd ones, or is cut
    short.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._check_whole()
        with self._opened() as (container, stream):
            context = stream.codec_context
            width, height = int(context.width), int(context.height)
            if not 0 < width <= MAX_SIDE_PX or not 0 < height <= MAX_SIDE_PX or width * height > MAX_PIXELS:
                raise BadImage(
                    f"{path}: frames of {width}x{height} px; wanted sides of 1 to {MAX_SIDE_PX} and at most "
                    f"{MAX_PIXELS:,} pixels"
                )
            if not stream.time_base or not 0 < stream.time_base <= 3600:
                raise BadImage(f"{path}: no usable time base ({stream.time_base})")
            self.time_base = Fraction(stream.time_base)
            self.rate = _rate(stream)
            self.declared_frames = int(stream.frames)
            self.has_audio = bool(container.streams.audio)
            self._size = (width, height)
            self._aspect = _pixel_aspect(stream)
            # How the frames are turned is said beside the first of them.
            first = next(self._decoded(container, stream), None)
            if first is None:
                raise BadImage(f"{path}: a video without frames")
            # AVI counts packets; where frames are stored in another order, that is not their time.
            self._untimed = container.format.name == "avi" and bool(context.has_b_frames)
            self._turns = round(int(getattr(first, "rotation", 0)) / 90) % 4
            height_px, width_px = self._upright(first).shape[:2]
        self.width_px, self.height_px = int(width_px), int(height_px)

    def frames(self, from_pts: int | None = None) -> Iterator[SourceFrame]:
        """Every frame in the order of its time, or every one from the frame at ``from_pts`` on.

        Raises ``BadImage`` where the video breaks. Nothing is kept between frames.
        """
        if from_pts is not None:
            entered = self._walk(from_pts, seek=True)
            first = next(entered, None)
            if first is not None and first.pts == from_pts:
                yield first
                yield from entered
                return
        # From the beginning; also where a file cannot be entered in its midst.
        yield from self._walk(from_pts, seek=False)

    def _walk(self, from_pts: int | None, *, seek: bool) -> Iterator[SourceFrame]:
        import av

        last: int | None = None
        with self._opened() as (container, stream):
            if seek:
                try:
                    container.seek(from_pts, stream=stream, backward=True)
                except av.FFmpegError:
                    return
            count = 0
            for frame in self._decoded(container, stream):
                untimed = self._untimed or frame.pts is None
                if untimed and seek:
                    return
                # Like those of a raw stream, such frames follow one another at the rate.
                pts = round(count / self.rate / self.time_base) if untimed else int(frame.pts)
                count += 1
                if from_pts is not None and pts < from_pts:
                    continue
                where = f"{self.path}: the frame at {float(pts * self.time_base):.3f} s"
                if last is not None and pts <= last:
                    raise BadImage(f"{where} does not come after the one before it")
                last = pts
                if (frame.width, frame.height) != self._size:
                    raise BadImage(
                        f"{where} is {frame.width}x{frame.height}, the video's are {self._size[0]}x"
                        f"{self._size[1]}"
                    )
                yield SourceFrame(partial(self._upright, frame), pts, int(getattr(frame, "duration", 0) or 0))

    @contextmanager
    def _opened(self) -> Iterator[tuple[Any, Any]]:
        with opened(self.path) as container:
            if not container.streams.video:
                raise BadImage(f"{self.path}: no video stream in it")
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            if stream.codec_context is None:
                raise BadImage(f"{self.path}: its video is of a kind that cannot be decoded here")
            yield container, stream

    def _decoded(self, container: Any, stream: Any) -> Iterator[Any]:
        import av

        count = 0
        try:
            for frame in container.decode(stream):
                if frame.is_corrupt:
                    raise BadImage(f"{self.path}: frame {count} is damaged")
                yield frame
                count += 1
        except av.FFmpegError as error:
            raise BadImage(f"{self.path}: cannot be decoded after frame {count} ({error.strerror})") from None

    def _upright(self, frame: Any) -> Image:
        image = _rgb(frame)
        if self._aspect != 1:
            size = (max(round(image.shape[1] * self._aspect), 1), image.shape[0])
            image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_CUBIC), np.uint8)
        return np.ascontiguousarray(np.rot90(image, self._turns)) if self._turns else image

    def _check_whole(self) -> None:
        """MP4 and Matroska say how long they are: a download that stopped is told at once."""
        if not self.path.exists():
            raise BadImage(f"{self.path}: no such file")
        if not self.path.is_file():
            raise BadImage(f"{self.path}: not a file")
        try:
            with self.path.open("rb") as file:
                missing = _missing_bytes(file)
        except OSError as error:
            raise BadImage(f"{self.path}: cannot be read ({error.strerror or error})") from None
        if missing:
            raise BadImage(f"{self.path}: cut short, {missing:,} bytes are missing at its end")


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """The container of a file, never of a web address or device; FFmpeg's errors become ``BadImage``."""
    import av

    try:
        container = av.open("file:" + os.fspath(path), metadata_errors="replace")
    except (av.FFmpegError, ValueError) as error:
        raise BadImage(f"{path}: not a video ({getattr(error, 'strerror', None) or error})") from None
    with container:
        yield container


def _rgb(frame: Any) -> Image:
    from av.video.reformatter import Interpolation

    matrix = int(frame.colorspace)
    if matrix == _UNSPECIFIED:
        matrix = 1 if frame.height >= _HIGH_DEFINITION_PX else 5
    how: dict[str, Any] = {"src_colorspace": matrix}
    # Without exact rounding every colour comes out one to two grey levels dark.
    if hasattr(Interpolation, "ACCURATE_RND"):
        how["interpolation"] = (
            Interpolation.BILINEAR | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT
        )
    image: Image = frame.reformat(format="rgb24", **how).to_ndarray()
    return image


def _rate(stream: Any) -> Fraction:
    for rate in (stream.average_rate, stream.guessed_rate, stream.base_rate):
        if rate and 1e-3 <= rate <= 1000:
            return Fraction(rate)
    return Fraction(25)


def _pixel_aspect(stream: Any) -> Fraction:
    aspect = stream.sample_aspect_ratio
    return Fraction(aspect) if aspect and Fraction(1, 4) <= aspect <= 4 else Fraction(1)


# --- how long a file says it is ---


def _missing_bytes(file: IO[bytes]) -> int:
    head = file.read(12)
    end = file.seek(0, os.SEEK_END)
    if head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide"):
        return _missing_of_mp4(file, end)
    if head[:4] == b"\x1aE\xdf\xa3":
        return _missing_of_matroska(file, end)
    if head[:4] == b"RIFF":
        return max(int(struct.unpack("<I", head[4:8])[0]) + 8 - end, 0)
    return 0


def _missing_of_mp4(file: IO[bytes], end: int) -> int:
    at = 0
    for _ in range(_MAX_BOXES):
        file.seek(at)
        header = file.read(16)
        if len(header) < 8:
            break
        size = struct.unpack(">I", header[:4])[0]
        if size == 1 and len(header) == 16:
            size = struct.unpack(">Q", header[8:16])[0]
        if size < 8:  # 0: to the end of the file
            break
        at += size
        if at >= end:
            return int(at - end)
    return 0


def _missing_of_matroska(file: IO[bytes], end: int) -> int:
    """An EBML header and one segment, each a kind, a length and that many bytes (RFC 8794)."""
    file.seek(4)
    header = _ebml_length(file)
    if header is None:
        return 0
    file.seek(header, os.SEEK_CUR)
    if file.read(4) != b"\x18\x53\x80\x67":
        return 0
    length = _ebml_length(file)
    return 0 if length is None else max(int(file.tell() + length - end), 0)


def _ebml_length(file: IO[bytes]) -> int | None:
    """The next length; None when it is unknown, as in a live recording."""
    first = file.read(1)
    if not first or not first[0]:
        return None
    count = 9 - first[0].bit_length()
    rest = file.read(count - 1)
    ones = (1 << (7 * count)) - 1
    value = int.from_bytes(bytes([first[0] & (0xFF >> count)]) + rest, "big")
    return None if value == ones or len(rest) < count - 1 else value
