"""Projection: the latent of a generator whose image is nearest to a given one.

The method is that of Karras et al. 2020 ("Analyzing and Improving the Image Quality of StyleGAN", appendix D,
"Projection method details"), for W and for W+ (Abdal et al., "Image2StyleGAN", ICCV 2019): start at the mean
latent; Adam with a rate that ramps up and down; noise on w that fades out; noise maps optimised too, if
asked, and kept from carrying the picture by the regulariser of that appendix. Their image distance is a
trained network's; here it is a sum over scales of squared differences, and of the features of any network
that the caller brings.

Every step is a function of the seed, its number and the state before it, and the state changes in one
assignment: an interrupted run that goes on later ends where an unbroken one ends.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from fastface.atomic import whole_file
from fastface.errors import BadArgument, BadModelFile
from fastface.exports.stylegan2 import Generator, Noise
from fastface.exports.stylegan2_graphs import SynthesisGraph
from fastface.generators.latents import MAX_NOISE_MAPS, Latent
from fastface.morphable import ArraySpec, read_arrays, read_format

#: Images (1, 3, R, R) in about [-1, 1] to feature maps, each (1, C, h, w). Any torch module or function; it
#: must let gradients through to the image.
Features = Callable[[Tensor], Sequence[Tensor]]

STATE_FORMAT: Final = "fastface-projection"
STATE_VERSION: Final = 1
_BETA1, _BETA2, _TINY = 0.9, 0.999, 1e-8  # Adam's own (Kingma and Ba 2015), as in the appendix
_SMALLEST_SCALE: Final = 8
_FEATURES_SIDE: Final = 256
_MEAN_BATCH: Final = 1000


@dataclass(frozen=True)
class Settings:
    """How to project. The figures of the ramps and of the noise are the appendix's.

    space: "w" or "w+". steps: 1000 there. learning_rate: its maximum. ramp_up, ramp_down, w_noise_until:
    shares of the run. w_noise: of the latents' standard deviation. pixel_weight, feature_weight,
    noise_weight: of the parts of the loss. fit_noise: optimise noise maps as well; otherwise the
    checkpoint's own stay. mean_samples: latents that the mean and the deviation are taken of. label: of a
    class-conditional generator.
    """

    space: str = "w"
    steps: int = 1000
    seed: int = 0
    learning_rate: float = 0.1
    ramp_up: float = 0.05
    ramp_down: float = 0.25
    w_noise: float = 0.05
    w_noise_until: float = 0.75
    pixel_weight: float = 1.0
    feature_weight: float = 1.0
    noise_weight: float = 1e5
    fit_noise: bool = False
    mean_samples: int = 10_000
    label: tuple[float, ...] = ()

    def check(self) -> None:
        """Raise ``BadArgument`` for what makes no sense."""
        if self.space not in ("w", "w+"):
            raise BadArgument(f"space is w or w+, got {self.space!r:.20}")
        if not 1 <= self.steps <= 1_000_000:
            raise BadArgument(f"steps must be 1 to 1,000,000, got {self.steps}")
        if not 0 <= self.seed < 1 << 32:
            raise BadArgument(f"seed must be 0 to 2^32 - 1, got {self.seed}")
        if not 0 < self.learning_rate <= 10:
            raise BadArgument(f"learning_rate must be above 0 and at most 10, got {self.learning_rate}")
        for name in ("ramp_up", "ramp_down", "w_noise_until"):
            if not 0 <= getattr(self, name) <= 1:
                raise BadArgument(f"{name} is a share of the run, 0 to 1, got {getattr(self, name)}")
        for name in ("pixel_weight", "feature_weight", "noise_weight", "w_noise"):
            if not 0 <= getattr(self, name) < math.inf:
                raise BadArgument(f"{name} must be 0 or more, got {getattr(self, name)}")
        if not 2 <= self.mean_samples <= 1_000_000:
            raise BadArgument(f"mean_samples must be 2 to 1,000,000, got {self.mean_samples}")

    def rate(self, step: int) -> float:
        """The learning rate of a step: up linearly, down as a cosine."""
        t = step / self.steps
        down = min(1.0, (1 - t) / self.ramp_down) if self.ramp_down else 1.0
        up = min(1.0, t / self.ramp_up) if self.ramp_up else 1.0
        return self.learning_rate * (0.5 - 0.5 * math.cos(math.pi * down)) * up

    def jitter(self, step: int) -> float:
        """Standard deviation of the noise on w, over that of the latents: falls to 0 as a square."""
        left = 1 - step / self.steps / self.w_noise_until if self.w_noise_until else 0.0
        return self.w_noise * max(0.0, left) ** 2


class State(NamedTuple):
    """Where a run is: steps done, what is optimised (w, then noise maps), and Adam's moments of each."""

    step: int
    values: tuple[Tensor, ...]
    first: tuple[Tensor, ...]
    second: tuple[Tensor, ...]


