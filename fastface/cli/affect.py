"""``fastface affect``: galleries, and the affect models that are learned from them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from fastface.cli import options as opt
from fastface.cli.report import running

affects = typer.Typer(help="Affect models: sample galleries, learn, look.", no_args_is_help=True)

GalleryArgument = Annotated[Path, typer.Argument(help="A gallery's folder.", show_default=False)]
SeedOption = Annotated[int, typer.Option(min=0, help="The same seed, the same result.")]


@affects.command("sample-gallery")
def sample_gallery(
    folder: Annotated[Path, typer.Argument(help="A folder to make.", show_default=False)],
    family: Annotated[str, typer.Option(help="default or ict: whose prototypes people show.")] = "default",
    subjects: Annotated[int, typer.Option(min=1, max=100_000, help="People.")] = 60,
    recordings: Annotated[int, typer.Option(min=1, max=100_000, help="Of each of them.")] = 48,
    fps: Annotated[float, typer.Option(min=1, max=1000, help="Frames a second.")] = 60.0,
    seed: SeedOption = 0,
    as_json: opt.JsonOption = False,
    debug: opt.DebugOption = False,
) -> None:
    """Make up a gallery: people who each show, in their own way, what they feel over time."""
    with running(as_json=as_json, debug=debug) as report:
        from fastface.workshop import sampling
        from fastface.workshop.gallery import Gallery

        recipe = sampling.Recipe(subjects=subjects, recordings=recordings, fps=fps, seed=seed)
        with report.progress("people") as bar:
            task = bar.add_task("sampling", total=subjects)
            sampling.sample_gallery(folder, family, recipe, lambda done, _: bar.update(task, completed=done))
        count = len(Gallery.open(folder))
        report.say(f"{folder}: {count:,} faces of {subjects} people")
        report.result({"gallery": str(folder), "faces": count, "subjects": subjects, "seed": seed})


@affects.command("build")
def build(
    gallery: GalleryArgument,
    output: Annotated[Path, typer.Option("--output", "-o", help="A .npz file.", show_default=False)],
    classes: Annotated[int, typer.Option(min=3, max=20_000, help="Of valence and arousal.")] = 550,
    modes: Annotated[int, typer.Option(min=1, max=64, help="Of each class's blendshape model.")] = 3,
    step: Annotated[
        float, typer.Option(min=0.001, max=0.2, help="Ratings closer than this count as the same.")
    ] = 0.01,
    as_json: opt.JsonOption = False,
    debug: opt.DebugOption = False,
) -> None:
    """Learn an affect model: Ward's classes of valence and arousal, their means and blendshape models."""
    with running(as_json=as_json, debug=debug) as report:
        from fastface.cli.outputs import check_model
        from fastface.workshop.classes import build_classes, identity_leak
        from fastface.workshop.gallery import Gallery

        check_model(output)
        opened = Gallery.open(gallery)
        with report.progress("shards") as bar:
            learned = build_classes(opened, classes, modes=modes, step=step, progress=_stages(bar))
        learned.save(output)
        leak = identity_leak(opened, learned)
        report.say(
            f"{output}: {len(opened):,} faces in {classes} classes of {learned.counts.min()} and more; "
            f"{leak:.1%} of what varies within classes is told by who it is"
        )
        least = int(learned.counts.min())
        record = {"model": str(output), "faces": len(opened), "classes": classes, "smallest": least}
        report.result({**record, "identity_leak": round(leak, 4)})


