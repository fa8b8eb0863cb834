"""Published face models become head models: read in their authors' formats, carried whole, hostile files
refused.
"""

from __future__ import annotations

import contextlib
import copy
import json
import pickle
import struct
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import published_models as made
import pytest
from published_models import Person
from typer.testing import CliRunner

from fastface.errors import BadModelFile, NoFaceFound, ProviderUnavailable
from fastface.importers.bfm import read_bfm
from fastface.importers.correspondence_map import similarity
from fastface.importers.flame import read_flame
from fastface.importers.gltf import read_gltf
from fastface.importers.gnm import read_gnm
from fastface.importers.kinds import KINDS
from fastface.importers.lsfm import read_lsfm
from fastface.importers.obj import HEADS
from fastface.importers.ply import read_ply
from fastface.importers.published import Published, arkit_name
from fastface.importers.sequence import read_sequence
from fastface.importers.surrey import read_surrey
from fastface.morphable import ARKIT_NAMES, HeadModel, load, load_default

pytest.importorskip("scipy")

Array = np.ndarray
GLTF_NAMES = ("jawOpen", "mouthSmileLeft", "mouthSmileRight", "eyeBlinkLeft", "eyeBlinkRight", "browInnerUp")


@pytest.fixture(scope="module")
def one() -> Person:
    return made.person()


def spread(identity: Array) -> Array:
    """Covariance of a few vertices under the modes: the same for any basis of the same people."""
    flat = identity[:, ::97].reshape(len(identity), -1).astype(np.float64)
    return np.asarray(flat.T @ flat)


# ---------------------------------------------------------------- the authors' formats


@pytest.mark.parametrize(
    ("name", "write", "read", "unit_mm"),
    [
        ("01_MorphableModel.mat", made.write_bfm2009, read_bfm, 0.001),
        ("model2017-1_bfm_nomouth.h5", made.write_bfm2017, read_bfm, 1.0),
        ("all_all_all.mat", made.write_lsfm, read_lsfm, 1.0),
        ("generic_model.pkl", made.write_flame, read_flame, 1000.0),
        ("gnm_head.npz", made.write_gnm, read_gnm, 1000.0),
        ("sfm_shape_3448.bin", made.write_surrey, read_surrey, 1.0),
    ],
)
def test_each_format_gives_back_the_authors_arrays(
    tmp_path: Path, one: Person, name: str, write: Callable[..., Path], read: Any, unit_mm: float
) -> None:
    if name.endswith(".h5"):
        pytest.importorskip("h5py")
    face: Published = read(write(tmp_path / name, one))
    assert np.abs(face.vertices * unit_mm - one.vertices).max() < 1e-3
    wound = face.triangles[:, ::-1] if "Morphable" in name else face.triangles
    assert np.array_equal(wound, one.triangles)
    wanted = spread(one.modes)
    assert np.abs(spread(face.identity * unit_mm) - wanted).max() < 1e-3 * np.abs(wanted).max()
    assert face.license
    assert face.expressions == {}


def test_flame_reads_300_identities_and_no_expressions(tmp_path: Path, one: Person) -> None:
    face = read_flame(made.write_flame(tmp_path / "flame.pkl", one))
    assert face.identity.shape == (300, len(one.vertices), 3)
    assert not face.identity[4:].any()  # the 301st, an expression, moves everything by 10 mm
    again = read_flame(made.write_flame(tmp_path / "selected.pkl", one, selected=True))
    assert np.array_equal(again.identity, face.identity)


def test_compressed_matlab_files_are_the_same(tmp_path: Path, one: Person) -> None:
    from scipy.io import loadmat, savemat

    plain = made.write_lsfm(tmp_path / "plain.mat", one)
    arrays = {name: array for name, array in loadmat(plain).items() if name[0] != "_"}
    savemat(tmp_path / "packed.mat", arrays, do_compression=True)
    packed = read_lsfm(tmp_path / "packed.mat")
    assert packed.name == "lsfm"
    assert np.array_equal(packed.vertices, read_lsfm(plain).vertices)
    assert np.array_equal(packed.identity, read_lsfm(plain).identity)


def test_the_basel_neutral_is_shape_plus_expression_and_older_files_are_scaled(
    tmp_path: Path, one: Person
) -> None:
    pytest.importorskip("h5py")
    plain = read_bfm(made.write_bfm2017(tmp_path / "model2019_fullHead.h5", one))
    assert plain.name == "bfm2019"
    assert plain.vertices[0] == pytest.approx(
        one.vertices[0], abs=1e-3
    )  # half a millimetre is the expressions'
    assert plain.colour is not None
    assert plain.colour[0].tolist() == [204, 153, 127]
    scaled = read_bfm(made.write_bfm2017(tmp_path / "scaled.h5", one, scaled=True))
    assert np.abs(scaled.identity - plain.identity).max() < 1e-3


