"""Ranks of methods as far as they can be told apart, ``ranks.csv``: an interval of ranks each, never a bare 1, 2, 3.

Every two methods of one concept, one attack and one metric are compared prompt by prompt.  These comparisons are one
family: Holm's adjustment keeps the chance that any two equal methods of it are told apart below 5 %.  A method's best
rank is one more than the number of methods that are significantly better, its worst the number of methods less those
that are significantly worse.  The erasures of one method with several seeds are one method, their images of one prompt
are averaged.  So ranks are of these erasures, on other prompts, and hold for no others: how far the seeds themselves
are apart, which may be further than the ranks, is in :mod:`~erasebench.results.seeds`.

Rows of several runs, of which only numbers are known, are ranked by their intervals instead.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from erasebench.metrics.metric import Description
from erasebench.metrics.paired import LEVEL, holm, paired_test, subtract_means
from erasebench.metrics.stats import Estimate
from erasebench.results.rows import TableRow
from erasebench.results.table import Metrics, read_frame
from erasebench.settings import split_seed

RANKS = "ranks.csv"
EXPLANATION = (
    "Ranks are the best and the worst that a method may have: paired tests over the same prompts tell methods apart"
    " (p < .05, adjusted by Holm for all pairs of methods of one concept and metric).  They are ranks of these erasures"
    " (those of several seeds together): another seed of a method that trains may rank elsewhere."
)
COLUMNS: dict[str, Any] = {
    **dict.fromkeys(("method", "concept", "attack", "metric"), str),
    "value": float,
    **dict.fromkeys(("rank_low", "rank_high", "of"), int),
}
"""The columns and their types: the row of the table, the erasures of one method with several seeds being one; the
metric and its value, in the table's unit; the best rank and the worst that the method may have, and how many methods
there are."""

Values = Mapping[tuple[str, str, str], Mapping[str, pd.Series]]
"""By method, concept and attack, and then by metric, one value an image with the prompt's id as index."""


def rank_methods(rows: Iterable[TableRow], values: Values, metrics: Metrics, baseline: str) -> pd.DataFrame:
    """The ranks of the methods of a run; columns :data:`COLUMNS`, best value first.

    Args:
        rows: the table.
        values: of its rows, as :func:`~erasebench.results.measure.prompt_values` gives them.
        metrics: what a table says of each metric; those without a direction have no ranks.
        baseline: the method that erases nothing, which has no rank.
    """
    families: dict[tuple[str, str], dict[str, list[TableRow]]] = {}
    for row in rows:
        if row.status == "ok" and row.method != baseline:
            methods = families.setdefault((row.concept, row.attack), {})
            methods.setdefault(split_seed(row.method)[0], []).append(row)
    lines = [
        line
        for methods in families.values()
        for key, metric in metrics.items()
        if metric.direction
        for line in _lines(methods, values, key, metric)
    ]
    return ranks_frame(lines)


def _lines(
    methods: Mapping[str, list[TableRow]], values: Values, key: str, metric: Description
) -> Iterator[dict[str, Any]]:
    """The ranks of one concept, attack and metric."""
    by_label: dict[str, tuple[TableRow, float, pd.Series]] = {}
    for name, rows in methods.items():
        of_rows = [(row, values.get((row.method, row.concept, row.attack), {}).get(key)) for row in rows]
        series_of_rows = [(row, series) for row, series in of_rows if series is not None and row.metrics[key].defined]
        if series_of_rows:
            label = series_of_rows[0][0].method if len(series_of_rows) == 1 else name
            mean = float(np.mean([row.metrics[key].value for row, _ in series_of_rows]))
            by_label[label] = series_of_rows[0][0], mean, pd.concat([series for _, series in series_of_rows])
    if len(by_label) < 2:
        return
    # On the prompts that all have: a metric of another package may leave some out.
    means = pd.concat(
        {name: series.astype(float).groupby(level=0).mean() for name, (_, _, series) in by_label.items()},
        axis=1,
        join="inner",
    )
    single = {name: series.dtype == bool and series.index.is_unique for name, (_, _, series) in by_label.items()}
    pairs, tests, signs = list(combinations(by_label, 2)), [], []
    for one, other in pairs:
        differences = subtract_means(means[one].to_numpy(), means[other].to_numpy())
        tests.append(paired_test(differences, single[one] and single[other])[0])
        signs.append(differences.mean() if len(differences) else 0.0)
    better, worse = dict.fromkeys(by_label, 0), dict.fromkeys(by_label, 0)
    for (one, other), p, difference in zip(pairs, holm(tests), signs, strict=True):
        if p < LEVEL:
            first, second = (one, other) if (difference < 0) == (metric.direction == "lower") else (other, one)
            better[second] += 1
            worse[first] += 1
    order = sorted(by_label, key=lambda name: by_label[name][1], reverse=metric.direction == "higher")
    for name in order:
        row, value, _ = by_label[name]
        yield {
            **{"method": name, "concept": row.concept, "attack": row.attack, "metric": key, "value": value},
            **{"rank_low": 1 + better[name], "rank_high": len(by_label) - worse[name], "of": len(by_label)},
        }


