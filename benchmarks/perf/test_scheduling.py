"""What handing out cells costs: seconds beside those of the cells, and time and memory where they are very many.

Bars: 5 % of 1,000 cells of one second on two workers, as 100 cells of a fifth of that let expect: what a worker waits
for between two cells does not depend on how long these take.  60 s and 1 GB for 100,000 cells, from their making until
all are settled.
"""

from __future__ import annotations

import io
import resource
import time
from pathlib import Path

import pytest

from benchmarks.perf.conftest import Show
from erasebench.engine.cells import Cell
from erasebench.engine.ledger import Ledger
from erasebench.engine.progress import Progress
from erasebench.engine.ray import RayRunner
from erasebench.engine.runner import Event, Finished, Runner, Started
from erasebench.engine.schedule import Queue, Schedule, longest_way_first
from erasebench.engine.slurm import SlurmRunner
from erasebench.engine.store import Store
from erasebench.engine.workers import LocalRunner
from tests.engine.fake import FakeWorkshop, cell
from tests.engine.test_workers import ROOT

WORKERS, CELLS, TICK = 2, 100, 0.2
MAX_SHARE, MANY_CELLS = 0.05, 100_000


@pytest.mark.parametrize("name", ["local", "ray", "slurm"])
@pytest.mark.filterwarnings("ignore::ResourceWarning")  # Ray's sockets and logs
def test_overhead(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, show: Show) -> None:
    """From the first cell that is finished to the last, with everything that a run writes."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    (tmp_path / "signs").mkdir()
    store, ledger = Store(tmp_path / "store"), Ledger(tmp_path / "ledger.jsonl")
    workshop = FakeWorkshop(store, tmp_path / "signs")
    runners: dict[str, Runner] = {
        "local": LocalRunner(workshop, WORKERS),
        "ray": RayRunner(workshop, WORKERS),
        "slurm": SlurmRunner(workshop, WORKERS, {"cluster": "local"}),
    }
    # Both workers are there before the clock starts.
    first = [cell("a", "meet b"), cell("b", "meet a")]
    cells = [cell(f"{k}", f"tick {TICK}", a=first[0], b=first[1]) for k in range(CELLS)]
    moments: list[float] = []
    spent: list[float] = []

    def note(event: Event) -> None:
        if isinstance(event, Finished):
            moments.append(time.perf_counter())
            spent.append(time.process_time())

    with store.at_work(), Progress(cells, io.StringIO(), WORKERS) as progress:
        outcome = runners[name].run([*first, *cells], store, [ledger, progress, note])
    ledger.close()
    assert len(outcome.computed) == CELLS + 2
    each = WORKERS * (moments[-1] - moments[1]) / CELLS - TICK  # seconds that a worker waits after a cell
    share = each / (1 + each)
    figures = {
        "a worker waits after a cell": f"{1000 * each:.1f} ms",
        "the driver computes for a cell": f"{1000 * (spent[-1] - spent[1]) / CELLS:.1f} ms",
        "of 1,000 cells of one second": f"{share:.1%}",
    }
    show(f"Handing out, {name}", figures)
    assert share <= MAX_SHARE


def test_a_hundred_thousand_cells(show: Show) -> None:
    """A hundred erasures with a thousand attacked prompts each."""
    began, before = time.perf_counter(), _megabytes()
    cells: list[Cell] = []
    for row in range(100):
        cells.append(Cell("erase", {"method": f"m{row}", "seed": 0}, {}, f"m{row}"))
        for k in range(MANY_CELLS // 100 - 1):
            prompt = {"id": f"{row}-{k}", "text": "a photo of a church on the beach in the evening", "seed": k}
            spec = {"attack": "unlearndiff", "prompt": prompt}
            cells.append(Cell("attack", spec, {"erasure": cells[-1 - k]}, f"{row} {k}", batch=f"{row}"))
    queue, keys = Queue(longest_way_first(cells)), {cell.key for cell in cells}
    progress = Progress(cells, io.StringIO(), WORKERS)
    schedule = Schedule(cells, keys, queue, lambda cell: "", _never, _never)
    planned, at_start = time.perf_counter() - began, _megabytes() - before
    while schedule.remaining_cells:
        taken = queue.take(16)
        for one in taken:
            progress(Started(one, None if one is taken[0] else taken[0]))
        for one in taken:
            progress(Finished(one, {"seconds": 1.0}))
            schedule.settle(one)
    whole, at_end = time.perf_counter() - began, _megabytes() - before
    show(
        f"{MANY_CELLS:,} cells",
        {
            "planned": f"{planned:.1f} s, {at_start:.0f} MB",
            "all settled": f"{whole:.1f} s, {at_end:.0f} MB",
        },
    )
    assert whole < 60 and at_end < 1000


def _megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def _never(*_: object) -> None:
    raise AssertionError("no cell is given up")
