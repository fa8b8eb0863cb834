"""StyleGAN3-T and -R (Karras et al., "Alias-Free Generative Adversarial Networks", NeurIPS 2021).

Parameter and buffer names are those of ``G_ema`` in NVlabs/stylegan3, so that its states load strictly.
Signals are continuous and band-limited: each layer has a sampling rate, a cutoff frequency and a transition
band, and its leaky ReLU acts on an up-sampled image, low-passed before and after. T has 3x3 convolutions and
separable filters; R has 1x1 convolutions, radial filters and twice the channels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from fastface.checkpoints import Checkpoint
from fastface.errors import BadModelFile
from fastface.exports.graphs import load_strictly
from fastface.exports.resampling import resample
from fastface.exports.stylegan2 import Dense, MappingNetwork, clamped, modulated

SLOPE: Final = 0.2
GAIN: Final = math.sqrt(2)
MAX_RESOLUTION: Final = 2048


@dataclass(frozen=True)
class Config:
    """Arguments of the authors' networks, by their names; ``conv_clamp`` 0 is none."""

    resolution: int
    img_channels: int = 3
    z_dim: int = 512
    w_dim: int = 512
    c_dim: int = 0
    mapping_layers: int = 2
    mapping_lr: float = 0.01
    channel_base: int = 32768
    channel_max: int = 512
    num_layers: int = 14
    num_critical: int = 2
    first_cutoff: float = 2.0
    first_stopband: float = 2**2.1
    last_stopband_rel: float = 2**0.3
    margin_size: int = 10
    output_scale: float = 0.25
    conv_kernel: int = 3
    filter_size: int = 6
    lrelu_upsampling: int = 2
    use_radial_filters: bool = False
    conv_clamp: float = 256.0

    @classmethod
    def rotating(cls, resolution: int, **others: Any) -> Config:
        """StyleGAN3-R as published."""
        base = {"channel_base": 65536, "channel_max": 1024, "conv_kernel": 1, "use_radial_filters": True}
        return cls(resolution, **{**base, **others})

    @property
    def embed_features(self) -> int:
        """Width of the embedded label."""
        return self.w_dim if self.c_dim else 0

    @property
    def mapping_features(self) -> int:
        """Width of the mapping network."""
        return self.w_dim

    @property
    def mapping_activation(self) -> str:
        """Activation of the mapping network."""
        return "lrelu"

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> Config:
        """The settings of a checkpoint. Raises ``BadModelFile``."""
        known = {field.name for field in fields(cls)}
        try:
            values: dict[str, Any] = {
                name: value for name, value in checkpoint.config.items() if name in known
            }
            config = cls(**values)
            config.check(checkpoint.source)
        except (TypeError, ValueError, OverflowError, ZeroDivisionError) as error:
            raise BadModelFile(f"{checkpoint.source}: its settings are damaged ({error})") from error
        return config

    def check(self, source: str) -> None:
        """Raises ``BadModelFile`` for what no StyleGAN3 is."""
        size = self.resolution
        if not 8 <= size <= MAX_RESOLUTION or size & (size - 1):
            raise BadModelFile(
                f"{source}: resolution {size}; wanted a power of two from 8 to {MAX_RESOLUTION}"
            )
        limits = {
            "num_layers": (2, 64), "num_critical": (0, self.num_layers - 1), "conv_kernel": (1, 7),
            "filter_size": (1, 32), "lrelu_upsampling": (1, 4), "margin_size": (0, 64),
            "mapping_layers": (1, 64), "channel_max": (1, 8192), "channel_base": (1, 1 << 24),
            "w_dim": (1, 8192), "z_dim": (1, 8192), "first_cutoff": (0.01, size / 2),
            "first_stopband": (0.01, 2 * size), "last_stopband_rel": (1.0, 8.0), "mapping_lr": (1e-9, 1e3),
        }  # fmt: skip
        for name, (low, high) in limits.items():
            if not low <= getattr(self, name) <= high:
                raise BadModelFile(f"{source}: {name} is {getattr(self, name)}; wanted {low} to {high}")

    def as_dict(self) -> dict[str, Any]:
        """For metadata."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


@dataclass(frozen=True)
class Band:
    """What a layer gives: ``size`` and ``channels``, samples a unit, and where its spectrum ends."""

    size: int
    channels: int
    rate: int
    cutoff: float
    half_width: float


def bands(config: Config) -> list[Band]:
    """One for each layer and one for ToRGB: cutoffs and stopbands in geometric progression (section 3.2)."""
    last_cutoff = config.resolution / 2
    steps = np.arange(config.num_layers + 1) / (config.num_layers - config.num_critical)
    exponents = np.minimum(steps, 1)
    cutoffs = config.first_cutoff * (last_cutoff / config.first_cutoff) ** exponents
    last_stop = last_cutoff * config.last_stopband_rel
    stops = config.first_stopband * (last_stop / config.first_stopband) ** exponents
    rates = np.exp2(np.ceil(np.log2(np.minimum(stops * 2, config.resolution))))
    half_widths = np.maximum(stops, rates / 2) - cutoffs
    sizes = rates + 2 * config.margin_size
    sizes[-2:] = config.resolution
    channels = np.rint(np.minimum(config.channel_base / 2 / cutoffs, config.channel_max))
    channels[-1] = config.img_channels
    return [
        Band(int(sizes[n]), int(channels[n]), int(rates[n]), float(cutoffs[n]), float(half_widths[n]))
        for n in range(config.num_layers + 1)
    ]


def low_pass(taps: int, cutoff: float, width: float, rate: float, *, radial: bool = False) -> Tensor | None:
    """A Kaiser-windowed low-pass (appendix C): (taps,), or (taps, taps) if radial; None for a single tap.

    cutoff, width of the transition band and rate are in the same unit.
    """
    if taps == 1:
        return None
    attenuation = 2.285 * (taps - 1) * np.pi * width / (rate / 2) + 7.95
    window = np.kaiser(taps, _kaiser_beta(attenuation))
    at = np.arange(taps) - (taps - 1) / 2
    if not radial:
        f = np.sinc(2 * cutoff / rate * at) * window
        return torch.tensor(f / f.sum(), dtype=torch.float32)
    radius = np.hypot(*np.meshgrid(at / rate, at / rate))
    f = (
        _bessel_j1(2 * np.pi * cutoff * radius)
        / (np.pi * np.maximum(radius, 1e-12))
        * np.outer(window, window)
    )
    return torch.tensor(f / f.sum(), dtype=torch.float32)


def _kaiser_beta(attenuation: float) -> float:
    if attenuation > 50:
        return 0.1102 * (attenuation - 8.7)
    if attenuation > 21:
        return float(0.5842 * (attenuation - 21) ** 0.4 + 0.07886 * (attenuation - 21))
    return 0.0


def _bessel_j1(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Bessel's integral by the midpoint rule, which converges at once for a periodic integrand."""
    angle = (np.arange(512) + 0.5) * (np.pi / 512)
    return np.asarray(np.cos(angle - x[..., None] * np.sin(angle)).mean(axis=-1))


