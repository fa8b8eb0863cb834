"""Options that several commands share, and how their words become values."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from fastface.affect import Affect
    from fastface.engine import Engine, FittedFace
    from fastface.head_pose import HeadPose


class Device(StrEnum):
    """Where to compute."""

    CPU = "cpu"
    CUDA = "cuda"
    AUTO = "auto"


ModelOption = Annotated[
    str, typer.Option("--model", "-m", help="Head model: default, ict, or a .npz file.", metavar="NAME|FILE")
]
DeviceOption = Annotated[Device, typer.Option(help="Where to compute.", case_sensitive=False)]
ThreadsOption = Annotated[
    int | None, typer.Option(min=1, max=1024, help="Processor cores to use; all by default.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
DebugOption = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
QualityOption = Annotated[int, typer.Option(min=1, max=100, help="JPEG, WebP and MP4 quality.")]

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
PHOTO_SUFFIXES = (*IMAGE_SUFFIXES, ".bmp", ".tif", ".tiff", ".gif", ".ppm", ".avif")


def open_engine(model: str, device: Device, threads: int | None) -> Engine:
    """The engine that the options ask for."""
    from fastface.engine import Engine

    return Engine(model, device=device.value, threads=threads)


def open_face(engine: Engine, source: Path, *, texture: bool = False) -> FittedFace:
    """A fit from a photo, or the one kept in a ``.npz``; the latter must belong to the engine's head
    model."""
    from fastface.errors import BadImage

    if source.suffix.casefold() == ".npz":
        from fastface.engine import FittedFace

        return FittedFace.load(source)
    if not source.exists():
        raise BadImage(f"{source}: no such file")
    return engine.fit(source, texture=True) if texture else engine.fit(source)


def parse_action_units(words: list[str]) -> dict[str, float]:
    """["AU1=1", "au12=0.8"] → {"AU1": 1.0, "AU12": 0.8}. Raises ``BadAffect``."""
    from fastface.action_units import AU_COLUMNS
    from fastface.affect_csv import checked_number
    from fastface.errors import BadAffect

    spelling = {name.casefold(): name for name in AU_COLUMNS}
    asked: dict[str, float] = {}
    for word in words:
        name, found, value = word.partition("=")
        if not found:
            raise BadAffect(f"--au wants NAME=INTENSITY such as AU12=0.8, got {word!r:.40}")
        name = spelling.get(name.strip().casefold(), name.strip())
        if name in asked:
            raise BadAffect(f"--au {name} is given twice")
        asked[name] = checked_number(value, f"--au {name}", 0.0, 1.0)
    return asked


def parse_yaws(text: str) -> list[HeadPose]:
    """ "-30,0,30" → poses that turn the head so far from the photo's. Raises ``BadAffect``."""
    from fastface.affect_csv import checked_number
    from fastface.head_pose import LIMITS, HeadPose

    limit = LIMITS["yaw_deg"]
    turns = [checked_number(word.strip(), "--yaw", -limit, limit) for word in text.split(",")]
    return [HeadPose(yaw_deg=turn) for turn in dict.fromkeys(turns)]


def asked_affects(
    expressions: list[str],
    intensities: list[float],
    aus: list[str],
    va: tuple[float, float] | None,
    pain: float | None = None,
) -> list[Affect]:
    """The affects that the options of ``synth`` name: each kind of affect at each intensity. Raises
    ``BadAffect``."""
    from fastface.affect import Affect

    bases: list[Affect] = [Affect.expression(name.casefold()) for name in expressions]
    if aus:
        bases.append(Affect.aus(parse_action_units(aus)))
    if va is not None:
        bases.append(Affect.va(*va))
    if pain is not None:
        bases.append(Affect.pain(pain))
    return [base.scaled(intensity) for base in bases for intensity in intensities or [1.0]]


def parameters_of(record: dict[str, Any], affect: str, quality: int | None = None) -> dict[str, Any]:
    """What the XMP packet of an output says of how it was made, taken from its labels. No name of the photo:
    it may be a person's, and the packet travels with the image."""
    keys = (
        "expression",
        "intensity",
        "valence",
        "arousal",
        "aus",
        "photo_sha256",
        "model_sha256",
        "engine_version",
    )
    made: dict[str, Any] = {key: record[key] for key in keys if key in record}
    made["affect"] = affect
    if quality is not None:
        made["quality"] = quality
    return made