def test_every_version_of_eos_is_read(tmp_path: Path, one: Person) -> None:
    for version in (1, 2, 3, 4):
        face = read_surrey(made.write_surrey(tmp_path / "m.bin", one, version))
        assert face.identity.shape == (4, len(one.vertices), 3)


def shapes_of(one: Person, names: tuple[str, ...]) -> Array:
    rows = [one.model.expression_names.index(name) for name in names]
    return np.asarray(one.model.expression[rows].astype(np.float64)[:, one.rows])


@pytest.fixture(scope="module")
def glb(one: Person, tmp_path_factory: pytest.TempPathFactory) -> Path:
    names = ["jawOpen", "mouthSmile_L", "mouthSmile_R", "head.eyeBlinkLeft", "EYEBLINKRIGHT", "browInnerUp"]
    tree, blob = made.gltf_of(one, [*names, "Fcl_Joy"], shapes_of(one, (*GLTF_NAMES, "jawOpen")))
    return made.write_glb(tmp_path_factory.mktemp("gltf") / "head.glb", tree, blob)


def test_gltf_gives_named_shapes_where_its_nodes_put_them(one: Person, glb: Path) -> None:
    face = read_gltf(glb)
    assert set(face.expressions) == set(GLTF_NAMES)
    assert np.abs((face.vertices - [1, 2, 3]) * 1000 - one.vertices).max() < 1e-3
    for name, wanted in zip(GLTF_NAMES, shapes_of(one, GLTF_NAMES), strict=True):
        assert np.abs(face.expressions[name] * 1000 - wanted).max() < 1e-3
    assert face.license == "CC0"


def test_a_gltf_with_buffers_beside_it_or_within_is_the_same(one: Person, glb: Path, tmp_path: Path) -> None:
    import base64

    tree, blob = made.gltf_of(one, list(GLTF_NAMES), shapes_of(one, GLTF_NAMES))
    (tmp_path / "head.bin").write_bytes(blob)
    tree["buffers"][0]["uri"] = "head.bin"
    (tmp_path / "head.gltf").write_text(json.dumps(tree))
    beside = read_gltf(tmp_path / "head.gltf")
    tree["buffers"][0]["uri"] = "data:application/octet-stream;base64," + base64.b64encode(blob).decode()
    (tmp_path / "within.gltf").write_text(json.dumps(tree))
    within = read_gltf(tmp_path / "within.gltf")
    assert np.array_equal(beside.vertices, read_gltf(glb).vertices)
    assert np.array_equal(beside.expressions["jawOpen"], within.expressions["jawOpen"])


@pytest.mark.parametrize("kind", ["obj", "ply", "text"])
def test_a_folder_of_meshes_is_read(tmp_path: Path, one: Person, kind: str) -> None:
    def write(name: str, vertices: Array) -> None:
        if kind == "obj":
            made.write_obj(tmp_path / f"{name}.obj", vertices, one.triangles)
        else:
            made.write_ply(tmp_path / f"{name}.ply", vertices, one.triangles, text=kind == "text")

    write("neutral", one.vertices)
    for name, shape in zip(GLTF_NAMES, shapes_of(one, GLTF_NAMES), strict=True):
        write(name, one.vertices + shape)
    write("ponytail", one.vertices)
    face = read_sequence(tmp_path)
    assert set(face.expressions) == set(GLTF_NAMES)
    assert np.abs(face.vertices - one.vertices).max() < 1e-4
    assert np.abs(face.expressions["jawOpen"] - shapes_of(one, ("jawOpen",))[0]).max() < 1e-3


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("jawOpen", "jawOpen"),
        ("eyeBlink_L", "eyeBlinkLeft"),
        ("mouth_smile_right", "mouthSmileRight"),
        ("blendShape1.MouthLeft", "mouthLeft"),
        ("jaw", None),
        ("", None),
    ],
)
def test_names_are_arkits_but_for_their_spelling(text: str, name: str | None) -> None:
    assert arkit_name(text) == name


# ---------------------------------------------------------------- carried onto the default head


def rigidly(points: Array, onto: Array) -> tuple[Array, Array]:
    """``points`` turned and moved, not scaled, onto others; and the rotation."""
    _, rotation, _ = similarity(points, onto)
    return (points - points.mean(axis=0)) @ rotation.T + onto.mean(axis=0), rotation


def landmarks(model: HeadModel, vertices: Array) -> Array:
    return model.landmarks478.points(vertices.astype(np.float32), model.triangles)[:468].astype(np.float64)


