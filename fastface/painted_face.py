"""Pictures of a head model in which a landmark network sees a face.

The model carries no texture, so colour is painted by material and by place: lips, lash lines, irises and
pupils, brows, hair. Everything is placed by the eyeballs and the materials alone, so any ``HeadModel`` can be
painted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastface.errors import BadModelFile
from fastface.morphable import MATERIALS, HeadModel
from fastface.ops import rasterize

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

_SKINS = ((222, 178, 152), (198, 150, 124), (150, 104, 80), (104, 68, 50))
_HAIRS = ((36, 26, 22), (62, 44, 32), (24, 20, 20))
_LIPS = (176, 92, 90)
_SCLERA = (228, 224, 220)
_IRIS = (84, 62, 46)
_DARK = (14, 10, 10)
_INSIDE = (70, 24, 24)
_OTHER = (168, 100, 92)
_TEETH = (222, 212, 194)
_IRIS_RADIUS_MM, _PUPIL_RADIUS_MM = 5.9, 2.2
# Brow line above the eyeball's centre, for an eye 31 mm off the midline: outward from the centre, up, half
# thickness.
_BROW_ALONG_MM = (-19.0, -8.0, 4.0, 14.0, 22.0)
_BROW_UP_MM = (17.5, 21.0, 23.5, 23.0, 18.5)
_BROW_HALF_MM = (3.6, 3.8, 3.2, 2.2, 1.0)
_EYE_TO_MIDLINE_MM = 31.0


class View(NamedTuple):
    """A camera before a head: ``camera = rotation (3, 3) @ head + translation_mm (3,)``, then pixels
    (CONVENTIONS.md).
    """

    rotation: Float64
    translation_mm: Float64
    focal_px: float
    size_px: int

    def screen(self, vertices: Float32) -> Float32:
        """``(V, 3)`` x_px, y_px, Z_mm of head-space ``vertices (V, 3)``."""
        camera = vertices @ self.rotation.T + self.translation_mm
        plane = self.focal_px * camera[:, :2] / camera[:, 2:] + self.size_px / 2
        return np.concatenate([plane, camera[:, 2:]], axis=1).astype(np.float32)


class Picture(NamedTuple):
    """``rgb (S, S, 3)`` uint8; ``triangle_id (S, S)``, -1 for none; ``bary (S, S, 2)``, linear in screen
    space.
    """

    rgb: NDArray[np.uint8]
    triangle_id: NDArray[np.int32]
    bary: Float32


@dataclass(frozen=True)
class Light:
    """A distant lamp in camera space (unit vector towards it), and the share of light from everywhere."""

    direction: Float64
    ambient: float


def facing_view(
    yaw_deg: float = 0.0,
    pitch_deg: float = 0.0,
    roll_deg: float = 0.0,
    *,
    size_px: int = 512,
    distance_mm: float = 700.0,
) -> View:
    """A camera that looks at the middle of the face; 270 mm of the head's plane span the picture."""
    yaw, pitch, roll = np.radians([yaw_deg, pitch_deg, roll_deg])
    about_y = np.array([[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]])
    about_x = np.array([[1, 0, 0], [0, np.cos(pitch), -np.sin(pitch)], [0, np.sin(pitch), np.cos(pitch)]])
    about_z = np.array([[np.cos(roll), -np.sin(roll), 0], [np.sin(roll), np.cos(roll), 0], [0, 0, 1]])
    rotation = np.diag([1.0, -1.0, -1.0]) @ about_z @ about_x @ about_y
    middle = rotation @ np.array([0.0, -25.0, 0.0])
    translation = np.array([0.0, 0.0, distance_mm]) - middle
    return View(rotation, translation, size_px * distance_mm / 270.0, size_px)


