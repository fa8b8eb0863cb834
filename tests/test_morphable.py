"""The head model file: what is written comes back, and nothing else is believed."""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fastface import morphable
from fastface.errors import BadModelFile, WriteFailed
from fastface.morphable import ARRAYS, Correspondence, HeadModel


def small_model() -> HeadModel:
    """A tetrahedron with two modes and three expressions, symmetric in x."""
    vertices = np.array([[-1, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]], np.float32) * 50
    random = np.random.RandomState(0)
    marks = [
        Correspondence(np.arange(count, dtype=np.int32) % 4, np.full((count, 3), 1 / 3, np.float32))
        for count in (478, 68)
    ]
    return HeadModel(
        name="tetrahedron",
        source="made for a test",
        license="CC0-1.0",
        vertices=vertices,
        triangles=np.array([[0, 1, 3], [1, 2, 3], [2, 0, 3], [0, 2, 1]], np.int32),
        materials=np.array([0, 1, 2, 8], np.uint8),
        identity=random.standard_normal((2, 4, 3)).astype(np.float16),
        expression=random.standard_normal((3, 4, 3)).astype(np.float16),
        expression_names=("jawOpen", "mouthSmileLeft", "mouthSmileRight"),
        albedo=np.full((4, 3), 128, np.uint8),
        landmarks478=marks[0],
        landmarks68=marks[1],
        mirror=np.array([1, 0, 2, 3], np.int32),
    )


def arrays_of(path: Path) -> dict[str, Any]:
    with np.load(path) as archive:
        return {key: archive[key] for key in archive.files}


def assert_same(one: HeadModel, other: HeadModel) -> None:
    for field in ("vertices", "triangles", "materials", "identity", "expression", "albedo", "mirror"):
        first, second = getattr(one, field), getattr(other, field)
        assert first.dtype == second.dtype
        np.testing.assert_array_equal(first, second)
    for field in ("landmarks478", "landmarks68"):
        np.testing.assert_array_equal(getattr(one, field).triangle, getattr(other, field).triangle)
        np.testing.assert_array_equal(getattr(one, field).bary, getattr(other, field).bary)
    for field in ("name", "source", "license", "expression_names"):
        assert getattr(one, field) == getattr(other, field)


# ------------------------------------------------------------------------------------------ coming back


def test_a_model_comes_back_as_it_was_written(tmp_path: Path) -> None:
    morphable.save(small_model(), tmp_path / "head.npz")
    assert_same(morphable.load(tmp_path / "head.npz"), small_model())


def test_a_model_without_modes_expressions_or_mirror_comes_back(tmp_path: Path) -> None:
    bare = replace(
        small_model(),
        identity=np.zeros((0, 4, 3), np.float16),
        expression=np.zeros((0, 4, 3), np.float16),
        expression_names=(),
        mirror=np.zeros(0, np.int32),
    )
    morphable.save(bare, tmp_path / "head.npz")
    assert_same(morphable.load(tmp_path / "head.npz"), bare)


def test_the_same_model_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one.npz", "two.npz"):
        morphable.save(small_model(), tmp_path / name)
    assert (tmp_path / "one.npz").read_bytes() == (tmp_path / "two.npz").read_bytes()


def test_numpy_reads_the_file_without_pickles(tmp_path: Path) -> None:
    morphable.save(small_model(), tmp_path / "head.npz")
    assert set(arrays_of(tmp_path / "head.npz")) == set(ARRAYS)


def test_shaped_adds_the_weighted_bases() -> None:
    model = small_model()
    identity, expression = np.array([0.5, -2.0]), np.array([1.0, 0.25, 0.0])
    wanted = model.vertices.astype(np.float64)
    for weight, mode in zip(identity, model.identity, strict=True):
        wanted = wanted + weight * mode
    for weight, field in zip(expression, model.expression, strict=True):
        wanted = wanted + weight * field
    np.testing.assert_allclose(model.shaped(identity, expression), wanted, atol=1e-4)
    np.testing.assert_array_equal(model.shaped(), model.vertices)
    np.testing.assert_allclose(
        model.shaped(identity[:1]), model.vertices + 0.5 * model.identity[0], atol=1e-4
    )


def test_landmarks_are_weighted_corners() -> None:
    model = small_model()
    points = model.landmarks68.points(model.vertices, model.triangles)
    np.testing.assert_allclose(points[1], model.vertices[[1, 2, 3]].mean(axis=0), atol=1e-5)


