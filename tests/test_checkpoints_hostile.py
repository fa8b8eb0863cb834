"""Pickles that try to do something. All are refused, and nothing that they name happens.

That nothing happened is told by the interpreter itself: an audit hook sees every import, compilation,
process and opened file while a file is read.
"""

from __future__ import annotations

import io
import os
import pickle
import struct
import sys
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastface.checkpoints import read_checkpoint, read_pickled
from fastface.checkpoints.kinds import RECOGNISERS
from fastface.checkpoints.torch_files import TORCH_MAGIC, TORCH_PROTOCOL, unpickled
from fastface.errors import BadModelFile

assert RECOGNISERS
assert not "".encode("cp437")  # of the names in zip files: both are loaded before the hook listens
_WATCHED = (
    "import",
    "exec",
    "compile",
    "os.system",
    "subprocess",
    "pickle.find_class",
    "ctypes",
    "socket",
    "open",
)
_seen: list[tuple[str, str]] | None = None


def _listen(event: str, arguments: tuple[Any, ...]) -> None:
    if _seen is not None and event.startswith(_WATCHED):
        _seen.append((event, str(arguments[:1])))


sys.addaudithook(_listen)


@contextmanager
def audited() -> Iterator[list[tuple[str, str]]]:
    """What the interpreter was asked to do meanwhile."""
    global _seen
    _seen = events = []
    try:
        yield events
    finally:
        _seen = None


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def call(module: str, name: str, *arguments: bytes) -> bytes:
    """module.name(*arguments) in opcodes of protocol 2."""
    return f"c{module}\n{name}\n".encode() + b"(" + b"".join(arguments) + b"tR"


def program(*parts: bytes) -> bytes:
    return b"\x80\x02" + b"".join(parts) + b"."


def global_call(module: str, name: str, *arguments: bytes) -> bytes:
    return program(call(module, name, *arguments))


def old_torch(body: bytes, keys: list[str] | None = None, data: bytes = b"") -> bytes:
    """A file in torch's old format around the pickle ``body``."""
    system = {"protocol_version": TORCH_PROTOCOL, "little_endian": True, "type_sizes": {}}
    head = b"".join(pickle.dumps(part, protocol=2) for part in (TORCH_MAGIC, TORCH_PROTOCOL, system))
    return head + body + pickle.dumps(keys or [], protocol=2) + data


def torch_zip(
    body: bytes, entries: dict[str, bytes] | None = None, method: int = zipfile.ZIP_STORED
) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", method) as archive:
        archive.writestr("archive/data.pkl", body)
        for name, data in (entries or {}).items():
            archive.writestr(name, data)
    return made.getvalue()


def storage(kind: str = "FloatStorage", size: bytes = b"K\x04") -> bytes:
    """A persistent id: ("storage", torch.FloatStorage, "0", "cpu", size)."""
    return b"(" + text("storage") + f"ctorch\n{kind}\n".encode() + text("0") + text("cpu") + size + b"tQ"


def tensor(shape: bytes, strides: bytes, body: bytes = b"") -> bytes:
    return program(
        call("torch._utils", "_rebuild_tensor_v2", body or storage(), b"K\x00", shape, strides, b"\x89", b"N")
    )


MARK = "/tmp/fastface-hostile-mark"
COMMAND = text(f"touch {MARK}")
PERSISTENT = b"ctorch_utils.persistence\n_reconstruct_persistent_obj\n"
HUGE = b"\x8a\x07" + (1 << 50).to_bytes(7, "little")


def _persistent(meta: bytes) -> bytes:
    return program(PERSISTENT + meta + b"\x85R")


