"""The numbers that a paper reports beside those that a run of its suite measured, as text and as CSV."""

from __future__ import annotations

import math
import textwrap
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console
from rich.table import Table
from rich.text import Text

from erasebench.domains import DOMAINS
from erasebench.errors import EraseBenchError
from erasebench.results.published import BESIDE, nothing_beside, published_beside, read_published
from erasebench.results.run_folder import RunFolder
from erasebench.results.table import frame_csv
from erasebench.suites import Suite

_NUMBERS = ("reported", "measured", "n")
_MAX_NAMES = 4
"""Of the things that a reason is about, so many are named."""


@dataclass(frozen=True)
class Reproduction:
    """A suite's published numbers and a run of it.

    Attributes:
        suite: the suite; ``run`` its run.
        numbers: of the suite's tables, how many there are.
        beside: what was measured beside them; columns :data:`~erasebench.results.published.BESIDE`.
        nothing: by reason, how many of what have nothing beside them.
    """

    suite: Suite
    run: RunFolder
    numbers: int
    beside: pd.DataFrame
    nothing: Mapping[str, Counter[str]]


def reproduce(name: str, suite: Suite, run: RunFolder) -> Reproduction:
    """Set a suite's published numbers beside those of a run.

    Args:
        name: the suite's, as the user wrote it.
        suite: of this name.
        run: a run of it.

    Raises:
        EraseBenchError: the run is of another suite or of none.
    """
    theirs = run.config.suite
    if theirs is None or Path(theirs).stem != Path(name).stem:
        of = f"the suite {theirs}" if theirs else "no suite"
        raise EraseBenchError(
            f"{run.folder} is a run of {of}, not of the suite {name}; run that by `erasebench run --suite {name}`"
        )
    published = read_published()
    published = published[(published["source"] == suite.paper) & published["table"].isin(suite.tables)]
    published = published[_of_own_model(published["model"], suite)]
    domain = DOMAINS[run.record.domain]
    stand_ins = {} if domain.published else suite.stand_ins
    beside = published_beside(run.rows, published, run.record.model, stand_ins, of_all=True)
    if not domain.published:
        beside["agrees"] = pd.NA  # whether numbers of another model agree says nothing of the paper
    nothing = nothing_beside(run.rows, published, stand_ins, of_all=True)
    return Reproduction(suite, run, len(published), beside, nothing)


def _of_own_model(models: pd.Series, suite: Suite) -> pd.Series:
    """The mask of the numbers that are of the suite's model: a table of several has a suite for each.

    Where a paper leaves open which weights it means, its own name of the model stands for those of the suite.
    """
    if models.nunique() < 2:
        return models.notna()
    own = models == suite.paper_scale.get("model")
    return own if own.any() else ~models.str.contains("/")


def to_csv(reproduction: Reproduction) -> str:
    """The numbers as CSV, columns :data:`~erasebench.results.published.BESIDE`."""
    return frame_csv(reproduction.beside[list(BESIDE)])


def to_terminal(reproduction: Reproduction, color: bool = False, width: int | None = None) -> str:
    """The text for a terminal: caveats, a line a number, table by table, and what has nothing beside it.

    Args:
        reproduction: the numbers.
        color: use ANSI colours.
        width: of the terminal, to wrap sentences.
    """
    lines = _wrapped([reproduction.suite.title, *caveats(reproduction)], width)
    for (source, table), own in reproduction.beside.groupby(["source", "table"], sort=False):
        lines += ["", f"{source}, {table}", *_drawn(own, color)]
    return "\n".join([*lines, "", *_wrapped(conclusions(reproduction), width)]) + "\n"


