"""StarGAN v2, StarGAN and GANimation as their authors compute them, with weights that are drawn here.

``authors_translation.npz`` holds what the authors' own classes gave (``AUTHORS``: repository and revision)
for the cases below: values at a few thousand places of every output, and the names and shapes of the
published networks. Weights and inputs are drawn here, so that the file is small.

Made anew by ``python tests/translation_cases.py FOLDER``; FOLDER holds the authors' files as in ``AUTHORS``.
"""

from __future__ import annotations

import importlib.util
import json
import sys
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

REFERENCE = Path(__file__).with_name("authors_translation.npz")
AUTHORS = {
    "starganv2": ("clovaai/stargan-v2", "5f926929839ce5f8503c882061ffba11201faa67", "core/model.py"),
    "wing": ("clovaai/stargan-v2", "1b2574912c32745cf53f6d56ae240d2c2c0d5335", "core/wing.py"),
    "stargan": ("yunjey/stargan", "3c5aa6b57ff9e6171cc1d7d53801a8b561847b32", "model.py"),
    "ganimation": (
        "albertpumarola/GANimation",
        "f8ed75b73ee60edd1d4b79688e93de31d2cfd46b",
        "networks/generator_wasserstein_gan.py",
    ),
}
SAMPLES = 3000
Arrays = dict[str, NDArray[Any]]
Shapes = dict[str, list[int]]

#: Small networks of StarGAN v2: (resolution, widest, domains, w_hpf).
STARGANV2 = {"plain": (256, 48, 3, 0.0), "faces": (256, 48, 2, 1.0), "small": (128, 40, 1, 2.5)}
#: Small networks of StarGAN and GANimation: (conv_dim, c_dim, repeat_num).
HOURGLASS = {"attributes": (16, 5, 2), "circumplex": (8, 2, 3)}
ACTION_UNITS = (16, 17, 2)


def drawn(name: str, shape: Sequence[int]) -> NDArray[Any]:
    """A tensor that depends on its name alone; a network of such tensors keeps about unit variance."""
    random = np.random.default_rng(zlib.crc32(name.encode()))
    if name.endswith("num_batches_tracked"):
        return np.zeros((), np.int64)
    values = random.standard_normal(shape)
    if name.endswith("running_var"):
        values = 0.5 + np.abs(values)
    elif len(shape) > 1:
        values *= np.sqrt(1.5 / np.prod(shape[1:]))
    else:
        values = 0.1 * values + (name.endswith("weight"))
    return values.astype(np.float32)


def drawn_state(shapes: Shapes) -> Arrays:
    return {name: drawn(name, shape) for name, shape in shapes.items()}


