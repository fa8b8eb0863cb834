"""How good the rendered expressions are, in figures, over a folder of neutral portraits.

    python -m benchmarks.quality --model default --json .cache/quality.json

Judged by networks outside fastface (`benchmarks.judges`) and, where there are photos of the same people
smiling, by their real smiles. Everybody asked for is counted: a person who cannot be fitted, or whose frame
shows no detectable face, is a miss in the shares and is named.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import track

from benchmarks.judges import Judges
from benchmarks.portraits import LONDON, find_portraits
from benchmarks.quality_figures import JUDGED, Bench, PersonFigures, measure_person
from benchmarks.quality_report import report, tables
from fastface.atomic import write_whole
from fastface.engine import Engine
from fastface.landmarks import LandmarkDetector


def main(
    model: Annotated[list[str] | None, typer.Option(help="head model; repeat for several")] = None,
    photos: Annotated[Path, typer.Option(help="folder with neutral/ and smiling/, or of photos")] = LONDON,
    ids: Annotated[str, typer.Option(help="people by file name, comma-separated")] = "",
    expressions: Annotated[str, typer.Option(help="comma-separated")] = ",".join(JUDGED),
    limit: Annotated[int | None, typer.Option(help="only the first so many people")] = None,
    json_path: Annotated[Path | None, typer.Option("--json", help="write all figures here")] = None,
) -> None:
    """Measure and print; exit code 1 when somebody could not be measured at all."""
    chosen = [name for name in expressions.split(",") if name]
    if unknown := sorted(set(chosen) - set(JUDGED)):
        raise typer.BadParameter(f"{', '.join(unknown)}; judged are {', '.join(JUDGED)}")
    portraits = find_portraits(photos, [name for name in ids.split(",") if name], limit)
    console = Console()
    everything = {}
    failed = False
    for name in model or ["default"]:
        bench = Bench(Engine(name), LandmarkDetector(), Judges())
        people = [
            measure_person(bench, portrait, chosen)
            for portrait in track(portraits, description=name, console=console, transient=True)
        ]
        key = "ict" if "ict" in Path(name).stem.lower() else "default"
        for table in tables(people, key, chosen):
            console.print(table)
        failed |= print_losses(console, people)
        everything[name] = {
            "sections": {k: [asdict(f) for f in v] for k, v in report(people, key, chosen).items()},
            "people": [asdict(person) for person in people],
        }
    if json_path:
        json_path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(json_path, json.dumps(without_nan(everything), indent=1, allow_nan=False).encode())
        console.print(f"wrote {json_path}")
    if failed:
        raise typer.Exit(1)


def print_losses(console: Console, people: list[PersonFigures]) -> bool:
    """Name everybody who is missing from a figure; whether anybody is missing altogether."""
    failures = [person for person in people if person.failure]
    console.print(f"{len(people) - len(failures)} of {len(people)} people fitted")
    for person in people:
        if person.failure:
            console.print(f"[red]{person.id}: {person.failure}")
        if person.undetected:
            console.print(f"[red]{person.id}: no face detected in {', '.join(person.undetected)}")
    return bool(failures)


def without_nan(value: Any) -> Any:
    """The same structure with NaN as None, which JSON knows."""
    if isinstance(value, dict):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value


if __name__ == "__main__":
    typer.run(main)
