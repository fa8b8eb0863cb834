"""What a head model or a texture model knows, drawn: the mean, and what the first components do to it."""

from __future__ import annotations

from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from fastface.contact_sheet import contact_sheet
from fastface.errors import BadArgument
from fastface.morphable import HeadModel
from fastface.ops import rasterize
from fastface.painted_face import Light, Painter, facing_view
from fastface.texture_model import TextureModel

Image = NDArray[np.uint8]
Values = NDArray[np.float32]

_PAPER: Final = 236
_GREY: Final = 128
_RELIEF: Final = 75.0  # grey levels a unit of a feature
_YAW_DEG: Final = -20.0
_LAMP: Final = np.array([-0.4, -0.5, -1.0])  # camera space
_GAP: Final = 4  # triangles
#: Of each channel of gradients: towards the light, which comes from above and the left; fine and coarse.
_LIGHT: Final = np.array([0.25, 0.65, 0.25, 0.65], np.float32)


def texture_sheet(
    head: HeadModel, texture: TextureModel, components: int = 4, sigma: float = 2.0, *, tile_px: int = 240
) -> Image:
    """The mean of a texture, above what varies at each vertex and is not explained (dark: little), and the
    first components, ``sigma`` standard deviations to either side: (H, W, 3) uint8.

    Colours are shown as they are; gradients and orientations as a relief lit from above. Raises
    ``BadModelFile`` for a texture of another head, ``BadArgument``.
    """
    texture.check(head)
    _check(components, sigma)
    canvas = _Canvas(head, 2 * tile_px)
    known = texture.precision > 0
    noise: NDArray[np.float64] = 1 / np.sqrt(np.where(known, texture.precision, 1).astype(np.float64))
    above = [canvas.draw(_shown(texture.mean, texture.feature), known)]
    below = [canvas.draw(_heat(noise, known), known)]
    for component in texture.components[:components].astype(np.float32):
        for row, way in ((above, sigma), (below, -sigma)):
            values = texture.mean + np.float32(way) * component
            row.append(canvas.draw(_shown(values, texture.feature), known))
    return _sheet(above, below, "mean, noise", sigma, tile_px)


def shape_sheet(head: HeadModel, components: int = 4, sigma: float = 2.0, *, tile_px: int = 240) -> Image:
    """The mean head, above how far each of its vertices varies (dark: little), and the first identities,
    ``sigma`` standard deviations to either side, painted: (H, W, 3) uint8.

    Raises ``BadModelFile`` for a head without eyes, ``BadArgument``.
    """
    _check(components, sigma)
    painter, view = Painter(head), facing_view(_YAW_DEG, size_px=2 * tile_px)
    light = Light(_LAMP / np.linalg.norm(_LAMP), 0.45)
    spread = np.sqrt((head.identity.astype(np.float64) ** 2).sum(axis=(0, 2)))
    every = np.ones(len(spread), np.bool_)
    above = [painter.paint(head.vertices, view, light).rgb]
    below = [_Canvas(head, 2 * tile_px).draw(_heat(spread, every), every)]
    for mode in head.identity[:components].astype(np.float32):
        for row, way in ((above, sigma), (below, -sigma)):
            row.append(painter.paint(head.vertices + np.float32(way) * mode, view, light).rgb)
    return _sheet(above, below, "mean, spread", sigma, tile_px)


def _check(components: int, sigma: float) -> None:
    if not np.isfinite(sigma) or components < 0:
        raise BadArgument(f"wanted a finite sigma and components, got {sigma}, {components}")


def _sheet(above: list[Image], below: list[Image], first: str, sigma: float, tile_px: int) -> Image:
    columns = [first, *(f"component {index}" for index in range(1, len(above)))]
    return contact_sheet([above, below], columns, [f"+{sigma:g} SD", f"-{sigma:g} SD"], tile_px=tile_px)


def _heat(values: NDArray[np.float64], known: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Colours (V, 3) of numbers (V,) ≥ 0, up to nearly their largest."""
    most = max(float(np.quantile(values[known], 0.98)), 1e-9)
    levels = (255 * np.clip(values / most, 0, 1)).astype(np.uint8)
    return cv2.applyColorMap(levels[:, None], cv2.COLORMAP_INFERNO)[:, 0, ::-1].astype(np.float32)


def _shown(values: NDArray[Any], feature: str) -> NDArray[Any]:
    """Colours (V, 3) 0 … 255 of features (V, C)."""
    if feature == "rgb":
        return np.asarray(np.clip(values, 0, 255))
    if feature == "orientations":
        angles = np.arange(values.shape[1]) * (2 * np.pi / values.shape[1])
        directions = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
        slope: NDArray[Any] = 2 * values @ directions @ _LIGHT[:2]
    else:
        slope = values @ _LIGHT
    grey = np.clip(_GREY + _RELIEF * slope, 0, 255)
    return np.repeat(grey[:, None], 3, axis=1).astype(np.float32)


class _Canvas:
    """The mean head, a little from the side, ready to be coloured by the vertex."""

    def __init__(self, head: HeadModel, size_px: int) -> None:
        screen = facing_view(_YAW_DEG, size_px=size_px).screen(head.vertices)
        outer = head.triangles[head.material_triangles("skin", "lips", "eyelids", "eyeballs")]
        self._triangles = np.ascontiguousarray(outer)
        raster = rasterize(screen[None], self._triangles, size_px, size_px, cull_backfaces=True)
        self._id, self._bary = raster.triangle_id[0], raster.bary[0]

    def draw(self, colours: NDArray[Any], known: NDArray[np.bool_]) -> Image:
        """``colours (V, 3)`` where they are ``known (V,)``, grey where they are not; narrow gaps, such as a
        nostril, take the colour of their border."""
        colours, near = self._widened(colours.astype(np.float32), known)
        colours = np.where(near[:, None], colours, np.float32(0.5 * (_PAPER + _GREY)))
        picture = np.full((*self._id.shape, 3), _PAPER, np.float32)
        seen = self._id >= 0
        corners, bary = self._triangles[self._id[seen]], self._bary[seen]
        weights = np.concatenate([1 - bary.sum(axis=1, keepdims=True), bary], axis=1)
        picture[seen] = np.einsum("ncx,nc->nx", colours[corners], weights)
        return np.clip(np.rint(picture), 0, 255).astype(np.uint8)

    def _widened(self, colours: Values, known: NDArray[np.bool_]) -> tuple[Values, NDArray[np.bool_]]:
        """Colours carried ``_GAP`` triangles further than they are known."""
        for _ in range(_GAP):
            there = known[self._triangles]
            sums = np.zeros((len(known), 4))
            share = np.concatenate([colours[self._triangles] * there[:, :, None], there[:, :, None]], axis=2)
            np.add.at(sums, self._triangles.ravel(), share.sum(axis=1).repeat(3, axis=0))
            new = ~known & (sums[:, 3] > 0)
            colours = colours.copy()
            colours[new] = sums[new, :3] / sums[new, 3:]
            known = known | new
        return colours, known
