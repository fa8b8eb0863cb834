"""Convolutions in forms that take less work and give the same but for rounding.

- A 3x3 convolution followed by the mean of 2x2 pixels is a 4x4 convolution of stride 2: 16 products for each
  output pixel and pair of channels instead of 36. A 3x3 convolution of an image whose pixels were doubled is
  a transposed 4x4 convolution of stride 2, by the same count. The kernels are sums of the given ones.
- Planes of one value each, as StarGAN and GANimation feed their label, convolve to the same value everywhere
  but near the border.
- Three or four output channels cost as much as sixteen: let them be those of four pixels.
"""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

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


class LabelConv(nn.Module):
    """A 7x7 convolution (padding 3) of an image and a plane for each entry of a label."""

    places: Tensor

    def __init__(self, conv: nn.Conv2d, resolution: int) -> None:
        super().__init__()
        channels, planes = conv.out_channels, conv.in_channels - 3
        self.image = _filled(
            nn.Conv2d(3, channels, 7, padding=3, bias=False), conv.weight.detach()[:, :3], None
        )
        self.label = _filled(
            nn.Conv2d(planes, channels, 7, padding=3, bias=False), conv.weight.detach()[:, 3:], None
        )
        # Rows (and columns) of an 8x8 image stand for all: three at either border, those between are alike.
        rows = [0, 1, 2, *[3] * (resolution - 6), 5, 6, 7]
        self.register_buffer("places", torch.tensor(rows), persistent=False)

    def forward(self, image: Tensor, label: Tensor) -> Tensor:
        small = self.label(label[:, :, None, None] * label.new_ones(1, 1, 8, 8))
        across: Tensor = small.index_select(3, self.places).index_select(2, self.places)
        return across + functional.conv2d(image, self.image.weight, padding=3)


class FourPixels(nn.Module):
    """A 7x7 convolution (padding 3, no bias) to few channels, computed for 2x2 pixels at once."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        out, width = weight.shape[:2]
        wide = torch.zeros(out, 2, 2, width, 8, 8)
        for row in (0, 1):
            for column in (0, 1):
                wide[:, row, column, :, row : row + 7, column : column + 7] = weight.detach()
        conv = nn.Conv2d(width, 4 * out, 8, stride=2, padding=3, bias=False)
        self.conv = _filled(conv, wide.reshape(4 * out, width, 8, 8), None)

    def forward(self, x: Tensor) -> Tensor:
        return functional.pixel_shuffle(self.conv(x), 2)
