"""The procedure of the kills that docs/reliability.md counts: its pieces add up, and it can fail."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from benchmarks.kills import Killer, Tally
from erasebench.engine.store import Store
from tests.engine.runs import fast_stages, marker_first


def test_pieces_add_up(tmp_path: Path) -> None:
    path = tmp_path / "kills.json"
    assert Tally.of(None) == Tally.of(path) == Tally()
    path.write_text(Tally(of_drivers=2, of_resumed_drivers=3, of_workers=4, ended=1).to_json())
    assert Tally.of(path).kills == 9 and not Tally.of(path).bad
    path.write_text(json.dumps(json.loads(path.read_text()) | {"lost": 1}))
    assert Tally.of(path).bad


def kill_one(work: Path, kills: int = 8) -> Tally:
    tally = Tally()
    killer = Killer(tally, work, random.Random(0), with_workers=False)
    while not tally.bad and tally.kills < kills:
        killer.go_through()
    return tally


@pytest.mark.slow
def test_kills_do_no_harm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fast_stages(monkeypatch)
    tally = kill_one(tmp_path)
    assert tally.kills >= 8 and tally.of_resumed_drivers and not tally.bad


@pytest.mark.slow
def test_the_procedure_finds_a_commit_in_the_wrong_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fast_stages(monkeypatch)
    monkeypatch.setattr(Store, "writing", marker_first)
    assert kill_one(tmp_path, kills=100).bad, "the moments are random, but one of so many is bad"
