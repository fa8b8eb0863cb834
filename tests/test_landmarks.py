"""Landmarks: against MediaPipe's own, under turns and scales, on photos with many faces or none."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from fastface import landmarks
from fastface.errors import BadArgument, BadModelFile
from fastface.images import read_image
from fastface.landmark_tables import BLENDSHAPE_POINTS
from fastface.landmarks import (
    BLENDSHAPE_NAMES,
    LANDMARKS68,
    MIRROR478,
    FaceLandmarks,
    LandmarkDetector,
    landmarks68,
)

Image = NDArray[np.uint8]
Points = NDArray[np.float64]

REFERENCE = Path(__file__).with_name("mediapipe_reference.npz")
PHOTOS = ("london/neutral/132.jpg", "london/smiling/042.jpg", "composite/f_african.jpg", "cc0/30cm.jpg")


@pytest.fixture(scope="module")
def detector() -> LandmarkDetector:
    return LandmarkDetector()


@pytest.fixture(scope="module")
def photos(shared: Path) -> list[Image]:
    return [read_image(shared / "data/photos" / name) for name in PHOTOS]


@pytest.fixture(scope="module")
def faces(photos: list[Image], detector: LandmarkDetector) -> list[FaceLandmarks]:
    return [detector.detect(photo)[0] for photo in photos]


def eye_distance(points: NDArray[Any]) -> float:
    """Distance of the outer eye corners."""
    return float(np.linalg.norm(points[33, :2] - points[263, :2]))


def mean_error(points: NDArray[Any], expected: NDArray[Any]) -> float:
    """Mean distance of landmarks, as a share of the outer-eye distance."""
    distances = np.linalg.norm(points[:, :2].astype(np.float64) - expected[:, :2], axis=1)
    return float(distances.mean()) / eye_distance(expected)


def resized(photo: Image, scale: float) -> Image:
    kind = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(photo, None, fx=scale, fy=scale, interpolation=kind), np.uint8)


# --- against MediaPipe ----------------------------------------------------------------


def mediapipe_crop(points: NDArray[np.float32]) -> tuple[landmarks._Crop, Points]:
    """The crop MediaPipe takes for its next video frame, and what to add to its coordinates to get ours.

    It is 1.5 times the longer side of the upright bounding box, turned by the outer eye corners. MediaPipe
    samples it from whole-pixel positions on both sides, where pixel centres lie at halves here.
    """
    across = points[263, :2] - points[33, :2]
    low, high = points[:, :2].min(axis=0), points[:, :2].max(axis=0)
    angle, side = float(np.arctan2(across[1], across[0])), 1.5 * float((high - low).max())
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) * (side / 256)
    shift = 0.5 - turn @ np.full(2, 0.5)
    return landmarks._Crop((low + high).astype(np.float64) / 2 + shift, side, angle), shift


def test_networks_equal_mediapipe(
    shared: Path, detector: LandmarkDetector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(landmarks, "_SHRINK_FROM", 1000)  # MediaPipe samples large crops without filtering
    reference = np.load(REFERENCE)
    records = (reference[key] for key in ("photos", "before_px", "points_px"))
    for name, before, points in zip(*records, strict=True):
        crop, shift = mediapipe_crop(before)
        photo = read_image(shared / "data/photos" / str(name))
        reading = detector._read_crop(photo, crop)
        assert reading is not None
        distances = np.linalg.norm(reading.points - shift - points[:, :2], axis=1)
        assert distances.mean() < 0.2, name
        assert distances.max() < 0.5, name
        # MediaPipe measures a turned crop's width in shares of the photo's width and height.
        aspect = photo.shape[1] / photo.shape[0]
        depth = points[:, 2] / np.hypot(np.cos(crop.angle), np.sin(crop.angle) * aspect)
        assert np.abs(reading.depth - depth).mean() < 0.4, name


def test_detection_agrees_with_mediapipe(shared: Path, detector: LandmarkDetector) -> None:
    reference = np.load(REFERENCE)
    errors = []
    for name, points in zip(reference["photos"], reference["points_px"], strict=True):
        (face,) = detector.detect(read_image(shared / "data/photos" / str(name)))
        errors.append(mean_error(face.points_px, points[:, :2] + mediapipe_crop(points)[1]))
        assert face.score > 0.999
        assert face.points_px.shape == (478, 2)
        assert face.depth_px.shape == (478,)
        assert face.depth_px[1] < face.depth_px[[234, 454]].min(), "the nose is nearer than the ears"
        assert face.box_px == pytest.approx((*face.points_px.min(0), *face.points_px.max(0)), abs=0.01)
    assert np.mean(errors) < 0.0055
    assert np.max(errors) < 0.0085


def test_blendshapes_equal_mediapipe(detector: LandmarkDetector) -> None:
    reference = np.load(REFERENCE)
    assert tuple(reference["blendshape_names"]) == BLENDSHAPE_NAMES
    for points, expected in zip(reference["points_px"], reference["blendshapes"], strict=True):
        network_input = points[None, list(BLENDSHAPE_POINTS), :2]
        scores = detector._session("blendshapes").run({"points": network_input})["scores"]
        assert np.abs(scores - expected).max() < 1e-4


def test_blendshapes_see_a_smile(shared: Path, detector: LandmarkDetector) -> None:
    smile = BLENDSHAPE_NAMES.index("mouthSmileLeft")
    scores = {
        kind: detector.detect(read_image(shared / f"data/photos/london/{kind}/120.jpg"))[0].blendshapes[smile]
        for kind in ("neutral", "smiling")
    }
    assert scores["smiling"] > 0.5 > 0.2 > scores["neutral"]


# --- where things lie -----------------------------------------------------------------


def turned_back(points: NDArray[Any], photo: Image, quarter_turns: int) -> NDArray[Any]:
    """Points of `np.rot90(photo, quarter_turns)`, in the photo."""
    height, width = photo.shape[:2]
    for turn in range(quarter_turns, 0, -1):
        points = np.column_stack([(width if turn % 2 else height) - points[:, 1], points[:, 0]])
    return points


@pytest.mark.parametrize("quarter_turns", [1, 2, 3])
def test_turned_photos(
    quarter_turns: int, photos: list[Image], faces: list[FaceLandmarks], detector: LandmarkDetector
) -> None:
    for photo, face in zip(photos, faces, strict=True):
        (found,) = detector.detect(np.rot90(photo, quarter_turns))
        assert mean_error(turned_back(found.points_px, photo, quarter_turns), face.points_px) < 0.004


@pytest.mark.parametrize("angle_deg", [35, 150])
def test_slanting_faces(
    angle_deg: int, photos: list[Image], faces: list[FaceLandmarks], detector: LandmarkDetector
) -> None:
    for photo, face in zip(photos, faces, strict=True):
        height, width = photo.shape[:2]
        turn = cv2.getRotationMatrix2D((width / 2 - 0.5, height / 2 - 0.5), angle_deg, 0.8)
        (found,) = detector.detect(np.asarray(cv2.warpAffine(photo, turn, (width, height)), np.uint8))
        expected = (face.points_px - 0.5) @ turn[:, :2].T + turn[:, 2] + 0.5
        assert mean_error(found.points_px, expected) < 0.006


def test_mirrored_photos(photos: list[Image], faces: list[FaceLandmarks], detector: LandmarkDetector) -> None:
    offsets = []
    for photo, face in zip(photos, faces, strict=True):
        (found,) = detector.detect(photo[:, ::-1])
        mirrored = found.points_px[list(MIRROR478)]
        mirrored[:, 0] = photo.shape[1] - mirrored[:, 0]
        assert mean_error(mirrored, face.points_px) < 0.005
        offsets.append((mirrored - face.points_px).mean(axis=0))
    assert np.abs(np.mean(offsets, axis=0)).max() < 0.2, "pixel centres lie at halves"


@pytest.mark.parametrize("scale", [3.0, 0.5, 0.25])
def test_scaled_photos(
    scale: float, photos: list[Image], faces: list[FaceLandmarks], detector: LandmarkDetector
) -> None:
    offsets = []
    for photo, face in zip(photos, faces, strict=True):
        (found,) = detector.detect(resized(photo, scale))
        assert mean_error(found.points_px / scale, face.points_px) < (0.006 if scale >= 0.5 else 0.012)
        offsets.append((found.points_px - face.points_px * scale).mean(axis=0))
    # Read with whole-pixel centres, the offset would be (scale - 1) / 2: a pixel at scale 3.
    assert np.abs(np.mean(offsets, axis=0)).max() < 0.12 * max(1, scale)


def test_a_result_does_not_depend_on_memory_layout(photos: list[Image], detector: LandmarkDetector) -> None:
    photo = photos[0]
    expected = detector.detect(photo)[0].points_px
    wide = np.zeros((*photo.shape[:2], 4), np.uint8)
    wide[:, :, :3] = photo
    for view in (np.asfortranarray(photo), wide[:, :, :3], photo[::-1].copy()[::-1]):
        assert np.array_equal(detector.detect(view)[0].points_px, expected)


# --- which faces are found ------------------------------------------------------------


def collage(photos: list[Image], heights: list[int], size: tuple[int, int]) -> Image:
    """Photos at the given heights on grey, side by side in rows."""
    page = np.full((*size, 3), 110, np.uint8)
    left = top = 20
    for photo, height in zip(photos, heights, strict=True):
        small = resized(photo, height / photo.shape[0])
        if left + small.shape[1] > size[1]:
            left, top = 20, top + max(heights) + 20
        page[top : top + small.shape[0], left : left + small.shape[1]] = small
        left += small.shape[1] + 20
    return page


def test_several_faces_largest_first(photos: list[Image], detector: LandmarkDetector) -> None:
    page = collage(photos, [420, 300, 200, 150], (700, 1100))
    found = detector.detect(page, max_faces=10)
    assert len(found) == len(photos)
    sides = [max(f.box_px[2] - f.box_px[0], f.box_px[3] - f.box_px[1]) for f in found]
    assert sides == sorted(sides, reverse=True)
    assert sides[0] > 2 * sides[-1]
    best_two = detector.detect(page, max_faces=2)
    assert [f.box_px for f in best_two] == [f.box_px for f in found[:2]]


@pytest.mark.parametrize("height", [90, 150, 300])
def test_a_small_face_in_a_large_photo(
    height: int, photos: list[Image], faces: list[FaceLandmarks], detector: LandmarkDetector
) -> None:
    scale = height / photos[0].shape[0]
    page = collage(photos[:1], [height], (1500, 2000))
    (found,) = detector.detect(page)
    assert mean_error(found.points_px, faces[0].points_px * scale + 20) < (0.025 if height < 100 else 0.015)


def test_a_small_face_in_a_very_long_photo(photos: list[Image], detector: LandmarkDetector) -> None:
    page = np.full((300, 35_000, 3), 128, np.uint8)
    page[:, 33_000:33_300] = resized(photos[1], 300 / photos[1].shape[0])[:, :300]
    (found,) = detector.detect(page)
    assert 33_000 < found.points_px[:, 0].mean() < 33_300


@pytest.mark.parametrize("hidden", ["mouth", "eyes", "left half"])
def test_partly_hidden_faces(
    hidden: str, photos: list[Image], faces: list[FaceLandmarks], detector: LandmarkDetector
) -> None:
    for photo, face in zip(photos, faces, strict=True):
        covered, points = photo.copy(), face.points_px.astype(int)
        left, top, right, bottom = (max(0, int(side)) for side in face.box_px)
        if hidden == "mouth":
            covered[points[4, 1] : bottom, left:right] = (200, 220, 230)
        elif hidden == "eyes":
            covered[points[105, 1] : points[145, 1] + 8, left:right] = 15
        else:
            covered[top:bottom, points[1, 0] : right] = 90
        (found,) = detector.detect(covered)
        assert mean_error(found.points_px, face.points_px) < 0.12


def test_a_face_cut_by_the_border(
    photos: list[Image], faces: list[FaceLandmarks], detector: LandmarkDetector
) -> None:
    for photo, face in zip(photos, faces, strict=True):
        cut = int(face.points_px[4, 0])  # down the nose: the other half lies outside
        found = detector.detect(photo[:, cut - 60 :])
        if found:
            assert mean_error(found[0].points_px + np.array([cut - 60, 0]), face.points_px) < 0.2


def empty_pictures() -> dict[str, Image]:
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:480, :640]
    sky = np.stack([90 + y / 6, 140 + y / 8, 255 - y / 8], axis=-1)
    land = sky.copy()
    land[300:] = (60, 110, 40)
    face_like = land.astype(np.uint8)
    for centre in ((260, 160), (380, 160)):
        cv2.circle(face_like, centre, 22, (20, 20, 20), -1)
    cv2.ellipse(face_like, (320, 270), (60, 14), 0.0, 0.0, 360.0, (30, 30, 30), -1)
    noise = rng.integers(0, 256, (400, 500, 3))
    pictures = {
        "sky": sky,
        "landscape": land,
        "two dots and a dash": face_like,
        "noise": noise,
        "soft noise": cv2.GaussianBlur(noise.astype(np.float32), (0, 0), 9) * 6 - 640,
        "squares": np.repeat(((x // 40 + y // 40) % 2 * 255)[..., None], 3, axis=2),
        "black": np.zeros((300, 300, 3)),
        "one pixel": np.zeros((1, 1, 3)),
        "one row": np.zeros((1, 3000, 3)),
        "no pixels": np.zeros((0, 5, 3)),
    }
    return {name: np.clip(picture, 0, 255).astype(np.uint8) for name, picture in pictures.items()}


@pytest.mark.parametrize("name", empty_pictures())
def test_no_face(name: str, detector: LandmarkDetector) -> None:
    assert detector.detect(empty_pictures()[name], max_faces=5) == []


def test_clothes_and_hair_are_no_faces(
    photos: list[Image], faces: list[FaceLandmarks], detector: LandmarkDetector
) -> None:
    for photo, face in zip(photos, faces, strict=True):
        top, bottom = int(face.box_px[1]), int(face.box_px[3])
        assert detector.detect(photo[: max(top - 5, 30)]) == []
        assert detector.detect(photo[min(bottom + 10, photo.shape[0] - 30) :]) == []


# --- tables, arguments, sessions ------------------------------------------------------


def test_tables() -> None:
    assert len(set(BLENDSHAPE_NAMES)) == 52
    mirror = np.array(MIRROR478)
    assert np.array_equal(mirror[mirror], np.arange(478))
    assert len(set(LANDMARKS68)) == 68
    # The ibug scheme's own mirror: jaw and brows reversed, eyes and lips by their corners.
    ibug = [*range(16, -1, -1), *range(26, 16, -1), *range(27, 31), *range(35, 30, -1)]
    ibug += [45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40]
    ibug += [54, 53, 52, 51, 50, 49, 48, 59, 58, 57, 56, 55, 64, 63, 62, 61, 60, 67, 66, 65]
    chosen = np.array(LANDMARKS68)
    assert np.array_equal(mirror[chosen], chosen[ibug])


def test_landmarks68_lie_where_the_scheme_has_them(faces: list[FaceLandmarks]) -> None:
    for face in faces[:3]:
        points = landmarks68(face.points_px)
        assert points.shape == (68, 2)
        unit = eye_distance(face.points_px)
        assert np.argmax(points[:17, 1]) in {7, 8, 9}, "the chin is lowest"
        steps = np.linalg.norm(np.diff(points[:17], axis=0), axis=1)
        assert steps.max() < 2.2 * steps.min(), "the jaw is evenly sampled"
        for low, high in ((slice(36, 42), slice(17, 22)), (slice(42, 48), slice(22, 27))):
            assert points[low, 1].min() > points[high, 1].mean(), "brows above eyes"
            assert abs(points[low, 0].mean() - points[high, 0].mean()) < 0.15 * unit
        assert np.all(np.diff(points[27:31, 1]) > 0), "down the bridge of the nose"
        assert points[33, 1] > points[30, 1]
        assert points[48, 0] == points[48:60, 0].min()
        assert points[54, 0] == points[48:60, 0].max()
        assert np.all(points[49:54, 1] < points[59:54:-1, 1]), "upper lip above lower lip"
        assert landmarks68(np.stack([face.points_px] * 2)).shape == (2, 68, 2)


@pytest.mark.parametrize("points", [np.zeros((468, 2)), np.zeros(478), np.zeros((2, 478))])
def test_landmarks68_refuses_other_shapes(points: NDArray[Any]) -> None:
    with pytest.raises(BadArgument, match=r"\(478, 2\)"):
        landmarks68(points)


@pytest.mark.parametrize(
    "rgb",
    [np.zeros((9, 9), np.uint8), np.zeros((9, 9, 4), np.uint8), np.zeros((9, 9, 3)), [[[0, 0, 0]]], None],
    ids=str,
)
def test_wrong_photos(rgb: Any, detector: LandmarkDetector) -> None:
    with pytest.raises(BadArgument, match="uint8"):
        detector.detect(rgb)


@pytest.mark.parametrize("count", [0, -1, 1.0, True, None])
def test_wrong_counts(count: Any, detector: LandmarkDetector) -> None:
    with pytest.raises(BadArgument, match="whole number"):
        detector.detect(np.zeros((9, 9, 3), np.uint8), max_faces=count)
    with pytest.raises(BadArgument, match="whole number"):
        LandmarkDetector(threads=count)


@pytest.mark.parametrize("content", [None, b"", b"not a network"])
def test_damaged_network(content: bytes | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(landmarks, "_NETWORKS", tmp_path)
    if content is not None:
        (tmp_path / "detector.onnx").write_bytes(content)
    with pytest.raises(BadModelFile, match=r"detector\.onnx"):
        LandmarkDetector().detect(np.zeros((99, 99, 3), np.uint8))


def test_threads_share_a_detector(photos: list[Image], faces: list[FaceLandmarks]) -> None:
    shared_detector = LandmarkDetector()
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(shared_detector.detect, photos * 2))
    for result, face in zip(found, faces * 2, strict=True):
        assert np.array_equal(result[0].points_px, face.points_px)


def test_importing_is_cheap() -> None:
    check = "import sys, fastface.landmarks; sys.exit('onnxruntime' in sys.modules)"
    root = Path(__file__).resolve().parents[1]
    assert subprocess.run([sys.executable, "-c", check], cwd=root, check=False).returncode == 0
