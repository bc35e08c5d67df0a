"""How long so many workers take for a plan, on a simulated clock.

Cells are handed out by the run's own queue and schedule (``erasebench.engine.schedule``); only the workers are
simulated: each takes so many seconds for a task, and some are lost in the middle of one, which is then done again.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush

from erasebench.engine.cells import Cell
from erasebench.engine.schedule import Queue, Schedule, longest_way_first
from erasebench.stages.generate import PIECES
from erasebench.stages.session import MAX_DRAWN_AT_ONCE

HOUR = 3600.0
BATCH = MAX_DRAWN_AT_ONCE
"""Images, or cells of a batch, at a time: the default of a run on a GPU."""
RESTART = 120.0
"""Seconds until a lost worker is replaced, with its model loaded."""


@dataclass
class Simulated:
    """What a simulation gives.

    Attributes:
        seconds: until the last cell is finished.
        bound: no schedule is faster: all work divided by all workers, or the longest chain of cells, whichever is more.
        lost: workers that were lost in the middle of a task.
    """

    seconds: float
    bound: float
    lost: int


@dataclass(eq=False)
class _Job:
    tasks: list[float]
    cells: list[Cell]
    running: int = field(default=0)


def simulate(
    cells: Sequence[Cell],
    seconds: Mapping[str, float],
    workers: int,
    losses_per_hour: float = 0.0,
    seed: int = 0,
    loop: float = 0.0,
) -> Simulated:
    """Compute cells by workers that do nothing but let a clock run.

    Args:
        cells: each after those that it reads.
        seconds: what each takes, by key; a cell of several images is divided as a run does.
        workers: how many.
        losses_per_hour: of a worker at work, on average; what it was at is lost.
        seed: of the losses.
        loop: seconds of a loop of Dark Miner, which keeps what it has after each; of all else nothing is kept.
    """
    draw = random.Random(seed)
    queue = Queue(longest_way_first(cells))
    schedule = Schedule(cells, {cell.key for cell in cells}, queue, lambda cell: "", _never, _never)
    again: list[tuple[_Job, float]] = []
    events: list[tuple[float, int, Callable[[], None]]] = []
    clock, free, lost, count = 0.0, workers, 0, 0

    def later(after: float, what: Callable[[], None]) -> None:
        nonlocal count
        count += 1
        heappush(events, (clock + after, count, what))

    def begin(job: _Job, task: float) -> None:
        nonlocal free
        free -= 1
        job.running += 1
        death = draw.expovariate(losses_per_hour / HOUR) if losses_per_hour else float("inf")
        later(min(task, death), lambda: lose(job, task, death) if death < task else end(job))

    def end(job: _Job) -> None:
        nonlocal free
        free += 1
        job.running -= 1
        if not job.running and not job.tasks:
            for cell in job.cells:
                schedule.settle(cell)

    def lose(job: _Job, task: float, after: float) -> None:
        nonlocal lost
        lost += 1
        job.running -= 1
        stride = loop if job.cells[0].stage == "erase" and job.cells[0].title.startswith("dm2 ") else 0
        rest = task - (after // stride * stride if stride else 0)
        job.tasks.append(rest)
        again.append((job, rest))
        later(RESTART, come_back)

    def come_back() -> None:
        nonlocal free
        free += 1

    divided: dict[str, _Job] = {}
    while schedule.remaining_cells:
        while free and (again or queue.first()):
            if again:
                job, task = again.pop(0)
                job.tasks.remove(task)
                begin(job, task)
                continue
            first = queue.first()
            assert first
            taken = queue.take(queue.share(first, BATCH, workers) if first.batch else 1)
            job = divided.get(first.key) or _Job(_tasks(taken, seconds, workers), taken)
            begin(job, job.tasks.pop())
            if job.tasks:
                divided[first.key] = job
                queue.add(first)
        clock, _, what = heappop(events)
        what()
    return Simulated(clock, bound(cells, seconds, workers), lost)


def bound(cells: Sequence[Cell], seconds: Mapping[str, float], workers: int) -> float:
    """Seconds below which no schedule comes: a cell of several images counts by its smallest part in the chain."""
    chain: dict[str, float] = {}
    for cell in cells:
        before = max((chain[read.key] for read in cell.reads.values()), default=0.0)
        chain[cell.key] = before + max(_tasks([cell], seconds, workers))
    return max(sum(seconds[cell.key] for cell in cells) / workers, *chain.values())


def _tasks(cells: Sequence[Cell], seconds: Mapping[str, float], workers: int) -> list[float]:
    """The seconds of what workers do one by one: the parts of a cell of images, or cells of a batch together."""
    whole = sum(seconds[cell.key] for cell in cells)
    if cells[0].stage != "generate":
        return [whole]
    batches = -(-cells[0].units // BATCH)
    parts = -(-batches // -(-batches // min(batches, PIECES * workers)))
    return [whole / parts] * parts


def _never(*_: object) -> None:
    raise AssertionError("no cell is given up")
