"""One scan on to a template's mesh: dense correspondence.

1. **Landmarks**: the lab's, or read off pictures of the scan by the landmark network. They place the scan in
   head space (``placing``).
2. **Start**: template and scan on an unrolled cylinder, the one's plane warped to the other's by the
   landmarks (``cylinder``).
3. **Surface**: non-rigid iterative closest points (``nonrigid_icp``), from stiff to supple. A vertex is
   pulled only by a place that is near, faces the same way and is not on the scan's border, and the less the
   farther it is: hair, holes and what is missing do not pull.
4. What is no surface follows: eyeballs and teeth as they are, the rest by a smooth map of space.

Booth et al., "Large scale 3D morphable models", IJCV 126, 2018; Kollias et al., IJCV 2020, section 3.3.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from fastface.correspondence import Detector
from fastface.errors import BadModelFile
from fastface.importers.components import part_of_each, weld
from fastface.importers.correspondence_map import Surface, Touch, similarity, space_map
from fastface.importers.laying import Pose
from fastface.importers.pointing import Bare, point_out
from fastface.importers.published import need
from fastface.workshop.cylinder import correspondences
from fastface.workshop.nonrigid_icp import Deformation
from fastface.workshop.placing import placed
from fastface.workshop.registered import Registered
from fastface.workshop.scan_landmarks import LEAST, Named
from fastface.workshop.scans import Scan
from fastface.workshop.template import Template, reliable

Float64 = NDArray[np.float64]
Start = Literal["cylinder", "similarity"]

#: Rounds from stiff to supple: stiffness, what landmarks count, how far a place may be (mm), the least cosine
#: between normals.
ROUNDS: Final = (
    (4.0, 8.0, 25.0, 0.5),
    (2.0, 5.0, 15.0, 0.6),
    (1.0, 4.0, 8.0, 0.7),
    (0.5, 3.0, 5.0, 0.7),
    (0.3, 3.0, 5.0, 0.7),
)
_REPEATS: Final = 2
_START_STIFFNESS: Final = 2.0
_START_LANDMARKS: Final = 10.0
_STILL_MM: Final = 0.3
_DISAGREES_MM: Final = 3.0
_ROBUST_MM: Final = 2.0
_SPACING_MM: Final = 3.0
_LEAST_PART: Final = 0.005  # of the scan's triangles: smaller parts that hang together are dirt
_FITS_MM: Final = 4.0
_FITS_COSINE: Final = 0.5
_CONTROL: Final = 900
_LOOSE_SMOOTH: Final = 10.0
_JAW: Final = frozenset(str(mark) for mark in range(17) if mark != 8)
_SLIDES: Final = 0.2  # the jaw's contour is where the camera put it
_EXACT, _WANDERS = 1.0, 40.0  # doubt of a landmark that was given, of one that was read
_READ_COUNTS: Final = 0.3
_READ_FADES: Final = 0.6  # from round to round: the surface is to be believed more than a reading


@dataclass(frozen=True)
class Marks:
    """Pairs of landmarks: ``home (L, 3)`` on the template, ``there (L, 3)`` on the scan in its own axes; what
    each ``counts (L,)`` and how that ``fades`` from round to round, and its ``doubt (L,)``
    (``cylinder.warped``)."""

    home: Float64
    there: Float64
    counts: Float64
    doubt: Float64
    fades: float = 1.0


def register_scan(
    template: Template,
    scan: Scan,
    label: str,
    *,
    landmarks: Named | None = None,
    unit_mm: float | None = None,
    detector: Detector | None = None,
    start: Start = "cylinder",
    go_on: Callable[[], None] = lambda: None,
) -> Registered:
    """Bring ``scan`` on to the template's mesh; the result is in head space, mm.

    ``landmarks`` in the scan's axes and unit; without them they are read off pictures. ``start``: where the
    iteration starts from; "similarity" leaves out the cylinder and is there to be compared with. ``go_on`` is
    called between rounds and may raise to stop. Raises ``BadModelFile``, ``NoFaceFound``.
    """
    triangles, rows = _cleaned(scan, label)
    if landmarks is None:
        marks = _read_marks(template, scan, triangles, label, detector)
    else:
        marks = _given_marks(template, landmarks, label)
    go_on()
    pose = placed(marks.there, marks.home, unit_mm, label)
    vertices = pose.points(scan.vertices)
    triangles = _outward(template, vertices, triangles)
    surface = Surface(vertices, triangles, _SPACING_MM)
    places = pose.points(marks.there)
    shell = _laid(template, surface, marks, places, start, go_on)
    whole = _followed(template, shell)
    return _told(template, whole, surface, scan, rows, pose, marks, places)


def _cleaned(scan: Scan, label: str) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Triangles that have an area and are no crumbs, over vertices welded across seams; and their rows."""
    triangles, rows = weld(scan.vertices, scan.triangles)
    need(len(triangles) > 0, label, "wanted triangles with an area, there are none")
    part = part_of_each(triangles, len(scan.vertices))
    kept = (np.bincount(part) >= _LEAST_PART * len(triangles))[part]
    return np.ascontiguousarray(triangles[kept]), rows[kept]


