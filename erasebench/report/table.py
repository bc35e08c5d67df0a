"""The table of results, one row a method and concept: CSV for machines; Markdown, LaTeX and plain text for readers.

Rows of attacks follow those of the models in the CSV; readers get them as a second table, a column an attack.
"""

from __future__ import annotations

import csv
import io
import math
import statistics
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import repeat

import pandas as pd
from rich.console import Console
from rich.table import Table
from rich.text import Text

from erasebench.errors import EraseBenchError
from erasebench.metrics.metric import Description
from erasebench.metrics.stats import Estimate
from erasebench.report.attack_tables import attack_legend, attack_table, split
from erasebench.report.markdown import bullets, pipe_table
from erasebench.results.flags import flag_legend
from erasebench.results.rows import STATUSES, TableRow

Metrics = Mapping[str, Description]
"""What a table says of each metric, in the order of its columns."""

_INTERVALS = (
    "Brackets hold 95 % intervals: Wilson's for Ratio, on the effective number of images where prompts have several;"
    " normal with the bootstrap's standard deviation for FID; bootstrap percentiles otherwise."
)


def number(value: float | None) -> str:
    """Six significant digits at most, as short as that allows; empty for None and nan."""
    return "" if value is None or math.isnan(value) else f"{value + 0.0:.6g}"


def to_frame(rows: Iterable[TableRow], metrics: Metrics) -> pd.DataFrame:
    """The rows as numbers, without anything that changes from run to run but the seconds of attacks.

    Columns: method, concept, attack; each metric as ``key``, ``key_low``, ``key_high`` and ``key_n``; judge; of each
    metric with notes what they name (``fid_features``); status, reason, flags (joined by "; ").  A metric that a row
    lacks has missing numbers and no n, an undefined one an n of 0.
    """
    rows = list(rows)
    keys = _keys(rows, metrics)
    columns: dict[str, list[object]] = {
        "method": [row.method for row in rows],
        "concept": [row.concept for row in rows],
        "attack": [row.attack for row in rows],
    }
    for key in keys:
        estimates = [row.metrics.get(key) for row in rows]
        for end, name in (("", "value"), ("_low", "low"), ("_high", "high")):
            columns[key + end] = [getattr(one, name) + 0.0 if one else math.nan for one in estimates]
        columns[f"{key}_n"] = [one.n if one else None for one in estimates]
    columns["judge"] = [row.judge for row in rows]
    for key, metric in metrics.items():
        if metric.noted and key in keys:
            columns[f"{key}_{metric.noted}"] = [row.notes.get(key, "") for row in rows]
    columns |= {"status": [row.status for row in rows], "reason": [row.reason for row in rows]}
    columns["flags"] = ["; ".join(row.flags) for row in rows]
    return pd.DataFrame(columns).astype({f"{key}_n": "Int64" for key in keys})


def to_csv(rows: Iterable[TableRow], metrics: Metrics) -> str:
    """The frame of the rows as CSV, numbers in six digits at most."""
    text: str = to_frame(rows, metrics).to_csv(index=False, lineterminator="\n", float_format="%.6g")
    return text


def read_csv(text: str) -> list[TableRow]:
    """Read the rows of :func:`to_csv`.

    Raises:
        EraseBenchError: it is no such table; says which line and what is wrong with it.
    """
    reader = csv.reader(io.StringIO(text, newline=""))
    header = next(reader, [])
    keys = [name[:-2] for name in header if name.endswith("_n") and name[:-2] in header]
    columns = [f"{key}{end}" for key in keys for end in ("", "_low", "_high", "_n")]
    noted = header[header.index("judge") + 1 : -3] if "judge" in header else []
    if header != ["method", "concept", "attack", *columns, "judge", *noted, "status", "reason", "flags"]:
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
        if cell["status"] not in STATUSES:
            raise EraseBenchError(
                f"line {reader.line_num}: the status is {cell['status']!r}, not one of {', '.join(STATUSES)}"
            )
        rows.append(
            TableRow(
                cell["method"],
                cell["concept"],
                cell["status"],
                cell["reason"],
                metrics,
                cell["judge"],
                tuple(cell["flags"].split("; ")) if cell["flags"] else (),
                {name.rpartition("_")[0]: cell[name] for name in noted if cell[name]},
                cell["attack"],
            )
        )
    return rows


