"""Labelled facial expressions from one neutral photo.

    import fastface as ff
    engine = ff.Engine()
    face = engine.fit("photo.jpg")
    frame = engine.render(face, ff.Affect.expression("happy", 0.8))     # (H, W, 3) uint8 RGB

Names are loaded when first used, so that importing the package costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastface import errors, generators
    from fastface.affect import Affect, AffectLabels, AffectPath
    from fastface.engine import Engine, FittedFace, Frame
    from fastface.errors import FastfaceError
    from fastface.images import read_image, write_image
    from fastface.labels import Labels, write_labels
    from fastface.morphable import HeadModel
    from fastface.provenance import read_provenance
    from fastface.video import VideoWriter

    __version__: str

_HOME = {
    "Affect": "affect",
    "AffectLabels": "affect",
    "AffectPath": "affect",
    "Engine": "engine",
    "FastfaceError": "errors",
    "FittedFace": "engine",
    "Frame": "engine",
    "HeadModel": "morphable",
    "Labels": "labels",
    "VideoWriter": "video",
    "read_image": "images",
    "read_provenance": "provenance",
    "write_image": "images",
    "write_labels": "labels",
}

__all__ = [
    "Affect",
    "AffectLabels",
    "AffectPath",
    "Engine",
    "FastfaceError",
    "FittedFace",
    "Frame",
    "HeadModel",
    "Labels",
    "VideoWriter",
    "errors",
    "generators",
    "read_image",
    "read_provenance",
    "write_image",
    "write_labels",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from fastface.version import package_version

        value: Any = package_version()
    elif name in ("errors", "generators"):
        value = import_module(f"fastface.{name}")
    elif name in _HOME:
        value = getattr(import_module(f"fastface.{_HOME[name]}"), name)
    else:
        raise AttributeError(f"module 'fastface' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__, "__version__"])