@affects.command("components")
def components(
    gallery: GalleryArgument,
    output: Annotated[Path, typer.Option("--output", "-o", help="A .npz file.", show_default=False)],
    count: Annotated[int, typer.Option(min=1, max=1000, help="Components.")] = 50,
    samples: Annotated[int, typer.Option(min=10, max=20_000, help="Faces to look at.")] = 2000,
    strength: Annotated[float, typer.Option(min=0.0, max=100.0, help="Of the regularisation.")] = 1.0,
    reach_mm: Annotated[
        tuple[float, float], typer.Option(help="Where it begins around a component, and is full.")
    ] = (15.0, 60.0),
    nonnegative: Annotated[bool, typer.Option("--nonnegative", help="No weight below 0.")] = False,
    sweeps: Annotated[int, typer.Option(min=1, max=1000, help="Rounds.")] = 15,
    model: opt.ModelOption = "default",
    seed: SeedOption = 0,
    as_json: opt.JsonOption = False,
    debug: opt.DebugOption = False,
) -> None:
    """Find sparse localised components in what a gallery's faces do, on the mesh of a head model."""
    with running(as_json=as_json, debug=debug) as report:
        from fastface.cli.outputs import check_model
        from fastface.head_models import open_model
        from fastface.workshop.component_file import gallery_deformations, save_components
        from fastface.workshop.components import locality_mm, sparse_components
        from fastface.workshop.gallery import Gallery

        check_model(output)
        head = open_model(model)
        mesh = gallery_deformations(Gallery.open(gallery), head, samples, seed)
        with report.progress("sweeps") as bar:
            task = bar.add_task("components", total=sweeps)
            found = sparse_components(
                mesh.deformations,
                mesh.triangles,
                mesh.vertices,
                count,
                strength=strength,
                reach_mm=reach_mm,
                constraint="nonnegative" if nonnegative else "signed",
                sweeps=sweeps,
                progress=lambda done, _: bar.update(task, completed=done),
            )
        save_components(output, found, mesh, head)
        error = found.reconstruction_error(mesh.deformations)
        width = float(sorted(locality_mm(found.components, mesh.vertices))[count // 2])
        report.say(f"{output}: {count} components, {error:.3f} mm off, half of them within {width:.0f} mm")
        report.result(
            {"components": str(output), "count": count, "error_mm": error, "median_width_mm": width}
        )


@affects.command("plot")
def plot(
    source: Annotated[Path, typer.Argument(help="A model, gallery or path (.csv).", show_default=False)],
    output: Annotated[Path, typer.Option("--output", "-o", help=".png; .svg of a path.", show_default=False)],
    as_json: opt.JsonOption = False,
    debug: opt.DebugOption = False,
) -> None:
    """Draw in the plane of valence and arousal: a model's classes, a gallery's ratings, or a path."""
    with running(as_json=as_json, debug=debug) as report:
        from fastface.class_model import AffectClasses
        from fastface.errors import BadArgument
        from fastface.images import write_image
        from fastface.workshop.gallery import Gallery
        from fastface.workshop.plots import class_map, histogram

        if source.suffix.casefold() != ".csv" and output.suffix.casefold() not in opt.IMAGE_SUFFIXES:
            wanted = ", ".join(opt.IMAGE_SUFFIXES)
            raise BadArgument(f"{output}: a model or gallery is drawn as {wanted}; .svg is for a path (.csv)")
        if source.suffix.casefold() == ".csv":
            draw_path(source, output)
        elif source.is_dir():
            marks = Gallery.open(source).annotations()
            write_image(output, histogram(marks["valence"], marks["arousal"]))
        else:
            write_image(output, class_map(AffectClasses.load(source)))
        report.say(str(output))
        report.result({"image": str(output)})


def draw_path(source: Path, output: Path) -> None:
    """A path's way through the plane, as SVG."""
    from fastface.affect import AffectPath
    from fastface.atomic import write_whole
    from fastface.errors import BadArgument
    from fastface.stimuli import path_svg

    if output.suffix.casefold() != ".svg":
        raise BadArgument(f"{output}: a path is drawn as .svg")
    path = AffectPath.from_csv(source)
    if path.kind != "valence_arousal":
        raise BadArgument(f"{source}: a path of valence and arousal can be drawn, this is of {path.kind}")
    write_whole(output, path_svg(path.values).encode())


def _stages(bar: Any) -> Callable[[str, int, int], None]:
    tasks: dict[str, Any] = {}

    def told(stage: str, done: int, total: int) -> None:
        if stage not in tasks:
            tasks[stage] = bar.add_task(stage, total=total)
        bar.update(tasks[stage], completed=done)

    return told
