"""Raw scans on to one mesh: how near the truth, what is refused, what is put aside, what survives a stop."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner

from benchmarks.synthetic_scans import Synthetic, small_mesh, synthetic_scan, write_obj, write_ply
from fastface.camera import rotation_of
from fastface.cli.app import app
from fastface.errors import BadArgument, BadModelFile
from fastface.importers import pointing
from fastface.importers.correspondence_map import similarity
from fastface.morphable import HeadModel, load_default
from fastface.workshop.cylinder import Cylinder, Panorama, warped
from fastface.workshop.nonrigid_icp import SCALE_MM, Deformation
from fastface.workshop.outliers import judge
from fastface.workshop.registered import Registered, read_registered
from fastface.workshop.registration import Start, register_scan
from fastface.workshop.scan_landmarks import Landmarks, Named, ibug, read_landmarks
from fastface.workshop.scans import Scan, read_scan
from fastface.workshop.template import Template, open_template

Float64 = NDArray[np.float64]
SMILE = {"mouthSmileLeft": 1.0, "mouthSmileRight": 1.0, "eyeSquintLeft": 0.5}


@dataclass(frozen=True)
class Small:
    """A coarse mesh of the front of the default head, to be quick: vertex ``rows`` of the default head."""

    path: Path
    landmarks: Path
    template: Template
    rows: NDArray[np.int64]


@pytest.fixture(scope="module")
def head() -> HeadModel:
    return load_default()


@pytest.fixture(scope="module")
def small(head: HeadModel, tmp_path_factory: pytest.TempPathFactory) -> Small:
    """In centimetres and turned, as a lab's own template may be."""
    folder = tmp_path_factory.mktemp("template")
    rows, triangles = small_mesh(head)
    turn = rotation_of(np.array([0.4, -0.9, 0.2]))
    vertices = head.vertices[rows].astype(np.float64) @ turn.T / 10
    np.savez(folder / "mine.npz", vertices=vertices, triangles=triangles)
    marks = head.landmarks68.points(head.vertices, head.triangles).astype(np.float64) @ turn.T / 10
    np.savetxt(folder / "mine.csv", marks, delimiter=",")
    template = open_template(str(folder / "mine.npz"), folder / "mine.csv", reading=False)
    return Small(folder / "mine.npz", folder / "mine.csv", template, rows)


def scan_of(made: Synthetic) -> Scan:
    return Scan(made.vertices, made.triangles, made.colors)


def off_mm(found: NDArray[Any], truth: Float64) -> Float64:
    """Distances (N,) of ``found (N, 3)`` from the truth when one is laid on the other without scaling."""
    found = found.astype(np.float64)
    _, turn, _ = similarity(found, truth)
    away: Float64 = np.linalg.norm((found - found.mean(0)) @ turn.T + truth.mean(0) - truth, axis=1)
    return away


# ------------------------------------------------------------------------------------------------- one scan


def test_a_scan_comes_on_to_the_default_head(head: HeadModel) -> None:
    """In metres, noisy, with holes, without a back, wound the other way; every vertex within its place."""
    template = open_template("default", reading=False)
    made = synthetic_scan(head, 3, expression=SMILE, unit_mm=1000, noise_mm=0.2, back=False)
    scan = Scan(made.vertices, np.ascontiguousarray(made.triangles[:, ::-1]), made.colors)
    found = register_scan(template, scan, "scan", landmarks=ibug(made.landmarks))
    face = template.surface[template.face]
    away = off_mm(found.vertices[face], made.truth[face])
    assert away.mean() < 1.6
    assert np.quantile(away, 0.95) < 4.5
    assert found.record["unit_mm"] == 1000
    assert found.record["covered"] > 0.9
    assert found.record["median_mm"] < 0.15
    assert found.record["landmark_mm"] < 0.5
    assert found.valid.shape == (len(head.vertices),)
    assert found.colors is not None
    told = np.clip(128 + head.vertices[found.valid], 0, 255)  # the colour is the place on the mean head
    assert np.median(np.abs(found.colors[found.valid] - told)) < 2
    assert not found.valid[template.surface[template.shell[:, 2] < -80]].any()  # no back, nothing read there
    for eye in template.rigid[:2]:  # an eyeball stays one
        apart = np.ptp(found.vertices[eye], axis=0) / np.ptp(head.vertices[eye], axis=0)
        assert apart.min() > 0.75
        assert apart.max() / apart.min() < 1.2
    pose = np.array(found.record["rotation"]), np.array(found.record["translation_mm"])
    placed = 1000 * made.vertices @ pose[0].T + pose[1]
    nearest = np.linalg.norm(placed[:, None] - found.vertices[face[::200]][None], axis=2).min(axis=0)
    assert np.median(nearest) < 2  # the record takes the scan to where the mesh is


