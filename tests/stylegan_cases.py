"""Small StyleGANs with weights that follow from their names, and the inputs to compare them on.

``stylegan_reference.npz`` holds what the authors' own code gives for them; ``make_stylegan_reference.py``
made it.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

#: Case → arguments of the authors' Generator in training/networks.py (ADA) or networks_stylegan2.py.
STYLEGAN2: Final[dict[str, dict[str, Any]]] = {
    "skip": {"synthesis_kwargs": {"channel_base": 512, "channel_max": 24}},
    "config-e widths": {
        "synthesis_kwargs": {"channel_base": 1024, "channel_max": 48, "conv_clamp": 256, "num_fp16_res": 4}
    },
    "resnet": {
        "synthesis_kwargs": {
            "channel_base": 512,
            "channel_max": 24,
            "architecture": "resnet",
            "conv_clamp": 2,
        }
    },
    "orig": {"synthesis_kwargs": {"channel_base": 512, "channel_max": 24, "architecture": "orig"}},
    "classes": {
        "c_dim": 5,
        "mapping_kwargs": {"num_layers": 2, "embed_features": 40, "layer_features": 56, "lr_multiplier": 0.1},
        "synthesis_kwargs": {"channel_base": 512, "channel_max": 24},
    },
    "no noise": {"synthesis_kwargs": {"channel_base": 512, "channel_max": 24, "use_noise": False}},
    "three taps": {
        "synthesis_kwargs": {"channel_base": 512, "channel_max": 24, "resample_filter": [1, 4, 2]}
    },
    "swish": {"synthesis_kwargs": {"channel_base": 512, "channel_max": 24, "activation": "swish"}},
}
#: Case → arguments of the authors' Generator in training/networks_stylegan3.py.
STYLEGAN3: Final[dict[str, dict[str, Any]]] = {
    "T": {"channel_base": 512, "channel_max": 24, "num_layers": 8},
    "R": {
        "channel_base": 1024,
        "channel_max": 48,
        "num_layers": 8,
        "conv_kernel": 1,
        "use_radial_filters": True,
    },
    "unusual": {
        "c_dim": 5,
        "mapping_kwargs": {"num_layers": 3, "lr_multiplier": 0.05},
        "channel_base": 512,
        "channel_max": 16,
        "num_layers": 6,
        "num_critical": 1,
        "margin_size": 6,
        "first_cutoff": 3,
        "filter_size": 4,
        "conv_clamp": 2,
        "output_scale": 1.0,
    },
}
RESOLUTION: Final = 32
WIDTH: Final = 64
TRUNCATION: Final = 0.7
CUTOFF: Final = 3
#: Buffers that are part of the architecture, not of the weights.
DESIGNED: Final = ("resample_filter", "up_filter", "down_filter")


def weights(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, NDArray[np.float32]]:
    """A value for each parameter and buffer but the designed filters."""
    return {
        name: _weight(name, shape)
        for name, shape in shapes.items()
        if name.rpartition(".")[2] not in DESIGNED
    }


def _weight(name: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
    random = np.random.RandomState(zlib.crc32(name.encode()))
    value = np.asarray(random.standard_normal(shape), np.float32)
    leaf = name.rpartition(".")[2]
    if leaf == "magnitude_ema":
        return np.float32(0.5) + np.abs(value)
    if leaf == "transform":
        return np.eye(3, dtype=np.float32) + 0.05 * value * np.array([[1], [1], [0]], np.float32)
    if name.endswith("affine.bias"):
        return 1 + 0.2 * value
    scale = {"noise_strength": 0.3, "w_avg": 0.3, "bias": 0.3, "phases": 0.3}.get(leaf, 1.0)
    if name.startswith("mapping.fc"):
        scale = 30.0 if leaf == "weight" else 3.0  # divided by their small learning rate
    return np.asarray(scale * value, np.float32)


def latents() -> NDArray[np.float32]:
    """z (2, WIDTH)."""
    return np.random.RandomState(0).standard_normal((2, WIDTH)).astype(np.float32)


def labels() -> NDArray[np.float32]:
    """One of five classes each."""
    return np.eye(5, dtype=np.float32)[[1, 3]]
