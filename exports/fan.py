"""The landmark network of StarGAN v2's high-pass path, and the two masks that its heat maps become.

A one-stack hourglass network with coordinate channels (Wang et al., "Adaptive Wing Loss for Robust Face
Alignment via Heatmap Regression", ICCV 2019; block design of Bulat and Tzimiropoulos, ICCV 2017), for the 98
landmarks of WFLW and one boundary map. Parameter names are those of the ``fan`` part of StarGAN v2
checkpoints and of the authors' ``wing.ckpt``.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

IMAGE_SIZE: Final = 256
HEATMAP_SIZE: Final = 64
LANDMARKS: Final = 98
_DEPTH: Final = 4
_WIDTH: Final = 256
_LEAST: Final = 0.1  # weaker responses count as none
_EPSILON: Final = 1e-6


class Feature(NamedTuple):
    """A run of landmarks, in WFLW's order: their normalised heat maps are raised to ``power``, summed and
    moved ``down_px`` of 256. ``inside``: part of the second mask too.
    """

    start: int
    end: int
    power: int
    down_px: int
    inside: bool


#: In no row, and so blank: the outline's sides (0-7, 25-32), the brows' ends (33, 46), the mouth's corners
#: (76, 82).
FEATURES: Final = (
    Feature(8, 25, 3, 0, inside=False),  # chin
    Feature(34, 46, 2, 7, inside=False),  # brows …
    Feature(47, 51, 2, 7, inside=False),  # … the rest of them
    Feature(51, 52, 1, 0, inside=True),  # root of the nose
    Feature(52, 55, 1, -4, inside=True),  # bridge and tip
    Feature(55, 60, 4, -8, inside=True),  # nostrils
    Feature(60, 76, 3, 8, inside=True),  # eyes: sharp just below …
    Feature(60, 76, 1, 24, inside=True),  # … and broad further down
    Feature(77, 82, 4, 8, inside=False),  # upper lip
    Feature(83, 88, 4, -8, inside=False),  # lower lip
    Feature(88, 96, 3, 2, inside=False),  # inner lips
    Feature(96, 98, 1, 0, inside=True),  # pupils
)


class CoordConv(nn.Module):
    """A convolution that also sees where it is: row, column and radius, each scaled to [-1, 1] or [0, 1]."""

    coords: Tensor

    def __init__(self, size: int, dim_in: int, dim_out: int, kernel: int, stride: int, padding: int) -> None:
        super().__init__()
        ramp = torch.arange(size).float() / (size - 1) * 2 - 1
        row, column = ramp[:, None].expand(size, size), ramp[None, :].expand(size, size)
        radius = torch.sqrt(row**2 + column**2)
        coords = torch.stack([row, column, radius / radius.max()])[None]
        self.register_buffer("coords", coords, persistent=False)
        self.conv = nn.Conv2d(dim_in + 3, dim_out, kernel, stride, padding)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(torch.cat([x, self.coords.expand(x.shape[0], -1, -1, -1)], dim=1))
        return y


class Bottleneck(nn.Module):
    """Three convolutions, their outputs (1/2, 1/4, 1/4 of the channels) side by side, plus the input."""

    def __init__(self, dim_in: int, dim_out: int) -> None:
        super().__init__()
        half, quarter = dim_out // 2, dim_out // 4
        self.bn1 = nn.BatchNorm2d(dim_in)
        self.conv1 = nn.Conv2d(dim_in, half, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(half)
        self.conv2 = nn.Conv2d(half, quarter, 3, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(quarter)
        self.conv3 = nn.Conv2d(quarter, quarter, 3, padding=1, bias=False)
        self.downsample: nn.Sequential | None = None
        if dim_in != dim_out:
            self.downsample = nn.Sequential(
                nn.BatchNorm2d(dim_in), nn.ReLU(), nn.Conv2d(dim_in, dim_out, 1, bias=False)
            )

    def forward(self, x: Tensor) -> Tensor:
        a = self.conv1(functional.relu(self.bn1(x)))
        b = self.conv2(functional.relu(self.bn2(a)))
        c = self.conv3(functional.relu(self.bn3(b)))
        return torch.cat([a, b, c], dim=1) + (x if self.downsample is None else self.downsample(x))


class Hourglass(nn.Module):
    """Four halvings and back; at each level a branch at full size is added on the way up."""

    def __init__(self) -> None:
        super().__init__()
        self.coordconv = CoordConv(HEATMAP_SIZE, _WIDTH, _WIDTH, kernel=1, stride=1, padding=0)
        for level in range(1, _DEPTH + 1):
            for name in ("b1", "b2", "b3") if level > 1 else ("b1", "b2", "b2_plus", "b3"):
                self.add_module(f"{name}_{level}", Bottleneck(_WIDTH, _WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        return self._level(_DEPTH, self.coordconv(x))

    def _level(self, level: int, x: Tensor) -> Tensor:
        low = self.get_submodule(f"b2_{level}")(functional.avg_pool2d(x, 2))
        low = self._level(level - 1, low) if level > 1 else self.get_submodule("b2_plus_1")(low)
        low = self.get_submodule(f"b3_{level}")(low)
        across: Tensor = self.get_submodule(f"b1_{level}")(x)
        return across + functional.interpolate(low, scale_factor=2, mode="nearest")


class FAN(nn.Module):
    """image (B, 3, R, R) in [-1, 1] → masks (B, 2, 256, 256) in [0, 1], heatmaps (B, 98, 64, 64)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = CoordConv(IMAGE_SIZE, 3, 64, kernel=7, stride=2, padding=3)
        self.bn1 = nn.BatchNorm2d(64)
        self.conv2 = Bottleneck(64, 128)
        self.conv3 = Bottleneck(128, 128)
        self.conv4 = Bottleneck(128, _WIDTH)
        self.m0 = Hourglass()
        self.top_m_0 = Bottleneck(_WIDTH, _WIDTH)
        self.conv_last0 = nn.Conv2d(_WIDTH, _WIDTH, 1)
        self.bn_end0 = nn.BatchNorm2d(_WIDTH)
        self.l0 = nn.Conv2d(_WIDTH, LANDMARKS + 1, 1)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        heatmaps = self.heatmaps(image)
        return masks(heatmaps), heatmaps

    def heatmaps(self, image: Tensor) -> Tensor:
        """(B, 98, 64, 64), raw: about 0 away from a landmark and 1 on it."""
        if image.shape[2:] != (IMAGE_SIZE, IMAGE_SIZE):
            image = functional.interpolate(
                image, size=(IMAGE_SIZE, IMAGE_SIZE), mode="bilinear", align_corners=False
            )
        x = functional.relu(self.bn1(self.conv1(image * 0.5 + 0.5)))
        x = functional.avg_pool2d(self.conv2(x), 2)
        x = self.top_m_0(self.m0(self.conv4(self.conv3(x))))
        x = functional.relu(self.bn_end0(self.conv_last0(x)))
        maps: Tensor = self.l0(x)
        return maps[:, :LANDMARKS]