def test_landmarks_are_read_off_pictures_when_none_are_given(head: HeadModel, tmp_path: Path) -> None:
    """Of a template mesh and of a scan, in centimetres both."""
    rows, triangles = small_mesh(head, 4.0)
    np.savez(tmp_path / "mine.npz", vertices=head.vertices[rows] / 10, triangles=triangles)
    template = open_template(str(tmp_path / "mine.npz"))
    made = synthetic_scan(head, 5, expression=SMILE, unit_mm=10, turn=0.08)
    found = register_scan(template, Scan(made.vertices, made.triangles), "scan")
    face = template.surface[template.face]
    assert off_mm(found.vertices[face], made.truth[rows[face]]).mean() < 2.5
    assert found.colors is None
    assert found.record["unit_mm"] == 10


def test_a_face_is_looked_for_from_everywhere() -> None:
    looks = np.array([frame[2] for frame in pointing._frames()])
    ways = np.random.default_rng(0).normal(size=(1000, 3))
    ways /= np.linalg.norm(ways, axis=1, keepdims=True)
    assert np.degrees(np.arccos((ways @ looks.T).max(axis=1))).max() < 36
    for frame in pointing._frames():
        assert np.allclose(frame @ frame.T, np.eye(3))
        assert np.linalg.det(frame) > 0.99


def test_the_start_on_the_cylinder_is_better(head: HeadModel, small: Small) -> None:
    """Than the one that only turns and shifts the template, everything else equal."""
    means: dict[Start, list[float]] = {"cylinder": [], "similarity": []}
    face = small.template.face
    truth_rows = small.rows[small.template.surface][face]
    for seed, expression in (
        (21, {"jawOpen": 0.7}),
        (22, SMILE),
        (23, {"mouthPucker": 1.0, "browInnerUp": 1.0}),
    ):
        made = synthetic_scan(head, seed, expression=expression, strength=1.0)
        for start, found in means.items():
            done = register_scan(
                small.template, scan_of(made), "scan", landmarks=ibug(made.landmarks), start=start
            )
            shell = done.vertices[small.template.surface][face]
            found.append(float(off_mm(shell, made.truth[truth_rows]).mean()))
    assert np.mean(means["cylinder"]) < 0.9 * np.mean(means["similarity"])
    assert max(means["cylinder"]) < 3.0


def test_hair_and_dirt_do_not_pull(head: HeadModel, small: Small) -> None:
    made = synthetic_scan(head, 31)
    random = np.random.default_rng(0)
    clean = register_scan(small.template, scan_of(made), "scan", landmarks=ibug(made.landmarks))
    strands = made.vertices[made.triangles[random.choice(len(made.triangles), 400)]]
    strands = strands + random.normal(0, 1, (400, 1, 3)) * 25  # bits of surface that float about the head
    vertices = np.concatenate([made.vertices, strands.reshape(-1, 3)])
    more = np.arange(len(made.vertices), len(vertices), dtype=np.int32).reshape(-1, 3)
    dirty = Scan(vertices, np.concatenate([made.triangles, more]))
    found = register_scan(small.template, dirty, "scan", landmarks=ibug(made.landmarks))
    face = small.template.surface[small.template.face]
    assert np.linalg.norm(found.vertices[face] - clean.vertices[face], axis=1).mean() < 0.3


