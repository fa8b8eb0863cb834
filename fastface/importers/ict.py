"""ICT-FaceKit (Li et al. 2020, "Learning Formation of Physically-Based Face Attributes", CVPR; MIT licence).

The authors publish one OBJ file per shape: ``generic_neutral_mesh.obj``, ``identityNNN.obj`` and 53
expressions. All share one topology of 26,719 vertices, so what a vertex is (material, mirror image, whether
it can ever be seen) and where the landmarks lie is a fact about that topology; it ships as
``assets/ict_landmarks.npz`` and is made by ``exports/models/build_landmarks.py``.

What changes on the way in:

- centimetres become millimetres, and the origin moves between the eyeballs' centres;
- ``_L`` / ``_R`` become ``Left`` / ``Right``, by the side on which the shape is found to move;
- ``browInnerUp_L`` + ``_R`` become ARKit's single ``browInnerUp``, and likewise ``cheekPuff``: ICT's halves
  are disjoint, their sum is the whole. ICT has no ``tongueOut``;
- ICT turns eyes as rigid parts outside its blend shapes: the gaze shapes here turn the eyeballs too
  (``_GAZE_DEG``);
- the transparent shells over the eye (lashes, occlusion, blend, tear film), the flat iris behind the cornea,
  the shoulders and whatever no camera can see are left out.
"""

from __future__ import annotations

import os
import re
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastface.errors import BadModelFile
from fastface.importers.obj import read_obj
from fastface.morphable import (
    ARKIT_NAMES,
    MATERIALS,
    MAX_MODES,
    ArraySpec,
    Correspondence,
    HeadModel,
    read_arrays,
    validate,
)

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

VERTEX_COUNT = 26_719
NEUTRAL_FILE = "generic_neutral_mesh.obj"
ASSET = Path(__file__).parent.parent / "assets" / "ict_landmarks.npz"
SOURCE = "ICT-FaceKit, USC Institute for Creative Technologies, https://github.com/ICT-VGL/ICT-FaceKit"
LICENSE = "MIT, Copyright (c) 2020 USC Institute for Creative Technologies"
DROPPED = 255

_MM_PER_UNIT = 10.0
_EYES_APART_MM = (45.0, 80.0)  # the mean head's; anything else is another unit or another mesh
_IDENTITY_FILE = re.compile(r"identity(\d{1,4})\.obj")
# Both sides of the author's shapes make one of ARKit's.
_MERGED = ("browInnerUp", "cheekPuff")
# Shapes named after the direction in which they move, not after the side they move on.
_DIRECTED = ("jawLeft", "jawRight", "mouthLeft", "mouthRight")
# The turn of an eyeball at coefficient 1, by the travel of ICT's own lids along with it (upper lid 6.3 mm
# down over an eyeball of 15 mm radius: 25 degrees); as (degrees about +x, degrees about +y towards the nose).
_GAZE_DEG = {"LookDown": (25.0, 0.0), "LookUp": (-25.0, 0.0), "LookIn": (0.0, 30.0), "LookOut": (0.0, -30.0)}

_SPECS = {
    "mean": ArraySpec("<f4", 2, "(26719, 3) mean neutral face, cm"),
    "triangles": ArraySpec("<i4", 2, "(F, 3) vertex indices"),
    "identity": ArraySpec("<f2", 3, "(K, 26719, 3) cm per standard deviation"),
    "expression": ArraySpec("<f2", 3, "(E, 26719, 3) cm"),
    "expression_names": ArraySpec("U", 1, "(E,) the authors' names"),
}
_ASSET_SPECS = {
    "vertices478": ArraySpec("<i4", 2, "(478, 3) the corners each landmark lies between"),
    "weights478": ArraySpec("<f4", 2, "(478, 3) their weights"),
    "vertices68": ArraySpec("<i4", 2, "(68, 3) likewise"),
    "weights68": ArraySpec("<f4", 2, "(68, 3) likewise"),
    "region": ArraySpec("|u1", 1, "(26719,) index into MATERIALS, or 255: left out"),
    "mirror": ArraySpec("<i4", 1, "(26719,) mirror image of each vertex"),
}


