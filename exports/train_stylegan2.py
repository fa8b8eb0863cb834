"""Train a small StyleGAN2, for instance on frames that fastface renders: a generator whose source is known.

    python -m fastface.exports.train_stylegan2 frames photos/ frames.npy --count 20000 --side 64
    python -m fastface.exports.train_stylegan2 train frames.npy out/ --images 2000000 --device cuda

As Karras et al. 2020 ("Analyzing and Improving the Image Quality of StyleGAN") train it: residual
discriminator with the minibatch's standard deviation, non-saturating logistic loss, R1 on the discriminator
every 16th step (Mescheder et al. 2018) and the path length penalty on the generator every 4th (section 3.2,
equation 4; "lazy", section 3.1, with Adam's settings corrected for it), style mixing, an exponential moving
average of the generator. Nothing else: no augmentation but mirroring, so a few photos are learned by heart.

``out/net.safetensors`` is a checkpoint for ``fastface export stylegan2``; ``out/curve.jsonl`` has the losses;
``out/state.pt`` is where the run is: the same command goes on from there.
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import json
import math
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from fastface.atomic import whole_file
from fastface.checkpoints import Checkpoint, write_checkpoint
from fastface.errors import BadArgument, FastfaceError
from fastface.exports.resampling import resample
from fastface.exports.stylegan2 import Config, Dense, Generator, standard_filter, tensors_of

_ROOT_HALF: Final = math.sqrt(0.5)
_GAIN: Final = math.sqrt(2)
_GROUP: Final = 4  # images whose deviation is taken together
_SHEET: Final = 8


@dataclass(frozen=True)
class Recipe:
    """How to train: the authors' figures, but for the widths and for R1, whose weight falls with the size.

    batch: images a step. r1: its weight (gamma). path: weight of the path length penalty. ema_images:
    half-life of the moving average. mixing: chance that two latents share an image. seed: of weights,
    latents and order.
    """

    resolution: int = 64
    channel_base: int = 8192
    channel_max: int = 256
    width: int = 256
    mapping_layers: int = 4
    batch: int = 32
    rate: float = 0.002
    r1: float = 0.1
    r1_every: int = 16
    path: float = 2.0
    path_every: int = 4
    path_decay: float = 0.01
    ema_images: float = 10_000.0
    mixing: float = 0.9
    seed: int = 0


class Convolution(nn.Module):
    """A convolution at equalised learning rate; ``down`` halves the size after a low-pass filter."""

    resample_filter: Tensor

    def __init__(
        self, inputs: int, outputs: int, taps: int, *, down: bool = False, activate: bool = True
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, taps, taps))
        self.bias = nn.Parameter(torch.zeros(outputs)) if activate else None
        self.register_buffer("resample_filter", standard_filter((4, 4)))
        self.scale, self.down = 1 / math.sqrt(inputs * taps * taps), down

    def forward(self, x: Tensor, gain: float = 1.0) -> Tensor:
        weight, taps = self.weight * self.scale, self.weight.shape[2]
        if self.down:
            around = (self.resample_filter.shape[0] - 2 + taps - 1) / 2
            padding = (math.ceil(around), math.floor(around))
            x = functional.conv2d(resample(x, self.resample_filter, padding=padding), weight, stride=2)
        else:
            x = functional.conv2d(x, weight, padding=taps // 2)
        if self.bias is None:
            return x * gain
        return functional.leaky_relu(x + self.bias[:, None, None], 0.2) * (_GAIN * gain)


class DiscriminatorBlock(nn.Module):
    """Residual block that halves the size."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv0 = Convolution(inputs, inputs, 3)
        self.conv1 = Convolution(inputs, outputs, 3, down=True)
        self.skip = Convolution(inputs, outputs, 1, down=True, activate=False)

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.conv1(self.conv0(x), _ROOT_HALF) + self.skip(x, _ROOT_HALF)
        return made


