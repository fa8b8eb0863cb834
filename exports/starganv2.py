"""StarGAN v2 (Choi et al., "StarGAN v2: Diverse Image Synthesis for Multiple Domains", CVPR 2020).

Parameter names are those of the authors' PyTorch checkpoints (``*_nets_ema.ckpt``: one state each for
``generator``, ``mapping_network``, ``style_encoder`` and, for faces, ``fan``), so that these load strictly.

Images are (B, 3, R, R) in [-1, 1]. Widths follow from the resolution: 2¹⁴ / R channels at full size, doubled
with every halving up to a cap. A generator is *high-pass* when it has one level more; then its decoder has no
shortcuts, and what the source's face must keep comes as edges of the encoder's features inside two masks
(``fastface.exports.fan``).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from fastface.checkpoints import Checkpoint
from fastface.errors import BadArgument, BadModelFile
from fastface.exports.fan import FAN, IMAGE_SIZE, Heatmaps
from fastface.exports.folding import averaging, doubling
from fastface.exports.graphs import Part, Precision
from fastface.exports.translation import filled, in_precision, part_of, settings_of

MASKED_SIZES: Final = (32, 64, 128)
"""Where the high-pass path adds edges: inside the whole face's mask at 32, in the narrower one above."""
_SLOPE: Final = 0.2
_UNIT_VARIANCE: Final = 1 / math.sqrt(2)  # of a sum of two uncorrelated terms


@dataclass(frozen=True)
class Config:
    """What makes the four networks. ``w_hpf`` divides the edges' weight; 0: no high-pass path."""

    resolution: int = 256
    style_dim: int = 64
    latent_dim: int = 16
    hidden_dim: int = 512
    num_domains: int = 2
    max_conv_dim: int = 512
    w_hpf: float = 0.0

    @classmethod
    def of(cls, checkpoint: Checkpoint, w_hpf: float | None = None) -> Config:
        """The settings of a checkpoint. ``w_hpf``: that of the training, where it was not 1.

        Raises ``BadModelFile`` and ``BadArgument``.
        """
        config = settings_of(cls, checkpoint)
        if w_hpf is None:
            return config
        if not (math.isfinite(w_hpf) and w_hpf >= 0) or (w_hpf > 0) != (config.w_hpf > 0):
            has = "a" if config.w_hpf > 0 else "no"
            raise BadArgument(f"{checkpoint.source}: has {has} high-pass path, so w_hpf cannot be {w_hpf:g}")
        return replace(config, w_hpf=float(w_hpf))


class ResBlock(nn.Module):
    """Pre-activation residual block; ``downsample`` halves the image by averaging."""

    def __init__(
        self, dim_in: int, dim_out: int, *, normalize: bool = False, downsample: bool = False
    ) -> None:
        super().__init__()
        self.downsample = downsample
        self.folded = False
        self.conv1 = nn.Conv2d(dim_in, dim_in, 3, padding=1)
        self.conv2 = nn.Conv2d(dim_in, dim_out, 3, padding=1)
        self.norm1 = nn.InstanceNorm2d(dim_in, affine=True) if normalize else None
        self.norm2 = nn.InstanceNorm2d(dim_in, affine=True) if normalize else None
        self.conv1x1 = nn.Conv2d(dim_in, dim_out, 1, bias=False) if dim_in != dim_out else None

    def forward(self, x: Tensor) -> Tensor:
        return (self._shortcut(x) + self._residual(x)) * _UNIT_VARIANCE

    def _shortcut(self, x: Tensor) -> Tensor:
        # Averaging and a 1x1 convolution commute: in this order the convolution costs a quarter.
        if self.downsample:
            x = functional.avg_pool2d(x, 2)
        return x if self.conv1x1 is None else self.conv1x1(x)

    def _residual(self, x: Tensor) -> Tensor:
        if self.norm1 is not None:
            x = self.norm1(x)
        x = self.conv1(functional.leaky_relu(x, _SLOPE))
        if self.downsample and not self.folded:
            x = functional.avg_pool2d(x, 2)
        if self.norm2 is not None:
            x = self.norm2(x)
        y: Tensor = self.conv2(functional.leaky_relu(x, _SLOPE))
        return y

    def fold(self) -> None:
        """Average inside the first convolution from now on."""
        if self.downsample and not self.folded:
            self.conv1, self.folded = averaging(self.conv1), True


