"""Fetching ICT-FaceKit from its authors' public repository, for those who want the larger head.

The authors publish one OBJ file per shape under ``FaceXModel/`` (some 390 MB in all). Each file is fetched
whole or not at all; what has come stays when the line breaks, and the next call goes on from there. When all
are there they become one ``.npz`` (``fastface.importers.ict``) and the OBJ files are deleted.

Checksums: SHA-256 of part of the files is known (``KNOWN_SHA256``) and enforced. For the others the first
download decides: its sums are written beside the model, files kept from an interrupted call are held against
them, and so is every later download. That protects against damage and later change, not against a first
download that was wrong.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import shutil
import socket
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from fastface.atomic import destination as checked_destination
from fastface.atomic import write_whole
from fastface.errors import BadArgument, DownloadFailed, WriteFailed
from fastface.importers.ict import NEUTRAL_FILE, authors_names, import_ict
from fastface.morphable import save

ICT_URL: Final = "https://raw.githubusercontent.com/ICT-VGL/ICT-FaceKit/master"
ICT_FOLDER: Final = "FaceXModel"
ICT_LICENSE: Final = "LICENSE"
IDENTITIES: Final = 100
MAX_FILE_BYTES: Final = 16 << 20  # the largest has 2.6 MB
ATTEMPTS: Final = 4
_CHUNK_BYTES: Final = 1 << 16
_LOCAL_HOSTS: Final = ("localhost", "127.0.0.1", "::1")

Progress = Callable[[int, int, int], None]
"""Called with the files that are there, the files wanted, and the bytes received in this call."""

# From a copy of the authors' repository.
KNOWN_SHA256: Final = {
    "LICENSE": "b20a78d8fc51657e14f3e00c8abb538d786ad00aa63210328c22565e583167e1",
    "FaceXModel/browInnerUp_L.obj": "81fb1625794ea36fb13303234ce06cef798acfdbc489077e22ae195a705bc92e",
    "FaceXModel/browInnerUp_R.obj": "5e66b46cdad89fd1237273db2b885511688cf37636cedfdde432a4844c9109e7",
    "FaceXModel/eyeBlink_L.obj": "f5ed1c3072a400083b7d4f7f5cb3d73882b7ebb95c3232f957394db8cf7fe19e",
    "FaceXModel/eyeBlink_R.obj": "d281ad0af03e89a70abf1214d52c295b3a279c9b35f6795938c4487f467ca003",
    "FaceXModel/generic_neutral_mesh.obj": "eedbc2576d8e5ea57f55255b8f98263213a1efb5431d8bfceed1d7aef10271f9",
    "FaceXModel/identity000.obj": "918160cf82d541336b4c367cf93199c9827832bde02511b8fbdf9019d6f1a773",
    "FaceXModel/identity001.obj": "325115059deb6691cb2d55da07ae38bb08ce36e4ea146982f294a17513155b3b",
    "FaceXModel/identity002.obj": "e140e8305cd5232def3b94331d08450a13f312e525130fca8eeaa653231decc3",
    "FaceXModel/identity003.obj": "be3481a6bed8953a6d9dd7f811a04bc6d2ab94d1bd76ecfaa6d4cae87a450f9d",
    "FaceXModel/jawOpen.obj": "8d84355e10f48b05550980cee385bcd426f4797090da76a20de0535bb2f99f4a",
    "FaceXModel/mouthFrown_L.obj": "1bfd720ad024e5805ac8472df170c2c96c09e817e02b66f916057d6e2d31ee9b",
    "FaceXModel/mouthSmile_L.obj": "91794e73cef330f1c7d1f4541723544708536b39d5dd6ed35fd8f83f676b7af4",
    "FaceXModel/mouthSmile_R.obj": "3fb3de3da9f8358edbb933a65ce6e44c25a2501f30dcb240daea725b68adac84",
}


@dataclass(frozen=True)
class Received:
    """What ``get_ict`` made: the model's path, the authors' licence text, files fetched and kept, bytes
    received.
    """

    model: Path
    license_text: str
    files_fetched: int
    files_kept: int
    bytes_received: int


def ict_path() -> Path:
    """Where ``get_ict`` puts the model by default: ``$XDG_DATA_HOME/fastface/ict.npz``."""
    data_home = os.environ.get("XDG_DATA_HOME", "")
    base = Path(data_home) if os.path.isabs(data_home) else Path.home() / ".local" / "share"
    return base / "fastface" / "ict.npz"


def ict_files() -> tuple[str, ...]:
    """Paths of the files in the authors' repository, the licence first."""
    shapes = [NEUTRAL_FILE, *(f"identity{index:03d}.obj" for index in range(IDENTITIES))]
    shapes += [f"{name}.obj" for name in authors_names()]
    return (ICT_LICENSE, *(f"{ICT_FOLDER}/{shape}" for shape in shapes))


