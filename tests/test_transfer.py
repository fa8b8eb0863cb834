"""A video on another face: every frame, at its time, with its labels; killed or not, the same bytes."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import weakref
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest
import tiny_generators
from numpy.typing import NDArray
from tiny_generators import Graph
from typer.testing import CliRunner

from fastface import track_files, video_reading
from fastface import transfer as transfer_module
from fastface.alignment import crop
from fastface.cli.app import app
from fastface.errors import BadArgument, BadImage, BadModelFile, NoFaceFound, WriteFailed
from fastface.images import write_image
from fastface.labels import read_table, table_suffix
from fastface.provenance import read_provenance
from fastface.transfer import FaceTransfer, Look, TransferOptions
from fastface.transfer_files import WorkFolder
from fastface.transfer_labels import SourceLabels
from fastface.video import VideoWriter
from fastface.video_joining import join, sound_fits
from fastface.video_reading import VideoReader

Image = NDArray[np.uint8]

SQUARE = ("square_x_px", "square_y_px", "square_side_px", "square_angle_deg")
SIZE = 32
HEIGHT, WIDTH = 48, 64


# --- what is tested with ---


def recolouring(folder: Path, size: int = SIZE, domains: int = 2) -> Path:
    """r.generator.onnx: 0.6 image + 0.4 style's colour; r.style_encoder.onnx: the mean colour, a little
    brighter with each domain."""
    about = {"kind": "starganv2", "resolution": size, "config": {"num_domains": domains}}
    image: Sequence[int | str] = ["B", 3, size, size]
    g = Graph(3)
    colour = g.op("Flatten", g.op("GlobalAveragePool", "image"))
    brighter = g.op("Unsqueeze", g.op("Cast", "domain", to=1), g.weight(np.array([1])))
    colour = g.op("Add", colour, g.op("Mul", brighter, g.weight(np.float32(0.2))))
    style = g.op("Gemm", colour, g.weight(np.eye(64, 3, dtype=np.float32)), transB=1)
    inputs: dict[str, Sequence[int | str]] = {"image": image, "domain": ["B"]}
    encoder = {**about, "part": "style_encoder"}
    g.write(folder / "r.style_encoder.onnx", inputs, {"style": (style, ["B", 64])}, encoder)
    g = Graph(4)
    tint = g.planes(g.op("Gemm", "style", g.weight(np.eye(3, 64, dtype=np.float32)), transB=1))
    kept = g.op("Mul", "image", g.weight(np.float32(0.6)))
    made = g.op("Add", kept, g.op("Mul", tint, g.weight(np.float32(0.4))))
    inputs = {"image": image, "style": ["B", 64]}
    g.write(folder / "r.generator.onnx", inputs, {"output": (made, image)}, {**about, "part": "generator"})
    return folder / "r.onnx"


class FaceInBrightFrames:
    """A detector: the face lies where it always does, unless the frame's corner is dark."""

    points = np.random.default_rng(5).normal(0, 5, (478, 2)) + np.array([WIDTH / 2, HEIGHT / 2])
    points[[33, 160, 158, 133, 153, 144]] = (27, 20)
    points[[362, 385, 387, 263, 373, 380]] = (37, 20)
    points[[61, 291]] = (32, 32)

    def detect(self, rgb: Image, max_faces: int = 1) -> list[Any]:
        if rgb[:8, :8].mean() < 60:
            return []
        return [SimpleNamespace(points_px=self.points.astype(np.float32), score=0.99)]

    def follow(self, rgb: Image, points_px: Any) -> Any:
        return next(iter(self.detect(rgb)), None)


def frame(number: int, *, face: bool = True, height: int = HEIGHT, width: int = WIDTH) -> Image:
    """Smooth, bright in the corner where there is a face, and different from number to number."""
    y, x = np.mgrid[0:height, 0:width]
    red = 90 + 60 * np.sin(x / 9 + number / 7)
    image = np.stack([red, 120 + 50 * np.cos(y / 8), np.full_like(red, 40 + number % 160)], axis=2)
    image[:12, :12] = 200 if face else 0
    return image.astype(np.uint8)


