"""Frames on a device: coefficients go there, everything between stays there, and so do the frames unless a
caller asks for them on the host.

All work of some frames, from coefficients to images, is one captured graph: a dozen kernels whose number and
sizes do not depend on what is asked. It is captured once for each power of two of frames and replayed with a
single call.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Lock
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastface import ops
from fastface.binding import CULL_BACKFACES, OWN_GONE_AT, ROUNDING_PX, STILL, Binding
from fastface.device import Device, DeviceArray, DeviceWorkspace, Graph, Stream, moved
from fastface.errors import BadArgument
from fastface.folds import fold_weights
from fastface.head_pose import rotation_of_pose
from fastface.relaxation import shift_weights
from fastface.rendering import FaceRenderer
from fastface.rig import Lead, Rig

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Image = NDArray[np.uint8]

#: Frames that go through the kernels together, and what they may take: about 100 bytes a pixel and frame.
_GROUP: Final = 64
_GROUP_PIXELS: Final = 1 << 22
_LANES: Final = 2  # one copies to the host while the other renders
_COEFFICIENT_LIMIT: Final = 2.0  # engine.MAX_COEFFICIENT


class DeviceRenderer(FaceRenderer):
    """``FaceRenderer`` on a device; threads may share it.

    ``render_on_device`` leaves the frames there. ``render``, ``render_group`` and ``mask`` copy them to the
    host: by two lanes with streams of their own, so that copies overlap with rendering.
    """

    def __init__(self, bound: Binding, device: Device, threads: int, lead: Lead | None = None) -> None:
        super().__init__(bound, threads)
        self.device = device
        height, width = bound.window.height, bound.window.width
        self._slices = bound.window.slices
        self.group = _power_of_two(min(max(_GROUP_PIXELS // (height * width), 1), _GROUP))
        self.lanes = _LANES
        self._face = _Face(bound, device, lead)
        self._main = _DeskOnDevice(self._face, None)
        self._main_lock = Lock()
        self._idle_desks: list[_DeskOnDevice] = []

    def render_on_device(
        self,
        coefficients: Float32 | DeviceArray,
        out: DeviceArray | None = None,
        turns: Float32 | None = None,
    ) -> DeviceArray:
        """``coefficients (B, E)`` → (B, H, W, 3) uint8 on the device, into ``out`` if given.

        Enqueued on the default stream; returns before it is done. Coefficients that lie on the device are
        clipped to ±2 there, and what is not a number counts as 0: nothing waits to refuse them.
        """
        frames, shape = len(coefficients), self._photo.shape
        images = self.device.empty((frames, *shape), np.uint8) if out is None else out
        if images.shape != (frames, *shape):
            raise BadArgument(f"out must be {(frames, *shape)} uint8, got {images.shape} {images.dtype}")
        with self._main_lock:
            for part in self.groups_on_device(frames):
                made = self._main.render(coefficients[part], None if turns is None else turns[part])
                images[part].copy_from(made.images, wait=False)
        return images

    def groups_on_device(self, frames: int) -> list[slice]:
        """Powers of two, the largest first: each is a graph of its own."""
        parts, start = [], 0
        while start < frames:
            size = min(_power_of_two(frames - start), self.group)
            parts.append(slice(start, start + size))
            start += size
        return parts

    def render(self, coefficients: Float32, out: Image) -> None:
        """``coefficients (B, E)`` → ``out (B, H, W, 3)``, every byte written."""
        groups = self.groups(len(coefficients))
        if len(groups) < 2:
            self.render_group(coefficients, out)
            return
        with ThreadPoolExecutor(min(self.lanes, len(groups)), thread_name_prefix="fastface-batch") as lanes:
            # The results are read so that what goes wrong in a lane is raised here.
            list(lanes.map(lambda group: self.render_group(coefficients[group], out[group]), groups))

    def render_group(self, coefficients: Float32, out: Image) -> None:
        """``render`` for one of ``groups``; ``out`` from ``Device.pinned`` is written without a detour."""
        for part, made, stream in self._by_parts(coefficients, None):
            made.images.copy_to(out[part], stream)

    def mask(self, coefficients: Float32) -> Image:
        """(B, H, W) 1 where a frame may differ from the photo."""
        return self._masks(coefficients, None)

    def _masks(self, coefficients: Float32, turns: Float32 | None) -> Image:
        masks = np.zeros((len(coefficients), *self._photo.shape[:2]), np.uint8)
        for part, made, stream in self._by_parts(coefficients, turns):
            masks[part, *self._slices] = made.mask.numpy(stream)
        return masks

    def _by_parts(
        self, coefficients: Float32, turns: Float32 | None
    ) -> Iterator[tuple[slice, _Made, Stream | None]]:
        """What a lane makes of each power of two of frames, to be copied before the next is asked for."""
        with self._lane() as desk:
            for part in self.groups_on_device(len(coefficients)):
                made = desk.render(coefficients[part], None if turns is None else turns[part])
                yield part, made, desk.stream

    def frames(self, count: int) -> FrameGraph:
        """A graph of ``count`` frames with arrays of its own, for callers who keep time themselves."""
        return FrameGraph(self._face, count, self.device.stream())

    @contextmanager
    def _lane(self) -> Iterator[_DeskOnDevice]:
        try:
            desk = self._idle_desks.pop()
        except IndexError:
            desk = _DeskOnDevice(self._face, self.device.stream())
        try:
            yield desk
        finally:
            self._idle_desks.append(desk)


class DeviceTurningRenderer(DeviceRenderer):
    """``TurningRenderer`` on a device: a face bound with ``turns=True``."""

    def __init__(self, bound: Binding, rig: Rig, device: Device, threads: int) -> None:
        if rig.lead is None:
            raise BadArgument("wanted a rig that was built with turns=True")
        super().__init__(bound, device, threads, rig.lead)
        self._pivot_mm = rig.lead.pivot_mm

    def render_turned(self, coefficients: Any, poses: Float64, out: Any) -> None:
        """``coefficients (B, E)``, ``poses (B, 4)`` → ``out (B, H, W, 3)``, on the device or the host."""
        turns = self._turns(poses)
        if isinstance(out, DeviceArray):
            self.render_on_device(coefficients, out, turns)
            return
        for part, made, stream in self._by_parts(coefficients, turns):
            made.images.copy_to(out[part], stream)

    def mask_turned(self, coefficients: Float32, pose: Float64) -> Image:
        """(H, W) 1 where that frame may differ from the photo; ``coefficients (E,)``, ``pose (4,)``."""
        mask: Image = self._masks(coefficients[None], self._turns(pose[None]))[0]
        return mask

    def _turns(self, poses: Float64) -> Float32:
        """(B, 13) rotation and translation about the pivot, and whether there is any."""
        rows = np.zeros((len(poses), 13), np.float32)
        for row, pose in zip(rows, poses, strict=True):
            rotation, pivot = rotation_of_pose(pose), self._pivot_mm.astype(np.float64)
            row[:9], row[9:12] = rotation.ravel(), pivot - rotation @ pivot - [0, 0, pose[3]]
            row[12] = pose.any()
        return rows


class _Face:
    """What belongs to a face and not to a frame, on the device."""

    def __init__(self, bound: Binding, device: Device, lead: Lead | None = None) -> None:
        def fixed(array: NDArray[Any], dtype: type) -> DeviceArray:
            return device.put(np.ascontiguousarray(array, dtype), frozen=True)

        self.device, self.hair_px, self.window = device, bound.hair_px, bound.window
        self.own, self.neutral = fixed(bound.own, np.float32), fixed(bound.neutral, np.float32)
        self.basis, self.shading = moved(bound.basis, device), moved(bound.shading, device)
        self.camera, self.lip_gap = fixed(bound.camera, np.float32), fixed(bound.lip_gap, np.float32)
        self.photo = fixed(bound.photo, np.uint8)
        self.photo_window = fixed(bound.photo[bound.window.slices][None], np.uint8)
        self.whole = self.photo_window.shape[1:] == self.photo.shape
        self.shifts = len(bound.shading.shift_px)
        weights, most = control_weights(bound.names, self.shifts)
        self.weights, self.most = fixed(weights, np.float32), fixed(most, np.float32)
        self.eyes: list[DeviceArray] = []
        for rows, rest in zip(bound.eye_rows, bound.eye_rest, strict=True):
            self.eyes += [fixed(rows, np.int32), fixed(rest, np.float32)]
        self.lead: list[DeviceArray] = []
        if lead is not None:
            row_of = np.full(len(bound.neutral), -1, np.int32)
            row_of[lead.rows] = np.arange(len(lead.rows))
            f_px, *centre = bound.camera[0]
            border = bound.neutral[lead.border]
            self.lead = [fixed(array, np.int32) for array in (row_of, lead.rows)]
            self.lead += [
                fixed(array, np.float32) for array in (bound.shading.rest_px[lead.rows], lead.share)
            ]
            self.lead += [
                fixed(lead.border, np.int32),
                fixed(border[:, :2] * (f_px / border[:, 2:]) + centre, np.float32),
            ]
            self.lead += [fixed(array, np.float32) for array in (lead.weights, lead.body_mm, lead.body_share)]


def control_weights(names: tuple[str, ...], shifts: int) -> tuple[Float32, Float32]:
    """(E, C) and (C,): the controls of ``ops.shade`` are ``clip(deltas @ weights, 0, most)``.

    Below 0 is ``most`` of the three columns that hang on how far lids and lips have parted.
    """

    def controls(deltas: Float32) -> Float32:
        parted = np.full((len(deltas), 3), -1, np.float32)
        return np.concatenate([shift_weights(deltas, names), parted, fold_weights(deltas, names)], axis=1)

    one = np.eye(len(names), dtype=np.float32)
    weights, most = controls(one), controls(1e6 * one).max(axis=0)
    return np.ascontiguousarray(weights), np.ascontiguousarray(most)


class _Made(NamedTuple):
    """Everything between coefficients and frames, on the device."""

    coefficients: DeviceArray
    turns: DeviceArray
    deltas: DeviceArray
    moves: DeviceArray
    controls: DeviceArray
    positions: DeviceArray
    screen: DeviceArray
    triangle_id: DeviceArray
    bary: DeviceArray
    source: DeviceArray
    mask: DeviceArray
    window: DeviceArray
    images: DeviceArray

    @classmethod
    def of(cls, face: _Face, frames: int) -> _Made:
        modes, controls = face.weights.shape
        vertices, image = len(face.neutral), face.photo_window.shape[1:3]

        def empty(dtype: type, *shape: int) -> DeviceArray:
            return face.device.empty((frames, *shape), dtype)

        window = empty(np.uint8, *image, 3)
        return cls(
            coefficients=empty(np.float32, modes),
            turns=empty(np.float32, 13),
            deltas=empty(np.float32, modes),
            moves=empty(np.uint8),
            controls=empty(np.float32, controls),
            positions=empty(np.float32, vertices, 3),
            screen=empty(np.float32, vertices, 3),
            triangle_id=empty(np.int32, *image),
            bary=empty(np.float32, *image, 2),
            source=empty(np.float32, *image, 3),
            mask=empty(np.uint8, *image),
            window=window,
            images=window if face.whole else empty(np.uint8, *face.photo.shape),
        )

    def first(self, frames: int) -> _Made:
        return _Made._make(array[:frames] for array in self)


def enqueue(face: _Face, made: _Made, workspace: DeviceWorkspace, stream: Stream | None) -> None:
    """A frame's kernels, from ``made.coefficients`` to ``made.images``. The same calls whatever is asked."""
    device = face.device
    shared: dict[str, Any] = {"stream": stream, "workspace": workspace}
    asked = (made.coefficients, face.own, face.weights, face.most)
    device.drive(
        stream,
        *asked,
        *(made.deltas, made.controls, made.moves),
        *(OWN_GONE_AT, STILL, _COEFFICIENT_LIMIT),
        workspace,
    )
    model = (face.neutral, face.basis, made.deltas, face.camera)
    positions = made.positions, made.screen
    ops.deform(*model, out=positions, **shared)  # type: ignore[arg-type]
    lips = (face.shading.lip_rim, face.lip_gap)
    hair = (face.shifts, ROUNDING_PX, face.hair_px)
    device.part(stream, made.screen, *face.eyes, *lips, made.controls, *hair, workspace)
    if face.lead:
        moving = (made.positions, made.screen, made.moves)
        device.turn(stream, made.turns, face.camera, *face.lead, *moving, workspace)
    height, width = made.mask.shape[1:]
    found = made.triangle_id, made.bary
    mesh: Any = (made.screen, face.shading.triangles, height, width)
    ops.rasterize(*mesh, cull_backfaces=CULL_BACKFACES, out=(*found, None), **shared)  # type: ignore[arg-type]
    pixels: Any = (*positions, *found, made.controls, face.shading)
    ops.shade(*pixels, out=(made.source, made.mask), **shared)  # type: ignore[arg-type]
    device.settle(stream, made.moves, made.mask, workspace)
    blended: Any = (face.photo_window, made.source, made.mask)
    ops.blend(*blended, out=(made.window, None), **shared)  # type: ignore[arg-type]
    if not face.whole:
        place = (face.window.top, face.window.left)
        device.compose(stream, face.photo, made.window, made.images, *place, workspace)


