"""Latents of a StyleGAN: kept in files, moved between, and mixed.

``w (L, D)``: one row a layer of the synthesis network. In W all rows are equal, in W+ they may differ (Abdal
et al., "Image2StyleGAN", ICCV 2019).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from fastface.atomic import whole_file
from fastface.errors import BadArgument, BadModelFile
from fastface.morphable import MAX_TEXT, SAYS, ArraySpec, read_arrays, read_format
from fastface.version import package_version

Floats = NDArray[np.float32]
Way = Literal["linear", "spherical"]
WAYS: Final[tuple[str, ...]] = ("linear", "spherical")

FORMAT: Final = "fastface-latent"
VERSION: Final = 1
#: Mapping networks give values of a few units; nothing that a network was trained on comes near this.
LARGEST: Final = 1e4
MAX_LAYERS: Final = 64
MAX_NOISE_MAPS: Final = 40
#: Where expressions live, 16² and 32²: the middle styles of Karras et al. 2019, section 3.1, figure 3.
EXPRESSION_LAYERS: Final = "4-7"
_ARRAYS: Final = {
    **SAYS,
    "generator_sha256": ArraySpec("U", 0, "of the generator's checkpoint"),
    "about": ArraySpec("U", 0, "JSON: how it was made"),
    "w": ArraySpec("<f4", 2, "(L, D)"),
    "noise_maps": ArraySpec("<i4", 0, "how many arrays noise_0, noise_1, … follow"),
}


@dataclass(frozen=True, eq=False)
class Latent:
    """One face of one generator.

    w: (L, D) float32. generator_sha256: of the checkpoint that it belongs to. about: plain JSON data, how it
    was made. noise: by the name of the graph's input, ``noise_0`` …, each (1, h, w) float32; empty for the
    checkpoint's own noise.
    """

    w: Floats
    generator_sha256: str
    about: dict[str, Any] = field(default_factory=dict)
    noise: Mapping[str, Floats] = field(default_factory=dict)

    def __post_init__(self) -> None:
        checked_w(self.w, "latent")
        if self.w.dtype != np.float32:
            raise BadArgument(f"latent: w must be float32, got {self.w.dtype}")
        if not re.fullmatch("[0-9a-f]{64}", self.generator_sha256):
            raise BadArgument(
                f"latent: generator_sha256 must be 64 hexadecimal digits, got {self.generator_sha256!r:.80}"
            )
        for array in (self.w, *self.noise.values()):
            array.flags.writeable = False

    @property
    def space(self) -> str:
        """ "w" when all layers are equal, else "w+"."""
        return "w" if (self.w == self.w[0]).all() else "w+"

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of w and noise."""
        state = hashlib.sha256(repr(self.w.shape).encode() + np.ascontiguousarray(self.w).tobytes())
        for name in sorted(self.noise):
            state.update(name.encode() + np.ascontiguousarray(self.noise[name]).tobytes())
        return state.hexdigest()

    def save(self, path: str | Path) -> None:
        """Write a ``.npz`` that ``load`` reads, whole or not at all. Raises ``WriteFailed``,
        ``BadArgument``."""
        if Path(path).suffix.casefold() != ".npz":
            raise BadArgument(f"{path}: a latent ends in .npz")
        about = json.dumps({**self.about, "fastface": package_version()}, ensure_ascii=False, allow_nan=False)
        if len(about) > MAX_TEXT:
            raise BadArgument(f"latent: about is {len(about)} characters of JSON, at most {MAX_TEXT} fit")
        arrays: dict[str, Any] = {
            "format": np.array(FORMAT),
            "version": np.array(VERSION, "<i4"),
            "generator_sha256": np.array(self.generator_sha256),
            "about": np.array(about),
            "w": np.ascontiguousarray(self.w, "<f4"),
            "noise_maps": np.array(len(self.noise), "<i4"),
            **{name: np.ascontiguousarray(values, "<f4") for name, values in self.noise.items()},
        }
        with whole_file(path) as temporary, temporary.open("wb") as stream:
            np.savez(stream, **arrays)

    @classmethod
    def load(cls, path: str | Path) -> Latent:
        """Read and check a kept latent. Raises ``BadModelFile``."""
        arrays = read_format(path, FORMAT, VERSION, _ARRAYS)
        count = int(arrays["noise_maps"])
        if not 0 <= count <= MAX_NOISE_MAPS:
            raise BadModelFile(f"{path}: wanted 0 to {MAX_NOISE_MAPS} noise maps, got {count}")
        specs = {f"noise_{number}": ArraySpec("<f4", 3, "(1, h, w)") for number in range(count)}
        noise = read_arrays(path, specs) if specs else {}
        try:
            about = json.loads(str(arrays["about"][()]))
        except (ValueError, RecursionError):
            about = None
        if not isinstance(about, dict):
            raise BadModelFile(f"{path}: about must be a JSON object")
        for name, values in noise.items():
            if values.shape[0] != 1 or not np.isfinite(values).all():
                raise BadModelFile(f"{path}: {name} must be (1, h, w) and finite, got {values.shape}")
        try:
            return cls(arrays["w"], str(arrays["generator_sha256"][()]), about, noise)
        except BadArgument as error:
            raise BadModelFile(f"{path}: {error}") from None


