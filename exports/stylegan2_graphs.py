"""StyleGAN2 as it is exported: the same maths as ``fastface.exports.stylegan2`` in the form that runs best.

- The kernels are shared by the batch: the style scales the activations before the convolution and the
  demodulation scales what comes out, which is the same since both act on whole channels.
- A doubling convolution is a transposed one, then the low-pass filter. To fold the filter into the kernel
  would save a pass over the image for four times the products: half as long again on a processor (256²).
- Gains go into weights, biases, noise and demodulation where the activation lets them through.

In fp16 kernels and styles are brought to a largest magnitude of one first and activations are clamped, as the
authors do (StyleGAN2-ADA, appendix D), so that nothing overflows. Styles, demodulation and the image are
float32 in every precision.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from fastface.checkpoints import Checkpoint
from fastface.errors import BadArgument
from fastface.exports.graphs import PRECISIONS, Part, Precision
from fastface.exports.resampling import Doubling, Filter, doubling_padding
from fastface.exports.stylegan2 import (
    ACTIVATIONS,
    EPSILON,
    Config,
    Dense,
    Generator,
    MappingNetwork,
    MappingSettings,
    Noise,
    SkipLayer,
    SynthesisBlock,
    SynthesisLayer,
    SynthesisNetwork,
    ToRGBLayer,
    clamped,
    generator,
)

#: Activations through which a positive gain passes.
_HOMOGENEOUS: Final = ("linear", "relu", "lrelu")
#: What the authors clamp to in fp16, when the checkpoint itself clamps nothing.
FP16_CLAMP: Final = 256.0


class Affine(nn.Module):
    """w (B, W) → style (B, I), gains multiplied in."""

    weight: Tensor
    bias: Tensor

    def __init__(self, dense: Dense, gain: float = 1.0) -> None:
        super().__init__()
        weight, bias = dense.scaled()
        self.register_buffer("weight", weight.detach() * gain)
        self.register_buffer("bias", bias.detach() * gain)

    def forward(self, w: Tensor) -> Tensor:
        return functional.linear(w, self.weight, self.bias)


class Layer(nn.Module):
    """``SynthesisLayer`` with shared kernels. ``noise`` is what is added, scaled by strength and gain."""

    bias: Tensor
    squares: Tensor
    noise_scale: Tensor

    def __init__(self, layer: SynthesisLayer, config: Config, precision: Precision, gain: float) -> None:
        super().__init__()
        self.dtype = PRECISIONS[precision]
        self.normalise = precision == "fp16"
        clamp = layer.clamp or (FP16_CLAMP if precision == "fp16" else 0.0)
        self.clamp = clamp * gain
        through = config.activation in _HOMOGENEOUS
        self.function = ACTIVATIONS[config.activation][0]
        self.inner, self.outer = (layer.gain * gain, 1.0) if through else (1.0, layer.gain * gain)
        self.affine = Affine(layer.affine)
        weight = layer.weight.detach()
        if self.normalise:
            largest = weight.abs().amax(dim=(1, 2, 3), keepdim=True)
            weight = weight / (largest * math.sqrt(weight[0].numel()))
        self.register_buffer("squares", weight.square().sum(dim=(2, 3)).T.contiguous())
        self.register_buffer("bias", (layer.bias.detach() * self.inner)[:, None, None].to(self.dtype))
        if layer.use_noise:
            self.register_buffer("noise_scale", layer.noise_strength.detach() * self.inner)
        self.convolution: nn.Module = Same(weight, self.dtype)
        if layer.up:
            f, padding = layer.resample_filter, layer.blur_padding()
            self.convolution = TransposedDoubling(weight, f, padding, self.dtype)

    def forward(self, x: Tensor, w: Tensor, noise: Tensor | None) -> Tensor:
        style = self.affine(w)
        if self.normalise:
            style = style / style.abs().amax(dim=1, keepdim=True)
        demodulation = torch.rsqrt(style.square() @ self.squares + EPSILON) * self.inner
        x = self.convolution(x * self._spread(style)) * self._spread(demodulation)
        if noise is not None:
            x = x + noise.to(self.dtype)
        x = self.function(x + self.bias)
        return clamped(x * self.outer if self.outer != 1 else x, self.clamp)

    def _spread(self, channels: Tensor) -> Tensor:
        return channels.to(self.dtype)[:, :, None, None]


class Same(nn.Module):
    """3x3 convolution that keeps the size."""

    weight: Tensor

    def __init__(self, weight: Tensor, dtype: torch.dtype) -> None:
        super().__init__()
        self.register_buffer("weight", weight.to(dtype))

    def forward(self, x: Tensor) -> Tensor:
        return functional.conv2d(x, self.weight, padding=1)


class TransposedDoubling(nn.Module):
    """Transposed convolution, then the low-pass filter: fewest products, least weight."""

    weight: Tensor

    def __init__(
        self, weight: Tensor, low_pass: Tensor, padding: tuple[int, int], dtype: torch.dtype
    ) -> None:
        super().__init__()
        self.register_buffer("weight", weight.transpose(0, 1).contiguous().to(dtype))
        self.blur = Filter(low_pass, weight.shape[0], dtype, padding=padding, gain=4.0)

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.blur(functional.conv_transpose2d(x, self.weight, stride=2))
        return made


class Colours(nn.Module):
    """``ToRGBLayer``: small kernels for each sample, so that the activations are read once."""

    weight: Tensor
    bias: Tensor

    def __init__(self, layer: ToRGBLayer, size: int, precision: Precision) -> None:
        super().__init__()
        self.dtype = PRECISIONS[precision]
        self.clamp = layer.clamp or (FP16_CLAMP if precision == "fp16" else 0.0)
        self.affine = Affine(layer.affine, layer.weight_gain)
        self.register_buffer("weight", layer.weight.detach()[:, :, 0, 0])
        self.register_buffer("bias", layer.bias.detach()[:, None, None])
        self.size = size

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        kernels = (self.weight * self.affine(w)[:, None]).to(self.dtype)
        colours, channels = self.weight.shape
        image = kernels @ x.reshape(-1, channels, self.size * self.size)
        image = image.float().reshape(-1, colours, self.size, self.size)
        return clamped(image + self.bias, self.clamp)


class Shortcut(nn.Module):
    """``SkipLayer``."""

    weight: Tensor

    def __init__(self, layer: SkipLayer, precision: Precision) -> None:
        super().__init__()
        dtype = PRECISIONS[precision]
        weight = layer.weight.detach() * (layer.weight_gain * math.sqrt(0.5))
        self.register_buffer("weight", weight.to(dtype))
        self.larger = _larger(layer.resample_filter, weight.shape[0], dtype)

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.larger(functional.conv2d(x, self.weight))
        return made


def _larger(f: Tensor, channels: int, dtype: torch.dtype) -> nn.Module:
    if f.ndim == 1:
        return Filter(f, channels, dtype, up=2, padding=doubling_padding(f.shape[0]), gain=4.0)
    kernel = (f * 4).expand(channels, 1, *f.shape)
    return Doubling(kernel.to(dtype), cut=f.shape[0] - 1 - doubling_padding(f.shape[0])[0], groups=channels)


class Block(nn.Module):
    """``SynthesisBlock``."""

    def __init__(self, block: SynthesisBlock, config: Config, size: int, precision: Precision) -> None:
        super().__init__()
        residual = block.skip is not None
        gains = [1.0] * len(block.convolutions)
        if residual:
            gains[-1] = math.sqrt(0.5)
        self.layers = nn.ModuleList(
            Layer(layer, config, precision, gain)
            for layer, gain in zip(block.convolutions, gains, strict=True)
        )
        self.shortcut = Shortcut(block.skip, precision) if block.skip is not None else None
        self.colours = Colours(block.torgb, size, precision) if block.torgb is not None else None
        self.larger = _larger(block.resample_filter, config.img_channels, torch.float32) if size > 4 else None

    def forward(
        self, x: Tensor, image: Tensor | None, w: list[Tensor], noise: list[Tensor | None]
    ) -> tuple[Tensor, Tensor | None]:
        kept = self.shortcut(x) if self.shortcut is not None else None
        for layer, style, added in zip(self.layers, w, noise, strict=False):
            x = layer(x, style, added)
        if kept is not None:
            x = x + kept
        if image is not None and self.larger is not None:
            image = self.larger(image)
        if self.colours is not None:
            colour = self.colours(x, w[len(self.layers)])
            image = colour if image is None else image + colour
        return x, image


class SynthesisGraph(nn.Module):
    """(w (B, L, W) [, noise_strength () [, noise_0 (B, 1, 4, 4), …]]) → image (B, C, R, R) float32."""

    const: Tensor

    def __init__(self, network: SynthesisNetwork, config: Config, precision: Precision, noise: Noise) -> None:
        super().__init__()
        self.noise = noise if config.use_noise else "none"
        self.layers = network.layers
        first = network.blocks[0].const
        assert first is not None
        self.register_buffer("const", first.detach()[None].to(PRECISIONS[precision]))
        self.blocks = nn.ModuleList(
            Block(block, config, size, precision)
            for block, size in zip(network.blocks, network.sizes, strict=True)
        )
        if self.noise == "const":
            for n, layer in enumerate(network.convolutions):
                self.register_buffer(f"noise_{n}", layer.noise_const.detach()[None, None])

    def forward(self, w: Tensor, noise_strength: Tensor | None = None, *noises: Tensor) -> Tensor:
        styles = [w[:, n] for n in range(self.layers)]
        x, done = self.const, 0
        image: Tensor | None = None
        for block in self.blocks:
            layers: Any = block.layers
            noise = [self._noise(done + n, layer, noise_strength, noises) for n, layer in enumerate(layers)]
            x, image = block(x, image, styles[done : done + len(layers) + 1], noise)
            done += len(layers)
        assert image is not None
        return image

    def _noise(
        self, n: int, layer: Layer, strength: Tensor | None, given: tuple[Tensor, ...]
    ) -> Tensor | None:
        if strength is None or self.noise == "none":
            return None
        if self.noise == "random":
            return given[n] * (layer.noise_scale * strength)
        return self.get_buffer(f"noise_{n}") * layer.noise_scale * strength


class MappingGraph(nn.Module):
    """(z (B, Z) [, label (B, C)], truncation ()) → w (B, L, W). ``cutoff`` is fixed."""

    drawn: Tensor

    def __init__(self, network: MappingNetwork, cutoff: int | None) -> None:
        super().__init__()
        self.network = network
        drawn = torch.zeros(1, network.layers, 1)
        drawn[:, :cutoff] = 1
        self.register_buffer("drawn", drawn)

    def forward(self, z: Tensor, *others: Tensor) -> Tensor:
        *label, truncation = others
        w = self.network.embedded(z, *label)[:, None]
        average = self.network.w_avg
        # In the layers that are not drawn to the mean the factor is exactly one.
        return average + (w - average) * (self.drawn * (truncation - 1) + 1)


class MappingDefinition(nn.Module):
    """The plain mapping network with the inputs of the graph."""

    def __init__(self, network: MappingNetwork, cutoff: int | None) -> None:
        super().__init__()
        self.network, self.cutoff = network, cutoff

    def forward(self, z: Tensor, *others: Tensor) -> Tensor:
        *label, truncation = others
        w: Tensor = self.network(z, label[0] if label else None, truncation, self.cutoff)
        return w


class SynthesisDefinition(nn.Module):
    """The plain synthesis network with the inputs of the graph."""

    def __init__(self, network: SynthesisNetwork, noise: Noise) -> None:
        super().__init__()
        self.network, self.noise = network, noise

    def forward(self, w: Tensor, noise_strength: Tensor | None = None, *noises: Tensor) -> Tensor:
        if noise_strength is None:
            image: Tensor = self.network(w, "none")
            return image
        layers = self.network.convolutions
        given = noises or [layer.noise_const for layer in layers]
        seen: Tensor = self.network(w, [noise_strength * noise for noise in given])
        return seen


def latents_for(config: MappingSettings) -> Callable[[int, torch.Generator], dict[str, Tensor]]:
    """Example inputs of a mapping network."""

    def latents(batch: int, random: torch.Generator) -> dict[str, Tensor]:
        inputs = {"z": torch.randn(batch, config.z_dim, generator=random)}
        if config.c_dim:
            classes = torch.randint(config.c_dim, (batch,), generator=random)
            inputs["label"] = functional.one_hot(classes, config.c_dim).float()
        return {**inputs, "truncation": torch.tensor(0.7)}

    return latents


def parts(
    checkpoint: Checkpoint,
    precision: Precision = "fp32",
    *,
    noise: Noise = "const",
    cutoff: int | None = None,
) -> list[Part]:
    """Mapping and synthesis, to be exported.

    ``noise``: the checkpoint's own, inputs of the graph ("random"), or none. ``cutoff``: how many layers the
    truncation acts on. Raises ``BadModelFile``, ``BadArgument``.
    """
    network = _opened(checkpoint, cutoff)
    synthesis = SynthesisGraph(network.synthesis, network.config, precision, noise)
    mapping = MappingGraph(network.mapping, cutoff)
    return _described(network, mapping, synthesis, synthesis.noise, cutoff)


def reference_parts(
    checkpoint: Checkpoint, *, noise: Noise = "const", cutoff: int | None = None
) -> list[Part]:
    """The plain definitions with the same inputs."""
    network = _opened(checkpoint, cutoff)
    seen: Noise = noise if network.config.use_noise else "none"
    mapping = MappingDefinition(network.mapping, cutoff)
    return _described(network, mapping, SynthesisDefinition(network.synthesis, seen), seen, cutoff)


def _opened(checkpoint: Checkpoint, cutoff: int | None) -> Generator:
    network = generator(checkpoint)
    if cutoff is not None and not 0 <= cutoff <= network.synthesis.layers:
        raise BadArgument(f"cutoff must be between 0 and {network.synthesis.layers} layers, got {cutoff}")
    return network


def _described(
    network: Generator, mapping: nn.Module, synthesis: nn.Module, noise: Noise, cutoff: int | None
) -> list[Part]:
    config = network.config

    latents = latents_for(config)

    def styles(batch: int, random: torch.Generator) -> dict[str, Tensor]:
        with torch.no_grad():
            inputs = {"w": MappingDefinition(network.mapping, None)(*latents(batch, random).values())}
        if noise != "none":
            inputs["noise_strength"] = torch.tensor(1.0)
        if noise == "random":
            for n, layer in enumerate(network.synthesis.convolutions):
                inputs[f"noise_{n}"] = torch.randn(batch, 1, layer.size, layer.size, generator=random)
        return inputs

    about = {
        "resolution": config.resolution,
        "layers": network.synthesis.layers,
        "noise": noise,
        "truncation_cutoff": cutoff,
        "config": config.as_dict(),
    }
    return [
        Part("mapping", mapping, latents, ("w",), frozenset({"truncation"}), about),
        Part("synthesis", synthesis, styles, ("image",), frozenset({"noise_strength"}), about),
    ]
