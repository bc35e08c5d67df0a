"""Leases in a bucket.

``leases/<name>.<generation>`` is a lease, and ``leases/beats/<owner>`` the sign of life of a process, for all leases
that it holds.
"""

from __future__ import annotations

import re
import time
from contextlib import suppress

from erasebench.engine.bucket import Bucket
from erasebench.engine.leases import Claim, Lease, Leases
from erasebench.errors import EraseBenchError

LEASES, BEATS = "leases", "leases/beats"
NAME = re.compile("[0-9a-z-]+")
"""The pattern of the names of leases, which become parts of paths."""


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
        """The texts of leases, by their names and what the bucket said of them."""
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
        key = path, self._objects[path]
        if key not in self._texts:
            text = self.bucket.read(path)
            if text is None:
                del self._objects[path]
                return None
            self._texts[key] = text.decode(errors="replace")
        lease = Lease(name, self._texts[key], "", generations[-1])
        beat = self._objects.get(f"{BEATS}/{lease.holder.owner}", "") if lease.holder else ""
        return Lease(name, lease.text, beat, lease.generation)

    def drop(self, lease: Lease) -> None:
        """Remove an abandoned lease as it was seen, and no other that stands there by now."""
        self._look_around(anew=True)
        current = self.look(lease.name)
        if current and (current.text, current.generation) == (lease.text, lease.generation):
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
            objects = self.bucket.list(LEASES)
            self._objects = {name: repr(sorted(about.items(), key=str)) for name, about in objects.items()}
            self._listed = now
            self._texts = {key: text for key, text in self._texts.items() if key[0] in self._objects}


def _lease(name: str, generation: int) -> str:
    return f"{LEASES}/{name}.{generation}"
