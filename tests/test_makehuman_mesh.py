"""How the default head's mesh is made: subdivision without cracks, thinning without holes, all linear."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from fastface.makehuman.decimation import collapse
from fastface.makehuman.interior import carried, jaw_motion, turned
from fastface.makehuman.linear_map import LinearMap
from fastface.makehuman.parts import ride
from fastface.makehuman.rims import border_edges, halves, interpolation
from fastface.makehuman.sculpt import Bump, Furrow
from fastface.makehuman.subdivision import Refined, refine, triangulate
from fastface.makehuman.teeth import LOWER, LOWER_ARCH, UPPER, UPPER_ARCH, dentition
from fastface.morphable import MATERIALS

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def sheet(rows: int, columns: int) -> tuple[Floats, Ints, Ints]:
    """A curved grid of quads, symmetric in x: vertices, quads, mirror."""
    y, x = np.mgrid[0:rows, 0:columns].astype(np.float64)
    x -= (columns - 1) / 2
    vertices = np.stack([x, y, np.sin(y) - 0.1 * x**2], axis=-1).reshape(-1, 3)
    index = np.arange(rows * columns).reshape(rows, columns)
    quads = np.stack([index[:-1, :-1], index[:-1, 1:], index[1:, 1:], index[1:, :-1]], axis=-1).reshape(-1, 4)
    return vertices, quads, index[:, ::-1].ravel().copy()


def triangles_of(fine: Refined, positions: Floats) -> Ints:
    return np.array(
        [piece for polygon in fine.polygons for piece in triangulate(polygon, positions, fine.first_extra)]
    )


def rim_edges(triangles: Ints) -> Ints:
    directed = np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]])
    assert len(np.unique(directed, axis=0)) == len(directed)  # consistent winding
    edges, count = np.unique(np.sort(directed, axis=1), axis=0, return_counts=True)
    assert count.max() <= 2
    single: Ints = edges[count == 1]
    return single


@pytest.mark.parametrize("part", ["none", "one", "middle", "checkered", "all"])
def test_partial_subdivision_has_no_cracks(part: str) -> None:
    vertices, quads, mirror = sheet(7, 7)
    centre = vertices[quads].mean(axis=1)
    chosen = {
        "none": np.zeros(len(quads), bool),
        "one": np.arange(len(quads)) == 14,
        "middle": (np.abs(centre[:, 0]) < 2) & (np.abs(centre[:, 1] - 3) < 2),
        "checkered": np.arange(len(quads)) % 2 == 0,
        "all": np.ones(len(quads), bool),
    }[part]
    place = {frozenset(quad): row for row, quad in enumerate(quads.tolist())}
    chosen |= chosen[[place[frozenset(mirror[quad].tolist())] for quad in quads]]
    fine = refine(quads, chosen, mirror)
    carry = LinearMap.from_rows(fine.rows)
    positions = carry(vertices)
    triangles = triangles_of(fine, positions)
    assert set(np.unique(triangles)) == set(range(len(fine.rows)))
    # The only open edges are those of the sheet itself: a crack or T-junction would open more.
    rim = positions[rim_edges(triangles)].mean(axis=1)
    flat = (
        (np.abs(np.abs(rim[:, 0]) - 3.0) < 0.3) | (np.abs(rim[:, 1]) < 0.3) | (np.abs(rim[:, 1] - 6.0) < 0.3)
    )
    assert flat.all()
    corners = positions[triangles]
    area = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
    assert area.min() > 1e-3
    np.testing.assert_allclose(positions[fine.mirror] * [-1, 1, 1], positions, atol=1e-12)


def test_subdivision_weights_sum_to_one_and_keep_planes() -> None:
    vertices, quads, mirror = sheet(6, 6)
    fine = refine(quads, np.arange(len(quads)) % 3 == 0, np.arange(len(vertices)))
    assert len(mirror) == len(vertices)
    for row in fine.rows:
        assert sum(row.values()) == pytest.approx(1.0)
    plane = vertices @ np.diag([1.0, 1.0, 0.0])
    np.testing.assert_allclose(LinearMap.from_rows(fine.rows)(plane)[:, 2], 0.0)


def test_catmull_clark_rules_on_a_cube() -> None:
    """Face points at the faces' middles, edge points and corners as the 1978 paper gives them."""
    corners = np.array([[x, y, z] for z in (-1, 1) for y in (-1, 1) for x in (-1, 1)], np.float64)
    quads = np.array([[0, 2, 3, 1], [4, 5, 7, 6], [0, 1, 5, 4], [2, 6, 7, 3], [0, 4, 6, 2], [1, 3, 7, 5]])
    fine = refine(quads, np.ones(6, bool), np.arange(8))
    moved = LinearMap.from_rows(fine.rows)(corners)
    assert len(moved) == 8 + 12 + 6
    np.testing.assert_allclose(np.abs(moved[:8]), 5 / 9)  # (F + 2R + 0·P) / 3
    edge_points = np.sort(np.abs(moved[8:20]), axis=1)
    np.testing.assert_allclose(edge_points, np.tile([0.0, 0.75, 0.75], (12, 1)))
    np.testing.assert_allclose(np.sort(np.abs(moved[20:]), axis=1), np.tile([0.0, 0.0, 1.0], (6, 1)))


