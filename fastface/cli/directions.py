"""``fastface directions``: learn what changes an attribute, and look at what was learned."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fastface.cli import latent_outputs as out
from fastface.cli import options as opt
from fastface.cli.report import Report, running
from fastface.errors import BadArgument

if TYPE_CHECKING:
    from fastface.generators.directions import Attribute, Directions
    from fastface.generators.sampling import Samples
    from fastface.generators.scorers import Scorer

directions = typer.Typer(help="Linear directions in a StyleGAN's latents.", no_args_is_help=True)


@directions.command()
def learn(
    generator: opt.StyleGanOption,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="dirs.npz", show_default=False)],
    attribute: Annotated[
        list[str],
        typer.Option(
            "--attribute",
            "-a",
            metavar="NAME",
            help="An expression, an ARKit blendshape, yaw, pitch, roll, or a score of --scorer. Repeatable.",
            show_default=False,
        ),
    ],
    scorer: Annotated[
        list[Path] | None,
        typer.Option(metavar="net.onnx", help="Any image scorer, or its description in JSON. Repeatable."),
    ] = None,
    against: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME:A,B", help="What NAME is to leave unchanged; all others by default. Repeatable."
        ),
    ] = None,
    orthogonal: Annotated[
        bool, typer.Option("--orthogonal/--plain", help="Plain directions leave nothing unchanged.")
    ] = True,
    logistic: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Fit this one as there or not, not as a measure. Repeatable."),
    ] = None,
    samples: Annotated[int, typer.Option(min=50, max=1_000_000, help="Faces to look at.")] = 2000,
    seed: Annotated[int, typer.Option(min=0, max=(1 << 32) - 1, help="The first of consecutive seeds.")] = 0,
    truncation: Annotated[float, typer.Option(min=0.1, max=2, help="1 is all variety.")] = 0.7,
    cache: Annotated[
        Path | None,
        typer.Option(help="Folder that keeps the scores; a later run goes on there.", show_default=False),
    ] = None,
    overwrite: opt.OverwriteOption = False,
    provider: opt.ProviderOption = None,
    precision: opt.PrecisionOption = None,
    batch: opt.BatchOption = 8,
    threads: opt.ThreadsOption = None,
    as_json: opt.JsonOption = False,
    debug: opt.DebugOption = False,
) -> None:
    """Learn directions: faces of many seeds are scored, each score is fitted linearly, and each direction is
    cleared of the others.

    What a fit is worth is measured on a fifth of the faces, which it did not see.
    """
    with running(as_json=as_json, debug=debug) as report:
        import numpy as np

        from fastface.atomic import destination
        from fastface.generators import directions as fits
        from fastface.generators.sampling import score_samples
        from fastface.generators.scorers import OnnxScorer
        from fastface.runtime.providers import available_cores

        if output.suffix.casefold() != ".npz":
            raise BadArgument(f"{output}: directions end in .npz")
        if destination(output).exists() and not overwrite:
            raise BadArgument(f"{output} exists; --overwrite replaces it")
        if len(set(attribute)) < len(attribute):
            raise BadArgument(f"--attribute {max(attribute, key=attribute.count)} is given twice")
        others = parse_against(against or [], attribute, orthogonal=orthogonal)
        unknown = set(logistic or []) - set(attribute)
        if unknown:
            raise BadArgument(f"--logistic {sorted(unknown)[0]}: is no --attribute")
        last = seed + samples
        if last > 1 << 32:
            raise BadArgument(f"--seed {seed}: seeds end at 2^32 - 1")
        scorers: list[Scorer] = [OnnxScorer(path, threads) for path in scorer or []]
        scorers += face_scorers(attribute, scorers, threads or available_cores())
        net = out.open_stylegan(generator, provider, precision, threads, batch)
        with report.progress("faces") as progress:
            bar = progress.add_task(output.name, total=samples)
            found = score_samples(
                net,
                scorers,
                range(seed, last),
                truncation=truncation,
                batch=batch,
                cache=cache,
                advance=lambda count: progress.advance(bar, count),
            )
        wanted = attributes_of(found, attribute, others, logistic or [])
        learned = fits.learn(found.w, wanted, str(net.metadata.get("checkpoint_sha256", "")))
        learned.save(output)
        scored = int(np.isfinite(found.scores).all(axis=1).sum())
        report.say(f"{scored} of {samples} samples have all their scores")
        tell(report, learned, output, scored=scored, sampled=samples)


@directions.command()
def show(
    file: Annotated[Path, typer.Argument(metavar="dirs.npz", show_default=False)],
    as_json: opt.JsonOption = False,
    debug: opt.DebugOption = False,
) -> None:
    """What is in a file of directions: how well each fits, and what a unit of it changes of the others."""
    with running(as_json=as_json, debug=debug) as report:
        from fastface.generators.directions import Directions

        tell(report, Directions.load(file), file)


def parse_against(words: Sequence[str], names: Sequence[str], *, orthogonal: bool) -> dict[str, list[str]]:
    """What each attribute leaves unchanged: all others, unless ``words`` ("NAME:A,B") say something else."""
    found = {name: [other for other in names if other != name and orthogonal] for name in names}
    for word in words:
        name, colon, rest = word.partition(":")
        others = [other.strip() for other in rest.split(",") if other.strip()]
        if not colon or name.strip() not in names or not set(others) <= set(names) - {name.strip()}:
            raise BadArgument(f"--against wants NAME:A,B of attributes that are learned, got {word!r:.60}")
        found[name.strip()] = others
    return found


def face_scorers(names: Sequence[str], scorers: Sequence[Scorer], threads: int) -> list[Scorer]:
    """The landmark networks, when an attribute is none of the other scorers'."""
    there = {name for scorer in scorers for name in scorer.names}
    if set(names) <= there:
        return []
    from fastface.generators.scorers import FaceScorer, check_attribute

    for name in set(names) - there:
        check_attribute(name, sorted(there))
    return [FaceScorer(threads)]


