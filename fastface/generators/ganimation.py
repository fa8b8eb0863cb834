"""GANimation from ONNX: a face moves to given action units."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastface.generators.labelled import one_each
from fastface.generators.parts import Parts, wanted_inputs
from fastface.generators.pixels import Images, to_images, to_network

#: The 17 action units that OpenFace measures, in the order of its output and so of GANimation's input
#: (Pumarola et al. 2018, section 4). 1 is OpenFace's 5, the strongest.
ACTION_UNITS: Final = (
    *("AU1", "AU2", "AU4", "AU5", "AU6", "AU7", "AU9", "AU10", "AU12"),
    *("AU14", "AU15", "AU17", "AU20", "AU23", "AU25", "AU26", "AU45"),
)


class Animated(NamedTuple):
    """What GANimation computes: the blended images, where the source shows through ((B, R, R) in [0, 1], 1 is
    all source) and what is blended in where it does not."""

    images: Images
    attention: NDArray[np.float32]
    colour: Images


class GANimation:
    """A GANimation generator. ``load`` makes it; threads may share it.

    resolution: side of its images, 128 as published. au_dim: how many action units, 17 as published.
    """

    def __init__(self, parts: Parts) -> None:
        self.parts, self.kind, self.metadata = parts, parts.kind, parts.metadata
        session = parts.session("generator")
        wanted_inputs(session, ["image", "aus"], ["attention", "colour"])
        self._output = next(name for name in session.outputs if name not in ("attention", "colour"))
        self.resolution = int(self.metadata["resolution"])
        self.au_dim = int(session.inputs["aus"].shape[1])

    @property
    def provider(self) -> str:
        """What computes the images."""
        return self.parts.session("generator").provider

    def animate(self, images: Any, aus: NDArray[Any]) -> Images:
        """Images (B, R, R, 3) uint8 at action units (17,) or (B, 17) in [0, 1] in the order of
        ``ACTION_UNITS``, as (B, R, R, 3) uint8. Raises ``BadArgument``."""
        made = self._run(images, aus, [self._output])
        return to_images(made[self._output], str(self.parts.files["generator"]))

    def animate_parts(self, images: Any, aus: NDArray[Any]) -> Animated:
        """As ``animate``, with the attention and the colour that it is blended from."""
        made = self._run(images, aus, [self._output, "attention", "colour"])
        name = str(self.parts.files["generator"])
        return Animated(
            to_images(made[self._output], name), made["attention"][:, 0], to_images(made["colour"], name)
        )

    def _run(self, images: Any, aus: NDArray[Any], outputs: list[str]) -> dict[str, NDArray[Any]]:
        image = to_network(images, self.resolution, "images")
        inputs = {"image": image, "aus": one_each(aus, "aus", self.au_dim, len(image))}
        return self.parts.session("generator").run(inputs, outputs)
