"""The interface of a runner, and the events that it tells of while it runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from erasebench.engine.cells import Cell
from erasebench.engine.store import Store
from erasebench.engine.work import Failure, Task

LOST = "another run took this one for gone, as it gave no sign of life, and is at the cell or has its result"


@dataclass(frozen=True)
class Corrupt:
    """A cell's result is damaged: it is computed again."""

    cell: Cell
    reason: str


@dataclass(frozen=True)
class Waiting:
    """Another run is at a cell: ``holder``, in words."""

    cell: Cell
    holder: str = "another run"


@dataclass(frozen=True)
class TakenOver:
    """A cell that another run was at is this one's now; ``holder``: which run, and why no longer, in words."""

    cell: Cell
    holder: str


@dataclass(frozen=True)
class Lost:
    """A cell that was begun is another run's now, which took this one for gone."""

    cell: Cell


@dataclass(frozen=True)
class Found:
    """Another run computed a cell meanwhile."""

    cell: Cell


@dataclass(frozen=True)
class Started:
    """A cell is being computed, by itself or beside another of its batch, whose progress is that of all."""

    cell: Cell
    beside: Cell | None = None


@dataclass(frozen=True)
class Progressed:
    """The progress of a cell, and of those that are computed beside it."""

    cell: Cell
    done: int
    of: int
    note: str


@dataclass(frozen=True)
class Finished:
    """A cell has its result, at a cost."""

    cell: Cell
    cost: Mapping[str, Any]


@dataclass(frozen=True)
class Failed:
    """A cell that was begun has no result."""

    cell: Cell
    failure: Failure


@dataclass(frozen=True)
class Retried:
    """The worker of a cell was lost: another one is given the cell, or the part of it."""

    cell: Cell
    failure: Failure


@dataclass(frozen=True)
class Silent:
    """The worker of a cell has told of no progress for a while: it may hang, or be at a long step.

    Attributes:
        cell: which, or the first of those that it is at.
        seconds: since it told of any.
        worker: in words.
        calls: that it is in, the innermost first; none if it does not answer.
        patience: seconds of silence after which it is ended; None for no limit.
    """

    cell: Cell
    seconds: float
    worker: str
    calls: tuple[str, ...]
    patience: float | None = None


@dataclass(frozen=True)
class Skipped:
    """A cell cannot be computed, since one that it reads failed."""

    cell: Cell
    reason: str


@dataclass(frozen=True)
class Unneeded:
    """A cell need not be computed, as the results of others show."""

    cell: Cell
    reason: str


@dataclass(frozen=True)
class Asked:
    """Workers were asked for elsewhere; they come when there is room for them."""

    count: int
    where: str


@dataclass(frozen=True)
class Joined:
    """A worker is there; ``count`` are."""

    count: int
    of: int


@dataclass(frozen=True)
class Ended:
    """A worker elsewhere is no longer there; ``how`` in words, and whether it is started ``again``."""

    how: str
    again: bool


@dataclass(frozen=True)
class Mixed:
    """Workers compute on different devices, or with different versions of torch, so that their results may differ."""

    devices: tuple[str, ...]


Event = (
    Corrupt
    | Waiting
    | TakenOver
    | Lost
    | Found
    | Started
    | Progressed
    | Finished
    | Failed
    | Retried
    | Silent
    | Skipped
    | Unneeded
    | Asked
    | Joined
    | Ended
    | Mixed
)
Subscriber = Callable[[Event], None]


@dataclass
class Outcome:
    """The outcome of a run's cells.

    Attributes:
        computed: keys of the cells that this run computed; those that are in none of these were there.
        failed: key -> why.
        unneeded: key -> why a cell that has no result was not computed.
        costs: key -> seconds, memory and counts of each finished cell, now or when it was computed.
    """

    computed: set[str] = field(default_factory=set)
    failed: dict[str, str] = field(default_factory=dict)
    unneeded: dict[str, str] = field(default_factory=dict)
    costs: dict[str, Mapping[str, Any]] = field(default_factory=dict)


class Runner(Protocol):
    """The part that has cells computed: on this machine, or on others."""

    def run(self, cells: Sequence[Cell], store: Store, subscribers: Sequence[Subscriber]) -> Outcome:
        """Compute what is missing.

        A cell that fails takes those that read it with it; the rest goes on.  So does one that is not needed: those
        that read it are not needed either.  What only cells read that are not needed is not needed itself, unless it is
        asked for.

        Args:
            cells: each after those that it reads and those in its ``unless``.
            store: where results are, and go.
            subscribers: told of every event, in this thread.

        Raises:
            EraseBenchError: the disk is full, or nothing can be computed; what was finished is kept.
        """
        ...


Report = Sequence[Mapping[str, Any]] | Failure
"""The outcome of a task: what each of its cells cost, or why it failed."""
TaskProgress = Callable[[Task, int, int, str], None]
"""``(task, done, of, note)``; see :data:`erasebench.engine.work.Progress`."""


class Workers(Protocol):
    """Those who do a run's tasks: what tells runners apart."""

    def free(self) -> int:
        """The number of them that could begin a task."""
        ...

    def start(self, task: Task) -> None:
        """Have a free one begin a task."""
        ...

    def wait(self, timeout: float | None) -> list[tuple[Task, Report]]:
        """The tasks that ended, if any, when something happened or the time is up.

        Raises:
            EraseBenchError: nobody can work.
        """
        ...

    def close(self) -> None:
        """Stop them all, whatever they are doing."""
        ...
