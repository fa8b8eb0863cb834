"""Is what ``make demo`` wrote there, whole and right? Exits with a message when it is not."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image

from fastface.cli.demo import DEMO_PHOTO, FPS, tour
from fastface.images import read_image
from fastface.labels import read_labels, read_table
from fastface.provenance import read_provenance
from fastface.video import frame_count


def need(fact: bool, what: str) -> None:
    """End with ``what`` unless it is a fact."""
    if not fact:
        raise SystemExit(f"demo: {what}")


def main(folder: Path) -> None:
    """Check the four outputs of the demonstration."""
    photo = read_image(DEMO_PHOTO)
    happy = read_image(folder / "happy.jpg")
    need(happy.shape == photo.shape, f"happy.jpg is {happy.shape}, the photo {photo.shape}")
    changed = np.abs(happy.astype(int) - photo).max(axis=2) > 40
    need(changed.sum() > 100, "happy.jpg shows the photo unchanged")
    need(changed.mean() < 0.2, "happy.jpg changed more than a face")

    labels = read_labels(folder / "happy.json")
    need(labels["expression"] == "happy" and labels["intensity"] == 0.8, "happy.json says something else")
    inside = np.array(labels["landmarks478_px"])
    need(bool((inside > 0).all() and (inside < photo.shape[1]).all()), "landmarks outside the picture")

    with Image.open(folder / "sheet.png") as sheet:
        need(sheet.width > 5 * sheet.height / 2, f"sheet.png is {sheet.size}")
        need(len(np.unique(np.asarray(sheet.convert("L")))) > 100, "sheet.png is empty")

    frames = frame_count(folder / "affects.mp4")
    need(frames == len(tour()), f"affects.mp4 has {frames} frames, wanted {len(tour())}")
    rows = list(read_table(next(folder.glob("affects.parquet"), folder / "affects.jsonl")))
    need(len(rows) == frames, f"{len(rows)} rows of labels for {frames} frames")
    shown = {row["expression"] for row in rows}
    need(len(shown) == 7, f"the video shows {sorted(shown)}")
    need(abs(rows[-1]["time_s"] - (frames - 1) / FPS) < 1e-3, "the last frame's time is wrong")

    for name in ("sheet.png", "happy.jpg", "affects.mp4"):
        found = read_provenance(folder / name)
        need(found is not None and found.is_synthetic, f"{name} is not marked as synthetic")
    print(f"demo: {frames} frames, {len(shown)} expressions, every output marked and labelled")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