@pytest.fixture(scope="module")
def basel(one: Person, tmp_path_factory: pytest.TempPathFactory) -> tuple[HeadModel, Path]:
    """A Basel model of 2009 lying on its back, its eyes and lips closed over, imported by the command."""
    from fastface.cli.app import app

    folder = tmp_path_factory.mktemp("bfm")
    turn = np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])
    whole = made.closed(one)
    lying = replace(whole, vertices=whole.vertices @ turn.T + [30, 400, -90], modes=whole.modes @ turn.T)
    source = made.write_bfm2009(folder / "01_MorphableModel.mat", lying)
    outcome = CliRunner().invoke(
        app, ["model", "import", "bfm", str(source), "-o", str(folder / "bfm.npz"), "--json"]
    )
    assert outcome.exit_code == 0, outcome.output
    told = json.loads(outcome.stdout)
    assert told["covered"] > 0.95
    assert told["median_mm"] < 0.3
    return load(folder / "bfm.npz"), folder / "bfm.npz"


def test_the_carried_face_is_the_authors(one: Person, basel: tuple[HeadModel, Path]) -> None:
    model, _ = basel
    points, _ = rigidly(landmarks(model, model.vertices), landmarks(one.model, one.whole))
    off = np.linalg.norm(points - landmarks(one.model, one.whole), axis=1)
    assert np.median(off) < 2.0  # mm along the surface, of landmarks read on bare skin
    assert np.quantile(off, 0.9) < 5.0
    assert "all 52 expressions transferred from the default head" in model.source
    assert "Basel" in model.source
    assert "non-commercial" in model.license
    eyes = model.vertices[np.unique(model.triangles[model.material_triangles("eyeballs")])]
    assert np.abs(eyes.min(axis=0) + eyes.max(axis=0))[:2].max() < 2.0  # the origin is between them


def test_the_surface_is_kept_where_it_was_read(one: Person, basel: tuple[HeadModel, Path]) -> None:
    """Along the surface vertices may slide; off it they may not."""
    from fastface.importers.correspondence_map import Surface
    from fastface.painted_face import vertex_normals

    model, _ = basel
    moved, _ = rigidly(landmarks(model, model.vertices), landmarks(one.model, one.whole))
    _, rotation, _ = similarity(landmarks(model, model.vertices), landmarks(one.model, one.whole))
    offset = landmarks(one.model, one.whole).mean(axis=0)
    middle = landmarks(model, model.vertices).mean(axis=0)
    skin = np.unique(model.triangles[model.material_triangles("skin")])
    front = skin[model.vertices[skin, 2] > 0]
    place = (model.vertices.astype(np.float64) - middle) @ rotation.T + offset
    normals = vertex_normals(place.astype(np.float32), model.triangles).astype(np.float64)
    surface = Surface(one.vertices, one.triangles.astype(np.int32))
    for _ in range(10):  # landmarks may have slid: what is left is to be no more than a rigid motion
        touch = surface.touch(place[front], normals[front], 20.0, -1.0)
        onto = surface.at(touch.triangle, touch.weights, one.vertices)
        _, again, _ = similarity(place[front], onto)
        place = (place - place[front].mean(axis=0)) @ again.T + onto.mean(axis=0)
    assert np.median(touch.distance) < 0.2
    assert np.quantile(touch.distance, 0.95) < 1.0
    assert len(moved) == 468


def test_modes_keep_their_meaning_and_size(one: Person, basel: tuple[HeadModel, Path]) -> None:
    model, _ = basel
    _, rotation = rigidly(landmarks(model, model.vertices), landmarks(one.model, one.whole))
    sewn = made.closed(one)
    _, components, deviations = made.principal(sewn, 1.0)
    flat = sewn.modes.reshape(len(sewn.modes), -1)
    mix = np.linalg.lstsq(flat.T, components * deviations, rcond=None)[0].T
    whole = np.einsum("kj,jvx->kvx", mix, one.model.identity[: len(mix)].astype(np.float64))
    for got, wanted in zip(model.identity.astype(np.float64), whole, strict=True):
        here, there = landmarks(model, got) @ rotation.T, landmarks(one.model, wanted)
        size = np.sqrt((here**2).sum() * (there**2).sum())
        assert abs((here * there).sum()) / size > 0.98  # a component's sign is its own
        assert np.sqrt((here**2).sum() / (there**2).sum()) == pytest.approx(1, abs=0.06)


