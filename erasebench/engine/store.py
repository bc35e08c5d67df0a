"""The store: a folder of finished cells that any number of runs share.

``cells/ab/<key>/`` holds a cell's payload and ``done.json``, the marker that vouches for it with the payload's sizes
and hashes: :mod:`erasebench.engine.markers`.  Both are written into a folder of a temporary name: the payload is
synced, then the marker, and then the folder gets its name, in one step that fails if another run was first.  Without a
marker that verifies, a cell does not exist.

``leases/`` says which cells runs are at, and that they are at work: :mod:`erasebench.engine.leases`.

A store may also be in a bucket: :mod:`erasebench.engine.objects`.  :mod:`erasebench.engine.opening` opens stores
wherever they are.
"""

from __future__ import annotations

import errno
import json
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path, PurePath
from typing import Any

from erasebench.engine.cells import Cell
from erasebench.engine.leases import FolderLeases, Lease, Leases
from erasebench.engine.markers import (
    KEY,
    MARKER,
    CorruptCellError,
    Marker,
    check_payload,
    file_times,
    find_marker,
    is_cell,
    is_verified,
    note_verified,
    read_payload,
)
from erasebench.engine.store_format import ABOUT, FORMAT, check_format, corrupt
from erasebench.errors import EraseBenchError
from erasebench.files import (
    PARTIAL,
    cannot_write,
    hash_file,
    make_folder,
    read_regular,
    remove,
    sync,
    sync_folder,
    write_durably,
)

CELLS, LEASES, WORK = "cells", "leases", "work"
MIRROR = "mirror.txt"
"""In the mirror of a store in a bucket: its URL."""
RUN, CLEARING = "run-", "clearing"
"""Leases that are not of cells: of each run that is at work, with its owner, and of who removes what runs may read."""


