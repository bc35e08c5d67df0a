"""Worker processes, on cells that need no model."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from erasebench.engine.cells import Cell
from erasebench.engine.runner import Event, Failed, Finished, Mixed, Outcome, Progressed, Retried, Skipped, Started
from erasebench.engine.store import Store
from erasebench.engine.workers import LocalRunner, Processes, Worker
from erasebench.errors import EraseBenchError
from tests.engine.fake import FakeWorkshop, cell
from tests.marks import first_quick
from tests.waiting import wait_until

ROOT = Path(__file__).parents[2]


def run(
    folder: Path, cells: Sequence[Cell], workers: int = 2, subscriber: Callable[[Event], None] = lambda event: None
) -> Outcome:
    (folder / "signs").mkdir(parents=True, exist_ok=True)
    store = Store(folder / "store")
    return LocalRunner(FakeWorkshop(store, folder / "signs"), workers).run(cells, store, [subscriber])


def begun(folder: Path) -> dict[str, list[str]]:
    """Process, number and threads of whoever began a cell or a part of it."""
    return {path.name.partition("-")[2]: path.read_text().split() for path in (folder / "signs").iterdir()}


def is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
        return "\nState:\tZ" not in Path(f"/proc/{process}/status").read_text()
    except (ProcessLookupError, FileNotFoundError):  # it may be gone between the two
        return False


def wait_until_gone(folder: Path) -> None:
    """Wait for the end of workers that others end than the driver."""
    wait_until(lambda: not any(is_running(int(process)) for process, *_ in begun(folder).values()), "one runs on")


def check_nothing_is_left(folder: Path) -> None:
    store = Store(folder / "store")
    assert not store.leftovers()
    assert not any(is_running(int(process)) for process, *_ in begun(folder).values() if int(process) != os.getpid())
    assert not any((store.root / "leases").iterdir())


def matrix() -> list[Cell]:
    first, second = cell("first"), cell("second", units=5)
    third = cell("third", units=4, first=first, second=second)
    return [first, second, third, cell("fourth", third=third)]


def test_the_number_of_workers_changes_no_byte(tmp_path: Path) -> None:
    cells, payloads = matrix(), []
    for workers in (1, 3):
        events: list[Event] = []
        outcome = run(tmp_path / str(workers), cells, workers, events.append)
        assert outcome.computed == {cell.key for cell in cells} and not outcome.failed
        store = Store(tmp_path / str(workers) / "store")
        payloads.append([(store.read(cell.key) / "payload").read_bytes() for cell in cells])
        assert {cell.title: store.marker(cell.key).cost["lines"] for cell in cells} == {  # type: ignore[union-attr]
            **{"first": 1, "second": 5, "third": 4, "fourth": 1}
        }
        last = [event for event in events if isinstance(event, Progressed) and event.cell.title == "second"][-1]
        assert (last.done, last.of) == (5, 5)
        assert [event.cell.title for event in events if isinstance(event, Finished)][-2:] == ["third", "fourth"]
        assert sum(isinstance(event, Started) for event in events) == len(cells)
        check_nothing_is_left(tmp_path / str(workers))
        again: list[Event] = []
        assert run(tmp_path / str(workers), cells, workers, again.append).costs.keys() == outcome.costs.keys()
        assert again == []
    assert payloads[0] == payloads[1]
    processes = begun(tmp_path / "3")
    assert {"second-0", "second-2", "second-4"} <= processes.keys(), "it was divided"
    assert len({process for process, *_ in processes.values()}) <= 3
    assert {number for _, number, _ in processes.values()} <= {"0", "1", "2"}
    assert {threads for *_, threads in processes.values()} == {"1"}
    assert {process for process, *_ in begun(tmp_path / "1").values()} == {str(os.getpid())}


def test_independent_cells_and_parts_of_one_are_computed_at_once(tmp_path: Path) -> None:
    cells = [cell("a", "meet b"), cell("b", "meet a"), cell("c", "meet c-2", units=4)]
    assert not run(tmp_path, cells).failed


def test_what_others_wait_for_is_begun_first(tmp_path: Path) -> None:
    late = cell("late")
    events: list[Event] = []
    run(tmp_path, [cell("alone"), late, cell("needs it", late=late)], 2, events.append)
    assert next(event.cell.title for event in events if isinstance(event, Started)) == "late"


@pytest.mark.parametrize(
    ("what", "reason"),
    [
        (
            "kill",
            "its worker process was killed; if memory was short, fewer --workers need less of it "
            "(at the last of 3 tries)",
        ),
        ("exit", "its worker process ended with exit code 7 (at the last of 3 tries)"),
        ("raise", "ValueError: it cannot be done"),
    ],
)
def test_a_worker_that_dies_or_fails_takes_only_its_cell(what: str, reason: str, tmp_path: Path) -> None:
    bad = cell("bad", what, units=6, part=2)
    needs = cell("needs", bad=bad)
    fine = [cell(f"fine {k}") for k in range(4)]
    events: list[Event] = []
    outcome = run(tmp_path, [bad, *fine[:2], needs, *fine[2:]], 2, events.append)
    assert outcome.failed == {bad.key: reason, needs.key: reason}
    assert outcome.computed == {cell.key for cell in fine}
    (failed,) = [event for event in events if isinstance(event, Failed)]
    assert failed.failure.reason == reason
    assert sum(isinstance(event, Retried) for event in events) == (0 if what == "raise" else 2)
    assert ("ValueError" in failed.failure.traceback) == (what == "raise")
    assert [event.reason for event in events if isinstance(event, Skipped)] == ["needs fake bad, which failed"]
    check_nothing_is_left(tmp_path)


def check_killed_workers(folder: Path, act: str) -> None:
    """Workers are killed at a cell by itself, a part of one, and cells of a batch: nothing of a first try is left."""
    (folder / "whole" / "signs").mkdir(parents=True)
    for k in range(2):
        (folder / "whole" / "signs" / f"death-{k}").touch()
    for name, cells in {
        "alone": [cell("alone", act), cell("other")],
        "part": [cell("part", act, units=6, part=2)],
        "batch": [cell(f"batch {k}", act if k == 1 else "", batch="some") for k in range(3)],
    }.items():
        events: list[Event] = []
        outcome = run(folder / name, cells, 2, events.append)
        assert outcome.computed == {cell.key for cell in cells} and not outcome.failed, "a cell was lost"
        store = Store(folder / name / "store")
        whole = run(folder / "whole", cells, 1)
        for one in cells:
            mine, expected = store.marker(one.key), Store(folder / "whole" / "store").marker(one.key)
            assert mine and expected and mine.files == expected.files, "half a cell passes for a whole one"
        assert len(whole.computed) == len(cells)
        retried = [event.failure.error for event in events if isinstance(event, Retried)]
        assert retried == ["WorkerDied"] * int(act.split()[1])
        assert sum(isinstance(event, Started) for event in events) == len(cells)
        check_nothing_is_left(folder / name)


@pytest.mark.parametrize("act", first_quick(["die 2", "die 1"]))
def test_what_a_lost_worker_was_at_is_done_again(act: str, tmp_path: Path) -> None:
    check_killed_workers(tmp_path, act)


def test_the_procedure_finds_a_driver_that_gives_up_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("erasebench.engine.driver.TRIES", {})
    with pytest.raises(AssertionError, match="a cell was lost"):
        check_killed_workers(tmp_path, "die 1")


def test_the_procedure_finds_a_dead_worker_that_is_taken_for_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bury = Processes._bury

    def trusting(self: Processes, worker: Worker) -> Any:
        bury(self, worker)
        assert worker.task
        return [{"seconds": 0.0} for _ in worker.task.cells]

    monkeypatch.setattr(Processes, "_bury", trusting)
    with pytest.raises(AssertionError, match="half a cell passes for a whole one"):
        check_killed_workers(tmp_path, "die 1")


def test_workers_that_differ_are_said(tmp_path: Path) -> None:
    (tmp_path / "signs").mkdir()
    (tmp_path / "signs" / "hardware").write_text("A B")
    events: list[Event] = []
    run(tmp_path, [cell("a", "meet b"), cell("b", "meet a")], 2, events.append)
    (mixed,) = [event for event in events if isinstance(event, Mixed)]
    assert set(mixed.devices) == {"A", "B"}


@pytest.mark.parametrize(("what", "message"), [("full", "is full; free some"), ("refuse", "the model cannot be")])
@pytest.mark.parametrize("workers", [1, 2])
def test_what_no_cell_can_go_on_from_is_one_error(what: str, message: str, workers: int, tmp_path: Path) -> None:
    fine, bad = cell("fine"), cell("bad", what)
    with pytest.raises(EraseBenchError, match=message):
        run(tmp_path, [fine, bad, cell("after", "sleep", bad=bad)], workers)
    check_nothing_is_left(tmp_path)


def test_workers_that_cannot_be_made_ready_are_one_error(tmp_path: Path) -> None:
    (tmp_path / "signs").mkdir()
    (tmp_path / "signs" / "closed").touch()
    with pytest.raises(EraseBenchError, match="ValueError: a plug-in cannot be loaded"):
        run(tmp_path, [cell("a"), cell("b")])
    assert not Store(tmp_path / "store").leftovers()


def test_an_interrupt_stops_every_worker(tmp_path: Path) -> None:
    finished = []

    def interrupt(event: Event) -> None:
        if isinstance(event, Finished):
            finished.append(event.cell.key)
            raise KeyboardInterrupt

    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, [cell("long", "sleep"), cell("short", "meet long"), cell("more")], 2, interrupt)
    assert time.monotonic() - began < 300
    assert Store(tmp_path / "store").verify(*finished) is None
    check_nothing_is_left(tmp_path)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_no_worker_outlives_the_process_that_started_it(how: signal.Signals, tmp_path: Path) -> None:
    code = (
        "from pathlib import Path\nfrom tests.engine.fake import cell\nfrom tests.engine.test_workers import run\n"
        f"run(Path({str(tmp_path)!r}), [cell('a', 'sleep'), cell('b', 'sleep')])"
    )
    command = [sys.executable, "-c", code]
    parent = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL, process_group=0)

    def have_begun() -> bool:
        assert parent.poll() is None
        return (tmp_path / "signs").exists() and len(begun(tmp_path)) >= 2 and all(begun(tmp_path).values())

    wait_until(have_begun, "they do not begin", 300)
    workers = [int(process) for process, *_ in begun(tmp_path).values()]
    assert all(map(is_running, workers)) and parent.pid not in workers
    os.killpg(parent.pid, how)  # as Ctrl-C and a shell that closes do
    parent.wait()
    wait_until(lambda: not any(map(is_running, workers)), "one runs on", 300)
    assert bool(Store(tmp_path / "store").leftovers()) == (how != signal.SIGINT)
