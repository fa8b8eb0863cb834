"""Make ``stylegan_reference.npz`` with the authors' own code, which is not part of this repository.

    python tests/make_stylegan_reference.py STYLEGAN3 ADA ROSINALITY

with checkouts of NVlabs/stylegan3, NVlabs/stylegan2-ada-pytorch and rosinality/stylegan2-pytorch. On the
processor, in fp32; the constant noise.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent))
import nvidia_pickles
import stylegan_cases as cases


def authors(folder: str, name: str) -> Any:
    """A module of a checkout, with the modules beside it."""
    for loaded in [
        key for key in sys.modules if key.split(".")[0] in ("training", "torch_utils", "dnnlib", "op")
    ]:
        del sys.modules[loaded]
    sys.path.insert(0, folder)
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(folder)


def images(network: Any, classes: bool, **synthesis: Any) -> dict[str, Any]:
    """Latents, truncated and not, and the first image."""
    state = network.state_dict()
    made = cases.weights({name: tuple(tensor.shape) for name, tensor in state.items()})
    network.load_state_dict({**state, **{name: torch.from_numpy(np.array(v)) for name, v in made.items()}})
    z = torch.from_numpy(cases.latents())
    label = torch.from_numpy(cases.labels()) if classes else None
    w = network.mapping(z, label)
    drawn = network.mapping(z, label, truncation_psi=cases.TRUNCATION, truncation_cutoff=cases.CUTOFF)
    return {"w": w, "drawn": drawn, "image": network.synthesis(w, **synthesis)[:1]}


def main(stylegan3: str, ada: str, rosinality: str) -> None:
    kept: dict[str, Any] = {}
    size = {"z_dim": cases.WIDTH, "w_dim": cases.WIDTH, "img_resolution": cases.RESOLUTION, "img_channels": 3}
    with torch.no_grad():
        code = authors(ada, "training.networks")
        for name, arguments in cases.STYLEGAN2.items():
            network = code.Generator(**{"c_dim": 0, **size, **arguments}).eval()
            made = images(network, "c_dim" in arguments, noise_mode="const", force_fp32=True)
            if name == "skip":
                made["quiet"] = network.synthesis(made["w"], noise_mode="none", force_fp32=True)[:1]
            kept |= {f"stylegan2/{name}/{key}": value for key, value in made.items()}
            if name == "skip":
                state = {key: value.numpy() for key, value in network.state_dict().items()}
        code = authors(stylegan3, "training.networks_stylegan3")
        for name, arguments in cases.STYLEGAN3.items():
            network = code.Generator(**{"c_dim": 0, **size, **arguments}).eval()
            made = images(network, "c_dim" in arguments, force_fp32=True)
            kept |= {f"stylegan3/{name}/{key}": value for key, value in made.items()}
        kept["rosinality/image"] = rosinality_image(authors(rosinality, "model"), state)
    output = Path(__file__).with_name("stylegan_reference.npz")
    np.savez_compressed(output, **{name: value.numpy().astype(np.float32) for name, value in kept.items()})
    print(output, output.stat().st_size)


def rosinality_image(code: Any, state: dict[str, Any]) -> Any:
    """The same weights in rosinality's network, whose widths are cut to those of the case."""
    theirs = nvidia_pickles.rosinality_state(state, cases.RESOLUTION)
    network = code.Generator(cases.RESOLUTION, cases.WIDTH, 8)
    for name, value in theirs.items():
        *path, leaf = name.split(".")
        module = network.get_submodule(".".join(path))
        tensor = torch.from_numpy(np.array(value))
        if leaf in module._parameters:
            module._parameters[leaf] = torch.nn.Parameter(tensor, requires_grad=False)
        else:
            module._buffers[leaf] = tensor
    for module in network.modules():
        if isinstance(module, code.ModulatedConv2d):
            _, module.out_channel, module.in_channel, taps, _ = module.weight.shape
            module.scale = 1 / (module.in_channel * taps**2) ** 0.5
            module.modulation.scale = 1 / module.modulation.weight.shape[1] ** 0.5
    image, _ = network([torch.from_numpy(cases.latents())], randomize_noise=False)
    return image[:1]


if __name__ == "__main__":
    main(*sys.argv[1:])
