"""The Basel Face Model of 2009, 2017 and 2019, as the University of Basel hands them out.

- 2009 (Paysan et al., "A 3D Face Model for Pose and Illumination Invariant Face Recognition", AVSS 2009):
  ``01_MorphableModel.mat`` with ``shapeMU (3V, 1)``, ``shapePC (3V, 199)``, ``shapeEV (199, 1)``, which are
  standard deviations whatever their name says, ``texMU (3V, 1)`` in 0…255 and triangles ``tl`` that count
  from 1. Micrometres.
- 2017 and 2019 (Gerig et al., "Morphable Face Models - An Open Framework", FG 2018): HDF5 as statismo writes
  it: ``{shape,expression,color}/model/{mean,pcaBasis,pcaVariance}`` and ``shape/representer/cells``.
  Millimetres. The neutral face is the mean of the shapes plus the mean of the expressions.

The expression components of 2017 and 2019 are principal components without names; they are not read.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastface.errors import BadModelFile
from fastface.importers.matlab import read_matlab
from fastface.importers.published import (
    MAX_BYTES,
    Float32,
    Published,
    check,
    deviations_of,
    file_size,
    need,
    principal_modes,
    triangles_of,
    workshop,
)

_HDF5 = b"\x89HDF\r\n\x1a\n"
_LICENSE = "The University of Basel's licence for non-commercial use; the model must not be passed on"
_SOURCE = "Basel Face Model {year}, University of Basel, https://faces.dmi.unibas.ch/bfm"


def read_bfm(path: str | os.PathLike[str]) -> Published:
    """Read a ``.mat`` of 2009 or an ``.h5`` of 2017 or 2019. Raises ``BadModelFile``; without h5py
    ``ProviderUnavailable``.
    """
    label = os.fspath(path)
    file_size(path)
    with open(path, "rb") as stream:
        hdf5 = stream.read(8) == _HDF5
    face = _read_hdf5(path, label) if hdf5 else _read_2009(path, label)
    check(face, label)
    return face


def _read_2009(path: str | os.PathLike[str], label: str) -> Published:
    found = read_matlab(path, ("shapeMU", "shapePC", "shapeEV", "tl"), ("texMU",))
    mean = _points(found["shapeMU"], "shapeMU", label)
    colour = found.get("texMU")
    return Published(
        name="bfm2009",
        source=_SOURCE.format(year=2009),
        license=_LICENSE,
        vertices=mean,
        triangles=triangles_of(found["tl"], f"{label}: tl", first=1),
        identity=principal_modes(found["shapePC"], found["shapeEV"], f"{label}: shapePC"),
        colour=None if colour is None else _colours(_points(colour, "texMU", label)),
    )


def _read_hdf5(path: str | os.PathLike[str], label: str) -> Published:
    h5py = workshop("h5py")
    try:
        with h5py.File(path, "r", locking=False) as file:

            def read(name: str) -> NDArray[Any]:
                return _dataset(h5py, file, name, label)

            mean = _points(read("shape/model/mean"), "shape/model/mean", label)
            triangles = triangles_of(read("shape/representer/cells"), f"{label}: cells")
            basis, variance = read("shape/model/pcaBasis"), read("shape/model/pcaVariance")
            if _has(file, "expression/model/mean"):
                smile = _points(read("expression/model/mean"), "expression/model/mean", label)
                need(smile.shape == mean.shape, label, "wanted expressions over the vertices of the shape")
                mean = mean + smile
            colour = None
            if _has(file, "color/model/mean"):
                colour = _points(read("color/model/mean"), "color/model/mean", label)
    except BadModelFile:
        raise
    except (OSError, KeyError, ValueError, TypeError, RuntimeError, MemoryError) as error:
        raise BadModelFile(f"{label}: wanted an undamaged HDF5 file ({str(error)[:160]})") from error
    year = 2019 if "2019" in os.path.basename(label) else 2017
    return Published(
        name=f"bfm{year}",
        source=_SOURCE.format(year=year),
        license=_LICENSE,
        vertices=mean,
        triangles=triangles,
        identity=_statismo_modes(basis, variance, f"{label}: shape/model/pcaBasis"),
        colour=None if colour is None else _colours(colour),
    )


def _statismo_modes(basis: NDArray[Any], variance: NDArray[Any], label: str) -> Float32:
    """Statismo keeps orthonormal columns since its version 0.9 and kept columns as long as the standard
    deviation before: their length tells which.
    """
    sigma = deviations_of(variance, label)
    need(
        basis.ndim == 2 and basis.shape[1] == len(sigma),
        label,
        f"wanted (3 V, {len(sigma)}), got {basis.shape}",
    )
    length = np.sqrt(np.einsum("vk,vk->k", basis, basis, dtype=np.float64))
    used = (sigma > 0) & (length > 0)
    scaled = bool(used.any()) and bool(
        np.median(np.abs(np.log(length[used] / sigma[used]))) < np.median(np.abs(np.log(length[used])))
    )
    return principal_modes(basis, np.ones_like(sigma) if scaled else sigma, label)


def _dataset(h5py: Any, file: Any, name: str, label: str) -> NDArray[Any]:
    """One array of real numbers that lies in this file itself; its size is checked before it is read."""
    need(_has(file, name), label, f"wanted the array {name}, it is missing")
    found = file[name]
    need(isinstance(found, h5py.Dataset), label, f"wanted {name} to be an array")
    need(found.external is None and not found.is_virtual, label, f"{name} refers to other files; refused")
    need(
        found.dtype.kind in "iuf" and found.ndim in (1, 2),
        label,
        f"wanted {name} to be numbers with 1 or 2 axes, got {found.dtype} {found.shape}",
    )
    need(found.size * 8 <= MAX_BYTES, label, f"{name} declares {found.shape}, which is too large")
    array: NDArray[Any] = found[()]
    return array


def _has(file: Any, name: str) -> bool:
    """Whether a path exists without leaving the file: links to other files are refused with the rest."""
    place = file
    for part in name.split("/"):
        link = place.get(part, getlink=True) if hasattr(place, "get") and part in place else None
        if link is None or type(link).__name__ == "ExternalLink":
            return False
        place = place[part]
    return True


def _points(flat: NDArray[Any], name: str, label: str) -> NDArray[np.float64]:
    need(flat.size % 3 == 0, label, f"wanted {name} to hold three numbers a vertex, got {flat.shape}")
    return np.asarray(flat, np.float64).reshape(-1, 3)


def _colours(colour: NDArray[np.float64]) -> NDArray[np.uint8]:
    """sRGB (V, 3): the files have 0…1 or 0…255."""
    known = np.nan_to_num(colour, nan=0.0, posinf=0.0, neginf=0.0)
    scale = 255.0 if len(known) and np.abs(known).max() <= 2.0 else 1.0
    return np.clip(scale * known, 0, 255).astype(np.uint8)
