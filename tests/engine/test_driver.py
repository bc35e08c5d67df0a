"""Cells of batches, and cells that others make unneeded, on cells that need no model."""

from __future__ import annotations

import io
import os
import signal
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import pytest

from erasebench.engine.cells import Cell, with_all_that_they_read
from erasebench.engine.ledger import Ledger, read_ledger
from erasebench.engine.progress import Progress
from erasebench.engine.runner import (
    Event,
    Failed,
    Finished,
    Found,
    Outcome,
    Skipped,
    Started,
    Subscriber,
    Unneeded,
    Waiting,
)
from erasebench.engine.store import Store
from erasebench.engine.workers import LocalRunner
from tests.engine.fake import FakeWorkshop, cascade, cell
from tests.engine.test_workers import check_nothing_is_left
from tests.forks import in_a_child
from tests.whole.test_kill import count_calls


def run(folder: Path, cells: Sequence[Cell], workers: int = 1, most: int = 4, *subscribers: Subscriber) -> Outcome:
    (folder / "signs").mkdir(parents=True, exist_ok=True)
    store = Store(folder / "store")
    return LocalRunner(FakeWorkshop(store, folder / "signs", most=most), workers).run(cells, store, subscribers)


def groups(folder: Path) -> list[list[str]]:
    """The cells of each task."""
    return sorted(path.read_text().split() for path in (folder / "groups").iterdir())


def batch(*acts: str, name: str = "x") -> list[Cell]:
    return [cell(f"{name}{k}", act, batch=name) for k, act in enumerate(acts)]


def payloads(folder: Path, cells: Sequence[Cell]) -> dict[str, bytes]:
    store = Store(folder / "store")
    return {one.title: (store.read(one.key) / "payload").read_bytes() for one in cells if store.marker(one.key)}


def titles(cells: Sequence[Cell], keys: Sequence[str] | set[str]) -> list[str]:
    return [one.title for one in cells if one.key in keys]


def test_cells_of_a_batch_are_computed_together_and_committed_each(tmp_path: Path) -> None:
    cells = [*batch(*[""] * 6), cell("alone")]
    events: list[Event] = []
    outcome = run(tmp_path, cells, 1, 4, events.append)
    assert groups(tmp_path) == [["x0", "x1", "x2", "x3"], ["x4", "x5"]]
    assert outcome.computed == {one.key for one in cells} and not (outcome.failed or outcome.unneeded)
    started = [event for event in events if isinstance(event, Started)]
    assert [event.beside and event.beside.title for event in started] == [None, "x0", "x0", "x0", None, "x4", None]
    store = Store(tmp_path / "store")
    assert [store.verify(one.key) for one in cells] == [None] * 7
    assert all(outcome.costs[one.key]["lines"] == 1 for one in cells)
    check_nothing_is_left(tmp_path)


def test_the_seconds_of_a_task_are_divided_evenly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("erasebench.engine.work.time", SimpleNamespace(monotonic=count(0.0, 6.0).__next__))
    cells, failing = batch("", "", ""), batch("", "raise", name="y")
    events: list[Event] = []
    outcome = run(tmp_path, [*cells, *failing], 1, 4, events.append)
    assert [outcome.costs[one.key]["seconds"] for one in cells] == [2.0] * 3
    assert [event.failure.seconds for event in events if isinstance(event, Failed)] == [3.0] * 2


def mixed() -> list[Cell]:
    """Attacks on five prompts; the second reads what is learnt, of which only the third prompt's fails."""
    base = cell("base", units=4)
    learned = cell("learned", base=base)
    first, second = cascade(5, [1, 3], learned)
    second[2] = cell("second 2", "raise", batch="other", unless=[first[2]], learned=learned)
    after = [cell(f"after {k}", batch="after", unless=[first[k], second[k]], attack=second[k]) for k in range(5)]
    return with_all_that_they_read([*after, *first, *second])


@pytest.mark.parametrize(("workers", "most"), [(1, 1), (1, 99), (2, 2)])
def test_neither_group_size_nor_workers_change_what_becomes_of_a_cell(workers: int, most: int, tmp_path: Path) -> None:
    cells = mixed()
    events: list[Event] = []
    outcome = run(tmp_path, cells, workers, most, events.append)
    found = payloads(tmp_path, cells)
    expected = {"base": b"".join(b"base %d []\n" % k for k in range(4))}
    expected["learned"] = f"learned 0 [{expected['base'].decode()!r}]\n".encode()
    expected |= {f"first {k}": f"first {k} 0 []{'broken' if k in (1, 3) else ''}\n".encode() for k in range(5)}
    expected |= {f"second {k}": f"second {k} 0 [{expected['learned'].decode()!r}]\n".encode() for k in (0, 4)}
    expected |= {f"after {k}": f"after {k} 0 [{expected[f'second {k}'].decode()!r}]\n".encode() for k in (0, 4)}
    assert found == expected
    assert sorted(titles(cells, outcome.computed)) == sorted(expected)
    reasons = {one.title: outcome.unneeded[one.key] for one in cells if one.key in outcome.unneeded}
    assert reasons == {f"{name} {k}": f"first {k} broke it" for name in ("second", "after") for k in (1, 3)}
    assert titles(cells, set(outcome.failed)) == ["second 2", "after 2"]
    assert set(outcome.failed.values()) == {"ValueError: it cannot be done"}
    ends = [event.cell.title for event in events if isinstance(event, Finished | Failed | Skipped | Unneeded)]
    assert len(ends) == len(set(ends)) == len(cells)
    check_nothing_is_left(tmp_path)


