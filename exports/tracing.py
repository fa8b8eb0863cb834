"""Tracing in half precision on a processor that has no half-precision convolutions.

torch falls back to reference code there, a hundred times slower than float32: minutes for one image of a
large generator. A trace is after the operators and shapes, not the values, so those two routines give zeros.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

_Pair = Sequence[int]


@contextmanager
def shapes_suffice(module: nn.Module) -> Iterator[None]:
    """While this lasts, what a half-precision ``module`` computes on the processor has the right shape alone.

    It acts on the whole process. Modules in other precisions are left alone.
    """
    if not any(tensor.dtype == torch.float16 for tensor in module.state_dict().values()):
        yield
        return
    make: Any = torch.library.Library  # without types
    library = make("aten", "IMPL")
    try:
        library.impl("_slow_conv2d_forward", _convolved, "CPU")
        library.impl("slow_conv_transpose2d", _transposed, "CPU")
        yield
    finally:
        library._destroy()


def _convolved(
    x: Tensor, weight: Tensor, kernel: _Pair, bias: Tensor | None, stride: _Pair, padding: _Pair
) -> Tensor:
    sides = [(x.shape[2 + i] + 2 * padding[i] - kernel[i]) // stride[i] + 1 for i in (0, 1)]
    return x.new_zeros(x.shape[0], weight.shape[0], *sides)


def _transposed(
    x: Tensor,
    weight: Tensor,
    kernel: _Pair,
    bias: Tensor | None = None,
    stride: _Pair = (1, 1),
    padding: _Pair = (0, 0),
    output_padding: _Pair = (0, 0),
    dilation: _Pair = (1, 1),
) -> Tensor:
    sides = [
        (x.shape[2 + i] - 1) * stride[i]
        - 2 * padding[i]
        + dilation[i] * (kernel[i] - 1)
        + output_padding[i]
        + 1
        for i in (0, 1)
    ]
    return x.new_zeros(x.shape[0], weight.shape[1], *sides)
