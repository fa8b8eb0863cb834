"""Inputs of the ops and the tolerances their results must keep, whoever computes them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

# deform: sums of a hundred float32 terms of a few tenths of a metre, then a division by Z.
POSITION_TOLERANCE_MM = 2e-3
SCREEN_TOLERANCE_PX = 2e-3
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