class Step(NamedTuple):
    """What a step tells: its number from 1, the loss and its parts, and the peak signal-to-noise ratio in dB
    of the image that it started from."""

    step: int
    loss: float
    pixels: float
    features: float
    noise: float
    psnr_db: float


class Projection:
    """One image being projected.

    network: a generator of ``fastface.exports.stylegan2`` or ``.stylegan3``, as ``generator(checkpoint)``
    gives it. target: (R, R, 3) uint8 RGB of the generator's resolution. features_name: says which features
    they are, so that a state of others is not taken up.
    Raises ``BadArgument``.
    """

    def __init__(
        self,
        network: nn.Module,
        target: NDArray[np.uint8],
        generator_sha256: str,
        settings: Settings | None = None,
        *,
        features: Features | None = None,
        features_name: str = "",
        device: str | torch.device = "cpu",
    ) -> None:
        self.settings = settings or Settings()
        self.settings.check()
        self.device = torch.device(device)
        frozen: Any = network.eval().requires_grad_(False).to(self.device)
        self.network = frozen
        self.generator_sha256 = generator_sha256
        side = int(self.network.config.resolution)
        if target.shape != (side, side, 3) or target.dtype != np.uint8:
            raise BadArgument(f"target must be ({side}, {side}, 3) uint8, got {target.shape} {target.dtype}")
        self.target = _as_planes(target, self.device)
        #: (R, R, 3) uint8.
        self.target_image = target
        self._features, self._features_name = features, features_name if features is not None else ""
        with torch.no_grad():
            self._target_features = self._seen(self.target)
        self.layers = int(self.network.synthesis.layers)
        self._synthesis = synthesis_of(self.network, self.settings.fit_noise).to(self.device)
        mean, self._deviation = self._statistics()
        self.state = self._start(mean)

    # ------------------------------------------------------------------------------------------- running

    @property
    def done(self) -> bool:
        """Whether all steps are made."""
        return self.state.step >= self.settings.steps

    def step(self) -> Step:
        """Make one step."""
        before, settings = self.state, self.settings
        values = tuple(value.detach().requires_grad_() for value in before.values)
        w = values[0]
        jitter = settings.jitter(before.step) * self._deviation
        moved = w + self._normal(before.step, w.shape) * jitter if jitter > 0 else w
        image = self._image(moved, values[1:])
        pixels = multiscale_distance(image, self.target)
        features = feature_distance(self._seen(image), self._target_features)
        noise = sum((noise_correlation(value) for value in values[1:]), torch.zeros((), device=self.device))
        loss = (
            settings.pixel_weight * pixels
            + settings.feature_weight * features
            + settings.noise_weight * noise
        )
        if not torch.isfinite(loss):
            raise BadArgument(
                f"the loss is not finite at step {before.step + 1}; try a lower learning rate than "
                f"{settings.learning_rate:g}"
            )
        gradients = torch.autograd.grad(loss, values)
        psnr = -10 * math.log10(max(float((image.detach() - self.target).square().mean()) / 4, 1e-12))
        whole, *parts = (float(part.detach()) for part in (loss, pixels, features, noise))
        told = Step(before.step + 1, whole, parts[0], parts[1], parts[2], psnr)
        self.state = self._moved(before, gradients)
        return told

    def run(self, each: Callable[[Step], object] = lambda _: None) -> None:
        """Make the steps that are left."""
        while not self.done:
            each(self.step())

    def _moved(self, state: State, gradients: Sequence[Tensor]) -> State:
        """The state after a step of Adam."""
        count = state.step + 1
        rate = self.settings.rate(state.step)
        with torch.no_grad():
            first = tuple(m * _BETA1 + (1 - _BETA1) * g for m, g in zip(state.first, gradients, strict=True))
            second = tuple(
                v * _BETA2 + (1 - _BETA2) * g * g for v, g in zip(state.second, gradients, strict=True)
            )
            values = [
                value - rate * (m / (1 - _BETA1**count)) / ((v / (1 - _BETA2**count)).sqrt() + _TINY)
                for value, m, v in zip(state.values, first, second, strict=True)
            ]
            # Noise is kept at zero mean and unit variance, explicitly, after every step (appendix D).
            values[1:] = [(n - n.mean()) / (n.std(unbiased=False) + _TINY) for n in values[1:]]
        return State(count, tuple(values), first, second)

    # ------------------------------------------------------------------------------------------- results

    def image(self) -> NDArray[np.uint8]:
        """(R, R, 3) uint8: what the latent shows now."""
        with torch.no_grad():
            image = self._image(self.state.values[0], self.state.values[1:])
        values = (image[0].permute(1, 2, 0) * 127.5 + 127.5).round().clamp(0, 255)
        return np.ascontiguousarray(values.cpu().numpy().astype(np.uint8))

    def psnr_db(self) -> float:
        """Of ``image`` against the target, in 8 bits."""
        return psnr_db(self.image(), self.target_image)

    def latent(self) -> Latent:
        """What was found so far, with what it took."""
        w = self.state.values[0][0].expand(self.layers, -1).cpu().numpy().astype(np.float32)
        maps = [value[0].cpu().numpy().astype(np.float32) for value in self.state.values[1:]]
        about = {
            "made": "projection",
            "steps": self.state.step,
            "psnr_db": round(self.psnr_db(), 3),
            "target_sha256": _digest(self.target_image),
            "features": self._features_name,
            "settings": asdict(self.settings),
        }
        noise = {f"noise_{number}": values for number, values in enumerate(maps)}
        return Latent(np.ascontiguousarray(w), self.generator_sha256, about, noise)

    # ------------------------------------------------------------------------------------------- keeping

    def save_state(self, path: str | Path) -> None:
        """Write where the run is, whole or not at all. Raises ``WriteFailed``."""
        state = self.state
        arrays: dict[str, Any] = {
            "format": np.array(STATE_FORMAT),
            "version": np.array(STATE_VERSION, "<i4"),
            "about": np.array(json.dumps(self._identity(), sort_keys=True)),
            "step": np.array(state.step, "<i4"),
        }
        for kind, tensors in zip(("value", "first", "second"), state[1:], strict=True):
            for number, tensor in enumerate(tensors):
                arrays[f"{kind}_{number}"] = tensor.cpu().numpy().astype("<f4")
        with whole_file(path) as temporary, temporary.open("wb") as stream:
            np.savez(stream, **arrays)

    def load_state(self, path: str | Path) -> None:
        """Go on from a kept state. Raises ``BadModelFile`` for a damaged one, ``BadArgument`` for one of
        another image, generator, or other settings."""
        specs = {
            "about": ArraySpec("U", 0, "JSON: what is projected, and how"),
            "step": ArraySpec("<i4", 0, "steps done"),
        }
        arrays = read_format(path, STATE_FORMAT, STATE_VERSION, specs)
        try:
            about = json.loads(str(arrays["about"][()]))
        except (ValueError, RecursionError):
            about = None
        for key, value in self._identity().items():
            if not isinstance(about, dict) or about.get(key) != value:
                raise BadArgument(f"{path}: is of a run with another {key.replace('_', ' ')}")
        step = int(arrays["step"])
        if not 0 <= step <= self.settings.steps:
            raise BadModelFile(f"{path}: step {step} of {self.settings.steps}")
        kinds = [self._kept(path, kind) for kind in ("value", "first", "second")]
        self.state = State(step, *kinds)

    def _kept(self, path: str | Path, kind: str) -> tuple[Tensor, ...]:
        wanted = {f"{kind}_{number}": tensor for number, tensor in enumerate(self.state.values)}
        specs = {name: ArraySpec("<f4", tensor.ndim, "") for name, tensor in wanted.items()}
        found = read_arrays(path, specs)
        for name, tensor in wanted.items():
            if found[name].shape != tuple(tensor.shape) or not np.isfinite(found[name]).all():
                raise BadModelFile(f"{path}: {name} must be {tuple(tensor.shape)} and finite")
        return tuple(torch.from_numpy(found[name]).to(self.device) for name in wanted)

    def _identity(self) -> dict[str, Any]:
        # As JSON gives it back, so that the two can be compared.
        made: dict[str, Any] = json.loads(json.dumps(asdict(self.settings)))
        return {
            "generator": self.generator_sha256,
            "target_image": _digest(self.target_image),
            "features": self._features_name,
            **{f"setting {name}": value for name, value in made.items()},
        }

    # ------------------------------------------------------------------------------------------- within

    def _statistics(self) -> tuple[Tensor, float]:
        """Mean (D,) of w and the root of its mean squared distance from it, of seeded samples."""
        random = np.random.default_rng([self.settings.seed, 0])
        z_dim = int(self.network.config.z_dim)
        label = self._label()
        parts = []
        with torch.no_grad():
            for start in range(0, self.settings.mean_samples, _MEAN_BATCH):
                count = min(_MEAN_BATCH, self.settings.mean_samples - start)
                z = torch.from_numpy(random.standard_normal((count, z_dim), np.float32)).to(self.device)
                labels = None if label is None else label.expand(count, -1)
                parts.append(self.network.mapping(z, labels)[:, 0])
            w = torch.cat(parts)
            mean = w.mean(dim=0)
            return mean, math.sqrt(float((w - mean).square().sum(dim=1).mean()))

    def _label(self) -> Tensor | None:
        wanted, given = int(self.network.config.c_dim), self.settings.label
        if len(given) != wanted:
            raise BadArgument(
                f"label: this generator takes {wanted or 'no'} value{'s' * (wanted != 1)}, got {len(given)}"
            )
        return torch.tensor([given], dtype=torch.float32, device=self.device) if wanted else None

    def _start(self, mean: Tensor) -> State:
        rows = 1 if self.settings.space == "w" else self.layers
        values = [mean.expand(1, rows, -1).contiguous()]
        if self.settings.fit_noise:
            # From the checkpoint's own maps, with which every image is made, not from new ones.
            maps = noise_maps(self.network)
            if not maps:
                raise BadArgument("fit_noise: this generator has no noise")
            values += [map_[None, None].to(self.device, torch.float32).clone() for map_ in maps]
        zeros = tuple(torch.zeros_like(value) for value in values)
        return State(0, tuple(values), zeros, zeros)

    def _normal(self, step: int, shape: torch.Size) -> Tensor:
        drawn = np.random.default_rng([self.settings.seed, 2, step]).standard_normal(tuple(shape), np.float32)
        return torch.from_numpy(drawn).to(self.device)

    def _image(self, w: Tensor, noise: Sequence[Tensor]) -> Tensor:
        rows = w.expand(-1, self.layers, -1)
        strength = [torch.ones((), device=w.device)] if isinstance(self._synthesis, SynthesisGraph) else []
        image: Tensor = self._synthesis(rows, *strength, *noise)
        return image

    def _seen(self, image: Tensor) -> list[Tensor]:
        """The features of an image; those of a large one at 256 px, as in the appendix."""
        if self._features is None or not self.settings.feature_weight:
            return []
        if image.shape[2] > _FEATURES_SIDE:
            image = functional.interpolate(image, (_FEATURES_SIDE, _FEATURES_SIDE), mode="area")
        return list(self._features(image))


