"""Tables of the page: cells with what they sort by and say when pointed at, and each as CSV and JSON."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pandas as pd

from erasebench.metrics.metric import Description
from erasebench.metrics.stats import Estimate
from erasebench.report.attack_tables import FLOOR, RATE, ROBUST, attacks_of
from erasebench.report.sheets import file_name
from erasebench.report.table import decimals, describe_second_judges
from erasebench.results.attacks import ENSEMBLE
from erasebench.results.flags import known_flags
from erasebench.results.rows import TableRow
from erasebench.results.table import Metrics, frame_csv, measured_keys

NONE = "\N{EN DASH}"
"""The text of a cell without a number."""


@dataclass(frozen=True)
class Flag:
    """A flag as a badge: its name, where the page explains it, and what it says when pointed at."""

    name: str
    target: str
    tooltip: str


@dataclass(frozen=True)
class Bar:
    """An interval drawn in a cell, in per cent of the column's scale; ``low`` and ``high`` are equal without one."""

    low: float
    value: float
    high: float


@dataclass(frozen=True)
class Cell:
    """A cell.

    Attributes:
        text: what it shows.
        sort: what it sorts by, where that is not its text; "" is below every number.
        interval: in brackets, behind the text.
        bar: the interval, drawn.
        tooltip: what it says when pointed at.
        heat: how dark it is, from 0 to 1; None for no colour.
        flags: badges.
        tone: "failed" or "n/a" where there is no number.
    """

    text: str
    sort: str | None = None
    interval: str = ""
    bar: Bar | None = None
    tooltip: str = ""
    heat: float | None = None
    flags: tuple[Flag, ...] = ()
    tone: str = ""


@dataclass(frozen=True)
class Column:
    """A column.

    Attributes:
        title: its heading; ``small`` the line below that, and ``tooltip`` what it says when pointed at.
        number: whether it holds numbers.
        falling: whether it is first sorted downwards.
    """

    title: str
    small: str = ""
    number: bool = False
    falling: bool = False
    tooltip: str = ""


@dataclass(frozen=True)
class Row:
    """A row: the id that links point to, its cells, and what it can be filtered by."""

    identity: str
    cells: tuple[Cell, ...]
    method: str = ""
    concept: str = ""
    status: str = "ok"


@dataclass(frozen=True)
class Download:
    """A file that the page holds: its name, how it is called, and its content as a URI."""

    name: str
    label: str
    uri: str


@dataclass(frozen=True)
class Table:
    """A table: its id, its caption, its parts, files of it, and notes that belong below it."""

    identity: str
    caption: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    downloads: tuple[Download, ...] = ()
    notes: tuple[str, ...] = field(default=())


def identifier(*parts: str) -> str:
    """An id of the page made of names that may hold anything."""
    return "~".join(file_name(part) for part in parts)


def downloads(name: str, frame: pd.DataFrame, csv: str | None = None) -> tuple[Download, ...]:
    """A frame as CSV and as JSON, one object a row.

    Args:
        name: of the files, less their endings.
        frame: the table.
        csv: its text, where that is not simply the frame's.
    """
    text = frame_csv(frame) if csv is None else csv
    return (
        Download(f"{name}.csv", "CSV", data_uri("text/csv", text)),
        Download(
            f"{name}.json", "JSON", data_uri("application/json", f"{frame.to_json(orient='records', indent=1)}\n")
        ),
    )


def data_uri(kind: str, text: str) -> str:
    """A text as a URI; base64, so that nothing in it can mean anything to the page."""
    return f"data:{kind};charset=utf-8;base64,{base64.b64encode(text.encode()).decode()}"


def badge(name: str, prefix: str, attacks: Sequence[str] = ()) -> Flag:
    """A flag as a badge.

    Args:
        name: the flag's.
        prefix: of the ids of its run.
        attacks: those that carry it, of a row that sums up several.
    """
    flag = known_flags().get(name)
    text = flag.text if flag else "a flag without a description"
    of = f"{', '.join(attacks)}: " if attacks else ""
    count = f" \N{MULTIPLICATION SIGN}{len(attacks)}" if len(attacks) > 1 else ""
    return Flag(f"{name}{count}", f"{prefix}flag-{identifier(name)}", f"{of}{text}")


