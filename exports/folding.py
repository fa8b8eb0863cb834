"""Convolutions next to a halving or doubling of the image, as one convolution with less than half the work.

A 3x3 convolution followed by the mean of 2x2 pixels is a 4x4 convolution of stride 2: 16 products for each
output pixel and pair of channels instead of 36. A 3x3 convolution of an image whose pixels were doubled is a
transposed 4x4 convolution of stride 2, by the same count. The kernels are sums of the given ones, so results
differ by rounding alone.
"""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor, nn

Layer = TypeVar("Layer", nn.Conv2d, nn.ConvTranspose2d)


def averaging(conv: nn.Conv2d) -> nn.Conv2d:
    """A 3x3 convolution (padding 1) and then ``avg_pool2d(2)``."""
    folded = nn.Conv2d(
        conv.in_channels, conv.out_channels, 4, stride=2, padding=1, bias=conv.bias is not None
    )
    return _filled(folded, _spread(conv.weight) / 4, conv.bias)


def doubling(conv: nn.Conv2d) -> nn.ConvTranspose2d:
    """A nearest-neighbour doubling and then a 3x3 convolution (padding 1)."""
    bias = conv.bias is not None
    folded = nn.ConvTranspose2d(conv.in_channels, conv.out_channels, 4, stride=2, padding=1, bias=bias)
    return _filled(folded, _spread(conv.weight).flip(2, 3).transpose(0, 1), conv.bias)


def _spread(kernel: Tensor) -> Tensor:
    """The 3x3 kernel at the four places of a 2x2 square, summed: (O, I, 4, 4)."""
    wide = torch.zeros(*kernel.shape[:2], 4, 4, dtype=torch.float64)
    for row in (0, 1):
        for column in (0, 1):
            wide[:, :, row : row + 3, column : column + 3] += kernel.detach().double()
    return wide


def _filled(layer: Layer, weight: Tensor, bias: Tensor | None) -> Layer:
    with torch.no_grad():
        layer.weight.copy_(weight)
        if layer.bias is not None and bias is not None:
            layer.bias.copy_(bias)
    return layer
