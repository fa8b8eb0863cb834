"""The people that quality is measured on, and the pieces of fastface the measurements talk to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
LONDON = Path(__file__).resolve().parents[2] / "shared" / "data" / "photos" / "london"


class Detector(Protocol):
    """What the measurements need of `fastface.landmarks.LandmarkDetector`."""

    def detect(self, rgb: Image, max_faces: int) -> Sequence[Any]:
        """Faces with `points_px` (478, 2) and `depth_px` (478,)."""


class RenderingEngine(Protocol):
    """What the measurements need of `fastface.Engine`."""

    def fit(self, photo: Any) -> Any:
        """The fitted face of a photo."""

    def render(self, face: Any, affect: Any = None, *, coefficients: Any = None) -> Image:
        """(H, W, 3) uint8."""

    def labels(self, face: Any, affect: Any, coefficients: Any = None) -> Any:
        """Labels of the frame `render` gives for the same arguments."""


@dataclass(frozen=True)
class Portrait:
    """One person: a neutral photo and, where there is one, a photo of the same person's real smile."""

    id: str
    neutral: Path
    smiling: Path | None


def find_portraits(folder: Path, ids: Sequence[str] = (), limit: int | None = None) -> list[Portrait]:
    """Portraits in `folder/neutral` with partners in `folder/smiling`, or all images right in `folder`.

    FileNotFoundError when there is none, or when one of `ids` is missing: nobody is left out in silence.
    """
    source = folder / "neutral" if (folder / "neutral").is_dir() else folder
    paths = sorted(path for path in source.glob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
    if missing := sorted(set(ids) - {path.stem for path in paths}):
        raise FileNotFoundError(f"{source}: no portrait called {', '.join(missing)}")
    chosen = [path for path in paths if not ids or path.stem in ids][:limit]
    if not chosen:
        raise FileNotFoundError(f"{source}: no portraits ({', '.join(IMAGE_SUFFIXES)})")
    partners = [folder / "smiling" / path.name for path in chosen]
    return [Portrait(p.stem, p, s if s.is_file() else None) for p, s in zip(chosen, partners, strict=True)]


def detect_landmarks(detector: Detector, rgb: Image) -> NDArray[np.float64] | None:
    """(478, 3) of the first face, x and y in pixels and depth in pixels; None when none is found."""
    faces = detector.detect(rgb, 1)
    if not faces:
        return None
    return np.column_stack([faces[0].points_px, faces[0].depth_px]).astype(np.float64)
