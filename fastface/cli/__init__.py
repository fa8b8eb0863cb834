"""The command line. Nothing heavy is imported before a command needs it."""

from __future__ import annotations

import os
import sys

#: One thread of linear algebra, read when numpy is loaded: its matrices here are too small for more, and the
#: sum of a split product, so a fit's last digits, would depend on how many there are.
_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def main() -> None:
    """The ``fastface`` command."""
    for name in _ONE_THREAD:
        os.environ.setdefault(name, "1")
    try:
        from fastface.cli.app import app

        app(prog_name="fastface")
    except KeyboardInterrupt:
        # Between two commands' own handling: while importing, or while leaving.
        print("fastface: interrupted", file=sys.stderr)
        sys.exit(130)
