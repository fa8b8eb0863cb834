"""Contact sheets for looking at: people down, expressions across.

    python -m benchmarks.sheets                               # neutral | six expressions | contempt
    python -m benchmarks.sheets --sweep happy                 # intensity 0 … 1
    python -m benchmarks.sheets --blink                       # the eyes closing
    python -m benchmarks.sheets --crop mouth --cell 320       # also: eyes, face, whole
    python -m benchmarks.sheets --difference                  # 8 × what changed, on grey

PNG files in `.cache/sheets/`, some rows each, so that none grows too large to look at.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy as np
import typer
from numpy.typing import NDArray
from PIL import Image as PilImage
from PIL import ImageDraw, ImageFont
from rich.console import Console

from benchmarks.metrics import outer_eye_distance_px
from benchmarks.portraits import LONDON, Image, RenderingEngine, find_portraits
from fastface.affect import Affect
from fastface.affect_tables import EXPRESSIONS
from fastface.atomic import write_whole
from fastface.engine import Engine
from fastface.errors import FastfaceError

FOLDER = Path(__file__).resolve().parents[1] / ".cache" / "sheets"
ORDER = ("happy", "sad", "surprise", "fear", "anger", "disgust", "contempt")
SWEEP = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
BLINK = (0.0, 0.15, 0.3, 0.45, 0.6, 0.8, 1.0)
LABEL_PX = 20
GAP_PX = 4
DIFFERENCE_GAIN = 8
# Windows about landmarks, in outer-eye distances: (landmarks whose mean is the centre, shift down, side).
WINDOWS: dict[str, tuple[tuple[int, ...], float, float]] = {
    "face": ((33, 263, 61, 291), 0.0, 2.6),
    "mouth": ((61, 291), 0.05, 1.1),
    "eyes": ((33, 263), -0.1, 1.45),
    "nose": ((1, 168), 0.1, 1.0),
}


@dataclass(frozen=True)
class Column:
    """A column of a sheet: its heading and how to render it."""

    heading: str
    render: Callable[[RenderingEngine, Any], Image]


def affect_column(heading: str, affect: Affect) -> Column:
    """A column that shows one affect."""
    return Column(heading, lambda engine, face: engine.render(face, affect))


def expression_columns(intensity: float) -> list[Column]:
    """Neutral and every expression a caller can ask for by name."""
    names = [name for name in ORDER if name in EXPRESSIONS]
    rest = [name for name in EXPRESSIONS if name not in names]
    columns = [affect_column("neutral", Affect.neutral())]
    for name in (*names, *rest):
        columns.append(affect_column(f"{name} {intensity:g}", Affect.expression(name, intensity)))
    return columns


def sweep_columns(expression: str) -> list[Column]:
    """One expression at rising intensity."""
    return [affect_column(f"{expression} {level:g}", Affect.expression(expression, level)) for level in SWEEP]


def blink_columns() -> list[Column]:
    """Both eyes closing."""
    return [affect_column(f"blink {level:g}", Affect.aus({"AU45": level})) for level in BLINK]


def window(face: Any, name: str, shape: tuple[int, ...]) -> tuple[NDArray[np.float64], float]:
    """Top left corner (2,) and side, pixels, of the square a cell shows; one for all frames of a face."""
    if name == "whole":
        side = float(max(shape[:2]))
        return (np.array([shape[1], shape[0]]) - side) / 2, side
    rows, down, size = WINDOWS[name]
    points = np.asarray(face.landmarks_px, np.float64)
    distance = outer_eye_distance_px(points)
    centre = points[list(rows)].mean(0) + np.array([0.0, down * distance])
    return centre - size * distance / 2, size * distance


def cell(frame: Image, corner: NDArray[np.float64], side: float, cell_px: int) -> Image:
    """The window of a frame at `cell_px`, averaged when it shrinks."""
    x, y = np.round(corner).astype(int)
    size = max(1, round(side))
    padded = cv2.copyMakeBorder(frame, size, size, size, size, cv2.BORDER_REPLICATE)
    cut = padded[y + size : y + 2 * size, x + size : x + 2 * size]
    how = cv2.INTER_AREA if size > cell_px else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(cut, (cell_px, cell_px), interpolation=how), np.uint8)


def difference(photo: Image, frame: Image) -> Image:
    """Middle grey plus 8 times the change, clipped."""
    change = frame.astype(np.int16) - photo.astype(np.int16)
    return np.clip(128 + DIFFERENCE_GAIN * change, 0, 255).astype(np.uint8)


def row_cells(
    engine: RenderingEngine, face: Any, columns: Sequence[Column], crop: str, cell_px: int, differences: bool
) -> list[Image]:
    """One person's cells."""
    photo = np.asarray(face.photo, np.uint8)
    corner, side = window(face, crop, photo.shape)
    cells = []
    for column in columns:
        frame = column.render(engine, face)
        shown = difference(photo, frame) if differences else frame
        cells.append(cell(shown, corner, side, cell_px))
    return cells