class FrameGraph:
    """``count`` frames of a face as one graph: write ``coefficients (count, E)``, ``replay``, read
    ``images``.

    Where a device cannot capture (the emulated one), ``replay`` makes the calls again.
    """

    def __init__(self, face: _Face, count: int, stream: Stream) -> None:
        made, workspace = _Made.of(face, count), DeviceWorkspace(face.device)
        self._work = _Work(face, made, workspace, stream)
        self.stream, self.coefficients, self.images = stream, made.coefficients, made.images
        self._work.capture()

    def replay(self) -> None:
        """Enqueue it on ``stream``."""
        self._work.replay(self.stream)


class _Work:
    """The kernels of some frames, captured if the device can."""

    def __init__(self, face: _Face, made: _Made, workspace: DeviceWorkspace, stream: Stream) -> None:
        self._face, self.made, self._workspace, self._stream = face, made, workspace, stream
        self._graph: Graph | None = None

    def capture(self) -> None:
        """Runs once, so that the workspace has its size, then again to be captured."""
        for array in (self.made.coefficients, self.made.turns):
            array.copy_from(np.zeros(array.shape, np.float32), self._stream)
        self._enqueue(self._stream)
        self._stream.wait()
        self._graph = self._face.device.capture(self._stream, lambda: self._enqueue(self._stream))

    def replay(self, stream: Stream | None) -> None:
        if self._graph is None:
            self._enqueue(stream)
        else:
            self._graph.replay(stream, *self.made, self._workspace)

    def _enqueue(self, stream: Stream | None) -> None:
        enqueue(self._face, self.made, self._workspace, stream)


