"""Live progress on the terminal: one line that changes, or plain lines where the output is no terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import TextIO

from erasebench.engine.cells import Cell


class ProgressLine:
    """Tells stage, cell, speed and remaining time.

    Args:
        cells: those that are to be computed.
        stream: where to write; standard error if omitted.
    """

    def __init__(self, cells: Sequence[Cell], stream: TextIO | None = None) -> None:
        self.stream = stream or sys.stderr
        self.live = self.stream.isatty()
        self.left = {cell.key: cell for cell in cells}
        self.total = len(cells)
        self.images, self.image_seconds = 0, 0.0
        self.erase_seconds: list[float] = []
        self.began = self.drawn = 0.0
        self.cell: Cell | None = None

    def add(self, cell: Cell) -> None:
        """A cell has to be computed after all."""
        if cell.key not in self.left:
            self.left[cell.key] = cell
            self.total += 1

    def drop(self, cell: Cell) -> None:
        """A cell will not be computed here: it cannot be, or another run did it."""
        self.left.pop(cell.key, None)

    def start(self, cell: Cell) -> None:
        """A cell begins."""
        self.cell, self.began = cell, time.monotonic()
        self.update(0, 0, "")

    def wait(self, cell: Cell) -> None:
        """Another run is at a cell."""
        self._show(f"waiting for another run at {cell.stage} {cell.title}", end=True)

    def update(self, done: int, of: int, note: str) -> None:
        """How far the cell is."""
        now = time.monotonic()
        if not self.live or self.cell is None or (now - self.drawn < 0.2 and done):
            return
        self.drawn = now
        far = f" {done}/{of} {note}" if of else ""
        speed = f", {done / (now - self.began):.1f} images/s" if done and self.cell.stage == "generate" else ""
        self._show(f"[{self.total - len(self.left) + 1}/{self.total}] {self._name()}{far}{speed}{self._eta(now)}")

    def finish(self, status: str, seconds: float, images: int = 0) -> None:
        """The cell ended."""
        assert self.cell is not None
        if status == "ok" and self.cell.stage == "generate":
            self.images, self.image_seconds = self.images + images, self.image_seconds + seconds
        if status == "ok" and self.cell.stage == "erase":
            self.erase_seconds.append(seconds)
        number = self.total - len(self.left) + 1
        self.left.pop(self.cell.key, None)
        speed = f", {images / seconds:.1f} images/s" if images and seconds and self.cell.stage == "generate" else ""
        self._show(f"[{number}/{self.total}] {self._name()}: {status}, {seconds:.1f} s{speed}", end=True)
        self.cell = None

    def _name(self) -> str:
        assert self.cell is not None
        return f"{self.cell.stage} {self.cell.title}"

    def _eta(self, now: float) -> str:
        """From the speeds of this run's finished cells; nothing is said before there are any."""
        if not self.images:
            return ""
        images = sum(len(cell.spec.get("prompts", ())) for cell in self.left.values() if cell.stage == "generate")
        erasures = sum(cell.stage == "erase" for cell in self.left.values())
        each = sum(self.erase_seconds) / len(self.erase_seconds) if self.erase_seconds else 0.0
        left = images * self.image_seconds / self.images + erasures * each - (now - self.began)
        over = "more than " if erasures and not self.erase_seconds else ""
        return f", {over}{duration(max(0.0, left))} left"

    def _show(self, text: str, end: bool = False) -> None:
        if self.live:
            self.stream.write(f"\r\x1b[2K{text}" + ("\n" if end else ""))
        elif end:
            self.stream.write(text + "\n")
        self.stream.flush()


def duration(seconds: float) -> str:
    """``"45 s"``, ``"3 min 20 s"`` or ``"2 h 5 min"``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