class SynthesisInput(nn.Module):
    """w → Fourier features on a canvas that w turns and moves (section 3, "Fourier features")."""

    transform: Tensor
    freqs: Tensor
    phases: Tensor

    def __init__(self, config: Config, band: Band) -> None:
        super().__init__()
        channels = band.channels
        self.size, self.rate, self.bandwidth = band.size, float(band.rate), band.cutoff
        freqs = torch.randn(channels, 2)
        radii = freqs.norm(dim=1, keepdim=True)
        freqs = freqs / (radii * radii.square().exp().pow(0.25)) * band.cutoff
        self.weight = nn.Parameter(torch.randn(channels, channels))
        self.affine = Dense(config.w_dim, 4)
        with torch.no_grad():
            self.affine.weight.zero_()
            self.affine.bias.copy_(torch.tensor([1.0, 0.0, 0.0, 0.0]))
        self.register_buffer("transform", torch.eye(3))
        self.register_buffer("freqs", freqs)
        self.register_buffer("phases", torch.rand(channels) - 0.5)

    def grid(self) -> Tensor:
        """(H·W, 2): x and y of the pixel centres, in units of the first band's samples."""
        at = (torch.arange(self.size, device=self.freqs.device) + 0.5 - self.size / 2) / self.rate
        y, x = torch.meshgrid(at, at, indexing="ij")
        return torch.stack([x, y], dim=-1).reshape(-1, 2)

    def moved(self, w: Tensor) -> Tensor:
        """The transform (B, 2, 3) that w asks for, before the user's own."""
        t = self.affine(w)
        t = t / t[:, :2].norm(dim=1, keepdim=True)
        rotation = torch.stack([t[:, 0], -t[:, 1], t[:, 1], t[:, 0]], dim=1).reshape(-1, 2, 2)
        transform: Tensor = torch.cat([rotation, -(rotation @ t[:, 2:, None])], dim=2) @ self.transform
        return transform

    def forward(self, w: Tensor) -> Tensor:
        transform = self.moved(w)
        freqs = self.freqs @ transform[:, :, :2]  # (B, C, 2)
        phases = self.phases[:, None] + self.freqs @ transform[:, :, 2:]
        # What a user's transform pushes beyond the band fades out.
        beyond = (freqs.norm(dim=2, keepdim=True) - self.bandwidth) / (self.rate / 2 - self.bandwidth)
        x = torch.sin((freqs @ self.grid().T + phases) * (2 * math.pi)) * (1 - beyond).clamp(0, 1)
        features: Tensor = (self.weight / math.sqrt(len(self.weight))) @ x
        return features.reshape(-1, len(self.weight), self.size, self.size)


