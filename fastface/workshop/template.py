"""The mesh that scans are brought on to: a head model, or any mesh of a face.

Only its surface is laid on scans: of a head model skin, lips and lids, of another mesh the part that the face
is on. Eyeballs and teeth keep their shape and follow; whatever else there is follows the surface around it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fastface.correspondence import IRISES
from fastface.errors import BadModelFile
from fastface.fitting import FACE_RIM
from fastface.head_models import open_model
from fastface.importers.components import part_of_each, weld
from fastface.importers.pointing import Bare, Marks, point_out
from fastface.importers.published import need
from fastface.importers.template import Template as DefaultHead
from fastface.importers.template import template as default_head
from fastface.landmark_tables import LANDMARKS68
from fastface.morphable import HeadModel, load_default, read_arrays
from fastface.painted_face import vertex_normals
from fastface.surface import nearest_on_triangles
from fastface.workshop.cylinder import Cylinder
from fastface.workshop.placing import placed
from fastface.workshop.scan_landmarks import Named, ibug, read_landmarks
from fastface.workshop.scans import Scan, read_scan

Float64 = NDArray[np.float64]
Rows = NDArray[np.int64]

_OUTER: Final = ("skin", "lips", "eyelids")
_LID_STIFFER: Final = 3.0
_RIM_STIFFER: Final = 1.5
_LID_GIVES: Final = 0.3  # lids are pulled less by the surface: few scans have them open and clean
_FOREHEAD: Final = 0.45  # of the height of the landmarks: how far the face goes on above them


@dataclass(frozen=True, eq=False)
class Template:
    """In head space, mm: ``vertices (V, 3)``, ``triangles (F, 3)``.

    ``surface (n,)``: the vertices that are laid on a scan, ``faces (G, 3)`` their triangles by row of
    ``surface``; ``stiffer``, ``gives (n,)``: stiffness around each and how much the scan pulls it; ``face
    (n,)``: whether it counts when residuals are told. ``rigid``: vertices that move as one. Landmarks:
    ``named`` places; ``bare (478, 3)`` as the landmark network reads them off the mesh without colours, NaN
    where it does not; ``painted (478, 3)`` where they lie in photographs, if that is known.
    """

    name: str
    digest: str
    vertices: Float64
    triangles: NDArray[np.int32]
    surface: Rows
    faces: NDArray[np.int64]
    stiffer: Float64
    gives: Float64
    face: NDArray[np.bool_]
    rigid: tuple[Rows, ...]
    named: Named
    bare: Float64 | None
    painted: Float64 | None
    cylinder: Cylinder

    @property
    def shell(self) -> Float64:
        """(n, 3) of the surface."""
        return self.vertices[self.surface]

    def normals(self, shell: Float64) -> Float64:
        """(n, 3) outward unit normals of the surface when its vertices are at ``shell (n, 3)``."""
        return vertex_normals(shell.astype(np.float32), self.faces.astype(np.int32)).astype(np.float64)

    def anchored(self, points: Float64) -> tuple[NDArray[np.int64], Float64]:
        """Rows of the surface (L, 3) and their weights (L, 3) nearest to ``points (L, 3)``."""
        found = nearest_on_triangles(points, self.shell, self.faces)
        return self.faces[found.row], found.weights


def open_template(source: str, landmarks: Path | None = None, *, reading: bool = True) -> Template:
    """A template from the name or file of a head model, or a mesh file, whose ``landmarks`` can be given.

    ``reading``: whether scans will be read by the landmark network. Raises ``BadModelFile``,
    ``NoFaceFound``.
    """
    path = Path(source)
    if source in ("default", "ict") or (path.suffix.casefold() == ".npz" and _is_model(path)):
        return _of_model(open_model(source), source, landmarks, reading)
    if not path.is_file():
        raise BadModelFile(f"{source}: wanted default, ict, a head model or a mesh file; there is none")
    return _of_mesh(read_scan(path), path, landmarks, reading)


def _is_model(path: Path) -> bool:
    from fastface.morphable import SAYS

    try:
        read_arrays(path, SAYS)
    except BadModelFile:
        return False
    return True


def _of_model(model: HeadModel, source: str, landmarks: Path | None, reading: bool) -> Template:
    head = DefaultHead(model, Marks(np.zeros((0, 3)), np.eye(3), False, np.zeros(0, np.int64)))
    rows = head.outer
    faces = _renumbered(model.triangles[model.material_triangles(*_OUTER)], rows, len(model.vertices))
    lids = np.isin(rows, np.concatenate(head.lids))
    stiffer = np.where(lids, _LID_STIFFER, 1.0)
    stiffer[np.isin(rows, head.rims)] *= _RIM_STIFFER
    marks68 = model.landmarks68.points(model.vertices, model.triangles).astype(np.float64)
    painted = model.landmarks478.points(model.vertices, model.triangles).astype(np.float64)
    bare = _bare(model, source) if reading else None
    return Template(
        name=model.name,
        digest=model.digest,
        vertices=head.vertices,
        triangles=model.triangles,
        surface=rows,
        faces=faces,
        stiffer=stiffer,
        gives=np.where(lids, _LID_GIVES, 1.0),
        face=np.isin(rows, head.face),
        rigid=(*(eye for eye in head.eyes if len(eye)), *_teeth(model)),
        named=ibug(marks68) if landmarks is None else read_landmarks(landmarks),
        bare=bare,
        painted=painted,
        cylinder=Cylinder.around(head.vertices[head.face]),
    )


def _teeth(model: HeadModel) -> list[Rows]:
    """The vertices of each tooth, or of what hangs together of them."""
    triangles = model.triangles[model.material_triangles("teeth")]
    if not len(triangles):
        return []
    part = part_of_each(triangles, len(model.vertices))
    return [np.unique(triangles[part == number]).astype(np.int64) for number in np.unique(part)]


def _bare(model: HeadModel, source: str) -> Float64:
    from fastface.landmarks import LandmarkDetector

    if source == "default":
        return default_head().marks.points
    faces = model.triangles[model.material_triangles(*_OUTER, "eyeballs")]
    bare = Bare.plain(model.vertices.astype(np.float64), np.ascontiguousarray(faces))
    return point_out(bare, LandmarkDetector(), f"the template {source}").points


def _of_mesh(mesh: Scan, path: Path, landmarks: Path | None, reading: bool) -> Template:
    from fastface.landmarks import LandmarkDetector

    label = f"the template {path}"
    triangles, _ = weld(mesh.vertices, mesh.triangles)
    need(len(triangles) > 0, label, "wanted triangles with an area, there are none")
    vertices, bare = mesh.vertices, None
    if landmarks is None or reading:
        bare = point_out(Bare.plain(vertices, triangles), LandmarkDetector(), label).points
    if landmarks is not None:
        named = read_landmarks(landmarks)
    else:
        assert bare is not None
        named = {key: place for key, place in ibug(bare[list(LANDMARKS68)]).items() if np.isfinite(place[0])}
    pose = _upright(named, bare, label)
    vertices = pose.points(vertices)
    named = {key: pose.points(place) for key, place in named.items()}
    bare = None if bare is None else pose.points(bare)
    points = np.array(list(named.values()))
    near = nearest_on_triangles(points, vertices, triangles)
    part = part_of_each(triangles, len(vertices))
    triangles = triangles[part == np.bincount(part[near.row]).argmax()]
    rows: Rows = np.unique(triangles).astype(np.int64)
    face = _face(vertices[rows], points)
    need(bool(face.any()), label, "wanted vertices among its landmarks, there are none")
    ahead = vertex_normals(vertices.astype(np.float32), triangles)[rows, 2]
    if np.median(ahead[face]) < 0:  # wound the other way
        triangles, ahead = np.ascontiguousarray(triangles[:, ::-1]), -ahead
    state = hashlib.sha256(np.ascontiguousarray(vertices, "<f8").tobytes())
    state.update(np.ascontiguousarray(triangles, "<i4").tobytes())
    return Template(
        name=path.stem,
        digest=state.hexdigest(),
        vertices=vertices,
        triangles=mesh.triangles,
        surface=rows,
        faces=_renumbered(triangles, rows, len(vertices)),
        stiffer=np.ones(len(rows)),
        gives=np.ones(len(rows)),
        face=face & (ahead > 0.1),
        rigid=(),
        named=named,
        bare=bare,
        painted=None,
        cylinder=Cylinder.around(vertices[rows[face]]),
    )


def _upright(named: Named, bare: Float64 | None, label: str) -> Any:
    """The pose of a mesh in head space: its landmarks where the default head has them."""
    if bare is not None:
        home = default_head().marks.points
        rows = reliable(home, bare)
        return placed(bare[rows], home[rows], None, label)
    model = load_default()
    home68 = ibug(model.landmarks68.points(model.vertices, model.triangles))
    both = [key for key in named if key in home68]
    if len(both) < 5:
        raise BadModelFile(f"{label}: wanted 5 landmarks of known names, to place it by; got {len(both)}")
    here = np.array([named[key] for key in both])
    return placed(here, np.array([home68[key] for key in both]), None, label)


def reliable(home: Float64, read: Float64) -> Rows:
    """Rows of the 478 that were read on both heads; not those of silhouettes and irises, which lie off the
    surface."""
    both = np.isfinite(home[:, 0]) & np.isfinite(read[:, 0])
    both[list(FACE_RIM)] = False
    both[list(IRISES)] = False
    return np.flatnonzero(both)


def _face(vertices: Float64, points: Float64) -> NDArray[np.bool_]:
    """Which vertices lie among the landmarks, seen from the front, and on the forehead above them."""
    import cv2

    top = float(points[:, 1].max())
    upper = points[points[:, 1] > np.median(points[:, 1])].copy()
    upper[:, 1] = top + _FOREHEAD * float(np.ptp(points[:, 1])) / 2
    hull = cv2.convexHull(np.concatenate([points, upper])[:, :2].astype(np.float32))
    inside = [cv2.pointPolygonTest(hull, (float(x), float(y)), False) >= 0 for x, y, _ in vertices]
    near: NDArray[np.bool_] = vertices[:, 2] > float(np.median(points[:, 2])) - 60
    return np.array(inside) & near


def _renumbered(triangles: NDArray[Any], rows: Rows, count: int) -> NDArray[np.int64]:
    number = np.full(count, -1, np.int64)
    number[rows] = np.arange(len(rows))
    renumbered: NDArray[np.int64] = number[triangles]
    return renumbered
