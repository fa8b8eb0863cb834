"""StyleGAN2 and StyleGAN3: the files of NVIDIA (PyTorch and TensorFlow) and of rosinality, one set of names.

The names are those of ``G_ema`` in NVlabs/stylegan2-ada-pytorch and NVlabs/stylegan3. Settings that shapes do
not tell come from the attributes of the pickled networks, not from the arguments that they were made with: a
default may have changed between the releases that wrote the files.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

import numpy as np

from fastface.checkpoints.allowed import Array, Tensor
from fastface.checkpoints.rosinality import from_rosinality, is_rosinality
from fastface.checkpoints.tensorflow import from_tensorflow, is_tensorflow
from fastface.checkpoints.tensors import Found, Setting, Tensors, as_array, plain_tensors
from fastface.checkpoints.unpickling import Record, shown
from fastface.errors import BadModelFile

MAX_DEPTH: Final = 16
MAX_MODULES: Final = 10_000


def recognise_stylegan2(value: Any, source: str) -> Found | None:
    """A StyleGAN2 generator in whichever of its four files."""
    if is_tensorflow(value):
        return from_tensorflow(value, source)
    if is_rosinality(value):
        return from_rosinality(value, source)
    network = generator_record(value)
    if network is not None:
        tensors = module_tensors(network, source)
        return (tensors, _settings2(network, tensors, source)) if "synthesis.b4.const" in tensors else None
    tensors = plain_tensors(_generator_state(value)) or {}
    return (tensors, _shapes2(tensors, source)) if "synthesis.b4.const" in tensors else None


def recognise_stylegan3(value: Any, source: str) -> Found | None:
    """A StyleGAN3 generator, of a pickle or of a plain table of its state."""
    network = generator_record(value)
    if network is not None:
        tensors = module_tensors(network, source)
        return (tensors, _settings3(network, source)) if "synthesis.input.freqs" in tensors else None
    tensors = plain_tensors(_generator_state(value)) or {}
    return (tensors, _shapes3(tensors, source)) if "synthesis.input.freqs" in tensors else None


def _generator_state(value: Any) -> Any:
    """The state of the generator in a table of several networks' states."""
    if isinstance(value, Mapping):
        for name in ("G_ema", "g_ema"):
            if isinstance(value.get(name), Mapping):
                return value[name]
    return value


def generator_record(value: Any) -> Record | None:
    """The averaged generator of a training snapshot, or the network itself."""
    if isinstance(value, Mapping):
        value = value.get("G_ema")
    return value if isinstance(value, Record) and "_parameters" in value.state else None


# -- networks as records of their attributes -----------------------------------------------------------------


def module_tensors(network: Record, source: str) -> Tensors:
    """Parameters and buffers of a module and all in it, by their dotted names."""
    return {name: as_array(tensor) for name, tensor in _named_tensors(network, source)}


def _named_tensors(network: Record, source: str) -> Iterator[tuple[str, Tensor | Array]]:
    waiting = [("", network, 0)]
    for _ in range(MAX_MODULES):
        if not waiting:
            return
        prefix, module, depth = waiting.pop()
        for table in ("_parameters", "_buffers"):
            for name, tensor in table_of(module, table, source).items():
                if isinstance(tensor, (Tensor, Array)):
                    yield prefix + name, tensor
        for name, child in table_of(module, "_modules", source).items():
            if isinstance(child, Record) and depth < MAX_DEPTH:
                waiting.append((f"{prefix}{name}.", child, depth + 1))
    raise BadModelFile(f"{source}: more than {MAX_MODULES} modules; refused")


def table_of(module: Record, name: str, source: str) -> Mapping[str, Any]:
    """``_parameters``, ``_buffers`` or ``_modules`` of a module."""
    found = module.state.get(name, {})
    if not isinstance(found, Mapping) or not all(isinstance(key, str) for key in found):
        raise BadModelFile(f"{source}: {shown(module.kind)} has no table {name}")
    return found


