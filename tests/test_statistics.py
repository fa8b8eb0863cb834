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
from fastface.texture_model import TextureModel
from fastface.workshop.registered import Registered, read_registered
from fastface.workshop.statistics import (
    aligned,
    between_the_eyes,
    head_model,
    mirrored,
    rotation_on_to,
    shape_model,
)


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


def plain_procrustes(meshes: NDArray[Any], *, scale: bool = False) -> NDArray[Any]:
    """Generalised Procrustes analysis as the textbooks write it, with Kabsch's rotations."""
    placed = meshes - meshes.mean(axis=1, keepdims=True)
    sizes = np.sqrt((placed**2).sum(axis=(1, 2)))
    if scale:
        placed = placed / sizes[:, None, None] * sizes.mean()
    mean = placed[0]
    for _ in range(100):
        for index, mesh in enumerate(placed):
            u, _, vt = np.linalg.svd(mesh.T @ mean)
            proper = np.diag([1, 1, np.sign(np.linalg.det(u @ vt))])
            placed[index] = mesh @ (u @ proper @ vt)
        mean = placed.mean(axis=0)
    return placed


@pytest.mark.parametrize("scale", [False, True])
def test_the_model_is_that_of_a_plain_reference(people: NDArray[Any], scale: bool) -> None:
    """Alignment and components against a reference that does no more than the definitions say."""
    random = np.random.default_rng(2)
    turns = [rotation_of(random.normal(0, 0.3, 3)).T for _ in people]
    moved = np.stack(
        [mesh @ turn + random.normal(0, 40, 3) for mesh, turn in zip(people, turns, strict=True)]
    )
    if scale:
        moved *= random.uniform(0.8, 1.2, (len(moved), 1, 1))
    found = shape_model(aligned(moved, same_size=scale), 0.995)
    flat = plain_procrustes(moved, scale=scale).reshape(len(moved), -1)
    _, strength, directions = np.linalg.svd(flat - flat.mean(0), full_matrices=False)
    share = strength**2 / (strength**2).sum()
    assert len(found.modes) == int((np.cumsum(share) < 0.995).sum()) + 1
    np.testing.assert_allclose(found.explained, share[: len(found.explained)], rtol=1e-5)
    turn = rotation_on_to(found.mean - found.mean.mean(0), flat.mean(0).reshape(-1, 3))
    assert np.abs(found.mean @ turn.T - flat.mean(0).reshape(-1, 3)).max() < 1e-3
    for mode, direction, one in zip(found.modes, directions, strength, strict=False):
        reference = direction * one / np.sqrt(len(flat) - 1)
        assert np.linalg.norm(mode) == pytest.approx(np.linalg.norm(reference), rel=1e-5)
        assert abs((mode @ turn.T).ravel() @ reference) == pytest.approx(reference @ reference, rel=1e-4)


def test_meshes_of_one_size_have_one_size(people: NDArray[Any]) -> None:
    larger = people * np.linspace(0.9, 1.1, len(people))[:, None, None]
    sizes = np.linalg.norm(aligned(larger, same_size=True), axis=(1, 2))
    assert sizes == pytest.approx(np.linalg.norm(aligned(larger), axis=(1, 2)).mean(), rel=1e-9)
    with pytest.raises(BadArgument, match="a point"):
        aligned(np.ones((3, 5, 3)))


def test_a_model_of_both_sides_is_symmetric(people: NDArray[Any]) -> None:
    head = load_default()
    lopsided = people + np.where(people[..., :1] > 0, [0.0, 2.0, 0.0], 0.0)
    off = []
    for meshes in (mirrored(lopsided, head), lopsided):
        built = head_model(head, shape_model(aligned(meshes)), "either", "test", "none").vertices
        off.append(np.abs(built[head.mirror] * [-1, 1, 1] - built).max())
    assert off[0] < 0.02
    assert off[1] > 0.5
    with pytest.raises(BadArgument, match="opposite"):
        mirrored(people[:, :10], head)


def test_the_origin_stays_between_the_eyes(people: NDArray[Any]) -> None:
    head = load_default()
    far = people[:6] + np.where(people[:6, :, 1:2] < -40, [0.0, -12.0, 0.0], 0.0)  # longer chins and necks
    built = head_model(head, shape_model(aligned(far)), "long", "test", "none")
    middle = between_the_eyes(head, built.vertices.astype(np.float64))
    assert np.abs(middle - between_the_eyes(head, head.vertices.astype(np.float64))).max() < 1e-3


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


