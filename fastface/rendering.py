"""The fast half: coefficients in, frames out. Made once for a face; holds its buffers; no Python loop over
vertices or pixels.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastface import ops
from fastface.binding import CULL_BACKFACES, OWN_GONE_AT, ROUNDING_PX, STILL, Binding
from fastface.camera import Camera, angles_deg
from fastface.folds import fold_weights
from fastface.head_pose import pivot_of, rotation_of_pose, turned
from fastface.labels import Pose
from fastface.relaxation import shift_weights

Float32 = NDArray[np.float32]
Image = NDArray[np.uint8]

#: Frames that go through the ops together: enough to share every load of the basis, few enough for the cache,
#: and of large photos no more than memory bears.
_GROUP: Final = 8
_GROUP_PIXELS: Final = 1 << 21
#: Pixels of all groups that are rendered at the same time; beyond it threads share a group.
_LANES_PIXELS: Final = 1 << 24


class FaceRenderer:
    """Renders one bound face; threads may share it.

    Many frames are rendered in ``lanes``: groups of frames side by side, one thread each where memory allows.
    That keeps cores busy better than threads that wait for one another at the end of every op, the more so
    when others want the cores too. A single frame has all ``threads`` to itself.
    """

    def __init__(self, bound: Binding, threads: int) -> None:
        self._photo, self._names, self.threads = bound.photo, bound.names, threads
        self._own, self._slices = bound.own, bound.window.slices
        self._neutral, self._camera = bound.neutral, bound.camera
        self._basis, self._shading = bound.basis, bound.shading
        self._window = np.ascontiguousarray(bound.photo[self._slices])
        self._whole = self._window.shape == bound.photo.shape
        height, width = self._window.shape[:2]
        self.group = min(max(_GROUP_PIXELS // (height * width), 1), _GROUP)
        self.lanes = min(max(_LANES_PIXELS // (self.group * height * width), 1), threads)
        self._idle: list[_Desk] = []
        self._eye_rows, self._eye_rest = bound.eye_rows, bound.eye_rest
        self._lip_rim, self._lip_gap = bound.shading.lip_rim, bound.lip_gap
        self._hair_px = bound.hair_px

    def deltas(self, coefficients: Float32) -> Float32:
        """(B, E) asked → (B, E) to add to the face as the photo shows it.

        The photo's own expression gives way as soon as something is asked; with nothing asked nothing moves.
        """
        strength = np.abs(coefficients).max(axis=1, initial=0.0) / OWN_GONE_AT
        t = np.clip(strength, 0, 1)[:, None]
        delta = coefficients - t * t * (3 - 2 * t) * self._own
        delta[np.abs(delta) < STILL] = 0
        return np.ascontiguousarray(delta, np.float32)

    def render(self, coefficients: Float32, out: Image) -> None:
        """``coefficients (B, E)`` → ``out (B, H, W, 3)``, every byte written."""
        groups = self.groups(len(coefficients))
        if len(groups) < 2 or self.lanes == 1:
            for group in groups:
                self.render_group(coefficients[group], out[group], self.threads)
            return
        with ThreadPoolExecutor(min(self.lanes, len(groups)), thread_name_prefix="fastface-batch") as lanes:
            # The results are read so that what goes wrong in a lane is raised here.
            list(lanes.map(lambda group: self.render_group(coefficients[group], out[group]), groups))

    def groups(self, frames: int) -> list[slice]:
        """Frames that are best rendered together, so that no lane is left without work."""
        size = max(min(-(-frames // self.lanes), self.group), 1)
        return [slice(start, min(start + size, frames)) for start in range(0, frames, size)]

    def render_group(self, coefficients: Float32, out: Image, threads: int | None = None) -> None:
        """``render`` for one of ``groups``, by the threads of one lane if ``threads`` is None."""
        threads = threads or max(self.threads // self.lanes, 1)
        with self._desk() as desk:
            b = self._shade(coefficients, desk, threads)
            image = out if self._whole else b.image
            ops.blend(
                self._window,
                b.source,
                b.mask,
                out=(image, None),
                threads=threads,
                workspace=desk.workspace,
            )
            if not self._whole:
                out[:] = self._photo
                rows, columns = self._slices
                out[:, rows, columns] = image

    def mask(self, coefficients: Float32) -> Image:
        """(B, H, W) 1 where a frame may differ from the photo."""
        masks = np.zeros((len(coefficients), *self._photo.shape[:2]), np.uint8)
        with self._desk() as desk:
            for row, mask in zip(coefficients, masks, strict=True):
                mask[self._slices] = self._shade(row[None], desk, self.threads).mask[0]
        return masks

    @contextmanager
    def _desk(self) -> Iterator[_Desk]:
        try:
            desk = self._idle.pop()
        except IndexError:
            desk = _Desk(len(self._neutral), *self._window.shape[:2])
        try:
            yield desk
        finally:
            self._idle.append(desk)

    def _shade(self, coefficients: Float32, desk: _Desk, threads: int) -> _Buffers:
        b = desk.buffers(len(coefficients))
        shared: dict[str, Any] = {"threads": threads, "workspace": desk.workspace}
        deltas = self.deltas(coefficients)
        positions = b.positions, b.screen
        ops.deform(self._neutral, self._basis, deltas, self._camera, out=positions, **shared)
        height, width = self._window.shape[:2]
        found = b.triangle_id, b.bary
        mesh = b.screen, self._shading.triangles
        ops.rasterize(*mesh, height, width, cull_backfaces=CULL_BACKFACES, out=(*found, None), **shared)
        shifts, folds = shift_weights(deltas, self._names), fold_weights(deltas, self._names)
        controls = np.concatenate([shifts, self._mixes(b.screen), folds], axis=1, dtype=np.float32)
        ops.shade(*positions, *found, controls, self._shading, out=(b.source, b.mask), **shared)
        # Where nothing was asked not even rounding may show, however large the photo.
        b.mask[~deltas.any(axis=1)] = 0
        return b

    def _mixes(self, screen: Float32) -> Float32:
        """(B, 3) how much of each eye is drawn without its lids, and of the painted mouth: none at rest, all
        once lids or lips have parted by a hair.
        """
        parted = [
            np.abs(screen[:, row, :2] - rest).max(axis=(1, 2), initial=0.0)
            for row, rest in zip(self._eye_rows, self._eye_rest, strict=True)
        ]
        upper, lower = (screen[:, rim, :2] for rim in self._lip_rim)
        parted.append((np.linalg.norm(upper - lower, axis=2) - self._lip_gap).max(axis=1))
        t = np.clip((np.stack(parted, axis=1) - ROUNDING_PX) / self._hair_px, 0, 1)
        return np.asarray(t * t * (3 - 2 * t), np.float32)


class _Buffers(NamedTuple):
    """Everything between the ops, for some frames."""

    positions: Float32
    screen: Float32
    triangle_id: NDArray[np.int32]
    bary: Float32
    source: Float32
    mask: Image
    image: Image


class _Desk:
    """Where one group of frames is worked on at a time: memory that is kept between groups."""

    def __init__(self, vertices: int, height: int, width: int) -> None:
        self.workspace = ops.Workspace()
        self._mesh, self._image = (vertices, 3), (height, width)
        self._most = self._made(1)

    def _made(self, frames: int) -> _Buffers:
        mesh, image = (frames, *self._mesh), (frames, *self._image)
        return _Buffers(
            positions=np.empty(mesh, np.float32),
            screen=np.empty(mesh, np.float32),
            triangle_id=np.empty(image, np.int32),
            bary=np.empty((*image, 2), np.float32),
            source=np.empty((*image, 3), np.float32),
            mask=np.empty(image, np.uint8),
            image=np.empty((*image, 3), np.uint8),
        )

    def buffers(self, frames: int) -> _Buffers:
        """Room for so many frames; allocates only for more than ever before."""
        if frames > len(self._most.mask):
            self._most = self._made(frames)
        return _Buffers._make(array[:frames] for array in self._most)


class MovingLandmarks:
    """The detected landmarks of a face, moved as the model moves.

    ``detected (478, 2)`` px; ``rest (478, 3)`` the model's in camera space, mm; ``motion (E, 478, 3)`` what
    each expression adds.
    """

    def __init__(self, detected: Float32, rest: Float32, motion: Float32, camera: Camera) -> None:
        self._rest, self._camera = rest, camera
        self._pivot = pivot_of(rest, camera.rotation)
        self._offset = detected - camera.project(rest)
        self._motion = motion.reshape(len(motion), -1)

    def at(self, delta: Float32, pose: NDArray[np.float64] | None = None) -> Float32:
        """(478, 2) px for one row (E,) of ``FaceRenderer.deltas`` and, if the head turns, its pose (4,)."""
        moved = self._rest + (delta @ self._motion).reshape(self._rest.shape)
        if pose is not None and pose.any():
            moved = turned(moved, pose, self._pivot)
        return np.asarray(self._offset + self._camera.project(moved), np.float32)

    def pose(self, pose: NDArray[np.float64]) -> Pose:
        """Where the head is once it has moved by ``pose (4,)``."""
        camera = self._camera
        rotation = rotation_of_pose(pose) @ camera.rotation
        x, y, z = turned(camera.translation_mm[None], pose, self._pivot)[0]
        return Pose(*angles_deg(rotation), (float(x), float(y), float(z)), camera.focal_px)


class ImagePool:
    """Images that are used again once nobody holds them: a stream allocates only what its reader keeps.

    One thread takes; others may hold what was taken.
    """

    def __init__(
        self, shape: tuple[int, ...], make: Callable[[tuple[int, ...], Any], Image] = np.empty
    ) -> None:
        self._shape, self._make = shape, make
        self._images: list[Image] = []

    def take(self) -> Image:
        """An image to overwrite."""
        for image in self._images:
            # Held by the list, by ``image`` and by getrefcount's argument, and by nobody else.
            if sys.getrefcount(image) == 3:
                return image
        fresh = self._make(self._shape, np.uint8)
        if len(self._images) < 64:
            self._images.append(fresh)
        return fresh
