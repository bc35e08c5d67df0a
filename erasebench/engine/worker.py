"""A worker process: it does one task after the other until the process that started it ends."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from queue import SimpleQueue
from threading import Thread

from erasebench.engine.runner import Report
from erasebench.engine.work import Failure, Task, Workshop, do


@dataclass(frozen=True)
class Ready:
    """What a worker says when it can begin: what it computes on and with."""

    hardware: str


def main(handle: int, number: int) -> None:
    """Work for the other end of a connection, which is a file of this process."""
    work_for(Connection(handle), number)


def work_for(
    connection: Connection, number: int, answer: Callable[[Task, Report], object] = lambda task, report: report
) -> None:
    """Work for the other end of a connection.

    Args:
        connection: the first thing that comes is the workshop, then tasks; None if there is nothing more to do.
        number: of this worker among the others.
        answer: what to send when a task was done.
    """
    tasks: SimpleQueue[Task | None] = SimpleQueue()
    try:
        workshop: Workshop = connection.recv()
        Thread(target=_receive, args=(connection, tasks), daemon=True).start()
        workshop.open(number)
        connection.send(Ready(workshop.hardware()))
    except EOFError:
        return
    except Exception as error:
        connection.send(Failure.of(error, fatal=True))
        return
    while (task := tasks.get()) is not None:
        report = do(task, workshop, lambda done, of, note: connection.send((done, of, note)))
        connection.send(answer(task, report))


def _receive(connection: Connection, tasks: SimpleQueue[Task | None]) -> None:
    """Pass tasks on; when the other end is closed, however its process ended, so does this one at once."""
    while True:
        try:
            task = connection.recv()
        except (EOFError, OSError):
            os._exit(1)
        tasks.put(task)
        if task is None:
            return
