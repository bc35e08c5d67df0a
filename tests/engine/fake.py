"""Cells that need no model: what each does is written in its spec."""

from __future__ import annotations

import errno
import os
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from erasebench.engine.cells import Cell
from erasebench.engine.store import Store
from erasebench.engine.work import Progress
from erasebench.errors import EraseBenchError


@dataclass
class FakeWorkshop:
    """Does what a cell's spec says; its folder of signs is shared by all processes."""

    store: Store
    signs: Path
    device: str = "cpu"
    number: int = -1

    def open(self, worker: int) -> None:
        self.number = worker
        if (self.signs / "closed").exists():
            raise ValueError("a plug-in cannot be loaded")

    def prepare(self, cell: Cell) -> None:
        if cell.spec.get("act") == "refuse":
            raise EraseBenchError("the model cannot be loaded")

    def work(
        self, cells: Sequence[Cell], part: slice | None, folders: Sequence[Path], progress: Progress
    ) -> list[dict[str, Any]]:
        return [self.work_on(cell, part, folder, progress) for cell, folder in zip(cells, folders, strict=True)]

    def work_on(self, cell: Cell, part: slice | None, folder: Path, progress: Progress) -> dict[str, Any]:
        name = cell.title if part is None else f"{cell.title}-{part.start}"
        threads = os.environ.get("OMP_NUM_THREADS")
        (self.signs / f"begun-{name}").write_text(f"{os.getpid()} {self.number} {threads}")
        if part is None or part.start == cell.spec.get("part", 0):
            act(cell.spec.get("act", ""), self.signs)
        read = [(self.store.read(read.key) / "payload").read_text() for read in cell.reads.values()]
        lines = [f"{cell.title} {k} {read}\n" for k in range(cell.units)[part or slice(None)]]
        for k in range(len(lines)):
            progress(k + 1, len(lines), "lines")
        (folder / "payload").write_text("".join(lines))
        return {"lines": len(lines)}

    def divide(self, cell: Cell, workers: int) -> Sequence[slice | None]:
        if workers == 1 or cell.units == 1:
            return [None]
        return [slice(k, k + 2) for k in range(0, cell.units, 2)]

    def join(self, cell: Cell, parts: Sequence[Path], folder: Path) -> None:
        (folder / "payload").write_text("".join((part / "payload").read_text() for part in parts))


def act(what: str, signs: Path) -> None:
    match what.split():
        case ["kill"]:
            os.kill(os.getpid(), signal.SIGKILL)
        case ["exit"]:
            os._exit(7)
        case ["raise"]:
            raise ValueError("it cannot be done")
        case ["full"]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        case ["sleep"]:
            time.sleep(60)
        case ["meet", other]:
            deadline = time.monotonic() + 30
            while not (signs / f"begun-{other}").exists():
                assert time.monotonic() < deadline, f"{other} was not begun meanwhile"
                time.sleep(0.01)


def cell(title: str, what: str = "", units: int = 1, part: int = 0, **reads: Cell) -> Cell:
    return Cell("fake", {"title": title, "act": what, "units": units, "part": part}, reads, title, "fake", units, "l")
