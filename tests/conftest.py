"""What every test may ask for."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

# Behind everything else: benchmarks and exports are found, and an installed fastface comes before the sources.
sys.path.append(str(Path(__file__).resolve().parents[1]))


@pytest.fixture(scope="session")
def shared() -> Path:
    """Reference material: the folder `shared` beside the checkout, or FASTFACE_SHARED. Skips without it."""
    beside = Path(__file__).resolve().parents[2] / "shared"
    folder = Path(os.environ.get("FASTFACE_SHARED") or beside)
    if not folder.is_dir():
        pytest.skip(f"no reference material at {folder} (set FASTFACE_SHARED)")
    return folder
