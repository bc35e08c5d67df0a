"""Files that are whole or not there: written under a temporary name, synced, renamed."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from erasebench.errors import EraseBenchError

PARTIAL = ".partial"
"""How temporary names end."""


@contextmanager
def durably(path: Path) -> Iterator[BinaryIO]:
    """A stream to write a file to; a kill, or an error in the block, leaves the old file or the new one.

    Several processes may write a file at once: one of them stays.
    """
    partial = path.with_name(f"{path.name}.{os.getpid()}{PARTIAL}")
    with open(partial, "wb") as stream:
        yield stream
        stream.flush()
        os.fsync(stream.fileno())
    partial.replace(path)
    sync(path.parent)


def write_durably(path: Path, text: str) -> None:
    """Write a text file :func:`durably`."""
    with durably(path) as stream:
        stream.write(text.encode())


def replace_folder(folder: Path, write: Callable[[Path], object]) -> None:
    """Write a folder that appears whole or not at all; one that is there is replaced.

    Args:
        folder: the folder.
        write: makes a folder of the name that it is given, and fills it.
    """
    partial = folder.with_name(folder.name + PARTIAL)
    shutil.rmtree(partial, ignore_errors=True)
    write(partial)
    for path in partial.rglob("*"):
        sync(path)
    sync(partial)
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)
    sync(folder.parent)


def sync(path: Path) -> None:
    """Bring a file's bytes, or a folder's entries, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def is_disk_full(error: BaseException) -> bool:
    """Whether an error, or what caused it, says that the disk is full."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        # Libraries that do not write in Python, as safetensors, pass the system's words on in errors of their own.
        if any(os.strerror(code) in str(error) for code in (errno.ENOSPC, errno.EDQUOT)):
            return True
        error = error.__cause__ or error.__context__  # type: ignore[assignment]
    return False


def disk_full(place: str) -> EraseBenchError:
    """What to tell the user when :func:`is_disk_full`; ``place`` says whose disk it is."""
    return EraseBenchError(
        f"the disk of {place} is full; free some space and run the same command again: what is finished is kept"
    )
