"""The store: a folder of finished cells that any number of runs share.

``cells/ab/<key>/`` holds a cell's payload and ``done.json``, the marker that vouches for it with the payload's sizes
and hashes.  The payload is written under a temporary name, synced and renamed; the marker comes last.  Without a
marker that verifies, a cell does not exist.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock

from erasebench.durable import PARTIAL, sync, write_durably
from erasebench.engine.cells import Cell, canonical_json
from erasebench.errors import EraseBenchError

FORMAT = 1
MARKER = "done.json"


class CorruptCellError(Exception):
    """A payload is not what its marker says."""


@dataclass(frozen=True)
class Marker:
    """What vouches for a cell.

    Attributes:
        identity: the cell's, for people and for ``erasebench doctor``.
        files: name -> size in bytes and SHA-256.
        cost: what the cell took: ``seconds``, ``peak_memory_mb`` and counts; never part of a result.
    """

    identity: dict[str, Any]
    files: dict[str, tuple[int, str]]
    cost: dict[str, Any] = field(default_factory=dict)


class Store:
    """A store in a folder.

    Args:
        root: the folder.
        make: make the store if it is not there; otherwise it is read as an empty one.

    Raises:
        EraseBenchError: the folder cannot be written, is no store, or is one of a newer version.
    """

    def __init__(self, root: Path, make: bool = True) -> None:
        self.root = root
        self._verified: set[str] = set()
        about = root / "store.json"
        try:
            if make:
                root.mkdir(parents=True, exist_ok=True)
            if not about.exists():
                inside = root.iterdir() if root.exists() else ()
                others = [path.name for path in inside if not path.name.startswith(("cells", "store.json"))]
                # Another run may have made the store in between.
                if others and not about.exists():
                    raise EraseBenchError(f"{root} is no store and not empty (it holds {others[0]}); name another")
                if not make:
                    return
                write_durably(about, json.dumps({"format": FORMAT}) + "\n")
            if make:
                (root / "cells").mkdir(exist_ok=True)
        except OSError as error:
            raise EraseBenchError(f"the store {root} cannot be written: {error.strerror or error}") from error
        try:
            found = json.loads(about.read_text(encoding="utf-8"))["format"]
        except (ValueError, KeyError, TypeError, OSError) as error:
            raise EraseBenchError(f'{about} is corrupt ({error}); a store\'s says {{"format": {FORMAT}}}') from error
        if found != FORMAT:
            newer = "a newer erasebench" if isinstance(found, int) and found > FORMAT else "something else"
            raise EraseBenchError(
                f"the store {root} was written by {newer} (format {found}, known: {FORMAT}); upgrade erasebench or "
                "give another folder"
            )

    def folder(self, key: str) -> Path:
        """Where a cell's payload is, or would be."""
        return self.root / "cells" / key[:2] / key

    def marker(self, key: str) -> Marker | None:
        """The marker of a finished cell whose files are all there with their sizes; None otherwise."""
        folder = self.folder(key)
        try:
            read = json.loads((folder / MARKER).read_text(encoding="utf-8"))
            files = {name: (int(size), str(digest)) for name, (size, digest) in read["files"].items()}
            marker = Marker(read["identity"], files, read["cost"])
            if any((folder / name).stat().st_size != size for name, (size, _) in files.items()):
                return None
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None
        return marker

    def verify(self, key: str) -> str | None:
        """What is wrong with a cell after reading every byte of it, or None."""
        self._verified.discard(key)
        folder = self.folder(key)
        if not folder.is_dir():
            return "is missing"
        marker = self.marker(key)
        if marker is None:
            broken = (folder / MARKER).exists()
            return "is corrupt: its marker does not fit its files" if broken else "is incomplete: it has no marker"
        for name, (_, digest) in marker.files.items():
            if file_sha256(folder / name) != digest:
                return f"is corrupt: {name} is not what was written"
        if hashlib.sha256(canonical_json(marker.identity).encode()).hexdigest() != key:
            return "is corrupt: its marker belongs to another cell"
        self._verified.add(key)
        return None

    def read(self, key: str) -> Path:
        """The folder of a finished cell, every byte of it verified once by this process.

        Raises:
            CorruptCellError: what is wrong with it.
        """
        if key not in self._verified:
            problem = self.verify(key)
            if problem:
                raise CorruptCellError(f"cell {key[:12]} {problem}")
        return self.folder(key)

    @contextmanager
    def writing(self, cell: Cell, cost: Mapping[str, Any]) -> Iterator[Path]:
        """A temporary folder for a cell's payload; leaving the block without an error commits it.

        Args:
            cell: whose payload.
            cost: read when the block ends.
        """
        target = self.folder(cell.key)
        partial = target.with_name(target.name + PARTIAL)
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        try:
            yield partial
            paths = sorted(path for path in partial.rglob("*") if path.is_file())
            for path in paths:
                sync(path)
            files = {p.relative_to(partial).as_posix(): (p.stat().st_size, file_sha256(p)) for p in paths}
            shutil.rmtree(target, ignore_errors=True)
            partial.rename(target)
            sync(target.parent)
            marker = {"identity": cell.identity, "files": files, "cost": dict(cost)}
            write_durably(target / MARKER, json.dumps(marker, sort_keys=True) + "\n")
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        self._verified.discard(cell.key)

    def lock(self, key: str) -> FileLock:
        """Held by whoever computes a cell; the system releases it when its process ends, however it ends."""
        folder = self.root / "locks"
        folder.mkdir(exist_ok=True)
        return FileLock(folder / f"{key}.lock")

    def work(self, key: str) -> Path:
        """A folder for a cell in the making, which survives a kill."""
        return self.root / "work" / key

    def clear_work(self, key: str) -> None:
        """Remove what a finished cell needed while it was made."""
        shutil.rmtree(self.work(key), ignore_errors=True)

    def cells(self) -> list[str]:
        """All cells that have a folder, finished or not."""
        return sorted(path.name for path in self.root.glob("cells/??/*") if path.is_dir() and PARTIAL not in path.name)

    def leftovers(self) -> list[Path]:
        """Temporary folders of killed runs."""
        return sorted(self.root.glob(f"cells/??/*{PARTIAL}"))

    def remove(self, key: str) -> None:
        """Forget a cell."""
        self._verified.discard(key)
        shutil.rmtree(self.folder(key), ignore_errors=True)


def file_sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