def test_what_is_no_face_is_refused(head: HeadModel, small: Small) -> None:
    made = synthetic_scan(head, 1)
    random = np.random.default_rng(0)
    marks = ibug(made.landmarks)
    cases: list[tuple[Named, float | None, str]] = [
        (ibug(random.normal(0, 40, (68, 3))), None, "left and right"),
        (ibug(np.zeros((68, 3))), None, "landmarks"),
        (ibug(made.landmarks * 3), None, "--unit"),
        ({key: marks[key] for key in ("1", "2", "3")}, None, "landmarks"),
        ({f"mine{key}": marks[key] for key in marks}, None, "template has too"),
        (marks, 25.4, "--unit"),
    ]
    for landmarks, unit, words in cases:
        with pytest.raises(BadModelFile, match=words):
            register_scan(small.template, scan_of(made), "scan", landmarks=landmarks, unit_mm=unit)
    lines = made.triangles.copy()
    lines[:, 2] = lines[:, 1]
    with pytest.raises(BadModelFile, match="an area"):
        register_scan(small.template, Scan(made.vertices, lines), "scan", landmarks=marks)


# ------------------------------------------------------------------------------------------------ the parts


def test_the_deformation_is_the_one_of_least_energy() -> None:
    """The energy, written down anew, is larger wherever else the maps go."""
    random = np.random.default_rng(0)
    side = np.arange(6)
    grid = np.stack(np.meshgrid(side, side), -1).reshape(-1, 2) * 20.0
    mesh = np.column_stack([grid, 5 * random.normal(size=len(grid))])
    corner = (side[:-1, None] * 6 + side[None, :-1]).ravel()
    faces = np.concatenate(
        [np.stack([corner, corner + 1, corner + 6], 1), np.stack([corner + 1, corner + 7, corner + 6], 1)]
    )
    stiffer = random.uniform(1, 3, len(mesh))
    targets = mesh + random.normal(0, 5, mesh.shape)
    weights = random.uniform(0, 1, len(mesh)) * (random.random(len(mesh)) < 0.8)
    corners, shares = faces[[3, 20]], random.dirichlet([1, 1, 1], 2)
    places, counts = random.normal(50, 10, (2, 3)), np.array([2.0, 0.5])
    deformation = Deformation(mesh, faces, stiffer)
    before = deformation.maps.copy()
    deformation.solve(targets, weights, 1.5, (corners, shares, places, counts))
    centre = mesh.mean(0)
    edges = {tuple(sorted((int(t[a]), int(t[b])))) for t in faces for a, b in ((0, 1), (1, 2), (2, 0))}

    def energy(maps: Float64) -> float:
        affine = maps.reshape(-1, 4, 3)
        homogeneous = np.column_stack([(mesh - centre) / SCALE_MM, np.ones(len(mesh))])
        placed = np.einsum("nk,nkx->nx", homogeneous, affine)
        many = 6000 / len(mesh)
        total = many * (weights[:, None] ** 2 * (placed - (targets - centre) / SCALE_MM) ** 2).sum()
        for a, b in edges:
            total += 1.5**2 * stiffer[a] * stiffer[b] * ((affine[a] - affine[b]) ** 2).sum()
        marks = np.einsum("lcx,lc->lx", placed[corners], shares)
        total += (counts[:, None] ** 2 * (marks - (places - centre) / SCALE_MM) ** 2).sum()
        return float(total + 0.02**2 * ((maps - before) ** 2).sum())

    least = energy(deformation.maps)
    assert least < energy(before)
    for _ in range(20):
        step = random.normal(0, 1e-3, before.shape)
        assert energy(deformation.maps + step) > least
        along = energy(deformation.maps + 1e-5 * step) - energy(deformation.maps - 1e-5 * step)
        assert abs(along) < 1e-9  # no slope


def test_the_unrolled_cylinder_shows_what_is_outermost() -> None:
    cylinder = Cylinder(0.0, -60.0, 80.0)
    angle, height = np.meshgrid(np.linspace(-2, 2, 80), np.linspace(-50, 50, 40), indexing="ij")
    index = np.arange(angle.size).reshape(angle.shape)
    a, b, c, d = index[:-1, :-1], index[1:, :-1], index[:-1, 1:], index[1:, 1:]
    wall = np.concatenate([np.stack([a, b, d], -1), np.stack([a, d, c], -1)]).reshape(-1, 3)
    vertices = []
    for radius in (70.0, 90.0):
        x, z = radius * np.sin(angle), radius * np.cos(angle) - 60
        vertices.append(np.stack([x, height, z], -1).reshape(-1, 3))
    mesh = np.concatenate(vertices)
    triangles = np.concatenate([wall, wall + index.size]).astype(np.int32)
    flat = np.array([[0.0, 0.0], [80.0, 20.0], [-100.0, -30.0], [0.0, 80.0], [230.0, 0.0]])
    found, there = Panorama(cylinder, mesh, triangles).at(flat)
    assert there.tolist() == [True, True, True, False, False]
    assert np.abs(cylinder.unrolled(found[:3])[:, :2] - flat[:3]).max() < 0.1
    assert np.abs(cylinder.unrolled(found[:3])[:, 2] - 90).max() < 0.1


