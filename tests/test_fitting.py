"""The fit: its derivatives, what it recovers, how near it comes on real portraits, what it refuses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from fastface import fitting
from fastface.camera import FLIP, Camera, angles_deg, rotation_of
from fastface.errors import BadArgument, NoFaceFound
from fastface.fitting import FACE_RIM, FaceFitter
from fastface.images import read_image
from fastface.landmarks import MIRROR478, LandmarkDetector
from fastface.morphable import load_default

Array = NDArray[np.float64]
PORTRAITS = 27
#: Lips: the outer contour and the slit, both rows.
LIPS = (
    *(61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 185, 40, 39, 37, 0, 267, 269, 270, 409),
    *(78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308, 191, 80, 81, 82, 13, 312, 311, 310, 415),
)


@pytest.fixture(scope="module")
def fitter() -> FaceFitter:
    return FaceFitter(load_default())


Seen = tuple[NDArray[np.float32], tuple[int, int]]


@pytest.fixture(scope="module")
def portraits(shared: Path) -> dict[str, Seen]:
    """Landmarks and (H, W) of the neutral portraits and of the series of distances."""
    detector = LandmarkDetector()
    photos = shared / "data" / "photos"
    found: dict[str, Seen] = {}
    for path in sorted([*photos.glob("london/neutral/*.jpg"), *photos.glob("cc0/*cm.jpg")]):
        photo = read_image(path)
        found[path.stem] = (detector.detect(photo)[0].points_px, (photo.shape[0], photo.shape[1]))
    return found


def synthetic(
    fitter: FaceFitter, yaw: float = 0.0, distance_mm: float = 900.0, seed: int = 0
) -> tuple[NDArray[np.float32], Camera, Array]:
    """Landmarks of a random head before a known camera of a 800 × 800 px photo."""
    rng = np.random.default_rng(seed)
    identity = rng.normal(size=30) * 0.8
    model = fitter.model
    head = model.landmarks478.points(model.shaped(identity), model.triangles).astype(np.float64)
    rotation = FLIP @ rotation_of(np.radians([-5.0, yaw, 7.0]))
    camera = Camera(rotation, np.array([20.0, -15.0, distance_mm]), 1040.0, np.array([400.0, 400.0]))
    return camera.project(camera.to_camera(head)).astype(np.float32), camera, identity


def test_derivatives_are_those_of_the_cost(fitter: FaceFitter) -> None:
    target = synthetic(fitter, yaw=20)[0].astype(np.float64)
    target += np.random.default_rng(1).normal(size=target.shape) * 3
    problem = fitting._Problem(target, fitting._rim_normals(target) * 0.7)
    state = fitting.State.start(fitter._mean, target, 800, 800, len(fitter._basis))
    rng = np.random.default_rng(2)
    state = state.moved(np.concatenate([rng.normal(size=7) * 0.05, rng.normal(size=len(state.shape)) * 0.8]))
    here = fitter._linearise(problem, state)
    diagonal = np.diag(fitter._normal(here))
    for unknown in (*range(7), 7, 20, 66, 67, 90, len(here.gradient) - 1):
        step = np.zeros(len(here.gradient))
        step[unknown] = 1e-3
        ahead, behind = (fitter._linearise(problem, state.moved(sign * step)) for sign in (1, -1))
        slope = (ahead.cost - behind.cost) / (2 * 1e-3)
        scale = np.sqrt(diagonal[unknown] * here.cost)  # |∂r| |r|: what the slope could be at most
        assert slope == pytest.approx(2 * here.gradient[unknown], rel=2e-3, abs=2e-4 * scale), unknown


def test_jacobian_is_that_of_the_residuals(fitter: FaceFitter) -> None:
    target = synthetic(fitter)[0].astype(np.float64)
    weight = np.tile(np.eye(2), (len(target), 1, 1))
    problem = fitting._Problem(target, weight)
    state = fitting.State.start(fitter._mean, target, 800, 800, len(fitter._basis))

    def projected(at: fitting.State) -> Array:
        camera = at.camera()
        pixels: Array = camera.project(camera.to_camera(fitter._shaped(at.shape)))
        return pixels.T.ravel()

    jacobian = fitter._linearise(problem, state).seen.jacobian(fitter._axes)
    for unknown, column in enumerate(jacobian):
        step = np.zeros(len(jacobian))
        step[unknown] = 1e-2 if unknown >= 7 else 1e-4
        difference = (projected(state.moved(step)) - projected(state.moved(-step))) / (2 * step[unknown])
        reach = max(np.abs(difference).max(), 1e-3)
        np.testing.assert_allclose(column, difference, atol=2e-3 * reach, err_msg=str(unknown))


@pytest.mark.parametrize("yaw", [0.0, 35.0, -35.0])
def test_a_known_head_is_recovered(fitter: FaceFitter, yaw: float) -> None:
    points, camera, identity = synthetic(fitter, yaw)
    fit = fitter.fit(points, 800, 800)
    np.testing.assert_allclose(angles_deg(fit.camera.rotation), angles_deg(camera.rotation), atol=1.5)
    assert np.linalg.norm(fit.residual_px, axis=1).mean() < 0.002 * fit.eye_distance_px
    assert np.corrcoef(fit.identity[:30], identity)[0, 1] > 0.8
    assert np.abs(fit.expression).max() < 0.1
    ratio = fit.camera.translation_mm[2] / fit.camera.focal_px
    assert ratio == pytest.approx(camera.translation_mm[2] / camera.focal_px, rel=0.02)


def test_an_expression_is_not_taken_for_identity(fitter: FaceFitter) -> None:
    model = fitter.model
    jaw = model.expression_names.index("jawOpen")
    shown = np.zeros(len(model.expression_names))
    shown[jaw] = 0.3
    points, camera, identity = synthetic(fitter)
    head = model.landmarks478.points(model.shaped(identity, shown), model.triangles)
    fit = fitter.fit(camera.project(camera.to_camera(head)).astype(np.float32), 800, 800)
    neutral = fitter.fit(points, 800, 800)
    assert fit.expression[jaw] - neutral.expression[jaw] > 0.15
    assert int(np.argmax(fit.expression)) == jaw


def test_residual_is_landmark_minus_model(fitter: FaceFitter) -> None:
    points, _, _ = synthetic(fitter)
    points += np.random.default_rng(3).normal(size=points.shape).astype(np.float32)
    fit = fitter.fit(points, 800, 800)
    head = fitter.model.shaped(fit.identity, fit.expression)
    model = fitter.model.landmarks478.points(head, fitter.model.triangles)
    np.testing.assert_allclose(
        points - fit.camera.project(fit.camera.to_camera(model)), fit.residual_px, atol=2e-2
    )


@pytest.mark.parametrize("scale", [0.1, 4.0])
def test_the_size_of_a_photo_changes_nothing(fitter: FaceFitter, scale: float) -> None:
    points, _, _ = synthetic(fitter, yaw=10)
    points += np.random.default_rng(4).normal(size=points.shape).astype(np.float32)
    one = fitter.fit(points, 800, 800)
    other = fitter.fit(points * np.float32(scale), int(800 * scale), int(800 * scale))
    np.testing.assert_allclose(other.identity, one.identity, atol=5e-3)
    np.testing.assert_allclose(other.camera.translation_mm, one.camera.translation_mm, rtol=2e-3, atol=0.5)
    assert other.camera.focal_px == pytest.approx(scale * one.camera.focal_px, rel=2e-3)


def test_a_mirrored_photo_has_the_mirrored_pose(fitter: FaceFitter) -> None:
    points, _, _ = synthetic(fitter, yaw=25)
    mirrored = points[list(MIRROR478)] * np.array([-1, 1], np.float32) + np.array([800, 0], np.float32)
    yaw, pitch, roll = angles_deg(fitter.fit(points, 800, 800).camera.rotation)
    other = angles_deg(fitter.fit(mirrored, 800, 800).camera.rotation)
    np.testing.assert_allclose(other, (-yaw, pitch, -roll), atol=1.0)


def test_portraits_are_fitted_closely(fitter: FaceFitter, portraits: dict[str, Seen]) -> None:
    names = [name for name in portraits if not name.endswith("cm")]
    assert len(names) == PORTRAITS
    means, lips = [], []
    for name in names:
        points, (height, width) = portraits[name]
        fit = fitter.fit(points, height, width)
        error = 100 * np.linalg.norm(fit.residual_px, axis=1) / fit.eye_distance_px
        means.append(error.mean())
        lips.append(error[list(LIPS)].mean())
        assert np.percentile(error, 95) <= 1.5, name
        assert np.abs(fit.identity).max() < 3.3, name
    assert np.mean(means) <= 0.36
    assert np.max(means) <= 0.6
    assert np.mean(lips) <= 0.5
    assert np.max(lips) <= 0.8


def test_the_warp_carries_what_is_left_to_the_mesh(fitter: FaceFitter, portraits: dict[str, Seen]) -> None:
    model, warp = fitter.model, fitter.residual_warp
    marks = model.landmarks478
    at_landmarks = np.einsum("lcx,lc->lx", warp[model.triangles[marks.triangle]], marks.bary)
    for name, (points, (height, width)) in portraits.items():
        fit = fitter.fit(points, height, width)
        left = np.linalg.norm(fit.residual_px - at_landmarks @ fit.residual_px, axis=1)
        assert left.mean() < 0.35 * np.linalg.norm(fit.residual_px, axis=1).mean(), name
        assert left[list(LIPS)].mean() < 0.003 * fit.eye_distance_px, name
    far = np.linalg.norm(model.vertices[:, None] - fitter._mean[None], axis=2).min(1) > 100
    assert far.any()
    assert np.abs(warp[far]).max() < 1e-3
    only_teeth = np.setdiff1d(
        model.triangles[model.material_triangles("teeth")], model.triangles[model.material_triangles("skin")]
    )
    assert len(only_teeth)
    assert not warp[only_teeth].any()


def test_the_nearer_the_camera_the_nearer_the_fit(fitter: FaceFitter, portraits: dict[str, Seen]) -> None:
    distances, errors = [], []
    for name in ("15cm", "30cm", "45cm", "60cm"):
        points, (height, width) = portraits[name]
        fit = fitter.fit(points, height, width)
        distances.append(fit.camera.translation_mm[2])
        errors.append(np.linalg.norm(fit.residual_px, axis=1).mean() / fit.eye_distance_px)
    assert (np.diff(distances) > 30).all(), distances
    assert distances[-1] / distances[0] > 1.4
    assert max(errors) < 0.0045


def test_one_woman_has_one_face(fitter: FaceFitter, portraits: dict[str, Seen]) -> None:
    """The same person from four distances is more alike than two people from one."""

    def shape(name: str) -> Array:
        points, (height, width) = portraits[name]
        return fitter.fit(points, height, width).identity.astype(np.float64)

    same = [np.linalg.norm(shape("30cm") - shape(other)) for other in ("45cm", "60cm")]
    others = [np.linalg.norm(shape("30cm") - shape(other)) for other in ("001", "019", "042", "086")]
    assert max(same) < 0.7 * min(others)


# ------------------------------------------------------------------------------------------------- refusals


def hostile(fitter: FaceFitter) -> dict[str, NDArray[np.float32]]:
    good, _, _ = synthetic(fitter)
    one_nan, infinite = good.copy(), good.copy()
    one_nan[100, 1], infinite[7] = np.nan, np.inf
    shuffled = good[np.random.default_rng(0).permutation(len(good))]
    shuffled[[33, 263]] = good[[33, 263]]
    line = np.linspace(100, 700, 478, dtype=np.float32)
    flat = good.copy()
    flat[:, 1] = 400
    noise = np.random.default_rng(1).uniform(0, 800, good.shape).astype(np.float32)
    return {
        "nan": np.full_like(good, np.nan),
        "one nan": one_nan,
        "infinite": infinite,
        "equal": np.full_like(good, 300),
        "zero": np.zeros_like(good),
        "mirrored": good * np.array([-1, 1], np.float32) + np.array([800, 0], np.float32),
        "upside down and mirrored": good * np.array([1, -1], np.float32) + np.array([0, 800], np.float32),
        "on a line": np.stack([line, line], axis=1),
        "on a horizontal": flat,
        "huge": good * np.float32(1e30),
        "large": good * np.float32(1e4),
        "far off": good + np.float32(1e7),
        "tiny": good * np.float32(1e-3),
        "shuffled": shuffled,
        "noise": noise,
        "rim on one point": np.where(np.isin(np.arange(478), FACE_RIM)[:, None], np.float32(0), good),
    }


HOSTILE = (
    *("nan", "one nan", "infinite", "equal", "zero", "mirrored", "upside down and mirrored", "on a line"),
    *("on a horizontal", "huge", "large", "far off", "tiny", "shuffled", "noise", "rim on one point"),
)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", HOSTILE)
def test_landmarks_of_no_face_are_refused(fitter: FaceFitter, name: str) -> None:
    with pytest.raises(NoFaceFound, match=r"wanted|landmarks"):
        fitter.fit(hostile(fitter)[name], 800, 800)


@pytest.mark.filterwarnings("error")
def test_spoiled_landmarks_fit_or_are_refused(fitter: FaceFitter) -> None:
    """Whatever the network says, the answer is a finite fit or ``NoFaceFound``."""
    good, _, _ = synthetic(fitter)
    rng = np.random.default_rng(5)
    fitted = 0
    for trial in range(60):
        points = good + rng.normal(size=good.shape).astype(np.float32) * 10 ** rng.uniform(-1, 4)
        if trial % 3 == 0:
            points = points @ rng.normal(size=(2, 2)).astype(np.float32)
        try:
            fit = fitter.fit(points, 800, 800)
        except NoFaceFound:
            continue
        fitted += 1
        assert np.isfinite(fit.residual_px).all()
        assert np.isfinite(fit.identity).all()
        assert np.linalg.norm(fit.residual_px, axis=1).mean() < 0.08 * fit.eye_distance_px
    assert 5 < fitted < 55


def test_other_shapes_are_refused(fitter: FaceFitter) -> None:
    with pytest.raises(BadArgument, match=r"\(478, 2\), got \(68, 2\)"):
        fitter.fit(np.zeros((68, 2), np.float32), 100, 100)
