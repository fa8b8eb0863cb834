"""Small files in the exact formats of published face models, made from one person of the default head."""

from __future__ import annotations

import json
import pickle
import struct
import sys
import types
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from fastface.morphable import HeadModel, load_default


@dataclass(frozen=True)
class Person:
    """``vertices (V, 3)`` mm of a face without eyeballs, teeth or back of the head, in an order of its own;
    ``modes (K, V, 3)`` mm per standard deviation; ``rows (V,)`` of the default head; ``whole (N, 3)`` the
    default head's vertices as this person has them.
    """

    vertices: np.ndarray
    triangles: np.ndarray
    modes: np.ndarray
    rows: np.ndarray
    whole: np.ndarray
    model: HeadModel


def person(modes: int = 4, seed: int = 3) -> Person:
    """Someone who is not the mean."""
    model = load_default()
    rng = np.random.default_rng(seed)
    whole = model.shaped(rng.normal(0, 0.9, 30).astype(np.float32)).astype(np.float64)
    faces = model.triangles[model.material_triangles("skin", "lips", "eyelids")]
    front = (model.vertices[faces].mean(axis=1)[:, 2] > -75) & (
        model.vertices[faces].mean(axis=1)[:, 1] > -125
    )
    used = np.unique(faces[front])
    order = rng.permutation(len(used))
    rows = used[order]
    number = np.full(len(whole), -1)
    number[rows] = np.arange(len(rows))
    basis = model.identity[:modes].astype(np.float64)[:, rows]
    return Person(whole[rows], number[faces[front]], basis, rows, whole, model)


def closed(one: Person) -> Person:
    """The same with skin over the eyes and between the lips, as the Basel and Surrey faces have it."""
    from fastface.correspondence import _loops
    from fastface.painted_face import rim_edges

    number = np.full(len(one.whole), -1)
    number[one.rows] = np.arange(len(one.rows))
    vertices, modes, triangles, rows = [one.vertices], [one.modes], [one.triangles], [one.rows]
    for material, bulge_mm in (("eyelids", 3.0), ("lips", -1.0)):
        edges = number[rim_edges(one.model, material)[0]]
        for loop in _loops(edges):
            ring, middle = edges[loop, 0], sum(map(len, vertices))
            vertices.append(one.vertices[ring].mean(axis=0, keepdims=True) + np.array([0, 0, bulge_mm]))
            modes.append(one.modes[:, ring].mean(axis=1, keepdims=True))
            rows.append(one.rows[ring[:1]])
            triangles.append(np.array([[end, start, middle] for start, end in edges[loop]]))
    return replace(
        one,
        vertices=np.concatenate(vertices),
        modes=np.concatenate(modes, axis=1),
        triangles=np.concatenate(triangles),
        rows=np.concatenate(rows),
    )


