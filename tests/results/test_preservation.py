"""Methods against the unerased model: scipy's and statsmodels' numbers, whatever the intervals say."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import ttest_rel
from statsmodels.stats.multitest import multipletests

from erasebench.errors import EraseBenchError
from erasebench.metrics.stats import mean
from erasebench.report.html import render_report
from erasebench.report.page.ranking import overlap
from erasebench.results.preservation import compare_with_unerased
from erasebench.results.record import JudgedImages, ProbeRecord
from erasebench.results.run_folder import RunFolder
from erasebench.results.scores import COLUMNS
from tests.report.synthetic import model_row, run_of

LOSSES = {"sd": 0.0, "uce": 1.0, "esd-x": 0.0, "fmn": 4.0}
PROMPTS = 100


@pytest.fixture
def run() -> RunFolder:
    """Of methods that lose some CLIP score on every prompt, prompts being far further apart than that."""
    rng = np.random.default_rng(1)
    prompts = rng.normal(75, 8, PROMPTS)
    scores = {method: prompts - loss + rng.normal(0, 2, PROMPTS) for method, loss in LOSSES.items()}
    run = run_of([model_row(method, "church", 3) for method in LOSSES])
    frame = pd.DataFrame(
        [
            (method, "church", "retain", f"p{k}", f"prompt {k}", "retain", k, k, "clip-judge", "clip", score, np.nan)
            for method, own in scores.items()
            for k, score in enumerate(own)
        ],
        columns=list(COLUMNS),
    )
    judged = (JudgedImages(judge="clip-judge", label="clip", threshold=None, cell="0"),)
    record = run.record.model_copy(
        update={
            "rows": tuple(
                row.model_copy(update={"probes": {**row.probes, "retain": ProbeRecord(judged=judged)}})
                for row in run.record.rows
            )
        }
    )
    rows = [replace(row, metrics={**row.metrics, "clip": mean(scores[row.method])}) for row in run.rows]
    return replace(run, record=record, scores=frame, rows=tuple(rows))


def test_the_numbers_are_those_of_other_packages(run: RunFolder) -> None:
    found = compare_with_unerased(run, ("clip", "fid"))
    assert set(found) == {("church", "clip")}, "FID has no value of a single prompt"
    of = {method: own["score"].to_numpy() for method, own in run.scores.groupby("method")}
    methods = [method for method in LOSSES if method != "sd"]
    expected = multipletests([ttest_rel(of[method], of["sd"]).pvalue for method in methods], method="holm")[1]
    for method, p in zip(methods, expected, strict=True):
        compared = found["church", "clip"][method]
        assert compared.p == pytest.approx(p)
        assert compared.difference.value == pytest.approx(np.mean(of[method] - of["sd"]))


def test_what_the_page_says_is_the_tests_and_not_that_intervals_overlap(run: RunFolder) -> None:
    clip = {row.method: row.metrics["clip"] for row in run.rows}
    assert overlap(clip["uce"], clip["sd"])
    page = render_report([run], [], Path("report.html"))
    assert "CLIP score is worse with <strong>uce</strong> and <strong>fmn</strong>; most with" in page


def test_a_score_that_is_none_is_an_error(run: RunFolder) -> None:
    run.scores.loc[run.scores["method"] == "uce", "score"] = np.nan
    with pytest.raises(EraseBenchError, match="clip of uce on church cannot be compared with the unerased model"):
        compare_with_unerased(run, ("clip",))
