"""A rig in the order that the ops read it, and all else that a frame needs besides its coefficients: what
every renderer, on whatever device, starts from.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fastface import ops
from fastface.rig import Rig, Window

Float32 = NDArray[np.float32]
Int32 = NDArray[np.int32]
Image = NDArray[np.uint8]

OWN_NOISE: Final = 0.05  # coefficients of a neutral photo below this are noise of the landmarks
#: Coefficient at which the photo's own expression has given way; any sooner, and a faint smile would first of
#: all be a face gone blank.
OWN_GONE_AT: Final = 1.0
STILL: Final = 1e-4  # a coefficient below this moves nothing
ROUNDING_PX: Final = 0.01  # lids and lips that have parted less have not
CULL_BACKFACES: Final = True  # the mesh is closed to the viewer: what is turned away lies behind something
NEAR_MM: Final = 1.0  # what is nearer than this is behind the camera
DROP_BELOW_MM: Final = 0.005  # parts of the basis that move nothing anyone could see


@dataclass(frozen=True)
class Binding:
    """``photo (H, W, 3)``; ``own (E,)`` its own expression, without noise; ``names`` of the E coefficients.

    ``neutral (V, 3)``, ``basis`` and ``camera (1, 3)`` are ``ops.deform``'s, ``shading`` ``ops.shade``'s, all
    within ``window``. ``eye_rows``: vertices of each eye's lids and ball, left first, ``eye_rest (N, 2)``
    where they lie in the photo, px; ``lip_gap (R,)`` px between the rims there; ``hair_px`` how far they part
    until what lies behind is drawn.
    """

    photo: Image
    window: Window
    own: Float32
    names: tuple[str, ...]
    neutral: Float32
    basis: ops.PackedBasis
    camera: Float32
    shading: ops.PreparedShading
    eye_rows: tuple[Int32, ...]
    eye_rest: tuple[Float32, ...]
    lip_gap: Float32
    hair_px: float


def bind(rig: Rig, photo: Image, own: Float32, names: tuple[str, ...]) -> Binding:
    """Put a rig of ``photo`` in order; ``own (E,)`` is what the photo itself shows."""
    eye_rows = tuple(np.concatenate(rows) for rows in rig.eye_rows)
    upper, lower = (rig.shading.rest_px[rim] for rim in rig.shading.lip_rim)
    return Binding(
        photo=photo,
        window=rig.window,
        own=np.asarray(np.sign(own) * np.maximum(np.abs(own) - OWN_NOISE, 0), np.float32),
        names=names,
        neutral=rig.neutral,
        basis=ops.pack_basis(rig.basis, dtype=np.float16, drop_below_mm=DROP_BELOW_MM),
        camera=rig.camera[None],
        shading=ops.prepare_shading(rig.shading),
        eye_rows=eye_rows,
        eye_rest=tuple(rig.shading.rest_px[rows] for rows in eye_rows),
        lip_gap=np.asarray(np.linalg.norm(upper - lower, axis=1), np.float32),
        hair_px=rig.hair_px,
    )