def to_markdown(rows: Iterable[TableRow], metrics: Metrics, budgets: Mapping[str, str] | None = None) -> str:
    """A pipe table, and below it the legend that it needs to be read by itself; the same of attacks, if there are any.

    Args:
        rows: the results.
        metrics: what there is to say of them.
        budgets: by attack, what it may spend on a prompt, in words.
    """
    rows, attacked = split(rows)
    tables = []
    if rows or not attacked:
        table = _printed(rows, metrics)
        table.insert(len(table.columns) - 1, "judge", [row.judge for row in rows])
        tables.append(f"{pipe_table(table, (0, 1, -2, -1))}\n{bullets(_legend(rows, metrics))}")
    if attacked:
        legend = attack_legend(attacked, metrics, budgets)
        tables.append(f"{pipe_table(attack_table(attacked), (0, 1, -1))}\n{bullets(legend)}")
    return "\n".join(tables)


def to_latex(rows: Iterable[TableRow], metrics: Metrics, budgets: Mapping[str, str] | None = None) -> str:
    """A ``tabular`` for the package booktabs, without judges; one of the attacks, if there are any, with comments."""
    rows, attacked = split(rows)
    tables = [_tabular(_printed(rows, metrics))] if rows or not attacked else []
    if attacked:
        comments = "".join(f"% {' '.join(line.split())}\n" for line in attack_legend(attacked, metrics, budgets))
        tables.append(f"{_tabular(attack_table(attacked))}{comments}")
    return "\n".join(tables)


def to_terminal(
    rows: Iterable[TableRow],
    metrics: Metrics,
    color: bool = False,
    width: int | None = None,
    budgets: Mapping[str, str] | None = None,
) -> str:
    """An aligned plain-text table and its legend, without the metrics that only files hold; the same of attacks.

    Args:
        rows: the results.
        metrics: what there is to say of them.
        color: use ANSI colours.
        width: of the terminal; a wider table loses its intervals, and says so, and the legend is wrapped.
        budgets: by attack, what it may spend on a prompt, in words.
    """
    details = {key for key, metric in metrics.items() if metric.details}
    rows, attacked = split(rows)
    rows = [replace(row, metrics={k: v for k, v in row.metrics.items() if k not in details}) for row in rows]
    legend = _legend(rows, metrics)
    for judge in {row.judge: None for row in rows if row.judge}:
        concepts = list(dict.fromkeys(row.concept for row in rows if row.judge == judge))
        legend.append(f"Judge of {', '.join(concepts)}: {judge}")
    tables = []
    if rows or not attacked:
        styles = [row.status for row in rows]
        tables.append(
            _drawn(lambda all: _printed(rows, metrics, notes=False, intervals=all), styles, legend, color, width)
        )
    if attacked:
        legend = attack_legend(attacked, metrics, budgets)
        tables.append(_drawn(lambda all: attack_table(attacked, all), None, legend, color, width))
    return "\n".join(tables)


def _tabular(table: pd.DataFrame) -> str:
    columns = "ll" + "r" * (len(table.columns) - 3) + "l"
    text: str = table.to_latex(index=False, escape=True, column_format=columns)
    return text


def _drawn(
    printed: Callable[[bool], pd.DataFrame],
    statuses: Sequence[str] | None,
    legend: list[str],
    color: bool,
    width: int | None,
) -> str:
    """A table and its legend in plain text.

    Args:
        printed: the table as text, with or without intervals.
        statuses: of its rows.
        legend: below it.
        color: use ANSI colours.
        width: of the terminal.
    """
    table = _table(printed(True), statuses)
    if width and _width(table) > width:
        table = _table(printed(False), statuses)
        legend = [
            "The terminal is too narrow for the 95 % intervals; the CSV and Markdown tables have them.",
            *legend,
        ]
    console = _console(color)
    console.width = _width(table)
    with console.capture() as drawn:
        console.print(table)
    lines = [*(line.rstrip() for line in drawn.get().splitlines()), ""]
    for line in legend:
        lines += textwrap.wrap(line, width, subsequent_indent="  ", break_on_hyphens=False) if width else [line]
    return "\n".join(lines) + "\n"


