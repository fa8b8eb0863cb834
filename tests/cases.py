"""Inputs of the ops and the tolerances their results must keep, whoever computes them."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastface.reference import LEFT_EYE, PAINTED, RIGHT_EYE, Shading, rasterize, vertex_normals

# deform: sums of a hundred float32 terms of a few tenths of a metre, then a division by Z.
POSITION_TOLERANCE_MM = 2e-3
SCREEN_TOLERANCE_PX = 2e-3
# shade: weights of 16 bits, logarithms and powers by polynomials. Where what changes by a hair hangs on the
# last bit, the mask may go either way.
SHADE_TOLERANCE = 0.1
SHADE_TIES = 1e-3
# blend: what the solver aims at is half of what it must keep.
BLEND_TOLERANCE = 0.5


@dataclass(frozen=True)
class Case:
    name: str
    arguments: dict[str, Any] = field(repr=False)


def grid_mesh(
    columns: int, rows: int, width_px: float, height_px: float, *, jitter: float = 0.0, seed: int = 0
) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """A sheet of triangles over an image: screen (V, 3), triangles (F, 3)."""
    rng = np.random.default_rng(seed)
    y, x = np.meshgrid(np.linspace(0, height_px, rows), np.linspace(0, width_px, columns), indexing="ij")
    screen = np.stack([x, y, 500 + 40 * np.sin(x / 9) * np.cos(y / 7)], -1).reshape(-1, 3)
    screen[:, :2] += rng.uniform(-jitter, jitter, (len(screen), 2))
    corner = (np.arange((rows - 1) * columns).reshape(rows - 1, columns)[:, :-1]).ravel()
    quad = np.stack([corner, corner + 1, corner + columns, corner + columns + 1], 1)
    triangles = np.concatenate([quad[:, [0, 2, 1]], quad[:, [1, 2, 3]]])
    return screen.astype(np.float32), np.ascontiguousarray(triangles, np.int32)


def _soup(seed: int, vertices: int, triangles: int, frames: int, reach_px: float) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    screen = rng.uniform(-reach_px, 2 * reach_px, (frames, vertices, 3))
    screen[..., 2] = rng.uniform(300, 900, (frames, vertices))
    return {
        "screen": screen.astype(np.float32),
        "triangles": rng.integers(0, vertices, (triangles, 3)).astype(np.int32),
    }


def _hostile_soup() -> dict[str, Any]:
    soup = _soup(5, 60, 200, 2, 40)
    screen = soup["screen"]
    screen[:, 0, 0] = 1e7  # beyond 64-bit edge functions
    screen[:, 1, 1] = -3e9
    screen[:, 2, 0] = 1e30  # beyond everything
    screen[:, 3] = np.nan
    screen[:, 4, 2] = np.inf
    screen[:, 5, 2] = 0
    screen[:, 6, 2] = -500
    screen[:, 7] = screen[:, 8]  # no area
    screen[:, 9, :2] = (-4000, 30)
    return soup


def _stack() -> dict[str, Any]:
    """The same triangle three times, at one depth, and once nearer."""
    corner = np.array([[2, 2, 500], [30, 4, 500], [5, 28, 500]], np.float32)
    nearer = corner - np.array([0, 0, 100], np.float32)
    screen = np.concatenate([corner, corner, nearer])[None]
    triangles = np.array([[3, 4, 5], [0, 1, 2], [0, 2, 1], [0, 1, 2]], np.int32)
    triangles = np.concatenate([triangles, [[6, 7, 8], [6, 7, 8]]]).astype(np.int32)
    return {"screen": screen.astype(np.float32), "triangles": triangles, "height": 32, "width": 32}


def _slivers() -> dict[str, Any]:
    """Needles side by side, thinner than the grid of 1/256 px at their tips, and what has no area."""
    steps = np.arange(33)
    near = np.column_stack([3 + steps / 96, np.full(33, 2.5), np.full(33, 400.0)])
    far = np.column_stack([60 + steps / 48, 3.5 + steps * 1.25, np.full(33, 700.0)])
    screen = np.concatenate([near, far])
    quad = np.stack([steps[:-1], steps[1:], steps[:-1] + 33, steps[1:] + 33], axis=1)
    triangles = np.concatenate(
        [quad[:, [0, 1, 2]], quad[:, [2, 1, 3]], quad[:, [0, 0, 3]], quad[:, [1, 1, 1]]]
    )
    line = [[0, 16, 32], [33, 65, 49]]  # corners in a row
    return {
        "screen": screen[None].astype(np.float32),
        "triangles": np.concatenate([triangles, line]).astype(np.int32),
    }


def _outside() -> dict[str, Any]:
    """Triangles beside the image on all sides, across it, around it, and with corners behind the camera."""
    places = np.array([[-90, 15], [150, 15], [20, -80], [20, 120], [20, 15], [-4, 26], [44, 7]], np.float64)
    shape = np.array([[-12, -9], [13, -7], [2, 14]])
    corners = np.concatenate([places[:, None] + shape, places[4] + 9 * shape[None]])
    depth = np.full((*corners.shape[:2], 1), 500.0)
    depth[5, 0], depth[6] = -300, -300  # one corner, all corners behind it
    frame = np.concatenate([corners, depth], axis=2).reshape(-1, 3)
    behind = frame.copy()
    behind[4 * 3, 2], behind[7 * 3 + 1, 2] = 0, -1e-3  # of the one inside, of the one around
    screen = np.stack([frame, behind]).astype(np.float32)
    return {"screen": screen, "triangles": np.arange(len(frame), dtype=np.int32).reshape(-1, 3)}


def _each_alone() -> dict[str, Any]:
    """A sheet whose edges run through pixel centres and whose triangles have a frame each: all other corners
    lie where they are rejected."""
    sheet, triangles = grid_mesh(5, 4, 24.0, 18.0, seed=3)
    sheet[:, :2] -= 1.5
    screen = np.zeros((len(triangles), *sheet.shape), np.float32)
    frames = np.arange(len(triangles))[:, None]
    screen[frames, triangles] = sheet[triangles]
    return {"screen": screen, "triangles": triangles}


def rasterize_cases() -> list[Case]:
    sheet, triangles = grid_mesh(30, 24, 50.0, 40.0, jitter=0.4)
    exact, exact_triangles = grid_mesh(9, 9, 16.0, 16.0)
    exact[:, :2] += 0.5  # corners on pixel centres
    return [
        Case("sheet", {"screen": sheet[None], "triangles": triangles, "height": 37, "width": 53}),
        Case("centres", {"screen": exact[None], "triangles": exact_triangles, "height": 20, "width": 18}),
        Case("stack", _stack()),
        Case("soup", {**_soup(1, 50, 150, 3, 60), "height": 64, "width": 61}),
        Case("large", {**_soup(2, 30, 60, 1, 900), "height": 50, "width": 70}),
        Case("hostile", {**_hostile_soup(), "height": 33, "width": 47}),
        Case("culled", {**_soup(3, 40, 99, 2, 30), "height": 40, "width": 30, "cull_backfaces": True}),
        Case("slivers", {**_slivers(), "height": 48, "width": 64}),
        Case("outside", {**_outside(), "height": 30, "width": 40}),
        Case("each alone", {**_each_alone(), "height": 14, "width": 20}),
        Case("column", {**_soup(4, 40, 99, 1, 20), "height": 33, "width": 1}),
        Case("narrow", {**_soup(4, 40, 99, 1, 20), "height": 9, "width": 7}),
        Case("no frames", {**_soup(1, 5, 5, 0, 10), "height": 8, "width": 8}),
        Case("no triangles", {**_soup(1, 5, 0, 1, 10), "height": 8, "width": 8}),
        Case("no pixels", {**_soup(1, 5, 5, 1, 10), "height": 0, "width": 8}),
    ]


def _model(seed: int, vertices: int, modes: int, frames: int, dtype: type = np.float32) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    neutral = rng.normal(0, 60, (vertices, 3)) + np.array([0, 0, 600])
    basis = rng.normal(0, 3, (modes, vertices, 3))
    if modes:
        basis[0, vertices // 3 :] = 0  # a mode that moves a part of the face
    coefficients = rng.normal(0, 1, (frames, modes)) * (rng.random((frames, modes)) < 0.5)
    camera = np.column_stack([rng.uniform(300, 2000, frames), rng.uniform(0, 256, (frames, 2))])
    return {
        "neutral": neutral.astype(np.float32),
        "basis": basis.astype(dtype),
        "coefficients": coefficients.astype(np.float32),
        "camera": camera.astype(np.float32),
    }


def deform_cases() -> list[Case]:
    behind = _model(9, 130, 5, 2)
    behind["neutral"][::7, 2] = -20
    behind["neutral"][3, 2] = 1.0
    one_camera = _model(8, 100, 6, 3)
    one_camera["camera"] = one_camera["camera"][:1]
    return [
        *(Case(f"{b} frames", _model(b, 333, 17, b)) for b in range(1, 7)),
        Case("half", _model(1, 1000, 52, 2, np.float16)),
        Case("whole blocks", _model(2, 128, 3, 1)),
        Case("one vertex", _model(3, 1, 2, 1)),
        Case("one camera", one_camera),
        Case("behind the camera", behind),
        Case("no modes", _model(4, 70, 0, 2)),
        Case("no frames", _model(4, 70, 3, 0)),
        Case("no vertices", _model(4, 0, 3, 2)),
    ]


def _fans(triangles: NDArray[np.int32], vertices: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    flat = triangles.ravel()
    start = np.concatenate([[0], np.cumsum(np.bincount(flat, minlength=vertices))])
    return start.astype(np.int32), (np.argsort(flat, kind="stable") // 3).astype(np.int32)


def _scene_layers(triangles: NDArray[np.int32], at: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Two eyes and a mouth in a face that fills the unit square."""
    x, y = at[triangles].mean(axis=1).T
    layer = np.zeros(len(triangles), np.uint8)
    layer[np.hypot((x - 0.3) / 0.12, (y - 0.35) / 0.1) < 1] = RIGHT_EYE
    layer[np.hypot((x - 0.7) / 0.12, (y - 0.35) / 0.1) < 1] = LEFT_EYE
    layer[np.hypot((x - 0.5) / 0.25, (y - 0.7) / 0.12) < 1] = PAINTED
    return layer