class Heatmaps(nn.Module):
    """image (B, 3, R, R) → heatmaps (B, 98, 64, 64) alone."""

    def __init__(self, fan: FAN) -> None:
        super().__init__()
        self.fan = fan

    def forward(self, image: Tensor) -> Tensor:
        return self.fan.heatmaps(image)


def masks(heatmaps: Tensor) -> Tensor:
    """(B, 98, 64, 64) → (B, 2, 256, 256) in [0, 1]: the whole face, and it without mouth, brows and outline.

    As the authors do: enlarge, drop what is weak, stretch each map to [0, 1], sharpen and move each feature,
    add up. What leaves the image at one side comes in at the other.
    """
    size = (IMAGE_SIZE, IMAGE_SIZE)
    x = functional.interpolate(heatmaps.float(), size=size, mode="bilinear", align_corners=True)
    x = torch.where(x < _LEAST, torch.zeros_like(x), x)
    low, high = x.amin(dim=(2, 3), keepdim=True), x.amax(dim=(2, 3), keepdim=True)
    x = (x - low) / (high - low + _EPSILON)
    everything, inside = [], []
    for power in sorted({feature.power for feature in FEATURES}):
        members = [feature for feature in FEATURES if feature.power == power]
        chosen = x.new_zeros(len(members), LANDMARKS, 1, 1)
        for row, feature in enumerate(members):
            chosen[row, feature.start : feature.end] = 1
        # Sums over runs of channels as a convolution: slices of channels are slow where these lie innermost.
        sums = functional.conv2d(_power(x, power), chosen)
        for row, feature in enumerate(members):
            moved = torch.roll(sums[:, row : row + 1], feature.down_px, dims=2)
            everything.append(moved)
            if feature.inside:
                inside.append(moved)
    both = [torch.stack(group).sum(dim=0) for group in (everything, inside)]
    return torch.cat(both, dim=1).clamp(0, 1)


def _power(x: Tensor, power: int) -> Tensor:
    """By products: much quicker than a general power."""
    square = x * x if power > 1 else x
    return {1: x, 2: square, 3: square * x, 4: square * square}[power]