# ---------------------------------------------------------------------------------------------- landmarks


def _given_marks(template: Template, landmarks: Named, label: str) -> Marks:
    both = [key for key in landmarks if key in template.named]
    if len(both) < LEAST:
        raise BadModelFile(
            f"{label}: wanted {LEAST} landmarks that the template has too, got {len(both)} "
            f"({', '.join(sorted(landmarks)[:5])[:80]})"
        )
    counts = np.array([_SLIDES if key in _JAW else 1.0 for key in both])
    return Marks(
        np.array([template.named[key] for key in both]),
        np.array([landmarks[key] for key in both]),
        counts,
        _EXACT / counts**4,
    )


def _read_marks(
    template: Template, scan: Scan, triangles: NDArray[np.int32], label: str, detector: Detector | None
) -> Marks:
    from fastface.landmarks import LandmarkDetector

    colors = scan.vertex_colors()
    home = template.painted if colors is not None and template.painted is not None else template.bare
    if home is None:
        raise BadModelFile(f"{label}: wanted landmarks of the template to compare with")
    mesh = Bare.plain(scan.vertices, triangles)
    if colors is not None:
        mesh = Bare(scan.vertices, triangles, colors.astype(np.float64))
    read = point_out(mesh, detector or LandmarkDetector(), label).points
    rows = reliable(home, read)
    if len(rows) < 100:
        raise BadModelFile(
            f"{label}: wanted 100 landmarks on its face, the landmark network found {len(rows)}"
        )
    count = len(rows)
    return Marks(home[rows], read[rows], np.full(count, _READ_COUNTS), np.full(count, _WANDERS), _READ_FADES)


def _outward(template: Template, vertices: Float64, triangles: NDArray[np.int32]) -> NDArray[np.int32]:
    """The triangles, wound so that the face looks outwards."""
    from scipy.spatial import cKDTree

    corners = vertices[triangles]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    shell = template.shell
    _, near = cKDTree(corners.mean(axis=1)).query(shell[template.face])
    same = np.einsum("nx,nx->n", normals[near], template.normals(shell)[template.face])
    return triangles if np.median(np.sign(same)) >= 0 else np.ascontiguousarray(triangles[:, ::-1])


# ------------------------------------------------------------------------------------------------- laying


def _laid(
    template: Template,
    surface: Surface,
    marks: Marks,
    places: Float64,
    start: Start,
    go_on: Callable[[], None],
) -> Float64:
    """(n, 3) the template's surface on the scan's."""
    shell = template.shell
    corners, shares = template.anchored(marks.home)
    anchors = (corners, shares, places)
    deformation = Deformation(shell, template.faces, template.stiffer)
    if start == "cylinder":
        targets, found = correspondences(
            template.cylinder,
            (shell, template.faces.astype(np.int32)),
            (surface.vertices, surface.triangles),
            marks.home,
            places,
            marks.doubt,
        )
        weights = found * template.gives
        for _ in range(_REPEATS):
            deformation.solve(targets, weights, _START_STIFFNESS, (*anchors, _START_LANDMARKS * marks.counts))
            # Where lips part, the plane shows another place: it disagrees with those around.
            away = np.linalg.norm(deformation.vertices - targets, axis=1)
            weights = found * template.gives / (1 + (away / _DISAGREES_MM) ** 2) ** 2
    for index, (stiffness, believed, farthest, cosine) in enumerate(ROUNDS):
        counts = believed * marks.fades**index * marks.counts
        for _ in range(_REPEATS):
            go_on()
            touch = _touch(template, surface, deformation.vertices, farthest, cosine)
            onto = surface.at(touch.triangle, touch.weights, surface.vertices)
            weights = (
                touch.fits * template.gives / (1 + (touch.distance / max(_ROBUST_MM, farthest / 3)) ** 2)
            )
            moved = deformation.solve(onto, weights, stiffness, (*anchors, counts))
            if moved < _STILL_MM:
                break
    return deformation.vertices


