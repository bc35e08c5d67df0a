"""What a task comes to: what each of its cells cost, or why it failed."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from erasebench.engine.cells import Cell
from erasebench.engine.work import TRIES, Failure, PeakMemory, Progress, Task, do
from erasebench.errors import EraseBenchError, NotApplicable
from tests.engine.fake import FakeWorkshop, cell


def task(folder: Path, *cells: Cell, part: slice | None = None) -> Task:
    return Task(cells, part, tuple(folder / one.title for one in cells))


def test_cells_of_a_task_share_its_seconds_and_keep_their_own_counts(
    tmp_path: Path, workshop: FakeWorkshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("erasebench.engine.work.time", SimpleNamespace(monotonic=count(0.0, 9.0).__next__))
    told: list[tuple[int, int, str]] = []
    cells = [cell("one", units=3), cell("two"), cell("three", units=2)]
    costs = do(task(tmp_path, *cells), workshop, lambda *far: told.append(far))
    assert not isinstance(costs, Failure)
    assert [(cost["seconds"], cost["lines"]) for cost in costs] == [(3.0, 3), (3.0, 1), (3.0, 2)]
    assert len({cost["peak_memory_mb"] for cost in costs}) == 1
    assert (tmp_path / "one" / "payload").read_text() == "one 0 []\none 1 []\none 2 []\n"
    assert told[:3] == [(1, 3, "lines"), (2, 3, "lines"), (3, 3, "lines")]


def test_a_part_is_all_that_is_computed(tmp_path: Path, workshop: FakeWorkshop) -> None:
    costs = do(task(tmp_path, cell("one", units=5), part=slice(2, 4)), workshop, lambda *far: None)
    assert not isinstance(costs, Failure) and costs[0]["lines"] == 2
    assert (tmp_path / "one" / "payload").read_text() == "one 2 []\none 3 []\n"


def test_what_a_stage_raises_is_a_failure_that_says_where(tmp_path: Path, workshop: FakeWorkshop) -> None:
    found = do(task(tmp_path, cell("one", "raise")), workshop, lambda *far: None)
    assert isinstance(found, Failure)
    assert (found.reason, found.error) == ("ValueError: it cannot be done", "ValueError")
    assert "in act" in found.traceback and not (found.fatal or found.disk_full)
    full = do(task(tmp_path, cell("two", "full")), workshop, lambda *far: None)
    assert isinstance(full, Failure) and full.disk_full and not full.fatal


def test_a_plug_in_that_ends_the_program_fails_alone(
    tmp_path: Path, workshop: FakeWorkshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    def leave(*args: object) -> Any:
        raise SystemExit(3)

    monkeypatch.setattr(FakeWorkshop, "work", leave)
    found = do(task(tmp_path, cell("one")), workshop, lambda *far: None)
    assert isinstance(found, Failure) and found.error == "SystemExit" and not found.fatal


def test_what_cannot_be_loaded_ends_the_run_if_it_is_said_and_else_the_cell(
    tmp_path: Path, workshop: FakeWorkshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = do(task(tmp_path, cell("one", "refuse")), workshop, lambda *far: None)
    assert isinstance(found, Failure) and found.fatal and found.reason == "the model cannot be loaded"

    def break_down(self: FakeWorkshop, one: Cell) -> None:
        raise KeyError("unet")

    monkeypatch.setattr(FakeWorkshop, "prepare", break_down)
    found = do(task(tmp_path, cell("one")), workshop, lambda *far: None)
    assert isinstance(found, Failure) and not found.fatal and found.error == "KeyError"
    assert not (tmp_path / "one").exists(), "no folder before there is work"


def test_a_stage_tells_of_every_cell(tmp_path: Path, workshop: FakeWorkshop, monkeypatch: pytest.MonkeyPatch) -> None:
    def work(
        self: FakeWorkshop, cells: Sequence[Cell], part: slice | None, folders: Sequence[Path], progress: Progress
    ) -> list[dict[str, Any]]:
        return [{}]

    monkeypatch.setattr(FakeWorkshop, "work", work)
    found = do(task(tmp_path, cell("one"), cell("two")), workshop, lambda *far: None)
    assert isinstance(found, Failure) and found.reason == "ValueError: the costs of 1 cells came of 2"


def test_a_failure_is_known_by_the_name_of_its_error() -> None:
    assert Failure.of(NotApplicable("no object")).error == "EraseBenchError"
    known = Failure.of(EraseBenchError("first\nsecond"), 1.23456, fatal=True)
    assert (known.reason, known.seconds, known.fatal) == ("first second", 1.235, True)
    assert Failure.of(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))).disk_full
    assert not Failure.of(OSError(errno.EIO, os.strerror(errno.EIO))).disk_full
    assert "ValueError" not in TRIES and TRIES["ConnectionLost"] > TRIES["WorkerDied"] > 1


def test_the_peak_of_this_process_is_that_since_it_was_restarted() -> None:
    memory = PeakMemory("cpu")
    if memory.megabytes() is None or not os.access("/proc/self/clear_refs", os.W_OK):
        pytest.skip("the system does not tell")
    memory.restart()
    before = memory.megabytes()
    held = b"x" * 64_000_000
    after = memory.megabytes()
    assert before and after and after - before > 0.9 * len(held) / 1e6
    del held
    memory.restart()
    again = memory.megabytes()
    assert again and again < after - 30, "what was before is forgotten"
