"""The work of a process on cells, or on a part of one: the same in this process and in a worker's."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from erasebench.engine.cells import Cell
from erasebench.errors import EraseBenchError, one_line
from erasebench.files import is_disk_full

Progress = Callable[[int, int, str], None]
"""``(done, of, note)`` within one task: images or training steps."""
TRIES = {"WorkerDied": 3, "WorkerSilent": 3, "ConnectionLost": 10}
"""The number of times that a task is tried, by the ``error`` of its :class:`Failure`; one where it is none of these.

What a cell raises, it would raise again.  That a worker is lost may not be the cell's doing, and at the other end of a
network, where workers have to make room for others again and again, even less so.
"""


class Workshop(Protocol):
    """The part that knows how cells are computed.  It is sent to each worker process, so it has to pickle."""

    device: str
    """``"cpu"``, ``"cuda"`` or ``"cuda:1"``."""

    def open(self, worker: int) -> None:
        """Make ready, once in each process that it was sent to; the processes are counted from 0."""
        ...

    def hardware(self) -> str:
        """The hardware and software that this process computes with, in words; where they differ, so may results."""
        ...

    def prepare(self, cell: Cell) -> None:
        """Load what a cell needs before its clock starts.

        Raises:
            EraseBenchError: it cannot be had; no cell could be computed.
        """
        ...

    def work(
        self, cells: Sequence[Cell], part: slice | None, folders: Sequence[Path], progress: Progress
    ) -> Sequence[Mapping[str, Any]]:
        """Compute cells together, each into an empty folder, and return what each cost beside time and memory.

        Args:
            cells: those of one batch, or a single one.
            part: of the single cell, of which no more is to be computed; None for the whole.
            folders: one for each cell.
            progress: to be told how far all of them are.
        """
        ...

    def together(self, cell: Cell) -> int:
        """The most cells of a cell's batch that are worth computing together."""
        ...

    def unneeded(self, cell: Cell) -> str:
        """Why a cell need not be computed, as the results of those in its ``unless`` have it; '' if it has to be.

        Called in the process of the run, after all in its ``unless`` were settled, for a cell with only those of them
        that have results.
        """
        ...

    def divide(self, cell: Cell, workers: int) -> Sequence[slice | None]:
        """The parts that several workers may compute at once; only None for a cell that is one piece."""
        ...

    def join(self, cell: Cell, parts: Sequence[Path], folder: Path) -> None:
        """Make a cell's payload of those of its parts: the very bytes that it would have if it were one piece."""
        ...


@dataclass(frozen=True, eq=False)
class Task:
    """Cells of one batch, a single cell or a part of one, and the empty folders that they are computed into."""

    cells: tuple[Cell, ...]
    part: slice | None
    folders: tuple[Path, ...]


@dataclass(frozen=True)
class Failure:
    """Why a cell has no result.

    Attributes:
        reason: on one line; ``traceback`` where it came from.
        seconds: after which it failed.
        error: the name of the exception's class.
        fatal: no other cell could be computed either.
        disk_full: the store's disk is full.
    """

    reason: str
    traceback: str = ""
    seconds: float = 0.0
    error: str = ""
    fatal: bool = False
    disk_full: bool = False

    @classmethod
    def of(cls, error: BaseException, seconds: float = 0.0, fatal: bool = False) -> Failure:
        """The failure that an exception is."""
        name = "EraseBenchError" if isinstance(error, EraseBenchError) else type(error).__name__
        text = "".join(traceback.format_exception(error))
        return cls(one_line(error), text, round(seconds, 3), name, fatal, is_disk_full(error))


def do(task: Task, workshop: Workshop, progress: Progress) -> list[Mapping[str, Any]] | Failure:
    """Do a task, and return what each of its cells cost: an equal share of the seconds, memory, the stage's counts."""
    try:
        for cell in task.cells:
            workshop.prepare(cell)
    except (Exception, SystemExit) as error:
        return Failure.of(error, fatal=isinstance(error, EraseBenchError))
    memory = PeakMemory(workshop.device)
    memory.restart()
    began = time.monotonic()
    try:
        for folder in task.folders:
            folder.mkdir(exist_ok=True)
        costs = workshop.work(task.cells, task.part, task.folders, progress)
        if len(costs) != len(task.cells):
            raise ValueError(f"the costs of {len(costs)} cells came of {len(task.cells)}")
    except (Exception, SystemExit) as error:  # a plug-in may call sys.exit
        return Failure.of(error, time.monotonic() - began)
    shared = {
        "seconds": round((time.monotonic() - began) / len(costs), 3),
        "peak_memory_mb": memory.megabytes(),
    }
    return [{**cost, **shared} for cost in costs]


class PeakMemory:
    """The most memory that was in use since :meth:`restart`: the GPU's where there is one, this process's otherwise."""

    def __init__(self, device: str) -> None:
        self.device, self.cuda = device, device.startswith("cuda")

    def restart(self) -> None:
        """Forget what was before."""
        if self.cuda:
            import torch

            torch.cuda.init()  # type: ignore[no-untyped-call]
            torch.cuda.reset_peak_memory_stats(self.device)
            return
        try:
            # Linux: writing 5 resets the high-water mark VmHWM of this process.
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        except OSError:
            return

    def megabytes(self) -> float | None:
        """The peak in MB, or None where the system does not tell."""
        if self.cuda:
            import torch

            return float(torch.cuda.max_memory_allocated(self.device) / 1e6)
        try:
            status = Path("/proc/self/status").read_text(encoding="ascii")
        except OSError:
            return None
        return next((int(line.split()[1]) / 1e3 for line in status.splitlines() if line.startswith("VmHWM")), None)