def film(
    path: Path,
    count: int,
    *,
    fps: Fraction = Fraction(200),
    time_base: Fraction | None = None,
    pts: Sequence[int] | None = None,
    without_face: Sequence[int] = (),
    sound: str = "",
    codec: str = "libx264",
) -> Path:
    """A source video as a camera or another program writes it."""
    time_base = time_base or 1 / fps
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=fps)
        stream.width, stream.height = WIDTH, HEIGHT
        stream.pix_fmt = "yuv420p" if codec == "libx264" else "bgr0"
        stream.time_base = stream.codec_context.time_base = time_base
        track: Any = container.add_stream(sound, rate=48000) if sound else None
        for number in range(count):
            image = av.VideoFrame.from_ndarray(frame(number, face=number not in without_face))
            image.pts, image.time_base = (number if pts is None else pts[number]), time_base
            container.mux(stream.encode(image))
        container.mux(stream.encode())
        if track is not None:
            for number in range(12):
                wave = np.sin(np.arange(1024) / 20)[None].repeat(2, 0).astype(np.float32)
                samples = av.AudioFrame.from_ndarray(wave, format="fltp", layout="stereo")
                samples.pts, samples.sample_rate, samples.time_base = number * 1024, 48000, Fraction(1, 48000)
                container.mux(track.encode(samples))
            container.mux(track.encode())
    return path


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return recolouring(tmp_path_factory.mktemp("net"))


@pytest.fixture
def maker(net: Path) -> FaceTransfer:
    made = FaceTransfer(net, providers=["cpu"], threads=1)
    made.detector = FaceInBrightFrames()  # type: ignore[assignment]
    return made


@pytest.fixture
def look(maker: FaceTransfer) -> Look:
    return maker.look(frame(0), 0, "someone.png")


def seen(path: Path) -> list[video_reading.SourceFrame]:
    return list(VideoReader(path).frames())


def times(path: Path) -> list[Fraction]:
    reader = VideoReader(path)
    return [item.pts * reader.time_base for item in reader.frames()]


def rows(path: Path) -> list[dict[str, Any]]:
    return list(read_table(path.with_suffix(table_suffix())))


# --- frames and times ---


def test_face_of_every_frame_takes_on_the_colour(maker: FaceTransfer, look: Look, tmp_path: Path) -> None:
    source = film(tmp_path / "s.mkv", 30, codec="ffv1", fps=Fraction(25))
    out = tmp_path / "o.mkv"
    made = maker.run(source, out, look, TransferOptions(batch=7))
    images = seen(out)
    assert len(images) == made.record["frames"] == made.record["frames_with_face"] == 30
    style = (look.style[0, :3] + 1) * 127.5
    for number, item in enumerate(images):
        assert item.image.shape == (SIZE, SIZE, 3)
        middle = item.image[12:20, 12:20].mean(axis=(0, 1))
        square = rows(out)[number]
        x, y = round(square["square_x_px"]), round(square["square_y_px"])
        expected = 0.6 * frame(number)[y - 4 : y + 4, x - 4 : x + 4].mean(axis=(0, 1)) + 0.4 * style
        assert middle == pytest.approx(expected, abs=4)
    marking = read_provenance(out)
    assert marking is not None
    assert marking.is_synthetic
    assert marking.parameters["reference_sha256"] == look.reference_sha256
    assert "someone" not in str(marking.parameters)


@pytest.mark.parametrize(
    ("fps", "time_base"),
    [
        (Fraction(200), Fraction(1, 200)),
        (Fraction(200), Fraction(1, 90000)),
        (Fraction(30000, 1001), Fraction(1001, 30000)),
        (Fraction(60), Fraction(1, 1_000_000)),
    ],
)
def test_every_frame_keeps_its_time_exactly(
    maker: FaceTransfer, look: Look, tmp_path: Path, fps: Fraction, time_base: Fraction
) -> None:
    step = max(1, int(1 / fps / time_base))
    gaps = np.random.default_rng(1).integers(step, 4 * step + 1, 299)  # a variable frame rate
    pts = [0, *np.cumsum(gaps).tolist()]
    source = film(tmp_path / "s.mp4", 300, fps=fps, time_base=time_base, pts=pts)
    assert times(source) == [at * time_base for at in pts]
    maker.run(source, tmp_path / "o.mp4", look)
    assert times(tmp_path / "o.mp4") == times(source)
    assert [row["pts"] for row in rows(tmp_path / "o.mp4")] == [item.pts for item in seen(source)]
    assert seen(tmp_path / "o.mp4")[-1].duration > 0


def test_matroska_keeps_times_to_its_millisecond(maker: FaceTransfer, look: Look, tmp_path: Path) -> None:
    source = film(tmp_path / "s.mp4", 50, fps=Fraction(240))
    maker.run(source, tmp_path / "o.mkv", look)
    apart = [abs(a - b) for a, b in zip(times(tmp_path / "o.mkv"), times(source), strict=True)]
    assert max(apart) <= Fraction(1, 2000)


