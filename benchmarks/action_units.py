"""Does every action unit show what it says, more of it the more is asked, on every face?

    python -m benchmarks.action_units [--model ict.npz] [--ids 001,026] [--units AU9,AU12] [--json FILE]
    python -m benchmarks.action_units_report FILE … -o benchmarks/results/action-units.md

Each unit is rendered at rising intensities, and the landmark networks read the frames in two ways:

- **score**: the blendshape score that should answer, or where the network has none that does, distances
  between landmarks (in outer-eye distances); the fitted pose for units of the head;
- **movement**: how the landmarks have moved since intensity 0, refitted to the head model's coefficients, and
  how much of the unit's own pattern that is (``rereading.Refit.amount``).

Noted for each person: both Spearman correlations with the intensity, and how far each reading rises from 0 to
1. A unit answers on a face when either reading reaches 0.95: eleven values in that order by chance are one in
a hundred thousand. Where neither does, the same frames are read four times more, from crops moved a little,
and the mean of all decides. ``--json`` is written after each person; what it holds is not measured again.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Any, Final

import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress
from scipy.stats import spearmanr

from benchmarks.action_units_report import Answer, answers, summary
from benchmarks.portraits import LONDON, Portrait, find_portraits
from benchmarks.rereading import Reader, Refit, movements
from fastface.action_units import AU_NAMES
from fastface.affect import Affect, affect_model
from fastface.affect_tables import HEAD_UNITS, ONE_SIDED_UNITS, SIDED_SHAPES
from fastface.atomic import write_whole
from fastface.engine import Engine, FittedFace
from fastface.errors import FastfaceError
from fastface.landmarks import BLENDSHAPE_NAMES, FaceLandmarks

Measure = Callable[[FaceLandmarks], float]


def shape(*names: str) -> Measure:
    """Mean of blendshape scores; a sided name without its side is both."""
    full = [n + side for n in names for side in (("Left", "Right") if n in SIDED_SHAPES else ("",))]
    columns = [BLENDSHAPE_NAMES.index(name) for name in full]
    return lambda found: float(found.blendshapes[columns].mean())


def distance(*pairs: tuple[int, int], sign: float = 1.0) -> Measure:
    """Mean distance between pairs of landmarks, in outer-eye distances."""

    def measured(found: FaceLandmarks) -> float:
        points = found.points_px
        lengths = [np.linalg.norm(points[a] - points[b]) for a, b in pairs]
        return sign * float(np.mean(lengths) / np.linalg.norm(points[33] - points[263]))

    return measured


def aside(point: int) -> Measure:
    """How far a landmark lies to the subject's left of the line between nose root and eyes' middle."""

    def measured(found: FaceLandmarks) -> float:
        points = found.points_px
        across = points[263] - points[33]
        return float((points[point] - points[6]) @ across / (across @ across))

    return measured


WINGS: Final = ((129, 133), (358, 362))
LIPS: Final = ((0, 17),)
SLIT: Final = ((13, 14), (82, 87), (312, 317))
LOWER_LIP: Final = ((14, 17), (87, 84), (317, 314))
CHEEKS: Final = ((58, 288),)
IRISES: Final = ((468, 473),)
MEASURES: Final[dict[str, Measure]] = {
    "AU1": shape("browInnerUp"),
    "AU2": shape("browOuterUp"),
    "AU4": shape("browDown"),
    "AU5": shape("eyeWide"),
    "AU6": shape("eyeSquint"),
    "AU7": shape("eyeSquint"),
    "AU8": shape("jawOpen"),
    "AU9": distance(*WINGS, sign=-1),
    "AU10": shape("mouthUpperUp"),
    "AU11": shape("mouthUpperUp"),
    "AU12": shape("mouthSmile"),
    "AU13": shape("mouthSmile"),
    "AU14": shape("mouthDimple"),
    "AU15": shape("mouthFrown"),
    "AU16": shape("mouthLowerDown"),
    "AU17": shape("mouthShrugLower"),
    "AU18": shape("mouthPucker"),
    "AU19": shape("jawOpen"),
    "AU20": shape("mouthStretch"),
    "AU22": shape("mouthFunnel"),
    "AU23": distance(*LIPS, sign=-1),
    "AU24": shape("mouthPress"),
    "AU25": distance((13, 14)),
    "AU26": shape("jawOpen"),
    "AU27": shape("jawOpen"),
    "AU28": distance(*LIPS, sign=-1),
    "AU29": distance((0, 152)),
    "AU30L": aside(152),
    "AU30R": lambda found: -aside(152)(found),
    "AU32": lambda found: distance(*SLIT)(found) - distance(*LOWER_LIP)(found),
    "AU33": shape("mouthFunnel", "mouthPucker"),
    "AU34": distance(*CHEEKS),
    "AU41": shape("eyeBlink"),
    "AU42": shape("eyeBlink"),
    "AU43": shape("eyeBlink"),
    "AU44": shape("eyeSquint"),
    "AU45": shape("eyeBlink"),
    "AU46L": shape("eyeBlinkLeft"),
    "AU46R": shape("eyeBlinkRight"),
    "AU61": shape("eyeLookOutLeft", "eyeLookInRight"),
    "AU62": shape("eyeLookInLeft", "eyeLookOutRight"),
    "AU63": shape("eyeLookUp"),
    "AU64": shape("eyeLookDown"),
    "AU65": distance(*IRISES),
    "AU66": distance(*IRISES, sign=-1),
}


class Bench:
    """Renders a unit's rising intensities and reads them."""

    def __init__(self, model: str, steps: int) -> None:
        self.engine = Engine(model, threads=1)
        self._reader, self._asked = Reader(self.engine), np.linspace(0, 1, steps)
        self._affects = affect_model(self.engine.model.name)

    def person(self, portrait: Portrait, units: list[str]) -> dict[str, Answer]:
        """Each unit's answer on one face."""
        face = self.engine.fit(portrait.neutral)
        refit = self._reader.refit(face)
        return {unit: self._answer(face, refit, unit) for unit in units}

    def _answer(self, face: FittedFace, refit: Refit, unit: str) -> Answer:
        asked = [Affect.aus({unit: float(value)}) for value in self._asked]
        frames = self.engine.render_batch(face, asked)
        if unit in HEAD_UNITS:
            return self._noted(np.array([self._pose(frame, unit) for frame in frames]), None)
        weights = self._affects.coefficients(asked[-1], self.engine.model.expression_names)
        answer: Answer = {}
        for again in (False, True):
            found = self._reader.read(face, frames, again=again)
            score = np.array([MEASURES[unit](one) if one else np.nan for one in found])
            answer = self._noted(score, refit.amount(movements(face, found), weights))
            if answers(answer):
                break
        return answer

    def _noted(self, score: NDArray[Any], movement: NDArray[Any] | None) -> Answer:
        answer: Answer = {}
        for name, values in (("score", score), ("movement", movement)):
            if values is not None:
                rank = float(spearmanr(self._asked, values).statistic)
                answer[name] = [round(rank, 3), round(float(values[-1] - values[0]), 4)]
        return answer

    def _pose(self, frame: NDArray[Any], unit: str) -> float:
        _, axis, reach = HEAD_UNITS[unit]
        try:
            again = self.engine.fit(frame)
        except FastfaceError:
            return float("nan")
        seen = again.eye_distance_px if axis == "forward_mm" else getattr(again, axis)
        return float(np.sign(reach) * seen)


