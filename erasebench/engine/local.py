"""The local runner: one cell after the other, in this process."""

from __future__ import annotations

import time
import traceback
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from filelock import Timeout

from erasebench.durable import disk_full, is_disk_full
from erasebench.engine.cells import Cell
from erasebench.engine.ledger import Ledger
from erasebench.engine.plan import Plan
from erasebench.engine.progress import ProgressLine
from erasebench.engine.session import PeakMemory, Session
from erasebench.engine.store import Store
from erasebench.errors import one_line


@dataclass
class Outcome:
    """What became of a plan's cells.

    Attributes:
        computed: keys of the cells that this run computed; the others were there.
        failed: key -> why.
        costs: key -> seconds, memory and counts of each finished cell, now or when it was computed.
    """

    computed: set[str] = field(default_factory=set)
    failed: dict[str, str] = field(default_factory=dict)
    costs: dict[str, Mapping[str, Any]] = field(default_factory=dict)


def missing_cells(plan: Plan, store: Store) -> list[Cell]:
    """The cells of a plan that have no finished result."""
    return [cell for cell in plan.cells if store.marker(cell.key) is None]


def run_cells(plan: Plan, store: Store, ledger: Ledger, progress: ProgressLine, session: Session) -> Outcome:
    """Compute what is missing.

    A cell that fails takes those that read it with it; the rest goes on.

    Raises:
        EraseBenchError: the disk is full; what was finished is kept.
    """
    outcome = Outcome()
    session.progress = progress.update
    for cell in plan.cells:
        broken = [read for read in cell.reads if read.key in outcome.failed]
        if broken:
            outcome.failed[cell.key] = outcome.failed[broken[0].key]
            ledger.write("failed", cell, reason=f"needs {broken[0].stage} {broken[0].title}, which failed")
            progress.drop(cell)
            continue
        problem = store.check(cell.key)
        if problem and "corrupt" in problem:
            ledger.write("corrupt", cell, reason=problem)
            progress.add(cell)
        if problem:
            # Another run on this store may be at this very cell: wait for it, and look again.
            with _alone(cell, store, progress):
                if store.check(cell.key):
                    _compute(cell, store, ledger, progress, session, outcome)
            progress.drop(cell)
        marker = store.marker(cell.key)
        if marker:
            outcome.costs[cell.key] = marker.cost
    return outcome


def _alone(cell: Cell, store: Store, progress: ProgressLine) -> AbstractContextManager[Any]:
    """The cell's lock, held until the block ends; waiting for it is told."""
    lock = store.lock(cell.key)
    try:
        return lock.acquire(timeout=0)
    except Timeout:
        progress.wait(cell)
        return lock.acquire()


def _compute(
    cell: Cell, store: Store, ledger: Ledger, progress: ProgressLine, session: Session, outcome: Outcome
) -> None:
    progress.start(cell)
    if "reference" not in cell.spec:
        session.prepare(cell.stage)
    began, memory = time.monotonic(), PeakMemory(session.device)
    memory.restart()
    cost: dict[str, Any] = {}
    try:
        with store.writing(cell, cost) as folder:
            cost |= import_module(f"erasebench.stages.{cell.stage}").run(cell, session, folder)
            cost |= {"seconds": round(time.monotonic() - began, 3), "peak_memory_mb": memory.megabytes()}
    except Exception as error:
        seconds = time.monotonic() - began
        if is_disk_full(error):
            raise disk_full(f"the store {store.root}") from error
        reason = one_line(error)
        ledger.write("failed", cell, reason=reason, traceback=traceback.format_exc(), seconds=round(seconds, 3))
        outcome.failed[cell.key] = reason
        progress.finish(f"failed ({reason})", seconds)
        return
    store.clear_work(cell.key)
    outcome.computed.add(cell.key)
    ledger.write("ok", cell, **cost)
    progress.finish("ok", cost["seconds"], cost.get("images", 0))
