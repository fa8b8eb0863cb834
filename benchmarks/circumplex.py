"""Do rendered faces lie on the plane of valence and arousal where they were asked to?

    python -m benchmarks.circumplex [--model ict.npz] [--json FILE] [--page FILE] [--plot FILE]

Points in twelve directions at three radii are rendered, the landmark network reads the frames, and what it
sees is mapped back in three ways, none of which uses the person who is judged:

- **expected**: nothing is learned; the point of the plane from which the affect model and the head model
  expect the movement of landmarks that comes nearest to the one seen;
- **coefficients**: the movement refitted to the head's coefficients (``rereading.Refit``), then a ridge
  regression to valence and arousal that is learned from all other people;
- **scores**: the same from the network's own 52 blendshape scores, less those of the photo.
"""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from scipy.stats import spearmanr

from benchmarks.circumplex_report import page, plot
from benchmarks.portraits import LONDON, find_portraits
from benchmarks.rereading import Reader, Refit, movements
from fastface.affect import Affect, affect_model
from fastface.atomic import write_whole
from fastface.engine import Engine, FittedFace

Array = NDArray[np.float64]

DIRECTIONS: Final = 12
RADII: Final = (1 / 3, 2 / 3, 1.0)
_GRID: Final = 61  # points across the plane among which the expected one is sought
_RIDGE: Final = 1e-3  # of the mean square of a coefficient that is always 1


def asked_points(directions: int = DIRECTIONS, radii: tuple[float, ...] = RADII) -> Array:
    """(1 + R D, 2) valence and arousal: the middle, then ring after ring, counter-clockwise from (1, 0)."""
    angle = 2 * np.pi * np.arange(directions) / directions
    ring = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return np.concatenate([np.zeros((1, 2)), *(radius * ring for radius in radii)]).clip(-1, 1)


@dataclass(frozen=True)
class Seen:
    """Of one person and N frames: ``expected (N, 2)``, ``coefficients (N, E)``, ``scores (N, 52)``."""

    expected: Array
    coefficients: Array
    scores: Array


def seen_of(reader: Reader, face: FittedFace, asked: Array) -> Seen:
    """Render the points ``asked (N, 2)``, the first of which is neutral, and read the frames."""
    frames = reader.engine.render_batch(face, [Affect.va(float(v), float(a)) for v, a in asked])
    found = reader.read(face, frames)
    moved = movements(face, found)
    refit = reader.refit(face)
    scores = np.stack([np.full(52, np.nan) if one is None else one.blendshapes for one in found])
    return Seen(
        expected=_expected(reader.engine, face, refit, moved),
        coefficients=refit.coefficients(moved),
        scores=(scores - scores[0]).astype(np.float64),
    )


def _expected(engine: Engine, face: FittedFace, refit: Refit, moved: Array) -> Array:
    """(N, 956) movements → (N, 2) the points of the unit disc that they are expected from."""
    axis = np.linspace(-1, 1, _GRID)
    plane = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    plane = plane[np.hypot(*plane.T) <= 1 + 1e-9]
    names, ready = engine.model.expression_names, engine._ready(face)
    rows = affect_model(engine.model.name).batch("valence_arousal", ("valence", "arousal"), plane, names)
    wanted = refit.moved(ready.renderer.deltas(rows))
    off = (wanted**2).sum(1) - 2 * moved @ wanted.T
    return np.asarray(plane[off.argmin(1)], np.float64)


def learned(features: list[Array], asked: Array) -> list[Array]:
    """(N, 2) of each person, by a ridge regression that all other people teach."""
    grams = [rows.T @ rows for rows in features]
    targets = [rows.T @ asked for rows in features]
    estimates = []
    for own, rows in enumerate(features):
        gram = sum((g for k, g in enumerate(grams) if k != own), np.zeros_like(grams[0]))
        target = sum((t for k, t in enumerate(targets) if k != own), np.zeros_like(targets[0]))
        gram += _RIDGE * len(asked) * (len(features) - 1) * np.eye(len(gram))
        estimates.append(np.asarray(rows @ np.linalg.solve(gram, target), np.float64))
    return estimates


