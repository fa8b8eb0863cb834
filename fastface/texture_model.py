"""What faces look like on a head model, in a feature space, and its one file format.

Kollias et al. 2020, section 3.4, after Booth et al. 2017: features sampled at the vertices vary linearly
about a mean,

    ``texture = mean + sum_k t_k * components_k``,  t_k of unit variance,

plus noise of its own at each vertex. File: a compressed ``.npz`` of the arrays of ``ARRAYS``, never pickles.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fastface.atomic import whole_file
from fastface.errors import BadModelFile
from fastface.features import FEATURES
from fastface.morphable import MAX_MODES, MAX_TEXT, SAYS, ArraySpec, HeadModel, read_format, write_archive

Float32 = NDArray[np.float32]

FORMAT: Final = "fastface-texture-model"
VERSION: Final = 1
DEFAULT_TEXTURE: Final = Path(__file__).parent / "assets" / "default_texture.npz"
_LARGEST: Final = 1e4

ARRAYS: Final = {
    **SAYS,
    "source": ArraySpec("U", 0, "what it was made of"),
    "license": ArraySpec("U", 0, "SPDX identifier or a sentence"),
    "model_hash": ArraySpec("U", 0, "HeadModel.digest of the head it belongs to"),
    "feature": ArraySpec("U", 0, "a name out of fastface.features.FEATURES"),
    "mean": ArraySpec("<f4", 2, "(V, C)"),
    "components": ArraySpec("<f2", 3, "(K, V, C) one standard deviation each"),
    "precision": ArraySpec("<f4", 1, "(V,) 1 / variance of what the components leave; 0: never seen"),
}


@dataclass(frozen=True, eq=False)
class TextureModel:
    """A linear model of features at the vertices of a head model. Shapes as in ``ARRAYS``."""

    source: str
    license: str
    model_hash: str
    feature: str
    mean: Float32
    components: NDArray[np.float16]
    precision: Float32

    def check(self, head: HeadModel, label: str = "texture model") -> None:
        """Raise ``BadModelFile`` unless this is a texture of ``head``."""
        if self.model_hash != head.digest:
            raise BadModelFile(
                f"{label}: made for another head model ({self.model_hash[:12]}…) than {head.name} "
                f"({head.digest[:12]}…); `fastface model build-texture` makes one of photos"
            )
        if len(self.mean) != len(head.vertices):
            raise BadModelFile(
                f"{label}: wanted a texture of {len(head.vertices)} vertices, got {len(self.mean)}"
            )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Check and write the file, whole or not at all. Raises ``BadModelFile``, ``WriteFailed``."""
        self._validate("texture model")
        fields: dict[str, Any] = {**vars(self), "format": FORMAT, "version": VERSION}
        arrays = {
            name: np.array(fields[name], dtype=None if spec.dtype == "U" else spec.dtype, order="C")
            for name, spec in ARRAYS.items()
        }
        with whole_file(Path(path)) as temporary, temporary.open("wb") as stream:
            write_archive(stream, arrays)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> TextureModel:
        """Read and check a file. Raises ``BadModelFile``."""
        arrays: dict[str, Any] = read_format(path, FORMAT, VERSION, ARRAYS)
        label = os.fspath(path)
        for name in ("source", "license", "model_hash", "feature"):
            arrays[name] = str(arrays[name][()])
        model = cls(**arrays)
        model._validate(label)
        return model

    def _validate(self, label: str) -> None:
        def need(condition: bool | np.bool_, message: str) -> None:
            if not condition:
                raise BadModelFile(f"{label}: {message}")

        need(
            self.feature in FEATURES,
            f"feature must be one of {', '.join(FEATURES)}, got {self.feature[:40]!r}",
        )
        need(re.fullmatch("[0-9a-f]{64}", self.model_hash) is not None, "model_hash must be 64 hex digits")
        channels = FEATURES[self.feature].channels
        vertices = len(self.mean)
        shape = (vertices, channels)
        need(self.mean.shape == shape, f"mean must be (V, {channels}), got {self.mean.shape}")
        need(self.components.shape[1:] == shape, f"components must be (K, {vertices}, {channels})")
        need(len(self.components) <= MAX_MODES, f"wanted at most {MAX_MODES} components")
        need(self.precision.shape == (vertices,), f"precision must be ({vertices},)")
        for name in ("mean", "components", "precision"):
            array = getattr(self, name)
            need((np.abs(array) <= _LARGEST).all(), f"{name} must be finite and within ±{_LARGEST:g}")
        need((self.precision >= 0).all(), "precision must not be negative")
        need((self.precision > 0).any(), "wanted some vertex to have been seen")
        for name in ("source", "license"):
            need(0 < len(getattr(self, name)) <= MAX_TEXT, f"{name} must have 1 to {MAX_TEXT} characters")
