"""The affect models that ship with fastface, from a sampled gallery.

    python -m fastface.exports.models.build_affect

Writes fastface/assets/affect_<family>.npz for each family of heads. What is sampled and how stands in
``fastface.workshop.sampling``; the recipe is written into the file.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Final

from fastface.affect_tables import PROTOTYPES
from fastface.class_model import ASSETS
from fastface.workshop.classes import build_classes
from fastface.workshop.gallery import Gallery
from fastface.workshop.sampling import Recipe, sample_gallery

CLASSES: Final = 550  # as in the paper
MODES: Final = 3
STEP: Final = 0.02  # finer than classes are apart (0.06), coarse enough to cluster in a minute


def main() -> None:
    for family in PROTOTYPES:
        with tempfile.TemporaryDirectory() as folder:
            sample_gallery(Path(folder) / "gallery", family, Recipe())
            gallery = Gallery.open(Path(folder) / "gallery")
            classes = build_classes(gallery, CLASSES, modes=MODES, step=STEP)
        classes.save(ASSETS / f"affect_{family}.npz")
        print(f"{family}: {len(gallery):,} faces in {CLASSES} classes of {classes.counts.min()} and more")


if __name__ == "__main__":
    main()
