"""The ledger: what happened to every cell of a run, one JSON object a line, never rewritten."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from erasebench.engine.cells import Cell
from erasebench.engine.runner import (
    LOST,
    Corrupt,
    Ended,
    Event,
    Failed,
    Finished,
    Lost,
    Mixed,
    Retried,
    Silent,
    Skipped,
    TakenOver,
    Unneeded,
)

LEDGER = "ledger.jsonl"
"""Its name in a run folder."""


class Ledger:
    """An append-only file; a line is on disk before :meth:`write` returns, unless any run would write it again.

    A line that a kill cut short is left as it is: readers skip it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        # A kill may have left half a line; the next must not be glued to it.
        torn = path.exists() and path.stat().st_size > 0 and path.read_bytes()[-1:] != b"\n"
        self._stream = open(path, "a", encoding="utf-8")  # noqa: SIM115
        if torn:
            self._stream.write("\n")

    def __call__(self, event: Event) -> None:
        """Write what happened to a cell."""
        match event:
            case Finished(cell, cost):
                self.write("ok", cell, **cost)
            case Failed(cell, failure):
                self.write("failed", cell, reason=failure.reason, traceback=failure.traceback, seconds=failure.seconds)
            case Retried(cell, failure):
                self.write("retried", cell, reason=failure.reason)
            case Silent(cell, seconds, worker, calls):
                self._append("silent", cell, {"seconds": round(seconds), "worker": worker, "calls": calls})
            case Ended(how):
                self._append("worker ended", None, {"reason": how})
            case Mixed(devices):
                self.write("mixed", devices=devices)
            case Skipped(cell, reason):
                self.write("failed", cell, reason=reason)
            case Unneeded(cell, reason):
                # Nothing was done that a kill could undo, and there may be thousands, in each run anew.
                self._append("n/a", cell, {"reason": reason})
            case Corrupt(cell, reason):
                self.write("corrupt", cell, reason=reason)
            case TakenOver(cell, holder):
                self._append("taken over", cell, {"reason": f"it was held by {holder}"})
            case Lost(cell):
                self._append("lost", cell, {"reason": LOST})

    def write(self, event: str, cell: Cell | None = None, **facts: Any) -> None:
        """Append an event: ``"run"`` or ``"mixed"``, or ``"ok"``, ``"failed"``, ``"retried"`` and so on of a cell."""
        self._append(event, cell, facts)
        os.fsync(self._stream.fileno())

    def _append(self, event: str, cell: Cell | None, facts: Mapping[str, Any]) -> None:
        line: dict[str, Any] = {"time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "event": event}
        if cell:
            line |= {"cell": cell.key, "stage": cell.stage, "title": cell.title}
        self._stream.write(json.dumps(line | dict(facts)) + "\n")
        self._stream.flush()

    def close(self) -> None:
        """Close the file."""
        self._stream.close()


def read_ledger(path: Path) -> list[dict[str, Any]]:
    """All whole lines of a ledger."""
    events = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            events.append(json.loads(line))
        except ValueError:
            continue
    return events
