"""``fastface grid``: expression × age × intensity for any number of faces, with a codebook."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fastface.cli import latent_outputs as out
from fastface.cli import options as opt
from fastface.cli.report import running
from fastface.errors import BadArgument

if TYPE_CHECKING:
    from fastface.generators import StyleGAN
    from fastface.generators.directions import Directions
    from fastface.generators.grid import Cell, Expression
    from fastface.generators.latents import Latent

_MOST_PICTURES = 1_000_000


def grid(
    identities: Annotated[
        list[str],
        typer.Argument(
            help="Neutral faces: latents (.npz), seed:N or seeds:0-9.", metavar="LATENT…", show_default=False
        ),
    ],
    generator: opt.StyleGanOption,
    output: Annotated[Path, typer.Option("--output", "-o", help="A folder.", show_default=False)],
    expression: Annotated[
        list[str],
        typer.Option(
            "--expression",
            "-e",
            metavar="NAME[=STRENGTH|apex.npz]",
            help="A direction (to strength 2), or an apex latent. Repeatable.",
            show_default=False,
            rich_help_panel=opt.SHOW,
        ),
    ],
    directions: opt.MaybeDirectionsOption = None,
    intensity: Annotated[
        list[float] | None,
        typer.Option(
            "--intensity",
            "-i",
            metavar="0…1",
            help="0.25 0.5 0.75 1 by default. Repeatable.",
            rich_help_panel=opt.SHOW,
        ),
    ] = None,
    age: Annotated[
        list[float] | None,
        typer.Option(help="Strength along the age direction. Repeatable.", rich_help_panel=opt.SHOW),
    ] = None,
    age_score: Annotated[
        list[float] | None,
        typer.Option(
            help="Age as its scorer tells it, instead of strengths. Repeatable.", rich_help_panel=opt.SHOW
        ),
    ] = None,
    age_direction: Annotated[
        str, typer.Option(metavar="NAME", help="Which direction is age.", rich_help_panel=opt.SHOW)
    ] = "age",
    layers: opt.LayersOption = "all",
    age_layers: Annotated[
        str, typer.Option(metavar="0-7", help="Layers that age moves.", rich_help_panel=opt.SHOW)
    ] = "all",
    way_of: opt.WayOption = "linear",
    truncation: opt.TruncationOption = 0.7,
    noise: opt.NoiseOption = "own",
    codebook: Annotated[
        str, typer.Option(metavar="csv|parquet", help="Of the codebook.", rich_help_panel=opt.OUT)
    ] = "csv",
    measure: opt.MeasureOption = True,
    format: opt.FormatOption = "png",
    sheet: opt.SheetOption = None,
    overwrite: opt.OverwriteOption = False,
    resume: opt.ResumeOption = False,
    provenance: opt.MarkedOption = True,
    quality: opt.QualityOption = 92,
    provider: opt.ProviderOption = None,
    precision: opt.PrecisionOption = None,
    batch: opt.BatchOption = 8,
    threads: opt.ThreadsOption = None,
    as_json: opt.JsonOption = False,
    debug: opt.DebugOption = False,
) -> None:
    """Every face in every expression at every age and intensity: a folder of images, and a codebook that says
    what each one is. Neutral comes by itself, once at each age."""
    with running(as_json=as_json, debug=debug) as report:
        from fastface.cli.outputs import write_record
        from fastface.codebook import write_codebook, write_key
        from fastface.generators import grid as grids
        from fastface.generators.directions import Directions
        from fastface.generators.latents import WAYS, parse_layers
        from fastface.generators.portraits import belongs, mean_latent

        if codebook not in ("csv", "parquet"):
            raise BadArgument(f"--codebook is csv or parquet, got {codebook!r:.20}")
        if way_of not in WAYS:
            raise BadArgument(f"--way is {' or '.join(WAYS)}, got {way_of!r:.20}")
        if age and age_score:
            raise BadArgument("--age gives strengths, --age-score what the scorer tells; give one")
        way = out.Way(
            output, quality, provenance, overwrite, resume, format, sheet, measure, batch, noise=noise
        )
        if way.single or way.video:
            raise BadArgument(f"{output}: a grid goes into a folder")
        net = out.open_stylegan(generator, provider, precision, threads, batch)
        known = None if directions is None else Directions.load(directions)
        if known is not None:
            belongs(str(directions), known.generator_sha256, net)
        aged = bool(age or age_score)
        if aged and known is None:
            raise BadArgument("ages need --directions with one for age")
        design = grids.Design(
            expressions=tuple(open_expression(word, known, net, truncation) for word in expression),
            intensities=tuple(intensity or (0.25, 0.5, 0.75, 1.0)),
            ages=tuple(age_score or age or (0.0,)),
            age_unit="score" if age_score else "strength",
            age=known[age_direction] if aged and known is not None else None,
            expression_layers=parse_layers(layers, net.layers),
            age_layers=parse_layers(age_layers, net.layers),
            way="spherical" if way_of == "spherical" else "linear",
        )
        sources = list(all_sources(identities))
        design.check(len(sources))
        count = design.count(len(sources))
        if count > _MOST_PICTURES:
            raise BadArgument(f"a grid of {count:,} pictures; at most {_MOST_PICTURES:,}")
        faces = [(out.name_of(source), out.open_latent(source, net, truncation)) for source in sources]
        check_noise(faces, way)
        centre = mean_latent(net) if way_of == "spherical" else None
        rows: list[dict[str, Any]] = []
        out.write_pictures(
            report,
            net,
            lambda: map(picture_of, grids.cells(faces, design, centre)),
            count,
            out.noise_of(faces[0][1], way),
            way,
            each=lambda record: rows.append({key: record.get(key) for key in grids.COLUMNS}),
        )
        names = [name for name, _ in faces]
        write_codebook(output / f"codebook.{codebook}", rows, grids.COLUMNS)
        write_key(output, {"codebook": grids.COLUMNS})
        write_record(output / "codebook.json", grids.described(design, names, len(rows)))


def all_sources(words: Sequence[str]) -> list[str]:
    """ "seeds:0-2" stands for seed:0, seed:1, seed:2; everything else for itself."""
    from fastface.cli.generate import parse_seeds

    found: list[str] = []
    for word in words:
        if word.startswith("seeds:"):
            found += [f"seed:{number}" for number in parse_seeds(word.removeprefix("seeds:"))]
        else:
            found.append(word)
    return found


def open_expression(word: str, known: Directions | None, net: StyleGAN, truncation: float) -> Expression:
    """ "happy" or "happy=1.5": a direction; "happy=apex.npz" or "happy=seed:3": an apex latent."""
    from fastface.generators.grid import Expression

    name, given, value = word.partition("=")
    name = name.strip()
    if given and (value.casefold().endswith(".npz") or value.startswith("seed:")):
        return Expression(name, apex=out.open_latent(value, net, truncation))
    if known is None:
        raise BadArgument(f"--expression {word}: needs --directions, or an apex latent as {name}=apex.npz")
    try:
        strength = float(value) if given else 2.0
    except ValueError:
        raise BadArgument(
            f"--expression wants NAME, NAME=STRENGTH or NAME=apex.npz, got {word!r:.60}"
        ) from None
    if not 0 < abs(strength) <= 1000:
        raise BadArgument(f"--expression {name}: strength must be within ±1000 and not 0, got {value}")
    return Expression(name, known[name], strength)


def check_noise(faces: Sequence[tuple[str, Latent]], way: out.Way) -> None:
    """A grid is made in batches across faces, which share their noise."""
    if way.noise == "own" and len(faces) > 1 and any(latent.noise for _, latent in faces):
        raise BadArgument("these latents have noise of their own: one at a time, or --noise const")


def picture_of(cell: Cell) -> out.Picture:
    """A cell as a picture to make."""
    row = {"made": "grid", **cell.row}
    return out.Picture(cell.stem, cell.w, row, f"{row['expression']} {row['intensity']:.2f}")
