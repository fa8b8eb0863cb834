"""Heads turned away from the photo's pose."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from fastface import Affect, Engine, ops
from fastface.binding import CULL_BACKFACES
from fastface.camera import FLIP, angles_deg
from fastface.errors import BadAffect
from fastface.fitting import FaceFitter
from fastface.head_pose import HeadPose, poses_of_action_units, rotation_of_pose, turned
from fastface.reference import PAINTED
from fastface.rig import RigBuilder

Image = NDArray[np.uint8]
HAPPY = Affect.expression("happy", 0.7)


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine()


@pytest.mark.parametrize(
    ("pose", "angles"),
    [
        ((20, 0, 0, 0), (20, 0, 0)),
        ((0, 15, 0, 0), (0, 15, 0)),
        ((0, 0, -10, 0), (0, 0, -10)),
        ((9, 8, 7, 60), (9, 8, 7)),
    ],
)
def test_a_pose_turns_a_facing_head_to_its_angles(pose: tuple[float, ...], angles: tuple[float, ...]) -> None:
    turned = angles_deg(rotation_of_pose(np.array(pose, float)) @ FLIP)
    np.testing.assert_allclose(turned, angles, atol=1e-9)


def test_what_is_out_of_reach_or_no_number_is_refused() -> None:
    for wrong in (90.0, np.nan, np.inf, "left", None, True):
        with pytest.raises(BadAffect, match="yaw_deg"):
            HeadPose(yaw_deg=wrong)  # type: ignore[arg-type]


def test_opposite_units_of_the_head_cancel() -> None:
    poses = poses_of_action_units(("AU12", "AU51", "AU52", "AU57"), np.array([[1.0, 0.5, 0.5, 1.0]]))
    np.testing.assert_allclose(poses, [[0, 0, 0, 60]])


def test_a_turned_frame_is_where_its_labels_say(engine: Engine, portrait: Callable[..., Image]) -> None:
    """The landmark network finds the turned face there; a fit to what is half stretched photo is less sure
    of the angle."""
    face = engine.fit(portrait("134", 512, 512))
    for pose in (HeadPose(yaw_deg=20), HeadPose(yaw_deg=-20), HeadPose(pitch_deg=-12), HeadPose(roll_deg=15)):
        frame, labels = engine.render(face, HAPPY, pose=pose), engine.labels(face, HAPPY, pose=pose)
        again = engine.fit(frame)
        assert abs(again.yaw_deg - labels.pose.yaw_deg) < 9
        assert abs(again.pitch_deg - labels.pose.pitch_deg) < 6
        assert abs(again.roll_deg - labels.pose.roll_deg) < 3
        off = np.linalg.norm(again.landmarks_px - labels.landmarks478_px, axis=1)
        assert off.mean() < 0.04 * face.eye_distance_px


def test_a_head_that_does_not_turn_is_the_photo(engine: Engine, portrait: Callable[..., Image]) -> None:
    face = engine.fit(portrait("042", 256, 256))
    assert (engine.render(face, pose=HeadPose()) == face.photo).all()
    path = Affect.path([(0, Affect.aus({"AU51": 0.0})), (0.2, Affect.aus({"AU51": 1.0}))], fps=10)
    frames = list(engine.stream(face, path))
    assert (frames[0].image == face.photo).all()
    yaws = [frame.labels.pose.yaw_deg for frame in frames]
    np.testing.assert_allclose(np.diff(yaws), 15, atol=1)
    assert frames[2].labels.aus == {"AU51": 1.0}
    np.testing.assert_array_equal(engine.render(face, Affect.aus({"AU51": 1.0})), frames[2].image)


def test_a_tuple_is_no_pose(engine: Engine, portrait: Callable[..., Image]) -> None:
    face = engine.fit(portrait("042", 128, 128))
    with pytest.raises(BadAffect, match="HeadPose"):
        engine.render(face, pose=(30, 0, 0))  # type: ignore[arg-type]


def test_outside_the_mask_the_photo_stays(engine: Engine, portrait: Callable[..., Image]) -> None:
    face = engine.fit(portrait("042", 384, 384))
    pose = HeadPose(yaw_deg=15, forward_mm=30)
    frame, mask = engine.render(face, HAPPY, pose=pose), engine.mask(face, HAPPY, pose=pose)
    assert 0.05 < mask.mean() < 1
    assert (frame[mask == 0] == face.photo[mask == 0]).all()


def test_batches_and_single_frames_agree(engine: Engine, portrait: Callable[..., Image]) -> None:
    face = engine.fit(portrait("042", 256, 256))
    affects = [HAPPY, Affect.neutral(), Affect.expression("sad")]
    pose = HeadPose(yaw_deg=-10, pitch_deg=5)
    batch = engine.render_batch(face, affects, pose=pose)
    for affect, frame in zip(affects, batch, strict=True):
        np.testing.assert_array_equal(engine.render(face, affect, pose=pose), frame)


@pytest.mark.parametrize("yaw_deg", [-30.0, 30.0])
def test_the_inside_of_a_closed_mouth_does_not_show_past_the_jaw(
    engine: Engine, portrait: Callable[..., Image], yaw_deg: float
) -> None:
    face = engine.fit(portrait("005", 512, 512))
    rig = RigBuilder(FaceFitter(engine.model)).build(face.fit, face.photo, face.landmarks_px, turns=True)
    assert rig.lead is not None
    moved = turned(rig.neutral, HeadPose(yaw_deg=yaw_deg).row(), rig.lead.pivot_mm)
    screen = np.concatenate(
        [moved[:, :2] * (rig.camera[0] / moved[:, 2:]) + rig.camera[1:], moved[:, 2:]], axis=1
    )
    seen = ops.rasterize(
        screen[None].astype(np.float32),
        rig.shading.triangles,
        rig.window.height,
        rig.window.width,
        cull_backfaces=CULL_BACKFACES,
    ).triangle_id
    assert (seen >= 0).mean() > 0.1
    assert (rig.shading.layer[seen[seen >= 0]] == PAINTED).sum() < 5
