"""The affect models that ship with fastface, from a sampled gallery.

    python -m fastface.exports.models.build_affect
    python -m fastface.exports.models.build_affect --check

Writes fastface/assets/affect_<family>.npz for each family of heads, or compares what it would write with what
is there. What is sampled and how stands in ``fastface.workshop.sampling``; the recipe stands in the file.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import numpy as np

from fastface.affect_tables import PROTOTYPES
from fastface.class_model import ASSETS, AffectClasses
from fastface.workshop.classes import build_classes
from fastface.workshop.gallery import Gallery
from fastface.workshop.sampling import MADE, Recipe, sample_gallery

CLASSES: Final = 550  # as in the paper
MODES: Final = 3
STEP: Final = 0.02  # finer than classes are apart (0.06), coarse enough to cluster in a minute
RECIPE: Final = Recipe()
#: Half precision holds coefficients up to 1 to 0.0005; another machine's sums may round the other way.
TOLERANCE: Final = 0.001


def build(family: str, file: Path, recipe: Recipe = RECIPE, classes: int = CLASSES) -> AffectClasses:
    """Sample a gallery, learn its classes, write them to ``file``; returns what a reader of it gets."""
    with tempfile.TemporaryDirectory() as folder:
        sample_gallery(Path(folder) / "gallery", family, recipe)
        gallery = Gallery.open(Path(folder) / "gallery")
        build_classes(gallery, classes, modes=MODES, step=STEP).save(file)
    return AffectClasses.load(file)


def provenance(family: str, recipe: Recipe = RECIPE) -> dict[str, Any]:
    """What a file says of how it was made, but for the number of faces."""
    return {"gallery": {"made": MADE, "family": family, **asdict(recipe)}, "step": STEP}


def differences(built: AffectClasses, shipped: AffectClasses) -> list[str]:
    """What is not alike, in words; empty for the same model."""
    found = []
    if json.loads(built.about) != json.loads(shipped.about):
        found.append(f"made otherwise: {built.about} against {shipped.about}")
    for name, array in vars(built).items():
        other = getattr(shipped, name)
        if not isinstance(array, np.ndarray):
            continue
        if array.shape != other.shape:
            found.append(f"{name}: {array.shape} against {other.shape}")
        elif array.size and (worst := np.abs(array.astype(np.float64) - other).max()) > TOLERANCE:
            found.append(f"{name}: differs by up to {worst:.3g}")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description="The affect models that ship with fastface.")
    parser.add_argument("--check", action="store_true", help="compare with what is there; write nothing")
    check = parser.parse_args().check
    failed = False
    for family in PROTOTYPES:
        file = ASSETS / f"affect_{family}.npz"
        if not check:
            classes = build(family, file)
            counts = classes.counts
            print(f"{family}: {counts.sum():,} faces in {CLASSES} classes of {counts.min()} and more")
            continue
        with tempfile.TemporaryDirectory() as folder:
            built, shipped = build(family, Path(folder) / "built.npz"), AffectClasses.load(file)
        found = differences(built, shipped)
        failed |= bool(found)
        same = "the same" if built.digest == shipped.digest else f"the same to {TOLERANCE:g}"
        print(f"{family}: {'; '.join(found) or same}", flush=True)
    sys.exit(int(failed))


if __name__ == "__main__":
    main()
