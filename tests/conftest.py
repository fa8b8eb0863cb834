"""What every test may ask for."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared() -> Path:
    """Reference material: the folder `shared` beside the checkout, or FASTFACE_SHARED. Skips without it."""
    beside = Path(__file__).resolve().parents[2] / "shared"
    folder = Path(os.environ.get("FASTFACE_SHARED") or beside)
    if not folder.is_dir():
        pytest.skip(f"no reference material at {folder} (set FASTFACE_SHARED)")
    return folder
