"""Files that are whole or not there: written under a temporary name, synced, renamed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

PARTIAL = ".partial"
"""How temporary names end."""


@contextmanager
def durably(path: Path, partial: Path | None = None) -> Iterator[BinaryIO]:
    """A stream to write a file to; a kill, or an error in the block, leaves the old file or the new one.

    Args:
        path: the file.
        partial: its temporary name, in the same folder; ``path`` with the suffix ``.partial`` if omitted.
    """
    partial = partial or path.with_suffix(PARTIAL)
    with open(partial, "wb") as stream:
        yield stream
        stream.flush()
        os.fsync(stream.fileno())
    partial.replace(path)
    sync(path.parent)


def write_durably(path: Path, text: str) -> None:
    """Write a text file :func:`durably`, also where several processes write it at once."""
    with durably(path, path.with_name(f"{path.name}.{os.getpid()}{PARTIAL}")) as stream:
        stream.write(text.encode())


def sync(path: Path) -> None:
    """Bring a file's bytes, or a folder's entries, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
