"""``fastface edit``, ``interpolate`` and ``mix``: faces of a StyleGAN, moved through its latents."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fastface.cli import latent_outputs as out
from fastface.cli import options as opt
from fastface.cli.report import running
from fastface.errors import BadArgument

if TYPE_CHECKING:
    from fastface.generators.directions import Direction, Directions
    from fastface.generators.latents import Floats, Latent


def edit(
    latent: opt.LatentArgument,
    generator: opt.StyleGanOption,
    directions: opt.DirectionsOption,
    output: opt.LatentOutputOption,
    move: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=STRENGTH",
            help="In standard deviations; -2..2 sweeps. Repeatable.",
            rich_help_panel=opt.SHOW,
        ),
    ] = None,
    score: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=SCORE",
            help="Move until the fitted score is this; 20..60 sweeps. Repeatable.",
            rich_help_panel=opt.SHOW,
        ),
    ] = None,
    steps: Annotated[
        int, typer.Option(min=0, max=100_000, help="Pictures of a sweep; 9.", rich_help_panel=opt.SHOW)
    ] = 0,
    layers: opt.LayersOption = "all",
    truncation: opt.TruncationOption = 0.7,
    noise: opt.NoiseOption = "own",
    save_latent: opt.SaveLatentOption = None,
    fps: opt.FpsOption = 30.0,
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
    """Move a face along learned directions: one picture, or a sweep as a folder or a video, with labels."""
    with running(as_json=as_json, debug=debug) as report:
        import numpy as np

        from fastface.generators.directions import Directions
        from fastface.generators.latents import parse_layers
        from fastface.generators.portraits import belongs

        ranges = [*parse_ranges(move or [], "--move"), *parse_ranges(score or [], "--score")]
        if not ranges:
            raise BadArgument("nothing to change: give --move NAME=STRENGTH or --score NAME=SCORE")
        sweep = any(low != high for _, low, high in ranges)
        if steps and not sweep:
            raise BadArgument("--steps is for a sweep such as --move smile=-2..2")
        if sweep and save_latent is not None:
            raise BadArgument("--save-latent keeps one latent, not a sweep")
        count = (steps or 9) if sweep else 1
        way = out.Way(
            output, quality, provenance, overwrite, resume, format, sheet, measure, batch, fps, noise
        )
        way.check(count)
        net = out.open_stylegan(generator, provider, precision, threads, batch)
        start = out.open_latent(latent, net, truncation)
        known = Directions.load(directions)
        belongs(str(directions), known.generator_sha256, net)
        where = parse_layers(layers, net.layers)
        called = out.name_of(latent)

        def pictures() -> Iterator[out.Picture]:
            for index, at in enumerate(np.linspace(0, 1, count).tolist()):
                values = [(name, low + at * (high - low)) for name, low, high in ranges]
                strengths = _strengths(known, start.w, values, len(move or []), where)
                stem = f"{called}.{index:04d}" if sweep else called
                yield _edited(known, start, strengths, where, stem)

        out.write_pictures(report, net, pictures, count, out.noise_of(start, way), way)
        if save_latent is not None:
            (only,) = pictures()
            made = {"made": "edit", **{key: only.made[key] for key in ("strengths", "latent_sha256")}}
            out.save_latent(save_latent, only.w, start, made)


def parse_ranges(words: Sequence[str], option: str) -> list[tuple[str, float, float]]:
    """["smile=-2..2", "age=1"] → [("smile", -2, 2), ("age", 1, 1)]. Raises ``BadArgument``."""
    number = r"\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*"
    found: list[tuple[str, float, float]] = []
    for word in words:
        match = re.fullmatch(rf"\s*([^=]+?)\s*={number}(?:\.\.{number})?", word)
        if match is None:
            raise BadArgument(f"{option} wants NAME=NUMBER or NAME=FROM..TO, got {word!r:.60}")
        if match[1] in [name for name, _, _ in found]:
            raise BadArgument(f"{option} {match[1]} is given twice")
        found.append((match[1], float(match[2]), float(match[3] or match[2])))
    return found


def _strengths(
    known: Directions,
    w: Floats,
    values: Sequence[tuple[str, float]],
    moves: int,
    layers: tuple[int, ...],
) -> list[tuple[Direction, float]]:
    """The first ``moves`` values are strengths, the others scores to reach."""
    strengths: list[tuple[Direction, float]] = []
    for index, (name, value) in enumerate(values):
        direction = known[name]
        wanted = value if index < moves else direction.strength_to(w, value, layers)
        strengths.append((direction, float(wanted)))
    return strengths


def _edited(
    known: Directions,
    start: Latent,
    strengths: Sequence[tuple[Direction, float]],
    layers: tuple[int, ...],
    stem: str,
) -> out.Picture:
    from fastface.generators.directions import edit as moved

    found = moved(start.w, strengths, layers)
    named = {direction.name: round(strength, 6) for direction, strength in strengths}
    made = {
        "made": "edit",
        "latent_sha256": start.digest,
        "strengths": named,
        "layers": list(layers),
        "fitted_scores": {name: round(float(known[name].score(found)), 4) for name in named},
    }
    caption = " ".join(f"{name} {strength:+.2f}" for name, strength in named.items())
    stem = ".".join([stem, *(f"{safe(name)}{strength:+.2f}" for name, strength in named.items())])
    return out.Picture(stem, found, made, caption)


def safe(name: str) -> str:
    """A name as part of a file's name."""
    return re.sub(r"[^\w-]", "_", name)


