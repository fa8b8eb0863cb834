"""Files of torch and safetensors, read without torch."""

from __future__ import annotations

import json
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastface.checkpoints import (
    Checkpoint,
    read_checkpoint,
    read_pickled,
    read_safetensors,
    write_checkpoint,
    write_safetensors,
)
from fastface.checkpoints.torch_files import unpickled
from fastface.errors import BadArgument, BadModelFile

ARRAYS: dict[str, Any] = {
    "matrix": np.arange(12, dtype=np.float32).reshape(3, 4),
    "double": np.array([1.5, -2.0]),
    "half": np.array([[1, 2]], np.float16),
    "count": np.array([1, 2, 3], np.int64),
    "bytes": np.arange(5, dtype=np.uint8),
    "flags": np.array([True, False]),
    "number": np.array(7, np.int64),
    "nothing": np.zeros((0, 3), np.float32),
}


@pytest.mark.parametrize("new", [True, False])
def test_torch_files_give_the_tensors_that_were_saved(new: bool, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    layers = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    optimiser = torch.optim.Adam(layers.parameters())
    layers(torch.randn(2, 3, 8, 8)).sum().backward()
    optimiser.step()
    tensors = {name: torch.from_numpy(array.copy()) for name, array in ARRAYS.items()}
    base = torch.arange(24.0).reshape(4, 6)
    tensors |= {
        "turned": base.t(),
        "part": base[1:3, ::2],
        "shared": base,
        "repeated": torch.ones(1).expand(1, 1),
        "parameter": torch.nn.Parameter(torch.randn(2)),
    }
    path = tmp_path / "file.pt"
    whole = {
        "tensors": tensors,
        "short": torch.tensor([1.0, -3.14159]).bfloat16(),
        "state": layers.state_dict(),
    }
    whole |= {"optimiser": optimiser.state_dict(), "epoch": 3, "size": torch.Size([1, 2])}
    torch.save(whole, path, _use_new_zipfile_serialization=new)
    read = read_pickled(path).value
    assert read["epoch"] == 3
    assert read["size"] == (1, 2)
    assert read["optimiser"]["param_groups"][0]["lr"] == 0.001
    for name, tensor in tensors.items():
        got = read["tensors"][name].numpy()
        wanted = tensor.detach().numpy()
        assert got.dtype == wanted.dtype
        assert got.shape == wanted.shape
        np.testing.assert_array_equal(got, wanted, err_msg=name)
    np.testing.assert_array_equal(read["short"].numpy(), whole["short"].float().numpy())
    for name, tensor in layers.state_dict().items():
        np.testing.assert_array_equal(read["state"][name].numpy(), tensor.numpy())


@pytest.mark.parametrize("protocol", range(2, 6))
def test_numpy_arrays_in_pickles(protocol: int) -> None:
    arrays = {**ARRAYS, "fortran": np.asfortranarray(ARRAYS["matrix"]), "big": np.array([1, 2], ">f4")}
    del arrays["flags"]
    arrays["flags"] = ARRAYS["flags"]
    data = pickle.dumps({"arrays": arrays, "scalar": np.float64(2.5)}, protocol=min(protocol, 4))
    read = unpickled(data, "arrays.pkl").value
    assert read["scalar"] == 2.5
    for name, array in arrays.items():
        got = read["arrays"][name].numpy()
        assert got.dtype == array.dtype.newbyteorder("=")
        np.testing.assert_array_equal(got, array, err_msg=name)


def test_every_truncation_of_a_torch_file_is_told(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    path = tmp_path / "file.pt"
    for new in (True, False):
        torch.save({"a": torch.arange(10.0)}, path, _use_new_zipfile_serialization=new)
        whole = path.read_bytes()
        for size in range(1, len(whole), 7):
            path.write_bytes(whole[:size])
            with pytest.raises(BadModelFile):
                read_pickled(path)


def test_a_table_wrapped_for_several_gpus_loses_its_prefix(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    path = tmp_path / "file.pt"
    torch.save({"module.a": torch.zeros(2), "module.b.c": torch.ones(1)}, path)
    read = read_checkpoint(path)
    assert read.kind is None
    assert sorted(read.tensors) == ["a", "b.c"]


# -- safetensors ---------------------------------------------------------------------------------------------


def test_safetensors_both_ways_with_the_authors_package(tmp_path: Path) -> None:
    theirs = pytest.importorskip("safetensors.numpy")
    ours, other = tmp_path / "ours.safetensors", tmp_path / "theirs.safetensors"
    write_safetensors(ours, ARRAYS, {"made": "here"})
    loaded = theirs.load_file(str(ours))
    theirs.save_file(
        {name: np.ascontiguousarray(a) for name, a in ARRAYS.items()}, str(other), {"made": "there"}
    )
    for read, made in ((read_safetensors(ours), "here"), (read_safetensors(other), "there")):
        assert read[1] == {"made": made}
        for name, array in ARRAYS.items():
            assert read[0][name].dtype == array.dtype
            np.testing.assert_array_equal(read[0][name], array)
            np.testing.assert_array_equal(loaded[name], array)


def test_bfloat16_safetensors_are_widened(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    theirs = pytest.importorskip("safetensors.torch")
    tensor = torch.tensor([1.0, -3.14159, 1e20]).bfloat16()
    theirs.save_file({"a": tensor}, str(tmp_path / "a.safetensors"))
    read, _ = read_safetensors(tmp_path / "a.safetensors")
    np.testing.assert_array_equal(read["a"], tensor.float().numpy())


def _safetensors(header: Any, body: bytes = b"\0" * 8) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


_A = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
BAD = {
    "no JSON": _safetensors(b"{hello"),
    "a list": _safetensors(b"[1, 2, 3]"),
    "deep": _safetensors(b'{"a":' * 100_000),
    "too long": struct.pack("<Q", 1 << 60) + b"{}",
    "cut header": _safetensors({"a": _A})[:20],
    "cut data": _safetensors({"a": _A}, b"\0" * 7),
    "more data": _safetensors({"a": _A}, b"\0" * 9),
    "overlap": _safetensors({"a": _A, "b": _A}),
    "gap": _safetensors({"a": {**_A, "data_offsets": [4, 12]}}, b"\0" * 12),
    "negative": _safetensors({"a": {**_A, "data_offsets": [-8, 0]}}),
    "shape": _safetensors({"a": {**_A, "shape": [3]}}),
    "huge": _safetensors({"a": {**_A, "shape": [1 << 40, 1 << 40]}}),
    "texts": _safetensors({"a": {**_A, "shape": ["2"]}}),
    "type": _safetensors({"a": {**_A, "dtype": "F4"}}),
    "no type": _safetensors({"a": {"shape": [2], "data_offsets": [0, 8]}}),
    "metadata": _safetensors({"__metadata__": {"a": 1}}, b""),
    "conversion": _safetensors({"__metadata__": {"fastface": "{"}}, b""),
    "settings": _safetensors(
        {"__metadata__": {"fastface": '{"kind": "stylegan2", "config": 1, "sha256": "0"}'}}, b""
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_damaged_safetensors_are_refused(name: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.safetensors"
    path.write_bytes(BAD[name])
    with pytest.raises(BadModelFile):
        read_checkpoint(path)


def test_what_cannot_be_written_is_refused_and_nothing_is_left(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    with pytest.raises(BadArgument, match="complex"):
        write_safetensors(path, {"a": np.zeros(2, np.complex64)}, {})
    assert not list(tmp_path.iterdir())


def test_a_checkpoint_survives_conversion(tmp_path: Path) -> None:
    made = Checkpoint("stargan", {"a": ARRAYS["matrix"]}, {"c_dim": 5, "sizes": [1, 2]}, "x.pth", "ab" * 32)
    write_checkpoint(made, tmp_path / "a.safetensors")
    read = read_checkpoint(tmp_path / "a.safetensors", "stargan")
    assert (read.kind, read.config, read.sha256) == (made.kind, made.config, made.sha256)
    np.testing.assert_array_equal(read.tensors["a"], made.tensors["a"])
    with pytest.raises(BadModelFile, match="of stargan, not of stylegan2"):
        read_checkpoint(tmp_path / "a.safetensors", "stylegan2")