def model_tables(rows: Sequence[TableRow], metrics: Metrics, prefix: str, baseline: str) -> list[Table]:
    """The main table, one of each concept.

    Args:
        rows: of models.
        metrics: what there is to say of them.
        prefix: of all ids.
        baseline: the method that erases nothing.
    """
    keys = [key for key in measured_keys(rows, metrics) if not _describe(metrics, key).details]
    scales = {key: Scale.of(rows, key, _describe(metrics, key)) for key in keys}
    tables = []
    for concept in dict.fromkeys(row.concept for row in rows):
        own = [row for row in rows if row.concept == concept]
        columns = (Column("Method"), *(_column(own, key, metrics) for key in keys), Column("Status and flags"))
        lines = []
        for row in own:
            method = Cell(row.method, tooltip="unerased" if row.method == baseline else "")
            values = (value_cell(row, key, scales[key]) for key in keys)
            identity = f"{prefix}row-{identifier(row.method, concept)}"
            lines.append(Row(identity, (method, *values, _status(row, prefix)), row.method, concept, row.status))
        judges = dict.fromkeys(row.judge for row in own if row.judge)
        notes = (*(f"Judge: {judge}" for judge in judges), *describe_second_judges(own))
        tables.append(Table(f"{prefix}table-{identifier(concept)}", concept, columns, tuple(lines), notes=notes))
    return tables


def _status(row: TableRow, prefix: str) -> Cell:
    badges = tuple(badge(flag, prefix) for flag in row.flags)
    if row.status == "ok":
        return Cell("" if badges else "ok", flags=badges)
    return Cell(row.status, tooltip=row.reason, flags=badges, tone=row.status)


def attack_tables(rows: Sequence[TableRow], metrics: Metrics, prefix: str) -> list[Table]:
    """Methods by attacks, one table of each concept: confirmed success rates, and the ensemble's robust rate.

    Args:
        rows: of attacks.
        metrics: what there is to say of them.
        prefix: of all ids.
    """
    tables = []
    for concept in dict.fromkeys(row.concept for row in rows):
        own = [row for row in rows if row.concept == concept]
        attacks = attacks_of(own)
        columns = [Column("Method")]
        for attack in attacks:
            key = ROBUST if attack == ENSEMBLE else RATE
            metric = _describe(metrics, key)
            small = f"{metric.title.lower() if attack == ENSEMBLE else 'confirmed'}, {metric.unit or '%'}"
            columns.append(Column(attack, small, number=True, falling=True, tooltip=metric.meaning))
        lines = []
        for method in dict.fromkeys(row.method for row in own):
            of_attack = {row.attack: row for row in own if row.method == method}
            cells = [Cell(method), *(_attacked(of_attack.get(attack), attack == ENSEMBLE) for attack in attacks)]
            carried: dict[str, list[str]] = {}
            for row in of_attack.values():
                for flag in row.flags:
                    carried.setdefault(flag, []).append(row.attack)
            cells.append(Cell("", flags=tuple(badge(flag, prefix, where) for flag, where in carried.items())))
            statuses = {row.status for row in of_attack.values()}
            status = next(one for one in ("failed", "ok", "n/a") if one in statuses)
            identity = f"{prefix}attacked-{identifier(method, concept)}"
            lines.append(Row(identity, tuple(cells), method, concept, status))
        tables.append(
            Table(f"{prefix}attacks-{identifier(concept)}", concept, (*columns, Column("Flags")), tuple(lines))
        )
    return tables


