"""Scans whose truth is known: people of the default head, as a scanner would have seen them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastface.camera import rotation_of
from fastface.morphable import HeadModel

Float64 = NDArray[np.float64]


@dataclass(frozen=True)
class Synthetic:
    """``truth (V, 3)`` mm in head space; the scan ``vertices``, ``triangles``, ``colors``; ``landmarks (68,
    3)`` on it, in its axes and unit."""

    truth: Float64
    vertices: Float64
    triangles: NDArray[np.int32]
    colors: NDArray[np.uint8]
    landmarks: Float64


def synthetic_scan(
    model: HeadModel,
    seed: int,
    *,
    expression: dict[str, float] | None = None,
    unit_mm: float = 1.0,
    noise_mm: float = 0.1,
    holes: int = 4,
    back: bool = True,
    strength: float = 0.8,
    turn: float = 0.2,
) -> Synthetic:
    """A person drawn from ``model``, remeshed (no vertex is the template's), with noise, holes, and colours
    that tell the place: 128 plus millimetres."""
    random = np.random.default_rng(seed)
    identity = strength * random.normal(0, 1, 30)
    coefficients = np.zeros(len(model.expression_names))
    for name, value in (expression or {}).items():
        coefficients[model.expression_names.index(name)] = value
    truth = model.shaped(identity, coefficients).astype(np.float64)
    skin = model.triangles[model.material_triangles("skin", "lips", "eyelids", "eyeballs")]
    vertices, triangles, home = remeshed(truth, skin, model.vertices.astype(np.float64), random)
    middle = vertices[triangles].mean(axis=1)
    keep = np.ones(len(triangles), bool)
    if not back:
        keep &= middle[:, 2] > -40
    face = np.flatnonzero((middle[:, 2] > 0) & (np.abs(middle[:, 0]) > 25))
    for centre in middle[random.choice(face, holes)]:
        keep &= np.linalg.norm(middle - centre, axis=1) > random.uniform(3, 6)
    triangles = triangles[keep]
    rows, flat = np.unique(triangles, return_inverse=True)
    triangles = flat.reshape(-1, 3).astype(np.int32)
    colors = np.clip(np.round(128 + home[rows]), 0, 255).astype(np.uint8)
    vertices = vertices[rows] + random.normal(0, noise_mm, (len(rows), 3))
    rotation = rotation_of(random.normal(0, turn, 3))
    shift = random.normal(0, 50, 3)
    marks = model.landmarks68.points(truth.astype(np.float32), model.triangles).astype(np.float64)
    return Synthetic(
        truth,
        (vertices @ rotation.T + shift) / unit_mm,
        triangles,
        colors,
        (marks @ rotation.T + shift) / unit_mm,
    )


def remeshed(
    vertices: Float64, triangles: NDArray[Any], home: Float64, random: np.random.Generator
) -> tuple[Float64, NDArray[np.int32], Float64]:
    """Every triangle cut in three at a place within it, each of its sides' diagonals flipped where two of the
    pieces meet: all vertices but those places leave the mesh. Also where on ``home`` each vertex is."""
    weights = random.dirichlet([4, 4, 4], len(triangles))
    inner = np.einsum("fc,fcx->fx", weights, vertices[triangles])
    inner_home = np.einsum("fc,fcx->fx", weights, home[triangles])
    count = len(vertices)
    owner: dict[tuple[int, int], int] = {}
    pieces = []
    for row, (a, b, c) in enumerate(triangles.tolist()):
        for p, q in ((a, b), (b, c), (c, a)):
            owner[p, q] = row
    for (p, q), row in owner.items():
        other = owner.get((q, p))
        if other is None:
            pieces.append((p, q, count + row))
        elif p < q:  # the side between two triangles becomes the one between their places
            pieces.append((p, count + other, count + row))
            pieces.append((count + other, q, count + row))
    made = np.concatenate([vertices, inner])
    return made, np.array(pieces, np.int32), np.concatenate([home, inner_home])


def small_mesh(model: HeadModel, cell_mm: float = 7.0) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """A coarse mesh of the front of a head: which of its vertices, and triangles (F, 3) over them. One vertex
    stays of each cell of a grid in which the mouth is open, so that lips do not grow together."""
    skin = model.triangles[model.material_triangles("skin", "lips", "eyelids")]
    front = model.vertices[:, 2] > -60
    skin = skin[front[skin].all(axis=1)]
    names = model.expression_names
    opened = model.vertices + model.expression[names.index("jawOpen")].astype(np.float32)
    cells = np.floor(opened / cell_mm).astype(np.int64)
    key = (cells[:, 0] * 10_007 + cells[:, 1]) * 10_007 + cells[:, 2]
    used = np.unique(skin)
    _, first, same = np.unique(key[used], return_index=True, return_inverse=True)
    number = np.zeros(len(model.vertices), np.int64)
    number[used] = same.ravel()
    coarse = number[skin]
    a, b, c = coarse.T
    coarse = coarse[(a != b) & (b != c) & (c != a)]
    _, once = np.unique(np.sort(coarse, axis=1), axis=0, return_index=True)
    return used[first].astype(np.int64), coarse[once].astype(np.int32)


def write_obj(path: Path, scan: Synthetic) -> None:
    """With colours behind the places."""
    rows = np.concatenate([scan.vertices, scan.colors / 255], axis=1)
    lines = ["v " + " ".join(f"{number:.6f}" for number in row) for row in rows]
    lines += ["f " + " ".join(str(corner + 1) for corner in triangle) for triangle in scan.triangles]
    path.write_text("\n".join([*lines, ""]))


def write_ply(path: Path, scan: Synthetic) -> None:
    """Binary, with colours."""
    kinds = [(axis, "<f8") for axis in "xyz"] + [(name, "u1") for name in ("red", "green", "blue")]
    vertices = np.zeros(len(scan.vertices), kinds)
    for column, (name, _) in enumerate(kinds):
        vertices[name] = scan.vertices[:, column] if column < 3 else scan.colors[:, column - 3]
    faces = np.zeros(len(scan.triangles), [("count", "u1"), ("corners", "<i4", (3,))])
    faces["count"], faces["corners"] = 3, scan.triangles
    words = {"<f8": "double", "u1": "uchar"}
    header = [
        "ply",
        "format binary_little_endian 1.0",
        f"element vertex {len(vertices)}",
        *(f"property {words[kind]} {name}" for name, kind in kinds),
        f"element face {len(faces)}",
        "property list uchar int vertex_indices",
        "end_header",
        "",
    ]
    path.write_bytes("\n".join(header).encode() + vertices.tobytes() + faces.tobytes())
