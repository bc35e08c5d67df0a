"""Text files of the user's, one word or prompt a line, that methods read."""

from __future__ import annotations

import hashlib
from pathlib import Path

from erasebench.errors import EraseBenchError


def read_lines(path: str) -> list[str]:
    """The lines that are not blank, each once, in their order.

    Raises:
        EraseBenchError: there is no such text file, or it is blank.
    """
    lines = [line.strip() for line in _read(path).decode("utf-8-sig", errors="replace").splitlines()]
    distinct = list(dict.fromkeys(line for line in lines if line))
    if not distinct:
        raise EraseBenchError(f"the file {path} has no lines; give one word or prompt a line")
    return distinct


def file_identity(path: str) -> dict[str, str]:
    """The SHA-256 of a file, for a method's ``identity``.

    Raises:
        EraseBenchError: there is no such file.
    """
    return {"sha256": hashlib.sha256(_read(path)).hexdigest()}


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise EraseBenchError(f"the file {path} cannot be read: {error.strerror}") from error