def test_idle_workers_share_a_batch_and_others_take_no_part_of_it(tmp_path: Path) -> None:
    assert not run(tmp_path / "shared", batch("meet x2", "", "meet x0", ""), 2).failed
    assert groups(tmp_path / "shared") == [["x0", "x1"], ["x2", "x3"]]
    others = [*batch("meet alone", "", "", ""), cell("alone", "meet x0")]
    assert not run(tmp_path / "busy", others, 2).failed
    assert groups(tmp_path / "busy") == [["x0", "x1", "x2", "x3"]]


@pytest.mark.parametrize(
    ("what", "workers", "reason"),
    [
        ("raise", 1, "ValueError: it cannot be done"),
        ("exit", 2, "its worker process ended with exit code 7 (at the last of 3 tries)"),
    ],
)
def test_a_failure_is_that_of_all_cells_of_a_task(what: str, workers: int, reason: str, tmp_path: Path) -> None:
    cells = [*batch("", what), *batch("", "", "", name="y")]
    events: list[Event] = []
    outcome = run(tmp_path, cells, workers, 4, events.append)
    assert outcome.failed == dict.fromkeys((one.key for one in cells[:2]), reason)
    assert outcome.computed == {one.key for one in cells[2:]}
    assert titles(cells, {event.cell.key for event in events if isinstance(event, Failed)}) == ["x0", "x1"]
    check_nothing_is_left(tmp_path)
    assert run(tmp_path, [*batch("", ""), *cells[2:]], workers).failed == {}


def test_a_part_that_fails_takes_the_parts_that_nobody_began(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeWorkshop, "divide", lambda self, one, workers: [slice(k, k + 1) for k in range(one.units)])
    cells = [cell("bad", "raise", units=3, part=1), cell("fine", units=2)]
    outcome = run(tmp_path, cells)
    assert titles(cells, set(outcome.failed)) == ["bad"] and titles(cells, outcome.computed) == ["fine"]
    begun = sorted(path.name for path in (tmp_path / "signs").iterdir())
    assert begun == ["begun-bad-0", "begun-bad-1", "begun-fine-0", "begun-fine-1"]


def test_costs_of_too_few_cells_are_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeWorkshop, "work", lambda *args: [{}])
    outcome = run(tmp_path, batch("", ""))
    assert set(outcome.failed.values()) == {"ValueError: the costs of 1 cells came of 2"}


@pytest.mark.parametrize("workers", [1, 2])
def test_a_cell_that_another_run_is_at_holds_up_no_other(workers: int, tmp_path: Path) -> None:
    cells = batch("", "", "", "", "", "")
    leases = Store(tmp_path / "store").leases
    assert leases.claim(cells[1].key).held
    events: list[Event] = []

    def release(event: Event) -> None:
        events.append(event)
        if sum(isinstance(event, Finished) for event in events) == 5:
            leases.release(cells[1].key)

    outcome = run(tmp_path, cells, workers, 2, release)
    assert outcome.computed == {one.key for one in cells}
    assert [event.cell.title for event in events if isinstance(event, Waiting)] == ["x1"]
    assert [event.cell.title for event in events if isinstance(event, Finished)][-1] == "x1"
    check_nothing_is_left(tmp_path)


def test_what_another_run_found_decides_as_well(tmp_path: Path) -> None:
    (first,), (second,) = cascade(1, [0])
    store = Store(tmp_path / "store")
    assert store.leases.claim(first.key).held
    events: list[Event] = []

    def compute(event: Event) -> None:
        events.append(event)
        if isinstance(event, Waiting):
            with store.writing(first, {"seconds": 0.0}) as folder:
                (folder / "payload").write_text("broken")
            store.leases.release(first.key)

    outcome = run(tmp_path, [first, second], 1, 4, compute)
    assert outcome.computed == set() and outcome.unneeded == {second.key: "first 0 broke it"}
    assert [type(event) for event in events] == [Waiting, Found, Unneeded]


