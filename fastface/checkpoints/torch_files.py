"""Files of ``torch.save``, old and new, and NVIDIA's pickles, read without torch.

New files are zips of one ``data.pkl`` and one uncompressed entry per storage (torch ≥ 1.6). Old ones are five
pickles in a row, then the storages, each with its number of elements in front. NVIDIA's are one pickle whose
tensors hold old torch files as byte strings.
"""

from __future__ import annotations

import hashlib
import io
import struct
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from fastface.checkpoints.allowed import ALLOWED, STORAGES, Storage, element_size
from fastface.checkpoints.unpickling import Budget, Global, Machine, shown
from fastface.errors import BadModelFile

MAX_FILE_BYTES: Final = 1 << 33
MAX_ENTRIES: Final = 100_000
#: ``torch.serialization.MAGIC_NUMBER`` and the version of the old format.
TORCH_MAGIC: Final = 0x1950A86A20F9469CFC6C
TORCH_PROTOCOL: Final = 1001
_ZIP: Final = b"PK\x03\x04"


@dataclass(frozen=True, slots=True)
class PickledFile:
    """What a file's pickle holds: dictionaries, lists, numbers, ``Tensor``, ``Array`` and ``Record``."""

    value: Any
    source: str
    sha256: str
    size: int


def read_bytes(path: str | Path) -> bytes:
    """A whole file of at most ``MAX_FILE_BYTES``. Raises ``BadModelFile``."""
    file = Path(path)
    if not file.is_file():
        raise BadModelFile(f"{file}: no such file" if not file.exists() else f"{file}: not a regular file")
    try:
        size = file.stat().st_size
        if size > MAX_FILE_BYTES:
            raise BadModelFile(f"{file}: {size} bytes, at most {MAX_FILE_BYTES} are read")
        data = file.read_bytes()
    except OSError as error:
        raise BadModelFile(f"{file}: cannot be read ({error.strerror or error})") from error
    if not data:
        raise BadModelFile(f"{file}: empty")
    return data


def read_pickled(path: str | Path) -> PickledFile:
    """A torch ``.pt`` ``.pth`` ``.ckpt`` or an NVIDIA ``.pkl``; no code in it is run. Raises ``BadModelFile``
    with the name of whatever it asks for beyond plain data."""
    data = read_bytes(path)
    return unpickled(data, str(path))


def unpickled(data: bytes, source: str) -> PickledFile:
    """The same from bytes; ``source`` names them in errors."""
    view = memoryview(data)
    budget = Budget.of_file(len(data), source)
    if data[:4] == _ZIP:
        value = _read_zip(data, budget)
    elif _is_old_torch(view):
        value = _read_old(view, budget, allowed=ALLOWED)
    elif data[:1] != b"\x80":
        raise BadModelFile(f"{source}: neither a torch file nor a pickle")
    else:
        value = _read_nvidia(view, budget)
    return PickledFile(value, source, hashlib.sha256(data).hexdigest(), len(data))


# -- the pickle of NVIDIA ------------------------------------------------------------------------------------


def _read_nvidia(view: memoryview, budget: Budget) -> Any:
    def storage_from_bytes(arguments: tuple[Any, ...], spent: Budget) -> Storage:
        (raw,) = arguments
        if not isinstance(raw, bytes):
            raise TypeError("a storage is made from bytes")
        # The nested file may not hold a nested file again: its table has no such entry.
        spent.spend(len(raw))
        value = _read_old(memoryview(raw), spent, allowed=ALLOWED)
        if not isinstance(value, Storage):
            raise TypeError("the bytes hold no storage")
        return value

    name = "torch.storage._load_from_bytes"
    machine = Machine(view, allowed={**ALLOWED, name: Global(name, storage_from_bytes)}, budget=budget)
    value = machine.load()
    if machine.position != len(view):
        raise BadModelFile(f"{budget.source}: {len(view) - machine.position} bytes follow the pickle")
    return value


# -- old torch files -----------------------------------------------------------------------------------------


def _is_old_torch(view: memoryview) -> bool:
    magic = TORCH_MAGIC.to_bytes(10, "little")
    return bytes(view[:15]).find(b"\x8a\x0a" + magic) == 2


def _read_old(view: memoryview, budget: Budget, *, allowed: dict[str, Global]) -> Any:
    if not _is_old_torch(view):
        raise BadModelFile(f"{budget.source}: holds a torch file of an unknown format")
    storages: dict[str, Storage] = {}
    bounds: dict[str, tuple[int, int]] = {}

    def reader(key: str) -> Callable[[], memoryview]:
        return lambda: view[slice(*bounds[key])]

    def persistent(identity: Any) -> Storage:
        kind, key, size = _storage_identity(identity, budget)
        if len(identity) > 5 and identity[5] is not None:
            raise BadModelFile(f"{budget.source}: a view of a storage, as torch wrote before 0.4; refused")
        found = storages.setdefault(key, Storage(kind, size, reader(key)))
        if (found.dtype, found.size) != (kind, size):
            raise BadModelFile(f"{budget.source}: storage {shown(key)} is described in two ways")
        return found

    position = 0
    header: list[Any] = []
    for _ in range(3):  # magic number, protocol, {byte order, sizes of types}
        machine = Machine(view, allowed={}, budget=budget, position=position)
        header.append(machine.load())
        position = machine.position
    _check_old_header(header, budget)
    machine = Machine(view, allowed=allowed, budget=budget, position=position, persistent=persistent)
    value = machine.load()
    keys = Machine(view, allowed={}, budget=budget, position=machine.position)
    order = keys.load()
    if not isinstance(order, list) or not all(isinstance(key, (str, int)) for key in order):
        raise BadModelFile(f"{budget.source}: its list of storages holds something else")
    if sorted(map(str, order)) != sorted(storages):
        raise BadModelFile(f"{budget.source}: its list of storages is not what the tensors refer to")
    _place(view, keys.position, [str(key) for key in order], storages, bounds, budget)
    return value


