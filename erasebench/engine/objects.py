"""Stores in a bucket (:mod:`erasebench.engine.bucket`).

Such a store has a *mirror*, an ordinary store in a folder of this machine, in which all work is done and from which all
is read:

- a cell that the bucket has is brought into the mirror before it is read, and compared with its marker on the way;
- a cell that is finished is committed in the mirror, then its payload is uploaded, and its marker last, while its lease
  is held: ``erasebench doctor`` takes objects that no marker names for leftovers where nobody holds one.

``markers/<key>.json`` is the marker of a cell, and ``payloads/<key>/<hash>/<name>`` a file of its payload.  Since the
hash is in the name, two runs that write the same cell never overwrite each other's bytes; the marker, which is made
only if there is none, says whose count.  What no marker names does not exist.

``leases/`` says which cells runs are at: :mod:`erasebench.engine.object_leases`.  The one thing that a bucket has to
have is that an object can be made only if there is none (``If-None-Match`` of S3): a store is not opened for writing
where that is not so.
"""

from __future__ import annotations

import json
import os
import re
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path, PurePath, PurePosixPath
from typing import Any, TypeVar

from erasebench.engine.bucket import Bucket
from erasebench.engine.cells import Cell, short_hash
from erasebench.engine.markers import KEY, CorruptCellError, Marker, check_payload, identity_key, parse_marker
from erasebench.engine.object_leases import ObjectLeases
from erasebench.engine.store import MIRROR, Store
from erasebench.engine.store_format import ABOUT, FORMAT, check_format
from erasebench.errors import EraseBenchError
from erasebench.files import cannot_write, write_durably
from erasebench.terminal import say

MARKERS, PAYLOADS = "markers", "payloads"
T = TypeVar("T")
MIRRORS = "ERASEBENCH_MIRRORS"
"""The environment variable that names the folder in which the mirrors of buckets are."""
THREADS = 16
"""So many objects are asked for at once."""


def mirror_folder(url: str, identity: str) -> Path:
    """The folder of a store's mirror: a name that people recognise, and what tells it from all others."""
    folder = Path(os.environ.get(MIRRORS) or "~/.cache/erasebench/mirrors").expanduser()
    readable = re.sub("[^A-Za-z0-9.]+", "-", url)[:80]
    return folder / f"{readable}-{short_hash([url, identity])}"