def sheet(rows: Sequence[tuple[str, Sequence[Image]]], headings: Sequence[str]) -> Image:
    """All cells on one white page, headings above, names at the left edge of each row."""
    cell_px = rows[0][1][0].shape[0]
    pitch = cell_px + GAP_PX
    width = len(headings) * pitch + GAP_PX
    page = PilImage.new("RGB", (width, LABEL_PX + len(rows) * pitch), "white")
    draw = ImageDraw.Draw(page)
    font = ImageFont.load_default(15)
    for column, heading in enumerate(headings):
        draw.text((GAP_PX + column * pitch, 1), heading, "black", font)
    for index, (name, cells) in enumerate(rows):
        top = LABEL_PX + index * pitch
        for column, picture in enumerate(cells):
            page.paste(PilImage.fromarray(picture), (GAP_PX + column * pitch, top))
        draw.text((GAP_PX + 3, top + 2), name, "white", font, stroke_width=2, stroke_fill="black")
    return np.asarray(page)


def pages(
    rows: list[tuple[str, list[Image]]], rows_per_sheet: int
) -> Iterator[list[tuple[str, list[Image]]]]:
    """Some rows at a time."""
    for start in range(0, len(rows), rows_per_sheet):
        yield rows[start : start + rows_per_sheet]


def main(
    model: Annotated[str, typer.Option(help="head model")] = "default",
    photos: Annotated[Path, typer.Option(help="folder of portraits")] = LONDON,
    ids: Annotated[str, typer.Option(help="people by file name, comma-separated")] = "",
    limit: Annotated[int | None, typer.Option(help="only the first so many people")] = None,
    intensity: Annotated[float, typer.Option(help="of the expressions")] = 1.0,
    sweep: Annotated[str, typer.Option(help="one expression at rising intensity instead")] = "",
    blink: Annotated[bool, typer.Option(help="the eyes closing instead")] = False,
    crop: Annotated[str, typer.Option(help="face, mouth, eyes, nose or whole")] = "face",
    differences: Annotated[bool, typer.Option("--difference", help="8 x the change, on grey")] = False,
    cell_px: Annotated[int, typer.Option("--cell", help="side of a cell, pixels")] = 256,
    rows_per_sheet: Annotated[int, typer.Option("--rows", help="people on one sheet")] = 5,
    out: Annotated[Path, typer.Option(help="folder of the sheets")] = FOLDER,
) -> None:
    """Render sheets and print their paths; exit code 1 when somebody could not be fitted."""
    if crop != "whole" and crop not in WINDOWS:
        raise typer.BadParameter(f"crop must be whole or one of {', '.join(WINDOWS)}, got {crop}")
    columns = blink_columns() if blink else sweep_columns(sweep) if sweep else expression_columns(intensity)
    engine = Engine(model)
    console = Console()
    rows, failed = [], 0
    for portrait in find_portraits(photos, [name for name in ids.split(",") if name], limit):
        try:
            face = engine.fit(portrait.neutral)
        except FastfaceError as error:
            console.print(f"[red]{portrait.id}: {error}")
            failed += 1
            continue
        rows.append((portrait.id, row_cells(engine, face, columns, crop, cell_px, differences)))
    kind = "blink" if blink else f"sweep-{sweep}" if sweep else f"expressions-{intensity:g}"
    name = f"{Path(model).stem}-{kind}-{crop}" + ("-difference" if differences else "")
    out.mkdir(parents=True, exist_ok=True)
    for number, page in enumerate(pages(rows, rows_per_sheet), 1):
        path = out / f"{name}-{number}.png"
        write_png(path, sheet(page, [column.heading for column in columns]))
        console.print(str(path), soft_wrap=True)
    if failed:
        raise typer.Exit(1)


def write_png(path: Path, rgb: Image) -> None:
    """Whole or not at all."""
    buffer = io.BytesIO()
    PilImage.fromarray(rgb).save(buffer, "PNG")
    write_whole(path, buffer.getvalue())


if __name__ == "__main__":
    typer.run(main)
