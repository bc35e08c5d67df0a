"""Files that are whole or not there: written under a temporary name, synced, renamed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

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