def caveats(reproduction: Reproduction) -> list[str]:
    """The caveats that have to be known before any number is read."""
    run, beside = reproduction.run, reproduction.beside
    lines, domain = [], DOMAINS[run.record.domain]
    if not domain.published:
        stand_ins = " with stand-ins" if beside["stand_in"].isin(reproduction.suite.stand_ins.values()).any() else ""
        lines.append(f"Measured on {domain.title}{stand_ins}: not a reproduction. Papers measure Stable Diffusion.")
    else:
        parts = beside["differs"].str.split("; ").explode()
        models = parts[parts.str.startswith("model: ", na=False)].str.removeprefix("model: ").unique()
        lines += [f"The models differ: {model}." for model in models]
    if run.record.suite_scale:
        lines.append(run.record.suite_scale)
    return lines


def conclusions(reproduction: Reproduction) -> list[str]:
    """The number of reported values that agree, and of those beside which nothing was measured, and why."""
    beside = reproduction.beside
    known = beside["agrees"].notna()
    if not reproduction.numbers:
        lines = ["No number of the paper is in this package: nothing stands beside the run, whose table is in suite.md"]
    elif not DOMAINS[reproduction.run.record.domain].published:
        lines = ["agrees: '-' throughout, since on another model it says nothing of the paper"]
    else:
        lines = [
            f"agrees: the reported number lies in the measured 95 % interval ({int(beside['agrees'].sum())} of"
            f" {int(known.sum())} do); '-' where there is no interval"
        ]
    judges = beside["differs"].str.contains("judge: ", na=False)
    if judges.any():
        lines.append(
            f"{int(judges.sum())} of {len(beside)} are by another judge than the paper's, or one that it does not"
            " name; --csv FILE says which"
        )
    omitted = sum(sum(counts.values()) for counts in reproduction.nothing.values())
    if omitted:
        parts = [_reason(reason, counts) for reason, counts in reproduction.nothing.items()]
        lines.append(f"Nothing stands beside {omitted} of {reproduction.numbers} reported numbers: {'; '.join(parts)}")
    lines += [f"Not available: {what}: {why}" for what, why in reproduction.suite.unavailable.items()]
    return lines


def _reason(reason: str, counts: Counter[str]) -> str:
    names = [name for name in counts if name]
    some = f"{', '.join(names[:_MAX_NAMES])}{', ...' if len(names) > _MAX_NAMES else ''}"
    return f"{sum(counts.values())} {reason}" + (f" ({some})" if names else "")


def _drawn(beside: pd.DataFrame, color: bool) -> list[str]:
    """A table's lines: each row and column of the paper's, what was measured, both numbers, whether they agree."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("row", "column", "measured as", *_NUMBERS, "agrees"):
        table.add_column(Text(name), justify="right" if name in _NUMBERS else "left", no_wrap=True)
    for line in beside.to_dict("records"):
        agrees = None if pd.isna(line["agrees"]) else bool(line["agrees"])
        cells = [
            line["row"],
            line["column"],
            _measured_as(line),
            f"{line['reported']:g}",
            _measured(line),
            str(line["n"]),
        ]
        style = "green" if agrees else ""
        agreement = "-" if agrees is None else "yes" if agrees else "no"
        table.add_row(*map(Text, [*cells, agreement]), style=style)
    console = Console(width=100_000, force_terminal=color, color_system="standard" if color else None, highlight=False)
    console.width = console.measure(table).maximum
    with console.capture() as drawn:
        console.print(table)
    return [line.rstrip() for line in drawn.get().splitlines()]


def _measured_as(line: Mapping[str, Any]) -> str:
    """Method, concept and attack of a number, as the run has them."""
    concept = f"{line['stand_in']} for {line['concept'] or 'all'}" if line["stand_in"] else line["concept"]
    return " / ".join(filter(None, (line["method"], concept, line["attack"])))


def _measured(line: Mapping[str, Any]) -> str:
    value = f"{line['measured']:.4g}"
    if math.isnan(line["low"]):
        return value
    return f"{value} [{line['low']:.4g}, {line['high']:.4g}]"


def _wrapped(lines: list[str], width: int | None) -> list[str]:
    if not width:
        return lines
    return [
        part for line in lines for part in textwrap.wrap(line, width, subsequent_indent="  ", break_on_hyphens=False)
    ]
