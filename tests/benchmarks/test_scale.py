"""The simulation of many workers: the schedule itself, on a clock that costs nothing."""

from __future__ import annotations

from collections import Counter

import pytest

from benchmarks import scale
from benchmarks.scale import HOUR, bound, disk, simulate, table
from tests.engine.fake import cell


@pytest.fixture(autouse=True)
def a_tenth_of_the_prompts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scale, "PROMPTS", 10)


def test_the_table_has_what_the_paper_has() -> None:
    cells, seconds = table()
    stages = Counter(cell.stage for cell in cells)
    rows = 11 * 6
    assert stages == {"erase": 61, "generate": rows + 61, "judge": rows + 61, "learn": rows, "attack": rows * 5 * 10}
    images = 11 * (9310 + 7560 + 4 * 1000) + 61 * 5000
    assert sum(cell.units for cell in cells if cell.stage == "generate") == images
    assert disk(cells) > images * scale.IMAGE_BYTES
    assert seconds.keys() == {cell.key for cell in cells}


def test_one_worker_takes_as_long_as_all_the_work() -> None:
    cells, seconds = table()
    found = simulate(cells, seconds, 1)
    assert found.seconds == pytest.approx(sum(seconds.values())) == pytest.approx(found.bound)


@pytest.mark.parametrize("losses", [0.0, scale.LOSSES])
@pytest.mark.parametrize("workers", [8, 256])
def test_many_workers_come_within_a_tenth_of_what_is_possible(workers: int, losses: float) -> None:
    cells, seconds = table()
    found = simulate(cells, seconds, workers, losses)
    assert (found.lost > 0) == (losses > 0)
    assert found.bound <= found.seconds <= 1.1 * found.bound


def test_no_schedule_is_faster_than_the_bound() -> None:
    """Five hours of work: two workers cannot halve it, since three hours of it come one after the other."""
    first = cell("first")
    cells = [first, cell("second", first=first), cell("a"), cell("b"), cell("c")]
    seconds = dict(zip((one.key for one in cells), (2 * HOUR, HOUR, HOUR, HOUR, 0.5 * HOUR), strict=True))
    assert [bound(cells, seconds, workers) / HOUR for workers in (1, 2, 9)] == [5.5, 3.0, 3.0]
    assert [simulate(cells, seconds, workers).seconds / HOUR for workers in (1, 2, 9)] == [5.5, 3.0, 3.0]


def test_a_schedule_that_leaves_the_long_for_the_end_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scale, "longest_way_first", lambda cells: cells[::-1])
    first = cell("first")
    cells = [first, cell("second", first=first), *(cell(f"{k}") for k in range(4))]
    found = simulate(cells, {one.key: HOUR for one in cells}, 2)
    assert found.seconds > 1.1 * found.bound
