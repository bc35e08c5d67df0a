"""Markers: what vouches for the cells of a store, and what is seen of a cell's folder by its marker.

``done.json`` in a cell's folder lists the sizes and hashes of the files beside it.  ``verified.json`` notes the times
of files whose bytes were found to be right, so that they need not all be read again for each run.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from erasebench.engine.cells import canonical_json
from erasebench.errors import EraseBenchError
from erasebench.files import PARTIAL, hash_file, read_regular

KEY = re.compile("[0-9a-f]{64}")
MAX_NUMBER = 2**63
"""More than anything that is counted or measured; a float holds it."""
MARKER, VERIFIED = "done.json", "verified.json"


class CorruptCellError(EraseBenchError):
    """A payload is not what its marker says."""


@dataclass(frozen=True)
class Marker:
    """The record that vouches for a cell.

    Attributes:
        identity: the cell's, for people and for ``erasebench doctor``.
        files: name -> size in bytes and SHA-256.
        cost: what the cell took: ``seconds``, ``peak_memory_mb`` and counts; never part of a result.
        kind: what it was told to be alike; ``units`` how much there was to do.
    """

    identity: dict[str, Any]
    files: dict[str, tuple[int, str]]
    cost: dict[str, Any] = field(default_factory=dict)
    kind: str = ""
    units: int = 1

    @property
    def reads(self) -> list[str]:
        """The keys of the cells that it was made of."""
        reads = self.identity["reads"]
        return list(reads.values() if isinstance(reads, dict) else reads)  # identity version 1 did not name them


def is_cell(folder: Path) -> bool:
    """True if a folder is where the cell of its name would be: ``ab/abc...``."""
    return bool(KEY.fullmatch(folder.name)) and folder.parent.name == folder.name[:2]


def find_marker(key: str, folder: Path) -> Marker | str:
    """A cell's marker, or what can be seen to be wrong without reading the payload."""
    if not folder.is_dir():
        return "is missing"
    try:
        marker = _read_marker(folder / MARKER)
        digest = identity_key(marker)
        sizes = _sizes(folder)
    except FileNotFoundError:
        return "is incomplete: it has no marker"
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return "is corrupt: its marker does not fit its files"
    if digest != key:
        return "is corrupt: its marker belongs to another cell"
    foreign = sorted(sizes.keys() - marker.files.keys())
    if foreign:
        return f"is corrupt: its marker does not list {foreign[0]}"
    if any(sizes.get(name) != size for name, (size, _) in marker.files.items()):
        return "is corrupt: its marker does not fit its files"
    return marker


def read_payload(folder: Path, marker: Marker) -> str | None:
    """The problem with a cell of a marker after reading every byte of it, or None, which is noted."""
    times = {name: (folder / name).stat().st_mtime_ns for name in marker.files}
    for name, (_, digest) in marker.files.items():
        if hash_file(folder / name) != digest:
            return f"is corrupt: {name} is not what was written"
    note_verified(folder, marker, times)
    return None


def note_verified(folder: Path, marker: Marker, times: Mapping[str, int]) -> None:
    """Note that the files of a cell are what its marker says.

    Args:
        folder: of the cell.
        marker: of the cell.
        times: when each file was written last, in nanoseconds, before its bytes were read.
    """
    # Only to save time, and worth nothing unless it agrees with the marker: it need not survive a kill, and where it
    # cannot be written the files are read again.
    with suppress(OSError):
        (folder / VERIFIED).write_text(json.dumps(_proof(marker, times)) + "\n", encoding="ascii")


def is_verified(folder: Path, marker: Marker) -> bool:
    """True if it is noted that the files of a cell are what its marker says, and none was written to since then."""
    try:
        noted = (folder / VERIFIED).stat().st_mtime_ns
        times = {name: (folder / name).stat().st_mtime_ns for name in marker.files}
        # A file that was written to in the same tick of the clock as the note could have changed after it.
        if max(times.values()) >= noted:
            return False
        return bool(json.loads((folder / VERIFIED).read_text(encoding="ascii")) == _proof(marker, times))
    except (OSError, ValueError, RecursionError):
        return False


def check_payload(key: str, folder: Path, marker: Marker) -> None:
    """Compare a folder with what a cell's marker says of its files, reading every byte.

    Raises:
        CorruptCellError: it is something else.
    """
    if {name: size for name, (size, _) in marker.files.items()} != _sizes(folder):
        raise CorruptCellError(f"cell {key[:12]} is corrupt: its marker does not fit its files")
    for name, (_, digest) in marker.files.items():
        if hash_file(folder / name) != digest:
            raise CorruptCellError(f"cell {key[:12]} is corrupt: {name} is not what was written")


def identity_key(marker: Marker) -> str:
    """The key of the cell that a marker is of."""
    return hashlib.sha256(canonical_json(marker.identity).encode()).hexdigest()


def _read_marker(path: Path) -> Marker:
    """Read a marker.

    Raises:
        OSError, or what :func:`parse_marker` raises.
    """
    return parse_marker(read_regular(path).decode())


def parse_marker(text: str) -> Marker:
    """A marker of its text; what it says is plain numbers and names of files below its folder.

    Raises:
        ValueError, KeyError, TypeError, AttributeError or RecursionError: it is none.
    """
    read = json.loads(text)
    canonical_json(read)  # NaN and infinity are refused, wherever they stand
    files = {name: (size, digest) for name, (size, digest) in read["files"].items()}
    for name, (size, digest) in files.items():
        parts = PurePosixPath(name).parts
        plain = parts and not name.startswith("/") and ".." not in parts and "/".join(parts) == name
        if not plain or type(size) is not int or not isinstance(digest, str):
            raise ValueError(name)
    identity, cost = read["identity"], read["cost"]
    if not files or not isinstance(identity, dict) or not isinstance(cost, dict):
        raise ValueError(text)
    if not isinstance(identity["stage"], str):
        raise ValueError(text)
    numbers = [value for name, value in cost.items() if value is not None or name == "seconds"]
    if not all(type(value) in (int, float) and 0 <= value < MAX_NUMBER for value in numbers):
        raise ValueError(text)
    kind, units = read.get("kind", ""), read.get("units", 1)
    if not isinstance(kind, str) or type(units) is not int or not 1 <= units < MAX_NUMBER:
        raise ValueError(text)
    marker = Marker(identity, files, cost, kind, units)
    if not all(KEY.fullmatch(key) for key in marker.reads):
        raise ValueError(text)
    return marker


def file_times(folder: Path) -> dict[str, int]:
    """The time when each file of a folder was written last, in nanoseconds, by its name there."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.stat().st_mtime_ns for path in paths}


def _sizes(folder: Path) -> dict[str, int]:
    """The size of each file of a payload; -1 of what is no file of its own, such as a link."""
    sizes: dict[str, int] = {}
    pending = [("", folder)]
    while pending:
        prefix, place = pending.pop()
        with os.scandir(place) as entries:
            for entry in entries:
                name = prefix + entry.name
                if entry.is_dir(follow_symlinks=False):
                    pending.append((f"{name}/", Path(entry.path)))
                    continue
                about = entry.stat(follow_symlinks=False)
                is_file = stat.S_ISREG(about.st_mode)
                if not (is_file and name in (MARKER, VERIFIED)) and not name.endswith(PARTIAL):
                    sizes[name] = about.st_size if is_file else -1
    return sizes


def _proof(marker: Marker, times: Mapping[str, int]) -> dict[str, list[Any]]:
    """The content of a note of verified files: size, hash and time of change of each."""
    return {name: [size, digest, times[name]] for name, (size, digest) in marker.files.items()}
