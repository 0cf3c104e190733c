"""Tasks done in order by as many processes as there are cores; small work stays in this one.

The processes are started anew, not forked: threads of a tokenizer or of Ray do not survive a fork.
"""

from __future__ import annotations

import multiprocessing
import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import chain, islice

from pharos.data.parts import Kitchen, Part, Task, make_part
from pharos.errors import PharosError

TASKS_IN_PROCESS = 8
"""So few chunks, some ten thousand short rows, are done before other processes would have started."""
TASKS_AHEAD = 2
"""Of each process: it never waits for the next one, and no more than these are in memory."""

_kitchen: list[Kitchen] = []  # of a worker process, set once when it starts


def make_parts(tasks: Iterable[Task], kitchen: Kitchen, *, num_processes: int | None = None) -> Iterator[Part]:
    """The part of each task, in order. num_processes: none takes the cores that this process may use."""
    num_processes = num_processes or usable_cores()
    iterator = iter(tasks)
    first = list(islice(iterator, TASKS_IN_PROCESS + 1))
    if len(first) <= TASKS_IN_PROCESS or num_processes == 1:
        for task in chain(first, iterator):
            yield make_part(task, kitchen)
        return
    executor = ProcessPoolExecutor(
        num_processes, mp_context=multiprocessing.get_context("spawn"), initializer=_start, initargs=(kitchen,)
    )
    try:
        running: deque[Future[Part]] = deque()
        for task in chain(first, iterator):
            running.append(executor.submit(_make_part, task))
            if len(running) >= num_processes * TASKS_AHEAD:
                yield running.popleft().result()
        while running:
            yield running.popleft().result()
    except BrokenProcessPool as error:
        raise PharosError(
            "a process that prepares the data was ended from outside, most likely for want of memory. "
            "Free some, or prepare the data on a larger machine."
        ) from error
    finally:
        executor.shutdown(cancel_futures=True)


def usable_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _start(kitchen: Kitchen) -> None:
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # every core has a process of its own already
    _kitchen.append(kitchen)


def _make_part(task: Task) -> Part:
    return make_part(task, _kitchen[0])