def child(module: Record, path: str, source: str) -> Record:
    """A module inside a module, by its dotted name."""
    for name in path.split("."):
        found = table_of(module, "_modules", source).get(name)
        if not isinstance(found, Record):
            raise BadModelFile(f"{source}: the generator has no {shown(path)}")
        module = found
    return module


def attribute(module: Record, name: str, default: Any) -> Any:
    """A plain attribute, of the type of ``default``; ``default`` when it is not there or None."""
    found = module.state.get(name)
    if isinstance(found, Array):
        found = found.numpy().tolist()
    if isinstance(default, float) and type(found) is int:
        found = float(found)
    return found if type(found) is type(default) else default


# -- StyleGAN2 -----------------------------------------------------------------------------------------------


def _settings2(network: Record, tensors: Tensors, source: str) -> dict[str, Setting]:
    mapping, synthesis = child(network, "mapping", source), child(network, "synthesis", source)
    block = child(synthesis, "b4", source)
    layer = child(block, "conv1", source)
    settings = _shapes2(tensors, source)
    settings["architecture"] = attribute(block, "architecture", settings["architecture"])
    settings["activation"] = attribute(layer, "activation", "lrelu")
    settings["conv_clamp"] = attribute(layer, "conv_clamp", 0.0)
    if "fc0" in table_of(mapping, "_modules", source):
        dense = child(mapping, "fc0", source)
        settings["mapping_activation"] = attribute(dense, "activation", "lrelu")
        settings["mapping_lr"] = attribute(dense, "bias_gain", 0.01)
    return settings


def _shapes2(tensors: Tensors, source: str) -> dict[str, Setting]:
    """What the names and shapes of a StyleGAN2 tell; NVIDIA's defaults for the rest."""
    resolutions = sorted(
        {int(found[1]) for name in tensors if (found := re.match(r"synthesis\.b(\d{1,4})\.", name))}
    )
    if resolutions != [4 << n for n in range(len(resolutions))]:
        raise BadModelFile(
            f"{source}: a StyleGAN2 of resolutions {resolutions}; wanted 4, 8, 16 … without a gap"
        )
    layers = [name for name in tensors if re.fullmatch(r"mapping\.fc\d{1,3}\.weight", name)]
    first = _shape(tensors, "mapping.fc0.weight", 2, source)
    last = _shape(tensors, f"mapping.fc{len(layers) - 1}.weight", 2, source)
    classes = (
        _shape(tensors, "mapping.embed.weight", 2, source) if "mapping.embed.weight" in tensors else (0, 0)
    )
    skip = any(re.fullmatch(r"synthesis\.b\d+\.skip\.weight", name) for name in tensors)
    small = "synthesis.b4.torgb.weight" in tensors
    return {
        "resolution": resolutions[-1],
        "channels": [
            _shape(tensors, f"synthesis.b{size}.conv1.weight", 4, source)[0] for size in resolutions
        ],
        "img_channels": _shape(tensors, f"synthesis.b{resolutions[-1]}.torgb.weight", 4, source)[0],
        "z_dim": first[1] - classes[0],
        "w_dim": last[0],
        "c_dim": classes[1],
        "embed_features": classes[0],
        "mapping_layers": len(layers),
        "mapping_features": first[0],
        "mapping_activation": "lrelu",
        "mapping_lr": 0.01,
        "architecture": "resnet" if skip else "skip" if small else "orig",
        "activation": "lrelu",
        "use_noise": "synthesis.b4.conv1.noise_const" in tensors,
        "conv_clamp": 0.0,
        "filter_shape": list(tensors.get("synthesis.b4.resample_filter", np.zeros((4, 4))).shape),
    }


def _shape(tensors: Tensors, name: str, axes: int, source: str) -> tuple[int, ...]:
    if name not in tensors:
        raise BadModelFile(f"{source}: {name} is missing")
    if tensors[name].ndim != axes:
        raise BadModelFile(f"{source}: {name} has shape {tensors[name].shape}, wanted {axes} axes")
    return tensors[name].shape


# -- StyleGAN3 -----------------------------------------------------------------------------------------------

