"""Stores in a bucket, and how stores are opened wherever they are.

A bucket is whatever fsspec reaches by a URL: ``s3://bucket/prefix``, ``gs://``, ``az://``.  A store there has a
*mirror*, an ordinary store in a folder of this machine, in which all work is done and from which all is read:

- a cell that the bucket has is brought into the mirror before it is read, and compared with its marker on the way;
- a cell that is finished is committed in the mirror, then its payload is uploaded, and its marker last, while its lease
  is held: ``erasebench doctor`` takes objects that no marker names for leftovers where nobody holds one.

``markers/<key>.json`` is the marker of a cell, and ``payloads/<key>/<hash>/<name>`` a file of its payload.  Since the
hash is in the name, two runs that write the same cell never overwrite each other's bytes; the marker, which is made
only if there is none, says whose count.  What no marker names does not exist.

``leases/<name>.<generation>`` is a lease, and ``leases/beats/<owner>`` the sign of life of a process, for all leases
that it holds.  The one thing that a bucket has to have is that an object can be made only if there is none
(``If-None-Match`` of S3): a store is not opened for writing where that is not so.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path, PurePath, PurePosixPath
from typing import Any, TypeVar

from erasebench.engine.cells import Cell, short_hash
from erasebench.engine.leases import Claim, Lease, Leases
from erasebench.engine.store import (
    ABOUT,
    FORMAT,
    KEY,
    MIRROR,
    CorruptCellError,
    Marker,
    Store,
    StoreLostError,
    check_format,
    check_payload,
    identity_key,
    parse_marker,
)
from erasebench.errors import EraseBenchError, check_name, one_line
from erasebench.files import Place, cannot_write, is_disk_full, write_durably
from erasebench.terminal import say

MARKERS, PAYLOADS, LEASES, BEATS = "markers", "payloads", "leases", "leases/beats"
T = TypeVar("T")
MIRRORS = "ERASEBENCH_MIRRORS"
"""The environment variable that names the folder in which the mirrors of buckets are."""
NAME = re.compile("[0-9a-z-]+")
"""What leases are called; their names become parts of paths."""
THREADS = 16
"""So many objects are asked for at once."""


def store_at(place: Place, make: bool = True) -> Store:
    """The store in a folder or a bucket.

    Args:
        place: the folder, or the URL.
        make: make the store if it is not there; otherwise it is read as an empty one.

    Raises:
        EraseBenchError: it cannot be written or reached, is no store, or is one of a newer version.
    """
    return ObjectStore(place, make) if isinstance(place, str) else Store(place, make)


def store_to_read(place: Place) -> Store:
    """A store of which little is read, if anything: one in a bucket is asked for only then.

    Args:
        place: its folder, which need not be there, or its URL.
    """
    return LazyStore(place) if isinstance(place, str) else Store(place, make=False)


def open_store(place: Place, make: bool = True) -> Store:
    """A store that is there.

    Args:
        place: its folder, or its URL.
        make: whether what it lacks may be made there; otherwise nothing is written.

    Raises:
        EraseBenchError: it is no store, or not there; the message gives the nearest folder that is one.
    """
    if isinstance(place, str):
        store = ObjectStore(place, make=False)
        if not store.exists:
            raise EraseBenchError(f"{place} is no store: it has no {ABOUT}")
        return ObjectStore(place) if make else store
    if not place.exists():
        near = place.parent.iterdir() if place.parent.is_dir() else ()
        check_name("store", str(place), sorted(str(path) for path in near if (path / ABOUT).exists()))
    if not (place / ABOUT).exists():
        raise EraseBenchError(f"{place} is no store: it has no {ABOUT}")
    return Store(place, make)


class Bucket:
    """Objects below a URL.

    Args:
        url: such as ``s3://bucket/prefix``.

    Raises:
        EraseBenchError: nothing is known of its protocol, or the package that it needs is not there.  So say all
            methods if the bucket is not there, or cannot be reached: after the retries of the package.
    """

    def __init__(self, url: str) -> None:
        self._files, path = _connect(url)
        self.url, self._path = url.rstrip("/"), path.rstrip("/")

    def list(self, folder: str = "") -> dict[str, Mapping[str, Any]]:
        """The names of all objects below a folder, as :meth:`read` takes them, and what the bucket says of each."""
        with self._talking():
            try:
                found = self._files.find(f"{self._path}/{folder}".rstrip("/"), detail=True)
            except FileNotFoundError as error:
                if _code(error) == "NoSuchBucket":
                    raise
                return {}
        return {name[len(self._path) + 1 :]: about for name, about in found.items()}

    def first(self) -> str | None:
        """The name of some object, or of what is like a folder of them; None if there is nothing."""
        with self._talking():
            try:
                found = self._files.ls(self._path, detail=False)
            except FileNotFoundError as error:
                if _code(error) == "NoSuchBucket":
                    raise
                return None
        return next((PurePosixPath(name).name for name in found), None)

    def read(self, name: str) -> bytes | None:
        """What an object holds; None if there is none."""
        with tempfile.TemporaryDirectory(prefix="erasebench-") as folder:
            return (Path(folder) / "object").read_bytes() if self.download(name, Path(folder) / "object") else None

    def write(self, name: str, data: bytes, new: bool = False) -> bool:
        """Write an object in one step.

        Args:
            name: its name.
            data: what it is to hold.
            new: only if there is none.

        Returns:
            Whether it was written.
        """
        with self._talking():
            try:
                self._files.pipe_file(self._at(name), data, mode="create" if new else "overwrite")
            except FileExistsError:
                return False
            except OSError as error:
                # Of two who write at once, S3 may tell both to try again.
                if not new or _code(error) != "ConditionalRequestConflict":
                    raise
                return self.write(name, data, new)
        return True

    def download(self, name: str, path: Path) -> bool:
        """Write what an object holds into a file; False if there is no such object."""
        with self._talking():
            try:
                self._files.get_file(self._at(name), str(path))
            except FileNotFoundError as error:
                if _code(error) == "NoSuchBucket":
                    raise
                return False
        return True

    def upload(self, path: Path, name: str) -> None:
        """Make an object of a file."""
        with self._talking():
            self._files.put_file(str(path), self._at(name))

    def remove(self, name: str) -> None:
        """Remove an object, if it is there."""
        with self._talking(), suppress(FileNotFoundError):
            self._files.rm_file(self._at(name))

    def _at(self, name: str) -> str:
        return f"{self._path}/{name}"

    @contextmanager
    def _talking(self) -> Iterator[None]:
        """Say in our words what goes wrong between here and the bucket."""
        try:
            yield
        except EraseBenchError:
            raise
        except FileNotFoundError as error:
            raise StoreLostError(f"there is no bucket for {self.url}: {one_line(error)}; make it first") from error
        except PermissionError as error:
            raise StoreLostError(
                f"no permission for {self.url}: {one_line(error)}; look at the credentials that its package finds"
            ) from error
        except Exception as error:  # each package has errors of its own
            if is_disk_full(error):
                raise
            raise StoreLostError(
                f"{self.url} cannot be reached: {one_line(error)}; what is finished is kept, and the same command goes "
                "on from there"
            ) from error


def _code(error: BaseException) -> str:
    """What S3 calls an error."""
    response = getattr(error.__cause__, "response", None) or {}
    return str(response.get("Error", {}).get("Code", ""))


def _connect(url: str) -> tuple[Any, str]:
    """The file system that a URL is of, and the path there."""
    import fsspec

    protocol = url.partition("://")[0]
    if protocol in ("file", "local"):
        raise EraseBenchError(f"{url} is a folder of this machine: name it without {protocol}://")
    check_name("protocol", protocol, fsspec.available_protocols(), url)
    if "::" in url:
        raise EraseBenchError(f"{url} names several file systems; a store is in one")
    try:
        files, path = fsspec.url_to_fs(url, use_listings_cache=False)
    except ImportError as error:
        extra = "pip install 'erasebench[s3]'" if protocol in ("s3", "s3a") else one_line(error)
        raise EraseBenchError(f"{url} needs a package that is not there: {extra}") from error
    except ValueError as error:
        raise EraseBenchError(f"{url} is no URL of a store: {one_line(error)}") from error
    if not path.strip("/"):
        raise EraseBenchError(f"{url} names no bucket; write {protocol}://bucket/prefix")
    return files, path


def mirror_folder(url: str, identity: str) -> Path:
    """Where the mirror of a store is: a name that people recognize, and what tells it from all others."""
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
        said = self._introduce(make)
        self.exists, self._writes = said is not None, make
        super().__init__(mirror_folder(self.bucket.url, str((said or {}).get("id", ""))), make=self.exists)
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
        """What the store says of itself; None if there is none."""
        text = self.bucket.read(ABOUT)
        if text is None:
            other = self.bucket.first()
            # Another run may have made the store in between.
            if other is not None and self.bucket.read(ABOUT) is None:
                raise EraseBenchError(f"{self.bucket.url} is no store and not empty (it holds {other}); name another")
            if not make:
                return None
            said = json.dumps({"format": FORMAT, "id": secrets.token_hex(8)}) + "\n"
            self.bucket.write(ABOUT, said.encode(), new=True)
            text = self.bucket.read(ABOUT) or b""  # of several who make it at once, one has it
        said = text.decode(errors="replace")
        known = check_format(said, self.bucket.url)
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
        wanted = [key for key in keys if key in listed and super(ObjectStore, self).marker(key) is None]
        if wanted:
            say(f"bringing {len(wanted)} cells from {self.name} to {self.root}")
        for _ in _at_once(self._bring, wanted):
            pass

    def marker(self, key: str) -> Marker | None:
        """The marker of a cell that is finished in the bucket, or else in the mirror; None if there is none."""
        here = super().marker(key)
        if key in self._damaged or (here and self._is_same(key, here)):
            return here
        found = self._ask_if_listed(key)
        return found if isinstance(found, Marker) else here

    def markers(self, keys: Iterable[str] | None = None) -> Iterator[tuple[str, Marker | None]]:
        """The markers of some cells, or of all that there are, many at once; None for one that is not finished."""
        listed = self._list()
        wanted = sorted(listed) if keys is None else list(keys)
        return zip(wanted, _at_once(self.marker, wanted), strict=True)

    def find(self, key: str, anew: bool = False) -> Marker | str:
        """The marker of a cell that is sound in the mirror, or that was just brought there, or what is wrong with it.

        Where the bucket has other bytes, it is brought.  One that only the mirror has, as after a kill, is uploaded by
        who holds its lease, without which nobody may rely on what no marker names; to other runs it is missing.
        """
        if anew and key not in self._known():
            self._ask(key)
        found = self._find(key)
        if isinstance(found, Marker):
            if self._is_same(key, found):
                return found
            theirs = self._ask_if_listed(key)
            if isinstance(theirs, Marker):
                return self._take(key, theirs, found)
            if self._writes and self.leases.is_held(key):
                self._upload(key, self.folder(key), found)
                return self._find(key)
            return _MISSING if self._writes and theirs == _MISSING else found
        if key in self._damaged and not self.leases.is_held(key):
            return self._damaged[key]
        brought = self._bring(key)
        return found if brought == _MISSING else brought

    def has(self, key: str) -> bool:
        """Whether the bucket has a marker of a cell."""
        return key in self._known()

    def is_finished(self, key: str) -> bool:
        """Whether the bucket has a cell, so that it need not be brought there."""
        return isinstance(self._ask_if_listed(key), Marker)

    def size(self, key: str) -> int:
        """Bytes of a cell's payload in the bucket, when that was listed last."""
        return sum(self._known_payloads().get(key, {}).values())

    def verify(self, key: str) -> str | None:
        """What is wrong with a cell in the bucket after reading every byte of it, or None; the mirror stays."""
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
        found = super().marker(cell.key)
        if found:
            self._upload(cell.key, self.folder(cell.key), found)

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
        """What lies half-written in the mirror, and objects of the bucket that no marker names."""
        payloads = self._list_payloads(key)
        self._list()
        found: dict[PurePath, str] = {}
        for each, named in zip(payloads, _at_once(self._named, payloads), strict=True):
            if named is not None:
                found |= {PurePosixPath(name): each for name in payloads[each] if name not in named}
        return super().leftovers(key) | found

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
        """Whether the bucket is known to have a cell as the mirror has it, without asking for its marker."""
        if key in self._same:
            return True
        # Nobody writes a marker before what it names, so that it can name nothing but what is there.
        same = key in self._known() and {*self._known_payloads().get(key, ())} == _named_by(key, marker)
        if same:
            self._same.add(key)
        return same

    def _take(self, key: str, theirs: Marker, ours: Marker) -> Marker | str:
        """Have a cell in the mirror as the bucket has it, which was written first."""
        if theirs.files != ours.files:
            self._remove(key)
            return self._bring(key)
        self._same.add(key)
        return ours

    def _list_payloads(self, key: str = "") -> dict[str, dict[str, int]]:
        """By cell the names and sizes of objects, of all cells or of one, by a new listing."""
        found: dict[str, dict[str, int]] = {}
        for name, about in self.bucket.list(f"{PAYLOADS}/{key}").items():
            found.setdefault(name.split("/")[1], {})[name] = int(about["size"])
        if not key:
            self._payloads = found
        elif self._payloads is not None:
            self._payloads |= found
        return found

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
            found = self._find(key)
            return found if isinstance(found, Marker) else self._is_damaged(key, error)
        self._damaged.pop(key, None)
        self._same.add(key)
        return marker

    def _is_damaged(self, key: str, error: Exception) -> str:
        """Note that a cell of the bucket is damaged, and say how."""
        said = str(error).removeprefix(f"cell {key[:12]} ")
        self._damaged[key] = f"{said} (in {self.name})"
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


