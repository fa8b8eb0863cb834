"""Files appear whole or not at all: written beside their destination, then renamed."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from fastface.errors import WriteFailed


def destination(path: str | Path) -> Path:
    """Where a file would be written: links followed, the folder there, no device or folder in its place.

    Raises ``WriteFailed``. Renaming over a device such as /dev/null would replace it, so only regular files
    pass.
    """
    shown = Path(path)
    if not shown.name:
        raise WriteFailed(f"{shown}: not a file name")
    final = Path(os.path.realpath(shown))
    if final.is_dir():
        raise WriteFailed(f"{shown}: is a folder, wanted a file name")
    if final.exists() and not final.is_file():
        raise WriteFailed(f"{shown}: not a regular file")
    if not final.parent.is_dir():
        raise WriteFailed(f"{shown}: there is no folder {final.parent}")
    return final


@contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """Give a temporary path in the folder of ``path``; rename it to ``path`` when the block ends well.

    On any exception, Ctrl-C included, the temporary file is removed and ``path`` is left as it was. An
    ``OSError`` (full disk, no permission) becomes ``WriteFailed``.
    """
    final = destination(path)
    temporary = final.with_name(f".{final.name[:80]}.{secrets.token_hex(4)}.tmp")
    try:
        try:
            # Claimed with the usual permissions; fails early when the folder cannot be written to.
            os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
            yield temporary
            os.replace(temporary, final)
        except WriteFailed:
            raise
        except OSError as error:
            raise WriteFailed(f"{path}: cannot be written ({error.strerror or error})") from error
    finally:
        with suppress(OSError):
            temporary.unlink()


def write_whole(path: str | Path, data: bytes) -> None:
    """Write ``data`` to ``path``, whole or not at all. Raises ``WriteFailed``."""
    with whole_file(path) as temporary:
        temporary.write_bytes(data)