def test_sound_is_carried_over_packet_for_packet(maker: FaceTransfer, look: Look, tmp_path: Path) -> None:
    source = film(tmp_path / "s.mp4", 40, fps=Fraction(160), sound="aac")

    def packets(path: Path) -> list[tuple[Any, bytes]]:
        with av.open(str(path)) as container:
            sound = container.streams.audio[0]
            return [(p.pts * p.time_base, bytes(p)) for p in container.demux(sound) if p.size]

    made = maker.run(source, tmp_path / "o.mp4", look)
    assert made.record["sound"] is True
    assert packets(tmp_path / "o.mp4") == packets(source)
    assert times(tmp_path / "o.mp4") == times(source)
    made = maker.run(source, tmp_path / "quiet.mp4", look, TransferOptions(sound=False))
    assert made.record["sound"] is False
    assert not VideoReader(tmp_path / "quiet.mp4").has_audio


def test_sound_that_does_not_fit_is_left_out_with_a_note(
    maker: FaceTransfer, look: Look, tmp_path: Path
) -> None:
    source = film(tmp_path / "s.mkv", 20, fps=Fraction(25), sound="wavpack")
    if not sound_fits(source, tmp_path / "o.mp4"):
        pytest.skip("this FFmpeg puts WavPack into MP4")
    made = maker.run(source, tmp_path / "o.mp4", look)
    assert made.record["sound"] is False
    assert "sound left out" in made.notes[0]
    assert len(seen(tmp_path / "o.mp4")) == 20