def coloured(folder: Path, people: NDArray[Any]) -> NDArray[Any]:
    """Registered people whose colours one number decides; a corner of each is not valid. Gives (N, V, 3)."""
    head = load_default()
    random = np.random.default_rng(3)
    pattern = 40 * np.tanh(head.vertices / 60)
    colours = 128 + random.normal(0, 1, (len(people), 1, 1)) * pattern
    colours = np.clip(np.rint(colours), 0, 255).astype(np.uint8)
    for index, (mesh, colour) in enumerate(zip(people, colours, strict=True)):
        valid = head.vertices[:, 0] < (40 if index % 2 else 1000)
        painted = np.where(valid[:, None], colour, 0).astype(np.uint8)
        residual = np.where(valid, 0.1, np.nan).astype(np.float32)
        Registered(mesh.astype(np.float32), valid, residual, painted, {}).save(folder / f"{index:02}.npz")
    return colours


def test_colours_of_scans_become_a_texture_model(people: NDArray[Any], tmp_path: Path) -> None:
    folder = tmp_path / "registered"
    folder.mkdir()
    colours = coloured(folder, people[:16]).astype(float)
    output, texture = tmp_path / "model.npz", tmp_path / "texture.npz"
    words = ["model", "build", str(folder), "-o", str(output), "--license", "mine", "--json"]
    done = CliRunner().invoke(app, [*words, "--texture", str(texture), "--variance", "0.99"])
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    found = TextureModel.load(texture)
    found.check(load(output))
    assert (found.feature, found.license) == ("rgb", "mine")
    assert told["texture_components"] == len(found.components) == 1
    assert told["texture"] == str(texture)
    np.testing.assert_allclose(found.mean, colours.mean(0), atol=1.5)
    _, strength, directions = np.linalg.svd((colours - colours.mean(0)).reshape(16, -1), full_matrices=False)
    reference = (directions[0] * strength[0] / np.sqrt(15)).reshape(-1, 3)
    sign = np.sign((found.components[0] * reference).sum())
    assert np.abs(sign * found.components[0] - reference).max() < 1.5
    assert (found.precision > 0).all()


def test_meshes_without_colours_have_no_texture(people: NDArray[Any], tmp_path: Path) -> None:
    for index, mesh in enumerate(people[:3]):
        np.savez(tmp_path / f"{index}.npz", vertices=mesh.astype(np.float32))
    words = ["model", "build", str(tmp_path), "-o", str(tmp_path / "model.npz")]
    refused = CliRunner().invoke(app, [*words, "--texture", str(tmp_path / "texture.npz")])
    assert refused.exit_code == 1
    assert "carries colours" in refused.stderr
    assert not (tmp_path / "texture.npz").exists()
    (tmp_path / "3.npz").write_bytes(b"PK\x03\x04 torn")
    refused = CliRunner().invoke(app, words)
    assert refused.exit_code == 1
    assert "3.npz" in refused.stderr


def test_models_of_names_that_are_none_are_refused_before_any_work(tmp_path: Path) -> None:
    """The folders and files that are to be read are not there: nothing has been looked for yet."""
    for name in ("model.png", "model"):
        for words in (
            ["model", "build", tmp_path / "none"],
            ["model", "build", tmp_path / "none", "-o", tmp_path / "m.npz", "--texture", tmp_path / name],
            ["model", "build-texture", tmp_path / "none"],
            ["model", "import", "gnm", tmp_path / "none"],
            ["model", "import", "ict", tmp_path / "none"],
            ["model", "landmarks", tmp_path / "none"],
            ["model", "build-default", tmp_path / "none.whl"],
            ["model", "get", "ict", "--url", "http://127.0.0.1:9/none"],
            ["affect", "build", tmp_path / "none"],
            ["affect", "components", tmp_path / "none"],
        ):
            output = [] if "-o" in words else ["-o", tmp_path / name]
            refused = CliRunner().invoke(app, [str(word) for word in [*words, *output]])
            assert refused.exit_code == 1
            assert refused.stderr == f"fastface: error: {tmp_path / name}: a model ends in .npz\n"


def test_no_model_takes_the_place_of_another_file_of_its_command(tmp_path: Path) -> None:
    one = tmp_path / "one.npz"
    one.write_bytes(b"the authors'")
    for words in (
        ["model", "build", tmp_path, "-o", one, "--texture", one],
        ["model", "import", "gnm", one, "-o", one],
    ):
        refused = CliRunner().invoke(app, [str(word) for word in words])
        assert refused.exit_code == 1
        assert "the same file" in refused.stderr
        assert one.read_bytes() == b"the authors'"


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
    assert "two.obj" not in told["failed"][0]["error"]
    found = np.load(output / "one.npz")["vertices"]
    assert found.shape == model.vertices.shape
    face = np.unique(skin[np.abs(model.expression).max(axis=(0, 2))[skin].min(axis=1) > 0.5])
    back = aligned(np.stack([people[0], found.astype(np.float64)]), face)
    assert np.median(np.linalg.norm(back[0, face] - back[1, face], axis=1)) < 2.5
    assert json.loads(CliRunner().invoke(app, words).stdout)["kept"] == 1
