"""Searches expression prototypes: which coefficients read as the expression and still are the person.

    python -m benchmarks.tune fear --model ict --ids 004,019,042,086,107,134 --budget 200

Coordinate search from the shipped prototype (or `--start '{"browInnerUp": 1}'`), scored by both classifiers,
the identity distance and a prior for few and human coefficients. It prints tables; a person looks at the
pictures and decides. Probabilities can be gamed (a black hole reads as surprise), so what it finds is a
proposal, never a proof; the last table is over people the search never saw.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from benchmarks.judges import CLASSIFIERS, Judges
from benchmarks.metrics import displacement_percent, lip_corner_travel
from benchmarks.portraits import LONDON, RenderingEngine, find_portraits
from benchmarks.prototype_search import (
    HEADINGS,
    IDENTITY_LIMIT,
    IDENTITY_LIMIT_OTHERS,
    Prototype,
    Verdict,
    coefficient_vector,
    prior,
    score,
    search,
)
from benchmarks.quality_figures import JUDGED
from fastface.affect_tables import PROTOTYPES
from fastface.engine import Engine


class Panel:
    """Some fitted people and the judges: gives a prototype its verdict."""

    def __init__(
        self, engine: RenderingEngine, judges: Judges, faces: Sequence[Any], names: Sequence[str]
    ) -> None:
        self._engine, self._judges, self._faces, self._names = engine, judges, faces, names
        self._descriptors = [judges.descriptor(face.photo, face.landmarks_px) for face in faces]
        self.evaluations = 0

    def verdict(self, prototype: Prototype, expression: str) -> Verdict:
        """Render everybody and judge; the crops follow the labels' landmarks, which costs no detection."""
        self.evaluations += 1
        vector = coefficient_vector(prototype, self._names)
        probabilities: dict[str, list[float]] = {judge: [] for judge in CLASSIFIERS}
        identity, travels = [], []
        for face, descriptor in zip(self._faces, self._descriptors, strict=True):
            frame = self._engine.render(face, coefficients=vector)
            points = np.asarray(self._engine.labels(face, None, vector).landmarks478_px, np.float64)
            judged = self._judges.expression(frame, points)
            for judge in CLASSIFIERS:
                probabilities[judge].append(judged[judge][expression])
            identity.append(float(np.linalg.norm(self._judges.descriptor(frame, points) - descriptor)))
            travels.append(lip_corner_travel(displacement_percent(np.asarray(face.landmarks_px), points)))
        limit = IDENTITY_LIMIT.get(expression, IDENTITY_LIMIT_OTHERS)
        total = score(probabilities, identity, limit) - prior(prototype)
        return Verdict(total, probabilities, identity, float(np.mean(travels)))


def main(
    expression: Annotated[str, typer.Argument(help="one of " + ", ".join(JUDGED))],
    model: Annotated[str, typer.Option(help="head model")] = "default",
    family: Annotated[str, typer.Option(help="prototypes to start from")] = "",
    photos: Annotated[Path, typer.Option(help="folder of portraits")] = LONDON,
    ids: Annotated[str, typer.Option(help="people to search on")] = "004,019,042,086,107,134",
    check: Annotated[int, typer.Option(help="how many others to check on at the end")] = 8,
    start: Annotated[str, typer.Option(help="JSON of coefficients to start from")] = "",
    budget: Annotated[int, typer.Option(help="verdicts to spend")] = 250,
    seed: Annotated[int, typer.Option(help="of the order of moves")] = 0,
) -> None:
    """Search, print every accepted move, then start against best on people the search never saw."""
    if expression not in JUDGED:
        raise typer.BadParameter(f"{expression}; judged are {', '.join(JUDGED)}")
    engine, judges, console = Engine(model), Judges(), Console()
    names = engine.model.expression_names
    searched = [name for name in ids.split(",") if name]
    others = [person for person in find_portraits(photos) if person.id not in searched][:check]

    def panel(people: Sequence[Any]) -> Panel:
        return Panel(engine, judges, [engine.fit(person.neutral) for person in people], names)

    shipped = PROTOTYPES.get(family or model, PROTOTYPES["default"])[expression]
    first: Prototype = json.loads(start) if start else dict(shipped)
    table = Table("accepted", *HEADINGS, title=f"{expression}, {model}, searched on {len(searched)} people")

    def accepted(prototype: Prototype, verdict: Verdict) -> None:
        table.add_row(str(table.row_count), *verdict.row())

    tuning = panel(find_portraits(photos, searched))
    began = time.perf_counter()
    best, _ = search(
        lambda prototype: tuning.verdict(prototype, expression),
        first,
        budget,
        np.random.default_rng(seed),
        accepted,
    )
    console.print(table)
    console.print(f"{tuning.evaluations} verdicts in {time.perf_counter() - began:.0f} s")
    weights = Table("coefficient", "start", "best", title="prototype")
    for name in sorted({*first, *best}, key=lambda key: -best.get(key, 0.0)):
        weights.add_row(name, f"{first.get(name, 0.0):.2f}", f"{best.get(name, 0.0):.2f}")
    console.print(weights)
    console.print_json(json.dumps(best))
    if others:
        unseen = panel(others)
        final = Table("prototype", *HEADINGS, title=f"on {len(others)} people the search never saw")
        final.add_row("start", *unseen.verdict(first, expression).row())
        final.add_row("best", *unseen.verdict(best, expression).row())
        console.print(final)


if __name__ == "__main__":
    typer.run(main)