def test_memory_holds_a_few_frames_however_long_the_video(
    maker: FaceTransfer, look: Look, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Frames that are alive at a time, counted: as many for 1000 as for 300."""
    source = {count: film(tmp_path / f"s{count}.mp4", count) for count in (300, 1000)}
    alive = most = 0
    upright = VideoReader._upright

    def forget() -> None:
        nonlocal alive
        alive -= 1

    def counted(self: VideoReader, item: Any) -> Image:
        nonlocal alive, most
        image = upright(self, item)
        weakref.finalize(image, forget)
        alive += 1
        most = max(most, alive)
        return image

    monkeypatch.setattr(VideoReader, "_upright", counted)
    peaks = []
    for count, path in source.items():
        alive = most = 0
        made = maker.run(path, tmp_path / f"o{count}.mp4", look, TransferOptions(paste="feather"))
        assert made.record["frames"] == count
        peaks.append(most)
    assert peaks[0] == peaks[1] <= 2 * 8 + 2


# --- stopped and gone on with ---


def test_killed_runs_go_on_and_give_the_same_bytes(
    net: Path, maker: FaceTransfer, look: Look, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed by SIGKILL while it tracks, and again while it translates, in processes of their own."""
    source = film(tmp_path / "s.mp4", 700, sound="aac")
    (tmp_path / "s.csv").write_text("frame,phase\n10,onset\n400,apex\n")
    once, out = tmp_path / "once" / "o.mp4", tmp_path / "o.mp4"
    monkeypatch.setattr("fastface.track_files._CHUNK", 200)
    once.parent.mkdir()
    maker.run(source, once, look)
    script = (
        "import os, signal, sys; sys.path[:0] = sys.argv[5:]\n"
        "from pathlib import Path; import test_transfer as t; from fastface import track_files\n"
        "track_files._CHUNK = 200\n"
        "maker = t.FaceTransfer(Path(sys.argv[1]), providers=['cpu'], threads=1)\n"
        "maker.detector = t.FaceInBrightFrames(); done = [0]\n"
        "def advance(stage, frames):\n"
        "    done[0] += frames * (stage == sys.argv[4].split(':')[0])\n"
        "    if done[0] > int(sys.argv[4].split(':')[1]): os.kill(os.getpid(), signal.SIGKILL)\n"
        "look = maker.look(t.frame(0), 0, 'someone.png')\n"
        "maker.run(Path(sys.argv[2]), Path(sys.argv[3]), look, advance=advance)\n"
    )
    here = Path(__file__).resolve().parent
    for moment in ("track:450", "translate:500"):
        words = [
            sys.executable,
            "-c",
            script,
            str(net),
            str(source),
            str(out),
            moment,
            str(here),
            str(Path(track_files.__file__).parents[1]),  # the package under test
        ]
        killed = subprocess.run(words, capture_output=True, check=False)
        assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
        assert sorted(p.name for p in tmp_path.iterdir()) == [".o.mp4.parts", "once", "s.csv", "s.mp4"]
    asked = 0
    translate = maker.generator.translate

    def counted(images: Any, style: Any) -> Any:
        nonlocal asked
        asked += len(images)
        return translate(images, style)

    monkeypatch.setattr(maker.generator, "translate", counted)
    monkeypatch.setattr(maker.detector, "follow", lambda *_: pytest.fail("was tracked before"))
    maker.run(source, out, look)
    assert asked == 700 - 2 * 240
    for suffix in (".mp4", ".json", ".csv", table_suffix()):
        assert out.with_suffix(suffix).read_bytes() == once.with_suffix(suffix).read_bytes(), suffix
    assert not (tmp_path / ".o.mp4.parts").exists()


def test_another_job_does_not_go_on_with_what_it_finds(
    maker: FaceTransfer, look: Look, tmp_path: Path
) -> None:
    source, out = film(tmp_path / "s.mkv", 260, codec="ffv1"), tmp_path / "o.mkv"

    def stop(stage: str, frames: int) -> None:
        nonlocal done
        done += frames * (stage == "translate")
        if done >= 250:
            raise KeyboardInterrupt

    done = 0
    with pytest.raises(KeyboardInterrupt):
        maker.run(source, out, look, advance=stop)
    assert [path.name for path in (tmp_path / ".o.mkv.parts").glob("part-*")] == ["part-00000.mkv"]
    other = maker.look(np.full_like(frame(0), 255), 1, "other.png")
    maker.run(source, out, other)
    fresh = tmp_path / "fresh" / "o.mkv"
    fresh.parent.mkdir()
    maker.run(source, fresh, other)
    assert out.read_bytes() == fresh.read_bytes()


def test_two_runs_do_not_work_on_one_output(maker: FaceTransfer, look: Look, tmp_path: Path) -> None:
    source = film(tmp_path / "s.mp4", 10)
    with (
        WorkFolder(tmp_path / ".o.mp4.parts", {}),
        pytest.raises(BadArgument, match="another run is at work"),
    ):
        maker.run(source, tmp_path / "o.mp4", look)


def test_disk_that_fails_leaves_nothing_half_written(
    maker: FaceTransfer, look: Look, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = film(tmp_path / "s.mp4", 10)

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(WriteFailed, match="No space left"):
        maker.run(source, tmp_path / "o.mp4", look)
    assert sorted(p.name for p in tmp_path.iterdir()) == [".o.mp4.parts", "s.mp4"]
    assert not list((tmp_path / ".o.mp4.parts").glob("**/.*.tmp"))


# --- frames without a face ---


def test_frames_without_a_face_are_held_and_labelled(maker: FaceTransfer, look: Look, tmp_path: Path) -> None:
    source = film(tmp_path / "s.mp4", 60, without_face=[0, 1, *range(30, 38)])
    made = maker.run(source, tmp_path / "o.mp4", look)
    table = rows(tmp_path / "o.mp4")
    assert [row["source_frame"] for row in table if not row["face"]] == [0, 1, *range(30, 38)]
    assert made.record["frames_with_face"] == 50
    assert len(seen(tmp_path / "o.mp4")) == 60
    assert table[0]["square_x_px"] == pytest.approx(table[3]["square_x_px"], abs=0.01)


def test_frames_without_a_face_are_skipped_on_request(
    maker: FaceTransfer, look: Look, tmp_path: Path
) -> None:
    source = film(tmp_path / "s.mp4", 320, without_face=[*range(20, 30), *range(230, 320)])
    made = maker.run(source, tmp_path / "o.mp4", look, TransferOptions(no_face="skip"))
    kept = [*range(20), *range(30, 230)]
    assert made.record["frames"] == 220
    before = times(source)
    assert times(tmp_path / "o.mp4") == [before[number] for number in kept]
    table = rows(tmp_path / "o.mp4")
    assert len(table) == 320
    assert [row["source_frame"] for row in table if row["frame"] is not None] == kept
    assert [row["frame"] for row in table if row["frame"] is not None] == list(range(220))


def test_frames_without_a_face_stop_on_request(maker: FaceTransfer, look: Look, tmp_path: Path) -> None:
    source = film(tmp_path / "s.mp4", 60, without_face=[41])
    with pytest.raises(NoFaceFound, match=r"no face in frame 41 \(0\.205 s\)"):
        maker.run(source, tmp_path / "o.mp4", look, TransferOptions(no_face="stop", every=1))
    assert not (tmp_path / "o.mp4").exists()


# --- pasted ---


@pytest.mark.parametrize("how", ["feather", "poisson"])
def test_pasted_face_changes_nothing_around_it(maker: FaceTransfer, tmp_path: Path, how: Any) -> None:
    source = film(tmp_path / "s.mkv", 12, codec="ffv1", without_face=[5])
    red = Look(np.eye(64, dtype=np.float32)[:1] * 2 - 1, "red", "", 0)
    maker.run(source, tmp_path / "o.mkv", red, TransferOptions(paste=how, every=1))
    for number, (before, after) in enumerate(zip(seen(source), seen(tmp_path / "o.mkv"), strict=True)):
        assert after.image.shape == (HEIGHT, WIDTH, 3)
        changed = (before.image != after.image).any(axis=2)
        if number == 5:  # a frame without a face stays as it is
            assert not changed.any()
            continue
        assert 100 < changed.sum() < 0.35 * changed.size
        assert not changed[:12, :12].any()
        assert not changed[:, [0, -1]].any()
        if how == "feather":
            assert after.image[24, 32, 1] < before.image[24, 32, 1] - 20  # less green in the middle


# --- labels ---


def test_labels_of_frames_and_of_the_clip_are_carried_over(
    maker: FaceTransfer, look: Look, tmp_path: Path
) -> None:
    source = film(tmp_path / "s.mp4", 300)
    (tmp_path / "s.json").write_text('{"subject": "006", "emotion": "happiness", "onset": 12, "apex": 19}')
    (tmp_path / "s.csv").write_text("frame,phase,AU12,pts\n270,onset,0.1,x\n280,apex,0.5,y\n299,offset,,z\n")
    maker.run(source, tmp_path / "o.mp4", look)
    clip = json.loads((tmp_path / "o.json").read_text())
    assert {key: clip[key] for key in ("subject", "emotion", "onset", "apex")} == {
        "subject": "006",
        "emotion": "happiness",
        "onset": 12,
        "apex": 19,
    }
    assert clip["transfer"]["frames"] == 300
    assert clip["transfer"]["generator_sha256"] == maker.generator_sha256
    table = rows(tmp_path / "o.mp4")
    assert [(r["frame"], r["phase"], r["AU12"]) for r in table if r["phase"]] == [
        (270, "onset", 0.1),
        (280, "apex", 0.5),
        (299, "offset", None),
    ]
    assert table[270]["label_pts"] == "x"  # a column of ours has that name
    assert table[270]["source_frame"] == 270
    with (tmp_path / "o.csv").open() as file:
        copied = list(csv.DictReader(file))
    assert [(row["frame"], row["phase"]) for row in copied] == [
        ("270", "onset"),
        ("280", "apex"),
        ("299", "offset"),
    ]
    assert copied[0]["transfer_reference"] == "someone.png"


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl"])
def test_tables_of_all_frames_go_row_by_row(
    maker: FaceTransfer, look: Look, tmp_path: Path, suffix: str
) -> None:
    from fastface.labels import LabelTable

    source = film(tmp_path / "s.mp4", 40)
    points = [[WIDTH / 2, HEIGHT / 2]] * 68
    with LabelTable(tmp_path / f"s{suffix}") as table:
        for number in range(40):
            table.append(
                {"frame": number + 1, "phase": "apex" if number == 7 else None, "landmarks68_px": points}
            )
    maker.run(source, tmp_path / "o.mp4", look)
    made = rows(tmp_path / "o.mp4")
    assert [row["source_frame"] for row in made if row["phase"] == "apex"] == [7]
    assert [row["frame"] for row in made] == list(range(40))
    # Landmarks are of the output, whose middle is the square's.
    at = np.array(made[0]["landmarks68_px"][0])
    off = np.array([WIDTH / 2 - made[0]["square_x_px"], HEIGHT / 2 - made[0]["square_y_px"]])
    angle = -np.deg2rad(made[0]["square_angle_deg"])
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    assert at == pytest.approx(SIZE / 2 + turn @ off * SIZE / made[0]["square_side_px"], abs=0.02)


def test_frames_counted_from_one_are_told_by_the_last(tmp_path: Path) -> None:
    (tmp_path / "s.csv").write_text("Frame,phase\n3,onset\n50,offset\n")
    labels = SourceLabels.find(tmp_path / "s.mp4")
    labels.align(50)
    assert [i for i, row in enumerate(labels.rows(50)) if row["phase"]] == [2, 49]
    labels.align(51)
    assert [i for i, row in enumerate(labels.rows(51)) if row["phase"]] == [3, 50]


def test_rows_about_the_clip_go_with_the_clip(maker: FaceTransfer, look: Look, tmp_path: Path) -> None:
    source = film(tmp_path / "s.mp4", 20)
    (tmp_path / "s.csv").write_text(
        "Subject,Onset,Apex,Offset,Emotion\n006,2,7,12,Anger\n006,13,15,19,Fear\n"
    )
    maker.run(source, tmp_path / "o.mp4", look)
    clip = json.loads((tmp_path / "o.json").read_text())
    assert clip["source_rows"][1] == {
        "Subject": "006",
        "Onset": 13,
        "Apex": 15,
        "Offset": 19,
        "Emotion": "Fear",
    }
    assert "Onset" not in rows(tmp_path / "o.mp4")[0]


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("s.csv", "frame,phase\n5,onset\n77,apex\n", "frame 77, but the video has 20 frames"),
        ("s.csv", "frame,phase\n5,onset\n3,apex\n", "row 2 is of frame 3, after one of frame 5"),
        ("s.csv", "frame,phase\nfive,onset\n", "wanted a frame number, got 'five'"),
        ("s.csv", "a,a\n1,2\n", "a different name for each column"),
        ("s.csv", "a,b\n1,2,3\n", "wanted 2 values"),
        ("s.json", "{]", "no labels"),
        ("s.json", "7", "wanted an object"),
        ("s.jsonl", "[1, 2]\n", "a row that is no object"),
        ("s.parquet", "nothing of the kind", "not a label table"),
    ],
)
def test_labels_that_are_none_are_told(
    maker: FaceTransfer, look: Look, tmp_path: Path, name: str, text: str, says: str
) -> None:
    source = film(tmp_path / "s.mp4", 20)
    (tmp_path / name).write_text(text)
    with pytest.raises(BadArgument, match=says):
        maker.run(source, tmp_path / "o.mp4", look)
    assert not (tmp_path / "o.mp4").exists()


