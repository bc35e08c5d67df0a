"""Leases: who may compute a cell, agreed on by runs that share nothing but a folder, or a bucket.

A lease is a small file that says who made it and gets its name exclusively; whoever makes it holds it.  A thread of
the holder changes the file's time again and again.  Whoever else wants the lease watches it: if the holder ran on this
machine and has ended, or if the file did not change for :data:`SILENCE` seconds of the watcher's own steady clock, it
is taken over.  No two machines' clocks are compared, so that none of them need be right.  In a bucket, whose objects
have neither links nor times that can be set, the same is done by other means: :mod:`erasebench.engine.objects`.

A holder that was only slow, such as one whose machine slept, comes back to a lease that it lost.  That costs time and
nothing else: see :meth:`~erasebench.engine.store.Store.writing`.
"""

from __future__ import annotations

import json
import os
import secrets
import stat
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from erasebench.engine.holders import Holder, this_machine
from erasebench.errors import EraseBenchError
from erasebench.files import PARTIAL, remove
from erasebench.terminal import say

BEAT, SILENCE = 10.0, 60.0
"""Seconds between two signs of life of a holder, and without any after which a lease is taken over."""
POLL = 0.1
"""Seconds after which a lease that another run holds is looked at again."""
SUFFIX = ".json"


@dataclass(frozen=True)
class Claim:
    """The outcome of asking for a lease.

    Attributes:
        held: it is this run's now.
        other: who else holds it, or, if it was taken over, who did and why no longer; ``""`` if nobody did.
    """

    held: bool
    other: str = ""


@dataclass(frozen=True)
class Lease:
    """A lease as it was seen; two that were seen differ if its holder gave a sign of life in between.

    Attributes:
        name: what it is for.
        text: what the file says.
        changed: something that each sign of life makes another: of a file its time, of whichever clock.
        generation: how often it was taken over, where that is counted.
    """

    name: str
    text: str
    changed: int | str
    generation: int = 0

    @property
    def holder(self) -> Holder | None:
        """The process that made it; None where its text was cut short."""
        try:
            holder = Holder(**json.loads(self.text))
        except (ValueError, TypeError, RecursionError):
            return None
        # The owner's name is part of a path.
        return holder if type(holder.process) is int and str(holder.owner).isalnum() else None

    @property
    def ended(self) -> str:
        """Its holder, if that process is known to have ended; ``""`` otherwise."""
        holder = self.holder
        return f"{holder}, which has ended" if holder and holder.has_ended else ""

    def __str__(self) -> str:
        return str(self.holder or "an unknown process")


class Leases(ABC):
    """The leases of a store; where they are is for subclasses.

    Attributes:
        owner: a random name of this process as a holder.
        poll: seconds after which a lease that another run holds is looked at again.
    """

    poll = POLL

    def __init__(self) -> None:
        self.owner = secrets.token_hex(8)
        self._held: set[str] = set()
        self._stop = threading.Event()
        self._watched: dict[str, tuple[Lease, float]] = {}
        """By name a lease as it was last seen to change, and since when, of this process's steady clock."""

    def claim(self, name: str) -> Claim:
        """Take a lease if nobody has it, or if whoever has it is gone; returns at once.

        Raises:
            OSError: the folder cannot be written.
            EraseBenchError: the bucket cannot be reached.
        """
        other = ""
        while not self._make(name):
            lease = self.look(name)
            if lease is None:
                continue  # given back in between
            gone = lease.ended or self._silent(lease)
            if not gone:
                return Claim(False, str(lease))
            self._displace(lease)
            other = gone
        self._watched.pop(name, None)
        if not self._held:
            self._stop = threading.Event()
            threading.Thread(target=self._live, args=(self._stop,), name="leases", daemon=True).start()
        self._held.add(name)
        return Claim(True, other)

    def release(self, name: str) -> None:
        """Give a lease back, unless another run took it over."""
        with suppress(OSError, EraseBenchError):  # it will be found that this process has ended
            if self.holds(name):
                self._remove(name)
        self._held.discard(name)
        if not self._held:
            self._stop.set()

    def holds(self, name: str) -> bool:
        """True if a lease was taken here and by no other run since."""
        return self.is_held(name) and self._is_own(name)

    def is_held(self, name: str) -> bool:
        """True if a lease was taken here and not given back, without looking whether another run took it over."""
        return name in self._held

    @contextmanager
    def holding(self, name: str, wait: bool = False) -> Iterator[bool]:
        """Hold a lease for the time of a block.

        Args:
            name: of the lease.
            wait: until it is free; otherwise the block is told False if another run holds it.
        """
        while not (held := self.claim(name).held) and wait:
            time.sleep(self.poll)
        try:
            yield held
        finally:
            if held:
                self.release(name)

    def seen(self) -> list[Lease]:
        """The leases that others hold, or held when they ended."""
        return [lease for name in self._names() if name not in self._held and (lease := self.look(name))]

    def survey(self) -> tuple[list[Lease], dict[Lease, str]]:
        """The leases of others that live, and those that are abandoned, with who held them.

        Returns at once unless there are leases of other machines: those are watched until their holders give a sign of
        life, :data:`SILENCE` seconds at most.
        """
        alive: list[Lease] = []
        abandoned: dict[Lease, str] = {}
        first = {lease.name: lease for lease in self.seen()}
        for name in first:
            self._watched.pop(name, None)
        announced = False
        while first:
            now = {lease.name: lease for lease in self.seen()}
            for name, lease in list(first.items()):
                current = now.get(name)
                here = lease.holder is not None and lease.holder.machine == this_machine()
                if current is None:
                    del first[name]  # given back in between
                elif gone := current.ended or self._silent(current):
                    abandoned[current] = gone
                    del first[name]
                elif here or current != lease:
                    alive.append(current)
                    del first[name]
            if first:
                if not announced:
                    announced = True
                    say(f"watching for {SILENCE:.0f} s at most whether {next(iter(first.values()))} is alive")
                time.sleep(self.poll)
        return alive, abandoned

    @abstractmethod
    def look(self, name: str) -> Lease | None:
        """A lease as it is now; None if there is none, or something that no run made, which gives way to a claim."""

    @abstractmethod
    def drop(self, lease: Lease) -> None:
        """Remove an abandoned lease as it was seen, and no other that stands there by now."""

    @abstractmethod
    def tidy(self) -> None:
        """Remove what killed processes left beside leases."""

    @abstractmethod
    def _names(self) -> list[str]:
        """The names of all leases that are there."""

    @abstractmethod
    def _make(self, name: str) -> bool:
        """Make a lease of this process, unless there is one."""

    def _displace(self, lease: Lease) -> None:
        """Let the next one that is made have the place of an abandoned lease."""
        self.drop(lease)

    @abstractmethod
    def _remove(self, name: str) -> None:
        """Remove a lease that this process holds."""

    @abstractmethod
    def _beat(self) -> None:
        """Give a sign of life for all leases that this process holds."""

    def _is_own(self, name: str) -> bool:
        lease = self.look(name)
        holder = lease.holder if lease else None
        return holder is not None and holder.owner == self.owner

    def _text(self) -> str:
        return json.dumps(asdict(Holder.here(self.owner)))

    def _silent(self, lease: Lease) -> str:
        """The holder of a lease that did not change for too long; ``""`` if it did, or was not watched for as long."""
        now = time.monotonic()
        last, since = self._watched.setdefault(lease.name, (lease, now))
        if last != lease:
            self._watched[lease.name] = lease, now
            return ""
        return f"{lease}, silent for {SILENCE:.0f} s" if now - since >= SILENCE else ""

    def _live(self, stop: threading.Event) -> None:
        """Give signs of life until there is nothing left to hold."""
        while not stop.wait(BEAT):
            with suppress(OSError, EraseBenchError):
                self._beat()


