"""The fast half: coefficients in, frames out. Made once for a face; holds its buffers; no Python loop over
vertices or pixels.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fastface import _core, ops
from fastface.binding import NEAR_MM, OWN_GONE_AT, ROUNDING_PX, STILL, Binding
from fastface.camera import Camera, angles_deg
from fastface.folds import fold_weights
from fastface.head_pose import pivot_of, rotation_of_pose, turned
from fastface.labels import Pose
from fastface.relaxation import shift_weights

Float32 = NDArray[np.float32]
Image = NDArray[np.uint8]

#: Frames of a stream that are made in one go, and of large photos no more than memory bears.
_GROUP: Final = 8
_GROUP_PIXELS: Final = 1 << 21
#: Pixels that are worked on at the same time; beyond it threads share a frame.
_LANES_PIXELS: Final = 1 << 24


class FaceRenderer:
    """Renders one bound face; threads may share it.

    Of many frames each is one thread's, where memory allows: that keeps cores busy better than threads that
    wait for one another at every step. A single frame has all ``threads`` to itself.
    """

    def __init__(self, bound: Binding, threads: int) -> None:
        self._photo, self._names, self.threads = np.ascontiguousarray(bound.photo), bound.names, threads
        self._own, self._hair_px = bound.own, bound.hair_px
        pixels = bound.window.height * bound.window.width
        self.group = min(max(_GROUP_PIXELS // pixels, 1), _GROUP)
        self.lanes = min(max(_LANES_PIXELS // pixels, 1), threads)
        self._idle: list[ops.Workspace] = []
        self._eye_rows, self._eye_rest = bound.eye_rows, bound.eye_rest
        self._lip_rim, self._lip_gap = bound.shading.lip_rim, bound.lip_gap
        # In the order of csrc/ops/render.h.
        self._model = bound.neutral, bound.basis.blocks, bound.basis.moves
        self._camera = bound.camera
        self._arrays = (*ops.face_arguments(bound.shading), *bound.eye_rows, bound.lip_gap, self._photo)
        place = bound.shading.lit_faces, bound.window.top, bound.window.left
        self._numbers = (*place, ROUNDING_PX, bound.hair_px, NEAR_MM)

    def deltas(self, coefficients: Float32) -> Float32:
        """(B, E) asked → (B, E) to add to the face as the photo shows it.

        The photo's own expression gives way in step with what is asked, so that a growing affect moves the
        face along a straight line, never to and fro; with nothing asked nothing moves.
        """
        strength = np.abs(coefficients).max(axis=1, initial=0.0) / OWN_GONE_AT
        delta = coefficients - np.clip(strength, 0, 1)[:, None] * self._own
        delta[np.abs(delta) < STILL] = 0
        return np.ascontiguousarray(delta, np.float32)

    def controls(self, deltas: Float32) -> Float32:
        """(B, E) of ``deltas`` → (B, S + 3 + D) of ``ops.shade``, the three shares left open."""
        shares = np.zeros((len(deltas), 3), np.float32)
        shifts, folds = shift_weights(deltas, self._names), fold_weights(deltas, self._names)
        return np.concatenate([shifts, shares, folds], axis=1, dtype=np.float32)

    def render(self, coefficients: Float32, out: Image) -> None:
        """``coefficients (B, E)`` → ``out (B, H, W, 3)``, every byte written."""
        self._render(coefficients, out, None, self.threads)

    def groups(self, frames: int) -> list[slice]:
        """Frames of a stream that are best made in one go, so that no lane is left without work."""
        size = max(min(-(-frames // self.lanes), self.group), 1)
        return [slice(start, min(start + size, frames)) for start in range(0, frames, size)]

    def render_group(self, coefficients: Float32, out: Image) -> None:
        """``render`` for one of ``groups``, by the threads of one lane."""
        self._render(coefficients, out, None, max(self.threads // self.lanes, 1))

    def mask(self, coefficients: Float32) -> Image:
        """(B, H, W) 1 where a frame may differ from the photo."""
        images = np.empty((len(coefficients), *self._photo.shape), np.uint8)
        masks = np.empty(images.shape[:3], np.uint8)
        self._render(coefficients, images, masks, self.threads)
        return masks

    def _render(self, coefficients: Float32, out: Image, mask: Image | None, threads: int) -> None:
        deltas = self.deltas(coefficients)
        controls = self.controls(deltas)
        frames = len(deltas)
        step = frames if threads <= self.lanes else 1
        with self._workspace() as workspace:
            for first in range(0, frames, max(step, 1)):
                some = slice(first, first + step)
                masks = None if mask is None else mask[some]
                asked = deltas[some], self._camera, controls[some]
                _core.render(
                    *self._model, *asked, *self._arrays, out[some], masks, *self._numbers, threads, workspace
                )

    @contextmanager
    def _workspace(self) -> Iterator[ops.Workspace]:
        try:
            workspace = self._idle.pop()
        except IndexError:
            workspace = ops.Workspace()
        try:
            yield workspace
        finally:
            self._idle.append(workspace)

    def shares(self, screen: Float32) -> Float32:
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
