"""Methods in order, as far as they can be told apart: by paired tests, or by intervals where a run has no tests."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from erasebench.metrics.metric import Description
from erasebench.metrics.stats import Estimate
from erasebench.results.rows import TableRow
from erasebench.results.run_folder import RunFolder
from erasebench.results.table import Metrics


@dataclass(frozen=True)
class Standing:
    """A method's place: its number, and whether it cannot be told apart from the best."""

    method: str
    estimate: Estimate
    leading: bool


@dataclass(frozen=True)
class Ranking:
    """A way to put methods in order.

    Attributes:
        order: of a metric and of rows of one concept and attack: who has the metric, the best first.
        reason: why those that lead cannot be told apart.
        rule: what is not ranked, for readers.
    """

    order: Callable[[str, Sequence[TableRow]], Sequence[Standing]]
    reason: str
    rule: str


def ranking_of(run: RunFolder) -> Ranking:
    """By the tests of a run; by intervals, which is more cautious, where an older version made none."""
    return by_tests(run) if len(run.ranks) else by_intervals(run.record.metrics)


def by_intervals(metrics: Metrics) -> Ranking:
    """An order in which all lead whose interval overlaps the best one's; they may differ all the same."""

    def order(key: str, rows: Sequence[TableRow]) -> list[Standing]:
        known = [row for row in rows if key in row.metrics and row.metrics[key].defined]
        higher = metrics.get(key, Description(key)).direction == "higher"
        known.sort(key=lambda row: row.metrics[key].value * (-1 if higher else 1))
        return [
            Standing(row.method, row.metrics[key], overlap(known[0].metrics[key], row.metrics[key])) for row in known
        ]

    return Ranking(order, "the intervals overlap", "Methods whose intervals overlap are not ranked.")


def by_tests(run: RunFolder) -> Ranking:
    """An order in which all lead than whom no other is significantly better.

    The erasures of one method with several seeds are one method there, its interval the one over seeds and prompts.
    """
    intervals = by_intervals(run.record.metrics)

    def order(key: str, rows: Sequence[TableRow]) -> Sequence[Standing]:
        if not rows:
            return []
        of_row = {row.method: row for row in rows}
        of_family = {"concept": rows[0].concept, "attack": rows[0].attack, "metric": key}
        ranks, seeds = (
            frame[(frame[list(of_family)] == list(of_family.values())).all(axis=1)] for frame in (run.ranks, run.seeds)
        )
        spread = {
            line.method: Estimate(line.mean, line.low, line.high, max(row.metrics[key].n for row in rows))
            for line in seeds.itertuples(index=False)
        }
        standings = [
            Standing(line.method, estimate, line.rank_low == 1)
            for line in ranks.itertuples(index=False)
            if (estimate := of_row[line.method].metrics[key] if line.method in of_row else spread.get(line.method))
        ]
        return standings or intervals.order(key, rows)

    return Ranking(
        order,
        "paired tests over the same prompts show no difference",
        "Methods are ranked as far as paired tests over the same prompts tell them apart (p < .05 after Holm's"
        " adjustment for all pairs of methods of a concept and metric).",
    )


def overlap(one: Estimate, other: Estimate) -> bool:
    """True if two intervals have a point in common; an estimate without limits is a point."""
    (low, high), (other_low, other_high) = (
        (x.value, x.value) if math.isnan(x.low) else (x.low, x.high) for x in (one, other)
    )
    return low <= other_high and other_low <= high
