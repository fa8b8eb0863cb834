"""StyleGAN2 (Karras et al., "Analyzing and Improving the Image Quality of StyleGAN", CVPR 2020) with the
class-conditional mapping and the clamping of StyleGAN2-ADA (NeurIPS 2020).

Parameter and buffer names are those of ``G_ema`` in NVlabs/stylegan2-ada-pytorch, so that its states load
strictly. This is the plain definition: one convolution a sample, its kernel scaled by the style ("modulated")
and brought back to unit variance ("demodulated"). What is exported is ``fastface.exports.stylegan2_graphs``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping as Table
from dataclasses import dataclass, fields
from typing import Any, Final, Literal, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from fastface.checkpoints import Checkpoint
from fastface.errors import BadModelFile
from fastface.exports.graphs import load_strictly
from fastface.exports.resampling import doubling_padding, resample

Noise = Literal["const", "random", "none"]
EPSILON: Final = 1e-8
#: Activation → (function, gain that keeps the variance of a normal input).
ACTIVATIONS: Final[dict[str, tuple[Any, float]]] = {
    "linear": (lambda x: x, 1.0),
    "relu": (torch.relu, math.sqrt(2)),
    "lrelu": (lambda x: functional.leaky_relu(x, 0.2), math.sqrt(2)),
    "tanh": (torch.tanh, 1.0),
    "sigmoid": (torch.sigmoid, 1.0),
    "elu": (functional.elu, 1.0),
    "selu": (functional.selu, 1.0),
    "softplus": (functional.softplus, 1.0),
    "swish": (lambda x: torch.sigmoid(x) * x, math.sqrt(2)),
}
RESOLUTIONS: Final = tuple(4 << n for n in range(9))


@dataclass(frozen=True)
class Config:
    """What decides the shapes. ``channels`` of each resolution from 4 up; ``conv_clamp`` 0 is none."""

    resolution: int
    channels: tuple[int, ...]
    img_channels: int = 3
    z_dim: int = 512
    w_dim: int = 512
    c_dim: int = 0
    embed_features: int = 0
    mapping_layers: int = 8
    mapping_features: int = 512
    mapping_activation: str = "lrelu"
    mapping_lr: float = 0.01
    architecture: str = "skip"
    activation: str = "lrelu"
    use_noise: bool = True
    conv_clamp: float = 0.0
    filter_shape: tuple[int, ...] = (4, 4)

    @classmethod
    def standard(
        cls, resolution: int, *, channel_base: int = 32768, channel_max: int = 512, **others: Any
    ) -> Config:
        """The authors' channels: ``channel_base`` / resolution, at most ``channel_max``; 16384: config-e."""
        sizes = [4 << n for n in range(resolution.bit_length() - 2)]
        channels = tuple(min(channel_base // size, channel_max) for size in sizes)
        if others.get("c_dim"):
            others.setdefault("embed_features", others.get("w_dim", 512))
        others.setdefault("mapping_features", others.get("w_dim", 512))
        return cls(resolution, channels, **others)

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> Config:
        """The settings of a checkpoint. Raises ``BadModelFile``."""
        given = checkpoint.config
        known = {field.name for field in fields(cls)}
        try:
            values: dict[str, Any] = {name: given[name] for name in known if name in given}
            for name in ("channels", "filter_shape"):
                if name in values:
                    values[name] = tuple(int(size) for size in values[name])
            config = cls(**values)
        except (TypeError, ValueError) as error:
            raise BadModelFile(f"{checkpoint.source}: its settings are damaged ({error})") from error
        config.check(checkpoint.source)
        return config

    def check(self, source: str) -> None:
        """Raises ``BadModelFile`` for what no StyleGAN2 is."""
        if self.resolution not in RESOLUTIONS:
            raise BadModelFile(f"{source}: resolution {self.resolution}; wanted one of {RESOLUTIONS}")
        if len(self.channels) != self.resolution.bit_length() - 2 or min(self.channels) < 1:
            raise BadModelFile(f"{source}: channels {self.channels} do not fit resolution {self.resolution}")
        if self.architecture not in ("orig", "skip", "resnet"):
            raise BadModelFile(f"{source}: architecture {self.architecture}; wanted orig, skip or resnet")
        for activation in (self.activation, self.mapping_activation):
            if activation not in ACTIVATIONS:
                raise BadModelFile(f"{source}: activation {activation}; wanted one of {sorted(ACTIVATIONS)}")
        if not 1 <= self.mapping_layers <= 64 or not 1 <= len(self.filter_shape) <= 2:
            raise BadModelFile(f"{source}: its settings are of no StyleGAN2")

    def as_dict(self) -> dict[str, Any]:
        """For metadata."""
        made = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in made.items()}


class Dense(nn.Module):
    """A linear layer at equalised learning rate: weights are kept at unit variance and scaled when used."""

    def __init__(
        self, inputs: int, outputs: int, *, activation: str = "linear", lr: float = 1.0, bias: float = 0.0
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs) / lr)
        self.bias = nn.Parameter(torch.full((outputs,), bias))
        self.function, self.gain = ACTIVATIONS[activation]
        self.weight_gain = lr / math.sqrt(inputs)
        self.bias_gain = lr

    def scaled(self) -> tuple[Tensor, Tensor]:
        """Weight and bias as they act."""
        return self.weight * self.weight_gain, self.bias * self.bias_gain

    def forward(self, x: Tensor) -> Tensor:
        x = self.function(functional.linear(x, *self.scaled()))
        return x * self.gain if self.gain != 1 else x