def test_lips_and_lids_meet_and_eyes_are_round(basel: tuple[HeadModel, Path]) -> None:
    model, _ = basel
    default = load_default()

    def gap(head: HeadModel, upper: int, lower: int, name: str) -> float:
        shape = np.array([float(other.startswith(name)) for other in head.expression_names], np.float32)
        points = landmarks(head, head.shaped(expression=shape if name else None))
        return float(np.linalg.norm(points[upper] - points[lower]))

    assert gap(model, 13, 14, "") < gap(default, 13, 14, "") + 0.3
    assert gap(model, 386, 374, "eyeBlink") < gap(default, 386, 374, "eyeBlink") + 0.5
    assert gap(model, 386, 374, "") > 6
    assert gap(model, 13, 14, "jawOpen") > 15
    balls = np.unique(model.triangles[model.material_triangles("eyeballs")])
    left = model.vertices[balls[model.vertices[balls, 0] > 0]]
    rest = default.vertices[balls[default.vertices[balls, 0] > 0]]
    scale = np.ptp(left, axis=0) / np.ptp(rest, axis=0)
    assert scale == pytest.approx(scale.mean(), abs=1e-3)


def test_the_landmark_network_sees_its_landmarks_there(basel: tuple[HeadModel, Path]) -> None:
    from fastface.landmarks import LandmarkDetector
    from fastface.painted_face import Light, Painter, facing_view

    model, _ = basel
    view = facing_view()
    light = Light(np.array([0.0, -0.3, -0.95]), 0.5)
    (face,) = LandmarkDetector().detect(Painter(model).paint(model.vertices, view, light).rgb)
    projected = view.screen(landmarks(model, model.vertices).astype(np.float32))[:, :2]
    off = np.linalg.norm(face.points_px[:468] - projected, axis=1)
    assert off.mean() / np.linalg.norm(face.points_px[33] - face.points_px[263]) < 0.04


def test_an_imported_model_renders_a_portrait(basel: tuple[HeadModel, Path], portrait: Any) -> None:
    import fastface as ff

    _, path = basel
    photo = portrait("001", 320, 320)
    engine = ff.Engine(path)
    face = engine.fit(photo)
    assert np.array_equal(engine.render(face, ff.Affect.neutral()), photo)
    happy = engine.render(face, ff.Affect.expression("happy", 1.0)).astype(int)
    changed = np.abs(happy - photo).max(axis=2) > 8
    assert 0.005 < changed.mean() < 0.25


def test_a_head_without_identities_renders_a_portrait(portrait: Any) -> None:
    import fastface as ff

    head = load_default()
    photo = portrait("001", 320, 320)
    engine = ff.Engine(replace(head, identity=head.identity[:0]))
    face = engine.fit(photo)
    assert np.array_equal(engine.render(face, ff.Affect.neutral()), photo)
    happy = engine.render(face, ff.Affect.expression("happy", 1.0)).astype(int)
    assert 0.005 < (np.abs(happy - photo).max(axis=2) > 8).mean() < 0.25


def test_own_expressions_are_the_authors_and_the_rest_the_defaults(one: Person, glb: Path) -> None:
    from fastface.importers.kinds import import_model

    model, _ = import_model("gltf", glb)
    assert model.expression_names == ARKIT_NAMES
    assert "6 expressions the authors', 46 transferred" in model.source
    _, rotation = rigidly(landmarks(model, model.vertices), landmarks(one.model, one.whole))
    for name in (*GLTF_NAMES, "mouthPucker"):
        got = landmarks(model, model.expression[ARKIT_NAMES.index(name)].astype(np.float32)) @ rotation.T
        wanted = landmarks(one.model, one.model.expression[ARKIT_NAMES.index(name)].astype(np.float32))
        size = np.sqrt((got**2).sum() * (wanted**2).sum())
        assert (got * wanted).sum() / size > 0.93, name
    jaw = model.shaped(expression=np.array([name == "jawOpen" for name in ARKIT_NAMES], np.float32))
    teeth = np.unique(model.triangles[model.material_triangles("teeth")])
    drop = (model.vertices - jaw)[teeth, 1]
    assert drop.min() < 1  # upper teeth stay,
    assert drop.max() > 8  # the lower ones go with the authors' jaw


def test_seams_are_closed_but_lips_that_touch_stay_apart() -> None:
    from fastface.importers.components import main_part

    square = np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 0, 0], [0, 1, 0], [1, 1, 0]])
    hat = np.array([[5.0, 5, 5], [6, 5, 5], [5, 6, 5]])
    vertices, triangles = np.concatenate([square, hat]), np.array([[0, 1, 2], [3, 5, 4], [6, 7, 8]], np.int32)
    seen = np.array([1, 1, -1])
    assert main_part(vertices, triangles, seen).tolist() == [[0, 1, 2], [1, 5, 2]]
    opened = vertices + np.array([[0.0, -0.1 * (row in (3, 4)), 0] for row in range(9)])
    assert main_part(vertices, triangles, seen, opened).tolist() == [[3, 5, 4]]


# ---------------------------------------------------------------- meshes that are no face of a known size


