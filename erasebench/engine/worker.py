"""A worker process: it does one task after the other until the process that started it ends."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from queue import SimpleQueue
from threading import Lock, Thread, get_ident

from erasebench.engine.runner import Report
from erasebench.engine.work import Failure, Task, Workshop, do


@dataclass(frozen=True)
class Ready:
    """The message of a worker that can begin: what it computes on and with, and which process it is, in words."""

    hardware: str
    process: str


@dataclass(frozen=True)
class WhereAreYou:
    """The question to a worker that has told of no progress for a while."""


@dataclass(frozen=True)
class At:
    """The calls that a worker is in, the innermost first: ``"module:line function"``."""

    calls: tuple[str, ...]


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
    lock, here = Lock(), get_ident()

    def send(message: object) -> None:
        with lock:
            connection.send(message)

    def receive() -> None:
        """Pass tasks on; when the other end is closed, however its process ended, so does this one at once."""
        while True:
            try:
                message = connection.recv()
            except (EOFError, OSError):
                os._exit(1)
            if isinstance(message, WhereAreYou):
                send(At(_calls(here)))
                continue
            tasks.put(message)
            if message is None:
                return

    try:
        workshop: Workshop = connection.recv()
        Thread(target=receive, daemon=True).start()
        workshop.open(number)
        send(Ready(workshop.hardware(), f"process {os.getpid()} on {socket.gethostname()}"))
    except EOFError:
        return
    except Exception as error:
        send(Failure.of(error, fatal=True))
        return
    while (task := tasks.get()) is not None:
        report = do(task, workshop, lambda done, of, note: send((done, of, note)))
        send(answer(task, report))


def _calls(thread: int) -> tuple[str, ...]:
    """The calls that a thread is in, the innermost first, but for those by which Python imports."""
    calls, frame = [], sys._current_frames().get(thread)
    while frame:
        module = frame.f_globals.get("__name__", "?")
        if not module.startswith("importlib."):
            calls.append(f"{module}:{frame.f_lineno} {frame.f_code.co_name}")
        frame = frame.f_back
    return tuple(calls)
