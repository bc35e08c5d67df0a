"""Figures of training steps on disk, ``trace.csv``: read by what draws them, without a model."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

TRACE = "trace.csv"
Steps = Sequence[Mapping[str, float | str]]
"""A row for each step, such as its loss; words where a method finds some.  A step need not have all columns."""


def write_trace(path: Path, trace: Steps) -> None:
    """Write the figures of each training step."""
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
