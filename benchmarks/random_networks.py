"""Generators with seeded random weights, as checkpoints: full size for timing, small for checks of format."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from fastface.checkpoints import Checkpoint
from fastface.exports import (
    ganimation,
    stargan,
    starganv2,
    stylegan2,
    stylegan2_graphs,
    stylegan3,
    stylegan3_graphs,
)
from fastface.exports.fan import FAN
from fastface.exports.graphs import Part, Precision, export_part
from fastface.exports.stylegan2 import tensors_of

Kind = Literal["stylegan2", "stylegan3", "starganv2", "stargan", "ganimation"]
SHA256 = "0" * 64
_MODULES: dict[str | None, Any] = {
    "stylegan2": stylegan2_graphs,
    "stylegan3": stylegan3_graphs,
    "starganv2": starganv2,
    "stargan": stargan,
    "ganimation": ganimation,
}


def checkpoint(
    kind: Kind, *, resolution: int = 256, small: bool = False, high_pass: bool = False
) -> Checkpoint:
    """Random weights of the published architecture at ``resolution``; ``small`` has a few channels."""
    torch.manual_seed(0)
    networks: dict[str, nn.Module]
    settings: dict[str, Any]
    if kind == "stylegan2":
        # The authors' settings: paper256 has half the channels of config-f's 1024.
        width = {"channel_base": 16384 if resolution <= 256 else 32768}
        if small:
            width = {"channel_base": 256, "channel_max": 16, "w_dim": 32, "z_dim": 32}
        config = stylegan2.Config.standard(resolution, **width)
        networks, settings = {"": stylegan2.Generator(config)}, config.as_dict()
    elif kind == "stylegan3":
        few: dict[str, Any] = (
            {"channel_base": 512, "channel_max": 16, "w_dim": 32, "z_dim": 32} if small else {}
        )
        third = stylegan3.Config(resolution, **few)
        networks, settings = {"": stylegan3.Generator(third)}, third.as_dict()
    elif kind == "starganv2":
        size = {"max_conv_dim": 32, "hidden_dim": 32} if small else {}
        made = starganv2.Config(resolution=resolution, w_hpf=float(high_pass), **size)
        networks = {
            "generator.": starganv2.Generator(made),
            "mapping_network.": starganv2.MappingNetwork(made),
            "style_encoder.": starganv2.StyleEncoder(made),
        }
        if high_pass:
            networks["fan."] = FAN()
        settings = asdict(made)
    else:
        module: Any = {"stargan": stargan, "ganimation": ganimation}[kind]
        shape = module.Config(conv_dim=8, repeat_num=1) if small else module.Config()
        settings = asdict(shape)
        sizes = {name: value for name, value in settings.items() if name != "running_statistics"}
        networks = {"": module.Generator(**sizes)}
    tensors = {
        prefix + name: value
        for prefix, network in networks.items()
        for name, value in tensors_of(network).items()
    }
    return Checkpoint(kind, tensors, settings, f"random {kind}", SHA256)


def graph_parts(found: Checkpoint, precision: Precision = "fp32", **how: Any) -> list[Part]:
    """The parts that an export of the checkpoint writes."""
    parts: list[Part] = _MODULES[found.kind].parts(found, precision, **how)
    return parts


def definitions(found: Checkpoint, **how: Any) -> list[Part]:
    """The same parts as they were published, layer by layer."""
    parts: list[Part] = _MODULES[found.kind].reference_parts(found, **how)
    return parts


def write(found: Checkpoint, net: Path, precision: Precision = "fp32", **how: Any) -> list[Path]:
    """Export it; the files."""
    kind = found.kind or ""
    return [
        export_part(part, net, kind=kind, checkpoint_sha256=SHA256, precision=precision)
        for part in graph_parts(found, precision, **how)
    ]
