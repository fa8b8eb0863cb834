"""The command line around the engine: names, files, errors, folders.

The engine itself is a stand-in here, quick and exact about what it was asked; ``test_main_job.py`` runs the
commands with the real one.
"""

from __future__ import annotations

import errno
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import pytest
import typer
from numpy.typing import NDArray
from PIL import Image
from typer.testing import CliRunner, Result

from fastface import atomic, images
from fastface.affect import Affect, AffectPath, affect_model
from fastface.affect_tables import SHAPES
from fastface.cli import batch, options
from fastface.cli.app import app
from fastface.errors import BadModelFile, NoFaceFound
from fastface.labels import Labels, Pose, read_labels, read_table
from fastface.provenance import read_provenance


@dataclass(frozen=True)
class StandInFace:
    photo: NDArray[np.uint8]
    landmarks_px: NDArray[np.float32]
    model_hash: str = "c" * 64
    yaw_deg: float = 1.0
    pitch_deg: float = 2.0
    roll_deg: float = 3.0
    focal_px: float = 900.0

    def save(self, path: Path) -> None:
        atomic.write_whole(path, b"fit")


@dataclass
class StandInFrame:
    image: NDArray[np.uint8]
    labels: Labels


class StandInEngine:
    """Writes the affect's strength into a corner. A flat photo has no face; a wide one brings out a fault."""

    rendered: list[Affect]

    def __init__(self) -> None:
        self.rendered = []
        self.model = affect_model()
        self.made_with = {
            "model_sha256": "c" * 64,
            "affect_model": "default",
            "affect_model_sha256": "d" * 64,
        }

    def fit(self, photo: Path) -> StandInFace:
        rgb = images.read_image(photo)
        if rgb.std() < 5:
            raise NoFaceFound(f"{photo}: no face found")
        if rgb.shape[1] > 200:
            raise ZeroDivisionError("a fault")
        points = np.random.default_rng(0).uniform(10, 50, (478, 2)).astype(np.float32)
        return StandInFace(rgb, points)

    def render(self, face: StandInFace, affect: Affect, *, pose: object = None) -> NDArray[np.uint8]:
        self.rendered.append(affect)
        out = face.photo.copy()
        out[:8, :8] = round(255 * min(float(self.model.coefficients(affect, SHAPES).max()), 1.0))
        return out

    def labels(self, face: StandInFace, affect: Affect, *, pose: object = None) -> Labels:
        found = self.model.labels(affect)
        return Labels(
            expression=found.expression,
            intensity=found.intensity,
            aus=found.aus,
            valence=found.valence,
            arousal=found.arousal,
            coefficients=dict(zip(SHAPES, self.model.coefficients(affect, SHAPES).tolist(), strict=True)),
            landmarks68_px=face.landmarks_px[:68],
            landmarks478_px=face.landmarks_px,
            pose=Pose(1.0, 2.0, 3.0, (0.0, 0.0, 600.0), 900.0),
            width_px=face.photo.shape[1],
            height_px=face.photo.shape[0],
            photo_sha256="a" * 64,
            engine_version="9.9",
            **self.made_with,
        )

    def stream(self, face: StandInFace, path: AffectPath, *, pose: object = None) -> Iterator[StandInFrame]:
        for affect in path:
            yield StandInFrame(self.render(face, affect), self.labels(face, affect))


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> StandInEngine:
    stand_in = StandInEngine()

    def opened(model: str, *_: object) -> StandInEngine:
        if model != "default":
            raise BadModelFile(f"{model}: no such head model")
        return stand_in

    monkeypatch.setattr(options, "open_engine", opened)
    return stand_in


def save_photo(path: Path, seed: int = 0, width: int = 64) -> Path:
    rgb = np.random.default_rng(seed).integers(0, 256, (64, width, 3), dtype=np.uint8)
    Image.fromarray(rgb).save(path)
    return path


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    return save_photo(tmp_path / "photo.png")


