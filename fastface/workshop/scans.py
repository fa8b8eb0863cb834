"""Reading a scan: a triangle mesh in whatever unit and axes, with colours if it has any.

``.obj`` (colours at the vertices, or one texture image named by its material library), ``.ply`` (``red``,
``green``, ``blue``), ``.npz`` (``vertices (V, 3)``, ``triangles (F, 3)`` from 0, and ``colors (V, 3)`` uint8
sRGB if there are any). Whatever is in the file, a damaged or hostile one is a ``BadModelFile``.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fastface.errors import BadImage, BadModelFile
from fastface.importers.obj import Limits
from fastface.importers.published import need, read_bytes
from fastface.importers.sequence import read_mesh
from fastface.morphable import ArraySpec, read_arrays

Float64 = NDArray[np.float64]

#: Whole heads of photogrammetry rigs have a million vertices or two.
LIMITS: Final = Limits(bytes=512 << 20, lines=12_000_000, vertices=3_000_000, triangles=6_000_000)
_FARTHEST: Final = 1e9
_MOST_LIBRARY_BYTES: Final = 1 << 20
_VERTICES: Final = ArraySpec("float", 2, "(V, 3)")
_TRIANGLES: Final = ArraySpec("integer", 2, "(F, 3)")
_COLORS: Final = ArraySpec("|u1", 2, "(V, 3) sRGB")


@dataclass(frozen=True, eq=False)
class Scan:
    """``vertices (V, 3)`` in the file's unit, ``triangles (F, 3)``; ``colors (V, 3)`` sRGB, or ``uv (F, 3,
    2)`` with an ``image (H, W, 3)`` sRGB, or neither. ``note``: what of the file could not be used.
    """

    vertices: Float64
    triangles: NDArray[np.int32]
    colors: NDArray[np.uint8] | None = None
    uv: NDArray[np.float32] | None = None
    image: NDArray[np.uint8] | None = None
    note: str = ""

    @property
    def coloured(self) -> bool:
        """Whether there are colours of either kind."""
        return self.colors is not None or self.image is not None

    def colors_at(self, triangle: NDArray[np.int64], weights: Float64) -> NDArray[np.uint8]:
        """(N, 3) sRGB at places on the mesh, by row of ``triangles`` and weights (N, 3) of its corners."""
        if self.image is not None and self.uv is not None:
            place = np.einsum("ncx,nc->nx", self.uv[triangle].astype(np.float64), weights)
            return _sampled(self.image, place)
        if self.colors is None:
            raise BadModelFile("this scan has no colours")
        corners = self.colors[self.triangles[triangle]].astype(np.float64)
        mixed: NDArray[np.uint8] = np.round(np.einsum("ncx,nc->nx", corners, weights)).astype(np.uint8)
        return mixed

    def vertex_colors(self) -> NDArray[np.uint8] | None:
        """(V, 3) sRGB, of the texture image if that is what there is; None without colours."""
        if self.colors is not None or self.image is None or self.uv is None:
            return self.colors
        colors = np.full((len(self.vertices), 3), 128, np.uint8)
        colors[self.triangles.ravel()] = _sampled(self.image, self.uv.reshape(-1, 2).astype(np.float64))
        return colors


def read_scan(path: Path) -> Scan:
    """Read a scan. Raises ``BadModelFile``."""
    label = str(path)
    if path.suffix.casefold() == ".npz":
        scan = _from_arrays(path)
    else:
        mesh = read_mesh(path, looks=True, limits=LIMITS)
        scan = Scan(mesh.vertices, mesh.triangles, mesh.colors)
        if mesh.colors is None and mesh.uv is not None and mesh.material:
            image, note = _texture(path, mesh.material)
            scan = Scan(mesh.vertices, mesh.triangles, None, None if image is None else mesh.uv, image, note)
    vertices, triangles = scan.vertices, scan.triangles
    need(50 <= len(vertices) <= LIMITS.vertices, label, f"wanted 50 vertices or more, got {len(vertices)}")
    faces = len(triangles)
    need(1 <= faces <= LIMITS.triangles, label, f"wanted 1 to {LIMITS.triangles} triangles, got {faces}")
    low, high = float(vertices.min()), float(vertices.max())  # NaN passes through both
    finite = bool(np.isfinite([low, high]).all()) and max(-low, high) < _FARTHEST
    need(finite, label, f"wanted finite vertices below {_FARTHEST:g}")
    need(float(np.ptp(vertices, axis=0).max()) > 0, label, "wanted a mesh, got a single point")
    first, last = int(triangles.min()), int(triangles.max())
    count = len(vertices)
    need(first >= 0 and last < count, label, f"wanted triangles over {count} vertices, got {first} … {last}")
    return scan


def _from_arrays(path: Path) -> Scan:
    arrays = read_arrays(path, {"vertices": _VERTICES, "triangles": _TRIANGLES})
    vertices, triangles = arrays["vertices"], arrays["triangles"]
    need(vertices.shape[1] == 3, str(path), f"wanted vertices (V, 3), got {vertices.shape}")
    need(triangles.shape[1] == 3, str(path), f"wanted triangles (F, 3), got {triangles.shape}")
    need(triangles.size > 0 and vertices.size > 0, str(path), "wanted a mesh, it is empty")
    low, high = int(triangles.min()), int(triangles.max())
    need(low >= 0 and high < len(vertices), str(path), f"wanted triangles over {len(vertices)} vertices")
    colors = _optional_colors(path, len(vertices))
    return Scan(vertices.astype(np.float64), np.ascontiguousarray(triangles, np.int32), colors)


def _optional_colors(path: Path, count: int) -> NDArray[np.uint8] | None:
    import zipfile

    with zipfile.ZipFile(path) as archive:
        if "colors.npy" not in archive.namelist():
            return None
    colors: NDArray[Any] = read_arrays(path, {"colors": _COLORS})["colors"]
    if colors.shape == (0, 3):
        return None
    need(colors.shape == (count, 3), str(path), f"wanted colors ({count}, 3), got {colors.shape}")
    return colors


def _texture(path: Path, library: str) -> tuple[NDArray[np.uint8] | None, str]:
    """The texture image of an OBJ, or why there is none; only files of its own folder are opened."""
    from fastface.images import read_image

    material = _beside(path, library)
    try:
        lines = read_bytes(material, _MOST_LIBRARY_BYTES).splitlines()
        # The file's name is the last word: options may stand before it.
        names = {words[-1] for line in lines if (words := line.split())[:1] == [b"map_Kd"] and words[1:]}
        if len(names) != 1:
            return None, f"no colours: {material.name:.80} names {len(names)} images, wanted one"
        return read_image(_beside(path, names.pop().decode("utf-8", "replace"))), ""
    except (BadImage, BadModelFile) as error:
        return None, f"no colours: {error!s:.200}"


def _beside(path: Path, name: str) -> Path:
    """The file in the folder of ``path`` that goes by the last part of ``name``."""
    return path.parent / Path(name.replace("\\", "/")).name


def _sampled(image: NDArray[np.uint8], uv: Float64) -> NDArray[np.uint8]:
    """``image`` at texture coordinates ``(N, 2)``, v up, repeated beyond 0 … 1; between pixels, linearly."""
    height, width = image.shape[:2]
    inside = np.where((uv >= 0) & (uv <= 1), uv, uv % 1)
    x = np.clip(inside[:, 0] * width - 0.5, 0, width - 1)
    y = np.clip((1 - inside[:, 1]) * height - 0.5, 0, height - 1)
    column, row = np.floor(x).astype(np.int64), np.floor(y).astype(np.int64)
    right, below = np.minimum(column + 1, width - 1), np.minimum(row + 1, height - 1)
    across, down = (x - column)[:, None], (y - row)[:, None]
    upper = image[row, column] * (1 - across) + image[row, right] * across
    lower = image[below, column] * (1 - across) + image[below, right] * across
    mixed: NDArray[np.uint8] = np.round(upper * (1 - down) + lower * down).astype(np.uint8)
    return mixed