# --- what cannot be used ---


def with_side(path: Path, side: int) -> Path:
    """An MP4 whose header claims frames of another width."""
    data = film(path, 3).read_bytes()
    at = data.index(b"avc1") + 28
    path.write_bytes(data[:at] + side.to_bytes(2, "big") + data[at + 2 :])
    return path


def sound_only(path: Path) -> Path:
    with av.open(str(path), "w") as container:
        track: Any = container.add_stream("aac", rate=48000)
        samples = av.AudioFrame.from_ndarray(np.zeros((2, 1024), np.float32), format="fltp", layout="stereo")
        samples.sample_rate = 48000
        container.mux(track.encode(samples))
        container.mux(track.encode())
    return path


def cut_short(path: Path) -> Path:
    data = film(path, 30).read_bytes()
    path.write_bytes(data[: len(data) // 2])
    return path


def no_frames(path: Path) -> Path:
    """A track whose packets are gone: the header is there, and whole."""
    with av.open(str(path), "w", format="matroska") as container:
        stream: Any = container.add_stream("ffv1", rate=25)
        stream.width = stream.height = 16
        stream.pix_fmt = "bgr0"
        container.start_encoding()
    return path


def damaged(path: Path) -> Path:
    data = bytearray(film(path, 60).read_bytes())
    middle = len(data) // 2
    data[middle : middle + 400] = bytes(400)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    ("make", "suffix", "says"),
    [
        (cut_short, ".mp4", "cut short"),
        (cut_short, ".mkv", "cut short"),
        (no_frames, ".mkv", "without frames|not a video|no usable|frames of 0x0"),
        (sound_only, ".mp4", "no video stream"),
        (damaged, ".mp4", "damaged|decoded"),
        (lambda path: path.write_text("a text, and no video at all") and path, ".mp4", "not a video"),
        (lambda path: path.write_bytes(b"") * 0 or path, ".mp4", "not a video"),
        (lambda path: path.mkdir() or path, ".mp4", "not a file"),
        (lambda path: path, ".mp4", "no such file"),
    ],
)
def test_videos_that_cannot_be_used_are_told(
    maker: FaceTransfer,
    look: Look,
    tmp_path: Path,
    make: Callable[[Path], Path],
    suffix: str,
    says: str,
) -> None:
    source = make(tmp_path / f"s{suffix}")
    with pytest.raises(BadImage, match=says):
        maker.run(source, tmp_path / "o.mp4", look)
    assert not (tmp_path / "o.mp4").exists()


def test_absurd_sizes_are_refused_before_anything_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = film(tmp_path / "s.mp4", 3)
    monkeypatch.setattr(video_reading, "MAX_SIDE_PX", WIDTH - 1)
    monkeypatch.setattr(VideoReader, "_decoded", lambda *_: pytest.fail("decoded"))
    with pytest.raises(BadImage, match=r"frames of 64x48 px; wanted sides of 1 to 63"):
        VideoReader(source)


def test_turned_videos_are_set_upright(tmp_path: Path) -> None:
    path = tmp_path / "s.mp4"
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        if not hasattr(stream, "set_display_rotation"):
            pytest.skip("this PyAV writes no rotation")
        stream.set_display_rotation(90)
        container.mux(stream.encode(av.VideoFrame.from_ndarray(frame(0))))
        container.mux(stream.encode())
    with av.open(str(path)) as container:
        turn = next(container.decode(video=0)).rotation
    assert abs(turn) == 90
    reader = VideoReader(path)
    assert (reader.width_px, reader.height_px) == (HEIGHT, WIDTH)
    # FFmpeg counts the turn that sets it upright counter-clockwise.
    expected = np.rot90(frame(0), round(turn / 90))
    assert np.abs(next(reader.frames()).image.astype(int) - expected).mean() < 6


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi", ".ts", ".h264"])
def test_reading_goes_on_at_any_frame(tmp_path: Path, suffix: str) -> None:
    """Whether the container has an index, only key frames, or no times at all."""
    reader = VideoReader(film(tmp_path / f"s{suffix}", 290, fps=Fraction(50)))
    whole = list(reader.frames())
    assert len(whole) == 290
    for number in (0, 1, 17, 251, 289):
        rest = list(reader.frames(whole[number].pts))
        assert [item.pts for item in rest] == [item.pts for item in whole[number:]]
        assert np.array_equal(rest[0].image, whole[number].image)


def test_parts_and_times_that_differ_in_number_are_refused(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "p.mp4", 25, in_order=True) as writer:
        for number in range(4):
            writer.write(frame(number))
    for count in (3, 5):
        with pytest.raises(BadArgument, match="times"):
            join(tmp_path / "o.mp4", [tmp_path / "p.mp4"], [(i, 1) for i in range(count)], Fraction(1, 25))
        assert not (tmp_path / "o.mp4").exists()


def test_generator_of_another_kind_is_told(tmp_path: Path) -> None:
    with pytest.raises(BadModelFile, match=r"of a stargan; wanted a starganv2"):
        FaceTransfer(tiny_generators.stargan(tmp_path), providers=["cpu"])
    with pytest.raises(BadModelFile):
        FaceTransfer(tmp_path / "nothing.onnx")


def test_references_and_domains_that_cannot_be_used_are_told(maker: FaceTransfer) -> None:
    with pytest.raises(NoFaceFound, match="reference photo with a face"):
        maker.look(frame(0, face=False), 0)
    with pytest.raises(BadArgument, match=r"has 2 domains: say which"):
        maker.look(frame(0))
    with pytest.raises(BadArgument, match=r"domain lies in 0 … 1"):
        maker.look(frame(0), 2)
    with pytest.raises(BadImage, match="No such file"):
        maker.look("nowhere.png", 0)


@pytest.mark.parametrize(
    "wrong",
    [
        {"smoothing_s": -1},
        {"smoothing_s": float("nan")},
        {"no_face": "guess"},
        {"paste": "glue"},
        {"batch": 0},
    ],
)
def test_options_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(BadArgument):
        TransferOptions(**wrong)


def test_output_over_an_input_is_refused(maker: FaceTransfer, look: Look, tmp_path: Path) -> None:
    source = film(tmp_path / "s.mp4", 5)
    before = source.read_bytes()
    with pytest.raises(BadArgument, match="is the input itself"):
        maker.run(source, source, look)
    (tmp_path / "s.json").write_text("{}")
    with pytest.raises(BadArgument, match="is the input itself"):
        maker.run(source, tmp_path / "s.mkv", look)
    assert source.read_bytes() == before


# --- the command ---


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer_module, "LandmarkDetector", lambda threads: FaceInBrightFrames())


