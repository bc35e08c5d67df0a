"""The table of results, one row a method and concept: CSV for machines, Markdown and plain text for readers."""

from __future__ import annotations

import csv
import io
import math
import statistics
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple, cast

import click

from erasebench.errors import EraseBenchError
from erasebench.metrics.stats import Estimate
from erasebench.report.flags import FLAGS

Status = Literal["ok", "failed", "n/a"]

_STATUSES = ("ok", "failed", "n/a")


class Metric(NamedTuple):
    """What a column is: its heading, its unit and what its legend says."""

    title: str
    unit: str
    meaning: str


METRICS: dict[str, Metric] = {
    "ratio": Metric("Ratio", "%", "images whose score of the concept reaches the judge's threshold; lower is better"),
    "score": Metric(
        "Score",
        "x100",
        "mean score of the concept: over all images for explicit, violent and otherwise inappropriate concepts, over"
        " the images that show it for the rest; lower is better",
    ),
    "score_all": Metric("Score, all images", "x100", "mean score of the concept over all images; lower is better"),
    "score_shown": Metric(
        "Score, shown",
        "x100",
        "mean score of the concept over the images that show it, undefined if none does; lower is better",
    ),
    "clip": Metric("CLIP score", "", "how well images of unrelated captions match these captions; higher is better"),
    "fid": Metric(
        "FID",
        "",
        "distance of images of unrelated captions to reference images; lower is better; comparable only for equal n,"
        " features and reference",
    ),
}
"""The known metrics; others are shown under their key."""

DETAILS = frozenset({"score_all", "score_shown"})
"""What only the files hold: both definitions of Score, of which "score" is the one for the concept's kind."""

_INTERVALS = (
    "Brackets hold 95 % intervals: Wilson's for Ratio, on the effective number of images where prompts have several;"
    " normal with the bootstrap's standard deviation for FID; bootstrap percentiles otherwise."
)


@dataclass(frozen=True)
class TableRow:
    """The results of one method on one concept."""

    method: str
    concept: str
    status: Status
    reason: str = ""
    """Why a row is not "ok"."""
    metrics: Mapping[str, Estimate] = field(default_factory=dict)
    """By key, in display order."""
    judge: str = ""
    flags: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    """Notes on metrics by key: "fid" names FID's features.  The CSV keeps this one only."""


def number(value: float | None) -> str:
    """Six significant digits at most, as short as that allows; empty for None and nan."""
    return "" if value is None or math.isnan(value) else f"{value + 0.0:.6g}"


def to_csv(rows: Iterable[TableRow]) -> str:
    """The rows as CSV, without anything that changes from run to run.

    Columns: method, concept; each metric as ``key``, ``key_low``, ``key_high`` and ``key_n``; judge, fid_features,
    status, reason, flags (joined by "; ").  A metric that a row lacks has four empty cells, an undefined one has an n
    of 0.
    """
    rows = list(rows)
    keys = _keys(rows)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    columns = [f"{key}{end}" for key in keys for end in ("", "_low", "_high", "_n")]
    writer.writerow(["method", "concept", *columns, *_TAIL])
    for row in rows:
        cells = [row.method, row.concept]
        for key in keys:
            found = row.metrics.get(key)
            cells += [number(found.value), number(found.low), number(found.high), str(found.n)] if found else [""] * 4
        writer.writerow([*cells, row.judge, row.labels.get("fid", ""), row.status, row.reason, "; ".join(row.flags)])
    return text.getvalue()


_TAIL = ("judge", "fid_features", "status", "reason", "flags")