def spelled() -> list[str]:
    """Every unit, the one-sided ones by side."""
    return [n + side for n in AU_NAMES for side in (("L", "R") if n in ONE_SIDED_UNITS else ("",))]


def main(
    model: Annotated[str, typer.Option(help="head model")] = "default",
    photos: Annotated[Path, typer.Option(help="folder of portraits")] = LONDON,
    ids: Annotated[str, typer.Option(help="people, comma-separated; all if empty")] = "",
    units: Annotated[str, typer.Option(help="units, comma-separated; all if empty")] = "",
    steps: Annotated[int, typer.Option(min=3, help="intensities from 0 to 1")] = 11,
    threads: Annotated[int, typer.Option(min=1, help="people at a time")] = 2,
    json_path: Annotated[Path | None, typer.Option("--json", help="write all figures here; resumes")] = None,
) -> None:
    """Render, read, print; exit code 1 if a unit does not answer on somebody."""
    bench, console = Bench(model, steps), Console()
    wanted = [name for name in units.split(",") if name] or spelled()
    name = bench.engine.model.name
    kept: dict[str, Any] = {"model": name, "steps": steps, "people": {}}
    if json_path and json_path.is_file():
        kept = json.loads(json_path.read_text())
        if (kept["model"], kept["steps"]) != (name, steps):
            raise typer.BadParameter(f"{json_path} is of {kept['model']}, {kept['steps']} steps")
    people = find_portraits(photos, [i for i in ids.split(",") if i])

    def measured(person: Portrait) -> dict[str, Answer]:
        known: dict[str, Answer] = kept["people"].get(person.id, {})
        missing = [unit for unit in wanted if unit not in known]
        fresh = known | (bench.person(person, missing) if missing else {})
        return {unit: fresh[unit] for unit in spelled() if unit in fresh}

    with ThreadPoolExecutor(threads) as pool, Progress(console=console, transient=True) as progress:
        bar = progress.add_task(name, total=len(people))
        for person, found in zip(people, pool.map(measured, people), strict=True):
            kept["people"][person.id] = found
            progress.advance(bar)
            if json_path:
                write_whole(json_path, dumped(kept).encode())
    lines, failed = summary(kept)
    console.print("\n".join(lines), highlight=False)
    raise typer.Exit(1 if failed else 0)


def dumped(kept: dict[str, Any]) -> str:
    """JSON with a line a person."""
    people = ",\n".join(f"{json.dumps(k)}: {json.dumps(v)}" for k, v in sorted(kept["people"].items()))
    return f'{{"model": "{kept["model"]}", "steps": {kept["steps"]}, "people": {{\n{people}\n}}}}\n'


if __name__ == "__main__":
    typer.run(main)
