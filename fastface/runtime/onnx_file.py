"""What an ONNX file says of itself, read before any runtime touches it, without the ``onnx`` package.

A model may come from anywhere. Runtimes follow what it says to files elsewhere (external data), allocate what
it declares, and report damage in terms of their own insides; so its outline is walked first and refused with
a clear error. Only the fields that matter are read, by their numbers in ``onnx.proto``; weights are stepped
over, not read.
"""

from __future__ import annotations

import json
import math
import mmap
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastface.errors import BadModelFile

#: Protocol buffers end at 2 GiB; so does an ONNX file.
LARGEST_BYTES: Final = 1 << 31
_MOST_ELEMENTS: Final = 1 << 31
_MOST_NODES: Final = 200_000
_DEEPEST: Final = 16
#: TensorProto.DataType → numpy. bfloat16 (16), the float8 and 4-bit types have no numpy counterpart.
_DTYPES: Final[dict[int, str]] = {
    1: "float32",
    2: "uint8",
    3: "int8",
    4: "uint16",
    5: "int16",
    6: "int32",
    7: "int64",
    9: "bool",
    10: "float16",
    11: "float64",
    12: "uint32",
    13: "uint64",
}
#: Operators whose output is as large as a constant input says: (input that holds a shape or repeats).
_SIZED_BY_INPUT: Final = {"ConstantOfShape": 0, "Expand": 1, "Tile": 1}
_PLAIN_DOMAINS: Final = ("", "ai.onnx", "ai.onnx.ml", "com.microsoft")

_Span = tuple[int, int]


class TensorSpec(NamedTuple):
    """A graph's input or output. A dimension that may vary is its name, such as "B", or ""."""

    shape: tuple[int | str, ...]
    dtype: np.dtype[Any]

    def __str__(self) -> str:
        return f"({', '.join(str(d) if d != '' else '?' for d in self.shape)}) {self.dtype}"


@dataclass
class OnnxFile:
    """The outline of a model. ``metadata`` is the JSON object of the property ``fastface``, {} without one.

    ``inputs`` leaves out what the file gives a value for, ``defaults`` names those. ``domains`` are the
    operator domains beyond the standard ones, each with one operator of it.
    """

    path: Path
    inputs: dict[str, TensorSpec] = field(default_factory=dict)
    defaults: dict[str, TensorSpec] = field(default_factory=dict)
    outputs: dict[str, TensorSpec] = field(default_factory=dict)
    metadata: dict[str, Any] = field(default_factory=dict)
    domains: dict[str, str] = field(default_factory=dict)
    external: list[Path] = field(default_factory=list)
    nodes: int = 0


def scan(path: str | Path) -> OnnxFile:
    """Walk a model file. Raises ``BadModelFile`` when it is no ONNX model, damaged, or absurd."""
    path = Path(path)
    try:
        if not path.is_file():
            raise BadModelFile(f"{path}: {'not a file' if path.exists() else 'no such file'}")
        size = path.stat().st_size
        if not 16 <= size <= LARGEST_BYTES:
            raise BadModelFile(f"{path}: an ONNX file has 16 bytes to 2 GiB, this one {size:,}")
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _Walk(path, data).model()
    except (OSError, ValueError) as error:
        raise BadModelFile(f"{path}: cannot be read ({error})") from None


def _fields(data: mmap.mmap, at: int, end: int) -> Iterator[tuple[int, int | _Span]]:
    """Field numbers of a message with their values: an integer, or where a length-delimited value lies."""
    while at < end:
        key, at = _varint(data, at, end)
        number, wire = key >> 3, key & 7
        if wire == 2:
            length, at = _varint(data, at, end)
            if length > end - at:
                raise _Damaged(f"a field of {length:,} bytes at byte {at:,}, {end - at:,} are left")
            yield number, (at, at + length)
            at += length
        elif wire == 0:
            value, at = _varint(data, at, end)
            yield number, value
        elif wire in (1, 5):
            at += 8 if wire == 1 else 4
            if at > end:
                raise _Damaged("cut short")
        else:
            raise _Damaged(f"wire type {wire} at byte {at:,}")