def ranks_frame(lines: Iterable[Mapping[str, Any]] = ()) -> pd.DataFrame:
    """Ranks as a frame; without any, one of the same columns."""
    return pd.DataFrame(list(lines), columns=list(COLUMNS)).astype(COLUMNS)


def read_ranks(folder: Path) -> pd.DataFrame:
    """The ranks in a run folder.

    Raises:
        EraseBenchError: there are none, or the file is damaged.
    """
    return read_frame(folder / RANKS, COLUMNS)


def describe_ranks(frame: pd.DataFrame, metrics: Metrics) -> list[str]:
    """Ranks for readers: what they are, and a line for the concepts and attacks of which the same can be said.

    For example ``Ranks, church: Ratio: 1-3 uce, mace, esd-x; 4 ca. No two of 4 methods can be told apart by FID``.
    """
    attacks: dict[tuple[str, str], list[str]] = {}
    for (concept, attack), family in frame.groupby(["concept", "attack"], sort=False):
        parts, alike = [], []
        for key, own in family.groupby("metric", sort=False):
            title = metrics.get(key, Description(key)).title
            groups = {ends: ", ".join(of["method"]) for ends, of in own.groupby(["rank_low", "rank_high"])}
            if len(groups) == 1:
                alike.append(title)
                continue
            ranks = (f"{low if low == high else f'{low}-{high}'} {names}" for (low, high), names in groups.items())
            parts.append(f"{title}: {'; '.join(ranks)}")
        if alike:
            parts.append(f"No two of {family['of'].max()} methods can be told apart by {', '.join(alike)}")
        attacks.setdefault((". ".join(parts), concept), []).append(attack)
    concepts: dict[tuple[str, str], list[str]] = {}
    for (text, concept), of_text in attacks.items():
        concepts.setdefault((text, ", ".join(filter(None, of_text))), []).append(concept)
    lines = [
        f"Ranks, {f'{by} on ' if by else ''}{', '.join(of_text)}: {text}" for (text, by), of_text in concepts.items()
    ]
    return [EXPLANATION, *lines] if lines else []


@dataclass(frozen=True)
class Rank:
    """A row's place among those that can be compared with it: no better than ``first``, no worse than ``last``."""

    first: int
    last: int
    of: int


def rank_intervals(estimates: Sequence[Estimate], level: float = 0.95) -> list[Rank]:
    """The ranks that each of several numbers may have, the highest number being first.

    A number may rank before another unless its interval lies wholly below the other's (Klein, Wright and Wieczorek
    2020, theorem 1).  The intervals are widened so that all of them hold at once with probability ``level`` (Sidak
    1967), and with them all ranks.

    Args:
        estimates: defined, each with its own 95 % interval; they need not be independent, and those over shared prompts
            are not: the bound holds for normal estimates however they correlate.
        level: of all ranks together.
    """
    from scipy.stats import norm

    n = len(estimates)
    if not n:
        return []
    wider = norm.ppf((1 + level ** (1 / n)) / 2) / norm.ppf(0.975)
    values = np.array([one.value for one in estimates])
    lows = np.array([one.value if math.isnan(one.low) else one.low for one in estimates])
    highs = np.array([one.value if math.isnan(one.high) else one.high for one in estimates])
    lows, highs = values - wider * (values - lows), values + wider * (highs - values)
    better = n - np.searchsorted(np.sort(lows), highs, side="right")
    worse = np.searchsorted(np.sort(highs), lows, side="left")
    return [Rank(int(1 + b), int(n - w), n) for b, w in zip(better, worse, strict=True)]
