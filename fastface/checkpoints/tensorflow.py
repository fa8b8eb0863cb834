"""NVIDIA's TensorFlow pickles of StyleGAN2 (and StyleGAN2-ADA) under the names of their PyTorch code.

A pickle is (G, D, Gs), each a ``Network`` whose state has ``static_kwargs``, ``variables`` [(name, array)]
and ``components``: the mapping and the synthesis network. Kernels are (kh, kw, in, out) there; those of the
layers that double the size are stored turned by 180°; biases of the styles are relative to one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fastface.checkpoints.allowed import Array
from fastface.checkpoints.tensors import Found, Setting, Tensors
from fastface.checkpoints.unpickling import Record, shown
from fastface.errors import BadModelFile

NETWORK: Final = "dnnlib.tflib.network.Network"
MIN_VERSION: Final = 4
FOUR_TAPS: Final = np.outer([1, 3, 3, 1], [1, 3, 3, 1]).astype(np.float32) / 64
MAX_DEPTH: Final = 4


def is_tensorflow(value: Any) -> bool:
    """Whether a pickle is a TensorFlow network of NVIDIA's, or the three of a training snapshot."""
    networks = value if isinstance(value, (tuple, list)) and value else (value,)
    return all(isinstance(network, Record) and network.kind == NETWORK for network in networks)


def from_tensorflow(value: Any, source: str) -> Found:
    """Tensors and settings of the averaged generator, the last of the three. Raises ``BadModelFile``."""
    network = value[-1] if isinstance(value, (tuple, list)) else value
    version = network.state.get("version")
    if not isinstance(version, int) or version < MIN_VERSION:
        raise BadModelFile(
            f"{source}: a TensorFlow network of version {shown(version)}; "
            f"StyleGAN2's are {MIN_VERSION} and later"
        )
    variables = _variables(network, source)
    if "mapping/Dense0/weight" not in variables or "synthesis/4x4/Const/const" not in variables:
        raise BadModelFile(f"{source}: a TensorFlow network, but not a generator of StyleGAN2")
    return _converted(_Reader(variables, source), _settings(network, variables, source))


def _variables(network: Record, source: str) -> dict[str, NDArray[Any]]:
    found: dict[str, NDArray[Any]] = {}
    waiting = [("", network, 0)]
    while waiting:
        prefix, part, depth = waiting.pop()
        for entry in part.state.get("variables") or ():
            if not isinstance(entry, (tuple, list)) or len(entry) != 2 or not isinstance(entry[0], str):
                raise BadModelFile(f"{source}: a variable that is no name and array")
            name, array = entry
            if isinstance(array, (int, float)):
                found[prefix + name] = np.asarray(array, np.float32)
            elif isinstance(array, Array):
                found[prefix + name] = array.numpy()
        components = part.state.get("components") or {}
        if not isinstance(components, Mapping) or depth >= MAX_DEPTH:
            raise BadModelFile(f"{source}: networks inside networks without end")
        for name, inner in components.items():
            if isinstance(inner, Record) and inner.kind == NETWORK:
                waiting.append((f"{prefix}{name}/", inner, depth + 1))
    # Files that were written from one flat scope call the two networks G_mapping and G_synthesis.
    return {name.removeprefix("G_"): array for name, array in found.items()}


def _settings(network: Record, variables: Mapping[str, Any], source: str) -> dict[str, Setting]:
    given = network.state.get("static_kwargs")
    given = given if isinstance(given, Mapping) else {}
    known: set[str] = {
        "truncation_psi", "truncation_cutoff", "style_mixing_prob", "structure", "conditioning",
        "fused_modconv", "num_fp16_res", "w_avg_beta", "fmap_base", "fmap_max", "label_fmaps",
        "mapping_fmaps", "architecture",
    }  # fmt: skip

    def setting(name: str, default: Any) -> Any:
        known.add(name)
        value = given.get(name)
        return value if type(value) is type(default) or (value and isinstance(default, float)) else default

    flat = any(name.startswith("synthesis/ToRGB_lod") for name in variables)
    settings: dict[str, Setting] = {
        "resolution": setting("resolution", 1024),
        "img_channels": setting("num_channels", 3),
        "z_dim": setting("latent_size", 512),
        "w_dim": setting("dlatent_size", 512),
        "c_dim": setting("label_size", 0),
        "mapping_layers": setting("mapping_layers", 8),
        "mapping_activation": setting("mapping_nonlinearity", "lrelu"),
        "mapping_lr": float(setting("mapping_lrmul", 0.01)),
        "architecture": "orig" if flat else setting("architecture", "skip"),
        "activation": setting("nonlinearity", "lrelu"),
        "use_noise": setting("use_noise", True),
        "conv_clamp": float(setting("conv_clamp", 0.0)),
    }
    kernel = setting("resample_kernel", [1, 3, 3, 1])
    settings["resample_kernel"] = [float(tap) for tap in kernel]
    unknown = sorted(str(name) for name in given if name not in known)
    if unknown:
        raise BadModelFile(
            f"{source}: a generator made with {shown(unknown[0])}, which StyleGAN2 does not know"
        )
    resolution = settings["resolution"]
    if not isinstance(resolution, int) or resolution not in [4 << n for n in range(9)]:
        raise BadModelFile(f"{source}: resolution {shown(resolution)}; wanted a power of two from 4 to 1024")
    return settings


