"""Processes of their own, for tests that kill them or let several write at once."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable


def fork(act: Callable[[], int | None]) -> int:
    """Do something in a process of its own, whose number is returned.

    It ends with the exit code that comes of it, 0 for None, and with 99 after an error.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 and later: forks of threaded processes
        child = os.fork()
    if not child:
        try:
            os._exit(act() or 0)
        finally:
            os._exit(99)
    return child


def end(child: int) -> int:
    """Wait until a process has ended: its exit code, negative if it was killed."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def in_a_child(act: Callable[[], int | None]) -> int:
    """Do something in a process of its own, until it has ended: its exit code, negative if it was killed."""
    return end(fork(act))
