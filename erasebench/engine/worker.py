"""A worker process: it does one task after the other until the process that started it ends."""

from __future__ import annotations

import os
from multiprocessing.connection import Connection
from queue import SimpleQueue
from threading import Thread

from erasebench.engine.work import Failure, Task, Workshop, do


def main(handle: int, number: int) -> None:
    """Work for the other end of a connection.

    Args:
        handle: the connection's file; the first thing that comes is the workshop, then tasks.
        number: of this worker among the others.
    """
    connection = Connection(handle)
    tasks: SimpleQueue[Task] = SimpleQueue()
    try:
        workshop: Workshop = connection.recv()
    except EOFError:
        return
    Thread(target=_receive, args=(connection, tasks), daemon=True).start()
    opened = False
    while True:
        task = tasks.get()
        try:
            if not opened:
                workshop.open(number)
            opened = True
        except Exception as error:
            connection.send(Failure.of(error, fatal=True))
            continue
        connection.send(do(task, workshop, lambda done, of, note: connection.send((done, of, note))))


def _receive(connection: Connection, tasks: SimpleQueue[Task]) -> None:
    """Pass tasks on; when the other end is closed, however its process ended, so does this one at once."""
    while True:
        try:
            tasks.put(connection.recv())
        except (EOFError, OSError):
            os._exit(1)
