"""StarGAN v2 from ONNX: a face takes on the style of a reference face, or of a random one, of a domain."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fastface.errors import BadArgument, BadModelFile
from fastface.generators.labelled import one_each
from fastface.generators.parts import Parts, wanted_inputs
from fastface.generators.pixels import Floats, Images, to_images, to_network

_LATENT: Final = 16


class StarGANv2:
    """A StarGAN v2 generator with its style encoder, mapping network and, where it was trained with it, the
    landmark network of its high-pass path. ``load`` makes it; threads may share it.

    resolution: 256. style_dim: 64 as published. domains: how many (0 when only the generator is there).
    """

    def __init__(self, parts: Parts) -> None:
        self.parts, self.kind, self.metadata = parts, parts.kind, parts.metadata
        session = parts.session("generator")
        wanted_inputs(session, ["image", "style"], ["image_out"] if "image_out" in session.outputs else [])
        self._output = next(iter(session.outputs))
        self.resolution = int(self.metadata["resolution"])
        self.style_dim = int(session.inputs["style"].shape[1])
        self.domains = int(self.metadata.get("config", {}).get("num_domains", 0))
        self.high_pass = "masks" in session.inputs
        if self.high_pass and "fan" not in parts:
            raise BadModelFile(
                f"{parts.files['generator']}: keeps the source's shape by landmarks; its landmark network "
                f"{parts.files['generator'].name.replace('.generator.', '.fan.')} is not beside it"
            )

    @property
    def provider(self) -> str:
        """What computes the images."""
        return self.parts.session("generator").provider

    def style(self, reference_rgb: Any, domain: int | NDArray[Any]) -> Floats:
        """Style (B, 64) of reference images (256, 256, 3) or (B, 256, 256, 3) uint8, read as of a domain: one
        for all, or (B,). Raises ``BadArgument``."""
        image = to_network(reference_rgb, self.resolution, "reference")
        inputs: dict[str, NDArray[Any]] = {"image": image, "domain": self._domain(domain, len(image))}
        return np.asarray(self.parts.session("style_encoder").run(inputs)["style"], np.float32)

    def random_style(self, seeds: int | list[int], domain: int | NDArray[Any]) -> Floats:
        """Style (B, 64) of seeds, by the mapping network; z is ``RandomState(seed).randn(1, 16)``."""
        session = self.parts.session("mapping")
        listed = [seeds] if isinstance(seeds, int) else list(seeds)
        length = int(session.inputs["z"].shape[1])
        if not all(isinstance(seed, int) and 0 <= seed < 1 << 32 for seed in listed):
            raise BadArgument(f"a seed is a whole number from 0 to 2^32 - 1, got {listed!r:.60}")
        z = [np.random.RandomState(seed).randn(length) for seed in listed]
        inputs: dict[str, NDArray[Any]] = {
            "z": np.array(z, np.float32).reshape(-1, length),
            "domain": self._domain(domain, len(listed)),
        }
        return np.asarray(session.run(inputs)["style"], np.float32)

    def translate(self, images: Any, style: NDArray[Any]) -> Images:
        """Images (B, 256, 256, 3) uint8 in a style (64,) or (B, 64), as (B, 256, 256, 3) uint8. Raises
        ``BadArgument``."""
        image = to_network(images, self.resolution, "images")
        inputs = {"image": image, "style": one_each(style, "style", self.style_dim, len(image))}
        if self.high_pass:
            inputs["masks"] = self.parts.session("fan").run({"image": image}, ["masks"])["masks"]
        made = self.parts.session("generator").run(inputs)[self._output]
        return to_images(made, str(self.parts.files["generator"]))

    def _domain(self, domain: int | NDArray[Any], batch: int) -> NDArray[np.int64]:
        array = np.asarray(domain)
        if array.dtype.kind not in "iu" or array.shape not in ((), (1,), (batch,)):
            raise BadArgument(f"domain is a whole number, or ({batch},) of them, got {domain!r:.40}")
        if array.size and (array.min() < 0 or (self.domains and array.max() >= self.domains)):
            raise BadArgument(f"domain lies in 0 … {self.domains - 1}, got {domain!r:.40}")
        return np.ascontiguousarray(np.broadcast_to(array, (batch,)), np.int64)
