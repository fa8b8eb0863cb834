"""Many faces in one picture, for looking at them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fastface.errors import BadArgument

Image = NDArray[np.uint8]

#: More would be too small to look at.
MOST_TILES: Final = 400
_PAPER: Final = (250, 250, 248)
_INK: Final = (40, 40, 40)
#: The landmarks span chin to brow; a head with its hair and a little air is about this much larger.
_HEAD_OVER_LANDMARKS: Final = 1.9


def face_box(landmarks_px: NDArray[np.floating], height: int, width: int) -> tuple[int, int, int, int]:
    """The square around a head, (left, top, right, bottom) in whole pixels, cut to the image.

    ``landmarks_px`` (N, 2). The same box for every frame of a photo, so that tiles of a sheet line up.
    """
    low, high = landmarks_px.min(axis=0), landmarks_px.max(axis=0)
    side = min(float((high - low).max()) * _HEAD_OVER_LANDMARKS, height, width)
    centre_x, centre_y = (low + high) / 2
    centre_y -= 0.08 * side  # hair reaches further up than the neck is worth down
    left = round(min(max(centre_x - side / 2, 0), width - side))
    top = round(min(max(centre_y - side / 2, 0), height - side))
    return left, top, min(left + round(side), width), min(top + round(side), height)


def contact_sheet(
    rows: Sequence[Sequence[Image]], columns: Sequence[str], labels: Sequence[str] = (), *, tile_px: int = 320
) -> Image:
    """A grid of images (each (H, W, 3) uint8) with a caption a column and, optionally, a label a row.

    Tiles are scaled to ``tile_px`` wide; all must have one aspect. Returns (H, W, 3) uint8. Raises
    ``BadArgument``.
    """
    import cv2
    from PIL import Image as Pillow
    from PIL import ImageDraw, ImageFont

    if not rows or any(len(row) != len(columns) for row in rows) or (labels and len(labels) != len(rows)):
        raise BadArgument("contact sheet: wanted as many images in every row as there are columns")
    if not 16 <= tile_px <= 4096:
        raise BadArgument(f"contact sheet: a tile is 16 to 4096 pixels wide, got {tile_px}")
    height, width = rows[0][0].shape[:2]
    tile_height = max(round(tile_px * height / width), 1)
    gap, caption, margin = max(tile_px // 40, 2), max(tile_px // 9, 12), (tile_px // 5 if labels else 0)
    full = (
        caption + len(rows) * (tile_height + gap) + gap,
        margin + len(columns) * (tile_px + gap) + gap,
    )
    sheet = np.empty((*full, 3), np.uint8)
    sheet[:] = _PAPER
    for i, row in enumerate(rows):
        for j, image in enumerate(row):
            shrink = cv2.INTER_AREA if image.shape[1] > tile_px else cv2.INTER_CUBIC
            top, left = caption + i * (tile_height + gap), margin + gap + j * (tile_px + gap)
            tile = cv2.resize(image, (tile_px, tile_height), interpolation=shrink)
            sheet[top : top + tile_height, left : left + tile_px] = tile
    picture = Pillow.fromarray(sheet)
    draw = ImageDraw.Draw(picture)
    font = ImageFont.load_default(size=max(caption * 0.5, 8))
    for j, text in enumerate(columns):
        middle = margin + gap + j * (tile_px + gap) + tile_px / 2
        short = _shortened(text, tile_px, font.getlength)
        draw.text((middle, caption / 2), short, fill=_INK, font=font, anchor="mm")
    for i, text in enumerate(labels):
        middle = caption + i * (tile_height + gap) + tile_height / 2
        draw.text((margin / 2, middle), text, fill=_INK, font=font, anchor="mm")
    return np.asarray(picture, np.uint8)


def _shortened(text: str, most_px: int, length_px: Callable[[str], float]) -> str:
    """As much of a caption as fits, without its middle: names differ at their ends."""
    short, kept = text, len(text)
    while length_px(short) > most_px and kept:
        kept -= 1
        short = f"{text[: (kept + 1) // 2]}…{text[len(text) - kept // 2 :]}"
    return short


def wrapped_sheet(
    tiles: Sequence[Image], captions: Sequence[str], columns: int | None = None, *, most_px: int = 2400
) -> Image:
    """Images of one size with a caption each, in rows of ``columns``, about square if None; (H, W, 3) uint8,
    about ``most_px`` wide at most."""
    count = columns or math.ceil(math.sqrt(len(tiles)))
    tile_px = max(64, min(tiles[0].shape[1], most_px // count))
    rows = []
    for start in range(0, len(tiles), count):
        row, words = list(tiles[start : start + count]), list(captions[start : start + count])
        lack = count - len(row)
        row += [np.full_like(tiles[0], 250)] * lack
        rows.append(contact_sheet([row], words + [""] * lack, tile_px=tile_px))
    return np.concatenate(rows)
