"""StyleGAN3 as it is exported: ``fastface.exports.stylegan3`` with kernels shared by the batch.

As in ``fastface.exports.stylegan2_graphs`` the style scales what goes into a convolution and the demodulation
what comes out. The filtered leaky ReLU is two depthwise filters, the first transposed, with a plain leaky
ReLU between them. The Fourier features are float32 in every precision.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from fastface.checkpoints import Checkpoint
from fastface.errors import BadArgument
from fastface.exports.graphs import PRECISIONS, Part, Precision
from fastface.exports.resampling import Filter
from fastface.exports.stylegan2 import EPSILON, clamped
from fastface.exports.stylegan2_graphs import (
    FP16_CLAMP,
    Affine,
    MappingDefinition,
    MappingGraph,
    latents_for,
)
from fastface.exports.stylegan3 import (
    GAIN,
    SLOPE,
    Generator,
    SynthesisInput,
    SynthesisLayer,
    SynthesisNetwork,
    generator,
)


class Features(nn.Module):
    """``SynthesisInput`` with its grid made beforehand."""

    freqs: Tensor
    phases: Tensor
    weight: Tensor
    grid: Tensor

    def __init__(self, layer: SynthesisInput) -> None:
        super().__init__()
        self.layer, self.size = layer, layer.size
        turn = 2 * math.pi
        self.register_buffer("grid", layer.grid().T.contiguous() * turn)
        self.register_buffer("freqs", layer.freqs)
        self.register_buffer("phases", layer.phases[:, None] * turn)
        weight = layer.weight.detach()
        self.register_buffer("weight", weight / math.sqrt(len(weight)))
        self.channels = len(weight)

    def forward(self, w: Tensor) -> Tensor:
        transform = self.layer.moved(w)
        freqs = self.freqs @ transform[:, :, :2]
        phases = self.phases + self.freqs @ (transform[:, :, 2:] * (2 * math.pi))
        room = self.layer.rate / 2 - self.layer.bandwidth
        beyond = (freqs.norm(dim=2, keepdim=True) - self.layer.bandwidth) / room
        x = torch.sin(freqs @ self.grid + phases) * (1 - beyond).clamp(0, 1)
        features: Tensor = self.weight @ x
        return features.reshape(-1, self.channels, self.size, self.size)


class Layer(nn.Module):
    """``SynthesisLayer`` with shared kernels."""

    weight: Tensor
    squares: Tensor
    bias: Tensor
    input_gain: Tensor

    def __init__(self, layer: SynthesisLayer, precision: Precision) -> None:
        super().__init__()
        self.dtype = PRECISIONS[precision]
        self.demodulated, self.short = not layer.is_torgb, precision == "fp16"
        self.clamp = layer.clamp or (FP16_CLAMP if self.short else 0.0)
        gain = torch.rsqrt(layer.magnitude_ema)
        weight = layer.weight.detach()
        if self.demodulated:
            if self.short:
                size = weight.abs().amax(dim=(1, 2, 3), keepdim=True) * math.sqrt(weight[0].numel())
            else:
                size = weight.square().mean(dim=(1, 2, 3), keepdim=True).sqrt()
            weight = weight / size
            self.register_buffer("input_gain", gain)
        # ToRGB is not demodulated: the gain of its input goes into the style.
        self.affine = Affine(layer.affine, layer.style_gain * (1.0 if self.demodulated else float(gain)))
        self.register_buffer("squares", weight.square().sum(dim=(2, 3)).T.contiguous())
        self.register_buffer("weight", weight.to(self.dtype))
        self.register_buffer("bias", layer.bias.detach()[:, None, None].to(self.dtype))
        self.padding, self.taps = layer.padding, layer.kernel
        channels, f = len(weight), layer.up_filter
        amplified = GAIN if self.demodulated else 1.0
        self.outer = 1.0 if f is not None else amplified
        self.rise = (
            None
            if f is None
            else Filter(
                f, channels, self.dtype, up=layer.up, padding=self.padding, gain=layer.up**2 * amplified
            )
        )
        f = layer.down_filter
        self.fall = None if f is None else Filter(f, channels, self.dtype, down=layer.down)

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        style = self.affine(w)
        if self.demodulated:
            size = style.abs().amax(dim=1, keepdim=True) if self.short else self._mean_size(style)
            style = style / size
        x = functional.conv2d(x * self._spread(style), self.weight, padding=self.taps - 1)
        if self.demodulated:
            demodulation = torch.rsqrt(style.square() @ self.squares + EPSILON) * self.input_gain
            x = x * self._spread(demodulation)
        x = x + self.bias
        x = functional.pad(x, (*self.padding, *self.padding)) if self.rise is None else self.rise(x)
        if self.demodulated:
            x = functional.leaky_relu(x, SLOPE)
        x = clamped(x * self.outer if self.outer != 1 else x, self.clamp)
        return x if self.fall is None else self.fall(x)

    @staticmethod
    def _mean_size(style: Tensor) -> Tensor:
        return style.square().mean(dim=1, keepdim=True).sqrt()

    def _spread(self, channels: Tensor) -> Tensor:
        return channels.to(self.dtype)[:, :, None, None]


class SynthesisGraph(nn.Module):
    """w (B, L, W) → image (B, C, R, R) float32."""

    def __init__(self, network: SynthesisNetwork, precision: Precision) -> None:
        super().__init__()
        self.dtype, self.scale = PRECISIONS[precision], network.output_scale
        self.input = Features(network.input)
        self.layers = nn.ModuleList(Layer(layer, precision) for layer in network.convolutions)

    def forward(self, w: Tensor) -> Tensor:
        x = self.input(w[:, 0]).to(self.dtype)
        for n, layer in enumerate(self.layers):
            x = layer(x, w[:, n + 1])
        image: Tensor = x.float() * self.scale
        return image


def parts(checkpoint: Checkpoint, precision: Precision = "fp32", *, cutoff: int | None = None) -> list[Part]:
    """Mapping and synthesis, to be exported. ``cutoff``: how many layers the truncation acts on.

    Raises ``BadModelFile``, ``BadArgument``.
    """
    network = _opened(checkpoint, cutoff)
    return _described(
        network, MappingGraph(network.mapping, cutoff), SynthesisGraph(network.synthesis, precision), cutoff
    )


def reference_parts(checkpoint: Checkpoint, *, cutoff: int | None = None) -> list[Part]:
    """The plain definitions with the same inputs."""
    network = _opened(checkpoint, cutoff)
    return _described(network, MappingDefinition(network.mapping, cutoff), network.synthesis, cutoff)


def _opened(checkpoint: Checkpoint, cutoff: int | None) -> Generator:
    network = generator(checkpoint)
    if cutoff is not None and not 0 <= cutoff <= network.synthesis.layers:
        raise BadArgument(f"cutoff must be between 0 and {network.synthesis.layers} layers, got {cutoff}")
    return network


def _described(
    network: Generator, mapping: nn.Module, synthesis: nn.Module, cutoff: int | None
) -> list[Part]:
    latents = latents_for(network.config)

    def styles(batch: int, random: torch.Generator) -> dict[str, Tensor]:
        with torch.no_grad():
            return {"w": MappingDefinition(network.mapping, None)(*latents(batch, random).values())}

    about: dict[str, Any] = {
        "resolution": network.config.resolution,
        "layers": network.synthesis.layers,
        "noise": "none",
        "truncation_cutoff": cutoff,
        "config": network.config.as_dict(),
    }
    return [
        Part("mapping", mapping, latents, ("w",), frozenset({"truncation"}), about),
        Part("synthesis", synthesis, styles, ("image",), about=about),
    ]