class Topology(NamedTuple):
    """What is known about the authors' 26,719 vertices; see ``_ASSET_SPECS``."""

    vertices478: NDArray[np.int32]
    weights478: Float32
    vertices68: NDArray[np.int32]
    weights68: Float32
    region: NDArray[np.uint8]
    mirror: NDArray[np.int32]


class Shapes(NamedTuple):
    """The authors' data as read: centimetres, their axes and names, differences from the neutral face."""

    neutral: Float64
    triangles: NDArray[np.int32]
    identity: Float32
    expression: dict[str, Float32]


def import_ict(path: str | os.PathLike[str]) -> HeadModel:
    """Read ICT-FaceKit from the authors' folder of OBJ files, or from an ``.npz`` with the arrays of
    ``_SPECS``.

    Of a folder, ``generic_neutral_mesh.obj`` is required; identities and expressions that are missing are
    left out. Raises ``BadModelFile``.
    """
    shapes = read_folder(path) if os.path.isdir(path) else read_npz(path)
    label = os.fspath(path)
    model = build(shapes, load_topology(), label)
    validate(model, label)
    return model


@cache
def load_topology(path: Path = ASSET) -> Topology:
    """What ships about the topology; read once."""
    return Topology(**read_arrays(path, _ASSET_SPECS))


# ------------------------------------------------------------------------------------------------ reading


def read_folder(folder: str | os.PathLike[str]) -> Shapes:
    """Read the authors' OBJ files, from their folder or their repository's; other files are passed over.

    Raises ``BadModelFile``.
    """
    root = Path(folder)
    if not (root / NEUTRAL_FILE).exists() and (root / "FaceXModel" / NEUTRAL_FILE).exists():
        root = root / "FaceXModel"
    neutral = read_obj(root / NEUTRAL_FILE)
    _need_topology(neutral.vertices, neutral.triangles, os.fspath(root / NEUTRAL_FILE))
    try:
        names = sorted(entry.name for entry in root.iterdir())
    except OSError as error:
        raise BadModelFile(f"{root}: cannot be listed: {error.strerror or error}") from error
    numbered = sorted((int(match[1]), name) for name in names if (match := _IDENTITY_FILE.fullmatch(name)))
    if len(numbered) > MAX_MODES:
        raise BadModelFile(f"{root}: wanted at most {MAX_MODES} identities, got {len(numbered)}")

    def shape(name: str) -> Float32:
        vertices = read_obj(root / name, faces=False).vertices
        if vertices.shape != neutral.vertices.shape:
            raise BadModelFile(f"{root / name}: wanted {VERTEX_COUNT} vertices, got {len(vertices)}")
        return np.asarray(vertices - neutral.vertices, np.float32)

    identity = [shape(name) for _, name in numbered]
    expression = {name: shape(f"{name}.obj") for name in authors_names() if f"{name}.obj" in names}
    stacked = np.stack(identity) if identity else np.zeros((0, VERTEX_COUNT, 3), np.float32)
    return Shapes(neutral.vertices, neutral.triangles, stacked, expression)


def read_npz(path: str | os.PathLike[str]) -> Shapes:
    """Read the arrays of ``_SPECS`` from an ``.npz``. Raises ``BadModelFile``."""
    label = os.fspath(path)
    arrays = read_arrays(path, _SPECS)
    names = [str(name) for name in arrays["expression_names"]]
    _need_topology(arrays["mean"], arrays["triangles"], label)
    for field, count in (("identity", None), ("expression", len(names))):
        shape = arrays[field].shape
        if shape[1:] != (VERTEX_COUNT, 3) or shape[0] > MAX_MODES or count not in (None, shape[0]):
            raise BadModelFile(
                f"{label}: wanted {field} of shape ({count or 'K'}, {VERTEX_COUNT}, 3), got {shape}"
            )
    unknown = sorted(set(names) - set(authors_names()))
    if unknown or len(set(names)) != len(names):
        raise BadModelFile(
            f"{label}: wanted each of ICT-FaceKit's expression names once, got {unknown[:3] or names[:3]}"
        )
    expression = {
        name: basis.astype(np.float32) for name, basis in zip(names, arrays["expression"], strict=True)
    }
    return Shapes(
        arrays["mean"].astype(np.float64),
        arrays["triangles"],
        arrays["identity"].astype(np.float32),
        expression,
    )


