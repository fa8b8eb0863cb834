"""Faces in a photo: 478 landmarks, 52 blendshape scores and a presence score each.

Three networks of MediaPipe's face landmarker (NOTICE; converted by `exports/landmarks/convert.py`) run in turn:

1. the face detector, on the whole photo, then on ever smaller tiles, then on the photo turned by quarter turns,
   as far as needed (`fastface.face_detector`);
2. the landmark network on an upright 256x256 crop of each face (Grishchenko et al. 2020, arXiv:2006.10962),
   repeated on crops taken from its own landmarks;
3. the blendshape network on 146 of the landmarks.

Coordinates are continuous pixels (CONVENTIONS.md): the crop spans `[0, 256]` and its pixel centres lie at
`+0.5`. That the landmark network counts the same way was measured: on mirrored photos the two results agree
about the photo's middle only if its outputs are read as continuous crop coordinates. MediaPipe itself samples
crops at whole-pixel positions, so its figures lie `0.5 * (crop scale - 1)` pixels right and below of these.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from fastface.errors import BadArgument, BadModelFile
from fastface.face_detector import Detection, find, levels

if TYPE_CHECKING:
    import onnxruntime

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Image = NDArray[np.uint8]

POINT_COUNT: Final = 478

BLENDSHAPE_NAMES: Final = tuple(
    """_neutral browDownLeft browDownRight browInnerUp browOuterUpLeft browOuterUpRight cheekPuff cheekSquintLeft
    cheekSquintRight eyeBlinkLeft eyeBlinkRight eyeLookDownLeft eyeLookDownRight eyeLookInLeft eyeLookInRight
    eyeLookOutLeft eyeLookOutRight eyeLookUpLeft eyeLookUpRight eyeSquintLeft eyeSquintRight eyeWideLeft
    eyeWideRight jawForward jawLeft jawOpen jawRight mouthClose mouthDimpleLeft mouthDimpleRight mouthFrownLeft
    mouthFrownRight mouthFunnel mouthLeft mouthLowerDownLeft mouthLowerDownRight mouthPressLeft mouthPressRight
    mouthPucker mouthRight mouthRollLower mouthRollUpper mouthShrugLower mouthShrugUpper mouthSmileLeft
    mouthSmileRight mouthStretchLeft mouthStretchRight mouthUpperUpLeft mouthUpperUpRight noseSneerLeft
    noseSneerRight""".split()
)
"""Order of `FaceLandmarks.blendshapes`. ARKit's names; *left* is the subject's left."""

LANDMARKS68: Final = (
    # 0-16 jaw, from the subject's right temple over the chin (8) to the left temple
    *(127, 234, 93, 58, 172, 136, 149, 148, 152, 377, 378, 365, 397, 288, 323, 454, 356),
    # 17-21 right brow from outside in, 22-26 left brow from inside out
    *(70, 63, 105, 66, 107, 336, 296, 334, 293, 300),
    # 27-30 bridge of the nose from above to the tip, 31-35 its base
    *(168, 197, 5, 4, 98, 97, 2, 326, 327),
    # 36-41 right eye, 42-47 left eye: corner, upper lid, corner, lower lid
    *(33, 160, 158, 133, 153, 144, 362, 385, 387, 263, 373, 380),
    # 48-59 outer lip line, 60-67 inner lip line, both from the right corner over the upper lip
    *(61, 40, 37, 0, 267, 270, 291, 321, 314, 17, 84, 91),
    *(78, 81, 13, 311, 308, 402, 14, 178),
)
"""For each of the 68 points of the ibug scheme (Sagonas et al. 2013), the nearest of the 478."""

# The landmarks that the blendshape network reads, in its order.
_BLENDSHAPE_POINTS: Final = np.array(
    """0 1 4 5 6 7 8 10 13 14 17 21 33 37 39 40 46 52 53 54 55 58 61 63 65 66 67 70 78 80 81 82 84 87 88 91 93 95
    103 105 107 109 127 132 133 136 144 145 146 148 149 150 152 153 154 155 157 158 159 160 161 162 163 168 172 173
    176 178 181 185 191 195 197 234 246 249 251 263 267 269 270 276 282 283 284 285 288 291 293 295 296 297 300 308
    310 311 312 314 317 318 321 323 324 332 334 336 338 356 361 362 365 373 374 375 377 378 379 380 381 382 384 385
    386 387 388 389 390 397 398 400 402 405 409 415 454 466 468 469 470 471 472 473 474 475 476 477""".split(),
    dtype=np.intp,
)

_NETWORKS: Final = Path(__file__).parent / "assets" / "landmarks"
_CROP_SIZE: Final = 256
_PRESENCE_THRESHOLD: Final = 0.5
_DETECTION_CROP: Final = 1.5  # side of the first crop over the detector's box
_REFINEMENTS: Final = 2  # further crops: jitter under turns and shifts falls from 0.34 to 0.06 % of the eye distance
# The crop around known landmarks: side and downward shift of its centre in units of the points' root mean square
# distance from their mean. They reproduce, on average, the bounding box times 1.5 that the network was trained
# with, but rest on all points and not on the outermost.
_CROP_RADII: Final = 5.1
_CROP_SHIFT: Final = -0.06
_SHRINK_FROM: Final = 3  # photo pixels per crop pixel from which bilinear sampling alone would alias
_RIGHT_EYE, _LEFT_EYE = 33, 263  # outer corners
_LARGE_FACE: Final = 1 / 6  # of a view's side: a face this large leaves no doubt that it is the main one
_TURNED_LEVELS: Final = 3  # whole, with margin, halves: a turned photo is searched for large faces only


@dataclass(frozen=True)
class FaceLandmarks:
    """One face.

    points_px: (478, 2) continuous pixel coordinates; may lie outside the photo where a face is cut by its border.
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
    """Finds faces and their landmarks. May be shared between threads; the networks are loaded on first use."""

    def __init__(self, threads: int = 1) -> None:
        """threads: CPU threads that each network may use, at least 1."""
        self._threads = _positive("LandmarkDetector: threads", threads)
        self._sessions: dict[str, onnxruntime.InferenceSession] = {}
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
        faces: list[FaceLandmarks] = []
        for quarter_turns in (0, 1, 3, 2):
            faces = self._search(rgb, max_faces, quarter_turns)
            if faces:
                break
        faces.sort(key=lambda face: -_side(face) * face.score)
        return faces[:max_faces]

    def _search(self, rgb: Image, max_faces: int, quarter_turns: int) -> list[FaceLandmarks]:
        """Search from the whole photo down to small tiles until enough faces are found."""
        faces: list[FaceLandmarks] = []
        for level in islice(levels(rgb), _TURNED_LEVELS if quarter_turns else None):
            for detection in find(level, quarter_turns, self._run_detector):
                if any(_inside(detection.centre_px, face) for face in faces):
                    continue
                face = self._read(rgb, detection)
                if face is not None and not any(_same(face, other) for other in faces):
                    faces.append(face)
            if len(faces) >= max_faces and max(map(_side, faces)) >= _LARGE_FACE * level.view_px:
                break
        return faces

    def _read(self, rgb: Image, detection: Detection) -> FaceLandmarks | None:
        """Read one face's landmarks; None if the landmark network, seeing it close up, denies that it is one."""
        crop = _Crop(detection.centre_px, detection.side_px * _DETECTION_CROP, detection.angle)
        for repeat in range(1 + _REFINEMENTS):
            tensor = _crop_tensor(rgb, crop)
            if tensor is None:
                return None
            raw, logit = self._session("landmarks478").run(None, {"image": tensor})
            score = float(1 / (1 + np.exp(-np.clip(logit.item(), -80, 80))))
            if not score >= _PRESENCE_THRESHOLD:
                return None
            raw = raw.reshape(POINT_COUNT, 3).astype(np.float64)
            to_photo = crop.to_photo()
            points = raw[:, :2] @ to_photo[:, :2].T + to_photo[:, 2]
            depth = raw[:, 2] * (crop.side_px / _CROP_SIZE)
            if repeat < _REFINEMENTS:
                crop = _crop_around(points)
        network_input = points[_BLENDSHAPE_POINTS].astype(np.float32)[None]
        (blendshapes,) = self._session("blendshapes").run(None, {"points": network_input})
        (left, top), (right, bottom) = points.min(axis=0).tolist(), points.max(axis=0).tolist()
        return FaceLandmarks(
            points.astype(np.float32), depth.astype(np.float32), blendshapes, score, (left, top, right, bottom)
        )

    def _run_detector(self, tensor: Float32) -> tuple[Float32, Float32]:
        boxes, logits = self._session("detector").run(None, {"image": tensor})
        return boxes, logits

    def _session(self, name: str) -> onnxruntime.InferenceSession:
        """Return a network's session, made on first use."""
        with self._lock:
            if name not in self._sessions:
                self._sessions[name] = _load(name, self._threads)
            return self._sessions[name]


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
    """Sample the crop as (1, 256, 256, 3) in [0, 1], border pixels carried on; None if it lies off the photo."""
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
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    sampled = cv2.warpAffine(part, to_part, (_CROP_SIZE, _CROP_SIZE), flags=flags, borderMode=cv2.BORDER_REPLICATE)
    return sampled[None] * np.float32(1 / 255)


