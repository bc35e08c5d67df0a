"""Ranks against a brute-force reading of the pairwise tests, and on runs."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from pathlib import Path
from statistics import NormalDist

import numpy as np
import pandas as pd
import pytest
from evalstats.tests import _mcnemar_midp_p
from statsmodels.stats.multitest import multipletests

from erasebench.errors import EraseBenchError
from erasebench.metrics.metric import describe_metrics
from erasebench.metrics.stats import Estimate
from erasebench.results.ranking import (
    EXPLANATION,
    describe_ranks,
    rank_intervals,
    rank_methods,
    ranks_frame,
    read_ranks,
)
from erasebench.results.rows import TableRow
from erasebench.results.run_folder import read_run
from erasebench.results.table import frame_csv
from tests.engine.runs import fast_stages, run_tiny

METRICS = describe_metrics()


def rows_of(values: Mapping[str, pd.Series], metric: str = "ratio", scale: float = 100) -> list[TableRow]:
    return [
        TableRow(method, "church", "ok", metrics={metric: Estimate(scale * float(own.mean()), 0, 0, len(own))})
        for method, own in values.items()
    ]


def ranked(values: Mapping[str, pd.Series], metric: str = "ratio", scale: float = 100) -> pd.DataFrame:
    given = {(method, "church", ""): {metric: own} for method, own in values.items()}
    return rank_methods(rows_of(values, metric, scale), given, METRICS, "sd")


def hits(rates: Mapping[str, float], prompts: int, seed: int = 0) -> dict[str, pd.Series]:
    rng = np.random.default_rng(seed)
    ids = [f"p{k}" for k in range(prompts)]
    return {name: pd.Series(rng.random(prompts) < rate, index=ids) for name, rate in rates.items()}


@pytest.mark.parametrize("seed", range(5))
def test_ranks_count_the_methods_that_are_significantly_better_and_worse(seed: int) -> None:
    values = hits({"sd": 0.9, "a": 0.05, "b": 0.1, "c": 0.5, "d": 0.55, "e": 0.8}, 60, seed)
    names = list(values)[1:]
    pairs = list(combinations(names, 2))
    raw = [_mcnemar_midp_p(values[one].to_numpy(float), values[other].to_numpy(float)) for one, other in pairs]
    apart = {
        pair: values[pair[0]].mean() - values[pair[1]].mean()
        for pair, p in zip(pairs, multipletests(raw, method="holm")[1], strict=True)
        if p < 0.05
    }
    found = ranked(values)
    assert list(found["value"]) == sorted(found["value"]) and set(found["method"]) == set(names), "sd has no rank"
    for row in found.itertuples():
        better = sum(difference > 0 for (one, _), difference in apart.items() if one == row.method)
        better += sum(difference < 0 for (_, other), difference in apart.items() if other == row.method)
        worse = sum(difference < 0 for (one, _), difference in apart.items() if one == row.method)
        worse += sum(difference > 0 for (_, other), difference in apart.items() if other == row.method)
        assert (row.rank_low, row.rank_high, row.of) == (1 + better, 5 - worse, 5)


def test_the_direction_of_the_metric_decides_who_is_first() -> None:
    rng = np.random.default_rng(0)
    ids = [f"p{k}" for k in range(30)]
    values = {name: pd.Series(rng.normal(mean, 1, 30), index=ids) for name, mean in (("a", 20.0), ("b", 30.0))}
    found = ranked(values, "clip", 1)
    assert found[["method", "rank_low", "rank_high"]].to_numpy().tolist() == [["b", 1, 1], ["a", 2, 2]]


def test_equal_methods_are_seldom_told_apart() -> None:
    """Holm over the family: some pair of four equal methods is told apart in at most 5 % of runs."""
    told = [bool((ranked(hits(dict.fromkeys("abcd", 0.4), 40, seed))["rank_low"] > 1).any()) for seed in range(100)]
    assert np.mean(told) <= 0.07


def test_the_erasures_of_one_method_are_one() -> None:
    values = hits({"esd-x": 0.3, "esd-x[seed=1]": 0.35, "uce": 0.9, "ca[seed=2]": 0.3}, 60)
    found = ranked(values)
    assert set(found["method"]) == {"esd-x", "uce", "ca[seed=2]"}
    assert found.set_index("method")["value"]["esd-x"] == pytest.approx(
        100 * (values["esd-x"].mean() + values["esd-x[seed=1]"].mean()) / 2
    )
    assert found.set_index("method").loc["uce", ["rank_low", "rank_high", "of"]].tolist() == [3, 3, 3]


def test_rows_without_values_and_single_methods_have_no_ranks() -> None:
    values = hits({"a": 0.3, "b": 0.4}, 20)
    failed = [TableRow("a", "church", "failed", "diverged"), *rows_of(values)[1:]]
    given = {(method, "church", ""): {"ratio": own} for method, own in values.items()}
    assert not len(rank_methods(failed, given, METRICS, "sd"))
    assert not len(rank_methods(rows_of(values), {}, METRICS, "sd"))


def test_readers_are_told_that_ranks_are_of_erasures() -> None:
    assert "ranks of these erasures" in EXPLANATION and "another seed of a method that trains" in EXPLANATION


def test_readers_get_groups() -> None:
    line = {"concept": "church", "attack": "", "metric": "ratio", "value": 0.0, "of": 4}
    ranks = {"uce": (1, 3), "mace": (1, 3), "esd-x": (1, 3), "ca": (4, 4)}
    frame = ranks_frame([{**line, "method": m, "rank_low": low, "rank_high": high} for m, (low, high) in ranks.items()])
    same = frame.assign(metric="clip", rank_low=1, rank_high=4)
    attacked = frame.assign(attack="p4d", metric="asr-confirmed")
    assert describe_ranks(pd.concat([frame, same, attacked]), METRICS) == [
        EXPLANATION,
        "Ranks, church: Ratio: 1-3 uce, mace, esd-x; 4 ca. No two of 4 methods can be told apart by CLIP score",
        "Ranks, p4d on church: Confirmed ASR: 1-3 uce, mace, esd-x; 4 ca",
    ]
    assert describe_ranks(ranks_frame(), METRICS) == []
    tied = same.assign(metric="asr-confirmed")
    several = [tied.assign(attack=attack, concept=concept) for concept in ("art", "dog") for attack in ("rab", "cce")]
    assert describe_ranks(pd.concat([*several, same.assign(concept="art")]), METRICS)[1:] == [
        "Ranks, rab, cce on art, dog: No two of 4 methods can be told apart by Confirmed ASR",
        "Ranks, art: No two of 4 methods can be told apart by CLIP score",
    ]


def test_there_and_back(tmp_path: Path) -> None:
    frame = ranked(hits({"null": 0.3, "b, with a comma": 0.9}, 40))
    path = tmp_path / "ranks.csv"
    path.write_text(frame_csv(frame), encoding="utf-8")
    again = read_ranks(tmp_path)
    assert frame_csv(again) == frame_csv(frame) and list(again["method"]) == list(frame["method"])
    path.write_text("a,b\n1,2\n", encoding="utf-8")
    with pytest.raises(EraseBenchError, match=r"ranks\.csv is damaged: its columns are a, b"):
        read_ranks(tmp_path)


def test_a_run_leaves_its_ranks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        fast_stages(patch)
        assert run_tiny(tmp_path) == 0
    run = read_run(tmp_path / "out")
    assert "ranks.csv" in run.record.files
    assert set(run.ranks["metric"]) == {"ratio", "score_all", "clip"} and (run.ranks["of"] == 2).all()
    values = {(row.method, key): one.value for row in run.rows for key, one in row.metrics.items()}
    for row in run.ranks.itertuples():
        assert row.value == pytest.approx(values[row.method, row.metric], rel=1e-5)
    printed, markdown = capsys.readouterr().out, (tmp_path / "out" / "table.md").read_text(encoding="utf-8")
    for text in (printed, markdown):
        assert "Ranks, church: No two of 2 methods can be told apart by Ratio, CLIP score" in text


def test_ranks_are_those_of_brute_force() -> None:
    rng = np.random.default_rng(0)
    for n in (1, 2, 7, 40):
        values = rng.normal(50, 10, n)
        estimates = [Estimate(v, v - half, v + half, 40) for v, half in zip(values, rng.uniform(1, 9, n), strict=True)]
        # Sidak's factor by hand: each interval holds with probability 0.95 ** (1 / n).
        wider = NormalDist().inv_cdf(0.5 + 0.95 ** (1 / n) / 2) / NormalDist().inv_cdf(0.975)
        ends = [(e.value - wider * (e.value - e.low), e.value + wider * (e.high - e.value)) for e in estimates]
        for (low, high), rank in zip(ends, rank_intervals(estimates), strict=True):
            assert rank.first == 1 + sum(other > high for other, _ in ends)
            assert rank.last == n - sum(other < low for _, other in ends)
            assert rank.of == n


def test_all_ranks_hold_at_once() -> None:
    rng = np.random.default_rng(1)
    truth = np.array([40.0, 42.0, 42.5, 50.0, 60.0, 61.0, 75.0, 90.0])
    places = 1 + np.array([(truth > own).sum() for own in truth])
    held = 0
    for _ in range(2000):
        seen = truth + rng.normal(0, 3, len(truth))
        ranks = rank_intervals([Estimate(v, v - 1.96 * 3, v + 1.96 * 3, 40) for v in seen])
        held += all(rank.first <= place <= rank.last for rank, place in zip(ranks, places, strict=True))
    assert held / 2000 > 0.95
    # And they say something: the best is told from the worst.
    assert rank_intervals([Estimate(v, v - 3, v + 3, 40) for v in truth])[-1].last == 1