def _bump(height: int, width: int, x: float, y: float, radius: float, strength: float) -> NDArray[np.float32]:
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    d = np.hypot((columns + 0.5) / width - x, (rows + 0.5) / height - y) / radius
    return np.where(d < 1, strength * np.cos(7 * d) * (1 - d) ** 2, 0).astype(np.float32)


@cache
def _shade_scene(
    height: int,
    width: int,
    *,
    frames: int = 1,
    motion_px: float = 3.0,
    folds: int = 2,
    shifts: int = 2,
    seed: int = 0,
) -> dict[str, Any]:
    """A face of 24 × 20 vertices that is lit from the side, and ``frames`` ways in which it moved."""
    rng = np.random.default_rng(seed)
    sheet, triangles = grid_mesh(24, 20, 1.0, 1.0)
    triangles = triangles[:, ::-1].copy()  # its outside towards the viewer
    rest_px = ((0.9 * sheet[:, :2] + 0.05) * [width, height]).astype(np.float32)
    u, v = sheet[:, 0], sheet[:, 1]
    z_mm = 600 - 60 * np.sin(np.pi * u) * np.sin(np.pi * v)
    f_px = 2.0 * max(width, height)
    centre = np.array([width, height]) / 2

    def placed(px: NDArray[Any], z: NDArray[Any]) -> NDArray[np.float32]:
        return np.concatenate([(px - centre) * z[:, None] / f_px, z[:, None]], axis=1).astype(np.float32)

    rest = placed(rest_px, z_mm)
    fan_start, fans = _fans(triangles, len(rest))
    moving = np.where(v > 0.25, np.sin(np.pi * u), 0)  # a strip at the top stays where it is
    positions, screens = [], []
    for b in range(frames):
        turn = rng.uniform(0, 2 * np.pi)
        wave = np.stack([np.cos(turn + 5 * v), np.sin(turn + 4 * u)], axis=1)
        px = rest_px + motion_px * (b + 1) * moving[:, None] * wave
        depth = z_mm - motion_px * (b + 1) * moving * np.sin(9 * u)
        positions.append(placed(px, depth))
        screens.append(np.concatenate([px, depth[:, None]], axis=1).astype(np.float32))
    screen = np.stack(screens) if frames else np.zeros((0, len(rest), 3), np.float32)
    raster = rasterize(screen, triangles, height, width)
    noise = rng.integers(0, 256, (2, height, width, 4), dtype=np.uint8)
    rim = np.flatnonzero(np.isclose(v, v[np.abs(v - 0.66).argmin()]))[4:-4]
    drawn = [_bump(height, width, x, 0.55, 0.2, 0.4) for x in (0.1, 0.95, 0.5)]
    shading = Shading(
        triangles=triangles,
        layer=_scene_layers(triangles, sheet[:, :2]),
        rest_px=rest_px,
        shift_px=(rng.normal(0, 1, (shifts, len(rest), 2)) * moving[:, None]).astype(np.float32),
        fan_start=fan_start,
        fans=fans,
        rest_normal=vertex_normals(rest, triangles, fan_start, fans),
        light=np.array([0.7, -0.2, -0.25, 0.3, 0.05, 0.02, 0.06, -0.04, 0.03], np.float32),
        relief=(0.75 * np.sin(np.pi * u) * np.sin(np.pi * v)).astype(np.float32),
        paint_linear=rng.uniform(0, 0.9, (len(rest), 3)).astype(np.float32),
        lip_rim=np.stack([rim, rim + 2 * 24]).astype(np.int32),
        photo=noise[0] // 4 + 90,
        eyes=noise[1],
        folds=np.array(drawn[:folds], np.float32).reshape(folds, height, width),
    )
    weights = [rng.uniform(-1, 1, (frames, shifts)), rng.uniform(0.3, 1, (frames, 3 + folds))]
    return {
        "positions": np.stack(positions) if frames else screen.copy(),
        "screen": screen,
        "triangle_id": raster.triangle_id,
        "bary": raster.bary,
        "controls": np.concatenate(weights, axis=1).astype(np.float32),
        "shading": shading,
    }


