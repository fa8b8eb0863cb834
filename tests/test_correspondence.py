"""Landmarks lie on their parts, are found on painted heads, and follow what fits leave over."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastface import correspondence as corr
from fastface.correspondence import calibrate, make_correspondences, on_surface, pick68, residual_mm
from fastface.errors import BadArgument, NoFaceFound
from fastface.importers.ict import import_ict
from fastface.landmark_tables import LANDMARKS68, MIRROR478
from fastface.landmarks import LandmarkDetector
from fastface.morphable import MATERIALS, Correspondence, HeadModel, load_default
from fastface.painted_face import Light, Painter, eye_centres, facing_view, rim_edges
from fastface.surface import nearest_on_edges, nearest_on_triangles

Array = np.ndarray[Any, Any]
FRONT_LIGHT = Light(np.array([0.0, -0.3, -0.954]), 0.5)


@pytest.fixture(scope="module")
def default() -> HeadModel:
    return load_default()


@pytest.fixture(scope="module", params=["default", "ict"])
def model(request: pytest.FixtureRequest, default: HeadModel) -> HeadModel:
    if request.param == "default":
        return default
    shared: Path = request.getfixturevalue("shared")
    return import_ict(shared / "data" / "ict_facekit" / "ict_facekit.npz")


def places(model: HeadModel) -> Array:
    return model.landmarks478.points(model.vertices, model.triangles)


def on_rim(model: HeadModel, marks: tuple[int, ...], material: str) -> Array:
    """Distance of landmarks from the nearest rim edge, mm."""
    edges, _ = rim_edges(model, material)
    vertices = model.vertices.astype(np.float64)
    queries = places(model)[list(marks)].astype(np.float64)
    found = nearest_on_edges(queries, vertices[edges[:, 0]], vertices[edges[:, 1]])
    return np.sqrt(found.squared_distance)


# ---------------------------------------------------------------- what ships


def test_shipped_landmarks_lie_on_their_parts(model: HeadModel) -> None:
    assert on_rim(model, corr.INNER_UPPER_LIP + corr.INNER_LOWER_LIP, "lips").max() < 1e-3
    assert on_rim(model, corr.UPPER_LIDS + corr.LOWER_LIDS, "eyelids").max() < 1e-3
    material = np.array(MATERIALS)[model.materials[model.landmarks478.triangle]]
    assert set(material[list(corr.IRISES)]) == {"eyeballs"}
    assert set(material[list(corr.RED_OF_UPPER_LIP + corr.RED_OF_LOWER_LIP)]) == {"lips"}
    rest = np.setdiff1d(np.arange(478), corr.IRISES)
    assert set(material[rest]) == {"skin", "lips", "eyelids"}


def test_shipped_inner_lip_landmarks_go_with_their_lip(model: HeadModel) -> None:
    jaw = np.array([name == "jawOpen" for name in model.expression_names], np.float32)
    opened = model.landmarks478.points(model.shaped(expression=jaw), model.triangles)
    gap = opened[list(corr.INNER_UPPER_LIP), 1] - opened[list(corr.INNER_LOWER_LIP), 1]
    assert gap[2:-2].min() > 15  # mm between the lips of a mouth wide open; its corners stay near
    closed = places(model)
    assert np.abs(closed[13] - closed[14]).max() < 2


def test_shipped_lid_landmarks_close_over_the_eye(model: HeadModel) -> None:
    blink = np.array([name.startswith("eyeBlink") for name in model.expression_names], np.float32)
    closed = model.landmarks478.points(model.shaped(expression=blink), model.triangles)
    opened = places(model)
    for upper, lower in ((386, 374), (159, 145)):
        assert opened[upper, 1] - opened[lower, 1] > 7
        assert abs(closed[upper, 1] - closed[lower, 1]) < 2


def test_shipped_landmarks_are_symmetric(model: HeadModel) -> None:
    points = places(model)
    off = np.linalg.norm(points - points[list(MIRROR478)] * [-1, 1, 1], axis=1)
    assert np.median(off) < 0.05
    assert off.max() < 1.0


def test_shipped_landmarks_have_a_faces_order(model: HeadModel) -> None:
    points = places(model)
    forehead, between, tip, upper, lower, chin = points[[10, 168, 1, 0, 17, 152]]
    heights = [forehead[1], between[1], tip[1], upper[1], lower[1], chin[1]]
    assert heights == sorted(heights, reverse=True)
    assert tip[2] == pytest.approx(points[:, 2].max(), abs=4)
    assert points[263, 0] > points[362, 0] > 0 > points[133, 0] > points[33, 0]  # + x is the subject's left
    assert points[105, 1] > points[159, 1] + 8  # a brow above its eye
    eyes = eye_centres(model)
    for iris, eye in ((473, eyes[0]), (468, eyes[1])):
        assert np.abs(points[iris, :2] - eye[:2]).max() < 2.5


def test_the_68_are_the_detectors_choice_of_the_478(model: HeadModel) -> None:
    all_points = places(model)
    assert np.array_equal(
        model.landmarks68.points(model.vertices, model.triangles), all_points[list(LANDMARKS68)]
    )


def test_the_network_sees_shipped_landmarks_on_a_painted_head(model: HeadModel) -> None:
    """Shipped landmarks were calibrated on photographs; paint differs by no more than this."""
    view = facing_view()
    picture = Painter(model).paint(model.vertices, view, FRONT_LIGHT)
    (face,) = LandmarkDetector().detect(picture.rgb)
    projected = view.screen(places(model))[:, :2]
    off = np.linalg.norm(face.points_px - projected, axis=1)
    across = np.linalg.norm(face.points_px[33] - face.points_px[263])
    assert off.mean() / across < 0.03
    assert off[list(corr.INNER_UPPER_LIP + corr.UPPER_LIDS)].mean() / across < 0.03


# ---------------------------------------------------------------- making them


def test_landmarks_are_found_on_painted_heads_alone(default: HeadModel) -> None:
    blank = replace(default, landmarks478=_all_at_first_triangle(478), landmarks68=_all_at_first_triangle(68))
    marks478, marks68 = make_correspondences(blank, LandmarkDetector(), renders=6)
    found = marks478.points(default.vertices, default.triangles)
    off = np.linalg.norm(found - places(default), axis=1)
    assert np.median(off) < 2.0  # mm; the shipped ones are calibrated on photographs
    assert np.quantile(off, 0.97) < 7.0  # the rest lie on the jaw's contour, where depth cannot be read
    assert np.array_equal(marks68.triangle, marks478.triangle[list(LANDMARKS68)])
    again, _ = make_correspondences(blank, LandmarkDetector(), renders=6)
    assert np.array_equal(again.bary, marks478.bary)
    other, _ = make_correspondences(blank, LandmarkDetector(), renders=6, seed=1)
    assert not np.array_equal(other.bary, marks478.bary)


def _all_at_first_triangle(count: int) -> Correspondence:
    return Correspondence(np.zeros(count, np.int32), np.full((count, 3), 1 / 3, np.float32))


class Blind:
    def detect(self, rgb: Array, max_faces: int = 1) -> list[Any]:
        return []


def test_a_detector_that_sees_nothing_is_reported(default: HeadModel) -> None:
    with pytest.raises(NoFaceFound, match="0 of 4"):
        make_correspondences(default, Blind(), renders=4)
    with pytest.raises(BadArgument, match="renders"):
        make_correspondences(default, Blind(), renders=1)


def test_a_pixel_is_carried_back_to_the_surface_it_shows(default: HeadModel) -> None:
    vertices = default.shaped(identity=np.array([1.0, -1.0, 0.5], np.float32))
    view = facing_view(12.0, -7.0, 3.0)
    picture = Painter(default).paint(vertices, view, FRONT_LIGHT)
    truth = default.landmarks478.points(vertices, default.triangles)
    pixels = view.screen(truth)[:, :2]
    carried = corr._carried_back(default, vertices, view, picture, pixels)
    off = np.linalg.norm(carried - places(default), axis=1)
    steep = np.array(corr.INNER_UPPER_LIP + corr.INNER_LOWER_LIP + corr.UPPER_LIDS + corr.LOWER_LIDS)
    seen = np.setdiff1d(np.flatnonzero(np.isfinite(off)), steep)
    assert len(seen) > 380
    assert np.quantile(off[seen], 0.8) < 0.15
    outside = corr._carried_back(default, vertices, view, picture, np.full((478, 2), 1e6))
    assert np.isnan(outside).all()


# ---------------------------------------------------------------- calibrating


@dataclass(frozen=True)
class Fitted:
    photo: Array
    rotation: Array
    translation_mm: Array
    focal_px: float
    identity: Array
    expression: Array
    landmarks_px: Array


def fits_of(model: HeadModel, truth: Correspondence, count: int = 12) -> list[Fitted]:
    """Perfect fits of the shape; the landmarks are where ``truth`` has them, with noise."""
    rng = np.random.default_rng(5)
    made = []
    for _ in range(count):
        identity = 0.7 * rng.standard_normal(10)
        expression = np.zeros(len(model.expression_names))
        view = facing_view(*rng.uniform(-8, 8, 3), size_px=768)
        shape = truth.points(model.shaped(identity, expression), model.triangles)
        pixels = view.screen(shape)[:, :2] + rng.normal(0, 0.3, (478, 2))
        photo = np.zeros((768, 768, 3), np.uint8)
        made.append(
            Fitted(photo, view.rotation, view.translation_mm, view.focal_px, identity, expression, pixels)
        )
    return made


def test_calibration_finds_displaced_landmarks_again(default: HeadModel) -> None:
    truth = default.landmarks478
    rng = np.random.default_rng(2)
    shift = rng.normal(0, 1.5, (478, 3))
    shift = (shift + shift[list(MIRROR478)] * [-1, 1, 1]) / 2
    wrong = replace(default, landmarks478=on_surface(default, places(default) + shift)[0])
    before = np.linalg.norm(places(wrong) - places(default), axis=1)
    fits = fits_of(default, truth)
    model = wrong
    for _ in range(3):
        marks478, marks68 = calibrate(model, fits)
        model = replace(model, landmarks478=marks478, landmarks68=marks68)
    after = np.linalg.norm(places(model) - places(default), axis=1)
    assert np.median(before) > 0.8
    assert np.median(after) < 0.12
    assert np.quantile(after, 0.9) < 0.4
    assert on_rim(model, corr.INNER_UPPER_LIP, "lips").max() < 1e-3


def test_calibration_is_still_where_nothing_is_left_over(default: HeadModel) -> None:
    marks478, _ = calibrate(default, fits_of(default, default.landmarks478))
    off = marks478.points(default.vertices, default.triangles) - places(default)
    assert np.quantile(np.linalg.norm(off, axis=1), 0.95) < 0.3


def test_a_brow_that_all_wear_is_the_landmarks_error(default: HeadModel) -> None:
    raised = np.array([0.3 * name.startswith("brow") * ("Up" in name) for name in default.expression_names])
    plain = fits_of(default, default.landmarks478)
    worn = []
    for fit in plain:  # the same pictures, explained by a raised brow
        shape = default.landmarks478.points(default.shaped(fit.identity, raised), default.triangles)
        view_points = shape @ fit.rotation.T + fit.translation_mm
        pixels = fit.focal_px * view_points[:, :2] / view_points[:, 2:] + 384
        worn.append(replace(fit, expression=raised, landmarks_px=pixels))
    marks478, _ = calibrate(default, worn)
    rise = (marks478.points(default.vertices, default.triangles) - places(default))[:, 1]
    lift = corr.expression_mm(default, worn[0])[:, 1]
    assert lift[105] > 1
    assert rise[[105, 334]] == pytest.approx(lift[[105, 334]], abs=0.35)
    assert np.abs(rise[[13, 14, 61, 291, 1]]).max() < 0.2


def test_residuals_are_in_head_space(default: HeadModel) -> None:
    (fit,) = fits_of(default, default.landmarks478, count=1)
    moved = replace(fit, landmarks_px=fit.landmarks_px + np.array([5.0, 0.0]))
    change = residual_mm(default, moved) - residual_mm(default, fit)
    depth = (
        default.landmarks478.points(default.shaped(fit.identity, fit.expression), default.triangles)
        @ fit.rotation.T
        + fit.translation_mm
    )[:, 2]
    wanted = (5.0 * depth / fit.focal_px)[:, None] * fit.rotation[0]
    assert np.abs(change - wanted).max() < 1e-4


def test_calibration_without_fits_is_refused(default: HeadModel) -> None:
    with pytest.raises(BadArgument, match="fits"):
        calibrate(default, [])
    with pytest.raises(BadArgument, match="share"):
        calibrate(default, fits_of(default, default.landmarks478, 1), share=0.0)


# ---------------------------------------------------------------- surface


def test_nearest_points_are_the_nearest() -> None:
    rng = np.random.default_rng(0)
    vertices = rng.normal(size=(60, 3))
    triangles = np.array([rng.choice(60, 3, replace=False) for _ in range(80)])
    queries = rng.normal(size=(25, 3)) * 1.5
    found = nearest_on_triangles(queries, vertices, triangles, candidates=80)
    assert found.weights.min() >= 0
    assert np.abs(found.weights.sum(axis=1) - 1).max() < 1e-9
    point = np.einsum("ncx,nc->nx", vertices[triangles[found.row]], found.weights)
    assert np.abs(((queries - point) ** 2).sum(axis=1) - found.squared_distance).max() < 1e-9
    grid = np.array([(1 - a - b, a, b) for a in np.linspace(0, 1, 41) for b in np.linspace(0, 1 - a, 41)])
    dense = np.einsum("gc,fcx->fgx", grid, vertices[triangles]).reshape(-1, 3)
    best = ((queries[:, None] - dense[None]) ** 2).sum(axis=2).min(axis=1)
    assert (found.squared_distance <= best + 1e-12).all()
    assert np.sqrt(best) - np.sqrt(found.squared_distance) == pytest.approx(0, abs=0.1)


def test_nearest_on_edges_clamps_to_the_ends() -> None:
    starts, ends = np.array([[0.0, 0, 0]]), np.array([[1.0, 0, 0]])
    found = nearest_on_edges(np.array([[-1.0, 0, 0], [0.25, 2, 0], [3, 0, 0]]), starts, ends)
    assert found.weights.tolist() == [[1, 0], [0.75, 0.25], [0, 1]]
    assert found.squared_distance.tolist() == [1, 4, 4]


def test_points_are_put_on_the_part_not_the_nearest_surface(default: HeadModel) -> None:
    points = places(default).astype(np.float64)
    points[13] += [0, 6, 3]  # on the upper lip's skin
    points[473] += [0, 9, 4]  # on the brow's skin
    marks, _ = on_surface(default, points)
    model = replace(default, landmarks478=marks)
    assert on_rim(model, (13,), "lips").max() < 1e-3
    assert MATERIALS[default.materials[marks.triangle[473]]] == "eyeballs"
    assert (marks.bary >= 0).all()
    assert np.array_equal(pick68(marks).triangle, marks.triangle[list(LANDMARKS68)])