def ring_figures(asked: Array, read: Array) -> dict[str, float]:
    """How a ring of D directions, both (D, 2) in order, was read: mean error of the angle in degrees, share
    of neighbours in the right order, and the circular rank correlation (K. V. Mardia, "Statistics of
    directional data", J. R. Stat. Soc. B 37, 1975; here the square for the same sense less that for the
    other): 1 where the order round the circle is the same.
    """
    was, now = (np.arctan2(points[:, 1], points[:, 0]) for points in (asked, read))
    error = np.abs((now - was + np.pi) % (2 * np.pi) - np.pi)
    step = (np.roll(now, -1) - now + np.pi) % (2 * np.pi) - np.pi
    count = len(asked)
    ranks = np.argsort(np.argsort(now % (2 * np.pi)))
    turn = 2 * np.pi / count
    same, other = (abs(np.exp(1j * turn * (ranks - sign * np.arange(count))).mean()) ** 2 for sign in (1, -1))
    return {
        "angle_deg": float(np.degrees(error.mean())),
        "in_order": float((step > 0).mean()),
        "rank": float(same - other),
    }


def person_figures(asked: Array, read: Array, directions: int = DIRECTIONS) -> dict[str, Any]:
    """Spearman of valence and of arousal over all points (N, 2), and ``ring_figures`` from the inside out."""
    rings = [slice(first, first + directions) for first in range(1, len(asked), directions)]
    return {
        "valence": float(spearmanr(asked[:, 0], read[:, 0]).statistic),
        "arousal": float(spearmanr(asked[:, 1], read[:, 1]).statistic),
        "rings": [ring_figures(asked[ring], read[ring]) for ring in rings],
    }


def measure(model: str, photos: Path, ids: list[str], threads: int, console: Console) -> dict[str, Any]:
    """All figures of one head model, and where every point was read."""
    reader, asked = Reader(Engine(model, threads=1)), asked_points()
    people = find_portraits(photos, ids)

    def one(path: Path) -> Seen:
        return seen_of(reader, reader.engine.fit(path), asked)

    with ThreadPoolExecutor(threads) as pool:
        made = pool.map(one, [person.neutral for person in people])
        seen = list(track(made, description=model, total=len(people), console=console, transient=True))
    read = {
        "expected": [person.expected for person in seen],
        "coefficients": learned([person.coefficients for person in seen], asked),
        "scores": learned([person.scores for person in seen], asked),
    }
    return {
        "model": reader.engine.model.name,
        "asked": asked.round(3).tolist(),
        "people": {
            person.id: {
                name: {**person_figures(asked, points[k]), "read": points[k].round(2).tolist()}
                for name, points in read.items()
            }
            for k, person in enumerate(people)
        },
    }


def main(
    model: Annotated[list[str] | None, typer.Option(help="head model; repeat for several")] = None,
    photos: Annotated[Path, typer.Option(help="folder of portraits")] = LONDON,
    ids: Annotated[str, typer.Option(help="people, comma-separated, at least two; all if empty")] = "",
    threads: Annotated[int, typer.Option(min=1, help="people at a time")] = 2,
    json_path: Annotated[Path | None, typer.Option("--json", help="write all figures here")] = None,
    page_path: Annotated[Path | None, typer.Option("--page", help="write tables here, Markdown")] = None,
    plot_path: Annotated[Path | None, typer.Option("--plot", help="draw what was read where")] = None,
) -> None:
    """Render, read, print."""
    console = Console()
    chosen = [name for name in ids.split(",") if name]
    found = [measure(name, photos, chosen, threads, console) for name in model or ["default"]]
    text = page(found)
    console.print(text, highlight=False, markup=False)
    if json_path:
        write_whole(json_path, _dumped(found).encode())
    if page_path:
        write_whole(page_path, text.encode())
    if plot_path:
        plot(found, plot_path)


def _dumped(found: list[dict[str, Any]]) -> str:
    """JSON with a line a person, figures to four places."""
    short = json.loads(json.dumps(found), parse_float=lambda text: round(float(text), 4))
    parts = []
    for one in short:
        people = ",\n".join(f"{json.dumps(k)}: {json.dumps(v)}" for k, v in one["people"].items())
        head = f'{{"model": "{one["model"]}", "asked": {json.dumps(one["asked"])}'
        parts.append(f'{head}, "people": {{\n{people}\n}}}}')
    return "[\n" + ",\n".join(parts) + "\n]\n"


if __name__ == "__main__":
    typer.run(main)
