"""The commands, by name."""

from __future__ import annotations

from typing import Annotated

import typer

from fastface.cli import setup
from fastface.cli.affect import affects
from fastface.cli.directions import directions
from fastface.cli.exporting import exporting
from fastface.cli.generate import generate, translate
from fastface.cli.generators import convert, verify
from fastface.cli.grid import grid
from fastface.cli.latents import edit, interpolate, mix
from fastface.cli.measure import bench, demo
from fastface.cli.numbers import Numbers
from fastface.cli.project import project
from fastface.cli.sheet import fit, sheet
from fastface.cli.stimuli import stimuli
from fastface.cli.synth import synth
from fastface.cli.transfer import transfer

app = typer.Typer(
    name="fastface",
    help="Labelled facial expressions from one neutral photo.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(asked: bool) -> None:
    if asked:
        from fastface.version import package_version

        print(f"fastface {package_version()}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Labelled facial expressions from one neutral photo."""


app.command(cls=Numbers)(synth)
app.command(cls=Numbers)(sheet)
app.command(cls=Numbers)(stimuli)
app.command()(fit)
app.add_typer(setup.models, name="model")
app.add_typer(exporting, name="export")
app.add_typer(affects, name="affect")
app.command()(convert)
app.command()(verify)
app.command()(generate)
app.command()(translate)
app.command(cls=Numbers)(transfer)
app.command()(project)
app.add_typer(directions, name="directions")
app.command()(edit)
app.command(cls=Numbers)(interpolate)
app.command()(mix)
app.command(cls=Numbers)(grid)
app.command()(setup.doctor)
app.command()(bench)
app.command(hidden=True)(demo)