def test_a_size_that_no_unit_explains_is_refused_and_can_be_told(one: Person) -> None:
    from fastface.importers.laying import pose_of
    from fastface.importers.template import template

    home = template()
    marks = home.marks
    for unit in (0.001, 1.0, 10.0, 1000.0):
        pose = pose_of(home, marks._replace(points=marks.points / unit), None, "here")
        assert pose.unit_mm == unit
        assert np.abs(pose.rotation - np.eye(3)).max() < 1e-6
    odd = marks._replace(points=marks.points / 300)
    with pytest.raises(BadModelFile, match=r"human size if its unit is 300 mm .*--unit"):
        pose_of(home, odd, None, "here")
    assert pose_of(home, odd, 300.0, "here").unit_mm == 300


class Blind:
    def detect(self, rgb: Array, max_faces: int = 1) -> list[Any]:
        return []


def test_a_mesh_without_a_face_is_refused(one: Person) -> None:
    from fastface.importers.carrying import carry

    face = Published("ball", "here", "CC0", one.vertices, one.triangles.astype(np.int32), one.modes[:0])
    with pytest.raises(NoFaceFound, match="whichever way it is turned"):
        carry(face, "ball", detector=Blind())


def test_a_face_that_the_mesh_does_not_follow_is_refused(one: Person) -> None:
    """Landmarks as of a face, on a surface that is none."""
    from fastface.importers.correspondence_map import Surface
    from fastface.importers.laying import Pose, lay
    from fastface.importers.template import template

    home = template()
    rng = np.random.default_rng(0)
    rough = one.vertices + rng.normal(0, 6, one.vertices.shape)
    surface = Surface(rough, one.triangles.astype(np.int32))
    pose = Pose(1.0, np.eye(3), np.zeros(3))
    with pytest.raises(BadModelFile, match="laid onto"):
        lay(home, pose, home.marks, surface, "rough")


# ---------------------------------------------------------------- hostile files


def small(one: Person) -> Person:
    """The same format in a few kilobytes; no face, but nothing looks before it is read."""
    keep = (one.triangles < 300).all(axis=1)
    triangles = one.triangles[keep] if keep.any() else np.array([[0, 1, 2]])
    return replace(one, vertices=one.vertices[:300], modes=one.modes[:, :300], triangles=triangles)


WRITERS = {
    "bfm": ("b.mat", made.write_bfm2009),
    "bfm2017": ("b.h5", made.write_bfm2017),
    "lsfm": ("l.mat", made.write_lsfm),
    "flame": ("f.pkl", made.write_flame),
    "gnm": ("g.npz", made.write_gnm),
    "surrey": ("s.bin", made.write_surrey),
}


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize(
    ("vandalise", "complaint"),
    [
        (lambda one: replace(one, vertices=np.where(np.arange(3) == 1, np.nan, one.vertices)), "finite"),
        (lambda one: replace(one, triangles=one.triangles - one.triangles.max()), "triangles|index|count"),
        (lambda one: replace(one, triangles=one.triangles + 10_000), "index"),
        (lambda one: replace(one, triangles=one.triangles[:0]), "triangles|bytes"),
    ],
)
def test_wrong_numbers_are_refused(
    tmp_path: Path, one: Person, kind: str, vandalise: Callable[[Person], Person], complaint: str
) -> None:
    name, write = WRITERS[kind]
    if name.endswith(".h5"):
        pytest.importorskip("h5py")
    read = KINDS[kind.removesuffix("2017")].read
    read(write(tmp_path / name, small(one)))  # right before the change
    changed = vandalise(small(one))
    with pytest.raises(BadModelFile, match=complaint):
        read(write(tmp_path / name, changed))


