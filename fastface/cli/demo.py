"""The demonstration that ``make demo`` runs: one photo, everything that can be made of it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from fastface.affect import Affect, AffectPath
from fastface.errors import WriteFailed

if TYPE_CHECKING:
    from fastface.engine import Engine

#: Ships with the package; source and licence in NOTICE.
DEMO_PHOTO: Final = Path(__file__).parent.parent / "assets" / "demo.jpg"
FPS: Final = 30.0


@dataclass(frozen=True)
class Made:
    """What the demonstration wrote, and how fast."""

    files: dict[str, Path]
    frames: int
    frames_per_s: float
    width_px: int
    height_px: int


def tour() -> AffectPath:
    """Through all expressions, neutral between them: 12 seconds."""
    keys: list[tuple[float, Affect]] = [(0.0, Affect.neutral())]
    for name in ("happy", "surprise", "sad", "anger", "disgust", "fear"):
        start = keys[-1][0]
        keys += [
            (start + 0.7, Affect.expression(name)),
            (start + 1.4, Affect.expression(name)),
            (start + 2.0, Affect.neutral()),
        ]
    return Affect.path(keys, FPS)


def make(engine: Engine, photo: Path, folder: Path) -> Made:
    """Write sheet.png, happy.jpg with labels, and affects.mp4 with labels into ``folder``."""
    from fastface.cli import outputs
    from fastface.cli.sheet import draw_sheet
    from fastface.cli.videos import write_video
    from fastface.images import write_image
    from fastface.labels import table_suffix
    from fastface.provenance import xmp_packet
    from fastface.version import package_version

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WriteFailed(f"{folder}: cannot be made ({error.strerror})") from None
    face = engine.fit(photo)
    sheet, happy, video = folder / "sheet.png", folder / "happy.jpg", folder / "affects.mp4"
    made = xmp_packet({"affect": "sheet", "model_sha256": face.model_hash}, f"fastface {package_version()}")
    write_image(sheet, draw_sheet(engine, face, [0.6, 1.0]), xmp=made)
    smile = Affect.expression("happy", 0.8)
    image = engine.render(face, smile)
    outputs.write_output(happy, image, engine.labels(face, smile), smile, photo.name, quality=92, marked=True)
    steps = tour()
    start = time.perf_counter()
    write_video(video, engine, face, steps, photo=photo.name, path_name="tour", quality=85, marked=True)
    seconds = time.perf_counter() - start
    files = {
        "sheet": sheet,
        "image": happy,
        "labels": outputs.sidecar(happy),
        "video": video,
        "frames": outputs.sidecar(video, table_suffix()),
    }
    return Made(files, len(steps), len(steps) / seconds, image.shape[1], image.shape[0])
