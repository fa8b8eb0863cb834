"""Options that take several numbers after one name: ``--yaw -30 0 30``, or ``--yaw -30,0,30``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from typer.core import TyperCommand

#: Repeatable options of numbers, of all commands that are made with ``Numbers``.
SEVERAL: Final = ("--yaw", "--intensity", "-i", "--age", "--age-score", "--domain")


class Numbers(TyperCommand):
    """A command whose repeatable options of numbers need their name only once."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """``--yaw -30 0`` becomes ``--yaw -30 --yaw 0``; all else, and what follows ``--``, stays."""
        end = args.index("--") if "--" in args else len(args)
        written: list[str] = []
        option, waiting = "", False  # whose numbers come; none has come yet
        for word in _apart(args[:end]):
            numbers = _numbers(word) if option else []
            if not numbers:
                if waiting:
                    written.append(option)  # and what is no number, for the parser to refuse
                option = word if word in SEVERAL else ""
                written += [] if option else [word]
            else:
                written += [part for number in numbers for part in (option, number)]
            waiting = bool(option and not numbers)
        try:
            return super().parse_args(ctx, [*written, *([option] if waiting else []), *args[end:]])
        except Exception as error:
            # What the parser says of a word that is no number names neither what was wanted nor how many.
            said, param = getattr(error, "message", None), getattr(error, "param", None)
            if isinstance(said, str) and "number" in said and getattr(param, "metavar", None):
                error.message = f"{said} (wanted {param.metavar})"  # type: ignore[attr-defined, union-attr]
            raise


def _apart(words: list[str]) -> Iterator[str]:
    """``--yaw=-30`` as two words."""
    for word in words:
        name, given, value = word.partition("=")
        yield from (name, value) if given and name in SEVERAL else (word,)


def _numbers(word: str) -> list[str]:
    """ "-30,0" → ["-30", "0"]; nothing where it is something else."""
    parts = word.split(",")
    try:
        for part in parts:
            float(part)
    except ValueError:
        return []
    return parts
