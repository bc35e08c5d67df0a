"""The cost of each cell of a run, as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from erasebench.results.table import number

COSTS = "costs.csv"
COLUMNS: dict[str, Any] = {
    **dict.fromkeys(("method", "concept", "stage", "cell", "status"), str),
    **dict.fromkeys(("seconds", "peak_memory_mb", "parameters_changed", "images"), float),
    "computed": str,
}
"""The columns of the file, and their types once read, ``nan`` where nothing ran or was measured; they are
:class:`Cost`'s."""


@dataclass(frozen=True)
class Cost:
    """The cost of one cell.

    Attributes:
        method: of the first row that has the cell; "reference" for reference images.
        concept: of that row.
        stage: what was done: erase, generate, judge or reference.
        cell: its key in hexadecimal; the CSV shows the first 12 digits.
        status: "ok" or "failed".
        seconds: of all workers that were at it; None where nothing ran.
        peak_memory_mb: in 10^6 bytes; None where it was not measured.
        parameters_changed: numbers in the weights that an erasure replaces; None for other stages.
        images: made or judged; None for other stages.
        computed: in this run ("now"), or found in the store ("before").
    """

    method: str
    concept: str
    stage: str
    cell: str
    status: str
    seconds: float | None
    peak_memory_mb: float | None
    parameters_changed: int | None
    images: int | None
    computed: Literal["now", "before"]


def costs_csv(rows: Iterable[Cost]) -> str:
    """One line a cell, in the order given; times and memory make it differ from run to run."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in rows:
        counts = ("" if count is None else str(count) for count in (row.parameters_changed, row.images))
        writer.writerow(
            [
                *(row.method, row.concept, row.stage, row.cell[:12], row.status),
                *(number(row.seconds), number(row.peak_memory_mb), *counts, row.computed),
            ]
        )
    return text.getvalue()