@cache
def authors_names() -> tuple[str, ...]:
    """The authors' 53 expression names: ARKit's ``_L`` / ``_R`` for a side, two shapes split, no tongue."""
    names: list[str] = []
    for name in ARKIT_NAMES:
        if name in _MERGED:
            names += [f"{name}_L", f"{name}_R"]
        elif name in _DIRECTED:
            names.append(name)
        elif name != "tongueOut":
            names.append(re.sub("Left$", "_L", re.sub("Right$", "_R", name)))
    return tuple(names)


def _need_topology(vertices: NDArray[Any], triangles: NDArray[Any], label: str) -> None:
    if vertices.shape != (VERTEX_COUNT, 3) or triangles.ndim != 2 or triangles.shape[1] != 3:
        raise BadModelFile(
            f"{label}: wanted ICT-FaceKit's {VERTEX_COUNT} vertices, got an array of {vertices.shape}"
        )
    if not np.isfinite(vertices).all():
        raise BadModelFile(f"{label}: wanted finite vertices")
    if len(triangles) == 0 or triangles.min() < 0 or triangles.max() >= VERTEX_COUNT:
        raise BadModelFile(f"{label}: wanted triangles that index {VERTEX_COUNT} vertices, got one outside")


# ------------------------------------------------------------------------------------------------ building


def build(shapes: Shapes, topology: Topology, label: str = "ICT-FaceKit") -> HeadModel:
    """Turn the authors' data into a model in head space and millimetres. Raises ``BadModelFile``."""
    eyes = [_sphere_centre(shapes.neutral[side]) for side in _eyeballs(topology.region, shapes.neutral)]
    apart_mm = _MM_PER_UNIT * float(np.linalg.norm(eyes[0] - eyes[1]))
    if not _EYES_APART_MM[0] <= apart_mm <= _EYES_APART_MM[1]:
        raise BadModelFile(
            f"{label}: wanted the mean head in centimetres, its eyes {_EYES_APART_MM[0]:g} to "
            f"{_EYES_APART_MM[1]:g} mm apart, got {apart_mm:.4g}"
        )
    origin = origin_of(shapes.neutral, topology.region)
    kept = np.flatnonzero(topology.region != DROPPED)
    order = np.full(VERTEX_COUNT, -1, np.int32)
    order[kept] = np.arange(len(kept), dtype=np.int32)
    triangles = order[shapes.triangles]
    triangles = np.ascontiguousarray(triangles[(triangles >= 0).all(axis=1)])
    region = topology.region[kept]
    vertices = ((shapes.neutral - origin)[kept] * _MM_PER_UNIT).astype(np.float32)
    expression = arkit_expressions(shapes, topology, label)
    names = tuple(name for name in ARKIT_NAMES if name in expression)
    basis = np.zeros((len(names), len(kept), 3), np.float16)
    for row, name in enumerate(names):
        basis[row] = _as_half(expression[name][kept], f"{label}: {name}")
    return HeadModel(
        name="ict",
        source=SOURCE,
        license=LICENSE,
        vertices=vertices,
        triangles=triangles,
        materials=triangle_materials(region[triangles]),
        identity=_as_half(shapes.identity[:, kept], f"{label}: identity"),
        expression=basis,
        expression_names=names,
        albedo=_albedo(vertices, region),
        landmarks478=_on_triangles(order[topology.vertices478], topology.weights478, triangles, label),
        landmarks68=_on_triangles(order[topology.vertices68], topology.weights68, triangles, label),
        mirror=order[topology.mirror[kept]],
    )