class Discriminator(nn.Module):
    """Images (B, 3, R, R) → logits (B,) of being real."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        channels = list(reversed(config.channels))
        self.from_rgb = Convolution(3, channels[0], 1)
        self.blocks = nn.Sequential(*(DiscriminatorBlock(*pair) for pair in pairwise(channels)))
        self.last = Convolution(channels[-1] + 1, channels[-1], 3)
        self.dense = Dense(channels[-1] * 16, channels[-1], activation="lrelu")
        self.out = Dense(channels[-1], 1)

    def forward(self, images: Tensor) -> Tensor:
        x = self.blocks(self.from_rgb(images))
        x = self.last(torch.cat([x, spread(x)], dim=1))
        logits: Tensor = self.out(self.dense(x.flatten(1)))[:, 0]
        return logits


def spread(x: Tensor) -> Tensor:
    """(B, 1, H, W): mean standard deviation within groups of images (Karras et al. 2018, section 3)."""
    batch = x.shape[0]
    group = math.gcd(batch, _GROUP)
    grouped = x.reshape(group, batch // group, *x.shape[1:])
    deviation = (grouped.var(dim=0, unbiased=False) + 1e-8).sqrt().mean(dim=(1, 2, 3))
    return deviation.repeat(group)[:, None, None, None].expand(-1, 1, *x.shape[2:])


class Training:
    """A run: networks, optimisers, where it is. frames (N, R, R, 3) uint8."""

    def __init__(self, frames: NDArray[np.uint8], recipe: Recipe, device: str = "cpu") -> None:
        side = recipe.resolution
        if (
            frames.ndim != 4
            or frames.shape[1:] != (side, side, 3)
            or frames.dtype != np.uint8
            or not len(frames)
        ):
            raise BadArgument(
                f"frames must be (N, {side}, {side}, 3) uint8, got {frames.shape} {frames.dtype}"
            )
        self.recipe, self.frames, self.device = recipe, frames, torch.device(device)
        torch.manual_seed(recipe.seed)
        config = Config.standard(
            side,
            channel_base=recipe.channel_base,
            channel_max=recipe.channel_max,
            z_dim=recipe.width,
            w_dim=recipe.width,
            mapping_layers=recipe.mapping_layers,
        )
        self.generator = Generator(config).to(self.device)
        self.discriminator = Discriminator(config).to(self.device)
        self.ema = copy.deepcopy(self.generator).eval().requires_grad_(False)
        self.optimisers = (
            _adam(self.generator, recipe.rate, recipe.path_every),
            _adam(self.discriminator, recipe.rate, recipe.r1_every),
        )
        self.step, self.path_mean = 0, torch.zeros((), device=self.device)

    def advance(self) -> dict[str, float]:
        """One step of both networks; what it told."""
        random = torch.Generator().manual_seed((self.recipe.seed << 32) + self.step)
        told = {**self._teach_discriminator(random), **self._teach_generator(random)}
        self.step += 1
        self._average()
        return {"step": self.step, "images": self.step * self.recipe.batch, **told}

    def _teach_discriminator(self, random: torch.Generator) -> dict[str, float]:
        recipe, optimiser = self.recipe, self.optimisers[1]
        real = self._real(random)
        with torch.no_grad():
            fake = self._fake(recipe.batch, random)[0]
        lazy = self.step % recipe.r1_every == 0
        real.requires_grad_(lazy)
        real_logits, fake_logits = self.discriminator(real), self.discriminator(fake)
        loss = functional.softplus(fake_logits).mean() + functional.softplus(-real_logits).mean()
        told = {
            "d": float(loss.detach()),
            "real": float(real_logits.detach().mean()),
            "fake": float(fake_logits.detach().mean()),
        }
        if lazy:
            (gradient,) = torch.autograd.grad(real_logits.sum(), real, create_graph=True)
            penalty = gradient.square().sum(dim=(1, 2, 3)).mean()
            loss = loss + penalty * (recipe.r1 / 2 * recipe.r1_every)
            told["r1"] = float(penalty.detach())
        _step(optimiser, loss)
        return told

    def _teach_generator(self, random: torch.Generator) -> dict[str, float]:
        recipe, optimiser = self.recipe, self.optimisers[0]
        image, w = self._fake(recipe.batch, random)
        self.generator.mapping.w_avg.lerp_(w[:, 0].detach().mean(dim=0), 0.005)
        loss = functional.softplus(-self.discriminator(image)).mean()
        told = {"g": float(loss.detach())}
        _step(optimiser, loss)
        if self.step % recipe.path_every == 0:
            penalty = self._path_length(random)
            _step(optimiser, penalty * (recipe.path * recipe.path_every))
            told |= {"path": float(penalty.detach()), "path_mean": float(self.path_mean)}
        return told

    def _path_length(self, random: torch.Generator) -> Tensor:
        """Equation 4: how far the length of Jᵀ y is from its running mean. On half the batch, for memory."""
        image, w = self._fake(max(self.recipe.batch // 2, 1), random)
        noise = torch.randn(image.shape, generator=random).to(self.device) / image.shape[2]
        (gradient,) = torch.autograd.grad((image * noise).sum(), w, create_graph=True)
        lengths = gradient.square().sum(dim=2).mean(dim=1).sqrt()
        self.path_mean = self.path_mean.lerp(lengths.detach().mean(), self.recipe.path_decay)
        return (lengths - self.path_mean).square().mean()

    def _fake(self, count: int, random: torch.Generator) -> tuple[Tensor, Tensor]:
        z = torch.randn(2, count, self.recipe.width, generator=random).to(self.device)
        w = self.generator.mapping(z[0])
        if torch.rand((), generator=random) < self.recipe.mixing:
            start = int(torch.randint(1, w.shape[1], (), generator=random))
            w = torch.cat([w[:, :start], self.generator.mapping(z[1])[:, start:]], dim=1)
        layers = self.generator.synthesis.convolutions
        noise = [torch.randn(count, 1, layer.size, layer.size, generator=random) for layer in layers]
        return self.generator.synthesis(w, [map_.to(self.device) for map_ in noise]), w

    def _real(self, random: torch.Generator) -> Tensor:
        rows = torch.randint(len(self.frames), (self.recipe.batch,), generator=random).numpy()
        images = torch.from_numpy(np.array(self.frames[np.sort(rows)])).permute(0, 3, 1, 2).to(self.device)
        mirrored = torch.rand(len(rows), generator=random) < 0.5
        images[mirrored] = images[mirrored].flip(3)
        return images.float() / 127.5 - 1

    @torch.no_grad()
    def _average(self) -> None:
        # The half-life grows with the run at first, or the average would be of the start for long.
        half_life = min(self.recipe.ema_images, 0.05 * self.step * self.recipe.batch)
        keep = 0.5 ** (self.recipe.batch / max(half_life, 1e-8))
        state = dict(self.generator.state_dict())
        for name, value in self.ema.state_dict().items():
            value.copy_(state[name].lerp(value, keep))

    # ------------------------------------------------------------------------------------------- keeping

    def save(self, folder: Path) -> None:
        """The state and the checkpoint, each whole or not at all. Raises ``WriteFailed``."""
        networks = (self.generator, self.discriminator, self.ema)
        state = {
            "recipe": json.dumps(asdict(self.recipe), sort_keys=True),
            "frames": len(self.frames),
            "step": self.step,
            "path_mean": self.path_mean,
            "networks": [network.state_dict() for network in networks],
            "optimisers": [optimiser.state_dict() for optimiser in self.optimisers],
        }
        with whole_file(folder / "state.pt") as temporary:
            torch.save(state, temporary)
        write_checkpoint(self.checkpoint(), folder / "net.safetensors")

    def load(self, folder: Path) -> None:
        """Go on from a kept state. Raises ``BadArgument`` for one of another recipe."""
        state = torch.load(folder / "state.pt", map_location=self.device, weights_only=True)
        if state["recipe"] != json.dumps(asdict(self.recipe), sort_keys=True):
            raise BadArgument(f"{folder}: a run of another recipe: {state['recipe']}")
        for network, kept in zip(
            (self.generator, self.discriminator, self.ema), state["networks"], strict=True
        ):
            network.load_state_dict(kept)
        for optimiser, kept in zip(self.optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(kept)
        self.step, self.path_mean = int(state["step"]), state["path_mean"]

    def checkpoint(self) -> Checkpoint:
        """The averaged generator, under the authors' names."""
        tensors = dict(tensors_of(self.ema))
        digest = hashlib.sha256()
        for name in sorted(tensors):
            digest.update(name.encode() + np.ascontiguousarray(tensors[name]).tobytes())
        settings = self.ema.config.as_dict()
        return Checkpoint("stylegan2", tensors, settings, "train_stylegan2", digest.hexdigest())

    def sheet(self) -> NDArray[np.uint8]:
        """Eight by eight faces of fixed seeds, at truncation 0.7."""
        z = torch.randn(_SHEET * _SHEET, self.recipe.width, generator=torch.Generator().manual_seed(1)).to(
            self.device
        )
        with torch.no_grad():
            images = self.ema.synthesis(self.ema.mapping(z, truncation=0.7))
        pixels = (images.permute(0, 2, 3, 1) * 127.5 + 127.5).round().clamp(0, 255).byte().cpu().numpy()
        side = self.recipe.resolution
        grid = pixels.reshape(_SHEET, _SHEET, side, side, 3).transpose(0, 2, 1, 3, 4)
        return np.ascontiguousarray(grid.reshape(_SHEET * side, _SHEET * side, 3))