def _touch(template: Template, surface: Surface, shell: Float64, farthest_mm: float, cosine: float) -> Touch:
    return surface.touch(shell, template.normals(shell), farthest_mm, cosine)


def _followed(template: Template, shell: Float64) -> Float64:
    """(V, 3): the surface at ``shell (n, 3)`` and all else where that takes it."""
    from scipy.spatial import cKDTree

    whole = template.vertices.copy()
    whole[template.surface] = shell
    loose = np.setdiff1d(np.arange(len(whole)), template.surface)
    if not len(loose):
        return whole
    size = float(np.ptp(template.vertices, axis=0).max())
    apart, twin = cKDTree(template.shell).query(template.vertices[loose])
    control = np.unique(np.linspace(0, len(shell) - 1, min(_CONTROL, len(shell))).astype(np.int64))
    mapping = space_map(template.shell[control], shell[control], _LOOSE_SMOOTH)
    whole[loose] = np.where((apart < 1e-6 * size)[:, None], shell[twin], mapping(template.vertices[loose]))
    for piece in template.rigid:
        scale, rotation, translation = similarity(template.vertices[piece], whole[piece])
        whole[piece] = scale * template.vertices[piece] @ rotation.T + translation
    return whole


# ------------------------------------------------------------------------------------------------ telling


def _told(
    template: Template,
    whole: Float64,
    surface: Surface,
    scan: Scan,
    rows: NDArray[np.int64],
    pose: Pose,
    marks: Marks,
    places: Float64,
) -> Registered:
    shell = whole[template.surface]
    touch = _touch(template, surface, shell, _FITS_MM, _FITS_COSINE)
    seen = np.flatnonzero(touch.fits)
    valid = np.zeros(len(whole), bool)
    valid[template.surface[seen]] = True
    residual = np.full(len(whole), np.nan, np.float32)
    residual[template.surface[seen]] = touch.distance[seen]
    colors = None
    if scan.coloured:
        colors = np.zeros((len(whole), 3), np.uint8)
        colors[template.surface[seen]] = scan.colors_at(rows[touch.triangle[seen]], touch.weights[seen])
    inner = np.flatnonzero(template.face)
    fits = touch.fits[inner]
    left = touch.distance[inner][fits]
    corners, shares = template.anchored(marks.home)
    off = np.linalg.norm(np.einsum("lcx,lc->lx", shell[corners], shares) - places, axis=1)
    record = {
        "covered": round(float(fits.mean()), 4),
        "mean_mm": _rounded(left.mean() if len(left) else np.nan),
        "median_mm": _rounded(np.median(left) if len(left) else np.nan),
        "p95_mm": _rounded(np.quantile(left, 0.95) if len(left) else np.nan),
        "landmark_mm": _rounded(np.average(off, weights=marks.counts)),
        "distortion": _rounded(distortion(template.shell, shell, template.faces[_inner(template)])),
        "unit_mm": pose.unit_mm,
        "rotation": [[round(float(x), 6) for x in row] for row in pose.rotation],
        "translation_mm": [round(float(x), 4) for x in pose.translation],
        **({"note": scan.note} if scan.note else {}),
    }
    return Registered(whole.astype(np.float32), valid, residual, colors, record)


def _inner(template: Template) -> NDArray[np.int64]:
    """Rows of ``faces`` within the face."""
    return np.flatnonzero(template.face[template.faces].all(axis=1))


def distortion(before: Float64, after: Float64, faces: NDArray[np.int64]) -> float:
    """How unevenly triangles are stretched: the 95 % quantile of |log| of what an edge grew by beyond the
    median edge. A face on another of human shape stays near 0.3; folds and tears are above 1."""
    ends = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    grown = [np.linalg.norm(mesh[ends[:, 0]] - mesh[ends[:, 1]], axis=1) + 1e-9 for mesh in (before, after)]
    ratio = np.log(grown[1] / grown[0])
    return float(np.quantile(np.abs(ratio - np.median(ratio)), 0.95))


def _rounded(value: float | np.floating[Any]) -> float | None:
    return round(float(value), 4) if np.isfinite(value) else None