def test_thinning_drops_only_what_it_may_and_leaves_no_hole() -> None:
    vertices, quads, _ = sheet(14, 14)
    triangles = np.concatenate([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]])
    droppable = vertices[:, 1] > 5.5
    thin, kept = collapse(triangles, vertices, droppable, 40)
    left = np.unique(thin)
    assert len(vertices) - len(left) == 40
    assert set(np.flatnonzero(~droppable)) <= set(left)
    assert (kept < len(triangles)).all()
    rim = vertices[rim_edges(thin)].mean(axis=1)
    on_border = (np.abs(np.abs(rim[:, 0]) - 6.5) < 0.3) | (rim[:, 1] < 0.3) | (rim[:, 1] > 12.7)
    assert on_border.all()
    normal = np.cross(
        vertices[thin[:, 1]] - vertices[thin[:, 0]], vertices[thin[:, 2]] - vertices[thin[:, 0]]
    )
    assert (normal[:, 2] > 0).all()


def test_parts_ride_on_affine_motion_exactly() -> None:
    random = np.random.RandomState(1)
    helper = random.standard_normal((30, 3)) * 20
    part = random.standard_normal((12, 3)) * 25
    rows = np.arange(30)
    carry = ride(part, rows, helper)
    np.testing.assert_allclose(carry(helper), part, atol=1e-9)
    affine, shift = random.standard_normal((3, 3)), random.standard_normal(3)
    np.testing.assert_allclose(carry(helper @ affine + shift), part @ affine + shift, atol=1e-8)


def test_the_jaw_recovers_a_rigid_motion() -> None:
    random = np.random.RandomState(2)
    chin = random.uniform((-16, -125, 0), (16, -98, 60), (200, 3))
    angle = np.radians(17)
    rotation = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])
    moved = chin @ rotation.T + [1.0, -3.0, 2.0]
    found = jaw_motion(chin, moved - chin)
    np.testing.assert_allclose(found[0], rotation, atol=1e-9)
    tooth = random.standard_normal((5, 3))
    np.testing.assert_allclose(carried(tooth, found), tooth @ rotation.T + [1, -3, 2] - tooth, atol=1e-9)


def test_the_gaze_turns_towards_positive_axes() -> None:
    pole = np.array([[30.0, 0.0, 16.0]])
    centre = np.array([30.0, 0.0, 0.0])
    assert turned(pole, centre, 20.0, 0.0)[0] == pytest.approx(
        [16 * np.sin(np.radians(20)), 0, -0.965], abs=1e-3
    )
    assert turned(pole, centre, 0.0, 20.0)[0] == pytest.approx(
        [0, 16 * np.sin(np.radians(20)), -0.965], abs=1e-3
    )


