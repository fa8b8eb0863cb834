"""ICT-FaceKit becomes a head model: right way round, right size, whatever the files hold."""

from __future__ import annotations

import io
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastface.errors import BadModelFile
from fastface.importers import ict
from fastface.importers.ict import import_ict
from fastface.importers.obj import read_obj
from fastface.morphable import ARKIT_NAMES, MATERIALS, Correspondence, HeadModel, load, save
from fastface.painted_face import rim_edges


@pytest.fixture(scope="module")
def source(shared: Path) -> Path:
    return shared / "data" / "ict_facekit"


@pytest.fixture(scope="module")
def model(source: Path) -> HeadModel:
    return import_ict(source / "ict_facekit.npz")


def moved(model: HeadModel, name: str) -> np.ndarray:
    return np.asarray(model.expression[model.expression_names.index(name)], np.float32)


def of_material(model: HeadModel, *names: str) -> np.ndarray:
    return np.unique(model.triangles[model.material_triangles(*names)])


def points(model: HeadModel, marks: Correspondence) -> np.ndarray:
    return marks.points(model.vertices, model.triangles)


# ---------------------------------------------------------------- the model


def test_every_material_but_none_of_the_shells_is_there(model: HeadModel) -> None:
    assert set(model.materials) == set(range(len(MATERIALS)))
    region = ict.load_topology().region
    for shell in (
        slice(22_221, 23_021),
        slice(23_791, 24_591),
        slice(24_591, 26_719),
    ):  # irises, then overlays
        assert (region[shell] == ict.DROPPED).all()
    assert len(of_material(model, "eyeballs")) == 2 * 770


def test_names_are_arkits_in_its_order(model: HeadModel) -> None:
    assert model.expression_names == tuple(name for name in ARKIT_NAMES if name != "tongueOut")


def test_head_space_is_millimetres_from_between_the_eyes(model: HeadModel) -> None:
    eyes = model.vertices[of_material(model, "eyeballs")]
    left, right = eyes[eyes[:, 0] > 0], eyes[eyes[:, 0] < 0]
    assert (
        58 < np.ptp(np.stack([left.mean(0), right.mean(0)]), axis=0)[0] < 68
    )  # interpupillary distance of adults
    assert abs(left[:, 1].min() + left[:, 1].max()) / 2 < 1.0
    assert abs(left[:, 2].min() + right[:, 2].min() + left[:, 2].max() + right[:, 2].max()) / 4 < 2.0
    nose = points(model, model.landmarks478)[1]
    assert nose[2] > 40
    assert nose[1] < -20
    assert abs(nose[0]) < 0.1


def test_one_sigma_is_a_persons_difference(model: HeadModel) -> None:
    # Biocular breadth has a standard deviation of about 4 mm among adults, total face height of about 7 mm.
    corners = [model.landmarks478.triangle[33], model.landmarks478.triangle[263]]
    basis = model.identity.astype(np.float32)[:, model.triangles[corners, 0], 0]
    assert 2.5 < np.sqrt(((basis[:, 0] - basis[:, 1]) ** 2).sum()) < 7.5


@pytest.mark.parametrize(
    ("name", "axis", "sign", "where"),
    [
        ("mouthSmileLeft", 0, 1, 291),  # the subject's left corner goes outwards, +x
        ("mouthSmileRight", 0, -1, 61),
        ("jawLeft", 0, 1, 152),
        ("mouthRight", 0, -1, 13),
        ("eyeBlinkLeft", 1, -1, 386),
        ("eyeBlinkRight", 1, -1, 159),
        ("browInnerUp", 1, 1, 336),
        ("browInnerUp", 1, 1, 107),
        ("jawOpen", 1, -1, 152),
        ("jawForward", 2, 1, 152),
        ("eyeLookUpLeft", 1, 1, 473),
        ("eyeLookDownRight", 1, -1, 468),
        ("eyeLookInLeft", 0, -1, 473),
        ("eyeLookOutRight", 0, -1, 468),
    ],
)
def test_shapes_move_what_their_names_say(
    model: HeadModel, name: str, axis: int, sign: int, where: int
) -> None:
    triangle, bary = model.landmarks478.triangle[where], model.landmarks478.bary[where]
    there = bary @ moved(model, name)[model.triangles[triangle]]
    assert sign * there[axis] > 1.5  # mm


def test_merged_shapes_move_both_sides_alike(model: HeadModel) -> None:
    for name in ("browInnerUp", "cheekPuff"):
        shape = moved(model, name)
        flipped = shape[model.mirror] * [-1, 1, 1]
        assert np.abs(shape - flipped).max() < 0.25 * np.abs(shape).max()
        assert np.abs(shape).max() > 4


