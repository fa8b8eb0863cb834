"""Reads the weight files of the judge networks: tfjs shards and Keras HDF5."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Weights = dict[str, NDArray[np.float32]]


def read_tfjs_weights(manifest: Path) -> Weights:
    """Named float32 tensors of a tfjs weight manifest and the binary shards beside it.

    A tensor marked `quantization: uint8/uint16` stores `q` with `value = q * scale + min`; `float16` stores
    halves.
    Source: the weight format of https://github.com/tensorflow/tfjs, tfjs-core/src/io.

    Raises ValueError when the shards are shorter or longer than the manifest says.
    """
    weights: Weights = {}
    for group in json.loads(manifest.read_text()):
        shards = b"".join((manifest.parent / name).read_bytes() for name in group["paths"])
        offset = 0
        for entry in group["weights"]:
            quantization: dict[str, Any] = entry.get("quantization", {})
            stored = np.dtype(quantization.get("dtype", entry["dtype"])).newbyteorder("<")
            count = int(np.prod(entry["shape"], dtype=np.int64))
            end = offset + count * stored.itemsize
            if end > len(shards):
                raise ValueError(
                    f"{manifest.name}: {entry['name']} ends at byte {end}, shards have {len(shards)}"
                )
            values = np.frombuffer(shards, stored, count, offset).astype(np.float32)
            if "scale" in quantization:
                values = values * np.float32(quantization["scale"]) + np.float32(quantization["min"])
            weights[entry["name"]] = values.reshape(entry["shape"])
            offset = end
        if offset != len(shards):
            raise ValueError(f"{manifest.name}: {offset} bytes wanted, shards have {len(shards)}")
    return weights


def read_keras_hdf5(path: Path) -> tuple[list[dict[str, Any]], Weights]:
    """Layer configurations and weights (`layer/kernel`, `layer/gamma`, …) of a Keras 2 functional model.

    h5py is imported here because only the one-off conversion needs it.
    """
    import h5py  # type: ignore[import-not-found,import-untyped,unused-ignore]

    weights: Weights = {}
    with h5py.File(path, "r") as file:
        layers: list[dict[str, Any]] = json.loads(file.attrs["model_config"])["config"]["layers"]

        def collect(name: str, item: Any) -> None:
            if isinstance(item, h5py.Dataset):
                layer, leaf = name.split("/")[0], name.split("/")[-1].split(":")[0]
                weights[f"{layer}/{leaf}"] = np.asarray(item, np.float32)

        file["model_weights"].visititems(collect)
    return layers, weights
