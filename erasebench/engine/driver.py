"""The driver: hands out cells to workers, wherever they are, and commits what they wrote."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from functools import partial
from typing import Any

from erasebench.engine.bucket import StoreLostError
from erasebench.engine.cells import Cell
from erasebench.engine.jobs import Begun, Job
from erasebench.engine.markers import Marker
from erasebench.engine.runner import (
    Corrupt,
    Event,
    Failed,
    Finished,
    Found,
    Lost,
    Outcome,
    Progressed,
    Report,
    Retried,
    Skipped,
    Started,
    Subscriber,
    TakenOver,
    TaskProgress,
    Unneeded,
    Waiting,
    Workers,
)
from erasebench.engine.schedule import Queue, Schedule, longest_way_first
from erasebench.engine.store import Store
from erasebench.engine.work import TRIES, Failure, Task, Workshop
from erasebench.errors import EraseBenchError
from erasebench.files import disk_full, remove

Hire = Callable[[TaskProgress, Subscriber], Workers]
"""Makes a run's workers, who are to tell how far tasks are, and what happens to themselves."""


def drive(
    workshop: Workshop, count: int, hire: Hire, cells: Sequence[Cell], store: Store, subscribers: Sequence[Subscriber]
) -> Outcome:
    """Compute what is missing, independent cells at once, those of a batch together.

    Whoever works, each cell is begun, committed and told of here, in this thread: that is what all runners share.

    Args:
        workshop: how cells are computed.
        count: so many workers there are at most; a single one takes the cells in their order.
        hire: called if there is anything to do.
        cells: see :class:`~erasebench.engine.runner.Runner`; so are ``store``, ``subscribers`` and what is raised.
    """
    return _Run(workshop, count, hire, cells, store, subscribers).run()