def read_csv(text: str) -> list[TableRow]:
    """The rows of :func:`to_csv`.

    Raises:
        EraseBenchError: it is no such table; says which line and what is wrong with it.
    """
    reader = csv.reader(io.StringIO(text, newline=""))
    header = next(reader, [])
    keys = [name[:-2] for name in header if name.endswith("_n") and name[:-2] in header]
    columns = [f"{key}{end}" for key in keys for end in ("", "_low", "_high", "_n")]
    if header != ["method", "concept", *columns, *_TAIL]:
        raise EraseBenchError(f"not a results table: its columns are {', '.join(header) or 'missing'}")
    rows = []
    for cells in reader:
        if len(cells) != len(header):
            raise EraseBenchError(f"line {reader.line_num} has {len(cells)} cells, the header {len(header)}")
        cell = dict(zip(header, cells, strict=True))
        try:
            metrics = {key: _estimate(cell, key) for key in keys if cell[f"{key}_n"]}
        except ValueError as error:
            raise EraseBenchError(f"line {reader.line_num}: {error}") from error
        if cell["status"] not in _STATUSES:
            raise EraseBenchError(
                f"line {reader.line_num}: the status is {cell['status']!r}, not one of {', '.join(_STATUSES)}"
            )
        rows.append(
            TableRow(
                cell["method"],
                cell["concept"],
                cast("Status", cell["status"]),
                cell["reason"],
                metrics,
                cell["judge"],
                tuple(cell["flags"].split("; ")) if cell["flags"] else (),
                {"fid": cell["fid_features"]} if cell["fid_features"] else {},
            )
        )
    return rows


def to_markdown(rows: Iterable[TableRow]) -> str:
    """A pipe table, and below it the legend that it needs to be read by itself."""
    rows = list(rows)
    heads, body = _cells(rows)
    table = [[*heads, "judge", "flags"], ["---", "---", *(["---:"] * (len(heads) - 2)), "---", "---"]]
    table += [[*cells, row.judge, ", ".join(row.flags)] for cells, row in zip(body, rows, strict=True)]
    lines = ["| " + " | ".join(_escape(cell) for cell in line) + " |" for line in table]
    lines += ["", *(f"- {_escape(line)}" for line in _legend(rows))]
    return "\n".join(lines) + "\n"


def to_terminal(rows: Iterable[TableRow], color: bool = False, width: int | None = None) -> str:
    """An aligned plain-text table and its legend, without the metrics in :data:`DETAILS`.

    Args:
        rows: the results.
        color: use ANSI colours.
        width: of the terminal; a wider table loses its intervals, and says so, and the legend is wrapped.
    """
    rows = [replace(row, metrics={k: v for k, v in row.metrics.items() if k not in DETAILS}) for row in rows]
    legend = _legend(rows)
    grid = _grid(rows, intervals=True)
    if width and _width(grid) > width:
        grid = _grid(rows, intervals=False)
        legend.insert(0, "The terminal is too narrow for the 95 % intervals; the CSV and Markdown tables have them.")
    widths = [max(map(len, column)) for column in zip(*grid, strict=True)]
    lines = []
    for index, cells in enumerate(grid):
        row = rows[index - 1] if index else None
        padded = []
        for place, (cell, wide) in enumerate(zip(cells, widths, strict=True)):
            text = cell.ljust(wide) if place in (0, 1, len(cells) - 1) else cell.rjust(wide)
            padded.append(_paint(text, row, last=place == len(cells) - 1) if color else text)
        lines.append("  ".join(padded).rstrip())
    judges = {row.judge: None for row in rows if row.judge}
    for judge in judges:
        concepts = list(dict.fromkeys(row.concept for row in rows if row.judge == judge))
        legend.append(f"Judge of {', '.join(concepts)}: {judge}")
    lines.append("")
    for line in legend:
        lines += textwrap.wrap(line, width, subsequent_indent="  ", break_on_hyphens=False) if width else [line]
    return "\n".join(lines) + "\n"


def _grid(rows: Sequence[TableRow], intervals: bool) -> list[list[str]]:
    heads, body = _cells(rows, intervals)
    heads = ["FID" if head.startswith("FID (") else head for head in heads]  # the legend names the features
    return [[*heads, "flags"], *([*cells, ", ".join(row.flags)] for cells, row in zip(body, rows, strict=True))]


def _width(grid: Sequence[Sequence[str]]) -> int:
    return sum(max(map(len, column)) + 2 for column in zip(*grid, strict=True)) - 2


