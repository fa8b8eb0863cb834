"""Galleries, their clustering, and the affect models that are learned from them."""

from __future__ import annotations

import json
import shutil
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.cluster.hierarchy import fcluster, linkage
from typer.testing import CliRunner

from fastface import Affect, Engine
from fastface.affect import affect_model
from fastface.affect_tables import EXPRESSIONS, SHAPES
from fastface.class_model import AffectClasses, affect_classes
from fastface.cli.app import app
from fastface.errors import BadAffect, BadArgument, BadModelFile
from fastface.exports.models import build_affect
from fastface.images import read_image
from fastface.labels import read_labels
from fastface.morphable import DEFAULT_MODEL, load_default
from fastface.workshop.classes import build_classes, identity_leak
from fastface.workshop.clustering import ward_classes
from fastface.workshop.gallery import Gallery, GalleryWriter, Rows
from fastface.workshop.sampling import Recipe, sample_gallery

SMALL = Recipe(subjects=4, recordings=12, seed=3)


def partition(labels: NDArray[Any]) -> set[frozenset[int]]:
    groups: dict[int, set[int]] = defaultdict(set)
    for index, label in enumerate(labels.tolist()):
        groups[label].add(index)
    return {frozenset(group) for group in groups.values()}


def sum_within(points: NDArray[Any], labels: NDArray[Any]) -> float:
    return sum(
        float(((points[labels == k] - points[labels == k].mean(0)) ** 2).sum()) for k in np.unique(labels)
    )


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Gallery:
    folder = tmp_path_factory.mktemp("gallery") / "small"
    sample_gallery(folder, "default", SMALL)
    return Gallery.open(folder)


@pytest.fixture(scope="module")
def classes(gallery: Gallery) -> AffectClasses:
    return build_classes(gallery, 80, step=0.02)


@pytest.mark.parametrize(("count", "wanted"), [(700, 5), (1200, 120)])
def test_ward_is_scipys_ward(count: int, wanted: int) -> None:
    points = np.random.default_rng(count).normal(0, 0.4, (count, 2))
    found, means = ward_classes(points, wanted)
    assert partition(found) == partition(fcluster(linkage(points, "ward"), wanted, "maxclust"))
    for label in range(wanted):
        np.testing.assert_allclose(means[label], points[found == label].mean(0))


def test_repeated_points_weigh_as_many() -> None:
    """Equal costs may be broken either way; the sum of squares within is as small."""
    points = np.round(np.random.default_rng(0).normal(0, 0.3, (1500, 2)), 2)
    found, _ = ward_classes(points, 60)
    theirs = fcluster(linkage(points, "ward"), 60, "maxclust")
    assert sum_within(points, found) == pytest.approx(sum_within(points, theirs), rel=0.02)
    assert all(len(set(found[(points == point).all(1)])) == 1 for point in points[:50])


def test_classes_that_cannot_be_are_refused() -> None:
    with pytest.raises(BadArgument, match="2 distinct"):
        ward_classes(np.array([[0.0, 0.0], [0.0, 0.0], [1.0, 0.0]]), 3)
    with pytest.raises(BadArgument, match="finite"):
        ward_classes(np.full((3, 2), np.nan), 1)


def test_a_gallery_follows_from_its_seed(gallery: Gallery, tmp_path: Path) -> None:
    sample_gallery(tmp_path / "again", "default", SMALL)
    again = Gallery.open(tmp_path / "again")
    assert again.about == gallery.about
    for a, b in zip(gallery, again, strict=True):
        for name, array in vars(a).items():
            np.testing.assert_array_equal(array, getattr(b, name))


def test_recordings_begin_and_end_at_rest(gallery: Gallery) -> None:
    marks = gallery.annotations()
    for sequence in range(SMALL.subjects * SMALL.recordings):
        rows = marks["sequence"] == sequence
        assert marks["neutral"][rows][[0, -1]].all()
        assert not marks["neutral"][rows].all()
        assert np.hypot(marks["valence"], marks["arousal"])[rows][[0, -1]].max() < 0.1
    assert set(np.unique(marks["expression"])) <= set(range(-1, len(EXPRESSIONS)))
    assert (
        len(set(zip(*np.histogram2d(marks["valence"], marks["arousal"], 4)[0].nonzero(), strict=True))) >= 12
    )


