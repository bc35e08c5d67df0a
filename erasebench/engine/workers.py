"""Who does tasks: this process, or worker processes that stay alive and keep what they loaded."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from typing import Any, Protocol

from erasebench.engine.work import Failure, Task, Workshop, do

Report = Sequence[Mapping[str, Any]] | Failure
"""What came of a task: what each of its cells cost, or why it failed."""
TaskProgress = Callable[[Task, int, int, str], None]
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


class Workers(Protocol):
    """Those who do a run's tasks."""

    def free(self) -> int:
        """How many of them could begin a task."""
        ...

    def start(self, task: Task) -> None:
        """Have a free one begin a task."""
        ...

    def wait(self, timeout: float | None) -> list[tuple[Task, Report]]:
        """The tasks that ended, when there are any, or when the time is up."""
        ...

    def close(self) -> None:
        """Stop them all, whatever they are doing."""
        ...


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


class Processes:
    """Worker processes, each started when there is something for it to do."""

    def __init__(self, workshop: Workshop, count: int, progress: TaskProgress) -> None:
        self._workshop, self._count, self._progress = workshop, count, progress
        self._all: list[_Process] = []

    def free(self) -> int:
        """How many processes are idle, or may be started."""
        return self._count - sum(worker.task is not None for worker in self._all)

    def start(self, task: Task) -> None:
        """Have a process begin a task."""
        worker = next((worker for worker in self._all if worker.task is None), None)
        if worker is None:
            number = min(set(range(self._count)) - {worker.number for worker in self._all})
            worker = _Process(number, self._workshop)
            self._all.append(worker)
        worker.begin(task)

    def wait(self, timeout: float | None) -> list[tuple[Task, Report]]:
        """The tasks that ended; a process that died with its task is replaced by the next that is started."""
        busy = {worker.connection: worker for worker in self._all if worker.task is not None}
        ended: list[tuple[Task, Report]] = []
        for connection in wait(list(busy), timeout):
            assert isinstance(connection, Connection)
            worker = busy[connection]
            assert worker.task is not None
            try:
                message = connection.recv()
            except (EOFError, OSError):
                message = worker.bury()
                self._all.remove(worker)
            if isinstance(message, tuple):
                self._progress(worker.task, *message)
            else:
                ended.append((worker.task, message))
                worker.task = None
        return ended

    def close(self) -> None:
        """Kill them: they hold nothing that is not in the store, or lost with the cell that they are at."""
        for worker in self._all:
            worker.process.kill()
        for worker in self._all:
            worker.process.wait()
            worker.connection.close()
        self._all.clear()


class _Process:
    """A worker process, and the task that it is at."""

    def __init__(self, number: int, workshop: Workshop) -> None:
        self.number = number
        self.task: Task | None = None
        self.connection, theirs = Pipe()
        # As for processes that multiprocessing spawns, but without running the user's own script again in each.
        code = (
            f"import sys; sys.path[:] = {sys.path!r}; "
            f"from erasebench.engine.worker import main; main({theirs.fileno()}, {number})"
        )
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-c", code],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=2,  # whatever a library prints must not get into the table
            env={**os.environ, **dict.fromkeys(THREADS, "1")},
            process_group=0,  # Ctrl-C goes to this process alone, which stops the others
        )
        theirs.close()
        self._send(workshop)

    def begin(self, task: Task) -> None:
        self.task = task
        self._send(task)

    def _send(self, message: object) -> None:
        try:
            self.connection.send(message)
        except OSError:
            return  # it died: so does the connection, which is found out where its end is waited for

    def bury(self) -> Failure:
        """What to say of a process that died."""
        code = self.process.wait()
        self.connection.close()
        if code == -signal.SIGKILL:
            why = "killed; if memory was short, fewer --workers need less of it"
        elif code < 0:
            why = f"ended by {signal.Signals(-code).name}"
        else:
            why = f"ended with exit code {code}"
        return Failure(f"its worker process was {why}" if code < 0 else f"its worker process {why}", error="WorkerDied")
