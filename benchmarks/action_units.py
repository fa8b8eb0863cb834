"""Does every action unit show what it says, more of it the more is asked, on every face?

    python -m benchmarks.action_units [--model ict.npz] [--ids 001,026] [--units AU9,AU12] [--json FILE]

Each unit is rendered at rising intensities; the landmark networks look at the frame and one measurement of
what the unit moves is taken: a blendshape score where the network has one that answers, else a distance
between landmarks (in outer-eye distances), a depth or the fitted pose. Printed per unit: the lowest Spearman
correlation over the people, how many reach 0.95, and the mean change from 0 to 1.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Final

import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table
from scipy.stats import spearmanr

from benchmarks.portraits import LONDON, find_portraits
from fastface.action_units import AU_NAMES
from fastface.affect import Affect
from fastface.affect_tables import HEAD_UNITS, ONE_SIDED_UNITS, SIDED_SHAPES
from fastface.atomic import write_whole
from fastface.engine import Engine, FittedFace
from fastface.errors import FastfaceError
from fastface.landmarks import BLENDSHAPE_NAMES, FaceLandmarks, LandmarkDetector

Measure = Callable[[FaceLandmarks], float]
ENOUGH: Final = 0.95


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


def nearer(point: int, than: int) -> Measure:
    """How much nearer one landmark is than another, in outer-eye distances."""

    def measured(found: FaceLandmarks) -> float:
        eyes = np.linalg.norm(found.points_px[33] - found.points_px[263])
        return float((found.depth_px[than] - found.depth_px[point]) / eyes)

    return measured


WINGS: Final = ((129, 133), (358, 362))
LIPS: Final = ((0, 17),)
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
    "AU14": distance((61, 291)),
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
    "AU29": nearer(1, 152),
    "AU30L": aside(152),
    "AU30R": lambda found: -aside(152)(found),
    "AU32": shape("mouthRollLower"),
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
    """Renders a unit's rising intensities and measures them."""

    def __init__(self, model: str, steps: int) -> None:
        self.engine, self._detector = Engine(model), LandmarkDetector()
        self._asked = np.linspace(0, 1, steps)

    def answer(self, face: FittedFace, unit: str) -> tuple[float, float]:
        """Spearman correlation of asked and measured, and the change from none to all."""
        measured = np.array([self._measured(face, unit, float(value)) for value in self._asked])
        rank = float(spearmanr(self._asked, measured).statistic)
        return rank, float(measured[-1] - measured[0])

    def _measured(self, face: FittedFace, unit: str, value: float) -> float:
        frame = self.engine.render(face, Affect.aus({unit: value}))
        if unit in HEAD_UNITS:
            return self._pose(frame, unit)
        found = self._detector.detect(frame, max_faces=1)
        return MEASURES[unit](found[0]) if found else float("nan")

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
    json_path: Annotated[Path | None, typer.Option("--json", help="write all figures here")] = None,
) -> None:
    """Render, measure, print; exit code 1 if a unit falls below 0.95 on anybody."""
    bench, console = Bench(model, steps), Console()
    people = find_portraits(photos, [name for name in ids.split(",") if name])
    faces = {person.id: bench.engine.fit(person.neutral) for person in people}
    wanted = [name for name in units.split(",") if name] or spelled()
    found = {
        unit: {name: bench.answer(face, unit) for name, face in faces.items()}
        for unit in track(wanted, description=model, console=console, transient=True)
    }
    table = Table(
        "unit", "lowest", f"people ≥ {ENOUGH}", "mean change", "below", title=f"{model}, {len(faces)} people"
    )
    failed = False
    for unit, answers in found.items():
        ranks = {name: rank for name, (rank, _) in answers.items()}
        below = [name for name, rank in ranks.items() if not rank >= ENOUGH]
        failed |= bool(below)
        change = np.mean([change for _, change in answers.values()])
        counted = f"{len(ranks) - len(below)}/{len(ranks)}"
        table.add_row(unit, f"{min(ranks.values()):.2f}", counted, f"{change:+.3f}", " ".join(below[:8]))
    console.print(table)
    if json_path:
        write_whole(
            json_path, json.dumps({"model": model, "steps": steps, "units": found}, indent=1).encode()
        )
    raise typer.Exit(1 if failed else 0)


if __name__ == "__main__":
    typer.run(main)