def get_ict(
    destination: str | os.PathLike[str] | None = None,
    *,
    base_url: str = ICT_URL,
    progress: Progress | None = None,
    timeout_s: float = 30.0,
    known_sha256: dict[str, str] = KNOWN_SHA256,
) -> Received:
    """Download ICT-FaceKit and write it as a head model to ``destination`` (a ``.npz``; default
    ``ict_path()``).

    Call it again after an interruption: finished files are kept, a half-fetched one goes on where it stopped.
    The licence text is returned and written beside the model. ``base_url``: https, or http on this machine.
    Raises ``DownloadFailed``, ``BadModelFile``, ``WriteFailed``, ``BadArgument``.
    """
    base = _checked_url(base_url)
    if destination is None:
        ict_path().parent.mkdir(parents=True, exist_ok=True)
    target = checked_destination(Path(destination) if destination is not None else ict_path())
    record = target.with_name(f"{target.stem}.sha256.json")
    work = target.with_name(f".{target.stem}.download")
    with _writing(target), _only_one(work):
        fetcher = _Fetcher(base, work, timeout_s, {**_read_record(record), **known_sha256})
        files = ict_files()

        def tell(there: int, received: int) -> None:
            if progress:
                progress(there, len(files), received)

        for index, name in enumerate(files):
            fetcher.get(name, partial(tell, index))
        tell(len(files), fetcher.received)
        license_text = (work / ICT_LICENSE).read_text("utf-8", errors="replace")
        save(import_ict(work / ICT_FOLDER), target)
        write_whole(record, json.dumps(fetcher.sums, indent=1, sort_keys=True).encode())
        write_whole(target.with_name(f"{target.stem}.LICENSE.txt"), license_text.encode())
        shutil.rmtree(work, ignore_errors=True)
    return Received(target, license_text, fetcher.fetched, len(files) - fetcher.fetched, fetcher.received)


def _checked_url(base_url: str) -> str:
    try:
        parts = urlsplit(base_url)
        local = parts.hostname in _LOCAL_HOSTS
        port = parts.port
    except ValueError as error:
        raise BadArgument(f"base_url must be an https address, got {base_url!r}: {error}") from error
    allowed = parts.scheme == "https" or (parts.scheme == "http" and local)
    if not allowed or not parts.hostname or parts.query or parts.fragment or parts.username or port == 0:
        raise BadArgument(
            f"base_url must be a plain https address (http only on this machine), got {base_url!r}"
        )
    return base_url.rstrip("/")


def _read_record(path: Path) -> dict[str, str]:
    """Sums of an earlier download; a record that cannot be read is as good as none."""
    try:
        sums = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(sums, dict):
        return {}
    return {name: value for name, value in sums.items() if isinstance(name, str) and isinstance(value, str)}


@contextmanager
def _writing(target: Path) -> Iterator[None]:
    try:
        yield
    except (WriteFailed, DownloadFailed):
        raise
    except OSError as error:
        raise WriteFailed(
            f"{target}: the download could not be written: {error.strerror or error}"
        ) from error