def interpolate(
    neutral: opt.LatentArgument,
    apex: Annotated[str, typer.Argument(help="Likewise.", metavar="APEX", show_default=False)],
    generator: opt.StyleGanOption,
    output: opt.LatentOutputOption,
    steps: Annotated[
        int,
        typer.Option(min=0, max=100_000, help="Even intensities from 0 to 1; 11.", rich_help_panel=opt.SHOW),
    ] = 0,
    intensity: Annotated[
        list[float] | None,
        typer.Option(
            "--intensity", "-i", metavar="0…1", help="These instead. Repeatable.", rich_help_panel=opt.SHOW
        ),
    ] = None,
    way_of: opt.WayOption = "linear",
    expression: Annotated[
        str, typer.Option(help="What the apex shows, for the labels.", rich_help_panel=opt.SHOW)
    ] = "",
    layers: opt.LayersOption = "all",
    truncation: opt.TruncationOption = 0.7,
    noise: opt.NoiseOption = "own",
    fps: opt.FpsOption = 30.0,
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
    """From a neutral face to an apex in exact intensities: a folder or a video, with labels."""
    with running(as_json=as_json, debug=debug) as report:
        import numpy as np

        from fastface.generators import latents
        from fastface.generators.portraits import mean_latent

        if steps and intensity:
            raise BadArgument("--steps makes even intensities, --intensity names them; give one")
        if not all(0 <= t <= 1 for t in intensity or []):  # true for no NaN
            raise BadArgument(f"--intensity lies in 0 … 1, got {intensity}")
        if steps == 1:
            raise BadArgument("--steps counts both ends: at least 2")
        at = np.array(intensity) if intensity else np.linspace(0, 1, steps or 11)
        stems = [f"{t:.4f}" for t in at]
        way = out.Way(
            output, quality, provenance, overwrite, resume, format, sheet, measure, batch, fps, noise
        )
        way.check(len(at))
        if not way.video and len(set(stems)) < len(stems):
            raise BadArgument(f"two pictures would be named {max(stems, key=stems.count)}")
        net = out.open_stylegan(generator, provider, precision, threads, batch)
        first, last = (out.open_latent(source, net, truncation) for source in (neutral, apex))
        where = latents.parse_layers(layers, net.layers)
        end = latents.mix(first.w, last.w, where)
        centre = mean_latent(net) if way_of == "spherical" else None
        latents.interpolate(first.w, end, [0.5], way_of, centre)  # type: ignore[arg-type]  # fails here or never
        made: dict[str, Any] = {
            "made": "interpolation",
            "way": way_of,
            "layers": list(where),
            "neutral_sha256": first.digest,
            "apex_sha256": last.digest,
            "expression": expression or out.name_of(apex),
        }
        name = f"{out.name_of(neutral)}.{safe(str(made['expression']))}"

        def pictures() -> Iterator[out.Picture]:
            for stem, t in zip(stems, at.tolist(), strict=True):
                (w,) = latents.interpolate(first.w, end, [t], way_of, centre)  # type: ignore[arg-type]
                yield out.Picture(f"{name}-{stem}", w, {**made, "intensity": t}, f"{t:.2f}")

        out.write_pictures(report, net, pictures, len(at), out.noise_of(first, way), way)


def mix(
    identity: Annotated[
        str, typer.Option("--identity", help="Latent (.npz) or seed:N: who it is.", show_default=False)
    ],
    expression: Annotated[
        str,
        typer.Option("--expression", help="Latent (.npz) or seed:N: what it shows.", show_default=False),
    ],
    generator: opt.StyleGanOption,
    output: opt.LatentOutputOption,
    layers: Annotated[
        str | None,
        typer.Option(
            metavar="4-7",
            help="Layers taken from the expression; 4-7 by default.",
            rich_help_panel=opt.SHOW,
        ),
    ] = None,
    truncation: opt.TruncationOption = 0.7,
    noise: opt.NoiseOption = "own",
    save_latent: opt.SaveLatentOption = None,
    measure: opt.MeasureOption = True,
    overwrite: opt.OverwriteOption = False,
    quality: opt.QualityOption = 92,
    provider: opt.ProviderOption = None,
    precision: opt.PrecisionOption = None,
    threads: opt.ThreadsOption = None,
    as_json: opt.JsonOption = False,
    debug: opt.DebugOption = False,
) -> None:
    """One face with another's expression: some layers from one latent, the rest from the other."""
    with running(as_json=as_json, debug=debug) as report:
        from fastface.generators import latents

        way = out.Way(output, quality, overwrite=overwrite, measure=measure, noise=noise)
        if not way.single:
            raise BadArgument(
                f"{output}: mix makes one image; the name must end in {', '.join(opt.IMAGE_SUFFIXES)}"
            )
        net = out.open_stylegan(generator, provider, precision, threads, 1)
        who, what = (out.open_latent(source, net, truncation) for source in (identity, expression))
        where = (
            latents.expression_layers(net.layers)
            if layers is None
            else latents.parse_layers(layers, net.layers)
        )
        w = latents.mix(who.w, what.w, where)
        made = {
            "made": "mix",
            "identity_sha256": who.digest,
            "expression_sha256": what.digest,
            "layers": list(where),
        }
        picture = out.Picture(output.stem, w, made)
        out.write_pictures(report, net, lambda: [picture], 1, out.noise_of(who, way), way)
        out.save_latent(save_latent, w, who, made)
