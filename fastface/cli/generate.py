"""``fastface generate`` and ``fastface translate``: pictures by an exported generator."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from fastface.cli import options as opt
from fastface.cli.asked import parse_action_units
from fastface.cli.report import running

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from fastface.generators import Generator, StyleGAN

_MOST_SEEDS: Final = 1_000_000
NetArgument = Annotated[
    Path, typer.Argument(help="net.onnx as given to export, or any file of it.", show_default=False)
]


def generate(
    net: NetArgument,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="A folder, or an image for one seed.", show_default=False)
    ],
    seeds: Annotated[
        str, typer.Option(metavar="0-15,40", help="Whole numbers and ranges.", rich_help_panel=opt.SHOW)
    ] = "0",
    truncation: Annotated[
        float,
        typer.Option(min=-2, max=2, help="1 is all variety, 0 the mean face.", rich_help_panel=opt.SHOW),
    ] = 0.7,
    noise: Annotated[
        str, typer.Option(metavar="const|random|none", help="Of the fine detail.", rich_help_panel=opt.SHOW)
    ] = "const",
    label: opt.LabelOption = None,
    sheet: opt.SheetOption = None,
    format: opt.FormatOption = "png",
    overwrite: opt.OverwriteOption = False,
    provenance: opt.MarkedOption = True,
    quality: opt.QualityOption = 92,
    provider: opt.ProviderOption = None,
    precision: opt.PrecisionOption = None,
    batch: opt.BatchOption = 8,
    threads: opt.ThreadsOption = None,
    as_json: opt.JsonOption = False,
    debug: opt.DebugOption = False,
) -> None:
    """Faces of seeds, by StyleGAN2 or StyleGAN3: a folder of images with labels and a manifest.

    A seed shows the same face whatever else is asked for with it, and the same as in the authors' scripts.
    """
    with running(as_json=as_json, debug=debug) as report:
        from fastface.cli import generated
        from fastface.cli.tiles import check_sheet
        from fastface.errors import BadArgument
        from fastface.generators import StyleGAN
        from fastface.provenance import require_marking

        numbers = parse_seeds(seeds)
        single = output.suffix.casefold() in opt.IMAGE_SUFFIXES
        require_marking(provenance, dataset=not single)
        if single and len(numbers) != 1:
            raise BadArgument(f"{output}: one image, but {len(numbers)} seeds; give a folder")
        if sheet is not None:
            check_sheet(sheet, len(numbers), output.parent if single else output)
        suffix = output.suffix if single else generated.checked_suffix(format)
        out = generated.Outputs(
            output, suffix, quality=quality, marked=provenance, overwrite=overwrite, single=single
        )
        out.check([f"seed{number:04d}" for number in numbers])
        generator = open_generator(net, provider, precision, threads, batch)
        if not isinstance(generator, StyleGAN):
            raise BadArgument(f"{net}: {generator.kind} translates photos; see `fastface translate`")
        report.say(f"{generator.kind} {generator.resolution}x{generator.resolution}, {generator.provider}")
        settings = {"truncation": truncation, "noise": noise, "label": parse_numbers(label, "--label")}
        with out.writing(report, len(numbers), sheet) as writing:
            for chunk, images in _generated(generator, numbers, batch, settings):
                for number, image in zip(chunk, images, strict=True):
                    made = {"seed": number, **{k: v for k, v in settings.items() if v is not None}}
                    writing.add(f"seed{number:04d}", image, made, generator, caption=str(number))
        out.report(report, generator)


def translate(
    net: NetArgument,
    photo: Annotated[Path, typer.Argument(help="A photo of a face.", show_default=False)],
    output: Annotated[Path, typer.Option("--output", "-o", help="An image.", show_default=False)],
    label: Annotated[
        str | None,
        typer.Option(metavar="0,1,0", help="StarGAN: its label.", rich_help_panel=opt.SHOW),
    ] = None,
    va: Annotated[
        tuple[float, float] | None,
        typer.Option(metavar="V A", help="StarGAN trained on valence and arousal.", rich_help_panel=opt.SHOW),
    ] = None,
    au: opt.ActionUnitOption = None,
    reference: Annotated[
        Path | None, typer.Option(help="StarGAN v2: a face in the style wanted.", rich_help_panel=opt.SHOW)
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help="StarGAN v2: a random style.", rich_help_panel=opt.SHOW)
    ] = None,
    domain: Annotated[int, typer.Option(min=0, help="StarGAN v2: its domain.", rich_help_panel=opt.SHOW)] = 0,
    face: Annotated[
        bool, typer.Option(help="Cut out the head first; else the photo's middle square.")
    ] = True,
    sheet: Annotated[
        Path | None,
        typer.Option(help="Input and output side by side.", show_default=False, rich_help_panel=opt.OUT),
    ] = None,
    overwrite: opt.OverwriteOption = False,
    quality: opt.QualityOption = 92,
    provider: opt.ProviderOption = None,
    precision: opt.PrecisionOption = None,
    threads: opt.ThreadsOption = None,
    as_json: opt.JsonOption = False,
    debug: opt.DebugOption = False,
) -> None:
    """A face under a label, valence and arousal, action units or another face's style: StarGAN, GANimation,
    StarGAN v2. The output is the face's square, as large as the generator's images."""
    with running(as_json=as_json, debug=debug) as report:
        from fastface.cli import generated
        from fastface.cli.tiles import check_sheet
        from fastface.errors import BadArgument
        from fastface.images import read_image

        if output.suffix.casefold() not in opt.IMAGE_SUFFIXES:
            raise BadArgument(f"{output}: the name must end in one of {', '.join(opt.IMAGE_SUFFIXES)}")
        out = generated.Outputs(
            output, output.suffix, quality=quality, marked=True, overwrite=overwrite, single=True
        )
        out.check([output.stem], photo)
        if sheet is not None:
            check_sheet(sheet, 2, output.parent, photo)
        generator = open_generator(net, provider, precision, threads, 1)
        square = generated.face_square(read_image(photo), generator.resolution, face=face)
        asked = Asked(parse_numbers(label, "--label"), va, au or [], reference, seed, domain, face)
        image, made = asked.apply(generator, square)
        report.say(f"{generator.kind} {generator.resolution}x{generator.resolution}, {generator.provider}")
        with out.writing(report, 1, None) as writing:
            writing.add(output.stem, image, made, generator, photo=square)
        if sheet is not None:
            out.write_sheet(sheet, [square, image], ["input", generator.kind], generator)
        out.report(report, generator)


class Asked:
    """What ``translate`` is told to show, and which generator can."""

    def __init__(
        self,
        label: list[float] | None,
        va: tuple[float, float] | None,
        aus: list[str],
        reference: Path | None,
        seed: int | None,
        domain: int,
        face: bool,
    ) -> None:
        self.label, self.va, self.aus = label, va, aus
        self.reference, self.seed, self.domain, self.face = reference, seed, domain, face

    def apply(
        self, generator: Generator, square: NDArray[np.uint8]
    ) -> tuple[NDArray[np.uint8], dict[str, Any]]:
        """The translated square and what was asked for. Raises ``BadArgument`` for what does not fit."""
        import numpy as np

        from fastface.errors import BadArgument
        from fastface.generators import GANimation, StarGAN, StarGANv2

        given = {
            "--label": self.label is not None,
            "--va": self.va is not None,
            "--au": bool(self.aus),
            "--reference": self.reference is not None,
            "--seed": self.seed is not None,
        }
        takes = {
            "stargan": ("--label", "--va"),
            "ganimation": ("--au",),
            "starganv2": ("--reference", "--seed"),
        }.get(generator.kind, ())
        chosen = [name for name, there in given.items() if there]
        if not takes:
            raise BadArgument(f"{generator.kind} makes faces of seeds; see `fastface generate`")
        if len(chosen) != 1 or chosen[0] not in takes:
            raise BadArgument(
                f"{generator.kind} takes {' or '.join(takes)}, got {', '.join(chosen) or 'none of them'}"
            )
        if isinstance(generator, StarGAN):
            label = list(self.va) if self.va is not None else self.label or []
            made: dict[str, Any] = {"label": label} | (
                {"valence": label[0], "arousal": label[1]} if self.va else {}
            )
            return generator.translate(square, np.array(label))[0], made
        if isinstance(generator, GANimation):
            aus = parse_action_units(self.aus)
            return generator.animate(square, action_unit_vector(aus))[0], {"aus": aus}
        assert isinstance(generator, StarGANv2)
        if self.reference is not None:
            from fastface.cli.generated import face_square, pixels_sha256
            from fastface.images import read_image

            other = face_square(read_image(self.reference), generator.resolution, face=self.face)
            style = generator.style(other, self.domain)
            made = {"domain": self.domain, "reference_sha256": pixels_sha256(other)}
        else:
            style = generator.random_style(self.seed or 0, self.domain)
            made = {"domain": self.domain, "seed": self.seed}
        return generator.translate(square, style)[0], made


def action_unit_vector(aus: dict[str, float]) -> NDArray[np.float32]:
    """(17,) of GANimation; units that are not named are 0. Raises ``BadArgument``."""
    import numpy as np

    from fastface.errors import BadArgument
    from fastface.generators.ganimation import ACTION_UNITS

    strange = [name for name in aus if name not in ACTION_UNITS]
    if strange:
        raise BadArgument(f"--au {strange[0]}: GANimation has {', '.join(ACTION_UNITS)}")
    return np.array([aus.get(name, 0.0) for name in ACTION_UNITS], np.float32)


def open_generator(
    net: Path, provider: list[str] | None, precision: str | None, threads: int | None, batch: int
) -> Generator:
    """The generator that the options ask for."""
    from fastface.errors import BadArgument
    from fastface.generators import load
    from fastface.runtime.providers import PRECISIONS

    if precision is not None and precision not in PRECISIONS:
        raise BadArgument(f"--precision is one of {', '.join(PRECISIONS)}, got {precision!r:.20}")
    return load(net, provider or None, precision, threads, batch)  # type: ignore[arg-type]


def parse_seeds(text: str) -> list[int]:
    """ "0-3,9" → [0, 1, 2, 3, 9], each once. Raises ``BadArgument``."""
    from fastface.errors import BadArgument

    found: dict[int, None] = {}
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,10})\s*(?:-\s*(\d{1,10})\s*)?", part)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if first > last or last >= 1 << 32:
            raise BadArgument(
                f"--seeds wants numbers and ranges below 2^32 such as 0-15,40, got {text!r:.40}"
            )
        if last - first + len(found) >= _MOST_SEEDS:
            raise BadArgument(f"--seeds: more than {_MOST_SEEDS:,}")
        found.update(dict.fromkeys(range(first, last + 1)))
    return list(found)


def parse_numbers(text: str | None, what: str) -> list[float] | None:
    """ "0,1,0" → [0, 1, 0]. Raises ``BadArgument`` naming the option ``what``."""
    from fastface.errors import BadArgument

    try:
        return None if text is None else [float(part) for part in text.split(",")]
    except ValueError:
        raise BadArgument(f"{what} wants numbers such as 0,1,0, got {text!r:.40}") from None


def _generated(
    generator: StyleGAN, numbers: list[int], batch: int, settings: dict[str, Any]
) -> Iterator[tuple[list[int], NDArray[np.uint8]]]:
    import numpy as np

    label = None if settings["label"] is None else np.array(settings["label"], np.float32)
    for start in range(0, len(numbers), batch):
        chunk = numbers[start : start + batch]
        w = generator.map(generator.sample(chunk), settings["truncation"], label)
        yield chunk, generator.synthesize(w, settings["noise"], chunk)
