"""``fastface model import KIND`` for published face models, and ``fastface model landmarks``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fastface.cli import options as opt
from fastface.cli.report import Report, running

if TYPE_CHECKING:
    from fastface.morphable import HeadModel

Describe = Callable[[Report, "HeadModel", Path, dict[str, Any]], None]

#: As in fastface.importers.kinds, which loads too much for a command line that is only completed.
_KINDS = {
    "bfm": ("the Basel Face Model 2009 (.mat), 2017 or 2019 (.h5)", "The authors' .mat or .h5."),
    "lsfm": ("LSFM, the Large Scale Facial Model", "One of the authors' .mat files."),
    "flame": ("FLAME; the pickle is read, never run", "The authors' .pkl."),
    "gnm": ("GNM Head (Apache-2.0)", "The authors' gnm_head.npz."),
    "surrey": ("the Surrey Face Model in the format of eos", "sfm_shape_3448.bin or another .bin of eos."),
    "gltf": (
        "a glTF head whose morph targets have ARKit's names",
        "A .glb, or a .gltf with its buffers beside it.",
    ),
    "sequence": (
        "meshes of one topology with ARKit's names",
        "A folder: neutral.obj (or .ply), jawOpen.obj, …",
    ),
}

SourceArgument = Annotated[Path, typer.Argument(help="The file, or for meshes the folder.")]
OutputOption = Annotated[Path, typer.Option("--output", "-o", help="A .npz file.")]
UnitOption = Annotated[
    float | None,
    typer.Option(
        "--unit", min=1e-6, max=1e6, help="Millimetres in the file's unit.", show_default="told by the size"
    ),
]
LandmarksOutput = Annotated[
    Path, typer.Option("--output", "-o", help="The model with its landmarks, a .npz.")
]
PhotosArgument = Annotated[
    list[Path] | None,
    typer.Argument(help="Portraits of neutral faces, a few dozen, to calibrate on.", show_default=False),
]


def add_importers(app: typer.Typer, describe: Describe) -> None:
    """A command for each published format."""
    for kind, (what, file) in _KINDS.items():
        app.command(kind, help=f"Import {what}. {file}")(_importer(kind, describe))


def _importer(kind: str, describe: Describe) -> Callable[..., None]:
    def command(
        source: SourceArgument,
        output: OutputOption,
        unit: UnitOption = None,
        as_json: opt.JsonOption = False,
        debug: opt.DebugOption = False,
    ) -> None:
        with running(as_json=as_json, debug=debug) as report:
            from dataclasses import asdict

            from fastface.cli.outputs import check_model
            from fastface.importers.kinds import import_model
            from fastface.morphable import save

            check_model(output, source)
            with report.progress("steps") as progress:
                bar = progress.add_task(f"{kind}: reading and laying on", total=1)
                model, fitted = import_model(kind, source, unit_mm=unit)
                progress.update(bar, completed=1)
            save(model, output)
            describe(report, model, output, {key: round(value, 4) for key, value in asdict(fitted).items()})

    return command


def add_landmarks(app: typer.Typer, describe: Describe) -> None:
    """``fastface model landmarks``."""

    @app.command("landmarks")
    def landmarks(
        model: Annotated[str, typer.Argument(help="default, ict, or a .npz file.")],
        photos: PhotosArgument = None,
        output: LandmarksOutput = Path("landmarks.npz"),
        rounds: Annotated[int, typer.Option(min=1, max=20, help="Rounds of fitting and calibrating.")] = 6,
        renders: Annotated[
            int, typer.Option(min=4, max=1000, help="Painted heads shown to the network.")
        ] = 60,
        seed: Annotated[int, typer.Option(min=0, help="Of the painted heads.")] = 0,
        as_json: opt.JsonOption = False,
        debug: opt.DebugOption = False,
    ) -> None:
        """Find the landmarks of a head model anew: painted heads are shown to the landmark network; photos of
        neutral faces, if given, then calibrate."""
        with running(as_json=as_json, debug=debug) as report:
            from fastface.cli.outputs import check_model
            from fastface.morphable import save

            check_model(output)
            found, record = _found(report, model, photos or [], rounds, renders, seed)
            save(found, output)
            describe(report, found, output, record)


def _found(
    report: Report, name: str, photos: list[Path], rounds: int, renders: int, seed: int
) -> tuple[HeadModel, dict[str, Any]]:
    from dataclasses import replace

    import numpy as np

    from fastface.correspondence import calibrate, make_correspondences, residual_mm
    from fastface.engine import Engine
    from fastface.head_models import open_model
    from fastface.images import read_image
    from fastface.landmarks import LandmarkDetector

    model = open_model(name)
    before = model.landmarks478.points(model.vertices, model.triangles)
    record: dict[str, Any] = {}
    images = [read_image(photo) for photo in photos]
    with report.progress("steps") as progress:
        bar = progress.add_task("painted heads", total=1 + (rounds if images else 0))
        marks = make_correspondences(model, LandmarkDetector(), seed=seed, renders=renders)
        model = replace(model, landmarks478=marks[0], landmarks68=marks[1])
        progress.update(bar, advance=1, description="calibrating")
        for _ in range(rounds if images else 0):
            engine = Engine(model)
            fits = [engine.fit(image) for image in images]
            left = np.concatenate([residual_mm(model, fit) for fit in fits])
            record["left_over_mm"] = round(float(np.linalg.norm(left, axis=1).mean()), 3)
            marks = calibrate(model, fits)
            model = replace(model, landmarks478=marks[0], landmarks68=marks[1])
            progress.update(bar, advance=1)
    moved = model.landmarks478.points(model.vertices, model.triangles) - before
    record["moved_mm"] = round(float(np.median(np.linalg.norm(moved, axis=1))), 3)
    return model, record