def _paint(text: str, row: TableRow | None, last: bool) -> str:
    if row is None:
        return click.style(text, bold=True)
    if row.status == "failed":
        return click.style(text, fg="red")
    if row.status == "n/a":
        return click.style(text, dim=True)
    return click.style(text, fg="yellow") if last else text


def _keys(rows: Iterable[TableRow]) -> list[str]:
    """All metrics, in an order that keeps every row's own as far as they agree."""
    keys: list[str] = []
    for row in rows:
        place = len(keys)
        for key in reversed(list(row.metrics)):
            if key not in keys:
                keys.insert(place, key)
            place = keys.index(key)
    return keys


def _cells(rows: Sequence[TableRow], intervals: bool = True) -> tuple[list[str], list[list[str]]]:
    """The heading and the rows of method, concept and metrics."""
    keys = _keys(rows)
    digits = {key: _decimals([row.metrics[key].value for row in rows if key in row.metrics]) for key in keys}

    def show(row: TableRow, key: str) -> str:
        if row.status != "ok":
            return row.status
        if key not in row.metrics:
            return "-"
        found = row.metrics[key]
        if not found.defined:
            return "undefined"
        value = f"{found.value + 0.0:.{digits[key]}f}"
        if not intervals or math.isnan(found.low):
            return value
        return f"{value} [{found.low:.{digits[key]}f}, {found.high:.{digits[key]}f}]"

    # Without a single metric, a column of its own says what became of each row.
    body = [[row.method, row.concept, *([show(row, key) for key in keys] or [row.status])] for row in rows]
    return ["method", "concept", *([_heading(rows, key) for key in keys] or ["status"])], body


def _decimals(values: Sequence[float]) -> int:
    """So many that a typical value shows three digits; at least one."""
    sizes = [abs(value) for value in values if math.isfinite(value) and value]
    return min(6, max(1, 2 - math.floor(math.log10(statistics.median(sizes))))) if sizes else 1


def _heading(rows: Sequence[TableRow], key: str) -> str:
    title, unit, _ = METRICS.get(key, Metric(key, "", ""))
    if key == "fid":
        names = dict.fromkeys(row.labels.get("fid", "unnamed features") for row in rows if "fid" in row.metrics)
        unit = "; ".join(names)
    return f"{title} ({unit})" if unit else title


def _legend(rows: Sequence[TableRow]) -> list[str]:
    lines = []
    for key in _keys(rows):
        title, _, meaning = METRICS.get(key, Metric(key, "", "a metric of this suite"))
        counts = [row.metrics[key].n for row in rows if row.status == "ok" and key in row.metrics]
        low, high = (min(counts), max(counts)) if counts else (0, 0)
        images = f"n = {low}" if low == high else f"n = {low} to {high}"
        notes = dict.fromkeys(row.labels[key] for row in rows if key in row.labels)
        lines.append(f"{title}: {meaning}; {images} images" + "".join(f"; {note}" for note in notes))
    if lines:
        lines.append(_INTERVALS)
    carried = {flag for row in rows for flag in row.flags}
    lines += [f"{flag}: {FLAGS[flag]}" for flag in FLAGS if flag in carried]
    lines += [f"{flag}: a flag without a description" for flag in sorted(carried - set(FLAGS))]
    lines += [
        f"{row.method} / {row.concept} {row.status}: {' '.join(row.reason.split()) or 'no reason was recorded'}"
        for row in rows
        if row.status != "ok"
    ]
    return lines


def _estimate(cell: Mapping[str, str], key: str) -> Estimate:
    value, low, high = (
        float(text) if text else math.nan for text in (cell[key], cell[f"{key}_low"], cell[f"{key}_high"])
    )
    return Estimate(value, low, high, int(cell[f"{key}_n"]))


def _escape(text: str) -> str:
    """``text`` on one line and without a pipe that would end its cell."""
    return " ".join(text.split()).replace("|", "\\|")
