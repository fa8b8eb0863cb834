"""StyleGAN2 and StyleGAN3 from ONNX: seeds to latents, latents to images.

Latents: ``z (B, 512)`` is normal noise, ``w (B, L, 512)`` what the mapping network makes of it, one row a
layer of the synthesis network, already pulled towards the mean face by the truncation.

A seed's z is ``RandomState(seed).randn(1, 512)``, as in the authors' scripts (generate.py of NVlabs'
stylegan2-ada-pytorch and stylegan3): a seed shows the same face here as there, in whatever batch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from fastface.errors import BadArgument, BadModelFile
from fastface.generators.parts import Parts, wanted_inputs
from fastface.generators.pixels import Floats, Images, to_images

Noise = Literal["const", "random", "none"]
#: Name of the graph's input → (1, h, w).
NoiseMaps = Mapping[str, NDArray[np.float32]]
NOISES: Final[tuple[str, ...]] = get_args(Noise)
_NOISE_INPUT: Final = "noise_"


class StyleGAN:
    """A StyleGAN2 or StyleGAN3 generator. ``load`` makes it; threads may share it.

    resolution: side of the images in pixels. layers: L, rows of w. z_dim, w_dim: 512 as published.
    label_dim: length of the label, 0 for an unconditional generator.
    """

    def __init__(self, parts: Parts) -> None:
        self.parts, self.kind, self.metadata = parts, parts.kind, parts.metadata
        synthesis = parts.session("synthesis")
        wanted_inputs(synthesis, ["w"], ["image"])
        _, layers, w_dim = _three(synthesis.inputs["w"].shape, "w")
        self.layers, self.w_dim = layers, w_dim
        self.resolution = int(self.metadata["resolution"])
        self.noise_shapes: dict[str, tuple[int, ...]] = {
            name: tuple(int(size) for size in spec.shape[1:])
            for name, spec in synthesis.inputs.items()
            if name.startswith(_NOISE_INPUT) and name != "noise_strength"
        }
        self._mapping_seen = False

    @property
    def provider(self) -> str:
        """What computes the images."""
        return self.parts.session("synthesis").provider

    @property
    def z_dim(self) -> int:
        """Length of z."""
        return int(self._mapping().inputs["z"].shape[1])

    @property
    def label_dim(self) -> int:
        """Length of the label that ``map`` takes; 0 when it takes none."""
        spec = self._mapping().inputs.get("label")
        return 0 if spec is None else int(spec.shape[1])

    def sample(self, seeds: int | Iterable[int]) -> Floats:
        """z (B, 512) of seeds, each 0 … 2^32 - 1. Raises ``BadArgument``."""
        z = np.empty((len(listed := _seeds(seeds)), self.z_dim), np.float32)
        for row, seed in zip(z, listed, strict=True):
            row[:] = np.random.RandomState(seed).randn(1, len(row))[0]  # the authors' sequence
        return z

    def map(self, z: NDArray[Any], truncation: float = 0.7, label: NDArray[Any] | None = None) -> Floats:
        """w (B, L, 512) of z (B, 512). truncation: 1 leaves w as it is, 0 gives the mean face (ψ of Karras et
        al. 2019). label: (B, C), or (C,) for all, of a conditional generator. Raises ``BadArgument``."""
        session = self._mapping()
        rows = _floats(z, "z", (self.z_dim,))
        psi = float(truncation)
        if not -2 <= psi <= 2:
            raise BadArgument(f"map: truncation lies in [-2, 2], got {truncation!r:.20}")
        inputs: dict[str, NDArray[Any]] = {"z": rows, "truncation": np.array(psi, np.float32)}
        if (label is not None) != bool(self.label_dim):
            wanted = f"a label (B, {self.label_dim})" if self.label_dim else "no label"
            raise BadArgument(f"map: this generator takes {wanted}")
        if label is not None:
            given = _floats(label, "label", (self.label_dim,))
            inputs["label"] = np.broadcast_to(given, (len(rows), self.label_dim))
        return np.asarray(session.run(inputs)["w"], np.float32)

    def synthesize(
        self, w: NDArray[Any], noise: Noise | NoiseMaps = "const", seed: int | Sequence[int] = 0
    ) -> Images:
        """Images (B, R, R, 3) uint8 of w (B, L, 512) or (L, 512).

        noise: "const" is the checkpoint's own, "none" leaves it out, "random" draws it from ``seed`` (one for
        all images, or one an image): a function of the seed alone. Or maps of your own for all images, each
        (1, h, w), by the names in ``noise_shapes``. StyleGAN3 has no noise.
        Raises ``BadArgument``.
        """
        return to_images(self.planes(w, noise, seed), str(self.parts.files["synthesis"]))

    def planes(
        self, w: NDArray[Any], noise: Noise | NoiseMaps = "const", seed: int | Sequence[int] = 0
    ) -> Floats:
        """As ``synthesize``, before rounding: (B, 3, R, R) float32, about [-1, 1], not clipped."""
        rows = _floats(w, "w", (self.layers, self.w_dim))
        inputs = {"w": rows, **self._noise(noise, seed, len(rows))}
        return np.asarray(self.parts.session("synthesis").run(inputs)["image"], np.float32)

    def _noise(
        self, noise: str | NoiseMaps, seed: int | Sequence[int], batch: int
    ) -> dict[str, NDArray[Any]]:
        if isinstance(noise, Mapping):
            return self._given_noise(noise, batch)
        if noise not in NOISES:
            raise BadArgument(f"noise is one of {', '.join(NOISES)}, got {noise!r:.20}")
        session = self.parts.session("synthesis")
        inputs: dict[str, NDArray[Any]] = {}
        if "noise_strength" in session.inputs:
            inputs["noise_strength"] = np.array(0.0 if noise == "none" else 1.0, np.float32)
        if noise == "random":
            inputs.update(self._random_noise(seed, batch))
            return inputs
        for name, shape in self.noise_shapes.items():
            if name in session.optional:
                continue
            if noise == "const":
                raise BadArgument(
                    f"{session.path}: exported to be given noise: ask for noise 'random' or 'none', or "
                    "export it with the checkpoint's"
                )
            inputs[name] = np.zeros((batch, *shape), np.float32)
        return inputs

    def _given_noise(self, maps: NoiseMaps, batch: int) -> dict[str, NDArray[Any]]:
        self._need_noise_inputs()
        if set(maps) != set(self.noise_shapes):
            raise BadArgument(
                f"noise: wanted {', '.join(self.noise_shapes)}, got {', '.join(maps) or 'none'}"
            )
        given = {name: _floats(maps[name], name, shape) for name, shape in self.noise_shapes.items()}
        inputs: dict[str, NDArray[Any]] = {"noise_strength": np.array(1.0, np.float32)}
        for name, values in given.items():
            inputs[name] = np.broadcast_to(values, (batch, *values.shape[1:]))
        return inputs

    def _random_noise(self, seed: int | Sequence[int], batch: int) -> dict[str, NDArray[Any]]:
        if self.kind == "stylegan3":
            return {}  # it has none to vary
        self._need_noise_inputs()
        seeds = _seeds(seed)
        if len(seeds) not in (1, batch):
            raise BadArgument(
                f"synthesize: wanted one seed, or one for each of {batch} images, got {len(seeds)}"
            )
        drawn: dict[str, NDArray[Any]] = {}
        for name, shape in self.noise_shapes.items():
            maps = np.empty((len(seeds), *shape), np.float32)
            number = int(name.removeprefix(_NOISE_INPUT))
            for one, at in zip(maps, seeds, strict=True):
                np.random.default_rng([at, number]).standard_normal(out=one, dtype=np.float32)
            drawn[name] = np.broadcast_to(maps, (batch, *maps.shape[1:]))
        return drawn

    def _need_noise_inputs(self) -> None:
        if not self.noise_shapes:
            raise BadModelFile(
                f"{self.parts.files['synthesis']}: exported without inputs for noise; export it with "
                "--noise random, or ask for noise 'const' or 'none'"
            )

    def _mapping(self) -> Any:
        session = self.parts.session("mapping")
        if not self._mapping_seen:
            wanted_inputs(session, ["z", "truncation"], ["w"])
            self._mapping_seen = True
        return session


def _seeds(seeds: int | Iterable[int]) -> list[int]:
    listed = [seeds] if isinstance(seeds, int | np.integer) else list(seeds)
    for seed in listed:
        if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or not 0 <= seed < 1 << 32:
            raise BadArgument(f"a seed is a whole number from 0 to 2^32 - 1, got {seed!r:.30}")
    return [int(seed) for seed in listed]


def _floats(values: Any, what: str, shape: tuple[int, ...]) -> Floats:
    """(B, *shape) float32, from that or from one without the batch. Raises ``BadArgument``."""
    array = np.asarray(values)
    if array.shape == shape:
        array = array[None]
    if array.shape[1:] != shape or array.dtype.kind not in "fiu":
        wanted = ", ".join(["B", *map(str, shape)])
        raise BadArgument(f"{what} must be ({wanted}) float32, got {array.shape} {array.dtype}")
    array = np.asarray(array, np.float32)
    if not np.isfinite(array).all():
        raise BadArgument(f"{what} must be finite, got NaN or infinity")
    return array


def _three(shape: tuple[int | str, ...], what: str) -> tuple[str, int, int]:
    if len(shape) != 3 or not isinstance(shape[1], int) or not isinstance(shape[2], int):
        raise BadModelFile(f"{what} is {shape}, wanted (B, layers, 512)")
    return str(shape[0]), shape[1], shape[2]