def synthesis_of(network: Any, given_noise: bool) -> nn.Module:
    """What computes the image: of a StyleGAN2 the form with kernels that do not depend on w, equal to the
    definition to rounding, since the definition's backward pass takes twice as long."""
    if isinstance(network, Generator):
        noise: Noise = "random" if given_noise else "const"
        graph = SynthesisGraph(network.synthesis, network.config, "fp32", noise)
        return graph.eval().requires_grad_(False)
    plain: nn.Module = network.synthesis
    return plain


def noise_maps(network: nn.Module) -> list[Tensor]:
    """The checkpoint's own noise (h, w) of each convolution, in order; none for StyleGAN3."""
    layers = getattr(network.get_submodule("synthesis"), "convolutions", [])
    maps = [layer.noise_const for layer in layers if hasattr(layer, "noise_const")]
    return maps if len(maps) <= MAX_NOISE_MAPS else []


def multiscale_distance(image: Tensor, target: Tensor) -> Tensor:
    """Mean over scales (R, R/2, … 8) of the mean squared difference of images (B, 3, R, R)."""
    total, count = (image - target).square().mean(), 1
    while image.shape[2] >= 2 * _SMALLEST_SCALE:
        image, target = functional.avg_pool2d(image, 2), functional.avg_pool2d(target, 2)
        total, count = total + (image - target).square().mean(), count + 1
    return total / count


