"""Fetching ICT-FaceKit, against a server on this machine that breaks, lies and forgets."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from fastface import download
from fastface.download import KNOWN_SHA256, Received, get_ict, ict_files, ict_path
from fastface.errors import BadArgument, BadModelFile, DownloadFailed, WriteFailed
from fastface.importers.ict import import_ict
from fastface.morphable import load

LICENSE = b"MIT License\n\nCopyright (c) 2020 USC Institute for Creative Technologies\n"
FILES = (
    "LICENSE",
    *(f"FaceXModel/{name}.obj" for name in ("generic_neutral_mesh", "identity000", "jawOpen")),
)


class Server:
    """Serves ``files``; each path may misbehave as told, once or for good."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = files
        self.requests: list[tuple[str, str | None]] = []
        self.misbehaviour: dict[str, Callable[[BaseHTTPRequestHandler, bytes], None]] = {}
        self.once = True
        self.ranges = True
        self.tags = True
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: object) -> None:
                """Quiet."""

            def do_GET(self) -> None:
                name = self.path.removeprefix("/master/")
                outer.requests.append((name, self.headers.get("Range")))
                act = outer.misbehaviour.pop(name, None) if outer.once else outer.misbehaviour.get(name)
                data = outer.files.get(name)
                if data is None:
                    self.send_error(404)
                elif act is not None:
                    act(self, data)
                else:
                    outer.answer(self, data)

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_port}/master"
        threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True).start()

    def answer(self, request: BaseHTTPRequestHandler, data: bytes, cut: int | None = None) -> None:
        """An honest answer, its body cut after ``cut`` bytes."""
        tag = f'"{hashlib.sha256(data).hexdigest()[:16]}"'
        asked = request.headers.get("Range")
        start = 0
        if asked and self.ranges and request.headers.get("If-Range") in (None, tag):
            start = int(asked.removeprefix("bytes=").rstrip("-"))
            if start >= len(data):
                request.send_error(416)
                return
        request.send_response(206 if start else 200)
        if start:
            request.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        request.send_header("Content-Length", str(len(data) - start))
        if self.tags:
            request.send_header("ETag", tag)
        request.end_headers()
        request.wfile.write(data[start:cut])

    def breaking_after(self, count: int) -> Callable[[BaseHTTPRequestHandler, bytes], None]:
        return lambda request, data: self.answer(request, data, cut=count)

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()


@pytest.fixture(scope="module")
def originals(shared: Path) -> dict[str, bytes]:
    folder = shared / "data" / "ict_facekit" / "obj"
    files = {name: (folder / Path(name).name).read_bytes() for name in FILES[1:]}
    return {"LICENSE": LICENSE, **files}


