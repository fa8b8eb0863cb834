"""``fastface export``: what runs without this program, as files that other runtimes open."""

from __future__ import annotations

import typer

exporting = typer.Typer(help="Write ONNX graphs: the renderer, generators.", no_args_is_help=True)