def feature_distance(image: Sequence[Tensor], target: Sequence[Tensor]) -> Tensor:
    """Sum over feature maps (B, C, h, w) of the mean squared distance of their unit-length columns: equation
    1 of Zhang et al., "The Unreasonable Effectiveness of Deep Features" (CVPR 2018), all weights 1."""
    total = torch.zeros((), device=image[0].device) if image else torch.zeros(())
    for found, wanted in zip(image, target, strict=True):
        if found.ndim < 2:
            raise BadArgument(f"features must be (B, C, …), got {tuple(found.shape)}")
        difference = functional.normalize(found, dim=1) - functional.normalize(wanted, dim=1)
        total = total + difference.square().sum(dim=1).mean()
    return total


def noise_correlation(noise: Tensor) -> Tensor:
    """The regulariser of a noise map (1, 1, h, w), appendix D: at every scale down to 8 px, the squared mean
    product of neighbours in x and in y, wrapped round. Scales are made by averaging 2x2 pixels and doubling,
    which keeps normal noise at unit variance."""
    total = torch.zeros((), device=noise.device)
    while True:
        for axis in (2, 3):
            total = total + (noise * noise.roll(1, axis)).mean().square()
        if noise.shape[2] <= _SMALLEST_SCALE:
            return total
        noise = functional.avg_pool2d(noise, 2) * 2


def psnr_db(image: NDArray[np.uint8], other: NDArray[np.uint8]) -> float:
    """Peak signal-to-noise ratio of two 8-bit images; 120 dB for equal ones."""
    error = float(np.mean((image.astype(np.float64) - other.astype(np.float64)) ** 2))
    return 120.0 if error == 0 else min(10 * math.log10(255**2 / error), 120.0)


def _as_planes(image: NDArray[np.uint8], device: torch.device) -> Tensor:
    planes = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))).to(device, torch.float32)
    return planes[None] / 127.5 - 1


def _digest(image: NDArray[np.uint8]) -> str:
    return hashlib.sha256(repr(image.shape).encode() + np.ascontiguousarray(image).tobytes()).hexdigest()