def origin_of(neutral: Float64, region: NDArray[np.uint8]) -> Float64:
    """Origin (3,) of head space in the authors' axes, cm: midway between the eyeballs' centres."""
    centre: Float64 = np.mean([_sphere_centre(neutral[side]) for side in _eyeballs(region, neutral)], axis=0)
    return centre


def arkit_expressions(shapes: Shapes, topology: Topology, label: str) -> dict[str, Float32]:
    """The authors' shapes (V, 3), cm, under ARKit's names; sides are told by where a shape moves, not by its
    name.
    """
    found: dict[str, Float32] = {}
    for authors_name, shape in shapes.expression.items():
        stem = authors_name.removesuffix("_L").removesuffix("_R")
        name = _named_by_direction(authors_name, shape) if stem == authors_name else stem
        if stem != authors_name:
            name += _side(shapes.neutral, shape, f"{label}: {authors_name}")
        if name in found:
            raise BadModelFile(f"{label}: wanted {authors_name} to move the other side than its partner")
        found[name] = shape
    for stem in _MERGED:
        halves = [found.pop(stem + side) for side in ("Left", "Right") if stem + side in found]
        if len(halves) == 1:  # the folder lacks the other half, which is its mirror image
            halves.append(halves[0][topology.mirror] * np.array([-1, 1, 1], np.float32))
        if halves:
            found[stem] = halves[0] + halves[1]
    for name in found:
        if name.startswith("eyeLook"):
            found[name] = found[name] + _eyeball_turn(shapes.neutral, topology.region, name)
    return found


