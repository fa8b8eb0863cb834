"""The contact sheet of a set: the heads of its images, with what each shows."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fastface.atomic import destination
from fastface.cli.options import IMAGE_SUFFIXES
from fastface.contact_sheet import MOST_TILES, face_box, wrapped_sheet
from fastface.errors import BadArgument
from fastface.images import read_image, write_image
from fastface.provenance import xmp_packet
from fastface.version import package_version

_TILE_PX: Final = 320


def check_sheet(path: Path, count: int, folder: Path, source: Path | None = None) -> None:
    """Before any work: do so many faces fit, and can the sheet be written? ``folder``: that of the set, which
    may be made only later; ``source``: the photo, or the folder of photos, that a sheet must not replace.
    Raises ``BadArgument``, ``WriteFailed``."""
    if count > MOST_TILES:
        raise BadArgument(f"--sheet: {count} faces, at most {MOST_TILES} fit")
    if path.suffix.casefold() not in IMAGE_SUFFIXES:
        raise BadArgument(f"--sheet: {path}: the name must end in one of {', '.join(IMAGE_SUFFIXES)}")
    if source is not None and path.exists() and source.resolve() in (path.resolve(), path.resolve().parent):
        raise BadArgument(f"--sheet: {path}: is an input")
    if folder.is_dir() or path.resolve().parent != folder.resolve():
        destination(path)


class Tiles:
    """Heads of images, in the order in which they are added."""

    def __init__(self) -> None:
        self._tiles: list[NDArray[np.uint8]] = []
        self._captions: list[str] = []
        self._boxes: dict[tuple[str, str], tuple[int, int, int, int]] = {}
        self._said: dict[str, Any] = {}

    def __len__(self) -> int:
        return len(self._tiles)

    def add(self, image: Path, record: dict[str, Any], caption: str) -> None:
        """An image with its labels' record. All images of a photo are cut alike, seen from one side."""
        import cv2

        points = np.array(record["landmarks478_px"], np.float64)
        box = face_box(points, record["height_px"], record["width_px"])
        left, top, right, bottom = self._boxes.setdefault((record["photo"], str(record["pose"])), box)
        head = np.ascontiguousarray(read_image(image)[top:bottom, left:right])
        way = cv2.INTER_AREA if head.shape[0] > _TILE_PX else cv2.INTER_CUBIC
        self._tiles.append(np.asarray(cv2.resize(head, (_TILE_PX, _TILE_PX), interpolation=way), np.uint8))
        self._captions.append(caption)
        self._said = {key: record[key] for key in ("model_sha256", "affect_model_sha256") if key in record}

    def write(self, path: Path, columns: int, quality: int) -> None:
        """Write the sheet, marked as synthetic; nothing if there are no images. Raises ``WriteFailed``."""
        if self._tiles:
            made = {"sheet_of": len(self._tiles), **self._said}
            xmp = xmp_packet(made, f"fastface {package_version()}")
            sheet = wrapped_sheet(self._tiles, self._captions, columns)
            write_image(path, sheet, xmp=xmp, quality=quality)
