"""Ratio and Score on small cases worked out by hand, and their intervals against simulation."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest

from erasebench.metrics.erasure import ratio, score, score_all, score_shown
from erasebench.metrics.stats import wilson

SCORES = [0.9, 0.5, 0.49, 0.0]


def test_by_hand() -> None:
    assert ratio(SCORES, 0.5).value == 50  # a score at the threshold counts
    assert score_all(SCORES).value == pytest.approx(47.25)
    assert score_shown(SCORES, 0.5).value == pytest.approx(70)
    assert (ratio(SCORES, 0.5).n, score_all(SCORES).n, score_shown(SCORES, 0.5).n) == (4, 4, 2)


@pytest.mark.parametrize("groups", [None, range(200), ["one prompt"] * 200])
def test_ratio_has_wilsons_interval_where_images_are_the_units(groups: object) -> None:
    scores = np.random.default_rng(0).random(200)
    found = ratio(scores, 0.7, None if groups is None else np.asarray(groups))
    low, high = wilson(int((scores >= 0.7).sum()), 200)
    assert (found.low, found.high) == (100 * low, 100 * high)


@pytest.mark.parametrize(("score_of_all", "value"), [(0.1, 0), (0.9, 100)])
def test_no_hits_in_many_images_are_not_certainty(score_of_all: float, value: float) -> None:
    found = ratio([score_of_all] * 1000, 0.5, np.repeat(np.arange(100), 10))
    assert (found.value, found.n) == (value, 1000)
    assert found.high - found.low == pytest.approx(100 * wilson(0, 100)[1]), "a hundred prompts, not a thousand images"


@pytest.mark.parametrize("kind", ["explicit", "violence", "inappropriate"])
def test_score_of_inappropriate_concepts_is_over_all_images(kind: str) -> None:
    assert score(SCORES, 0.5, kind) == score_all(SCORES)


@pytest.mark.parametrize("kind", ["object", "style", "character"])
def test_score_of_the_rest_is_over_the_images_that_show_it(kind: str) -> None:
    assert score(SCORES, 0.5, kind) == score_shown(SCORES, 0.5)


def test_score_shown_resamples_the_prompts_of_the_images_shown() -> None:
    rng = np.random.default_rng(2)
    groups = np.repeat(np.arange(20), 5)
    scores = np.repeat(rng.uniform(0.3, 1, size=20), 5)  # the same score in all images of a prompt
    found, by_image = score_shown(scores, 0.5, groups), score_shown(scores, 0.5)
    one_a_prompt = score_shown(scores[::5], 0.5)
    assert found.value == pytest.approx(one_a_prompt.value)
    assert (found.low, found.high) == pytest.approx((one_a_prompt.low, one_a_prompt.high))
    assert found.high - found.low > 1.5 * (by_image.high - by_image.low)


def test_undefined() -> None:
    for found in (ratio([], 0.5), score_all([]), score_shown([], 0.5), score_shown([0.1, 0.2], 0.5)):
        assert found.n == 0 and math.isnan(found.value) and math.isnan(found.low) and math.isnan(found.high)


def test_the_same_scores_give_the_same_estimates() -> None:
    scores, groups = np.random.default_rng(3).random(60), np.repeat(np.arange(20), 3)
    assert ratio(scores, 0.5, groups) == ratio(scores, 0.5, groups)
    assert score(scores, 0.5, "object", groups) == score(scores, 0.5, "object", groups)


def test_a_judge_that_gave_nan_is_not_averaged_away() -> None:
    with pytest.raises(ValueError, match="not finite"):
        ratio([0.5, math.nan], 0.5)


def test_metrics_and_tables_do_not_import_torch() -> None:
    code = (
        "import sys, erasebench.metrics.stats, erasebench.metrics.erasure, erasebench.metrics.preservation,"
        " erasebench.report.table, erasebench.report.costs, erasebench.report.grids;"
        " sys.exit(not {'torch', 'scipy', 'pandas'}.isdisjoint(sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
