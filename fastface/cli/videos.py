"""One video with its labels, frame by frame, in flat memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastface.cli.outputs import sidecar, software, with_names
from fastface.labels import LabelTable, table_suffix
from fastface.provenance import xmp_packet
from fastface.video import VideoWriter

if TYPE_CHECKING:
    from fastface.affect import AffectPath
    from fastface.engine import Engine, FittedFace
    from fastface.head_pose import HeadPose


def write_video(
    output: Path,
    engine: Engine,
    face: FittedFace,
    steps: AffectPath,
    *,
    photo: str,
    path_name: str,
    quality: int,
    marked: bool,
    threads: int = 2,
    advance: Callable[[], object] = lambda: None,
    pose: HeadPose | None = None,
    phases: Sequence[str] = (),
) -> dict[str, Any]:
    """Render a path into ``output`` and a row of labels a frame beside it; both appear at the end or neither.
    ``phases``: of each frame, if known, goes into its row.

    Returns the record of the first frame without its frame number. Encoding runs beside rendering.
    """
    first = engine.labels(face, steps[0], pose=pose)
    made = {
        "affect": f"path {path_name}",
        "frames": len(steps),
        "fps": steps.fps,
        "photo_sha256": first.photo_sha256,
        "model_sha256": first.model_sha256,
        "affect_model_sha256": first.affect_model_sha256,
        "engine_version": first.engine_version,
    }
    xmp = xmp_packet(made, software(first)) if marked else None
    names: dict[str, Any] = {"image": output.name, "photo": photo, "provenance": marked}
    with (
        LabelTable(sidecar(output, table_suffix())) as table,
        VideoWriter(output, steps.fps, xmp=xmp, quality=quality, threads=threads) as writer,
    ):
        frames = engine.stream(face, steps, pose=pose)
        for index, (affect, frame) in enumerate(zip(steps, frames, strict=True)):
            writer.write(frame.image)
            phase = {"phase": phases[index]} if phases else {}
            table.append(
                with_names(
                    frame.labels,
                    **names,
                    **phase,
                    affect=affect.slug,
                    frame=index,
                    time_s=round(index / steps.fps, 6),
                )
            )
            advance()
    return with_names(first, **names, affect=f"path {path_name}").record()
