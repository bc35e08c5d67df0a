"""Workers that hang, here and elsewhere: in a call that does not return, stopped, or lost and still writing.

No test waits: the driver's clock jumps.  Each procedure is shown to find what it looks for.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Timer
from types import SimpleNamespace
from typing import Any

import pytest

from erasebench.engine import jobs, workers
from erasebench.engine.cells import Cell
from erasebench.engine.doctor import examine
from erasebench.engine.runner import Event, Finished, Outcome, Progressed, Retried, Silent
from erasebench.engine.store import Store
from erasebench.engine.workers import ConnectedWorkers, LocalRunner, Processes, Worker
from erasebench.errors import EraseBenchError
from tests.engine.fake import FakeWorkshop, cell
from tests.engine.test_remote import Here
from tests.engine.test_remote import run as run_remotely
from tests.engine.test_workers import check_nothing_is_left, wait_until_gone

Run = Callable[[Path, Sequence[Cell], "Clock", float | None], Outcome]

LASTS = 120
"""Seconds after which a call returns that hangs, of which nobody takes notice."""


class Clock:
    """The clock by which the driver tells how long workers were silent; it is told of every event.

    Attributes:
        jumps: seconds by which it jumped ahead.
    """

    def __init__(self, act: Callable[[Clock, Event], None] = lambda clock, event: None) -> None:
        self.act, self.jumps, self.sign = act, 0.0, Path("nowhere")
        self.events: list[Event] = []

    def monotonic(self) -> float:
        return time.monotonic() + self.jumps + 500 * self.sign.exists()

    def tell(self, event: Event) -> None:
        self.events.append(event)
        self.act(self, event)

    def of(self, kind: type[Any]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "LOOK", 0.05)
    monkeypatch.setattr("erasebench.engine.remote.LOOK", 0.05)
    monkeypatch.setattr(workers, "ANSWER", 0.3)  # what is stopped answers never


def here(folder: Path, cells: Sequence[Cell], clock: Clock, patience: float | None) -> Outcome:
    (folder / "signs").mkdir(parents=True, exist_ok=True)
    store = Store(folder / "store")
    return LocalRunner(FakeWorkshop(store, folder / "signs"), 2, patience).run(cells, store, [clock.tell])


def elsewhere(folder: Path, cells: Sequence[Cell], clock: Clock, patience: float | None) -> Outcome:
    class Told(list[Event]):
        def append(self, event: Event) -> None:
            clock.tell(event)

    return run_remotely(folder, cells, Here(), Told(), 1, patience)


def impatient(clock: Clock, event: Event) -> None:
    """When a worker was told of that is silent, it is so for longer than there is patience."""
    if isinstance(event, Silent):
        clock.jumps += 1000


def killing(clock: Clock, event: Event) -> None:
    """What whoever reads of a worker that hangs may do."""
    if isinstance(event, Silent):
        words = event.worker.split()
        assert words[0] == "process"
        os.kill(int(words[1]), signal.SIGKILL)


def check_hang(
    folder: Path, what: str, run: Run, clock: Clock, patience: float | None, patch: pytest.MonkeyPatch
) -> list[str]:
    """A worker hangs in a cell: it is told of, and where it is; the cell is done by another.  Returns the reasons."""
    first = cell("first")
    hangs = cell("hangs", what, first=first)
    cells = [first, hangs, cell("last", hangs=hangs)]
    clock.sign = folder / "signs" / {"hang": "hung", "stop": "stopped"}[what]
    patch.setattr(workers, "time", SimpleNamespace(monotonic=clock.monotonic))
    if what == "hang":
        patch.setattr(workers, "ANSWER", 60.0)  # it answers, however long that takes on a busy machine
    let_go = Timer(LASTS, (folder / "signs" / "let-go").touch)
    let_go.start()
    try:
        outcome = run(folder, cells, clock, patience)
    finally:
        let_go.cancel()
    assert outcome.computed == {cell.key for cell in cells} and not outcome.failed
    reasons = [event.failure.reason for event in clock.of(Retried)]
    assert len(reasons) == 1, "nobody noticed"
    (silent,) = clock.of(Silent)
    assert silent.cell == hangs and silent.seconds >= 500 and silent.patience == patience
    # A process that does nothing at all cannot say where it is.
    assert any("tests.engine.fake:" in call and call.endswith(" act") for call in silent.calls) == (what == "hang")
    store = Store(folder / "store")
    assert (store.read(hangs.key) / "payload").read_text() == "hangs 0 ['first 0 []\\n']\n"
    assert examine(store.root) == []
    wait_until_gone(folder)
    check_nothing_is_left(folder)
    return reasons


@pytest.mark.parametrize("what", ["hang", "stop"])
@pytest.mark.parametrize("run", [here, elsewhere])
def test_a_worker_that_hangs_is_ended_when_patience_is(
    run: Run, what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (reason,) = check_hang(tmp_path, what, run, Clock(impatient), 900, monkeypatch)
    assert reason.startswith("its worker (process ") and " told of no progress for 15" in reason
    assert ("; it was at tests.engine.fake:" if what == "hang" else "; it did not answer") in reason


@pytest.mark.parametrize("run", [here, elsewhere])
def test_a_worker_that_hangs_is_told_of_and_left_to_the_user(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "SILENCE", 300)
    (reason,) = check_hang(tmp_path, "hang", run, Clock(killing), None, monkeypatch)
    assert "was killed" in reason or "was lost" in reason


def test_the_procedure_finds_a_driver_that_waits_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until the call returns after all."""
    monkeypatch.setattr("tests.whole.test_hangs.LASTS", 2)
    monkeypatch.setattr(ConnectedWorkers, "_watch", lambda self: [])
    with pytest.raises(AssertionError, match="nobody noticed"):
        check_hang(tmp_path, "hang", here, Clock(impatient), 900, monkeypatch)