def principal(one: Person, unit_mm: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean (3V,), orthonormal components (3V, K) and standard deviations (K,), in a unit."""
    flat = one.modes.reshape(len(one.modes), -1).T / unit_mm
    components, deviations, _ = np.linalg.svd(flat, full_matrices=False)
    return one.vertices.reshape(-1) / unit_mm, components, deviations


def write_bfm2009(path: Path, one: Person) -> Path:
    from scipy.io import savemat

    mean, components, deviations = principal(one, 0.001)
    savemat(
        path,
        {
            "shapeMU": mean[:, None].astype(np.float32),
            "shapePC": components.astype(np.float32),
            "shapeEV": deviations[:, None].astype(np.float32),
            "texMU": np.tile([200.0, 150.0, 130.0], len(one.vertices))[:, None].astype(np.float32),
            "texPC": np.zeros((3, 2), np.float32),
            "texEV": np.zeros((2, 1), np.float32),
            "tl": (one.triangles[:, ::-1] + 1).astype(np.float64),  # clockwise, from 1
            "segbin": np.zeros((len(one.vertices), 4), np.uint8),
        },
    )
    return path


def write_bfm2017(path: Path, one: Person, *, scaled: bool = False) -> Path:
    import h5py

    mean, components, deviations = principal(one, 1.0)
    smile = np.zeros_like(mean)
    smile[0] = 0.5
    with h5py.File(path, "w") as file:
        for name, values in (("shape", mean - smile), ("expression", smile)):
            file[f"{name}/model/mean"] = values.astype(np.float32)
            file[f"{name}/model/pcaBasis"] = (components * (deviations if scaled else 1)).astype(np.float32)
            file[f"{name}/model/pcaVariance"] = (deviations**2).astype(np.float32)
            file[f"{name}/representer/cells"] = one.triangles.T.astype(np.uint32)
            file[f"{name}/representer/points"] = one.vertices.T.astype(np.float32)
        file["color/model/mean"] = np.tile([0.8, 0.6, 0.5], len(one.vertices)).astype(np.float32)
        file["version/majorVersion"], file["version/minorVersion"] = 0, 9
    return path


def write_lsfm(path: Path, one: Person, **changed: Any) -> Path:
    from scipy.io import savemat

    mean, components, deviations = principal(one, 1.0)
    savemat(
        path,
        {
            "mean": mean,
            "components": components,
            "eigenvalues": deviations**2,
            "cumulative_explained_variance": np.cumsum(deviations**2),
            "trilist": one.triangles.astype(np.int64),
            "n_training_samples": 8402,
            **changed,
        },
    )
    return path


def write_surrey(path: Path, one: Person, version: int = 3) -> Path:
    """Byte for byte what eos 1.5.0 writes of the same arrays (compared when this was written)."""
    mean, components, deviations = principal(one, 1.0)

    def matrix(array: np.ndarray) -> bytes:
        rows, columns = array.shape
        return struct.pack("<ii", rows, columns) + np.asfortranarray(array, np.float32).tobytes("F")

    shape = matrix(mean[:, None]) + matrix(components) + matrix((deviations**2)[:, None])
    shape += struct.pack("<Q", len(one.triangles)) + one.triangles.astype("<i4").tobytes()
    none = matrix(np.zeros((0, 1))) + matrix(np.zeros((0, 0))) + matrix(np.zeros((0, 1)))
    none += struct.pack("<Q", 0)
    rest = {1: b"", 2: b"\1", 3: b"\1\1", 4: b"\1\1"}[version]
    rest += struct.pack("<Q", 0) * (2 if version == 4 else 1)
    path.write_bytes(struct.pack("<I", version) + shape + none + rest)
    return path


def write_gnm(path: Path, one: Person, **changed: Any) -> Path:
    arrays = {
        "version": np.array("3.0"),
        "variant": np.array("head"),
        "template_vertex_positions": (one.vertices / 1000).astype(np.float32),
        "vertex_identity_basis": (one.modes / 1000).astype(np.float32),
        "expression_basis": np.zeros((2, *one.vertices.shape), np.float32),
        "expression_names": np.array(["left_eye_region_000", "lower_face_region_000"]),
        "triangles": one.triangles.astype(np.int32),
        **changed,
    }
    np.savez(path, **{key: value for key, value in arrays.items() if value is not None})
    return path


def chumpy_classes(*names: str) -> dict[str, types.ModuleType]:
    """Modules that stand in for chumpy's while a file is written."""
    modules: dict[str, types.ModuleType] = {}
    for name in names:
        module, _, kind = name.rpartition(".")
        modules.setdefault(module.split(".")[0], types.ModuleType(module.split(".")[0]))
        made = modules.setdefault(module, types.ModuleType(module))
        setattr(made, kind, type(kind, (), {"__module__": module}))
    return modules


def write_flame(
    path: Path, one: Person, *, extra: dict[str, Any] | None = None, selected: bool = False
) -> Path:
    from scipy.sparse import csc_matrix

    modules = chumpy_classes("chumpy.ch.Ch", "chumpy.reordering.Select")
    sys.modules.update(modules)
    try:
        shapes = np.zeros((*one.vertices.shape, 400))
        shapes[:, :, : len(one.modes)] = np.moveaxis(one.modes, 0, 2) / 1000
        shapes[:, :, 300] = 0.01  # an expression: not to be read
        array = modules["chumpy.ch"].Ch()
        array.__dict__ = {
            "_dirty_vars": set(), "_itr": None, "_make_dense": False, "_make_sparse": False,
            "_depends_on_deps": {}, "x": shapes, "_status": "new",
        }  # fmt: skip
        if selected:
            chosen = modules["chumpy.reordering"].Select()
            chosen.__dict__ = {
                "_dirty_vars": {"a", "idxs"}, "a": array, "idxs": np.arange(shapes.size),
                "preferred_shape": shapes.shape,
            }  # fmt: skip
            array = chosen
        model = {
            "v_template": one.vertices / 1000,
            "f": one.triangles.astype(np.uint32),
            "shapedirs": array,
            "J_regressor": csc_matrix(np.eye(5, len(one.vertices))),
            "kintree_table": np.array([[4294967295, 0], [0, 1]], np.int64),
            "bs_style": "lbs",
            **(extra or {}),
        }
        path.write_bytes(pickle.dumps(model, protocol=2))
    finally:
        for name in modules:
            del sys.modules[name]
    return path


def gltf_of(one: Person, names: list[str], shapes: np.ndarray) -> tuple[dict[str, Any], bytes]:
    """JSON and buffer of a head in metres under a node that is turned, scaled and moved; ``shapes (E, V, 3)``
    mm, the first of them sparse.
    """
    turn = np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])  # a quarter about z, undone by the node
    views: list[dict[str, int]] = []
    accessors: list[dict[str, Any]] = []
    blob = bytearray()

    def view(array: np.ndarray) -> int:
        while len(blob) % 4:
            blob.append(0)
        data = array.tobytes()
        views.append({"buffer": 0, "byteOffset": len(blob), "byteLength": len(data)})
        blob.extend(data)
        return len(views) - 1

    def accessor(array: np.ndarray, kind: str, component: int) -> int:
        record = {"bufferView": view(array), "componentType": component, "count": len(array), "type": kind}
        accessors.append(record)
        return len(accessors) - 1

    def metres(points: np.ndarray) -> np.ndarray:
        return (points @ turn / 500).astype("<f4")  # the node is scaled by a half

    position = accessor(metres(one.vertices), "VEC3", 5126)
    indices = accessor(one.triangles.astype("<u4").reshape(-1), "SCALAR", 5125)
    targets = []
    for row, shape in enumerate(shapes):
        if row:
            targets.append({"POSITION": accessor(metres(shape), "VEC3", 5126)})
            continue
        moved = np.flatnonzero(np.abs(shape).max(axis=1) > 0)
        sparse = {
            "count": len(moved),
            "indices": {"bufferView": view(moved.astype("<u4")), "componentType": 5125},
            "values": {"bufferView": view(metres(shape[moved]))},
        }
        accessors.append({"componentType": 5126, "count": len(shape), "type": "VEC3", "sparse": sparse})
        targets.append({"POSITION": len(accessors) - 1})
    half = float(np.sqrt(0.5))
    tree = {
        "asset": {"version": "2.0", "generator": "by hand", "copyright": "CC0"},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [
            {"children": [1], "translation": [1.0, 2.0, 3.0]},
            {"mesh": 0, "rotation": [0.0, 0.0, half, half], "scale": [0.5, 0.5, 0.5]},
        ],
        "meshes": [
            {
                "primitives": [
                    {"attributes": {"POSITION": position}, "indices": indices, "targets": targets}
                ],
                "extras": {"targetNames": names},
            }
        ],
        "accessors": accessors,
        "bufferViews": views,
        "buffers": [{"byteLength": len(blob)}],
    }
    return tree, bytes(blob)


