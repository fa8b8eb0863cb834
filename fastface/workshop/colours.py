"""The colours of registered scans."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fastface.errors import BadModelFile
from fastface.workshop.registered import Registered


def read_colours(paths: Sequence[Path], vertices: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Colours (M, V, 3) of those registered meshes that carry some, sRGB 0 … 255, and where they are known
    (M, V).

    Raises ``BadModelFile`` for a damaged file, and when none carries colours of so many ``vertices``.
    """
    found = []
    for path in filter(_carries_colours, paths):
        scan = Registered.load(path)
        if scan.colors is None:
            continue
        if len(scan.colors) != vertices:
            raise BadModelFile(f"{path}: wanted the colours of {vertices} vertices, got {len(scan.colors)}")
        found.append((scan.colors, scan.valid))
    if not found:
        raise BadModelFile(f"none of the {len(paths)} registered meshes carries colours")
    values, seen = zip(*found, strict=True)
    return np.stack(values).astype(np.float32), np.stack(seen)


def _carries_colours(path: Path) -> bool:
    if path.suffix.casefold() != ".npz":
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            return "colors.npy" in archive.namelist()
    except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise BadModelFile(f"{path}: wanted an undamaged .npz archive: {error}") from error
