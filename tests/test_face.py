"""A fitted face and its file: what comes back, and what is refused."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fastface.affect import Affect
from fastface.camera import FLIP, Camera, rotation_of
from fastface.engine import Engine
from fastface.errors import BadModelFile, NoFaceFound, WriteFailed
from fastface.face import FittedFace
from fastface.fitting import FaceFitter
from fastface.morphable import HeadModel, load_default

SIDE = 160
Arrays = dict[str, NDArray[Any]]


@pytest.fixture(scope="module")
def model() -> HeadModel:
    return load_default()


@pytest.fixture(scope="module")
def engine(model: HeadModel) -> Engine:
    return Engine(model, threads=1)


def fitted(model: HeadModel, yaw: float = 8.0, pitch: float = 0.0, scale: float = 1.0) -> FittedFace:
    """A face that no network had to find: the model's own landmarks on a photo of noise."""
    rng = np.random.default_rng(0)
    head = model.landmarks478.points(model.shaped(rng.normal(size=20) * 0.5), model.triangles)
    rotation = FLIP @ rotation_of(np.radians([-pitch, 0, 0])) @ rotation_of(np.radians([0, yaw, 0]))
    camera = Camera(rotation, np.array([2.0, -30.0, 700.0]), 250.0 * scale, np.full(2, SIDE / 2))
    points = camera.project(camera.to_camera(head)).astype(np.float32)
    points += rng.normal(size=points.shape).astype(np.float32) * 0.2
    fit = FaceFitter(model).fit(points, SIDE, SIDE)
    return FittedFace(
        photo=rng.integers(0, 256, (SIDE, SIDE, 3), np.uint8),
        landmarks_px=points,
        rotation=fit.camera.rotation,
        translation_mm=fit.camera.translation_mm,
        focal_px=fit.camera.focal_px,
        identity=fit.identity,
        expression=fit.expression,
        fit_residual_px=fit.residual_px,
        model_hash=model.digest,
    )


@pytest.fixture(scope="module")
def face(model: HeadModel) -> FittedFace:
    return fitted(model)


@pytest.fixture
def arrays(face: FittedFace, tmp_path: Path) -> Arrays:
    face.save(tmp_path / "whole.npz")
    with np.load(tmp_path / "whole.npz") as archive:
        return {name: archive[name] for name in archive.files}


def written(path: Path, arrays: Arrays) -> Path:
    np.savez(path, **arrays)  # type: ignore[arg-type]
    return path


def test_saved_and_loaded_is_the_same(face: FittedFace, engine: Engine, tmp_path: Path) -> None:
    face.save(tmp_path / "face.npz")
    again = FittedFace.load(tmp_path / "face.npz")
    for item in fields(FittedFace):
        before, after = getattr(face, item.name), getattr(again, item.name)
        np.testing.assert_array_equal(before, after, err_msg=item.name)
        if isinstance(before, np.ndarray):
            assert after.dtype == before.dtype, item.name
    assert again.photo_sha256 == face.photo_sha256
    smile = Affect.expression("happy", 0.7)
    np.testing.assert_array_equal(engine.render(again, smile), engine.render(face, smile))


def test_any_layout_of_arrays_can_be_saved(face: FittedFace, tmp_path: Path) -> None:
    odd = replace(
        face,
        photo=np.asfortranarray(face.photo),
        rotation=np.asfortranarray(face.rotation),
        landmarks_px=np.asfortranarray(face.landmarks_px),
    )
    odd.save(tmp_path / "face.npz")
    np.testing.assert_array_equal(FittedFace.load(tmp_path / "face.npz").photo, face.photo)


def test_a_face_cannot_be_changed(face: FittedFace) -> None:
    for array in (face.photo, face.landmarks_px, face.rotation, face.identity):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0
    with pytest.raises(AttributeError):
        face.focal_px = 1.0  # type: ignore[misc]


def test_nothing_is_left_behind_when_writing_fails(face: FittedFace, tmp_path: Path) -> None:
    with pytest.raises(WriteFailed):
        face.save(tmp_path / "nowhere" / "face.npz")
    (tmp_path / "folder.npz").mkdir()
    with pytest.raises(WriteFailed):
        face.save(tmp_path / "folder.npz")
    assert os.listdir(tmp_path) == ["folder.npz"]