CALLS = {
    "os.system": global_call("os", "system", COMMAND),
    "posix.system": global_call("posix", "system", COMMAND),
    "subprocess.Popen": global_call("subprocess", "Popen", COMMAND),
    "builtins.eval": global_call("builtins", "eval", text("1+1")),
    "__builtin__.exec": global_call("__builtin__", "exec", text("import os")),
    "builtins.__import__": global_call("builtins", "__import__", text("os")),
    "builtins.getattr": program(call("builtins", "getattr", b"cos\nsystem\n", text("x"))),
    "builtins.open": global_call("builtins", "open", text(MARK), text("w")),
    "importlib.import_module": global_call("importlib", "import_module", text("antigravity")),
    "operator.attrgetter": global_call("operator", "attrgetter", text("system")),
    "functools.partial": program(call("functools", "partial", b"cos\nsystem\n", COMMAND)),
    "torch.load": global_call("torch", "load", text(MARK)),
    "torch.hub.load": global_call("torch.hub", "load", text("x"), text("y")),
    "torch.jit.load": global_call("torch.jit", "load", text(MARK)),
    "numpy.load": global_call("numpy", "load", text(MARK)),
    "pickle.loads": global_call("pickle", "loads", b"C\x01."),
    "_pickle.Unpickler": global_call("_pickle", "Unpickler"),
    "builtins.map": program(call("builtins", "map", b"cos\nsystem\n", b"(" + COMMAND + b"t")),
    "collections.namedtuple": global_call("collections", "namedtuple", text("x"), text("y")),
    "torch.serialization._load": global_call("torch.serialization", "_load"),
    "builtins.object": program(b"cbuiltins\nobject\n)\x81"),
    "copyreg._reconstructor": program(call("copyreg", "_reconstructor", b"cdnnlib\nEasyDict\n")),
    "types.FunctionType": global_call("types", "FunctionType"),
    "fastface.atomic.write_whole": global_call("fastface.atomic", "write_whole", text(MARK), b"C\x01x"),
    "torch.FloatStorage.__init__": program(b"ctorch\nFloatStorage.__init__\n"),
    # Named through the stack, as protocol 4 does, and after an allowed name.
    "nt.system": b"\x80\x04\x8c\x02nt\x8c\x06system\x93" + COMMAND + b"\x85R.",
    "os.popen": program(b"]" + call("collections", "OrderedDict") + b"0" + call("os", "popen", COMMAND)),
    # The old opcode that names and calls in one.
    "shutil.rmtree": b"(" + COMMAND + b"ishutil\nrmtree\n.",
}


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("wrapping", ["plain", "zip", "old torch", "in bytes", "in a state"])
def test_calls_are_refused_by_name_and_nothing_runs(name: str, wrapping: str) -> None:
    body = CALLS[name] if CALLS[name][:1] == b"\x80" else b"\x80\x02" + CALLS[name]
    nested = old_torch(body)
    wrapped = {
        "plain": body,
        "zip": torch_zip(body),
        "old torch": old_torch(body),
        "in bytes": program(
            call("torch.storage", "_load_from_bytes", b"B" + struct.pack("<I", len(nested)) + nested)
        ),
        # {"G_ema": a network whose state is the call}
        "in a state": program(
            b"}" + text("G_ema") + PERSISTENT + b"}" + text("state") + body[2:-1] + b"s\x85Rs"
        ),
    }[wrapping]
    with audited() as events, pytest.raises(BadModelFile) as refused:
        unpickled(wrapped, "hostile.pkl")
    assert name in str(refused.value)
    assert not events
    assert not os.path.exists(MARK)


def test_the_corpus_would_work_on_the_standard_machine() -> None:
    """The proof above is worth something only if its ears work and the pickles are well formed."""
    with audited() as events:
        assert pickle.loads(CALLS["builtins.eval"]) == 2
    assert any(event == "pickle.find_class" for event, _ in events)
    assert any(event in ("compile", "exec") for event, _ in events)


def test_the_source_text_of_a_network_is_not_run() -> None:
    source = text(f"open({MARK!r}, 'w'); import this")
    meta = b"}" + text("type") + text("class") + text("module_src") + source + text("class_name") + text("G")
    body = _persistent(b"}(" + meta[1:] + text("state") + b"}" + b"u")
    with audited() as events:
        network = unpickled(body, "net.pkl").value
    assert network.kind == "G"
    assert not events
    assert not os.path.exists(MARK)


