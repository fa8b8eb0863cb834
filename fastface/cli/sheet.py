"""``fastface sheet`` and ``fastface fit``: looking at one face, and keeping its fit."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fastface.cli import options as opt
from fastface.cli.report import running

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from fastface.affect import Affect
    from fastface.engine import Engine, FittedFace

SIX = ("anger", "disgust", "fear", "happy", "sad", "surprise")


def sheet(
    source: opt.FaceArgument,
    output: Annotated[Path, typer.Option("--output", "-o", help="An image.", show_default=False)],
    intensity: Annotated[
        list[float] | None,
        typer.Option(
            "--intensity",
            "-i",
            metavar="0…1 …",
            help="A row each.",
            show_default="1",
            rich_help_panel=opt.SHOW,
        ),
    ] = None,
    plane: Annotated[
        int | None,
        typer.Option(
            min=2,
            max=15,
            metavar="N",
            help="N by N points of valence and arousal instead of the expressions.",
            rich_help_panel=opt.SHOW,
        ),
    ] = None,
    tile: Annotated[int, typer.Option(min=16, max=4096, help="Width of a face in pixels.")] = 320,
    whole: Annotated[
        bool, typer.Option("--whole", help="The whole photo in each tile, not the head alone.")
    ] = False,
    quality: opt.QualityOption = 92,
    model: opt.ModelOption = "default",
    affect_model: opt.AffectModelOption = None,
    device: opt.DeviceOption = opt.Device.CPU,
    threads: opt.ThreadsOption = None,
    as_json: opt.JsonOption = False,
    debug: opt.DebugOption = False,
) -> None:
    """A contact sheet for looking: neutral beside the six basic expressions, or valence by arousal."""
    with running(as_json=as_json, debug=debug) as report:
        from fastface.affect_csv import checked_number
        from fastface.atomic import destination
        from fastface.errors import BadArgument
        from fastface.images import write_image
        from fastface.provenance import xmp_packet
        from fastface.version import package_version

        if output.suffix.casefold() not in opt.IMAGE_SUFFIXES:
            raise BadArgument(f"{output}: the name must end in one of {', '.join(opt.IMAGE_SUFFIXES)}")
        final = destination(output)
        if source.exists() and final.exists() and final.samefile(source):
            raise BadArgument(f"{output}: is the input itself")
        strengths = [checked_number(value, "--intensity", 0.0, 1.0) for value in intensity or [1.0]]
        if plane is not None and intensity:
            raise BadArgument(
                "--plane shows points of valence and arousal, --intensity expressions; give one"
            )
        engine = opt.open_engine(model, device, threads, affect_model)
        face = opt.open_face(engine, source)
        if plane is None:
            image = draw_sheet(engine, face, strengths, tile_px=tile, whole=whole)
        else:
            image = draw_plane(engine, face, plane, tile_px=tile, whole=whole)
        made: dict[str, Any] = {"affect": "sheet", **engine.made_with}
        made |= {"intensity": strengths} if plane is None else {"plane": plane}
        xmp = xmp_packet(made, f"fastface {package_version()}")
        write_image(output, image, xmp=xmp, quality=quality)
        report.say(f"{output}  {image.shape[1]}x{image.shape[0]}")
        report.result({"image": str(output), "width_px": image.shape[1], "height_px": image.shape[0]})


def draw_sheet(
    engine: Engine, face: FittedFace, strengths: list[float], *, tile_px: int = 320, whole: bool = False
) -> NDArray[np.uint8]:
    """Neutral and the six expressions, a row an intensity: (H, W, 3) uint8."""
    from fastface.affect import Affect
    from fastface.contact_sheet import contact_sheet

    rows = []
    for strength in strengths:
        affects = [Affect.neutral(), *(Affect.expression(name, strength) for name in SIX)]
        rows.append(_heads(engine, face, affects, whole=whole))
    labels = [f"{strength:.2f}" for strength in strengths] if len(strengths) > 1 else []
    return contact_sheet(rows, ("neutral", *SIX), labels, tile_px=tile_px)


def draw_plane(
    engine: Engine, face: FittedFace, points: int, *, tile_px: int = 320, whole: bool = False
) -> NDArray[np.uint8]:
    """Valence from left to right, arousal from bottom to top, each -1 … 1: (H, W, 3) uint8."""
    from fastface.affect import Affect
    from fastface.contact_sheet import contact_sheet

    at = [2 * index / (points - 1) - 1 for index in range(points)]
    rows = [
        _heads(engine, face, [Affect.va(valence, arousal) for valence in at], whole=whole)
        for arousal in reversed(at)
    ]
    columns = [f"valence {valence:+.2f}" for valence in at]
    return contact_sheet(rows, columns, [f"{arousal:+.2f}" for arousal in reversed(at)], tile_px=tile_px)


def _heads(
    engine: Engine, face: FittedFace, affects: Sequence[Affect], *, whole: bool
) -> list[NDArray[np.uint8]]:
    import numpy as np

    from fastface.contact_sheet import face_box

    height, width = face.photo.shape[:2]
    left, top, right, bottom = (0, 0, width, height) if whole else face_box(face.landmarks_px, height, width)
    return [np.asarray(engine.render(face, affect))[top:bottom, left:right] for affect in affects]


def fit(
    photo: Annotated[Path, typer.Argument(help="A photo.", show_default=False)],
    output: Annotated[Path, typer.Option("--output", "-o", help="A .npz file.", show_default=False)],
    texture: Annotated[
        bool, typer.Option("--texture", help="Fit what the face looks like too, not its landmarks alone.")
    ] = False,
    texture_model: Annotated[
        Path | None,
        typer.Option(
            metavar="texture.npz",
            help="The same, by a texture of `fastface model build-texture`.",
            show_default=False,
        ),
    ] = None,
    model: opt.ModelOption = "default",
    device: opt.DeviceOption = opt.Device.CPU,
    threads: opt.ThreadsOption = None,
    as_json: opt.JsonOption = False,
    debug: opt.DebugOption = False,
) -> None:
    """Fit the head model to a photo once and keep it; synth takes the file instead of the photo."""
    with running(as_json=as_json, debug=debug) as report:
        from fastface.atomic import destination
        from fastface.errors import BadArgument
        from fastface.texture_model import TextureModel

        if output.suffix.casefold() != ".npz":
            raise BadArgument(f"{output}: a fit ends in .npz")
        destination(output)
        engine = opt.open_engine(model, device, threads)
        if photo.suffix.casefold() == ".npz":
            raise BadArgument(f"{photo}: is a fit already")
        own = None if texture_model is None else TextureModel.load(texture_model)
        if own is not None:
            own.check(engine.model, str(texture_model))
        face = opt.open_face(engine, photo, texture=own or texture)
        face.save(output)
        report.say(
            f"{output}  yaw {face.yaw_deg:+.1f}°, pitch {face.pitch_deg:+.1f}°, roll {face.roll_deg:+.1f}°, "
            f"focal length {face.focal_px:.0f} px"
        )
        report.result(
            {
                "fit": str(output),
                "yaw_deg": round(float(face.yaw_deg), 3),
                "pitch_deg": round(float(face.pitch_deg), 3),
                "roll_deg": round(float(face.roll_deg), 3),
                "focal_px": round(float(face.focal_px), 2),
                "model_sha256": face.model_hash,
            }
        )
