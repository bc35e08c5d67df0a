"""A run is killed at every kind of moment; resumed, it leaves the very table of a run that was not."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from erasebench.engine.doctor import examine
from erasebench.engine.ledger import read_ledger
from erasebench.engine.store import Store
from tests.engine.runs import TINY, done, fast_stages, load_once, marker_first, places, run_tiny, table
from tests.forks import in_a_child
from tests.marks import first_quick

CALLS = ("fsync", "rename", "replace", "mkdir", "unlink")
"""What changes a disk; a process is killed just before or just after the n-th such call."""


def count_calls(patch: pytest.MonkeyPatch, act: Callable[[int, bool], None]) -> None:
    """Have ``act(n, after)`` called around the n-th call."""
    calls = iter(range(1_000_000))

    def around(change: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            n = next(calls)
            act(n, False)
            try:
                return change(*args, **kwargs)
            finally:
                act(n, True)

        return call

    for name in CALLS:
        patch.setattr(os, name, around(getattr(os, name)))


def run_and_die(folder: Path, moment: tuple[int, bool]) -> int:
    """The exit code of a run in a process of its own that is killed at a moment; negative if it was."""

    def act(n: int, after: bool) -> None:
        if (n, after) == moment:
            os.kill(os.getpid(), signal.SIGKILL)

    def run() -> int:
        with pytest.MonkeyPatch.context() as patch:
            count_calls(patch, act)
            return run_tiny(folder)

    return in_a_child(run)


def check_killed(folder: Path, moment: tuple[int, bool]) -> None:
    """Kill a run and look at what it leaves: nothing may pass for finished that is not."""
    assert run_and_die(folder, moment) == -signal.SIGKILL
    if (folder / "store" / "store.json").exists():
        corrupt = [problem for problem in examine(folder / "store") if "corrupt" in problem]
        assert not corrupt, f"killed at {moment}: {corrupt}"


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    """How many calls a whole run makes."""
    seen = [0]
    fast_stages(monkeypatch)
    with monkeypatch.context() as patch:
        count_calls(patch, lambda n, after: seen.__setitem__(0, n + 1))
        assert run_tiny(tmp_path / "counted") == 0
    return seen[0]


@pytest.mark.parametrize(("every", "later"), first_quick([(24, 2), (5, 10)]), ids=["few", "many"])
def test_killed_once_at_any_moment_and_resumed(
    every: int, later: int, calls: int, fast_run: Path, tmp_path: Path
) -> None:
    draw = random.Random(0)
    # Steps of opening the store and of the first cells' commits, then moments from all over the run.
    moments = [(n, after) for n in range(24) for after in (False, True)][::every]
    moments += [(n, draw.random() < 0.5) for n in draw.sample(range(24, calls), later)]
    for moment in moments:
        folder = tmp_path / "killed"
        check_killed(folder, moment)
        kept = [key for key in Store(folder / "store").cells() if Store(folder / "store").verify(key) is None]
        assert run_tiny(folder) == 0
        assert table(folder) == table(fast_run), moment
        assert not {line["cell"] for line in done(folder)} & set(kept), "finished work was done again"
        assert examine(folder / "store") == []
        shutil.rmtree(folder)


@pytest.mark.slow
def test_killed_again_and_again_a_run_still_ends(calls: int, fast_run: Path, tmp_path: Path) -> None:
    draw, kills = random.Random(1), 0
    while (code := run_and_die(tmp_path / "run", (draw.randrange(15, 60), draw.random() < 0.5))) != 0:
        assert code == -signal.SIGKILL
        kills += 1
        assert kills < 100, "no progress"
    assert kills >= 4
    assert table(tmp_path / "run") == table(fast_run)
    ledger = [line for line in read_ledger(tmp_path / "run" / "out" / "ledger.jsonl") if line["event"] == "ok"]
    assert len(ledger) == len({line["cell"] for line in ledger})


def test_the_procedure_finds_a_commit_in_the_wrong_order(
    calls: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Store, "writing", marker_first)
    with pytest.raises(AssertionError, match="corrupt"):
        for n in range(22, 40):  # the first cell is committed
            check_killed(tmp_path / "killed", (n, True))
            shutil.rmtree(tmp_path / "killed", ignore_errors=True)


@pytest.mark.slow
def test_a_real_run_killed_by_the_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In this process once, and once in two of its own: what either leaves is gone on from."""
    load_once(monkeypatch)
    draw = random.Random(2)
    ledger = tmp_path / "run" / "out" / "ledger.jsonl"
    for workers in (1, 2):
        before = ledger.read_text().count('"ok"') if ledger.exists() else 0
        arguments = [str(text) for text in (*TINY, *places(tmp_path / "run"), "--workers", workers)]
        child = subprocess.Popen([sys.executable, "-m", "erasebench", "run", *arguments], stderr=subprocess.DEVNULL)
        while child.poll() is None and (not ledger.exists() or ledger.read_text().count('"ok"') <= before):
            time.sleep(0.02)
        time.sleep(draw.uniform(0, 0.5))
        child.kill()
        assert child.wait() == -signal.SIGKILL
    assert not [problem for problem in examine(tmp_path / "run" / "store") if "corrupt" in problem]
    assert run_tiny(tmp_path / "run") == 0
    assert done(tmp_path / "run"), "the kills came too late"
    assert run_tiny(tmp_path / "whole") == 0
    assert table(tmp_path / "run") == table(tmp_path / "whole")