def shade_scene(height: int, width: int, **choices: Any) -> dict[str, Any]:
    """``_shade_scene``'s, to change at will."""
    return {**_shade_scene(height, width, **choices)}


def _with_controls(scene: dict[str, Any], **columns: float) -> dict[str, Any]:
    controls = scene["controls"].copy()
    for name, value in columns.items():
        controls[:, int(name[1:])] = value
    return {**scene, "controls": controls}


def _crumpled(scene: dict[str, Any]) -> dict[str, Any]:
    """Some triangles without area, some vertices behind the camera, drawn as they are then."""
    positions, screen = scene["positions"].copy(), scene["screen"].copy()
    for rows in (slice(100, 108), slice(250, 251)):
        for points in (positions, screen):
            points[:, rows] = points[:, rows.start - 1 : rows.start]
    for points in (positions, screen):
        points[:, 300:303, 2] = (-40, 0, -1e-3)
    height, width = scene["triangle_id"].shape[1:]
    drawn = rasterize(screen, scene["shading"].triangles, height, width)
    moved = {"positions": positions, "screen": screen}
    return {**scene, **moved, "triangle_id": drawn.triangle_id, "bary": drawn.bary}


def shade_cases() -> list[Case]:
    plain = shade_scene(40, 150, motion_px=2.0)
    return [
        Case("all layers", plain),
        Case("batch", shade_scene(30, 37, frames=5)),
        Case("nothing drawn", _with_controls(plain, c2=0, c3=0, c4=0)),
        Case("mouth alone", _with_controls(plain, c2=0, c3=0, c4=1)),
        Case("no folds, no shifts", shade_scene(33, 47, folds=0, shifts=0)),
        Case("folds at rest", _with_controls(plain, c5=0, c6=0)),
        Case("three folds", shade_scene(50, 64, folds=3, motion_px=0.2)),
        Case("out of the image", shade_scene(20, 24, motion_px=60.0, frames=2)),
        Case("no area, behind the camera", _crumpled(shade_scene(30, 41, frames=2))),
        Case("narrow", shade_scene(9, 3, motion_px=0.5)),
        Case("one pixel", shade_scene(1, 1, motion_px=0.1)),
        Case("no frames", shade_scene(8, 9, frames=0)),
    ]