class _Reader:
    """Variables by name; a missing one is an error with its name."""

    def __init__(self, variables: dict[str, NDArray[Any]], source: str) -> None:
        self._variables = variables
        self._source = source

    def has(self, name: str) -> bool:
        return name in self._variables

    def take(self, name: str, axes: int) -> NDArray[Any]:
        if name not in self._variables:
            raise BadModelFile(f"{self._source}: {name} is missing")
        found = self._variables[name]
        if found.ndim != axes:
            raise BadModelFile(f"{self._source}: {name} has shape {found.shape}, wanted {axes} axes")
        return np.asarray(found, np.float32)

    def dense(self, ours: Tensors, theirs: str, name: str) -> None:
        ours[f"{name}.weight"] = self.take(f"{theirs}/weight", 2).T
        ours[f"{name}.bias"] = self.take(f"{theirs}/bias", 1)

    def kernel(self, name: str, *, turned: bool) -> NDArray[Any]:
        weight = self.take(name, 4)
        return (weight[::-1, ::-1] if turned else weight).transpose(3, 2, 0, 1)

    def modulated(self, ours: Tensors, theirs: str, name: str, *, turned: bool = False) -> None:
        ours[f"{name}.weight"] = self.kernel(f"{theirs}/weight", turned=turned)
        ours[f"{name}.bias"] = self.take(f"{theirs}/bias", 1)
        ours[f"{name}.affine.weight"] = self.take(f"{theirs}/mod_weight", 2).T
        ours[f"{name}.affine.bias"] = self.take(f"{theirs}/mod_bias", 1) + 1

    def noise(self, ours: Tensors, theirs: str, name: str, index: int) -> None:
        ours[f"{name}.noise_strength"] = self.take(f"{theirs}/noise_strength", 0)
        ours[f"{name}.noise_const"] = self.take(f"synthesis/noise{index}", 4)[0, 0]


def _converted(reader: _Reader, settings: dict[str, Any]) -> Found:
    ours: Tensors = {"mapping.w_avg": reader.take("dlatent_avg", 1)}
    if settings["c_dim"]:
        reader.dense(ours, "mapping/LabelEmbed", "mapping.embed")
    for n in range(settings["mapping_layers"]):
        reader.dense(ours, f"mapping/Dense{n}", f"mapping.fc{n}")
    taps = np.asarray(settings.pop("resample_kernel"), np.float32)
    low_pass = taps if len(taps) >= 8 else np.outer(taps, taps)
    low_pass = low_pass / low_pass.sum()
    levels = settings["resolution"].bit_length() - 2
    for level in range(levels):
        _block(reader, ours, settings, 4 << level, low_pass)
    settings["channels"] = [ours[f"synthesis.b{4 << n}.conv1.weight"].shape[0] for n in range(levels)]
    settings["mapping_features"] = ours["mapping.fc0.weight"].shape[0]
    settings["embed_features"] = ours["mapping.embed.weight"].shape[0] if settings["c_dim"] else 0
    settings["filter_shape"] = list(low_pass.shape)
    return {
        name: np.ascontiguousarray(tensor).reshape(tensor.shape) for name, tensor in ours.items()
    }, settings


def _block(
    reader: _Reader, ours: Tensors, settings: Mapping[str, Any], size: int, low_pass: NDArray[Any]
) -> None:
    theirs, name = f"synthesis/{size}x{size}", f"synthesis.b{size}"
    convolution: Callable[..., None] = reader.modulated
    ours[f"{name}.resample_filter"] = low_pass
    index = 2 * (size.bit_length() - 1) - 5  # of the block's first noise
    if size == 4:
        ours[f"{name}.const"] = reader.take(f"{theirs}/Const/const", 4)[0]
        layers = {"conv1": (f"{theirs}/Conv", 0)}
    else:
        layers = {"conv0": (f"{theirs}/Conv0_up", index), "conv1": (f"{theirs}/Conv1", index + 1)}
    for layer, (source, noise) in layers.items():
        convolution(ours, source, f"{name}.{layer}", turned=layer == "conv0")
        # A layer that keeps its size never filters; NVIDIA's PyTorch code gives it one of four taps.
        ours[f"{name}.{layer}.resample_filter"] = low_pass if layer == "conv0" else FOUR_TAPS
        if settings["use_noise"]:
            reader.noise(ours, source, f"{name}.{layer}", noise)
    last = size == settings["resolution"]
    if last or settings["architecture"] == "skip":
        flat = f"synthesis/ToRGB_lod{(settings['resolution'] // size).bit_length() - 1}"
        convolution(ours, flat if reader.has(f"{flat}/weight") else f"{theirs}/ToRGB", f"{name}.torgb")
    if size > 4 and settings["architecture"] == "resnet":
        ours[f"{name}.skip.weight"] = reader.kernel(f"{theirs}/Skip/weight", turned=True)
        ours[f"{name}.skip.resample_filter"] = low_pass