def test_a_condition_that_failed_leaves_the_decision_to_the_others(tmp_path: Path) -> None:
    failed, broken, fine = cell("failed", "raise"), cell("broken", "break"), cell("fine")
    cells = [failed, broken, fine, cell("needed", unless=[failed, fine]), cell("only", unless=[failed])]
    cells += [cell("not", unless=[failed, broken])]
    cells += [cell("last", unless=[cells[-1]])]
    outcome = run(tmp_path, cells)
    assert titles(cells, outcome.computed) == ["broken", "fine", "needed", "only", "last"]
    assert titles(cells, set(outcome.unneeded)) == ["not"] and titles(cells, set(outcome.failed)) == ["failed"]


def test_a_cell_of_which_it_cannot_be_told_whether_it_is_needed_fails(tmp_path: Path) -> None:
    first = cell("first")
    cells = [first, cell("puzzle", "puzzle", unless=[first])]
    cells += [cell("reads it", puzzle=cells[1])]
    outcome = run(tmp_path, cells)
    assert outcome.failed == dict.fromkeys((one.key for one in cells[1:]), "ValueError: nobody knows")


def test_what_is_prepared_is_prepared_only_when_it_is_needed(tmp_path: Path) -> None:
    for name, broken in (("all", [0, 1]), ("one", [0])):
        prepare = cell("prepare")
        first, second = cascade(2, broken, prepare)
        events: list[Event] = []
        outcome = run(tmp_path / name, [prepare, *first, *second], 1, 4, events.append)
        computed = [event.cell.title for event in events if isinstance(event, Finished)]
        assert computed == ["first 0", "first 1", *(["prepare", "second 1"] if name == "one" else [])]
        assert outcome.unneeded.get(prepare.key) == (None if name == "one" else "no cell that reads it is needed")


def test_what_has_a_result_is_neither_asked_about_nor_computed(tmp_path: Path) -> None:
    first, second = cascade(3, [1])
    run(tmp_path, second)  # as attacks by themselves
    events: list[Event] = []
    outcome = run(tmp_path, [*first, *second], 1, 4, events.append)
    assert outcome.computed == {one.key for one in first} and not outcome.unneeded
    assert outcome.costs.keys() == {one.key for one in (*first, *second)}


def test_the_same_again_computes_nothing_and_says_again_what_is_not_needed(tmp_path: Path) -> None:
    cells = [one for some in cascade(3, [0, 2]) for one in some]
    for _ in range(2):
        ledger, stream = Ledger(tmp_path / "ledger.jsonl"), io.StringIO()
        missing = [one for one in cells if Store(tmp_path / "store").marker(one.key) is None]
        with Progress(missing, stream) as progress:
            run(tmp_path, cells, 1, 4, ledger, progress)
        ledger.close()
    lines = [(line["event"], line["title"], line.get("reason")) for line in read_ledger(tmp_path / "ledger.jsonl")]
    unneeded = [("n/a", f"second {k}", f"first {k} broke it") for k in (0, 2)]
    computed = [("ok", title, None) for title in ("first 0", "first 1", "first 2", "second 1")]
    assert sorted(lines[:-2]) == [*unneeded, *computed] and lines[-2:] == unneeded
    assert stream.getvalue() == "[2/2] fake second: 2 not needed\n"


def test_a_kill_between_the_commits_of_a_task_costs_only_the_others(tmp_path: Path) -> None:
    cells, seen = batch(*[""] * 4), []

    def kill(event: Event) -> None:
        seen.append(isinstance(event, Finished))
        if sum(seen) == 2:
            os.kill(os.getpid(), signal.SIGKILL)

    def killed() -> None:
        run(tmp_path, cells, 1, 4, kill)

    assert in_a_child(killed) == -signal.SIGKILL
    assert sorted(payloads(tmp_path, cells)) == ["x0", "x1"]
    outcome = run(tmp_path, cells)
    assert titles(cells, outcome.computed) == ["x2", "x3"]
    assert groups(tmp_path)[-1] == ["x2", "x3"]


def test_killed_at_any_moment_a_cascade_goes_on_and_ends_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cells = mixed()
    counted = [0]
    with monkeypatch.context() as patch:
        count_calls(patch, lambda n, after: counted.__setitem__(0, n))
        whole = run(tmp_path / "whole", cells)
    expected = payloads(tmp_path / "whole", cells)
    for n in range(3, counted[0], counted[0] // 8):
        folder = tmp_path / str(n)

        def killed(folder: Path = folder, n: int = n) -> None:
            with pytest.MonkeyPatch.context() as patch:
                count_calls(patch, lambda k, after: os.kill(os.getpid(), signal.SIGKILL) if k == n else None)
                run(folder, cells)

        assert in_a_child(killed) == -signal.SIGKILL
        store = Store(folder / "store")
        kept = {one.key for one in cells if store.verify(one.key) is None}
        assert not [one.title for one in cells if "corrupt" in (store.verify(one.key) or "")]
        outcome = run(folder, cells)
        assert outcome.computed == whole.computed - kept
        assert (outcome.failed, outcome.unneeded) == (whole.failed, whole.unneeded)
        assert payloads(folder, cells) == expected
