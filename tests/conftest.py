"""What every test may ask for."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

# Behind everything else: benchmarks and exports are found, an installed fastface comes before the sources.
sys.path.append(str(Path(__file__).resolve().parents[1]))


@pytest.fixture(scope="session")
def shared() -> Path:
    """Reference material: the folder `shared` beside the checkout, or FASTFACE_SHARED. Skips without it."""
    beside = Path(__file__).resolve().parents[2] / "shared"
    folder = Path(os.environ.get("FASTFACE_SHARED") or beside)
    if not folder.is_dir():
        pytest.skip(f"no reference material at {folder} (set FASTFACE_SHARED)")
    return folder


@pytest.fixture(scope="session")
def portrait(shared: Path) -> Callable[..., NDArray[np.uint8]]:
    """A portrait of the reference material by its number, at a size."""
    import cv2

    from fastface.images import read_image

    def at_size(name: str, height: int = 288, width: int = 288, kind: str = "neutral") -> NDArray[np.uint8]:
        photo = read_image(shared / "data" / "photos" / "london" / kind / f"{name}.jpg")
        way = cv2.INTER_AREA if height < photo.shape[0] else cv2.INTER_CUBIC
        return np.asarray(cv2.resize(photo, (width, height), interpolation=way), np.uint8)

    return at_size
