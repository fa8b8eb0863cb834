"""``fastface bench`` and the hidden ``fastface demo``: what this machine does, in figures and in pictures."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from fastface.cli import options as opt
from fastface.cli.report import running


def bench(
    photo: Annotated[Path | None, typer.Argument(help="A photo.", show_default="the one that ships")] = None,
    seconds: Annotated[float, typer.Option(min=0.05, max=60, help="How long each figure is measured.")] = 1.0,
    model: opt.ModelOption = "default",
    device: opt.DeviceOption = opt.Device.CPU,
    threads: opt.ThreadsOption = None,
    gpu: Annotated[
        bool,
        typer.Option(
            "--gpu",
            help="The whole check of a GPU from a source tree: build, tests, compute-sanitizer, figures.",
        ),
    ] = False,
    as_json: opt.JsonOption = False,
    debug: opt.DebugOption = False,
) -> None:
    """This machine's figures, against the line a user would assemble from what pip installs."""
    with running(as_json=as_json, debug=debug) as report:
        if gpu:
            _check_gpu(as_json=as_json)
            return
        from fastface.bench import measure
        from fastface.cli.demo import DEMO_PHOTO

        engine = opt.open_engine(model, device, threads)
        figures = measure(engine, photo or DEMO_PHOTO, seconds)
        width = max(len(figure.name) for figure in figures)
        for figure in figures:
            report.say(f"{figure.name:{width}}  {figure.value:10.3f} {figure.unit:9} {figure.note}".rstrip())
        report.result({"figures": [figure.record() for figure in figures]})


def _check_gpu(*, as_json: bool) -> None:
    """benchmarks/gpu.py, which a source tree has and a wheel has not."""
    from fastface.errors import BadArgument, ProviderUnavailable
    from fastface.runtime.cuda_driver import devices

    if not devices():
        raise ProviderUnavailable(
            "bench --gpu wants an NVIDIA GPU and its driver, found none; see nvidia-smi"
        )
    places = (Path.cwd(), Path(__file__).resolve().parents[2])
    root = next((place for place in places if (place / "benchmarks" / "gpu.py").is_file()), None)
    if root is None:
        raise BadArgument(
            f"bench --gpu builds and tests the sources: run it in their folder, not in {places[0]}"
        )
    command = [sys.executable, "-m", "benchmarks.gpu", *(["--json"] if as_json else [])]
    done = subprocess.run(command, cwd=root, check=False)
    if done.returncode != 0:
        raise typer.Exit(done.returncode)


def demo(
    photo: Annotated[Path | None, typer.Argument(help="A photo.", show_default="the one that ships")] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="A folder.")] = Path("demo"),
    model: opt.ModelOption = "default",
    threads: opt.ThreadsOption = None,
    as_json: opt.JsonOption = False,
    debug: opt.DebugOption = False,
) -> None:
    """A real photo in; a contact sheet, an image, a video and labels out."""
    with running(as_json=as_json, debug=debug) as report:
        from fastface.cli.demo import DEMO_PHOTO, make

        engine = opt.open_engine(model, opt.Device.CPU, threads)
        made = make(engine, photo or DEMO_PHOTO, output)
        for name, path in made.files.items():
            report.say(f"{name:7} {path}")
        report.say(
            f"{made.frames_per_s:.0f} frames/s rendered, encoded and labelled "
            f"at {made.width_px}x{made.height_px}"
        )
        files = {name: str(path) for name, path in made.files.items()}
        report.result({"files": files, "frames": made.frames, "frames_per_s": made.frames_per_s})