class ObjectStore(Store):
    """A store in a bucket, with its mirror, whose folder is ``root``.

    Where no cell's lease is held, what the bucket has is known from a listing of its markers, one request for a
    thousand cells; who holds the lease of a cell asks for its marker.  The bucket's marker says what a cell is: where a
    listing of payloads leaves open whether the mirror has the same, the marker is asked for.

    Args:
        url: see :class:`Bucket`.
        make: make the store if it is not there; otherwise it is read as an empty one.

    Attributes:
        exists: whether there is such a store.

    Raises:
        EraseBenchError: the bucket cannot be reached or written, holds something else, or a store of a newer version.
    """

    def __init__(self, url: str, make: bool = True) -> None:
        if url.startswith("memory:"):
            raise EraseBenchError(f"{url} would be gone with this process; name a folder or a bucket")
        self.bucket = Bucket(url)
        description = self._introduce(make)
        self.exists, self._writes = description is not None, make
        super().__init__(mirror_folder(self.bucket.url, str((description or {}).get("id", ""))), make=self.exists)
        if self.exists and not (self.root / MIRROR).exists():
            try:
                write_durably(self.root / MIRROR, f"{self.bucket.url}\n")
            except OSError as error:
                raise cannot_write(f"the store {self.root}", error) from error
        self.name = self.bucket.url
        self.leases = ObjectLeases(self.bucket)
        self._listed: set[str] | None = None
        self._payloads: dict[str, dict[str, int]] | None = None
        """By cell the names and sizes of its objects, when they were listed last."""
        self._damaged: dict[str, str] = {}
        """Cells of the bucket that were found to be damaged, and how."""
        self._same: set[str] = set()
        """Cells that the mirror has as the bucket has them."""

    def __reduce__(self) -> tuple[type[Store], tuple[Path]]:
        """In a worker: the mirror, which has all that a worker reads."""
        return Store, (self.root,)

    def _introduce(self, make: bool) -> dict[str, Any] | None:
        """The description that the store gives of itself; None if there is none."""
        text = self.bucket.read(ABOUT)
        if text is None:
            other = self.bucket.first()
            # Another run may have made the store in between.
            if other is not None and self.bucket.read(ABOUT) is None:
                raise EraseBenchError(f"{self.bucket.url} is no store and not empty (it holds {other}); name another")
            if not make:
                return None
            description = json.dumps({"format": FORMAT, "id": secrets.token_hex(8)}) + "\n"
            self.bucket.write(ABOUT, description.encode(), new=True)
            text = self.bucket.read(ABOUT) or b""  # of several who make it at once, one has it
        description = text.decode(errors="replace")
        known = check_format(description, self.bucket.url)
        if make and self.bucket.write(ABOUT, text, new=True):
            raise EraseBenchError(
                f"{self.bucket.url} overwrites an object that is to be made only if there is none, so that runs cannot "
                "agree on who computes what; use a server that knows If-None-Match, or a folder"
            )
        return known

    def check_may_clear(self) -> None:
        """Do nothing: whoever names the bucket sees its runs."""

    def bring(self, keys: Iterable[str]) -> None:
        """Bring those of some cells that the bucket has into the mirror, many at once."""
        listed = self._list()
        absent = [key for key in keys if key in listed and super(ObjectStore, self).marker(key) is None]
        if absent:
            say(f"bringing {len(absent)} cells from {self.name} to {self.root}")
        for _ in _at_once(self._bring, absent):
            pass

    def marker(self, key: str) -> Marker | None:
        """The marker of a cell that is finished in the bucket, or else in the mirror; None if there is none."""
        here = super().marker(key)
        if key in self._damaged or (here and self._is_same(key, here)):
            return here
        marker = self._ask_if_listed(key)
        return marker if isinstance(marker, Marker) else here

    def markers(self, keys: Iterable[str] | None = None) -> Iterator[tuple[str, Marker | None]]:
        """The markers of some cells, or of all that there are, many at once; None for one that is not finished."""
        listed = self._list()
        all_keys = sorted(listed) if keys is None else list(keys)
        return zip(all_keys, _at_once(self.marker, all_keys), strict=True)

    def find(self, key: str, anew: bool = False) -> Marker | str:
        """The marker of a cell that is sound in the mirror, or that was just brought there, or what is wrong with it.

        Where the bucket has other bytes, it is brought.  One that only the mirror has, as after a kill, is uploaded by
        who holds its lease, without which nobody may rely on what no marker names; to other runs it is missing.
        """
        if anew and key not in self._known():
            self._ask(key)
        entry = self._find(key)
        if isinstance(entry, Marker):
            if self._is_same(key, entry):
                return entry
            original = self._ask_if_listed(key)
            if isinstance(original, Marker):
                return self._take(key, original, entry)
            if self._writes and self.leases.is_held(key):
                self._upload(key, self.folder(key), entry)
                return self._find(key)
            return _MISSING if self._writes and original == _MISSING else entry
        if key in self._damaged and not self.leases.is_held(key):
            return self._damaged[key]
        brought = self._bring(key)
        return entry if brought == _MISSING else brought

    def has(self, key: str) -> bool:
        """True if the bucket has a marker of a cell."""
        return key in self._known()

    def is_finished(self, key: str) -> bool:
        """True if the bucket has a cell, so that it need not be brought there."""
        return isinstance(self._ask_if_listed(key), Marker)

    def size(self, key: str) -> int:
        """Bytes of a cell's payload in the bucket, when that was listed last."""
        return sum(self._known_payloads().get(key, {}).values())

    def verify(self, key: str) -> str | None:
        """The problem with a cell in the bucket after reading every byte of it, or None; the mirror stays."""
        marker = self._ask(key)
        if isinstance(marker, str):
            return marker
        try:
            with self._partial(key) as folder:
                self.copy_payload(key, marker, folder)
                check_payload(key, folder, marker)
        except CorruptCellError as error:
            return self._is_damaged(key, error)
        return None

    def copy_payload(self, key: str, marker: Marker, folder: Path) -> None:
        """Download the files of a cell that has a marker.

        Raises:
            CorruptCellError: the bucket lacks one.
        """
        for name, (_, digest) in marker.files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            if not self.bucket.download(_payload(key, name, digest), folder / name):
                raise CorruptCellError(f"cell {key[:12]} is corrupt: {name} is not there")

    @contextmanager
    def writing(self, cell: Cell, cost: Mapping[str, Any]) -> Iterator[Path]:
        """A temporary folder for a cell's payload; leaving the block commits it in the mirror, then in the bucket."""
        with super().writing(cell, cost) as folder:
            yield folder
        marker = super().marker(cell.key)
        if marker:
            self._upload(cell.key, self.folder(cell.key), marker)

    @contextmanager
    def adopting(self, key: str, marker: Marker) -> Iterator[Path]:
        """A temporary folder for the payload of a cell that was finished elsewhere; it goes to the bucket alone."""
        with self._partial(key) as folder:
            yield folder
            check_payload(key, folder, marker)
            self._upload(key, folder, marker)

    def cells(self) -> list[str]:
        """All cells of which the bucket has a marker."""
        return sorted(self._list())

    def leftovers(self, key: str = "") -> dict[PurePath, str]:
        """All that lies half-written in the mirror, and objects of the bucket that no marker names."""
        payloads = self._list_payloads(key)
        self._list()
        leftovers: dict[PurePath, str] = {}
        for each, named in zip(payloads, _at_once(self._named, payloads), strict=True):
            if named is not None:
                leftovers |= {PurePosixPath(name): each for name in payloads[each] if name not in named}
        return super().leftovers(key) | leftovers

    def _named(self, key: str) -> set[str] | None:
        """The objects that the marker of a cell names, if it has one; None where that is damaged."""
        marker = self._ask(key) if key in self._known() else _MISSING
        if isinstance(marker, Marker):
            return _named_by(key, marker)
        return set() if marker == _MISSING else None

    def size_beside(self, path: PurePath) -> int:
        """Bytes of what lies beside cells."""
        if isinstance(path, Path):
            return super().size_beside(path)
        return self._known_payloads().get(path.parts[1], {}).get(str(path), 0)

    def clear(self, path: PurePath) -> None:
        """Remove what lies beside cells."""
        if isinstance(path, Path):
            super().clear(path)
        else:
            self.bucket.remove(str(path))

    def remove(self, key: str) -> None:
        """Forget a cell, its marker first, so that a kill leaves nothing that looks like a damaged one."""
        self.bucket.remove(_marker(key))
        for name in self.bucket.list(f"{PAYLOADS}/{key}"):
            self.bucket.remove(name)
        self._known().discard(key)
        self._damaged.pop(key, None)
        self._same.discard(key)
        self._remove(key)

    def _is_same(self, key: str, marker: Marker) -> bool:
        """True if the bucket is known to have a cell as the mirror has it, without asking for its marker."""
        if key in self._same:
            return True
        # Nobody writes a marker before what it names, so that it can name nothing but what is there.
        same = key in self._known() and {*self._known_payloads().get(key, ())} == _named_by(key, marker)
        if same:
            self._same.add(key)
        return same

    def _take(self, key: str, original: Marker, copy: Marker) -> Marker | str:
        """Have a cell in the mirror as the bucket has it, which was written first."""
        if original.files != copy.files:
            self._remove(key)
            return self._bring(key)
        self._same.add(key)
        return copy

    def _list_payloads(self, key: str = "") -> dict[str, dict[str, int]]:
        """By cell the names and sizes of objects, of all cells or of one, by a new listing."""
        payloads: dict[str, dict[str, int]] = {}
        for name, about in self.bucket.list(f"{PAYLOADS}/{key}").items():
            payloads.setdefault(name.split("/")[1], {})[name] = int(about["size"])
        if not key:
            self._payloads = payloads
        elif self._payloads is not None:
            self._payloads |= payloads
        return payloads

    def _known_payloads(self) -> dict[str, dict[str, int]]:
        """As :meth:`_list_payloads`, by a listing that is younger than that of markers."""
        return self._list_payloads() if self._payloads is None else self._payloads

    def _list(self) -> set[str]:
        """The keys of all cells of which the bucket has a marker, by a new listing."""
        names = self.bucket.list(MARKERS) if self.exists else ()
        keys = (PurePosixPath(name).stem for name in names)
        self._listed, self._payloads = {key for key in keys if KEY.fullmatch(key)}, None
        return self._listed

    def _known(self) -> set[str]:
        """As :meth:`_list`, by the last listing, and what is known since then."""
        return self._list() if self._listed is None else self._listed

    def _ask_if_listed(self, key: str) -> Marker | str:
        return self._ask(key) if key in self._known() or self.leases.is_held(key) else _MISSING

    def _ask(self, key: str) -> Marker | str:
        """The marker that the bucket has of a cell, or what is wrong with it."""
        text = self.bucket.read(_marker(key))
        if text is None:
            self._known().discard(key)
            return _MISSING
        self._known().add(key)
        try:
            marker = parse_marker(text.decode())
            if identity_key(marker) != key:
                raise ValueError(key)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            self._damaged[key] = f"is corrupt: its marker in {self.name} is not what was written"
            return self._damaged[key]
        return marker

    def _bring(self, key: str) -> Marker | str:
        """Bring a cell into the mirror: its marker, or what is wrong with it."""
        marker = self._ask_if_listed(key)
        if isinstance(marker, str):
            return marker
        try:
            with super().adopting(key, marker) as folder:
                self.copy_payload(key, marker, folder)
        except (CorruptCellError, FileNotFoundError) as error:
            # Another run on this machine that brought it first may have cleared away what was written here.
            entry = self._find(key)
            return entry if isinstance(entry, Marker) else self._is_damaged(key, error)
        self._damaged.pop(key, None)
        self._same.add(key)
        return marker

    def _is_damaged(self, key: str, error: Exception) -> str:
        """Note that a cell of the bucket is damaged, and say how."""
        damage = str(error).removeprefix(f"cell {key[:12]} ")
        self._damaged[key] = f"{damage} (in {self.name})"
        return self._damaged[key]

    def _upload(self, key: str, folder: Path, marker: Marker) -> None:
        """Bring a finished cell to the bucket, unless it has one that is not known to be damaged."""
        ours = {_payload(key, name, digest): folder / name for name, (_, digest) in marker.files.items()}
        for name, path in ours.items():
            self.bucket.upload(path, name)
        text = json.dumps(vars(marker), sort_keys=True) + "\n"
        if not self.bucket.write(_marker(key), text.encode(), new=key not in self._damaged):
            theirs = self._ask(key)
            if isinstance(theirs, str):
                self.bucket.write(_marker(key), text.encode())
            elif theirs.files != marker.files:
                # Another run was first: the cell is what that one made of it, here as well, for workers to read.
                for name in ours.keys() - _named_by(key, theirs):
                    self.bucket.remove(name)
                if folder == self.folder(key):
                    self._take(key, theirs, marker)
                return
        self._damaged.pop(key, None)
        self._known().add(key)
        if folder == self.folder(key):
            self._same.add(key)


_MISSING = "is missing"


def _marker(key: str) -> str:
    return f"{MARKERS}/{key}.json"


def _payload(key: str, name: str, digest: str) -> str:
    return f"{PAYLOADS}/{key}/{digest}/{name}"


def _named_by(key: str, marker: Marker) -> set[str]:
    """The objects that a marker of a cell names."""
    return {_payload(key, name, digest) for name, (_, digest) in marker.files.items()}


def _at_once(act: Callable[[str], T], keys: Iterable[str]) -> Iterator[T]:
    """Do something for each of some cells, for many at a time, and give what comes of it, in their order."""
    with ThreadPoolExecutor(THREADS) as pool:
        yield from pool.map(act, keys)
