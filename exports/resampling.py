"""Up- and down-sampling of images by finite impulse response filters, as plain convolutions.

A filter ``f`` (K, K), or (K,) when it is separable, is convolved with an image between whose pixels
``up - 1`` zeros were put; of the result every ``down``-th pixel is kept. ``padding`` (before, after), the
same in x and y, is counted in pixels of the widened image; what is negative is cut off.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

Padding = tuple[int, int]
#: Outside of what a filter sees there is black.
NO_PADDING: Final = (0, 0)


def resample(
    x: Tensor,
    f: Tensor | None,
    *,
    up: int = 1,
    down: int = 1,
    padding: Padding = NO_PADDING,
    gain: float = 1.0,
) -> Tensor:
    """(B, C, H, W) → (B, C, ⌈(H·up + padding − K + 1) / down⌉, …).

    Without a filter only the padding is done.
    """
    if f is None:
        if up != 1 or down != 1:
            raise ValueError("a change of size wants a filter")
        return functional.pad(x, (*padding, *padding))
    if f.ndim == 1:
        x = _along(x, (f * gain**0.5)[None, :], up, down, padding)
        return _along(x, (f * gain**0.5)[:, None], up, down, padding)
    return _along(x, f * gain, up, down, padding)


def _along(x: Tensor, f: Tensor, up: int, down: int, padding: Padding) -> Tensor:
    """A filter (Ky, Kx); an axis of length 1 is left alone."""
    channels = x.shape[1]
    weight = f.to(x.dtype)[None, None].expand(channels, 1, *f.shape)
    rows, columns = f.shape
    moved_y, moved_x = rows > 1 or columns == 1, columns > 1 or rows == 1
    stride_up = (up if moved_y else 1, up if moved_x else 1)
    stride_down = (down if moved_y else 1, down if moved_x else 1)
    if up == 1:
        # Convolution is correlation with the filter turned by 180°.
        x = functional.pad(x, (*(padding if moved_x else NO_PADDING), *(padding if moved_y else NO_PADDING)))
        return functional.conv2d(x, weight.flip((2, 3)), stride=stride_down, groups=channels)
    # A transposed convolution gives the whole convolution with the widened image: what the padding does not
    # ask for is cut off.
    x = functional.conv_transpose2d(x, weight, stride=stride_up, groups=channels)
    cut_x = _of_whole(columns, up, padding) if moved_x else NO_PADDING
    cut_y = _of_whole(rows, up, padding) if moved_y else NO_PADDING
    return functional.pad(x, (*cut_x, *cut_y))[:, :, :: stride_down[0], :: stride_down[1]]


def _of_whole(taps: int, up: int, padding: Padding) -> Padding:
    return padding[0] - taps + 1, padding[1] + up - taps


def doubling_padding(taps: int) -> Padding:
    """The padding with which an image of twice the size comes out."""
    return (taps + 1) // 2, (taps - 2) // 2


class Filter(nn.Module):
    """``resample`` for a fixed number of channels, its weights made beforehand: what is exported."""

    def __init__(
        self,
        f: Tensor,
        channels: int,
        dtype: torch.dtype,
        *,
        up: int = 1,
        down: int = 1,
        padding: Padding = NO_PADDING,
        gain: float = 1.0,
    ) -> None:
        super().__init__()
        if up != 1 and down != 1:
            raise ValueError("one filter doubles or halves, not both")
        axes = [(f * gain**0.5)[None, :], (f * gain**0.5)[:, None]] if f.ndim == 1 else [f * gain]
        self.steps = nn.ModuleList(
            _Step(axis, channels, dtype, up=up, down=down, padding=padding) for axis in axes
        )

    def forward(self, x: Tensor) -> Tensor:
        for step in self.steps:
            x = step(x)
        return x


class _Step(nn.Module):
    weight: Tensor

    def __init__(
        self, f: Tensor, channels: int, dtype: torch.dtype, *, up: int, down: int, padding: Padding
    ) -> None:
        super().__init__()
        rows, columns = f.shape
        moved = (rows > 1 or columns == 1, columns > 1 or rows == 1)
        self.transposed = up > 1
        weight = f if self.transposed else f.flip((0, 1))
        self.register_buffer("weight", weight.to(dtype)[None, None].repeat(channels, 1, 1, 1))
        self.stride = tuple((up if self.transposed else down) if axis else 1 for axis in moved)
        taps = (rows, columns)
        around = [
            (_of_whole(taps[n], up, padding) if self.transposed else padding) if moved[n] else NO_PADDING
            for n in (0, 1)
        ]
        # What lies evenly around the image is the convolution's own padding, the rest is done apart.
        even = all(
            before == after and (before <= 0 if self.transposed else before >= 0) for before, after in around
        )
        self.own = tuple(abs(before) for before, _ in around) if even else (0, 0)
        self.apart = None if even else (*around[1], *around[0])
        self.groups = channels

    def forward(self, x: Tensor) -> Tensor:
        if self.transposed:
            x = functional.conv_transpose2d(
                x, self.weight, stride=self.stride, padding=self.own, groups=self.groups
            )
            return x if self.apart is None else functional.pad(x, self.apart)
        if self.apart is not None:
            x = functional.pad(x, self.apart)
        return functional.conv2d(x, self.weight, stride=self.stride, padding=self.own, groups=self.groups)


class Doubling(nn.Module):
    """An image (B, C, H, W) convolved with a kernel between widened pixels → (B, O, 2H, 2W).

    ``kernel`` is (O, C / groups, K, K) as a convolution, not turned; ``cut`` pixels of the whole result lie
    before the image. The four outputs that fall on one input pixel are four small kernels on the image
    itself: one ordinary convolution with 4·O outputs, sorted by ``pixel_shuffle``. So no runtime needs a
    transposed convolution, which few of them do fast.
    """

    weight: Tensor

    def __init__(self, kernel: Tensor, cut: int, groups: int = 1) -> None:
        super().__init__()
        outputs, inputs, taps, _ = kernel.shape
        # Output 2m + r sees input m + d through the tap r + cut - 2d.
        reach = [(r + cut - taps + 2) // 2 for r in (0, 1)], [(r + cut) // 2 for r in (0, 1)]
        first, last = min(reach[0]), max(reach[1])
        size = last - first + 1
        phases = torch.zeros(outputs, 2, 2, inputs, size, size, dtype=kernel.dtype)
        for r, d in np.ndindex(2, size):
            for s, e in np.ndindex(2, size):
                y, x = r + cut - 2 * (d + first), s + cut - 2 * (e + first)
                if 0 <= y < taps and 0 <= x < taps:
                    phases[:, r, s, :, d, e] = kernel[:, :, y, x]
        self.register_buffer("weight", phases.reshape(4 * outputs, inputs, size, size))
        self.padding = (-first, last)
        self.groups = groups

    def forward(self, x: Tensor) -> Tensor:
        before, after = self.padding
        if before != after:
            x = functional.pad(x, (before, after, before, after))
        around = before if before == after else 0
        x = functional.conv2d(x, self.weight, padding=around, groups=self.groups)
        return functional.pixel_shuffle(x, 2)
