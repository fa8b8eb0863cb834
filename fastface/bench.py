"""A few figures of this machine, measured in one run; the full set stands in ``benchmarks/``.

Times are medians. The peer is the line a user would assemble from the same base packages: numpy for the blend
shapes, ``cv2.remap`` for the texture, ``cv2.seamlessClone`` for the seam; it is not charged for
rasterization, which none of them offers.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from fastface.affect import Affect
from fastface.contact_sheet import face_box
from fastface.images import read_image

if TYPE_CHECKING:
    from fastface.engine import Engine, FittedFace

_SIDES_PX = (256, 512)
_BATCH = 32


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured figure."""

    name: str
    value: float
    unit: str
    note: str = ""

    def record(self) -> dict[str, Any]:
        """For --json."""
        return asdict(self)


def measure(engine: Engine, photo: Path, seconds: float) -> list[Figure]:
    """All figures, each measured for about ``seconds``. ``photo`` must show a face."""
    rgb = read_image(photo)
    whole = engine.fit(rgb)
    left, top, right, bottom = face_box(whole.landmarks_px, *rgb.shape[:2])
    head = rgb[top:bottom, left:right]
    size = f"{rgb.shape[1]}x{rgb.shape[0]}"
    figures = [Figure("photo to fitted face", _median_ms(lambda: engine.fit(rgb), seconds), "ms", size)]
    for side in _SIDES_PX:
        face = engine.fit(cv2.resize(head, (side, side), interpolation=cv2.INTER_CUBIC))
        figures += _frames(engine, face, side, seconds)
    return figures


def _frames(engine: Engine, face: FittedFace, side: int, seconds: float) -> list[Figure]:
    affects = [Affect.expression("happy", 0.2 + 0.8 * i / _BATCH) for i in range(_BATCH)]
    turn = iter(range(1 << 62))
    frame = _median_ms(lambda: np.asarray(engine.render(face, affects[next(turn) % _BATCH])), seconds)
    batch = _median_ms(lambda: np.asarray(engine.render_batch(face, affects)), seconds)
    line = _median_ms(_assembled_line(face, side), seconds)
    return [
        Figure(f"one frame, {side}x{side}", frame, "ms"),
        Figure(f"batch of {_BATCH}, {side}x{side}", 1e3 * _BATCH / batch, "frames/s"),
        Figure(f"numpy + OpenCV line, {side}x{side}", line, "ms", f"{line / frame:.1f}x one frame"),
    ]


def _assembled_line(face: FittedFace, side: int) -> Callable[[], object]:
    """What the peers do for one frame of this size: as many modes and vertices as the embedded head has."""
    random = np.random.default_rng(0)
    basis = random.standard_normal((9000 * 3, 52), dtype=np.float32)
    coefficients = random.random(52, dtype=np.float32)
    photo = np.ascontiguousarray(face.photo[:, :, ::-1])
    hull = cv2.convexHull(face.landmarks_px.astype(np.int32))
    mask = np.zeros((side, side), np.uint8)
    cv2.fillConvexPoly(mask, hull, 255)
    mask[[0, -1]] = 0
    mask[:, [0, -1]] = 0
    x, y, width, height = cv2.boundingRect(mask)
    centre = (x + width // 2, y + height // 2)
    grid_y, grid_x = np.mgrid[0:side, 0:side].astype(np.float32)
    grid_x += np.float32(1.5)

    def frame() -> NDArray[Any]:
        _ = basis @ coefficients
        warped = cv2.remap(photo, grid_x, grid_y, cv2.INTER_LINEAR)
        # It overwrites a one-channel mask, so it gets its own each time.
        return cv2.seamlessClone(warped, photo, mask.copy(), centre, cv2.NORMAL_CLONE)

    return frame


def _median_ms(work: Callable[[], object], seconds: float) -> float:
    work()
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < 3 or time.perf_counter() < end:
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times) * 1e3
