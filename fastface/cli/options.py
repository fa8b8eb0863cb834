"""Options that several commands share: each stands here once, with the words that explain it."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from fastface.engine import Engine, FittedFace
    from fastface.texture_model import TextureModel


class Device(StrEnum):
    """Where to compute."""

    CPU = "cpu"
    CUDA = "cuda"
    AUTO = "auto"


#: Headings in ``--help``.
SHOW, WHERE, OUT = "What to show", "Where it runs", "What is written"

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
PHOTO_SUFFIXES = (*IMAGE_SUFFIXES, ".bmp", ".tif", ".tiff", ".gif", ".ppm", ".avif")

# --- every command ---

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
DebugOption = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
ThreadsOption = Annotated[
    int | None, typer.Option(min=1, max=1024, help="Processor cores to use; all by default.")
]
DeviceOption = Annotated[Device, typer.Option(help="Where to compute.", case_sensitive=False)]

# --- faces ---

FaceArgument = Annotated[Path, typer.Argument(help="A photo, or a fit (.npz).", show_default=False)]
ModelOption = Annotated[
    str, typer.Option("--model", "-m", help="Head model: default, ict, or a .npz file.", metavar="NAME|FILE")
]
AffectModelOption = Annotated[
    Path | None,
    typer.Option(
        metavar="model.npz",
        help="What valence and arousal look like: of `fastface affect build`.",
        show_default=False,
    ),
]
ExpressionOption = Annotated[
    list[str] | None,
    typer.Option(
        "--expression",
        "-e",
        metavar="NAME",
        help="anger, contempt, disgust, fear, happy, sad, surprise or neutral. Repeatable.",
        rich_help_panel=SHOW,
    ),
]
ActionUnitOption = Annotated[
    list[str] | None,
    typer.Option("--au", metavar="AU12=0.8", help="A FACS action unit. Repeatable.", rich_help_panel=SHOW),
]
VaOption = Annotated[
    tuple[float, float] | None,
    typer.Option(metavar="V A", help="Valence and arousal, each -1 … 1.", rich_help_panel=SHOW),
]
PainOption = Annotated[
    float | None,
    typer.Option(min=0, max=16, metavar="0…16", help="Pain of that PSPI score.", rich_help_panel=SHOW),
]
IntensityOption = Annotated[
    list[float] | None,
    typer.Option(
        "--intensity",
        "-i",
        metavar="0…1 …",
        help="0.6 is everyday, 1 (the default) strong but human. Several at once.",
        rich_help_panel=SHOW,
    ),
]
StepsOption = Annotated[
    int | None,
    typer.Option(min=2, max=1001, metavar="N", help="N even intensities from 0 to 1.", rich_help_panel=SHOW),
]
YawOption = Annotated[
    list[float] | None,
    typer.Option(
        metavar="DEG …", help="Turn the head to its left; several views at once.", rich_help_panel=SHOW
    ),
]
FpsOption = Annotated[
    float, typer.Option(min=0.001, max=1000, help="Frames a second of a video.", rich_help_panel=SHOW)
]

# --- outputs ---

QualityOption = Annotated[
    int, typer.Option(min=1, max=100, help="JPEG, WebP and MP4 quality.", rich_help_panel=OUT)
]
FormatOption = Annotated[
    str,
    typer.Option("--format", metavar="NAME", help="png, jpg or webp, in a folder.", rich_help_panel=OUT),
]
SheetOption = Annotated[
    Path | None,
    typer.Option(
        help="A contact sheet of them all, too (at most 400).", show_default=False, rich_help_panel=OUT
    ),
]
OverwriteOption = Annotated[
    bool, typer.Option("--overwrite", help="Replace what is there.", rich_help_panel=OUT)
]
ResumeOption = Annotated[
    bool, typer.Option("--resume", help="Keep what is there, make the rest.", rich_help_panel=OUT)
]
MarkedOption = Annotated[
    bool,
    typer.Option(
        "--provenance/--no-provenance",
        help="Mark outputs as synthetic. Only a folder's may go unmarked.",
        rich_help_panel=OUT,
    ),
]

# --- generators ---

ProviderOption = Annotated[
    list[str] | None,
    typer.Option(
        "--provider",
        metavar="NAME",
        help="tensorrt, cuda, openvino or cpu; the fastest by default. One that is missing is an error.",
        rich_help_panel=WHERE,
    ),
]
PrecisionOption = Annotated[
    str | None,
    typer.Option(
        metavar="fp32|bf16|fp16", help="fp32 is exact; the fastest by default.", rich_help_panel=WHERE
    ),
]
BatchOption = Annotated[
    int, typer.Option("--batch", min=1, max=256, help="Images at a time.", rich_help_panel=WHERE)
]
LabelOption = Annotated[
    str | None, typer.Option(metavar="0,1,0", help="Of a conditional generator.", rich_help_panel=SHOW)
]

# --- latents of a StyleGAN ---

StyleGanOption = Annotated[
    Path,
    typer.Option(
        "--generator", "-g", metavar="net.onnx", help="StyleGAN2 or 3 as exported.", show_default=False
    ),
]
LatentArgument = Annotated[
    str, typer.Argument(help="A latent (.npz), or seed:N.", metavar="LATENT", show_default=False)
]
LatentOutputOption = Annotated[
    Path,
    typer.Option("--output", "-o", help="An image, a video (.mp4, .mkv) or a folder.", show_default=False),
]
SaveLatentOption = Annotated[
    Path | None,
    typer.Option("--save-latent", metavar="out.npz", help="Keep the latent too.", rich_help_panel=OUT),
]
_DIRECTIONS = typer.Option(
    "--directions",
    "-d",
    metavar="dirs.npz",
    help="Of `fastface directions learn`.",
    show_default=False,
    rich_help_panel=SHOW,
)
DirectionsOption = Annotated[Path, _DIRECTIONS]
MaybeDirectionsOption = Annotated[Path | None, _DIRECTIONS]
TruncationOption = Annotated[
    float, typer.Option(min=-2, max=2, help="Of seed:N: 1 is all variety, 0 the mean.", rich_help_panel=SHOW)
]
LayersOption = Annotated[
    str, typer.Option(metavar="4-7", help="Layers that move, low to high.", rich_help_panel=SHOW)
]
WayOption = Annotated[
    str,
    typer.Option(
        "--way",
        metavar="linear|spherical",
        help="To an apex latent; spherical turns about the mean latent.",
        rich_help_panel=SHOW,
    ),
]
NoiseOption = Annotated[
    str,
    typer.Option(
        metavar="own|const|none",
        help="Fine detail: the latent's own where it has any, the checkpoint's, or none.",
        rich_help_panel=SHOW,
    ),
]
MeasureOption = Annotated[
    bool,
    typer.Option(
        help="Find the face in every image and record landmarks and what it shows.", rich_help_panel=OUT
    ),
]


def open_engine(model: str, device: Device, threads: int | None, affect_model: Path | None = None) -> Engine:
    """The engine that the options ask for."""
    from fastface.engine import Engine

    return Engine(model, device=device.value, threads=threads, affects=affect_model)


def open_face(engine: Engine, source: Path, *, texture: bool | TextureModel = False) -> FittedFace:
    """A fit from a photo, or the one kept in a ``.npz``; the latter must belong to the engine's head
    model."""
    from fastface.errors import BadImage

    if source.suffix.casefold() == ".npz":
        from fastface.engine import FittedFace

        return FittedFace.load(source)
    if source.is_dir():
        raise BadImage(f"{source}: is a folder, wanted one photo or fit; `fastface synth` takes folders")
    if not source.exists():
        raise BadImage(f"{source}: no such file")
    return engine.fit(source, texture=texture) if texture else engine.fit(source)
