"""GNM Head, Google's "Generative aNthropometric Model" (Apache-2.0): ``gnm_head.npz`` of its repository.

Read are ``template_vertex_positions (V, 3)``, ``vertex_identity_basis (253, V, 3)`` per standard deviation
and ``triangles (F, 3)``. Metres. Its 383 expressions are components by region of the face without ARKit's
meaning; they are not read. Eyeballs, teeth and tongue are separate parts, and the default head's take their
place, which are made for its expressions.
"""

from __future__ import annotations

import os

import numpy as np

from fastface.importers.published import Published, check, need, triangles_of
from fastface.morphable import ArraySpec, read_arrays

_SPECS = {
    "template_vertex_positions": ArraySpec("float", 2, "(V, 3) mean head, m"),
    "vertex_identity_basis": ArraySpec("float", 3, "(I, V, 3) m per standard deviation"),
    "triangles": ArraySpec("integer", 2, "(F, 3) vertex indices"),
}


def read_gnm(path: str | os.PathLike[str]) -> Published:
    """Read ``gnm_head.npz``. Raises ``BadModelFile``."""
    label = os.fspath(path)
    found = read_arrays(path, _SPECS)
    vertices = found["template_vertex_positions"].astype(np.float64)
    basis = found["vertex_identity_basis"]
    need(basis.shape[1:] == vertices.shape, label, f"wanted a basis (I, {vertices.shape}), got {basis.shape}")
    face = Published(
        name="gnm",
        source="GNM Head, Google, https://github.com/google/GNM",
        license="Apache-2.0, Copyright 2026 Google LLC",
        vertices=vertices,
        triangles=triangles_of(found["triangles"], f"{label}: triangles"),
        identity=basis.astype(np.float32),
    )
    check(face, label)
    return face