def attributes_of(
    samples: Samples, names: Sequence[str], against: dict[str, list[str]], logistic: Sequence[str]
) -> list[Attribute]:
    """What to fit, from the scores of the samples."""
    from fastface.generators.directions import Attribute
    from fastface.generators.scorers import attribute_scores

    return [
        Attribute(
            name,
            attribute_scores(samples.scores, samples.names, name),
            "logistic" if name in logistic else "ridge",
            tuple(against[name]),
        )
        for name in names
    ]


def tell(report: Report, learned: Directions, file: Path, **more: int) -> None:
    """A table for people, an object for machines."""
    effects = learned.effects()
    names = list(learned.by_name)
    width = max(map(len, names)) + 2
    report.say(f"{file}  {len(names)} directions of checkpoint {learned.generator_sha256[:12]}…")
    report.say(" " * width + "held out        samples  a unit changes (standard deviations of the fit)")
    listed: list[dict[str, Any]] = []
    for row, (name, part) in enumerate(learned.by_name.items()):
        about = dict(part.about)
        measure = "r2" if "r2" in about else "accuracy"
        worth = f"{'R²' if measure == 'r2' else 'accuracy'} {about.get(measure, float('nan')):.3f}"
        changes = ", ".join(
            f"{other} {effects[row, column]:+.2f}"
            for column, other in enumerate(names)
            if column == row or abs(effects[row, column]) >= 0.005
        )
        report.say(f"{name:<{width}}{worth:<16}{about.get('samples', 0):<9}{changes}")
        listed.append(
            {"name": name, **about, "effects": dict(zip(names, effects[row].tolist(), strict=True))}
        )
    report.result(
        {"file": str(file), "checkpoint_sha256": learned.generator_sha256, **more, "directions": listed}
    )
