"""Many tasks over many processes: results in the order of the tasks, a bounded number under way, a process
that dies costs one task, and nothing outlives the run."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Any, Final, Generic, TypeVar

Task = TypeVar("Task")
Outcome = TypeVar("Outcome")

#: Tasks under way for each process: enough that none waits, few enough that memory stays flat.
_WINDOW: Final = 4


@dataclass(frozen=True)
class Work(Generic[Task, Outcome]):
    """``do`` is called with each task in a process where ``start`` was called with ``arguments`` and an event
    that is set when the run is to stop; ``died`` is the outcome of a task that its process died of. Functions
    are of a module, so that other processes find them."""

    do: Callable[[Task], Outcome]
    start: Callable[..., None]
    arguments: tuple[Any, ...]
    died: Callable[[], Outcome]


def in_processes(
    work: Work[Task, Outcome], tasks: Iterator[Task], workers: int
) -> Iterator[tuple[Task, Outcome]]:
    """Each task and what became of it, in the order of the tasks."""
    pool = _Pool(work, workers)
    under_way: deque[tuple[Task, Future[Outcome]]] = deque()
    try:
        more = True
        while more or under_way:
            while more and len(under_way) < _WINDOW * workers:
                task = next(tasks, None)
                if task is None:
                    more = False
                else:
                    under_way.append((task, pool.submit(task)))
            if not under_way:
                break
            task, future = under_way.popleft()
            try:
                yield task, future.result()
            except BrokenProcessPool:
                pool.close()
                suspects = [task, *(waiting for waiting, _ in under_way)]
                under_way.clear()
                for suspect in suspects:
                    yield suspect, _alone(work, suspect)
                pool = _Pool(work, workers)
    finally:
        pool.close()


def _alone(work: Work[Task, Outcome], task: Task) -> Outcome:
    """A task that was under way when a process died, in a process of its own: does it kill that one too?"""
    pool = _Pool(work, 1)
    try:
        return pool.submit(task).result()
    except BrokenProcessPool:
        return work.died()
    finally:
        pool.close()


class _Pool(Generic[Task, Outcome]):
    """Processes that know the work. Ctrl-C is held back from them: they stop when told."""

    def __init__(self, work: Work[Task, Outcome], workers: int) -> None:
        context = get_context("spawn")
        self._work = work
        self._stop = context.Event()
        arguments = (work.start, work.arguments, self._stop, os.getpid())
        self._pool = ProcessPoolExecutor(workers, context, _start, arguments)

    def submit(self, task: Task) -> Future[Outcome]:
        # Processes start inside submit and inherit the mask; a Ctrl-C meanwhile waits for the unblocking.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            return self._pool.submit(self._work.do, task)
        except BrokenProcessPool as error:  # one died since the last result: told in this task's turn
            future: Future[Outcome] = Future()
            future.set_exception(error)
            return future
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def close(self) -> None:
        self._stop.set()
        self._pool.shutdown(wait=True, cancel_futures=True)


def _start(start: Callable[..., None], arguments: tuple[Any, ...], stop: Any, parent: int) -> None:
    _die_with_parent(parent)
    try:
        import cv2

        cv2.setNumThreads(1)  # a process is one core's
        warnings.simplefilter("ignore")
        start(*arguments, stop)
    except Exception as error:
        # It could be had a moment ago, so it is memory or the like; the pool sees a dead process and acts on
        # it.
        print(f"fastface: a process could not start ({' '.join(str(error).split())})", file=sys.stderr)
        os._exit(1)


def _die_with_parent(parent: int) -> None:
    """A killed run must not leave its processes behind: Linux tells them (prctl 1 is PR_SET_PDEATHSIG)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)
    if os.getppid() != parent:  # it died before we asked
        os._exit(1)
