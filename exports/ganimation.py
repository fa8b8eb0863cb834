"""GANimation (Pumarola et al., "GANimation: Anatomically-aware Facial Animation from a Single Image",
ECCV 2018).

Parameter names are those of the authors' ``net_epoch_*_id_G.pth``, misspelling included (``attetion_reg``).
The network gives a colour image and an attention mask; where attention is high the source image stays
(equation 1: output = attention · source + (1 - attention) · colour).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from fastface.checkpoints import Checkpoint
from fastface.exports.graphs import Part, Precision
from fastface.exports.stargan import Folded, trunk, with_planes
from fastface.exports.translation import filled, image_size, in_precision, settings_of


@dataclass(frozen=True)
class Config:
    """What the shapes of a checkpoint tell: number of action units, first width, residual blocks."""

    c_dim: int = 17
    conv_dim: int = 64
    repeat_num: int = 6


class Generator(nn.Module):
    """(image (B, 3, R, R) in [-1, 1], aus (B, 17)) → image, attention (B, 1, R, R) in [0, 1], colour.

    ``aus``: intensities of the 17 action units that OpenFace estimates, divided by 5. ``saturate_mask``:
    push the attention towards 0 and 1, as the authors' ``--do_saturate_mask`` does (off by default).
    """

    def __init__(
        self, c_dim: int = 17, conv_dim: int = 64, repeat_num: int = 6, *, saturate_mask: bool = False
    ) -> None:
        super().__init__()
        self.saturate_mask = saturate_mask
        self.main = nn.Sequential(*trunk(3 + c_dim, conv_dim, repeat_num, track=False))
        self.img_reg = nn.Sequential(nn.Conv2d(conv_dim, 3, 7, padding=3, bias=False), nn.Tanh())
        self.attetion_reg = nn.Sequential(nn.Conv2d(conv_dim, 1, 7, padding=3, bias=False), nn.Sigmoid())

    def forward(self, image: Tensor, aus: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        features = self.main(with_planes(image, aus))
        return blended(image, self.attetion_reg(features), self.img_reg(features), self.saturate_mask)


class FoldedGenerator(nn.Module):
    """The same as ``Generator``; both heads in one convolution."""

    def __init__(self, generator: Generator, resolution: int) -> None:
        super().__init__()
        first, *body = generator.main
        heads: list[Tensor] = [*generator.img_reg.parameters(), *generator.attetion_reg.parameters()]
        self.network = Folded(first, nn.Sequential(*body), torch.cat(heads), resolution)
        self.saturate_mask = generator.saturate_mask

    def forward(self, image: Tensor, aus: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        both = self.network(image, aus)
        return blended(image, torch.sigmoid(both[:, 3:]), torch.tanh(both[:, :3]), self.saturate_mask)


def blended(
    image: Tensor, attention: Tensor, colour: Tensor, saturate: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Equation 1, and what went into it."""
    if saturate:
        attention = (0.55 * torch.tanh(3 * (attention - 0.5)) + 0.5).clamp(0, 1)
    return attention * image + (1 - attention) * colour, attention, colour


def parts(
    checkpoint: Checkpoint,
    precision: Precision = "fp32",
    resolution: int = 128,
    saturate_mask: bool = False,
) -> list[Part]:
    """The one graph to export, ``generator``: image (B, 3, R, R), aus (B, 17) → image_out, attention, colour.

    Raises ``BadModelFile`` naming what does not fit, ``BadArgument``.
    """
    (part,) = reference_parts(checkpoint, resolution, saturate_mask)
    assert isinstance(part.module, Generator)
    return [replace(part, module=in_precision(FoldedGenerator(part.module, resolution), precision))]


def reference_parts(checkpoint: Checkpoint, resolution: int = 128, saturate_mask: bool = False) -> list[Part]:
    """The definition, layer by layer as published, in fp32."""
    config = settings_of(Config, checkpoint)
    size = image_size(resolution, checkpoint.source)
    network = filled(
        lambda: Generator(**asdict(config), saturate_mask=saturate_mask),
        checkpoint.tensors,
        checkpoint.source,
    )

    def example(batch: int, random: torch.Generator) -> dict[str, Tensor]:
        image = torch.rand(batch, 3, size, size, generator=random) * 2 - 1
        return {"image": image, "aus": torch.rand(batch, config.c_dim, generator=random)}

    about: dict[str, Any] = {"resolution": size, "config": {**asdict(config), "saturate_mask": saturate_mask}}
    return [Part("generator", network, example, ("image_out", "attention", "colour"), about=about)]