def _adam(network: nn.Module, rate: float, every: int) -> torch.optim.Adam:
    """Adam, corrected for regularisation every so many steps (appendix B of Karras et al. 2020)."""
    ratio = every / (every + 1)
    return torch.optim.Adam(network.parameters(), lr=rate * ratio, betas=(0.0, 0.99**ratio), eps=1e-8)


def _step(optimiser: torch.optim.Adam, loss: Tensor) -> None:
    parameters = [parameter for group in optimiser.param_groups for parameter in group["params"]]
    gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = None if gradient is None else torch.nan_to_num(gradient, 0.0, 1e5, -1e5)
    optimiser.step()
    optimiser.zero_grad(set_to_none=True)


def render_frames(photos: Path, count: int, side: int, seed: int = 0) -> Iterator[NDArray[np.uint8]]:
    """(side, side, 3) frames of photos in turn, each under a random affect and a slightly shifted crop."""
    import fastface as ff
    from fastface.alignment import celeba_square, crop

    engine = ff.Engine()
    files = sorted(
        path for path in photos.iterdir() if path.suffix.casefold() in (".jpg", ".jpeg", ".png", ".webp")
    )
    faces = []
    for file in files:
        try:
            faces.append(engine.fit(file))
        except FastfaceError as error:
            print(f"{file}: left out ({error})", file=sys.stderr)
    if not faces:
        raise BadArgument(f"{photos}: no photo with a face that can be fitted")
    random = np.random.default_rng(seed)
    for number in range(count):
        face = faces[number % len(faces)]
        radius, angle = math.sqrt(random.uniform()), random.uniform(0, math.tau)
        frame = engine.render(face, ff.Affect.va(radius * math.cos(angle), radius * math.sin(angle)))
        square = celeba_square(face.landmarks_px.astype(np.float64))
        size = math.exp(square[2])
        jitter = random.normal(0, [0.01 * size, 0.01 * size, 0.02, 0.02])
        yield crop(frame, square + jitter, side)


