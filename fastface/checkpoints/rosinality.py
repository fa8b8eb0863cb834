"""rosinality/stylegan2-pytorch's ``.pt`` under NVIDIA's names.

Both write the same network. Theirs scales the 3x3 weights by 1/√fan-in before demodulation, NVIDIA's PyTorch
code does not; but for the ε inside demodulation the scale cancels, so it is multiplied in here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fastface.checkpoints.allowed import Array, Tensor
from fastface.checkpoints.tensors import Found, Setting, Tensors, as_array, plain_tensors
from fastface.errors import BadModelFile

#: How many latents the mean of w is taken over when a file has none; rosinality's own scripts use as many.
MEAN_SAMPLES: Final = 4096
MAPPING_LR: Final = 0.01


def is_rosinality(value: Any) -> bool:
    """Whether a pickle is a checkpoint of rosinality's, or the state of the generator in one."""
    state = _state(value)
    return isinstance(state, Mapping) and "style.1.weight" in state and "input.input" in state


def _state(value: Any) -> Any:
    if isinstance(value, Mapping):
        for name in ("g_ema", "g"):
            if isinstance(value.get(name), Mapping):
                return value[name]
    return value


def from_rosinality(value: Any, source: str) -> Found:
    """Tensors and settings. Raises ``BadModelFile`` naming what is missing."""
    theirs = plain_tensors(_state(value))
    if theirs is None:
        raise BadModelFile(f"{source}: its generator holds something that is no tensor")
    reader = _Reader(theirs, source)
    layers = sum(re.fullmatch(r"style\.\d+\.weight", name) is not None for name in theirs)
    blocks = sum(re.fullmatch(r"to_rgbs\.\d+\.bias", name) is not None for name in theirs)
    ours: Tensors = {}
    for n in range(layers):
        ours[f"mapping.fc{n}.weight"] = reader.take(f"style.{n + 1}.weight", 2)
        ours[f"mapping.fc{n}.bias"] = reader.take(f"style.{n + 1}.bias", 1)
    ours["synthesis.b4.const"] = reader.take("input.input", 4)[0]
    low_pass = reader.filter(blocks)
    reader.convolution(ours, "conv1", "synthesis.b4.conv1", 0, low_pass)
    reader.to_rgb(ours, "to_rgb1", "synthesis.b4.torgb")
    for n in range(blocks):
        block = f"synthesis.b{8 << n}"
        reader.convolution(ours, f"convs.{2 * n}", f"{block}.conv0", 2 * n + 1, low_pass)
        reader.convolution(ours, f"convs.{2 * n + 1}", f"{block}.conv1", 2 * n + 2, low_pass)
        reader.to_rgb(ours, f"to_rgbs.{n}", f"{block}.torgb")
    for n in range(blocks + 1):
        ours[f"synthesis.b{4 << n}.resample_filter"] = low_pass
    average = value.get("latent_avg") if isinstance(value, Mapping) else None
    if isinstance(average, (Tensor, Array, np.ndarray)):
        ours["mapping.w_avg"] = np.asarray(as_array(average), np.float32).reshape(-1)
    else:
        ours["mapping.w_avg"] = mean_latent(ours, layers)
    return ours, _settings(ours, layers, blocks)


def _settings(ours: Tensors, layers: int, blocks: int) -> dict[str, Setting]:
    return {
        "resolution": 4 << blocks,
        "channels": [ours[f"synthesis.b{4 << n}.conv1.weight"].shape[0] for n in range(blocks + 1)],
        "img_channels": ours["synthesis.b4.torgb.weight"].shape[0],
        "z_dim": ours["mapping.fc0.weight"].shape[1],
        "w_dim": ours[f"mapping.fc{layers - 1}.weight"].shape[0],
        "c_dim": 0,
        "embed_features": 0,
        "mapping_layers": layers,
        "mapping_features": ours["mapping.fc0.weight"].shape[0],
        "mapping_activation": "lrelu",
        "mapping_lr": MAPPING_LR,
        "architecture": "skip",
        "activation": "lrelu",
        "use_noise": True,
        "conv_clamp": 0.0,
        "filter_shape": list(ours["synthesis.b4.resample_filter"].shape),
    }