def write_glb(path: Path, tree: dict[str, Any], blob: bytes) -> Path:
    text = json.dumps(tree).encode()
    text += b" " * (-len(text) % 4)
    blob += b"\0" * (-len(blob) % 4)
    chunks = (
        struct.pack("<II", len(text), 0x4E4F534A) + text + struct.pack("<II", len(blob), 0x004E4942) + blob
    )
    path.write_bytes(struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks)
    return path


def write_obj(path: Path, vertices: np.ndarray, triangles: np.ndarray) -> None:
    lines = [f"v {x:.6f} {y:.6f} {z:.6f}" for x, y, z in vertices]
    lines += [f"f {a} {b} {c}" for a, b, c in triangles + 1]
    path.write_text("\n".join(lines) + "\n")


def write_ply(path: Path, vertices: np.ndarray, triangles: np.ndarray, *, text: bool = False) -> None:
    kind = "ascii" if text else "binary_little_endian"
    head = (
        f"ply\nformat {kind} 1.0\ncomment by hand\nelement vertex {len(vertices)}\n"
        "property float x\nproperty float y\nproperty float z\nproperty uchar red\n"
        f"element face {len(triangles)}\nproperty list uchar int vertex_indices\nend_header\n"
    )
    if text:
        rows = [f"{x} {y} {z} 7" for x, y, z in vertices] + [f"3 {a} {b} {c}" for a, b, c in triangles]
        path.write_text(head + "\n".join(rows) + "\n")
        return
    points = np.zeros(len(vertices), [("p", "<f4", 3), ("red", "u1")])
    points["p"] = vertices
    faces = np.zeros(len(triangles), [("n", "u1"), ("corners", "<i4", 3)])
    faces["n"], faces["corners"] = 3, triangles
    path.write_bytes(head.encode() + points.tobytes() + faces.tobytes())
