"""Jobs: the cells that a run is computing, from the claim of their leases to the commit of what was written."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from erasebench.engine.cells import Cell
from erasebench.engine.work import Failure, Task
from erasebench.files import PARTIAL, remove


class _Abandoned(Exception):
    """Leaves a cell's block without committing it."""


@dataclass
class Begun:
    """A cell that is being computed.

    Attributes:
        cell: which.
        stack: when it is closed, what is in ``folder`` is committed, in which nobody but the driver writes.
        cost: what is committed with it.
        release: gives its lease back.
        tries: the folders beside it into which workers write.  None is used twice, since a worker that was lost may
            still write: it may be at the other end of a network that failed.
        written: of these, by where in the cell they begin, those whose tasks were done.
    """

    cell: Cell
    stack: ExitStack
    folder: Path
    cost: dict[str, Any]
    release: Callable[[], None]
    tries: list[Path] = field(default_factory=list)
    written: dict[int, Path] = field(default_factory=dict)

    def new_try(self) -> Path:
        """A folder for a worker to make."""
        name = f"{self.folder.name.removesuffix(PARTIAL)}.{len(self.tries)}{PARTIAL}"
        self.tries.append(self.folder.with_name(name))
        return self.tries[-1]

    def add_cost(self, more: Mapping[str, Any]) -> None:
        """Add what a task cost: seconds of all workers, counts, and the most memory that one of them had."""
        for name, value in more.items():
            known = self.cost.get(name)
            if known is None or value is None:
                self.cost[name] = value if known is None else known
            else:
                self.cost[name] = max(known, value) if name == "peak_memory_mb" else round(known + value, 3)

    def abandon(self) -> None:
        """Remove what was written, and give the lease back."""
        with suppress(_Abandoned), self.stack:
            raise _Abandoned
        for folder in self.tries:
            with suppress(OSError):  # a lost worker may still write there
                remove(folder)
        self.release()


@dataclass(eq=False)
class Job:
    """Cells that are computed together, or a single one.

    Attributes:
        begun: the cells.
        tasks: those that nobody began; ``running`` how many were begun and did not end.
        done: how much of each task is done.
        failure: of the first task that failed.
    """

    begun: list[Begun] = field(default_factory=list)
    tasks: list[Task] = field(default_factory=list)
    running: int = 0
    done: dict[Task, int] = field(default_factory=dict)
    failure: Failure | None = None