def masks(size: int = 48, seed: int = 0) -> dict[str, NDArray[np.uint8]]:
    """Friendly and nasty ones (H, W)."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size]
    distance = np.hypot(x - size / 2, y - size / 2)
    full = np.ones((size, size), bool)
    snake = np.zeros_like(full)
    snake[::2] = True
    snake[1::4, -1] = snake[3::4, 0] = True
    comb = full.copy()
    comb[5:-1, 3::6] = False
    rooms = full.copy()
    rooms[0] = rooms[:, size // 2] = False
    rooms[size // 2 : size // 2 + 4, size // 2] = True
    corner, hole = full.copy(), full.copy()
    corner[0, 0] = hole[size // 3, size // 2] = False
    single = np.zeros_like(full)
    single[size // 2, size // 2] = True
    bottom = np.zeros_like(full)
    bottom[-1, :] = True
    border, corners = full.copy(), np.zeros_like(full)
    border[1:-1, 1:-1] = False
    corners[:: size - 1, :: size - 1] = True
    found = {
        "disc": distance < 0.4 * size,
        "ring": (distance < 0.45 * size) & (distance > 0.3 * size),
        "snake": snake,
        "comb": comb,
        "two rooms": rooms,
        "all but a corner": corner,
        "all but one": hole,
        "islands": (x % 2 == 0) & (y % 2 == 0),
        "one pixel": single,
        "last row": bottom,
        "every border": border,
        "every corner": corners,
        "checkerboard": (x + y) % 2 == 0,
        "speckle": rng.random((size, size)) < 0.6,
        "holes": rng.random((size, size)) < 0.985,
        "whole image": full,
        "empty": np.zeros_like(full),
    }
    return {name: mask.astype(np.uint8) for name, mask in found.items()}


def blend_images(kind: str, size: int = 48, seed: int = 0) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """A photo (H, W, 3) and a source (H, W, 3) whose difference around a mask is of the named kind."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size]
    wave = np.stack([np.sin(x / 7), np.cos(y / 9), np.sin((x + y) / 11)], -1)
    if kind == "largest jumps":
        photo = rng.choice(np.array([0, 255], np.uint8), (size, size, 3))
        return photo, (255.0 - photo).astype(np.float32)
    if kind == "step":
        return np.full((size, size, 3), 255, np.uint8), np.zeros((size, size, 3), np.float32)
    photo = np.clip(128 + 90 * wave, 0, 255).astype(np.uint8)
    if kind == "smooth":
        return photo, (120 + 60 * wave[::-1] + rng.normal(0, 9, wave.shape)).astype(np.float32)
    assert kind == "slight"
    return photo, (photo + 2.0 * wave[:, ::-1] + 1).astype(np.float32)


BLEND_KINDS = ("largest jumps", "step", "smooth", "slight")


def blend_cases() -> list[Case]:
    cases = []
    for name, mask in masks().items():
        for kind in BLEND_KINDS:
            photo, source = blend_images(kind)
            cases.append(
                Case(f"{name}, {kind}", {"photo": photo, "source": source[None], "mask": mask[None]})
            )
    frames = [blend_images(kind, 33) for kind in BLEND_KINDS[:3]]
    batch_masks = np.stack([masks(33)[name] * 200 for name in ("disc", "speckle", "comb")])
    photos, sources = (np.stack(part) for part in zip(*frames, strict=True))
    cases.append(Case("batch", {"photo": photos, "source": sources, "mask": batch_masks}))
    cases.append(Case("one photo", {"photo": photos[0], "source": sources, "mask": batch_masks}))
    none = np.zeros((0, 5, 5, 3))
    cases.append(
        Case(
            "no frames",
            {
                "photo": np.zeros((5, 5, 3), np.uint8),
                "source": none.astype(np.float32),
                "mask": none[..., 0].astype(np.uint8),
            },
        )
    )
    return cases