def check_crawl(folder: Path, run: Run, patch: pytest.MonkeyPatch) -> None:
    """A cell takes longer than there is patience, but tells of progress now and then."""

    def later(clock: Clock, event: Event) -> None:
        if isinstance(event, Progressed):
            clock.jumps += 300
            (folder / "signs" / f"heard-{event.done}").touch()

    clock = Clock(later)
    patch.setattr(workers, "time", SimpleNamespace(monotonic=clock.monotonic))
    outcome = run(folder, [cell("long", "crawl", units=4, batch="one piece")], clock, 500)
    assert not clock.of(Retried), "who works was ended"
    assert not outcome.failed and len(clock.of(Finished)) == 1


@pytest.mark.parametrize("run", [here, elsewhere])
def test_a_long_cell_is_not_taken_for_one_that_hangs(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_crawl(tmp_path, run, monkeypatch)


def test_the_procedure_finds_a_driver_that_looks_at_the_time_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    progressed = Worker.progressed

    def once(self: Worker, question: float) -> None:
        if not self.heard:
            progressed(self, question)

    monkeypatch.setattr(Worker, "progressed", once)
    with pytest.raises(AssertionError, match="who works was ended"):
        check_crawl(tmp_path, elsewhere, monkeypatch)


def test_a_cell_whose_workers_all_hang_fails_after_three_tries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def hungry(clock: Clock, event: Event) -> None:
        impatient(clock, event)
        if isinstance(event, Retried):
            (tmp_path / "signs" / "hung").unlink()

    clock = Clock(hungry)
    clock.sign = tmp_path / "signs" / "hung"
    monkeypatch.setattr(workers, "time", SimpleNamespace(monotonic=clock.monotonic))
    fine = cell("fine")
    hangs = cell("hangs", "hang", fine=fine)
    outcome = here(tmp_path, [fine, hangs], clock, 900)
    assert outcome.computed == {fine.key} and len(clock.of(Silent)) == 3
    assert outcome.failed[hangs.key].endswith("(at the last of 3 tries)")
    check_nothing_is_left(tmp_path)


def test_a_process_that_cannot_be_ended_is_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As one that waits for a GPU that fell off its bus: its place is not given to another."""
    end, kept = Processes._end, list[int]()

    def stuck(self: Processes, worker: Worker) -> None:
        process = self._processes[worker.number]
        kept.append(process.pid)
        with monkeypatch.context() as patch:
            patch.setattr(process, "kill", lambda: None)
            end(self, worker)

    monkeypatch.setattr(Processes, "_end", stuck)
    monkeypatch.setattr(workers, "END", 0.1)
    clock = Clock(impatient)
    clock.sign = tmp_path / "signs" / "stopped"
    monkeypatch.setattr(workers, "time", SimpleNamespace(monotonic=clock.monotonic))
    (tmp_path / "signs").mkdir()
    store = Store(tmp_path / "store")
    runner = LocalRunner(FakeWorkshop(store, tmp_path / "signs"), 1, 900)
    with pytest.raises(EraseBenchError, match="no worker is left: what hung does not end when it is killed"):
        runner.run([cell("a", "stop")], store, [clock.tell])
    assert len(kept) == 1
    wait_until_gone(tmp_path)
    check_nothing_is_left(tmp_path)


def check_haunted(folder: Path, run: Run) -> None:
    """A worker is lost and writes on, into the folder that it was given, while another does its cell again."""
    haunted = [cell("haunted", "haunt"), cell("other")]
    try:
        outcome = run(folder, haunted, Clock(), None)
        store = Store(folder / "store")
        assert not outcome.failed and all(store.verify(one.key) is None for one in haunted), "a ghost wrote into a cell"
        found = {path.name: path.read_text() for path in store.read(haunted[0].key).iterdir() if path.suffix != ".json"}
        assert found == {"payload": "haunted 0 []\n"}, "a ghost wrote into a cell"
    finally:
        (folder / "signs" / "over").touch()


@pytest.mark.parametrize("run", [here, elsewhere])
def test_a_lost_worker_that_writes_on_harms_nothing(run: Run, tmp_path: Path) -> None:
    check_haunted(tmp_path, run)


def test_the_procedure_finds_a_folder_that_is_given_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    new_try = jobs.Begun.new_try
    monkeypatch.setattr(jobs.Begun, "new_try", lambda self: self.tries[0] if self.tries else new_try(self))
    with pytest.raises(AssertionError, match="a ghost wrote into a cell"):
        check_haunted(tmp_path, here)
