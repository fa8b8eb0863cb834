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
    scans = [Registered.load(path) for path in paths if _carries_colours(path)]
    found = [(scan.colors, scan.valid) for scan in scans if scan.colors is not None]
    if not found:
        raise BadModelFile(f"none of the {len(paths)} registered meshes carries colours")
    for colors, _ in found:
        if len(colors) != vertices:
            raise BadModelFile(f"wanted the colours of {vertices} vertices, got {len(colors)}")
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
