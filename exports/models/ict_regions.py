"""What each vertex of ICT-FaceKit's mesh is: material, whether it can ever be seen, and its mirror image.

ICT-FaceKit (Li et al. 2020, "Learning Formation of Physically-Based Face Attributes", CVPR; MIT licence)
publishes one topology of 26,719 vertices. Its own materials do not separate lips and eyelids from skin nor
the tongue from the gums, so the borders are found here, once, from the mesh, the authors' 68 landmark
vertices and their blink shape.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix, csr_matrix
from scipy.sparse.csgraph import breadth_first_order, connected_components, dijkstra
from scipy.spatial import cKDTree

from fastface.morphable import MATERIALS
from fastface.ops import rasterize
from fastface.painted_face import facing_view

Array = NDArray[Any]

# Vertex ranges as the authors' documentation lists them.
FACE = slice(0, 9409)
HEAD_AND_NECK = slice(9409, 11248)
MOUTH_SOCKET = slice(11248, 13294)
EYE_SOCKETS = slice(13294, 14062)
EYE_SOCKET_STARTS = (13678, 13294)  # the subject's right, left
GUMS_AND_TONGUE = slice(14062, 17039)
TEETH = slice(17039, 21451)
SCLERA = (slice(21451, 22221), slice(23021, 23791))
DROPPED = 255

# Islands of the gums' texture map that are tongue, and palate or throat, by a point (u, v) inside them.
_TONGUE_AT = ((2.70, 0.30), (2.10, 0.25))
_PALATE_AT = ((2.38, 0.30), (2.38, 0.85), (2.95, 0.50), (2.12, 0.06))

# What is never seen is found by looking: these faces, from these sides (yaw, pitch in degrees).
_SEEN_IN: tuple[dict[str, float], ...] = (
    {},
    {"jawOpen": 1.0, "eyeWide": 1.0},
    {"jawOpen": 0.5, "mouthSmile": 1.0, "mouthUpperUp": 1.0, "mouthLowerDown": 1.0, "eyeSquint": 1.0},
    {"jawOpen": 0.35, "mouthStretch": 1.0, "mouthLowerDown": 1.0, "eyeLookUp": 1.0},
    {"jawOpen": 0.3, "mouthFunnel": 1.0, "eyeLookDown": 1.0},
    {"jawOpen": 0.6, "mouthUpperUp": 1.0, "noseSneer": 1.0, "eyeLookIn": 1.0},
    {"mouthSmile": 1.0, "mouthUpperUp": 1.0, "mouthLowerDown": 1.0, "eyeLookOut": 1.0},
    {"eyeBlink": 1.0, "mouthPucker": 1.0},
)
_SEEN_FROM = tuple((yaw, pitch) for yaw in (-60, -40, -20, 0, 20, 40, 60) for pitch in (-40, -20, 0, 20, 40))
_SEEN_IDENTITIES = 2
_SEEN_PX = 900
_STILL = 0.02  # cm

# Rims as closed rings through the authors' 68 landmarks.
_MOUTH_RING = (60, 61, 62, 63, 64, 65, 66, 67, 60)
_EYE_RINGS = ((36, 37, 38, 39, 40, 41, 36), (42, 43, 44, 45, 46, 47, 42))
_LIP_DEPTH = 0.3  # cm behind the rim's corners at which nothing within the outline is lip any more
_CARUNCLE_WIDTH = 0.75  # cm from the inner corner
_LIP_MARGIN = 0.05  # cm, half an edge: a triangle is lip only if all its corners are
_LIP_BORDER = (48, 49, 50, 51, 52, 53, 54, 55, 56, 57, 58, 59, 48)


@dataclass(frozen=True)
class IctMesh:
    """The published mesh: ``vertices (26719, 3)``, ``triangles``, ``uv``, ``triangles_uv``, ``landmarks68``
    vertices.
    """

    vertices: Array
    triangles: Array
    uv: Array
    triangles_uv: Array
    landmarks68: Array
    expression: dict[str, Array]


def material_of_vertices(mesh: IctMesh, lip_outline: Array | None = None) -> NDArray[np.uint8]:
    """MATERIALS index of each vertex, before anything unseen is dropped.

    ``lip_outline (N, 2)``: border of the red of the lips in x and y; without it the authors' landmarks are
    joined.
    """
    graph = edge_graph(mesh.vertices, mesh.triangles)
    material = np.full(len(mesh.vertices), DROPPED, np.uint8)

    def paint(where: Any, name: str) -> None:
        material[where] = MATERIALS.index(name)

    paint(FACE, "skin")
    paint(HEAD_AND_NECK, "skin")
    paint(MOUTH_SOCKET, "mouth_interior")
    paint(EYE_SOCKETS, "other")
    paint(GUMS_AND_TONGUE, "gums")
    paint(TEETH, "teeth")
    for eye in SCLERA:
        paint(eye, "eyeballs")
    paint(_islands(mesh, _TONGUE_AT), "tongue")
    paint(_islands(mesh, _PALATE_AT), "mouth_interior")

    blink = sum(np.linalg.norm(mesh.expression[name], axis=1) for name in ("eyeBlink_L", "eyeBlink_R"))
    rims = [ring(graph, mesh.landmarks68, corners) for corners in _EYE_RINGS]
    near_lids = dijkstra(graph, indices=np.concatenate(rims), min_only=True, limit=0.45) < 0.45
    upper = mesh.vertices[:, 1] > mesh.vertices[mesh.landmarks68[36], 1]
    lids = ((blink > 0.15) & upper) | near_lids
    lids[FACE.stop :] = False
    paint(lids, "eyelids")

    rim = ring(graph, mesh.landmarks68, _MOUTH_RING)
    if lip_outline is None:
        lip_outline = mesh.vertices[mesh.landmarks68[list(_LIP_BORDER)], :2]
    in_outline = within_outline(mesh.vertices[:, :2], lip_outline, margin=_LIP_MARGIN)
    in_outline &= mesh.vertices[:, 2] > mesh.vertices[rim, 2].min() - _LIP_DEPTH
    in_outline[FACE.stop :] = False
    in_outline[rim] = True
    paint(in_outline, "lips")
    inside = flood(graph, start=MOUTH_SOCKET.start, walls=rim)
    paint(inside & (np.arange(len(material)) < MOUTH_SOCKET.stop), "mouth_interior")
    for socket, eye_rim in zip(EYE_SOCKET_STARTS, rims, strict=True):
        beyond = flood(graph, start=socket, walls=eye_rim)
        beyond[FACE.stop :] = False
        caruncle = _caruncle(mesh.vertices, beyond, eye_rim)
        paint(beyond & ~caruncle, "other")
    return material


def _caruncle(vertices: Array, beyond: NDArray[np.bool_], rim: NDArray[np.int64]) -> NDArray[np.bool_]:
    """The pink corner at the nose side, which lies within the lids' rim but shows in every photo."""
    across = np.abs(vertices[:, 0])
    inner = across[rim].min()
    near = (across < inner + _CARUNCLE_WIDTH) & (vertices[:, 2] > vertices[rim, 2].min())
    return np.asarray(beyond & near)


