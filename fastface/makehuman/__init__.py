"""Builds the default head model from MakeHuman's CC0 data: ``build_default(wheel) -> HeadModel``."""

from __future__ import annotations

from fastface.makehuman.build import build_default

__all__ = ["build_default"]
