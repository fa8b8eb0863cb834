"""The commands as a user runs them, with the real engine, on the photo that ships."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fastface.cli.demo import DEMO_PHOTO
from fastface.images import read_image
from fastface.labels import read_labels, read_table
from fastface.provenance import read_provenance
from fastface.video import frame_count

COMMAND = (sys.executable, "-P", "-m", "fastface")  # -P: the installed package, not the sources here


def run(*words: object, code: int = 0) -> subprocess.CompletedProcess[str]:
    finished = subprocess.run(
        [*COMMAND, *(str(word) for word in words)], capture_output=True, text=True, check=False, timeout=300
    )
    assert finished.returncode == code, finished.stderr
    return finished


@pytest.fixture(scope="module")
def portrait(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The head of the demonstration photo, 256 pixels square, as PNG: exact and quick."""
    path = tmp_path_factory.mktemp("portrait") / "head.png"
    with Image.open(DEMO_PHOTO) as photo:
        photo.crop((126, 20, 326, 220)).resize((256, 256), Image.Resampling.LANCZOS).save(path)
    return path


@pytest.fixture
def folder(tmp_path: Path, portrait: Path) -> Path:
    source = tmp_path / "photos"
    source.mkdir()
    for index in range(5):
        (source / f"{index:02}.png").write_bytes(portrait.read_bytes())
    return source


def test_neutral_is_the_photo_itself(tmp_path: Path, portrait: Path) -> None:
    run("synth", portrait, "--expression", "neutral", "-o", tmp_path / "o.png")
    assert np.array_equal(read_image(tmp_path / "o.png"), read_image(portrait))
    labels = read_labels(tmp_path / "o.json")
    assert (labels["expression"], labels["intensity"], labels["valence"], labels["aus"]) == (
        "neutral",
        0,
        0,
        {},
    )


def test_an_expression_changes_the_face_and_nothing_else(tmp_path: Path, portrait: Path) -> None:
    run("synth", portrait, "--expression", "surprise", "-o", tmp_path / "o.png")
    before, after = read_image(portrait).astype(int), read_image(tmp_path / "o.png").astype(int)
    changed = np.abs(after - before).max(axis=2)
    assert (changed > 30).sum() > 500
    assert not changed[:8].any()
    assert not changed[:, :8].any()
    assert not changed[:, -8:].any()
    labels = read_labels(tmp_path / "o.json")
    assert labels["coefficients"]["jawOpen"] > 0.3
    neutral = tmp_path / "n.png"
    run("synth", portrait, "--expression", "neutral", "-o", neutral)
    moved = np.array(labels["landmarks68_px"]) - np.array(read_labels(tmp_path / "n.json")["landmarks68_px"])
    assert moved[8, 1] > 3  # the chin goes down
    assert moved[17:27, 1].mean() < -1  # the brows go up


def test_a_kept_fit_renders_like_its_photo(tmp_path: Path, portrait: Path) -> None:
    run("fit", portrait, "-o", tmp_path / "face.npz")
    run("synth", tmp_path / "face.npz", "--au", "AU12=0.8", "-o", tmp_path / "a.png")
    run("synth", portrait, "--au", "AU12=0.8", "-o", tmp_path / "b.png")
    assert np.array_equal(read_image(tmp_path / "a.png"), read_image(tmp_path / "b.png"))


def test_a_video_holds_every_frame_and_its_labels(tmp_path: Path, portrait: Path) -> None:
    (tmp_path / "p.csv").write_text("time_s,valence,arousal\n0,0,0\n1,0.8,0.4\n2,-0.1,0.8\n")
    told = json.loads(
        run(
            "synth", portrait, "--path", tmp_path / "p.csv", "--fps", 24, "-o", tmp_path / "o.mp4", "--json"
        ).stdout
    )
    assert told["frames"] == frame_count(tmp_path / "o.mp4") == 49
    rows = list(read_table(told["labels"]))
    assert len(rows) == 49
    points = np.array([row["landmarks68_px"] for row in rows])
    eyes_px = np.linalg.norm(points[0, 36] - points[0, 45])
    assert np.abs(np.diff(points, n=2, axis=0)).max() < 0.02 * eyes_px  # no jerk, a frame a frame
    assert np.abs(points[-1] - points[0]).max() > 0.05 * eyes_px
    found = read_provenance(tmp_path / "o.mp4")
    assert found is not None
    assert found.is_synthetic


