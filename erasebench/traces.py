"""The figures of a training on disk, one row a step: a CSV file beside an erasure."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

TRACE = "trace.csv"


def write_trace(path: Path, trace: Sequence[Mapping[str, float | str]]) -> None:
    """Write a row for each step; a row may lack columns."""
    with open(path, "w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, fieldnames=list(dict.fromkeys(name for row in trace for name in row)))
        writer.writeheader()
        writer.writerows(trace)


def read_trace(path: Path) -> tuple[Mapping[str, float | str], ...]:
    """The figures of each training step; none if the file is missing.  A step need not have all."""
    if not path.exists():
        return ()
    with open(path, newline="", encoding="utf-8") as stream:
        return tuple({k: _figure(v) for k, v in row.items() if v != ""} for row in csv.DictReader(stream))


def _figure(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text