def image(size: int, batch: int = 2) -> NDArray[np.float32]:
    """Smooth colours and some noise, (B, 3, R, R) in [-1, 1]."""
    random = np.random.default_rng(size)
    coarse = random.uniform(-1, 1, (batch, 3, 8, 8)).repeat(size // 8, 2).repeat(size // 8, 3)
    return np.clip(coarse + 0.2 * random.standard_normal(coarse.shape), -1, 1).astype(np.float32)


def vectors(length: int, batch: int = 2) -> NDArray[np.float32]:
    return np.random.default_rng(length).uniform(-1, 1, (batch, length)).astype(np.float32)


def soft_masks(batch: int = 2) -> NDArray[np.float32]:
    """(B, 2, 256, 256) in [0, 1]."""
    return np.random.default_rng(7).uniform(0, 1, (batch, 2, 256, 256)).astype(np.float32)


def heatmaps(batch: int = 2) -> NDArray[np.float32]:
    """(B, 98, 64, 64) like a trained network's: a peak each, on noise that stays below the threshold."""
    random = np.random.default_rng(98)
    centre = random.uniform(0, 64, (batch, 98, 2, 1, 1))
    row, column = np.mgrid[:64, :64]
    squares = (row - centre[:, :, 0]) ** 2 + (column - centre[:, :, 1]) ** 2
    peaks = random.uniform(0.6, 1.0, (batch, 98, 1, 1)) * np.exp(-squares / 4)
    return (peaks + random.uniform(-0.03, 0.03, peaks.shape)).astype(np.float32)


def places(output: NDArray[Any]) -> NDArray[Any]:
    """What is kept of an output."""
    flat = np.asarray(output, np.float32).ravel()
    chosen = np.random.default_rng(flat.size).integers(flat.size, size=min(SAMPLES, flat.size))
    return flat[chosen]


class Authors:
    """What the authors' classes gave."""

    def __init__(self) -> None:
        with np.load(REFERENCE) as file:
            self._values: Arrays = {name: file[name] for name in file.files if name != "shapes"}
            self.shapes: dict[str, Shapes] = json.loads(str(file["shapes"]))

    def worst(self, case: str, output: Any) -> float:
        """Largest difference of an output from theirs."""
        return float(np.abs(places(np.asarray(output)) - self._values[case]).max())


# -- made with the authors' files ----------------------------------------------------------------------------


def _load(folder: Path, name: str) -> Any:
    spec = importlib.util.spec_from_file_location(f"authors_{name}", folder / AUTHORS[name][2])
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _make(folder: Path) -> None:
    import torch

    shapes: dict[str, Shapes] = {}
    values: Arrays = {}

    def network(title: str, made: Any) -> Any:
        shapes[title] = {name: list(tensor.shape) for name, tensor in made.state_dict().items()}
        state = {name: torch.from_numpy(tensor) for name, tensor in drawn_state(shapes[title]).items()}
        made.load_state_dict(state)
        return made.eval()

    def keep(title: str, output: Any) -> None:
        values[title] = places(output.numpy())

    with torch.no_grad():
        _starganv2(folder, network, keep, torch.from_numpy)
        _hourglasses(folder, network, keep, torch.from_numpy)
    np.savez_compressed(REFERENCE, shapes=np.array(json.dumps(shapes)), **values)  # type: ignore[arg-type]


def _starganv2(folder: Path, network: Any, keep: Any, tensor: Callable[[Any], Any]) -> None:
    model, wing = _load(folder, "starganv2"), _load(folder, "wing")
    network("generator", model.Generator(w_hpf=0))
    network("generator_faces", model.Generator(w_hpf=1))
    network("mapping_network", model.MappingNetwork())
    network("style_encoder", model.StyleEncoder())
    for case, (size, widest, domains, w_hpf) in STARGANV2.items():
        generator = network(f"{case}/generator", model.Generator(size, 64, widest, w_hpf))
        x, s = tensor(image(size, 1)), tensor(vectors(64, 1))
        keep(f"{case}/generator", generator(x, s))
        if w_hpf:
            both = tensor(soft_masks(1))
            keep(f"{case}/masked", generator(x, s, masks=(both[:, :1], both[:, 1:])))
        domain = tensor(np.array([domains - 1, 0]))
        mapping = network(f"{case}/mapping_network", model.MappingNetwork(num_domains=domains))
        keep(f"{case}/mapping_network", mapping(tensor(vectors(16)), domain))
        encoder = network(f"{case}/style_encoder", model.StyleEncoder(size, 64, domains, widest))
        keep(f"{case}/style_encoder", encoder(tensor(image(size)), domain))
    fan = network("fan", wing.FAN())
    for size in (256, 512):
        keep(f"fan/{size}", fan.get_heatmap(tensor(image(size, 1)), b_preprocess=False))
    import torch.nn.functional as functional

    large = functional.interpolate(tensor(heatmaps()), scale_factor=4, mode="bilinear", align_corners=True)
    for title, mask in zip(("face", "inner"), wing.preprocess(large), strict=True):
        keep(f"masks/{title}", mask)


def _hourglasses(folder: Path, network: Any, keep: Any, tensor: Callable[[Any], Any]) -> None:
    stargan, ganimation = _load(folder, "stargan"), _load(folder, "ganimation")
    network("stargan", stargan.Generator())
    network("ganimation", ganimation.Generator(c_dim=17))
    x = tensor(image(64))
    for case, (conv_dim, c_dim, repeat_num) in HOURGLASS.items():
        generator = network(f"stargan/{case}", stargan.Generator(conv_dim, c_dim, repeat_num))
        keep(f"stargan/{case}/running", generator(x, tensor(vectors(c_dim))))
        keep(f"stargan/{case}/instance", generator.train()(x, tensor(vectors(c_dim))))
    conv_dim, c_dim, repeat_num = ACTION_UNITS
    generator = network("ganimation/small", ganimation.Generator(conv_dim, c_dim, repeat_num))
    colour, attention = generator(x, tensor(vectors(c_dim)))
    # models/ganimation.py, _do_if_necessary_saturate_mask and forward.
    sharp = (0.55 * (3 * (attention - 0.5)).tanh() + 0.5).clamp(0, 1)
    for title, mask in (("soft", attention), ("saturated", sharp)):
        keep(f"ganimation/{title}/attention", mask)
        keep(f"ganimation/{title}/image_out", mask * x + (1 - mask) * colour)
    keep("ganimation/colour", colour)


if __name__ == "__main__":
    _make(Path(sys.argv[1]))