def test_an_unfinished_gallery_is_none(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), GalleryWriter(tmp_path, "vertices", 6):
        raise RuntimeError
    with pytest.raises(BadModelFile, match=r"gallery\.json"):
        Gallery.open(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        {"version": 9},
        {"kind": "pickles"},
        {"width": -1},
        {"names": ["a"]},
        {"shards": [10**9]},
        {"shards": "x"},
        {"format": None},
    ],
)
def test_a_spoilt_gallery_is_refused(gallery: Gallery, tmp_path: Path, change: dict[str, Any]) -> None:
    said = json.loads((gallery.folder / "gallery.json").read_text()) | change
    (tmp_path / "gallery.json").write_text(json.dumps(said))
    (tmp_path / "00000.npz").write_bytes((gallery.folder / "00000.npz").read_bytes())
    with pytest.raises(BadModelFile):
        list(Gallery.open(tmp_path))


def test_classes_are_means_from_each_persons_neutral(gallery: Gallery, classes: AffectClasses) -> None:
    values = np.concatenate([rows.values for rows in gallery]).astype(float)
    marks = gallery.annotations()
    rest = np.stack(
        [values[(marks["subject"] == s) & (marks["neutral"] > 0)].mean(0) for s in range(SMALL.subjects)]
    )
    label, _ = ward_classes(np.stack([marks["valence"], marks["arousal"]], axis=1), 80, step=0.02)
    added = values - rest[marks["subject"]]
    for index in (0, 17, 79):
        np.testing.assert_allclose(classes.means[index], added[label == index].mean(0), atol=1e-6)
        scatter = np.linalg.svd(added[label == index] - added[label == index].mean(0), full_matrices=False)[1]
        lengths = np.linalg.norm(classes.modes[index], axis=1)
        np.testing.assert_allclose(
            lengths, scatter[:3] / np.sqrt((label == index).sum() - 1), rtol=1e-3, atol=1e-4
        )
    assert classes.counts.sum() == len(gallery)


def test_neutral_faces_taken_away_take_identity_with_them(gallery: Gallery, classes: AffectClasses) -> None:
    with_identity = build_classes(gallery, 80, step=0.02, subtract_neutral=False)
    assert identity_leak(gallery, classes) < 0.75 * identity_leak(
        gallery, with_identity, subtract_neutral=False
    )


def test_vertices_go_the_same_way(gallery: Gallery, classes: AffectClasses, tmp_path: Path) -> None:
    """The same faces as meshes, identity and all, give the same classes through the wide path."""
    model = load_default()
    pick = np.arange(0, len(model.vertices), 40)
    basis = model.expression[:, pick].astype(np.float64).reshape(len(SHAPES), -1)
    order = [SHAPES.index(name) for name in model.expression_names]
    width = basis.shape[1]
    random = np.random.default_rng(0)
    people = random.normal(0, 1, (SMALL.subjects, width))
    with GalleryWriter(tmp_path / "v", "vertices", width, expressions=EXPRESSIONS) as writer:
        for rows in gallery:
            meshes = rows.values.astype(np.float64)[:, order] @ basis + people[rows.subject]
            writer.add(Rows(**{**vars(rows), "values": meshes.astype(np.float16)}))
    meshed = build_classes(Gallery.open(tmp_path / "v"), 80, step=0.02)
    np.testing.assert_array_equal(meshed.counts, classes.counts)
    np.testing.assert_allclose(meshed.means, classes.means[:, order] @ basis, atol=0.02)
    assert (np.linalg.norm(meshed.modes[:, 0], axis=1) >= np.linalg.norm(meshed.modes[:, 1], axis=1)).all()


def test_a_file_is_read_back_and_a_spoilt_one_refused(classes: AffectClasses, tmp_path: Path) -> None:
    path = tmp_path / "model.npz"
    classes.save(path)
    again = AffectClasses.load(path)
    va = np.random.default_rng(0).uniform(-1, 1, (2, 40))
    np.testing.assert_allclose(again.at(*va), classes.at(*va), atol=1e-3)
    fields = dict(np.load(path))
    for name, wrong in {
        "triangles": fields["triangles"] + 10_000,
        "node_class": fields["node_class"] - 5,
        "means": np.full_like(fields["means"], np.nan),
        "va": fields["va"][:-1],
        "node_va": np.zeros_like(fields["node_va"]),
        "version": np.array(7, np.int32),
    }.items():
        np.savez(tmp_path / "spoilt.npz", **{**fields, name: wrong})
        with pytest.raises(BadModelFile):
            AffectClasses.load(tmp_path / "spoilt.npz")


