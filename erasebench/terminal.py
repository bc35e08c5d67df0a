"""Text for people on the terminal, in which nothing that others wrote acts on it.

A standard error that is closed or full loses words and stops nothing: results are on standard output and in files.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TextIO

from erasebench.errors import EraseBenchError
from erasebench.texts import printable


def write_result(text: str, end: str = "\n", raw: bool = False) -> None:
    """Write a result to standard output, as :func:`~erasebench.texts.printable` text.

    Args:
        text: the result; where it is written to a terminal, styles in it stay.
        end: what follows.
        raw: bytes count, as of CSV, unless it is written to a terminal.

    Raises:
        BrokenPipeError: the reader is gone.
        EraseBenchError: it cannot be written.
    """
    live = sys.stdout.isatty()
    try:
        sys.stdout.write((text if raw and not live else printable(text, styled=live)) + end)
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        _lose(sys.stdout)
        raise EraseBenchError(f"standard output cannot be written: {error.strerror}") from error


def say(text: str, end: str = "\n") -> None:
    """Tell something on standard error, as :func:`~erasebench.texts.printable` text."""
    with telling(sys.stderr):
        sys.stderr.write(printable(text) + end)
        sys.stderr.flush()


@contextmanager
def telling(stream: TextIO) -> Iterator[None]:
    """Write words that may be lost: if they cannot be written, those that come after go nowhere."""
    try:
        yield
    except OSError:
        _lose(stream)


def _lose(stream: TextIO) -> None:
    """Lead a stream nowhere, so that what is left in its buffer does not fail again when the process ends."""
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
        stream.flush()


def open_closed_streams() -> None:
    """Open what the shell closed (``2>&-``): the next file that is opened would take its number, and its words."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            handle = os.open(os.devnull, os.O_RDWR)
            if handle != number:
                os.dup2(handle, number)
                os.close(handle)
            stream = os.fdopen(number, "r" if name == "stdin" else "w", encoding="utf-8", closefd=False)
            setattr(sys, name, stream)
