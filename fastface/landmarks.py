"""Faces in a photo: 478 landmarks, 52 blendshape scores and a presence score each.

Three networks of MediaPipe's face landmarker (NOTICE; made by `exports/landmarks/convert.py`) run in turn:

1. the face detector, on the whole photo, then on ever smaller tiles, then on the photo turned by quarter
   turns, as far as needed (`fastface.face_detector`);
2. the landmark network on an upright 256x256 crop of each face (Grishchenko et al. 2020,
   arXiv:2006.10962), repeated on crops taken from its own landmarks, once mirrored;
3. the blendshape network on 146 of the landmarks.

Coordinates are continuous pixels (CONVENTIONS.md): the crop spans `[0, 256]` and its pixel centres lie at
`+0.5`. That the landmark network counts the same way was measured: on mirrored photos the two results agree
about the photo's middle only if its outputs are read as continuous crop coordinates. MediaPipe itself samples
crops at whole-pixel positions, so its figures lie `0.5 * (crop scale - 1)` pixels right and below of these.
"""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from fastface.errors import BadArgument, BadModelFile
from fastface.face_detector import Level, find, levels
from fastface.landmark_tables import (
    BLENDSHAPE_NAMES,
    BLENDSHAPE_POINTS,
    LANDMARKS68,
    MIRROR478,
    POINT_COUNT,
)

if TYPE_CHECKING:
    from fastface.runtime import Session

__all__ = [
    "BLENDSHAPE_NAMES",
    "LANDMARKS68",
    "MIRROR478",
    "POINT_COUNT",
    "FaceLandmarks",
    "LandmarkDetector",
    "landmarks68",
]

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Image = NDArray[np.uint8]

_NETWORKS: Final = Path(__file__).parent / "assets" / "landmarks"
_CROP_SIZE: Final = 256
_DETECTION_CROP: Final = 1.5  # side of the first crop over the detector's box
# The crop around known landmarks: side and downward shift of its centre in units of the points' root mean
# square distance from their mean. They reproduce, on average, the bounding box times 1.5 that the network
# was trained with, but rest on all points instead of the outermost: jitter under turns and shifts is a
# quarter of what the box gives.
_CROP_RADII: Final = 5.1
_CROP_SHIFT: Final = -0.06
_SHRINK_FROM: Final = 3  # photo pixels per crop pixel from which bilinear sampling alone would alias
_RIGHT_EYE, _LEFT_EYE = 33, 263  # outer corners
# Presence: upright faces reach logits of 15 to 35, with a mask, sunglasses or half hidden 7 to 20; shuffled
# or upside-down faces up to 9; noise, landscapes, cloth and hair never pass the first reading.
_PRESENT: Final = 0.993  # logit 5
_CONVINCING: Final = 0.99995  # logit 10
_LARGE_FACE: Final = 1 / 6  # of a view's side: a face this large leaves no doubt that it is the main one
_TURNED_LEVELS: Final = 3  # whole, with margin, halves: a turned photo is searched for large faces only


@dataclass(frozen=True)
class FaceLandmarks:
    """One face.

    points_px: (478, 2) continuous pixel coordinates; outside the photo where its border cuts the face.
    depth_px: (478,) relative depth in pixels, smaller is nearer, zero near the middle of the head.
    blendshapes: (52,) scores in [0, 1] in the order of `BLENDSHAPE_NAMES`.
    score: probability in [0, 1] that this is a face.
    box_px: left, top, right, bottom of the points.
    """

    points_px: Float32
    depth_px: Float32
    blendshapes: Float32
    score: float
    box_px: tuple[float, float, float, float]