@pytest.fixture
def server(originals: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """The authors' repository, four files of it; nothing waits between attempts."""
    monkeypatch.setattr(download, "ict_files", lambda: FILES)
    monkeypatch.setattr("fastface.download.time.sleep", lambda _: None)
    running = Server(dict(originals))
    yield running
    running.close()


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "models" / "ict.npz"


def fetch(server: Server, target: Path, **options: object) -> Received:
    target.parent.mkdir(exist_ok=True)
    options = {"known_sha256": {}, "timeout_s": 5.0, **options}
    return get_ict(target, base_url=server.url, **options)  # type: ignore[arg-type]


def leftovers(target: Path) -> set[str]:
    return {path.name for path in target.parent.iterdir()}


WHOLE = {"ict.npz", "ict.sha256.json", "ict.LICENSE.txt"}


# ---------------------------------------------------------------- when all goes well


def test_it_becomes_a_model_with_its_licence_beside_it(server: Server, target: Path, shared: Path) -> None:
    heard: list[tuple[int, int, int]] = []
    received = fetch(server, target, progress=lambda *told: heard.append(told))
    model = load(target)
    assert model.expression_names == ("jawOpen",)
    whole = import_ict(shared / "data" / "ict_facekit" / "obj")
    assert np.array_equal(model.vertices, whole.vertices)
    assert received.license_text == LICENSE.decode()
    assert (target.parent / "ict.LICENSE.txt").read_bytes() == LICENSE
    assert leftovers(target) == WHOLE
    size = sum(map(len, server.files.values()))
    assert (received.files_fetched, received.files_kept, received.bytes_received) == (4, 0, size)
    assert heard[-1] == (4, 4, size)
    assert [told[0] for told in heard] == sorted(told[0] for told in heard)
    assert [told[2] for told in heard] == sorted(told[2] for told in heard)


def test_what_is_recorded_holds_a_later_download_to_it(server: Server, target: Path) -> None:
    fetch(server, target)
    record = json.loads((target.parent / "ict.sha256.json").read_bytes())
    assert record == {name: hashlib.sha256(data).hexdigest() for name, data in server.files.items()}
    fetch(server, target)
    server.files["FaceXModel/jawOpen.obj"] += b"\n"
    before = target.read_bytes()
    with pytest.raises(DownloadFailed, match=r"jawOpen\.obj: wanted SHA-256"):
        fetch(server, target)
    assert target.read_bytes() == before


def test_known_sums_are_those_of_the_authors_files(originals: dict[str, bytes]) -> None:
    for name in FILES[1:]:
        assert hashlib.sha256(originals[name]).hexdigest() == KNOWN_SHA256[name]
    assert set(KNOWN_SHA256) < set(ict_files())


def test_the_list_of_files_is_the_authors() -> None:
    files = ict_files()
    assert len(files) == len(set(files)) == 1 + 1 + 100 + 53
    assert files[0] == "LICENSE"
    assert {"FaceXModel/generic_neutral_mesh.obj", "FaceXModel/identity099.obj"} < set(files)
    assert {"FaceXModel/browInnerUp_L.obj", "FaceXModel/mouthClose.obj", "FaceXModel/jawLeft.obj"} < set(
        files
    )


def test_the_default_place_is_the_users_data_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert ict_path() == tmp_path / "fastface" / "ict.npz"
    monkeypatch.setenv("XDG_DATA_HOME", "relative")
    assert ict_path() == Path.home() / ".local" / "share" / "fastface" / "ict.npz"


# ---------------------------------------------------------------- broken lines


def test_a_broken_line_is_taken_up_where_it_broke(server: Server, target: Path) -> None:
    name = "FaceXModel/jawOpen.obj"
    server.misbehaviour[name] = server.breaking_after(1_000_000)
    received = fetch(server, target)
    assert [asked for path, asked in server.requests if path == name] == [None, "bytes=1000000-"]
    assert received.bytes_received == sum(map(len, server.files.values()))
    assert leftovers(target) == WHOLE


def test_a_call_goes_on_where_the_last_one_stopped(server: Server, target: Path) -> None:
    name = "FaceXModel/identity000.obj"
    server.once = False
    server.misbehaviour[name] = lambda request, data: server.answer(
        request, data, cut=500_000 if not request.headers.get("Range") else -1 - len(data)
    )
    with pytest.raises(DownloadFailed, match="run it again"):
        fetch(server, target)
    assert not target.exists()
    server.misbehaviour.clear()
    server.requests.clear()
    received = fetch(server, target)
    assert server.requests[0] == (name, "bytes=500000-")
    assert (received.files_fetched, received.files_kept) == (2, 2)
    assert load(target).identity.shape[0] == 1


def test_a_server_without_ranges_sends_all_again(server: Server, target: Path) -> None:
    server.ranges = False
    name = "FaceXModel/jawOpen.obj"
    server.misbehaviour[name] = server.breaking_after(1_000_000)
    fetch(server, target)
    assert [path for path, _ in server.requests].count(name) == 2
    assert load(target).expression_names == ("jawOpen",)


def test_without_a_version_nothing_is_patched_together(server: Server, target: Path) -> None:
    server.tags = False
    name = "FaceXModel/jawOpen.obj"
    server.misbehaviour[name] = server.breaking_after(1_000_000)
    fetch(server, target)
    assert [asked for path, asked in server.requests if path == name] == [None, None]


def test_a_file_that_changes_in_between_is_fetched_whole(server: Server, target: Path) -> None:
    name = "FaceXModel/jawOpen.obj"

    def cut_then_change(request: BaseHTTPRequestHandler, data: bytes) -> None:
        server.answer(request, data, cut=1_000_000)
        server.files[name] = b"# changed\n" + data

    server.misbehaviour[name] = cut_then_change
    fetch(server, target)
    record = json.loads((target.parent / "ict.sha256.json").read_bytes())
    assert record[name] == hashlib.sha256(server.files[name]).hexdigest()


def test_a_part_as_long_as_the_file_begins_anew(server: Server, target: Path) -> None:
    name = "FaceXModel/jawOpen.obj"
    data = server.files[name]
    work = target.parent / ".ict.download" / "FaceXModel"
    work.mkdir(parents=True)
    (work / "jawOpen.obj.part").write_bytes(b"x" * len(data))
    (work / "jawOpen.obj.part.version").write_text(f'"{hashlib.sha256(data).hexdigest()[:16]}"')
    fetch(server, target)
    assert [asked for path, asked in server.requests if path == name] == [f"bytes={len(data)}-", None]


def test_kept_files_that_were_damaged_are_fetched_again(server: Server, target: Path) -> None:
    server.once = False
    server.misbehaviour["FaceXModel/jawOpen.obj"] = lambda request, data: request.send_error(404)
    with pytest.raises(DownloadFailed, match="404"):
        fetch(server, target)
    kept = target.parent / ".ict.download" / "FaceXModel" / "identity000.obj"
    kept.write_bytes(kept.read_bytes()[:-100])
    server.misbehaviour.clear()
    assert fetch(server, target).files_fetched == 2
    assert load(target).identity.shape[0] == 1


@pytest.mark.parametrize("code", [500, 503, 429])
def test_a_busy_server_is_asked_again(server: Server, target: Path, code: int) -> None:
    server.misbehaviour["LICENSE"] = lambda request, data: request.send_error(code)
    assert fetch(server, target).files_fetched == 4


def test_a_server_that_never_recovers_is_given_up(server: Server, target: Path) -> None:
    server.once = False
    server.misbehaviour["LICENSE"] = lambda request, data: request.send_error(500)
    with pytest.raises(DownloadFailed, match="500; tried 4 times"):
        fetch(server, target)
    assert len(server.requests) == 4


def test_silence_is_not_waited_for(server: Server, target: Path) -> None:
    release = threading.Event()
    server.once = False
    server.misbehaviour["LICENSE"] = lambda request, data: [release.wait(10)].clear()
    try:
        with pytest.raises(DownloadFailed, match=r"TimeoutError|timed out"):
            fetch(server, target, timeout_s=0.1)
    finally:
        release.set()


# ---------------------------------------------------------------- wrong answers


def test_a_missing_file_is_reported_at_once(server: Server, target: Path) -> None:
    del server.files["FaceXModel/jawOpen.obj"]
    with pytest.raises(DownloadFailed, match=r"jawOpen\.obj: the server answered 404"):
        fetch(server, target)
    assert [path for path, _ in server.requests].count("FaceXModel/jawOpen.obj") == 1
    assert not target.exists()


def test_a_wrong_checksum_is_refused_and_not_kept(server: Server, target: Path) -> None:
    name = "FaceXModel/identity000.obj"
    server.files[name] = server.files[name].replace(b"v ", b"v  ", 1)
    with pytest.raises(DownloadFailed, match=r"identity000\.obj: wanted SHA-256"):
        fetch(server, target, known_sha256={name: KNOWN_SHA256[name]})
    assert not target.exists()
    assert not list((target.parent / ".ict.download" / "FaceXModel").glob("identity000*"))


def test_the_right_files_pass_their_known_sums(server: Server, target: Path, shared: Path) -> None:
    server.files["LICENSE"] = (shared / "data" / "ict_facekit" / "LICENSE").read_bytes()
    assert fetch(server, target, known_sha256=dict(KNOWN_SHA256)).files_fetched == 4


def announce(length: str) -> Callable[[BaseHTTPRequestHandler, bytes], None]:
    def act(request: BaseHTTPRequestHandler, data: bytes) -> None:
        request.send_response(200)
        request.send_header("Content-Length", length)
        request.end_headers()

    return act


@pytest.mark.parametrize("length", ["99999999999", "-5", "1e3", "²"])
def test_an_impossible_length_is_refused(server: Server, target: Path, length: str) -> None:
    server.misbehaviour["LICENSE"] = announce(length)
    with pytest.raises(DownloadFailed, match=r"wanted at most|Content-Length"):
        fetch(server, target)


def test_an_endless_answer_is_cut_off(server: Server, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "MAX_FILE_BYTES", 1 << 20)

    def endless(request: BaseHTTPRequestHandler, data: bytes) -> None:
        request.send_response(200)
        request.end_headers()
        try:
            while True:
                request.wfile.write(b"v 0 0 0\n" * 8192)
        except OSError:
            return

    server.misbehaviour["LICENSE"] = endless
    with pytest.raises(DownloadFailed, match="the server sent more"):
        fetch(server, target)


def test_another_range_than_asked_for_is_refused(server: Server, target: Path) -> None:
    name = "FaceXModel/jawOpen.obj"

    def wrong_range(request: BaseHTTPRequestHandler, data: bytes) -> None:
        request.send_response(206)
        request.send_header("Content-Range", f"bytes 5-9/{len(data)}")
        request.send_header("Content-Length", "5")
        request.end_headers()
        request.wfile.write(data[5:10])

    def cut_then_lie(request: BaseHTTPRequestHandler, data: bytes) -> None:
        server.answer(request, data, cut=1_000_000)
        server.misbehaviour[name] = wrong_range

    server.misbehaviour[name] = cut_then_lie
    fetch(server, target)
    assert [asked for path, asked in server.requests if path == name] == [None, "bytes=1000000-", None]


@pytest.mark.parametrize("place", ["http://example.org/LICENSE", "ftp://127.0.0.1/x", "file:///etc/passwd"])
def test_a_redirect_out_of_https_is_refused(server: Server, target: Path, place: str) -> None:
    def away(request: BaseHTTPRequestHandler, data: bytes) -> None:
        request.send_response(302)
        request.send_header("Location", place)
        request.send_header("Content-Length", "0")
        request.end_headers()

    server.misbehaviour["LICENSE"] = away
    with pytest.raises(DownloadFailed, match=r"redirected|302"):
        fetch(server, target)


def test_files_that_are_no_model_leave_no_model(server: Server, target: Path) -> None:
    server.files["FaceXModel/generic_neutral_mesh.obj"] = b"<html>not here</html>"
    with pytest.raises(BadModelFile):
        fetch(server, target)
    assert not target.exists()


# ---------------------------------------------------------------- wrong requests


@pytest.mark.parametrize(
    "base_url",
    [
        "http://example.org/master",
        "ftp://example.org",
        "file:///tmp",
        "https://",
        "https://user:secret@example.org",
        "https://example.org/?x=1",
        "https://example.org:99999",
        "",
    ],
)
def test_only_https_is_asked(tmp_path: Path, base_url: str) -> None:
    with pytest.raises(BadArgument, match="base_url"):
        get_ict(tmp_path / "ict.npz", base_url=base_url)
    assert list(tmp_path.iterdir()) == []


def test_nobody_listens(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastface.download.time.sleep", lambda _: None)
    target.parent.mkdir()
    with pytest.raises(DownloadFailed, match="cannot be reached"):
        get_ict(target, base_url="http://127.0.0.1:9/master", timeout_s=1.0)


def test_a_folder_that_is_not_there_is_refused(server: Server, tmp_path: Path) -> None:
    with pytest.raises(WriteFailed, match="no folder"):
        get_ict(tmp_path / "absent" / "ict.npz", base_url=server.url)
    assert server.requests == []


def test_two_at_once_do_not_mix(server: Server, target: Path) -> None:
    def second(request: BaseHTTPRequestHandler, data: bytes) -> None:
        with pytest.raises(DownloadFailed, match="another download"):
            fetch(server, target)
        seen.append(True)
        server.answer(request, data)

    seen: list[bool] = []
    server.misbehaviour["LICENSE"] = second
    fetch(server, target)
    assert seen == [True]
