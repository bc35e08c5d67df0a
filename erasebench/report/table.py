"""The table of results for readers: Markdown, LaTeX and plain text.

Rows of attacks are a second table there, a column an attack.
"""

from __future__ import annotations

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

from erasebench.metrics.metric import Description
from erasebench.report.attack_tables import attack_legend, attack_table, headline_metric, split
from erasebench.report.markdown import bullets, pipe_table
from erasebench.results.flags import flag_legend
from erasebench.results.ranking import describe_ranks
from erasebench.results.rows import TableRow
from erasebench.results.table import Metrics, measured_keys

_INTERVALS = (
    "Brackets hold 95 % intervals: Wilson's for shares of images, on the effective number of images where prompts have"
    " several; normal with the bootstrap's standard deviation for FID and CMMD; bootstrap percentiles for means; of"
    " other numbers `erasebench show METRIC` says whose."
)
SEEDS_LEGEND = (
    "Each erasure was made with several seeds: SD and range are of their values, on the same prompts and images' seeds."
    " Brackets hold the 95 % interval of the mean over erasures and prompts: Student's over the seeds (one degree of"
    " freedom less than seeds) and the rows' own, added by squares."
)
"""The legend of the table of spreads."""


def to_markdown(
    rows: Iterable[TableRow],
    metrics: Metrics,
    budgets: Mapping[str, str] | None = None,
    ranks: pd.DataFrame | None = None,
    seeds: pd.DataFrame | None = None,
) -> str:
    """A pipe table, and below it the legend that it needs to be read by itself.

    The same of attacks and of the spread between erasures of one method, if there are any.

    Args:
        rows: the results.
        metrics: what there is to say of them.
        budgets: by attack, what it may spend on a prompt, in words.
        ranks: of the methods; columns :data:`~erasebench.results.ranking.COLUMNS`.
        seeds: the spread; columns :data:`~erasebench.results.seeds.COLUMNS`.
    """
    rows, attacked = split(rows)
    tables = []
    if rows or not attacked:
        table = _printed(rows, metrics)
        table.insert(len(table.columns) - 1, "judge", [row.judge for row in rows])
        tables.append(f"{pipe_table(table, (0, 1, -2, -1))}\n{bullets(_legend(rows, metrics, ranks))}")
    if attacked:
        legend = attack_legend(attacked, metrics, budgets, ranks)
        tables.append(f"{pipe_table(attack_table(attacked), (0, 1, -1))}\n{bullets(legend)}")
    if seeds is not None and len(seeds):
        spread = seed_table(seeds, metrics)
        tables.append(f"{pipe_table(spread, range(4))}\n{bullets([SEEDS_LEGEND])}")
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
    ranks: pd.DataFrame | None = None,
    seeds: pd.DataFrame | None = None,
) -> str:
    """An aligned plain-text table and its legend, without the metrics that only files hold.

    The same of attacks and of the spread between erasures of one method, if there are any.

    Args:
        rows: the results.
        metrics: what there is to say of them.
        color: use ANSI colours.
        width: of the terminal; a wider table loses its intervals, and says so, and the legend is wrapped.
        budgets: by attack, what it may spend on a prompt, in words.
        ranks: of the methods; columns :data:`~erasebench.results.ranking.COLUMNS`.
        seeds: the spread; columns :data:`~erasebench.results.seeds.COLUMNS`.
    """
    details = {key for key, metric in metrics.items() if metric.details}
    rows, attacked = split(rows)
    second = describe_second_judges(rows)
    rows = [replace(row, metrics={k: v for k, v in row.metrics.items() if k not in details}) for row in rows]
    legend = _legend(rows, metrics, ranks)
    for judge in {row.judge: None for row in rows if row.judge}:
        concepts = list(dict.fromkeys(row.concept for row in rows if row.judge == judge))
        legend.append(f"Judge of {', '.join(concepts)}: {judge}")
    legend += second
    tables = []
    if rows or not attacked:
        styles = [row.status for row in rows]
        tables.append(
            _drawn(lambda all: _printed(rows, metrics, notes=False, intervals=all), styles, legend, color, width)
        )
    if attacked:
        legend = attack_legend(attacked, metrics, budgets, ranks)
        tables.append(_drawn(lambda all: attack_table(attacked, all), None, legend, color, width))
    if seeds is not None and len(seeds):
        shown = seeds
        tables.append(_drawn(lambda all: seed_table(shown, metrics, all), None, [SEEDS_LEGEND], color, width))
    return "\n".join(tables)