def landmarks68(points478: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
    """Pick the 68 ibug points out of 478: `(…, 478, C)` to `(…, 68, C)`, by the table `LANDMARKS68`."""
    points = np.asarray(points478)
    if points.ndim < 2 or points.shape[-2] != POINT_COUNT:
        raise BadArgument(f"landmarks68: points must be (478, 2), got {points.shape}")
    return points[..., LANDMARKS68, :]


class LandmarkDetector:
    """Finds faces and their landmarks. Threads may share it; the networks are loaded on first use."""

    def __init__(self, threads: int = 1) -> None:
        """threads: CPU threads that each network may use, at least 1."""
        self._threads = _positive("LandmarkDetector: threads", threads)
        self._sessions: dict[str, Session] = {}
        self._lock = threading.Lock()

    def detect(self, rgb: Image, max_faces: int = 1) -> list[FaceLandmarks]:
        """Return up to `max_faces` faces, sorted by size times score, largest first; none: an empty list.

        rgb: (H, W, 3) uint8. Raises BadArgument for anything else.
        A photo without an upright face is searched turned by 90, 270 and 180 degrees as well.
        """
        if not isinstance(rgb, np.ndarray) or rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3:
            came = f"{rgb.shape} {rgb.dtype}" if isinstance(rgb, np.ndarray) else type(rgb).__name__
            raise BadArgument(f"detect: rgb must be (H, W, 3) uint8, got {came}")
        _positive("detect: max_faces", max_faces)
        if 0 in rgb.shape:
            return []
        rgb = np.ascontiguousarray(rgb)  # cv2 takes no reversed views
        faces: list[FaceLandmarks] = []
        self._search(rgb, faces, max_faces, turned=False)
        if not any(_convincing(face) for face in faces):
            self._search(rgb, faces, max_faces, turned=True)
        faces.sort(key=lambda face: -_side(face) * face.score)
        return faces[:max_faces]

    def follow(self, rgb: Image, points_px: Float32) -> FaceLandmarks | None:
        """Return the face that was at `points_px` (478, 2) a moment ago, or None if it is there no more.

        No search, so half the cost of `detect`, and the face stays the same when another one grows larger.
        rgb: (H, W, 3) uint8. Raises BadArgument for points that are not finite or of another shape.
        """
        points = np.asarray(points_px, np.float64)
        if points.shape != (POINT_COUNT, 2) or not np.isfinite(points).all():
            raise BadArgument(f"follow: points_px must be ({POINT_COUNT}, 2) and finite, got {points.shape}")
        rgb = np.ascontiguousarray(rgb)
        return self._finish(rgb, _Reading(points, np.zeros(POINT_COUNT), 0.0))

    def _search(self, rgb: Image, faces: list[FaceLandmarks], max_faces: int, turned: bool) -> None:
        """Add faces, from the whole photo down to small tiles, until there are enough convincing ones."""
        for level in islice(levels(rgb), _TURNED_LEVELS if turned else None):
            for face in self._read_level(rgb, level, turned, faces):
                _keep_better(faces, face)
            sides = [_side(face) for face in faces if _convincing(face)]
            if len(sides) >= max_faces and max(sides) >= _LARGE_FACE * level.view_px:
                return

    def _read_level(
        self, rgb: Image, level: Level, turned: bool, known: list[FaceLandmarks]
    ) -> list[FaceLandmarks]:
        """Read the faces of a level that are not convincingly known; of rival angles keep the likeliest."""
        first: list[_Reading] = []
        for detection in find(level, turned, self._run_detector):
            if not any(_convincing(face) and _inside(detection.centre_px, face) for face in known):
                crop = _Crop(detection.centre_px, detection.side_px * _DETECTION_CROP, detection.angle)
                first += filter(None, [self._read_crop(rgb, crop)])
        faces: list[FaceLandmarks] = []
        for reading in sorted(first, key=lambda reading: -reading.logit):
            if not any(_inside(reading.points.mean(axis=0), face) for face in faces):
                faces += filter(None, [self._finish(rgb, reading)])
        return faces

    def _finish(self, rgb: Image, first: _Reading) -> FaceLandmarks | None:
        """Read a face twice more, close up; None if the landmark network then denies that it is one.

        `first` was read on the detector's crop. The second reading is on a crop from its landmarks, the
        third, mirrored, on a crop from the second's. The result is the mean of these two. Against means of 24
        readings, turned, shifted, scaled and mirrored, one is 0.57 % of the eye distance off (root mean
        square) and this mean 0.44 %.
        """
        second = self._read_crop(rgb, _crop_around(first.points))
        third = second and self._read_crop(rgb, _crop_around(second.points), mirrored=True)
        if second is None or third is None:
            return None
        points, depth = (second.points + third.points) / 2, (second.depth + third.depth) / 2
        score = 1 / (1 + math.exp(-min(second.logit, third.logit)))
        if score < _PRESENT:
            return None
        network_input = points[list(BLENDSHAPE_POINTS)].astype(np.float32)[None]
        blendshapes = self._session("blendshapes").run({"points": network_input})["scores"]
        (left, top), (right, bottom) = points.min(axis=0).tolist(), points.max(axis=0).tolist()
        box_px = (left, top, right, bottom)
        return FaceLandmarks(points.astype(np.float32), depth.astype(np.float32), blendshapes, score, box_px)

    def _read_crop(self, rgb: Image, crop: _Crop, mirrored: bool = False) -> _Reading | None:
        """Run the landmark network once; None if the crop lies off the photo or shows no face."""
        tensor = _crop_tensor(rgb, crop)
        if tensor is None:
            return None
        if mirrored:
            tensor = np.ascontiguousarray(tensor[:, :, ::-1])
        found = self._session("landmarks478").run({"image": tensor})
        logit = min(max(float(found["presence"].item()), -80.0), 80.0)
        if logit < 0:
            return None
        points = found["points"].reshape(POINT_COUNT, 3).astype(np.float64)
        if mirrored:
            points = points[list(MIRROR478)]
            points[:, 0] = _CROP_SIZE - points[:, 0]
        to_photo = crop.to_photo()
        depth = points[:, 2] * (crop.side_px / _CROP_SIZE)
        return _Reading(points[:, :2] @ to_photo[:, :2].T + to_photo[:, 2], depth, logit)

    def _run_detector(self, tensor: Float32) -> tuple[Float32, Float32]:
        found = self._session("detector").run({"image": tensor})
        return found["boxes"], found["scores"]

    def _session(self, name: str) -> Session:
        """Return a network's session, made on first use."""
        with self._lock:
            if name not in self._sessions:
                self._sessions[name] = _load(name, self._threads)
            return self._sessions[name]


@dataclass(frozen=True)
class _Reading:
    """What the landmark network says of one crop, in photo pixels; the logit is that of a face's presence."""

    points: Float64
    depth: Float64
    logit: float


@dataclass(frozen=True)
class _Crop:
    """A turned square of the photo: centre and side in pixels, and the angle of its x axis in radians."""

    centre_px: Float64
    side_px: float
    angle: float

    def to_photo(self) -> Float64:
        """Return the (2, 3) affine map from continuous crop coordinates `[0, 256]` to photo coordinates."""
        turn = _rotation(self.angle) * (self.side_px / _CROP_SIZE)
        return np.column_stack([turn, self.centre_px - turn @ np.full(2, _CROP_SIZE / 2)])


def _crop_around(points: Float64) -> _Crop:
    """Return the crop that the landmark network sees best: upright by the outer eye corners."""
    across = points[_LEFT_EYE] - points[_RIGHT_EYE]
    angle = float(np.arctan2(across[1], across[0]))
    middle = points.mean(axis=0)
    radius = float(np.sqrt(np.mean(np.sum((points - middle) ** 2, axis=1))))
    centre = middle + _rotation(angle) @ np.array([0.0, _CROP_SHIFT * radius])
    return _Crop(centre, _CROP_RADII * radius, angle)


def _rotation(angle: float) -> Float64:
    cosine, sine = np.cos(angle), np.sin(angle)
    return np.array([[cosine, -sine], [sine, cosine]])


def _crop_tensor(rgb: Image, crop: _Crop) -> Float32 | None:
    """Sample the crop as (1, 256, 256, 3) in [0, 1], borders replicated; None if it lies off the photo."""
    height, width = rgb.shape[:2]
    if not 1 <= crop.side_px <= 8 * max(height, width):
        return None
    to_photo = crop.to_photo()
    # Only the part of the photo under the crop is touched: cv2 cannot sample sides above 32767 pixels.
    reach = crop.side_px * 0.7072 + 2
    left, top = (max(0, int(centre - reach)) for centre in crop.centre_px)
    right, bottom = (min(n, int(c + reach) + 1) for n, c in zip((width, height), crop.centre_px, strict=True))
    if right <= left or bottom <= top:
        return None
    part = rgb[top:bottom, left:right]
    to_part = to_photo - np.array([[0, 0, left], [0, 0, top]])
    shrink = int(crop.side_px / _CROP_SIZE)
    if shrink >= _SHRINK_FROM:
        size = max(1, (right - left) // shrink), max(1, (bottom - top) // shrink)
        to_part *= np.array([[size[0] / (right - left)], [size[1] / (bottom - top)]])
        part = np.asarray(cv2.resize(part, size, interpolation=cv2.INTER_AREA), np.uint8)
    # cv2 counts from pixel centres: continuous = index + 0.5 on both sides.
    to_part[:, 2] += to_part[:, :2] @ np.full(2, 0.5) - 0.5
    flags, size = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, (_CROP_SIZE, _CROP_SIZE)
    sampled = cv2.warpAffine(part, to_part, size, flags=flags, borderMode=cv2.BORDER_REPLICATE)
    return sampled[None] * np.float32(1 / 255)


def _side(face: FaceLandmarks) -> float:
    left, top, right, bottom = face.box_px
    return max(right - left, bottom - top)


def _inside(point_px: Float64, face: FaceLandmarks) -> bool:
    left, top, right, bottom = face.box_px
    return bool(left <= point_px[0] <= right and top <= point_px[1] <= bottom)


def _convincing(face: FaceLandmarks) -> bool:
    return face.score >= _CONVINCING


def _keep_better(faces: list[FaceLandmarks], face: FaceLandmarks) -> None:
    """Add a face, unless a better reading of it is there; drop worse ones."""
    middle = np.asarray(face.points_px.mean(axis=0), np.float64)
    rivals = [
        other
        for other in faces
        if _inside(middle, other) or _inside(np.asarray(other.points_px.mean(axis=0), np.float64), face)
    ]
    if all(face.score > other.score for other in rivals):
        faces[:] = [other for other in faces if all(other is not rival for rival in rivals)] + [face]


def _positive(what: str, value: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise BadArgument(f"{what} must be a whole number of at least 1, got {value!r}")
    return value


def _load(name: str, threads: int) -> Session:
    """Make the session of one of the package's networks: float32 on the processor, the same anywhere."""
    from fastface.runtime import Session  # costs 0.1 s; a caller who only imports this module does not pay it

    try:
        return Session(_NETWORKS / f"{name}.onnx", providers=["cpu"], threads=threads)
    except BadModelFile as error:
        raise BadModelFile(
            f"the package's own network {name}.onnx cannot be loaded: {error}; reinstall fastface"
        ) from error
