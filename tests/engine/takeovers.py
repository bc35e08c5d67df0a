"""How leases are taken over, wherever they are."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

import pytest

from erasebench.engine import leases as leases_module
from erasebench.engine.leases import Claim, Leases


class Clock:
    """The clock by which leases are watched: it goes on when a test says so, however busy the machine is.

    Attributes:
        now: what it shows.
        meanwhile: what happens where somebody waits.
    """

    def __init__(self, patch: pytest.MonkeyPatch, meanwhile: Callable[[], object] = lambda: None) -> None:
        self.now, self.meanwhile = 0.0, meanwhile
        patch.setattr(leases_module, "time", self)

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.meanwhile()
        self.now += seconds


def beats_of(holder: Leases, patch: pytest.MonkeyPatch) -> Callable[[], None]:
    """What waits until a holder has given one more sign of life, from beginning to end."""
    beat, given = holder._beat, threading.Semaphore(0)

    def counted() -> None:
        beat()
        given.release()

    def wait() -> None:
        while given.acquire(blocking=False):
            pass
        for _ in range(2):  # the first may have begun before
            assert given.acquire(timeout=30), "it gives no sign of life"

    patch.setattr(holder, "_beat", counted)
    return wait


def is_taken_within(seconds: float, watcher: Leases, name: str) -> bool:
    """Whether a watcher that looks again and again has the lease in the end."""
    deadline = time.monotonic() + seconds
    while not (held := watcher.claim(name).held) and time.monotonic() < deadline:
        time.sleep(0.005)
    return held


def check_taken_over_when_silent(
    holder: Leases, watcher: Leases, name: str, to_another_machine: Callable[[], None], patch: pytest.MonkeyPatch
) -> None:
    """A lease that a holder on another machine has is not taken over as long as it lives, nor before it is silent."""
    clock, wait_for_a_beat, before = Clock(patch), beats_of(holder, patch), set(threading.enumerate())
    holder.claim(name)
    (beating,) = set(threading.enumerate()) - before
    to_another_machine()
    almost = 0.9 * leases_module.SILENCE
    for _ in range(5):
        assert not watcher.claim(name).held, "it gave signs of life"
        wait_for_a_beat()
        clock.now += almost
    holder._stop.set()
    beating.join(30)
    assert not watcher.claim(name).held, "it gave signs of life"
    clock.now += almost
    assert not watcher.claim(name).held, "it is not silent for long enough"
    clock.now += almost
    assert watcher.claim(name).held
    assert not holder.holds(name)
    holder.release(name)
    assert watcher.holds(name), "who lost it cannot give it back"


def claim_at_once(everybody: Sequence[Leases], name: str) -> tuple[int, int]:
    """How many of those who claim a lease at once are told that they have it, and how many have; then nobody has."""
    all_at_once, claims = threading.Barrier(len(everybody)), list[Claim]()

    def claim(leases: Leases) -> None:
        all_at_once.wait()
        claims.append(leases.claim(name))

    threads = [threading.Thread(target=claim, args=(leases,)) for leases in everybody]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    holding = sum(leases.holds(name) for leases in everybody)
    for leases in everybody:
        leases.release(name)
    return [claim.held for claim in claims].count(True), holding