def test_eyes_turn_as_rigid_balls(model: HeadModel) -> None:
    eyes = of_material(model, "eyeballs")
    left = eyes[model.vertices[eyes, 0] > 0]
    turned = model.vertices + moved(model, "eyeLookUpLeft")
    apart = np.linalg.norm(model.vertices[left][:, None] - model.vertices[left][None, ::7], axis=2)
    after = np.linalg.norm(turned[left][:, None] - turned[left][None, ::7], axis=2)
    assert np.abs(after - apart).max() < 0.05
    assert (moved(model, "eyeLookUpLeft")[eyes[model.vertices[eyes, 0] < 0]] == 0).all()


def test_teeth_move_with_the_jaw_that_holds_them(model: HeadModel) -> None:
    teeth = of_material(model, "teeth")
    drop = -moved(model, "jawOpen")[teeth, 1]
    upper = drop < 0.01
    assert 0.3 < upper.mean() < 0.7
    assert drop[~upper].min() > 5
    assert model.vertices[teeth[upper], 1].mean() > model.vertices[teeth[~upper], 1].mean() + 7


def test_mirror_is_the_mesh_mirrored(model: HeadModel) -> None:
    off = np.linalg.norm(model.vertices[model.mirror] - model.vertices * [-1, 1, 1], axis=1)
    assert np.quantile(off, 0.99) < 0.02
    assert off.max() < 0.5


def test_irises_are_painted_where_the_landmarks_are(model: HeadModel) -> None:
    for middle in (468, 473):
        corners = model.triangles[model.landmarks478.triangle[middle]]
        assert model.albedo[corners].max() < 100
    assert model.albedo[of_material(model, "teeth")].min() > 150
    inside = model.albedo[of_material(model, "mouth_interior")].astype(int).sum(1)
    depth = model.vertices[of_material(model, "mouth_interior"), 2]
    assert inside[depth < np.quantile(depth, 0.1)].max() < inside[depth > np.quantile(depth, 0.9)].min()


def test_rims_are_closed_and_lie_where_lips_and_lids_part(model: HeadModel) -> None:
    for name, rings in (("lips", 1), ("eyelids", 2)):
        edges, _ = rim_edges(model, name)
        vertices, degree = np.unique(edges, return_counts=True)
        assert (degree == 2).all()
        assert 30 * rings <= len(vertices) <= 60 * rings + 30
    jaw = moved(model, "jawOpen")[np.unique(rim_edges(model, "lips")[0]), 1]
    assert jaw.min() < -25  # the lower lip goes with the jaw,
    assert jaw.max() > -6  # the upper lip hardly


def test_it_survives_saving(model: HeadModel, tmp_path: Path) -> None:
    save(model, tmp_path / "ict.npz")
    again = load(tmp_path / "ict.npz")
    assert again.digest == model.digest
    assert (again.landmarks478.triangle == model.landmarks478.triangle).all()


# ---------------------------------------------------------------- the folder


def test_the_authors_folder_gives_the_same_shapes(source: Path, model: HeadModel) -> None:
    folder = import_ict(source / "obj")
    assert set(folder.expression_names) == {
        "browInnerUp",
        "eyeBlinkLeft",
        "eyeBlinkRight",
        "jawOpen",
        "mouthFrownLeft",
        "mouthSmileLeft",
        "mouthSmileRight",
    }
    assert np.abs(folder.vertices - model.vertices).max() < 1e-4
    assert (folder.triangles == model.triangles).all()
    assert folder.identity.shape[0] == 4
    assert np.abs(folder.identity - model.identity[:4]).max() < 0.02  # float16
    for name in folder.expression_names:
        assert np.abs(moved(folder, name) - moved(model, name)).max() < 0.04


@pytest.fixture
def folder(source: Path, tmp_path: Path) -> Callable[..., Path]:
    """Makes a folder with these files of the authors' (target name = source name)."""

    def make(**files: str) -> Path:
        made = tmp_path / "FaceXModel"
        made.mkdir()
        for target, origin in {"generic_neutral_mesh": "generic_neutral_mesh", **files}.items():
            shutil.copy(source / "obj" / f"{origin}.obj", made / f"{target}.obj")
            (made / f"{target}.obj").chmod(0o644)
        return made

    return make


def test_the_neutral_alone_is_enough(folder: Callable[..., Path]) -> None:
    made = import_ict(folder())
    assert made.identity.shape[0] == 0
    assert made.expression_names == ()


def test_a_repository_is_as_good_as_its_folder(folder: Callable[..., Path]) -> None:
    assert import_ict(folder().parent).expression_names == ()


