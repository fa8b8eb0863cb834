"""``fastface export``: what runs without this program, as files that other runtimes open."""

from __future__ import annotations

import typer

from fastface.cli import generators
from fastface.cli.engines import tensorrt
from fastface.cli.export_renderer import export_renderer

exporting = typer.Typer(help="Write ONNX graphs: the renderer, generators.", no_args_is_help=True)
exporting.command("renderer")(export_renderer)
exporting.command("tensorrt")(tensorrt)
exporting.command("stylegan2")(generators.export_stylegan2)
exporting.command("stylegan3")(generators.export_stylegan3)
exporting.command("starganv2")(generators.export_starganv2)
exporting.command("stargan")(generators.export_stargan)
exporting.command("ganimation")(generators.export_ganimation)
