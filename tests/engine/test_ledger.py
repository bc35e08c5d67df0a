from __future__ import annotations

import io
from pathlib import Path

import pytest

from erasebench.engine.cells import Cell
from erasebench.engine.ledger import Ledger, read_ledger
from erasebench.engine.progress import ProgressLine, duration

CELL = Cell("generate", {"prompts": ["a", "b"]}, (), "sd church")


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


def test_where_there_is_no_terminal_each_cell_is_one_line() -> None:
    stream = io.StringIO()
    other = Cell("erase", {}, (), "uce church")
    progress = ProgressLine([other, CELL], stream)
    progress.start(other)
    progress.update(1, 2, "loss 0.1")
    progress.finish("ok", 2.0)
    progress.start(CELL)
    progress.finish("ok", 4.0, 2)
    assert stream.getvalue().splitlines() == [
        "[1/2] erase uce church: ok, 2.0 s",
        "[2/2] generate sd church: ok, 4.0 s, 0.5 images/s",
    ]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_has_one_line_that_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    stream = Terminal()
    more = Cell("generate", {"prompts": ["a"] * 6}, (), "sd tench")
    progress = ProgressLine([CELL, more], stream)
    progress.start(CELL)
    now[0] = 2.0
    progress.finish("ok", 2.0, 2)
    progress.start(more)
    now[0] = 4.0
    progress.update(2, 6, "images")
    shown = stream.getvalue().split("\r\x1b[2K")
    assert shown[-1] == "[2/2] generate sd tench 2/6 images, 1.0 images/s, 4 s left"
    assert shown[2] == "[1/2] generate sd church: ok, 2.0 s, 1.0 images/s\n"
    progress.finish("failed (a reason)", 1.0)
    assert stream.getvalue().endswith("[2/2] generate sd tench: failed (a reason), 1.0 s\n")


def test_the_remaining_time_says_that_erasures_were_not_timed_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    stream = Terminal()
    erasures = [Cell("erase", {"n": n}, (), f"c{n}") for n in range(2)]
    progress = ProgressLine([CELL, *erasures, Cell("generate", {"prompts": ["a"] * 6}, (), "more")], stream)
    progress.start(CELL)
    progress.finish("ok", 2.0, 2)
    progress.start(erasures[0])
    assert stream.getvalue().endswith("erase c0, more than 6 s left")
    progress.finish("ok", 10.0)
    progress.start(erasures[1])
    assert stream.getvalue().endswith("erase c1, 16 s left")


def test_cells_that_come_and_go_keep_the_count_right() -> None:
    stream = io.StringIO()
    corrupt, done, last = (Cell("erase", {"n": n}, (), f"c{n}") for n in range(3))
    progress = ProgressLine([CELL, done, last], stream)
    progress.add(corrupt)
    progress.add(last)
    progress.drop(done)
    for cell in (CELL, corrupt, last):
        progress.start(cell)
        progress.finish("ok", 1.0)
    assert [line.split()[0] for line in stream.getvalue().splitlines()] == ["[2/4]", "[3/4]", "[4/4]"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (59.6, "1 min 0 s"), (200, "3 min 20 s"), (7500, "2 h 5 min")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text
