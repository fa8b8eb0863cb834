"""``fastface export renderer``: one face's renderer as one ONNX graph."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fastface.cli import options as opt
from fastface.cli.engines import TensorRtOption, told
from fastface.cli.report import running
from fastface.cli.sheet import SIX

if TYPE_CHECKING:
    from fastface.engine import Engine, FittedFace


class Form(StrEnum):
    """What a graph's operators are made for."""

    ONNXRUNTIME = "onnxruntime"
    TENSORRT = "tensorrt"


def export_renderer(
    face: Annotated[Path, typer.Option("--face", help="A fit (.npz), or a photo.", show_default=False)],
    output: Annotated[Path, typer.Option("--output", "-o", help="An .onnx file.", show_default=False)],
    size: Annotated[
        int | None,
        typer.Option(
            min=1, max=32767, help="Longer side of the frames in pixels.", show_default="the photo's"
        ),
    ] = None,
    camera: Annotated[
        bool, typer.Option("--camera", help="Focal length and principal point are an input, too.")
    ] = False,
    pose: Annotated[
        bool, typer.Option("--pose", help="The head's turn from the photo's pose is an input, too.")
    ] = False,
    form: Annotated[
        Form, typer.Option("--for", help="Whose operators it uses. ONNX Runtime runs both.")
    ] = Form.ONNXRUNTIME,
    tensorrt: TensorRtOption = None,
    batch: Annotated[
        tuple[int, int, int],
        typer.Option(metavar="MIN BEST MAX", help="Frames at a time.", rich_help_panel="TensorRT"),
    ] = (1, 4, 16),
    model: opt.ModelOption = "default",
    threads: opt.ThreadsOption = None,
    as_json: opt.JsonOption = False,
    debug: opt.DebugOption = False,
) -> None:
    """One face's renderer as an ONNX graph: expression coefficients in, frames and masks out, any number at
    once.

    It holds the photo. ONNX Runtime opens it with the operators that fastface installs (docs/onnx.md),
    TensorRT with fastface's plug-ins.
    """
    with running(as_json=as_json, debug=debug) as report:
        from fastface.atomic import destination, whole_file
        from fastface.errors import BadArgument, ProviderUnavailable

        if output.suffix.casefold() != ".onnx":
            raise BadArgument(f"{output}: a graph ends in .onnx")
        final = destination(output)
        if face.exists() and final.exists() and final.samefile(face):
            raise BadArgument(f"{output}: is the input itself")
        try:
            from fastface.exports import renderer, tensorrt_engine
        except ModuleNotFoundError as error:
            raise BadArgument(
                f"this needs the package {error.name}, which is not installed: pip install 'fastface[export]'"
            ) from None
        if tensorrt is not None:
            tensorrt_engine.check_renderer(tensorrt, batch)
            form = Form.TENSORRT
        engine = opt.open_engine(model, opt.Device.CPU, threads)
        fitted = opt.open_face(engine, face)
        if size is not None:
            fitted = renderer.resized(fitted, size)
        choices = {"camera": camera, "pose": pose, "form": form.value}
        with whole_file(output) as temporary:
            about = renderer.export_renderer(engine.model, fitted, temporary, **choices)
            worst = _difference(engine, fitted, temporary, about)
            if worst > renderer.TOLERANCE:
                raise ProviderUnavailable(
                    f"{output}: this onnxruntime's frames are {worst} grey levels off the engine's"
                )
        report.say(_words(output, about, worst))
        engines = []
        if tensorrt is not None:
            engines = told(report, [tensorrt_engine.build_engine(output, tensorrt, batch=batch)])
        size_bytes = output.stat().st_size
        made = {"graph": str(output), "bytes": size_bytes, "worst_grey_levels": worst, "engines": engines}
        report.result({**made, **about})


def _difference(engine: Engine, face: FittedFace, graph: Path, about: dict[str, Any]) -> int:
    """The largest difference, in grey levels, from the engine's frames of the six expressions and neutral; by
    the photo's own camera, and with heads turned where the graph can."""
    import numpy as np

    from fastface import onnx_ops
    from fastface.affect import Affect
    from fastface.head_pose import HeadPose

    affects = [Affect.neutral(), *(Affect.expression(name) for name in SIX)]
    pose = HeadPose(yaw_deg=12, pitch_deg=-6, roll_deg=5) if about["pose"] else None
    wanted = engine.render_batch(face, affects, pose=pose)
    rows = [list(engine.labels(face, affect).coefficients.values()) for affect in affects]
    opened = onnx_ops.session(graph, threads=engine.threads)
    given = {"coefficients": np.array(rows, np.float32), "camera": np.array([about["camera"]], np.float32)}
    if pose is not None:
        given["pose"] = np.array([pose.row()] * len(rows), np.float32)
    names = {value.name for value in opened.get_inputs()}
    (frames,) = opened.run(["frames"], {name: given[name] for name in names})
    return int(np.abs(frames.astype(np.int16) - wanted).max())


def _words(output: Path, about: dict[str, Any], worst: int) -> str:
    size = f"{about['width']}x{about['height']}, {output.stat().st_size / 1e6:.1f} MB"
    coefficients = f"{len(about['expression_names'])} coefficients"
    return f"{output}  {size}, {coefficients}, at most {worst} grey levels from the engine's frames"