def test_sides_are_told_by_geometry(folder: Callable[..., Path], model: HeadModel) -> None:
    made = import_ict(folder(eyeBlink_L="eyeBlink_R", eyeBlink_R="eyeBlink_L"))
    assert np.abs(moved(made, "eyeBlinkLeft") - moved(model, "eyeBlinkLeft")).max() < 0.04


def test_two_files_of_one_side_are_refused(folder: Callable[..., Path]) -> None:
    with pytest.raises(BadModelFile, match="other side"):
        import_ict(folder(eyeBlink_L="eyeBlink_L", eyeBlink_R="eyeBlink_L"))


def test_a_missing_half_is_mirrored(folder: Callable[..., Path], model: HeadModel) -> None:
    made = import_ict(folder(browInnerUp_L="browInnerUp_L"))
    whole = moved(model, "browInnerUp")
    assert np.abs(moved(made, "browInnerUp") - whole).max() < 0.15 * np.abs(whole).max()


def test_other_files_in_the_folder_are_passed_over(folder: Callable[..., Path]) -> None:
    made = folder(PupilDilate_L="jawOpen")
    (made / "identity.obj").write_text("nonsense")
    (made / "notes.txt").write_text("v nan")
    assert import_ict(made).expression_names == ()


def vandalised(make: Callable[..., Path], name: str, change: Callable[[bytes], bytes], **files: str) -> Path:
    made = make(**files)
    path = made / f"{name}.obj"
    data = path.read_bytes()
    path.write_bytes(change(data))
    assert path.read_bytes() != data
    return made


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda data: b"", "vertices"),
        (lambda data: data[: len(data) // 2], "polygons|vertices"),
        (lambda data: data.replace(b"\nv 0 ", b"\nv nan ", 1), "finite"),
        (lambda data: data.replace(b"\nv 0 ", b"\nv 1e999 ", 1), "finite"),
        (lambda data: data.replace(b"\nv 0 ", b"\nv zero ", 1), "numbers"),
        (lambda data: data.replace(b"\nv 0 ", b"\nv ", 1), "numbers"),
        (lambda data: data.replace(b"\nf 874/1 ", b"\nf -1/1 ", 1), "negative"),
        (lambda data: data.replace(b"\nf 874/1 ", b"\nf 0/1 ", 1), "corners"),
        (lambda data: data.replace(b"\nf 874/1 ", b"\nf 26720/1 ", 1), "corners"),
        (lambda data: data.replace(b"\nf 874/1 ", b"\nf 99999999999999999999/1 ", 1), "corners"),
        (lambda data: data.replace(b"\nf 874/1 ", b"\nf 8x74/1 ", 1), "whole numbers"),
        (lambda data: data.replace(b"\nf 874/1 12/2 871/3 873/4", b"\nf 874/1", 1), "corners"),
        (lambda data: data.replace(b"\nf 874/1", b"\nf " + b"1 " * 5000, 1), "corners"),
        (lambda data: data.replace(b"# ICT", b"# \xff\xfe", 1), "UTF-8"),
        (lambda data: data.replace(b"# ICT", b"# \0", 1), "binary"),
        (lambda data: data.replace(b"\nv 0 ", b"\nv 0 1 2\nv 0 ", 1), "26719"),
        (lambda data: b"v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n", "26719"),
        (lambda data: data + b"\n" * 2_000_001, "lines"),
        (lambda data: data + b" " * (33 << 20), "bytes"),
    ],
)
def test_a_hostile_neutral_is_refused(
    folder: Callable[..., Path], change: Callable[[bytes], bytes], complaint: str
) -> None:
    with pytest.raises(BadModelFile, match=complaint):
        import_ict(vandalised(folder, "generic_neutral_mesh", change))


@pytest.mark.parametrize(
    "change",
    [
        lambda data: re.sub(rb"\nv \S+", b"\nv nan", data, count=1),
        lambda data: re.sub(rb"\nv \S+", b"\nv 1e30", data, count=1),
        lambda data: b"v 0 0 0\nv 1 0 0\nv 0 1 0\n",
    ],
)
@pytest.mark.parametrize("name", ["jawOpen", "identity000"])
def test_a_hostile_shape_is_refused(
    folder: Callable[..., Path], change: Callable[[bytes], bytes], name: str
) -> None:
    with pytest.raises(BadModelFile):
        import_ict(vandalised(folder, name, change, **{name: name}))


def test_a_shape_that_moves_nothing_is_refused(folder: Callable[..., Path]) -> None:
    with pytest.raises(BadModelFile, match=r"eyeBlink_L.*moves some vertex"):
        import_ict(folder(eyeBlink_L="generic_neutral_mesh"))


def test_a_folder_without_the_neutral_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadModelFile, match=r"generic_neutral_mesh\.obj"):
        import_ict(tmp_path)


# ---------------------------------------------------------------- the archive


