"""Stimulus sets: courses over time, views, pain, heat-maps, codebook."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from typer.testing import CliRunner

from fastface import Affect, AffectPath, read_image, read_provenance
from fastface.cli.app import app
from fastface.errors import BadAffect
from fastface.labels import read_table
from fastface.stimuli import CODEBOOK, Course, course_of, path_csv, path_svg


@pytest.fixture
def photo(shared: Path) -> Path:
    return shared / "data" / "photos" / "london" / "neutral" / "042.jpg"


def run(*words: object) -> dict[str, Any]:
    done = CliRunner().invoke(app, [*map(str, words), "--json"])
    assert done.exit_code == 0, done.output
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def test_a_course_rises_stays_and_falls() -> None:
    course = Course(onset_s=0.5, apex_s=0.2, offset_s=1.0, rest_s=0.1)
    path, phases = course_of(Affect.expression("happy"), course, 100)
    shares = path.values[:, path.columns.index("happy")]
    assert len(shares) == 191
    assert (shares[:11] == 0).all()
    np.testing.assert_allclose(shares[60:81], 1, atol=1e-9)
    np.testing.assert_allclose(shares[-11:], 0, atol=1e-9)
    assert (np.diff(shares[10:61]) > 0).all()
    assert (np.diff(shares[80:181]) < 0).all()
    assert list(dict.fromkeys(phases)) == ["rest", "onset", "apex", "offset"]
    assert [phases.count(phase) for phase in ("onset", "apex", "offset")] == [50, 20, 100]
    assert np.abs(np.diff(shares, n=2)).max() < 0.0025  # no jerk where phases meet


@pytest.mark.parametrize("wrong", [(-1, 1, 1), (0, 0, 0), (np.nan, 1, 1), ("x", 1, 1)])
def test_a_course_that_cannot_be_is_refused(wrong: tuple[Any, ...]) -> None:
    with pytest.raises(BadAffect):
        Course(*wrong)


@pytest.mark.parametrize(
    "affect", [Affect.expression("sad", 0.7), Affect.va(0.4, -0.5), Affect.aus({"AU12L": 1, "AU6": 0.5})]
)
def test_a_written_course_is_a_path(tmp_path: Path, affect: Affect) -> None:
    path, phases = course_of(affect, Course(0.3, 0.1, 0.4), 30)
    (tmp_path / "course.csv").write_text(path_csv(path, phases))
    again = AffectPath.from_csv(tmp_path / "course.csv", 30)
    assert (again.kind, again.columns) == (path.kind, path.columns)
    np.testing.assert_allclose(again.values, path.values, atol=1e-5)  # times and values have six digits


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("time_s,happy,sad\n0,0.6,0.5\n", "together must be at most 1, got 1.1"),
        ("time_s,happy,AU12\n0,0.6,0.5\n", "wanted the columns"),
        ("time_s,happy,expression,intensity\n0,0,sad,0.5\n", "wanted the columns"),
        ("time_s,phase\n0,rest\n", "wanted the columns"),
    ],
)
def test_tables_that_are_no_path_are_refused(tmp_path: Path, table: str, said: str) -> None:
    (tmp_path / "path.csv").write_text(table)
    with pytest.raises(BadAffect, match=said):
        AffectPath.from_csv(tmp_path / "path.csv")


def test_a_path_is_drawn_and_tabulated() -> None:
    path = Affect.path([(0, 0, 0), (1, 0.8, 0.4), (2, -0.5, 0.6)], fps=10)
    root = ElementTree.fromstring(path_svg(path.values))
    assert len([part for part in root.iter() if part.tag.endswith("line")]) == len(path) - 1
    table = list(csv.DictReader(path_csv(path).splitlines()))
    assert [float(row["valence"]) for row in table] == pytest.approx(path.values[:, 0], abs=1e-6)
    with pytest.raises(BadAffect, match="within"):
        path_svg(np.full((3, 2), 2.0))


def test_a_set_of_images(photo: Path, tmp_path: Path) -> None:
    folder = tmp_path / "set"
    told = run(
        "stimuli",
        photo,
        "-o",
        folder,
        "-e",
        "happy",
        "--pain",
        8,
        "--steps",
        3,
        "--yaw",
        -20,
        0,
        "--heatmaps",
    )
    assert told["stimuli"] == 12
    rows = list(csv.DictReader((folder / "codebook.csv").read_text().splitlines()))
    assert len(rows) == 12
    meant = list(csv.DictReader((folder / "columns.csv").read_text().splitlines()))
    assert [line["column"] for line in meant] == list(rows[0]) == list(CODEBOOK)
    assert all(line["meaning"] for line in meant)
    for row in rows:
        record = json.loads((folder / row["image"]).with_suffix(".json").read_text())
        assert record["image"] == row["image"]
        assert float(row["yaw_deg"]) == pytest.approx(record["pose"]["yaw_deg"])
        assert float(row["pain"]) == pytest.approx(record["pain"])
        assert read_provenance(folder / row["image"])
    by_name = {row["image"]: row for row in rows}
    assert float(by_name["pain8-1.00.yaw+00.png"]["pain"]) == pytest.approx(8)
    assert float(by_name["happy-0.50.yaw+00.png"]["intensity"]) == pytest.approx(0.5)
    turn = [float(by_name[f"happy-0.50.yaw{view}.png"]["yaw_deg"]) for view in ("+00", "-20")]
    assert turn[0] - turn[1] == pytest.approx(20, abs=1)
    assert (read_image(folder / "happy-0.00.yaw+00.png") == read_image(photo)).all()
    heat = read_image(folder / "happy-1.00.yaw+00.heat.png")
    assert (heat != read_image(folder / "happy-1.00.yaw+00.png")).any()
    again = CliRunner().invoke(app, ["stimuli", str(photo), "-o", str(folder), "-e", "sad"])
    assert again.exit_code == 1
    assert "not empty" in again.stderr


def test_a_set_of_videos(photo: Path, tmp_path: Path) -> None:
    folder = tmp_path / "set"
    run("stimuli", photo, "-o", folder, "-e", "surprise", "--course", 0.2, 0.1, 0.2, "--fps", 20)
    (table,) = [path for path in folder.iterdir() if path.suffix in (".parquet", ".jsonl")]
    rows = list(read_table(table))
    assert [row["phase"] for row in rows] == [
        row["phase"] for row in csv.DictReader((folder / "surprise.csv").read_text().splitlines())
    ]
    assert {row["phase"] for row in rows} == {"rest", "onset", "apex", "offset"}
    assert max(row["intensity"] for row in rows) == pytest.approx(1)


def test_a_folder_of_photos_is_told_where_to_go(photo: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["stimuli", str(photo.parent), "-o", str(tmp_path / "x"), "-e", "happy"])
    assert done.exit_code == 1
    assert "`fastface synth` takes folders" in done.stderr


@pytest.mark.parametrize(
    "wrong",
    [
        ["--yaw=-90"],
        ["--yaw=left"],
        ["--steps", "0"],
        ["--steps", "3", "-i", "0.5"],
        ["-i", "1.5"],
        ["--pain", "40"],
        ["--course", "1", "1", "1", "--heatmaps"],
        ["--yaw", "20", "--heatmaps"],
        [],
    ],
)
def test_what_cannot_be_shown_is_refused(photo: Path, tmp_path: Path, wrong: list[str]) -> None:
    words = ["stimuli", str(photo), "-o", str(tmp_path / "x"), *(["-e", "happy"] if wrong else []), *wrong]
    done = CliRunner().invoke(app, words)
    assert done.exit_code != 0
    assert not (tmp_path / "x").exists()


def test_synth_turns_heads_and_shows_pain(photo: Path, tmp_path: Path) -> None:
    told = run("synth", photo, "--pain", 12, "--yaw", 15, "-o", tmp_path / "o.png")
    assert told["record"]["pain"] == pytest.approx(12)
    plain = run("synth", photo, "--pain", 12, "-o", tmp_path / "p.png")
    assert told["record"]["pose"]["yaw_deg"] - plain["record"]["pose"]["yaw_deg"] == pytest.approx(15, abs=1)


def test_a_path_is_drawn_by_command(tmp_path: Path) -> None:
    (tmp_path / "path.csv").write_text("time_s,valence,arousal\n0,0,0\n1,0.5,0.5\n")
    run("affect", "plot", tmp_path / "path.csv", "-o", tmp_path / "path.svg")
    assert (tmp_path / "path.svg").read_text().startswith("<svg")


def test_heat_maps_count_on_a_sheet(tmp_path: Path) -> None:
    words = [tmp_path / "none.png", "-e", "sad", "--steps", 250, "--sheet", tmp_path / "s.png", "--heatmaps"]
    refused = CliRunner().invoke(app, ["stimuli", *map(str, words), "-o", str(tmp_path / "set")])
    assert refused.exit_code == 1
    assert "500 faces, at most 400" in refused.stderr
    assert not list(tmp_path.iterdir())


def test_levels_too_near_for_two_decimals_keep_files_of_their_own(photo: Path, tmp_path: Path) -> None:
    told = run(
        "stimuli",
        photo,
        "-o",
        tmp_path / "set",
        "-e",
        "sad",
        "-i",
        0.501,
        0.502,
        "--sheet",
        tmp_path / "s.jpg",
    )
    assert told["stimuli"] == 2
    names = sorted(path.name for path in (tmp_path / "set").glob("*.png"))
    assert names == ["sad-0.501.png", "sad-0.502.png"]
    height, width = read_image(tmp_path / "s.jpg").shape[:2]
    assert width > 2 * 256
    assert height < width
    found = read_provenance(tmp_path / "s.jpg")
    assert found is not None
    assert found.is_synthetic
