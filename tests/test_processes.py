from __future__ import annotations

import os
import time
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import pytest

from fastface import processes
from fastface.processes import Work, in_processes


def start(greeting: str, stop: Any) -> None:
    start.greeting = greeting  # type: ignore[attr-defined]


def answer(task: str) -> str:
    if task == "deadly":
        os._exit(1)
    return f"{start.greeting} {task}"  # type: ignore[attr-defined]


def died() -> str:
    return "died"


WORK = Work(answer, start, ("hello",), died)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_process_that_dies_costs_its_task_alone(workers: int) -> None:
    tasks = ["a", "deadly", "b", "c", "deadly", "d"]
    wanted = [(task, "died" if task == "deadly" else f"hello {task}") for task in tasks]
    assert list(in_processes(WORK, iter(tasks), workers)) == wanted


def test_a_process_may_die_between_two_results(monkeypatch: pytest.MonkeyPatch) -> None:
    pools: list[ProcessPoolExecutor] = []

    class Seen(ProcessPoolExecutor):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            pools.append(self)

    monkeypatch.setattr(processes, "ProcessPoolExecutor", Seen)
    tasks = ["a", "deadly", *"bcdef"]  # more than are under way at once
    results = in_processes(WORK, iter(tasks), 1)
    assert next(results) == ("a", "hello a")
    while not pools[0]._broken:  # type: ignore[attr-defined]
        time.sleep(0.01)
    assert list(results) == [("deadly", "died"), *((task, f"hello {task}") for task in "bcdef")]
