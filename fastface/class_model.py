"""What the plane of valence and arousal shows: classes of faces and the mean of each.

Kollias et al., "Deep Neural Network Augmentation", IJCV 2020, section 4.5.1: annotated faces are clustered by
valence and arousal, and a class is shown by its mean deformation from neutral. Between class means the face
is interpolated, so that a path through the plane moves without a jump: linearly over a Delaunay triangulation
of the class centres, of the neutral face at the origin, and of a ring far out that repeats the outermost
classes.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fastface.atomic import whole_file
from fastface.errors import BadModelFile
from fastface.morphable import SAYS, ArraySpec, read_format, write_archive

Float32 = NDArray[np.float32]

FORMAT: Final = "fastface-affect-model"
VERSION: Final = 1
ASSETS: Final = Path(__file__).parent / "assets"
_CHUNK: Final = 256

_ARRAYS: Final = {
    **SAYS,
    "about": ArraySpec("U", 0, "how it was made, JSON"),
    "names": ArraySpec("U", 1, "(D,) of the coefficients; () where the means are vertices"),
    "va": ArraySpec("<f4", 2, "(C, 2) class centres"),
    "counts": ArraySpec("<i4", 1, "(C,) faces in each"),
    "means": ArraySpec("<f2", 2, "(C, D) mean deformation from neutral"),
    "modes": ArraySpec("<f2", 3, "(C, R, D) the blendshape model of each class: one standard deviation each"),
    "expressions": ArraySpec("U", 1, "(X,) names of the basic expressions"),
    "expression_means": ArraySpec("<f2", 2, "(X, D) their mean faces"),
    "node_va": ArraySpec("<f4", 2, "(M, 2) nodes of the triangulation"),
    "node_class": ArraySpec("<i4", 1, "(M,) whose mean a node shows; -1: neutral"),
    "triangles": ArraySpec("<i4", 2, "(T, 3) over the nodes"),
}


@dataclass(frozen=True, eq=False)
class AffectClasses:
    """Classes of faces over valence and arousal; arrays as in the file's description above."""

    about: str
    names: tuple[str, ...]
    va: Float32
    counts: NDArray[np.int32]
    means: Float32
    modes: Float32
    expressions: tuple[str, ...]
    expression_means: Float32
    node_va: Float32
    node_class: NDArray[np.int32]
    triangles: NDArray[np.int32]

    def at(self, valence: NDArray[Any], arousal: NDArray[Any]) -> NDArray[np.float64]:
        """(N,) points within -1 … 1 → (N, D) deformation; continuous, neutral at (0, 0).

        Coefficients stay within 0 … 1: a class mean may be a hair beyond.
        """
        points = np.stack([valence, arousal], axis=1).astype(np.float64)
        out = np.empty((len(points), self.means.shape[1]))
        for start in range(0, len(points), _CHUNK):
            part = slice(start, start + _CHUNK)
            nodes, weights = self._locate(points[part])
            classes = self.node_class[nodes]
            shown = self.means[classes] * (weights * (classes >= 0))[:, :, None]
            out[part] = shown.sum(axis=1)
        return np.clip(out, 0, 1, out=out) if self.names else out

    def nearest(self, valence: float, arousal: float) -> int:
        """The class whose centre is nearest: the paper's static synthesis shows its mean."""
        return int(np.argmin(((self.va - (valence, arousal)) ** 2).sum(axis=1)))

    def sample(
        self, valence: float, arousal: float, random: np.random.Generator, spread: float = 1.0
    ) -> NDArray[np.float64]:
        """(D,) the face at a point as another person might make it: the mean and the class's own modes.

        The modes fade towards (0, 0), which stays neutral. Coefficients stay within 0 … 1.
        """
        point = np.array([[valence, arousal]], np.float64)
        nodes, shares = self._locate(point)
        expressive = float(shares[self.node_class[nodes] >= 0].sum())
        weights = np.clip(random.normal(0, spread, self.modes.shape[1]), -2.5, 2.5) * expressive
        face = self.at(point[:, 0], point[:, 1])[0] + weights @ self.modes[self.nearest(valence, arousal)]
        return np.asarray(np.clip(face, 0, 1) if self.names else face, np.float64)

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) of everything that decides what a point looks like; labels name their model by it."""
        state = hashlib.sha256("\n".join(self.names).encode())
        for name in ("va", "means", "modes", "node_va", "node_class", "triangles"):
            array = np.ascontiguousarray(getattr(self, name), _ARRAYS[name].dtype)
            state.update(repr((name, array.shape)).encode() + array.tobytes())
        return state.hexdigest()

    @property
    def family(self) -> str:
        """The heads whose prototypes a sampled gallery showed ("default", "ict"); "" where nothing says."""
        try:
            said = json.loads(self.about)["gallery"]["family"]
        except (ValueError, KeyError, TypeError, RecursionError):
            return ""
        return said if isinstance(said, str) else ""

    def _locate(self, points: NDArray[np.float64]) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
        """(N, 2) → the corners (N, 3) of the triangle each lies in, and its barycentric weights."""
        origin, to_bary = self._frames
        offset = points[:, None] - origin  # (N, T, 2)
        b = offset[..., 0] * to_bary[:, 0, 0] + offset[..., 1] * to_bary[:, 0, 1]
        c = offset[..., 0] * to_bary[:, 1, 0] + offset[..., 1] * to_bary[:, 1, 1]
        a = 1 - b - c
        least = np.minimum(np.minimum(a, b), c)
        best = least.argmax(axis=1)  # on a shared edge rounding may say outside both: the less wrong one
        row = np.arange(len(points))
        weights = np.clip(np.stack([a[row, best], b[row, best], c[row, best]], axis=1), 0, 1)
        weights[weights < 1e-9] = 0  # on a node nothing but the node
        return self.triangles[best], weights / weights.sum(axis=1, keepdims=True)

    @cached_property
    def _frames(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        origin = self.node_va[self.triangles[:, 0]].astype(np.float64)
        return origin, np.asarray(np.linalg.inv(self._edges()), np.float64)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the file, whole or not at all. Raises ``WriteFailed``."""
        fields: dict[str, Any] = {**vars(self), "format": FORMAT, "version": VERSION}
        arrays = {
            name: np.array(fields[name], dtype="U" if spec.dtype == "U" else spec.dtype)
            for name, spec in _ARRAYS.items()
        }
        with whole_file(Path(path)) as temporary, temporary.open("wb") as stream:
            write_archive(stream, arrays)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> AffectClasses:
        """Read and check a file. Raises ``BadModelFile``."""
        arrays: dict[str, Any] = read_format(path, FORMAT, VERSION, _ARRAYS)
        label = os.fspath(path)
        arrays["about"] = str(arrays["about"][()])
        for name in ("names", "expressions"):
            arrays[name] = tuple(map(str, arrays[name]))
        for name in ("means", "modes", "expression_means"):
            arrays[name] = arrays[name].astype(np.float32)
        model = cls(**arrays)
        model._check(label)
        return model

    def _check(self, label: str) -> None:
        classes, width = self.means.shape
        nodes = len(self.node_va)
        agree = (
            classes > 0
            and self.va.shape == (classes, 2)
            and self.counts.shape == (classes,)
            and self.modes.shape[::2] == (classes, width)
            and self.expression_means.shape == (len(self.expressions), width)
            and self.node_va.shape == (nodes, 2)
            and self.node_class.shape == (nodes,)
            and self.triangles.ndim == 2
            and self.triangles.shape[1] == 3
            and len(self.triangles) > 0
            and len(self.names) in (0, width)
        )
        if not agree:
            raise BadModelFile(f"{label}: the shapes of its arrays do not agree")
        if not (self.triangles.min() >= 0 and self.triangles.max() < nodes):
            raise BadModelFile(f"{label}: triangles must be of its {nodes} nodes")
        if not (self.node_class.min() >= -1 and self.node_class.max() < classes):
            raise BadModelFile(f"{label}: nodes must be of its {classes} classes")
        for name in ("va", "means", "modes", "expression_means", "node_va"):
            if not (np.abs(getattr(self, name)) <= 1000).all():  # false for NaN
                raise BadModelFile(f"{label}: {name} must be finite and within ±1000")
        if not (np.abs(np.linalg.det(self._edges())) > 1e-12).all():
            raise BadModelFile(f"{label}: its triangles must have an area")

    def _edges(self) -> NDArray[np.float64]:
        corners = self.node_va[self.triangles].astype(np.float64)
        return np.stack([corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]], axis=2)


@lru_cache(maxsize=8)
def affect_classes(family: str) -> AffectClasses:
    """The classes that ship with the package for a family of heads; an unknown family has the default's."""
    path = ASSETS / f"affect_{family}.npz"
    return AffectClasses.load(path if path.is_file() else ASSETS / "affect_default.npz")


def columns_of(classes: AffectClasses, names: Sequence[str]) -> NDArray[np.intp]:
    """Where each of ``names`` stands among the classes' coefficients. Raises ``BadModelFile``."""
    if not classes.names:
        raise BadModelFile(
            "wanted an affect model of expression coefficients, this one is of meshes of "
            f"{classes.means.shape[1] // 3} vertices; build one from a gallery of coefficients"
        )
    place = {name: index for index, name in enumerate(classes.names)}
    missing = [name for name in names if name not in place]
    if missing:
        raise BadModelFile(f"the affect model lacks {', '.join(missing)[:120]}")
    return np.array([place[name] for name in names], np.intp)
