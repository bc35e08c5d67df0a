from __future__ import annotations

import random
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import cache

import pytest

from erasebench.engine.cells import Cell
from erasebench.engine.schedule import NOBODY, Queue, Schedule, longest_way_first, perhaps_unneeded
from tests.engine.fake import cascade, cell


def titles(cells: Sequence[Cell]) -> list[str]:
    return [cell.title for cell in cells]


def test_a_queue_gives_cells_in_their_order_and_a_batch_together() -> None:
    cells = [cell("a"), *(cell(f"b{k}", batch="b") for k in range(5)), cell("c"), cell("d", batch="d")]
    queue = Queue(cells)
    for one in reversed(cells):
        queue.add(one)
    found = []
    while first := queue.first():
        size = len(queue)
        taken = queue.take(3)
        assert taken[0] is first and len(queue) == size - len(taken)
        found.append(titles(taken))
        if found[-1] == ["b0", "b1", "b2"]:
            assert len(queue) == 4
            queue.add(taken[1])  # another run was at it: it is put back
    assert found == [["a"], ["b0", "b1", "b2"], ["b1", "b3", "b4"], ["c"], ["d"]]
    assert queue.take(3) == []


def test_batches_of_two_stages_are_not_mixed() -> None:
    cells = [cell("a", batch="b"), replace(cell("c", batch="b"), stage="other")]
    queue = Queue(cells)
    for one in cells:
        queue.add(one)
    assert titles(queue.take(9)) == ["a"]


def test_the_longest_way_counts_those_that_wait_to_be_decided() -> None:
    (first,), (second,) = cascade(1, ())
    assert titles(longest_way_first([cell("alone"), first, second])) == ["first 0", "alone", "second 0"]


class Simulation:
    """A run of cells in a random order, where each ends as is written in its spec."""

    def __init__(self, cells: Sequence[Cell], there: set[str], seed: int) -> None:
        self.states = {one.key: "ok" for one in cells if one.key in there}
        self.queue, self.order = Queue(cells), list[str]()
        left = {one.key for one in cells} - there
        self.schedule = Schedule(cells, left, self.queue, self.ask, self.drop, self.skip)
        draw, running = random.Random(seed), list[Cell]()
        while self.schedule.remaining_cells:
            running += self.queue.take(draw.randint(1, 3)) if draw.random() < 0.7 else []
            if running and draw.random() < 0.7:
                self.end(running.pop(draw.randrange(len(running))))
            assert running or self.queue or not self.schedule.remaining_cells, "nothing can go on"
        assert not self.queue and not running

    def end(self, one: Cell) -> None:
        assert all(self.states[read.key] == "ok" for read in one.reads.values())
        assert all(other.key in self.states for other in one.unless)
        self.note(one, "failed" if one.spec["act"] == "raise" else "ok")
        self.order.append(one.title)
        self.schedule.settle(one, one.spec["act"] == "raise")

    def note(self, one: Cell, state: str) -> None:
        assert one.key not in self.states
        self.states[one.key] = state

    def ask(self, one: Cell) -> str:
        assert all(other.key in self.states for other in one.unless)
        broke = [o.title for o in one.unless if self.states[o.key] == "ok" and o.spec["act"] == "break"]
        return "broken" if broke else ""

    def drop(self, one: Cell, reason: str) -> None:
        assert reason in ("broken", NOBODY)
        self.note(one, "n/a")

    def skip(self, one: Cell, failed: Cell) -> None:
        assert self.states[failed.key] == "failed" and failed.key in {read.key for read in one.reads.values()}
        self.note(one, "failed")


def expected(cells: Sequence[Cell], there: set[str]) -> dict[str, str]:
    """What becomes of each cell, straight from the definition."""
    by_key = {one.key: one for one in cells}
    readers = {key: [one.key for one in cells if key in {r.key for r in one.reads.values()}] for key in by_key}
    deciding = {other.key for one in cells for other in one.unless}

    @cache
    def ruled_out(key: str) -> bool:
        one = by_key[key]
        if key in there:
            return False
        own = any(would_do(other.key) and other.spec["act"] == "break" for other in one.unless)
        return own or any(ruled_out(read.key) for read in one.reads.values())

    @cache
    def wanted(key: str) -> bool:
        if by_key[key].asked or key in deciding or not readers[key]:
            return True
        return any(reader in there or (not ruled_out(reader) and wanted(reader)) for reader in readers[key])

    @cache
    def would_fail(key: str) -> bool:
        one = by_key[key]
        return key not in there and (one.spec["act"] == "raise" or any(would_fail(r.key) for r in one.reads.values()))

    def would_do(key: str) -> bool:
        return not ruled_out(key) and not would_fail(key)

    def state(key: str) -> str:
        if key not in there and (ruled_out(key) or not wanted(key)):
            return "n/a"
        return "failed" if would_fail(key) else "ok"

    return {key: state(key) for key in by_key}


