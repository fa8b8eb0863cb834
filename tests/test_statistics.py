"""Shape models from registered meshes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner

from fastface.camera import rotation_of
from fastface.cli.app import app
from fastface.errors import BadArgument, BadModelFile
from fastface.morphable import load, load_default
from fastface.workshop.registered import read_registered
from fastface.workshop.statistics import aligned, rotation_on_to, shape_model


@pytest.fixture(scope="module")
def people() -> NDArray[Any]:
    """Thirty heads of three known modes."""
    model = load_default()
    random = np.random.default_rng(0)
    return np.stack([model.shaped(random.normal(0, 1, 3)) for _ in range(30)]).astype(np.float64)


def test_what_was_moved_is_moved_back(people: NDArray[Any]) -> None:
    random = np.random.default_rng(1)
    moved = np.stack(
        [mesh @ rotation_of(random.normal(0, 0.3, 3)).T + random.normal(0, 40, 3) for mesh in people]
    )
    straight, back = aligned(people), aligned(moved)
    turn = rotation_on_to(back.mean(0), straight.mean(0))
    assert np.abs(back @ turn.T - straight).max() < 0.05


def test_a_mirror_image_is_no_rotation() -> None:
    points = np.random.default_rng(0).normal(0, 1, (50, 3))
    assert np.linalg.det(rotation_on_to(points, points * [-1, 1, 1])) == pytest.approx(1)


def test_few_modes_explain_what_few_modes_made(people: NDArray[Any]) -> None:
    found = shape_model(people, 0.995)
    assert len(found.modes) == 3
    assert found.explained.sum() > 0.995
    flat = found.modes.reshape(3, -1)
    gram = flat @ flat.T
    assert np.abs(gram - np.diag(np.diag(gram))).max() < 1e-6 * gram.max()
    spread = ((people - people.mean(0)) ** 2).sum() / (len(people) - 1)
    assert np.trace(gram) == pytest.approx(spread, rel=1e-4)
    assert len(shape_model(people, 0.5).modes) < 3


def test_what_makes_no_model_is_refused(people: NDArray[Any], tmp_path: Path) -> None:
    with pytest.raises(BadArgument, match="two meshes"):
        shape_model(people[:1])
    with pytest.raises(BadArgument, match="the same"):
        shape_model(np.repeat(people[:1], 3, axis=0))
    with pytest.raises(BadArgument, match="finite"):
        aligned(np.full((2, 4, 3), np.nan))
    np.savez(tmp_path / "a.npz", vertices=people[0])
    with pytest.raises(BadModelFile, match="2 to"):
        read_registered(tmp_path)
    np.savez(tmp_path / "b.npz", vertices=people[0][:-1])
    with pytest.raises(BadModelFile, match="vertices"):
        read_registered(tmp_path)


def test_a_folder_of_meshes_becomes_a_head_model(people: NDArray[Any], tmp_path: Path) -> None:
    folder = tmp_path / "registered"
    folder.mkdir()
    for index, mesh in enumerate(people[:8]):
        if index % 2:
            np.savez(folder / f"{index}.npz", vertices=mesh.astype(np.float32))
        else:
            lines = [f"v {x:.4f} {y:.4f} {z:.4f}" for x, y, z in mesh]
            (folder / f"{index}.obj").write_text("\n".join([*lines, "f 1 2 3", ""]))
    output = tmp_path / "model.npz"
    done = CliRunner().invoke(app, ["model", "build", str(folder), "-o", str(output), "--json"])
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    built = load(output)
    assert built.identity.shape[0] == told["identity_modes"] == 3
    default = load_default()
    assert np.abs(built.vertices - default.vertices).max() < 15
    assert (built.expression == default.expression).all()
    refused = CliRunner().invoke(app, ["model", "build", str(tmp_path / "none"), "-o", str(output)])
    assert refused.exit_code == 1
    assert len(refused.stderr.splitlines()) == 1


def test_scans_come_on_to_the_mesh_and_bad_ones_are_named(people: NDArray[Any], tmp_path: Path) -> None:
    """A person's skin, turned and in metres, as if it had been scanned; and a file that is none."""
    model = load_default()
    skin = model.triangles[model.material_triangles("skin", "lips", "eyelids", "eyeballs")]
    scans = tmp_path / "scans"
    scans.mkdir()
    turned = people[0] @ rotation_of(np.array([0.1, 0.2, 0.05])).T / 1000
    np.savez(scans / "one.npz", vertices=turned.astype(np.float32), triangles=skin)
    (scans / "two.obj").write_text("v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n")
    output = tmp_path / "registered"
    words = ["model", "register", str(scans), "-o", str(output), "--threads", "1", "--json"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 1, done.output
    told = json.loads(done.stdout)
    assert told["registered"] == 1
    assert [failure["scan"] for failure in told["failed"]] == ["two.obj"]
    found = np.load(output / "one.npz")["vertices"]
    assert found.shape == model.vertices.shape
    face = np.unique(skin[np.abs(model.expression).max(axis=(0, 2))[skin].min(axis=1) > 0.5])
    back = aligned(np.stack([people[0], found.astype(np.float64)]), face)
    assert np.median(np.linalg.norm(back[0, face] - back[1, face], axis=1)) < 2.5
    assert json.loads(CliRunner().invoke(app, words).stdout)["kept"] == 1
