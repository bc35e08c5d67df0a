"""The local runner: this machine's processors or GPUs; and what the workers of all runners have in common."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait

from erasebench.engine.cells import Cell
from erasebench.engine.driver import drive
from erasebench.engine.runner import Mixed, Outcome, Report, Silent, Subscriber, TaskProgress, Workers
from erasebench.engine.store import Store
from erasebench.engine.work import Failure, Task, Workshop, do
from erasebench.engine.worker import At, Ready, WhereAreYou
from erasebench.errors import EraseBenchError

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
LOOK = 1.0
"""Seconds after which it is looked whether workers still tell of progress."""
SILENCE = 600.0
"""Seconds without progress after which a worker is asked where it is, which is told; and then after twice as many."""
ANSWER = 10.0
"""Seconds in which it has to answer."""
END = 10.0
"""Seconds in which a process that was killed has to be gone."""


@dataclass(frozen=True)
class LocalRunner:
    """Computes cells in worker processes of this machine.

    Attributes:
        workshop: how cells are computed.
        workers: so many processes at most; a single one is this process, unless there is a limit to patience.
        patience: seconds without progress after which a process is ended, and what it was at is done again; None for
            no limit: that no progress was told of is said, and what comes of it left to the user.
    """

    workshop: Workshop
    workers: int = 1
    patience: float | None = None

    def run(self, cells: Sequence[Cell], store: Store, subscribers: Sequence[Subscriber]) -> Outcome:
        """Compute what is missing; see :class:`~erasebench.engine.runner.Runner`."""

        def hire(progress: TaskProgress, tell: Subscriber) -> Workers:
            if self.workers == 1 and self.patience is None:
                return ThisProcess(self.workshop, progress)
            return Processes(self.workshop, self.workers, self.patience, progress, tell)

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
        """The outcome of the last task."""
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
        name: which process it is, in words.
        heard: when it last told of progress, or was given its task.
        question: seconds of silence after which it is asked where it is.
        question_time: when it was asked, until it answers.
        calls: what it last answered.
    """

    def __init__(self, number: int, connection: Connection, name: str = "") -> None:
        self.number, self.connection, self.name = number, connection, name or f"worker {number}"
        self.task: Task | None = None
        self.loaded: set[str] = set()
        self.heard, self.question = 0.0, 0.0
        self.question_time: float | None = None
        self.calls: tuple[str, ...] = ()

    def begin(self, task: Task, question: float) -> None:
        """Have it begin a task."""
        self.task, self.loaded = task, reads(task)
        self.progressed(question)
        self.send(task)

    def progressed(self, question: float) -> None:
        """Note that it told of progress."""
        self.heard, self.question, self.question_time, self.calls = time.monotonic(), question, None, ()

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

    def __init__(self, patience: float | None, progress: TaskProgress, tell: Subscriber) -> None:
        self._patience, self._progress, self._tell = patience, progress, tell
        # Before one is ended it has been asked where it is.
        self._question = SILENCE if patience is None else min(SILENCE, patience / 2)
        self._all: list[Worker] = []
        self._hardware: list[str] = []

    @abstractmethod
    def _bury(self, worker: Worker) -> Failure:
        """The failure to report of a worker whose connection ended."""

    @abstractmethod
    def _end(self, worker: Worker) -> None:
        """End a worker that hangs, by force."""

    def _wait(self, connections: Sequence[Connection], timeout: float | None) -> list[Connection]:
        """Those of some connections that say something, which may be none."""
        ready = wait(connections, LOOK if timeout is None else min(timeout, LOOK))
        return [connection for connection in ready if isinstance(connection, Connection)]

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
            worker.name = message.process
            self._compare(message.hardware)
            return []
        if isinstance(message, At):
            if worker.task and worker.question_time is not None:  # otherwise it went on meanwhile
                worker.calls = message.calls
                self._tell_silent(worker)
            return []
        if worker.task is None:
            assert isinstance(message, Failure), message
            raise EraseBenchError(message.reason)  # it cannot work at all
        if isinstance(message, tuple):
            worker.progressed(self._question)
            self._progress(worker.task, *message)
            return []
        task, worker.task = worker.task, None
        return [(task, self._check(task, message))]

    def _watch(self) -> list[tuple[Task, Report]]:
        """Ask those where they are that told of no progress for a while, and end those that did not for too long."""
        ended: list[tuple[Task, Report]] = []
        now, patience = time.monotonic(), math.inf if self._patience is None else self._patience
        for worker in list(self._all):
            silent = now - worker.heard
            if worker.task is None or (silent < min(worker.question, patience) and worker.question_time is None):
                continue
            if worker.connection.poll():
                continue  # the driver has not heard yet what it said
            if silent >= patience:
                ended.append((worker.task, self._give_up(worker, silent)))
            elif silent >= worker.question:
                worker.question, worker.question_time = 2 * silent, now
                worker.send(WhereAreYou())
            elif worker.question_time is not None and now - worker.question_time >= ANSWER:
                self._tell_silent(worker)
        return ended

    def _tell_silent(self, worker: Worker) -> None:
        assert worker.task
        worker.question_time = None
        silent = time.monotonic() - worker.heard
        self._tell(Silent(worker.task.cells[0], silent, worker.name, worker.calls, self._patience))

    def _give_up(self, worker: Worker, silent: float) -> Failure:
        where = f"it was at {worker.calls[0]}" if worker.calls else "it did not answer"
        self._all.remove(worker)
        worker.connection.close()
        self._end(worker)
        return Failure(
            f"its worker ({worker.name}) told of no progress for {silent:.0f} s and was ended, as --patience has it; "
            f"{where}",
            error="WorkerSilent",
        )

    def _check(self, task: Task, report: Report) -> Report:
        return report

    def _compare(self, hardware: str) -> None:
        if hardware not in self._hardware:
            self._hardware.append(hardware)
            if len(self._hardware) > 1:
                self._tell(Mixed(tuple(self._hardware)))