def within_outline(points: Array, outline: Array, margin: float) -> NDArray[np.bool_]:
    """Whether ``points (N, 2)`` lie in the closed polygon ``outline (M, 2)``, or no farther than ``margin``
    from it.

    Inside, a ray to the right crosses the polygon an odd number of times.
    """
    inside = np.zeros(len(points), bool)
    near = np.zeros(len(points), bool)
    for start, end in zip(outline, np.roll(outline, -1, axis=0), strict=True):
        along = end - start
        share = ((points - start) @ along / max(along @ along, 1e-12)).clip(0, 1)
        near |= np.linalg.norm(points - start - share[:, None] * along, axis=1) <= margin
        crosses = (start[1] > points[:, 1]) != (end[1] > points[:, 1])
        rise = end[1] - start[1]
        at = start[0] + (points[:, 1] - start[1]) * (end[0] - start[0]) / (rise if rise else 1.0)
        inside ^= crosses & (points[:, 0] < at)
    return inside | near


def edge_graph(vertices: Array, triangles: Array) -> csr_matrix:
    """Symmetric sparse matrix of edge lengths."""
    edges = np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]])
    edges = np.unique(np.sort(edges, axis=1), axis=0)
    lengths = np.linalg.norm(vertices[edges[:, 0]] - vertices[edges[:, 1]], axis=1)
    half = coo_matrix((lengths, edges.T), shape=(len(vertices),) * 2).tocsr()
    return half + half.T


def ring(graph: csr_matrix, landmarks68: Array, corners: tuple[int, ...]) -> NDArray[np.int64]:
    """Vertices of the closed path of shortest edges through these landmarks."""
    vertices: list[int] = []
    for start, end in pairwise(corners):
        _, before = dijkstra(graph, indices=int(landmarks68[start]), return_predecessors=True)
        step, path = int(landmarks68[end]), []
        while step != landmarks68[start]:
            path.append(step)
            step = int(before[step])
        vertices += path[::-1]
    return np.array(vertices)