class _Reader:
    """Tensors by rosinality's names; a missing one is an error with its name."""

    def __init__(self, theirs: Tensors, source: str) -> None:
        self._theirs = theirs
        self._source = source

    def take(self, name: str, axes: int) -> NDArray[Any]:
        if name not in self._theirs:
            raise BadModelFile(f"{self._source}: {name} is missing")
        found = self._theirs[name]
        if found.ndim != axes or not found.size:
            raise BadModelFile(f"{self._source}: {name} has shape {found.shape}, wanted {axes} axes")
        return found

    def filter(self, blocks: int) -> NDArray[Any]:
        """Their blur kernels carry the gain of up-sampling; NVIDIA's filter sums to one."""
        name = "convs.0.conv.blur.kernel"
        kernel = self.take(name, 2) if blocks else np.outer([1, 3, 3, 1], [1, 3, 3, 1])
        total = float(kernel.sum())
        if total <= 0:
            raise BadModelFile(f"{self._source}: {name} does not pass constant images")
        return np.asarray(kernel / total, np.float32)

    def convolution(self, ours: Tensors, theirs: str, name: str, noise: int, low_pass: NDArray[Any]) -> None:
        """A styled convolution with its noise and bias."""
        weight = self.take(f"{theirs}.conv.weight", 5)[0]
        ours[f"{name}.weight"] = weight * np.float32(1 / np.sqrt(np.prod(weight.shape[1:])))
        ours[f"{name}.bias"] = self.take(f"{theirs}.activate.bias", 1)
        ours[f"{name}.affine.weight"] = self.take(f"{theirs}.conv.modulation.weight", 2)
        ours[f"{name}.affine.bias"] = self.take(f"{theirs}.conv.modulation.bias", 1)
        ours[f"{name}.noise_strength"] = self.take(f"{theirs}.noise.weight", 1)[0].reshape(())
        ours[f"{name}.noise_const"] = self._noise(noise)
        ours[f"{name}.resample_filter"] = low_pass

    def _noise(self, n: int) -> NDArray[Any]:
        """The earliest files have no noise of their own: theirs is drawn from its number."""
        if any(name.startswith("noises.") for name in self._theirs):
            return np.asarray(self.take(f"noises.noise_{n}", 4)[0, 0])
        size = 4 << (n + 1) // 2
        return np.random.default_rng(n).standard_normal((size, size), np.float32)

    def to_rgb(self, ours: Tensors, theirs: str, name: str) -> None:
        """A 1x1 convolution to colours, modulated but not demodulated."""
        ours[f"{name}.weight"] = self.take(f"{theirs}.conv.weight", 5)[0]
        ours[f"{name}.bias"] = self.take(f"{theirs}.bias", 4).reshape(-1)
        ours[f"{name}.affine.weight"] = self.take(f"{theirs}.conv.modulation.weight", 2)
        ours[f"{name}.affine.bias"] = self.take(f"{theirs}.conv.modulation.bias", 1)


def mean_latent(ours: Tensors, layers: int) -> NDArray[np.float32]:
    """The mean of w over ``MEAN_SAMPLES`` seeded latents, by the mapping network in numpy."""
    width = ours["mapping.fc0.weight"].shape[1]
    x = np.random.default_rng(0).standard_normal((MEAN_SAMPLES, width), np.float32)
    x /= np.sqrt(np.mean(x**2, axis=1, keepdims=True) + 1e-8)
    for n in range(layers):
        weight, bias = ours[f"mapping.fc{n}.weight"], ours[f"mapping.fc{n}.bias"]
        x = x @ (weight.T * (MAPPING_LR / np.sqrt(weight.shape[1]))) + bias * MAPPING_LR
        x = np.where(x < 0, 0.2 * x, x) * np.sqrt(2)
    return np.asarray(x.mean(axis=0), np.float32)