def _table(printed: pd.DataFrame, statuses: Sequence[str] | None) -> Table:
    """The table to draw: names and flags on the left of their columns, numbers on the right."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for place, heading in enumerate(printed.columns):
        names = place in (0, 1, len(printed.columns) - 1)
        table.add_column(Text(heading), justify="left" if names else "right", no_wrap=True)
    for status, cells in zip(statuses or repeat("ok"), printed.to_numpy(), strict=False):
        *texts, flags = map(Text, cells)
        style = {"failed": "red", "n/a": "dim"}.get(status, "")
        flags.stylize(style or "yellow")
        table.add_row(*texts, flags, style=style)
    return table


def _width(table: Table) -> int:
    return _console(color=False).measure(table).maximum


def _console(color: bool) -> Console:
    """A console that is wide enough for every table."""
    return Console(width=100_000, force_terminal=color, color_system="standard" if color else None, highlight=False)


def _keys(rows: Iterable[TableRow], metrics: Metrics) -> list[str]:
    """The metrics that some row has; those that nothing is known of come last."""
    present = dict.fromkeys(key for row in rows for key in row.metrics)
    return [*(key for key in metrics if key in present), *(key for key in present if key not in metrics)]


def _printed(rows: Sequence[TableRow], metrics: Metrics, notes: bool = True, intervals: bool = True) -> pd.DataFrame:
    """The table as text: method, concept, the metrics under their headings, and flags.

    Args:
        rows: the results.
        metrics: what there is to say of them.
        notes: name in a heading what its numbers depend on.
        intervals: print them.
    """
    keys = _keys(rows, metrics)
    digits = {key: _decimals([row.metrics[key].value for row in rows if key in row.metrics]) for key in keys}

    def show(row: TableRow, key: str) -> str:
        if row.status != "ok":
            return row.status
        if key not in row.metrics:
            return "-"
        estimate = row.metrics[key]
        if not estimate.defined:
            return "undefined"
        value = f"{estimate.value + 0.0:.{digits[key]}f}"
        if not intervals or math.isnan(estimate.low):
            return value
        return f"{value} [{estimate.low:.{digits[key]}f}, {estimate.high:.{digits[key]}f}]"

    # Without a single metric, a column of its own says what became of each row.
    heads = ["method", "concept", *([_heading(rows, key, metrics, notes) for key in keys] or ["status"]), "flags"]
    body = [
        [row.method, row.concept, *([show(row, key) for key in keys] or [row.status]), ", ".join(row.flags)]
        for row in rows
    ]
    return pd.DataFrame(body, columns=heads, dtype=object)


def _decimals(values: Sequence[float]) -> int:
    """So many that a typical value shows three digits; at least one."""
    sizes = [abs(value) for value in values if math.isfinite(value) and value]
    return min(6, max(1, 2 - math.floor(math.log10(statistics.median(sizes))))) if sizes else 1


def _heading(rows: Sequence[TableRow], key: str, metrics: Metrics, notes: bool) -> str:
    metric = metrics.get(key, Description(key))
    noted = dict.fromkeys(row.notes[key] for row in rows if key in row.notes) if notes else {}
    unit = "; ".join(filter(None, (metric.unit, *noted)))
    return f"{metric.title} ({unit})" if unit else metric.title


def _legend(rows: Sequence[TableRow], metrics: Metrics) -> list[str]:
    lines = []
    for key in _keys(rows, metrics):
        metric = metrics.get(key, Description(key))
        counts = [row.metrics[key].n for row in rows if row.status == "ok" and key in row.metrics]
        low, high = (min(counts), max(counts)) if counts else (0, 0)
        images = f"n = {low} images" if low == high else f"n = {low} to {high} images"
        better = f"{metric.direction} is better" if metric.direction else ""
        notes = dict.fromkeys(row.notes[key] for row in rows if key in row.notes)
        parts = filter(None, (metric.meaning, better, metric.caveat, images, *notes))
        lines.append(f"{metric.title}: {'; '.join(parts)}")
    if lines:
        lines.append(_INTERVALS)
    lines += flag_legend(rows)
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
