"""A checkpoint becomes the ONNX files of its kind of generator; these are compared with its definition."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any, Final

from fastface.checkpoints import Checkpoint
from fastface.checkpoints.unpickling import shown
from fastface.errors import BadArgument, BadModelFile
from fastface.exports.graphs import (
    PRECISIONS,
    Difference,
    Precision,
    export_part,
    part_path,
    read_metadata,
    verify_part,
)

#: Where the parts of each kind are made.
PARTS_OF: Final = {
    "stylegan2": "fastface.exports.stylegan2_graphs",
    "stylegan3": "fastface.exports.stylegan3_graphs",
    "starganv2": "fastface.exports.starganv2",
    "stargan": "fastface.exports.stargan",
    "ganimation": "fastface.exports.ganimation",
}
#: The worst error that ``verify`` lets pass: absolute in fp32, a fraction of the largest value in the others,
#: about 60 of their roundings.
TOLERANCE: Final[dict[Precision, float]] = {"fp32": 1e-3, "fp16": 3e-2, "bf16": 0.24}


def export_generator(
    checkpoint: Checkpoint, output: str | Path, precision: Precision = "fp32", **options: Any
) -> list[Path]:
    """Write ``output``'s parts, such as net.mapping.onnx and net.synthesis.onnx for net.onnx.

    ``options`` are those of the kind's ``parts``; they are kept in the files' metadata, so that ``verify``
    compares like with like. Raises ``BadModelFile``, ``BadArgument``, ``WriteFailed``.
    """
    if precision not in PRECISIONS:
        raise BadArgument(f"precision must be one of {', '.join(PRECISIONS)}, got {precision!r:.20}")
    made = _maker(checkpoint).parts(checkpoint, precision, **options)
    return [
        export_part(
            part,
            output,
            kind=str(checkpoint.kind),
            checkpoint_sha256=checkpoint.sha256,
            precision=precision,
            options=options,
        )
        for part in made
    ]


def verify_generator(path: str | Path, checkpoint: Checkpoint) -> list[tuple[Path, Precision, Difference]]:
    """Compare a generator's files with the plain definition of the checkpoint.

    ``path`` is one file or the name given to export. Raises ``BadModelFile``: no such files, of another kind
    or another checkpoint.
    """
    files = generator_files(path)
    found: list[tuple[Path, Precision, Difference]] = []
    for file in files:
        about = read_metadata(file)
        if about.get("kind") != checkpoint.kind or about.get("checkpoint_sha256") != checkpoint.sha256:
            raise BadModelFile(
                f"{file}: made of a {shown(about.get('kind'))} with SHA-256 "
                f"{shown(about.get('checkpoint_sha256'))[:16]}…, {checkpoint.source} is a {checkpoint.kind} "
                f"with {checkpoint.sha256[:16]}…"
            )
        options = about.get("options")
        if not isinstance(options, dict) or about.get("precision") not in PRECISIONS:
            raise BadModelFile(f"{file}: its metadata is damaged")
        wanted = {part.name: part for part in _maker(checkpoint).reference_parts(checkpoint, **options)}
        if about.get("part") not in wanted:
            raise BadModelFile(f"{file}: holds {shown(about.get('part'))}; wanted one of {', '.join(wanted)}")
        part = wanted[about["part"]]
        found += [(file, about["precision"], difference) for difference in verify_part(file, part)]
    return found


def generator_files(path: str | Path) -> list[Path]:
    """net.onnx → the parts of it that lie beside it; a file that is there stands for itself."""
    if Path(path).is_file():
        return [Path(path)]
    names = ("mapping", "synthesis", "generator", "style_encoder", "fan")
    files = [file for name in names if (file := part_path(path, name)).is_file()]
    if not files:
        raise BadModelFile(f"{path}: no such file, nor {part_path(path, 'generator').name} or another part")
    return files


def within(precision: Precision, difference: Difference) -> bool:
    """Whether a difference is one that the precision explains."""
    # Where values go beyond 100, float32 itself does not resolve a thousandth after some layers.
    scale = max(1.0, difference.scale / 100 if precision == "fp32" else difference.scale)
    return difference.worst <= TOLERANCE[precision] * scale


def _maker(checkpoint: Checkpoint) -> Any:
    if checkpoint.kind not in PARTS_OF:
        raise BadModelFile(
            f"{checkpoint.source}: which generator this is cannot be told; say --kind {'|'.join(PARTS_OF)}"
        )
    return importlib.import_module(PARTS_OF[checkpoint.kind])
