"""Networks outside fastface that judge what it renders: two expression classifiers, one recognition net.

Development only. Build the files once with `python -m benchmarks.judges.build`.

On the 27 people of the London set: recognition distance neutral ↔ real smile mean 0.22 (p90 0.30), between
people 0.82 (p5 0.68). P(happy) of the real smiles: faceapi 0.69, fer 0.46, mean of the two 0.58.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from benchmarks.judges import crops
from benchmarks.judges.files import MODEL_FILES, cache_folder

CLASSES = ("neutral", "happy", "sad", "surprise", "fear", "anger", "disgust")
CLASSIFIERS = ("faceapi", "fer")
FACEAPI_LABELS = ("neutral", "happy", "sad", "anger", "fear", "disgust", "surprise")
FER_LABELS = ("anger", "disgust", "fear", "happy", "sad", "surprise", "neutral")
# Every probability is the mean over these crop sizes and their mirror images: one crop's answer jumps by
# tenths when the box moves a few pixels, and a mean is harder to please by accident.
FACEAPI_PADDINGS = (0.1, 0.2, 0.3)
FER_SCALES = (0.95, 1.0, 1.05)


class Judges:
    """The judge networks, loaded from `folder` (default: `cache_folder()`)."""

    def __init__(self, folder: Path | None = None, threads: int = 1) -> None:
        folder = folder or cache_folder()
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        self._sessions = {}
        for name in MODEL_FILES:
            path = folder / name
            if not path.is_file():
                raise FileNotFoundError(f"{path} is missing; run: python -m benchmarks.judges.build")
            self._sessions[name] = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def expression(self, rgb: NDArray[np.uint8], landmarks: crops.Points) -> dict[str, dict[str, float]]:
        """Probabilities over CLASSES by each of CLASSIFIERS.

        `rgb` (H, W, 3) uint8, `landmarks` (478, 2+) pixels of the face in that same image.
        """
        points = landmarks[:, :2]
        color = [
            crops.square_crop(rgb, *crops.face_api_box(points, padding), 112) for padding in FACEAPI_PADDINGS
        ]
        gray = [_gray(crops.square_crop(rgb, *crops.cascade_box(points, scale), 64)) for scale in FER_SCALES]
        faceapi = self._run("faceapi_expression.onnx", _with_mirrors(color)).mean(0)
        fer = self._run("fer_expression.onnx", _with_mirrors(gray) / 127.5 - 1.0).mean(0)
        return {
            "faceapi": dict(zip(FACEAPI_LABELS, faceapi.tolist(), strict=True)),
            "fer": dict(zip(FER_LABELS, fer.tolist(), strict=True)),
        }

    def descriptor(self, rgb: NDArray[np.uint8], landmarks: crops.Points) -> NDArray[np.float32]:
        """Identity descriptor (128,); Euclidean distance, the face and its mirror image averaged."""
        chip = crops.dlib_chip(rgb, landmarks[:, :2], 150)
        return np.asarray(self._run("faceapi_recognition.onnx", _with_mirrors([chip])).mean(0), np.float32)

    def _run(self, name: str, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.asarray(self._sessions[name].run(None, {"image": batch})[0], np.float32)


def _gray(rgb: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), np.float32)[..., None]


def _with_mirrors(pictures: list[NDArray[np.float32]]) -> NDArray[np.float32]:
    """(2 N, C, S, S): the pictures and their mirror images."""
    batch = np.stack(pictures).transpose(0, 3, 1, 2)
    return np.ascontiguousarray(np.concatenate([batch, batch[..., ::-1]]))