class FolderLeases(Leases):
    """The leases in a folder.

    Args:
        folder: it is there.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    def __reduce__(self) -> tuple[type[FolderLeases], tuple[Path]]:
        """In another process: the same folder, another owner."""
        return FolderLeases, (self.folder,)

    def drop(self, lease: Lease) -> None:
        """Remove an abandoned lease as it was seen, and no other that stands there by now."""
        path = self._path(lease.name)
        # Of several that do this at once, renaming lets one have the file; which one it is shows only then.
        aside = path.with_name(f"{path.name}.{secrets.token_hex(8)}{PARTIAL}")
        try:
            path.rename(aside)
        except FileNotFoundError:
            return
        moved = _read(lease.name, aside)
        if moved and moved != lease:
            self._write(path, moved.text)
        aside.unlink(missing_ok=True)

    def tidy(self) -> None:
        """Remove what processes left that were killed while they made a lease, or in :meth:`drop`."""
        for path in self.folder.glob(f"*{PARTIAL}"):
            with suppress(OSError):
                if is_stray(path):
                    path.unlink()

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}{SUFFIX}"

    def _names(self) -> list[str]:
        return sorted(path.name.removesuffix(SUFFIX) for path in self.folder.glob(f"*{SUFFIX}"))

    def _make(self, name: str) -> bool:
        path = self._path(name)
        with suppress(FileNotFoundError):
            if not stat.S_ISREG(path.lstat().st_mode):
                remove(path)  # no run made it
        return self._write(path, self._text())

    def _write(self, path: Path, text: str) -> bool:
        """Make a lease's file, unless there is one: with all that it says, so that nobody sees it before."""
        written = path.with_name(f"{path.name}.{secrets.token_hex(8)}{PARTIAL}")
        try:
            written.write_text(text, encoding="utf-8")
            os.link(written, path)
        except FileExistsError:
            return False
        finally:
            written.unlink(missing_ok=True)
        return True

    def look(self, name: str) -> Lease | None:
        """A lease as it is now; None if there is none, or something that no run made."""
        path = self._path(name)
        with suppress(FileNotFoundError):
            if not stat.S_ISREG(path.lstat().st_mode):
                return None
        return _read(name, path)

    def _remove(self, name: str) -> None:
        self._path(name).unlink()

    def _beat(self) -> None:
        for name in list(self._held):
            with suppress(OSError):
                if self._is_own(name):
                    os.utime(self._path(name))


def is_stray(path: Path) -> bool:
    """True if what lies in a folder of leases is none, nor one in the making by a process that may be alive.

    What is gone by now is no stray: leases come and go.
    """
    with suppress(FileNotFoundError):
        if not stat.S_ISREG(path.lstat().st_mode):
            return True
        if path.suffix == PARTIAL:
            lease = _read(path.name, path)
            return lease is not None and lease.ended != ""
        return path.suffix != SUFFIX
    return False


def _read(name: str, path: Path) -> Lease | None:
    try:
        # Opened anew each time: that has a network's file system ask the server.
        with open(path, "rb") as stream:
            return Lease(name, stream.read().decode(errors="replace"), os.fstat(stream.fileno()).st_mtime_ns)
    except FileNotFoundError:
        return None
