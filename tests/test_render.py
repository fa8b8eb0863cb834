"""A frame in one go against the four ops one after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from fastface import _core, ops
from fastface.affect import Affect
from fastface.binding import CULL_BACKFACES, Binding, bind
from fastface.engine import Engine, FittedFace
from fastface.errors import BadArgument
from fastface.rendering import FaceRenderer

Image = NDArray[np.uint8]
Float32 = NDArray[np.float32]
ASKED = (
    Affect.expression("happy"),
    Affect.expression("surprise"),
    Affect.expression("fear", 0.5),
    Affect.expression("sad", 0.02),
    Affect.aus({"AU43": 1.0}),
    Affect.neutral(),
    Affect.aus({"AU1": 1.0, "AU4": 1.0, "AU9": 1.0}),
)


@pytest.fixture(params=_core.available_isas())
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    before = _core.isa()
    _core.select_isa(request.param)
    yield request.param
    _core.select_isa(before)


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine(threads=1)


@pytest.fixture(scope="module")
def face(engine: Engine, portrait: Callable[..., Image]) -> FittedFace:
    """In the corner of a larger photo, so that its window is a part of it."""
    photo = np.full((400, 500, 3), 90, np.uint8)
    photo[150:, 250:] = portrait("042", 250, 250)
    photo[:150] = cv2.resize(photo[150:], (500, 150))
    return engine.fit(photo)


@pytest.fixture(scope="module")
def bound(engine: Engine, face: FittedFace) -> Binding:
    rig = engine._rigs.build(face.fit, face.photo, face.landmarks_px)
    return bind(rig, face.photo, face.expression, engine.model.expression_names)


@pytest.fixture(scope="module")
def rows(engine: Engine) -> Float32:
    return np.stack([affect.coefficients(engine.model.expression_names) for affect in ASKED])


def step_by_step(bound: Binding, rows: Float32) -> tuple[Image, Image]:
    """Frames and masks by deform, rasterize, shade and blend."""
    renderer = FaceRenderer(bound, 1)
    deltas = renderer.deltas(rows)
    mesh = ops.deform(bound.neutral, bound.basis, deltas, bound.camera)
    size = bound.window.height, bound.window.width
    found = ops.rasterize(mesh.screen, bound.shading.triangles, *size, cull_backfaces=CULL_BACKFACES)
    controls = renderer.controls(deltas)
    shifts = len(bound.shading.shift_px)
    controls[:, shifts : shifts + 3] = renderer.shares(mesh.screen)
    source, mask = ops.shade(*mesh, found.triangle_id, found.bary, controls, bound.shading)
    mask[~deltas.any(axis=1)] = 0
    rows_px, columns_px = bound.window.slices
    window = np.ascontiguousarray(bound.photo[rows_px, columns_px])
    images = np.repeat(bound.photo[None], len(rows), axis=0)
    images[:, rows_px, columns_px] = ops.blend(window, source, mask).image
    masks = np.zeros(images.shape[:3], np.uint8)
    masks[:, rows_px, columns_px] = mask
    return images, masks


def test_a_frame_in_one_go_is_what_the_ops_make_of_it(bound: Binding, rows: Float32, isa: str) -> None:
    wanted, wanted_mask = step_by_step(bound, rows)
    assert 0.02 < wanted_mask[0].mean() < 0.9
    renderer = FaceRenderer(bound, 1)
    got = np.zeros_like(wanted)
    renderer.render(rows, got)
    # Sums that are fused in another way round a grey level in ten thousand to the other side.
    difference = np.abs(got.astype(np.int16) - wanted)
    assert difference.max() <= 1
    assert (difference > 0).mean() < 1e-4
    mask = renderer.mask(rows)
    assert (mask != wanted_mask).mean() < 1e-4
    outside = mask == 0
    np.testing.assert_array_equal(got[outside], np.broadcast_to(bound.photo, got.shape)[outside])
    np.testing.assert_array_equal(got[5], bound.photo)  # neutral
    assert not mask[5].any()


def test_frames_depend_neither_on_threads_nor_on_their_batch(bound: Binding, rows: Float32, isa: str) -> None:
    whole = np.zeros((len(rows), *bound.photo.shape), np.uint8)
    FaceRenderer(bound, 1).render(rows, whole)
    for threads in (2, 3, 8):
        renderer = FaceRenderer(bound, threads)
        again = np.full_like(whole, 255)
        renderer.render(rows, again)
        np.testing.assert_array_equal(again, whole)
        for index in range(len(rows)):
            one = np.full_like(whole[:1], 7)
            renderer.render(rows[index : index + 1], one)
            np.testing.assert_array_equal(one[0], whole[index])
    empty = whole[:0].copy()
    FaceRenderer(bound, 2).render(rows[:0], empty)


def test_rendering_keeps_its_memory(bound: Binding, rows: Float32) -> None:
    renderer = FaceRenderer(bound, 2)
    out = np.zeros((len(rows), *bound.photo.shape), np.uint8)
    renderer.render(rows, out)
    (workspace,) = renderer._idle
    before = workspace.nbytes
    for some in (len(rows), 1, 3):
        renderer.render(rows[:some], out[:some])
        assert renderer._idle == [workspace]
    assert workspace.nbytes == before


def test_a_window_beyond_the_photo_is_refused(bound: Binding, rows: Float32) -> None:
    renderer = FaceRenderer(bound, 1)
    out = np.zeros((1, *bound.photo.shape), np.uint8)
    for place, value in ((1, 400), (2, -1), (0, 10**6)):
        numbers: list[Any] = list(renderer._numbers)
        numbers[place] = value
        renderer._numbers = tuple(numbers)
        with pytest.raises(BadArgument, match="must fit each other"):
            renderer.render(rows[:1], out)
        renderer._numbers = FaceRenderer(bound, 1)._numbers
