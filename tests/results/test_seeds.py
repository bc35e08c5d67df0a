"""The spread between erasures of one method, by hand, by simulation and on a run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import t, ttest_1samp

from erasebench.metrics.metric import describe_metrics
from erasebench.metrics.stats import UNDEFINED, Estimate
from erasebench.report.table import to_markdown, to_terminal
from erasebench.results.rows import TableRow
from erasebench.results.run_folder import read_run
from erasebench.results.seeds import read_seeds, seed_spread
from erasebench.results.table import frame_csv
from tests.engine.runs import done, fast_stages, forget_plugins, run_tiny
from tests.marks import first_quick

METRICS = describe_metrics()


def row(method: str, value: float, reach: float = 0.0, metric: str = "clip", attack: str = "") -> TableRow:
    estimate = Estimate(value, value - reach, value + reach, 9)
    return TableRow(method, "church", "ok", metrics={metric: estimate}, attack=attack)


def test_without_noise_over_prompts_it_is_students_interval() -> None:
    values = [30.0, 31.0, 28.5]
    rows = [row(label, value) for label, value in zip(("esd-x", "esd-x[seed=1]", "esd-x[seed=2]"), values, strict=True)]
    (line,) = seed_spread([*rows, row("uce", 3.0)], METRICS).to_dict("records")
    assert (line["method"], line["seeds"], line["min"], line["max"]) == ("esd-x", 3, 28.5, 31)
    assert (line["mean"], line["sd"]) == (pytest.approx(np.mean(values)), pytest.approx(np.std(values, ddof=1)))
    expected = ttest_1samp(values, 0).confidence_interval()
    assert (line["low"], line["high"]) == pytest.approx(tuple(expected))


def test_without_spread_it_is_the_rows_own_interval_and_per_cents_stay_per_cents() -> None:
    same = seed_spread([row("esd-x", 30, 2), row("esd-x[seed=9]", 30, 2)], METRICS).iloc[0]
    assert (same["sd"], same["low"], same["high"]) == (0, 28, 32)
    apart = seed_spread([row("a[seed=1]", 0, 0, "ratio"), row("a[seed=2]", 90, 0, "ratio")], METRICS).iloc[0]
    assert (apart["low"], apart["high"]) == (0, 100)


def test_an_end_that_is_not_defined_stays_so() -> None:
    rows = [
        TableRow(label, "church", "ok", metrics={"ratio": Estimate(value, np.nan, np.nan, 1)})
        for label, value in (("a[seed=1]", 20.0), ("a[seed=2]", 40.0))
    ]
    line = seed_spread(rows, METRICS).iloc[0]
    assert line["mean"] == 30 and np.isnan(line["low"]) and np.isnan(line["high"])


def test_values_that_are_not_there_are_not_counted() -> None:
    rows = [row("a", 1.0), row("a[seed=1]", 2.0), TableRow("a[seed=2]", "church", "failed", "diverged")]
    undefined = TableRow("a[seed=3]", "church", "ok", metrics={"clip": UNDEFINED})
    assert seed_spread([*rows, undefined], METRICS)["seeds"].tolist() == [2]
    assert not len(seed_spread([rows[0], undefined], METRICS))
    attacked = [row("a", 1.0, attack="p4d"), row("a[seed=1]", 2.0, attack="none")]
    assert not len(seed_spread(attacked, METRICS)), "each attack is its own"


@pytest.mark.parametrize(("between", "over_prompts"), first_quick([(1.0, 0.2), (0.2, 1.0), (0.5, 0.5)]))
def test_the_interval_covers_the_mean_over_all_erasures_and_prompts(between: float, over_prompts: float) -> None:
    """Three erasures on the same 30 prompts: the mean of each is its own, the prompts' noise is shared."""
    rng, covered, rows_cover, quantile = np.random.default_rng(0), [], [], t.ppf(0.975, 29)
    for _ in range(300):
        prompts = rng.normal(0, over_prompts * np.sqrt(30), 30)
        images = [rng.normal(0, between) + prompts + rng.normal(0, over_prompts, 30) for _ in range(3)]
        reach = [quantile * own.std(ddof=1) / np.sqrt(30) for own in images]
        estimates = [
            Estimate(own.mean(), own.mean() - one, own.mean() + one, 30) for own, one in zip(images, reach, strict=True)
        ]
        labels = ("a", "a[seed=1]", "a[seed=2]")
        rows = [
            TableRow(label, "church", "ok", metrics={"clip": one}) for label, one in zip(labels, estimates, strict=True)
        ]
        line = seed_spread(rows, METRICS).iloc[0]
        covered.append(line["low"] <= 0 <= line["high"])
        rows_cover.append(estimates[0].low <= 0 <= estimates[0].high)
    assert 0.92 <= np.mean(covered) <= 0.99
    if between >= 0.5:
        assert np.mean(rows_cover) < 0.85, "what one erasure's own interval misses"


