"""``fastface model build``, ``build-texture`` and ``plot``: models of one's own scans and photographs."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fastface.cli import options as opt
from fastface.cli.report import Report, running

if TYPE_CHECKING:
    from fastface.morphable import HeadModel
    from fastface.workshop.photographs import Outcome, Settings
    from fastface.workshop.texture import Learned

Describe = Callable[..., None]

OutputOption = Annotated[Path, typer.Option("--output", "-o", help="A .npz file.", show_default=False)]
VarianceOption = Annotated[float, typer.Option(min=0.01, max=1, help="To be explained.")]
_OF_COLOURS = ("faces", "components", "explained", "vertices_seen")
LicenseOption = Annotated[str, typer.Option(help="What may be done with it.")]


def add_building(app: typer.Typer, describe: Describe) -> None:
    """``fastface model build``, ``build-texture`` and ``plot``."""

    @app.command("build")
    def build(
        registered: Annotated[
            Path, typer.Argument(help="A folder of meshes of one topology.", show_default=False)
        ],
        output: OutputOption,
        template: Annotated[str, typer.Option(help="The head whose mesh they share.")] = "default",
        variance: VarianceOption = 0.995,
        texture: Annotated[
            Path | None,
            typer.Option(help="A .npz: learn their colours too.", show_default=False),
        ] = None,
        mirror: Annotated[bool, typer.Option("--mirror", help="Each mesh also in the mirror.")] = False,
        same_size: Annotated[
            bool, typer.Option("--same-size", help="Bring all to one size: it is then no part of the model.")
        ] = False,
        name: Annotated[str, typer.Option(help="Of the new model.")] = "built",
        source: Annotated[str, typer.Option(help="Where the meshes come from.")] = "registered meshes",
        license: LicenseOption = "not stated",
        as_json: opt.JsonOption = False,
        debug: opt.DebugOption = False,
    ) -> None:
        """Learn identities from registered scans: Procrustes alignment, then principal components; and with
        --texture their colours, likewise."""
        with running(as_json=as_json, debug=debug) as report:
            from fastface.cli.outputs import check_model
            from fastface.head_models import open_model
            from fastface.morphable import save
            from fastface.workshop.registered import read_registered
            from fastface.workshop.statistics import aligned, head_model, mirrored, shape_model

            check_model(output)
            if texture is not None:
                check_model(texture, output)
            head = open_model(template)
            _, meshes = read_registered(registered)
            if mirror:
                meshes = mirrored(meshes, head)
            learned = shape_model(aligned(meshes, same_size=same_size), variance)
            model = head_model(head, learned, name, source, license)
            more: dict[str, Any] = {
                "meshes": len(meshes),
                "identity_modes": len(learned.modes),
                "explained": round(float(learned.explained.sum()), 5),
            }
            if texture is not None:
                colours = _colours(registered, model, variance, mirror, source, license)
                colours.texture.save(texture)
                told = _record(colours)
                more["texture"] = str(texture)
                more |= {f"texture_{key}": told[key] for key in _OF_COLOURS}
            save(model, output)
            describe(report, model, output, more)

    @app.command("build-texture")
    def build_texture(
        photos: Annotated[Path, typer.Argument(help="A folder of photos.", show_default=False)],
        output: OutputOption,
        model: opt.ModelOption = "default",
        feature: Annotated[str, typer.Option(help="gradients, orientations or rgb.")] = "gradients",
        components: Annotated[int, typer.Option(min=1, max=1000, help="At most so many.")] = 50,
        variance: VarianceOption = 0.995,
        sparsity: Annotated[
            float,
            typer.Option(
                min=0.05, max=100, help="How dear it is to tell something off as no face; 1: as theory says."
            ),
        ] = 1.0,
        plain: Annotated[
            bool, typer.Option("--plain", help="Plain components: nothing lies before these faces.")
        ] = False,
        mirror: Annotated[bool, typer.Option(help="Each photo also in the mirror.")] = True,
        source: Annotated[str, typer.Option(help="Where the photos come from.")] = "photographs",
        license: LicenseOption = "not stated",
        samples: Annotated[
            Path | None,
            typer.Option(
                help="A folder that keeps what was read off the photos, for another run.", show_default=False
            ),
        ] = None,
        jobs: Annotated[
            int | None,
            typer.Option("--jobs", "-j", min=1, max=1024, help="Photos at once; all cores by default."),
        ] = None,
        as_json: opt.JsonOption = False,
        debug: opt.DebugOption = False,
    ) -> None:
        """Learn what faces look like from photographs: each is fitted, features are read off where the head
        shows, and robust principal components tell faces from what lies before them.

        Run again after a stop, it goes on. Exit code 1 if a photo showed no face to learn from.
        """
        with running(as_json=as_json, debug=debug) as report:
            from fastface.cli.outputs import check_model
            from fastface.head_models import open_model
            from fastface.workshop.photographs import Settings, gathered
            from fastface.workshop.texture import learn_texture

            check_model(output)
            settings = Settings(model, feature, mirror)
            folder = samples or output.with_name(f"{output.name}.samples")
            head = open_model(model)
            outcomes = _sampled(report, photos, folder, settings, jobs)
            values, seen = gathered(outcomes, len(head.vertices), feature)
            with report.progress("rounds") as bar:
                task = bar.add_task("plain components" if plain else "robust components", total=None)
                learned = learn_texture(
                    head,
                    values,
                    seen,
                    feature=feature,
                    source=source,
                    license=license,
                    components=components,
                    variance=variance,
                    robust=not plain,
                    leniency=sparsity,
                    done=lambda rounds, _: bar.update(task, completed=rounds),
                )
            learned.texture.save(output)
            if samples is None:
                _remove(folder, outcomes)
            _tell(report, output, learned, outcomes)
            if any(outcome.error for outcome in outcomes):
                raise typer.Exit(1)

    @app.command("plot")
    def plot(
        source: Annotated[
            str, typer.Argument(help="A texture or head model (.npz), default or ict.", show_default=False)
        ],
        output: Annotated[Path, typer.Option("--output", "-o", help="An image.", show_default=False)],
        model: opt.ModelOption = "default",
        components: Annotated[int, typer.Option(min=0, max=20, help="How many to show.")] = 4,
        sigma: Annotated[float, typer.Option(min=0, max=10, help="How far from the mean.")] = 2.0,
        tile: Annotated[int, typer.Option(min=64, max=2048, help="Size of a head in pixels.")] = 240,
        as_json: opt.JsonOption = False,
        debug: opt.DebugOption = False,
    ) -> None:
        """Draw a texture model on the head of --model, or a head model: the mean, and each component so far
        to either side."""
        with running(as_json=as_json, debug=debug) as report:
            from fastface.atomic import destination
            from fastface.errors import BadArgument
            from fastface.head_models import model_path, open_model
            from fastface.images import write_image
            from fastface.morphable import SAYS, read_arrays
            from fastface.texture_model import FORMAT, TextureModel
            from fastface.workshop.model_plots import shape_sheet, texture_sheet

            if output.suffix.casefold() not in opt.IMAGE_SUFFIXES:
                raise BadArgument(f"{output}: the name must end in one of {', '.join(opt.IMAGE_SUFFIXES)}")
            destination(output)
            path = model_path(source)
            if str(read_arrays(path, SAYS)["format"][()]) == FORMAT:
                texture = TextureModel.load(path)
                drawn = texture_sheet(open_model(model), texture, components, sigma, tile_px=tile)
            else:
                drawn = shape_sheet(open_model(source), components, sigma, tile_px=tile)
            write_image(output, drawn)
            report.say(f"{output}  {drawn.shape[1]}x{drawn.shape[0]}")
            report.result({"image": str(output), "width_px": drawn.shape[1], "height_px": drawn.shape[0]})


def _sampled(
    report: Report, photos: Path, folder: Path, settings: Settings, jobs: int | None
) -> list[Outcome]:
    """Reads features off a folder of photos; those without a face are named on stderr."""
    from fastface.cli.batch import available_cores
    from fastface.workshop.photographs import photos_in, sample_photos

    paths = photos_in(photos)
    with report.progress("photos") as bar:
        task = bar.add_task("reading faces", total=len(paths))
        outcomes = sample_photos(
            paths,
            folder,
            settings,
            processes=min(jobs or available_cores(), len(paths)),
            done=lambda _: bar.advance(task),
        )
    for outcome in outcomes:
        if outcome.error:
            report.warn(f"{outcome.photo.name}: {outcome.error}")
    return outcomes


def _remove(folder: Path, outcomes: list[Outcome]) -> None:
    """The samples, and their folder if nothing else lies there."""
    with suppress(OSError):
        for outcome in outcomes:
            if not outcome.error:
                outcome.samples.unlink(missing_ok=True)
        folder.rmdir()


def _tell(report: Report, output: Path, learned: Learned, outcomes: list[Outcome]) -> None:
    failed = [outcome for outcome in outcomes if outcome.error]
    record = _record(learned)
    report.say(
        f"{output}  {len(outcomes) - len(failed)} photos, {record['components']} components explain "
        f"{record['explained']:.1%}, {record['vertices_seen']} vertices seen, "
        f"{record['gross']:.1%} told off as no face"
    )
    report.result(
        {
            "texture": str(output),
            "photos": len(outcomes) - len(failed),
            "kept": sum(outcome.kept for outcome in outcomes),
            **record,
            "failed": [{"photo": outcome.photo.name, "error": outcome.error} for outcome in failed],
        }
    )


def _record(learned: Learned) -> dict[str, Any]:
    texture = learned.texture
    return {
        "feature": texture.feature,
        "faces": learned.faces,
        "components": len(texture.components),
        "explained": round(float(learned.explained.sum()), 5),
        "gross": round(learned.gross, 5),
        "vertices_seen": int((texture.precision > 0).sum()),
        "model_sha256": texture.model_hash,
    }


def _colours(
    folder: Path, model: HeadModel, variance: float, mirror: bool, source: str, license: str
) -> Learned:
    import numpy as np

    from fastface.workshop.colours import read_colours
    from fastface.workshop.texture import learn_texture

    values, seen = read_colours(sorted(folder.iterdir()), len(model.vertices))
    if mirror:
        values = np.concatenate([values, values[:, model.mirror]])
        seen = np.concatenate([seen, seen[:, model.mirror]])
    return learn_texture(
        model,
        values,
        seen,
        feature="rgb",
        source=source,
        license=license,
        variance=variance,
        robust=False,
    )