def _varint(data: mmap.mmap, at: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while at < end and shift < 70:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7
    raise _Damaged("cut short" if at >= end else f"a number without end at byte {at:,}")


def _signed(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value


class _Damaged(ValueError):
    """Not a protocol buffer of this kind."""


class _Walk:
    """One pass over one file."""

    def __init__(self, path: Path, data: mmap.mmap) -> None:
        self.data = data
        self.found = OnnxFile(path)
        self.small: dict[str, NDArray[np.int64]] = {}
        self.local: set[str] = set()

    def model(self) -> OnnxFile:
        graphs, opsets, functions, properties = [], 0, [], {}
        try:
            for number, value in _fields(self.data, 0, len(self.data)):
                if number in (7, 8, 14, 20, 25) and not isinstance(value, tuple):
                    raise _Damaged(f"field {number} is no message")
                if number == 7 and isinstance(value, tuple):
                    graphs.append(value)
                elif number == 8:
                    opsets += 1
                elif number == 14 and isinstance(value, tuple):
                    key, text = self.pair(value)
                    properties[key] = text
                elif number == 25 and isinstance(value, tuple):
                    functions.append(value)
            if len(graphs) != 1 or not opsets:
                raise _Damaged("no graph in it" if not graphs else "no operator set, or several graphs")
            for span in functions:
                self.function(span)
            self.graph(graphs[0], 0)
        except _Damaged as error:
            raise BadModelFile(f"{self.found.path}: not an ONNX model, or damaged ({error})") from None
        if not self.found.nodes or not self.found.outputs:
            raise BadModelFile(f"{self.found.path}: not an ONNX model: a graph without operators or outputs")
        self.found.domains = {d: op for d, op in self.found.domains.items() if d not in self.local}
        self.found.metadata = self.ours(properties.get("fastface", ""))
        return self.found

    def ours(self, text: str) -> dict[str, Any]:
        try:
            record = json.loads(text) if text else {}
        except (ValueError, RecursionError):
            record = None
        if not isinstance(record, dict):
            raise BadModelFile(f"{self.found.path}: its metadata 'fastface' is no JSON object: {text!r:.60}")
        return record

    def text(self, value: int | _Span) -> str:
        if not isinstance(value, tuple) or value[1] - value[0] > 1 << 20:
            raise _Damaged("a name is no text, or longer than a megabyte")
        try:
            return self.data[value[0] : value[1]].decode()
        except UnicodeDecodeError:
            raise _Damaged("a name is not UTF-8") from None

    def pair(self, span: _Span) -> tuple[str, str]:
        parts = {number: self.text(value) for number, value in _fields(self.data, *span) if number in (1, 2)}
        return parts.get(1, ""), parts.get(2, "")

    def function(self, span: _Span) -> None:
        """A function of the model's own: its operators are checked, its domain is then known."""
        for number, value in _fields(self.data, *span):
            if number == 7 and isinstance(value, tuple):
                self.node(value, 1)
            elif number == 10:
                self.local.add(self.text(value))

    def graph(self, span: _Span, depth: int) -> None:
        if depth > _DEEPEST:
            raise _Damaged(f"graphs nested deeper than {_DEEPEST}")
        inputs: dict[str, TensorSpec] = {}
        given: set[str] = set()
        nodes: list[_Span] = []
        for number, value in _fields(self.data, *span):
            if not isinstance(value, tuple):
                continue
            if number == 1:
                nodes.append(value)
            elif number == 5:
                given.add(self.tensor(value))
            elif number == 15:
                self.sparse(value)
            elif number == 11 and depth == 0:
                name, spec = self.value_info(value)
                inputs[name] = spec
            elif number == 12 and depth == 0:
                name, spec = self.value_info(value)
                self.found.outputs[name] = spec
        self.found.inputs.update({name: spec for name, spec in inputs.items() if name not in given})
        self.found.defaults.update({name: spec for name, spec in inputs.items() if name in given})
        for value in nodes:
            self.node(value, depth)

    def node(self, span: _Span, depth: int) -> None:
        self.found.nodes += 1
        if self.found.nodes > _MOST_NODES:
            raise _Damaged(f"more than {_MOST_NODES:,} operators")
        inputs, outputs, operator, domain = [], [], "", ""
        for number, value in _fields(self.data, *span):
            if number == 1:
                inputs.append(self.text(value))
            elif number == 2:
                outputs.append(self.text(value))
            elif number == 4:
                operator = self.text(value)
            elif number == 7:
                domain = self.text(value)
            elif number == 5 and isinstance(value, tuple):
                self.attribute(value, depth, outputs[0] if outputs and operator == "Constant" else "")
        if not operator:
            raise _Damaged("an operator without a name")
        if domain not in _PLAIN_DOMAINS:
            self.found.domains.setdefault(domain, operator)
        at = _SIZED_BY_INPUT.get(operator)
        if at is not None and at < len(inputs) and inputs[at] in self.small:
            self.check_count(self.small[inputs[at]].tolist(), f"{operator} of it")

    def attribute(self, span: _Span, depth: int, constant: str) -> None:
        for number, value in _fields(self.data, *span):
            if not isinstance(value, tuple):
                continue
            if number in (5, 10):
                self.tensor(value, constant)
            elif number in (6, 11):
                self.graph(value, depth + 1)
            elif number in (22, 23):
                self.sparse(value)

    def sparse(self, span: _Span) -> None:
        for number, value in _fields(self.data, *span):
            if number in (1, 2) and isinstance(value, tuple):
                self.tensor(value)

    def tensor(self, span: _Span, constant: str = "") -> str:
        """Check one weight tensor; return its name."""
        dims: list[int] = []
        name, dtype, raw, outside, external = constant, 0, None, False, {}
        values: list[int] = []
        for number, value in _fields(self.data, *span):
            if number == 1:
                dims += self.integers(value)
            elif number == 2 and isinstance(value, int):
                dtype = value
            elif number == 8:
                name = constant or self.text(value)
            elif number == 9 and isinstance(value, tuple):
                raw = value
            elif number == 7:
                values += self.integers(value) if self.short(value) else []
            elif number == 13 and isinstance(value, tuple):
                key, text = self.pair(value)
                external[key] = text
            elif number == 14:
                outside = value == 1
        count = self.check_count(dims, f"the tensor {name!r:.60}")
        if outside or external:
            self.external(name, external, count, dtype)
            return name
        held = span[1] - span[0]
        width = np.dtype(_DTYPES[dtype]).itemsize if dtype in _DTYPES else 0
        if raw is not None and width and count * width != raw[1] - raw[0]:
            raise _Damaged(
                f"the tensor {name!r:.60} declares {count:,} values, its data are {raw[1] - raw[0]:,} bytes"
            )
        if count > 2 * held:  # the narrowest values are half a byte
            raise _Damaged(f"the tensor {name!r:.60} declares {count:,} values and holds {held:,} bytes")
        if dtype == 7 and count <= 16:
            stored = values if raw is None else np.frombuffer(self.data[raw[0] : raw[1]], "<i8").tolist()
            self.small[name] = np.array(stored, np.int64)
        return name

    def short(self, value: int | _Span) -> bool:
        return isinstance(value, int) or value[1] - value[0] <= 256

    def integers(self, value: int | _Span) -> list[int]:
        """A repeated integer, one by one or packed."""
        if isinstance(value, int):
            return [_signed(value)]
        at, end = value
        if end - at > 4096:
            raise _Damaged("a tensor of more than 400 dimensions")
        found = []
        while at < end:
            number, at = _varint(self.data, at, end)
            found.append(_signed(number))
        return found

    def check_count(self, dims: list[int], what: str) -> int:
        if any(dim < 0 for dim in dims):
            raise _Damaged(f"{what} has a negative dimension, {dims}")
        count = math.prod(dims)
        if count > _MOST_ELEMENTS:
            raise _Damaged(f"{what} would have {count:,} values")
        return count

    def external(self, name: str, entry: dict[str, str], count: int, dtype: int) -> None:
        """Weights in another file: only in the model's own folder, and only as long as that file is."""
        path = self.found.path
        location = entry.get("location", "")
        folder = path.parent.resolve()
        target = (folder / location).resolve()
        if (
            not location
            or "\0" in location
            or Path(location).is_absolute()
            or not target.is_relative_to(folder)
        ):
            raise BadModelFile(
                f"{path}: its tensor {name!r:.60} lies in {location!r:.80}, outside its folder: refused"
            )
        if not target.is_file():
            raise BadModelFile(f"{path}: its weights are in {location!r:.80}, which is not beside it")
        try:
            offset, length = int(entry.get("offset") or 0), int(entry.get("length") or 0)
        except ValueError:
            raise _Damaged(f"the tensor {name!r:.60} has no proper place in {location!r:.80}") from None
        width = np.dtype(_DTYPES[dtype]).itemsize if dtype in _DTYPES else 0
        needed = offset + max(length, count * width)
        if (
            offset < 0
            or length < 0
            or needed > target.stat().st_size
            or (length and width and length != count * width)
        ):
            raise _Damaged(f"the tensor {name!r:.60} does not fit the file {location!r:.80}")
        if target not in self.found.external:
            self.found.external.append(target)

    def value_info(self, span: _Span) -> tuple[str, TensorSpec]:
        """ValueInfoProto: name, type (tensor_type: elem_type, shape)."""
        name, dtype = "", np.dtype("V")
        shape: list[int | str] = []
        for number, value in _fields(self.data, *span):
            if number == 1:
                name = self.text(value)
            elif number == 2 and isinstance(value, tuple):
                for kind, tensor in _fields(self.data, *value):
                    if kind == 1 and isinstance(tensor, tuple):
                        dtype, shape = self.tensor_type(tensor)
        return name, TensorSpec(tuple(shape), dtype)

    def tensor_type(self, span: _Span) -> tuple[np.dtype[Any], list[int | str]]:
        dtype: np.dtype[Any] = np.dtype("V")
        shape: list[int | str] = []
        for number, value in _fields(self.data, *span):
            if number == 1 and isinstance(value, int):
                dtype = np.dtype(_DTYPES.get(value, "V"))
            elif number == 2 and isinstance(value, tuple):
                shape = [self.dimension(dim) for n, dim in _fields(self.data, *value) if n == 1]
        self.check_count([dim for dim in shape if isinstance(dim, int)], "an input or output")
        return dtype, shape

    def dimension(self, span: int | _Span) -> int | str:
        size: int | str = ""
        if isinstance(span, tuple):
            for number, value in _fields(self.data, *span):
                if number == 1 and isinstance(value, int):
                    size = _signed(value)
                elif number == 2:
                    size = self.text(value)
        return size