class _Run:
    def __init__(
        self,
        workshop: Workshop,
        count: int,
        hire: Hire,
        cells: Sequence[Cell],
        store: Store,
        subscribers: Sequence[Subscriber],
    ) -> None:
        self.workshop, self.count, self.hire, self.store, self.subscribers = workshop, count, hire, store, subscribers
        self.cells = cells
        self.queue = Queue(cells if count == 1 else longest_way_first(cells))
        self.jobs: list[Job] = []
        self.divided: dict[str, Job] = {}
        """By the cell's key the jobs of several tasks."""
        self.again: list[Job] = []
        """Those with a task that is to be done again."""
        self.tries: Counter[Task] = Counter()
        self.running: dict[Task, Job] = {}
        self.leased: list[Cell] = []
        """Cells that another run is at, to be looked at again some time after ``looked``."""
        self.looked = 0.0
        self.known_leases: set[str] = set()
        """The keys of the cells of which subscribers know that another run is at them."""
        self.unclear: dict[str, Failure] = {}
        """By a cell's key why it could not be found out whether it is needed."""
        self.corrupt: set[str] = set()
        """The keys of the cells that were found to be damaged."""
        self.outcome = Outcome()

    def run(self) -> Outcome:
        """Look at every cell, and compute those that are missing and needed."""
        missing_keys: set[str] = set()
        for cell in self.cells:
            entry = self.store.find(cell.key)
            if not isinstance(entry, str):
                self.outcome.costs[cell.key] = entry.cost
                continue
            missing_keys.add(cell.key)
            if "corrupt" in entry:
                self.corrupt.add(cell.key)
                self._tell(Corrupt(cell, entry))
        if not missing_keys:
            return self.outcome
        self.there = {cell.key for cell in self.cells} - missing_keys
        self.schedule = Schedule(self.cells, missing_keys, self.queue, self._ask, self._drop, self._skip)
        workers = self.hire(self._progress, self._tell)
        try:
            while self.schedule.remaining_cells:
                self._step(workers)
        finally:
            # First those who write, then what they wrote.
            workers.close()
            for job in self.jobs:
                for begun in job.begun:
                    begun.abandon()
        return self.outcome

    def _step(self, workers: Workers) -> None:
        """Give every free worker something to do, and take what is done."""
        if self.leased and time.monotonic() - self.looked >= self.store.leases.poll:
            self.looked = time.monotonic()
            for cell in self.leased:
                self.queue.add(cell)
            self.leased.clear()
        free = self._start_all(workers)
        if not self.schedule.remaining_cells:
            return
        if free and not self.jobs:
            # Nobody has anything to do: all that could be computed now is at another run.
            assert self.leased, "cells are left that nothing can make ready"
            time.sleep(self.store.leases.poll)
            return
        for task, report in workers.wait(self.store.leases.poll if self.leased else None):
            if self.count > 1:
                self._start_all(workers)  # nobody waits while what is done is committed
            self._take(task, report)

    def _start_all(self, workers: Workers) -> int:
        """Give every free worker something to do, as far as there is; returns how many have nothing."""
        while (free := workers.free()) and (task := self._next_task()):
            workers.start(task)
        return free

    def _next_task(self) -> Task | None:
        """A task that can be done now: one that is to be done again, or of the first cell that has one."""
        while self.again:
            job = self.again.pop(0)
            if job.tasks:
                return self._next_of(job)
        while cell := self.queue.first():
            cells = self.queue.take(self._size(cell))
            if cell.key not in self.schedule.remaining_cells:
                continue  # it failed before all of its parts were begun
            begun = self.divided.get(cell.key) or self._begin(cells)
            if begun and begun.tasks:
                task = self._next_of(begun)
                if begun.tasks:
                    self.queue.add(cell)
                return task
        return None

    def _next_of(self, job: Job) -> Task:
        task = job.tasks.pop(0)
        job.running += 1
        self.running[task] = job
        self.tries[task] += 1
        return task

    def _size(self, cell: Cell) -> int:
        """The number of cells that are computed together with one, itself included."""
        return self.queue.share(cell, max(1, self.workshop.together(cell)), self.count) if cell.batch else 1

    def _begin(self, cells: Sequence[Cell]) -> Job | None:
        """Begin cells of one batch, or a single one, but for those that another run is at or did."""
        job = Job()
        self.jobs.append(job)
        for cell in cells:
            self._begin_cell(cell, job)
        if not job.begun:
            self.jobs.remove(job)
            return None
        first = job.begun[0].cell
        parts = [None] if first.batch else self.workshop.divide(first, self.count)
        cells = tuple(begun.cell for begun in job.begun)
        job.tasks = [Task(cells, part, tuple(begun.new_try() for begun in job.begun)) for part in parts]
        if len(parts) > 1:
            self.divided[first.key] = job
        return job

    def _begin_cell(self, cell: Cell, job: Job) -> None:
        """Add a cell to those of a job, unless another run is at it or did it."""
        if cell.key in self.unclear:
            self._fail(cell, self.unclear[cell.key])
            return
        claim = self.store.leases.claim(cell.key)
        if not claim.held:
            # Who did the cell may be unable to give its lease back.  Damage is not looked at again: that reads it all.
            entry = "" if cell.key in self.corrupt else self.store.find(cell.key, anew=True)
            if not isinstance(entry, str):
                self._note_found(cell, entry)
                return
            self.leased.append(cell)
            if cell.key not in self.known_leases:
                self.known_leases.add(cell.key)
                self._tell(Waiting(cell, claim.other))
            return
        if claim.other:
            self._tell(TakenOver(cell, claim.other))
        release = partial(self.store.leases.release, cell.key)
        entry = self.store.find(cell.key)
        if not isinstance(entry, str):
            release()
            self._note_found(cell, entry)
            return
        self._tell(Started(cell, job.begun[0].cell if job.begun else None))
        stack, cost = ExitStack(), dict[str, Any]()
        try:
            folder = stack.enter_context(self.store.writing(cell, cost))
        except EraseBenchError as error:
            release()
            self._fail(cell, Failure.of(error))
            return
        job.begun.append(Begun(cell, stack, folder, cost, release))

    def _take(self, task: Task, report: Report) -> None:
        """Note what came of a task, and end its cells if it was the last."""
        job = self.running.pop(task)
        job.running -= 1
        if isinstance(report, Failure):
            if report.disk_full:
                raise disk_full(f"the store {self.store.root}")
            if report.fatal:
                raise EraseBenchError(report.reason)
            if (
                not job.failure
                and self.tries[task] < TRIES.get(report.error, 1)
                and not all(self._is_lost(begun.cell) for begun in job.begun)
            ):
                self._do_again(task, job, report)
                return
            if self.tries[task] > 1:
                report = replace(report, reason=f"{report.reason} (at the last of {self.tries[task]} tries)")
            job.failure, job.tasks = job.failure or report, []
        else:
            for begun, cost, folder in zip(job.begun, report, task.folders, strict=True):
                begun.add_cost(cost)
                begun.written[task.part.start if task.part else 0] = folder
        del self.tries[task]
        if job.running or job.tasks:
            return
        failure = job.failure and replace(job.failure, seconds=round(job.failure.seconds / len(job.begun), 3))
        self.divided.pop(job.begun[0].cell.key, None)
        while job.begun:
            begun = job.begun[0]
            if failure:
                self._give_up(begun, failure)
            else:
                self._commit(begun)
            del job.begun[0]
        self.jobs.remove(job)

    def _do_again(self, task: Task, job: Job, failure: Failure) -> None:
        """Have a task done again whose worker was lost, from the beginning or from what its stage kept."""
        for folder in task.folders:
            with suppress(OSError):  # the lost worker may still write there
                remove(folder)
        again = replace(task, folders=tuple(begun.new_try() for begun in job.begun))
        self.tries[again] = self.tries.pop(task)
        job.done.pop(task, None)
        job.tasks.insert(0, again)
        self.again.append(job)
        self._tell(Retried(task.cells[0], failure))

    def _commit(self, begun: Begun) -> None:
        cell = begun.cell
        written = [begun.written[start] for start in sorted(begun.written)]
        try:
            if len(written) > 1:
                self.workshop.join(cell, written, begun.folder)
            else:
                written[0].rename(begun.folder)
            begun.stack.close()
        except StoreLostError:
            begun.abandon()
            raise
        except Exception as error:
            failure = Failure.of(error, begun.cost["seconds"])
            if failure.disk_full:
                begun.abandon()
                raise disk_full(f"the store {self.store.root}") from error
            self._give_up(begun, failure)
            return
        begun.release()
        self.outcome.computed.add(cell.key)
        marker = self.store.marker(cell.key)
        if marker:
            self.outcome.costs[cell.key] = marker.cost
        self._tell(Finished(cell, begun.cost))
        self._settle(cell)

    def _give_up(self, begun: Begun, failure: Failure) -> None:
        """Note that a cell failed; if another run took it over, that may be why, and says nothing of the cell."""
        cell = begun.cell
        lost = self._is_lost(cell)
        begun.abandon()
        if lost:
            self.leased.append(cell)
            self._tell(Lost(cell))
        else:
            self._fail(cell, failure)

    def _is_lost(self, cell: Cell) -> bool:
        """True if another run took over a cell that was begun here."""
        return not self.store.leases.holds(cell.key) or self.store.marker(cell.key) is not None

    def _note_found(self, cell: Cell, marker: Marker) -> None:
        self.outcome.costs[cell.key] = marker.cost
        self._tell(Found(cell))
        self._settle(cell)

    def _settle(self, cell: Cell) -> None:
        self.there.add(cell.key)
        self.schedule.settle(cell)

    def _fail(self, cell: Cell, failure: Failure) -> None:
        self.outcome.failed[cell.key] = failure.reason
        self._tell(Failed(cell, failure))
        self.schedule.settle(cell, failed=True)

    def _ask(self, cell: Cell) -> str:
        """Why a cell is not needed, '' if it is."""
        known = tuple(other for other in cell.unless if other.key in self.there)
        if not known:
            return ""
        try:
            return self.workshop.unneeded(replace(cell, unless=known))
        except Exception as error:
            self.unclear[cell.key] = Failure.of(error)
            return ""

    def _drop(self, cell: Cell, reason: str) -> None:
        self.outcome.unneeded[cell.key] = reason
        self._tell(Unneeded(cell, reason))

    def _skip(self, cell: Cell, failed: Cell) -> None:
        self.outcome.failed[cell.key] = self.outcome.failed[failed.key]
        self._tell(Skipped(cell, f"needs {failed.stage} {failed.title}, which failed"))

    def _progress(self, task: Task, done: int, of: int, note: str) -> None:
        job = self.running[task]
        job.done[task] = done
        cell = task.cells[0]
        self._tell(Progressed(cell, sum(job.done.values()), cell.units if cell.key in self.divided else of, note))

    def _tell(self, event: Event) -> None:
        for subscriber in self.subscribers:
            subscriber(event)
