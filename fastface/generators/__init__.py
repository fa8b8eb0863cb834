"""Generators that ``fastface export`` wrote, run without torch: seeds, styles, labels or action units in.

import fastface as ff
generator = ff.generators.load("net.onnx")
w = generator.map(generator.sample([0, 1, 2]), truncation=0.7)
images = generator.synthesize(w)                                    # (3, R, R, 3) uint8 RGB
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fastface.errors import BadModelFile, FastfaceError
from fastface.generators.ganimation import GANimation
from fastface.generators.parts import Parts
from fastface.generators.stargan import StarGAN
from fastface.generators.starganv2 import StarGANv2
from fastface.generators.stylegan import StyleGAN
from fastface.runtime import MAX_BATCH, Precision

__all__ = ["GANimation", "Generator", "StarGAN", "StarGANv2", "StyleGAN", "load"]

Generator = StyleGAN | StarGANv2 | StarGAN | GANimation
_CLASSES: dict[str, type[Generator]] = {
    "stylegan2": StyleGAN,
    "stylegan3": StyleGAN,
    "starganv2": StarGANv2,
    "stargan": StarGAN,
    "ganimation": GANimation,
}


def load(
    path: str | Path,
    providers: Sequence[str] | None = None,
    precision: Precision | None = None,
    threads: int | None = None,
    max_batch: int = MAX_BATCH,
) -> Generator:
    """The generator in files that ``fastface export`` wrote.

    path: the name given to the exporter (``net.onnx``, ``net.plan``), any of its files, or their stem.
    providers, precision, threads, max_batch: as for ``runtime.Session``.
    Raises ``BadModelFile``, ``ProviderUnavailable``, ``BadArgument``.
    """
    parts = Parts(path, providers, precision, threads, max_batch)
    try:
        return _CLASSES[parts.kind](parts)
    except FastfaceError:
        raise
    except (KeyError, TypeError, ValueError, IndexError) as error:
        # What the file says of itself does not fit the graph in it.
        raise BadModelFile(
            f"{path}: its metadata or inputs are not those of a {parts.kind} ({error})"
        ) from None