def invoke(*words: object) -> Any:
    return CliRunner().invoke(app, ["transfer", *(str(word) for word in words), "--provider", "cpu"])


@pytest.mark.usefixtures("stand_in")
def test_folder_becomes_a_data_set_and_a_broken_video_is_reported(net: Path, tmp_path: Path) -> None:
    videos, photos, out = tmp_path / "videos", tmp_path / "photos", tmp_path / "out"
    for folder in (videos, photos / "female", photos / "male"):
        folder.mkdir(parents=True)
    film(videos / "a.mp4", 20)
    film(videos / "c.mp4", 30)
    cut_short(videos / "b.mp4")
    (videos / "c.json").write_text('{"emotion": "fear"}')
    for sex in ("female", "male"):
        write_image(photos / sex / "001.png", frame(7))
    words = (videos, "-g", net, "-r", photos, "-o", out)
    result = invoke(*words, "--json")
    assert result.exit_code == 1
    said = json.loads(result.stdout)
    assert (said["written"], said["kept"]) == (4, 0)
    assert [fault["input"] for fault in said["failed"]] == ["b.mp4"]
    assert "cut short" in said["failed"][0]["error"]
    manifest = list(read_table(said["manifest"]))
    assert [(row["video"], row["domain"], row["frames"]) for row in manifest] == [
        ("a.female_001.mp4", 0, 20),
        ("a.male_001.mp4", 1, 20),
        ("c.female_001.mp4", 0, 30),
        ("c.male_001.mp4", 1, 30),
    ]
    assert json.loads(manifest[2]["source_labels"]) == {"emotion": "fear"}
    with Path(said["columns"]).open() as file:
        explained = {(row["table"], row["column"]) for row in csv.DictReader(file)}
    assert {("manifest", name) for name in manifest[0]} <= explained
    assert {("frames", name) for name in rows(out / "a.male_001.mp4")[0]} <= explained
    first = seen(out / "a.female_001.mp4")[0].image.mean()
    assert seen(out / "a.male_001.mp4")[0].image.mean() > first + 5  # domain 1 is brighter
    assert not [path for path in out.iterdir() if path.name.startswith(".")]

    assert "exists" in invoke(*words).stderr
    (out / "c.male_001.mp4").unlink()
    said = json.loads(invoke(*words, "--resume", "--json").stdout)
    assert (said["written"], said["kept"]) == (1, 3)
    assert list(read_table(said["manifest"])) == manifest
    other = json.loads(invoke(*words, "--resume", "--smoothing", 0.1, "--json").stdout)
    assert (other["written"], other["kept"]) == (4, 0)  # what another job made is not kept


