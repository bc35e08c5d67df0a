"""How leases are taken over, wherever they are."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from erasebench.engine.leases import Claim, Leases


def is_taken_within(seconds: float, watcher: Leases, name: str) -> bool:
    """Whether a watcher that looks again and again has the lease in the end."""
    deadline = time.monotonic() + seconds
    while not (held := watcher.claim(name).held) and time.monotonic() < deadline:
        time.sleep(0.005)
    return held


def check_taken_over_when_silent(
    holder: Leases, watcher: Leases, name: str, to_another_machine: Callable[[], None], alive: float
) -> None:
    """A lease that a holder on another machine has is not taken over for so many seconds, nor before it is silent."""
    holder.claim(name)
    to_another_machine()
    assert not is_taken_within(alive, watcher, name), "it gave signs of life"
    holder._stop.set()
    began = time.monotonic()
    assert is_taken_within(5.0, watcher, name) and time.monotonic() - began >= 0.25
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