def test_thin_plates_take_landmarks_to_landmarks(head: HeadModel) -> None:
    marks = head.landmarks68.points(head.vertices, head.triangles).astype(np.float64)
    cylinder = Cylinder.around(marks)
    targets = marks + np.random.default_rng(0).normal(0, 3, marks.shape)
    exact = warped(cylinder, marks, marks, targets, np.zeros(68))
    assert np.abs(exact - cylinder.unrolled(targets)[:, :2]).max() < 1e-6
    loose = warped(cylinder, marks, marks, targets, np.full(68, 1000.0))
    assert np.abs(loose - cylinder.unrolled(targets)[:, :2]).max() > 0.5


def test_what_differs_from_the_others_is_an_outlier() -> None:
    random = np.random.default_rng(0)

    def record(**other: float | None) -> dict[str, Any]:
        normal: dict[str, Any] = {"covered": 0.95 + 0.02 * random.random(), "median_mm": 0.05, "p95_mm": 0.2}
        return {**normal, "landmark_mm": 0.3, "distortion": 0.3 + 0.05 * random.random(), **other}

    records = {f"s{row}": record() for row in range(8)}
    assert not any(judged.reasons for judged in judge(records).values())
    whole = {f"s{row}": record(covered=0.99) for row in range(7)}
    assert not judge({**whole, "holes": record(covered=0.9)})["holes"].reasons
    assert judge({**whole, "torn": record(covered=0.7)})["torn"].reasons
    records["far"] = record(p95_mm=1.5)
    records["half"] = record(covered=0.5)
    records["nothing"] = record(covered=0.0, median_mm=None)
    judged = judge(records)
    assert {name for name in judged if judged[name].reasons} == {"far", "half", "nothing"}
    assert "deviations" in judged["far"].reasons[0]
    assert judged["far"].scores["p95_mm"] > 3.5
    few = judge({"a": record(), "b": record(p95_mm=1.5), "c": record(distortion=1.2)})
    assert {name for name in few if few[name].reasons} == {"c"}  # too few to compare: only limits


# ------------------------------------------------------------------------------------------------- the files


