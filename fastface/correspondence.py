"""Where the landmarks of the detector lie on a head model.

Two steps. ``make_correspondences`` renders painted heads of random identities and poses, lets the landmark
network read them and carries every landmark back onto the surface. What the network sees in paint differs
from what it sees in photographs, so ``calibrate`` then takes faces fitted to photographs and moves each
landmark on the surface by what the fits agree to leave over; fit and calibrate again until nothing moves.

Landmarks on the lip slit and the lid margins are held on the rims of the mesh, iris landmarks on the
eyeballs, and all are kept symmetric by the detector's own left-right pairing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from fastface.errors import BadArgument, NoFaceFound
from fastface.landmark_tables import LANDMARKS68, MIRROR478, POINT_COUNT
from fastface.morphable import Correspondence, HeadModel
from fastface.ops import rasterize
from fastface.painted_face import Light, Painter, Picture, View, facing_view, rim_edges
from fastface.surface import nearest_on_edges, nearest_on_triangles

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

# Landmarks by the part they lie on (MediaPipe's face mesh, read off its canonical layout).
INNER_UPPER_LIP: Final = (191, 80, 81, 82, 13, 312, 311, 310, 415)
INNER_LOWER_LIP: Final = (95, 88, 178, 87, 14, 317, 402, 318, 324)
INNER_LIP_CORNERS: Final = (78, 308)
RED_OF_UPPER_LIP: Final = (184, 74, 73, 72, 11, 302, 303, 304, 408, 183, 42, 41, 38, 12, 268, 271, 272, 407)
RED_OF_LOWER_LIP: Final = (77, 90, 180, 85, 16, 315, 404, 320, 307, 96, 89, 179, 86, 15, 316, 403, 319, 325)
UPPER_LIDS: Final = (246, 161, 160, 159, 158, 157, 466, 388, 387, 386, 385, 384)
LOWER_LIDS: Final = (7, 163, 144, 145, 153, 154, 249, 390, 373, 374, 380, 381)
# Around the caruncle the rim that shows is not the border of the eyeball, and the network's outer corner lies
# where the lids' folds meet: these may be anywhere on the lids.
EYE_CORNERS: Final = (33, 133, 155, 173, 263, 362, 382, 398)
IRISES: Final = tuple(range(468, 478))

_RENDERED_MODES = 40
_DEPTH_WEIGHT = 0.35  # photographs from the front say little about depth: the surface decides it
_VISIBLE_FROM_DEG = (-35.0, 0.0, 35.0)
_MIN_READINGS = 4
_BROWS_FROM_MM = (
    6.0,
    12.0,
)  # height above the eyes from which, and by which in full, a landmark counts as brow


class Detector(Protocol):
    """``fastface.landmarks.LandmarkDetector``, or anything that reads faces like it."""

    def detect(self, rgb: NDArray[np.uint8], max_faces: int = 1) -> Sequence[Any]:
        """Faces with ``points_px (478, 2)``."""


class Fit(Protocol):
    """What ``calibrate`` reads of a fitted face (``fastface.engine.FittedFace``)."""

    @property
    def photo(self) -> NDArray[np.uint8]:
        """(H, W, 3); only its size is read."""

    @property
    def rotation(self) -> NDArray[Any]:
        """(3, 3)"""

    @property
    def translation_mm(self) -> NDArray[Any]:
        """(3,)"""

    @property
    def focal_px(self) -> float: ...

    @property
    def identity(self) -> NDArray[Any]:
        """(k,)"""

    @property
    def expression(self) -> NDArray[Any]:
        """(E,)"""

    @property
    def landmarks_px(self) -> NDArray[Any]:
        """(478, 2)"""


def make_correspondences(
    model: HeadModel, detector: Detector, *, seed: int = 0, renders: int = 60
) -> tuple[Correspondence, Correspondence]:
    """Find the 478 and 68 landmarks on ``model`` by showing the detector ``renders`` painted heads.

    The landmarks that ``model`` brings are not looked at. Raises ``NoFaceFound`` when too few heads are read
    as faces.
    """
    if renders < _MIN_READINGS:
        raise BadArgument(f"make_correspondences: renders must be at least {_MIN_READINGS}, got {renders}")
    rng = np.random.default_rng(seed)
    painter = Painter(model)
    readings = np.full((renders, POINT_COUNT, 3), np.nan)
    for index in range(renders):
        vertices, view, light, skin = _random_head(model, rng, plain=index == 0)
        picture = painter.paint(vertices, view, light, skin=skin, hair=int(rng.integers(3)))
        faces = detector.detect(picture.rgb)
        if faces:
            readings[index] = _carried_back(model, vertices, view, picture, faces[0].points_px)
    counts = np.isfinite(readings[:, :, 0]).sum(axis=0)
    if np.median(counts) < _MIN_READINGS:
        raise NoFaceFound(
            f"the detector read {int(np.median(counts))} of {renders} painted heads, wanted {_MIN_READINGS}"
        )
    return on_surface(model, _symmetric(_filled(np.nanmedian(readings, axis=0))), depth_weight=1.0)


def calibrate(
    model: HeadModel, fits: Sequence[Fit], *, share: float = 1.0
) -> tuple[Correspondence, Correspondence]:
    """Move the landmarks of ``model`` by what ``fits`` agree to leave over; returns the 478 and the 68.

    ``fits`` must have been made with ``model`` as it is, of a few dozen or more neutral faces: a brow that
    all of them seem to raise or knit is the landmarks' error and is taken over too (elsewhere rims tell the
    two apart). ``share`` in (0, 1]: of the way to go.
    """
    if not fits or not 0 < share <= 1:
        raise BadArgument(f"calibrate: wanted fits and a share in (0, 1], got {len(fits)} and {share}")
    neutral = model.landmarks478.points(model.vertices, model.triangles).astype(np.float64)
    moved = _trimmed_mean(np.stack([residual_mm(model, fit) for fit in fits]))
    worn = _trimmed_mean(np.stack([expression_mm(model, fit) for fit in fits]))
    moved += worn * np.clip((neutral[:, 1:2] - _BROWS_FROM_MM[0]) / np.diff(_BROWS_FROM_MM), 0, 1)
    return on_surface(model, _symmetric(neutral + share * moved), depth_weight=_DEPTH_WEIGHT)


def residual_mm(model: HeadModel, fit: Fit) -> Float64:
    """Offset (478, 3) in head space, mm, from fitted landmarks to detected ones, at the fitted depth."""
    vertices = model.shaped(fit.identity, fit.expression)
    points = model.landmarks478.points(vertices, model.triangles).astype(np.float64)
    rotation = np.asarray(fit.rotation, np.float64)
    camera = points @ rotation.T + np.asarray(fit.translation_mm, np.float64)
    height, width = fit.photo.shape[:2]
    projected = fit.focal_px * camera[:, :2] / camera[:, 2:] + [width / 2, height / 2]
    offset = (np.asarray(fit.landmarks_px, np.float64) - projected) * camera[:, 2:] / fit.focal_px
    in_head: Float64 = offset @ rotation[:2]
    return in_head


def expression_mm(model: HeadModel, fit: Fit) -> Float64:
    """Displacement (478, 3) in head space, mm, of the landmarks by the fitted expression."""
    corners = model.triangles[model.landmarks478.triangle]
    moved = np.tensordot(
        np.asarray(fit.expression, np.float32), model.expression[:, corners].astype(np.float32), axes=1
    )
    weighted: Float64 = np.einsum("lcx,lc->lx", moved, model.landmarks478.bary).astype(np.float64)
    return weighted


def on_surface(
    model: HeadModel, points: Float64, *, depth_weight: float = 1.0
) -> tuple[Correspondence, Correspondence]:
    """Bring 478 points (head space of the mean face, mm) onto the parts they belong to; returns the 478 and
    the 68.

    Depth (z) counts ``depth_weight`` as much as x and y.
    """
    scale = np.array([1.0, 1.0, depth_weight])
    vertices = model.vertices.astype(np.float64) * scale
    targets = points * scale
    triangle = np.zeros(POINT_COUNT, np.int32)
    bary = np.zeros((POINT_COUNT, 3), np.float32)

    def put_on_triangles(marks: NDArray[np.int64], faces: NDArray[np.int64]) -> None:
        if len(marks) and len(faces):
            found = nearest_on_triangles(targets[marks], vertices, model.triangles[faces])
            triangle[marks], bary[marks] = faces[found.row], found.weights

    def put_on_edges(marks: NDArray[np.int64], edges: NDArray[np.int32], owner: NDArray[np.int64]) -> None:
        if not len(marks) or not len(edges):
            return  # a mesh without this rim keeps the nearest point of the surface
        found = nearest_on_edges(targets[marks], vertices[edges[:, 0]], vertices[edges[:, 1]])
        triangle[marks] = owner[found.row]
        corner = model.triangles[triangle[marks]][:, :, None] == edges[found.row][:, None, :]
        bary[marks] = (corner * found.weights[:, None, :]).sum(axis=2)

    visible = visible_triangles(model)
    outer = np.intersect1d(visible, model.material_triangles("skin", "lips", "eyelids"))
    lips = np.intersect1d(visible, model.material_triangles("lips"))
    put_on_triangles(np.arange(POINT_COUNT), outer)
    put_on_triangles(np.array(RED_OF_UPPER_LIP + RED_OF_LOWER_LIP), lips)
    put_on_triangles(np.array(EYE_CORNERS), np.intersect1d(visible, model.material_triangles("eyelids")))
    put_on_triangles(np.array(IRISES), model.material_triangles("eyeballs"))
    for material, upper, lower, both in (
        ("lips", INNER_UPPER_LIP, INNER_LOWER_LIP, INNER_LIP_CORNERS),
        ("eyelids", UPPER_LIDS, LOWER_LIDS, ()),
    ):
        edges, owner = rim_edges(model, material)
        above = _is_above(model, edges)
        put_on_edges(np.array(upper), edges[above], owner[above])
        put_on_edges(np.array(lower), edges[~above], owner[~above])
        put_on_edges(np.array(both, np.int64), edges, owner)
    marks478 = Correspondence(triangle, _normalised(bary))
    return marks478, pick68(marks478)


def pick68(marks478: Correspondence) -> Correspondence:
    """The 68 ibug points out of the 478, by the detector's table; the jaw's are on the contour seen from the
    front.
    """
    rows = np.array(LANDMARKS68)
    return Correspondence(marks478.triangle[rows], marks478.bary[rows])


def visible_triangles(model: HeadModel) -> NDArray[np.int64]:
    """Triangles of the mean head that a camera in front, or a little to either side, sees."""
    seen = []
    for yaw_deg in _VISIBLE_FROM_DEG:
        view = facing_view(yaw_deg, size_px=1024)
        screen = view.screen(model.vertices)[None]
        seen.append(rasterize(screen, model.triangles, 1024, 1024, cull_backfaces=True).triangle_id)
    ids = np.unique(np.concatenate(seen))
    return ids[ids >= 0].astype(np.int64)


# ------------------------------------------------------------------------------------------------ renders


def _random_head(
    model: HeadModel, rng: np.random.Generator, *, plain: bool
) -> tuple[Float32, View, Light, int]:
    """Vertices, camera, light and skin tone of one head; the plain one is the mean, seen from the front."""
    strength = 0.0 if plain else 1.0
    modes = min(len(model.identity), _RENDERED_MODES)
    identity = strength * 0.8 * rng.standard_normal(modes)
    expression = np.zeros(len(model.expression_names))
    open_mouth = strength * rng.uniform(0, 0.15) * (rng.random() < 0.5)
    for name, value in (
        ("jawOpen", open_mouth),
        ("mouthSmileLeft", open_mouth),
        ("mouthSmileRight", open_mouth),
    ):
        if name in model.expression_names:
            expression[model.expression_names.index(name)] = value
    yaw, pitch, roll = strength * rng.uniform([-18, -12, -6], [18, 12, 6])
    lamp = np.array([strength * rng.uniform(-0.6, 0.6), -rng.uniform(0.1, 0.6), -1.0])
    light = Light(lamp / np.linalg.norm(lamp), float(rng.uniform(0.4, 0.6)))
    return model.shaped(identity, expression), facing_view(yaw, pitch, roll), light, int(rng.integers(4))


def _carried_back(
    model: HeadModel, vertices: Float32, view: View, picture: Picture, points_px: NDArray[Any]
) -> Float64:
    """Place (478, 3) on the mean head of what each landmark's pixel shows; NaN beside the head."""
    height, width = picture.triangle_id.shape
    column, row = np.floor(np.asarray(points_px, np.float64)).astype(np.int64).T
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    face = np.where(inside, picture.triangle_id[row.clip(0, height - 1), column.clip(0, width - 1)], -1)
    places = np.full((len(points_px), 3), np.nan)
    hit = np.flatnonzero(face >= 0)
    corners = model.triangles[face[hit]]
    ray = np.column_stack(
        [(np.asarray(points_px)[hit] - view.size_px / 2) / view.focal_px, np.ones(len(hit))]
    )
    camera = vertices[corners].astype(np.float64) @ view.rotation.T + view.translation_mm
    # The weights w solve  sum_c w_c corner_c = depth * ray  up to scale, which their sum of one fixes.
    scaled = np.linalg.solve(camera.transpose(0, 2, 1) + 1e-9 * np.eye(3), ray[:, :, None])[:, :, 0]
    weights = np.clip(scaled / scaled.sum(axis=1, keepdims=True), -0.5, 1.5)  # the pixel may show a neighbour
    places[hit] = np.einsum("lcx,lc->lx", model.vertices[corners], weights)
    return places


