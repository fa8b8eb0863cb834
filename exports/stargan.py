"""StarGAN (Choi et al., "StarGAN: Unified Generative Adversarial Networks for Multi-Domain Image-to-Image
Translation", CVPR 2018), table 4.

Parameter names are those of the authors' ``*-G.ckpt``. The label is any vector: attributes, a one-hot
expression, or continuous valence and arousal.

Instance normalisation: the authors' layers keep running statistics, but their own testing never leaves
training mode, so every image is normalised by itself. That is ``statistics="instance"`` and what an export
does unless told otherwise; ``"running"`` is what ``.eval()`` of the authors' network computes.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from fastface.checkpoints import Checkpoint
from fastface.errors import BadArgument
from fastface.exports.folding import FourPixels, LabelConv
from fastface.exports.graphs import Part, Precision
from fastface.exports.translation import filled, image_size, in_precision, settings_of

Statistics = Literal["instance", "running"]


@dataclass(frozen=True)
class Config:
    """What the shapes of a checkpoint tell: length of the label, first width, residual blocks."""

    c_dim: int = 5
    conv_dim: int = 64
    repeat_num: int = 6
    #: Whether the checkpoint has running statistics.
    running_statistics: bool = True


class TrackingInstanceNorm(nn.InstanceNorm2d):
    """Instance normalisation that carries running statistics and says which of the two it uses.

    ``statistics`` None: by mode, like torch's own (whose instance mode with buffers cannot be exported). It
    never updates the running statistics: nothing is trained here.
    """

    statistics: Statistics | None = None

    def __init__(self, channels: int) -> None:
        super().__init__(channels, affine=True, track_running_stats=True)

    def forward(self, x: Tensor) -> Tensor:
        if self.statistics == "instance" or (self.statistics is None and self.training):
            return functional.instance_norm(x, None, None, self.weight, self.bias, eps=self.eps)
        return functional.batch_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
        )


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions around the input; the same in GANimation."""

    def __init__(self, channels: int, track: bool) -> None:
        super().__init__()
        self.main = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            instance_norm(channels, track),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            instance_norm(channels, track),
        )

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = x + self.main(x)
        return y


class Generator(nn.Module):
    """(image (B, 3, R, R) in [-1, 1], label (B, C)) → image (B, 3, R, R) in [-1, 1]. R divides by 4.

    As in the authors' class, ``train()`` normalises by each image's own statistics and ``eval()`` by the
    running ones; ``use_statistics`` decides for both.
    """

    def __init__(
        self, c_dim: int = 5, conv_dim: int = 64, repeat_num: int = 6, *, running_statistics: bool = True
    ) -> None:
        super().__init__()
        layers = trunk(3 + c_dim, conv_dim, repeat_num, track=running_statistics)
        layers += [nn.Conv2d(conv_dim, 3, 7, padding=3, bias=False), nn.Tanh()]
        self.main = nn.Sequential(*layers)

    def forward(self, image: Tensor, label: Tensor) -> Tensor:
        made: Tensor = self.main(with_planes(image, label))
        return made

    def use_statistics(self, statistics: Statistics) -> Generator:
        """Fix what instance normalisation divides by, whatever the mode. Returns itself."""
        for module in self.modules():
            if isinstance(module, TrackingInstanceNorm):
                module.statistics = statistics
        return self.eval()


class Folded(nn.Module):
    """A generator's network up to its last activation, in the form that runs best; GANimation's too."""

    def __init__(self, first: nn.Module, body: nn.Sequential, last: Tensor, resolution: int) -> None:
        super().__init__()
        assert isinstance(first, nn.Conv2d)
        self.first = LabelConv(first, resolution)
        self.body = body
        self.last = FourPixels(last)

    def forward(self, image: Tensor, label: Tensor) -> Tensor:
        made: Tensor = self.last(self.body(self.first(image, label)))
        return made


class FoldedGenerator(nn.Module):
    """The same as ``Generator``."""

    def __init__(self, generator: Generator, resolution: int) -> None:
        super().__init__()
        first, *body, last, _ = generator.main
        self.network = Folded(first, nn.Sequential(*body), next(last.parameters()), resolution)

    def forward(self, image: Tensor, label: Tensor) -> Tensor:
        return torch.tanh(self.network(image, label))


def trunk(dim_in: int, conv_dim: int, repeat_num: int, *, track: bool) -> list[nn.Module]:
    """Encoder, ``repeat_num`` residual blocks, decoder: (B, dim_in, R, R) → (B, conv_dim, R, R)."""
    layers = [
        nn.Conv2d(dim_in, conv_dim, 7, padding=3, bias=False),
        instance_norm(conv_dim, track),
        nn.ReLU(),
    ]
    width = conv_dim
    for _ in range(2):
        layers += [nn.Conv2d(width, 2 * width, 4, stride=2, padding=1, bias=False)]
        layers += [instance_norm(2 * width, track), nn.ReLU()]
        width *= 2
    layers += [ResidualBlock(width, track) for _ in range(repeat_num)]
    for _ in range(2):
        layers += [nn.ConvTranspose2d(width, width // 2, 4, stride=2, padding=1, bias=False)]
        layers += [instance_norm(width // 2, track), nn.ReLU()]
        width //= 2
    return layers


def instance_norm(channels: int, track: bool) -> nn.InstanceNorm2d:
    return TrackingInstanceNorm(channels) if track else nn.InstanceNorm2d(channels, affine=True)


def with_planes(image: Tensor, label: Tensor) -> Tensor:
    """The image and one constant plane for each entry of the label: (B, 3 + C, R, R)."""
    planes = label[:, :, None, None].expand(-1, -1, image.shape[2], image.shape[3])
    return torch.cat([image, planes], dim=1)


def parts(
    checkpoint: Checkpoint,
    precision: Precision = "fp32",
    resolution: int = 128,
    statistics: Statistics = "instance",
) -> list[Part]:
    """The one graph to export, ``generator``: image (B, 3, R, R), label (B, C) → image_out.

    Raises ``BadModelFile`` naming what does not fit, ``BadArgument``.
    """
    (part,) = reference_parts(checkpoint, resolution, statistics)
    assert isinstance(part.module, Generator)
    return [replace(part, module=in_precision(FoldedGenerator(part.module, resolution), precision))]


def reference_parts(
    checkpoint: Checkpoint, resolution: int = 128, statistics: Statistics = "instance"
) -> list[Part]:
    """The definition, layer by layer as published, in fp32."""
    config = settings_of(Config, checkpoint)
    size = image_size(resolution, checkpoint.source)
    if statistics not in ("instance", "running"):
        raise BadArgument(f"statistics are instance or running, got {statistics!r:.40}")
    if statistics == "running" and not config.running_statistics:
        raise BadArgument(f"{checkpoint.source}: holds no running statistics; wanted statistics instance")
    network = filled(lambda: Generator(**asdict(config)), checkpoint.tensors, checkpoint.source)
    network.use_statistics(statistics)

    def example(batch: int, random: torch.Generator) -> dict[str, Tensor]:
        image = torch.rand(batch, 3, size, size, generator=random) * 2 - 1
        return {"image": image, "label": torch.rand(batch, config.c_dim, generator=random)}

    about: dict[str, Any] = {"resolution": size, "config": {**asdict(config), "statistics": statistics}}
    return [Part("generator", network, example, ("image_out",), about=about)]
