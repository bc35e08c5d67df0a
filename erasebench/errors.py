"""Errors that are raised on purpose: one tree, whose root is :class:`EraseBenchError`."""

from __future__ import annotations

import difflib
import traceback
from collections.abc import Collection, Iterable


class EraseBenchError(Exception):
    """Something is wrong that the user can put right; the message says what and how.

    The command line prints it as one line, ``error: ...``, without a traceback, and exits with status 2.
    """


class UnknownNameError(EraseBenchError, ValueError):
    """A name that is none of the known ones; the message gives the nearest."""


class NotApplicable(EraseBenchError):
    """A method or an attack that cannot be applied to this concept or model; the message says why."""


class ErasureFailedError(EraseBenchError):
    """A method that could not finish, on good input: training diverged, or the method raised.

    Attributes:
        traceback: where the method raised; empty if training diverged.
    """

    def __init__(self, message: str, traceback: str = "") -> None:
        super().__init__(message)
        self.traceback = traceback
        if traceback:
            self.add_note(traceback)


def check_name(what: str, name: str, allowed: Iterable[str], where: str = "") -> None:
    """Raise :class:`UnknownNameError` with the nearest names unless ``name`` is allowed.

    Args:
        what: the name is of.
        name: as somebody wrote it.
        allowed: the known ones.
        where: it stands, such as in which line of a file; every message starts with it.
    """
    known = allowed if isinstance(allowed, Collection) else list(allowed)
    if name in known:
        return
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
    hint = f"nearest: {', '.join(near)}" if near else f"known: {', '.join(known) or 'none'}"
    raise UnknownNameError(f"{where and f'{where}: '}unknown {what} '{name}'; {hint}")


def one_line(error: BaseException) -> str:
    """An error on one line: our own, of divergence and of damaged safetensors the message, others with their type."""
    # By its name: the library is imported only where files are read.
    own = isinstance(error, EraseBenchError | FloatingPointError) or type(error).__name__ == "SafetensorError"
    return " ".join((str(error) if own else "".join(traceback.format_exception_only(error))).split())
