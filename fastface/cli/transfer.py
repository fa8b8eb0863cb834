"""``fastface transfer``: the expressions of a video on the look of a reference face, by StarGAN v2."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fastface.cli import options as opt
from fastface.cli.generate import open_generator
from fastface.cli.report import Report, running

if TYPE_CHECKING:
    from fastface.transfer import FaceTransfer, Look, TransferOptions, Transferred

TRACK = "The face"


def transfer(
    source: Annotated[Path, typer.Argument(help="A video, or a folder of them.", show_default=False)],
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", help="A video (.mp4, lossless .mkv), or a folder.", show_default=False
        ),
    ],
    generator: Annotated[
        Path,
        typer.Option("--generator", "-g", help="net.onnx as given to export starganv2.", show_default=False),
    ],
    reference: Annotated[
        list[Path],
        typer.Option(
            "--reference",
            "-r",
            help="The face to look like: a photo, or a folder of them, or of a folder a domain. Repeatable.",
            show_default=False,
        ),
    ],
    domain: Annotated[
        list[int] | None,
        typer.Option(
            "--domain", min=0, help="Domain of the references: one for all, or one for each in turn."
        ),
    ] = None,
    paste: Annotated[
        str | None,
        typer.Option(
            metavar="feather|poisson", help="Put the face back into the frame.", rich_help_panel=TRACK
        ),
    ] = None,
    no_face: Annotated[
        str,
        typer.Option(
            metavar="hold|skip|stop", help="What becomes of frames without a face.", rich_help_panel=TRACK
        ),
    ] = "hold",
    smoothing: Annotated[
        float,
        typer.Option(
            min=0, max=10, help="Of the crop's motion: sigma in seconds, 0 for none.", rich_help_panel=TRACK
        ),
    ] = 0.2,
    track_every: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=1000,
            help="Look for the face in one frame of so many; about 30 a second by default.",
            rich_help_panel=TRACK,
        ),
    ] = None,
    sound: Annotated[
        bool, typer.Option("--sound/--no-sound", help="Carry the sound over.", rich_help_panel=opt.OUT)
    ] = True,
    resume: opt.ResumeOption = False,
    overwrite: opt.OverwriteOption = False,
    provenance: opt.MarkedOption = True,
    quality: opt.QualityOption = 90,
    provider: opt.ProviderOption = None,
    precision: opt.PrecisionOption = None,
    batch: opt.BatchOption = 8,
    threads: opt.ThreadsOption = None,
    as_json: opt.JsonOption = False,
    debug: opt.DebugOption = False,
) -> None:
    """The expressions of a video on the look of another face, frame for frame, by StarGAN v2.

    The output has the source's frames at the source's times, and its labels. A run that was interrupted goes
    on where it stopped when it is started again.
    """
    with running(as_json=as_json, debug=debug) as report:
        from fastface.cli import transfer_batch
        from fastface.errors import BadArgument
        from fastface.provenance import require_marking
        from fastface.transfer import FaceTransfer, TransferOptions
        from fastface.video import FORMATS

        single = output.suffix.casefold() in FORMATS
        require_marking(provenance, dataset=not single)
        references = transfer_batch.references(reference, domain or [])
        options = TransferOptions(
            smoothing_s=smoothing,
            every=track_every,
            no_face=no_face,  # type: ignore[arg-type]  # checked by TransferOptions
            paste=paste,  # type: ignore[arg-type]
            batch=batch,
            quality=quality,
            sound=sound,
            marked=provenance,
        )
        if single and (source.is_dir() or len(references) != 1):
            raise BadArgument(f"{output}: one video, but a folder or several references; give a folder")
        net = open_generator(generator, provider, precision, threads, batch)
        maker = FaceTransfer(net, threads=threads)
        report.say(f"{net.kind} {net.resolution}x{net.resolution}, {net.provider}")
        if single:
            photo = references[0]
            _single(report, maker, source, output, maker.look(photo.path, photo.domain), options)
        else:
            job = transfer_batch.Job(source, output, references, options)
            _folder(report, transfer_batch.run(job, maker, report, resume=resume, overwrite=overwrite))


def _single(
    report: Report,
    maker: FaceTransfer,
    source: Path,
    output: Path,
    look: Look,
    options: TransferOptions,
) -> None:
    import time

    from fastface.cli.transfer_batch import Bars

    start = time.perf_counter()
    with report.progress("frames") as progress:
        made = maker.run(source, output, look, options, advance=Bars(progress, output.name))
    seconds = time.perf_counter() - start
    for note in made.notes:
        report.warn(note)
    report.say(f"{output}  {_described(made)} ({made.record['frames'] / seconds:.1f} frames/s)")
    report.result(_result(made) | {"seconds": round(seconds, 3)})


def _described(made: Transferred) -> str:
    record = made.record
    lacking = record["source_frames"] - record["frames_with_face"]
    without = f", {lacking} without a face" if lacking else ""
    return (
        f"{record['frames']} frames at {record['fps']:g} fps{without}  "
        f"labels: {', '.join(path.name for path in made.labels)}"
    )


def _result(made: Transferred) -> dict[str, Any]:
    return {"video": str(made.video), "labels": [str(path) for path in made.labels], "record": made.record}


def _folder(report: Report, done: Any) -> None:
    kept = f", {done.kept} were there" if done.kept else ""
    failed = f", {len(done.failures)} failed" if done.failures else ""
    report.say(f"{done.output}  {done.written} videos written{kept}{failed}  manifest: {done.manifest.name}")
    report.result(
        {
            "output": str(done.output),
            "written": done.written,
            "kept": done.kept,
            "failed": [{"input": name, "error": error} for name, error in done.failures],
            "manifest": str(done.manifest),
            "columns": str(done.columns),
            "seconds": round(done.seconds, 3),
        }
    )
    if done.failures:
        raise typer.Exit(1)
