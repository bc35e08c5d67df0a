"""The simulation of many workers: the schedule itself, on a clock that costs nothing."""

from __future__ import annotations

import pytest

from benchmarks import simulation
from benchmarks.simulation import HOUR, bound, simulate
from tests.engine.fake import cell


def test_no_schedule_is_faster_than_the_bound() -> None:
    """Five hours of work: two workers cannot halve it, since three hours of it come one after the other."""
    first = cell("first")
    cells = [first, cell("second", first=first), cell("a"), cell("b"), cell("c")]
    seconds = dict(zip((one.key for one in cells), (2 * HOUR, HOUR, HOUR, HOUR, 0.5 * HOUR), strict=True))
    assert [bound(cells, seconds, workers) / HOUR for workers in (1, 2, 9)] == [5.5, 3.0, 3.0]
    assert [simulate(cells, seconds, workers).seconds / HOUR for workers in (1, 2, 9)] == [5.5, 3.0, 3.0]


def test_a_schedule_that_leaves_the_long_for_the_end_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simulation, "longest_way_first", lambda cells: cells[::-1])
    first = cell("first")
    cells = [first, cell("second", first=first), *(cell(f"{k}") for k in range(4))]
    found = simulate(cells, {one.key: HOUR for one in cells}, 2)
    assert found.seconds > 1.1 * found.bound