#: Arguments of SynthesisNetwork and of its layers that decide the layers' sizes and filters, with defaults.
SYNTHESIS3: Final[dict[str, Setting]] = {
    "channel_base": 32768,
    "channel_max": 512,
    "num_layers": 14,
    "num_critical": 2,
    "first_cutoff": 2.0,
    "first_stopband": 2**2.1,
    "last_stopband_rel": 2**0.3,
    "margin_size": 10,
    "output_scale": 0.25,
    "conv_kernel": 3,
    "filter_size": 6,
    "lrelu_upsampling": 2,
    "use_radial_filters": False,
    "conv_clamp": 256.0,
}


def _settings3(network: Record, source: str) -> dict[str, Setting]:
    tensors = module_tensors(network, source)
    settings = _shapes3(tensors, source)
    arguments: dict[str, Any] = {}
    for module in (network, child(network, "synthesis", source)):
        made_with = module.state.get("_init_kwargs")
        arguments |= made_with if isinstance(made_with, Mapping) else {}
    for name, default in SYNTHESIS3.items():
        if name in arguments:
            settings[name] = _argument(arguments[name], default, name, source)
    mapping, synthesis = child(network, "mapping", source), child(network, "synthesis", source)
    settings["output_scale"] = attribute(synthesis, "output_scale", settings["output_scale"])
    dense = child(mapping, "fc0", source)
    settings["mapping_lr"] = attribute(dense, "bias_gain", 0.01)
    return settings


def _argument(value: Any, default: Setting, name: str, source: str) -> Setting:
    if isinstance(value, Array):
        value = value.numpy().item()
    if value is None and name == "conv_clamp":
        return 0.0
    if isinstance(default, float) and type(value) is int:
        value = float(value)
    if isinstance(default, int) and isinstance(value, float) and value.is_integer():
        value = int(value)
    if type(value) is not type(default):
        wanted, got = type(default).__name__, type(value).__name__
        raise BadModelFile(f"{source}: the generator's {name} is a {got}, wanted {wanted}")
    made: Setting = value
    return made


def _shapes3(tensors: Tensors, source: str) -> dict[str, Setting]:
    """What the names and shapes of a StyleGAN3 tell; NVIDIA's defaults for the rest."""
    layers: dict[int, tuple[int, str]] = {}
    for name in tensors:
        if found := re.fullmatch(r"(synthesis\.L(\d{1,3})_(\d{1,5})_\d{1,5})\.weight", name):
            layers[int(found[2])] = (int(found[3]), found[1])
    if sorted(layers) != list(range(len(layers))) or len(layers) < 3:
        raise BadModelFile(
            f"{source}: a StyleGAN3 of layers {sorted(layers)}; wanted 0, 1, 2 … without a gap"
        )
    kernel = _shape(tensors, f"{layers[0][1]}.weight", 4, source)[2]
    first = _shape(tensors, "mapping.fc0.weight", 2, source)
    classes = (
        _shape(tensors, "mapping.embed.weight", 2, source) if "mapping.embed.weight" in tensors else (0, 0)
    )
    widest = max(_shape(tensors, f"{name}.weight", 4, source)[0] for _, name in layers.values())
    radial = any(
        tensors[f"{name}.down_filter"].ndim == 2
        for _, name in layers.values()
        if f"{name}.down_filter" in tensors
    )
    dense = [name for name in tensors if re.fullmatch(r"mapping\.fc\d{1,3}\.weight", name)]
    return {
        **SYNTHESIS3,
        "resolution": layers[len(layers) - 1][0],
        "img_channels": _shape(tensors, f"{layers[len(layers) - 1][1]}.weight", 4, source)[0],
        "z_dim": first[1] - classes[0],
        "w_dim": first[0],
        "c_dim": classes[1],
        "mapping_layers": len(dense),
        "mapping_lr": 0.01,
        "num_layers": len(layers) - 1,
        "conv_kernel": kernel,
        # The two published sizes: T has at most 512 channels and R twice as many.
        "channel_max": widest,
        "channel_base": 65536 if radial else 32768,
        "use_radial_filters": radial,
    }
