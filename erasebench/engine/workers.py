"""The local runner: this machine's processors or GPUs; and what the workers of all runners have in common."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait

from erasebench.engine.cells import Cell
from erasebench.engine.driver import drive
from erasebench.engine.runner import Mixed, Outcome, Report, Subscriber, TaskProgress, Workers
from erasebench.engine.store import Store
from erasebench.engine.work import Failure, Task, Workshop, do
from erasebench.engine.worker import Ready
from erasebench.errors import EraseBenchError

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@dataclass(frozen=True)
class LocalRunner:
    """Computes cells in worker processes of this machine.

    Attributes:
        workshop: how cells are computed.
        workers: so many processes at most; a single one is this process.
    """

    workshop: Workshop
    workers: int = 1

    def run(self, cells: Sequence[Cell], store: Store, subscribers: Sequence[Subscriber]) -> Outcome:
        """Compute what is missing; see :class:`~erasebench.engine.runner.Runner`."""

        def hire(progress: TaskProgress, tell: Subscriber) -> Workers:
            if self.workers == 1:
                return ThisProcess(self.workshop, progress)
            return Processes(self.workshop, self.workers, progress, tell)

        return drive(self.workshop, self.workers, hire, cells, store, subscribers)


class ThisProcess:
    """One worker that is no other process; a task ends before it is known to have begun.

    It has one thread, as the processes of :class:`Processes` have, so that it comes to the same results.
    """

    def __init__(self, workshop: Workshop, progress: TaskProgress) -> None:
        self._workshop, self._progress = workshop, progress
        self._done: list[tuple[Task, Report]] = []
        self._threads: int | None = None

    def free(self) -> int:
        """One if what came of the last task was asked for."""
        return 0 if self._done else 1

    def start(self, task: Task) -> None:
        """Do a task."""
        import torch

        if self._threads is None:
            self._threads = torch.get_num_threads()
            torch.set_num_threads(1)
        report = do(task, self._workshop, lambda done, of, note: self._progress(task, done, of, note))
        self._done.append((task, report))

    def wait(self, timeout: float | None) -> list[tuple[Task, Report]]:
        """What came of the last task."""
        done, self._done = self._done, []
        return done

    def close(self) -> None:
        """Give the process its threads back."""
        if self._threads is not None:
            import torch

            torch.set_num_threads(self._threads)


class Worker:
    """A worker at the other end of a connection.

    Attributes:
        number: of the worker among the others.
        task: what it is at.
        loaded: the keys of the cells that its last task read, of which it may have kept something.
    """

    def __init__(self, number: int, connection: Connection) -> None:
        self.number, self.connection = number, connection
        self.task: Task | None = None
        self.loaded: set[str] = set()

    def begin(self, task: Task) -> None:
        """Have it begin a task."""
        self.task, self.loaded = task, reads(task)
        self.send(task)

    def send(self, message: object) -> None:
        """Send it something; if it died that is found out where its end is waited for."""
        try:
            self.connection.send(message)
        except OSError:
            return


def reads(task: Task) -> set[str]:
    """The keys of the cells that a task reads."""
    return {read.key for cell in task.cells for read in cell.reads.values()}


class ConnectedWorkers(ABC):
    """Workers at the other ends of connections: what they say, and which of them begins a task."""

    def __init__(self, progress: TaskProgress, tell: Subscriber) -> None:
        self._progress, self._tell = progress, tell
        self._all: list[Worker] = []
        self._hardware: list[str] = []

    @abstractmethod
    def _bury(self, worker: Worker) -> Failure:
        """What to say of a worker whose connection ended."""

    def _best(self, task: Task) -> Worker | None:
        """The idle worker that has most of what a task reads, such as the weights of an erasure."""
        idle = [worker for worker in self._all if worker.task is None]
        return max(idle, key=lambda worker: len(worker.loaded & reads(task)), default=None)

    def _hear(self, worker: Worker) -> list[tuple[Task, Report]]:
        """Take the next message of a worker; it is gone if there is none."""
        try:
            message = worker.connection.recv()
        except (EOFError, OSError):
            message = self._bury(worker)
            worker.connection.close()
            self._all.remove(worker)
            if worker.task is None:
                return []  # it was lost with nothing
        if isinstance(message, Ready):
            self._compare(message.hardware)
            return []
        if worker.task is None:
            assert isinstance(message, Failure), message
            raise EraseBenchError(message.reason)  # it cannot work at all
        if isinstance(message, tuple):
            self._progress(worker.task, *message)
            return []
        task, worker.task = worker.task, None
        return [(task, self._check(task, message))]

    def _check(self, task: Task, report: Report) -> Report:
        return report

    def _compare(self, hardware: str) -> None:
        if hardware not in self._hardware:
            self._hardware.append(hardware)
            if len(self._hardware) > 1:
                self._tell(Mixed(tuple(self._hardware)))


class Processes(ConnectedWorkers):
    """Worker processes, each started when there is something for it to do."""

    def __init__(self, workshop: Workshop, count: int, progress: TaskProgress, tell: Subscriber) -> None:
        super().__init__(progress, tell)
        self._workshop, self._count = workshop, count
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        """By the number of the worker."""

    def free(self) -> int:
        """How many processes are idle, or may be started."""
        return self._count - sum(worker.task is not None for worker in self._all)

    def start(self, task: Task) -> None:
        """Have a process begin a task."""
        worker = self._best(task)
        if worker is None:
            worker = self._launch(min(set(range(self._count)) - self._processes.keys()))
        worker.begin(task)

    def _launch(self, number: int) -> Worker:
        ours, theirs = Pipe()
        # As for processes that multiprocessing spawns, but without running the user's own script again in each.
        code = (
            f"import sys; sys.path[:] = {sys.path!r}; "
            f"from erasebench.engine.worker import main; main({theirs.fileno()}, {number})"
        )
        self._processes[number] = subprocess.Popen(
            [sys.executable, "-P", "-c", code],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=2,  # whatever a library prints must not get into the table
            env={**os.environ, **dict.fromkeys(THREADS, "1")},
            process_group=0,  # Ctrl-C goes to this process alone, which stops the others
        )
        theirs.close()
        worker = Worker(number, ours)
        worker.send(self._workshop)
        self._all.append(worker)
        return worker

    def wait(self, timeout: float | None) -> list[tuple[Task, Report]]:
        """The tasks that ended; a process that died with its task is replaced by the next that is started."""
        workers = {worker.connection: worker for worker in self._all}
        ended: list[tuple[Task, Report]] = []
        for connection in wait(list(workers), timeout):
            assert isinstance(connection, Connection)
            ended += self._hear(workers[connection])
        return ended

    def close(self) -> None:
        """Kill them: they hold nothing that is not in the store, or lost with the cell that they are at."""
        for process in self._processes.values():
            process.kill()
        for process in self._processes.values():
            process.wait()
        for worker in self._all:
            worker.connection.close()
        self._processes.clear()
        self._all.clear()

    def _bury(self, worker: Worker) -> Failure:
        code = self._processes.pop(worker.number).wait()
        if code == -signal.SIGKILL:
            why = "killed; if memory was short, fewer --workers need less of it"
        elif code < 0:
            why = f"ended by {signal.Signals(-code).name}"
        else:
            why = f"ended with exit code {code}"
        return Failure(f"its worker process was {why}" if code < 0 else f"its worker process {why}", error="WorkerDied")
