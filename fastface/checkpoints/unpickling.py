"""A pickle machine that builds data and nothing else.

Checkpoints are pickles, and a pickle is a program: the standard machine imports what it names and calls what
it imported. This one never imports. A global name is looked up in a table (``fastface.checkpoints.allowed``)
whose entries are functions of this package that return inert values; a name that is not in it ends the
reading with ``BadModelFile`` and the name. Opcodes that no checkpoint needs are refused as well, and what is
built is bounded by the size of the file.

Opcodes: Python's ``pickletools`` and PEP 307, 3154.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NoReturn

from fastface.errors import BadModelFile

#: No checkpoint in the wild comes near: a training snapshot with optimiser states has some 10^5 opcodes.
MAX_OPCODES: Final = 20_000_000
#: Integers are sizes, offsets and hashes; torch's magic number has 10 bytes.
MAX_INTEGER_BYTES: Final = 64
MAX_NAME: Final = 1000

_SCALARS = (str, bytes, int, float, bool, type(None))


@dataclass(slots=True)
class Budget:
    """How many bytes may still be built.

    References cost nothing in a pickle, so that a small file may ask for the same megabytes again and again;
    what is built from them is counted here.
    """

    left: int
    source: str

    @classmethod
    def of_file(cls, size: int, source: str) -> Budget:
        """Room for every byte of a file of ``size`` bytes to be used four times."""
        return cls(4 * size + (1 << 26), source)

    def spend(self, size: int) -> None:
        """Raises ``BadModelFile`` when the file asks for more than it can hold."""
        self.left -= size
        if self.left < 0:
            raise BadModelFile(f"{self.source}: asks for far more memory than the file has bytes; refused")


@dataclass(frozen=True, slots=True)
class Global:
    """What a name in a pickle stands for. ``build`` makes the value of a call; ``None``: it is not called."""

    name: str
    build: Callable[[tuple[Any, ...], Budget], Any] | None = None


@dataclass(slots=True)
class Record:
    """An object of a class: its attributes and no behaviour. ``kind`` is the name in the table."""

    kind: str
    # Not shown: shared again and again, a kilobyte's worth of records is endless when written out.
    state: dict[str, Any] = field(default_factory=dict, repr=False)

    def set_state(self, state: object, budget: Budget) -> None:
        """Attributes as the BUILD opcode gives them."""
        if isinstance(state, tuple) and len(state) == 2 and state[0] is None:
            state = state[1]  # (no dictionary, slots)
        if not isinstance(state, dict) or not all(isinstance(key, str) for key in state):
            raise BadModelFile(f"{budget.source}: {self.kind} has a state that is no set of attributes")
        self.state.update(state)


class Names(dict[Any, Any]):
    """A dictionary that may be given attributes: torch's ``state_dict`` carries ``_metadata``. They are
    dropped."""

    def set_state(self, state: object, budget: Budget) -> None:
        """The BUILD opcode."""
        if not isinstance(state, dict):
            raise BadModelFile(f"{budget.source}: a dictionary has a state that is no set of attributes")


def shown(name: object) -> str:
    """A name from a hostile file, fit for a message."""
    text = str(name) if isinstance(name, (str, bytes, int, Exception)) else type(name).__name__
    text = text if len(text) <= 100 else text[:97] + "…"
    return "".join(character if character.isprintable() else "?" for character in text)


class Machine:
    """Runs one pickle in ``data`` from ``position`` on; ``position`` then stands behind its STOP."""

    def __init__(
        self,
        data: memoryview,
        *,
        allowed: Mapping[str, Global],
        budget: Budget,
        position: int = 0,
        persistent: Callable[[Any], Any] | None = None,
    ) -> None:
        self.data = data
        self.position = position
        self._allowed = allowed
        self._budget = budget
        self._persistent = persistent
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}

    def load(self) -> Any:
        """The value of the pickle. Raises ``BadModelFile``."""
        try:
            return self._run()
        except (IndexError, KeyError, ValueError, TypeError, OverflowError, struct.error) as error:
            self._fail(f"damaged at byte {self.position} ({type(error).__name__}: {shown(error)})")
        except (RecursionError, MemoryError):
            self._fail("nested too deeply or too large; refused")

    def _run(self) -> Any:
        steps = 0
        while (opcode := self._byte()) != _STOP:
            operation = _OPERATIONS.get(opcode)
            if operation is None:
                self._refuse_opcode(opcode)
            operation(self)
            steps += 1
            if steps > MAX_OPCODES:
                self._fail(f"more than {MAX_OPCODES} steps; refused")
        value = self._stack.pop()
        if self._stack or self._marks:
            self._fail(f"damaged at byte {self.position}: values are left over")
        return value

    # -- reading ---------------------------------------------------------------------------------------------

    def _fail(self, text: str) -> NoReturn:
        raise BadModelFile(f"{self._budget.source}: {text}")

    def _byte(self) -> int:
        if self.position >= len(self.data):
            self._fail("truncated: the pickle ends in the middle")
        value = self.data[self.position]
        self.position += 1
        return value

    def _take(self, size: int) -> bytes:
        if not 0 <= size <= len(self.data) - self.position:
            self._fail(f"truncated: {size} bytes wanted, {len(self.data) - self.position} are left")
        start = self.position
        self.position += size
        return bytes(self.data[start : self.position])

    def _number(self, code: str) -> int:
        value: int = struct.unpack(code, self._take(struct.calcsize(code)))[0]
        return value

    def _line(self) -> str:
        window = bytes(self.data[self.position : self.position + MAX_NAME])
        end = window.find(b"\n")
        if end < 0:
            self._fail("a line without an end")
        self.position += end + 1
        return window[:end].decode("utf-8")

    def _refuse_opcode(self, opcode: int) -> NoReturn:
        name = _REFUSED.get(opcode)
        if name is None:
            self._fail(f"not a pickle: unknown opcode {opcode:#04x} at byte {self.position - 1}")
        wanted = ""
        if name == "INST":
            wanted = f" of {shown(f'{self._line()}.{self._line()}')}"
        elif name.startswith("EXT"):
            wanted = f" of extension {self._number({'EXT1': '<B', 'EXT2': '<H', 'EXT4': '<i'}[name])}"
        elif name in ("OBJ", "NEWOBJ_EX"):
            named = [value.name for value in self._stack if isinstance(value, Global)]
            wanted = f" of {shown(named[-1])}" if named else ""
        self._fail(f"asks for the opcode {name}{wanted}, which no checkpoint needs; refused")

    # -- the stack -------------------------------------------------------------------------------------------

    def push(self, value: Any) -> None:
        """Put a value on the stack."""
        self._stack.append(value)

    def _pop(self) -> Any:
        if self._marks and len(self._stack) <= self._marks[-1]:
            self._fail(f"damaged at byte {self.position}: reaches below a mark")
        return self._stack.pop()

    def _drop(self) -> None:
        self._pop()

    def _drop_mark(self) -> None:
        self._pop_mark()

    def _pop_mark(self) -> list[Any]:
        start = self._marks.pop()
        values = self._stack[start:]
        del self._stack[start:]
        return values

    def _mark(self) -> None:
        self._marks.append(len(self._stack))

    def _dup(self) -> None:
        self.push(self._stack[-1])

    # -- scalars ---------------------------------------------------------------------------------------------

    def _proto(self) -> None:
        version = self._byte()
        if version > 5:
            self._fail(f"pickle protocol {version}; 5 is the latest known")

    def _frame(self) -> None:
        size = self._number("<Q")
        if size > len(self.data) - self.position:
            self._fail("truncated: a frame is longer than the file")

    def _int_line(self) -> None:
        text = self._line()
        self.push({"00": False, "01": True}[text] if text in ("00", "01") else self._checked_int(text))

    def _checked_int(self, text: str) -> int:
        if len(text) > 2 * MAX_INTEGER_BYTES:
            self._fail("an integer without end")
        return int(text)

    def _long(self, code: str) -> None:
        size = self._number(code)
        if not 0 <= size <= MAX_INTEGER_BYTES:
            self._fail(f"an integer of {size} bytes; refused")
        self.push(int.from_bytes(self._take(size), "little", signed=True))

    def _old_string(self) -> None:
        text = self._line()
        if len(text) < 2 or text[0] not in "'\"" or text[-1] != text[0] or "\\" in text:
            self._fail("a string that is not quoted plainly")
        self.push(text[1:-1])

    def _text(self, code: str, encoding: str = "utf-8") -> None:
        self.push(
            self._take(self._number(code)).decode(
                encoding, "surrogatepass" if encoding == "utf-8" else "strict"
            )
        )

    def _bytes(self, code: str) -> None:
        self.push(self._take(self._number(code)))

    # -- containers ------------------------------------------------------------------------------------------

    def _tuple(self, size: int) -> None:
        values = [self._pop() for _ in range(size)]
        self.push(tuple(reversed(values)))

    def _append(self) -> None:
        self._extend([self._pop()])

    def _extend(self, values: list[Any]) -> None:
        if type(self._stack[-1]) is not list:
            self._fail(f"appends to a {type(self._stack[-1]).__name__}; refused")
        self._stack[-1].extend(values)

    def _set_item(self) -> None:
        value = self._pop()
        self._set_items([self._pop(), value])

    def _set_items(self, values: list[Any]) -> None:
        target = self._stack[-1]
        if not isinstance(target, dict):
            self._fail(f"sets items of a {type(target).__name__}; refused")
        self._fill(target, values)

    def _fill(self, target: dict[Any, Any], values: list[Any]) -> None:
        if len(values) % 2:
            self._fail("a key without a value")
        for key, value in zip(values[::2], values[1::2], strict=True):
            # Hashing a deeply nested tuple would overflow the interpreter's stack.
            if not isinstance(key, _SCALARS):
                self._fail(f"a dictionary's key is a {type(key).__name__}; refused")
            target[key] = value

    def _dict(self) -> None:
        made: dict[Any, Any] = {}
        self._fill(made, self._pop_mark())
        self.push(made)

    def _add_items(self) -> None:
        values = self._pop_mark()
        if type(self._stack[-1]) is not set:
            self._fail(f"adds items to a {type(self._stack[-1]).__name__}; refused")
        self._stack[-1].update(self._scalars(values))

    def _scalars(self, values: list[Any]) -> list[Any]:
        if not all(isinstance(value, _SCALARS) for value in values):
            self._fail("a set of things that are no names or numbers; refused")
        return values

    # -- memo ------------------------------------------------------------------------------------------------

    def _put(self, index: int) -> None:
        self._memo[index] = self._stack[-1]

    def _get(self, index: int) -> None:
        if index not in self._memo:
            self._fail(f"damaged at byte {self.position}: refers to value {index}, which is not there")
        self.push(self._memo[index])

    # -- names and calls -------------------------------------------------------------------------------------

    def _global(self, module: Any, name: Any) -> None:
        if not isinstance(module, str) or not isinstance(name, str):
            self._fail("asks for a name that is no text; refused")
        full = f"{module}.{name}"
        found = self._allowed.get(full)
        if found is None:
            self._fail(f"asks for {shown(full)}, which no checkpoint needs; refused")
        self.push(found)

    def _stack_global(self) -> None:
        name = self._pop()
        self._global(self._pop(), name)

    def _call(self) -> None:
        arguments = self._pop()
        called = self._pop()
        if not isinstance(called, Global) or called.build is None:
            name = called.name if isinstance(called, Global) else type(called).__name__
            self._fail(f"calls {shown(name)}, which is nothing to call; refused")
        if type(arguments) is not tuple:
            self._fail(f"calls {called.name} with a {type(arguments).__name__} of arguments; refused")
        try:
            self.push(called.build(arguments, self._budget))
        except (TypeError, ValueError, IndexError, KeyError, OverflowError) as error:
            self._fail(f"{called.name} got arguments it does not take ({shown(error)})")

    def _build(self) -> None:
        state = self._pop()
        set_state = getattr(self._stack[-1], "set_state", None)
        if set_state is None:
            self._fail(f"sets the state of a {type(self._stack[-1]).__name__}; refused")
        set_state(state, self._budget)

    def _persistent_id(self, identity: Any) -> None:
        if self._persistent is None:
            self._fail(f"refers to something outside the pickle ({shown(type(identity).__name__)}); refused")
        self.push(self._persistent(identity))


_STOP = ord(".")
Operation = Callable[[Machine], None]
# One line per opcode, in the order of pickletools.
_OPERATIONS: Final[dict[int, Operation]] = {
    ord(code): operation
    for code, operation in {
        "I": Machine._int_line,
        "J": lambda m: m.push(m._number("<i")),
        "K": lambda m: m.push(m._byte()),
        "M": lambda m: m.push(m._number("<H")),
        "L": lambda m: m.push(m._checked_int(m._line().rstrip("L"))),
        "\x8a": lambda m: m._long("<B"),
        "\x8b": lambda m: m._long("<i"),
        "S": Machine._old_string,
        "T": lambda m: m._text("<i", "latin-1"),
        "U": lambda m: m._text("<B", "latin-1"),
        "B": lambda m: m._bytes("<I"),
        "C": lambda m: m._bytes("<B"),
        "\x8e": lambda m: m._bytes("<Q"),
        "N": lambda m: m.push(None),
        "\x88": lambda m: m.push(True),
        "\x89": lambda m: m.push(False),
        "V": lambda m: m.push(m._line()),
        "\x8c": lambda m: m._text("<B"),
        "X": lambda m: m._text("<I"),
        "\x8d": lambda m: m._text("<Q"),
        "F": lambda m: m.push(float(m._line())),
        "G": lambda m: m.push(struct.unpack(">d", m._take(8))[0]),
        "]": lambda m: m.push([]),
        "a": Machine._append,
        "e": lambda m: m._extend(m._pop_mark()),
        "l": lambda m: m.push(m._pop_mark()),
        ")": lambda m: m.push(()),
        "t": lambda m: m.push(tuple(m._pop_mark())),
        "\x85": lambda m: m._tuple(1),
        "\x86": lambda m: m._tuple(2),
        "\x87": lambda m: m._tuple(3),
        "}": lambda m: m.push({}),
        "d": Machine._dict,
        "s": Machine._set_item,
        "u": lambda m: m._set_items(m._pop_mark()),
        "\x8f": lambda m: m.push(set()),
        "\x90": Machine._add_items,
        "\x91": lambda m: m.push(frozenset(m._scalars(m._pop_mark()))),
        "0": Machine._drop,
        "2": Machine._dup,
        "(": Machine._mark,
        "1": Machine._drop_mark,
        "g": lambda m: m._get(m._checked_int(m._line())),
        "h": lambda m: m._get(m._byte()),
        "j": lambda m: m._get(m._number("<I")),
        "p": lambda m: m._put(m._checked_int(m._line())),
        "q": lambda m: m._put(m._byte()),
        "r": lambda m: m._put(m._number("<I")),
        "\x94": lambda m: m._put(len(m._memo)),
        "c": lambda m: m._global(m._line(), m._line()),
        "\x93": Machine._stack_global,
        "R": Machine._call,
        "\x81": Machine._call,
        "b": Machine._build,
        "P": lambda m: m._persistent_id(m._line()),
        "Q": lambda m: m._persistent_id(m._pop()),
        "\x80": Machine._proto,
        "\x95": Machine._frame,
    }.items()
}
#: Known opcodes that nothing here needs.
_REFUSED: Final = {
    ord("i"): "INST",
    ord("o"): "OBJ",
    0x82: "EXT1",
    0x83: "EXT2",
    0x84: "EXT4",
    0x92: "NEWOBJ_EX",
    0x96: "BYTEARRAY8",
    0x97: "NEXT_BUFFER",
    0x98: "READONLY_BUFFER",
}
