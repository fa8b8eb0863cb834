"""``fastface model register``: raw scans on to one mesh."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fastface.cli import options as opt
from fastface.cli.report import Report, one_line, running

if TYPE_CHECKING:
    from fastface.workshop.registration_folder import Done, Outcome, Settings, Task

ScansArgument = Annotated[Path, typer.Argument(help="A folder of .obj, .ply or .npz.", show_default=False)]
OutputOption = Annotated[Path, typer.Option("--output", "-o", help="A folder.", show_default=False)]
TemplateOption = Annotated[
    str,
    typer.Option(
        "--template",
        "-t",
        help="The mesh: default, ict, a head model .npz, or a mesh file.",
        metavar="NAME|FILE",
    ),
]
LandmarksOption = Annotated[
    Path | None,
    typer.Option(
        "--landmarks",
        "-l",
        help="The scans' landmarks: a folder of .csv, .json, .pp, or one file.",
        show_default="read off pictures",
    ),
]
TemplateLandmarksOption = Annotated[
    Path | None,
    typer.Option(help="The template's, where they are not its own: .csv, .json or .pp.", show_default=False),
]
UnitOption = Annotated[
    float | None,
    typer.Option(min=1e-6, max=1e6, help="Millimetres in the scans' unit.", show_default="told by size"),
]
JobsOption = Annotated[
    int | None,
    typer.Option(
        "--jobs", "-j", "--threads", min=1, max=1024, help="Processor cores to use; all by default."
    ),
]
KeepOption = Annotated[bool, typer.Option("--keep-outliers", help="List outliers, but leave them in.")]
OverwriteOption = Annotated[
    bool, typer.Option("--overwrite", help="Begin anew where the folder was made before.")
]
PicturesOption = Annotated[
    bool, typer.Option("--pictures", help="Draw each scan, what became of it and what is left between them.")
]


def add_register(app: typer.Typer) -> None:
    """``fastface model register``."""

    @app.command("register")
    def register(
        scans: ScansArgument,
        output: OutputOption,
        template: TemplateOption = "default",
        landmarks: LandmarksOption = None,
        template_landmarks: TemplateLandmarksOption = None,
        unit: UnitOption = None,
        jobs: JobsOption = None,
        keep_outliers: KeepOption = False,
        pictures: PicturesOption = False,
        overwrite: OverwriteOption = False,
        as_json: opt.JsonOption = False,
        debug: opt.DebugOption = False,
    ) -> None:
        """Bring raw scans on to one mesh: landmarks, a start on a cylinder, non-rigid closest points.

        Run again, it makes what is missing. report.json lists every scan with its residuals; outliers are put
        aside into outliers/. Exit code 1 if a scan failed.
        """
        with running(as_json=as_json, debug=debug) as report:
            from fastface.cli.batch import available_cores
            from fastface.workshop.registration_folder import Settings

            settings = Settings(template, template_landmarks, landmarks, unit)
            how = {"overwrite": overwrite, "keep_outliers": keep_outliers, "pictures": pictures}
            done = _run(report, scans, output, settings, jobs or available_cores(), how)
            _tell(report, done, output)
            if done.of("failed"):
                raise typer.Exit(1)


def _run(
    report: Report,
    scans: Path,
    output: Path,
    settings: Settings,
    processes: int,
    how: dict[str, bool],
) -> Done:
    from fastface.workshop.registration_folder import register_folder

    with report.progress("scans") as progress:
        bar = progress.add_task("registering", total=None)

        def begin(total: int, kept: int) -> None:
            progress.update(bar, total=total, completed=kept)

        def advance(task: Task, outcome: Outcome) -> None:
            if outcome.error:
                text = f"fastface: {task.scan.name}: {one_line(outcome.error)}"
                progress.console.print(text, markup=False, highlight=False, soft_wrap=True)
            progress.advance(bar)

        return register_folder(
            scans,
            output,
            settings,
            processes=processes,
            begin=begin,
            advance=advance,
            **how,
        )


def _tell(report: Report, done: Done, output: Path) -> None:
    registered, outliers, failed = (done.of(status) for status in ("registered", "outlier", "failed"))
    width = max(len(str(entry["name"])) for entry in done.entries)
    for entry in [*registered, *outliers]:
        numbers = (
            f"{entry['covered']:4.0%} covered  {_mm(entry, 'mean_mm')} mean  "
            f"{_mm(entry, 'median_mm')} median  "
            f"{_mm(entry, 'p95_mm')} p95  {_mm(entry, 'landmark_mm')} landmarks (mm)"
        )
        report.say(f"{one_line(entry['name']):{width}}  {numbers}")
    for entry in outliers:
        report.say(f"outlier: {one_line(entry['name'])}: {'; '.join(entry['reasons'])}")
    for entry in failed:
        report.say(f"failed: {one_line(entry['name'])}: {one_line(entry['error'])}")
    report.say(
        f"{output}: {len(registered)} registered, {len(outliers)} outliers, {len(failed)} failed; "
        f"{done.kept} were there before; {done.report.name} says more"
    )
    report.result(
        {
            "output": str(output),
            "report": str(done.report),
            "registered": len(registered),
            "outliers": [_said(entry, "reasons") for entry in outliers],
            "failed": [_said(entry, "error") for entry in failed],
            "kept": done.kept,
            "scans": done.entries,
        }
    )


def _mm(entry: dict[str, Any], key: str) -> str:
    return " none" if entry[key] is None else f"{entry[key]:5.2f}"


def _said(entry: dict[str, Any], key: str) -> dict[str, Any]:
    return {"scan": entry["scan"], key: entry[key]}
