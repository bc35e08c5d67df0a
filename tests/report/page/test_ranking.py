"""Methods in order: no more told apart than tests or intervals do."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from erasebench.metrics.metric import describe_metrics
from erasebench.metrics.stats import Estimate
from erasebench.report.page.ranking import by_intervals, overlap, ranking_of
from erasebench.results.ranking import ranks_frame
from erasebench.results.rows import TableRow
from erasebench.results.seeds import seeds_frame
from tests.report.synthetic import estimate, model_row, run_of, share

METRICS = describe_metrics()


def rank(method: str, low: int, high: int, **more: Any) -> dict[str, Any]:
    known = {"method": method, "concept": "church", "attack": "", "metric": "ratio", "value": 1.0}
    return {**known, "rank_low": low, "rank_high": high, "of": 3, **more}


@pytest.mark.parametrize(
    ("one", "other", "touch"),
    [
        (estimate(5, 1), estimate(7, 1), True),
        (estimate(5, 1), estimate(7.1, 1), False),
        (Estimate(5, float("nan"), float("nan"), 1), estimate(6, 1), True),
        (Estimate(4.9, float("nan"), float("nan"), 1), estimate(6, 1), False),
    ],
)
def test_intervals_overlap_where_they_touch(one: Estimate, other: Estimate, touch: bool) -> None:
    assert overlap(one, other) == overlap(other, one) == touch


def test_more_is_better_where_the_metric_says_so() -> None:
    rows = [
        TableRow(m, "c", "ok", metrics={"robust-rate": share(hits)}) for m, hits in (("a", 5), ("b", 39), ("c", 38))
    ]
    ranked = by_intervals(METRICS).order("robust-rate", rows)
    assert [(one.method, one.leading) for one in ranked] == [("b", True), ("c", True), ("a", False)]


def test_where_a_run_was_tested_the_tests_decide() -> None:
    """However much intervals overlap: pairs say more than they do."""
    rows = [model_row(method, "church", hits) for method, hits in (("a", 3), ("b", 4), ("c", 9))]
    run = run_of(rows, ranks=ranks_frame([rank("a", 1, 1), rank("b", 2, 3), rank("c", 2, 3)]))
    ranking = ranking_of(run)
    found = [(one.method, one.estimate, one.leading) for one in ranking.order("ratio", rows)]
    assert found == [
        (row.method, row.metrics["ratio"], leading) for row, leading in zip(rows, (True, False, False), strict=True)
    ]
    assert "Holm" in ranking.rule and "paired tests" in ranking.reason
    assert [one.leading for one in by_intervals(METRICS).order("ratio", rows)] == [True, True, True]


def test_ranks_are_those_of_the_concept_attack_and_metric() -> None:
    rows = [model_row(method, "church", 3) for method in ("a", "b")]
    others = [rank("a", 2, 2, concept="nudity"), rank("a", 2, 2, attack="rab"), rank("a", 2, 2, metric="clip")]
    run = run_of(rows, ranks=ranks_frame([*others, rank("a", 1, 2), rank("b", 1, 2)]))
    assert [one.leading for one in ranking_of(run).order("ratio", rows)] == [True, True]
    assert [one.method for one in ranking_of(run).order("ratio", rows[:1])] == ["a"], "who is left out is left out"
    assert ranking_of(run).order("ratio", []) == []


def test_what_has_no_ranks_is_told_apart_by_intervals() -> None:
    rows = [model_row("a", "church", 0, fid=0.1), model_row("b", "church", 0, fid=0.5)]
    run = run_of(rows, ranks=ranks_frame([rank("a", 1, 2), rank("b", 1, 2)]))
    assert [(one.method, one.leading) for one in ranking_of(run).order("fid", rows)] == [("a", True), ("b", False)]
    assert ranking_of(run_of(rows)).rule == by_intervals(METRICS).rule


def test_erasures_with_several_seeds_are_one_method_with_the_interval_over_seeds() -> None:
    rows = [model_row(method, "church", hits) for method, hits in (("a[seed=1]", 1), ("a[seed=2]", 3), ("b", 9))]
    spread = {"method": "a", "concept": "church", "attack": "", "metric": "ratio", "seeds": 2, "min": 2.5, "max": 7.5}
    run = run_of(rows, ranks=ranks_frame([rank("a", 1, 1), rank("b", 2, 2)]))
    run = replace(
        run, seeds=seeds_frame([{**spread, "mean": 5, "sd": 1, "min": 2.5, "max": 7.5, "low": 0, "high": 40}])
    )
    first, second = ranking_of(run).order("ratio", rows)
    assert (first.method, first.estimate) == ("a", Estimate(5, 0, 40, 40)) and (second.method, second.leading) == (
        "b",
        False,
    )