class SynthesisLayer(nn.Module):
    """Modulated convolution and filtered leaky ReLU; ``is_torgb``: 1x1, neither demodulated nor rectified."""

    magnitude_ema: Tensor
    up_filter: Tensor | None
    down_filter: Tensor | None

    def __init__(self, config: Config, before: Band, after: Band, *, is_torgb: bool, critical: bool) -> None:
        super().__init__()
        self.is_torgb, self.clamp = is_torgb, config.conv_clamp
        self.size_in, self.size_out = before.size, after.size
        self.kernel = 1 if is_torgb else config.conv_kernel
        self.affine = Dense(config.w_dim, before.channels, bias=1.0)
        self.weight = nn.Parameter(torch.randn(after.channels, before.channels, self.kernel, self.kernel))
        self.bias = nn.Parameter(torch.zeros(after.channels))
        self.register_buffer("magnitude_ema", torch.ones(()))
        rate = max(before.rate, after.rate) * (1 if is_torgb else config.lrelu_upsampling)
        self.up, self.down = rate // before.rate, rate // after.rate
        self.up_taps = config.filter_size * self.up if self.up > 1 and not is_torgb else 1
        self.down_taps = config.filter_size * self.down if self.down > 1 and not is_torgb else 1
        radial = config.use_radial_filters and not critical
        rise = low_pass(self.up_taps, before.cutoff, 2 * before.half_width, rate)
        fall = low_pass(self.down_taps, after.cutoff, 2 * after.half_width, rate, radial=radial)
        self.register_buffer("up_filter", rise)
        self.register_buffer("down_filter", fall)

    @property
    def style_gain(self) -> float:
        """ToRGB is not demodulated: its weights are scaled instead."""
        return 1 / math.sqrt(self.weight[0].numel()) if self.is_torgb else 1.0

    @property
    def padding(self) -> tuple[int, int]:
        """Of the widened image, so that ``size_out`` pixels come out, shifted by the filters' half sample."""
        total = (self.size_out - 1) * self.down + 1 - (self.size_in + self.kernel - 1) * self.up
        total += self.up_taps + self.down_taps - 2
        before = (total + self.up) // 2
        return before, total - before

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        style = self.affine(w) * self.style_gain
        weight: Tensor = self.weight
        if not self.is_torgb:
            # Of no consequence but for the ε in the demodulation. The authors average the style over the
            # batch; over each sample an image does not depend on those beside it.
            weight = weight * torch.rsqrt(weight.square().mean(dim=(1, 2, 3), keepdim=True))
            style = style * torch.rsqrt(style.square().mean(dim=1, keepdim=True))
        kernels = modulated(weight, style, demodulate=not self.is_torgb) * torch.rsqrt(self.magnitude_ema)
        batch, outputs, inputs, taps, _ = kernels.shape
        x = functional.conv2d(
            x.reshape(1, batch * inputs, *x.shape[2:]),
            kernels.reshape(batch * outputs, inputs, taps, taps),
            padding=taps - 1,
            groups=batch,
        ).reshape(batch, outputs, self.size_in + taps - 1, -1)
        return self._rectified(x + self.bias[:, None, None])

    def _rectified(self, x: Tensor) -> Tensor:
        x = resample(x, self.up_filter, up=self.up, padding=self.padding, gain=float(self.up**2))
        if not self.is_torgb:
            x = functional.leaky_relu(x, SLOPE) * GAIN
        x = clamped(x, self.clamp)
        return x if self.down_filter is None else resample(x, self.down_filter, down=self.down)


class SynthesisNetwork(nn.Module):
    """w (B, L, W) → image (B, C, R, R), about [-1, 1], not clamped."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.output_scale = config.output_scale
        made = bands(config)
        self.input = SynthesisInput(config, made[0])
        self.names: list[str] = []
        for n, after in enumerate(made):
            layer = SynthesisLayer(
                config,
                made[max(n - 1, 0)],
                after,
                is_torgb=n == config.num_layers,
                critical=n >= config.num_layers - config.num_critical,
            )
            self.names.append(f"L{n}_{after.size}_{after.channels}")
            self.add_module(self.names[-1], layer)
        self.layers = config.num_layers + 2

    @property
    def convolutions(self) -> list[SynthesisLayer]:
        """In order, ToRGB last."""
        return [self.get_submodule(name) for name in self.names]  # type: ignore[misc]

    def forward(self, w: Tensor) -> Tensor:
        x: Tensor = self.input(w[:, 0])
        for n, layer in enumerate(self.convolutions):
            x = layer(x, w[:, n + 1])
        return x * self.output_scale


class Generator(nn.Module):
    """z → w → image. There is no noise: what is fine comes from w alone."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.synthesis = SynthesisNetwork(config)
        self.mapping = MappingNetwork(config, self.synthesis.layers)

    def forward(
        self, z: Tensor, label: Tensor | None = None, truncation: float = 1.0, cutoff: int | None = None
    ) -> Tensor:
        image: Tensor = self.synthesis(self.mapping(z, label, truncation, cutoff))
        return image


def generator(checkpoint: Checkpoint) -> Generator:
    """The network of a checkpoint, in evaluation mode. Raises ``BadModelFile`` naming what does not fit."""
    network = Generator(Config.of(checkpoint))
    load_strictly(network, checkpoint.tensors, checkpoint.source)
    return network.eval().requires_grad_(False)
