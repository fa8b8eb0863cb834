"""The names that a checkpoint may ask for, and the inert value that each stands for.

Nothing here imports what the name means to Python: a tensor is a ``Tensor`` below, an NVIDIA network a
``Record`` of its attributes, whatever source text its pickle carries.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fastface.checkpoints.unpickling import Budget, Global, Names, Record
from fastface.errors import BadModelFile

MAX_DIMENSIONS: Final = 8
#: torch's storage classes by the numpy type of their elements. bfloat16 has none: its bits are widened.
STORAGES: Final[dict[str, str]] = {
    "FloatStorage": "<f4",
    "DoubleStorage": "<f8",
    "HalfStorage": "<f2",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "<i1",
    "ByteStorage": "<u1",
    "BoolStorage": "|b1",
}
_DTYPES: Final = (
    "float32",
    "float64",
    "float16",
    "bfloat16",
    "int64",
    "int32",
    "int16",
    "int8",
    "uint8",
    "bool",
)


def element_size(dtype: str) -> int:
    """Bytes of one element of a storage."""
    return 2 if dtype == "bfloat16" else np.dtype(dtype).itemsize


@dataclass(slots=True)
class Storage:
    """A torch storage: flat elements that ``read`` gives when they are wanted. ``size`` in elements."""

    dtype: str
    size: int
    read: Callable[[], bytes | memoryview]

    def numpy(self) -> NDArray[Any]:
        """The elements, flat; bfloat16 as float32."""
        data = self.read()
        if self.dtype == "bfloat16":
            bits = np.frombuffer(data, "<u2", self.size).astype("<u4") << 16
            return bits.view("<f4")
        return np.frombuffer(data, self.dtype, self.size)


@dataclass(slots=True)
class Tensor:
    """A view of a storage, as ``torch._utils._rebuild_tensor_v2`` describes it; checked to lie inside."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def numpy(self) -> NDArray[Any]:
        """The values, C-contiguous."""
        flat = self.storage.numpy()
        bytes_per = tuple(stride * flat.itemsize for stride in self.strides)
        view = np.lib.stride_tricks.as_strided(flat[self.offset :], self.shape, bytes_per, writeable=False)
        return np.ascontiguousarray(view).reshape(self.shape)  # ascontiguousarray gives a scalar an axis


@dataclass(slots=True)
class NumpyType:
    """A numpy dtype of plain numbers."""

    code: str
    order: str = "<"

    def set_state(self, state: object, budget: Budget) -> None:
        """(version, byte order, no sub-array, no names, no fields, …)."""
        if not isinstance(state, tuple) or len(state) < 5 or state[1] not in ("<", ">", "|", "="):
            raise BadModelFile(f"{budget.source}: a numpy type with a state that it does not take")
        if any(part is not None for part in state[2:5]):
            raise BadModelFile(f"{budget.source}: a structured numpy type; refused")
        self.order = "<" if state[1] == "=" else state[1]

    @property
    def dtype(self) -> np.dtype[Any]:
        """As numpy has it."""
        return np.dtype(self.order + self.code)


@dataclass(slots=True)
class Array:
    """A numpy array: empty when made, filled by its state."""

    value: NDArray[Any] = field(default_factory=lambda: np.zeros(0, np.float32))

    def set_state(self, state: object, budget: Budget) -> None:
        """(version, shape, type, whether in Fortran's order, bytes)."""
        if not isinstance(state, tuple) or len(state) != 5 or not isinstance(state[2], NumpyType):
            raise BadModelFile(f"{budget.source}: a numpy array with a state that it does not take")
        _, shape, kind, fortran, raw = state
        if isinstance(raw, str):
            raw = raw.encode("latin-1", "replace")
        sizes = _sizes(shape)
        dtype = kind.dtype
        count = _product(sizes)
        if not isinstance(raw, bytes) or count * dtype.itemsize != len(raw):
            raise BadModelFile(f"{budget.source}: a numpy array of shape {sizes} whose bytes do not fill it")
        budget.spend(len(raw))
        self.value = np.frombuffer(raw, dtype).reshape(sizes, order="F" if fortran is True else "C")

    def numpy(self) -> NDArray[Any]:
        """The values, C-contiguous and in the machine's byte order."""
        native = self.value.astype(self.value.dtype.newbyteorder("="), copy=False)
        return np.ascontiguousarray(native).reshape(native.shape)


def _sizes(shape: object) -> tuple[int, ...]:
    if not isinstance(shape, tuple) or len(shape) > MAX_DIMENSIONS:
        raise ValueError(f"a shape of at most {MAX_DIMENSIONS} sizes is wanted")
    if not all(type(size) is int and 0 <= size < 1 << 40 for size in shape):
        raise ValueError("sizes must be whole and not negative")
    return shape


def _product(sizes: tuple[int, ...]) -> int:
    product = 1
    for size in sizes:
        product *= size
    return product


# -- what calls build ----------------------------------------------------------------------------------------


def _tensor(arguments: tuple[Any, ...], budget: Budget) -> Tensor:
    storage, offset, shape, strides = arguments[:4]
    if not isinstance(storage, Storage):
        raise TypeError("a tensor is a view of a storage")
    sizes, steps = _sizes(shape), _sizes(strides)
    if type(offset) is not int or offset < 0 or len(sizes) != len(steps):
        raise ValueError("an offset that is not negative and as many strides as sizes are wanted")
    count = _product(sizes)
    last = offset + sum((size - 1) * step for size, step in zip(sizes, steps, strict=True))
    if count and (last >= storage.size or count > storage.size):
        raise ValueError(f"a tensor of shape {sizes} reaches beyond its storage of {storage.size} elements")
    budget.spend(count * element_size(storage.dtype))
    return Tensor(storage, offset if count else 0, sizes, steps)


