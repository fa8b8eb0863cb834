"""Latents to labelled images: batches out of a generator, and what the landmark networks see in each."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastface.affect import affect_model
from fastface.errors import BadArgument, BadModelFile
from fastface.generators.latents import Floats, Latent
from fastface.generators.scorers import find_face
from fastface.generators.stylegan import NoiseMaps, StyleGAN
from fastface.landmarks import BLENDSHAPE_NAMES, LandmarkDetector, landmarks68

Images = NDArray[np.uint8]


def belongs(what: str, sha256: str, generator: StyleGAN) -> None:
    """Raise ``BadModelFile`` unless something was made for this generator's checkpoint."""
    own = str(generator.metadata.get("checkpoint_sha256", ""))
    if sha256 != own:
        raise BadModelFile(
            f"{what}: belongs to another generator (checkpoint {sha256[:12]}…) than "
            f"{generator.parts.files['synthesis'].name} ({own[:12]}…)"
        )


def latent_of_seed(
    generator: StyleGAN, seed: int, truncation: float = 0.7, label: NDArray[Any] | None = None
) -> Latent:
    """The latent of a seed."""
    w = generator.map(generator.sample(seed), truncation, label)[0]
    about: dict[str, Any] = {"made": "seed", "seed": seed, "truncation": truncation}
    if label is not None:
        about["label"] = np.asarray(label).tolist()
    return Latent(w, str(generator.metadata.get("checkpoint_sha256", "")), about)


def mean_latent(generator: StyleGAN, label: NDArray[Any] | None = None) -> Floats:
    """w (L, D) that truncation draws to, in the layers where it acts."""
    found: Floats = generator.map(generator.sample(0), 0.0, label)[0]
    return found


def check_fit(latent: Latent, generator: StyleGAN, what: str) -> None:
    """Raise ``BadModelFile`` unless the latent is one of this generator."""
    belongs(what, latent.generator_sha256, generator)
    wanted = (generator.layers, generator.w_dim)
    if latent.w.shape != wanted:
        raise BadModelFile(f"{what}: w is {latent.w.shape}, this generator's is {wanted}")


def synthesize(
    generator: StyleGAN, w: Floats, noise: NoiseMaps | None = None, batch: int = 8
) -> Iterator[Images]:
    """Images (R, R, 3) uint8 of w (N, L, D), one by one, made ``batch`` at a time.

    noise: maps of a latent's own for all of them; the checkpoint's if None or empty. An image is the same
    whatever the batch, up to what a runtime rounds differently: at most one grey level.
    """
    if batch < 1:
        raise BadArgument(f"batch must be at least 1, got {batch}")
    for start in range(0, len(w), batch):
        yield from generator.synthesize(w[start : start + batch], noise or "const")


def w_digest(w: Floats) -> str:
    """SHA-256 (hex) of a latent's numbers."""
    return hashlib.sha256(repr(w.shape).encode() + np.ascontiguousarray(w, "<f4").tobytes()).hexdigest()


def seen(detector: LandmarkDetector, image: Images) -> dict[str, Any]:
    """What the landmark networks see in an image: measured, not asked for. All of it None without a face."""
    face = find_face(detector, image)
    if face is None:
        return {
            "face_found": False,
            **dict.fromkeys(("seen_expression", "seen_intensity", "valence", "arousal")),
            "aus": {},
            "blendshapes": dict.fromkeys(BLENDSHAPE_NAMES[1:]),
            "landmarks68_px": None,
            "landmarks478_px": None,
        }
    shapes = face.blendshapes[1:]
    shown = affect_model().explain(shapes, BLENDSHAPE_NAMES[1:])
    points = np.round(face.points_px.astype(np.float64), 2)
    return {
        "face_found": True,
        "seen_expression": shown.expression,
        "seen_intensity": round(shown.intensity, 4),
        "valence": round(shown.valence, 4),
        "arousal": round(shown.arousal, 4),
        "aus": {name: round(float(value), 4) for name, value in shown.aus.items()},
        "blendshapes": {
            name: round(float(value), 4) for name, value in zip(BLENDSHAPE_NAMES[1:], shapes, strict=True)
        },
        "landmarks68_px": landmarks68(points).tolist(),
        "landmarks478_px": points.tolist(),
    }
