"""The fast half: coefficients in, frames out. Made once for a face; holds its buffers; no Python loop over
vertices or pixels.
"""

from __future__ import annotations

import sys
import threading
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fastface import ops
from fastface.camera import Camera
from fastface.folds import fold_weights
from fastface.relaxation import shift_weights
from fastface.rig import Rig

Float32 = NDArray[np.float32]
Image = NDArray[np.uint8]

#: Frames that go through the ops together: enough to share every load of the basis, few enough for the cache,
#: and of large photos no more than memory bears.
_GROUP: Final = 8
_GROUP_PIXELS: Final = 1 << 21
_GROUP_BYTES: Final = 16 << 20
_BYTES_A_PIXEL: Final = 31  # of _Buffers
_OWN_NOISE: Final = 0.05  # coefficients of a neutral photo below this are noise of the landmarks
_OWN_GONE_AT: Final = 0.3  # coefficient at which the photo's own expression has given way
_STILL: Final = 1e-4
_ROUNDING_PX: Final = 0.01


class FaceRenderer:
    """Renders one rig. One call at a time; ``render`` takes turns by a lock."""

    def __init__(self, rig: Rig, photo: Image, own: Float32, names: tuple[str, ...], threads: int) -> None:
        self._photo, self._threads, self._names = photo, threads, names
        self._own = np.sign(own) * np.maximum(np.abs(own) - _OWN_NOISE, 0)
        # Not the rig itself is kept: its images would lie in memory twice.
        self._neutral, self._camera, self._slices = rig.neutral, rig.camera[None], rig.window.slices
        self._basis = ops.pack_basis(rig.basis, dtype=np.float16, drop_below_mm=0.005)
        self._shading = ops.prepare_shading(rig.shading)
        self._window = np.ascontiguousarray(photo[self._slices])
        self._whole = self._window.shape == photo.shape
        height, width = self._window.shape[:2]
        self.group = min(max(_GROUP_PIXELS // (height * width), 1), _GROUP)
        self._buffers = _Buffers(1, len(rig.neutral), height, width)
        self._workspace = ops.Workspace()
        self._lock = threading.Lock()
        self._eye_rows = [np.concatenate([lids, balls]) for lids, balls in rig.eye_rows]
        self._eye_rest = [rig.shading.rest_px[rows] for rows in self._eye_rows]
        self._lip_rim, self._hair_px = rig.shading.lip_rim, rig.hair_px
        upper, lower = (rig.shading.rest_px[rim] for rim in self._lip_rim)
        self._lip_gap = np.linalg.norm(upper - lower, axis=1)

    def deltas(self, coefficients: Float32) -> Float32:
        """(B, E) asked → (B, E) to add to the face as the photo shows it.

        The photo's own expression gives way as soon as something is asked; with nothing asked nothing moves.
        """
        strength = np.abs(coefficients).max(axis=1, initial=0.0) / _OWN_GONE_AT
        t = np.clip(strength, 0, 1)[:, None]
        delta = coefficients - t * t * (3 - 2 * t) * self._own
        delta[np.abs(delta) < _STILL] = 0
        return np.ascontiguousarray(delta, np.float32)

    def render(self, coefficients: Float32, out: Image) -> None:
        """``coefficients (B, E)`` → ``out (B, H, W, 3)``, every byte written."""
        with self._lock:
            for start in range(0, len(coefficients), self.group):
                group = slice(start, start + self.group)
                self._render_group(coefficients[group], out[group])

    def mask(self, coefficients: Float32) -> Image:
        """(B, H, W) 1 where a frame may differ from the photo."""
        masks = np.zeros((len(coefficients), *self._photo.shape[:2]), np.uint8)
        with self._lock:
            for row, mask in zip(coefficients, masks, strict=True):
                mask[self._slices] = self._shade(row[None]).mask[0]
        return masks

    def _render_group(self, coefficients: Float32, out: Image) -> None:
        b = self._shade(coefficients)
        image = out if self._whole else b.image
        ops.blend(
            self._window,
            b.source,
            b.mask,
            out=(image, None),
            threads=self._threads,
            workspace=self._workspace,
        )
        if not self._whole:
            out[:] = self._photo
            rows, columns = self._slices
            out[:, rows, columns] = image

    def _shade(self, coefficients: Float32) -> _Buffers:
        frames = len(coefficients)
        if frames > self._buffers.frames:
            self._buffers = _Buffers(frames, len(self._neutral), *self._window.shape[:2])
        b = self._buffers.first(frames)
        shared: dict[str, Any] = {"threads": self._threads, "workspace": self._workspace}
        deltas = self.deltas(coefficients)
        positions = b.positions, b.screen
        ops.deform(self._neutral, self._basis, deltas, self._camera, out=positions, **shared)
        height, width = self._window.shape[:2]
        found = b.triangle_id, b.bary
        ops.rasterize(b.screen, self._shading.triangles, height, width, out=(*found, None), **shared)
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
        t = np.clip((np.stack(parted, axis=1) - _ROUNDING_PX) / self._hair_px, 0, 1)
        return np.asarray(t * t * (3 - 2 * t), np.float32)


class _Buffers:
    """Everything between the ops, for so many frames at most."""

    def __init__(self, frames: int, vertices: int, height: int, width: int) -> None:
        self.frames = frames
        self.positions = np.empty((frames, vertices, 3), np.float32)
        self.screen = np.empty((frames, vertices, 3), np.float32)
        self.triangle_id = np.empty((frames, height, width), np.int32)
        self.bary = np.empty((frames, height, width, 2), np.float32)
        self.source = np.empty((frames, height, width, 3), np.float32)
        self.mask = np.empty((frames, height, width), np.uint8)
        self.image = np.empty((frames, height, width, 3), np.uint8)

    def first(self, frames: int) -> _Buffers:
        """The same memory, of the first frames only."""
        if frames == self.frames:
            return self
        part = object.__new__(_Buffers)
        for name, value in vars(self).items():
            setattr(part, name, frames if name == "frames" else value[:frames])
        return part


class MovingLandmarks:
    """The detected landmarks of a face, moved as the model moves.

    ``detected (478, 2)`` px; ``rest (478, 3)`` the model's in camera space, mm; ``motion (E, 478, 3)`` what
    each expression adds.
    """

    def __init__(self, detected: Float32, rest: Float32, motion: Float32, camera: Camera) -> None:
        self._rest, self._camera = rest, camera
        self._offset = detected - camera.project(rest)
        self._motion = motion.reshape(len(motion), -1)

    def at(self, delta: Float32) -> Float32:
        """(478, 2) px for one row (E,) of ``FaceRenderer.deltas``."""
        moved = self._rest + (delta @ self._motion).reshape(self._rest.shape)
        return np.asarray(self._offset + self._camera.project(moved), np.float32)


class ImagePool:
    """Images that are used again once nobody holds them: a stream allocates only what its reader keeps."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self._shape = shape
        self._images: list[Image] = []

    def take(self) -> Image:
        """An image to overwrite."""
        for image in self._images:
            # Held by the list, by ``image`` and by getrefcount's argument, and by nobody else.
            if sys.getrefcount(image) == 3:
                return image
        fresh = np.empty(self._shape, np.uint8)
        if len(self._images) < 64:
            self._images.append(fresh)
        return fresh
