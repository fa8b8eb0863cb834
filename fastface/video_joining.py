"""Joining encoded parts to one video: nothing is encoded again, each frame at its time, sound beside it."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any, Final

from fastface.atomic import whole_file
from fastface.errors import BadArgument, BadImage, WriteFailed
from fastface.provenance import MATROSKA_TAG, append_to_mp4
from fastface.video import FORMATS
from fastface.video_reading import opened

#: What an MP4 can count in a second: 32 bits.
_FINEST_TICK: Final = Fraction(1, 2**31 - 1)


def join(
    output: Path,
    parts: Sequence[Path],
    times: Iterable[tuple[int, int]],
    time_base: Fraction,
    *,
    audio_from: Path | None = None,
    xmp: bytes | None = None,
) -> int:
    """Write ``parts``, made by ``VideoWriter(in_order=True)`` with equal settings, one after another.

    times: pts and duration (0: not known) of each frame, in units of ``time_base``. audio_from: a file whose
    sound is copied as it is; ask ``sound_fits`` first. Matroska counts in milliseconds; MP4 keeps times
    exactly. Equal in, equal bytes out. Returns the number of frames.

    Raises ``WriteFailed``, ``BadArgument`` when frames and times differ in number, ``BadImage`` for sound
    that cannot be read.
    """
    import av

    if not parts:
        raise BadArgument(f"{output}: nothing to join")
    if time_base < _FINEST_TICK:
        raise BadArgument(f"{output}: a time base of {time_base} s is finer than a video can hold")
    kind, _, _ = FORMATS[output.suffix.casefold()]
    # No dates and random marks in the file: what is the same shall be the same.
    options = {"fflags": "+bitexact", **({"movflags": "+faststart"} if kind == "mp4" else {})}
    with whole_file(output) as temporary:
        try:
            with ExitStack() as stack:
                made = stack.enter_context(av.open(str(temporary), "w", format=kind, options=options))
                if xmp is not None and kind == "matroska":
                    made.metadata[MATROSKA_TAG] = xmp.decode()
                first = stack.enter_context(opened(parts[0]))
                stream: Any = made.add_stream_from_template(first.streams.video[0])
                stream.time_base = time_base
                sound = iter(()) if audio_from is None else _sound(made, audio_from, stack)
                frames = _muxed(made, stream, _packets(parts, first), times, time_base, sound)
        except av.FFmpegError as error:
            raise WriteFailed(f"{output}: cannot be written ({error.strerror})") from error
        if xmp is not None and kind == "mp4":
            append_to_mp4(temporary, xmp)
    return frames


def sound_fits(source: Path, output: Path) -> str:
    """ "" when the sound of ``source`` can be copied into a file of ``output``'s kind, else why it cannot."""
    import av

    kind, _, _ = FORMATS[output.suffix.casefold()]
    try:
        with opened(source) as container, av.open(io.BytesIO(), "w", format=kind) as trial:
            for stream in container.streams.audio:
                trial.add_stream_from_template(stream)
            if container.streams.audio:
                trial.start_encoding()
    except (av.FFmpegError, ValueError, BadImage) as error:
        return f"a {kind} file cannot hold it ({getattr(error, 'strerror', None) or error})"
    return ""


def _muxed(
    made: Any,
    stream: Any,
    packets: Iterator[Any],
    times: Iterable[tuple[int, int]],
    time_base: Fraction,
    sound: Iterator[Any],
) -> int:
    """Write every frame, and before it the sound up to its time: so nothing has to wait in memory."""
    count = 0
    waiting = next(sound, None)
    numbered = iter(times)
    for packet in packets:
        at = next(numbered, None)
        if at is None:
            raise BadArgument(f"more frames than the {count} times given for them")
        while waiting is not None and waiting.dts * waiting.time_base <= at[0] * time_base:
            made.mux(waiting)
            waiting = next(sound, None)
        packet.stream = stream
        packet.time_base = time_base  # the stream's own is the container's from the first packet on
        packet.pts = packet.dts = at[0]
        packet.duration = at[1]
        made.mux(packet)
        count += 1
    if next(numbered, None) is not None:
        raise BadArgument(f"{count} frames, but times for more")
    for packet in chain([] if waiting is None else [waiting], sound):
        made.mux(packet)
    return count


def _packets(parts: Sequence[Path], first: Any) -> Iterator[Any]:
    how = first.streams.video[0].codec_context.extradata
    for part in parts:
        with opened(part) as container:
            stream = container.streams.video[0]
            if stream.codec_context.extradata != how:
                raise BadArgument(f"{part}: encoded in another way than the parts before it")
            for packet in container.demux(stream):
                if packet.size:  # the last one is empty and says that it is the end
                    yield packet


def _sound(made: Any, source: Path, stack: ExitStack) -> Iterator[Any]:
    """The sound's packets, each already of its stream in ``made``."""
    container = stack.enter_context(opened(source))
    streams = {stream.index: made.add_stream_from_template(stream) for stream in container.streams.audio}

    def packets() -> Iterator[Any]:
        for packet in container.demux(*container.streams.audio):
            # Before zero lies what an audio decoder warms up with; Matroska would move the whole video.
            early = made.format.name == "matroska" and packet.pts is not None and packet.pts < 0
            if packet.size and packet.dts is not None and not early:
                packet.stream = streams[packet.stream_index]
                yield packet

    return packets()
