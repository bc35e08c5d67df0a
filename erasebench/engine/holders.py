"""The holder of a lease: a process of some machine, and whether it is known to have ended."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from erasebench.files import is_running


@dataclass(frozen=True)
class Holder:
    """The process that made a lease.

    Attributes:
        owner: a random name.
        host: for people.
        machine: within which ``process`` means something: a kernel since its start, and a space of process numbers.
        process: its number; ``started`` when, in ticks since the machine started, since numbers are used again.
    """

    owner: str
    host: str
    machine: str
    process: int
    started: str

    @classmethod
    def here(cls, owner: str) -> Holder:
        """This process, under an owner's name."""
        process = os.getpid()
        return cls(owner, socket.gethostname(), this_machine(), process, _process(process)[1])

    def __str__(self) -> str:
        return f"process {self.process} on {self.host}"

    @property
    def has_ended(self) -> bool:
        """True if its process is known to be gone: one of another machine never is."""
        if self.machine != this_machine():
            return False
        if not is_running(self.process):
            return True
        state, started = _process(self.process)
        return state in ("Z", "X") or bool(self.started and started and self.started != started)


@cache
def this_machine() -> str:
    """Within what the numbers of processes mean something here: see :class:`Holder`."""
    try:
        kernel = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{kernel} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return socket.gethostname()


def _process(number: int) -> tuple[str, str]:
    """State and start of a running process; empty where the system does not tell."""
    try:
        text = Path(f"/proc/{number}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return "", ""
    fields = text.rpartition(")")[2].split()  # behind the name, which may hold anything: proc(5), fields 3 to 52
    return fields[0], fields[19]