class Store:
    """A store in a folder.

    Args:
        root: the folder.
        make: make the store if it is not there; otherwise it is read as an empty one.

    Attributes:
        name: what messages call it.
        leases: which cells runs are at.

    Raises:
        EraseBenchError: the folder cannot be written, is no store, or is one of a newer version.
    """

    def __init__(self, root: Path, make: bool = True) -> None:
        self.root = root
        self.name = str(root)
        self.leases: Leases = FolderLeases(root / LEASES)
        self._verified: set[str] = set()
        about = root / ABOUT
        try:
            if make:
                root.mkdir(parents=True, exist_ok=True)
            if not os.path.lexists(about):
                inside = root.iterdir() if root.exists() else ()
                others = [path.name for path in inside if not path.name.startswith((CELLS, ABOUT))]
                # Another run may have made the store in between.
                if others and not os.path.lexists(about):
                    raise EraseBenchError(f"{root} is no store and not empty (it holds {others[0]}); name another")
                if not make:
                    return
                write_durably(about, json.dumps({"format": FORMAT}) + "\n")
            if make:
                for name in (CELLS, LEASES, WORK):
                    (root / name).mkdir(exist_ok=True)
        except OSError as error:
            raise cannot_write(f"the store {root}", error) from error
        try:
            text = read_regular(about).decode()
        except (OSError, ValueError) as error:
            raise corrupt(str(about), getattr(error, "strerror", None) or error) from error
        check_format(text, self.name)

    def check_may_clear(self) -> None:
        """Refuse to have anything removed from the mirror of a bucket, in which the leases of its runs are.

        Raises:
            EraseBenchError: this is one; the message names the URL.
        """
        with suppress(FileNotFoundError):
            url = (self.root / MIRROR).read_text(encoding="utf-8").strip()
            raise EraseBenchError(f"{self.root} is the mirror of {url}: name that store, where its runs can be seen")

    def bring(self, keys: Iterable[str]) -> None:
        """Have those of some cells at hand that there are: nothing to do in a folder.

        Args:
            keys: of the cells, which need not be there.
        """

    def folder(self, key: str) -> Path:
        """The folder in which a cell's payload is, or would be."""
        return self.root / CELLS / key[:2] / key

    def marker(self, key: str) -> Marker | None:
        """The marker of a finished cell whose files are all there with their sizes, and no other; None otherwise."""
        marker = find_marker(key, self.folder(key))
        return marker if isinstance(marker, Marker) else None

    def check(self, key: str) -> str | None:
        """The problem with a cell, or None; files are read unless their bytes are known to be right.

        They are if they were verified before, here or by another process, and have not been written to since then.
        """
        if key in self._verified:
            return None
        entry = self.find(key)
        return entry if isinstance(entry, str) else None

    def find(self, key: str, anew: bool = False) -> Marker | str:
        """The marker of a cell that passes :meth:`check`, or what is wrong with the cell.

        Args:
            key: of the cell.
            anew: count on no listing that is older than this call; a folder is never listed.
        """
        return self._find(key)

    def has(self, key: str) -> bool:
        """True if there is something of a cell, finished or not, sound or damaged."""
        return self.folder(key).exists()

    def is_finished(self, key: str) -> bool:
        """True if a cell is there, so that it need not be brought."""
        return isinstance(self.find(key), Marker)

    def size(self, key: str) -> int:
        """Bytes that a cell takes."""
        return _size(self.folder(key))

    def copy_payload(self, key: str, marker: Marker, folder: Path) -> None:
        """Put the files of a cell that has a marker into another folder.

        Raises:
            OSError: they cannot be read or written.
        """
        for name in marker.files:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(self.folder(key) / name, folder / name)

    def _find(self, key: str) -> Marker | str:
        """The result of :meth:`find` in the folder."""
        marker = find_marker(key, self.folder(key))
        if isinstance(marker, str) or key in self._verified or is_verified(self.folder(key), marker):
            return marker
        return self._read(key, marker) or marker

    def verify(self, key: str) -> str | None:
        """The problem with a cell after reading every byte of it, or None."""
        self._verified.discard(key)
        marker = find_marker(key, self.folder(key))
        return marker if isinstance(marker, str) else self._read(key, marker)

    def read(self, key: str) -> Path:
        """The folder of a finished cell that passes :meth:`check`.

        Raises:
            CorruptCellError: what is wrong with it.
        """
        problem = self.check(key)
        if problem:
            raise CorruptCellError(f"cell {key[:12]} {problem}")
        self._verified.add(key)
        return self.folder(key)

    def _read(self, key: str, marker: Marker) -> str | None:
        problem = read_payload(self.folder(key), marker)
        if problem is None:
            self._verified.add(key)
        return problem

    @contextmanager
    def writing(self, cell: Cell, cost: Mapping[str, Any]) -> Iterator[Path]:
        """A temporary folder for a cell's payload; leaving the block without an error commits it.

        If the cell has a result by then, as that of a run that took over its lease, that one stays.  With a result,
        whatever others have half-written is cleared away: one that lost its lease may find its folder gone.

        Args:
            cell: whose payload.
            cost: read when the block ends.

        Raises:
            EraseBenchError: there is no place for it.
        """
        with self._partial(cell.key) as partial:
            yield partial
            times = file_times(partial)
            files = {name: ((partial / name).stat().st_size, hash_file(partial / name)) for name in times}
            self._commit(cell.key, partial, Marker(cell.identity, files, dict(cost), cell.kind, cell.units), times)

    @contextmanager
    def adopting(self, key: str, marker: Marker) -> Iterator[Path]:
        """A temporary folder for the payload of a cell that was finished elsewhere, with its marker from there.

        Raises:
            CorruptCellError: when the block ends, if the payload is not what the marker says; nothing is committed.
            EraseBenchError: there is no place for it.
        """
        with self._partial(key) as partial:
            yield partial
            times = file_times(partial)
            check_payload(key, partial, marker)
            self._commit(key, partial, marker, times)

    @contextmanager
    def _partial(self, key: str) -> Iterator[Path]:
        """An empty folder for what is to be a cell, which is gone after the block."""
        partial = self._place(key, self.leases.owner)
        try:
            make_folder(partial.parent)
            remove(partial)
            partial.mkdir()
        except OSError as error:
            raise cannot_write(f"the store {self.root}", error) from error
        try:
            yield partial
        finally:
            with suppress(OSError):  # an error that is under way is the one to tell
                remove(partial)

    def _place(self, key: str, owner: str) -> Path:
        """The folder in which the owner of a lease writes a cell."""
        return self.folder(key).with_name(f"{key}.{owner}{PARTIAL}")

    def _commit(self, key: str, partial: Path, marker: Marker, times: Mapping[str, int]) -> None:
        """Make a cell of a folder that holds its payload, unless there is a sound one.

        Args:
            key: of the cell.
            partial: the folder.
            marker: with the hashes of its files.
            times: when the files were written last, before they were hashed: what is written later is not vouched for.
        """
        sync_folder(partial)
        note_verified(partial, marker, times)
        write_durably(partial / MARKER, json.dumps(vars(marker), sort_keys=True) + "\n")
        self._verified.discard(key)
        target = self.folder(key)
        while True:
            try:
                partial.rename(target)
                break
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                    raise
            if isinstance(self._find(key), Marker):
                break
            self._remove(key)
        sync(target.parent)
        for path in (self.root / WORK / key, *target.parent.glob(f"{key}*{PARTIAL}")):
            with suppress(OSError):  # a worker that was lost may still write there
                remove(path)

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Tell others, for the time of a block, that a run relies on the cells of this store.

        What runs of this machine left that were killed is cleared away first.

        Raises:
            EraseBenchError: somebody removes cells at this moment, or the store cannot be written.
        """
        try:
            with self.leases.holding(f"{RUN}{self.leases.owner}"):
                self.leases.tidy()
                for lease in self.leases.seen():
                    if lease.ended:
                        self._clear_up_after(lease)
                    elif lease.name == CLEARING:
                        raise EraseBenchError(
                            f"the store {self.name} is being cleared by {lease}; wait until it has ended, or, if it is "
                            f"no longer there, run `erasebench doctor --fix --store {self.name}`"
                        )
                yield
        except OSError as error:
            if Path(str(error.filename)).is_relative_to(self.root / LEASES):
                raise cannot_write(f"the store {self.root}", error) from error
            raise

    def _clear_up_after(self, lease: Lease) -> None:
        """Remove the lease of a run that was killed, and what it left of the cell that nobody goes on from."""
        if lease.holder and lease.name.startswith(RUN):
            remove(self.root / WORK / lease.name)
        elif lease.holder and KEY.fullmatch(lease.name):
            place = self._place(lease.name, lease.holder.owner)
            for path in place.parent.glob(f"{place.name.removesuffix(PARTIAL)}*{PARTIAL}"):
                remove(path)
            if self.marker(lease.name):
                remove(self.root / WORK / lease.name)
        self.leases.drop(lease)

    @contextmanager
    def clearing(self) -> Iterator[None]:
        """Keep runs out for the time of a block that removes what they may rely on.

        Raises:
            EraseBenchError: a run is at work in this store.
        """
        with self.leases.holding(CLEARING) as alone:
            # Whoever comes tells of itself before it looks for others, so that of two who come at once one sees the
            # other at least.
            alive, abandoned = self.leases.survey() if alone else ([], {})
            if alive or not alone:
                who = alive[0] if alive else "another `erasebench store gc`"
                raise EraseBenchError(f"the store {self.name} is in use by {who}; wait until it has ended")
            for lease in abandoned:
                self.leases.drop(lease)
            self.leases.tidy()
            yield

    def markers(self, keys: Iterable[str] | None = None) -> Iterator[tuple[str, Marker | None]]:
        """The markers of some cells, or of all that there are; None for one that is not finished."""
        return ((key, self.marker(key)) for key in (self.cells() if keys is None else keys))

    def work(self, key: str) -> Path:
        """A folder for a cell in the making, which survives a kill; made if it is not there.

        One of the name of a run's own lease is for what its workers elsewhere need, and is cleared away after the run.
        """
        folder = self.root / WORK / key
        make_folder(folder)
        return folder

    def works(self) -> list[Path]:
        """The folders of cells in the making."""
        return sorted(path for path in self.root.glob(f"{WORK}/*") if path.is_dir())

    def cells(self) -> list[str]:
        """All cells that have a folder, finished or not."""
        return sorted(path.name for path in self.root.glob(f"{CELLS}/??/*") if path.is_dir() and is_cell(path))

    def leftovers(self, key: str = "") -> dict[PurePath, str]:
        """Temporary files and folders of killed runs, each with the key of its cell.

        Args:
            key: look for those of one cell only.
        """
        cells = f"{CELLS}/{key[:2] or '??'}/{key}*"
        paths = sorted((*self.root.glob(f"{cells}{PARTIAL}"), *self.root.glob(f"{cells}/*{PARTIAL}")))
        return {path: path.relative_to(self.root / CELLS).parts[1].partition(".")[0] for path in paths}

    def size_beside(self, path: PurePath) -> int:
        """Bytes of what lies beside cells."""
        return _size(Path(path))

    def clear(self, path: PurePath) -> None:
        """Remove what lies beside cells."""
        remove(Path(path))

    def remove(self, key: str) -> None:
        """Forget a cell: in one step, so that a kill leaves nothing that looks like a damaged one."""
        self._remove(key)

    def _remove(self, key: str) -> None:
        self._verified.discard(key)
        folder = self.folder(key)
        aside = self._place(key, secrets.token_hex(8))
        with suppress(FileNotFoundError):
            folder.rename(aside)
        remove(aside)


def _size(path: Path) -> int:
    """Bytes of a file, or of all files below a folder."""
    return sum(each.lstat().st_size for each in (path, *path.rglob("*")) if not each.is_dir())
