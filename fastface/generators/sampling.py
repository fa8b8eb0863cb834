"""Seeds to latents to images to scores, in pieces that are kept, so that a long run can go on later."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fastface.atomic import whole_file, write_whole
from fastface.errors import BadArgument, BadModelFile, NoFaceFound, WriteFailed
from fastface.generators.scorers import FaceScorer, Scorer
from fastface.generators.stylegan import StyleGAN
from fastface.morphable import ArraySpec, read_arrays

Float32 = NDArray[np.float32]

FORMAT: Final = "fastface-samples"
VERSION: Final = 1
#: Samples in one file of the cache, whatever the batch.
PIECE: Final = 64
#: After so many samples it is clear whether a generator shows faces.
_FIRST_LOOK: Final = 256
_LEAST_SHARE: Final = 0.05
_PIECE_ARRAYS: Final = {
    "w": ArraySpec("<f4", 2, "(n, D)"),
    "scores": ArraySpec("<f4", 2, "(n, S), NaN where there is none"),
}


@dataclass(frozen=True)
class Samples:
    """w (N, D) and scores (N, S), NaN where an image has none."""

    w: Float32
    scores: Float32
    names: tuple[str, ...]


def score_samples(
    generator: StyleGAN,
    scorers: Sequence[Scorer],
    seeds: range,
    *,
    truncation: float = 0.7,
    batch: int = 8,
    cache: str | Path | None = None,
    advance: Callable[[int], object] = lambda _: None,
) -> Samples:
    """Score the images of consecutive seeds. Memory holds latents and scores, never more than a batch of
    images.

    cache: a folder; pieces that are there already are not made again. It belongs to one generator, one
    truncation and one set of scorers; ``BadArgument`` for another's. What the samples are depends on the
    seeds alone, not on ``batch``. Raises ``NoFaceFound`` when faces are wanted and there are next to none.
    """
    names = tuple(name for scorer in scorers for name in scorer.names)
    if not names or len(set(names)) < len(names):
        raise BadArgument(f"samples: two scores have one name: {max(names, key=names.count)}" if names else
                          "samples: wanted at least one scorer")  # fmt: skip
    if batch < 1 or not seeds or seeds.step != 1:
        raise BadArgument(f"samples: wanted consecutive seeds and a batch of at least 1, got {batch}")
    folder = None if cache is None else _open_cache(Path(cache), generator, scorers, truncation)
    pieces: list[tuple[Float32, Float32]] = []
    done = 0
    # Pieces start at multiples of PIECE, so that a run of more seeds, or of other ones, finds them.
    for start in range(seeds.start - seeds.start % PIECE, seeds.stop, PIECE):
        part = range(max(start, seeds.start), min(start + PIECE, seeds.stop))
        file = None if folder is None else folder / f"{part.start:010}-{part.stop:010}.npz"
        piece = None if file is None else _kept(file, part, generator.w_dim, len(names))
        if piece is None:
            piece = _made(generator, scorers, part, truncation, batch)
            if file is not None:
                _keep(file, *piece)
        pieces.append(piece)
        done += len(part)
        advance(len(part))
        if done - len(part) < _FIRST_LOOK <= done:
            _check_faces(scorers, pieces)
    _check_faces(scorers, pieces)
    return Samples(np.concatenate([w for w, _ in pieces]), np.concatenate([s for _, s in pieces]), names)


def _check_faces(scorers: Sequence[Scorer], pieces: list[tuple[Float32, Float32]]) -> None:
    """A network that was never trained shows no faces; directions learned from it would be noise."""
    column = 0
    for scorer in scorers:
        if isinstance(scorer, FaceScorer):
            found = sum(int(np.isfinite(scores[:, column]).sum()) for _, scores in pieces)
            total = sum(len(scores) for _, scores in pieces)
            if found < max(_LEAST_SHARE * total, 1):
                raise NoFaceFound(
                    f"{found} of {total} samples show a face, wanted at least {_LEAST_SHARE:.0%}: "
                    "expressions and pose cannot be learned from it (is it trained, and on faces?)"
                )
        column += len(scorer.names)


def _made(
    generator: StyleGAN, scorers: Sequence[Scorer], seeds: range, truncation: float, batch: int
) -> tuple[Float32, Float32]:
    latents, scores = [], []
    for start in range(seeds.start, seeds.stop, batch):
        some = range(start, min(start + batch, seeds.stop))
        w = generator.map(generator.sample(some), truncation)
        if not (w == w[:, :1]).all():
            raise BadModelFile("the mapping network truncates some layers only; directions need one w")
        images = generator.synthesize(w)
        latents.append(w[:, 0])
        scores.append(np.concatenate([scorer(images) for scorer in scorers], axis=1))
    return np.concatenate(latents), np.concatenate(scores)


def _open_cache(folder: Path, generator: StyleGAN, scorers: Sequence[Scorer], truncation: float) -> Path:
    wanted: dict[str, Any] = {
        "format": FORMAT,
        "version": VERSION,
        "generator_sha256": generator.metadata.get("checkpoint_sha256", ""),
        "precision": generator.metadata.get("precision", ""),
        "truncation": truncation,
        "scorers": [{"names": list(scorer.names), "digest": scorer.digest} for scorer in scorers],
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WriteFailed(f"{folder}: cannot be made ({error.strerror})") from None
    about = folder / "samples.json"
    if not about.exists():
        write_whole(about, (json.dumps(wanted, indent=1) + "\n").encode())
        return folder
    try:
        found = json.loads(about.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise BadArgument(f"{about}: cannot be read ({error})") from None
    for key, value in wanted.items():
        if not isinstance(found, dict) or found.get(key) != value:
            raise BadArgument(
                f"{folder}: holds samples of another {key.replace('_', ' ')}; name another folder"
            )
    return folder


def _kept(file: Path, seeds: range, w_dim: int, count: int) -> tuple[Float32, Float32] | None:
    """A piece of an earlier run; None when it is not there or damaged."""
    if not file.exists():
        return None
    try:
        arrays = read_arrays(file, _PIECE_ARRAYS)
    except BadModelFile:
        return None
    w, scores = arrays["w"], arrays["scores"]
    fits = w.shape == (len(seeds), w_dim) and scores.shape == (len(seeds), count)
    return (w, scores) if fits and np.isfinite(w).all() else None


def _keep(file: Path, w: Float32, scores: Float32) -> None:
    with whole_file(file) as temporary, temporary.open("wb") as stream:
        np.savez(stream, w=np.ascontiguousarray(w, "<f4"), scores=np.ascontiguousarray(scores, "<f4"))
