"""``fastface stimuli``: a set of stimuli of one face, as it would be archived."""

from __future__ import annotations

from functools import partial
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fastface.cli import options as opt
from fastface.cli.report import Report, running

if TYPE_CHECKING:
    from fastface.affect import Affect
    from fastface.engine import Engine, FittedFace
    from fastface.head_pose import HeadPose
    from fastface.stimuli import Course

SHOW = "What to show"


def stimuli(
    source: Annotated[Path, typer.Argument(help="A photo, or a fit (.npz).", show_default=False)],
    output: Annotated[Path, typer.Option("--output", "-o", help="A folder to make.", show_default=False)],
    expression: Annotated[
        list[str] | None,
        typer.Option("--expression", "-e", metavar="NAME", help="Repeatable.", rich_help_panel=SHOW),
    ] = None,
    au: Annotated[
        list[str] | None,
        typer.Option("--au", metavar="AU12=0.8", help="Units of one more affect.", rich_help_panel=SHOW),
    ] = None,
    pain: Annotated[
        float | None, typer.Option(min=0, max=16, help="Pain of that PSPI score.", rich_help_panel=SHOW)
    ] = None,
    steps: Annotated[
        int, typer.Option(min=1, max=1001, help="Intensities from 0 to 1, or 1 alone.", rich_help_panel=SHOW)
    ] = 1,
    yaw: Annotated[str, typer.Option(metavar="DEG,…", help="Views: -30,0,30.", rich_help_panel=SHOW)] = "0",
    course: Annotated[
        tuple[float, float, float] | None,
        typer.Option(metavar="ON APEX OFF", help="Videos: seconds of each phase.", rich_help_panel=SHOW),
    ] = None,
    fps: Annotated[float, typer.Option(min=0.001, max=1000, help="Of videos.")] = 30.0,
    heatmaps: Annotated[
        bool, typer.Option("--heatmaps", help="Beside each image, how far each pixel moved.")
    ] = False,
    quality: opt.QualityOption = 92,
    model: opt.ModelOption = "default",
    device: opt.DeviceOption = opt.Device.CPU,
    threads: opt.ThreadsOption = None,
    as_json: opt.JsonOption = False,
    debug: opt.DebugOption = False,
) -> None:
    """Make a set of stimuli: intensities, views, and courses over time, with labels and a codebook.

    The folder holds the images (PNG) or videos, labels beside each, codebook.csv and what its columns mean.
    """
    with running(as_json=as_json, debug=debug) as report:
        from fastface.errors import BadArgument
        from fastface.stimuli import Course

        affects = asked(expression or [], au or [], pain)
        if not affects:
            raise BadArgument("nothing to show: give --expression, --au or --pain")
        if output.exists() and (not output.is_dir() or any(output.iterdir())):
            raise BadArgument(f"{output}: is there already and not empty")
        poses = opt.parse_yaws(yaw)
        engine = opt.open_engine(model, device, threads)
        face = opt.open_face(engine, source)
        output.mkdir(parents=True, exist_ok=True)
        setting = _Set(engine, face, source.name, output, quality, heatmaps)
        if course is None:
            records = setting.images(report, affects, poses, steps)
        else:
            records = setting.videos(report, affects, poses, Course(*course), fps)
        setting.finish(records)
        report.say(f"{output}  {len(records)} stimuli  codebook: codebook.csv")
        report.result({"output": str(output), "stimuli": len(records), "codebook": "codebook.csv"})


def asked(expressions: list[str], aus: list[str], pain: float | None) -> dict[str, Affect]:
    """The affects at full strength by the name that their files begin with."""
    from fastface.affect import Affect

    found = {name.casefold(): Affect.expression(name.casefold()) for name in expressions}
    if aus:
        units = Affect.aus(opt.parse_action_units(aus))
        found["_".join(name for name, _ in units.parts) or "neutral"] = units
    if pain is not None:
        found[f"pain{pain:g}"] = Affect.pain(pain)
    return found


class _Set:
    """One set: where it goes and whose face it is."""

    def __init__(
        self, engine: Engine, face: FittedFace, photo: str, output: Path, quality: int, heatmaps: bool
    ) -> None:
        self.engine, self.face, self.photo = engine, face, photo
        self.output, self.quality, self.heatmaps = output, quality, heatmaps

    def images(
        self, report: Report, affects: dict[str, Affect], poses: list[HeadPose], steps: int
    ) -> list[dict[str, Any]]:
        levels = [1.0] if steps == 1 else [index / (steps - 1) for index in range(steps)]
        records = []
        with report.progress("images") as progress:
            bar = progress.add_task("stimuli", total=len(affects) * len(poses) * len(levels))
            for (label, affect), level, pose in product(affects.items(), levels, poses):
                name = f"{label}-{level:.2f}{_view(pose, poses)}"
                records.append(self._image(affect.scaled(level), name, pose))
                progress.advance(bar)
        return records

    def _image(self, shown: Affect, name: str, pose: HeadPose) -> dict[str, Any]:
        import numpy as np

        from fastface.cli import outputs
        from fastface.displacement import heat_map
        from fastface.images import write_image
        from fastface.provenance import xmp_packet

        image = np.asarray(self.engine.render(self.face, shown, pose=pose))
        labels = self.engine.labels(self.face, shown, pose=pose)
        target = self.output / f"{name}.png"
        how: dict[str, Any] = {"quality": self.quality, "marked": True}
        record = outputs.write_output(target, image, labels, shown, self.photo, **how)
        if self.heatmaps and not any(pose.row()):
            moved = heat_map(image, self.engine.displacement(self.face, shown))
            xmp = xmp_packet(opt.parameters_of(record, shown.slug), outputs.software(labels))
            write_image(target.with_suffix(".heat.png"), moved, xmp=xmp)
        return record

    def videos(
        self, report: Report, affects: dict[str, Affect], poses: list[HeadPose], course: Course, fps: float
    ) -> list[dict[str, Any]]:
        from fastface.atomic import write_whole
        from fastface.cli.videos import write_video
        from fastface.stimuli import course_of, path_csv

        records = []
        with report.progress("frames") as progress:
            for (label, affect), pose in product(affects.items(), poses):
                path, phases = course_of(affect, course, fps)
                target = self.output / f"{label}{_view(pose, poses)}.mp4"
                bar = progress.add_task(target.name, total=len(path))
                record = write_video(
                    target,
                    self.engine,
                    self.face,
                    path,
                    photo=self.photo,
                    path_name=target.stem,
                    quality=self.quality,
                    marked=True,
                    advance=partial(progress.advance, bar),
                    pose=pose,
                    phases=phases,
                )
                write_whole(target.with_suffix(".csv"), path_csv(path, phases).encode())
                apex = self.engine.labels(self.face, affect, pose=pose).record()
                records.append({**apex, **{key: record[key] for key in ("image", "photo", "affect")}})
        return records

    def finish(self, records: list[dict[str, Any]]) -> None:
        from fastface.atomic import write_whole
        from fastface.stimuli import codebook_csv, codebook_key

        write_whole(self.output / "codebook.csv", codebook_csv(records).encode())
        write_whole(self.output / "codebook.txt", codebook_key().encode())


def _view(pose: HeadPose, poses: list[HeadPose]) -> str:
    return f".yaw{pose.yaw_deg:+03.0f}" if len(poses) > 1 or any(pose.row()) else ""