def _side(face: FaceLandmarks) -> float:
    left, top, right, bottom = face.box_px
    return max(right - left, bottom - top)


def _inside(point_px: Float64, face: FaceLandmarks) -> bool:
    left, top, right, bottom = face.box_px
    return bool(left <= point_px[0] <= right and top <= point_px[1] <= bottom)


def _same(face: FaceLandmarks, other: FaceLandmarks) -> bool:
    """Tell whether two readings are of one face: either's middle lies within the other."""
    middles = (np.asarray(each.points_px.mean(axis=0), np.float64) for each in (face, other))
    return any(_inside(middle, each) for middle, each in zip(middles, (other, face), strict=True))


def _positive(what: str, value: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise BadArgument(f"{what} must be a whole number of at least 1, got {value!r}")
    return value


def _load(name: str, threads: int) -> onnxruntime.InferenceSession:
    """Make the session of one of the package's networks."""
    import onnxruntime  # costs 0.1 s; a caller who only imports this module does not pay it

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    try:
        network = (_NETWORKS / f"{name}.onnx").read_bytes()
        return onnxruntime.InferenceSession(network, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions have no common base but this one
        raise BadModelFile(
            f"the landmark network {name}.onnx, a part of this package, cannot be loaded: {error}; reinstall fastface"
        ) from error