@contextmanager
def _only_one(work: Path) -> Iterator[None]:
    """Hold the work folder for this process; a second download of the same model is refused."""
    import fcntl  # POSIX only, as the package is

    (work / ICT_FOLDER).mkdir(parents=True, exist_ok=True)
    with (work / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise DownloadFailed(f"{work}: another download into this folder is under way") from error
        yield


class _HttpsRedirects(urllib.request.HTTPRedirectHandler):
    """Follows a redirect only to where a first request would be allowed to go."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        parts = urlsplit(newurl)
        local = urlsplit(req.full_url).scheme == "http" and parts.hostname in _LOCAL_HOSTS
        if parts.scheme != "https" and not (parts.scheme == "http" and local):
            raise DownloadFailed(f"{req.full_url}: redirected to {newurl[:200]}, wanted https")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


class _Interrupted(Exception):
    """The line broke; what has come is on disk and another attempt may go on."""


class _NothingBehind(_Interrupted):
    """A request to go on began behind the file's end."""


class _Fetcher:
    """Fetches files into a folder, each checked against its sum, known or recorded."""

    def __init__(self, base: str, work: Path, timeout_s: float, expected: dict[str, str]) -> None:
        self.fetched = 0
        self.received = 0
        self.sums: dict[str, str] = {}
        self._base, self._work, self._timeout_s, self._expected = base, work, timeout_s, expected
        self._journal = work / "sums.json"
        self._kept = _read_record(self._journal)
        self._opener = urllib.request.build_opener(_HttpsRedirects)

    def get(self, name: str, heard: Callable[[int], None]) -> None:
        """Have ``name`` in the folder, whole and with the right sum."""
        final = self._work / name
        wanted = self._expected.get(name) or self._kept.get(name)
        if final.is_file() and wanted and _sha256(final) == wanted:
            self.sums[name] = wanted
            heard(self.received)
            return
        final.unlink(missing_ok=True)
        part = final.with_name(final.name + ".part")
        for attempt in range(ATTEMPTS):
            try:
                self._fetch(name, part, heard)
                break
            except _Interrupted as error:
                if attempt + 1 == ATTEMPTS:
                    raise DownloadFailed(
                        f"{self._base}/{name}: {error}; tried {ATTEMPTS} times. "
                        "What has come is kept: run it again"
                    ) from error
                time.sleep(min(0.2 * 4**attempt, 5.0))
        got = _sha256(part)
        if name in self._expected and got != self._expected[name]:
            part.unlink(missing_ok=True)
            raise DownloadFailed(
                f"{self._base}/{name}: wanted SHA-256 {self._expected[name]}, got {got}; not kept"
            )
        os.replace(part, final)
        self.sums[name] = self._kept[name] = got
        write_whole(self._journal, json.dumps(self._kept).encode())
        self.fetched += 1

    def _fetch(self, name: str, part: Path, heard: Callable[[int], None]) -> None:
        """One request: go on behind what ``part`` holds if the server and the file's version allow it, else
        anew.
        """
        version = part.with_name(part.name + ".version")
        have = part.stat().st_size if part.is_file() and version.is_file() else 0
        headers = {"User-Agent": "fastface", "Accept-Encoding": "identity"}
        if have:
            # If-Range: a server whose file has changed since sends all of it.
            headers |= {"Range": f"bytes={have}-", "If-Range": version.read_text("latin-1")}
        try:
            with self._open(f"{self._base}/{name}", headers) as answer:
                start = have if answer.status == 206 and _range_start(answer) == have else 0
                if answer.status == 206 and start != have:
                    part.unlink(missing_ok=True)
                    raise _Interrupted("the server sent another part than was asked for")
                length = _length(answer, name)
                tag = answer.headers.get("ETag") or answer.headers.get("Last-Modified") or "W/"
                with part.open("r+b" if start else "wb") as sink:
                    sink.seek(start)
                    sink.truncate()
                    version.unlink(missing_ok=True)
                    if not tag.startswith("W/"):  # a weak tag does not promise the same bytes
                        version.write_text(tag, "latin-1")
                    size = self._copy(answer, sink, start, name, heard)
        except _NothingBehind:
            part.unlink()  # as long as the file, or longer: begin anew
            raise
        except (http.client.HTTPException, ConnectionError, TimeoutError, ssl.SSLError) as error:
            raise _Interrupted(f"the connection broke: {type(error).__name__} {error}".strip()) from error
        if length is not None and size < start + length:
            raise _Interrupted(f"the connection broke after {size} of {start + length} bytes")
        version.unlink(missing_ok=True)

    def _copy(self, answer: Any, sink: Any, start: int, name: str, heard: Callable[[int], None]) -> int:
        size = start
        while chunk := answer.read(_CHUNK_BYTES):
            size += len(chunk)
            if size > MAX_FILE_BYTES:
                raise DownloadFailed(
                    f"{self._base}/{name}: wanted at most {MAX_FILE_BYTES} bytes, the server sent more"
                )
            sink.write(chunk)
            self.received += len(chunk)
            heard(self.received)
        return size

    def _open(self, url: str, headers: dict[str, str]) -> Any:
        try:
            return self._opener.open(urllib.request.Request(url, headers=headers), timeout=self._timeout_s)
        except urllib.error.HTTPError as error:
            with error:
                code = error.code
            if code == 416:
                raise _NothingBehind("the server has nothing behind what is here") from error
            if code in (408, 429) or code >= 500:
                raise _Interrupted(f"the server answered {code}") from error
            raise DownloadFailed(f"{url}: the server answered {code} {error.reason}") from error
        except urllib.error.URLError as error:
            if isinstance(error.reason, (ConnectionError, TimeoutError, socket.gaierror)):
                raise _Interrupted(f"cannot be reached: {error.reason}") from error
            raise DownloadFailed(f"{url}: cannot be reached: {error.reason}") from error


def _range_start(answer: Any) -> int:
    """First byte of ``Content-Range: bytes 100-199/200``, or -1."""
    unit, _, rest = (answer.headers.get("Content-Range") or "").partition(" ")
    first = rest.partition("-")[0]
    return int(first) if unit == "bytes" and first.isascii() and first.isdigit() else -1


def _length(answer: Any, name: str) -> int | None:
    text = answer.headers.get("Content-Length")
    if text is None:
        return None
    if not (text.isascii() and text.isdigit()):
        raise DownloadFailed(f"{name}: wanted a Content-Length in bytes, the server sent {text[:40]!r}")
    if int(text) > MAX_FILE_BYTES:
        raise DownloadFailed(f"{name}: wanted at most {MAX_FILE_BYTES} bytes, the server announces {text}")
    return int(text)


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