@pytest.mark.parametrize("kind", WRITERS)
def test_truncated_flipped_and_foreign_files_are_refused(tmp_path: Path, one: Person, kind: str) -> None:
    name, write = WRITERS[kind]
    if name.endswith(".h5"):
        pytest.importorskip("h5py")
    read = KINDS[kind.removesuffix("2017")].read
    path = write(tmp_path / name, small(one))
    data = path.read_bytes()
    rng = np.random.default_rng(1)
    for cut in (0, 3, 20, 200, len(data) // 2, 2 * len(data) // 3):
        path.write_bytes(data[:cut])
        with pytest.raises(BadModelFile):
            read(path)
    for _ in range(40):  # a flipped byte may be harmless; it must never be anything but a typed error
        bad = bytearray(data)
        bad[int(rng.integers(min(len(bad), 3000)))] ^= int(rng.integers(1, 256))
        path.write_bytes(bytes(bad))
        with contextlib.suppress(BadModelFile):
            read(path)
    path.write_bytes(b"hello" * 100)
    with pytest.raises(BadModelFile):
        read(path)
    with pytest.raises(BadModelFile, match=r"none|cannot be read"):
        read(tmp_path / "absent")
    with pytest.raises(BadModelFile):
        read(tmp_path)


class Call:
    """Pickled, asks for a call."""

    def __reduce__(self) -> Any:
        import os

        return os.system, ("touch should-not-exist",)


@pytest.mark.parametrize(
    ("extra", "complaint"),
    [
        ({"v_template": Call()}, r"asks for \w+.system"),
        ({"weights": Call()}, r"asks for \w+.system"),
        ({"v_template": [[0.0, 0.0, 0.0]]}, "wanted an array"),
        ({"shapedirs": np.zeros((2, 3, 4))}, "wanted shapedirs"),
        ({"v_template": np.zeros((300, 3), complex)}, "numpy type|real numbers"),
        ({"f": np.full((4, 3), -1)}, "count from 0"),
        ({"f": np.full((4, 3), 0.5)}, "whole"),
    ],
)
def test_pickles_that_ask_for_anything_else_are_refused(
    tmp_path: Path, one: Person, extra: dict[str, Any], complaint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = made.write_flame(tmp_path / "f.pkl", small(one), extra=extra)
    with pytest.raises(BadModelFile, match=complaint):
        read_flame(path)
    assert not (tmp_path / "should-not-exist").exists()


def test_a_chumpy_selection_stays_within_its_array(tmp_path: Path, one: Person) -> None:
    modules = made.chumpy_classes("chumpy.ch.Ch", "chumpy.reordering.Select")
    sys.modules.update(modules)
    try:
        inner = modules["chumpy.ch"].Ch()
        inner.__dict__ = {"x": np.zeros(5)}
        loop = modules["chumpy.reordering"].Select()
        loop.__dict__ = {"a": loop, "idxs": np.arange(3), "preferred_shape": (1, 3)}
        outside = modules["chumpy.reordering"].Select()
        outside.__dict__ = {"a": inner, "idxs": np.array([0, 1, 99]), "preferred_shape": (1, 3)}
        wide = modules["chumpy.reordering"].Select()
        wide.__dict__ = {"a": inner, "idxs": np.arange(3), "preferred_shape": (1 << 40, 1 << 40)}
        for number, bad in enumerate((loop, outside, wide)):
            (tmp_path / f"{number}.pkl").write_bytes(pickle.dumps({"v_template": bad}, protocol=2))
    finally:
        for name in modules:
            del sys.modules[name]
    for number in range(3):
        with pytest.raises(BadModelFile, match="selection"):
            read_flame(tmp_path / f"{number}.pkl")


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"mean": np.zeros((300, 2), complex)}, "real numbers"),
        ({"mean": np.array(["text"])}, "real numbers"),
        ({"mean": {"a": 1.0}}, "real numbers"),
        ({"mean": np.zeros((3, 4, 5))}, "matrix"),
        ({"components": np.zeros((7, 4))}, "components|vertices"),
        ({"eigenvalues": np.array([1.0, -1.0, 1.0, 1.0])}, "negative"),
        ({"trilist": np.array([[0.5, 1, 2]])}, "whole"),
        ({"trilist": np.array([[0, 1], [1, 2]])}, "triangles"),
        ({"components": np.full((900, 4), 1e30)}, "identity"),
    ],
)
def test_wrong_matlab_variables_are_refused(
    tmp_path: Path, one: Person, change: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(BadModelFile, match=complaint):
        read_lsfm(made.write_lsfm(tmp_path / "l.mat", small(one), **change))


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"vertex_identity_basis": None}, "missing"),
        ({"triangles": np.zeros((4, 3), object)}, "plain array|triangles"),
        ({"template_vertex_positions": np.zeros((300, 3), np.int32)}, "float"),
        ({"vertex_identity_basis": np.zeros((2, 9, 3), np.float32)}, "basis"),
    ],
)
def test_wrong_gnm_arrays_are_refused(
    tmp_path: Path, one: Person, change: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(BadModelFile, match=complaint):
        read_gnm(made.write_gnm(tmp_path / "g.npz", small(one), **change))


def test_sizes_that_eos_files_declare_are_checked(tmp_path: Path) -> None:
    for rows, columns in ((-3, 1), (3, -1), (2**31 - 1, 1), (300, 7)):
        (tmp_path / "s.bin").write_bytes(struct.pack("<Iii", 3, rows, columns) + b"\0" * 400)
        with pytest.raises(BadModelFile, match="wanted"):
            read_surrey(tmp_path / "s.bin")
    (tmp_path / "s.bin").write_bytes(struct.pack("<I", 9) + b"\0" * 400)
    with pytest.raises(BadModelFile, match="version 9"):
        read_surrey(tmp_path / "s.bin")


def test_hdf5_that_leaves_its_file_is_refused(tmp_path: Path, one: Person) -> None:
    h5py = pytest.importorskip("h5py")
    whole = made.write_bfm2017(tmp_path / "whole.h5", small(one))
    for number, link in enumerate(("external", "raw", "virtual")):
        path = made.write_bfm2017(tmp_path / f"{number}.h5", small(one))
        with h5py.File(path, "r+") as file:
            del file["shape/model/mean"]
            if link == "external":
                file["shape/model/mean"] = h5py.ExternalLink(str(whole), "shape/model/mean")
            elif link == "raw":
                external = [(str(whole), 0, 3600)]
                file["shape/model"].create_dataset("mean", (900,), "f4", external=external)
            else:
                layout = h5py.VirtualLayout((900,), "f4")
                layout[:] = h5py.VirtualSource(str(whole), "shape/model/mean", (900,))
                file["shape/model"].create_virtual_dataset("mean", layout)
        with pytest.raises(BadModelFile, match=r"refused|missing"):
            read_bfm(path)


@pytest.fixture(scope="module")
def gltf(one: Person) -> tuple[dict[str, Any], bytes]:
    few = small(one)
    shapes = shapes_of(one, GLTF_NAMES)[:, :300]
    shapes[0, 0] = 1.0
    return made.gltf_of(few, list(GLTF_NAMES), shapes)


def changed(tree: dict[str, Any], **paths: Any) -> dict[str, Any]:
    """A copy with values put at paths such as ``nodes.0.children``."""
    tree = copy.deepcopy(tree)
    for path, value in paths.items():
        place: Any = tree
        *way, last = path.split("__")
        for step in way:
            place = place[int(step) if step.isdigit() else step]
        place[int(last) if last.isdigit() else last] = value
    return tree


@pytest.mark.parametrize(
    ("paths", "complaint"),
    [
        ({"asset": {"version": "1.0"}}, "glTF 2"),
        ({"extensionsRequired": ["KHR_draco_mesh_compression"]}, "uncompressed"),
        ({"nodes__0__children": [0]}, "knot"),
        ({"nodes__0__children": [7]}, "nodes"),
        ({"nodes__0__children": [-1]}, "nodes"),
        ({"nodes__1__rotation": [0, 0]}, "damaged"),
        ({"nodes__1__rotation": [float("nan"), 0, 0, 1]}, "finite"),
        ({"nodes__1__scale": [1e300, 1, 1]}, "finite"),
        ({"meshes__0__extras__targetNames": ["a", "b", "c", "d", "e", "f"]}, "ARKit's names.*a, b"),
        ({"meshes__0__extras": {}}, "ARKit's names"),
        ({"meshes__0__primitives__0__mode": 1}, "triangles"),
        ({"accessors__0__count": 10**12}, "count"),
        ({"accessors__0__count": -1}, "count"),
        ({"accessors__0__count": True}, "count"),
        ({"accessors__0__count": 299}, "not there|index|over"),
        ({"accessors__0__type": "MAT4"}, "VEC3"),
        ({"accessors__0__componentType": 7}, "component"),
        ({"accessors__0__bufferView": 99}, "bufferViews"),
        ({"accessors__1__componentType": 5126}, "not negative"),
        ({"accessors__2__sparse__count": 10**9}, "count"),
        ({"accessors__2__sparse__indices__componentType": 5126}, "not negative"),
        ({"bufferViews__0__byteLength": 10**9}, "beyond"),
        ({"bufferViews__0__byteOffset": -4}, "offset"),
        ({"bufferViews__0__byteStride": 1}, "stride"),
        ({"buffers__0__uri": "../secret.bin"}, "refused to read"),
        ({"buffers__0__uri": "/etc/passwd"}, "refused to read"),
        ({"buffers__0__uri": "http://example.org/a.bin"}, "refused to read"),
        ({"buffers__0__uri": "%2e%2e/a.bin"}, "refused to read"),
        ({"buffers__0__uri": "data:text/plain;base64,!!"}, "base64"),
        ({"meshes": 5}, "list of meshes|damaged"),
        ({"scenes": [{"nodes": "all"}]}, "nodes"),
    ],
)
def test_hostile_gltf_is_refused(
    tmp_path: Path, gltf: tuple[dict[str, Any], bytes], paths: dict[str, Any], complaint: str
) -> None:
    tree, blob = gltf
    read_gltf(made.write_glb(tmp_path / "right.glb", tree, blob))
    with pytest.raises(BadModelFile, match=complaint):
        read_gltf(made.write_glb(tmp_path / "wrong.glb", changed(tree, **paths), blob))


def test_a_gltf_that_asks_for_the_same_bytes_again_and_again_is_refused(
    tmp_path: Path, gltf: tuple[dict[str, Any], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    from fastface.importers import gltf as module

    tree, blob = gltf
    monkeypatch.setattr(module, "MAX_BYTES", 4 * len(blob))
    tree = changed(tree, **{"meshes__0__primitives": tree["meshes"][0]["primitives"] * 50})
    with pytest.raises(BadModelFile, match="asks for more"):
        read_gltf(made.write_glb(tmp_path / "again.glb", tree, blob))


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data[:11],
        lambda data: data[:300],
        lambda data: data[:4] + struct.pack("<I", 1) + data[8:],
        lambda data: data[:8] + struct.pack("<I", 10**9) + data[12:],
        lambda data: data[:12] + struct.pack("<I", 10**9) + data[16:],
        lambda data: data.replace(b'{"asset"', b'["asset"', 1),
        lambda data: b"{" * 100_000,
        lambda data: b"[" * 100_000,
    ],
)
def test_a_damaged_glb_is_refused(
    tmp_path: Path, gltf: tuple[dict[str, Any], bytes], change: Callable[[bytes], bytes]
) -> None:
    path = made.write_glb(tmp_path / "a.glb", *gltf)
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(BadModelFile):
        read_gltf(path)


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        (b"element vertex 300", b"element vertex 900000000", "wanted|truncated"),
        (b"element vertex 300", b"element vertex -1", "wanted"),
        (b"property float x", b"property half x", "undamaged"),
        (b"property float x", b"property list uchar float x", "lists"),
        (b"format binary_little_endian", b"format sixbit", "undamaged"),
        (b"end_header", b"end_of_header", "header"),
        (b"ply", b"pny", "header"),
    ],
)
def test_hostile_ply_is_refused(tmp_path: Path, one: Person, old: bytes, new: bytes, complaint: str) -> None:
    few = small(one)
    made.write_ply(tmp_path / "a.ply", few.vertices, few.triangles)
    assert len(read_ply(tmp_path / "a.ply").vertices) == 300
    data = (tmp_path / "a.ply").read_bytes()
    assert old in data
    (tmp_path / "a.ply").write_bytes(data.replace(old, new, 1))
    with pytest.raises(BadModelFile, match=complaint):
        read_ply(tmp_path / "a.ply")
    (tmp_path / "a.ply").write_bytes(data[:-5])
    with pytest.raises(BadModelFile):
        read_ply(tmp_path / "a.ply")
    made.write_ply(tmp_path / "a.ply", few.vertices, few.triangles - 1000)
    with pytest.raises(BadModelFile, match="corners"):
        read_ply(tmp_path / "a.ply")