class Processes(ConnectedWorkers):
    """Worker processes, each started when there is something for it to do."""

    def __init__(
        self, workshop: Workshop, count: int, patience: float | None, progress: TaskProgress, tell: Subscriber
    ) -> None:
        super().__init__(patience, progress, tell)
        self._workshop, self._count = workshop, count
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        """By the number of the worker; also those that were killed and are not gone yet."""

    def free(self) -> int:
        """The number of processes that are idle, or may be started.

        Raises:
            EraseBenchError: all were killed, and none is gone: what they wait for is the system's.
        """
        known = {worker.number for worker in self._all}
        for number, process in list(self._processes.items()):
            if number not in known and process.poll() is not None:
                del self._processes[number]
        if len(self._processes.keys() - known) == self._count:
            numbers = ", ".join(str(process.pid) for process in self._processes.values())
            raise EraseBenchError(
                f"no worker is left: what hung does not end when it is killed (process {numbers}); see to the disk or "
                "the GPU that it waits for, and run the same command again: what is finished is kept"
            )
        return self._count - len(self._processes.keys() - known) - sum(worker.task is not None for worker in self._all)

    def start(self, task: Task) -> None:
        """Have a process begin a task."""
        worker = self._best(task)
        if worker is None:
            worker = self._launch(min(set(range(self._count)) - self._processes.keys()))
        worker.begin(task, self._question)

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
        worker = Worker(number, ours, f"process {self._processes[number].pid}")
        worker.send(self._workshop)
        self._all.append(worker)
        return worker

    def wait(self, timeout: float | None) -> list[tuple[Task, Report]]:
        """The tasks that ended; a process that died with its task is replaced by the next that is started."""
        workers = {worker.connection: worker for worker in self._all}
        ended: list[tuple[Task, Report]] = []
        for connection in self._wait(list(workers), timeout):
            ended += self._hear(workers[connection])
        return ended + self._watch()

    def close(self) -> None:
        """Kill them: they hold nothing that is not in the store, or lost with the cell that they are at."""
        for process in self._processes.values():
            process.kill()
        for process in self._processes.values():
            with suppress(subprocess.TimeoutExpired):
                process.wait(END)
        for worker in self._all:
            worker.connection.close()
        self._processes.clear()
        self._all.clear()

    def _end(self, worker: Worker) -> None:
        process = self._processes[worker.number]
        process.kill()
        with suppress(subprocess.TimeoutExpired):  # then its place is not given to another, which would find it taken
            process.wait(END)

    def _bury(self, worker: Worker) -> Failure:
        code = self._processes.pop(worker.number).wait()
        if code == -signal.SIGKILL:
            why = "killed; if memory was short, fewer --workers need less of it"
        elif code < 0:
            why = f"ended by {signal.Signals(-code).name}"
        else:
            why = f"ended with exit code {code}"
        return Failure(f"its worker process was {why}" if code < 0 else f"its worker process {why}", error="WorkerDied")