def test_numbers_about_a_face(face: FittedFace) -> None:
    eyes = face.landmarks_px[[33, 263]]
    assert face.eye_distance_px == pytest.approx(float(np.hypot(*(eyes[0] - eyes[1]))))
    assert face.yaw_deg == pytest.approx(8, abs=2)
    assert face.fit_error_unwarped_px.shape == (478,)
    assert 0 < face.fit_error_unwarped_px.mean() < 0.5


# ------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"scale": 0.3}, "too small"),
        ({"yaw": 62.0}, "turned away"),
        ({"yaw": -62.0}, "turned away"),
        ({"pitch": 55.0}, "turned away"),
    ],
)
def test_faces_that_cannot_be_rendered_say_why(
    model: HeadModel, change: dict[str, float], reason: str
) -> None:
    with pytest.raises(NoFaceFound, match=reason):
        fitted(model, **change).check()


def test_a_face_cut_by_the_border_says_so(face: FittedFace) -> None:
    face.check()
    left = face.landmarks_px - np.array([np.quantile(face.landmarks_px[:, 0], 0.2), 0], np.float32)
    with pytest.raises(NoFaceFound, match=r"cut by the photo's border: 20% "):
        replace(face, landmarks_px=left).check()


def test_no_file_and_other_files_are_refused(tmp_path: Path, model: HeadModel) -> None:
    from fastface.morphable import DEFAULT_MODEL

    (tmp_path / "empty.npz").touch()
    (tmp_path / "text.npz").write_text("PK\x03\x04 no archive")
    with zipfile.ZipFile(tmp_path / "archive.npz", "w") as archive:
        archive.writestr("photo.npy", b"no array")
    for path in (*sorted(tmp_path.iterdir()), DEFAULT_MODEL, tmp_path / "missing.npz", tmp_path):
        with pytest.raises(BadModelFile, match=path.name):
            FittedFace.load(path)


def bad_values(arrays: Arrays) -> dict[str, Arrays]:
    """Files that differ from a good one in one array."""

    def one(name: str, change: Callable[[NDArray[Any]], Any]) -> Arrays:
        return {**arrays, name: np.asarray(change(arrays[name].copy()))}

    def spoiled(value: float) -> Callable[[NDArray[Any]], NDArray[Any]]:
        def change(array: NDArray[Any]) -> NDArray[Any]:
            array.reshape(-1)[-1:] = value
            return array

        return change

    made: dict[str, Arrays] = {}
    for name, array in arrays.items():
        made[f"{name} missing"] = {key: value for key, value in arrays.items() if key != name}
        made[f"{name} has another axis"] = one(name, lambda a: a[None])
        made[f"{name} is complex"] = one(name, lambda a: np.zeros(a.shape, np.complex128))
        made[f"{name} is an object"] = one(name, lambda a: np.array(None, object))
        if array.dtype.kind == "f":
            for value in (np.nan, np.inf, -np.inf, 1e30):
                made[f"{name} holds {value}"] = one(name, spoiled(value))
    for name in ("landmarks_px", "rotation", "translation_mm", "fit_residual_px"):
        made[f"{name} is short"] = one(name, lambda a: a[:-1])
    made["other format"] = one("format", lambda a: "fastface-head-model")
    made["other version"] = one("version", lambda a: np.int32(2))
    made["no hash"] = one("model_hash", lambda a: "no hash")
    made["grey photo"] = one("photo", lambda a: a[:, :, :1])
    made["empty photo"] = one("photo", lambda a: a[:0])
    made["mirrored"] = one("rotation", lambda a: a * [[-1], [1], [1]])
    made["scaled"] = one("rotation", lambda a: a * 0.9)
    made["from behind"] = one("rotation", lambda a: a @ np.diag([-1.0, 1, -1]))
    made["behind the camera"] = one("translation_mm", lambda a: -a)
    made["no focal length"] = one("focal_px", lambda a: np.float64(0))
    made["photo of one pixel"] = one("photo", lambda a: a[:1, :1])
    made["landmarks on one point"] = one("landmarks_px", lambda a: a * 0 + 50)
    return made


