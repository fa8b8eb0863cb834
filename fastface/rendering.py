"""The fast half: coefficients in, frames out. Made once for a face; holds its buffers; no Python loop over
vertices or pixels."""

from __future__ import annotations

import sys
import threading
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fastface import ops
from fastface.folds import fold_weights
from fastface.relaxation import shift_weights
from fastface.rig import Rig

Float32 = NDArray[np.float32]
Image = NDArray[np.uint8]

#: Frames that go through the ops together: enough to share every load of the basis, few enough for the cache.
GROUP: Final = 8
_OWN_NOISE: Final = 0.05  # coefficients of a neutral photo below this are noise of the landmarks
_OWN_GONE_AT: Final = 0.3  # coefficient at which the photo's own expression has given way
_STILL: Final = 1e-4
_ROUNDING_PX: Final = 0.01


class FaceRenderer:
    """Renders one rig. One call at a time; ``render`` takes turns by a lock."""

    def __init__(self, rig: Rig, photo: Image, own: Float32, names: tuple[str, ...], threads: int) -> None:
        self._rig, self._photo, self._threads, self._names = rig, photo, threads, names
        self._own = np.sign(own) * np.maximum(np.abs(own) - _OWN_NOISE, 0)
        self._basis = ops.pack_basis(rig.basis, dtype=np.float16, drop_below_mm=0.005)
        self._shading = ops.prepare_shading(rig.shading)
        self._window = np.ascontiguousarray(photo[rig.window.slices])
        self._whole = self._window.shape == photo.shape
        self._buffers: dict[int, _Buffers] = {}
        self._workspace = ops.Workspace()
        self._lock = threading.Lock()
        rows = [np.concatenate([lids, balls]) for lids, balls in rig.eye_rows]
        self._eye_rest = [rig.shading.rest_px[row] for row in rows]
        self._eye_rows = rows
        upper, lower = (rig.shading.rest_px[rim] for rim in rig.shading.lip_rim)
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
            for start in range(0, len(coefficients), GROUP):
                group = slice(start, start + GROUP)
                self._render_group(coefficients[group], out[group])

    def mask(self, coefficients: Float32) -> Image:
        """(B, H, W) 1 where a frame may differ from the photo."""
        masks = np.zeros((len(coefficients), *self._photo.shape[:2]), np.uint8)
        with self._lock:
            for index in range(len(coefficients)):
                buffers = self._shade(coefficients[index : index + 1])
                masks[index][self._rig.window.slices] = buffers.mask[0]
        return masks

    def _render_group(self, coefficients: Float32, out: Image) -> None:
        buffers = self._shade(coefficients)
        image = out if self._whole else buffers.image
        ops.blend(
            self._window, buffers.source, buffers.mask, out=(image, None), threads=self._threads,
            workspace=self._workspace,
        )  # fmt: skip
        if not self._whole:
            out[:] = self._photo
            rows, columns = self._rig.window.slices
            out[:, rows, columns] = image

    def _shade(self, coefficients: Float32) -> _Buffers:
        frames = len(coefficients)
        if frames not in self._buffers:
            self._buffers[frames] = _Buffers(frames, len(self._rig.neutral), self._window.shape)
        b = self._buffers[frames]
        shared: dict[str, Any] = {"threads": self._threads, "workspace": self._workspace}
        deltas = self.deltas(coefficients)
        ops.deform(
            self._rig.neutral, self._basis, deltas, self._rig.camera[None], out=(b.positions, b.screen), **shared
        )
        height, width = self._window.shape[:2]
        ops.rasterize(
            b.screen, self._rig.shading.triangles, height, width, out=(b.triangle_id, b.bary, None), **shared
        )
        controls = np.concatenate(
            [
                shift_weights(deltas, self._names),
                self._mixes(b.screen),
                fold_weights(deltas, self._names),
            ],
            axis=1,
        )
        ops.shade(
            b.positions, b.screen, b.triangle_id, b.bary, np.ascontiguousarray(controls, np.float32),
            self._shading, out=(b.source, b.mask), **shared,
        )  # fmt: skip
        return b

    def _mixes(self, screen: Float32) -> Float32:
        """(B, 3) how much of each eye is drawn without its lids, and of the painted mouth: none at rest, all
        once lids or lips have parted by a hair.
        """
        parted = [
            np.abs(screen[:, row, :2] - rest).max(axis=(1, 2), initial=0.0)
            for row, rest in zip(self._eye_rows, self._eye_rest, strict=True)
        ]
        upper, lower = (screen[:, rim, :2] for rim in self._rig.shading.lip_rim)
        parted.append((np.linalg.norm(upper - lower, axis=2) - self._lip_gap).max(axis=1))
        t = np.clip((np.stack(parted, axis=1) - _ROUNDING_PX) / self._rig.hair_px, 0, 1)
        mixes: Float32 = t * t * (3 - 2 * t)
        return mixes


class _Buffers:
    """Everything between the ops, for one number of frames."""

    def __init__(self, frames: int, vertices: int, shape: tuple[int, ...]) -> None:
        height, width = shape[:2]
        self.positions = np.empty((frames, vertices, 3), np.float32)
        self.screen = np.empty((frames, vertices, 3), np.float32)
        self.triangle_id = np.empty((frames, height, width), np.int32)
        self.bary = np.empty((frames, height, width, 2), np.float32)
        self.source = np.empty((frames, height, width, 3), np.float32)
        self.mask = np.empty((frames, height, width), np.uint8)
        self.image = np.empty((frames, height, width, 3), np.uint8)


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
