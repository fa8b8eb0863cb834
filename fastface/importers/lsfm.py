"""The Large Scale Facial Model (Booth et al., "A 3D Morphable Model learnt from 10,000 faces", CVPR 2016).

The authors' ``.mat`` files hold ``mean (3V,)``, unit ``components (3V, K)``, ``eigenvalues (K,)``, which are
variances, and ``trilist (F, 3)``, which counts from 0. There are no expressions in them. Full and cropped
models are read alike. Neither names its unit; the size of the face tells.
"""

from __future__ import annotations

import os

import numpy as np

from fastface.importers.matlab import read_matlab
from fastface.importers.published import Published, check, deviations_of, need, principal_modes, triangles_of


def read_lsfm(path: str | os.PathLike[str]) -> Published:
    """Read one of the authors' files. Raises ``BadModelFile``."""
    label = os.fspath(path)
    found = read_matlab(path, ("mean", "components", "eigenvalues", "trilist"))
    mean = found["mean"].astype(np.float64).ravel()
    need(len(mean) % 3 == 0, label, f"wanted a mean of three numbers a vertex, got {len(mean)}")
    deviations = deviations_of(found["eigenvalues"], f"{label}: eigenvalues")
    face = Published(
        name="lsfm",
        source="Large Scale Facial Model, Imperial College London, https://github.com/menpo/lsfm",
        license="The authors' licence for non-commercial research; the model must not be passed on",
        vertices=mean.reshape(-1, 3),
        triangles=triangles_of(found["trilist"], f"{label}: trilist"),
        identity=principal_modes(found["components"], deviations, f"{label}: components"),
    )
    check(face, label)
    return face
