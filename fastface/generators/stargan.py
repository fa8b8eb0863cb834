"""StarGAN from ONNX: a face takes on attributes, an expression, or a valence and arousal."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from fastface.generators.labelled import one_each
from fastface.generators.parts import Parts, wanted_inputs
from fastface.generators.pixels import Images, to_images, to_network


class StarGAN:
    """A StarGAN generator. ``load`` makes it; threads may share it.

    resolution: side of its images. label_dim: length of its label.
    """

    def __init__(self, parts: Parts) -> None:
        self.parts, self.kind, self.metadata = parts, parts.kind, parts.metadata
        session = parts.session("generator")
        wanted_inputs(session, ["image", "label"], [])
        self._output = next(iter(session.outputs))
        self.resolution = int(self.metadata["resolution"])
        self.label_dim = int(session.inputs["label"].shape[1])

    @property
    def provider(self) -> str:
        """What computes the images."""
        return self.parts.session("generator").provider

    def translate(self, images: Any, label: NDArray[Any]) -> Images:
        """Images (B, R, R, 3) uint8 under a label (C,) or (B, C), as (B, R, R, 3) uint8. What an entry means,
        and its range, is the checkpoint's own: 0 or 1 for attributes, -1 … 1 for valence and arousal. Raises
        ``BadArgument``."""
        image = to_network(images, self.resolution, "images")
        inputs = {"image": image, "label": one_each(label, "label", self.label_dim, len(image))}
        made = self.parts.session("generator").run(inputs)[self._output]
        return to_images(made, str(self.parts.files["generator"]))
