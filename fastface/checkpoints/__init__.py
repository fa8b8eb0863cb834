"""Checkpoints as their authors publish them, read without torch and without running anything in them."""

from __future__ import annotations

from fastface.checkpoints.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from fastface.checkpoints.safetensors import read_safetensors, write_safetensors
from fastface.checkpoints.torch_files import PickledFile, read_pickled

__all__ = [
    "Checkpoint",
    "PickledFile",
    "read_checkpoint",
    "read_pickled",
    "read_safetensors",
    "write_checkpoint",
    "write_safetensors",
]
