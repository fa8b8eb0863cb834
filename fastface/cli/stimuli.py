"""``fastface stimuli``: a set of stimuli of one face, as it would be archived."""

from __future__ import annotations

from functools import partial
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fastface.cli import asked
from fastface.cli import options as opt
from fastface.cli.report import Report, running
from fastface.errors import BadArgument, WriteFailed

if TYPE_CHECKING:
    from fastface.affect import Affect
    from fastface.engine import Engine, FittedFace
    from fastface.head_pose import HeadPose
    from fastface.stimuli import Course


def stimuli(
    source: opt.FaceArgument,
    output: Annotated[Path, typer.Option("--output", "-o", help="A folder to make.", show_default=False)],
    expression: opt.ExpressionOption = None,
    intensity: opt.IntensityOption = None,
    steps: opt.StepsOption = None,
    au: opt.ActionUnitOption = None,
    va: opt.VaOption = None,
    pain: opt.PainOption = None,
    yaw: opt.YawOption = None,
    course: Annotated[
        tuple[float, float, float] | None,
        typer.Option(metavar="ON APEX OFF", help="Videos: seconds of each phase.", rich_help_panel=opt.SHOW),
    ] = None,
    fps: opt.FpsOption = 30.0,
    heatmaps: Annotated[
        bool,
        typer.Option(
            "--heatmaps", help="Beside each image, how far each pixel moved.", rich_help_panel=opt.OUT
        ),
    ] = False,
    sheet: opt.SheetOption = None,
    quality: opt.QualityOption = 92,
    model: opt.ModelOption = "default",
    affect_model: opt.AffectModelOption = None,
    device: opt.DeviceOption = opt.Device.CPU,
    threads: opt.ThreadsOption = None,
    as_json: opt.JsonOption = False,
    debug: opt.DebugOption = False,
) -> None:
    """Make a set of stimuli: intensities, views, and courses over time, with labels and a codebook.

    The folder holds the images (PNG) or videos, labels beside each, codebook.csv, and columns.csv, which says
    what its columns mean.
    """
    with running(as_json=as_json, debug=debug) as report:
        from fastface.cli.tiles import check_sheet
        from fastface.stimuli import Course

        affects = asked.affects(expression, au, va, pain)
        levels, poses = asked.levels(intensity, steps), asked.views(yaw)
        if not affects:
            raise BadArgument("nothing to show: give --expression, --au, --va or --pain")
        if course is not None and (steps or intensity or heatmaps or sheet is not None):
            raise BadArgument(
                "--course makes videos: --steps, --intensity, --heatmaps and --sheet are of images"
            )
        if heatmaps and not any(map(_has_heat_map, poses)):
            raise BadArgument("--heatmaps are of the frontal view: give --yaw a 0, too")
        if sheet is not None:
            moved = sum(_has_heat_map(pose) for pose in poses) if heatmaps else 0
            check_sheet(sheet, len(affects) * len(levels) * (len(poses) + moved), output, source)
        phases = None if course is None else Course(*course)
        if output.exists() and (not output.is_dir() or any(output.iterdir())):
            raise BadArgument(f"{output}: is there already and not empty")
        engine = opt.open_engine(model, device, threads, affect_model)
        face = opt.open_face(engine, source)
        try:
            output.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise WriteFailed(f"{output}: cannot be made ({error.strerror})") from None
        setting = _Set(engine, face, source.name, output, quality, heatmaps)
        if phases is None:
            records = setting.images(report, affects, poses, levels)
        else:
            records = setting.videos(report, affects, poses, phases, fps)
        setting.finish(records)
        if sheet is not None:
            setting.write_sheet(sheet, records, len(affects))
        report.say(f"{output}  {len(records)} stimuli  codebook: codebook.csv")
        report.result({"output": str(output), "stimuli": len(records), "codebook": "codebook.csv"})


def _has_heat_map(pose: HeadPose) -> bool:
    """A pixel's way is told from the photo, so only where the head is as it is there."""
    return not any(pose.row())


class _Set:
    """One set: where it goes and whose face it is."""

    def __init__(
        self, engine: Engine, face: FittedFace, photo: str, output: Path, quality: int, heatmaps: bool
    ) -> None:
        self.engine, self.face, self.photo = engine, face, photo
        self.output, self.quality, self.heatmaps = output, quality, heatmaps

    def images(
        self, report: Report, affects: dict[str, Affect], poses: list[HeadPose], levels: list[float]
    ) -> list[dict[str, Any]]:
        digits = next(n for n in range(2, 5) if len({f"{level:.{n}f}" for level in levels}) == len(levels))
        records = []
        with report.progress("images") as progress:
            bar = progress.add_task("stimuli", total=len(affects) * len(poses) * len(levels))
            for (label, affect), level, pose in product(affects.items(), levels, poses):
                name = f"{label}-{level:.{digits}f}{asked.view_name(pose, poses)}"
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
        if self.heatmaps and _has_heat_map(pose):
            moved = heat_map(image, self.engine.displacement(self.face, shown))
            xmp = xmp_packet(outputs.parameters_of(record, shown.slug), outputs.software(labels))
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
                target = self.output / f"{label}{asked.view_name(pose, poses)}.mp4"
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
        from fastface.codebook import write_codebook, write_key
        from fastface.stimuli import CODEBOOK, codebook_row

        write_codebook(self.output / "codebook.csv", map(codebook_row, records), CODEBOOK)
        write_key(self.output, {"codebook": CODEBOOK})

    def write_sheet(self, path: Path, records: list[dict[str, Any]], rows: int) -> None:
        """A row for each affect, heat-maps beside their images."""
        from fastface.cli.tiles import Tiles

        tiles = Tiles()
        for record in records:
            image = self.output / record["image"]
            heat = image.with_suffix(".heat.png")
            for shown in (image, heat) if heat.exists() else (image,):
                tiles.add(shown, record, shown.stem)
        tiles.write(path, min(len(tiles) // rows, 12), self.quality)
