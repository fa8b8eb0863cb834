"""A small seeded StyleGAN2 as a checkpoint and as graphs, for tests that need a real one (torch)."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any


def network(resolution: int = 32, width: int = 32, seed: int = 0) -> Any:
    """A generator with images of about unit contrast and noise that shows."""
    import torch

    from fastface.exports.stylegan2 import Config, Generator

    random = torch.Generator().manual_seed(seed)
    config = Config.standard(
        resolution, channel_base=32 * resolution, channel_max=32, z_dim=width, w_dim=width, mapping_layers=4
    )
    made = Generator(config).eval()
    with torch.no_grad():
        for tensor in made.state_dict().values():
            if tensor.ndim >= 2 and tensor.shape != (4, 4):  # weights and noise; filters stay
                tensor.copy_(torch.randn(tensor.shape, generator=random) * tensor.std())
        for layer in made.synthesis.convolutions:
            layer.noise_strength.fill_(0.1)
        w = made.mapping(torch.randn(256, width, generator=random))
        made.mapping.w_avg.copy_(w[:, 0].mean(dim=0))
        scale = 1 / (3 * made.synthesis(w[:32]).std())
        for block in made.synthesis.blocks:
            block.torgb.weight.mul_(scale)
            block.torgb.bias.mul_(scale)
    return made.requires_grad_(False)


def write(folder: Path, made: Any, *, noise: str = "const") -> str:
    """net.safetensors, net.mapping.onnx and net.synthesis.onnx; returns the checkpoint's SHA-256."""
    from fastface.checkpoints import Checkpoint, read_checkpoint, write_checkpoint
    from fastface.exports.generator_files import export_generator
    from fastface.exports.stylegan2 import tensors_of

    tensors = dict(tensors_of(made))
    digest = hashlib.sha256(tensors["mapping.fc0.weight"].tobytes()).hexdigest()
    checkpoint = Checkpoint("stylegan2", tensors, made.config.as_dict(), "seeded", digest)
    write_checkpoint(checkpoint, folder / "net.safetensors")
    export_generator(read_checkpoint(folder / "net.safetensors"), folder / "net.onnx", noise=noise)
    return digest
