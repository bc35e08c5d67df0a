"""The local runner: this machine's processors or GPUs."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import Timeout

from erasebench.engine.cells import Cell
from erasebench.engine.runner import (
    Corrupt,
    Event,
    Failed,
    Finished,
    Found,
    Outcome,
    Progressed,
    Skipped,
    Started,
    Subscriber,
    Waiting,
)
from erasebench.engine.store import Store
from erasebench.engine.work import Failure, Task, Workshop
from erasebench.engine.workers import Processes, Report, ThisProcess, Workers
from erasebench.errors import EraseBenchError
from erasebench.files import disk_full, remove

POLL = 0.1
"""Seconds after which a cell that another run is at is looked at again."""


@dataclass(frozen=True)
class LocalRunner:
    """Computes cells in worker processes, independent ones at once.

    Attributes:
        workshop: how cells are computed.
        workers: so many processes at most; a single one is this process, and takes the cells in their order.
    """

    workshop: Workshop
    workers: int = 1

    def run(self, cells: Sequence[Cell], store: Store, subscribers: Sequence[Subscriber]) -> Outcome:
        """Compute what is missing; see :class:`~erasebench.engine.runner.Runner`."""
        return _Run(self.workshop, self.workers, cells, store, subscribers).run()


class _Abandoned(Exception):
    """Leaves a cell's block without committing it."""


@dataclass
class _Job:
    """A cell that is being computed.

    Attributes:
        cell: which; its lock is held, and its temporary folder kept, until ``stack`` is closed, which commits it.
        cost: what is committed with it.
        tasks: those that nobody began; ``running`` how many were begun and did not end.
        parts: the folders of its parts, in their order; none if it is one piece.
        done: how much of each task is done.
        failure: of the first task that failed.
    """

    cell: Cell
    stack: ExitStack
    folder: Path
    cost: dict[str, Any]
    tasks: list[Task] = field(default_factory=list)
    parts: list[Path] = field(default_factory=list)
    running: int = 0
    done: dict[Path, int] = field(default_factory=dict)
    failure: Failure | None = None

    def abandon(self) -> None:
        """Remove what was written, and let go of the lock."""
        with suppress(_Abandoned), self.stack:
            raise _Abandoned