def test_landmarks_in_every_format(tmp_path: Path) -> None:
    points = np.random.default_rng(0).normal(0, 50, (68, 3))
    np.savetxt(tmp_path / "order.csv", points, delimiter=",")
    (tmp_path / "order.json").write_text(json.dumps(points.tolist()))
    for name in ("order.csv", "order.json"):
        found = read_landmarks(tmp_path / name)
        assert np.allclose([found[str(row)] for row in range(68)], points)
    names = ["nose_tip", "chin", "right_eye_outer", "left_eye_outer", "45x", "left_mouth_corner", "27"]
    lines = [f"{name},{x},{y},{z}" for name, (x, y, z) in zip(names, points, strict=False)]
    (tmp_path / "named.csv").write_text("\n".join(["name,x,y,z", *lines, "subnasale,nan,nan,nan"]))
    (tmp_path / "named.json").write_text(json.dumps(dict(zip(names, points.tolist(), strict=False))))
    picked = [
        f'<point x="{x}" y="{y}" active="1" name="{name}" z="{z}"/>'
        for name, (x, y, z) in zip(names, points, strict=False)
    ]
    off = '<point x="1" y="2" z="3" active="0" name="unused"/>'
    (tmp_path / "named.pp").write_text("<!DOCTYPE PickedPoints>" + "\n".join([*picked, off]))
    for name in ("named.csv", "named.json", "named.pp"):
        found = read_landmarks(tmp_path / name)
        assert sorted(found) == sorted(["30", "8", "36", "45", "45x", "54", "27"]), name
        assert np.allclose(found["30"], points[0]), name
    (tmp_path / "all.csv").write_text(
        "\n".join(["scan,name,x,y,z", *(f"{scan},{line}" for scan in ("anna.obj", "ben") for line in lines)])
    )
    (tmp_path / "all.json").write_text(json.dumps({"anna": points.tolist(), "ben": points.tolist()}))
    for name in ("all.csv", "all.json"):
        table = Landmarks(tmp_path / name)
        assert np.allclose(table.of("anna")["30"], table.of("ben")["30"])
        with pytest.raises(BadModelFile, match="carl"):
            table.of("carl")
    assert Landmarks(tmp_path).of("named").keys()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", "name,x,y,z\nchin,1,2\n"),
        ("a.csv", "name,x,y,z\nchin,1,2,3\nchin,1,2,3\n"),
        ("a.csv", "name,x,y,z\nchin,1,2,inf\n"),
        ("a.csv", "name,x,y,z\nchin,1,2,3\n"),
        ("a.csv", "1,2,3\n" * 67),
        ("a.csv", "\x00\udcff"),
        ("a.json", '{"chin": {"x": 1}}'),
        ("a.json", json.dumps({str(mark): "123" for mark in range(9)})),
        ("a.json", json.dumps({str(mark): [10**400, 2, 3] for mark in range(9)})),
        ("a.json", "[" * 100_000),
        ("a.json", "[[1, 2, 3]]"),
        ("a.json", '"chin"'),
        ("a.pp", "<point x='1'"),
        ("a.txt", "chin 1 2 3"),
    ],
)
def test_bad_landmarks_are_refused(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(BadModelFile, match=r"a\.(csv|json|pp|txt)"):
        read_landmarks(tmp_path / name)


def test_colours_come_from_vertices_and_from_images(head: HeadModel, tmp_path: Path) -> None:
    made = synthetic_scan(head, 1)
    write_obj(tmp_path / "a.obj", made)
    write_ply(tmp_path / "a.ply", made)
    np.savez(tmp_path / "a.npz", vertices=made.vertices, triangles=made.triangles, colors=made.colors)
    for name in ("a.obj", "a.ply", "a.npz"):
        scan = read_scan(tmp_path / name)
        assert np.array_equal(scan.triangles, made.triangles)
        assert np.allclose(scan.vertices, made.vertices, atol=1e-4)
        assert scan.colors is not None, name
        assert np.array_equal(scan.colors, made.colors), name
    # A texture: left half red, right half green, blue to the top.
    image = np.zeros((64, 64, 3), np.uint8)
    image[:, :32, 0], image[:, 32:, 1] = 255, 255
    image[:, :, 2] = np.linspace(255, 0, 64)[:, None]
    cv2.imwrite(str(tmp_path / "skin.png"), image[:, :, ::-1])
    (tmp_path / "skin.mtl").write_text("newmtl skin\nKd 1 1 1\nmap_Kd ..\\elsewhere\\skin.png\n")
    grid = [(x / 7, y / 7) for y in range(8) for x in range(8)]
    lines = ["mtllib ../../skin.mtl", *(f"v {x} {y} 0" for x, y in grid), *(f"vt {x} {y}" for x, y in grid)]
    corners = [
        (8 * y + x + 1, 8 * y + x + 2, 8 * y + x + 10, 8 * y + x + 9) for y in range(7) for x in range(7)
    ]
    lines += ["f " + " ".join(f"{c}/{c}" for c in four) for four in corners]
    (tmp_path / "flat.obj").write_text("\n".join(lines))
    scan = read_scan(tmp_path / "flat.obj")
    assert scan.coloured
    middle = np.full((len(scan.triangles), 3), 1 / 3)
    found = scan.colors_at(np.arange(len(scan.triangles)), middle).astype(int)
    place = scan.vertices[scan.triangles].mean(axis=1)
    left = place[:, 0] < 0.48
    right = place[:, 0] > 0.52
    assert (found[left, 0] > 250).all()
    assert (found[right, 1] > 250).all()
    assert np.abs(found[:, 2] - 255 * place[:, 1]).max() < 6
    (tmp_path / "skin.png").unlink()
    assert "skin.png" in read_scan(tmp_path / "flat.obj").note


@pytest.mark.parametrize(
    ("library", "material"),
    [
        ("skin.mtl", b"map_Kd   "),  # no name
        ("skin.mtl", b"\n" * (1 << 20)),  # what a pattern over lines would go through again at each of them
        ("skin.mtl", b"map_Kd " + b"a" * 400),
        ("skin.mtl", b"map_Kd a\0.png"),
        ("skin.mtl", b"map_Kd .."),
        ("a" * 400, b""),
        ("..", b""),
    ],
)
def test_a_material_that_is_none_means_no_colours(tmp_path: Path, library: str, material: bytes) -> None:
    (tmp_path / "skin.mtl").write_bytes(material)
    vertices = [f"v {x} {x * x} 0\nvt {x / 60} 0" for x in range(60)]
    (tmp_path / "a.obj").write_text("\n".join([f"mtllib {library}", *vertices, "f 1/1 2/2 3/3"]))
    scan = read_scan(tmp_path / "a.obj")
    assert not scan.coloured
    assert scan.note.startswith("no colours: ")


def test_colours_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.obj").write_text("\n".join([f"v {x} {x * x} 0 r g b" for x in range(60)] + ["f 1 2 3"]))
    with pytest.raises(BadModelFile, match=r"a\.obj: wanted three numbers a colour"):
        read_scan(tmp_path / "a.obj")
    lines = [f"v {x} {x * x} 0\nvt {x / 60 if x else ' '} 0" for x in range(60)]
    text = "\n".join(["mtllib a.mtl", *lines, "f 1/1 2/2 3/60"])
    (tmp_path / "a.obj").write_text(text.replace("vt   0", "vt  "))
    with pytest.raises(BadModelFile, match=r"a\.obj: wanted 60 texture coordinates"):
        read_scan(tmp_path / "a.obj")


@pytest.mark.parametrize(
    "broken",
    [
        {"vertices": np.full((60, 3), np.nan)},
        {"vertices": np.zeros((60, 3))},
        {"vertices": np.full((60, 3), 1e12)},
        {"vertices": np.zeros((60, 2))},
        {"triangles": np.array([[0, 1, 60]])},
        {"triangles": np.array([[0, 1, -1]])},
        {"triangles": np.array([[0, 1, 2**40]])},
        {"triangles": np.zeros((0, 3), int)},
        {"colors": np.zeros((3, 3), np.uint8)},
        {"colors": np.zeros((60, 3), np.float32)},
        {"vertices": np.array([{}], object)},
    ],
)
def test_bad_scans_are_refused(tmp_path: Path, broken: dict[str, Any]) -> None:
    good = {"vertices": np.random.default_rng(0).normal(size=(60, 3)), "triangles": np.array([[0, 1, 2]])}
    np.savez(tmp_path / "a.npz", **{**good, **broken})
    with pytest.raises(BadModelFile, match=r"a\.npz"):
        read_scan(tmp_path / "a.npz")


def test_templates_that_are_none_are_refused(small: Small, tmp_path: Path) -> None:
    with pytest.raises(BadModelFile, match="none"):
        open_template(str(tmp_path / "nothing.obj"))
    (tmp_path / "five.csv").write_text("name,x,y,z\n" + "".join(f"m{i},{i},{i * i},1\n" for i in range(5)))
    with pytest.raises(BadModelFile, match="known names"):
        open_template(str(small.path), tmp_path / "five.csv", reading=False)


def test_a_mesh_as_template_stands_upright_in_millimetres(head: HeadModel, small: Small) -> None:
    placed = small.template.vertices[small.template.surface]
    assert np.linalg.norm(placed - head.vertices[small.rows[small.template.surface]], axis=1).max() < 0.5
    assert small.template.normals(placed)[small.template.face, 2].min() > 0


# ------------------------------------------------------------------------------------------------ the command


@pytest.fixture(scope="module")
def scans(head: HeadModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six people in three formats and units; half a head, swapped landmarks, a ball, a file that is none."""
    root = tmp_path_factory.mktemp("lab")
    folder, marks = root / "scans", root / "landmarks"
    folder.mkdir()
    marks.mkdir()

    def put(name: str, made: Synthetic, suffix: str = ".npz") -> None:
        if suffix == ".npz":
            np.savez(folder / f"{name}.npz", vertices=made.vertices, triangles=made.triangles)
        else:
            (write_obj if suffix == ".obj" else write_ply)(folder / f"{name}{suffix}", made)
        np.savetxt(marks / f"{name}.csv", made.landmarks, delimiter=",")

    for row, (unit, suffix) in enumerate([(1.0, ".obj"), (10.0, ".ply"), (1000.0, ".npz")] * 2):
        expression = SMILE if row % 2 else None
        put(
            f"p{row}", synthetic_scan(head, 40 + row, unit_mm=unit, back=False, expression=expression), suffix
        )
    made = synthetic_scan(head, 50, back=False)
    left = made.colors[:, 0] >= 128
    put("half", replace(made, triangles=made.triangles[left[made.triangles].all(axis=1)]))
    made = synthetic_scan(head, 51, back=False)
    swapped = made.landmarks.copy()
    swapped[[36, 39, 42, 45, 48, 54]] = swapped[[45, 42, 39, 36, 54, 48]]
    put("swapped", replace(made, landmarks=swapped))
    around = np.random.default_rng(0).normal(size=(2000, 3))
    from scipy.spatial import ConvexHull

    ball = 90 * around / np.linalg.norm(around, axis=1, keepdims=True) - [0, 20, 70]
    put("ball", replace(made, vertices=ball, triangles=ConvexHull(ball).simplices.astype(np.int32)))
    (folder / "none.obj").write_text("v 0 0 0\nthis is no mesh\n")
    shutil.copy(marks / "p0.csv", marks / "none.csv")
    return folder


def command(scans: Path, output: Path, small: Small, *more: str) -> list[str]:
    words = ["model", "register", str(scans), "-o", str(output), "--template", str(small.path)]
    marks = ["--template-landmarks", str(small.landmarks), "--landmarks", str(scans.parent / "landmarks")]
    return [*words, *marks, "--json", *more]


def test_a_folder_of_scans(small: Small, scans: Path, tmp_path: Path) -> None:
    output = tmp_path / "registered"
    words = command(scans, output, small, "--jobs", "1")
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 1, done.output  # one is no mesh
    told = json.loads(done.stdout)
    assert told["registered"] == 6
    assert [entry["scan"] for entry in told["failed"]] == ["none.obj"]
    assert {entry["scan"] for entry in told["outliers"]} == {"ball.npz", "half.npz", "swapped.npz"}
    assert all(entry["reasons"] for entry in told["outliers"])
    names, meshes = read_registered(output)
    assert names == [f"p{row}" for row in range(6)]
    assert meshes.shape == (6, len(small.rows), 3)
    assert {path.stem for path in (output / "outliers").glob("*.npz")} == {"ball", "half", "swapped"}
    report = json.loads((output / "report.json").read_text())
    assert report["counts"] == {"registered": 6, "outlier": 3, "failed": 1}
    for entry in report["scans"]:
        if entry["status"] == "registered":
            assert 0 < entry["median_mm"] <= entry["p95_mm"] < 1
            assert entry["mean_mm"] < 0.5
            assert entry["landmark_mm"] < 1
    one = Registered.load(output / "p0.npz")
    assert one.colors is not None
    assert Registered.load(output / "p2.npz").colors is None
    assert not [path for path in output.rglob("*") if path.suffix == ".tmp"]

    # Again: nothing is made twice, unless its scan changed.
    before = {path.name: path.stat().st_mtime_ns for path in output.glob("*.npz")}
    changed = scans.parent / "landmarks" / "p1.csv"
    text = changed.read_text()
    try:
        np.savetxt(changed, np.loadtxt(changed, delimiter=",") + 1e-3, delimiter=",")
        again = json.loads(CliRunner().invoke(app, words).stdout)
    finally:
        changed.write_text(text)
    assert again["kept"] == 8
    after = {path.name: path.stat().st_mtime_ns for path in output.glob("*.npz")}
    assert {name for name in after if after[name] != before[name]} == {"p1.npz"}

    # A mesh whose record is not what was written here is made again.
    odd = Registered.load(output / "p3.npz")
    odd.record.update(status="registered", mean_mm="little")
    odd.save(output / "p3.npz")
    again = json.loads(CliRunner().invoke(app, words).stdout)
    assert (again["kept"], again["registered"]) == (8 - 1, 6)
    after = {path.name: path.stat().st_mtime_ns for path in output.glob("*.npz")}

    # With other settings it is refused, and anew when asked to.
    refused = CliRunner().invoke(app, [*words, "--unit", "10"])
    assert refused.exit_code == 1
    assert "unit_mm" in refused.stderr
    assert "--overwrite" in refused.stderr
    assert after == {path.name: path.stat().st_mtime_ns for path in output.glob("*.npz")}


def test_outliers_can_stay(small: Small, scans: Path, tmp_path: Path) -> None:
    few = tmp_path / "scans"
    few.mkdir()
    for name in ("p2.npz", "half.npz"):
        shutil.copy(scans / name, few)
    shutil.copytree(scans.parent / "landmarks", tmp_path / "landmarks")
    output = tmp_path / "registered"
    words = command(few, output, small, "--jobs", "1")
    first = json.loads(CliRunner().invoke(app, [*words, "--pictures"]).stdout)
    assert [entry["scan"] for entry in first["outliers"]] == ["half.npz"]
    for name in ("p2", "half"):  # the scan in the first column, its template in the second, and so on
        picture = cv2.imread(str(output / "pictures" / f"{name}.jpg"))
        height, width = picture.shape[:2]
        columns = [
            picture[height // 4 :, width * column // 4 : width * (column + 1) // 4] for column in range(4)
        ]
        assert min(float(np.std(column.astype(np.float32), axis=(0, 1)).max()) for column in columns) > 10
    assert not (output / "half.npz").exists()
    kept = json.loads(CliRunner().invoke(app, [*words, "--keep-outliers"]).stdout)
    assert kept["kept"] == 2
    assert [entry["scan"] for entry in kept["outliers"]] == ["half.npz"]
    assert (output / "half.npz").exists()
    assert not (output / "outliers" / "half.npz").exists()
    anew = json.loads(CliRunner().invoke(app, [*words, "--overwrite", "--unit", "1000"]).stdout)
    assert anew["kept"] == 0
    assert [entry["scan"] for entry in anew["failed"]] == ["half.npz"]  # which is in millimetres


def test_a_killed_run_leaves_only_whole_meshes_and_goes_on(small: Small, scans: Path, tmp_path: Path) -> None:
    output = tmp_path / "registered"
    words = [sys.executable, "-P", "-m", "fastface", *command(scans, output, small, "--jobs", "2")]
    run = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while run.poll() is None and not list(output.glob("*.npz")):
            time.sleep(0.02)
    finally:
        run.kill()  # which nothing can hold back
        run.wait()
    there = list(output.glob("*.npz"))
    assert there
    for path in there:
        assert np.isfinite(Registered.load(path).vertices).all()
    done = CliRunner().invoke(app, command(scans, output, small, "--jobs", "1"))
    told = json.loads(done.stdout)
    assert told["registered"] == 6
    assert told["kept"] >= len(there)


def test_folders_that_make_no_sense_are_refused(small: Small, scans: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "other").mkdir()
    np.savez(tmp_path / "other" / "x.npz", vertices=np.zeros((3, 3)))
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "report.json").write_text("{")
    cases = [
        command(tmp_path / "empty", tmp_path / "a", small),
        command(tmp_path / "nothing", tmp_path / "a", small),
        command(scans, scans, small),
        command(scans, tmp_path / "other", small),
        command(scans, tmp_path / "damaged", small),
        [*command(scans, tmp_path / "a", small), "--landmarks", str(tmp_path / "nothing")],
        [*command(scans, tmp_path / "a", small), "--template", "nothing.npz"],
    ]
    for words in cases:
        refused = CliRunner().invoke(app, words)
        assert refused.exit_code == 1, words
        assert len(refused.stderr.splitlines()) == 1, refused.stderr
        assert json.loads(refused.stdout)["error"]["type"] in (BadArgument.__name__, BadModelFile.__name__)
    assert not (scans / "outliers").exists()