def test_text_ply_has_the_limits_of_texts(tmp_path: Path, one: Person) -> None:
    few = small(one)
    made.write_ply(tmp_path / "a.ply", few.vertices, few.triangles, text=True)
    for most, wanted in (({"bytes": 5_000}, "bytes of text"), ({"lines": 300}, "lines")):
        with pytest.raises(BadModelFile, match=wanted):
            read_ply(tmp_path / "a.ply", limits=HEADS._replace(**most))


def test_a_folder_must_hold_a_neutral_and_meshes_of_its_size(tmp_path: Path, one: Person) -> None:
    few = small(one)
    with pytest.raises(BadModelFile, match="neutral"):
        read_sequence(tmp_path)
    made.write_obj(tmp_path / "neutral.obj", few.vertices, few.triangles)
    with pytest.raises(BadModelFile, match="ARKit's names"):
        read_sequence(tmp_path)
    for name in GLTF_NAMES:
        made.write_obj(tmp_path / f"{name}.obj", few.vertices[:-1], few.triangles[:1])
    with pytest.raises(BadModelFile, match="wanted 300 vertices"):
        read_sequence(tmp_path)
    with pytest.raises(BadModelFile, match="folder"):
        read_sequence(tmp_path / "neutral.obj")


def test_what_is_not_installed_is_named_with_its_extra(
    tmp_path: Path, one: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("h5py")
    path = made.write_bfm2017(tmp_path / "b.h5", small(one))
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(ProviderUnavailable, match=r"h5py: .*fastface\[workshop\]"):
        read_bfm(path)


# ---------------------------------------------------------------- landmarks anew


def test_the_landmarks_command_finds_them_on_painted_heads(tmp_path: Path) -> None:
    from fastface.cli.app import app

    out = tmp_path / "default.npz"
    told = CliRunner().invoke(
        app, ["model", "landmarks", "default", "-o", str(out), "--renders", "4", "--json"]
    )
    assert told.exit_code == 0, told.output
    assert json.loads(told.stdout)["moved_mm"] < 3
    default, found = load_default(), load(out)
    assert np.array_equal(found.vertices, default.vertices)
    assert not np.array_equal(found.landmarks478.bary, default.landmarks478.bary)
