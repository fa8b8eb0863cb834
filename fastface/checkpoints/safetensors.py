"""Reading and writing ``.safetensors`` with numpy alone.

Format: 8 bytes with the header's length, the header as JSON {name: {dtype, shape, data_offsets}}, the data.
Nothing in it can be executed; what is checked is that the offsets describe the data without gap or overlap.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fastface.atomic import whole_file
from fastface.checkpoints.torch_files import read_bytes
from fastface.checkpoints.unpickling import shown
from fastface.errors import BadArgument, BadModelFile

MAX_HEADER_BYTES: Final = 100_000_000
_TYPES: Final = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "<i1",
    "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "<u1", "BOOL": "|b1",
}  # fmt: skip
_NAMES: Final = {np.dtype(code): name for name, code in _TYPES.items()}


def write_safetensors(
    path: str | Path, tensors: Mapping[str, NDArray[Any]], metadata: Mapping[str, str]
) -> None:
    """Write ``tensors`` and text ``metadata``, whole or not at all.

    Raises ``BadArgument`` for a type that the format has not, ``WriteFailed``.
    """
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    position = 0
    # Wide types first, as the format's authors do, so that every tensor is aligned to its elements.
    order = sorted(tensors, key=lambda name: (-tensors[name].dtype.itemsize, name))
    for name in order:
        tensor = tensors[name]
        kind = _NAMES.get(tensor.dtype.newbyteorder("<") if tensor.dtype.itemsize > 1 else tensor.dtype)
        if kind is None:
            raise BadArgument(f"{name}: a tensor of {tensor.dtype} cannot be written")
        end = position + tensor.nbytes
        header[name] = {"dtype": kind, "shape": list(tensor.shape), "data_offsets": [position, end]}
        position = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with whole_file(path) as temporary, temporary.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name in order:
            little = tensors[name].astype(tensors[name].dtype.newbyteorder("<"), copy=False)
            file.write(np.ascontiguousarray(little).tobytes())


def is_safetensors(start: bytes) -> bool:
    """Whether a file with these first bytes claims to be one."""
    return len(start) > 8 and start[8:9] == b"{" and struct.unpack("<Q", start[:8])[0] <= MAX_HEADER_BYTES


def read_safetensors(path: str | Path) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    """Tensors and metadata of a file. bfloat16 comes as float32. Raises ``BadModelFile``."""
    return parsed(read_bytes(path), str(path))


def parsed(data: bytes, source: str) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    """The same from bytes; ``source`` names them in errors."""
    if not is_safetensors(data):
        raise BadModelFile(f"{source}: not a safetensors file")
    (length,) = struct.unpack("<Q", data[:8])
    if 8 + length > len(data):
        raise BadModelFile(f"{source}: truncated: the header wants {length} bytes")
    try:
        header = json.loads(data[8 : 8 + length])
    except (ValueError, RecursionError) as error:
        raise BadModelFile(f"{source}: its header is no JSON") from error
    if not isinstance(header, dict):
        raise BadModelFile(f"{source}: its header is no table of tensors")
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise BadModelFile(f"{source}: its metadata is no table of texts")
    body = memoryview(data)[8 + length :]
    tensors = {name: _tensor(name, entry, body, source) for name, entry in header.items()}
    spans = sorted(entry["data_offsets"] for entry in header.values())
    if [0, *(end for _, end in spans)] != [*(start for start, _ in spans), len(body)]:
        raise BadModelFile(f"{source}: truncated, or its tensors overlap or leave gaps")
    return tensors, metadata


def _tensor(name: str, entry: Any, body: memoryview, source: str) -> NDArray[Any]:
    wrong = BadModelFile(f"{source}: tensor {shown(name)} is described wrongly")
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise wrong
    kind, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    numbers = [*shape, *offsets] if isinstance(shape, list) and isinstance(offsets, list) else [None]
    if not all(type(number) is int and 0 <= number < 1 << 48 for number in numbers) or len(offsets) != 2:
        raise wrong
    if kind not in (*_TYPES, "BF16"):
        raise BadModelFile(f"{source}: tensor {shown(name)} is of type {shown(kind)}, which is not read")
    start, end = offsets
    dtype = np.dtype(_TYPES.get(kind, "<u2"))
    count = 1
    for size in shape:
        count *= size
    if len(shape) > 8 or end - start != count * dtype.itemsize or end > len(body):
        raise BadModelFile(f"{source}: truncated: tensor {shown(name)} of shape {shape} is not filled")
    values = np.frombuffer(body[start:end], dtype).reshape(shape)
    if kind == "BF16":
        return (values.astype("<u4") << 16).view("<f4")
    return values
