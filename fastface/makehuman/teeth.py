"""Teeth and gums, tooth by tooth, on dental arches.

Crown widths and heights are population averages (Wheeler's Dental Anatomy, Nelson & Ash, 9th edition, tables
1-1 to 1-9: mesiodistal diameters and crown lengths). The arches are half ellipses whose width at the canines
(about 35 mm, cusp to cusp) and at the first molars (about 53 mm) is that of adult arches. Overbite 2 mm,
overjet 2 mm.

A tooth is a grid: columns from its mesial to its distal side, rows from under the gum over the labial face
and the biting edge to the lingual face. Its outermost columns turn into the gap beside the neighbour and are
painted dark, so the row of teeth reads as single teeth at any distance.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fastface.makehuman.parts import Part, flipped, grid_triangles, merged, with_mirror_image
from fastface.makehuman.sources import Floats
from fastface.morphable import MATERIALS

IVORY = np.array([228.0, 218.0, 200.0])
CERVICAL = np.array([206.0, 186.0, 152.0])
GAP = np.array([118.0, 84.0, 66.0])
GUM = np.array([190.0, 108.0, 103.0])
GUM_MARGIN = np.array([205.0, 128.0, 120.0])
GUM_DEEP = np.array([128.0, 58.0, 56.0])


@dataclass(frozen=True)
class Tooth:
    """One crown: kind, mesiodistal width and height in mm, and its yellowness over an incisor (0…1)."""

    kind: str
    width_mm: float
    height_mm: float
    warmth: float


UPPER = (
    Tooth("incisor", 8.5, 10.5, 0.0),
    Tooth("incisor", 6.6, 9.2, 0.05),
    Tooth("canine", 7.6, 10.2, 0.3),
    Tooth("premolar", 7.0, 8.6, 0.2),
    Tooth("premolar", 6.8, 7.8, 0.25),
    Tooth("molar", 10.0, 7.3, 0.35),
    Tooth("molar", 9.4, 6.9, 0.4),
)
LOWER = (
    Tooth("incisor", 5.3, 8.8, 0.0),
    Tooth("incisor", 5.8, 9.2, 0.05),
    Tooth("canine", 6.9, 10.4, 0.25),
    Tooth("premolar", 7.0, 8.8, 0.2),
    Tooth("premolar", 7.1, 8.2, 0.25),
    Tooth("molar", 11.0, 7.5, 0.35),
)


@dataclass(frozen=True)
class Arch:
    """Half ellipse in the horizontal plane: ``half_width_mm`` across, ``depth_mm`` back, foremost point
    ``front_mm``.

    ``edge_mm`` is the height (y) of the biting edge and ``crown`` the direction from it to the gum: +1 up, -1
    down. ``sweep_mm`` lifts the biting edge towards the molars along a smile curve.
    """

    half_width_mm: float
    depth_mm: float
    front_mm: float
    edge_mm: float
    crown: float
    sweep_mm: float


UPPER_ARCH = Arch(32.0, 42.0, 23.7, -75.0, 1.0, 1.6)
LOWER_ARCH = Arch(29.6, 41.0, 21.4, -73.0, -1.0, 0.6)

FRONT_COLUMNS = np.array([-1.0, -0.86, -0.33, 0.33, 0.86, 1.0])
CANINE_COLUMNS = np.array([-1.0, -0.84, -0.45, 0.0, 0.45, 0.84, 1.0])
BACK_COLUMNS = np.array([-1.0, -0.55, 0.0, 0.55, 1.0])
# Rows: height above the biting edge (1 is the gum line), how far the face stands out (mm), relative width.
FRONT_ROWS = np.array(
    [
        (1.14, -0.6, 0.74),
        (0.86, 0.15, 0.87),
        (0.55, 0.45, 0.96),
        (0.24, 0.25, 1.0),
        (0.03, -0.1, 0.98),
        (0.01, -1.15, 0.97),
        (0.92, -4.6, 0.7),
    ]
)
BACK_ROWS = np.array(
    [
        (1.14, -0.5, 0.86),
        (0.75, 0.45, 0.95),
        (0.35, 0.55, 1.0),
        (0.03, -0.6, 0.97),
        (0.22, -3.2, 0.95),
        (0.05, -6.2, 0.9),
        (0.95, -7.6, 0.84),
    ]
)


def dentition(upper: bool) -> Part:
    """The teeth and gums of one jaw at the neutral: right half, its mirror image, then the gums."""
    arch, teeth = (UPPER_ARCH, UPPER) if upper else (LOWER_ARCH, LOWER)
    reach = np.concatenate([[0.0], np.cumsum([tooth.width_mm for tooth in teeth])])
    curve = _Curve(arch)
    crowns = [_crown(tooth, arch, curve, start) for tooth, start in zip(teeth, reach, strict=False)]
    return merged([with_mirror_image(merged(crowns)), _gums(teeth, arch, curve, reach)])


class _Curve:
    """The arch by arc length: ``at(s)`` gives points, tangents (towards the molars) and outward normals; s <
    0 is left.
    """

    def __init__(self, arch: Arch) -> None:
        angle = np.linspace(0.0, np.pi / 2, 4001)
        across = arch.half_width_mm * np.sin(angle)
        along = arch.front_mm - arch.depth_mm * (1.0 - np.cos(angle))
        steps = np.hypot(np.diff(across), np.diff(along))
        self._length = np.concatenate([[0.0], np.cumsum(steps)])
        self._angle = angle
        self._arch = arch

    def at(self, reach: Floats) -> tuple[Floats, Floats, Floats]:
        side = np.where(reach < 0.0, 1.0, -1.0)
        angle = np.interp(np.abs(reach), self._length, self._angle)
        a, b = self._arch.half_width_mm, self._arch.depth_mm
        zero = np.zeros_like(angle)
        point = np.stack(
            [side * a * np.sin(angle), zero, self._arch.front_mm - b * (1.0 - np.cos(angle))], axis=-1
        )
        tangent = np.stack([side * a * np.cos(angle), zero, -b * np.sin(angle)], axis=-1)
        normal = np.stack([side * b * np.sin(angle), zero, a * np.cos(angle)], axis=-1)
        unit = np.linalg.norm(tangent, axis=-1, keepdims=True)
        return point, tangent / unit, normal / np.linalg.norm(normal, axis=-1, keepdims=True)

    def lift(self, reach: Floats) -> Floats:
        """Height of the biting edge above that of the central incisors (a smile arc)."""
        arch = self._arch
        rise: Floats = arch.sweep_mm * (np.abs(reach) / 40.0) ** 2
        return rise


def _crown(tooth: Tooth, arch: Arch, curve: _Curve, start_mm: float) -> Part:
    front = tooth.kind in ("incisor", "canine")
    columns = {"incisor": FRONT_COLUMNS, "canine": CANINE_COLUMNS}.get(tooth.kind, BACK_COLUMNS)
    rows = FRONT_ROWS if front else BACK_ROWS
    u, height = np.meshgrid(columns, rows[:, 0])
    out, width = rows[:, 1][:, None], rows[:, 2][:, None]
    centre = start_mm + 0.5 * tooth.width_mm
    point, tangent, normal = curve.at(np.array(centre))
    near_edge = np.clip(1.0 - height / 0.5, 0.0, 1.0)
    height = height + near_edge * _edge_profile(tooth.kind, u)
    face = out - _face_curvature(tooth.kind) * u**2 - np.where(np.abs(u) > 0.95, 0.75, 0.0)
    along = 0.5 * tooth.width_mm * 0.985 * u * width
    lift = curve.lift(np.array(centre)) + arch.crown * tooth.height_mm * height
    vertices = point + along[..., None] * tangent + face[..., None] * normal
    vertices[..., 1] += arch.edge_mm + lift
    triangles = grid_triangles(len(rows), len(columns))
    if arch.crown < 0:
        triangles = flipped(triangles)
    albedo = _crown_albedo(tooth, u, rows, 1.0 - 0.45 * float(np.clip((centre - 18.0) / 30.0, 0.0, 1.0)))
    materials = np.full(len(triangles), MATERIALS.index("teeth"), np.uint8)
    flat = vertices.reshape(-1, 3)
    return Part(flat, triangles, materials, albedo, np.arange(len(flat)))


def _edge_profile(kind: str, u: Floats) -> Floats:
    """How much of the crown's height the biting edge falls short at ``u``: rounded corners, cusps."""
    size = np.abs(u)
    if kind == "incisor":
        profile = np.where(u > 0, 0.13, 0.07) * size**6 + 0.015 * size**2
    elif kind == "canine":
        profile = np.where(u > 0, 0.20, 0.15) * size**1.5
    elif kind == "premolar":
        profile = 0.13 * size**1.6
    else:
        profile = (
            0.10 * np.cos(np.pi * u / 0.55) ** 2 * (size < 0.3) + 0.16 * np.clip(size - 0.6, 0, None) / 0.4
        )
    return np.asarray(profile, np.float64)


