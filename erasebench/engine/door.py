"""The door by which workers on other machines come to the driver.

Only who knows the run's key is heard: messages are pickles, which could do anything.
"""

from __future__ import annotations

import os
import secrets
import socket
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing import AuthenticationError, Pipe
from multiprocessing.connection import Connection, answer_challenge, deliver_challenge
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import BoundedSemaphore, Thread, Timer

GREETING, GUESTS = 20.0, 64
"""Seconds in which whoever comes has to say who it is, and how many may be about it at a time; others wait."""
SILENCE = {"TCP_KEEPIDLE": 30, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 6}
"""After 30 s of silence ask every 10 s whether the other end is there; it is lost if it does not answer 6 times."""


@dataclass(frozen=True)
class Place:
    """The place that the workers of a run come to.

    Attributes:
        host: a name or address of the driver's machine; ``port`` where it listens; ``key`` who knows it is a worker.
        shared: a folder of the run's store for what workers need that is no result.
        folder: in which the run was begun, where relative paths lead from.
    """

    host: str
    port: int
    key: bytes = field(repr=False)
    shared: Path
    folder: Path = field(default_factory=Path.cwd)


class Door:
    """The entrance for workers; each is heard in a thread of its own, so that nobody keeps the others waiting.

    Args:
        host: a name or address of this machine, by which they reach it.
        shared: see :class:`Place`.

    Attributes:
        place: where it is.
        bell: can be read when somebody came.
    """

    def __init__(self, host: str, shared: Path) -> None:
        key = secrets.token_bytes(32)
        self._socket = socket.create_server(("127.0.0.1" if host == "127.0.0.1" else "", 0), backlog=512)
        self.place = Place(host, self._socket.getsockname()[1], key, shared)
        self.bell, self._ring = Pipe(duplex=False)
        self._came: SimpleQueue[tuple[Connection, str, int]] = SimpleQueue()
        self._closed = False
        self._places = BoundedSemaphore(GUESTS)
        Thread(target=self._open, daemon=True).start()

    def next(self) -> tuple[Connection, str, int]:
        """The next worker that came: the connection, the version of erasebench, the number."""
        self.bell.recv_bytes()
        return self._came.get()

    def close(self) -> None:
        """Let nobody in any more, and send those home who were not let in."""
        self._closed = True
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)  # closing alone does not end the wait for the next
        self._socket.close()
        self._send_home()

    def _send_home(self) -> None:
        with suppress(Empty):
            while True:
                self._came.get_nowait()[0].close()

    def _open(self) -> None:
        while True:
            self._places.acquire()
            try:
                them, _ = self._socket.accept()
            except OSError:
                return
            Thread(target=self._greet, args=(them,), daemon=True).start()

    def _greet(self, them: socket.socket) -> None:
        connection = Connection(os.dup(them.fileno()))
        limit = Timer(GREETING, _hang_up, (them,))
        limit.daemon = True
        limit.start()
        try:
            deliver_challenge(connection, self.place.key)
            answer_challenge(connection, self.place.key)
            end_silence(connection)
            version, number = connection.recv()
        except (AuthenticationError, EOFError, OSError):
            connection.close()
            return
        finally:
            limit.cancel()
            them.close()
            self._places.release()
        self._came.put((connection, version, number))
        if self._closed:
            self._send_home()
            return
        self._ring.send_bytes(b"!")


def _hang_up(them: socket.socket) -> None:
    """End whatever is being read from somebody."""
    with suppress(OSError):
        them.shutdown(socket.SHUT_RDWR)


def end_silence(connection: Connection) -> None:
    """Have the system find out if the other end is gone without a word, as after a power failure."""
    with socket.socket(fileno=connection.fileno()) as peer:
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in SILENCE.items():
            if hasattr(socket, name):  # not on every system
                peer.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
        peer.detach()