def unit_moment(x: Tensor) -> Tensor:
    """Rows of unit mean square."""
    return x * torch.rsqrt(x.square().mean(dim=1, keepdim=True) + EPSILON)


class MappingSettings(Protocol):
    """What a mapping network is made of; a generator's ``Config``."""

    @property
    def z_dim(self) -> int: ...
    @property
    def w_dim(self) -> int: ...
    @property
    def c_dim(self) -> int: ...
    @property
    def embed_features(self) -> int: ...
    @property
    def mapping_layers(self) -> int: ...
    @property
    def mapping_features(self) -> int: ...
    @property
    def mapping_activation(self) -> str: ...
    @property
    def mapping_lr(self) -> float: ...


class MappingNetwork(nn.Module):
    """(z (B, Z), label (B, C) or None) → w (B, L, W)."""

    w_avg: Tensor

    def __init__(self, config: MappingSettings, layers: int) -> None:
        super().__init__()
        self.layers = layers
        self.depth = config.mapping_layers
        self.embed = Dense(config.c_dim, config.embed_features) if config.c_dim else None
        middle = [config.mapping_features] * (config.mapping_layers - 1)
        widths = [config.z_dim + config.embed_features * bool(config.c_dim), *middle, config.w_dim]
        for n in range(self.depth):
            layer = Dense(
                widths[n], widths[n + 1], activation=config.mapping_activation, lr=config.mapping_lr
            )
            self.add_module(f"fc{n}", layer)
        self.register_buffer("w_avg", torch.zeros(config.w_dim))

    def embedded(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        """w (B, W) of each latent, before it is given to every layer."""
        x = unit_moment(z)
        if self.embed is not None:
            if label is None:
                raise ValueError("a class-conditional generator wants labels")
            x = torch.cat([x, unit_moment(self.embed(label))], dim=1)
        for n in range(self.depth):
            x = self.get_submodule(f"fc{n}")(x)
        return x

    def forward(
        self,
        z: Tensor,
        label: Tensor | None = None,
        truncation: float | Tensor = 1.0,
        cutoff: int | None = None,
    ) -> Tensor:
        """``truncation`` draws w towards its mean in the first ``cutoff`` layers, in all by default."""
        w = self.embedded(z, label)[:, None].repeat(1, self.layers, 1)
        drawn = self.w_avg + (w - self.w_avg) * truncation
        if cutoff is None:
            return drawn
        return torch.cat([drawn[:, :cutoff], w[:, cutoff:]], dim=1)


def modulated(weight: Tensor, style: Tensor, *, demodulate: bool) -> Tensor:
    """Kernels (O, I, K, K) and styles (B, I) → kernels (B, O, I, K, K) of each sample; equations 1 and 3."""
    kernels = weight[None] * style[:, None, :, None, None]
    if demodulate:
        kernels = kernels * torch.rsqrt(kernels.square().sum(dim=(2, 3, 4), keepdim=True) + EPSILON)
    return kernels


def clamped(x: Tensor, bound: float) -> Tensor:
    """Into [-bound, bound]; 0 is no bound."""
    return x.clamp(-bound, bound) if bound else x


class SynthesisLayer(nn.Module):
    """Modulated 3x3 convolution, noise, bias, activation; ``up`` doubles the size first."""

    resample_filter: Tensor
    noise_const: Tensor

    def __init__(self, config: Config, inputs: int, outputs: int, size: int, *, up: bool) -> None:
        super().__init__()
        self.size, self.up, self.clamp = size, up, config.conv_clamp
        self.function, self.gain = ACTIVATIONS[config.activation]
        # A layer that keeps its size never filters; the authors' has a filter of four taps all the same.
        self.register_buffer("resample_filter", standard_filter(config.filter_shape if up else (4, 4)))
        self.affine = Dense(config.w_dim, inputs, bias=1.0)
        self.weight = nn.Parameter(torch.randn(outputs, inputs, 3, 3))
        self.use_noise = config.use_noise
        if config.use_noise:
            self.register_buffer("noise_const", torch.randn(size, size))
            self.noise_strength = nn.Parameter(torch.zeros(()))
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor, w: Tensor, noise: Noise | Tensor = "const", gain: float = 1.0) -> Tensor:
        """``noise`` may be the noise itself, (B or 1, 1, H, W) or (H, W)."""
        x = self._convolved(x, modulated(self.weight, self.affine(w), demodulate=True))
        if self.use_noise and not (isinstance(noise, str) and noise == "none"):
            x = x + self._noise(x, noise) * self.noise_strength
        x = self.function(x + self.bias[:, None, None]) * (self.gain * gain)
        return clamped(x, self.clamp * gain)

    def _noise(self, x: Tensor, noise: Noise | Tensor) -> Tensor:
        if isinstance(noise, Tensor):
            return noise
        if noise == "random":
            return torch.randn(x.shape[0], 1, self.size, self.size, device=x.device, dtype=x.dtype)
        return self.noise_const

    def _convolved(self, x: Tensor, kernels: Tensor) -> Tensor:
        batch, outputs, inputs, taps, _ = kernels.shape
        x = x.reshape(1, batch * inputs, *x.shape[2:])
        if not self.up:
            x = functional.conv2d(
                x, kernels.reshape(batch * outputs, inputs, taps, taps), padding=1, groups=batch
            )
            return x.reshape(batch, outputs, *x.shape[2:])
        kernels = kernels.transpose(1, 2).reshape(batch * inputs, outputs, taps, taps)
        x = functional.conv_transpose2d(x, kernels, stride=2, groups=batch)
        x = x.reshape(batch, outputs, *x.shape[2:])
        return resample(x, self.resample_filter, padding=self.blur_padding(), gain=4.0)

    def blur_padding(self) -> tuple[int, int]:
        """What the low-pass filter after the transposed convolution adds or cuts, for twice the size."""
        before, after = doubling_padding(self.resample_filter.shape[0])
        return before - 1, after


