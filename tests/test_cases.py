"""The cases that every device is held to: that they are what their names say, by the definition alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from cases import blend_cases, masks, rasterize_cases
from devices import opened

from fastface import reference


def drawn(name: str) -> Any:
    case = next(case for case in rasterize_cases() if case.name == name)
    return reference.rasterize(**case.arguments, depth=True)


def test_triangles_that_share_edges_cover_every_pixel_exactly_once() -> None:
    ids = drawn("each alone").triangle_id
    own = np.arange(len(ids))[:, None, None]
    assert ((ids == own).sum(axis=0) == 1).all()
    assert set(np.unique(ids[ids != own])) == {-1}


def test_of_equal_depths_the_first_triangle_wins_and_the_nearer_over_all() -> None:
    case = next(case for case in rasterize_cases() if case.name == "stack").arguments
    ids = drawn("stack").triangle_id
    assert set(np.unique(ids)) == {-1, 4}  # 4 and 5 are the nearer one
    screen, triangles = case["screen"], case["triangles"][:4]
    same = reference.rasterize(screen, triangles, case["height"], case["width"]).triangle_id
    assert set(np.unique(same)) == {-1, 0}


def test_slivers_draw_what_they_cover_and_nothing_without_area_does() -> None:
    ids = drawn("slivers").triangle_id
    assert len(np.unique(ids)) > 20
    assert not ((ids >= 64) & (ids < 128)).any()  # corners that coincide


def test_what_lies_outside_or_behind_the_camera_is_not_drawn() -> None:
    inside, behind = drawn("outside").triangle_id
    assert set(np.unique(inside)) == {4, 7}  # the one inside and the one around
    assert set(np.unique(behind)) == {-1}


def test_masks_touch_every_border_and_stand_alone_in_a_pixel() -> None:
    found = masks()
    for name in ("whole image", "every border", "every corner"):
        mask = found[name]
        assert all(edge.any() for edge in (mask[0], mask[-1], mask[:, 0], mask[:, -1]))
    for name in ("one pixel", "islands", "every corner", "checkerboard"):
        mask = np.pad(found[name], 1)
        beside = mask[:-2, 1:-1] + mask[2:, 1:-1] + mask[1:-1, :-2] + mask[1:-1, 2:]
        assert found[name].any()
        assert not (found[name] & (beside > 0)).any()
    assert not found["empty"].any()
    assert {case.name.split(",")[0] for case in blend_cases()} >= set(found)


def test_a_gpu_that_is_required_is_no_reason_to_skip(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("devices.cuda_problem", lambda: "no driver")
    monkeypatch.delenv("FASTFACE_REQUIRE_CUDA", raising=False)
    with pytest.raises(pytest.skip.Exception, match="no driver"):
        opened("cuda")
    monkeypatch.setenv("FASTFACE_REQUIRE_CUDA", "1")
    with pytest.raises(pytest.fail.Exception, match="FASTFACE_REQUIRE_CUDA=1, but no driver"):
        opened("cuda")
    assert opened("emulated").kind == "emulated"