# ------------------------------------------------------------------------------------------------ averages


def _symmetric(points: Float64) -> Float64:
    flipped = points[np.array(MIRROR478)] * [-1, 1, 1]
    symmetric: Float64 = (points + flipped) / 2
    return symmetric


def _filled(points: Float64) -> Float64:
    """Landmarks never read on one side take their mirror image."""
    missing = ~np.isfinite(points).all(axis=1)
    points[missing] = (points[np.array(MIRROR478)] * [-1, 1, 1])[missing]
    if not np.isfinite(points).all():
        raise NoFaceFound("some landmarks fell beside every painted head: is this mesh a face?")
    return points


def _trimmed_mean(values: Float64, cut: float = 0.2) -> Float64:
    """Mean over the first axis without the lowest and highest ``cut`` of each coordinate."""
    ordered = np.sort(values, axis=0)
    off = int(cut * len(values))
    mean: Float64 = ordered[off : len(values) - off].mean(axis=0)
    return mean


def _is_above(model: HeadModel, edges: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Whether an edge belongs to the upper lip or lid: each rim is cut at its corners, and the jaw dropped to
    compare.

    Lips that touch cannot be told apart by height on the closed mouth, nor by the side on which their skin
    lies.
    """
    jaw = np.array([name == "jawOpen" for name in model.expression_names], np.float32)
    middle = model.shaped(expression=0.5 * jaw)[edges].mean(axis=1)
    above = np.zeros(len(edges), bool)
    for loop in _loops(edges):
        turned = np.roll(loop, -int(middle[loop, 0].argmin()))
        cut = int(middle[turned, 0].argmax())
        halves = turned[:cut], turned[cut:]
        heights = [middle[half, 1].mean() if len(half) else -np.inf for half in halves]
        above[halves[int(np.argmax(heights))]] = True
    return above


def _loops(edges: NDArray[np.int32]) -> list[NDArray[np.int64]]:
    """Rows of ``edges (N, 2)`` in the order in which they follow one another; chains that do not close come
    too.
    """
    leaving = {int(start): row for row, start in enumerate(edges[:, 0])}
    free = set(range(len(edges)))
    loops = []
    while free:
        row = min(free)
        loop = []
        while row in free:
            free.remove(row)
            loop.append(row)
            row = leaving.get(int(edges[row, 1]), -1)
        loops.append(np.array(loop))
    return loops


def _normalised(bary: Float32) -> Float32:
    positive = np.clip(bary, 0, 1)
    unit: Float32 = (positive / positive.sum(axis=1, keepdims=True)).astype(np.float32)
    return unit