def _face_curvature(kind: str) -> float:
    return {"incisor": 0.55, "canine": 1.3, "premolar": 1.2, "molar": 0.9}[kind]


def _crown_albedo(tooth: Tooth, u: Floats, rows: Floats, light: float) -> NDArray[np.uint8]:
    """Ivory, yellower towards the gum, dark in the gaps and behind; ``light`` dims the teeth deep in the
    mouth.
    """
    height = np.broadcast_to(rows[:, 0][:, None], u.shape)
    warm = np.clip(tooth.warmth + 0.75 * np.clip(height - 0.5, 0, 1) ** 1.5, 0.0, 1.0)[..., None]
    colour = (1.0 - warm) * IVORY + warm * CERVICAL
    gap = np.where(np.abs(u) > 0.95, 0.8, 0.0)[..., None]
    colour = (1.0 - gap) * colour + gap * GAP
    behind = np.arange(len(rows)) >= 5
    colour[behind] *= 0.66
    colour *= light
    flat: NDArray[np.uint8] = np.clip(np.rint(colour), 0, 255).astype(np.uint8).reshape(-1, 3)
    return flat


GUM_STOPS = (0.0, 0.22, 0.5, 0.78)
GUM_ROWS = 4


def _gums(teeth: tuple[Tooth, ...], arch: Arch, curve: _Curve, reach: Floats) -> Part:
    """A band from right to left whose rim is scalloped: it arches over each tooth and dips between two."""
    stations, margin = [], []
    for tooth, start in zip(teeth, reach, strict=False):
        for stop in GUM_STOPS:
            stations.append(start + stop * tooth.width_mm)
            margin.append(tooth.height_mm * (1.0 - 0.36 * (2.0 * abs(stop - 0.5)) ** 2.2))
    stations.append(reach[-1])
    margin.append(teeth[-1].height_mm * 0.9)
    half = np.array(stations)
    along = np.concatenate([half[::-1], -half[1:]])
    rim = np.array(margin)
    rim = np.concatenate([rim[::-1], rim[1:]])
    point, _tangent, normal = curve.at(np.where(along == 0.0, 1e-9, along))
    papilla = np.concatenate([_between(half, reach)[::-1], _between(half, reach)[1:]])
    rows = []
    colours = []
    for above, out, shade in ((-0.15, -0.9, 0.0), (0.0, 0.42, 1.0), (2.2, 0.7, 0.5), (7.5, -2.2, -1.0)):
        outward = out - 0.75 * papilla * (1.0 if above < 1.0 else 0.3)
        row = point + outward[:, None] * normal
        level = rim + above if above < 5.0 else np.full_like(rim, float(np.median(rim)) + above)
        row[:, 1] += arch.edge_mm + curve.lift(along) + arch.crown * level
        rows.append(row)
        base = GUM + (GUM_MARGIN - GUM) * max(shade, 0.0) + (GUM_DEEP - GUM) * max(-shade, 0.0)
        colours.append(np.broadcast_to(base, row.shape))
    count = len(along)
    mirror = np.concatenate([row * count + np.arange(count)[::-1] for row in range(GUM_ROWS)])
    triangles = grid_triangles(GUM_ROWS, count)
    if arch.crown < 0:
        triangles = flipped(triangles)
    right = triangles[(triangles % count < count // 2 + 1).all(axis=1)]
    triangles = np.concatenate([right, flipped(mirror[right])])
    albedo = np.rint(np.concatenate(colours)).astype(np.uint8)
    materials = np.full(len(triangles), MATERIALS.index("gums"), np.uint8)
    return Part(np.concatenate(rows), triangles, materials, albedo, mirror)


def _between(stations: Floats, reach: Floats) -> Floats:
    """1 where a station lies between two teeth, 0 over a tooth."""
    return np.array([float(np.min(np.abs(reach - station)) < 1e-9) for station in stations])
