from __future__ import annotations

from pathlib import Path

import pytest

from erasebench.engine.cells import Cell
from erasebench.engine.ledger import Ledger, read_ledger
from erasebench.engine.runner import (
    LOST,
    Corrupt,
    Ended,
    Event,
    Failed,
    Finished,
    Found,
    Lost,
    Mixed,
    Progressed,
    Retried,
    Silent,
    Skipped,
    Started,
    TakenOver,
    Unneeded,
    Waiting,
)
from erasebench.engine.work import Failure

CELL = Cell("generate", {"n": 2}, {}, "sd church", "ddim", 2, "images")


def test_a_line_holds_event_cell_and_facts(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.jsonl")
    ledger.write("run", cells=3)
    ledger.write("failed", CELL, reason="two\nlines\u2028é", seconds=1.5)
    (run, failed) = read_ledger(tmp_path / "ledger.jsonl")  # before it is closed: each line is on disk
    ledger.close()
    assert run["event"] == "run" and run["cells"] == 3 and run["time"].endswith("Z")
    assert failed | {"time": ""} == {
        **{"time": "", "event": "failed", "cell": CELL.key, "stage": "generate", "title": "sd church"},
        **{"reason": "two\nlines\u2028é", "seconds": 1.5},
    }


def test_events_of_cells_are_lines(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.jsonl")
    failure = Failure("too bad", "Traceback", 1.5)
    events: list[Event] = [
        Corrupt(CELL, "is corrupt"),
        Waiting(CELL),
        Started(CELL),
        Progressed(CELL, 1, 2, ""),
        Found(CELL),
        TakenOver(CELL, "process 1 on node7, silent for 60 s"),
        Lost(CELL),
    ]
    events += [Failed(CELL, failure), Skipped(CELL, "needs another"), Finished(CELL, {"seconds": 2.0})]
    for event in (*events, Unneeded(CELL, "fell before")):
        ledger(event)
    lines = [(line["event"], line.get("reason")) for line in read_ledger(tmp_path / "ledger.jsonl")]
    failed = [("failed", "too bad"), ("failed", "needs another")]
    moved = [("taken over", "it was held by process 1 on node7, silent for 60 s"), ("lost", LOST)]
    assert lines == [("corrupt", "is corrupt"), *moved, *failed, ("ok", None), ("n/a", "fell before")]
    ledger.close()
    assert {line["cell"] for line in read_ledger(tmp_path / "ledger.jsonl")} == {CELL.key}


def test_thousands_of_cells_that_are_not_needed_do_not_wait_for_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    monkeypatch.setattr("os.fsync", synced.append)
    ledger = Ledger(tmp_path / "ledger.jsonl")
    ledger(Unneeded(CELL, "fell before"))
    assert not synced
    ledger(Finished(CELL, {"seconds": 2.0}))
    ledger.close()
    assert len(synced) == 1


def test_a_torn_last_line_costs_only_itself(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    for event in ("one", "two"):
        ledger = Ledger(path)
        ledger.write(event)
        ledger.close()
    whole = path.read_bytes()
    for cut in range(1, len(whole.splitlines(keepends=True)[1])):
        path.write_bytes(whole[:-cut])
        ledger = Ledger(path)
        ledger.write("three")
        ledger.close()
        # Only the newline is missing if one byte is.
        assert [line["event"] for line in read_ledger(path)] == ["one", *(["two"] if cut == 1 else []), "three"]


def test_what_happens_to_workers_is_a_line(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.jsonl")
    calls = ("a:1 b", "c:2 d")
    events = (Retried(CELL, Failure("killed")), Silent(CELL, 600.4, "process 7", calls), Ended("exit code 1", True))
    for event in (*events, Mixed(("A", "B"))):
        ledger(event)
    ledger.close()
    retried, silent, ended, mixed = read_ledger(tmp_path / "ledger.jsonl")
    assert (retried["event"], retried["reason"]) == ("retried", "killed")
    assert (silent["event"], silent["cell"], silent["seconds"]) == ("silent", CELL.key, 600)
    assert (silent["worker"], tuple(silent["calls"])) == ("process 7", calls)
    assert (ended["event"], ended["reason"]) == ("worker ended", "exit code 1")
    assert (mixed["event"], mixed["devices"]) == ("mixed", ["A", "B"])