def test_files_with_one_bad_array_are_refused(arrays: Arrays, tmp_path: Path) -> None:
    FittedFace.load(written(tmp_path / "good.npz", arrays))
    for name, bad in bad_values(arrays).items():
        path = written(tmp_path / "bad.npz", bad)
        try:
            FittedFace.load(path)
        except BadModelFile as error:
            assert str(path) in str(error), name  # noqa: PT017 — many files, one loop
        else:
            pytest.fail(f"{name}: was loaded")


@pytest.mark.filterwarnings("error")
def test_files_that_contradict_themselves_are_refused_by_the_engine(
    arrays: Arrays, engine: Engine, tmp_path: Path
) -> None:
    """What no look at one array shows: numbers of coefficients, landmarks that are not the fit's."""
    rng = np.random.default_rng(0)
    contradictions: dict[str, Arrays] = {
        "other model": {"model_hash": np.array("0" * 64)},
        "fewer identities": {"identity": arrays["identity"][:-1]},
        "more identities": {"identity": np.zeros(5000, np.float32)},
        "no expression": {"expression": np.zeros(0, np.float32)},
        "more expressions": {"expression": np.zeros(53, np.float32)},
        "other identity": {"identity": rng.normal(size=60).astype(np.float32) * 10},
        "other place": {"translation_mm": arrays["translation_mm"] + np.array([40.0, 0, 0])},
        "other focal length": {"focal_px": np.array(2e4)},
        "shifted": {"landmarks_px": arrays["landmarks_px"] + np.float32(3)},
        "wild": {
            "landmarks_px": arrays["landmarks_px"] + (wild := rng.normal(size=(478, 2)).astype("f4") * 9),
            "fit_residual_px": arrays["fit_residual_px"] + wild,
        },
    }
    for name, change in contradictions.items():
        loaded = FittedFace.load(written(tmp_path / f"{name}.npz", {**arrays, **change}))
        with pytest.raises(BadModelFile):
            engine.render(loaded)


def test_damaged_files_never_raise_anything_else(face: FittedFace, tmp_path: Path) -> None:
    face.save(tmp_path / "whole.npz")
    whole = (tmp_path / "whole.npz").read_bytes()
    with zipfile.ZipFile(io.BytesIO(whole)) as archive:
        small = [info.header_offset for info in archive.infolist() if info.file_size < 10_000]
    rng = np.random.default_rng(0)
    refused = 0
    for trial in range(400):
        data = bytearray(whole)
        if trial % 4 == 0:
            del data[rng.integers(len(data)) :]
        else:
            # Most of the file is the photo; headers, directory and small arrays are hit as often.
            near = [*small, len(data) - 400]
            at = int(rng.integers(len(data)) if trial % 4 == 1 else rng.choice(near) + rng.integers(400))
            data[min(at, len(data) - 1)] = int(rng.integers(256))
        (tmp_path / "bad.npz").write_bytes(data)
        try:
            FittedFace.load(tmp_path / "bad.npz")
        except BadModelFile:
            refused += 1
    assert refused > 200


def test_mutated_numbers_render_or_are_refused(arrays: Arrays, engine: Engine, tmp_path: Path) -> None:
    """A well-formed file with any numbers in it: a frame of the right size, or ``BadModelFile``."""
    rng = np.random.default_rng(1)
    floats = [name for name, array in arrays.items() if array.dtype.kind == "f"]
    rendered = 0
    for trial in range(42):
        changed = {name: array.copy() for name, array in arrays.items()}
        name = floats[trial % len(floats)]
        flat = changed[name].reshape(-1)
        at = rng.integers(len(flat), size=1 + trial % 3)
        flat[at] += rng.normal(size=len(at)) * 10 ** rng.uniform(-4, 3)
        try:
            loaded = FittedFace.load(written(tmp_path / "bad.npz", changed))
            frame = engine.render(loaded, Affect.expression("surprise"))
        except BadModelFile:
            continue
        assert frame.shape == loaded.photo.shape
        rendered += 1
    assert 0 < rendered < 42
