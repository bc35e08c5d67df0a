from __future__ import annotations

import io
import time

import click
import pytest

from erasebench.engine.cells import Cell
from erasebench.engine.progress import Progress, duration
from erasebench.engine.runner import (
    Asked,
    Corrupt,
    Ended,
    Event,
    Failed,
    Finished,
    Found,
    Joined,
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
MORE = Cell("generate", {"n": 6}, {}, "sd tench", "ddim", 6, "images")
ERASURE = Cell("erase", {}, {}, "uce church", "uce")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that stands still."""
    clock = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    return clock


def finish(progress: Progress, now: list[float], cell: Cell, seconds: float) -> None:
    progress(Started(cell))
    now[0] += seconds
    progress(Finished(cell, {"seconds": seconds}))


def test_where_there_is_no_terminal_each_cell_is_one_line(now: list[float]) -> None:
    stream = io.StringIO()
    progress = Progress([ERASURE, CELL], stream)
    progress(Started(ERASURE))
    progress(Progressed(ERASURE, 1, 2, "loss 0.1"))
    now[0] = 2.0
    progress(Finished(ERASURE, {"seconds": 2.0}))
    finish(progress, now, CELL, 4.0)
    assert stream.getvalue().splitlines() == [
        "[1/2] erase uce church: ok, 2.0 s",
        "[2/2] generate sd church: ok, 4.0 s, 0.5 images/s",
    ]


def test_where_there_is_no_terminal_a_long_cell_is_heard_of_every_half_minute(now: list[float]) -> None:
    stream = io.StringIO()
    progress = Progress([ERASURE], stream)
    progress(Started(ERASURE))
    for second in range(100):
        now[0] = float(second)
        progress(Progressed(ERASURE, second, 100, "loss 0.1"))
    assert stream.getvalue().splitlines() == [f"[1/1] erase uce church {n}/100 loss 0.1" for n in (30, 60, 90)]


def test_a_cell_that_says_nothing_is_heard_of_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("erasebench.engine.progress.REPORT", 0.0)
    stream = io.StringIO()
    with Progress([CELL], stream) as progress:
        progress(Started(CELL))
        ends = time.monotonic() + 20
        while not stream.getvalue() and time.monotonic() < ends:
            time.sleep(0.05)
    assert stream.getvalue().splitlines()[0] == "[1/1] generate sd church"


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.delenv("NO_COLOR", raising=False)
    return Terminal()


def shown(stream: Terminal) -> list[str]:
    """The lines that were drawn last, without colours, bars and blanks."""
    text = click.unstyle(stream.getvalue().split("\x1b[2K")[-1])
    return [" ".join(line.replace("━", "").replace("╸", "").replace("╺", "").split()) for line in text.splitlines()]


def test_a_terminal_has_bars_below_what_is_finished(now: list[float], terminal: Terminal) -> None:
    with Progress([CELL, MORE], terminal) as progress:
        finish(progress, now, CELL, 2.0)
        assert "[1/2] generate sd church: ok, 2.0 s, 1.0 images/s\n" in click.unstyle(terminal.getvalue())
        assert shown(terminal) == ["[1/2] cells, 6 s left"]
        progress(Started(MORE))
        now[0] = 4.0
        progress(Progressed(MORE, 2, 6, "images"))
        assert shown(terminal) == ["generate sd tench 2/6 images, 1.0 images/s", "[1/2] cells, 4 s left"]
        now[0] = 5.0
        progress(Failed(MORE, Failure("a reason", seconds=1.0)))
        assert "[2/2] generate sd tench: failed (a reason), 1.0 s\n" in click.unstyle(terminal.getvalue())
    assert terminal.getvalue().count("\x1b[?25l") == terminal.getvalue().count("\x1b[?25h") == 1, "the cursor is back"


def test_cells_that_are_computed_at_once_have_a_bar_each_and_share_the_time(
    now: list[float], terminal: Terminal
) -> None:
    with Progress([CELL, MORE, ERASURE], terminal, workers=2) as progress:
        finish(progress, now, CELL, 2.0)
        progress(Started(MORE))
        progress(Started(ERASURE))
        now[0] = 4.0
        progress(Progressed(ERASURE, 1, 9, "loss 0.5"))
        progress(Progressed(MORE, 2, 6, "images"))
        assert shown(terminal) == [
            "generate sd tench",
            "erase uce church 1/9 loss 0.5",
            "[1/3] cells, more than 1 s left",
        ]


def test_a_narrow_terminal_shortens(now: list[float], terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    with Progress([MORE], terminal) as progress:
        progress(Started(MORE))
        now[0] = 1.0
        progress(Progressed(MORE, 3, 6, "images"))
        assert shown(terminal)[0].startswith("generate sd") and shown(terminal)[0].endswith("…")


def test_the_remaining_time_says_that_erasures_were_not_timed_yet(now: list[float], terminal: Terminal) -> None:
    erasures = [Cell("erase", {"n": n}, {}, f"c{n}") for n in range(2)]
    with Progress([CELL, *erasures, MORE], terminal) as progress:
        finish(progress, now, CELL, 2.0)
        progress(Started(erasures[0]))
        assert shown(terminal) == ["erase c0", "[1/4] cells, more than 6 s left"]
        now[0] += 10
        progress(Finished(erasures[0], {"seconds": 10.0}))
        progress(Started(erasures[1]))
        assert shown(terminal) == ["erase c1", "[2/4] cells, 16 s left"]


def test_cells_that_come_and_go_keep_the_count_right(now: list[float]) -> None:
    stream = io.StringIO()
    corrupt, found, skipped, last = (Cell("erase", {"n": n}, {}, f"c{n}") for n in range(4))
    progress = Progress([CELL, found, skipped, last], stream)
    progress(Corrupt(corrupt, "is corrupt: its marker does not fit its files"))
    progress(Corrupt(last, "is corrupt"))
    progress(Found(found))
    progress(Skipped(skipped, ""))
    progress(Waiting(last))
    for cell in (CELL, corrupt, last):
        finish(progress, now, cell, 1.0)
    first, second, waiting, *lines = stream.getvalue().splitlines()
    assert first == "erase c0 is corrupt: its marker does not fit its files; it is computed again"
    assert second == "erase c3 is corrupt; it is computed again"
    assert waiting == "waiting for another run at erase c3"
    assert [line.split()[0] for line in lines] == ["[3/5]", "[4/5]", "[5/5]"]


def test_a_cell_that_goes_from_run_to_run_is_told_of(now: list[float]) -> None:
    stream = io.StringIO()
    progress = Progress([CELL], stream)
    progress(Waiting(CELL, "process 1 on node7"))
    progress(TakenOver(CELL, "process 1 on node7, silent for 60 s"))
    progress(Started(CELL))
    progress(Lost(CELL))
    assert not progress.running
    finish(progress, now, CELL, 1.0)
    waiting, taken, lost, end = stream.getvalue().splitlines()
    name = f"{CELL.stage} {CELL.title}"
    assert waiting == f"waiting for process 1 on node7 at {name}"
    assert taken == f"taking over {name} from process 1 on node7, silent for 60 s"
    assert lost.startswith(f"{name}: another run took this one for gone") and end.startswith(f"[1/1] {name}: ok")


def attacks(*ids: int, unless: tuple[Cell, ...] = (), batch: str = "rab uce church") -> list[Cell]:
    return [Cell("attack", {"n": n}, {}, f"rab {n}", "rab", 1, "prompts", batch, unless) for n in ids]


def test_a_batch_is_one_line_when_all_of_its_cells_are_settled(now: list[float]) -> None:
    stream = io.StringIO()
    cells = attacks(*range(8))
    progress = Progress([CELL, *cells], stream)
    progress(Started(cells[0]))
    for cell in cells[1:4]:
        progress(Started(cell, cells[0]))
    now[0] = 31.0
    progress(Progressed(cells[0], 3, 40, "loss 0.1"))
    now[0] = 40.0
    for cell in cells[:4]:
        progress(Finished(cell, {"seconds": 10.0}))
    progress(Unneeded(cells[4], "fell before"))
    progress(Skipped(cells[5], "needs another"))
    progress(Found(cells[6]))
    progress(Started(cells[7]))
    now[0] = 42.0
    progress(Failed(cells[7], Failure("bad", seconds=2.0)))
    finish(progress, now, CELL, 4.0)
    assert stream.getvalue().splitlines() == [
        "[1/9] attack rab uce church (4 cells) 3/40 loss 0.1",
        "[8/9] attack rab uce church: 4 ok, 2 failed (needs another), 1 not needed, 1 by another run, 42.0 s, "
        "0.1 prompts/s",
        "[9/9] generate sd church: ok, 4.0 s, 0.5 images/s",
    ]


def test_a_batch_of_which_nothing_was_computed_took_no_time(now: list[float]) -> None:
    stream = io.StringIO()
    cells, others = attacks(1, 2), attacks(3, batch="cce uce church")
    progress = Progress([*cells, *others], stream)
    for cell in cells:
        progress(Unneeded(cell, "fell before"))
    progress(Found(others[0]))
    assert stream.getvalue() == "[2/3] attack rab uce church: 2 not needed\n"


def test_two_tasks_of_a_batch_have_a_bar_each(now: list[float], terminal: Terminal) -> None:
    cells = attacks(*range(5))
    with Progress(cells, terminal, workers=2) as progress:
        for first, others in ((cells[0], cells[1:3]), (cells[3], cells[4:])):
            progress(Started(first))
            for cell in others:
                progress(Started(cell, first))
        now[0] = 1.0
        progress(Progressed(cells[3], 2, 4, "steps"))
        assert shown(terminal) == [
            "attack rab uce church (3 cells)",
            "attack rab uce church (2 cells) 2/4 steps",
            "[0/5] cells",
        ]
        for cell in cells[3:]:
            progress(Finished(cell, {"seconds": 1.0}))
        now[0] = 2.0
        progress(Progressed(cells[0], 1, 4, "steps"))
        assert shown(terminal) == ["attack rab uce church (3 cells) 1/4 steps", "[2/5] cells, 0 s left"]


def test_the_remaining_time_is_the_most_where_cells_may_prove_unneeded(now: list[float]) -> None:
    stream = io.StringIO()
    first = attacks(1, 2)
    second = attacks(3, unless=(first[0],))
    progress = Progress([*first, *second], stream)
    finish(progress, now, first[0], 40.0)
    progress(Started(first[1]))
    now[0] += 30
    progress(Progressed(first[1], 1, 2, "steps"))
    progress(Unneeded(second[0], "fell before"))
    now[0] += 30
    progress(Progressed(first[1], 2, 2, "steps"))
    told = [line for line in stream.getvalue().splitlines() if "steps" in line]
    assert [line.rpartition("steps")[2] for line in told] == [", at most 50 s left", ", 0 s left"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (59.6, "1 min 0 s"), (200, "3 min 20 s"), (7500, "2 h 5 min")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize("stream", [io.StringIO, Terminal])
def test_what_others_wrote_does_not_act_on_the_terminal(stream: type[io.StringIO], now: list[float]) -> None:
    written = stream()
    with Progress([CELL], written) as progress:
        progress(Started(CELL))
        progress(Progressed(CELL, 1, 2, "\x1b[2J\x07"))
        now[0] = 40.0
        progress(Progressed(CELL, 1, 2, "\x1b[2J\x07"))
        progress(Failed(CELL, Failure("\x1b]0;title\x07", seconds=1.0)))
    assert "failed (\\x1b]0;title\\x07)" in written.getvalue()
    assert "\x1b[2J" not in written.getvalue() and "\x07" not in written.getvalue()


def test_a_stream_that_cannot_be_written_stops_nothing(now: list[float]) -> None:
    with open("/dev/full", "w", encoding="utf-8") as stream, Progress([CELL, ERASURE], stream) as progress:
        finish(progress, now, CELL, 1.0)
        finish(progress, now, ERASURE, 1.0)
        assert not progress.remaining_cells


CALLS = (
    "torch.nn.modules.conv:550 forward",
    "erasebench.sampling:108 draw",
    "erasebench.stages.generate:67 run",
    "a:1 b",
)


@pytest.mark.parametrize(
    ("event", "said"),
    [
        (Asked(1, "Slurm"), "waiting for 1 worker of Slurm"),
        (Asked(2, "Ray"), "waiting for 2 workers of Ray"),
        (Joined(1, 1), "1 of 1 worker is there"),
        (Joined(1, 2), "1 of 2 workers are there"),
        (Ended("exit code 1", True), "a worker ended, and is started again: exit code 1"),
        (Ended("exit code 1", False), "a worker ended: exit code 1"),
        (
            Mixed(("A, torch 2", "B, torch 2")),
            "workers differ (A, torch 2 and B, torch 2): what they compute may differ in rounding; a table that is to "
            "be compared to the last digit takes one kind of them",
        ),
        (
            Retried(CELL, Failure("its worker process was killed")),
            "again: generate sd church: its worker process was killed",
        ),
        (
            Silent(CELL, 600.2, "process 7 on node3", CALLS),
            "generate sd church: process 7 on node3 has told of no progress for 10 min 0 s; it is at "
            "torch.nn.modules.conv:550 forward < erasebench.sampling:108 draw < erasebench.stages.generate:67 run; "
            "if it hangs, end that process, or give --patience, and its cell is done again",
        ),
        (
            Silent(CELL, 660.0, "worker 3", (), 1800.0),
            "generate sd church: worker 3 has told of no progress for 11 min 0 s; nor does it answer, as if it were "
            "stopped; it is ended after 30 min 0 s",
        ),
    ],
)
def test_what_happens_to_workers_is_one_line(event: Event, said: str, now: list[float]) -> None:
    stream = io.StringIO()
    Progress([CELL], stream)(event)
    assert stream.getvalue() == said + "\n"
