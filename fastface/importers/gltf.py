"""glTF 2.0 (``.gltf`` and ``.glb``, Khronos Group) with morph targets that carry ARKit's names.

Read are the triangles of all meshes of the scene where their nodes put them, and the morph targets whose
names (``extras.targetNames``, as exporters write them) are ARKit's. Materials, textures, bones and
animations are passed over. Lengths are metres by the standard and anything in practice; the size of the face
tells. Files compressed by Draco or meshopt are refused.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import struct
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fastface.errors import BadModelFile
from fastface.importers.published import MAX_BYTES, Float64, Published, arkit_name, check, need, read_bytes
from fastface.morphable import ARKIT_NAMES, MAX_TRIANGLES, MAX_VERTICES

#: Fewer named shapes than these are no set of expressions.
LEAST_NAMED: Final = 5
_MAGIC: Final = b"glTF"
_JSON: Final = 0x4E4F534A
_BIN: Final = 0x004E4942
_MAX_JSON: Final = 64 << 20
_MAX_PARTS: Final = 10_000
_DEEPEST: Final = 64
_DTYPES: Final = {5120: "<i1", 5121: "<u1", 5122: "<i2", 5123: "<u2", 5125: "<u4", 5126: "<f4"}
_WIDTHS: Final = {"SCALAR": 1, "VEC3": 3}
_COMPRESSED: Final = ("KHR_draco_mesh_compression", "EXT_meshopt_compression", "MESHOPT_compression")


def read_gltf(path: str | os.PathLike[str]) -> Published:
    """Read a ``.glb``, or a ``.gltf`` and the buffers beside it. Raises ``BadModelFile``."""
    label = os.fspath(path)
    try:
        scene = _Scene(path)
        vertices, triangles, shapes = scene.gathered()
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise BadModelFile(
            f"{label}: wanted an undamaged glTF file ({type(error).__name__}: {error!s:.120})"
        ) from error
    except (RecursionError, MemoryError) as error:
        raise BadModelFile(f"{label}: nested too deeply or too large; refused") from error
    need(
        len(shapes) >= LEAST_NAMED,
        label,
        f"wanted morph targets with ARKit's names (jawOpen, mouthSmileLeft, …), got {len(shapes)}"
        + (f"; its targets are {', '.join(scene.other_names[:6])}" if scene.other_names else ""),
    )
    face = Published(
        name=f"gltf {Path(path).stem[:60]}",  # a bare name could be that of a head with tables of its own
        source=f"glTF file {Path(path).name[:200]}" + (f", by {scene.author}" if scene.author else ""),
        license=scene.license or "That of the file; it names none",
        vertices=vertices,
        triangles=triangles,
        identity=np.zeros((0, len(vertices), 3), np.float32),
        expressions={name: shapes[name] for name in ARKIT_NAMES if name in shapes},
    )
    check(face, label)
    return face


class _Scene:
    """One file: its JSON and what its buffers hold."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.label = os.fspath(path)
        self.folder = Path(path).resolve().parent
        data = read_bytes(path)
        text, self._binary = self._chunks(data) if data[:4] == _MAGIC else (data, None)
        need(len(text) <= _MAX_JSON, self.label, f"wanted at most {_MAX_JSON} bytes of JSON, got {len(text)}")
        try:
            tree = json.loads(text.decode("utf-8"))
        except (UnicodeDecodeError, json.JSONDecodeError) as error:
            raise BadModelFile(f"{self.label}: wanted glTF, its JSON is damaged: {error!s:.120}") from error
        need(isinstance(tree, dict), self.label, "wanted glTF, got other JSON")
        asset = tree.get("asset")
        need(
            isinstance(asset, dict) and str(asset.get("version", "")).startswith("2."),
            self.label,
            "wanted glTF 2",
        )
        refused = [name for name in tree.get("extensionsRequired", []) if name in _COMPRESSED]
        need(
            not refused, self.label, f"wanted an uncompressed file; it needs {refused[:1]}: export it without"
        )
        self.tree: dict[str, Any] = tree
        extras = asset.get("extras") if isinstance(asset.get("extras"), dict) else {}
        self.author = str(extras.get("author", ""))[:200]
        self.license = str(extras.get("license", asset.get("copyright", "")))[:1000]
        self.other_names: list[str] = []
        self._buffers: dict[int, bytes] = {}
        self._spent = 0

    def _chunks(self, data: bytes) -> tuple[bytes, bytes | None]:
        need(len(data) >= 20, self.label, "truncated: wanted a header of 12 bytes and a chunk")
        _, version, length = struct.unpack_from("<4sII", data)
        need(version == 2, self.label, f"wanted version 2, got {version}")
        need(length <= len(data), self.label, f"truncated: it promises {length} bytes, there are {len(data)}")
        found: dict[int, bytes] = {}
        at = 12
        while at + 8 <= length:
            size, kind = struct.unpack_from("<II", data, at)
            need(at + 8 + size <= length, self.label, "truncated: a chunk is longer than the file")
            found.setdefault(kind, data[at + 8 : at + 8 + size])
            at += 8 + size
        need(_JSON in found, self.label, "wanted a chunk of JSON, there is none")
        return found[_JSON], found.get(_BIN)

    # -- arrays ----------------------------------------------------------------------------------------------

    def _list(self, name: str) -> list[Any]:
        value = self.tree.get(name, [])
        need(isinstance(value, list) and len(value) <= _MAX_PARTS, self.label, f"wanted a list of {name}")
        return value  # type: ignore[no-any-return]

    def _item(self, name: str, index: Any) -> dict[str, Any]:
        items = self._list(name)
        need(
            type(index) is int and 0 <= index < len(items),
            self.label,
            f"wanted one of {len(items)} {name}, got {index!s:.20}",
        )
        item = items[index]
        need(isinstance(item, dict), self.label, f"wanted {name}[{index}] to be an object")
        return item  # type: ignore[no-any-return]

    def _whole(self, value: Any, what: str, most: int) -> int:
        need(
            type(value) is int and 0 <= value <= most,
            self.label,
            f"wanted {what} of 0 to {most}, got {value!s:.20}",
        )
        return int(value)

    def _buffer(self, index: int) -> bytes:
        if index not in self._buffers:
            buffer = self._item("buffers", index)
            uri = buffer.get("uri")
            if uri is None:
                need(
                    index == 0 and self._binary is not None,
                    self.label,
                    "wanted a buffer with a place to read from",
                )
                data = self._binary or b""
            else:
                data = self._fetched(uri)
            length = self._whole(buffer.get("byteLength"), "a buffer's length", MAX_BYTES)
            need(length <= len(data), self.label, f"truncated: a buffer of {length} bytes has {len(data)}")
            self._buffers[index] = data
        return self._buffers[index]

    def _fetched(self, uri: Any) -> bytes:
        need(isinstance(uri, str), self.label, "wanted a buffer's uri as text")
        if uri.startswith("data:"):
            head, comma, body = uri.partition(",")
            need(bool(comma) and head.endswith(";base64"), self.label, "wanted a data uri in base64")
            try:
                return base64.b64decode(body, validate=True)
            except (binascii.Error, ValueError) as error:
                raise BadModelFile(f"{self.label}: wanted a data uri in base64: {error}") from error
        # A file beside this one and nothing else: no way up, no other machine.
        name = Path(uri)
        plain = "%" not in uri and ":" not in uri and "\\" not in uri and "\0" not in uri
        need(
            plain and not name.is_absolute() and ".." not in name.parts,
            self.label,
            f"refused to read {uri!r:.80}",
        )
        place = (self.folder / name).resolve()
        need(place.is_relative_to(self.folder), self.label, f"refused to read {uri!r:.80}")
        return read_bytes(place)

    def _view(self, index: Any, offset: int, count: int, dtype: str, width: int) -> NDArray[Any]:
        """``count`` elements of ``width`` numbers from a buffer view."""
        view = self._item("bufferViews", index)
        need(
            "EXT_meshopt_compression" not in view.get("extensions", {}),
            self.label,
            "meshopt compression; refused",
        )
        data = self._buffer(self._whole(view.get("buffer"), "a buffer", _MAX_PARTS))
        start = self._whole(view.get("byteOffset", 0), "an offset", MAX_BYTES)
        length = self._whole(view.get("byteLength"), "a view's length", MAX_BYTES)
        size = np.dtype(dtype).itemsize * width
        stride = self._whole(view.get("byteStride", size), "a stride", 252) or size
        need(start + length <= len(data), self.label, "a buffer view reaches beyond its buffer")
        need(stride >= size, self.label, f"wanted a stride of at least {size}, got {stride}")
        need(
            count == 0 or offset + (count - 1) * stride + size <= length,
            self.label,
            "an accessor reaches beyond its view",
        )
        self._spend(count * size)
        flat = (
            np.frombuffer(data, np.uint8, length - offset, start + offset) if count else np.zeros(0, np.uint8)
        )
        rows = np.lib.stride_tricks.as_strided(flat, (count, size), (stride, 1), writeable=False)
        return np.ascontiguousarray(rows).view(dtype).reshape(count, width)

    def _spend(self, size: int) -> None:
        # Accessors may share bytes, so that a small file could ask for gigabytes.
        self._spent += size
        need(self._spent <= MAX_BYTES, self.label, f"asks for more than {MAX_BYTES} bytes; refused")

    def _accessor(self, index: Any, kind: str, most: int) -> NDArray[Any]:
        """(count, width) as stored; integers that stand for fractions are divided out."""
        accessor = self._item("accessors", index)
        need(
            accessor.get("type") == kind,
            self.label,
            f"wanted an accessor of {kind}, got {accessor.get('type')!s:.20}",
        )
        dtype = _DTYPES.get(accessor.get("componentType", 0))
        need(dtype is not None, self.label, f"unknown component type {accessor.get('componentType')!s:.20}")
        assert dtype is not None
        count, width = self._whole(accessor.get("count"), "a count", most), _WIDTHS[kind]
        if "bufferView" in accessor:
            offset = self._whole(accessor.get("byteOffset", 0), "an offset", MAX_BYTES)
            values = self._view(accessor["bufferView"], offset, count, dtype, width)
        else:
            self._spend(count * width * 8)
            values = np.zeros((count, width), dtype)
        if "sparse" in accessor:
            values = self._sparse(accessor["sparse"], values.copy())
        if accessor.get("normalized") is True and values.dtype.kind in "iu":
            values = np.maximum(values / np.iinfo(values.dtype).max, -1.0)
        return values

    def _sparse(self, sparse: dict[str, Any], values: NDArray[Any]) -> NDArray[Any]:
        count = self._whole(sparse["count"], "a count", len(values))
        where, what = sparse["indices"], sparse["values"]
        dtype = _DTYPES.get(where["componentType"], "<f4")
        need(dtype in ("<u1", "<u2", "<u4"), self.label, "wanted sparse indices that are not negative")
        index = self._view(
            where["bufferView"],
            self._whole(where.get("byteOffset", 0), "an offset", MAX_BYTES),
            count,
            dtype,
            1,
        )
        need(
            count == 0 or int(index.max()) < len(values),
            self.label,
            "a sparse index lies beyond its accessor",
        )
        offset = self._whole(what.get("byteOffset", 0), "an offset", MAX_BYTES)
        values[index[:, 0]] = self._view(what["bufferView"], offset, count, values.dtype.str, values.shape[1])
        return values

    # -- meshes ----------------------------------------------------------------------------------------------

    def gathered(self) -> tuple[Float64, NDArray[np.int32], dict[str, NDArray[np.float32]]]:
        """Vertices (V, 3), triangles (F, 3) and named shapes (V, 3) of everything in the scene."""
        parts: list[tuple[Float64, NDArray[np.int64], dict[str, Float64]]] = []
        for mesh, matrix in self._placed():
            for primitive in mesh["primitives"]:
                if primitive.get("mode", 4) == 4 and "POSITION" in primitive.get("attributes", {}):
                    parts.append(self._primitive(mesh, primitive, matrix))
                    need(len(parts) <= _MAX_PARTS, self.label, f"wanted at most {_MAX_PARTS} meshes")
                    need(
                        sum(len(part[0]) for part in parts) <= MAX_VERTICES,
                        self.label,
                        f"wanted at most {MAX_VERTICES} vertices",
                    )
        need(len(parts) > 0, self.label, "wanted a mesh of triangles, there is none")
        vertices = np.concatenate([part[0] for part in parts])
        starts = np.cumsum([0, *(len(part[0]) for part in parts)])
        triangles = np.concatenate([part[1] + start for part, start in zip(parts, starts, strict=False)])
        names = sorted({name for part in parts for name in part[2]})
        shapes = {name: np.zeros(vertices.shape, np.float32) for name in names}
        for part, start in zip(parts, starts, strict=False):
            for name, shape in part[2].items():
                shapes[name][start : start + len(shape)] = shape
        return vertices, triangles.astype(np.int32), shapes

    def _primitive(
        self, mesh: dict[str, Any], primitive: dict[str, Any], matrix: Float64
    ) -> tuple[Float64, NDArray[np.int64], dict[str, Float64]]:
        need(_COMPRESSED[0] not in primitive.get("extensions", {}), self.label, "Draco compression; refused")
        own = self._accessor(primitive["attributes"]["POSITION"], "VEC3", MAX_VERTICES).astype(np.float64)
        need(bool((np.abs(matrix) < 1e12).all()), self.label, "wanted nodes of finite size")  # false for NaN
        vertices = own @ matrix[:3, :3].T + matrix[:3, 3]
        if "indices" in primitive:
            flat = self._accessor(primitive["indices"], "SCALAR", 3 * MAX_TRIANGLES)[:, 0]
            need(flat.dtype.kind == "u", self.label, "wanted indices that are not negative")
            corners = flat.astype(np.int64)
        else:
            corners = np.arange(len(vertices))
        corners = corners[: len(corners) // 3 * 3].reshape(-1, 3)
        need(
            corners.size == 0 or int(corners.max()) < len(vertices),
            self.label,
            "a triangle's corner is not there",
        )
        shapes: dict[str, Float64] = {}
        targets = primitive.get("targets", [])
        names = self._names(mesh, primitive)
        for name, target in zip(names, targets, strict=False):
            known = arkit_name(name)
            if known is None:
                self.other_names.append(name[:40])
            elif "POSITION" in target:
                shape = self._accessor(target["POSITION"], "VEC3", MAX_VERTICES).astype(np.float64)
                need(
                    shape.shape == vertices.shape, self.label, f"wanted {known} over {len(vertices)} vertices"
                )
                shapes[known] = shape @ matrix[:3, :3].T
        return vertices, corners, shapes

    def _names(self, mesh: dict[str, Any], primitive: dict[str, Any]) -> list[str]:
        for owner in (mesh, primitive):
            extras = owner.get("extras")
            names = extras.get("targetNames") if isinstance(extras, dict) else None
            if isinstance(names, list) and all(isinstance(name, str) for name in names):
                return names
        return []

    def _placed(self) -> list[tuple[dict[str, Any], Float64]]:
        """Meshes and where the scene's nodes put them; without a scene, each once where it is."""
        scenes = self._list("scenes")
        if not scenes:
            return [(self._item("meshes", index), np.eye(4)) for index in range(len(self._list("meshes")))]
        placed: list[tuple[dict[str, Any], Float64]] = []
        walk = [
            (node, np.eye(4), 0) for node in self._item("scenes", self.tree.get("scene", 0)).get("nodes", [])
        ]
        steps = 0
        while walk:
            index, above, depth = walk.pop()
            node = self._item("nodes", index)
            steps += 1
            need(depth < _DEEPEST and steps <= _MAX_PARTS, self.label, "wanted a tree of nodes, got a knot")
            matrix = above @ _matrix(node)
            if "mesh" in node:
                # Bones place a skinned mesh, not its node; at rest it lies as it is stored.
                placed.append((self._item("meshes", node["mesh"]), np.eye(4) if "skin" in node else matrix))
            walk += [(child, matrix, depth + 1) for child in node.get("children", [])]
        return placed


def _matrix(node: dict[str, Any]) -> Float64:
    """A node's own transformation (4, 4)."""
    if "matrix" in node:
        return np.array(node["matrix"], np.float64).reshape(4, 4).T  # stored column by column
    matrix = np.eye(4)
    x, y, z, w = np.array(node.get("rotation", (0, 0, 0, 1)), np.float64)
    turn = np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )
    matrix[:3, :3] = turn * np.array(node.get("scale", (1, 1, 1)), np.float64).reshape(3)
    matrix[:3, 3] = np.array(node.get("translation", (0, 0, 0)), np.float64).reshape(3)
    return matrix