def main(words: list[str] | None = None) -> None:
    """The two commands of the module's docstring."""
    parser = argparse.ArgumentParser(prog="python -m fastface.exports.train_stylegan2", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    frames = commands.add_parser("frames", help="render frames of photos")
    frames.add_argument("photos", type=Path)
    frames.add_argument("output", type=Path)
    frames.add_argument("--count", type=int, default=20_000)
    frames.add_argument("--side", type=int, default=64)
    train = commands.add_parser("train", help="train, or go on training")
    train.add_argument("frames", type=Path)
    train.add_argument("output", type=Path)
    train.add_argument("--images", type=int, default=2_000_000, help="shown to the discriminator in all")
    train.add_argument("--save-every", type=int, default=500, help="steps")
    train.add_argument("--device", default="cpu")
    for name, value in asdict(Recipe()).items():
        train.add_argument(f"--{name.replace('_', '-')}", type=type(value), default=value)
    given = parser.parse_args(words)
    if given.command == "frames":
        made = np.stack(list(render_frames(given.photos, given.count, given.side)))
        with whole_file(given.output) as temporary, temporary.open("wb") as stream:
            np.save(stream, made)
        return
    recipe = Recipe(**{name: getattr(given, name) for name in asdict(Recipe())})
    run(
        np.load(given.frames, mmap_mode="r", allow_pickle=False),
        recipe,
        given.output,
        given.images,
        given.save_every,
        given.device,
    )


def run(
    frames: NDArray[np.uint8], recipe: Recipe, output: Path, images: int, save_every: int, device: str
) -> Training:
    """Train until so many images were shown; the state, a sheet and the curve go into ``output``."""
    from fastface.images import write_image
    from fastface.provenance import GENERATED_SOURCE_TYPE, xmp_packet

    output.mkdir(parents=True, exist_ok=True)
    training = Training(frames, recipe, device)
    if (output / "state.pt").exists():
        training.load(output)
    curve = output / "curve.jsonl"
    lines = [json.loads(line) for line in curve.read_text().splitlines()] if curve.exists() else []
    lines = [line for line in lines if line["step"] <= training.step]  # of an interrupted run, later ones
    steps = math.ceil(images / recipe.batch)
    while training.step < steps:
        lines.append(training.advance())
        if training.step % save_every == 0 or training.step == steps:
            training.save(output)
            with whole_file(curve) as temporary:
                temporary.write_text("".join(json.dumps(line) + "\n" for line in lines))
            xmp = xmp_packet({"made": "training", "step": training.step}, "fastface", GENERATED_SOURCE_TYPE)
            write_image(output / f"faces{training.step:06d}.png", training.sheet(), xmp=xmp)
            print(json.dumps(lines[-1]), flush=True)
    return training


if __name__ == "__main__":
    try:
        main()
    except FastfaceError as error:
        sys.exit(f"train_stylegan2: {error}")
