"""From a published face model to a ``HeadModel``: its shapes are carried onto the default head's mesh.

Published meshes lack much that a photo needs: the Basel and Surrey faces have no eye openings, most have no
teeth or tongue, none marks where lips and lids end. So their statistics are kept and their mesh is not: the
default head's mesh is laid onto the mean face (``fastface.importers.correspondence_map``), each of its
vertices reads the authors' modes where it came to lie, and coefficients keep the authors' meaning. What they
do not have is the default head's, fitted to the face:

- eyeballs keep their roundness and follow the lids; teeth, gums, tongue and mouth follow the map of space;
- expressions without ARKit's names are the default head's, carried by the same map: a vertex that moves from
  p to p + d there moves from M(p) to M(p + d) here, so what meets there meets here (the goal of Sumner &
  Popović, "Deformation transfer for triangle meshes", SIGGRAPH 2004, by way of space instead of triangles).
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from fastface.correspondence import Detector
from fastface.importers.components import main_part
from fastface.importers.correspondence_map import Surface
from fastface.importers.laying import Fitted, Mapping, Placed, Pose, Reading, lay, pose_of
from fastface.importers.own_expressions import with_own
from fastface.importers.pointing import Bare, point_out
from fastface.importers.published import Published, check, need
from fastface.importers.template import Template, template
from fastface.morphable import ARKIT_NAMES, HeadModel, validate

Float32 = NDArray[np.float32]

_STILL_MM: Final = 1e-3


def carry(
    face: Published, label: str, *, detector: Detector | None = None, unit_mm: float | None = None
) -> tuple[HeadModel, Fitted]:
    """Carry ``face`` onto the default head's mesh; also how well it fits. ``unit_mm``: length of the file's
    unit where its size should not tell.

    Raises ``BadModelFile`` when the mesh is not a face of a known size, or cannot be brought into
    correspondence; ``NoFaceFound`` when the landmark network sees no face on it.
    """
    from fastface.landmarks import LandmarkDetector

    check(face, label)
    home = template()
    # Lips that touch are two: a mouth that opens tells their vertices apart.
    moved = face.vertices + face.expressions.get("jawOpen", np.float32(0))
    part = main_part(face.vertices, face.triangles, moved=moved)
    colour = None if face.colour is None else face.colour.astype(np.float64)
    mesh = Bare.plain(face.vertices, part) if colour is None else Bare(face.vertices, part, colour)
    marks = point_out(mesh, detector or LandmarkDetector(), label)
    # Only the part that the face is on: eyeballs, teeth and hats are separate.
    part = main_part(face.vertices, part[:, ::-1] if marks.flipped else part, marks.triangle, moved)
    pose = pose_of(home, marks, unit_mm or face.unit_mm, label)
    surface = Surface(pose.points(face.vertices), part)
    mapping, placed, fitted = lay(home, pose, marks, surface, label)
    reading = Reading(home, surface, placed.vertices - placed.shift, placed)
    identity = reading.fields(pose.shifts(face.identity))
    names, expression = _expressions(home, mapping, reading, placed, pose, face)
    model = HeadModel(
        name=face.name,
        source=_told(face, fitted, names),
        license=face.license,
        vertices=placed.vertices.astype(np.float32),
        triangles=home.model.triangles,
        materials=home.model.materials,
        identity=_half(identity, f"{label}: identity"),
        expression=_half(expression, f"{label}: expressions"),
        expression_names=names,
        albedo=home.model.albedo,
        landmarks478=home.model.landmarks478,
        landmarks68=home.model.landmarks68,
        mirror=home.model.mirror,
    )
    validate(model, label)
    return model, fitted


def _expressions(
    home: Template, mapping: Mapping, reading: Reading, placed: Placed, pose: Pose, face: Published
) -> tuple[tuple[str, ...], Float32]:
    """ARKit's names in order and displacements (E, V, 3): the authors' where they have one, else carried."""
    names = home.model.expression_names
    shapes = home.model.expression.astype(np.float64)
    carried = np.zeros(shapes.shape, np.float32)
    base = mapping(home.vertices)
    for row, shape in enumerate(shapes):
        moves = np.flatnonzero(np.abs(shape).max(axis=1) > _STILL_MM)
        carried[row, moves] = mapping(home.vertices[moves] + shape[moves]) - base[moves]
        for ball, eye in zip(placed.balls, home.eyes, strict=True):
            carried[row, eye] = ball.scale * shape[eye]
    if not face.expressions:
        return names, carried
    return names, with_own(home, reading, placed, pose, face, carried)


def _told(face: Published, fitted: Fitted, names: tuple[str, ...]) -> str:
    """What became of the authors' model, for its ``source``."""
    own = [name for name in ARKIT_NAMES if name in face.expressions]
    borrowed = len(names) - len(own)
    shapes = (
        f"all {len(names)} expressions transferred from the default head by dense correspondence"
        if not own
        else f"{len(own)} expressions the authors', {borrowed} transferred from the default head"
    )
    return (
        f"{face.source}; carried onto the default head's mesh ({fitted.covered:.0%} of the face, "
        f"{fitted.median_mm:.2f} mm off in the median); {shapes}; eyes, teeth, gums, tongue and mouth of the "
        "default head (MakeHuman, CC0)"
    )


def _half(fields: Float32, label: str) -> NDArray[np.float16]:
    with np.errstate(over="ignore", invalid="ignore"):
        half = fields.astype(np.float16)
    need(bool(np.isfinite(half).all()), label, "wanted finite displacements of a head's size")
    return half