def _parameter(arguments: tuple[Any, ...], _: Budget) -> Tensor:
    if not isinstance(arguments[0], Tensor):
        raise TypeError("a parameter is a tensor")
    return arguments[0]


def _numpy_type(arguments: tuple[Any, ...], _: Budget) -> NumpyType:
    code = arguments[0]
    if code not in ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1"):
        raise ValueError(f"numpy type {code!r:.20} is not one of plain numbers")
    return NumpyType(code)


def _numpy_scalar(arguments: tuple[Any, ...], _: Budget) -> int | float | bool:
    kind, raw = arguments
    if isinstance(raw, str):
        raw = raw.encode("latin-1")
    if not isinstance(kind, NumpyType) or not isinstance(raw, bytes) or len(raw) != kind.dtype.itemsize:
        raise TypeError("a numpy scalar is a type of plain numbers and its bytes")
    value: int | float | bool = np.frombuffer(raw, kind.dtype)[0].item()
    return value


def _encoded(arguments: tuple[Any, ...], budget: Budget) -> bytes:
    # How pickles of protocol 2 spell bytes.
    text, encoding = arguments
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise TypeError("only text in latin-1 is encoded")
    budget.spend(len(text))
    return text.encode("latin-1")


def _no_bytes(arguments: tuple[Any, ...], _: Budget) -> bytes:
    if arguments:
        raise TypeError("only empty bytes are made this way")  # protocol 2's spelling of b""
    return b""


def _scalar_set(arguments: tuple[Any, ...], budget: Budget) -> set[Any]:
    (values,) = arguments or ([],)
    if not isinstance(values, (list, tuple)) or not all(
        isinstance(v, (str, int, float, bytes)) for v in values
    ):
        raise TypeError("a set of names or numbers is wanted")
    budget.spend(8 * len(values))
    return set(values)


def _names(arguments: tuple[Any, ...], budget: Budget) -> Names:
    made = Names()
    pairs = arguments[0] if arguments else ()
    if not isinstance(pairs, (list, tuple)):
        raise TypeError("a dictionary of pairs is wanted")
    budget.spend(8 * len(pairs))
    for pair in pairs:
        key, value = pair
        if not isinstance(key, (str, int, float, bytes, type(None))):
            raise TypeError("a dictionary's key must be a name or a number")
        made[key] = value
    return made


def _default_dict(_: tuple[Any, ...], __: Budget) -> Names:
    return Names()


def _size_tuple(arguments: tuple[Any, ...], _: Budget) -> tuple[int, ...]:
    return _sizes(tuple(arguments[0]) if isinstance(arguments[0], (list, tuple)) else arguments)


def _device(arguments: tuple[Any, ...], _: Budget) -> str:
    if not isinstance(arguments[0], str):
        raise TypeError("a device is a name")
    return arguments[0]


def _empty_array(_: tuple[Any, ...], __: Budget) -> Array:
    return Array()


def record(kind: str) -> Callable[[tuple[Any, ...], Budget], Record]:
    """A class of which only the attributes are kept."""

    def build(arguments: tuple[Any, ...], _: Budget) -> Record:
        if arguments:
            raise TypeError(f"{kind} is made without arguments")
        return Record(kind)

    return build


def _persistent(arguments: tuple[Any, ...], budget: Budget) -> Record:
    """NVIDIA's ``persistent_class``: {type, version, module_src, class_name, state}. The source text in it is
    what their loader executes; here it is dropped unread."""
    (meta,) = arguments
    if not isinstance(meta, dict) or not isinstance(meta.get("class_name"), str):
        raise TypeError("a persistent object names its class")
    made = Record(meta["class_name"])
    made.set_state(meta.get("state"), budget)
    return made


def _entries() -> Iterator[Global]:
    yield from (Global(f"torch.{name}") for name in (*STORAGES, *_DTYPES))
    yield from (Global(f"builtins.{name}") for name in ("dict", "list", "int", "float"))
    yield Global("torch._utils._rebuild_tensor_v2", _tensor)
    yield Global("torch._utils._rebuild_tensor", _tensor)
    yield Global("torch._utils._rebuild_parameter", _parameter)
    yield Global("torch.nn.parameter.Parameter", _parameter)
    yield Global("torch.Size", _size_tuple)
    yield Global("torch.device", _device)
    for module in ("builtins", "__builtin__"):
        yield Global(f"{module}.set", _scalar_set)
        yield Global(f"{module}.bytes", _no_bytes)
    yield Global("_codecs.encode", _encoded)
    yield Global("collections.OrderedDict", _names)
    yield Global("collections.defaultdict", _default_dict)
    yield Global("argparse.Namespace", record("argparse.Namespace"))
    for module in ("numpy.core.multiarray", "numpy._core.multiarray"):
        yield Global(f"{module}._reconstruct", _empty_array)
        yield Global(f"{module}.scalar", _numpy_scalar)
    yield Global("numpy.ndarray")
    yield Global("numpy.dtype", _numpy_type)
    for module in ("dnnlib", "dnnlib.util"):
        yield Global(f"{module}.EasyDict", _names)
    yield Global("dnnlib.tflib.network.Network", record("dnnlib.tflib.network.Network"))
    yield Global("torch_utils.persistence._reconstruct_persistent_obj", _persistent)


ALLOWED: Final[dict[str, Global]] = {entry.name: entry for entry in _entries()}
