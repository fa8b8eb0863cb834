"""Where the judge networks lie on this machine."""

from __future__ import annotations

import os
from pathlib import Path

MODEL_FILES = ("faceapi_expression.onnx", "faceapi_recognition.onnx", "fer_expression.onnx")


def cache_folder() -> Path:
    """FASTFACE_JUDGES, or `.cache/judges` of the checkout."""
    chosen = os.environ.get("FASTFACE_JUDGES")
    return Path(chosen) if chosen else Path(__file__).resolve().parents[2] / ".cache" / "judges"