def without(arrays: dict[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in arrays.items() if name != key}


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda a: without(a, "mean"), "missing: mean"),
        (lambda a: a | {"mean": a["mean"][:-1]}, "26719"),
        (lambda a: a | {"mean": a["mean"].astype(object)}, "mean"),
        (lambda a: a | {"mean": a["mean"] * np.float32(10)}, "centimetres"),
        (lambda a: a | {"mean": a["mean"] * np.float32("nan")}, "finite"),
        (lambda a: a | {"identity": a["identity"][:, :-1]}, "identity"),
        (lambda a: a | {"identity": np.full_like(a["identity"], np.inf)}, "identity.*finite"),
        (lambda a: a | {"expression": a["expression"][:-1]}, "expression"),
        (lambda a: a | {"expression_names": np.array(["smirk"] * 2)}, "expression_names|expression|once"),
        (lambda a: a | {"expression_names": np.array([a["expression_names"][0]] * 2)}, "once"),
        (lambda a: a | {"triangles": a["triangles"] - 1}, "outside"),
        (lambda a: a | {"triangles": a["triangles"] + 1}, "outside"),
        (lambda a: a | {"triangles": a["triangles"][:100]}, "landmark|triangle"),
        (lambda a: a | {"triangles": a["triangles"][:0]}, "triangles"),
    ],
)
def test_a_hostile_archive_is_refused(
    source: Path, tmp_path: Path, change: Callable[[dict[str, Any]], dict[str, Any]], complaint: str
) -> None:
    with np.load(source / "ict_facekit.npz") as archive:
        arrays = {key: archive[key] for key in ("mean", "triangles", "expression_names")}
        arrays |= {"identity": archive["identity"][:1], "expression": archive["expression"][:2]}
    arrays["expression_names"] = arrays["expression_names"][:2]
    np.savez(tmp_path / "ict.npz", **arrays)
    import_ict(tmp_path / "ict.npz")  # right before the change
    np.savez(tmp_path / "changed.npz", **change(arrays))
    with pytest.raises(BadModelFile, match=complaint):
        import_ict(tmp_path / "changed.npz")


def test_files_that_are_no_archive_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadModelFile):
        import_ict(tmp_path / "absent.npz")
    (tmp_path / "text.npz").write_text("hello")
    with pytest.raises(BadModelFile):
        import_ict(tmp_path / "text.npz")


# ---------------------------------------------------------------- obj


def test_polygons_are_cut_into_fans_in_the_files_order(tmp_path: Path) -> None:
    text = io.StringIO()
    text.write("# comment\r\nmtllib x\nvt 0 0\nvn 0 0 1\n")
    for x, y in ((0, 0), (1, 0), (1, 1), (0, 1), (-1, 0.5)):
        text.write(f"v {x} {y} -2.5e-1 0.1 0.2 0.3\n")
    text.write("usemtl a\nf 1 2 3\nf  1/1 2//1 3/1/1\t4\ns off\nf 1 2 3 4 5\n")
    (tmp_path / "a.obj").write_text(text.getvalue())
    mesh = read_obj(tmp_path / "a.obj")
    assert mesh.triangles.tolist() == [[0, 1, 2], [0, 1, 2], [0, 2, 3], [0, 1, 2], [0, 2, 3], [0, 3, 4]]
    assert mesh.vertices[4].tolist() == [-1, 0.5, -0.25]
    assert len(read_obj(tmp_path / "a.obj", faces=False).triangles) == 0


def test_a_polygon_beyond_a_rim_belongs_beyond() -> None:
    code = MATERIALS.index
    corners = np.array(
        [
            [code("lips"), code("mouth_interior"), code("lips")],
            [code("lips"), code("lips"), code("skin")],
            [code("eyelids"), code("other"), code("other")],
            [code("gums"), code("tongue"), code("tongue")],
        ],
        np.uint8,
    )
    names = [MATERIALS[index] for index in ict.triangle_materials(corners)]
    assert names == ["mouth_interior", "skin", "other", "gums"]


def test_the_authors_names_are_the_archives(source: Path) -> None:
    with np.load(source / "ict_facekit.npz") as archive:
        assert set(ict.authors_names()) == set(archive["expression_names"].tolist())


def test_building_leaves_its_input_alone(source: Path) -> None:
    shapes = ict.read_npz(source / "ict_facekit.npz")
    before = {name: shape.copy() for name, shape in shapes.expression.items() if "eyeLook" in name}
    neutral = shapes.neutral.copy()
    ict.build(shapes, ict.load_topology())
    assert (shapes.neutral == neutral).all()
    assert all((shapes.expression[name] == shape).all() for name, shape in before.items())
    assert replace(import_ict(source / "ict_facekit.npz"), name="x").digest