def _check_old_header(header: list[Any], budget: Budget) -> None:
    magic, protocol, system = header
    if magic != TORCH_MAGIC or protocol != TORCH_PROTOCOL:
        raise BadModelFile(f"{budget.source}: torch file of an unknown version")
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise BadModelFile(f"{budget.source}: written on a big-endian machine; not read")


def _place(
    view: memoryview,
    position: int,
    order: list[str],
    storages: dict[str, Storage],
    bounds: dict[str, tuple[int, int]],
    budget: Budget,
) -> None:
    """Where each storage lies: number of elements, then the elements."""
    for key in order:
        storage = storages[key]
        start = position + 8
        end = start + storage.size * element_size(storage.dtype)
        if end > len(view):
            raise BadModelFile(f"{budget.source}: truncated: {end - len(view)} bytes of storages are missing")
        (stated,) = struct.unpack("<q", view[position:start])
        if stated != storage.size:
            raise BadModelFile(
                f"{budget.source}: storage {shown(key)} has {stated} elements, not {storage.size}"
            )
        bounds[key] = (start, end)
        position = end
    if position != len(view):
        raise BadModelFile(f"{budget.source}: {len(view) - position} bytes follow the last storage")


def _storage_identity(identity: Any, budget: Budget) -> tuple[str, str, int]:
    """("storage", class, key, device, elements, …) → element type, key, elements."""
    if not isinstance(identity, tuple) or len(identity) < 5 or identity[0] not in ("storage", b"storage"):
        word = identity[0] if isinstance(identity, tuple) and identity else type(identity).__name__
        raise BadModelFile(
            f"{budget.source}: refers to something that is no storage ({shown(word)}); refused"
        )
    _, kind, key, _, size = identity[:5]
    name = kind.name.removeprefix("torch.") if isinstance(kind, Global) else "nothing"
    if name not in STORAGES:
        raise BadModelFile(f"{budget.source}: a storage of {shown(name)}; its elements are no plain numbers")
    if not isinstance(key, (str, int)) or type(size) is not int or size < 0:
        raise BadModelFile(f"{budget.source}: a storage without a key and a size")
    return STORAGES[name], str(key), size


# -- new torch files -----------------------------------------------------------------------------------------


def _read_zip(data: bytes, budget: Budget) -> Any:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return _read_archive(data, archive, budget)
    except (zipfile.BadZipFile, struct.error, EOFError, NotImplementedError, ValueError) as error:
        raise BadModelFile(f"{budget.source}: damaged or truncated zip ({shown(error)})") from error


def _read_archive(data: bytes, archive: zipfile.ZipFile, budget: Budget) -> Any:
    entries = _checked_entries(data, archive, budget)
    pickles = [name for name in entries if name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise BadModelFile(f"{budget.source}: a zip with {len(pickles)} data.pkl; a torch file has one")
    folder = pickles[0].removesuffix("data.pkl")
    if archive.read(entries.get(folder + "byteorder", pickles[0]))[:3] == b"big":
        raise BadModelFile(f"{budget.source}: written on a big-endian machine; not read")
    storages: dict[str, Storage] = {}

    def persistent(identity: Any) -> Storage:
        kind, key, size = _storage_identity(identity, budget)
        entry = entries.get(f"{folder}data/{key}")
        if entry is None:
            raise BadModelFile(f"{budget.source}: storage {shown(key)} is missing")
        if entry.file_size != size * element_size(kind):
            raise BadModelFile(
                f"{budget.source}: storage {shown(key)} has {entry.file_size} bytes, "
                f"{size * element_size(kind)} wanted"
            )
        return storages.setdefault(f"{key} {kind}", Storage(kind, size, _entry_reader(data, entry, budget)))

    view = memoryview(archive.read(pickles[0]))
    return Machine(view, allowed=ALLOWED, budget=budget, persistent=persistent).load()


def _checked_entries(data: bytes, archive: zipfile.ZipFile, budget: Budget) -> dict[str, zipfile.ZipInfo]:
    """Plain entries only, each once, together no longer than the file: nothing to unfold, nothing shared."""
    entries: dict[str, zipfile.ZipInfo] = {}
    for entry in archive.infolist():
        if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1:
            raise BadModelFile(
                f"{budget.source}: compressed or encrypted entry {shown(entry.filename)}; refused"
            )
        if entry.filename in entries:
            raise BadModelFile(f"{budget.source}: entry {shown(entry.filename)} is there twice; refused")
        entries[entry.filename] = entry
    if len(entries) > MAX_ENTRIES or sum(entry.file_size for entry in entries.values()) > len(data):
        raise BadModelFile(f"{budget.source}: its entries are larger than the file; refused")
    return entries


def _entry_reader(data: bytes, entry: zipfile.ZipInfo, budget: Budget) -> Callable[[], bytes]:
    def read() -> bytes:
        try:
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                return archive.read(entry)  # compares the checksum
        except (zipfile.BadZipFile, EOFError) as error:
            raise BadModelFile(
                f"{budget.source}: {shown(entry.filename)} is damaged ({shown(error)})"
            ) from error

    return read