class LazyStore(Store):
    """A store in a bucket that is opened when a cell is read, which is all that can be done with it.

    Args:
        url: of the store.
    """

    def __init__(self, url: str) -> None:
        self.name = url

    @cached_property
    def _store(self) -> Store:
        return open_store(self.name, make=False)

    def read(self, key: str) -> Path:
        """The folder of a finished cell that passes :meth:`check`.

        Raises:
            EraseBenchError: the store cannot be reached, or what is wrong with the cell.
        """
        return self._store.read(key)


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


class ObjectLeases(Leases):
    """The leases in a bucket.

    Of several objects of one name that of the highest generation holds; who takes a lease over makes the next one,
    which only one can, and leaves the others where they are until it is given back.  Where a single lease is looked at,
    the listing of all of them, which tells of signs of life as well, may be :attr:`FRESH` seconds old: far less than it
    takes until one is taken for abandoned.

    Args:
        bucket: which.
    """

    poll = 2.0
    FRESH = 1.0

    def __init__(self, bucket: Bucket) -> None:
        super().__init__()
        self.bucket = bucket
        self._objects: dict[str, str] = {}
        """By name, what the bucket said of each object when it was listed last."""
        self._listed = -float("inf")
        self._texts: dict[tuple[str, str], str] = {}
        """What leases say, by their names and what the bucket said of them."""
        self._generations: dict[str, int] = {}
        """Of leases that this process holds."""
        self._displaced: dict[str, int] = {}
        """Generations of leases that may be taken over."""
        self._beats = 0

    def claim(self, name: str) -> Claim:
        """Take a lease if nobody has it, or if whoever has it is gone; returns at once."""
        claim = super().claim(name)
        self._fall_silent()
        return claim

    def release(self, name: str) -> None:
        """Give a lease back, unless another run took it over."""
        super().release(name)
        self._generations.pop(name, None)
        with suppress(EraseBenchError):
            self._fall_silent()

    def look(self, name: str) -> Lease | None:
        """A lease as it was at most a second ago; None if there is none."""
        self._look_around()
        generations = self._standing(name)
        if not generations:
            return None
        path = _lease(name, generations[-1])
        said = path, self._objects[path]
        if said not in self._texts:
            text = self.bucket.read(path)
            if text is None:
                del self._objects[path]
                return None
            self._texts[said] = text.decode(errors="replace")
        lease = Lease(name, self._texts[said], "", generations[-1])
        beat = self._objects.get(f"{BEATS}/{lease.holder.owner}", "") if lease.holder else ""
        return Lease(name, lease.text, beat, lease.generation)

    def drop(self, lease: Lease) -> None:
        """Remove an abandoned lease as it was seen, and no other that stands there by now."""
        self._look_around(anew=True)
        found = self.look(lease.name)
        if found and (found.text, found.generation) == (lease.text, lease.generation):
            self._remove_all(lease.name, lease.generation)

    def tidy(self) -> None:
        """Remove signs of life that nobody waits for: where there is no lease but those of this process."""
        if set(self._names()) <= self._held:
            for path in list(self._objects):
                if path.startswith(f"{BEATS}/") and path != f"{BEATS}/{self.owner}":
                    self.bucket.remove(path)

    def _names(self) -> list[str]:
        self._look_around(anew=True)  # who was there before this process told of itself must not be missed
        paths = [path.removeprefix(f"{LEASES}/") for path in self._objects if not path.startswith(f"{BEATS}/")]
        names = {path.rpartition(".")[0] for path in paths}
        return sorted(name for name in names if NAME.fullmatch(name))

    def _make(self, name: str) -> bool:
        self._look_around()
        generations, free = self._standing(name), self._displaced.pop(name, None)
        if generations and generations[-1] != free:
            return False
        generation = generations[-1] + 1 if generations else 0
        path = _lease(name, generation)
        if not self._held:
            self._beat()  # before there is a lease that counts on it
        if not self.bucket.write(path, self._text().encode(), new=True):
            self._look_around(anew=True)
            lease = self.look(name)
            # Where an answer is lost on its way, packages send the request again, which then finds what it made.
            if name in self._held or lease is None or (lease.text, lease.generation) != (self._text(), generation):
                return False
        self._objects.setdefault(path, "")
        self._texts[path, self._objects[path]] = self._text()
        self._generations[name] = generation
        return True

    def _displace(self, lease: Lease) -> None:
        self._displaced[lease.name] = lease.generation

    def _is_own(self, name: str) -> bool:
        lease = self.look(name)
        return lease is not None and (lease.text, lease.generation) == (self._text(), self._generations.get(name))

    def _remove(self, name: str) -> None:
        self._remove_all(name, self._generations[name])

    def _remove_all(self, name: str, last: int) -> None:
        """Remove a lease, but first those that it was taken over from: until it is gone, it is the one that holds."""
        for generation in self._standing(name):
            if generation <= last:
                self.bucket.remove(_lease(name, generation))
                self._objects.pop(_lease(name, generation), None)

    def _beat(self) -> None:
        self._beats += 1
        self.bucket.write(f"{BEATS}/{self.owner}", f"{self._beats}\n".encode())

    def _fall_silent(self) -> None:
        """Take the sign of life back if this process holds nothing."""
        if self._beats and not self._held:
            self._beats = 0
            self.bucket.remove(f"{BEATS}/{self.owner}")

    def _standing(self, name: str) -> list[int]:
        """The generations of a lease that were listed, the one that holds last."""
        paths = [path for path in self._objects if path.startswith(f"{LEASES}/{name}.")]
        ends = [path.rpartition(".")[2] for path in paths]
        return sorted(int(end) for end in ends if end.isdecimal())

    def _look_around(self, anew: bool = False) -> None:
        """List the leases, unless that was just done."""
        now = time.monotonic()
        if anew or now - self._listed >= self.FRESH:
            found = self.bucket.list(LEASES)
            self._objects = {name: repr(sorted(about.items(), key=str)) for name, about in found.items()}
            self._listed = now
            self._texts = {said: text for said, text in self._texts.items() if said[0] in self._objects}


def _lease(name: str, generation: int) -> str:
    return f"{LEASES}/{name}.{generation}"
