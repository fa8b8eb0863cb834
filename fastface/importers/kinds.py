"""The published formats by name."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Final, NamedTuple

from fastface.importers.bfm import read_bfm
from fastface.importers.carrying import carry
from fastface.importers.flame import read_flame
from fastface.importers.gltf import read_gltf
from fastface.importers.gnm import read_gnm
from fastface.importers.laying import Fitted
from fastface.importers.lsfm import read_lsfm
from fastface.importers.published import Published
from fastface.importers.sequence import read_sequence
from fastface.importers.surrey import read_surrey
from fastface.morphable import HeadModel


class Kind(NamedTuple):
    """How a format is read, and what to say of it."""

    read: Callable[[str | os.PathLike[str]], Published]
    what: str
    file: str


KINDS: Final[dict[str, Kind]] = {
    "bfm": Kind(read_bfm, "Basel Face Model 2009, 2017 or 2019", "01_MorphableModel.mat or model20….h5"),
    "lsfm": Kind(read_lsfm, "LSFM, the Large Scale Facial Model", "all_all_all.mat and its like"),
    "flame": Kind(read_flame, "FLAME", "generic_model.pkl and its like"),
    "gnm": Kind(read_gnm, "GNM Head", "gnm_head.npz"),
    "surrey": Kind(read_surrey, "Surrey Face Model", "sfm_shape_3448.bin and its like"),
    "gltf": Kind(read_gltf, "glTF with ARKit-named morph targets", "a .glb or .gltf"),
    "sequence": Kind(read_sequence, "meshes with ARKit's names", "a folder of .obj or .ply, with a neutral"),
}


def import_model(
    kind: str, path: str | os.PathLike[str], *, unit_mm: float | None = None
) -> tuple[HeadModel, Fitted]:
    """Read a published model and carry it onto the default head's mesh; also how well it fits.

    ``unit_mm``: length of the file's unit, where the size of the face should not tell. Raises
    ``BadModelFile``, ``NoFaceFound``, and ``ProviderUnavailable`` without the extra ``workshop``.
    """
    return carry(KINDS[kind].read(path), os.fspath(path), unit_mm=unit_mm)
