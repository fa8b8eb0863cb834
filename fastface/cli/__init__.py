"""The command line. Nothing heavy is imported before a command needs it."""

from __future__ import annotations

import sys


def main() -> None:
    """The ``fastface`` command."""
    try:
        from fastface.cli.app import app

        app(prog_name="fastface")
    except KeyboardInterrupt:
        # Between two commands' own handling: while importing, or while leaving.
        print("fastface: interrupted", file=sys.stderr)
        sys.exit(130)
