"""Live progress on the terminal: bars below the finished cells, or plain lines where the output is no terminal."""

from __future__ import annotations

import sys
import time
from collections import defaultdict
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
    Corrupt,
    Event,
    Failed,
    Finished,
    Found,
    Progressed,
    Skipped,
    Started,
    Waiting,
)

REDRAW, REPORT = 0.2, 30.0
"""Seconds between two states of the bars, and between two lines where the output is no terminal."""
BAR = 20
"""Characters of a bar."""


@dataclass
class _Running:
    """A cell that is being computed, since when, and how far it is."""

    cell: Cell
    began: float
    done: int = 0
    of: int = 0
    note: str = ""


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
        self.left = {cell.key: cell for cell in cells}
        self.total = len(cells)
        self.running: dict[str, _Running] = {}
        self.seconds: dict[str, float] = defaultdict(float)
        """By stage, of the cells that are finished; ``units`` what there was to do in them."""
        self.units: dict[str, int] = defaultdict(int)
        self.drawn = time.monotonic()

    def __enter__(self) -> Self:
        if self.stream.isatty():
            # Drawn on events alone: no thread runs beside the processes that work.
            self.screen = Live(console=Console(file=self.stream), auto_refresh=False, transient=True)
            self.screen.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.screen:
            self.screen.stop()
            self.screen = None

    def __call__(self, event: Event) -> None:
        """Show what happened to a cell."""
        match event:
            case Corrupt(cell) if cell.key not in self.left:
                self.left[cell.key] = cell
                self.total += 1
            case Waiting(cell):
                self._show(f"waiting for another run at {cell.stage} {cell.title}")
            case Found(cell) | Skipped(cell):
                self.left.pop(cell.key, None)
            case Started(cell):
                self.running[cell.key] = _Running(cell, time.monotonic())
                self._draw(first=True)
            case Progressed(cell, done, of, note):
                running = self.running[cell.key]
                running.done, running.of, running.note = done, of, note
                self._draw()
            case Finished(cell, cost):
                seconds = float(cost["seconds"])
                self.seconds[cell.stage] += seconds
                self.units[cell.stage] += cell.units
                self._finish(cell, "ok", seconds)
            case Failed(cell, failure):
                self._finish(cell, f"failed ({failure.reason})", failure.seconds)

    def _draw(self, first: bool = False) -> None:
        now = time.monotonic()
        if self.screen is None:
            if not first and now - self.drawn >= REPORT:
                self.drawn = now
                cells = "; ".join(_state(running, now) for running in self.running.values())
                self._show(f"[{self._number}/{self.total}] {cells}{self._time_left(now)}")
        elif first or now - self.drawn >= REDRAW:
            self.drawn = now
            self.screen.update(self._bars(now), refresh=True)

    @property
    def _number(self) -> int:
        """Of the cell that is finished next."""
        return self.total - len(self.left) + 1

    def _bars(self, now: float) -> Table:
        """A bar for each cell that is being computed, and below them one for all cells."""
        table = Table.grid(Column(ratio=1, no_wrap=True, overflow="ellipsis"), Column(width=BAR), padding=(0, 2, 0, 0))
        for running in self.running.values():
            bar = ProgressBar(running.of or None, running.done, BAR, animation_time=now)
            table.add_row(Text(_state(running, now)), bar if running.of else "")
        done = self.total - len(self.left)
        table.add_row(Text(f"[{done}/{self.total}] cells{self._time_left(now)}"), ProgressBar(self.total, done, BAR))
        return table

    def _finish(self, cell: Cell, status: str, seconds: float) -> None:
        number = self._number
        self.left.pop(cell.key, None)
        running = self.running.pop(cell.key, None)
        # Seconds are those of all workers together; since the start, those of loading what the first cell needs too.
        took = min(seconds, time.monotonic() - running.began) if running else seconds
        speed = f", {cell.units / took:.1f} {cell.unit}/s" if status == "ok" and cell.unit and took else ""
        self._show(f"[{number}/{self.total}] {cell.stage} {cell.title}: {status}, {took:.1f} s{speed}")

    def _time_left(self, now: float) -> str:
        """From the speeds of this run's finished cells, stage by stage; nothing is said before there are any."""
        if not self.seconds:
            return ""
        known = [cell for cell in self.left.values() if cell.stage in self.seconds]
        seconds = sum(cell.units * self.seconds[cell.stage] / self.units[cell.stage] for cell in known)
        seconds -= sum(now - running.began for running in self.running.values())
        over = "more than " if len(known) < len(self.left) else ""
        return f", {over}{duration(max(0.0, seconds / self.workers))} left"

    def _show(self, text: str) -> None:
        if self.screen:
            self.screen.console.print(Text(text), soft_wrap=True)
            self.screen.update(self._bars(time.monotonic()), refresh=True)
        else:
            self.stream.write(text + "\n")
            self.stream.flush()


def _state(running: _Running, now: float) -> str:
    cell = running.cell
    far = f" {running.done}/{running.of} {running.note}" if running.of else ""
    elapsed = now - running.began
    speed = f", {running.done / elapsed:.1f} {cell.unit}/s" if running.done and cell.unit and elapsed > 0 else ""
    return f"{cell.stage} {cell.title}{far}{speed}"


def duration(seconds: float) -> str:
    """``"45 s"``, ``"3 min 20 s"`` or ``"2 h 5 min"``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
