"""The quality figures against cases whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks import metrics


@pytest.fixture
def mesh() -> NDArray[np.float64]:
    """(478, 3) scattered points, outer eye corners exactly 200 px apart in the picture."""
    points = np.random.default_rng(3).uniform(0.0, 500.0, (478, 3))
    points[metrics.RIGHT_EYE_OUTER] = (150.0, 200.0, 10.0)
    points[metrics.LEFT_EYE_OUTER] = (350.0, 200.0, -10.0)
    return points


def turned(points: NDArray[np.float64], degrees: tuple[float, float, float]) -> NDArray[np.float64]:
    """Rotated about x, y and z, grown by a fifth and shifted."""
    for axis, degree in enumerate(degrees):
        c, s = np.cos(np.radians(degree)), np.sin(np.radians(degree))
        i, j = [(1, 2), (2, 0), (0, 1)][axis]
        rotation = np.eye(3)
        rotation[[i, i, j, j], [i, j, i, j]] = c, -s, s, c
        points = points @ rotation.T
    return np.asarray(1.2 * points + np.array([30.0, -20.0, 5.0]))


def test_eye_distance_leaves_depth_out_and_refuses_coincidence(mesh: NDArray[np.float64]) -> None:
    assert metrics.outer_eye_distance_px(mesh) == 200.0
    mesh[metrics.LEFT_EYE_OUTER, :2] = mesh[metrics.RIGHT_EYE_OUTER, :2]
    with pytest.raises(ValueError, match="apart"):
        metrics.outer_eye_distance_px(mesh)


def test_error_summary_is_per_cent_of_the_eye_distance() -> None:
    errors = np.full(478, 1.0)
    errors[list(metrics.LIPS)] = 3.0
    summary = metrics.summarise_errors(errors, 200.0)
    lips = len(metrics.LIPS)
    assert lips == len(set(metrics.LIPS)) == 40
    assert summary.mean == pytest.approx(0.5 * (478 - lips + 3 * lips) / 478)
    assert (summary.lips_mean, summary.p95, summary.maximum) == pytest.approx((1.5, 1.5, 1.5))
    with pytest.raises(ValueError, match=r"\(478,\)"):
        metrics.summarise_errors(errors[:468], 200.0)


def test_head_motion_is_no_displacement(mesh: NDArray[np.float64]) -> None:
    moved = metrics.displacement_percent(mesh, turned(mesh, (7.0, -12.0, 20.0)))
    assert np.abs(moved).max() < 1e-9
    flat = turned(np.column_stack([mesh[:, :2], np.zeros(478)]), (0.0, 0.0, 33.0))[:, :2]
    assert np.abs(metrics.displacement_percent(mesh[:, :2], flat)).max() < 1e-9


def test_alignment_never_mirrors(mesh: NDArray[np.float64]) -> None:
    mirrored = mesh * np.array([-1.0, 1.0, 1.0])
    assert np.abs(metrics.aligned(mirrored, mesh) - mesh).max() > 50.0


def test_lip_corner_travel_of_a_known_motion(mesh: NDArray[np.float64]) -> None:
    smiling = mesh.copy()
    smiling[metrics.RIGHT_LIP_CORNER, :2] += (-6.0, -8.0)
    smiling[metrics.LEFT_LIP_CORNER, :2] += (12.0, -16.0)
    displacement = metrics.displacement_percent(mesh, turned(smiling, (3.0, 4.0, 5.0)))
    # 10 and 20 px of 200 px: 5 % and 10 %.
    assert metrics.lip_corner_travel(displacement) == pytest.approx(7.5)


def test_field_correlation_sees_direction_not_size() -> None:
    field = np.random.default_rng(5).normal(size=(478, 2))
    rows = metrics.MOUTH_AND_CHEEKS
    assert metrics.field_correlation(field, 3.0 * field) == pytest.approx(1.0)
    assert metrics.field_correlation(field, -field, rows) == pytest.approx(-1.0)
    elsewhere = field.copy()
    elsewhere[[i for i in range(478) if i not in rows]] = 0.0
    assert metrics.field_correlation(field, elsewhere, rows) == pytest.approx(1.0)
    assert metrics.field_correlation(field, elsewhere) < 0.7
    assert np.isnan(metrics.field_correlation(field, np.zeros((478, 2))))


def test_share_counts_failures_as_misses() -> None:
    assert metrics.share_at_least([0.9, 0.8, 0.79, float("nan")], 0.8) == 0.5
    with pytest.raises(ValueError, match="at least one"):
        metrics.share_at_least([], 0.8)


@pytest.mark.parametrize(
    ("probabilities", "expected"),
    [
        ([0.0, 0.4, 0.9], True),
        ([0.0, 0.999, 0.995], True),  # within the slack at the saturated end
        ([0.0, 0.9, 0.8], False),
        ([0.5, 0.5, 0.5], False),  # a constant answer is not a rise
        ([0.0, float("nan"), 0.9], False),
    ],
)
def test_rises(probabilities: list[float], expected: bool) -> None:
    assert metrics.rises(probabilities, slack=0.02) is expected


def test_changes_outside_the_mask_are_counted_in_pixels() -> None:
    photo = np.zeros((4, 5, 3), np.uint8)
    mask = np.zeros((4, 5), np.bool_)
    mask[1:3, 1:3] = True
    frame = photo.copy()
    frame[1, 1] = 200
    assert metrics.changed_outside(photo, frame, mask) == 0
    frame[0, 0, 2] = 1
    frame[3, 4] = 9
    assert metrics.changed_outside(photo, frame, mask) == 2
    assert metrics.changed_share(photo, frame) == pytest.approx(3 / 20)
    with pytest.raises(ValueError, match="agree"):
        metrics.changed_outside(photo, frame, mask[:2])
