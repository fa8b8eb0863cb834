"""Tensors by name: what the recognisers of checkpoints work with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fastface.checkpoints.allowed import Array, Tensor

Tensors = dict[str, NDArray[Any]]
Setting = int | float | str | bool | list[Any]
#: What is told apart of a file: tensors by name and the settings that their shapes do not tell.
Found = tuple[Tensors, dict[str, Setting]]
#: (the value of a pickle or a plain table of tensors, what to call it in errors) → None if of another kind.
Recogniser = Callable[[Any, str], Found | None]

MAX_TENSORS: Final = 50_000


def plain_tensors(value: Any) -> Tensors | None:
    """A ``state_dict`` as arrays; None if ``value`` is anything but names and tensors.

    The prefix ``module.``, which ``torch.nn.DataParallel`` puts before every name, is dropped.
    """
    if not isinstance(value, Mapping) or not value or len(value) > MAX_TENSORS:
        return None
    if not all(isinstance(name, str) for name in value):
        return None
    if not all(isinstance(tensor, (Tensor, Array, np.ndarray)) for tensor in value.values()):
        return None
    wrapped = all(name.startswith("module.") for name in value)
    return {
        name.removeprefix("module.") if wrapped else name: as_array(tensor) for name, tensor in value.items()
    }


def as_array(tensor: Tensor | Array | NDArray[Any]) -> NDArray[Any]:
    """The values of a tensor of a pickle."""
    return tensor if isinstance(tensor, np.ndarray) else tensor.numpy()
