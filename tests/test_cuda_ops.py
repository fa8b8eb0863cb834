"""The ops on devices against their NumPy definition: the same cases as on processors.

On a machine without a GPU the emulated device proves the CUDA schedules' indexing and maths. What it cannot
prove, races between threads and what a GPU's caches do, is left to ``fastface bench --gpu``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
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
from devices import KINDS, on, opened
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from fastface import _core, ops, reference
from fastface.device import Device, DeviceArray, DeviceWorkspace, open_device
from fastface.errors import BadArgument, ProviderUnavailable

ORDERS = (0, 1, 7)  # of blocks and threads, where they are emulated
EXAMPLES = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture(params=KINDS)
def device(request: pytest.FixtureRequest) -> Iterator[Device]:
    yield opened(request.param)
    _core.emulated_order(0)


def host(parts: Any) -> list[NDArray[Any] | None]:
    return [part.numpy() if isinstance(part, DeviceArray) else part for part in parts]


def repeatable(device: Device, op: Callable[..., Any], case: dict[str, Any], **more: Any) -> list[Any]:
    """What the op gives; the same bit for bit in any order of threads, whatever the memory held before."""
    arguments = on(device, case)
    first: list[Any] | None = None
    for order in ORDERS:
        _core.emulated_order(order)
        made = host(op(**arguments, **more, workspace=DeviceWorkspace(device)))
        if first is None:
            first = made
        for part, again in zip(first, made, strict=True):
            np.testing.assert_array_equal(part, again)
    assert first is not None
    return first


# ---- against the definition ------------------------------------------------------------------------------


@pytest.mark.parametrize("case", deform_cases(), ids=attrgetter("name"))
def test_deform(case: Case, device: Device) -> None:
    wanted = reference.deform(**case.arguments)
    positions, screen = repeatable(device, ops.deform, case.arguments)
    np.testing.assert_allclose(positions, wanted.positions, rtol=0, atol=POSITION_TOLERANCE_MM)
    np.testing.assert_allclose(screen, wanted.screen, rtol=1e-4, atol=SCREEN_TOLERANCE_PX)
    np.testing.assert_array_equal(screen[..., 2] == 0, wanted.screen[..., 2] == 0)


@pytest.mark.parametrize("case", rasterize_cases(), ids=attrgetter("name"))
def test_rasterize_bit_for_bit(case: Case, device: Device) -> None:
    wanted = reference.rasterize(**case.arguments, depth=True)
    got = repeatable(device, ops.rasterize, case.arguments, depth=True)
    for part, wanted_part in zip(got, wanted, strict=True):
        np.testing.assert_array_equal(part, wanted_part)
    without = repeatable(device, ops.rasterize, case.arguments)
    assert without[2] is None
    np.testing.assert_array_equal(without[0], wanted.triangle_id)


@pytest.mark.parametrize("case", shade_cases(), ids=attrgetter("name"))
def test_shade(case: Case, device: Device) -> None:
    wanted_source, wanted_mask = reference.shade(**case.arguments)
    source, mask = repeatable(device, ops.shade, case.arguments)
    agreed = mask == wanted_mask
    assert (~agreed).sum() <= SHADE_TIES * agreed.size
    np.testing.assert_allclose(source[agreed], wanted_source[agreed], rtol=0, atol=SHADE_TOLERANCE)
    photo = np.broadcast_to(case.arguments["shading"].photo[..., :3], source.shape)
    np.testing.assert_array_equal(source[mask == 0], photo[mask == 0])


@pytest.mark.parametrize("case", blend_cases(), ids=attrgetter("name"))
def test_blend(case: Case, device: Device) -> None:
    wanted = reference.blend(**case.arguments, exact=True)
    image, exact = repeatable(device, ops.blend, case.arguments, exact=True)
    assert wanted.exact is not None
    outside = case.arguments["mask"] == 0
    photo = np.broadcast_to(case.arguments["photo"], image.shape)
    np.testing.assert_array_equal(image[outside], photo[outside])
    np.testing.assert_allclose(exact, wanted.exact, rtol=0, atol=BLEND_TOLERANCE)
    rounded = np.floor(np.clip(exact, 0, 255) + np.float32(0.5)).astype(np.uint8)
    np.testing.assert_array_equal(image, rounded)


# ---- any input -------------------------------------------------------------------------------------------


@EXAMPLES
@given(
    columns=st.integers(2, 9),
    rows=st.integers(2, 9),
    shift=arrays(np.float32, 2, elements=st.sampled_from([0.0, 0.25, 0.5, 1 / 256, 0.501953125])),
    flip=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_shared_edges_cover_every_pixel_exactly_once(
    device: Device, columns: int, rows: int, shift: NDArray[np.float32], flip: bool, seed: int
) -> None:
    height, width = 24, 31
    screen, triangles = grid_mesh(columns, rows, width + 8.0, height + 8.0, jitter=0.3, seed=seed)
    screen[:, :2] += shift - 4
    if flip:
        triangles = triangles[:, ::-1].copy()
    # Each triangle is drawn in a frame of its own: its corners, and all others where they are rejected.
    alone = np.zeros((len(triangles), len(screen), 3), np.float32)
    frames = np.arange(len(triangles))[:, None]
    alone[frames, triangles] = screen[triangles]
    drawn = ops.rasterize(device.put(alone), device.put(triangles), height, width).triangle_id.numpy()
    assert ((drawn == frames[:, :, None]).sum(axis=0) == 1).all()
    assert ((drawn == -1) | (drawn == frames[:, :, None])).all()


@EXAMPLES
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
    device: Device, corners: NDArray[np.float32], height: int, width: int, cull: bool
) -> None:
    triangles = np.array([[0, 1, 2], [3, 4, 5], [0, 0, 1], [0, 1, 6], [-1, 2, 3]], np.int32)
    got = ops.rasterize(device.put(corners), device.put(triangles), height, width, cull_backfaces=cull)
    # Indices out of range are dropped: nothing waits to report them.
    wanted = reference.rasterize(corners, triangles[:3], height, width, cull_backfaces=cull)
    np.testing.assert_array_equal(got.triangle_id.numpy(), wanted.triangle_id)
    np.testing.assert_array_equal(got.bary.numpy(), wanted.bary)


@EXAMPLES
@given(
    mask=arrays(
        np.uint8,
        st.tuples(st.integers(1, 2), st.integers(1, 13), st.integers(1, 13)),
        elements=st.sampled_from([0, 1]),
    ),
    seed=st.integers(0, 1000),
)
def test_blend_any_mask(device: Device, mask: NDArray[np.uint8], seed: int) -> None:
    rng = np.random.default_rng(seed)
    photo = rng.integers(0, 256, (*mask.shape, 3), dtype=np.uint8)
    source = rng.uniform(-50, 300, (*mask.shape, 3)).astype(np.float32)
    got = ops.blend(*map(device.put, (photo, source, mask)), exact=True).exact
    wanted = reference.blend(photo, source, mask, exact=True).exact
    np.testing.assert_allclose(got.numpy(), wanted, rtol=0, atol=BLEND_TOLERANCE)


@pytest.mark.parametrize("size", [(1, 300), (300, 1), (129, 257)])
def test_blend_of_odd_sizes(device: Device, size: tuple[int, int]) -> None:
    rng = np.random.default_rng(size[0])
    mask = (rng.random((1, *size)) < 0.97).astype(np.uint8)
    photo = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
    source = np.zeros((1, *size, 3), np.float32) + rng.uniform(0, 255, 3).astype(np.float32)
    _, exact = repeatable(device, ops.blend, {"photo": photo, "source": source, "mask": mask}, exact=True)
    wanted = reference.blend(photo, source, mask, exact=True).exact
    np.testing.assert_allclose(exact, wanted, rtol=0, atol=BLEND_TOLERANCE)


def test_tighter_tolerance_is_kept(device: Device) -> None:
    photo, source = blend_images("largest jumps")
    arguments = {"photo": photo, "source": source[None], "mask": masks()["disc"][None]}
    wanted = reference.blend(**arguments, exact=True, tolerance=1e-3).exact
    _, exact = repeatable(device, ops.blend, arguments, exact=True, tolerance=0.01)
    assert np.abs(exact - wanted).max() < 0.02


@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf, 1e30, -1e30])
def test_shade_bears_whatever_comes(device: Device, odd: float) -> None:
    rng = np.random.default_rng(3)
    plain = shade_scene(30, 41, frames=2)
    photo = plain["shading"].photo[..., :3]
    for name in ("positions", "screen", "bary", "controls"):
        scene = {**plain, name: plain[name].copy()}
        scene[name][rng.random(scene[name].shape) < 0.2] = odd
        source, mask = repeatable(device, ops.shade, scene)
        still = mask == 0
        np.testing.assert_array_equal(source[still], np.broadcast_to(photo, source.shape)[still])
    ids = plain["triangle_id"].copy()
    triangles = len(plain["shading"].triangles)
    ids[rng.random(ids.shape) < 0.3] = rng.choice([triangles, 2**31 - 1, -2, -(2**31), triangles + 7])
    valid = (ids >= 0) & (ids < triangles)
    got = repeatable(device, ops.shade, {**plain, "triangle_id": ids})
    none = np.where(valid, ids, -1).astype(np.int32)
    for part, wanted in zip(got, repeatable(device, ops.shade, {**plain, "triangle_id": none}), strict=True):
        np.testing.assert_array_equal(part, wanted)


def test_a_frame_does_not_depend_on_its_batch(device: Device) -> None:
    rng = np.random.default_rng(0)
    model = deform_cases()[5].arguments
    many = rng.normal(0, 1, (37, model["coefficients"].shape[1])).astype(np.float32)
    model = {**model, "coefficients": many, "camera": model["camera"][:1]}
    whole = host(ops.deform(**on(device, model)))
    for b in (0, 5, 36):
        one = host(ops.deform(**on(device, {**model, "coefficients": many[b : b + 1]})))
        for part, part_of_one in zip(whole, one, strict=True):
            assert part is not None
            assert part_of_one is not None
            np.testing.assert_array_equal(part[b], part_of_one[0])
    scene = shade_scene(30, 37, frames=5)
    frames = host(ops.shade(**on(device, scene)))
    one_of = {k: part if k == "shading" else part[3:4] for k, part in scene.items()}
    for part, part_of_one in zip(frames, host(ops.shade(**on(device, one_of))), strict=True):
        assert part is not None
        assert part_of_one is not None
        np.testing.assert_array_equal(part[3], part_of_one[0])


def test_half_precision_moves_vertices_by_less_than_a_hundredth_of_a_millimetre(device: Device) -> None:
    """The error of a basis in fp16: half a unit in its last place, a 2048th of the motion."""
    rng = np.random.default_rng(1)
    basis = rng.normal(0, 4, (20, 300, 3)).astype(np.float32)
    case = {**deform_cases()[0].arguments, "neutral": rng.normal(0, 60, (300, 3)).astype(np.float32)}
    case["coefficients"] = rng.uniform(0, 1, (3, 20)).astype(np.float32)
    case["camera"] = np.array([[900, 128, 128]], np.float32)
    single = ops.deform(**on(device, {**case, "basis": ops.pack_basis(basis)})).positions.numpy()
    half = ops.deform(**on(device, {**case, "basis": ops.pack_basis(basis, dtype=np.float16)}))
    bound = np.abs(case["coefficients"]) @ np.abs(basis).reshape(20, -1) / 2048 + 1e-3
    difference = np.abs(half.positions.numpy() - single).reshape(3, -1)
    assert (difference <= bound).all()
    assert 0 < difference.max() < 0.02


# ---- workspace and order ---------------------------------------------------------------------------------


def test_stale_workspace_leaves_no_trace(device: Device) -> None:
    """Each op on memory that another one filled, with outputs written in place."""
    workspace = DeviceWorkspace(device)
    wanted = ops.rasterize(**on(device, rasterize_cases()[3].arguments)).triangle_id.numpy()
    for size in (48, 17, 40):
        photo, source = blend_images("smooth", size)
        for mask in masks(size).values():
            soup = on(device, rasterize_cases()[3].arguments)
            drawn = ops.rasterize(**soup, workspace=workspace)
            np.testing.assert_array_equal(drawn.triangle_id.numpy(), wanted)
            arguments = on(device, {"photo": photo, "source": source[None], "mask": mask[None]})
            fresh = ops.blend(**arguments, workspace=DeviceWorkspace(device)).image.numpy()
            out = ops.Blended(device.put(np.ones((1, size, size, 3), np.uint8)), None)
            again = ops.blend(**arguments, out=out, workspace=workspace)
            assert again.image is out.image
            np.testing.assert_array_equal(again.image.numpy(), fresh)


def test_streams_wait_for_one_another(device: Device) -> None:
    """An array that one stream writes and another reads, without a word about it."""
    case = rasterize_cases()[3]
    wanted = reference.rasterize(**case.arguments).triangle_id
    first, second = device.stream(), device.stream()
    for _ in range(20):
        screen = device.empty(case.arguments["screen"].shape, np.float32)
        screen.copy_from(case.arguments["screen"], first, wait=False)
        triangles = device.put(case.arguments["triangles"])
        got = ops.rasterize(screen, triangles, 64, 61, stream=second)
        np.testing.assert_array_equal(got.triangle_id.numpy(first), wanted)


# ---- what is refused -------------------------------------------------------------------------------------


def call(device: Device, op: str, **changes: Any) -> Any:
    # Made when asked for: all of them take a tenth of a second.
    cases = {
        "deform": lambda: deform_cases()[1],
        "rasterize": lambda: rasterize_cases()[0],
        "shade": lambda: shade_cases()[0],
        "blend": lambda: blend_cases()[0],
    }
    return getattr(ops, op)(**{**on(device, cases[op]().arguments), **changes})


@pytest.mark.parametrize(
    ("op", "changes", "message"),
    [
        ("deform", {"coefficients": np.zeros((2, 17), np.float32)}, r"\(B, 17\) float32, on KIND, .* on cpu"),
        ("rasterize", {"triangles": np.zeros((4, 3), np.int32)}, r"triangles must be .* on KIND.* on cpu"),
        ("shade", {"controls": np.zeros((1, 7), np.float32)}, "controls must be .* on KIND.* on cpu"),
        ("blend", {"mask": np.zeros((1, 48, 48), np.uint8)}, "mask must be .* on KIND.* on cpu"),
        ("blend", {"out": (np.zeros((1, 48, 48, 3), np.uint8), None)}, "image must be .* on KIND.* on cpu"),
        ("deform", {"workspace": ops.Workspace()}, "workspace must be a DeviceWorkspace, got Workspace"),
        ("deform", {"stream": "first"}, "stream must be a Stream, a handle or None, got 'first'"),
        ("rasterize", {"height": 40000}, "height must be an integer in 0"),
        ("blend", {"tolerance": 0.0}, "tolerance must be positive"),
    ],
)
def test_arrays_of_another_place_are_refused(
    device: Device, op: str, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(BadArgument, match=message.replace("KIND", device.kind)):
        call(device, op, **changes)


@pytest.mark.parametrize(
    ("op", "name", "array", "message"),
    [
        (
            "deform",
            "coefficients",
            np.zeros((2, 16), np.float32),
            r"\(2, 17\) float32.*\(2, 16\) float32",
        ),
        (
            "deform",
            "coefficients",
            np.zeros((2, 17)),
            r"must be .* got \(2, 17\) float64 on KIND",
        ),
        ("deform", "camera", np.ones((5, 3), np.float32), r"camera must be \(2, 3\) or \(1, 3\)"),
        ("rasterize", "triangles", np.zeros((4, 3), np.int64), r"triangles must be \(F, 3\) int32.*int64"),
        ("rasterize", "screen", np.zeros((1, 720, 2), np.float32), "screen must be"),
        ("shade", "positions", np.zeros((1, 479, 3), np.float32), r"screen must be \(1, 479, 3\)"),
        ("shade", "bary", np.zeros((1, 40, 150, 3), np.float32), r"bary must be \(1, 40, 150, 2\)"),
        ("blend", "mask", np.zeros((1, 48, 48), bool), "mask must be .* uint8.* got .*bool"),
        ("blend", "photo", np.zeros((2, 48, 48, 3), np.uint8), r"photo must be \(1, H, W, 3\)"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(
    device: Device, op: str, name: str, array: NDArray[Any], message: str
) -> None:
    with pytest.raises(BadArgument, match=message.replace("KIND", device.kind)):
        call(device, op, **{name: device.put(array)})


def test_what_does_not_lie_on_the_device_or_not_in_one_piece_is_refused(device: Device) -> None:
    strided: Any = np.zeros((2, 34), np.float32)[:, ::2]
    if device.kind == "cuda":
        torch = pytest.importorskip("torch")
        strided = torch.zeros((2, 34), device="cuda")[:, ::2]
        with pytest.raises(BadArgument, match="wanted an array on cuda, got one on cpu"):
            device.adopt(np.zeros(3, np.float32))
    with pytest.raises(BadArgument, match="on KIND.*, not C-contiguous".replace("KIND", device.kind)):
        call(device, "deform", coefficients=device.adopt(strided))
    locked = np.zeros(3, np.float32)
    locked.flags.writeable = False
    if device.kind == "emulated":
        with pytest.raises(BadArgument, match="cannot be shared"):
            device.adopt(locked)
    with pytest.raises(BadArgument, match="got list"):
        device.adopt([1.0])
    frozen = device.put(np.zeros((1, 48, 48, 3), np.uint8), frozen=True)
    with pytest.raises(BadArgument, match="image is read-only"):
        call(device, "blend", out=(frozen, None))
    with pytest.raises(BadArgument, match="read-only"):
        frozen.copy_from(np.zeros((1, 48, 48, 3), np.uint8))
    with pytest.raises(BadArgument, match=r"copy_from: wanted .*\(1, 48, 48, 3\) uint8"):
        device.put(np.zeros((1, 48, 48, 3), np.uint8)).copy_from(np.zeros((1, 48, 48, 3), np.float32))


def test_a_host_op_refuses_a_device_array() -> None:
    emulated = open_device("emulated")
    arguments = deform_cases()[1].arguments
    with pytest.raises(BadArgument, match=r"coefficients must be .* got DeviceArray"):
        ops.deform(**{**arguments, "coefficients": emulated.put(arguments["coefficients"])})


def test_devices_that_are_not_there_are_refused() -> None:
    with pytest.raises(BadArgument, match="cuda or emulated, got 'tpu'"):
        open_device("tpu")
    if not _core.built_with_cuda():
        with pytest.raises(ProviderUnavailable, match="no CUDA kernels"):
            open_device("cuda")
