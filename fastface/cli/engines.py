"""``fastface export tensorrt``: engines for NVIDIA GPUs from ONNX files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fastface.cli import options as opt
from fastface.cli.report import Report, running

if TYPE_CHECKING:
    from fastface.exports.tensorrt_engine import Built

#: For commands that write ONNX files and may go on to an engine.
TensorRtOption = Annotated[
    Path | None,
    typer.Option(
        "--tensorrt",
        metavar="out.plan",
        help="Build a TensorRT engine of it, too.",
        show_default=False,
        rich_help_panel="TensorRT",
    ),
]


def tensorrt(
    net: Annotated[
        Path, typer.Argument(help="An .onnx file, or net.onnx as given to export.", show_default=False)
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="A .plan file.", show_default=False)],
    batch: Annotated[tuple[int, int, int], typer.Option(metavar="MIN BEST MAX", help="Images at a time.")] = (
        1,
        4,
        16,
    ),
    target: Annotated[
        list[str] | None,
        typer.Option(metavar="SM89", help="tensorrt_rtx: build for this GPU. Repeatable."),
    ] = None,
    library: Annotated[
        str | None, typer.Option(metavar="NAME", help="tensorrt or tensorrt_rtx; what is installed.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Build it even if the one there fits.")] = False,
    as_json: opt.JsonOption = False,
    debug: opt.DebugOption = False,
) -> None:
    """Build TensorRT engines of a graph, or of each graph of a generator.

    An engine is for one GPU, TensorRT version and model; it is kept while they are the same.
    """
    with running(as_json=as_json, debug=debug) as report:
        how: dict[str, Any] = {"batch": batch, "targets": target or [], "library": library, "force": force}
        from fastface.exports.tensorrt_engine import build_engine

        if net.is_file():
            engines = told(report, [build_engine(net, output, **how)])
        else:
            engines = build_all(report, net, output, **how)
        report.result({"engines": engines})


def build_all(report: Report, net: Path, output: Path, **how: Any) -> list[dict[str, Any]]:
    """Engines of every graph of a generator, what became of them said and returned for ``--json``."""
    from fastface.exports.tensorrt_engine import build_generator

    return told(report, build_generator(net, output, **how))


def told(report: Report, built: list[Built]) -> list[dict[str, Any]]:
    """Say what became of engines; the same for ``--json``."""
    for engine in built:
        record = engine.record
        device = record.gpu or ", ".join(record.targets)
        done = f"built in {engine.seconds:.1f} s ({'; '.join(engine.reasons)})" if engine.reasons else "kept"
        report.say(f"{engine.plan}  {done}  {record.library} {record.library_version} for {device}")
    return [
        {
            "plan": str(engine.plan),
            "built": bool(engine.reasons),
            "reasons": engine.reasons,
            "library": engine.record.library,
            "library_version": engine.record.library_version,
            "gpu": engine.record.gpu,
            "targets": engine.record.targets,
            "seconds": round(engine.seconds, 3),
        }
        for engine in built
    ]
