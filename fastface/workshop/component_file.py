"""From a gallery to the meshes that components are sought in, and the file they are kept in."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fastface.atomic import whole_file
from fastface.errors import BadArgument
from fastface.morphable import MATERIALS, HeadModel, write_archive
from fastface.workshop.classes import deformations, neutral_faces
from fastface.workshop.components import Components
from fastface.workshop.gallery import Gallery

FORMAT: Final = "fastface-components"
VERSION: Final = 1
_SKIN: Final = tuple(MATERIALS.index(name) for name in ("skin", "lips", "eyelids"))


@dataclass(frozen=True)
class FaceMesh:
    """``deformations (T, V, 3)`` mm from each person's neutral, on the skin of a head: ``kept (V,)`` of its
    vertices, ``vertices (V, 3)``, ``triangles (F, 3)``."""

    deformations: NDArray[np.float32]
    kept: NDArray[np.int64]
    vertices: NDArray[np.float64]
    triangles: NDArray[np.int32]


def gallery_deformations(gallery: Gallery, head: HeadModel, samples: int, seed: int = 0) -> FaceMesh:
    """``samples`` faces of a gallery as meshes of ``head``; those that show more are likelier to be drawn.

    Raises ``BadArgument`` when gallery and head do not belong together.
    """
    vertices = len(head.vertices)
    if gallery.kind == "vertices" and gallery.width != 3 * vertices:
        raise BadArgument(f"the gallery's meshes have {gallery.width // 3} vertices, the head {vertices}")
    skin = head.triangles[np.isin(head.materials, _SKIN)]
    moves = np.abs(head.expression).max(axis=(0, 2)) > 0.1
    skin = skin[moves[skin].any(axis=1)]
    kept, triangles = np.unique(skin, return_inverse=True)
    marks = gallery.annotations()
    strength = np.hypot(marks["valence"], marks["arousal"]).astype(np.float64)
    random = np.random.default_rng(seed)
    chance = (strength + 1e-3) / (strength + 1e-3).sum()
    drawn = np.sort(random.choice(len(strength), min(samples, len(strength)), replace=False, p=chance))
    rest = neutral_faces(gallery, marks["subject"])
    parts, start = [], 0
    for rows in gallery:
        here = drawn[(drawn >= start) & (drawn < start + len(rows))] - start
        start += len(rows)
        parts.append(deformations(rows, rest)[here])
    values = np.concatenate(parts)
    if gallery.kind == "coefficients":
        place = {name: index for index, name in enumerate(gallery.names)}
        missing = [name for name in head.expression_names if name not in place]
        if missing:
            raise BadArgument(f"the gallery lacks {', '.join(missing)[:120]} of the head")
        basis = head.expression[:, kept].astype(np.float32).reshape(len(head.expression_names), -1)
        order = [place[name] for name in head.expression_names]
        meshes = values[:, order].astype(np.float32) @ basis
    else:
        meshes = values.reshape(len(values), -1, 3)[:, kept].astype(np.float32)
    mesh = triangles.reshape(-1, 3).astype(np.int32)
    return FaceMesh(meshes.reshape(len(meshes), -1, 3), kept, head.vertices[kept].astype(np.float64), mesh)


def save_components(path: str | os.PathLike[str], found: Components, mesh: FaceMesh, head: HeadModel) -> None:
    """Write a ``.npz`` without pickles: components on the whole head, centres, weights, whose head it is."""
    whole = np.zeros((len(found.components), len(head.vertices), 3), np.float16)
    whole[:, mesh.kept] = found.components
    arrays: dict[str, NDArray[Any]] = {
        "format": np.array(FORMAT),
        "version": np.array(VERSION, np.int32),
        "model_sha256": np.array(head.digest),
        "components": whole,
        "centres": mesh.kept[found.centres],
        "weights": found.weights.astype(np.float32),
    }
    with whole_file(Path(path)) as temporary, temporary.open("wb") as stream:
        write_archive(stream, arrays)