class ToRGBLayer(nn.Module):
    """1x1 convolution to colours, modulated but not demodulated."""

    def __init__(self, config: Config, inputs: int) -> None:
        super().__init__()
        self.clamp = config.conv_clamp
        self.affine = Dense(config.w_dim, inputs, bias=1.0)
        self.weight = nn.Parameter(torch.randn(config.img_channels, inputs, 1, 1))
        self.bias = nn.Parameter(torch.zeros(config.img_channels))
        self.weight_gain = 1 / math.sqrt(inputs)

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        kernels = modulated(self.weight, self.affine(w) * self.weight_gain, demodulate=False)
        image = torch.einsum("boi,bihw->bohw", kernels[:, :, :, 0, 0], x)
        return clamped(image + self.bias[:, None, None], self.clamp)


class SkipLayer(nn.Module):
    """The shortcut of the residual architecture: 1x1 convolution and doubling."""

    resample_filter: Tensor

    def __init__(self, config: Config, inputs: int, outputs: int) -> None:
        super().__init__()
        self.register_buffer("resample_filter", standard_filter(config.filter_shape))
        self.weight = nn.Parameter(torch.randn(outputs, inputs, 1, 1))
        self.weight_gain = 1 / math.sqrt(inputs)

    def forward(self, x: Tensor, gain: float) -> Tensor:
        x = functional.conv2d(x, self.weight * (self.weight_gain * gain))
        return doubled(x, self.resample_filter)


def doubled(x: Tensor, f: Tensor) -> Tensor:
    """An image of twice the size, low-passed, of the same brightness."""
    return resample(x, f, up=2, padding=doubling_padding(f.shape[0]), gain=4.0)


def standard_filter(shape: tuple[int, ...]) -> Tensor:
    """Binomial coefficients, normalised: [1, 3, 3, 1] for four taps."""
    taps = torch.tensor([float(math.comb(shape[0] - 1, n)) for n in range(shape[0])])
    f = taps if len(shape) == 1 else taps[:, None] * taps
    return f / f.sum()