def test_the_digest_follows_the_shape_alone() -> None:
    model = small_model()
    moved = model.vertices.copy()
    moved[0, 0] += 1e-3
    assert replace(model, name="other").digest == model.digest
    assert replace(model, vertices=moved).digest != model.digest
    assert replace(model, expression_names=("jawOpen", "jawLeft", "jawRight")).digest != model.digest


# ------------------------------------------------------------------------------------------ refusing


def with_array(field: str, change: Callable[[Any], Any]) -> Callable[[dict[str, Any]], None]:
    def apply(arrays: dict[str, Any]) -> None:
        arrays[field] = change(arrays[field])

    return apply


def poke(field: str, place: Any, value: Any) -> Callable[[dict[str, Any]], None]:
    def apply(arrays: dict[str, Any]) -> None:
        arrays[field][place] = value

    return apply


HOSTILE: dict[str, Callable[[dict[str, Any]], Any]] = {
    "array missing": lambda a: a.pop("triangles"),
    "other format": with_array("format", lambda _: np.array("zip")),
    "later version": with_array("version", lambda _: np.array(2, np.int32)),
    "version not a number": with_array("version", lambda _: np.array("1")),
    "NaN vertex": poke("vertices", (0, 0), np.nan),
    "infinite vertex": poke("vertices", (1, 2), np.inf),
    "vertex a mile off": poke("vertices", (1, 2), 1.6e6),
    "NaN mode": poke("identity", (0, 0, 0), np.nan),
    "infinite expression": poke("expression", (0, 0, 0), -np.inf),
    "index past the end": poke("triangles", (0, 0), 4),
    "negative index": poke("triangles", (0, 0), -1),
    "unknown material": poke("materials", 0, 9),
    "no vertices": with_array("vertices", lambda x: x[:0]),
    "no triangles": with_array("triangles", lambda x: x[:0]),
    "vertices in double": with_array("vertices", lambda x: x.astype(np.float64)),
    "vertices big-endian": with_array("vertices", lambda x: x.astype(">f4")),
    "vertices in Fortran order": with_array("vertices", np.asfortranarray),
    "vertices flat": with_array("vertices", np.ravel),
    "vertices in the plane": with_array("vertices", lambda x: x[:, :2].copy()),
    "triangles of quads": with_array("triangles", lambda x: x[:, [0, 1, 2, 2]].copy()),
    "materials too few": with_array("materials", lambda x: x[:-1]),
    "modes of another mesh": with_array("identity", lambda x: x[:, :3].copy()),
    "expressions of another mesh": with_array("expression", lambda x: x[:, :3].copy()),
    "albedo in grey": with_array("albedo", lambda x: x[:, :1].copy()),
    "name too few": with_array("expression_names", lambda x: x[:-1]),
    "name twice": poke("expression_names", 1, "jawOpen"),
    "unknown name": poke("expression_names", 1, "earWiggle"),
    "names as objects": with_array("expression_names", lambda x: x.astype(object)),
    "vertices as objects": with_array("vertices", lambda x: x.astype(object)),
    "text too long": with_array("name", lambda _: np.array("x" * 5000)),
    "no name": with_array("name", lambda _: np.array("")),
    "landmark past the end": poke("landmarks478_triangle", 3, 4),
    "landmark before the start": poke("landmarks68_triangle", 3, -1),
    "landmarks too few": with_array("landmarks68_triangle", lambda x: x[:-1]),
    "weights do not sum to 1": poke("landmarks478_bary", (0, 0), 0.9),
    "negative weight": poke("landmarks68_bary", 0, [-1.0, 1.0, 1.0]),
    "NaN weight": poke("landmarks68_bary", (0, 0), np.nan),
    "mirror past the end": poke("mirror", 0, 4),
    "mirror no involution": with_array("mirror", lambda _: np.array([1, 2, 0, 3], np.int32)),
    "mirror too short": with_array("mirror", lambda x: x[:-1]),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_arrays_are_refused(case: str, tmp_path: Path) -> None:
    path = tmp_path / "head.npz"
    morphable.save(small_model(), path)
    arrays = arrays_of(path)
    HOSTILE[case](arrays)
    np.savez(path, **arrays)
    with pytest.raises(BadModelFile, match=r"head\.npz"):
        morphable.load(path)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"not a zip", b"\x93NUMPY" + bytes(80)])