def triangle_materials(corners: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Material (F,) of triangles from that of their corners ``(F, 3)``.

    A rim's vertices belong to the lip or lid, so a triangle with any corner beyond it lies beyond it; of two
    kinds of outer skin, or of gums and tongue, a triangle on the border gets the plainer one.
    """
    material: NDArray[np.uint8] = corners.min(axis=1)
    for name in ("mouth_interior", "other"):
        index = MATERIALS.index(name)
        material[(corners == index).any(axis=1)] = index
    return material


def _named_by_direction(name: str, shape: Float32) -> str:
    """``jawLeft`` moves to the subject's left, +x, whatever it is called."""
    if name not in _DIRECTED:
        return name
    side = "Left" if float(shape[:, 0].sum()) > 0 else "Right"
    return re.sub("Left$|Right$", side, name)


def _side(neutral: Float64, shape: Float32, label: str) -> str:
    weight = np.linalg.norm(shape, axis=1).astype(np.float64)
    if not np.isfinite(weight).all() or weight.max() <= 0:
        raise BadModelFile(f"{label}: wanted a shape that moves some vertex by a finite distance")
    return "Left" if float((weight * neutral[:, 0]).sum()) > 0 else "Right"


def _eyeballs(region: NDArray[np.uint8], neutral: Float64) -> list[NDArray[np.bool_]]:
    """Vertices of the subject's left and right eyeball."""
    eyeball = region == MATERIALS.index("eyeballs")
    return [eyeball & (neutral[:, 0] > 0), eyeball & (neutral[:, 0] < 0)]


def _sphere_centre(points: Float64) -> Float64:
    """Centre of the least-squares sphere (the algebraic fit: linear in centre and squared radius)."""
    system = np.column_stack([2 * points, np.ones(len(points))])
    solution, *_ = np.linalg.lstsq(system, (points**2).sum(axis=1), rcond=None)
    centre: Float64 = solution[:3]
    return centre


def _eyeball_turn(neutral: Float64, region: NDArray[np.uint8], name: str) -> Float32:
    """Displacement (V, 3), cm, of an eyeball at coefficient 1: the chord of its turn, so exact at 0 and 1."""
    left, right = _eyeballs(region, neutral)
    vertices, nasal = (left, -1.0) if name.endswith("Left") else (right, 1.0)
    about_x, towards_nose = _GAZE_DEG[name.removeprefix("eye").removesuffix("Left").removesuffix("Right")]
    pitch, yaw = np.radians([about_x, nasal * towards_nose])
    turn_x = np.array([[1, 0, 0], [0, np.cos(pitch), -np.sin(pitch)], [0, np.sin(pitch), np.cos(pitch)]])
    turn_y = np.array([[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]])
    centre = _sphere_centre(neutral[vertices])
    moved = np.zeros((len(neutral), 3), np.float32)
    moved[vertices] = (neutral[vertices] - centre) @ (turn_y @ turn_x - np.eye(3)).T
    return moved


def _as_half(shape_cm: Float32, label: str) -> NDArray[np.float16]:
    with np.errstate(over="ignore", invalid="ignore"):
        half = (shape_cm * np.float32(_MM_PER_UNIT)).astype(np.float16)
    if not np.isfinite(half).all():
        raise BadModelFile(f"{label}: wanted finite displacements below {np.finfo(np.float16).max} mm")
    return half


def _on_triangles(
    vertices: NDArray[np.int32], weights: Float32, triangles: NDArray[np.int32], label: str
) -> Correspondence:
    """Find each triple of vertices among the triangles, whichever corner it starts from."""
    count = int(triangles.max()) + 1

    def key(rows: NDArray[np.int32]) -> NDArray[np.int64]:
        ordered = np.sort(rows.astype(np.int64), axis=1)
        return (ordered[:, 0] * count + ordered[:, 1]) * count + ordered[:, 2]

    keys = key(triangles)
    by_key = np.argsort(keys, kind="stable")
    place = np.searchsorted(keys[by_key], key(vertices)).clip(max=len(keys) - 1)
    triangle = by_key[place].astype(np.int32)
    corners = triangles[triangle]
    match = corners[:, :, None] == vertices[:, None, :]  # corner c of the triangle is vertex w of the triple
    if not match.any(axis=2).all():
        raise BadModelFile(
            f"{label}: wanted ICT-FaceKit's polygons; a triangle that carries a landmark is not there"
        )
    bary = np.einsum("lcw,lw->lc", match.astype(np.float32), weights).astype(np.float32)
    return Correspondence(triangle, bary)


# ------------------------------------------------------------------------------------------------ colour

_COLOURS = {
    "skin": (198, 152, 128),
    "lips": (176, 104, 98),
    "eyelids": (188, 140, 120),
    "eyeballs": (226, 220, 214),
    "teeth": (224, 212, 190),
    "gums": (172, 88, 86),
    "tongue": (182, 98, 98),
    "mouth_interior": (150, 72, 68),
    "other": (158, 84, 78),
}
_THROAT = (26, 8, 8)
_MOUTH_DARK_BY_MM = 32.0  # depth behind the lips at which the mouth is as dark as the throat
_IRIS = (88, 66, 48)
_PUPIL = (10, 8, 8)
_IRIS_RADIUS_MM, _PUPIL_RADIUS_MM = 5.9, 1.9  # of an adult in daylight


def _albedo(vertices: Float32, region: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """sRGB colour (V, 3) by material; the mouth darkens inwards, the eyes look straight ahead."""
    colour = np.array([_COLOURS[name] for name in MATERIALS], np.float32)[region]
    inside = region == MATERIALS.index("mouth_interior")
    if inside.any():
        depth = vertices[inside, 2].max() - vertices[inside, 2]
        dark = np.clip(depth / _MOUTH_DARK_BY_MM, 0, 1)[:, None]
        colour[inside] += dark * (np.array(_THROAT, np.float32) - colour[inside])
    for eye in _eyeballs(region, vertices.astype(np.float64)):
        centre = _sphere_centre(vertices[eye].astype(np.float64))
        offset = vertices - centre
        from_axis = np.hypot(offset[:, 0], offset[:, 1])
        front = eye & (offset[:, 2] > 0)
        colour[front & (from_axis < _IRIS_RADIUS_MM)] = _IRIS
        colour[front & (from_axis < _PUPIL_RADIUS_MM)] = _PUPIL
    return colour.astype(np.uint8)
