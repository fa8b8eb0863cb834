"""``fastface synth``: a photo, a kept fit or a folder of either in; labelled expressions out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fastface.cli import options as opt
from fastface.cli.report import Report, running

if TYPE_CHECKING:
    from fastface.affect import Affect, AffectPath
    from fastface.cli.batch import Job
    from fastface.head_pose import HeadPose


SHOW, FOLDER = "What to show", "Folders"


def synth(
    source: Annotated[
        Path, typer.Argument(help="A photo, a fit (.npz), or a folder of them.", show_default=False)
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="An image, a video, or a folder.", show_default=False)
    ],
    expression: Annotated[
        list[str] | None,
        typer.Option(
            "--expression",
            "-e",
            metavar="NAME",
            help="anger, contempt, disgust, fear, happy, sad, surprise or neutral. Repeatable for a folder.",
            rich_help_panel=SHOW,
        ),
    ] = None,
    intensity: Annotated[
        list[float] | None,
        typer.Option(
            "--intensity",
            "-i",
            metavar="0…1",
            help="0.6 is everyday, 1 (the default) strong but human. Repeatable for a folder.",
            rich_help_panel=SHOW,
        ),
    ] = None,
    au: Annotated[
        list[str] | None,
        typer.Option(
            "--au", metavar="AU12=0.8", help="A FACS action unit. Repeatable.", rich_help_panel=SHOW
        ),
    ] = None,
    va: Annotated[
        tuple[float, float] | None,
        typer.Option(metavar="V A", help="Valence and arousal, each -1 … 1.", rich_help_panel=SHOW),
    ] = None,
    pain: Annotated[
        float | None,
        typer.Option(min=0, max=16, metavar="0…16", help="Pain of that PSPI score.", rich_help_panel=SHOW),
    ] = None,
    yaw: Annotated[
        float, typer.Option(metavar="DEG", help="Turn the head to its left.", rich_help_panel=SHOW)
    ] = 0.0,
    pitch: Annotated[float, typer.Option(metavar="DEG", help="And up.", rich_help_panel=SHOW)] = 0.0,
    roll: Annotated[
        float, typer.Option(metavar="DEG", help="And to its left shoulder.", rich_help_panel=SHOW)
    ] = 0.0,
    path: Annotated[
        Path | None,
        typer.Option(
            metavar="CSV",
            help="Key frames of a video: time_s and valence,arousal, or AU columns, or expression,intensity.",
            rich_help_panel=SHOW,
        ),
    ] = None,
    fps: Annotated[
        float, typer.Option(min=0.001, max=1000, help="Frames a second of a video.", rich_help_panel=SHOW)
    ] = 30.0,
    random: Annotated[
        int,
        typer.Option(
            min=0,
            max=10_000,
            metavar="N",
            help="For each photo, N random points of valence and arousal.",
            rich_help_panel=FOLDER,
        ),
    ] = 0,
    seed: Annotated[
        int, typer.Option(min=0, help="Of --random: the same seed, the same points.", rich_help_panel=FOLDER)
    ] = 0,
    format: Annotated[
        str, typer.Option(help="png, jpg or webp.", metavar="NAME", rich_help_panel=FOLDER)
    ] = "png",
    resume: Annotated[
        bool, typer.Option("--resume", help="Keep what is there, make the rest.", rich_help_panel=FOLDER)
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace what is there.", rich_help_panel=FOLDER)
    ] = False,
    provenance: Annotated[
        bool,
        typer.Option(
            help="Mark outputs as synthetic. Only a folder's may go unmarked; its manifest then says so.",
            rich_help_panel=FOLDER,
        ),
    ] = True,
    quality: opt.QualityOption = 92,
    model: opt.ModelOption = "default",
    device: opt.DeviceOption = opt.Device.CPU,
    threads: opt.ThreadsOption = None,
    as_json: opt.JsonOption = False,
    debug: opt.DebugOption = False,
) -> None:
    """Show an expression on a face: an image, a video along a path, or a labelled data set from a folder.

    Labels are written beside every output. Every image and video is marked as synthetic.
    """
    with running(as_json=as_json, debug=debug) as report:
        from fastface.affect import AffectPath
        from fastface.errors import BadAffect
        from fastface.head_pose import HeadPose
        from fastface.provenance import require_marking

        dataset = source.is_dir()
        require_marking(provenance, dataset=dataset)
        affects = opt.asked_affects(expression or [], intensity or [], au or [], va, pain)
        pose = HeadPose(yaw, pitch, roll)
        kinds = sum((bool(expression), bool(au), va is not None, pain is not None, path is not None))
        if kinds + bool(random) == 0:
            raise BadAffect("nothing to show: give --expression, --au, --va, --pain or --path")
        if path is not None and (kinds > 1 or random or intensity):
            raise BadAffect("--path goes alone: its file says what to show and how strongly")
        steps = None if path is None else AffectPath.from_csv(path, fps)
        setup = Setup(model, device, threads, quality, provenance, pose)
        if dataset:
            names = [affect.slug for affect in affects]
            if len(set(names)) < len(names):
                raise BadAffect(f"two outputs would be named {max(names, key=names.count)}")
            from fastface.cli import batch

            job = batch.Job(
                source=source,
                output=output,
                affects=tuple(affects),
                path=steps,
                path_name="" if path is None else path.stem,
                random=random,
                seed=seed,
                suffix=batch.checked_format(format, video=steps is not None),
                model=model,
                device=device.value,
                quality=quality,
                marked=provenance,
                pose=pose,
            )
            _folder(report, job, threads, resume=resume, overwrite=overwrite)
        elif steps is not None:
            _video(report, setup, source, output, steps, path_name=Path(path or "").stem, overwrite=overwrite)
        else:
            if random or len(affects) != 1:
                raise BadAffect(f"one photo, one output: wanted one affect, got {random or len(affects)}")
            _image(report, setup, source, output, affects[0], overwrite=overwrite)


class Setup:
    """The options that make an engine and an output."""

    def __init__(
        self,
        model: str,
        device: opt.Device,
        threads: int | None,
        quality: int,
        marked: bool,
        pose: HeadPose,
    ) -> None:
        self.model, self.device, self.threads = model, device, threads
        self.quality, self.marked, self.pose = quality, marked, pose


def _image(
    report: Report, setup: Setup, source: Path, output: Path, affect: Affect, *, overwrite: bool
) -> None:
    import numpy as np

    from fastface.cli import outputs
    from fastface.errors import BadArgument
    from fastface.video import FORMATS

    outputs.check_single(output, source, overwrite=overwrite)
    if output.suffix.casefold() in FORMATS:
        raise BadArgument(f"{output}: a video needs --path")
    engine = opt.open_engine(setup.model, setup.device, setup.threads)
    face = opt.open_face(engine, source)
    record = outputs.write_output(
        output,
        np.asarray(engine.render(face, affect, pose=setup.pose)),
        engine.labels(face, affect, pose=setup.pose),
        affect,
        source.name,
        quality=setup.quality,
        marked=setup.marked,
    )
    labels = outputs.sidecar(output)
    report.say(f"{output}  {_described(record)}  labels: {labels.name}")
    report.result({"image": str(output), "labels": str(labels), "record": record})


def _described(record: dict[str, Any]) -> str:
    return (
        f"{record['expression']} {record['intensity']:.2f}, "
        f"valence {record['valence']:+.2f}, arousal {record['arousal']:+.2f}"
    )


def _video(
    report: Report,
    setup: Setup,
    source: Path,
    output: Path,
    steps: AffectPath,
    *,
    path_name: str,
    overwrite: bool,
) -> None:
    import time

    from fastface.cli import outputs
    from fastface.cli.videos import write_video
    from fastface.errors import BadArgument
    from fastface.labels import table_suffix
    from fastface.video import FORMATS

    outputs.check_single(output, source, overwrite=overwrite)
    if output.suffix.casefold() not in FORMATS:
        raise BadArgument(f"{output}: a path gives a video, whose name ends in {' or '.join(FORMATS)}")
    engine = opt.open_engine(setup.model, setup.device, setup.threads)
    face = opt.open_face(engine, source)
    start = time.perf_counter()
    with report.progress("frames") as progress:
        bar = progress.add_task(output.name, total=len(steps))
        write_video(
            output,
            engine,
            face,
            steps,
            photo=source.name,
            path_name=path_name,
            quality=setup.quality,
            marked=setup.marked,
            advance=lambda: progress.advance(bar),
            pose=setup.pose,
        )
    rate = len(steps) / (time.perf_counter() - start)
    labels = outputs.sidecar(output, table_suffix())
    report.say(
        f"{output}  {len(steps)} frames at {steps.fps:g} fps ({rate:.0f} frames/s)  labels: {labels.name}"
    )
    report.result(
        {
            "video": str(output),
            "labels": str(labels),
            "frames": len(steps),
            "fps": steps.fps,
            "frames_per_s": rate,
        }
    )


def _folder(report: Report, job: Job, threads: int | None, *, resume: bool, overwrite: bool) -> None:
    from fastface.cli import batch

    done = batch.run(job, report, threads, resume=resume, overwrite=overwrite)
    kept = f", {done.kept} were there" if done.kept else ""
    failed = f", {len(done.failures)} photos failed" if done.failures else ""
    report.say(
        f"{job.output}  {done.written} {'videos' if job.path else 'images'} written{kept}{failed} "
        f"({done.written / max(done.seconds, 1e-9):.1f}/s)  manifest: {done.manifest.name}"
    )
    report.result(
        {
            "output": str(job.output),
            "written": done.written,
            "kept": done.kept,
            "failed": [{"photo": photo, "error": error} for photo, error in done.failures],
            "manifest": str(done.manifest),
            "seconds": round(done.seconds, 3),
        }
    )
    if done.failures:
        raise typer.Exit(1)
