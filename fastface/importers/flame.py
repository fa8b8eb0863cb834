"""FLAME (Li et al., "Learning a model of facial shape and expression from 4D scans", SIGGRAPH Asia 2017), as
its authors hand it out: a pickle of Python 2 whose arrays are numpy's and chumpy's.

A pickle is a program. This one is read by the machine that reads checkpoints
(``fastface.checkpoints.unpickling``): names are looked up in a table of inert values and nothing is imported
or run; of a chumpy array only the numpy array within is taken. Read are ``v_template (V, 3)``, ``f (F, 3)``
and ``shapedirs (V, 3, 300 + 100)`` per standard deviation. The last 100 are expressions: principal components
without names, which are not read.
"""

from __future__ import annotations

import os
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fastface.checkpoints.allowed import ALLOWED, Array, record
from fastface.checkpoints.unpickling import Budget, Global, Machine, Record
from fastface.errors import BadModelFile
from fastface.importers.published import MAX_BYTES, Published, check, need, read_bytes, triangles_of
from fastface.morphable import MAX_MODES

IDENTITY: Final = 300
_CH: Final = "chumpy.ch.Ch"
_SELECT: Final = "chumpy.reordering.Select"
_SPARSE: Final = tuple(
    f"scipy.sparse.{module}.{kind}_matrix" for kind in ("csc", "csr", "coo") for module in (kind, f"_{kind}")
)


def _reconstructed(arguments: tuple[Any, ...], budget: Budget) -> Any:
    """How pickles of old classes make an empty object: (class, object, None)."""
    kind, base, state = arguments
    if not isinstance(kind, Global) or kind.build is None or state is not None:
        raise TypeError("an empty object of a known class is wanted")
    if not isinstance(base, Global) or not base.name.endswith(".object"):
        raise TypeError("a class that begins as an object is wanted")
    return kind.build((), budget)


_NEEDED: Final = (
    *("numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct"),
    *("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar"),
    *("numpy.ndarray", "numpy.dtype", "_codecs.encode", "builtins.set", "__builtin__.set"),
    "collections.OrderedDict",
)
#: What a model may name: numpy's arrays, and chumpy's and scipy's as sets of attributes.
_ALLOWED: Final[dict[str, Global]] = {
    **{name: ALLOWED[name] for name in _NEEDED},
    **{name: Global(name, record(name)) for name in (_CH, _SELECT, *_SPARSE)},
    **{name: Global(name, _reconstructed) for name in ("copy_reg._reconstructor", "copyreg._reconstructor")},
    **{name: Global(name) for name in ("__builtin__.object", "builtins.object")},
}


def read_flame(path: str | os.PathLike[str]) -> Published:
    """Read the authors' ``.pkl``. Raises ``BadModelFile``."""
    label = os.fspath(path)
    data = read_bytes(path)
    machine = Machine(memoryview(data), allowed=_ALLOWED, budget=Budget.of_file(len(data), label))
    found = machine.load()
    need(isinstance(found, dict), label, f"wanted a dictionary, got {type(found).__name__}")
    vertices = _array(found, "v_template", label)
    shapes = _array(found, "shapedirs", label)
    need(
        vertices.ndim == 2 and vertices.shape[1] == 3,
        label,
        f"wanted v_template (V, 3), got {vertices.shape}",
    )
    need(
        shapes.ndim == 3 and shapes.shape[:2] == vertices.shape and shapes.shape[2] <= MAX_MODES,
        label,
        f"wanted shapedirs {(*vertices.shape, 400)}, got {shapes.shape}",
    )
    identity = np.moveaxis(shapes[:, :, :IDENTITY], 2, 0).astype(np.float32)
    face = Published(
        name="flame",
        source="FLAME, Max Planck Institute for Intelligent Systems, https://flame.is.tue.mpg.de",
        license="The licence of the file's version (FLAME 2023 Open: CC-BY-4.0; older: non-commercial)",
        vertices=vertices.astype(np.float64),
        triangles=triangles_of(_array(found, "f", label), f"{label}: f"),
        identity=np.ascontiguousarray(identity),
    )
    check(face, label)
    return face


def _array(found: dict[Any, Any], name: str, label: str) -> NDArray[Any]:
    need(name in found, label, f"wanted {name}, it is missing")
    array = _numbers(found[name], f"{label}: {name}")
    need(array.dtype.kind in "iuf", label, f"wanted {name} of real numbers, got {array.dtype}")
    return array


def _numbers(value: Any, label: str) -> NDArray[Any]:
    """The numbers in a numpy array, a chumpy array, or chumpy's selection of one."""
    if isinstance(value, Array):
        return value.numpy()
    if isinstance(value, Record) and value.kind == _CH and isinstance(value.state.get("x"), Array):
        inner: Array = value.state["x"]
        return inner.numpy()
    if isinstance(value, Record) and value.kind == _SELECT:
        return _selected(value, label)
    raise BadModelFile(f"{label}: wanted an array, got {getattr(value, 'kind', type(value).__name__)}")


def _selected(value: Record, label: str) -> NDArray[Any]:
    """chumpy's ``Select``: some of the numbers of an array, counted in its order, in a shape of their own."""
    whole, chosen, shape = (value.state.get(key) for key in ("a", "idxs", "preferred_shape"))
    right = (
        isinstance(whole, (Array, Record))
        and getattr(whole, "kind", _CH) == _CH
        and isinstance(chosen, Array)
    )
    need(right, label, "wanted a selection of an array")
    flat, index = _numbers(whole, label).ravel(), _numbers(chosen, label).ravel()
    sizes = shape if isinstance(shape, tuple) else ()
    plain = all(type(size) is int and 0 <= size <= MAX_BYTES for size in sizes) and index.dtype.kind in "iu"
    need(plain and index.size * 8 <= MAX_BYTES, label, "wanted a selection of a plain shape")
    inside = index.size == 0 or (int(index.min()) >= 0 and int(index.max()) < flat.size)
    need(inside, label, "wanted a selection within its array")
    need(len(sizes) > 0 and int(np.prod([float(size) for size in sizes])) == index.size, label, "wrong shape")
    picked: NDArray[Any] = flat[index].reshape(sizes)
    return picked
