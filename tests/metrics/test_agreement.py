"""Agreement of two judges on small cases."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd
import pytest
from statsmodels.stats.proportion import proportion_confint

from erasebench.metrics.agreement import Agreement
from erasebench.metrics.metric import Measured
from tests.metrics.measurements import measured


def judged_twice(first: list[float], second: dict[int, float], prompts: list[str] | None = None) -> Measured:
    """A row whose images have these scores, and by place those of a second judge, whose threshold is .3."""
    again = pd.DataFrame({"image": list(second), "score": list(second.values())})
    again = again.assign(shown=again["score"] >= 0.3, threshold=0.3, judge="other", label="a thing", probe="concept")
    return replace(measured(first, prompts=prompts), second=again)


def test_each_judge_has_its_own_threshold() -> None:
    row = judged_twice([0.9, 0.5, 0.49, 0.0], {0: 0.3, 1: 0.29, 2: 0.4, 3: 0.1})
    estimate = Agreement().measure(row, None)
    low, high = proportion_confint(2, 4, method="wilson")
    assert (estimate.value, estimate.n) == (50, 4)
    assert (estimate.low, estimate.high) == pytest.approx((100 * low, 100 * high))
    assert Agreement().note(row) == "other: a thing >= 0.3"


def test_images_are_paired_by_their_place() -> None:
    """In another order, and without one of them."""
    assert Agreement().measure(judged_twice([0.9, 0.1, 0.1], {2: 0.0, 0: 1.0}), None).value == 100
    assert Agreement().measure(judged_twice([0.9, 0.1, 0.1], {1: 1.0, 0: 0.0, 2: 0.1}), None).value == pytest.approx(
        100 / 3
    )


def test_images_of_one_prompt_are_no_independent_ones() -> None:
    scores = [0.9] * 40
    apart = Agreement().measure(judged_twice(scores, {k: 0.9 * (k < 20) for k in range(40)}), None)
    prompts = [str(k // 10) for k in range(40)]
    together = Agreement().measure(judged_twice(scores, {k: 0.9 * (k < 20) for k in range(40)}, prompts), None)
    assert together.value == apart.value == 50
    assert together.high - together.low > 2 * (apart.high - apart.low)


def test_without_images_that_both_judged_it_is_undefined() -> None:
    estimate = Agreement().measure(judged_twice([0.9], {5: 0.9}), None)
    assert not estimate.defined and estimate.n == 0