class _DeskOnDevice:
    """Memory for the frames of one stream, and their graphs; for one thread at a time."""

    def __init__(self, face: _Face, stream: Stream | None) -> None:
        self._face, self.stream = face, stream
        self._captures = face.device.stream()  # the default stream cannot be captured
        self._most: _Made | None = None
        self._work: dict[int, _Work] = {}

    def render(self, coefficients: Float32 | DeviceArray, turns: Float32 | None) -> _Made:
        """Enqueue 1, 2, 4 … frames; what comes back is overwritten by the next call."""
        work = self._prepared(len(coefficients))
        work.made.coefficients.copy_from(coefficients, self.stream, wait=False)
        if turns is not None:
            work.made.turns.copy_from(turns, self.stream, wait=False)
        work.replay(self.stream)
        return work.made

    def _prepared(self, frames: int) -> _Work:
        if self._most is None or frames > len(self._most.mask):
            # Graphs keep addresses: with the memory they go too.
            self._work.clear()
            self._most = _Made.of(self._face, frames)
            self._workspace = DeviceWorkspace(self._face.device)
        if frames not in self._work:
            made = self._most.first(frames)
            work = _Work(self._face, made, self._workspace, self._captures)
            work.capture()
            self._work[frames] = work
        return self._work[frames]


def _power_of_two(count: int) -> int:
    """The largest that is not above ``count``, at least 1."""
    return 1 << (max(count, 1).bit_length() - 1)