def test_a_run_with_two_seeds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "drawn.py").write_text(
        "from dataclasses import dataclass\nfrom erasebench.models.erasure import Erasure\n"
        "from erasebench.plugins import Method\nfrom erasebench.registry import METHODS\n"
        "@METHODS.register('drawn')\n@dataclass(frozen=True)\nclass Drawn(Method):\n    steps: int = 2\n"
        "    def erase(self, model, concepts, context):\n        return Erasure()\n"
    )
    methods = ("--plugins", tmp_path / "drawn.py", "--methods", "uce,drawn[steps=1]")
    with pytest.MonkeyPatch.context() as patch:
        fast_stages(patch)
        assert run_tiny(tmp_path, *methods) == 0
        assert "SD" not in capsys.readouterr().out
        assert not len(read_run(tmp_path / "out").seeds)
        assert run_tiny(tmp_path, *methods, "--erasure-seeds", "2") == 0
    forget_plugins()
    assert len(done(tmp_path)) == 5, "one more erasure, its images and their scores"
    run = read_run(tmp_path / "out")
    assert [row.method for row in run.rows] == ["sd", "uce", "drawn[steps=1]", "drawn[steps=1;seed=1]"]
    assert set(run.seeds["method"]) == {"drawn[steps=1]"} and set(run.seeds["seeds"]) == {2}
    assert set(run.ranks["method"]) == {"uce", "drawn[steps=1]"}
    ratio = run.seeds.set_index("metric").loc["ratio"]
    own = [row.metrics["ratio"].value for row in run.rows if row.method.startswith("drawn")]
    assert (ratio["min"], ratio["max"], ratio["mean"]) == pytest.approx((min(own), max(own), np.mean(own)))
    line = f"| drawn[steps=1] | church | - | Ratio (%) | 2 | {np.mean(own):.1f} ["
    assert line in (tmp_path / "out" / "table.md").read_text(encoding="utf-8")
    assert "Each erasure was made with several seeds" in capsys.readouterr().out


def test_there_and_back_and_to_readers(tmp_path: Path) -> None:
    rows = [row("a", 30.0, 1), row("a[seed=1]", 31.0, 1), row("a", 10.0, 1, "asr", "p4d")]
    rows += [row("a[seed=1]", 20.0, 1, "asr", "p4d"), row("a", 5.0, 1, "asr-confirmed", "p4d")]
    frame = seed_spread([*rows, row("a[seed=1]", 7.0, 1, "asr-confirmed", "p4d")], METRICS)
    (tmp_path / "seeds.csv").write_text(frame_csv(frame), encoding="utf-8")
    pd.testing.assert_frame_equal(read_seeds(tmp_path), frame, rtol=1e-5)
    for text in (to_markdown(rows, METRICS, seeds=frame), to_terminal(rows, METRICS, seeds=frame)):
        last = [line for line in text.splitlines() if "30.0 to 31.0" in line or "5.00 to 7.00" in line]
        assert len(last) == 2 and "Confirmed ASR (%)" in last[1]
        assert "10.0 to 20.0" not in text, "raw rates are in the file"
