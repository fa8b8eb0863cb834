"""Arrays of numbers out of an untrusted MATLAB file."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastface.errors import BadModelFile
from fastface.importers.published import MAX_BYTES, file_size, need, workshop

_NUMBERS = ("double", "single", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64")
_WIDEST = 8


def read_matlab(
    path: str | os.PathLike[str], wanted: tuple[str, ...], optional: tuple[str, ...] = ()
) -> dict[str, NDArray[Any]]:
    """The named arrays; ``optional`` ones where they are there. Other variables are not read.

    What the file declares is checked before anything is inflated. Raises ``BadModelFile``; without scipy
    ``ProviderUnavailable``.
    """
    io = workshop("scipy.io")
    label = os.fspath(path)
    file_size(path)
    declared = {name: (shape, kind) for name, shape, kind in _guarded(io.whosmat, label)}
    missing = [name for name in wanted if name not in declared]
    need(not missing, label, f"wanted the variables {', '.join(wanted)}; missing: {', '.join(missing)}")
    names = [name for name in (*wanted, *optional) if name in declared]
    total = 0
    for name in names:
        shape, kind = declared[name]
        need(kind in _NUMBERS and len(shape) == 2, label, f"wanted {name} to be a matrix, got {kind} {shape}")
        need(min(shape) >= 0, label, f"wanted {name} to be a matrix, got {shape}")
        total += int(shape[0]) * int(shape[1]) * _WIDEST
    need(
        total <= 2 * MAX_BYTES, label, f"wanted at most {2 * MAX_BYTES} bytes of arrays, it declares {total}"
    )
    found = _guarded(lambda name: io.loadmat(name, variable_names=names), label)
    for name in names:
        array = found.get(name)
        right = (
            isinstance(array, np.ndarray) and array.dtype.kind in "iuf" and array.shape == declared[name][0]
        )
        need(right, label, f"wanted {name} to be real numbers of the shape it declares")
    return {name: found[name] for name in names}


def _guarded(read: Any, label: str) -> Any:
    try:
        return read(label)
    except OSError as error:
        raise BadModelFile(f"{label}: cannot be read: {error.strerror or error}") from error
    except NotImplementedError as error:
        raise BadModelFile(
            f"{label}: this is a MATLAB 7.3 file; save it from MATLAB with -v7, which the authors' files are"
        ) from error
    # scipy answers damage with almost any exception: MatReadError, zlib.error, TypeError, KeyError, …
    except (Exception, MemoryError) as error:
        reason = f"{type(error).__name__}: {str(error)[:120]}"
        raise BadModelFile(f"{label}: wanted an undamaged MATLAB file ({reason})") from error
