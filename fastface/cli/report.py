"""How a command speaks and how it ends: one line per error, JSON for machines, an exit code.

0: done. 1: an error, or at least one photo of a folder failed. 2: a command line that makes no sense. 70: a
fault of this program. 130: interrupted.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NoReturn

import typer

if TYPE_CHECKING:
    from rich.progress import Progress

FAULT = 70
INTERRUPTED = 130


class Report:
    """What a command says: text for people or one JSON object for machines on stdout, the rest on stderr."""

    def __init__(self, *, as_json: bool, debug: bool) -> None:
        self.as_json = as_json
        self.debug = debug

    def say(self, text: str) -> None:
        """A line of the result; silent with --json."""
        if not self.as_json:
            print(text)

    def result(self, record: dict[str, Any]) -> None:
        """The result for machines; silent without --json."""
        if self.as_json:
            print(json.dumps(record, ensure_ascii=False))

    def warn(self, text: str) -> None:
        """A line on stderr, always."""
        print(f"fastface: {one_line(text)}", file=sys.stderr)

    def fail(self, message: str, kind: str, code: int = 1) -> NoReturn:
        """End the command with one line on stderr and, with --json, the same as an object on stdout."""
        self.warn(f"error: {message}")
        self.result({"error": {"type": kind, "message": one_line(message)}})
        raise typer.Exit(code)

    @contextmanager
    def progress(self, unit: str) -> Iterator[Progress]:
        """A progress bar on stderr; nothing is drawn when stderr is no terminal."""
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        console = Console(stderr=True)
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn(unit),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress:
            yield progress


def one_line(text: object) -> str:
    """Whatever an error says, on one line that a terminal can show."""
    joined = " ".join(str(text).split())
    return "".join(c if c.isprintable() else "?" for c in joined)


@contextmanager
def running(*, as_json: bool, debug: bool) -> Iterator[Report]:
    """The frame of every command: errors become one line and an exit code, SIGTERM is as gentle as Ctrl-C."""
    from fastface.errors import FastfaceError

    report = Report(as_json=as_json, debug=debug)
    previous = _gentle_sigterm()
    if not debug:
        warnings.simplefilter(
            "ignore"
        )  # what libraries mumble about damaged files is told better by the error
    try:
        yield report
        sys.stdout.flush()
    except (typer.Exit, typer.BadParameter):
        raise
    except KeyboardInterrupt:
        if debug:
            raise
        report.warn("interrupted; what was finished is kept, nothing half-written is left")
        report.result({"error": {"type": "Interrupted", "message": "interrupted"}})
        raise typer.Exit(INTERRUPTED) from None
    except FastfaceError as error:
        if debug:
            raise
        report.fail(str(error), type(error).__name__)
    except BrokenPipeError:
        # The reader went away (``fastface … | head``). Python would complain again when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(1) from None
    except MemoryError:
        if debug:
            raise
        report.fail("out of memory", "MemoryError")
    except Exception as error:
        if debug:
            raise
        text = f"internal fault ({type(error).__name__}: {error}); --debug shows where"
        report.fail(text, type(error).__name__, FAULT)
    finally:
        if previous is not None:
            signal.signal(signal.SIGTERM, previous)


def _gentle_sigterm() -> Any:
    if threading.current_thread() is not threading.main_thread():
        return None

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    return signal.signal(signal.SIGTERM, interrupt)
