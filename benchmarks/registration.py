"""How near the truth registered scans come, and what the start on the cylinder is worth.

    python -m benchmarks.registration --scans 4

People of the default head with an expression, remeshed, with noise of 0.2 mm, holes, in turn without the back
of the head; what becomes of them is compared with where every vertex is in truth, over the face, after laying
one on the other without scaling. "landmarks": 68 given; "pictures": read by the landmark network. The former
way, one smooth map of space (``importers.carrying``), reads pictures.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from benchmarks.synthetic_scans import Synthetic, synthetic_scan
from fastface.errors import FastfaceError
from fastface.importers.carrying import carry
from fastface.importers.correspondence_map import similarity
from fastface.importers.published import Published
from fastface.morphable import load_default
from fastface.workshop.registration import register_scan
from fastface.workshop.scan_landmarks import ibug
from fastface.workshop.scans import Scan
from fastface.workshop.template import open_template

EXPRESSIONS: Final[tuple[dict[str, float], ...]] = (
    {},
    {"mouthSmileLeft": 1.0, "mouthSmileRight": 1.0, "eyeSquintLeft": 0.5},
    {"jawOpen": 0.6},
    {"mouthPucker": 1.0, "browInnerUp": 1.0},
)
Way = Callable[[Synthetic], NDArray[Any]]


def off_mm(found: NDArray[Any], truth: NDArray[np.float64]) -> NDArray[np.float64]:
    """Distances (N,) of ``found (N, 3)`` from ``truth`` when one is laid on the other without scaling."""
    found = found.astype(np.float64)
    _, turn, _ = similarity(found, truth)
    away: NDArray[np.float64] = np.linalg.norm(
        (found - found.mean(axis=0)) @ turn.T + truth.mean(axis=0) - truth, axis=1
    )
    return away


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--scans", type=int, default=4)
    parser.add_argument("--seed", type=int, default=100)
    options = parser.parse_args(arguments)
    head = load_default()
    template = open_template("default")
    face = template.surface[template.face]

    def registered(made: Synthetic, **how: Any) -> NDArray[Any]:
        return register_scan(template, Scan(made.vertices, made.triangles), "scan", **how).vertices

    def carried(made: Synthetic) -> NDArray[Any]:
        none = np.zeros((0, len(made.vertices), 3), np.float32)
        scan = Published("scan", "-", "-", made.vertices, made.triangles, none)
        return carry(scan, "scan")[0].vertices

    ways: dict[str, Way] = {
        "landmarks, cylinder": lambda made: registered(made, landmarks=ibug(made.landmarks)),
        "landmarks, placed only": lambda made: registered(
            made, landmarks=ibug(made.landmarks), start="similarity"
        ),
        "pictures, cylinder": lambda made: registered(made),
        "pictures, placed only": lambda made: registered(made, start="similarity"),
        "pictures, a map of space": carried,
    }
    table = Table("way", "mean, mm", "median", "95 %", "worst scan's mean", "refused", "CPU s a scan")
    for name, way in ways.items():
        distances, refused = [], 0
        begin = time.process_time()
        for row in range(options.scans):
            made = synthetic_scan(
                head,
                options.seed + row,
                expression=EXPRESSIONS[row % len(EXPRESSIONS)],
                noise_mm=0.2,
                back=row % 2 == 0,
                turn=0.1,
            )
            try:
                distances.append(off_mm(way(made)[face], made.truth[face]))
            except FastfaceError as error:
                Console(stderr=True).print(f"{name}, scan {row}: {error}")
                refused += 1
        seconds = (time.process_time() - begin) / options.scans
        every = np.concatenate(distances) if distances else np.full(1, np.nan)
        numbers = (every.mean(), np.median(every), np.quantile(every, 0.95), max(d.mean() for d in distances))
        table.add_row(name, *(f"{number:.2f}" for number in numbers), str(refused), f"{seconds:.1f}")
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