class Painter:
    """Paints one head model; what depends on the model alone is made once."""

    def __init__(self, model: HeadModel) -> None:
        self.model = model
        self._eyes = eye_centres(model)
        self._weights = _material_weights(model)

    def paint(self, vertices: Float32, view: View, light: Light, skin: int = 0, hair: int = 0) -> Picture:
        """Draw the model with these ``vertices (V, 3)``; colours sit where they sit on the mean head."""
        triangles = self.model.triangles
        screen = view.screen(vertices)
        raster = rasterize(screen[None], triangles, view.size_px, view.size_px, cull_backfaces=True)
        triangle_id, bary = raster.triangle_id[0], raster.bary[0]
        seen = triangle_id >= 0
        corners = triangles[triangle_id[seen]]
        weights = np.concatenate([1 - bary[seen].sum(axis=1, keepdims=True), bary[seen]], axis=1)
        # Screen-space weights over Z are weights on the surface.
        weights = weights / screen[corners, 2]
        weights /= weights.sum(axis=1, keepdims=True)

        def across(values: Float32) -> Float32:
            mixed: Float32 = np.einsum("ncx,nc->nx", values[corners], weights).astype(np.float32)
            return mixed

        colour = self._colour(across(self.model.vertices), across(self._weights), skin, hair)
        normals = across(vertex_normals(vertices, triangles)) @ view.rotation.T
        normals /= np.linalg.norm(normals, axis=1, keepdims=True) + 1e-9
        lit = light.ambient + (1 - light.ambient) * np.clip(normals @ light.direction, 0, 1)
        rows = np.linspace(190, 120, view.size_px)[:, None, None]
        rgb = np.broadcast_to(rows * [1.0, 1.02, 1.05], (view.size_px, view.size_px, 3)).copy()
        rgb[seen] = colour * lit[:, None]
        return Picture(np.clip(rgb, 0, 255).astype(np.uint8), triangle_id, bary)

    def _colour(self, place: Float32, weights: Float32, skin: int, hair: int) -> Float32:
        """sRGB (N, 3) of points from their place on the mean head and their share of each material."""
        palette = np.array(
            [_SKINS[skin], _LIPS, _SKINS[skin], _SCLERA, _TEETH, _INSIDE, _INSIDE, _INSIDE, _OTHER, _DARK],
            np.float32,
        )
        palette[1] = 0.55 * palette[1] + 0.45 * palette[0] * [0.95, 0.62, 0.66]  # lips follow the skin
        palette[2] *= 0.94
        colour = weights @ palette
        skin_share = weights[:, 0] + weights[:, 2]
        dark = np.array(_HAIRS[hair], np.float32)
        cover = np.clip((place[:, 1] - 68 + 0.004 * place[:, 0] ** 2) / 8, 0, 1) * skin_share
        for side, eye in zip((1.0, -1.0), self._eyes, strict=True):
            out = side * (place[:, 0] - eye[0]) * (_EYE_TO_MIDLINE_MM / abs(eye[0]))
            up = place[:, 1] - eye[1] - np.interp(out, _BROW_ALONG_MM, _BROW_UP_MM)
            half = np.interp(out, _BROW_ALONG_MM, _BROW_HALF_MM)
            ends = np.clip((out + 21) / 3, 0, 1) * np.clip((25 - out) / 3, 0, 1)
            brow = np.clip(1.6 - np.abs(up) / half, 0, 1) * ends * (place[:, 2] > eye[2])
            cover = np.maximum(cover, 0.85 * brow * skin_share)
            radius = np.hypot(place[:, 0] - eye[0], place[:, 1] - eye[1])
            eyeball = (weights[:, 3] > 0.5) & (place[:, 2] > eye[2])
            colour[eyeball & (radius < _IRIS_RADIUS_MM)] = _IRIS
            colour[eyeball & (radius < _PUPIL_RADIUS_MM)] = _DARK
        painted: Float32 = colour + cover[:, None] * (dark - colour)
        return painted


def eye_centres(model: HeadModel) -> tuple[Float64, Float64]:
    """Middles of the subject's left and right eyeball, mm. Raises ``BadModelFile`` for a model without two
    eyes.
    """
    corners = model.vertices[np.unique(model.triangles[model.material_triangles("eyeballs")])].astype(
        np.float64
    )
    left, right = corners[corners[:, 0] > 0], corners[corners[:, 0] < 0]
    if len(left) < 4 or len(right) < 4:
        raise BadModelFile(f"{model.name}: wanted eyeballs on both sides to place the irises by")
    return (left.min(axis=0) + left.max(axis=0)) / 2, (right.min(axis=0) + right.max(axis=0)) / 2


def vertex_normals(vertices: Float32, triangles: NDArray[np.int32]) -> Float32:
    """Unit normals (V, 3), outward, each triangle weighted by its area."""
    corners = vertices[triangles]
    faces = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normals = np.zeros((len(vertices), 3), np.float64)
    for corner in range(3):
        for axis in range(3):
            normals[:, axis] += np.bincount(triangles[:, corner], faces[:, axis], len(vertices))
    unit: Float32 = (normals / (np.linalg.norm(normals, axis=1, keepdims=True) + 1e-12)).astype(np.float32)
    return unit


def _material_weights(model: HeadModel) -> Float32:
    """Share of each material around each vertex (V, 9), and in a tenth column the lash line along the lids'
    rims.
    """
    weights = np.zeros((len(model.vertices), len(MATERIALS) + 1), np.float32)
    for corner in range(3):
        np.add.at(weights, (model.triangles[:, corner], model.materials), 1)
    weights /= np.maximum(weights.sum(axis=1, keepdims=True), 1)
    lash = lid_rim_vertices(model)
    weights[lash] *= 0.25
    weights[lash, -1] = 0.75
    return weights


def lid_rim_vertices(model: HeadModel) -> NDArray[np.int64]:
    """Vertices on the border of the eyelids where no outer skin follows."""
    return np.unique(rim_edges(model, "eyelids")[0])


def rim_edges(model: HeadModel, material: str) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Edges (N, 2) at which outer skin of this material ends, and the triangle of the material at each.

    Outer skin is skin, lips and eyelids; beyond its rim lie the mouth, the eye sockets, or nothing.
    """
    outer = np.isin(model.materials, [MATERIALS.index(name) for name in ("skin", "lips", "eyelids")])
    faces = np.flatnonzero(outer)
    triangles = model.triangles[faces]
    edges = np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]])
    owner = np.tile(faces, 3)
    ordered = np.sort(edges, axis=1).astype(np.int64)
    _, first, count = np.unique(
        ordered[:, 0] * len(model.vertices) + ordered[:, 1], return_index=True, return_counts=True
    )
    single = first[count == 1]
    of_material = single[model.materials[owner[single]] == MATERIALS.index(material)]
    return edges[of_material], owner[of_material]
