"""Head models by name: what a caller means by "default", "ict" or a path."""

from __future__ import annotations

import os
from pathlib import Path

from fastface.errors import BadModelFile
from fastface.morphable import DEFAULT_MODEL, HeadModel, load


def model_path(name: str | os.PathLike[str]) -> Path:
    """The file of a head model: "default" (embedded), "ict" (once imported or downloaded), or a path to a
    ``.npz``.

    Raises ``BadModelFile`` when it is not there, saying how to get it.
    """
    if name == "default":
        return DEFAULT_MODEL
    if name == "ict":
        from fastface.download import ict_path

        path = ict_path()
        if not path.is_file():
            raise BadModelFile(
                f"the head model ict is not on this machine ({path}); `fastface model get ict` downloads it, "
                "`fastface model import ict FOLDER` takes a copy you have"
            )
        return path
    path = Path(name)
    if not path.is_file():
        raise BadModelFile(f"{path}: no such head model; known names are default and ict, or a .npz file")
    return path


def open_model(model: str | os.PathLike[str] | HeadModel) -> HeadModel:
    """A head model from a name, a path, or as it is. Raises ``BadModelFile``."""
    return model if isinstance(model, HeadModel) else load(model_path(model))