@dataclass(frozen=True)
class Scale:
    """The format of a column's numbers and of their intervals as drawn: decimals, and the ends of the scale."""

    digits: int
    low: float
    high: float

    @classmethod
    def of(cls, rows: Sequence[TableRow], key: str, metric: Description) -> Scale:
        """That of a metric: from 0 to 100 for per cent, otherwise from the lowest end of an interval to the highest."""
        estimates = [row.metrics[key] for row in rows if key in row.metrics and row.metrics[key].defined]
        digits = decimals([one.value for one in estimates])
        if metric.unit == "%":
            return cls(digits, 0.0, 100.0)
        ends = [end for one in estimates for end in (one.low, one.value, one.high) if math.isfinite(end)]
        return cls(digits, min(ends, default=0.0), max(ends, default=1.0))

    def place(self, value: float) -> float:
        """The place of a value, in per cent of the scale."""
        span = self.high - self.low
        return round(min(100.0, max(0.0, 100 * (value - self.low) / span)), 1) if span else 50.0

    def bar(self, estimate: Estimate) -> Bar:
        """An interval on the scale."""
        value = self.place(estimate.value)
        if math.isnan(estimate.low):
            return Bar(value, value, value)
        return Bar(self.place(estimate.low), value, self.place(estimate.high))

    def words(self, estimate: Estimate) -> tuple[str, str]:
        """A number, and its interval in brackets or ""."""
        value = f"{estimate.value + 0.0:.{self.digits}f}"
        if math.isnan(estimate.low):
            return value, ""
        return value, f"[{estimate.low + 0.0:.{self.digits}f}, {estimate.high + 0.0:.{self.digits}f}]"


def _describe(metrics: Mapping[str, Description], key: str) -> Description:
    return metrics.get(key, Description(key))


def _column(rows: Sequence[TableRow], key: str, metrics: Metrics) -> Column:
    metric = _describe(metrics, key)
    counts = [row.metrics[key].n for row in rows if row.status == "ok" and key in row.metrics]
    low, high = min(counts, default=0), max(counts, default=0)
    n = f"n = {low}" if low == high else f"n = {low} to {high}"
    better = {"lower": "↓ lower is better", "higher": "↑ higher is better"}.get(metric.direction or "", "")
    notes = dict.fromkeys(row.notes[key] for row in rows if key in row.notes)
    tooltip = "; ".join(filter(None, (metric.meaning, metric.caveat, *notes)))
    title = f"{metric.title} ({metric.unit})" if metric.unit else metric.title
    return Column(title, "\n".join(filter(None, (better, n))), True, metric.direction == "higher", tooltip)


def value_cell(row: TableRow | None, key: str, scale: Scale) -> Cell:
    """The cell of a row's metric; a dash where there is no such row, or it has no such number."""
    if row is None:
        return Cell(NONE, sort="")
    if row.status != "ok":
        return Cell(NONE, sort="", tone=row.status)
    estimate = row.metrics.get(key)
    if estimate is None:
        return Cell(NONE, sort="")
    if not estimate.defined:
        return Cell("undefined", sort="", tooltip="nothing was there to be measured")
    value, interval = scale.words(estimate)
    return Cell(value, str(estimate.value), interval, scale.bar(estimate), _tooltip(estimate))


def _attacked(row: TableRow | None, ensemble: bool) -> Cell:
    if row is None:
        return Cell(NONE, sort="")
    if row.status != "ok":
        return Cell(row.status, sort="", tooltip=row.reason, tone=row.status)
    estimate = row.metrics.get(ROBUST if ensemble else RATE)
    if estimate is None or not estimate.defined:
        return Cell("undefined", sort="", tooltip="the unerased model draws none of the prompts")
    value, interval = PER_CENT.words(estimate)
    floor = row.metrics.get(FLOOR)
    tooltip = _tooltip(estimate, "prompts")
    if floor and floor.defined:
        tooltip += f"; the same attack on unrelated prompts: {floor.value:.1f} %"
    if row.flags:
        tooltip += f"; flags: {', '.join(row.flags)}"
    share = 100 - estimate.value if ensemble else estimate.value
    return Cell(value, str(estimate.value), interval, tooltip=tooltip, heat=round(share / 100, 3))


PER_CENT = Scale(1, 0.0, 100.0)


def _tooltip(estimate: Estimate, of: str = "images") -> str:
    limits = "" if math.isnan(estimate.low) else f"; 95 % interval {estimate.low:.4g} to {estimate.high:.4g}"
    return f"{estimate.value:.4g}; n = {estimate.n} {of}{limits}"
