"""Live progress on the terminal: bars below the finished cells, or plain lines where the output is no terminal."""

from __future__ import annotations

import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self, TextIO

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Column, Table
from rich.text import Text

from erasebench.engine.cells import Cell
from erasebench.engine.runner import (
    LOST,
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
from erasebench.engine.schedule import perhaps_unneeded
from erasebench.engine.work import Failure
from erasebench.terminal import telling
from erasebench.texts import printable

REDRAW, REPORT = 0.2, 30.0
"""Seconds between two states of the bars, and between two lines where the output is no terminal."""
BAR = 20
"""Characters of a bar."""
CALLS = 3
"""Of a worker that may hang, how many of the calls that it is in are told; the ledger has all."""


@dataclass
class _Running:
    """A cell that is being computed, beside others of its batch or alone, since when, and how far it is."""

    cell: Cell
    began: float
    cells: int = 1
    done: int = 0
    of: int = 0
    note: str = ""


@dataclass
class _Batch:
    """The outcomes of the cells of a batch; ``remaining`` how many are open, ``began`` when the first was begun."""

    remaining: int = 0
    began: float | None = None
    ok: int = 0
    failed: int = 0
    unneeded: int = 0
    found: int = 0
    reason: str = ""
    seconds: float = 0.0
    units: int = 0


class Progress:
    """Tells stage, cell, speed and remaining time, from when it is entered.

    Args:
        cells: those that are to be computed.
        stream: where to write; standard error if omitted.
        workers: so many cells are computed at once.
    """

    def __init__(self, cells: Sequence[Cell], stream: TextIO | None = None, workers: int = 1) -> None:
        self.stream = stream or sys.stderr
        self.screen: Live | None = None
        self.workers = workers
        self.remaining_cells: dict[str, Cell] = {}
        self.remaining_units: Counter[str] = Counter()
        """By stage, of the remaining cells."""
        self.total = 0
        self.batches: defaultdict[tuple[str, str], _Batch] = defaultdict(_Batch)
        self.perhaps_unneeded = perhaps_unneeded(cells)
        self.running: dict[str, _Running] = {}
        """By the key of the cell that the others are computed beside."""
        self.beside: dict[str, str] = {}
        self.seconds: dict[str, float] = defaultdict(float)
        """By stage, of the cells that are finished; ``units`` what there was to do in them."""
        self.units: dict[str, int] = defaultdict(int)
        self.draw_time = time.monotonic()
        self.lock, self.ended = threading.Lock(), threading.Event()
        for cell in cells:
            self._add(cell)

    def __enter__(self) -> Self:
        if self.stream.isatty():
            # Drawn on events alone, which are many.
            self.screen = Live(console=Console(file=self.stream), auto_refresh=False, transient=True)
            with telling(self.stream):
                self.screen.start()
        else:
            threading.Thread(target=self._tell_of_time, name="progress", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        if self.screen:
            with telling(self.stream):
                self.screen.stop()
            self.screen = None

    def __call__(self, event: Event) -> None:
        """Show what happened to a cell."""
        with self.lock, telling(self.stream):
            self._note(event)

    def _tell_of_time(self) -> None:
        """Write a line now and then, also while a cell that takes long says nothing of itself."""
        while not self.ended.wait(1):
            with self.lock, telling(self.stream):
                if self.running and not self.ended.is_set():
                    self._draw()

    def _note(self, event: Event) -> None:
        match event:
            case Corrupt(cell, reason):
                if cell.key not in self.remaining_cells:
                    self._add(cell)
                self.show(f"{cell.stage} {cell.title} {reason}; it is computed again")
            case Waiting(cell, holder):
                self.show(f"waiting for {holder} at {cell.stage} {cell.title}")
            case TakenOver(cell, holder):
                self.show(f"taking over {cell.stage} {cell.title} from {holder}")
            case Lost(cell):
                self._stop(cell)
                self.show(f"{cell.stage} {cell.title}: {LOST}")
            case Found(cell):
                self._batch(cell).found += 1
                self._settle(cell)
            case Skipped(cell, reason):
                batch = self._batch(cell)
                batch.failed, batch.reason = batch.failed + 1, batch.reason or reason
                self._settle(cell)
            case Unneeded(cell):
                self._batch(cell).unneeded += 1
                self._settle(cell)
            case Started(cell, beside):
                self._start(cell, beside)
            case Progressed(cell, done, of, note):
                running = self.running[cell.key]
                running.done, running.of, running.note = done, of, note
                self._draw()
            case Retried(cell, failure):
                self.show(f"again: {cell.stage} {cell.title}: {failure.reason}")
            case Silent():
                self.show(_silence(event))
            case Asked(count, where):
                self.show(f"waiting for {count} worker{'s' * (count > 1)} of {where}")
            case Joined(count, of):
                self.show(f"{count} of {of} worker{'s' * (of > 1)} {'is' if of == 1 else 'are'} there")
            case Ended(how, again):
                self.show(f"a worker ended{', and is started again' if again else ''}: {how}")
            case Mixed(devices):
                self.show(
                    f"workers differ ({' and '.join(devices)}): what they compute may differ in rounding; a table that "
                    "is to be compared to the last digit takes one kind of them"
                )
            case Finished(cell, cost):
                seconds = float(cost["seconds"])
                self.seconds[cell.stage] += seconds
                self.units[cell.stage] += cell.units
                self._end(cell, seconds)
            case Failed(cell, failure):
                self._end(cell, failure.seconds, failure)

    def _add(self, cell: Cell) -> None:
        self.remaining_cells[cell.key] = cell
        self.remaining_units[cell.stage] += cell.units
        self.total += 1
        self._batch(cell).remaining += 1

    def _batch(self, cell: Cell) -> _Batch:
        """The batch of a cell; one without has one of its own, of which nothing is told."""
        return self.batches[cell.stage, cell.batch] if cell.batch else _Batch()

    def _start(self, cell: Cell, beside: Cell | None) -> None:
        now = time.monotonic()
        batch = self._batch(cell)
        batch.began = now if batch.began is None else batch.began
        if beside:
            self.beside[cell.key] = beside.key
            self.running[beside.key].cells += 1
            return
        self.running[cell.key] = _Running(cell, now)
        self._draw(first=True)

    def _draw(self, first: bool = False) -> None:
        now = time.monotonic()
        if self.screen is None:
            if not first and now - self.draw_time >= REPORT:
                self.draw_time = now
                cells = "; ".join(_state(running, now) for running in self.running.values())
                self.show(
                    f"[{self.total - len(self.remaining_cells) + 1}/{self.total}] {cells}{self._remaining_time(now)}"
                )
        elif first or now - self.draw_time >= REDRAW:
            self.draw_time = now
            self.screen.update(self._bars(now), refresh=True)

    def _bars(self, now: float) -> Table:
        """A bar for each cell that is being computed, and below them one for all cells."""
        table = Table.grid(Column(ratio=1, no_wrap=True, overflow="ellipsis"), Column(width=BAR), padding=(0, 2, 0, 0))
        for running in self.running.values():
            bar = ProgressBar(running.of or None, running.done, BAR, animation_time=now)
            table.add_row(Text(printable(_state(running, now))), bar if running.of else "")
        done = self.total - len(self.remaining_cells)
        table.add_row(
            Text(f"[{done}/{self.total}] cells{self._remaining_time(now)}"), ProgressBar(self.total, done, BAR)
        )
        return table

    def _end(self, cell: Cell, seconds: float, failure: Failure | None = None) -> None:
        """Note that a cell is no longer being computed, and what came of it."""
        running = self._stop(cell)
        if cell.batch:
            batch = self._batch(cell)
            batch.seconds += seconds
            if failure:
                batch.failed, batch.reason = batch.failed + 1, batch.reason or failure.reason
            else:
                batch.ok, batch.units = batch.ok + 1, batch.units + cell.units
        self._settle(cell)
        if not cell.batch:
            status, units = (f"failed ({failure.reason})", 0) if failure else ("ok", cell.units)
            self._report(cell, cell.title, status, seconds, running.began if running else None, units)

    def _stop(self, cell: Cell) -> _Running | None:
        """Note that a cell is no longer being computed."""
        key = self.beside.pop(cell.key, cell.key)
        running = self.running.get(key)
        if running:
            running.cells -= 1
            if not running.cells:
                del self.running[key]
        return running

    def _settle(self, cell: Cell) -> None:
        """Note that nothing more will happen to a cell, and tell of its batch if it was the last."""
        if not self.remaining_cells.pop(cell.key, None):
            return
        self.remaining_units[cell.stage] -= cell.units
        self.perhaps_unneeded.discard(cell.key)
        if not cell.batch:
            return
        batch = self._batch(cell)
        batch.remaining -= 1
        if batch.remaining or not (batch.ok or batch.failed or batch.unneeded):
            return
        parts = (
            (batch.ok, "ok"),
            (batch.failed, f"failed ({batch.reason})"),
            (batch.unneeded, "not needed"),
            (batch.found, "by another run"),
        )
        status = ", ".join(f"{count} {name}" for count, name in parts if count)
        self._report(cell, cell.batch, status, batch.seconds, batch.began, batch.units)

    def _report(self, cell: Cell, title: str, status: str, seconds: float, began: float | None, units: int) -> None:
        # Seconds are those of all workers together; since the start, those of loading what the first cell needs too.
        took = seconds if began is None else min(seconds, time.monotonic() - began)
        time_taken = f", {took:.1f} s" if took or began is not None else ""
        speed = f", {units / took:.1f} {cell.unit}/s" if units and cell.unit and took else ""
        number = self.total - len(self.remaining_cells)
        self.show(f"[{number}/{self.total}] {cell.stage} {title}: {status}{time_taken}{speed}")

    def _remaining_time(self, now: float) -> str:
        """From the speeds of this run's finished cells, stage by stage; nothing is said before there are any."""
        if not self.seconds:
            return ""
        stages = {stage for stage, units in self.remaining_units.items() if units}
        known = stages & self.seconds.keys()
        seconds = sum(self.remaining_units[stage] * self.seconds[stage] / self.units[stage] for stage in known)
        seconds -= sum(now - running.began for running in self.running.values())
        over = "more than " if stages - known else ""
        if not over and self.perhaps_unneeded:
            over = "at most "
        return f", {over}{duration(max(0.0, seconds / self.workers))} left"

    def show(self, text: str) -> None:
        """Show a line that stays."""
        text = printable(text)
        if self.screen:
            self.screen.console.print(Text(text), soft_wrap=True)
            self.screen.update(self._bars(time.monotonic()), refresh=True)
        else:
            self.stream.write(text + "\n")
            self.stream.flush()


def _state(running: _Running, now: float) -> str:
    cell = running.cell
    title = (cell.batch or cell.title) + (f" ({running.cells} cells)" if running.cells > 1 else "")
    far = f" {running.done}/{running.of} {running.note}" if running.of else ""
    elapsed = now - running.began
    timed = running.done and cell.unit and not cell.batch  # what cells do together is not in the unit of one
    speed = f", {running.done / elapsed:.1f} {cell.unit}/s" if timed and elapsed > 0 else ""
    return f"{cell.stage} {title}{far}{speed}"


def _silence(event: Silent) -> str:
    """The line on a worker that may hang: where it is, and what ends it."""
    calls = " < ".join(event.calls[:CALLS])
    where = f"it is at {calls}" if calls else "nor does it answer, as if it were stopped"
    ending = (
        f"it is ended after {duration(event.patience)}"
        if event.patience
        else "if it hangs, end that process, or give --patience, and its cell is done again"
    )
    silent = f"{event.worker} has told of no progress for {duration(event.seconds)}"
    return f"{event.cell.stage} {event.cell.title}: {silent}; {where}; {ending}"


def duration(seconds: float) -> str:
    """``"45 s"``, ``"3 min 20 s"`` or ``"2 h 5 min"``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
