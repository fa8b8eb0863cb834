"""Options that take several numbers after one name: ``--yaw -30 0 30``."""

from __future__ import annotations

from typing import Any, Final

from typer.core import TyperCommand

#: Repeatable options of numbers, of all commands that are made with ``Numbers``.
SEVERAL: Final = ("--yaw", "--intensity", "-i", "--age", "--age-score", "--domain")


class Numbers(TyperCommand):
    """A command whose repeatable options of numbers need their name only once."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """``--yaw -30 0`` becomes ``--yaw -30 --yaw 0``; all else, and what follows ``--``, stays."""
        written: list[str] = []
        waiting = going_on = ""  # the option whose first number comes next; whose further ones may
        for index, word in enumerate(args):
            if word == "--":
                return super().parse_args(ctx, written + args[index:])
            if waiting:
                waiting, going_on = "", waiting
            elif going_on and _is_number(word):
                written.append(going_on)
            else:
                waiting, going_on = word if word in SEVERAL else "", ""
            written.append(word)
        return super().parse_args(ctx, written)


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True