def checked_w(w: NDArray[Any], what: str) -> None:
    """Raise ``BadArgument`` unless ``w`` is (L, D), finite, and of a size that a network can have meant."""
    if w.ndim != 2 or not 1 <= w.shape[0] <= MAX_LAYERS or w.shape[1] < 1 or w.dtype.kind != "f":
        raise BadArgument(f"{what}: w must be (L, D) floats, got {w.shape} {w.dtype}")
    if not (np.abs(w) <= LARGEST).all():  # false for NaN
        raise BadArgument(f"{what}: w must be finite and within ±{LARGEST:g}")


def parse_layers(text: str, layers: int) -> tuple[int, ...]:
    """ "4-7,9" → (4, 5, 6, 7, 9), "all" → every layer. Raises ``BadArgument`` for one that is not there."""
    if text.strip().casefold() == "all":
        return tuple(range(layers))
    found: set[int] = set()
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,3})\s*(?:-\s*(\d{1,3})\s*)?", part)
        if match is None:
            raise BadArgument(f"layers are written such as 4-7,9 or all, got {text!r:.60}")
        first, last = int(match[1]), int(match[2] or match[1])
        if not first <= last < layers:
            raise BadArgument(
                f"layers {part.strip()}: this generator has layers 0 to {layers - 1}, from low to high"
            )
        found.update(range(first, last + 1))
    return tuple(sorted(found))


def expression_layers(layers: int) -> tuple[int, ...]:
    """The middle layers, 4 to 7, as far as the generator has them."""
    there = tuple(layer for layer in parse_layers(EXPRESSION_LAYERS, MAX_LAYERS) if layer < layers)
    if not there:
        raise BadArgument(f"this generator has only {layers} layers: name those to take")
    return there


def interpolate(
    start: NDArray[Any],
    end: NDArray[Any],
    intensities: Sequence[float] | NDArray[Any],
    way: Way = "linear",
    centre: NDArray[Any] | None = None,
) -> Floats:
    """(n, L, D) between two latents (L, D): exactly ``start`` at 0 and exactly ``end`` at 1.

    linear: (1 - t) start + t end. spherical: seen from ``centre`` (L, D), the generator's mean latent (the
    origin if None), the direction turns evenly, layer by layer (Shoemake, "Animating rotation with quaternion
    curves", 1985), and the distance from the centre changes linearly. Raises ``BadArgument``, also where two
    layers lie opposite each other, so that no way round is the shorter.
    """
    checked_w(start, "start")
    checked_w(end, "end")
    if start.shape != end.shape:
        raise BadArgument(f"start and end must have one shape, got {start.shape} and {end.shape}")
    if way not in WAYS:
        raise BadArgument(f"interpolation is one of {', '.join(WAYS)}, got {way!r:.20}")
    t = np.asarray(intensities, np.float64)
    if t.ndim != 1 or not ((t >= 0) & (t <= 1)).all():  # false for NaN
        raise BadArgument("intensities must be (n,) numbers in [0, 1]")
    a, b = start.astype(np.float64), end.astype(np.float64)
    middle = np.zeros_like(a) if centre is None else np.asarray(centre, np.float64)
    if middle.shape != a.shape:
        raise BadArgument(f"centre must be {a.shape}, got {middle.shape}")
    steps = t[:, None, None]
    found = a + steps * (b - a) if way == "linear" else middle + _turned(a - middle, b - middle, steps)
    latents: Floats = found.astype(np.float32)
    latents[t == 0], latents[t == 1] = start, end
    return latents


def _turned(a: NDArray[np.float64], b: NDArray[np.float64], t: NDArray[np.float64]) -> NDArray[np.float64]:
    """Spherical interpolation of the rows of a and b (L, D) at t (n, 1, 1)."""
    length_a, length_b = (np.linalg.norm(x, axis=1, keepdims=True) for x in (a, b))
    if not (length_a > 0).all() or not (length_b > 0).all():
        raise BadArgument("spherical interpolation: a layer lies at the centre and has no direction")
    unit_a, unit_b = a / length_a, b / length_b
    cosine = np.clip((unit_a * unit_b).sum(axis=1, keepdims=True), -1, 1)
    if (cosine < -1 + 1e-9).any():
        raise BadArgument("spherical interpolation: two layers lie opposite each other; use linear")
    angle = np.arccos(cosine)
    sine = np.sin(angle)
    near = sine < 1e-6  # there sin(t x) / sin(x) is t to single precision
    divisor = np.where(near, 1, sine)
    weight_a = np.where(near, 1 - t, np.sin((1 - t) * angle) / divisor)
    weight_b = np.where(near, t, np.sin(t * angle) / divisor)
    turned: NDArray[np.float64] = (weight_a * unit_a + weight_b * unit_b) * (
        (1 - t) * length_a + t * length_b
    )
    return turned


def mix(identity: NDArray[Any], expression: NDArray[Any], layers: Iterable[int]) -> Floats:
    """(L, D): ``expression`` in the layers named, ``identity`` in the others (style mixing of Karras et al.
    2019, section 3.1). Raises ``BadArgument``."""
    checked_w(identity, "identity")
    checked_w(expression, "expression")
    if identity.shape != expression.shape:
        raise BadArgument(
            f"identity and expression must have one shape, got {identity.shape} and {expression.shape}"
        )
    mixed: Floats = identity.astype(np.float32)  # a copy
    for layer in layers:
        if not 0 <= layer < len(mixed):
            raise BadArgument(f"layer {layer}: there are layers 0 to {len(mixed) - 1}")
        mixed[layer] = expression[layer]
    return mixed