class _Run:
    def __init__(
        self,
        workshop: Workshop,
        workers: int,
        cells: Sequence[Cell],
        store: Store,
        subscribers: Sequence[Subscriber],
    ) -> None:
        self.workshop, self.count, self.store, self.subscribers = workshop, workers, store, subscribers
        self.cells = cells if workers == 1 else _longest_way_first(cells)
        self.left: dict[str, Cell] = {}
        self.jobs: dict[str, _Job] = {}
        self.waiting: set[str] = set()
        self.outcome = Outcome()

    def run(self) -> Outcome:
        """Look at every cell, and compute those that are missing."""
        for cell in self.cells:
            problem = self.store.check(cell.key)
            if problem is None:
                self._note_cost(cell)
                continue
            self.left[cell.key] = cell
            if "corrupt" in problem:
                self._tell(Corrupt(cell, problem))
        if not self.left:
            return self.outcome
        workers: Workers
        if self.count == 1:
            workers = ThisProcess(self.workshop, self._progress)
        else:
            workers = Processes(self.workshop, self.count, self._progress)
        try:
            while self.left:
                self._step(workers)
        finally:
            # First those who write, then what they wrote.
            workers.close()
            for job in self.jobs.values():
                job.abandon()
        return self.outcome

    def _step(self, workers: Workers) -> None:
        """Give every free worker something to do, and take what is done."""
        while workers.are_free() and (task := self._next_task()):
            workers.start(task)
        if not self.jobs:
            # Nobody has anything to do: all that could be computed now is at another run, if there is anything left.
            if self.left:
                time.sleep(POLL)
            return
        for task, report in workers.wait(POLL if self.waiting else None):
            self._take(self.jobs[task.cell.key], report)

    def _next_task(self) -> Task | None:
        """A task that can be done now, of the first cell that has one."""
        for cell in list(self.left.values()):
            job = self.jobs.get(cell.key) or self._begin(cell)
            if job and job.tasks:
                job.running += 1
                return job.tasks.pop(0)
        return None

    def _begin(self, cell: Cell) -> _Job | None:
        """Begin a cell, unless it waits for others, cannot be computed, or another run is at it or did it."""
        failed = next((read for read in cell.reads.values() if read.key in self.outcome.failed), None)
        if failed:
            del self.left[cell.key]
            self.outcome.failed[cell.key] = self.outcome.failed[failed.key]
            self._tell(Skipped(cell, f"needs {failed.stage} {failed.title}, which failed"))
            return None
        if any(read.key in self.left for read in cell.reads.values()):
            return None
        lock = self.store.lock(cell.key)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            if cell.key not in self.waiting:
                self.waiting.add(cell.key)
                self._tell(Waiting(cell))
            return None
        self.waiting.discard(cell.key)
        stack = ExitStack()
        stack.callback(lock.release)
        if self.store.check(cell.key) is None:
            stack.close()
            del self.left[cell.key]
            self._note_cost(cell)
            self._tell(Found(cell))
            return None
        self._tell(Started(cell))
        cost: dict[str, Any] = {}
        try:
            folder = stack.enter_context(self.store.writing(cell, cost))
        except EraseBenchError as error:
            stack.close()
            self._fail(cell, Failure.of(error))
            return None
        job = _Job(cell, stack, folder, cost)
        parts = self.workshop.divide(cell, self.count)
        if len(parts) > 1:
            job.parts = [folder / f"part-{k}" for k in range(len(parts))]
        job.tasks = [Task(cell, part, place) for part, place in zip(parts, job.parts or [folder], strict=True)]
        self.jobs[cell.key] = job
        return job

    def _take(self, job: _Job, report: Report) -> None:
        """Note what came of a task, and end its cell if it was the last."""
        job.running -= 1
        if isinstance(report, Failure):
            if report.disk_full:
                raise disk_full(f"the store {self.store.root}")
            if report.fatal:
                raise EraseBenchError(report.reason)
            job.failure, job.tasks = job.failure or report, []
        else:
            _add_cost(job.cost, report)
        if job.running or job.tasks:
            return
        del self.jobs[job.cell.key]
        if job.failure:
            job.abandon()
            self._fail(job.cell, job.failure)
        else:
            self._commit(job)

    def _commit(self, job: _Job) -> None:
        cell = job.cell
        try:
            if job.parts:
                self.workshop.join(cell, job.parts, job.folder)
                for part in job.parts:
                    remove(part)
            job.stack.close()
            self.store.clear_work(cell.key)
        except Exception as error:
            job.abandon()
            failure = Failure.of(error, job.cost["seconds"])
            if failure.disk_full:
                raise disk_full(f"the store {self.store.root}") from error
            self._fail(cell, failure)
            return
        del self.left[cell.key]
        self.outcome.computed.add(cell.key)
        self._note_cost(cell)
        self._tell(Finished(cell, job.cost))

    def _fail(self, cell: Cell, failure: Failure) -> None:
        del self.left[cell.key]
        self.outcome.failed[cell.key] = failure.reason
        self._tell(Failed(cell, failure))

    def _note_cost(self, cell: Cell) -> None:
        marker = self.store.marker(cell.key)
        if marker:
            self.outcome.costs[cell.key] = marker.cost

    def _progress(self, task: Task, done: int, of: int, note: str) -> None:
        job = self.jobs[task.cell.key]
        job.done[task.folder] = done
        self._tell(Progressed(task.cell, sum(job.done.values()), task.cell.units if job.parts else of, note))

    def _tell(self, event: Event) -> None:
        for subscriber in self.subscribers:
            subscriber(event)


def _longest_way_first(cells: Sequence[Cell]) -> list[Cell]:
    """Cells on which the most stages wait, first: what trains for minutes must not be left for the end."""
    ways = {cell.key: 0 for cell in cells}
    for cell in reversed(cells):  # those that read a cell come after it
        for read in cell.reads.values():
            ways[read.key] = max(ways[read.key], ways[cell.key] + 1)
    return sorted(cells, key=lambda cell: -ways[cell.key])


def _add_cost(cost: dict[str, Any], more: Mapping[str, Any]) -> None:
    """Add what a task cost: seconds of all workers, counts, and the most memory that one of them had."""
    for name, value in more.items():
        known = cost.get(name)
        if known is None or value is None:
            cost[name] = value if known is None else known
        else:
            cost[name] = max(known, value) if name == "peak_memory_mb" else round(known + value, 3)
