"""The default head as a template: its mesh is laid onto imported faces and scans."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fastface.fitting import FACE_RIM
from fastface.importers.pointing import Bare, Marks, point_out
from fastface.morphable import HeadModel, load_default
from fastface.painted_face import rim_edges, vertex_normals

Float64 = NDArray[np.float64]
Rows = NDArray[np.int64]

OUTER: Final = ("skin", "lips", "eyelids")
_SAMPLES: Final = 1500


@dataclass(frozen=True)
class Template:
    """The default head and what of it depends on no import."""

    model: HeadModel
    marks: Marks

    @cached_property
    def vertices(self) -> Float64:
        return self.model.vertices.astype(np.float64)

    @cached_property
    def outer(self) -> Rows:
        """Vertices of the outer skin."""
        rows: Rows = np.unique(self.model.triangles[self.model.material_triangles(*OUTER)]).astype(np.int64)
        return rows

    @cached_property
    def eyes(self) -> tuple[Rows, Rows]:
        """Vertices of the left and right eyeball."""
        balls = np.unique(self.model.triangles[self.model.material_triangles("eyeballs")])
        left = self.vertices[balls, 0] > 0
        return balls[left].astype(np.int64), balls[~left].astype(np.int64)

    @cached_property
    def lids(self) -> tuple[Rows, Rows]:
        """Vertices of the lids of the left and right eye."""
        lids = np.unique(self.model.triangles[self.model.material_triangles("eyelids")])
        left = self.vertices[lids, 0] > 0
        return lids[left].astype(np.int64), lids[~left].astype(np.int64)

    @cached_property
    def rims(self) -> Rows:
        """Vertices along the lips' slit and the lids' margins."""
        edges = [rim_edges(self.model, name)[0] for name in ("lips", "eyelids")]
        rows: Rows = np.unique(np.concatenate(edges)).astype(np.int64)
        return rows

    @cached_property
    def normals(self) -> Float64:
        faces = self.model.triangles[self.model.material_triangles(*OUTER)]
        return vertex_normals(self.model.vertices, faces).astype(np.float64)

    @cached_property
    def face(self) -> Rows:
        """Outer vertices within the rim of the face, as seen from the front."""
        from cv2 import pointPolygonTest

        rim = self.model.landmarks478.points(self.model.vertices, self.model.triangles)[list(FACE_RIM), :2]
        contour = rim.astype(np.float32)[:, None]
        place = self.vertices[self.outer]
        inside = np.array([pointPolygonTest(contour, (float(x), float(y)), False) > 0 for x, y, _ in place])
        return np.asarray(self.outer[inside & (self.normals[self.outer, 2] > 0.1)], np.int64)

    @cached_property
    def samples(self) -> Rows:
        """Outer vertices spread over the head, denser on the face."""
        inside = np.isin(self.outer, self.face)
        share = (2 * _SAMPLES // 3, _SAMPLES // 3)
        return np.concatenate(
            [
                spread(self.vertices, self.outer[mask], count)
                for mask, count in zip((inside, ~inside), share, strict=True)
            ]
        )


@cache
def template() -> Template:
    """The default head, read by the landmark network as imported meshes are: without paint."""
    from fastface.landmarks import LandmarkDetector

    model = load_default()
    faces = model.triangles[model.material_triangles(*OUTER, "eyeballs")]
    bare = Bare.plain(model.vertices.astype(np.float64), np.ascontiguousarray(faces))
    return Template(model, point_out(bare, LandmarkDetector(), "the default head"))


def spread(vertices: Float64, rows: Rows, count: int) -> Rows:
    """About ``count`` of ``rows``, evenly over space: one from each cell of a grid of fitting width."""
    if len(rows) <= count:
        return rows
    place = vertices[rows] - vertices[rows].min(axis=0)
    low, high = 0.1, float(place.max())
    for _ in range(30):
        width = np.sqrt(low * high)
        cells = np.floor(place / width).astype(np.int64)
        key = (cells[:, 0] * 100_003 + cells[:, 1]) * 100_003 + cells[:, 2]
        first = np.unique(key, return_index=True)[1]
        low, high = (width, high) if len(first) > count else (low, width)
    return rows[np.sort(first)]