def test_the_demo_writes_what_it_says(tmp_path: Path) -> None:
    run("demo", "-o", tmp_path / "demo")
    checker = Path(__file__).parents[1] / ".ci" / "check_demo.py"
    subprocess.run([sys.executable, str(checker), str(tmp_path / "demo")], check=True)


def test_a_folder_is_done_by_several_processes_like_by_one(tmp_path: Path, folder: Path) -> None:
    (folder / "bad.jpg").write_text("no photo")
    words = ("synth", folder, "-e", "happy", "-i", "0.3", "-i", "0.8", "--json")
    for threads, name in ((1, "one"), (3, "three")):
        told = json.loads(run(*words, "-o", tmp_path / name, "--threads", threads, code=1).stdout)
        assert told["written"] == 10
        assert [failure["photo"] for failure in told["failed"]] == ["bad.jpg"]
    one, three = (list(read_table(next((tmp_path / name).glob("manifest.*")))) for name in ("one", "three"))
    assert one == three
    for image in (tmp_path / "one").glob("*.png"):
        assert image.read_bytes() == (tmp_path / "three" / image.name).read_bytes()


def children(parent: int) -> list[int]:
    """Processes of a session that are alive: a zombie that nobody has buried yet is not."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                state, _, _, session = (entry / "stat").read_text().rsplit(")", 1)[1].split()[:4]
            except OSError:
                continue
            if int(session) == parent and state != "Z" and int(entry.name) != parent:
                found.append(int(entry.name))
    return found


def started(*words: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*COMMAND, *(str(word) for word in words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def wait_for(path: Path, pattern: str) -> None:
    end = time.monotonic() + 60
    while not (path.is_dir() and any(path.glob(pattern))):
        assert time.monotonic() < end, f"no {pattern} in {path}"
        time.sleep(0.01)


linux = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")


@linux
@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_folder_leaves_whole_files_and_no_process(
    tmp_path: Path, folder: Path, kind: signal.Signals
) -> None:
    affects = [word for i in range(40) for word in ("-i", f"{i / 40:.3f}")]
    process = started("synth", folder, "-e", "happy", *affects, "-o", tmp_path / "out", "--threads", 2)
    wait_for(tmp_path / "out", "*.png")
    if kind == signal.SIGINT:
        os.killpg(process.pid, kind)  # as a terminal does: everybody hears it
    else:
        process.send_signal(kind)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors.strip().splitlines()[-1].startswith("fastface: interrupted")
    assert "Traceback" not in errors
    names = os.listdir(tmp_path / "out")
    assert not [name for name in names if name.endswith(".tmp")]
    for name in names:
        if name.endswith(".png"):
            with Image.open(tmp_path / "out" / name) as image:
                image.load()
    end = time.monotonic() + 20  # multiprocessing's own tracker goes a moment after the process it served
    while children(process.pid) and time.monotonic() < end:
        time.sleep(0.1)
    assert not children(process.pid)


@linux
def test_an_interrupted_video_leaves_nothing(tmp_path: Path, portrait: Path) -> None:
    (tmp_path / "p.csv").write_text("time_s,AU12\n0,0\n3000,1\n")
    process = started("synth", portrait, "--path", tmp_path / "p.csv", "-o", tmp_path / "o.mp4")
    wait_for(tmp_path, ".o.mp4.*.tmp")
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in errors
    assert os.listdir(tmp_path) == ["p.csv"]


@linux
def test_a_process_that_dies_costs_no_photo(tmp_path: Path, folder: Path) -> None:
    affects = [word for i in range(16) for word in ("-i", f"{i / 16:.3f}")]
    words = ("synth", folder, "-e", "happy", *affects, "-o", tmp_path / "out", "--threads", 2, "--json")
    process = started(*words)
    wait_for(tmp_path / "out", "*.png")
    workers = [
        pid for pid in children(process.pid) if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]
    os.kill(workers[0], signal.SIGKILL)
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert json.loads(output)["written"] == 80
