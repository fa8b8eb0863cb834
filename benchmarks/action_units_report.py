"""The figures of ``benchmarks.action_units`` as a table.

python -m benchmarks.action_units_report FILE … -o benchmarks/results/action-units.md
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Final

import numpy as np
import typer

from fastface.affect_tables import ACTION_UNITS, HEAD_UNITS
from fastface.atomic import write_whole

#: Of each reading ("score", "movement"): Spearman correlation and rise from intensity 0 to 1.
Answer = dict[str, list[float]]
ENOUGH: Final = 0.95


def answers(answer: Answer) -> bool:
    """Whether either reading follows the intensity."""
    return any(rank >= ENOUGH for rank, _ in answer.values())


def best(answer: Answer) -> float:
    """The better correlation; NaN counts as none."""
    return float(np.nanmax([-1.0, *(rank for rank, _ in answer.values())]))


def summary(kept: dict[str, Any]) -> tuple[list[str], bool]:
    """Lines of a Markdown table over units, and whether a unit does not answer on somebody."""
    people: dict[str, dict[str, Answer]] = kept["people"]
    lines = [
        "| unit | what | answers | score ≥ 0.95 | movement ≥ 0.95 | mean movement | does not answer |",
        "|---|---|---|---|---|---|---|",
    ]
    failed = False
    for unit in next(iter(people.values()), {}):
        of = {name: person[unit] for name, person in people.items() if unit in person}
        missing = [f"{name} ({best(answer):.2f})" for name, answer in of.items() if not answers(answer)]
        failed |= bool(missing)
        counts = [
            sum(answer[key][0] >= ENOUGH for answer in of.values() if key in answer)
            for key in ("score", "movement")
        ]
        moved = [answer["movement"][1] for answer in of.values() if "movement" in answer]
        second, mean = (str(counts[1]), f"{np.mean(moved):.2f}") if moved else ("–", "–")
        cells = (unit, _called(unit), f"{len(of) - len(missing)}/{len(of)}", counts[0], second, mean)
        lines.append("| " + " | ".join(map(str, cells)) + f" | {', '.join(missing)} |")
    return lines, failed


def _called(unit: str) -> str:
    if unit in HEAD_UNITS:
        return HEAD_UNITS[unit][0]
    side = {"L": " (left)", "R": " (right)"}.get(unit[-1], "")
    return ACTION_UNITS[unit.rstrip("LR")][0] + side


def page(all_kept: list[dict[str, Any]]) -> str:
    """The whole page."""
    parts = [_INTRODUCTION]
    for kept in all_kept:
        lines, _ = summary(kept)
        pairs = [answer for person in kept["people"].values() for answer in person.values()]
        reached = sum(map(answers, pairs))
        parts.append(f"## {kept['model']}: {reached} of {len(pairs)}\n\n" + "\n".join(lines) + "\n")
    return "\n".join(parts) + _REASONS


_INTRODUCTION: Final = """# Every action unit on every face

Each unit at intensities 0, 0.1 … 1 on 27 neutral portraits (`../shared/data/photos/london`); the landmark
network reads the frames. A unit answers on a face when Spearman's correlation of intensity and reading is at
least 0.95 in one of two readings: the network's own **score** (a blendshape score, or distances between
landmarks; the fitted pose for the head), or the **movement** of the landmarks, refitted to coefficients,
along the unit's own (1: just as far). Where neither does, the mean of five readings decides. In brackets the
better correlation of whoever falls below. Made by

    python -m benchmarks.action_units --json benchmarks/results/action-units-default.json
    python -m benchmarks.action_units --model ict.npz --json benchmarks/results/action-units-ict.json
    python -m benchmarks.action_units_report benchmarks/results/action-units-{default,ict}.json \\
        -o benchmarks/results/action-units.md
"""

_REASONS: Final = """
## Who falls below, and why

- **042, AU1 and AU41.** This photo's own brows are raised by about as much as AU1 raises them. What a photo
  shows gives way to what is asked, so the brows change their shape and hardly their height; the lids below
  them move little.
- **008, 125, 141, closing eyes.** A closed lid is drawn from what lies between lashes and brow. Where the
  brows lie low (008) hair gets into it, on ICT the open lid's crease may stay (125, 141); the pictures close,
  but the network takes the dark line for the edge of a lid.
- **018 and 117, AU29 on ICT.** A jaw that comes forward hardly shows from the front.
- **006, AU25.** The photo's own raised upper lip gives way while the lower lip begins to part from it.

On single units one of the readings is blind: the network's scores hardly know dimples on the default head
(AU14) and miss a bitten lip (AU32) on a third of the faces; the movement of landmarks misses some eyes that
close on ICT.
"""


def main(
    files: Annotated[list[Path], typer.Argument(help="what benchmarks.action_units wrote")],
    output: Annotated[Path, typer.Option("-o", "--output", help="the page")],
) -> None:
    """Write the page."""
    write_whole(output, page([json.loads(path.read_text()) for path in files]).encode())


if __name__ == "__main__":
    typer.run(main)
