"""``fastface synth``: a photo, a kept fit or a folder of either in; labelled expressions out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fastface.cli import asked
from fastface.cli import options as opt
from fastface.cli.report import Report, running
from fastface.errors import BadArgument

if TYPE_CHECKING:
    from fastface.affect import Affect, AffectPath
    from fastface.cli.batch import Job
    from fastface.engine import Engine
    from fastface.head_pose import HeadPose


def synth(
    source: Annotated[
        Path, typer.Argument(help="A photo, a fit (.npz), or a folder of them.", show_default=False)
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="An image, a video, or a folder.", show_default=False)
    ],
    expression: opt.ExpressionOption = None,
    intensity: opt.IntensityOption = None,
    steps: opt.StepsOption = None,
    au: opt.ActionUnitOption = None,
    va: opt.VaOption = None,
    variants: Annotated[
        int,
        typer.Option(
            min=0,
            max=10_000,
            metavar="N",
            help="Of each point of valence and arousal N faces that people show there, not their mean.",
            rich_help_panel=opt.SHOW,
        ),
    ] = 0,
    random: Annotated[
        int,
        typer.Option(
            min=0,
            max=10_000,
            metavar="N",
            help="For each photo, N random points of valence and arousal.",
            rich_help_panel=opt.SHOW,
        ),
    ] = 0,
    seed: Annotated[
        int,
        typer.Option(
            min=0,
            max=1 << 31,
            help="Of --random, and the first of --variants: the same seed, the same faces.",
            rich_help_panel=opt.SHOW,
        ),
    ] = 0,
    pain: opt.PainOption = None,
    yaw: opt.YawOption = None,
    pitch: Annotated[float, typer.Option(metavar="DEG", help="And up.", rich_help_panel=opt.SHOW)] = 0.0,
    roll: Annotated[
        float, typer.Option(metavar="DEG", help="And to its left shoulder.", rich_help_panel=opt.SHOW)
    ] = 0.0,
    path: Annotated[
        Path | None,
        typer.Option(
            metavar="CSV",
            help="Key frames of a video: time_s and valence,arousal, or AU columns, or expression,intensity, "
            "or a column an expression.",
            show_default=False,
            rich_help_panel=opt.SHOW,
        ),
    ] = None,
    fps: opt.FpsOption = 30.0,
    format: opt.FormatOption = "png",
    sheet: opt.SheetOption = None,
    resume: opt.ResumeOption = False,
    overwrite: opt.OverwriteOption = False,
    provenance: opt.MarkedOption = True,
    quality: opt.QualityOption = 92,
    model: opt.ModelOption = "default",
    affect_model: opt.AffectModelOption = None,
    device: opt.DeviceOption = opt.Device.CPU,
    threads: opt.ThreadsOption = None,
    as_json: opt.JsonOption = False,
    debug: opt.DebugOption = False,
) -> None:
    """Show an expression on a face: an image, a video along a path, or a labelled set in a folder.

    Labels are written beside every output. Every image and video is marked as synthetic.
    """
    with running(as_json=as_json, debug=debug) as report:
        from fastface.affect import AffectPath
        from fastface.errors import BadAffect
        from fastface.provenance import require_marking

        bases = list(asked.affects(expression, au, va, pain).values())
        poses = asked.views(yaw, pitch, roll)
        if path is None and not (bases or random):
            raise BadAffect("nothing to show: give --expression, --au, --va, --pain, --random or --path")
        if path is not None and (bases or random or variants or intensity or steps):
            raise BadAffect("--path goes alone: its file says what to show and how strongly")
        if variants and (len(bases) > (va is not None) or not (bases or random)):
            raise BadAffect("--variants are of valence and arousal: give --va or --random alone")
        affects = asked.at_levels(bases, asked.levels(intensity, steps))
        numbers = tuple(range(seed, seed + variants))
        count = (1 if path is not None else len(affects) * max(variants, 1)) * len(poses)
        if path is not None and sheet is not None:
            raise BadArgument("--sheet is of images; --path makes videos")
        dataset = _goes_into_a_folder(source, output, count, random)
        require_marking(provenance, dataset=dataset)
        course = None if path is None else AffectPath.from_csv(path, fps)
        if dataset:
            from fastface.cli import batch

            job = batch.Job(
                source=source,
                output=output,
                affects=tuple(affects),
                path=course,
                path_name="" if path is None else path.stem,
                random=random,
                seed=seed,
                suffix=batch.checked_format(format, video=course is not None),
                model=model,
                device=device.value,
                quality=quality,
                marked=provenance,
                affect_model=affect_model,
                variants=numbers,
                poses=tuple(poses),
                sheet=sheet,
            )
            _folder(report, job, threads, resume=resume, overwrite=overwrite)
            return
        if resume or sheet is not None:
            raise BadArgument(f"{output}: {'--resume' if resume else '--sheet'} is for folders")
        setup = Setup(model, device, threads, affect_model, quality, provenance, poses[0])
        if course is not None:
            _video(
                report, setup, source, output, course, path_name=Path(path or "").stem, overwrite=overwrite
            )
        else:
            (affect,) = asked.varied(affects[0], numbers)
            _image(report, setup, source, output, affect, overwrite=overwrite)


def _goes_into_a_folder(source: Path, output: Path, count: int, random: int) -> bool:
    """Whether the output is a folder of so many outputs a photo. Raises ``BadArgument`` where they do not fit
    into the one file that is named."""
    from fastface.video import FORMATS

    if output.is_dir():
        return True
    file = output.suffix.casefold() in (*opt.IMAGE_SUFFIXES, *FORMATS)
    if source.is_dir():
        if file:
            raise BadArgument(
                f"{output}: {source} is a folder of photos; name a folder for what is made of them"
            )
        return True
    if not random and count == 1:
        return False
    if file:
        asked_for = f"{count} outputs" if count else f"{random} random points"
        raise BadArgument(f"{output}: one photo, one output, but {asked_for} are asked for; name a folder")
    return True


@dataclass(frozen=True)
class Setup:
    """The options that make an engine and an output."""

    model: str
    device: opt.Device
    threads: int | None
    affect_model: Path | None
    quality: int
    marked: bool
    pose: HeadPose

    def engine(self) -> Engine:
        """The engine that they ask for."""
        return opt.open_engine(self.model, self.device, self.threads, self.affect_model)


def _image(
    report: Report, setup: Setup, source: Path, output: Path, affect: Affect, *, overwrite: bool
) -> None:
    import numpy as np

    from fastface.cli import outputs
    from fastface.video import FORMATS

    outputs.check_single(output, source, overwrite=overwrite)
    if output.suffix.casefold() in FORMATS:
        raise BadArgument(
            f"{output}: a video needs --path; `fastface stimuli --course` makes onset, apex, offset"
        )
    engine = setup.engine()
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
    from fastface.labels import table_suffix
    from fastface.video import FORMATS

    outputs.check_single(output, source, overwrite=overwrite)
    if output.suffix.casefold() not in FORMATS:
        raise BadArgument(f"{output}: a path gives a video, whose name ends in {' or '.join(FORMATS)}")
    engine = setup.engine()
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
