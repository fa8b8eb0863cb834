"""StarGAN v2, StarGAN and GANimation: generators that change a picture of a face.

Names are those of clovaai/stargan-v2, yunjey/stargan and albertpumarola/GANimation. None of their files says
how its network was made; the shapes do.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from fastface.checkpoints.tensors import Found, Setting, Tensors, plain_tensors
from fastface.errors import BadModelFile

STARGANV2_PARTS: Final = ("generator", "mapping_network", "style_encoder", "fan")
MAX_WIDTH: Final = 4096
#: PyTorch before 0.4 stored these with every normalisation, used or not.
_STATISTICS: Final = (".running_mean", ".running_var", ".num_batches_tracked")


def recognise_starganv2(value: Any, source: str) -> Found | None:
    """A ``*_nets_ema.ckpt``, its conversion, or the state of a generator alone.

    Tensors are named by part: ``generator.from_rgb.weight`` … A discriminator is left out.
    """
    tensors: Tensors = {}
    if isinstance(value, Mapping) and isinstance(value.get("generator"), Mapping):
        for part in STARGANV2_PARTS:
            for name, tensor in (plain_tensors(value.get(part)) or {}).items():
                tensors[f"{part}.{name}"] = tensor
    else:
        plain = plain_tensors(value) or {}
        bare = "from_rgb.weight" in plain
        for name, tensor in plain.items():
            if bare or name.split(".", 1)[0] in STARGANV2_PARTS:
                tensors[f"generator.{name}" if bare else name] = tensor
    if not any(re.match(r"generator\.(from_rgb|to_rgb|encode|decode)\.", name) for name in tensors):
        return None
    return tensors, _starganv2_settings(tensors, source)


def recognise_stargan(value: Any, source: str) -> Found | None:
    """A generator's state, ``*-G.ckpt``."""
    tensors = plain_tensors(value) or {}
    if any(name.startswith("img_reg.") for name in tensors) or not _blocks(tensors):
        return None
    settings = _hourglass_settings(tensors, source)
    settings["running_statistics"] = any(name.endswith(".running_mean") for name in tensors)
    return tensors, settings


def recognise_ganimation(value: Any, source: str) -> Found | None:
    """A generator's state, ``net_epoch_*_id_G.pth``."""
    tensors = plain_tensors(value) or {}
    if not any(name.startswith(("img_reg.", "attetion_reg.")) for name in tensors) or not _blocks(tensors):
        return None
    tensors = {name: tensor for name, tensor in tensors.items() if not name.endswith(_STATISTICS)}
    return tensors, _hourglass_settings(tensors, source)


def _starganv2_settings(tensors: Tensors, source: str) -> dict[str, Setting]:
    width = _shape(tensors, "generator.from_rgb.weight", 4, source)[0]
    resolution = 2**14 // width
    if resolution * width != 2**14 or not 32 <= resolution <= 1024:
        raise BadModelFile(
            f"{source}: {width} channels at full size; wanted 16 to 512, a power of two (2^14 / resolution)"
        )
    encoder = _count(tensors, r"generator\.encode\.(\d{1,3})\.")
    plain = resolution.bit_length() - 3  # halvings down to 16x16, and two blocks there
    if encoder not in (plain, plain + 1):
        raise BadModelFile(
            f"{source}: {encoder} encoder blocks; a generator of {resolution}x{resolution} has {plain}, or "
            f"{plain + 1} with the high-pass path"
        )
    widest = _shape(tensors, f"generator.encode.{encoder - 1}.conv2.weight", 4, source)[0]
    style_dim = _shape(tensors, "generator.decode.0.norm1.fc.weight", 2, source)[1]
    settings: dict[str, Setting] = {
        "resolution": resolution,
        "style_dim": style_dim,
        "max_conv_dim": widest,
        # The strength of the edges is in no tensor. The authors' face model uses 1, their animal model none.
        "w_hpf": float(encoder - plain),
        "latent_dim": 0,
        "hidden_dim": 0,
        "num_domains": 0,
    }
    domains = {}
    if any(name.startswith("mapping_network.") for name in tensors):
        shape = _shape(tensors, "mapping_network.shared.0.weight", 2, source)
        settings["hidden_dim"], settings["latent_dim"] = shape
        domains["mapping_network"] = _count(tensors, r"mapping_network\.unshared\.(\d{1,5})\.")
    if any(name.startswith("style_encoder.") for name in tensors):
        domains["style_encoder"] = _count(tensors, r"style_encoder\.unshared\.(\d{1,5})\.")
    if domains:
        settings["num_domains"] = max(domains.values())
    if len(set(domains.values())) > 1 or 0 in domains.values():
        counts = " and ".join(f"{part} has {count}" for part, count in domains.items())
        raise BadModelFile(f"{source}: domains do not agree: {counts}")
    return settings


def _hourglass_settings(tensors: Tensors, source: str) -> dict[str, Setting]:
    """Of StarGAN's generator, and of GANimation's, which has the same trunk."""
    width, planes, height, breadth = _shape(tensors, "main.0.weight", 4, source)
    if planes <= 3 or (height, breadth) != (7, 7):
        raise BadModelFile(
            f"{source}: main.0.weight has shape {tensors['main.0.weight'].shape}, wanted (N, 3 + C, 7, 7)"
        )
    return {"c_dim": planes - 3, "conv_dim": width, "repeat_num": _blocks(tensors)}


def _blocks(tensors: Tensors) -> int:
    """How many residual blocks: the only entries of the trunk that have a ``main`` of their own."""
    return _count(tensors, r"main\.(\d{1,3})\.main\.")


def _count(tensors: Tensors, pattern: str) -> int:
    return len({found[1] for name in tensors if (found := re.match(pattern, name))})


def _shape(tensors: Tensors, name: str, axes: int, source: str) -> tuple[int, ...]:
    if name not in tensors:
        raise BadModelFile(f"{source}: {name} is missing")
    shape = tensors[name].shape
    if len(shape) != axes or not all(1 <= size <= MAX_WIDTH for size in shape):
        raise BadModelFile(f"{source}: {name} has shape {shape}, wanted {axes} axes of 1 to {MAX_WIDTH}")
    return shape