def test_other_files_are_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "head.npz").write_bytes(content)
    with pytest.raises(BadModelFile):
        morphable.load(tmp_path / "head.npz")


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "nothing.npz", tmp_path):
        with pytest.raises(BadModelFile):
            morphable.load(path)


def test_truncation_anywhere_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "head.npz"
    morphable.save(small_model(), path)
    whole = path.read_bytes()
    for length in range(0, len(whole), 97):
        path.write_bytes(whole[:length])
        with pytest.raises(BadModelFile):
            morphable.load(path)


def test_declared_sizes_are_checked_before_anything_is_inflated(tmp_path: Path) -> None:
    """A few kilobytes that promise gigabytes, in the archive's directory or in the array's header."""
    path = tmp_path / "bomb.npz"
    morphable.save(small_model(), path)
    arrays = arrays_of(path)
    big = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        big, {"descr": "<f4", "fortran_order": False, "shape": (400_000_000, 3)}
    )
    for promised in (None, 2**40):
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for key, array in arrays.items():
                one = io.BytesIO()
                np.lib.format.write_array(one, np.asanyarray(array))
                archive.writestr(f"{key}.npy", big.getvalue() if key == "vertices" else one.getvalue())
            if promised is not None:
                archive.getinfo("vertices.npy").file_size = promised
        with pytest.raises(BadModelFile, match="bytes"):
            morphable.load(path)


def test_a_real_bomb_is_refused_unread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Zeros far beyond the limit, honestly declared."""
    path = tmp_path / "bomb.npz"
    morphable.save(small_model(), path)
    monkeypatch.setattr(morphable, "MAX_ARRAY_BYTES", 1_000_000)
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        kept = {info.filename: archive.read(info) for info in archive.infolist()}
    kept["identity.npy"] = kept["identity.npy"] + bytes(5_000_000)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in kept.items():
            archive.writestr(name, data)
    opened: list[str] = []
    plain = zipfile.ZipFile.open

    def watched(self: zipfile.ZipFile, name: Any, *rest: Any, **options: Any) -> Any:
        opened.append(getattr(name, "filename", name))
        return plain(self, name, *rest, **options)

    monkeypatch.setattr(zipfile.ZipFile, "open", watched)
    with pytest.raises(BadModelFile, match="declares"):
        morphable.load(path)
    assert set(opened) <= {"format.npy", "version.npy"}  # what the file is, a few bytes


def test_trailing_data_and_doubled_arrays_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "head.npz"
    morphable.save(small_model(), path)
    with zipfile.ZipFile(path) as archive:
        kept = {info.filename: archive.read(info) for info in archive.infolist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in kept.items():
            archive.writestr(name, data + (b"more" if name == "albedo.npy" else b""))
    with pytest.raises(BadModelFile, match="more"):
        morphable.load(path)
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in kept.items():
            archive.writestr(name, data)
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("albedo.npy", kept["albedo.npy"])
    with pytest.raises(BadModelFile, match="twice"):
        morphable.load(path)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.integers(0, 10**6), value=st.integers(0, 255), length=st.integers(1, 4))
def test_flipped_bytes_are_refused_or_harmless(tmp_path: Path, place: int, value: int, length: int) -> None:
    path = tmp_path / "head.npz"
    morphable.save(small_model(), path)
    data = bytearray(path.read_bytes())
    place %= len(data)
    data[place : place + length] = struct.pack("B", value) * len(data[place : place + length])
    path.write_bytes(bytes(data))
    try:
        model = morphable.load(path)
    except BadModelFile:
        return
    morphable.validate(model)


# ------------------------------------------------------------------------------------------ writing


def test_an_invalid_model_is_not_written_and_the_old_file_stays(tmp_path: Path) -> None:
    path = tmp_path / "head.npz"
    morphable.save(small_model(), path)
    before = path.read_bytes()
    broken = replace(small_model(), triangles=np.full((4, 3), 99, np.int32))
    with pytest.raises(BadModelFile, match="triangles"):
        morphable.save(broken, path)
    assert path.read_bytes() == before


def test_a_write_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(morphable, "write_archive", full)
    with pytest.raises(WriteFailed, match="No space"):
        morphable.save(small_model(), tmp_path / "head.npz")
    assert not list(tmp_path.iterdir())
    monkeypatch.undo()
    with pytest.raises(WriteFailed):
        morphable.save(small_model(), tmp_path / "no folder" / "head.npz")
