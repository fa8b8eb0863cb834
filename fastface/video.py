"""Writing frames as a video, while the next frames are being rendered."""

from __future__ import annotations

import queue
import threading
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fastface.atomic import whole_file
from fastface.errors import BadArgument, FastfaceError, WriteFailed
from fastface.provenance import MATROSKA_TAG, append_to_mp4

#: suffix → (container, codec, pixel format). H.264 in MP4 plays everywhere; FFV1 in Matroska loses nothing.
FORMATS: Final[dict[str, tuple[str, str, str]]] = {
    ".mp4": ("mp4", "libx264", "yuv420p"),
    ".mkv": ("matroska", "ffv1", "bgr0"),
}
#: Frames waiting for the encoder; more would only use memory.
_QUEUE_FRAMES: Final = 4
_MAX_SIDE_PX: Final = 8192
#: Of pictures of 32 px, x264's macroblock tree makes other bytes now and then; of 48 px and more it does not.
_TREE_PX: Final = 64

Image = NDArray[np.uint8]


class VideoWriter:
    """A video file, encoded in a thread of its own. A context manager: the file appears, whole, at its end.

    ``.mp4``: H.264, 4:2:0, the index at the front; needs even sides, so an odd side is repeated by one pixel.
    ``.mkv``: FFV1, every pixel as given. ``fps`` may be fractional, it is kept; ``quality`` 0…100 (MP4
    only, 90 is visually lossless). ``xmp``: the marking of ``provenance.xmp_packet``. ``threads``: of the
    encoder itself. ``in_order``: frames are stored in the order they are shown, so that files can be joined
    without encoding again (``video_joining``); a few per cent larger.

    Raises ``BadArgument`` for frames of another size or kind, ``WriteFailed`` when the disk or the encoder
    fails.
    """

    def __init__(
        self,
        path: str | Path,
        fps: float,
        *,
        xmp: bytes | None = None,
        quality: int = 85,
        threads: int = 2,
        in_order: bool = False,
    ) -> None:
        self.path = Path(path)
        suffix = self.path.suffix.casefold()
        if suffix not in FORMATS:
            raise BadArgument(f"{self.path}: a video ends in {' or '.join(FORMATS)}")
        if not 1e-3 <= fps <= 1000:
            raise BadArgument(f"fps must be in [0.001, 1000], got {fps:g}")
        if not 0 <= quality <= 100:
            raise BadArgument(f"quality must be in [0, 100], got {quality}")
        self.frames = 0
        self._container_format, self._codec, self._pixel_format = FORMATS[suffix]
        self._rate = Fraction(fps).limit_denominator(1_001_000)
        self._xmp = xmp
        self._crf = round(40 - 0.27 * quality)
        self._threads = threads
        self._in_order = in_order
        self._shape: tuple[int, ...] | None = None
        self._waiting: queue.Queue[Image | None] = queue.Queue(_QUEUE_FRAMES)
        self._spare: queue.Queue[Image] = queue.Queue()
        self._failure: BaseException | None = None
        self._stack = ExitStack()
        self._encoder: threading.Thread | None = None

    def __enter__(self) -> VideoWriter:
        temporary = self._stack.enter_context(whole_file(self.path))
        self._encoder = threading.Thread(target=self._encode, args=(temporary,), name="encode", daemon=True)
        self._encoder.start()
        return self

    def write(self, image: Image) -> None:
        """Add a frame: (H, W, 3) uint8 RGB, all of one size. The array may be reused as soon as this
        returns."""
        if self._encoder is None:
            raise BadArgument("a video writer is used in a with block")
        shape = self._shape
        if (
            image.dtype != np.uint8
            or image.ndim != 3
            or image.shape[2] != 3
            or shape not in (None, image.shape)
        ):
            wanted = "(H, W, 3)" if shape is None else str(shape)
            raise BadArgument(f"video frame: wanted {wanted} uint8, got {image.shape} {image.dtype}")
        if shape is None and not all(1 <= side <= _MAX_SIDE_PX for side in image.shape[:2]):
            raise BadArgument(f"video frame: sides must be 1 to {_MAX_SIDE_PX} pixels, got {image.shape[:2]}")
        self._shape = image.shape
        frame = self._own_copy(image)
        while True:
            self._raise_failure()
            try:
                self._waiting.put(frame, timeout=0.2)
                break
            except queue.Full:
                continue
        self.frames += 1

    def _own_copy(self, image: Image) -> Image:
        try:
            frame = self._spare.get_nowait()
        except queue.Empty:
            return image.copy()
        np.copyto(frame, image)
        return frame

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._finish(abandon=error is not None)
            if error is None:
                self._raise_failure()
                if self.frames == 0:
                    raise BadArgument(f"{self.path}: a video needs at least one frame")
        except BaseException as failure:
            self._stack.__exit__(type(failure), failure, failure.__traceback__)
            raise
        self._stack.__exit__(kind, error, trace)

    def _finish(self, *, abandon: bool) -> None:
        encoder, self._encoder = self._encoder, None
        if encoder is None:
            return
        if abandon and self._failure is None:
            self._failure = InterruptedError("abandoned")
        while encoder.is_alive():
            try:
                self._waiting.put(None, timeout=0.2)
                break
            except queue.Full:
                continue
        encoder.join()

    def _raise_failure(self) -> None:
        if isinstance(self._failure, FastfaceError):
            raise self._failure
        if isinstance(self._failure, OSError):
            reason = self._failure.strerror or self._failure
            raise WriteFailed(f"{self.path}: cannot be written ({reason})") from self._failure
        if self._failure is not None:
            raise WriteFailed(f"{self.path}: encoding failed ({self._failure})") from self._failure

    def _encode(self, temporary: Path) -> None:
        """The encoder thread: until the end mark, or until something fails."""
        try:
            self._encode_frames(temporary)
            if self._failure is None and self._xmp is not None and self._container_format == "mp4":
                append_to_mp4(temporary, self._xmp)
        except BaseException as error:  # handed over to the caller's thread
            self._failure = self._failure or error

    def _encode_frames(self, temporary: Path) -> None:
        import av

        frame = self._waiting.get()
        if frame is None:
            return
        options = {"movflags": "+faststart"} if self._container_format == "mp4" else {}
        with av.open(str(temporary), "w", format=self._container_format, options=options) as container:
            if self._xmp is not None and self._container_format == "matroska":
                container.metadata[MATROSKA_TAG] = self._xmp.decode()
            stream = self._stream(container, frame.shape)
            index = 0
            while frame is not None:
                if self._failure is not None:
                    return
                picture = av.VideoFrame.from_ndarray(*self._as_encoded(frame))
                self._spare.put(frame)
                picture.pts = index
                picture.time_base = stream.codec_context.time_base
                for packet in stream.encode(picture):
                    container.mux(packet)
                index += 1
                frame = self._waiting.get()
            for packet in stream.encode():
                container.mux(packet)

    def _as_encoded(self, frame: Image) -> tuple[Image, str]:
        if self._codec != "libx264":
            return frame, "rgb24"
        import cv2

        # BT.601, limited range, as the stream's tags say; several times faster than the encoder's own
        # conversion.
        return cv2.cvtColor(_even(frame), cv2.COLOR_RGB2YUV_I420), "yuv420p"  # type: ignore[return-value]

    def _stream(self, container: Any, shape: tuple[int, ...]) -> Any:
        height, width = shape[:2]
        stream = container.add_stream(self._codec, rate=self._rate)
        stream.pix_fmt = self._pixel_format
        stream.width, stream.height = width, height
        stream.codec_context.time_base = 1 / self._rate
        stream.codec_context.thread_count = self._threads
        if self._codec == "libx264":
            stream.width, stream.height = width + width % 2, height + height % 2
            # Matrix BT.601 (6), range limited (1), and the primaries and curve of sRGB as video knows them
            # (1).
            stream.codec_context.colorspace, stream.codec_context.color_range = 6, 1
            stream.codec_context.color_primaries, stream.codec_context.color_trc = 1, 1
            stream.options = {"crf": str(self._crf), "preset": "veryfast"}
            if self._in_order:
                stream.options |= {"bf": "0"}
                if min(width, height) < _TREE_PX:
                    stream.options |= {"x264-params": "mbtree=0"}
        return stream


def _even(frame: Image) -> Image:
    height, width = frame.shape[:2]
    if height % 2 == 0 and width % 2 == 0:
        return frame
    return np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")


def frame_count(path: str | Path) -> int:
    """How many frames a video holds, by decoding it."""
    import av

    with av.open(str(path)) as container:
        return sum(1 for _ in container.decode(video=0))