class SynthesisBlock(nn.Module):
    """All layers of one resolution: (x, image so far) → (x, image)."""

    resample_filter: Tensor

    def __init__(self, config: Config, level: int) -> None:
        super().__init__()
        size, outputs = 4 << level, config.channels[level]
        inputs = config.channels[level - 1] if level else 0
        last = size == config.resolution
        self.register_buffer("resample_filter", standard_filter(config.filter_shape))
        self.const = nn.Parameter(torch.randn(outputs, size, size)) if not level else None
        self.conv0 = SynthesisLayer(config, inputs, outputs, size, up=True) if level else None
        self.conv1 = SynthesisLayer(config, outputs, outputs, size, up=False)
        self.torgb = ToRGBLayer(config, outputs) if last or config.architecture == "skip" else None
        residual = level and config.architecture == "resnet"
        self.skip = SkipLayer(config, inputs, outputs) if residual else None

    @property
    def convolutions(self) -> list[SynthesisLayer]:
        """One at 4x4, two above."""
        return [layer for layer in (self.conv0, self.conv1) if layer is not None]

    def forward(
        self, x: Tensor | None, image: Tensor | None, w: Tensor, noise: list[Noise | Tensor]
    ) -> tuple[Tensor, Tensor | None]:
        """``w`` (B, layers of this block and one, W), ``noise`` for each convolution."""
        if self.conv0 is None or x is None:
            assert self.const is not None
            x = self.const[None].repeat(w.shape[0], 1, 1, 1)
            x = self.conv1(x, w[:, 0], noise[0])
        elif self.skip is not None:
            half = math.sqrt(0.5)
            shortcut = self.skip(x, half)
            x = shortcut + self.conv1(self.conv0(x, w[:, 0], noise[0]), w[:, 1], noise[1], gain=half)
        else:
            x = self.conv1(self.conv0(x, w[:, 0], noise[0]), w[:, 1], noise[1])
        if image is not None:
            image = doubled(image, self.resample_filter)
        if self.torgb is not None:
            colour = self.torgb(x, w[:, len(self.convolutions)])
            image = colour if image is None else image + colour
        return x, image


class SynthesisNetwork(nn.Module):
    """w (B, L, W) → image (B, C, R, R), about [-1, 1], not clamped."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.sizes = [4 << level for level in range(len(config.channels))]
        for level, size in enumerate(self.sizes):
            self.add_module(f"b{size}", SynthesisBlock(config, level))
        #: One w for every convolution; ToRGB shares the next convolution's, the last has its own.
        self.layers = 2 * len(self.sizes)

    @property
    def blocks(self) -> list[SynthesisBlock]:
        """By size, from 4x4."""
        return [self.get_submodule(f"b{size}") for size in self.sizes]  # type: ignore[misc]

    @property
    def convolutions(self) -> list[SynthesisLayer]:
        """Every layer that has noise, in order."""
        return [layer for block in self.blocks for layer in block.convolutions]

    def forward(self, w: Tensor, noise: Noise | list[Tensor] = "const") -> Tensor:
        """``noise``: the checkpoint's, drawn anew, none, or one of your own for each of ``convolutions``."""
        x: Tensor | None = None
        image: Tensor | None = None
        first = 0
        for block in self.blocks:
            count = len(block.convolutions)
            here: list[Any] = [noise] * count if isinstance(noise, str) else noise[first : first + count]
            x, image = block(x, image, w[:, first : first + count + 1], here)
            first += count
        assert image is not None
        return image


class Generator(nn.Module):
    """z → w → image."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.synthesis = SynthesisNetwork(config)
        self.mapping = MappingNetwork(config, self.synthesis.layers)

    def forward(
        self,
        z: Tensor,
        label: Tensor | None = None,
        truncation: float = 1.0,
        cutoff: int | None = None,
        noise: Noise | list[Tensor] = "const",
    ) -> Tensor:
        image: Tensor = self.synthesis(self.mapping(z, label, truncation, cutoff), noise)
        return image


def generator(checkpoint: Checkpoint) -> Generator:
    """The network of a checkpoint, in evaluation mode. Raises ``BadModelFile`` naming what does not fit."""
    network = Generator(Config.of(checkpoint))
    load_strictly(network, checkpoint.tensors, checkpoint.source)
    return network.eval().requires_grad_(False)


def tensors_of(network: nn.Module) -> Table[str, Any]:
    """The state of a network as arrays, for a ``Checkpoint``."""
    return {name: tensor.detach().cpu().numpy() for name, tensor in network.state_dict().items()}
