"""Cells that need no model: what each does is written in its spec."""

from __future__ import annotations

import errno
import os
import signal
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from erasebench.engine.cells import Cell
from erasebench.engine.store import Store
from erasebench.engine.work import Progress
from erasebench.errors import EraseBenchError
from tests.waiting import wait_until


@dataclass
class FakeWorkshop:
    """Does what a cell's spec says; its folder of signs is shared by all processes.

    Attributes:
        most: cells of a batch at a time.
    """

    store: Store
    signs: Path
    device: str = "cpu"
    number: int = -1
    most: int = 4

    def open(self, worker: int) -> None:
        self.number = worker
        if (self.signs / "closed").exists():
            raise ValueError("a plug-in cannot be loaded")

    def hardware(self) -> str:
        names = self.signs / "hardware"
        return names.read_text().split()[self.number] if names.exists() else "a processor"

    def prepare(self, cell: Cell) -> None:
        if cell.spec.get("act") == "refuse":
            raise EraseBenchError("the model cannot be loaded")

    def work(
        self, cells: Sequence[Cell], part: slice | None, folders: Sequence[Path], progress: Progress
    ) -> list[dict[str, Any]]:
        if cells[0].batch:
            groups = self.signs.with_name("groups")
            groups.mkdir(exist_ok=True)
            (groups / cells[0].title).write_text(" ".join(cell.title for cell in cells))
        return [self.work_on(cell, part, folder, progress) for cell, folder in zip(cells, folders, strict=True)]

    def together(self, cell: Cell) -> int:
        return self.most

    def unneeded(self, cell: Cell) -> str:
        if cell.spec["act"] == "puzzle":
            raise ValueError("nobody knows")
        texts = {other.title: (self.store.read(other.key) / "payload").read_text() for other in cell.unless}
        return next((f"{title} broke it" for title, text in texts.items() if "broken" in text), "")

    def work_on(self, cell: Cell, part: slice | None, folder: Path, progress: Progress) -> dict[str, Any]:
        name = cell.title if part is None else f"{cell.title}-{part.start}"
        threads = os.environ.get("OMP_NUM_THREADS")
        (self.signs / f"begun-{name}").write_text(f"{os.getpid()} {self.number} {threads}")
        if part is None or part.start == cell.spec.get("part", 0):
            act(cell.spec.get("act", ""), self.signs)
            if cell.spec.get("act") == "haunt" and once(self.signs / "haunted"):
                haunt(folder, self.signs)
                os.kill(os.getpid(), signal.SIGKILL)
        read = [(self.store.read(read.key) / "payload").read_text() for read in cell.reads.values()]
        end = "broken" if cell.spec.get("act") == "break" else ""
        lines = [f"{cell.title} {k} {read}{end}\n" for k in range(cell.units)[part or slice(None)]]
        for k in range(len(lines)):
            progress(k + 1, len(lines), "lines")
            if cell.spec.get("act") == "crawl":
                wait_for(self.signs / f"heard-{k + 1}", "nobody heard of it")
                time.sleep(0.3)
        (folder / "payload").write_text("".join(lines))
        if cell.spec.get("act") == "haunt":
            wait_for_a_ghost(self.signs)
        return {"lines": len(lines)}

    def divide(self, cell: Cell, workers: int) -> Sequence[slice | None]:
        if workers == 1 or cell.units == 1:
            return [None]
        return [slice(k, k + 2) for k in range(0, cell.units, 2)]

    def join(self, cell: Cell, parts: Sequence[Path], folder: Path) -> None:
        (folder / "payload").write_text("".join((part / "payload").read_text() for part in parts))


def once(sign: Path) -> bool:
    """Whether it is the first time, for all processes."""
    try:
        with sign.open("x") as stream:
            stream.write(f"{os.getpid()} 0 1")
    except FileExistsError:
        return False
    return True


def haunt(folder: Path, signs: Path) -> None:
    """Leave a process that goes on writing into a folder, as a worker does that cannot be reached any more."""
    if os.fork():
        return
    os.closerange(3, 1024)
    deadline = time.monotonic() + 120
    while not (signs / "over").exists() and time.monotonic() < deadline:
        with suppress(OSError):
            folder.mkdir(exist_ok=True)
            (folder / "payload").write_text("of a ghost")
            (folder / "more").write_text("of a ghost")
        with (signs / "rounds").open("a") as rounds:
            rounds.write("x")
        time.sleep(0.001)
    os._exit(0)


def wait_for_a_ghost(signs: Path) -> None:
    """Wait until it has written once more, from beginning to end."""
    rounds = signs / "rounds"
    begun, deadline = rounds.stat().st_size if rounds.exists() else 0, time.monotonic() + 60
    while not rounds.exists() or rounds.stat().st_size < begun + 2:
        assert time.monotonic() < deadline, "there is no ghost"
        time.sleep(0.001)


def wait_for(sign: Path, otherwise: str) -> None:
    """Wait until another process has made a sign."""
    wait_until(sign.exists, otherwise, 120)


def tell_of_a_stop(sign: Path) -> None:
    """Leave a process that makes a sign when this one is stopped, and no sooner: until then it can answer."""
    process = os.getpid()
    if os.fork():
        return
    try:
        os.closerange(3, 1024)
        while "\nState:\tT" not in Path(f"/proc/{process}/status").read_text():
            time.sleep(0.001)
        once(sign)
    finally:
        os._exit(0)


def act(what: str, signs: Path) -> None:
    match what.split():
        case ["kill"]:
            os.kill(os.getpid(), signal.SIGKILL)
        case ["die", times]:
            if len(deaths := list(signs.glob("death-*"))) < int(times):
                (signs / f"death-{len(deaths)}").write_text(f"{os.getpid()} 0 1")
                os.kill(os.getpid(), signal.SIGKILL)
        case ["exit"]:
            os._exit(7)
        case ["raise"]:
            raise ValueError("it cannot be done")
        case ["full"]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        case ["tick", *seconds]:
            time.sleep(float(*seconds or ("0.01",)))
        case ["stop"] if once(signs / "stops"):
            tell_of_a_stop(signs / "stopped")
            os.kill(os.getpid(), signal.SIGSTOP)
        case ["hang"] if once(signs / "hung"):
            while not (signs / "let-go").exists():
                time.sleep(0.01)
        case ["sleep"]:
            time.sleep(600)
        case ["meet", other]:
            wait_for(signs / f"begun-{other}", f"{other} was not begun meanwhile")


def cell(
    title: str,
    what: str = "",
    units: int = 1,
    part: int = 0,
    batch: str = "",
    unless: Sequence[Cell] = (),
    **reads: Cell,
) -> Cell:
    spec = {"title": title, "act": what, "units": units, "part": part}
    return Cell("fake", spec, reads, title, "fake", units, "l", batch, tuple(unless))


def cascade(prompts: int, broken: Sequence[int], learned: Cell | None = None) -> tuple[list[Cell], list[Cell]]:
    """Two attacks, prompt by prompt: the second one is tried where the first did not break the erasure."""
    first = [cell(f"first {k}", "break" if k in broken else "", batch="first") for k in range(prompts)]
    reads = {"learned": learned} if learned else {}
    second = [cell(f"second {k}", batch="second", unless=[first[k]]) for k in range(prompts)]
    return first, [replace(one, reads=reads) for one in second]