def invoke(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


def must(*words: object) -> Result:
    result = invoke(*words)
    assert result.exit_code == 0, result.output
    return result


def refused(*words: object, code: int = 1) -> str:
    """The one line on stderr of a command that must fail."""
    result = invoke(*words)
    assert result.exit_code == code, result.output
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("fastface: error: ")
    assert result.stdout == ""
    return lines[0]


# --- one image ---


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp"])
def test_an_image_is_written_marked_and_labelled(
    tmp_path: Path, photo: Path, engine: StandInEngine, suffix: str
) -> None:
    output = tmp_path / f"out{suffix}"
    result = must("synth", photo, "--expression", "happy", "--intensity", "0.8", "-o", output)
    assert "happy 0.80" in result.stdout
    assert engine.rendered == [Affect.expression("happy", 0.8)]
    record = read_labels(tmp_path / "out.json")
    assert (record["image"], record["photo"], record["affect"]) == (output.name, "photo.png", "happy-0.80")
    found = read_provenance(output)
    assert found is not None
    assert found.is_synthetic
    assert found.software == "fastface 9.9"
    assert found.parameters["affect"] == "happy-0.80"
    assert found.parameters["photo_sha256"] == "a" * 64
    assert "photo.png" not in json.dumps(found.parameters)
    if suffix == ".png":
        assert np.array_equal(images.read_image(output), engine.render(engine.fit(photo), engine.rendered[0]))
    assert sorted(os.listdir(tmp_path)) == sorted([output.name, "out.json", "photo.png"])


def test_what_is_asked_reaches_the_engine(tmp_path: Path, photo: Path, engine: StandInEngine) -> None:
    must("synth", photo, "--au", "AU1=1", "--au", "au12l=0.8", "-o", tmp_path / "a.png")
    must("synth", photo, "--va", "-0.8", "0.4", "-o", tmp_path / "b.png")
    must("synth", photo, "--va", "0.8", "0.4", "-i", "0.5", "-o", tmp_path / "c.png")
    assert engine.rendered == [
        Affect.aus({"AU1": 1.0, "AU12L": 0.8}),
        Affect.va(-0.8, 0.4),
        Affect.va(0.4, 0.2),
    ]


def test_json_tells_machines_everything(tmp_path: Path, photo: Path, engine: StandInEngine) -> None:
    result = must("synth", photo, "-e", "sad", "-o", tmp_path / "o.png", "--json")
    told = json.loads(result.stdout)
    assert told["image"] == str(tmp_path / "o.png")
    assert told["record"]["expression"] == "sad"
    result = invoke("synth", photo, "-e", "gloomy", "-o", tmp_path / "o.png", "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["error"]["type"] == "BadAffect"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["-e", "hapy", "-o", "o.png"], "did you mean 'happy'"),
        (["-e", "happy", "-i", "1.5", "-o", "o.png"], "[0, 1], got 1.5"),
        (["-e", "happy", "-i", "nan", "-o", "o.png"], "got nan"),
        (["--va", "nan", "0", "-o", "o.png"], "valence must be"),
        (["--va", "0", "2", "-o", "o.png"], "arousal must be"),
        (["-e", "happy", "-o", "o.png", "--resume"], "is for folders"),
        (["--au", "AU12", "-o", "o.png"], "NAME=INTENSITY"),
        (["--au", "AU99=1", "-o", "o.png"], "unknown action unit"),
        (["--au", "AU1=1", "--au", "au1=0.5", "-o", "o.png"], "twice"),
        (["--au", "AU1=inf", "-o", "o.png"], "got inf"),
        (["-o", "o.png"], "nothing to show"),
        (["-e", "happy", "-e", "sad", "-o", "o.png"], "one photo, one output"),
        (["-e", "happy", "-o", "o.bmp"], "must end in"),
        (["-e", "happy", "-o", "o"], "must end in"),
        (["-e", "happy", "-o", "o.mp4"], "needs --path"),
        (["-e", "happy", "-o", "nowhere/o.png"], "no folder"),
        (["-e", "happy", "-o", "o.png", "--no-provenance"], "always marked"),
        (["-e", "happy", "-o", "o.png", "--model", "flame"], "no such head model"),
        (["--path", "missing.csv", "-o", "o.mp4"], "missing.csv: cannot be read"),
        (["--path", "path.csv", "-e", "happy", "-o", "o.mp4"], "goes alone"),
        (["--path", "path.csv", "-o", "o.png"], "a path gives a video"),
        (["--path", "path.csv", "-o", "o.mp4", "--no-provenance"], "always marked"),
        (["-e", "happy", "-o", "photo.png"], "is the input itself"),
        (["-e", "happy", "-o", "theirs.png"], "holds no labels"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(
    tmp_path: Path,
    photo: Path,
    engine: StandInEngine,
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    says: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("path.csv").write_text("time_s,valence,arousal\n0,0,0\n1,0.5,0.5\n")
    Path("theirs.json").write_text('{"precious": true}')
    before = {name: Path(name).read_bytes() for name in os.listdir()}
    assert says in refused("synth", "photo.png", *words)
    assert {name: Path(name).read_bytes() for name in os.listdir()} == before


@pytest.mark.parametrize("broken", ["missing.png", "flat.png", "text.jpg", "empty.png"])
def test_photos_that_cannot_be_used(tmp_path: Path, engine: StandInEngine, broken: str) -> None:
    Image.new("RGB", (64, 64)).save(tmp_path / "flat.png")
    (tmp_path / "text.jpg").write_text("no photo")
    (tmp_path / "empty.png").touch()
    line = refused("synth", tmp_path / broken, "-e", "happy", "-o", tmp_path / "o.png")
    assert broken in line
    assert not (tmp_path / "o.png").exists()


def test_a_fault_is_one_line_too_and_debug_shows_where(tmp_path: Path, engine: StandInEngine) -> None:
    wide = save_photo(tmp_path / "wide.png", width=300)
    words = ("synth", wide, "-e", "happy", "-o", tmp_path / "o.png")
    line = refused(*words, code=70)
    assert "ZeroDivisionError: a fault" in line
    assert "--debug" in line
    assert isinstance(invoke(*words, "--debug").exception, ZeroDivisionError)


def test_a_full_disk_is_one_line(
    tmp_path: Path, photo: Path, engine: StandInEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    assert "No space left" in refused("synth", photo, "-e", "happy", "-o", tmp_path / "o.png")
    assert os.listdir(tmp_path) == ["photo.png"]


def test_a_folder_that_may_not_be_written(
    tmp_path: Path, photo: Path, engine: StandInEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.open

    def locked(path: str | Path, *rest: int) -> int:
        if str(path).endswith(".tmp"):
            raise PermissionError(errno.EACCES, "Permission denied")
        return real(path, *rest)

    monkeypatch.setattr(os, "open", locked)
    assert "Permission denied" in refused("synth", photo, "-e", "happy", "-o", tmp_path / "o.png")


# --- a video ---


def test_a_path_gives_a_video_with_a_row_of_labels_a_frame(
    tmp_path: Path, photo: Path, engine: StandInEngine
) -> None:
    csv = tmp_path / "smile.csv"
    csv.write_text("time_s,valence,arousal\n0,0,0\n1,0.8,0.4\n")
    result = must("synth", photo, "--path", csv, "--fps", "25", "-o", tmp_path / "o.mp4", "--json")
    told = json.loads(result.stdout)
    assert (told["frames"], told["fps"]) == (26, 25)
    with av.open(str(tmp_path / "o.mp4")) as container:
        assert sum(1 for _ in container.decode(video=0)) == 26
    rows = list(read_table(told["labels"]))
    assert [row["frame"] for row in rows] == list(range(26))
    assert rows[0]["valence"] == 0
    assert rows[25]["valence"] == 0.8
    assert rows[25]["time_s"] == 1.0
    found = read_provenance(tmp_path / "o.mp4")
    assert found is not None
    assert found.is_synthetic
    assert found.parameters["affect"] == "path smile"


def test_a_video_that_fails_half_way_leaves_nothing(
    tmp_path: Path, photo: Path, engine: StandInEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    csv = tmp_path / "p.csv"
    csv.write_text("time_s,AU12\n0,0\n9,1\n")

    def interrupted(face: StandInFace, path: AffectPath, **how: object) -> Iterator[StandInFrame]:
        yield StandInFrame(face.photo, engine.labels(face, path[0]))
        raise KeyboardInterrupt

    monkeypatch.setattr(engine, "stream", interrupted)
    result = invoke("synth", photo, "--path", csv, "-o", tmp_path / "o.mp4")
    assert result.exit_code == 130
    assert "interrupted" in result.stderr
    assert sorted(os.listdir(tmp_path)) == ["p.csv", "photo.png"]


# --- a folder ---


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    source = tmp_path / "photos"
    source.mkdir()
    for index in range(3):
        save_photo(source / f"00{index}.png", index)
    return source


def run_folder(folder: Path, *words: object) -> Result:
    output = folder.parent / "out"
    return invoke("synth", folder, "-e", "surprise", "-i", 0.5, "-i", 1, "-o", output, "--threads", 1, *words)


def test_a_folder_gives_named_images_labels_and_a_manifest(folder: Path, engine: StandInEngine) -> None:
    result = run_folder(folder)
    assert result.exit_code == 0, result.output
    output = folder.parent / "out"
    stems = [f"00{i}.surprise-{strength}" for i in range(3) for strength in ("0.50", "1.00")]
    expected = [stem + suffix for stem in stems for suffix in (".json", ".png")]
    manifest = next(output.glob("manifest.*"))
    assert sorted(os.listdir(output)) == sorted([*expected, manifest.name])
    rows = list(read_table(manifest))
    assert [row["image"] for row in rows] == [name for name in sorted(expected) if name.endswith(".png")]
    assert (rows[1]["photo"], rows[1]["intensity"], rows[1]["provenance"]) == ("000.png", 1.0, True)
    found = read_provenance(output / "001.surprise-0.50.png")
    assert found is not None
    assert found.is_synthetic


def test_bad_photos_are_reported_and_the_others_finish(folder: Path, engine: StandInEngine) -> None:
    (folder / "broken.jpg").write_text("no photo")
    Image.new("RGB", (64, 64)).save(folder / "flat.png")
    save_photo(folder / "wide.png", width=300)
    (folder / "notes.txt").write_text("not looked at")
    result = run_folder(folder, "--json")
    assert result.exit_code == 1
    told = json.loads(result.stdout)
    assert told["written"] == 6
    assert [failure["photo"] for failure in told["failed"]] == ["broken.jpg", "flat.png", "wide.png"]
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 3
    assert "no face found" in lines[1]
    assert "ZeroDivisionError" in lines[2]


def test_a_run_is_resumed_where_it_stopped(folder: Path, engine: StandInEngine) -> None:
    run_folder(folder)
    output = folder.parent / "out"
    kept = (output / "000.surprise-0.50.png").stat().st_mtime_ns
    (output / "001.surprise-1.00.png").unlink()
    (output / "002.surprise-0.50.json").write_text("{")
    save_photo(folder / "003.png", 3)
    engine.rendered.clear()
    told = json.loads(run_folder(folder, "--resume", "--json").stdout)
    assert (told["written"], told["kept"]) == (4, 4)
    assert len(engine.rendered) == 4
    assert (output / "000.surprise-0.50.png").stat().st_mtime_ns == kept
    rows = list(read_table(told["manifest"]))
    assert sorted(row["image"] for row in rows) == sorted(p.name for p in output.glob("*.png"))


def test_what_is_there_is_replaced_only_when_asked(folder: Path, engine: StandInEngine) -> None:
    run_folder(folder)
    result = run_folder(folder)
    assert result.exit_code == 1
    assert "--resume" in result.stderr
    engine.rendered.clear()
    assert run_folder(folder, "--overwrite").exit_code == 0
    assert len(engine.rendered) == 6
    assert "give one" in run_folder(folder, "--overwrite", "--resume").stderr


def test_an_interrupted_run_keeps_what_was_finished(
    folder: Path, engine: StandInEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = engine.render

    def render(face: StandInFace, affect: Affect, **how: object) -> NDArray[np.uint8]:
        if len(engine.rendered) == 3:
            raise KeyboardInterrupt
        return real(face, affect)

    monkeypatch.setattr(engine, "render", render)
    result = run_folder(folder)
    assert result.exit_code == 130
    output = folder.parent / "out"
    assert not [name for name in os.listdir(output) if name.endswith(".tmp")]
    assert len(list(output.glob("*.png"))) == 3
    assert len(list(read_table(next(output.glob("manifest.*"))))) == 2  # of the one photo that was finished
    monkeypatch.setattr(engine, "render", real)
    told = json.loads(run_folder(folder, "--resume", "--json").stdout)
    assert (told["written"], told["kept"]) == (3, 3)


def test_a_full_disk_ends_the_run(
    folder: Path, engine: StandInEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.replace

    def full(source: Path, target: Path) -> None:
        if target.name.startswith("001"):
            raise OSError(errno.ENOSPC, "No space left on device")
        real(source, target)

    monkeypatch.setattr(os, "replace", full)
    result = run_folder(folder)
    assert result.exit_code == 1
    assert "No space left" in result.stderr
    output = folder.parent / "out"
    assert not [name for name in os.listdir(output) if name.endswith(".tmp")]
    assert len(engine.rendered) == 3


def test_a_data_set_may_go_unmarked_and_the_manifest_says_so(folder: Path, engine: StandInEngine) -> None:
    assert run_folder(folder, "--no-provenance").exit_code == 0
    output = folder.parent / "out"
    assert read_provenance(output / "000.surprise-0.50.png") is None
    assert not any(row["provenance"] for row in read_table(next(output.glob("manifest.*"))))


def test_random_affects_depend_on_the_seed_and_the_photo_alone(folder: Path, engine: StandInEngine) -> None:
    def names(seed: int, output: str) -> set[str]:
        target = folder.parent / output
        must("synth", folder, "--random", 5, "--seed", seed, "-o", target, "--threads", 1)
        return {path.name for path in target.glob("*.png")}

    first = names(7, "a")
    assert len(first) == 15
    assert first != names(8, "c")
    (folder / "000.png").rename(folder / "009.png")
    again = names(7, "b")
    assert {name for name in first if not name.startswith("000")} < again
    assert len({name.split(".", 1)[1] for name in first}) > 10
    for affect in engine.rendered:
        assert math.hypot(*(value for _, value in affect.parts)) <= 1.01


def test_photos_of_one_name_keep_apart(folder: Path, engine: StandInEngine) -> None:
    save_photo(folder / "001.webp", 9)
    run_folder(folder)
    names = {path.name for path in (folder.parent / "out").glob("*0.50.png")}
    assert names == {f"{stem}.surprise-0.50.png" for stem in ("000", "001_png", "001_webp", "002")}


def test_a_folder_along_a_path_gives_videos(folder: Path, engine: StandInEngine) -> None:
    csv = folder.parent / "smile.csv"
    csv.write_text("time_s,AU12\n0,0\n0.2,1\n")
    output = folder.parent / "out"
    must("synth", folder, "--path", csv, "--fps", 10, "-o", output, "--threads", 1)
    assert sorted(path.name for path in output.glob("*.mp4")) == [f"00{i}.smile.mp4" for i in range(3)]
    words = ("synth", folder, "--path", csv, "--fps", 10, "-o", output, "--threads", 1, "--resume", "--json")
    told = json.loads(must(*words).stdout)
    assert (told["written"], told["kept"]) == (0, 3)
    assert [row["image"] for row in read_table(told["manifest"])] == [f"00{i}.smile.mp4" for i in range(3)]


def test_folders_that_make_no_sense(folder: Path, engine: StandInEngine, tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    (tmp_path / "file").touch()
    words = ("-e", "happy", "--threads", 1)
    assert "name a folder for" in refused("synth", folder, *words, "-o", tmp_path / "out.jpg")
    assert "no photos" in refused("synth", tmp_path / "none", *words, "-o", tmp_path / "out")
    assert "must not be the folder" in refused("synth", folder, *words, "-o", folder)
    assert "cannot be made" in refused("synth", folder, *words, "-o", tmp_path / "file" / "out")
    assert "--format is" in refused("synth", folder, *words, "-o", tmp_path / "out", "--format", "gif")
    assert "two outputs" in refused("synth", folder, *words, "-i", 0.501, "-i", 0.5, "-o", tmp_path / "out")
    assert not (tmp_path / "out").exists() or os.listdir(tmp_path / "out") == []


def test_what_a_killed_run_left_is_cleaned_up_later(folder: Path, engine: StandInEngine) -> None:
    output = folder.parent / "out"
    output.mkdir()
    for name, age in ((".000.png.0123abcd.tmp", 7200), (".001.png.0123abcd.tmp", 1)):
        (output / name).write_bytes(b"half")
        os.utime(output / name, (time.time() - age,) * 2)
    run_folder(folder, "--resume")
    assert not (output / ".000.png.0123abcd.tmp").exists()
    assert (output / ".001.png.0123abcd.tmp").exists()  # perhaps another run's


# --- a photo's set ---


def test_a_photo_gives_a_set_at_even_intensities_from_several_sides(
    tmp_path: Path, photo: Path, engine: StandInEngine
) -> None:
    """Neutral comes once, however many expressions begin there."""
    output = tmp_path / "set"
    words = ("-e", "happy", "-e", "sad", "--steps", 3, "--yaw", -30, 0, 22.5)
    told = json.loads(must("synth", photo, *words, "-o", output, "--json").stdout)
    slugs = ("neutral-0.00", "happy-0.50", "happy-1.00", "sad-0.50", "sad-1.00")
    expected = {f"photo.{slug}.yaw{turn}.png" for slug in slugs for turn in ("-30", "+00", "+22.5")}
    assert {path.name for path in output.glob("*.png")} == expected
    assert told["written"] == 15
    assert [row["image"] for row in read_table(told["manifest"])][:3] == [
        f"photo.neutral-0.00.yaw{turn}.png" for turn in ("-30", "+00", "+22.5")
    ]


def test_numbers_after_one_name_all_belong_to_it(tmp_path: Path, photo: Path, engine: StandInEngine) -> None:
    must("synth", "-e", "sad", "-i", 0.2, 0.4, "--intensity", "0.6", photo, "-o", tmp_path / "a")
    assert [affect.slug for affect in engine.rendered] == ["sad-0.20", "sad-0.40", "sad-0.60"]
    for words in (("--yaw=-20,0,20",), ("--yaw", "-20,0", 20), ("--yaw", -20, "--yaw=0", 20)):
        output = tmp_path / f"views{len(os.listdir(tmp_path))}"
        must("synth", photo, "-e", "sad", *words, "-o", output)
        turns = {path.name.split(".yaw")[1] for path in output.glob("*.png")}
        assert turns == {"-20.png", "+00.png", "+20.png"}
    for wrong in (("--yaw",), ("--yaw", "left"), ("--yaw=left",), ("--yaw", "1,x"), ("-i", "0.5,")):
        assert invoke("synth", photo, "-e", "sad", "-o", tmp_path / "x", *wrong).exit_code == 2
    photo.rename(tmp_path / "7")
    must("synth", "-e", "sad", "-i", 0.2, "-o", tmp_path / "b.png", "--", tmp_path / "7")


def test_variants_are_numbered_from_the_seed(tmp_path: Path, photo: Path, engine: StandInEngine) -> None:
    words = ("synth", photo, "--va", 0.8, 0.4, "--variants", 3, "--seed", 5)
    must(*words, "-o", tmp_path / "a")
    records = [read_labels(path) for path in sorted((tmp_path / "a").glob("*.json"))]
    assert [record["variant"] for record in records] == [5, 6, 7]
    assert [record["affect"] for record in records] == [f"va+0.80+0.40.v{n}" for n in (5, 6, 7)]
    assert {(record["valence"], record["arousal"]) for record in records} == {(0.8, 0.4)}
    assert len({json.dumps(record["coefficients"]) for record in records}) == 3
    must(*words, "-o", tmp_path / "b", "--sheet", tmp_path / "b" / "s.png")
    again = [read_labels(path) for path in sorted((tmp_path / "b").glob("*.json"))]
    assert again == records
    width, height = Image.open(tmp_path / "b" / "s.png").size
    assert 3 * height < width * 1.5  # a row of three
    assert [row["variant"] for row in read_table(next((tmp_path / "b").glob("manifest.*")))] == [5, 6, 7]
    must("synth", photo, "--va", 0.8, 0.4, "--variants", 1, "--seed", 6, "-o", tmp_path / "one.png")
    assert read_labels(tmp_path / "one.json")["coefficients"] == records[1]["coefficients"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["-e", "happy", "--variants", "2", "-o", "set"], "--va or --random"),
        (["--path", "path.csv", "--variants", "2", "-o", "o.mp4"], "goes alone"),
        (["-e", "happy", "--steps", "3", "-i", "0.5", "-o", "set"], "give one"),
        (["-e", "happy", "--steps", "3", "-o", "o.png"], "3 outputs are asked for"),
        (["-e", "happy", "--yaw", "60", "-o", "o.png"], "--yaw"),
        (["-e", "happy", "--resume", "-o", "o.png"], "is for folders"),
        (["-e", "happy", "--sheet", "s.png", "-o", "o.png"], "is for folders"),
        (["--path", "path.csv", "--yaw", "0", "9", "--sheet", "s.png", "-o", "set"], "of images"),
        (["--random", "401", "--sheet", "s.png", "-o", "set"], "at most 400"),
        (["--random", "2", "--sheet", "s.txt", "-o", "set"], "must end in"),
        (["--random", "2", "--sheet", "photo.png", "-o", "set"], "is an input"),
        (["--random", "2", "--sheet", "none/s.png", "-o", "set"], "there is no folder"),
    ],
)
def test_sets_that_make_no_sense(
    tmp_path: Path,
    photo: Path,
    engine: StandInEngine,
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    says: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("path.csv").write_text("time_s,valence,arousal\n0,0,0\n1,0.5,0.5\n")
    assert says in refused("synth", "photo.png", *words)
    assert sorted(os.listdir()) == ["path.csv", "photo.png"]
    assert "no such file" in refused("synth", "none.png", "-e", "sad", "--steps", "3", "-o", "set")
    assert sorted(os.listdir()) == ["path.csv", "photo.png"]


def test_labels_that_name_another_image_are_made_anew(folder: Path, engine: StandInEngine) -> None:
    run_folder(folder)
    sidecar = min((folder.parent / "out").glob("*.json"))
    sidecar.write_text(sidecar.read_text().replace('"image": "', '"image": "../photos/'))
    told = json.loads(run_folder(folder, "--resume", "--json").stdout)
    assert (told["written"], told["kept"]) == (1, 5)


def test_another_affect_model_makes_what_is_there_anew(folder: Path, engine: StandInEngine) -> None:
    run_folder(folder)
    told = json.loads(run_folder(folder, "--resume", "--json").stdout)
    assert (told["written"], told["kept"]) == (0, 6)
    for key in ("affect_model_sha256", "model_sha256"):
        engine.made_with[key] = "e" * 64
        told = json.loads(run_folder(folder, "--resume", "--json").stdout)
        assert (told["written"], told["kept"]) == (6, 0)
        assert {row[key] for row in read_table(told["manifest"])} == {"e" * 64}


# --- the rest ---


def test_a_sheet_shows_seven_faces_a_row(tmp_path: Path, photo: Path, engine: StandInEngine) -> None:
    must("sheet", photo, "-o", tmp_path / "s.png", "-i", 0.5, "-i", 1, "--tile", 64)
    assert [affect.slug for affect in engine.rendered][:3] == ["neutral-0.00", "anger-0.50", "disgust-0.50"]
    assert len(engine.rendered) == 14
    width, height = Image.open(tmp_path / "s.png").size
    assert 7 * 64 < width < 9 * 64
    assert 2 * 64 < height < 3 * 64
    found = read_provenance(tmp_path / "s.png")
    assert found is not None
    assert found.is_synthetic
    assert "must end in" in refused("sheet", photo, "-o", tmp_path / "s.gif")
    assert "is the input" in refused("sheet", photo, "-o", photo)


def test_a_sheet_of_the_plane_has_arousal_upwards(tmp_path: Path, photo: Path, engine: StandInEngine) -> None:
    must("sheet", photo, "-o", tmp_path / "s.png", "--plane", 3, "--tile", 64)
    shown = [tuple(value for _, value in affect.parts) for affect in engine.rendered]
    assert shown == [(valence, arousal) for arousal in (1, 0, -1) for valence in (-1, 0, 1)]
    found = read_provenance(tmp_path / "s.png")
    assert found is not None
    assert found.parameters["affect_model_sha256"] == "d" * 64
    assert "give one" in refused("sheet", photo, "-o", tmp_path / "s.png", "--plane", 3, "-i", 0.5)


def test_a_fit_is_kept(tmp_path: Path, photo: Path, engine: StandInEngine) -> None:
    told = json.loads(must("fit", photo, "-o", tmp_path / "face.npz", "--json").stdout)
    assert told["focal_px"] == 900
    assert (tmp_path / "face.npz").exists()
    assert "ends in .npz" in refused("fit", photo, "-o", tmp_path / "face.json")
    assert "a fit already" in refused("fit", tmp_path / "face.npz", "-o", tmp_path / "b.npz")


def test_the_doctor_examines_everything() -> None:
    result = invoke("doctor", "--json")
    checks = {check["name"]: check for check in json.loads(result.stdout)["checks"]}
    broken = [check for check in checks.values() if check["status"] == "broken"]
    assert result.exit_code == (1 if broken else 0)
    assert {"fastface", "python", "cores", "numpy", "onnxruntime providers", "cuda", "libx264"} <= set(checks)
    assert all(check["advice"] for check in checks.values() if check["status"] != "ok")
    assert "numpy" in invoke("doctor").stdout


def test_a_broken_part_is_found_by_the_doctor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    result = invoke("doctor", "--json")
    assert result.exit_code == 1
    checks = json.loads(result.stdout)["checks"]
    assert any(check["status"] == "broken" and "onnxruntime" in check["detail"] for check in checks)


def test_what_a_head_model_is() -> None:
    told = json.loads(must("model", "info", "--json").stdout)
    assert told["license"] == "CC0-1.0"
    assert told["expression"] == 52
    assert "missing.npz" in refused("model", "info", "missing.npz")


def test_a_model_that_is_not_here_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    assert "fastface model get ict" in refused("model", "info", "ict")
    assert "cannot be reached" in refused("model", "get", "ict", "--url", "http://127.0.0.1:9")
    (tmp_path / "empty").mkdir()
    assert "generic_neutral_mesh.obj" in refused("model", "import", "ict", tmp_path / "empty")
    (tmp_path / "x.npz").write_bytes(b"PK\x03\x04 not really")
    assert "x.npz" in refused("model", "import", "ict", tmp_path / "x.npz")
    assert "x.npz" in refused("model", "info", tmp_path / "x.npz")
    assert "x.npz" in refused("model", "build-default", tmp_path / "x.npz", "-o", tmp_path / "y.npz")
    assert not (tmp_path / "y.npz").exists()


def test_an_imported_model_is_found_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shared: Path
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    must("model", "import", "ict", shared / "data" / "ict_facekit" / "ict_facekit.npz")
    told = json.loads(must("model", "info", "ict", "--json").stdout)
    assert told["name"] == "ict"
    assert told["file"] == str(tmp_path / "data" / "fastface" / "ict.npz")


def test_nothing_heavy_is_imported_before_it_is_needed() -> None:
    heavy = "{'numpy', 'cv2', 'onnxruntime', 'PIL', 'av', 'typer', 'rich', 'torch', 'scipy'}"
    code = f"import sys, fastface; sys.exit(bool({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-P", "-c", code], check=False).returncode == 0
    heavy = "{'numpy', 'cv2', 'onnxruntime', 'PIL', 'av', 'torch', 'scipy', 'openvino'}"
    code = f"import sys, fastface.cli.app; sys.exit(bool({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-P", "-c", code], check=False).returncode == 0


def test_version_and_command_lines_that_make_no_sense() -> None:
    assert must("--version").stdout.startswith("fastface ")
    assert "(wanted V A)" in " ".join(invoke("synth", "x.png", "--va", "0.5", "-o", "y.png").output.split())
    for words in ("bogus", "synth", "synth x.png -e happy -i strong -o y.png"):
        result = invoke(*words.split())
        assert result.exit_code == 2
        assert "Traceback" not in result.output


def test_every_public_name_can_be_loaded() -> None:
    import fastface

    for name in fastface.__all__:
        if fastface._HOME.get(name) != "engine":
            assert getattr(fastface, name) is not None
    assert fastface.__version__
    with pytest.raises(AttributeError, match="no attribute 'Engin'"):
        _ = fastface.Engin


def test_the_cores_counted_are_those_this_process_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 3}, raising=False)
    assert batch.available_cores() == 2


def test_any_error_fits_on_a_line() -> None:
    from fastface.cli.report import one_line

    assert one_line("a\nb\t c\x1b[31m") == "a b c?[31m"


def test_help_shows_all_that_it_says() -> None:
    """What stands in brackets is taken for markup and is not shown."""
    waiting, seen = [typer.main.get_command(app)], 0
    while waiting:
        command = waiting.pop()
        waiting += getattr(command, "commands", {}).values()
        for said in (command.help, *(getattr(option, "help", None) for option in command.params)):
            seen += bool(said)
            assert "[" not in (said or ""), said
    assert seen > 300