@pytest.mark.parametrize("family", ["default", "ict"])
def test_the_shipped_model_has_the_papers_classes_and_no_jump(family: str) -> None:
    shipped = affect_classes(family)
    assert len(shipped.va) == 550
    assert shipped.names == SHAPES
    assert shipped.counts.min() >= 30
    assert shipped.expressions == EXPRESSIONS
    # Once around and through the middle in two seconds of 60 frames: the fastest vertex of the head.
    t = np.linspace(0, 2 * np.pi, 121)
    shown = shipped.at(0.8 * np.cos(t), 0.8 * np.sin(2 * t))
    model = load_default()
    basis = model.expression.astype(np.float32).reshape(len(SHAPES), -1)
    order = [SHAPES.index(name) for name in model.expression_names]
    steps = np.diff(shown[:, order], axis=0) @ basis
    speed_mm = np.linalg.norm(steps.reshape(len(steps), -1, 3), axis=2).max()
    assert speed_mm < 4.5  # 0.27 m/s; 3.5 measured
    wild = shipped.sample(0.8, 0.2, np.random.default_rng(1))
    assert 0.01 < np.abs(wild - shipped.at(np.array([0.8]), np.array([0.2]))[0]).max() < 0.6


@pytest.mark.parametrize("family", ["default", "ict"])
def test_what_ships_was_made_by_the_script(family: str) -> None:
    """The whole rebuild takes minutes: ``build_affect --check``."""
    shipped = affect_classes(family)
    assert json.loads(shipped.about) == {
        **build_affect.provenance(family),
        "faces": int(shipped.counts.sum()),
    }
    assert shipped.family == family
    assert shipped.modes.shape == (build_affect.CLASSES, build_affect.MODES, len(SHAPES))


def test_the_script_makes_the_same_file_again(tmp_path: Path) -> None:
    made = [build_affect.build("ict", tmp_path / name, SMALL, 30) for name in ("a.npz", "b.npz")]
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    assert json.loads(made[0].about)["gallery"] == build_affect.provenance("ict", SMALL)["gallery"]
    assert build_affect.differences(*made) == []
    other = build_affect.build("ict", tmp_path / "c.npz", replace(SMALL, seed=4), 30)
    told = build_affect.differences(made[0], other)
    assert told[0].startswith("made otherwise")
    assert any(line.startswith("means: differs by up to") for line in told)


def test_the_commands_make_use_and_draw_an_affect_model(tmp_path: Path) -> None:
    gallery, model, parts = tmp_path / "gallery", tmp_path / "model.npz", tmp_path / "parts.npz"

    def run(*words: object) -> dict[str, Any]:
        done = CliRunner().invoke(app, ["affect", *map(str, words), "--json"])
        assert done.exit_code == 0, done.output
        told: dict[str, Any] = json.loads(done.stdout)
        return told

    made = run("sample-gallery", gallery, "--subjects", 3, "--recordings", 8, "--fps", 25)
    assert made["faces"] == len(Gallery.open(gallery))
    learned = run("build", gallery, "-o", model, "--classes", 30, "--step", 0.05)
    assert learned["classes"] == len(AffectClasses.load(model).va) == 30
    found = run("components", gallery, "-o", parts, "--count", 3, "--samples", 40, "--sweeps", 2)
    assert found["count"] == 3
    assert np.load(parts)["components"].shape == (3, len(load_default().vertices), 3)
    again = CliRunner().invoke(app, ["affect", "sample-gallery", str(gallery)])
    assert again.exit_code == 1
    assert "already" in again.stderr
    (tmp_path / "file").touch()
    taken = CliRunner().invoke(app, ["affect", "sample-gallery", str(tmp_path / "file")])
    assert taken.exit_code == 1
    assert "cannot be made" in taken.stderr
    for source in (gallery, model):
        drawn = run("plot", source, "-o", tmp_path / "drawn.png")
        picture = read_image(Path(drawn["image"]))
        assert min(picture.shape[:2]) > 400
        assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 50  # points and colours on the white
    wrong = CliRunner().invoke(app, ["affect", "plot", str(model), "-o", str(tmp_path / "m.svg")])
    assert wrong.exit_code == 1
    assert ".svg is for a path" in wrong.stderr
    missing = CliRunner().invoke(app, ["affect", "build", str(tmp_path / "none"), "-o", str(model)])
    assert missing.exit_code == 1
    assert len(missing.stderr.splitlines()) == 1


def test_an_engine_takes_a_model_of_ones_own(classes: AffectClasses, tmp_path: Path) -> None:
    classes.save(tmp_path / "mine.npz")
    point = Affect.va(0.7, 0.1)
    mine, shipped = Engine(affects=tmp_path / "mine.npz"), Engine()
    names = shipped.model.expression_names
    own = mine._affects.coefficients(point, names)
    expected = AffectClasses.load(tmp_path / "mine.npz").at(np.array([0.7]), np.array([0.1]))[0]
    np.testing.assert_allclose(own, expected[[SHAPES.index(name) for name in names]], atol=1e-6)
    assert np.abs(own - shipped._affects.coefficients(point, names)).max() > 0.01
    assert mine.made_with["affect_model"] == "mine.npz"
    assert mine.made_with["affect_model_sha256"] == classes.digest
    assert shipped.made_with["affect_model"] == "default"
    assert shipped.made_with["affect_model_sha256"] != classes.digest