class AdaptiveNorm(nn.Module):
    """AdaIN: the style sets each channel's gain (around 1) and mean after instance normalisation."""

    def __init__(self, style_dim: int, channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.norm = nn.InstanceNorm2d(channels, affine=False)
        self.fc = nn.Linear(style_dim, 2 * channels)

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        h = self.fc(style)[:, :, None, None]
        y: Tensor = (1 + h[:, : self.channels]) * self.norm(x) + h[:, self.channels :]
        return y


class AdaptiveResBlock(nn.Module):
    """Decoder block. Without ``shortcut``, as in a high-pass generator, its weights are still there."""

    def __init__(
        self, dim_in: int, dim_out: int, style_dim: int, *, shortcut: bool = True, upsample: bool = False
    ) -> None:
        super().__init__()
        self.shortcut = shortcut
        self.upsample = upsample
        self.folded = False
        self.conv1: nn.Conv2d | nn.ConvTranspose2d = nn.Conv2d(dim_in, dim_out, 3, padding=1)
        self.conv2 = nn.Conv2d(dim_out, dim_out, 3, padding=1)
        self.norm1 = AdaptiveNorm(style_dim, dim_in)
        self.norm2 = AdaptiveNorm(style_dim, dim_out)
        self.conv1x1 = nn.Conv2d(dim_in, dim_out, 1, bias=False) if dim_in != dim_out else None

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        y: Tensor = functional.leaky_relu(self.norm1(x, style), _SLOPE)
        y = self.conv1(y if self.folded else self._enlarged(y))
        y = self.conv2(functional.leaky_relu(self.norm2(y, style), _SLOPE))
        if not self.shortcut:
            return y
        # Repeating pixels and a 1x1 convolution commute too.
        kept = x if self.conv1x1 is None else self.conv1x1(x)
        y = y + self._enlarged(kept)
        return y * _UNIT_VARIANCE

    def _enlarged(self, x: Tensor) -> Tensor:
        return functional.interpolate(x, scale_factor=2, mode="nearest") if self.upsample else x

    def fold(self) -> None:
        """Double inside the first convolution from now on."""
        if self.upsample and isinstance(self.conv1, nn.Conv2d):
            self.conv1, self.folded = doubling(self.conv1), True


class Generator(nn.Module):
    """(image (B, 3, R, R), style (B, S) [, masks (B, 2, 256, 256)]) → image (B, 3, R, R), not clamped.

    ``masks[:, 0]`` is the whole face's, ``masks[:, 1]`` the one without mouth and outline; without masks a
    high-pass generator runs as the authors' does, with no edges added.
    """

    edges: Tensor

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.high_pass = config.w_hpf > 0
        width = 2**14 // config.resolution
        self.from_rgb = nn.Conv2d(3, width, 3, padding=1)
        self.encode = nn.ModuleList()
        self.decode = nn.ModuleList()
        self.to_rgb = nn.Sequential(
            nn.InstanceNorm2d(width, affine=True), nn.LeakyReLU(_SLOPE), nn.Conv2d(width, 3, 1)
        )
        shortcut, style = not self.high_pass, config.style_dim
        for _ in range(levels(config.resolution, self.high_pass)):
            wider = min(2 * width, config.max_conv_dim)
            self.encode.append(ResBlock(width, wider, normalize=True, downsample=True))
            self.decode.insert(0, AdaptiveResBlock(wider, width, style, shortcut=shortcut, upsample=True))
            width = wider
        for _ in range(2):
            self.encode.append(ResBlock(width, width, normalize=True))
            self.decode.insert(0, AdaptiveResBlock(width, width, style, shortcut=shortcut))
        kernel = torch.full((1, 1, 3, 3), -1.0)
        kernel[0, 0, 1, 1] = 8.0
        weight = config.w_hpf if self.high_pass else 1.0
        self.register_buffer("edges", kernel / weight, persistent=False)

    def forward(self, image: Tensor, style: Tensor, masks: Tensor | None = None) -> Tensor:
        x = self.from_rgb(image)
        seen: dict[int, Tensor] = {}
        for block in self.encode:
            seen.setdefault(int(x.shape[2]), x)
            x = block(x)
        for block in self.decode:
            x = block(x, style)
            size = int(x.shape[2])
            if masks is not None and size in MASKED_SIZES:
                x = x + self._edges_inside(masks[:, :1] if size == 32 else masks[:, 1:], seen[size])
        made: Tensor = self.to_rgb(x)
        return made

    def _edges_inside(self, mask: Tensor, features: Tensor) -> Tensor:
        size, channels = int(features.shape[2]), int(features.shape[1])
        mask = functional.interpolate(mask, size=(size, size), mode="bilinear", align_corners=False)
        return functional.conv2d(
            mask * features, self.edges.expand(channels, 1, 3, 3), padding=1, groups=channels
        )


class MappingNetwork(nn.Module):
    """(z (B, 16), domain (B) int64) → style (B, S): a trunk for all domains, four layers for each."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        hidden = config.hidden_dim
        trunk = [config.latent_dim, hidden, hidden, hidden, hidden]
        branch = [hidden, hidden, hidden, hidden, config.style_dim]
        self.shared = _perceptron(trunk, last_active=True)
        self.unshared = nn.ModuleList(
            _perceptron(branch, last_active=False) for _ in range(config.num_domains)
        )

    def forward(self, z: Tensor, domain: Tensor) -> Tensor:
        h = self.shared(z)
        return _of_domain([branch(h) for branch in self.unshared], domain)


class StyleEncoder(nn.Module):
    """(image (B, 3, R, R), domain (B) int64) → style (B, S): a trunk for all domains, one layer for each."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        width = 2**14 // config.resolution
        blocks: list[nn.Module] = [nn.Conv2d(3, width, 3, padding=1)]
        for _ in range(config.resolution.bit_length() - 3):  # down to 4x4
            wider = min(2 * width, config.max_conv_dim)
            blocks.append(ResBlock(width, wider, downsample=True))
            width = wider
        blocks += [nn.LeakyReLU(_SLOPE), nn.Conv2d(width, width, 4), nn.LeakyReLU(_SLOPE)]
        self.shared = nn.Sequential(*blocks)
        self.unshared = nn.ModuleList(nn.Linear(width, config.style_dim) for _ in range(config.num_domains))

    def forward(self, image: Tensor, domain: Tensor) -> Tensor:
        h = self.shared(image).flatten(1)
        return _of_domain([branch(h) for branch in self.unshared], domain)


def levels(resolution: int, high_pass: bool) -> int:
    """How often the generator halves the image: down to 16², or 8² with the high-pass path."""
    return resolution.bit_length() - 5 + int(high_pass)


def _perceptron(widths: list[int], *, last_active: bool) -> nn.Sequential:
    layers: list[nn.Module] = []
    for wide, narrow in pairwise(widths):
        layers += [nn.Linear(wide, narrow), nn.ReLU()]
    return nn.Sequential(*layers if last_active else layers[:-1])


def _of_domain(styles: list[Tensor], domain: Tensor) -> Tensor:
    """Pick each row's style from those of all domains: one gather, so that a batch may mix domains."""
    stacked = torch.stack(styles, dim=1)
    index = domain[:, None, None] * torch.ones_like(stacked[:1, :1], dtype=torch.int64)
    return stacked.gather(1, index)[:, 0]


def parts(checkpoint: Checkpoint, precision: Precision = "fp32", w_hpf: float | None = None) -> list[Part]:
    """The graphs to export: generator, style encoder, mapping network, and ``fan`` with the high-pass path.

    A checkpoint of the generator alone gives that alone. ``w_hpf``: that of the training, where it was not 1.
    Raises ``BadModelFile`` naming what does not fit, ``BadArgument``.
    """
    config = Config.of(checkpoint, w_hpf)
    made = networks(checkpoint, config)
    for network in made.values():
        for block in network.modules():
            if isinstance(block, (ResBlock, AdaptiveResBlock)):
                block.fold()
    return [_part(name, network, config, precision) for name, network in made.items()]


def reference_parts(checkpoint: Checkpoint, w_hpf: float | None = None) -> list[Part]:
    """The definitions, layer by layer as published, in fp32.

    Of ``fan``, the heat maps: what the masks drop below a threshold makes them jump at single pixels.
    """
    config = Config.of(checkpoint, w_hpf)
    made = networks(checkpoint, config)
    listed = [_part(name, network, config, "fp32") for name, network in made.items() if name != "fan"]
    if isinstance(fan := made.get("fan"), FAN):
        listed.append(replace(_part("fan", Heatmaps(fan), config, "fp32"), outputs=("heatmaps",)))
    return listed


def networks(checkpoint: Checkpoint, config: Config) -> dict[str, nn.Module]:
    """The networks that are there and needed, by the authors' names. Raises ``BadModelFile``."""
    kinds: dict[str, Callable[[], nn.Module]] = {
        "generator": lambda: Generator(config),
        "mapping_network": lambda: MappingNetwork(config),
        "style_encoder": lambda: StyleEncoder(config),
        "fan": FAN,
    }
    if not config.w_hpf:
        del kinds["fan"]
    elif not part_of(checkpoint.tensors, "fan"):
        raise BadModelFile(
            f"{checkpoint.source}: a generator with the high-pass path, without the landmark network (fan) "
            "that makes its masks"
        )
    made = {}
    for name, kind in kinds.items():
        if tensors := part_of(checkpoint.tensors, name):
            made[name] = filled(kind, tensors, f"{checkpoint.source}: {name}")
    return made


def _part(name: str, network: nn.Module, config: Config, precision: Precision) -> Part:
    inputs, outputs = _INTERFACES[name]
    named = [*inputs, "masks"] if name == "generator" and config.w_hpf else inputs

    def example(batch: int, random: torch.Generator) -> dict[str, Tensor]:
        return {entry: _example(entry, config, batch, random) for entry in named}

    about: dict[str, Any] = {"resolution": config.resolution, "config": asdict(config)}
    title = "mapping" if name == "mapping_network" else name
    return Part(title, in_precision(network, precision), example, outputs, about=about)


def _example(name: str, config: Config, batch: int, random: torch.Generator) -> Tensor:
    if name == "domain":
        return torch.randint(config.num_domains, (batch,), generator=random)
    if name == "masks":
        return torch.rand(batch, 2, IMAGE_SIZE, IMAGE_SIZE, generator=random)
    if name == "image":
        return torch.rand(batch, 3, config.resolution, config.resolution, generator=random) * 2 - 1
    return torch.randn(batch, {"z": config.latent_dim, "style": config.style_dim}[name], generator=random)


_INTERFACES: Final[dict[str, tuple[list[str], tuple[str, ...]]]] = {
    "generator": (["image", "style"], ("image_out",)),
    "mapping_network": (["z", "domain"], ("style",)),
    "style_encoder": (["image", "domain"], ("style",)),
    "fan": (["image"], ("masks", "heatmaps")),
}
