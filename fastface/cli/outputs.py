"""Writing what a command made: the image with its marking, and its labels beside it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fastface.atomic import destination, write_whole
from fastface.cli.options import IMAGE_SUFFIXES
from fastface.errors import BadArgument
from fastface.images import write_image
from fastface.labels import FORMAT, Labels, table_suffix, write_labels
from fastface.provenance import xmp_packet
from fastface.video import FORMATS as VIDEO_FORMATS

if TYPE_CHECKING:
    from fastface.affect import Affect


def sidecar(image: Path, suffix: str = ".json") -> Path:
    """Where the labels of an output go: the same name, another suffix."""
    return image.with_name(image.name.removesuffix(image.suffix) + suffix)


def check_single(output: Path, source: Path, *, overwrite: bool) -> None:
    """Before any work: can this be written, and does it destroy nothing that is not ours? ``WriteFailed``,
    ``BadArgument``."""
    wanted = (*IMAGE_SUFFIXES, *VIDEO_FORMATS)
    if output.suffix.casefold() not in wanted:
        raise BadArgument(
            f"{output}: the name must end in one of {', '.join(wanted)}; or name a folder that is there"
        )
    final = destination(output)
    if source.exists() and final.exists() and final.samefile(source):
        raise BadArgument(f"{output}: is the input itself")
    beside = sidecar(output, table_suffix() if final.suffix.casefold() in VIDEO_FORMATS else ".json")
    destination(beside)
    if beside.suffix == ".json" and beside.exists() and not overwrite and not _is_ours(beside):
        raise BadArgument(f"{beside}: exists and holds no labels; move it away, or --overwrite")


def check_model(output: Path, *others: Path) -> None:
    """Before any work: can a model be written there, and is it none of the other files that a command reads
    or writes? ``WriteFailed``, ``BadArgument``."""
    if output.suffix.casefold() != ".npz":
        raise BadArgument(f"{output}: a model ends in .npz")
    final = destination(output)
    for other in others:
        if final == other.resolve():
            raise BadArgument(f"{output}: the same file as {other}")


def _is_ours(path: Path) -> bool:
    try:
        record = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(record, dict) and record.get("format") == FORMAT


def write_output(
    output: Path,
    image: NDArray[np.uint8],
    labels: Labels,
    affect: Affect,
    photo: str,
    *,
    quality: int,
    marked: bool,
) -> dict[str, Any]:
    """Write image and labels; return the labels' record. Raises ``WriteFailed``."""
    named: dict[str, Any] = {"image": output.name, "photo": photo, "affect": affect.slug}
    if affect.variant is not None:
        named["variant"] = affect.variant
    full = with_names(labels, **named, provenance=marked)
    record = full.record()
    xmp = xmp_packet(parameters_of(record, affect.slug, quality), software(labels)) if marked else None
    write_image(output, image, xmp=xmp, quality=quality)
    write_labels(sidecar(output), full)
    return record


def write_record(path: Path, record: dict[str, Any]) -> None:
    """A record by itself: what a folder's video says beside its table of frames."""
    write_whole(path, (json.dumps(record, ensure_ascii=False, allow_nan=False, indent=1) + "\n").encode())


def with_names(labels: Labels, **extra: Any) -> Labels:
    """The labels with what only the writer knows."""
    return replace(labels, extra={**labels.extra, **extra})


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
        "affect_model_sha256",
        "engine_version",
    )
    made: dict[str, Any] = {key: record[key] for key in keys if key in record}
    made["affect"] = affect
    if quality is not None:
        made["quality"] = quality
    return made


def software(labels: Labels) -> str:
    """The program as XMP names it."""
    return f"fastface {labels.engine_version}"
