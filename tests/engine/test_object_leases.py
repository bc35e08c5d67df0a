"""Leases in a bucket, in memory: each call is one step."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from erasebench.engine import leases as leases_module
from erasebench.engine.bucket import Bucket
from erasebench.engine.leases import Claim
from erasebench.engine.object_leases import ObjectLeases
from tests.engine.takeovers import check_taken_over_when_silent, claim_at_once, is_taken_within
from tests.forks import end, fork

NAME = "ab12"


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of a bucket of this process, in which each call is one step, with signs of life in a hurry."""
    turn = threading.RLock()

    def in_turn(act: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            with turn:
                return act(*args, **options)

        return call

    for name in ("pipe_file", "find", "get_file", "rm_file"):
        monkeypatch.setattr(MemoryFileSystem, name, in_turn(getattr(MemoryFileSystem, name)))
    monkeypatch.setattr(MemoryFileSystem, "store", {})
    monkeypatch.setattr(leases_module, "BEAT", 0.02)
    monkeypatch.setattr(leases_module, "SILENCE", 0.3)
    monkeypatch.setattr(ObjectLeases, "FRESH", 0.0)
    monkeypatch.setattr(ObjectLeases, "poll", 0.005)
    return "memory://bucket/a"


def lease(generation: int = 0) -> str:
    """The name of the object that a lease is."""
    return f"leases/{NAME}.{generation}"


def edit(url: str, generation: int = 0, **facts: object) -> None:
    """Have a lease say something else of its holder."""
    bucket = Bucket(url)
    text = bucket.read(lease(generation)) or b"{}"
    bucket.write(lease(generation), json.dumps(json.loads(text) | facts).encode())


def leave(url: str, **facts: object) -> None:
    """A lease whose process has ended, without any sign of life."""
    leases = ObjectLeases(Bucket(url))
    process = fork(lambda: None)
    end(process)
    text = json.loads(leases._text()) | {"process": process} | facts
    leases.bucket.write(lease(), json.dumps(text).encode())


def test_a_lease_is_held_by_one_at_a_time(memory: str) -> None:
    one, other = ObjectLeases(Bucket(memory)), ObjectLeases(Bucket(memory))
    assert one.claim(NAME) == Claim(True)
    assert not one.claim(NAME).held and f"process {os.getpid()} on " in other.claim(NAME).other
    assert one.holds(NAME) and not other.holds(NAME)
    other.release(NAME)
    assert one.holds(NAME), "who does not hold it cannot give it back"
    assert [each.name for each in other.seen()] == [NAME] and not one.seen()
    one.release(NAME)
    with other.holding(NAME) as held:
        assert held
    assert not Bucket(memory).list()


def test_the_lease_of_a_process_that_has_ended_is_taken_over_at_once(memory: str) -> None:
    leave(memory)
    leases = ObjectLeases(Bucket(memory))
    claim = leases.claim(NAME)
    assert claim.held and claim.other.endswith(", which has ended") and leases.holds(NAME)
    assert lease(1) in Bucket(memory).list()
    leases.release(NAME)
    assert not Bucket(memory).list(), "it goes with those that it was taken over from"


def test_a_lease_of_another_machine_is_taken_over_when_it_is_silent_and_no_sooner(
    memory: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    holder, watcher = ObjectLeases(Bucket(memory)), ObjectLeases(Bucket(memory))
    check_taken_over_when_silent(holder, watcher, NAME, lambda: edit(memory, machine="another"), monkeypatch)
    watcher.release(NAME)


def test_who_looks_for_the_first_time_has_not_watched(memory: str) -> None:
    leave(memory, machine="another")
    time.sleep(0.4)
    assert not ObjectLeases(Bucket(memory)).claim(NAME).held


def claim_abandoned(url: str) -> None:
    """Many claim an abandoned lease: one has it, and the others know that they have not."""
    for _ in range(10):
        leave(url)
        told, holding = claim_at_once([ObjectLeases(Bucket(url)) for _ in range(8)], NAME)
        assert told == 1, "several were told that they have it"
        assert holding == 1
        assert not [name for name in Bucket(url).list() if "beats" not in name]


def test_of_many_who_claim_an_abandoned_lease_at_once_one_gets_it(memory: str) -> None:
    claim_abandoned(memory)


def test_the_procedure_finds_leases_that_are_not_made_exclusively(memory: str, monkeypatch: pytest.MonkeyPatch) -> None:
    write = Bucket.write

    def overwrite(bucket: Bucket, name: str, data: bytes, new: bool = False) -> bool:
        time.sleep(0.02)  # by then all have seen that nobody has it
        return write(bucket, name, data)

    monkeypatch.setattr(Bucket, "write", overwrite)
    with pytest.raises(AssertionError, match="several were told"):
        claim_abandoned(memory)


def test_an_answer_that_is_lost_on_its_way_costs_no_lease(memory: str, monkeypatch: pytest.MonkeyPatch) -> None:
    write = Bucket.write
    monkeypatch.setattr(Bucket, "write", lambda *args, **options: write(*args, **options) and False)
    leases = ObjectLeases(Bucket(memory))
    with leases.holding(NAME) as held:
        assert held and leases.holds(NAME)


def test_a_lease_is_dropped_only_as_it_was_seen(memory: str) -> None:
    leave(memory)
    one, other = ObjectLeases(Bucket(memory)), ObjectLeases(Bucket(memory))
    (seen,) = one.seen()
    other.claim(NAME)
    one.drop(seen)
    assert other.holds(NAME)
    other.release(NAME)
    leave(memory)
    (seen,) = one.seen()
    one.drop(seen)
    assert not one.seen()


def test_a_process_gives_one_sign_of_life_for_all_its_leases(memory: str) -> None:
    leases = ObjectLeases(Bucket(memory))
    Bucket(memory).write("leases/beats/of-a-killed-run", b"7")
    for k in range(50):
        assert leases.claim(f"{k}").held
    beats = [name for name in Bucket(memory).list() if "beats" in name]
    assert sorted(beats) == [f"leases/beats/{leases.owner}", "leases/beats/of-a-killed-run"]
    leases.tidy()
    assert [name for name in Bucket(memory).list() if "beats" in name] == [f"leases/beats/{leases.owner}"]
    for k in range(50):
        leases.release(f"{k}")
    assert not Bucket(memory).list()


def test_no_name_of_a_lease_leads_anywhere(memory: str) -> None:
    Bucket(memory).write("leases/run-/../../../../etc.0", b"")
    Bucket(memory).write("leases/../store.json.0", b"")
    assert not ObjectLeases(Bucket(memory)).seen()


def test_an_empty_or_foreign_lease_is_taken_over_when_it_is_silent(memory: str) -> None:
    Bucket(memory).write(lease(), b"[]")
    watcher = ObjectLeases(Bucket(memory))
    assert watcher.claim(NAME) == Claim(False, "an unknown process")
    assert is_taken_within(5.0, watcher, NAME)
    watcher.release(NAME)