@pytest.mark.usefixtures("stand_in")
def test_command_transfers_one_video(net: Path, tmp_path: Path) -> None:
    source, photo = film(tmp_path / "s.mp4", 30, sound="aac"), tmp_path / "p.png"
    write_image(photo, frame(3))
    write_image(tmp_path / "q.png", frame(4))
    words = (source, "-g", net, "-r", photo, "-o", tmp_path / "o.mp4")
    said = json.loads(invoke(*words, "--domain", 1, "--json").stdout)
    assert said["record"]["frames"] == len(seen(Path(said["video"]))) == 30
    assert said["record"]["sound"] is True
    assert all(Path(path).is_file() for path in said["labels"])
    for more, says in (
        ((), "2 domains"),
        (("--domain", 5), "domain lies in"),
        (("--domain", 1, "--domain", 0), "one for all, or one for each"),
        (("--domain", 1, "--paste", "glue"), "paste is"),
        (("--domain", 1, "--no-provenance"), "--no-provenance"),
        (("--domain", 1, "-r", tmp_path / "q.png"), "give a folder"),
    ):
        result = invoke(*words, *more)
        assert result.exit_code == 1
        assert says in result.stderr
        assert "Traceback" not in result.output


# --- with the real networks ---


def test_real_networks_end_to_end(shared: Path, portrait: Callable[..., Image], tmp_path: Path) -> None:
    """Landmarks, a StarGAN v2 of random weights from the exporter, and a face on a video of 200 frames a
    second."""
    pytest.importorskip("torch")
    from fastface.checkpoints import Checkpoint
    from fastface.exports.generator_files import export_generator
    from fastface.exports.starganv2 import Config, Generator, MappingNetwork, StyleEncoder

    config = Config(resolution=256, max_conv_dim=64, hidden_dim=32)
    import torch

    torch.manual_seed(0)
    made = {
        "generator": Generator(config),
        "mapping_network": MappingNetwork(config),
        "style_encoder": StyleEncoder(config),
    }
    tensors = {
        f"{name}.{key}": value.numpy()
        for name, network in made.items()
        for key, value in network.state_dict().items()
    }
    from dataclasses import asdict

    checkpoint = Checkpoint("starganv2", tensors, asdict(config), "random", "0" * 64)
    export_generator(checkpoint, tmp_path / "g.onnx")
    source = tmp_path / "s.mp4"
    with VideoWriter(source, 200) as writer:
        canvas = np.full((300, 360, 3), 128, np.uint8)
        face = portrait("001", 256, 256)
        for number in range(8):
            image = canvas.copy()
            image[20:276, 40 + number : 296 + number] = face
            writer.write(image)
    reference = shared / "data" / "photos" / "london" / "neutral" / "030.jpg"
    maker = FaceTransfer(tmp_path / "g.onnx", providers=["cpu"], threads=2)
    with pytest.raises(BadArgument, match="2 domains"):
        maker.look(reference)
    one, other = (maker.look(reference, domain) for domain in (0, 1))
    assert not np.allclose(one.style, other.style)
    result = maker.run(source, tmp_path / "o.mkv", one)
    assert result.record["frames_with_face"] == 8
    assert times(tmp_path / "o.mkv") == times(source)
    table = rows(tmp_path / "o.mkv")
    steps = np.diff([row["square_x_px"] for row in table])
    assert steps == pytest.approx(np.ones(7), abs=0.15)  # a pixel a frame, as the face moves
    made_of = [row[name] for row in table[6:7] for name in SQUARE]
    square = np.array([*made_of[:2], np.log(made_of[2]), np.deg2rad(made_of[3])])
    alone = maker.generator.translate(crop(seen(source)[6].image, square, 256)[None], one.style)[0]
    assert alone.std() > 2
    # The video is lossless; what is left is the generator's rounding in another batch.
    assert np.abs(seen(tmp_path / "o.mkv")[6].image.astype(int) - alone).mean() < 1