OPCODES = {
    "INST": b"(ios\nsystem\n.",
    "OBJ": b"(cdnnlib\nEasyDict\no.",
    "EXT1": b"\x82\x01.",
    "EXT2": b"\x83\x01\x00.",
    "EXT4": b"\x84\x01\x00\x00\x00.",
    "NEWOBJ_EX": b"cdnnlib\nEasyDict\n)}\x92.",
    "BYTEARRAY8": b"\x96" + struct.pack("<Q", 1 << 40) + b".",
    "NEXT_BUFFER": b"\x97.",
    "READONLY_BUFFER": b"N\x98.",
}


@pytest.mark.parametrize("name", OPCODES)
def test_opcodes_that_no_checkpoint_needs_are_refused(name: str) -> None:
    with audited() as events, pytest.raises(BadModelFile, match=name):
        unpickled(b"\x80\x02" + OPCODES[name], "hostile.pkl")
    assert not events


STATES = {
    "state of a list": program(b"]}b"),
    "state of a number": program(b"K\x01}b"),
    "state of a name": program(b"cnumpy\nndarray\n}b"),
    "state with names that are numbers": program(call("argparse", "Namespace") + b"}K\x01K\x02sb"),
    "state that is a list": program(call("argparse", "Namespace") + b"]b"),
    "items of a number": program(b"K\x01K\x02K\x03s"),
    "items of a network": program(call("argparse", "Namespace") + text("a") + b"K\x01s"),
    "append to a dictionary": program(b"}K\x01a"),
    "additions to a list": program(b"](K\x01\x90"),
    "a call of a number": program(b"K\x01)R"),
    "a call of a type": program(b"ctorch\nfloat32\n)R"),
    "a call with a list": program(b"ccollections\nOrderedDict\n]R"),
    "a call of what a call gave": program(call("collections", "OrderedDict") + b")R"),
    "an array of objects": program(call("numpy", "dtype", text("O8"), b"K\x00", b"K\x01")),
    "an array with fields": program(call("numpy", "dtype", text("V8"), b"K\x00", b"K\x01")),
    "a persistent id": program(text("x") + b"Q"),
    "a persistent name": program(b"Psome-id\n"),
    "nothing": b"\x80\x02.",
    "a memo that is not there": program(b"h\x07"),
    "a mark left over": program(b"(K\x01"),
    "pops below a mark": program(b"K\x01(0"),
    "protocol 9": b"\x80\x09N.",
    "an unknown opcode": b"\x80\x02\xff.",
    "text that is no text": program(b"X\x02\x00\x00\x00\xff\xfe"),
    "a network without a class": _persistent(b"}"),
    "two answers": b"\x80\x02NN.",
    "more behind the end": program(b"N") + b"N.",
}


@pytest.mark.parametrize("name", STATES)
def test_misused_opcodes_are_refused(name: str) -> None:
    with audited() as events, pytest.raises(BadModelFile):
        unpickled(STATES[name], "hostile.pkl")
    assert not events


def _deep(count: int, opener: bytes = b"]", closer: bytes = b"a") -> bytes:
    return program(opener * count + b"]" + closer * count)