def seed_table(seeds: pd.DataFrame, metrics: Metrics, intervals: bool = True) -> pd.DataFrame:
    """The spread between erasures of one method as text, without the metrics that only the files hold.

    Of attacks those that their table shows: the ensemble's robust rate, the confirmed rate of the others.

    Args:
        seeds: columns :data:`~erasebench.results.seeds.COLUMNS`.
        metrics: what there is to say of them.
        intervals: print them.
    """
    body = []
    details = {key for key, metric in metrics.items() if metric.details}
    for line in seeds[~seeds["metric"].isin(details)].itertuples():
        if line.attack and line.metric != headline_metric(line.attack):
            continue
        metric = metrics.get(line.metric, Description(line.metric))
        digits = decimals([line.mean])
        mean, smallest, greatest, low, high = (
            "-" if math.isnan(value) else f"{value + 0.0:.{digits}f}"
            for value in (line.mean, line.min, line.max, line.low, line.high)
        )
        body.append(
            [
                *(line.method, line.concept, line.attack or "-"),
                f"{metric.title} ({metric.unit})" if metric.unit else metric.title,
                *(
                    str(line.seeds),
                    f"{mean} [{low}, {high}]" if intervals else mean,
                    f"{line.sd:.2g}",
                    f"{smallest} to {greatest}",
                ),
            ]
        )
    heads = ["method", "concept", "attack", "metric", "seeds", "mean", "SD", "range"]
    return pd.DataFrame(body, columns=heads, dtype=object)


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


def _printed(rows: Sequence[TableRow], metrics: Metrics, notes: bool = True, intervals: bool = True) -> pd.DataFrame:
    """The table as text: method, concept, the metrics under their headings, and flags.

    Args:
        rows: the results.
        metrics: what there is to say of them.
        notes: name in a heading what its numbers depend on.
        intervals: print them.
    """
    keys = measured_keys(rows, metrics)
    digits = {key: decimals([row.metrics[key].value for row in rows if key in row.metrics]) for key in keys}

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


def decimals(values: Sequence[float]) -> int:
    """The number of decimals of a column: so many that a typical value shows three digits; at least one."""
    sizes = [abs(value) for value in values if math.isfinite(value) and value]
    return min(6, max(1, 2 - math.floor(math.log10(statistics.median(sizes))))) if sizes else 1


def _heading(rows: Sequence[TableRow], key: str, metrics: Metrics, notes: bool) -> str:
    metric = metrics.get(key, Description(key))
    noted = dict.fromkeys(row.notes[key] for row in rows if key in row.notes) if notes else {}
    unit = "; ".join(filter(None, (metric.unit, *noted)))
    return f"{metric.title} ({unit})" if unit else metric.title


def describe_second_judges(rows: Iterable[TableRow]) -> list[str]:
    """Second judges for readers, a line each, and how far they agree with the first."""
    of: dict[str, list[TableRow]] = {}
    for row in rows:
        if "agreement" in row.metrics and row.metrics["agreement"].defined:
            of.setdefault(row.notes["agreement"], []).append(row)
    lines = []
    for judge, own in of.items():
        shares = sorted({f"{row.metrics['agreement'].value:.0f}" for row in own}, key=float)
        concepts = ", ".join(dict.fromkeys(row.concept for row in own))
        share = " to ".join(dict.fromkeys((shares[0], shares[-1])))
        lines.append(
            f"Second judge of {concepts}, which no other number counts: {judge}; it says what the first says of "
            f"{share} % of a row's images"
        )
    return lines


def _legend(rows: Sequence[TableRow], metrics: Metrics, ranks: pd.DataFrame | None = None) -> list[str]:
    lines = []
    for key in measured_keys(rows, metrics):
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
    if ranks is not None:
        shown = [key for key, metric in metrics.items() if not metric.details]
        lines += describe_ranks(ranks[(ranks["attack"] == "") & ranks["metric"].isin(shown)], metrics)
    lines += flag_legend(rows)
    lines += [
        f"{row.method} / {row.concept} {row.status}: {' '.join(row.reason.split()) or 'no reason was recorded'}"
        for row in rows
        if row.status != "ok"
    ]
    return lines