def flood(graph: csr_matrix, start: int, walls: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Vertices that edges reach from ``start`` without stepping on ``walls`` (but may start on one)."""
    open_vertices = np.ones(graph.shape[0], bool)
    open_vertices[walls] = False
    open_vertices[start] = True
    keep = csr_matrix((open_vertices.astype(float), (np.arange(len(open_vertices)),) * 2))
    reached = np.zeros(len(open_vertices), bool)
    reached[breadth_first_order(keep @ graph @ keep, start, return_predecessors=False)] = True
    return reached


def ever_seen(
    mesh: IctMesh, material: NDArray[np.uint8], identity: Array, expression: dict[str, Array]
) -> NDArray[np.bool_]:
    """Vertices of triangles that some camera sees on some face, and their neighbours.

    ``identity (K, V, 3)`` and ``expression`` (ARKit's names) in the mesh's units.
    """
    triangles = mesh.triangles[(material[mesh.triangles] != DROPPED).all(axis=1)]
    rng = np.random.default_rng(0)
    seen = np.zeros(len(triangles), bool)
    origin = np.array([0.0, mesh.vertices[mesh.landmarks68[36], 1], mesh.vertices[mesh.landmarks68[36], 2]])
    for combination in _SEEN_IN:
        for _ in range(_SEEN_IDENTITIES):
            vertices = mesh.vertices + np.tensordot(0.8 * rng.standard_normal(40), identity[:40], axes=1)
            for name, value in combination.items():
                for side in ("", "Left", "Right"):
                    if name + side in expression:
                        vertices = vertices + value * expression[name + side]
            head_mm = ((vertices - origin) * 10).astype(np.float32)
            screens = np.stack(
                [facing_view(yaw, pitch, size_px=_SEEN_PX).screen(head_mm) for yaw, pitch in _SEEN_FROM]
            )
            shown = rasterize(
                screens, triangles.astype(np.int32), _SEEN_PX, _SEEN_PX, cull_backfaces=True, threads=2
            )
            ids = np.unique(shown.triangle_id)
            seen[ids[ids >= 0]] = True
    near = np.zeros(len(material), bool)
    near[triangles[seen]] = True
    near[triangles[near[triangles].any(axis=1)]] = True
    for eye in SCLERA:
        near[eye] = True  # whole: their centres are found from them
    return near


def still_head(mesh: IctMesh, expression: dict[str, Array]) -> NDArray[np.bool_]:
    """Vertices of scalp, neck and shoulders that no expression moves visibly."""
    moved = np.max([np.linalg.norm(shape, axis=1) for shape in expression.values()], axis=0)
    still = np.zeros(len(moved), bool)
    still[HEAD_AND_NECK] = moved[HEAD_AND_NECK] < _STILL
    return still


def _islands(mesh: IctMesh, points: tuple[tuple[float, float], ...]) -> NDArray[np.int64]:
    """Vertices of the texture islands that hold these texture points."""
    joined = coo_matrix(
        (
            np.ones(2 * len(mesh.triangles_uv)),
            np.concatenate([mesh.triangles_uv[:, :2], mesh.triangles_uv[:, 1:]]).T,
        ),
        shape=(len(mesh.uv),) * 2,
    )
    _, island = connected_components(joined)
    in_gums = (mesh.triangles >= GUMS_AND_TONGUE.start).all(1) & (mesh.triangles < GUMS_AND_TONGUE.stop).all(
        1
    )
    gums, gums_uv = mesh.triangles[in_gums], mesh.triangles_uv[in_gums]
    centres = mesh.uv[gums_uv].mean(axis=1)
    _, nearest = cKDTree(centres).query(np.array(points))
    wanted = np.isin(island[gums_uv[:, 0]], island[gums_uv[nearest, 0]])
    return np.unique(gums[wanted])


def mirror_of_vertices(vertices: Array, group: NDArray[np.uint8]) -> NDArray[np.int32]:
    """The vertex of the same group that lies at each vertex's mirror image: an involution, exact where the
    mesh is symmetric; the few vertices without a clear partner are paired by the least distance, or with
    themselves.
    """
    flipped = vertices * [-1, 1, 1]
    mirror = np.arange(len(vertices), dtype=np.int32)
    for name in np.unique(group):
        members = np.flatnonzero(group == name)
        _, nearest = cKDTree(vertices[members]).query(flipped[members])
        mirror[members] = members[nearest]
    odd = np.flatnonzero(mirror[mirror] != np.arange(len(mirror)))
    mirror[odd] = odd
    distance = np.linalg.norm(flipped[odd][:, None] - vertices[odd][None], axis=2)
    distance[group[odd][:, None] != group[odd][None]] = np.inf
    free = np.ones(len(odd), bool)
    for flat in np.argsort(distance, axis=None):
        one, other = np.unravel_index(flat, distance.shape)
        if free[one] and free[other] and np.isfinite(distance[one, other]):
            mirror[odd[one]], mirror[odd[other]] = odd[other], odd[one]
            free[[one, other]] = False
    return mirror