LARGE = {
    "bytes of 2^60": program(b"\x8e" + struct.pack("<Q", 1 << 60)),
    "text of 2^60": program(b"\x8d" + struct.pack("<Q", 1 << 60)),
    "a frame of 2^60": b"\x80\x04\x95" + struct.pack("<Q", 1 << 60) + b"N.",
    "an integer of 2^30 bytes": program(b"\x8b" + struct.pack("<i", 1 << 30)),
    "an integer of a million digits": program(b"L" + b"9" * 1_000_000 + b"L\n"),
    "a tensor that repeats one number": torch_zip(
        tensor(HUGE + b"\x85", b"K\x00\x85", storage(size=b"K\x01")), {"archive/data/0": b"\0" * 4}
    ),
    "a tensor beyond its storage": torch_zip(
        tensor(b"K\x08\x85", b"K\x01\x85"), {"archive/data/0": b"\0" * 16}
    ),
    "a tensor with a negative stride": torch_zip(
        tensor(b"K\x04\x85", b"J\xff\xff\xff\xff\x85"), {"archive/data/0": b"\0" * 16}
    ),
    "a tensor of 70 axes": torch_zip(
        tensor(b"(" + b"K\x01" * 70 + b"t", b"(" + b"K\x01" * 70 + b"t"), {"archive/data/0": b"\0" * 16}
    ),
    "a storage of 2^50": torch_zip(program(storage(size=HUGE)), {"archive/data/0": b"\0" * 16}),
    "an old storage of 2^50": old_torch(program(storage(size=HUGE)), ["0"], struct.pack("<q", 1 << 50)),
    "an old storage of two sizes": old_torch(
        program(storage(size=b"K\x04")), ["0"], struct.pack("<q", 8) + b"\0" * 32
    ),
    "an array of 2^50": program(
        b"cnumpy.core.multiarray\n_reconstruct\n(tR(K\x01"
        + HUGE
        + b"\x85cnumpy\ndtype\n"
        + text("f4")
        + b"\x85R\x89C\x04\0\0\0\0tb"
    ),
    "the same megabyte a thousand times": program(
        text("x" * (1 << 20))
        + b"q\x000]("
        + (b"c_codecs\nencode\n(h\x00" + text("latin1") + b"tR") * 1000
        + b"e"
    ),
    "a zip bomb": torch_zip(b"N.", {"archive/data/0": b"\0" * (1 << 26)}, zipfile.ZIP_DEFLATED),
    "a key of nested tuples": program(b"}" + b")" + b"\x85" * 20_000 + b"Ns"),
    "a set of nested tuples": program(b"\x8f(" + b")" + b"\x85" * 20_000 + b"\x90"),
}


@pytest.mark.parametrize("name", LARGE)
def test_large_demands_are_refused_in_little_memory(name: str) -> None:
    data = LARGE[name]
    tracemalloc.start()
    try:
        with audited() as events, pytest.raises(BadModelFile):
            unpickled(data, "hostile.pt")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert not events
    assert peak < 4 * len(data) + (96 << 20)


@pytest.mark.parametrize(
    "body",
    [_deep(100_000), _deep(100_000, b"}N", b"s"), program(b")" + b"\x85" * 100_000)],
    ids=["[", "{", "("],
)
def test_deep_nesting_neither_crashes_nor_passes_for_a_checkpoint(body: bytes, tmp_path: Path) -> None:
    path = tmp_path / "deep.pkl"
    path.write_bytes(body)
    with audited() as events:
        assert read_checkpoint(path).kind is None
    assert all(event == "open" for event, _ in events)


def test_networks_inside_networks_without_end_are_refused(tmp_path: Path) -> None:
    """Each holds the next one twice: 2^40 modules from a kilobyte."""
    module = _network({}, b"N")
    for _ in range(40):
        module = _twice(module)
    path = tmp_path / "laughs.pkl"
    path.write_bytes(b"\x80\x02" + b"}" + text("G_ema") + module + b"s.")
    with pytest.raises(BadModelFile, match="modules"):
        read_checkpoint(path)


def _network(tables: dict[str, bytes], modules: bytes) -> bytes:
    state = text("_parameters") + b"}" + text("_buffers") + b"}" + text("_modules") + modules
    return (
        PERSISTENT + b"}(" + text("class_name") + text("Module") + text("state") + b"}(" + state + b"uu\x85R"
    )


def _twice(module: bytes) -> bytes:
    return _network({}, b"}(" + text("a") + module + b"q\x01" + text("b") + b"h\x01u")


