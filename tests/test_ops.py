"""The compiled ops against their NumPy definition, on every instruction set, with one and two threads."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from dataclasses import replace
from operator import attrgetter
from typing import Any

import numpy as np
import pytest
from cases import (
    BLEND_TOLERANCE,
    POSITION_TOLERANCE_MM,
    SCREEN_TOLERANCE_PX,
    SHADE_TIES,
    SHADE_TOLERANCE,
    Case,
    blend_cases,
    blend_images,
    deform_cases,
    grid_mesh,
    masks,
    rasterize_cases,
    shade_cases,
    shade_scene,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from scipy.sparse import csc_matrix
from scipy.sparse.linalg import spsolve

from fastface import _core, ops, reference
from fastface.errors import BadArgument

ISAS = _core.available_isas()


@pytest.fixture(params=ISAS)
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    before = _core.isa()
    _core.select_isa(request.param)
    yield request.param
    _core.select_isa(before)


def same(a: Any, b: Any) -> None:
    np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


# ---- against the definition ------------------------------------------------------------------------------


@pytest.mark.parametrize("case", deform_cases(), ids=attrgetter("name"))
def test_deform(case: Case, isa: str) -> None:
    wanted = reference.deform(**case.arguments)
    got = ops.deform(**case.arguments)
    np.testing.assert_allclose(got.positions, wanted.positions, rtol=0, atol=POSITION_TOLERANCE_MM)
    np.testing.assert_allclose(got.screen, wanted.screen, rtol=1e-4, atol=SCREEN_TOLERANCE_PX)
    same(got.screen[..., 2] == 0, wanted.screen[..., 2] == 0)
    threaded = ops.deform(**case.arguments, threads=2)
    same(got.positions, threaded.positions)
    same(got.screen, threaded.screen)


@pytest.mark.parametrize("case", rasterize_cases(), ids=attrgetter("name"))
def test_rasterize(case: Case, isa: str) -> None:
    wanted = reference.rasterize(**case.arguments, depth=True)
    for threads in (1, 2):
        got = ops.rasterize(**case.arguments, depth=True, threads=threads)
        for part, wanted_part in zip(got, wanted, strict=True):
            same(part, wanted_part)
        without_depth = ops.rasterize(**case.arguments, threads=threads)
        assert without_depth.depth is None
        same(without_depth.triangle_id, wanted.triangle_id)


@pytest.mark.parametrize("case", shade_cases(), ids=attrgetter("name"))
def test_shade(case: Case, isa: str) -> None:
    wanted_source, wanted_mask = reference.shade(**case.arguments)
    got = ops.shade(**case.arguments)
    agreed = got.mask == wanted_mask
    assert (~agreed).sum() <= SHADE_TIES * agreed.size
    assert set(np.unique(got.mask)) <= {0, 1}
    np.testing.assert_allclose(got.source[agreed], wanted_source[agreed], rtol=0, atol=SHADE_TOLERANCE)
    photo = np.broadcast_to(case.arguments["shading"].photo[..., :3], got.source.shape)
    same(got.source[got.mask == 0], photo[got.mask == 0])
    prepared = ops.prepare_shading(case.arguments["shading"])
    for threads in (1, 2, 3):
        again = ops.shade(**{**case.arguments, "shading": prepared}, threads=threads)
        same(again.source, got.source)
        same(again.mask, got.mask)


@pytest.mark.parametrize("case", blend_cases(), ids=attrgetter("name"))
def test_blend(case: Case, isa: str) -> None:
    wanted = reference.blend(**case.arguments, exact=True)
    got = ops.blend(**case.arguments, exact=True)
    assert got.exact is not None
    assert wanted.exact is not None
    outside = case.arguments["mask"] == 0
    photo = np.broadcast_to(case.arguments["photo"], got.image.shape)
    same(got.image[outside], photo[outside])
    np.testing.assert_allclose(got.exact, wanted.exact, rtol=0, atol=BLEND_TOLERANCE)
    rounded = np.floor(np.clip(got.exact, 0, 255) + np.float32(0.5)).astype(np.uint8)
    same(got.image, rounded)
    threaded = ops.blend(**case.arguments, threads=2)
    same(got.image, threaded.image)


# ---- deform ----------------------------------------------------------------------------------------------


def test_a_frame_does_not_depend_on_its_batch(isa: str) -> None:
    arguments = deform_cases()[5].arguments
    whole = ops.deform(**arguments)
    for b in range(len(arguments["coefficients"])):
        one = {
            **arguments,
            "coefficients": arguments["coefficients"][b : b + 1],
            "camera": arguments["camera"][b : b + 1],
        }
        same(ops.deform(**one).screen[0], whole.screen[b])


def test_no_motion_gives_the_neutral_bit_for_bit(isa: str) -> None:
    arguments = deform_cases()[0].arguments
    still = np.zeros_like(arguments["coefficients"])
    same(ops.deform(**{**arguments, "coefficients": still}).positions[0], arguments["neutral"])


def test_packing_marks_the_blocks_that_do_not_move() -> None:
    basis = np.zeros((2, 200, 3), np.float32)
    basis[0, 70] = 1.0
    basis[1, 199] = 1e-4
    same(ops.pack_basis(basis).moves.T, [[0, 1, 0, 0], [0, 0, 0, 1]])
    same(ops.pack_basis(basis, drop_below_mm=1e-3).moves.T, [[0, 1, 0, 0], [0, 0, 0, 0]])


# ---- rasterize -------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    columns=st.integers(2, 9),
    rows=st.integers(2, 9),
    jitter=st.sampled_from([0.0, 0.3]),
    shift=arrays(np.float32, 2, elements=st.sampled_from([0.0, 0.25, 0.5, 1 / 256, 0.501953125])),
    flip=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_shared_edges_cover_every_pixel_exactly_once(
    columns: int, rows: int, jitter: float, shift: NDArray[np.float32], flip: bool, seed: int
) -> None:
    height, width = 24, 31
    screen, triangles = grid_mesh(columns, rows, width + 8.0, height + 8.0, jitter=jitter, seed=seed)
    screen[:, :2] += shift - 4
    if flip:
        triangles = triangles[:, ::-1].copy()
    count = np.zeros((height, width), int)
    for triangle in triangles:
        count += ops.rasterize(screen[None], triangle[None], height, width).triangle_id[0] == 0
    assert (count == 1).all()
    together = ops.rasterize(screen[None], triangles, height, width)
    assert (together.triangle_id >= 0).all()


@settings(max_examples=60, deadline=None)
@given(
    corners=arrays(
        np.float32,
        (1, 6, 3),
        elements=st.floats(-200, 300, width=32) | st.sampled_from([np.nan, np.inf, 1e9, -1e20, 16.5, 0.0]),
    ),
    height=st.integers(0, 20),
    width=st.integers(0, 20),
    cull=st.booleans(),
)
def test_any_triangle_is_safe_and_right(
    corners: NDArray[np.float32], height: int, width: int, cull: bool
) -> None:
    triangles = np.array([[0, 1, 2], [3, 4, 5], [0, 0, 1]], np.int32)
    arguments = {"height": height, "width": width, "cull_backfaces": cull, "depth": True}
    got = ops.rasterize(corners, triangles, **arguments)  # type: ignore[arg-type]
    wanted = reference.rasterize(corners, triangles, **arguments)  # type: ignore[arg-type]
    same(got.triangle_id, wanted.triangle_id)
    np.testing.assert_allclose(got.bary, wanted.bary, atol=1e-4)
    hit = got.triangle_id >= 0
    weights = got.bary[hit]
    assert (weights >= 0).all()
    assert (weights.sum(axis=1) <= 1 + 1e-4).all()


def test_barycentrics_lead_back_to_the_pixel(isa: str) -> None:
    case = next(c for c in rasterize_cases() if c.name == "sheet")
    screen, triangles = case.arguments["screen"], case.arguments["triangles"]
    raster = ops.rasterize(**case.arguments, depth=True)
    assert raster.depth is not None
    row, column = np.nonzero(raster.triangle_id[0] >= 0)
    corners = screen[0, triangles[raster.triangle_id[0, row, column]]]
    b1, b2 = raster.bary[0, row, column].T[:, :, None]
    point = (1 - b1 - b2) * corners[:, 0] + b1 * corners[:, 1] + b2 * corners[:, 2]
    # Corners were rounded to 1/256 px.
    np.testing.assert_allclose(point[:, :2], np.stack([column, row], 1) + 0.5, atol=1 / 256)
    np.testing.assert_allclose(point[:, 2], raster.depth[0, row, column], rtol=1e-5)


def test_equal_depths_go_to_the_lowest_index_and_nearer_ones_win(isa: str) -> None:
    stack = next(c for c in rasterize_cases() if c.name == "stack").arguments
    nearest = ops.rasterize(**stack).triangle_id
    assert set(np.unique(nearest)) == {-1, 4}
    level = ops.rasterize(**{**stack, "triangles": stack["triangles"][:4]}).triangle_id
    assert set(np.unique(level)) == {-1, 0}


def test_culling_drops_what_is_clockwise_to_the_viewer() -> None:
    screen = np.array(
        [[[1, 9, 5], [9, 9, 5], [5, 1, 5]]], np.float32
    )  # y down: counter-clockwise on the screen
    front, back = np.array([[0, 1, 2]], np.int32), np.array([[0, 2, 1]], np.int32)
    assert (ops.rasterize(screen, front, 10, 10, cull_backfaces=True).triangle_id == 0).any()
    assert (ops.rasterize(screen, back, 10, 10, cull_backfaces=True).triangle_id == -1).all()


# ---- blend -----------------------------------------------------------------------------------------------


def solved_exactly(
    photo: NDArray[np.uint8], source: NDArray[np.float32], mask: NDArray[np.uint8]
) -> NDArray[Any]:
    """The masked Poisson equation as written in csrc/ops/blend.h, by a sparse direct solver."""
    number = np.full(mask.shape, -1)
    number[mask != 0] = np.arange((mask != 0).sum())
    entries: list[tuple[int, int, float]] = []
    right = np.zeros(((mask != 0).sum(), 3))
    for y, x in np.argwhere(mask != 0):
        p, degree = number[y, x], 0
        for qy, qx in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
            if not (0 <= qy < mask.shape[0] and 0 <= qx < mask.shape[1]):
                continue
            degree += 1
            right[p] += source[y, x].astype(float) - source[qy, qx]
            if mask[qy, qx]:
                entries.append((p, number[qy, qx], -1.0))
            else:
                right[p] += photo[qy, qx]
        entries.append((p, p, float(degree)))
    rows, columns, values = zip(*entries, strict=True)
    solution = photo.astype(float)
    solution[mask != 0] = spsolve(csc_matrix((values, (rows, columns))), right)
    return solution


@pytest.mark.parametrize("name", ["disc", "comb", "two rooms", "all but one", "speckle", "snake"])
def test_blend_solves_the_stated_equation(name: str) -> None:
    mask = masks(40)[name]
    for kind in ("largest jumps", "smooth"):
        photo, source = blend_images(kind, 40)
        got = ops.blend(photo, source[None], mask[None], exact=True).exact
        assert got is not None
        np.testing.assert_allclose(got[0], solved_exactly(photo, source, mask), rtol=0, atol=BLEND_TOLERANCE)


def test_blend_of_the_photo_itself_is_the_photo(isa: str) -> None:
    photo, _ = blend_images("smooth")
    for mask in masks().values():
        same(ops.blend(photo, photo[None].astype(np.float32), mask[None]).image[0], photo)


def test_shaded_frames_do_not_depend_on_their_batch(isa: str) -> None:
    scene = shade_scene(30, 37, frames=5)
    whole = ops.shade(**scene, threads=2)
    for b in range(5):
        one = {k: part if k == "shading" else part[b : b + 1] for k, part in scene.items()}
        got = ops.shade(**one)
        same(got.source[0], whole.source[b])
        same(got.mask[0], whole.mask[b])


def test_a_face_at_rest_is_its_photo_bit_for_bit(isa: str) -> None:
    scene = shade_scene(40, 150, motion_px=0.0)
    scene["controls"] = np.zeros_like(scene["controls"])
    got = ops.shade(**scene)
    assert (scene["triangle_id"] >= 0).mean() > 0.5
    assert not got.mask.any()
    same(got.source[0], scene["shading"].photo[..., :3])


@pytest.mark.parametrize("control", range(7))
def test_every_control_of_shade_shows(control: int) -> None:
    scene = shade_scene(40, 60, motion_px=0.0)
    scene["controls"] = np.zeros_like(scene["controls"])
    scene["controls"][0, control] = 1.0
    got = ops.shade(**scene)
    changed = np.abs(got.source - scene["shading"].photo[..., :3]).max(axis=-1) > 1
    assert changed.sum() > 20
    assert got.mask[changed].all()


@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf, 1e30, -1e30])
def test_shade_bears_whatever_comes(odd: float, isa: str) -> None:
    rng = np.random.default_rng(3)
    plain = shade_scene(30, 41, frames=2)
    prepared = ops.prepare_shading(plain["shading"])
    photo = plain["shading"].photo[..., :3]
    for name in ("positions", "screen", "bary", "controls"):
        scene = {**plain, name: plain[name].copy(), "shading": prepared}
        scene[name][rng.random(scene[name].shape) < 0.2] = odd
        got = ops.shade(**scene)
        same(got.source[got.mask == 0], np.broadcast_to(photo, got.source.shape)[got.mask == 0])
    ids = plain["triangle_id"].copy()
    triangles = len(prepared.triangles)
    ids[rng.random(ids.shape) < 0.3] = rng.choice([triangles, 2**31 - 1, -2, -(2**31), triangles + 7])
    valid = (ids >= 0) & (ids < triangles)
    got = ops.shade(**{**plain, "triangle_id": ids, "shading": prepared})
    wanted = ops.shade(**{**plain, "triangle_id": np.where(valid, ids, -1).astype(np.int32)})
    same(got.source, wanted.source)
    same(got.mask, wanted.mask)


def test_a_shading_that_does_not_fit_is_refused() -> None:
    scene = shade_scene(20, 24)
    shading = scene["shading"]
    for changes, message in (
        ({"photo": shading.photo[..., :3]}, r"photo must be \(20, 24, 4\) uint8, got \(20, 24, 3\)"),
        ({"photo": np.asfortranarray(shading.photo)}, "photo must be C-contiguous"),
        ({"eyes": shading.eyes[1:]}, r"eyes must be \(20, 24, 4\)"),
        ({"triangles": shading.triangles + 1}, "triangles must lie in 0 … 479, got 1 … 480"),
        ({"triangles": shading.triangles.astype(np.int64)}, "int32"),
        ({"layer": shading.layer + np.uint8(1)}, "layer must lie in 0 … 3"),
        ({"fan_start": shading.fan_start[::-1].copy()}, "fan_start must rise"),
        ({"fans": shading.fans - 1}, "fans must lie in"),
        ({"lip_rim": shading.lip_rim[:, :1].copy()}, "lip_rim must have at least 2"),
        ({"light": np.full(9, np.nan, np.float32)}, "light must be finite"),
        ({"relief": 1.0}, r"relief must be \(480\) float32, got float"),
    ):
        with pytest.raises(BadArgument, match=r"^shade: ") as raised:
            ops.prepare_shading(shading._replace(**changes))
        assert raised.match(message)
    smaller = ops.prepare_shading(shade_scene(20, 23)["shading"])
    with pytest.raises(BadArgument, match="photo_rgb must be"):
        ops.shade(**{**scene, "shading": smaller})
    with pytest.raises(BadArgument, match="do not"):
        ops.shade(**{**scene, "shading": replace(ops.prepare_shading(shading), lit_faces=10**6)})


def test_blend_keeps_gradients_and_meets_the_photo() -> None:
    photo, source = blend_images("slight")
    mask = masks()["disc"]
    shifted = ops.blend(photo, (photo + np.float32(40))[None], mask[None]).image[0]
    same(shifted, photo)  # a constant offset disappears
    brightened = ops.blend(photo, source[None], mask[None], exact=True).exact
    assert brightened is not None
    assert np.abs(brightened[0] - source)[mask != 0].max() < 3.1  # no more than the jump around the mask


@settings(max_examples=40, deadline=None)
@given(
    mask=arrays(
        np.uint8,
        st.tuples(st.just(1), st.integers(1, 13), st.integers(1, 13)),
        elements=st.sampled_from([0, 1]),
    ),
    seed=st.integers(0, 1000),
)
def test_blend_any_mask(mask: NDArray[np.uint8], seed: int) -> None:
    rng = np.random.default_rng(seed)
    photo = rng.integers(0, 256, (*mask.shape, 3), dtype=np.uint8)
    source = rng.uniform(-50, 300, (*mask.shape, 3)).astype(np.float32)
    got = ops.blend(photo, source, mask, exact=True).exact
    wanted = reference.blend(photo, source, mask, exact=True).exact
    assert got is not None
    assert wanted is not None
    np.testing.assert_allclose(got, wanted, rtol=0, atol=BLEND_TOLERANCE)


def test_blend_bears_a_source_that_is_not_finite(isa: str) -> None:
    photo, source = blend_images("smooth")
    mask = masks()["disc"][None]
    broken = source.copy()
    broken[::5, ::3] = np.nan
    broken[1::7] = np.inf
    image = ops.blend(photo, broken[None], mask).image
    same(image[mask == 0], photo[None][mask == 0])
    assert (image[0][(mask[0] != 0) & np.isnan(broken[..., 0])] == 0).all()


def test_tighter_tolerance_is_kept() -> None:
    photo, source = blend_images("largest jumps")
    mask = masks()["disc"][None]
    wanted = reference.blend(photo, source[None], mask, exact=True, tolerance=1e-3).exact
    got = ops.blend(photo, source[None], mask, exact=True, tolerance=0.01).exact
    assert got is not None
    assert wanted is not None
    assert np.abs(got - wanted).max() < 0.02


# ---- what is refused -------------------------------------------------------------------------------------


def call(op: str, **changes: Any) -> Any:
    # Made when asked for: all of them take a tenth of a second.
    cases = {
        "deform": lambda: deform_cases()[1],
        "rasterize": lambda: rasterize_cases()[0],
        "shade": lambda: shade_cases()[0],
        "blend": lambda: blend_cases()[0],
    }
    return getattr(ops, op)(**{**cases[op]().arguments, **changes})


@pytest.mark.parametrize(
    ("op", "changes", "message"),
    [
        (
            "deform",
            {"coefficients": np.zeros((2, 16), np.float32)},
            r"coefficients must be \(2, 17\) float32.*\(2, 16\)",
        ),
        ("deform", {"coefficients": np.zeros((2, 17))}, r"coefficients must be .* got \(2, 17\) float64"),
        ("deform", {"coefficients": [[0.0] * 17]}, "coefficients must be an array"),
        ("deform", {"coefficients": np.zeros((2, 34), np.float32)[:, ::2]}, "not C-contiguous"),
        ("deform", {"camera": np.ones((5, 3), np.float32)}, r"camera must be \(2, 3\) or \(1, 3\)"),
        ("deform", {"neutral": np.zeros((9, 3), np.float32)}, "basis must have 9 vertices"),
        ("deform", {"basis": np.zeros((17, 333, 3))}, "float32 or float16, got .* float64"),
        ("deform", {"basis": np.full((17, 333, 3), np.nan, np.float32)}, "finite"),
        ("deform", {"threads": 0}, "threads must be at least 1"),
        ("deform", {"threads": "two"}, "threads must be an integer, got 'two'"),
        ("deform", {"near_mm": None}, "near_mm must be a number"),
        ("deform", {"workspace": object()}, "workspace must be a Workspace"),
        (
            "deform",
            {"out": (np.zeros((2, 333, 3)), np.zeros((2, 333, 3)))},
            r"positions must be \(2, 333, 3\) float32",
        ),
        ("rasterize", {"triangles": np.zeros((4, 3), np.int64)}, r"triangles must be \(F, 3\) int32.*int64"),
        ("rasterize", {"triangles": np.full((4, 3), 720, np.int32)}, "indices in"),
        ("rasterize", {"triangles": np.full((4, 3), -1, np.int32)}, "indices in"),
        ("rasterize", {"screen": np.zeros((1, 0, 3), np.float32)}, "indices in"),
        ("rasterize", {"screen": np.zeros((1, 720, 2), np.float32)}, "screen must be"),
        ("rasterize", {"height": 40000}, "height must be an integer in 0"),
        ("rasterize", {"width": -1}, "width must be"),
        ("rasterize", {"width": 3.5}, "width must be"),
        ("rasterize", {"screen": np.zeros((1, 720, 3), ">f4")}, "screen must be"),
        ("shade", {"positions": np.zeros((1, 479, 3), np.float32)}, r"screen must be \(1, 479, 3\)"),
        ("shade", {"bary": np.zeros((1, 40, 150, 3), np.float32)}, r"bary must be \(1, 40, 150, 2\)"),
        ("shade", {"triangle_id": np.zeros((1, 40, 150))}, "triangle_id must be .* int32.* float64"),
        ("shade", {"controls": np.zeros((1, 6), np.float32)}, r"controls must be \(1, 7\) float32"),
        ("shade", {"controls": np.zeros((2, 7), np.float32)}, r"controls must be \(1, C\)"),
        ("shade", {"shading": None}, "shading must be a Shading, got NoneType"),
        ("shade", {"threads": 0}, "threads must be at least 1"),
        ("blend", {"mask": np.zeros((1, 48, 48), bool)}, "mask must be .* uint8.* got .*bool"),
        ("blend", {"mask": np.zeros((1, 48, 47), np.uint8)}, "mask must be"),
        ("blend", {"photo": np.zeros((48, 48, 4), np.uint8)}, "photo must be"),
        ("blend", {"photo": np.zeros((2, 48, 48, 3), np.uint8)}, r"photo must be \(1, H, W, 3\)"),
        ("blend", {"source": np.zeros((1, 48, 48, 6), np.float32)[..., ::2]}, "C-contiguous"),
        ("blend", {"tolerance": 0.0}, "tolerance must be positive"),
        ("blend", {"tolerance": float("nan")}, "tolerance must be positive"),
    ],
)
def test_refusals_say_what_was_wanted_and_what_came(op: str, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(BadArgument, match=f"^{op}: |^pack_basis: ") as raised:
        call(op, **changes)
    assert raised.match(message)


def test_read_only_output_is_refused() -> None:
    out = ops.Blended(np.zeros((1, 48, 48, 3), np.uint8), None)
    out.image.flags.writeable = False
    with pytest.raises(BadArgument, match="read-only"):
        call("blend", out=out)


def test_unknown_instruction_set_is_refused() -> None:
    with pytest.raises(BadArgument, match=r"one of baseline.*got 'mmx'"):
        _core.select_isa("mmx")


# ---- memory and threads ----------------------------------------------------------------------------------


def test_outputs_are_written_in_place_and_the_workspace_stops_growing() -> None:
    workspace = ops.Workspace()
    for op in ("deform", "rasterize", "shade", "blend"):
        out = call(op, workspace=workspace)
        held = [None if part is None else part.copy() for part in out]
        for part in out:
            if part is not None:
                part.fill(1)
        size = workspace.nbytes
        again = call(op, out=out, workspace=workspace)
        assert workspace.nbytes == size
        for part, again_part, held_part in zip(out, again, held, strict=True):
            assert part is again_part
            if part is not None:
                same(part, held_part)


def test_stale_workspace_leaves_no_trace(isa: str) -> None:
    """Each op on memory that another one filled."""
    workspace = ops.Workspace()
    for size in (48, 17, 40):
        photo, source = blend_images("smooth", size)
        for name, mask in masks(size).items():
            call("rasterize", workspace=workspace)
            fresh = ops.blend(photo, source[None], mask[None], workspace=ops.Workspace()).image
            same(ops.blend(photo, source[None], mask[None], workspace=workspace).image, fresh)
            assert name


def test_threads_may_call_at_once() -> None:
    arguments = rasterize_cases()[3].arguments
    wanted = ops.rasterize(**arguments).triangle_id
    failures: list[Exception] = []

    def work() -> None:
        try:
            for _ in range(50):
                same(ops.rasterize(**arguments, threads=2).triangle_id, wanted)
        except Exception as error:
            failures.append(error)

    workers = [threading.Thread(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not failures


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_threads_work_after_fork() -> None:
    arguments = deform_cases()[3].arguments
    wanted = ops.deform(**arguments, threads=2).screen
    child = os.fork()
    if child == 0:
        try:
            ok = np.array_equal(ops.deform(**arguments, threads=2).screen, wanted)
        finally:
            os._exit(0 if ok else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
