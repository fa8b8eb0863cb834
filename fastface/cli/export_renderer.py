"""``fastface export renderer``: one face's renderer as one ONNX graph."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fastface.cli import options as opt
from fastface.cli.report import running
from fastface.cli.sheet import SIX

if TYPE_CHECKING:
    from fastface.engine import Engine, FittedFace


def export_renderer(
    face: Annotated[Path, typer.Option("--face", help="A fit (.npz), or a photo.", show_default=False)],
    output: Annotated[Path, typer.Option("--output", "-o", help="An .onnx file.", show_default=False)],
    size: Annotated[
        int | None,
        typer.Option(min=1, max=32767, help="Longer side of the frames in pixels. [default: the photo's]"),
    ] = None,
    camera: Annotated[
        bool, typer.Option("--camera", help="Focal length and principal point are a second input.")
    ] = False,
    model: opt.ModelOption = "default",
    threads: opt.ThreadsOption = None,
    as_json: opt.JsonOption = False,
    debug: opt.DebugOption = False,
) -> None:
    """One face's renderer as an ONNX graph: expression coefficients in, frames and masks out, any number at
    once.

    It holds the photo. ONNX Runtime opens it with the operators that fastface installs (docs/onnx.md).
    """
    with running(as_json=as_json, debug=debug) as report:
        from fastface.atomic import destination
        from fastface.errors import BadArgument, ProviderUnavailable

        if output.suffix.casefold() != ".onnx":
            raise BadArgument(f"{output}: a graph ends in .onnx")
        final = destination(output)
        if face.exists() and final.exists() and final.samefile(face):
            raise BadArgument(f"{output}: is the input itself")
        try:
            from fastface.exports import renderer
        except ModuleNotFoundError as error:
            raise BadArgument(
                f"this needs the package {error.name}, which is not installed: pip install 'fastface[export]'"
            ) from None
        engine = opt.open_engine(model, opt.Device.CPU, threads)
        fitted = opt.open_face(engine, face)
        if size is not None:
            fitted = renderer.resized(fitted, size)
        about = renderer.export_renderer(engine.model, fitted, output, camera=camera)
        worst = None if camera else _difference(engine, fitted, output)
        if worst is not None and worst > renderer.TOLERANCE:
            raise ProviderUnavailable(
                f"{output}: this onnxruntime's frames are {worst} grey levels off the engine's"
            )
        report.say(_words(output, about, worst))
        report.result(
            {"graph": str(output), "bytes": output.stat().st_size, "worst_grey_levels": worst, **about}
        )


def _difference(engine: Engine, face: FittedFace, graph: Path) -> int:
    """The largest difference, in grey levels, from the engine's frames of the six expressions and neutral."""
    import numpy as np

    from fastface import onnx_ops
    from fastface.affect import Affect

    affects = [Affect.neutral(), *(Affect.expression(name) for name in SIX)]
    wanted = engine.render_batch(face, affects)
    rows = [list(engine.labels(face, affect).coefficients.values()) for affect in affects]
    opened = onnx_ops.session(graph, threads=engine.threads)
    (frames,) = opened.run(["frames"], {"coefficients": np.array(rows, np.float32)})
    return int(np.abs(frames.astype(np.int16) - wanted).max())


def _words(output: Path, about: dict[str, Any], worst: int | None) -> str:
    size = f"{about['width']}x{about['height']}, {output.stat().st_size / 1e6:.1f} MB"
    words = f"{output}  {size}, {len(about['expression_names'])} coefficients"
    return words if worst is None else f"{words}, at most {worst} grey levels from the engine's frames"