def some_cells(draw: random.Random) -> list[Cell]:
    """Cells that read and decide on each other in every way."""
    cells: list[Cell] = []
    for k in range(draw.randint(2, 14)):
        reads = {f"r{n}": one for n, one in enumerate(draw.sample(cells, draw.randint(0, min(2, len(cells)))))}
        unless = draw.sample(cells, draw.randint(0, min(2, len(cells)))) if draw.random() < 0.5 else []
        act = draw.choice(["", "", "break", "break", "raise"])
        one = cell(f"c{k}", act, batch=draw.choice(["", "x", "y"]), unless=unless)
        cells.append(replace(one, reads=reads, asked=draw.random() < 0.1))
    return cells


def test_every_cell_ends_as_defined_in_whatever_order_work_is_done() -> None:
    draw, seen = random.Random(0), set[str]()
    for _ in range(400):
        cells = some_cells(draw)
        there = {one.key for one in cells if one.spec["act"] != "raise" and draw.random() < 0.2}
        states = expected(cells, there)
        for seed in range(4):
            assert Simulation(cells, there, seed).states == states
        seen.update(states.values())
        certain = {one.key for one in cells if one.key not in there} - perhaps_unneeded(
            [one for one in cells if one.key not in there]
        )
        assert "n/a" not in {states[key] for key in certain}
    assert seen == {"ok", "failed", "n/a"}


def prepared(broken: Sequence[int], more: Sequence[Cell] = ()) -> list[Cell]:
    """A cascade whose second attack reads what two cells prepare, one after the other."""
    base = cell("base")
    prepare = cell("prepare", base=base)
    first, second = cascade(3, broken, prepare)
    return [base, prepare, *first, *second, *more]


def test_what_only_conditional_cells_read_waits_until_one_is_needed() -> None:
    cells = prepared(broken=[0])
    run = Simulation(cells, set(), 0)
    assert run.order.index("base") > min(run.order.index(f"first {k}") for k in (1, 2))
    assert [run.states[one.key] for one in cells] == ["ok", "ok", "ok", "ok", "ok", "n/a", "ok", "ok"]
    none = Simulation(cells := prepared(broken=[0, 1, 2]), set(), 0)
    assert [none.states[one.key] for one in cells] == ["n/a", "n/a", "ok", "ok", "ok", "n/a", "n/a", "n/a"]


@pytest.mark.parametrize("there", [False, True])
def test_what_another_cell_reads_as_well_is_computed_at_once(there: bool) -> None:
    base, *others = prepared(broken=[0, 1, 2])
    reader = cell("reader", base=base)
    cells = [base, *others, reader]
    run = Simulation(cells, {reader.key} if there else set(), 0)
    assert run.states[base.key] == "ok" and run.states[others[0].key] == "n/a"
    queue = Queue(cells)
    Schedule(cells, {one.key for one in cells} - ({reader.key} if there else set()), queue, run.ask, run.drop, run.skip)
    assert queue.take(1) == [base]


def test_what_is_asked_for_is_computed_though_nobody_needs_it() -> None:
    base, prepare, *others = prepared(broken=[0, 1, 2])
    cells = [base, replace(prepare, asked=True), *others]
    run = Simulation(cells, set(), 0)
    assert run.states[base.key] == run.states[prepare.key] == "ok"


def test_what_may_prove_unneeded_is_known_before() -> None:
    cells = prepared(broken=[])
    assert perhaps_unneeded(cells) == {one.key for one in cells if not one.title.startswith("first")}


def test_many_cells_take_a_time_that_grows_with_their_number() -> None:
    """Some 20,000 cells, most of which are conditional; work that grows with the square would take minutes."""
    first, second = cascade(10_000, range(0, 10_000, 2), cell("learned"))
    cells = [cell("learned"), *first, *second]
    began = time.process_time()
    run = Simulation(cells, set(), 0)
    assert time.process_time() - began < 20
    assert list(run.states.values()).count("n/a") == 5000


def test_a_long_chain_of_failures_needs_no_deep_stack() -> None:
    cells = [cell("0", "raise")]
    for k in range(3000):
        cells.append(cell(str(k + 1), last=cells[-1]))
        assert cells[-1].key  # found now, while that of the last is known
    assert set(Simulation(cells, set(), 0).states.values()) == {"failed"}


@pytest.mark.parametrize(
    ("others", "workers", "size"),
    [
        *[(0, 1, 4), (0, 2, 4), (0, 5, 2), (0, 100, 1)],  # ten cells for so many workers
        *[(1, 2, 4), (1, 4, 4), (1, 6, 2)],  # one of which has something else to do
        *[(100, 8, 4), (100, 256, 1)],
    ],
)
def test_a_batch_is_shared_when_there_is_not_enough_for_everybody(others: int, workers: int, size: int) -> None:
    cells = [*(cell(f"{k}", batch="b") for k in range(10)), *(cell(f"other {k}", batch="c") for k in range(others))]
    queue = Queue(cells)
    for one in cells:
        queue.add(one)
    assert queue.share(cells[0], 4, workers) == size


@pytest.mark.parametrize(("count", "sizes"), [(4, [2, 2]), (8, [4, 4]), (10, [4, 3, 2, 1])])
def test_two_workers_take_equal_shares_or_less_and_less(count: int, sizes: list[int]) -> None:
    cells = [cell(f"{k}", batch="b") for k in range(count)]
    queue = Queue(cells)
    for one in cells:
        queue.add(one)
    taken = []
    while first := queue.first():
        taken.append(len(queue.take(queue.share(first, 4, 2))))
    assert taken == sizes