def test_a_folder_is_made_with_it_and_with_no_other(
    classes: AffectClasses, shared: Path, tmp_path: Path
) -> None:
    """In processes of their own; with another model, what is there is made anew."""
    classes.save(tmp_path / "mine.npz")
    photos = tmp_path / "photos"
    photos.mkdir()
    for name in ("026", "042"):
        shutil.copy(shared / "data" / "photos" / "london" / "neutral" / f"{name}.jpg", photos)
    words = ["synth", str(photos), "--va", "0.7", "0.1", "-o", str(tmp_path / "out"), "--threads", "2"]
    for more, named, written in (
        (["--affect-model", str(tmp_path / "mine.npz")], "mine.npz", 2),
        (["--affect-model", str(tmp_path / "mine.npz"), "--resume"], "mine.npz", 0),
        (["--resume"], "default", 2),
    ):
        done = CliRunner().invoke(app, [*words, *more, "--json"])
        assert done.exit_code == 0, done.output
        assert json.loads(done.stdout)["written"] == written
        records = [read_labels(path) for path in (tmp_path / "out").glob("*.json")]
        assert [record["affect_model"] for record in records] == [named] * 2
        if named == "mine.npz":
            assert {record["affect_model_sha256"] for record in records} == {classes.digest}
            column = SHAPES.index("mouthSmileLeft")
            expected = AffectClasses.load(tmp_path / "mine.npz").at(np.array([0.7]), np.array([0.1]))
            assert records[0]["coefficients"]["mouthSmileLeft"] == pytest.approx(
                expected[0, column], abs=1e-4
            )


def test_an_engine_refuses_what_is_no_model_for_it(classes: AffectClasses, tmp_path: Path) -> None:
    def refused(affects: Any) -> str:
        with pytest.raises(BadModelFile) as caught:
            Engine(affects=affects)
        return str(caught.value)

    meshes = replace(classes, names=())
    other = replace(classes, about=json.dumps({"gallery": {"family": "ict"}}))
    for wrong, says in (
        (meshes, "one is of meshes of 17 vertices"),
        (other, "heads of the family 'default'"),
    ):
        assert says in refused(wrong)
        wrong.save(tmp_path / "wrong.npz")
        assert says in refused(tmp_path / "wrong.npz")
        assert "wrong.npz: " in refused(tmp_path / "wrong.npz")
    assert "none.npz: cannot be read" in refused(tmp_path / "none.npz")
    assert "wanted 'fastface-affect-model' version 1, got 'fastface-head-model'" in refused(DEFAULT_MODEL)


def test_variants_differ_and_stay_human() -> None:
    """Drawn about the mean, never beyond what coefficients mean; neutral stays neutral."""
    model = affect_model()
    for point in ((0.8, 0.4), (-0.6, 0.7), (-0.7, -0.4)):
        mean = model.coefficients(Affect.va(*point), SHAPES)
        drawn = model.rows([Affect.va(*point, variant=number) for number in range(200)], SHAPES)
        assert drawn.min() >= 0
        assert drawn.max() <= 1
        assert len(np.unique(drawn.round(3), axis=0)) == 200
        np.testing.assert_allclose(drawn.mean(0), mean, atol=0.05)
        np.testing.assert_array_equal(model.coefficients(Affect.va(*point, variant=7), SHAPES), drawn[7])
    assert not model.coefficients(Affect.va(0, 0, variant=3), SHAPES).any()
    labels = model.labels(Affect.va(0.8, 0.4, variant=3))
    assert (labels.valence, labels.arousal) == (0.8, 0.4)
    assert labels.aus != model.labels(Affect.va(0.8, 0.4)).aus


@pytest.mark.parametrize("variant", [-1, 1.5, True, 1 << 32])
def test_variants_that_cannot_be(variant: Any) -> None:
    with pytest.raises(BadAffect):
        Affect.va(0.8, 0.4, variant)
    with pytest.raises(BadAffect, match="not of expressions"):
        Affect("expressions", (("happy", 1.0),), 3)
    with pytest.raises(BadAffect, match="cannot be variants"):
        Affect.path([Affect.va(0.8, 0.4, 3), Affect.va(0.8, 0.4, 3)])
