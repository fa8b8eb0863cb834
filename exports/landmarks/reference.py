# /// script
# requires-python = ">=3.9,<3.13"
# dependencies = ["mediapipe==0.10.21", "numpy<2", "opencv-python-headless"]
# ///
"""Record what MediaPipe itself finds on a few photos: `tests/mediapipe_reference.npz`.

    python3 -m venv /tmp/mediapipe && /tmp/mediapipe/bin/pip install mediapipe==0.10.21 "numpy<2"
    /tmp/mediapipe/bin/python exports/landmarks/reference.py face_landmarker.task ../shared/data/photos

The photos are shown eight times in video mode, in which MediaPipe crops each frame around the landmarks of
the one before. Recorded are the landmarks of the last frame, those of the one before, and the blendshapes.
"""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import mediapipe
import numpy as np
from mediapipe.tasks.python import vision
from mediapipe.tasks.python.core.base_options import BaseOptions

PHOTOS = (
    "london/neutral/042.jpg",
    "london/neutral/132.jpg",
    "london/smiling/005.jpg",
    "london/smiling/120.jpg",
    "composite/f_african.jpg",
    "cc0/15cm.jpg",
    "cc0/lisa3.jpg",
)
OUTPUT = Path(__file__).resolve().parents[2] / "tests" / "mediapipe_reference.npz"
REPEATS = 8


def main() -> None:
    task, folder = sys.argv[1:]
    before, points, blendshapes = [], [], []
    for name in PHOTOS:
        rgb = cv2.cvtColor(cv2.imread(str(Path(folder) / name)), cv2.COLOR_BGR2RGB)
        height, width = rgb.shape[:2]
        image = mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=rgb)
        options = vision.FaceLandmarkerOptions(
            base_options=BaseOptions(model_asset_path=task),
            running_mode=vision.RunningMode.VIDEO,
            output_face_blendshapes=True,
        )
        with vision.FaceLandmarker.create_from_options(options) as landmarker:
            frames = [landmarker.detect_for_video(image, 1000 * repeat) for repeat in range(REPEATS)]
        result = frames[-1]
        for frame, kept in ((frames[-2], before), (result, points)):
            kept.append([(p.x * width, p.y * height, p.z * width) for p in frame.face_landmarks[0]])
        blendshapes.append([category.score for category in result.face_blendshapes[0]])
        names = [category.category_name for category in result.face_blendshapes[0]]
    np.savez_compressed(
        OUTPUT,
        photos=np.array(PHOTOS),
        before_px=np.array(before, np.float32),
        points_px=np.array(points, np.float32),
        blendshapes=np.array(blendshapes, np.float32),
        blendshape_names=np.array(names),
    )


if __name__ == "__main__":
    main()