ZIPS: dict[str, Callable[[], bytes]] = {
    "a zip in a zip": lambda: torch_zip(torch_zip(b"N.")),
    "a zip without a pickle": lambda: _zip({"archive/data/0": b"1"}),
    "two pickles": lambda: _zip({"a/data.pkl": b"N.", "b/data.pkl": b"N."}),
    "an entry that is not there": lambda: torch_zip(program(storage())),
    "an entry outside": lambda: torch_zip(program(storage()), {"archive/data/../../0": b"\0" * 16}),
    "an entry of another size": lambda: torch_zip(program(storage()), {"archive/data/0": b"\0" * 12}),
    "a compressed entry": lambda: torch_zip(
        program(storage()), {"archive/data/0": b"\0" * 16}, zipfile.ZIP_DEFLATED
    ),
    "a cut zip": lambda: torch_zip(program(storage()), {"archive/data/0": b"\0" * 16})[:-30],
    "an entry twice": lambda: _twice_in_a_zip(),
    "a storage that is no class": lambda: torch_zip(
        program(b"(" + text("storage") + text("x") + text("0") + text("cpu") + b"K\x04tQ")
    ),
    "a storage of objects": lambda: torch_zip(program(storage(kind="QInt8Storage"))),
    "a module with its source": lambda: torch_zip(
        program(b"(" + text("module") + text("x") + text("y") + text("z") + text("w") + b"tQ")
    ),
}


def _zip(entries: dict[str, bytes]) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return made.getvalue()


@pytest.mark.filterwarnings("ignore:Duplicate name")
def _twice_in_a_zip() -> bytes:
    return torch_zip(program(storage()), {"archive/data/1": b"\0"}).replace(
        b"archive/data/1", b"archive/data.pkl"[:14]
    )


@pytest.mark.parametrize("name", ZIPS)
def test_zips_that_torch_does_not_write_are_refused(name: str) -> None:
    data = ZIPS[name]()
    with audited() as events, pytest.raises(BadModelFile):
        unpickled(data, "hostile.pt")
    assert not events


def test_a_damaged_storage_is_noticed_when_it_is_used() -> None:
    data = bytearray(
        torch_zip(tensor(b"K\x04\x85", b"K\x01\x85"), {"archive/data/0": b"\x11\x22\x33\x44" * 4})
    )
    data[data.index(b"\x11\x22\x33\x44")] ^= 1
    damaged = unpickled(bytes(data), "damaged.pt").value
    with pytest.raises(BadModelFile, match="damaged"):
        damaged.numpy()


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    empty = tmp_path / "empty.pt"
    empty.touch()
    for path, why in (
        (tmp_path / "none.pt", "no such file"),
        (tmp_path, "not a regular file"),
        (Path("/dev/zero"), "not a regular file"),
        (empty, "empty"),
    ):
        with pytest.raises(BadModelFile, match=why):
            read_pickled(path)
    text_file = tmp_path / "readme.pt"
    text_file.write_text("<html>Not found</html>")
    with pytest.raises(BadModelFile, match="neither"):
        read_pickled(text_file)


GOOD = {"a": [1, 2.5, None, True, b"x"], "b": {"c": (1, 2), "d": {"e", "f"}}, "n": 1 << 40}


@pytest.mark.parametrize("protocol", range(2, 6))
def test_plain_data_comes_through(protocol: int) -> None:
    assert unpickled(pickle.dumps(GOOD, protocol=protocol), "good.pkl").value == GOOD


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200))
def test_noise_is_refused_or_harmless(noise: bytes) -> None:
    with audited() as events, suppress(BadModelFile):
        unpickled(b"\x80\x02" + noise, "noise.pkl")
    assert not events


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_damage_is_refused_or_harmless(data: st.DataObject) -> None:
    whole = data.draw(
        st.sampled_from(
            [
                pickle.dumps(GOOD, protocol=4),
                torch_zip(tensor(b"K\x04\x85", b"K\x01\x85"), {"archive/data/0": b"\0" * 16}),
                old_torch(tensor(b"K\x04\x85", b"K\x01\x85"), ["0"], struct.pack("<q", 4) + b"\0" * 16),
            ]
        )
    )
    damaged = bytearray(whole[: data.draw(st.integers(1, len(whole)))])
    for _ in range(data.draw(st.integers(0, 3))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    with audited() as events, suppress(BadModelFile):
        value = unpickled(bytes(damaged), "damaged.pt").value
        if hasattr(value, "numpy"):
            value.numpy()
    assert not events