def test_interpolation_along_a_falling_axis() -> None:
    knots = np.array([3.0, 1.0, 0.0])
    values = np.array([30.0, 10.0, 0.0])
    at = np.array([5.0, 3.0, 2.0, 0.25, -1.0])
    np.testing.assert_allclose(interpolation(at, knots) @ values, [30.0, 30.0, 20.0, 2.5, 0.0])


def test_a_rim_is_cut_at_its_corners() -> None:
    vertices, quads, _ = sheet(7, 7)
    triangles = np.concatenate([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]])
    centre = vertices[triangles].mean(axis=1)
    inside = (np.abs(centre[:, 0]) < 2) & (np.abs(centre[:, 1] - 3) < 1)
    upper, lower = halves(border_edges(triangles, np.flatnonzero(inside), np.flatnonzero(~inside)), vertices)
    assert vertices[upper[0], 0] == vertices[lower[0], 0] == 2.0
    assert vertices[upper[-1], 0] == vertices[lower[-1], 0] == -2.0
    assert vertices[upper, 1].max() == 4.0
    assert vertices[lower, 1].min() == 2.0


def test_folds_sink_the_line_and_raise_its_banks() -> None:
    x = np.linspace(-10, 10, 201)
    vertices = np.stack([x, np.zeros_like(x), np.zeros_like(x)], axis=1)
    normals = np.tile([0.0, 0.0, 1.0], (201, 1))
    moved = Furrow(((0.0, -20.0, 0.0), (0.0, 20.0, 0.0)), 1.0, 2.0).field(vertices, normals)
    assert moved[100, 2] == pytest.approx(-1.0)
    assert moved[:, 2].max() > 0.2
    assert np.abs(moved[[0, -1], 2]).max() < 0.01
    push = Bump((0.0, 0.0, 0.0), (2.0, 2.0, 2.0), (0.0, 3.0, 0.0)).field(vertices, normals)
    assert push[100] == pytest.approx([0.0, 3.0, 0.0])
    assert np.abs(push[0]).max() < 1e-4


@pytest.mark.parametrize("upper", [True, False])
def test_teeth_have_the_measures_of_human_ones(upper: bool) -> None:
    row = dentition(upper)
    arch, teeth = (UPPER_ARCH, UPPER) if upper else (LOWER_ARCH, LOWER)
    np.testing.assert_allclose(row.vertices[row.mirror] * [-1, 1, 1], row.vertices, atol=1e-6)
    crowns = np.unique(row.triangles[row.materials == MATERIALS.index("teeth")])
    points = row.vertices[crowns]
    edge = points[:, 1].min() if upper else points[:, 1].max()
    assert abs(edge - arch.edge_mm) < 0.6
    assert abs(np.ptp(points[:, 0]) - (62 if upper else 56)) < 4
    assert points[:, 2].max() < arch.front_mm + 0.8
    first = row.vertices[: 6 * 7]  # the right central incisor
    assert abs(np.ptp(first[:, 0]) - teeth[0].width_mm) < 0.4
    assert abs(np.ptp(first[:, 1]) - 1.14 * teeth[0].height_mm) < 0.5
    gums = np.unique(row.triangles[row.materials == MATERIALS.index("gums")])
    sign = 1 if upper else -1
    assert sign * row.vertices[gums, 1].mean() > sign * points[:, 1].mean()


def test_the_bite_has_overbite_and_overjet() -> None:
    assert LOWER_ARCH.edge_mm - UPPER_ARCH.edge_mm == pytest.approx(2.0)
    assert UPPER_ARCH.front_mm - LOWER_ARCH.front_mm == pytest.approx(2.3)
