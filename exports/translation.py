"""What the exporters of StarGAN v2, StarGAN and GANimation share."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any, Final, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from fastface.checkpoints import Checkpoint
from fastface.checkpoints.kinds import RECOGNISERS
from fastface.errors import BadArgument, BadModelFile
from fastface.exports.graphs import InPrecision, Precision, load_strictly

Settings = TypeVar("Settings")
Network = TypeVar("Network", bound=nn.Module)

MAX_SIZE: Final = 4096
_COUNTER: Final = ".num_batches_tracked"


def settings_of(kind: type[Settings], checkpoint: Checkpoint) -> Settings:
    """The dataclass ``kind`` from the shapes of a checkpoint's tensors. Raises ``BadModelFile``."""
    # Not from what a converted file says of itself: the tensors cannot be wrong about their shapes.
    found = RECOGNISERS[str(checkpoint.kind)](checkpoint.tensors, checkpoint.source)
    if found is None:
        raise BadModelFile(f"{checkpoint.source}: not a checkpoint of {checkpoint.kind}")
    return kind(**{entry.name: found[1][entry.name] for entry in fields(kind)})  # type: ignore[arg-type]


def filled(make: Callable[[], Network], tensors: Mapping[str, NDArray[Any]], source: str) -> Network:
    """The network that ``make`` gives, with these weights, for inference.

    Raises ``BadModelFile`` naming what does not fit, before memory is taken for it. Counters of training
    steps, which PyTorch before 0.4.1 did not store, may be missing.
    """
    with torch.device("meta"):
        outline = make()
    counters = {name: np.zeros((), np.int64) for name in outline.state_dict() if name.endswith(_COUNTER)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that nothing is copied into an outline
        load_strictly(outline, {**counters, **tensors}, source)
    network = make()
    load_strictly(network, {**counters, **tensors}, source)
    return network.eval().requires_grad_(False)


def part_of(tensors: Mapping[str, NDArray[Any]], part: str) -> dict[str, NDArray[Any]]:
    """The tensors of one network of several, without its name."""
    prefix = part + "."
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def in_precision(network: nn.Module, precision: Precision) -> nn.Module:
    """The network in a shorter float. What sums over an image stays in float32: squares overflow in fp16."""
    if precision == "fp32":
        return network
    return InPrecision(network, precision, keep=(nn.InstanceNorm2d,))


def image_size(resolution: int, source: str) -> int:
    """A side that halves twice. Raises ``BadArgument``."""
    if resolution % 4 or not 16 <= resolution <= MAX_SIZE:
        raise BadArgument(f"{source}: resolution is 16 to {MAX_SIZE} in steps of 4, got {resolution}")
    return resolution
