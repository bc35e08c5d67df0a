"""What a process does with a cell, or with a part of one: the same in this process and in a worker's."""

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
"""``(done, of, note)`` within one cell: images or training steps."""


class Workshop(Protocol):
    """What knows how cells are computed.  It is sent to each worker process, so it has to pickle."""

    device: str
    """``"cpu"``, ``"cuda"`` or ``"cuda:1"``."""

    def open(self, worker: int) -> None:
        """Make ready, once in each process that it was sent to; the processes are counted from 0."""
        ...

    def prepare(self, cell: Cell) -> None:
        """Load what a cell needs before its clock starts.

        Raises:
            EraseBenchError: it cannot be had; no cell could be computed.
        """
        ...

    def work(self, cell: Cell, part: slice | None, folder: Path, progress: Progress) -> dict[str, Any]:
        """Compute a cell, or a part of it, into an empty folder, and return what it cost beside time and memory."""
        ...

    def divide(self, cell: Cell, workers: int) -> Sequence[slice | None]:
        """The parts that several workers may compute at once; only None for a cell that is one piece."""
        ...

    def join(self, cell: Cell, parts: Sequence[Path], folder: Path) -> None:
        """Make a cell's payload of those of its parts: the very bytes that it would have if it were one piece."""
        ...


@dataclass(frozen=True)
class Task:
    """A cell, or a part of it, and the empty folder that it is computed into."""

    cell: Cell
    part: slice | None
    folder: Path


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
    def of(cls, error: Exception, seconds: float = 0.0, fatal: bool = False) -> Failure:
        """The failure that an exception is."""
        name = "EraseBenchError" if isinstance(error, EraseBenchError) else type(error).__name__
        text = "".join(traceback.format_exception(error))
        return cls(one_line(error), text, round(seconds, 3), name, fatal, is_disk_full(error))


def do(task: Task, workshop: Workshop, progress: Progress) -> Mapping[str, Any] | Failure:
    """Do a task, and return what it cost: seconds, memory, and what the stage counts."""
    try:
        workshop.prepare(task.cell)
    except Exception as error:
        return Failure.of(error, fatal=isinstance(error, EraseBenchError))
    memory = PeakMemory(workshop.device)
    memory.restart()
    began = time.monotonic()
    try:
        task.folder.mkdir(exist_ok=True)
        cost = workshop.work(task.cell, task.part, task.folder, progress)
    except Exception as error:
        return Failure.of(error, time.monotonic() - began)
    return {**cost, "seconds": round(time.monotonic() - began, 3), "peak_memory_mb": memory.megabytes()}


class PeakMemory:
    """The most memory that was in use since :meth:`restart`: the GPU's where there is one, this process's otherwise."""

    def __init__(self, device: str) -> None:
        self.cuda = device.startswith("cuda")

    def restart(self) -> None:
        """Forget what was before."""
        if self.cuda:
            import torch

            torch.cuda.reset_peak_memory_stats()
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

            return float(torch.cuda.max_memory_allocated() / 1e6)
        try:
            status = Path("/proc/self/status").read_text(encoding="ascii")
        except OSError:
            return None
        return next((int(line.split()[1]) / 1e3 for line in status.splitlines() if line.startswith("VmHWM")), None)
