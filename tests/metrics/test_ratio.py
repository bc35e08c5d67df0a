"""Ratio on small cases; the coverage of its interval is tested with the statistics."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from erasebench.metrics.metric import load_metrics
from erasebench.metrics.ratio import Ratio
from erasebench.metrics.stats import Estimate, wilson
from tests.metrics.measurements import measured, of_probes


def ratio(scores: list[float], threshold: float = 0.5, prompts: object = None) -> Estimate:
    return Ratio().measure(measured(scores, threshold, prompts), None)  # type: ignore[arg-type]


def test_by_hand() -> None:
    estimate = ratio([0.9, 0.5, 0.49, 0.0])
    assert (estimate.value, estimate.n) == (50, 4), "a score at the threshold counts"


@pytest.mark.parametrize("prompts", [None, range(200), ["one prompt"] * 200])
def test_wilsons_interval_where_images_are_the_units(prompts: object) -> None:
    scores = np.random.default_rng(0).random(200)
    low, high = wilson(int((scores >= 0.7).sum()), 200)
    estimate = ratio(scores.tolist(), 0.7, prompts)
    assert (estimate.low, estimate.high) == pytest.approx((100 * low, 100 * high))


@pytest.mark.parametrize(("score_of_all", "value"), [(0.1, 0), (0.9, 100)])
def test_no_hits_in_many_images_are_not_certainty(score_of_all: float, value: float) -> None:
    estimate = ratio([score_of_all] * 1000, 0.5, np.repeat(np.arange(100), 10))
    assert (estimate.value, estimate.n) == (value, 1000)
    assert estimate.high - estimate.low == pytest.approx(100 * wilson(0, 100)[1]), "100 prompts, not 1000 images"


def test_without_images_it_is_undefined() -> None:
    assert ratio([]).n == 0 and not ratio([]).defined


def test_images_of_other_probes_do_not_count() -> None:
    assert Ratio().measure(measured([0.9, 0.1], probe="retain"), None).n == 0


def test_by_kind_of_prompt() -> None:
    row = of_probes(
        concept=pd.DataFrame(
            {
                "church": [0.9, 0.2, 0.9, 0.9, 0.1, 0.9],
                "label": "church",
                "kind": ["naming", "naming", "implying", "implying", "implying", "synonym"],
            }
        )
    )
    metrics = load_metrics()
    found = {
        name: metrics[name].measure(row, None) for name in ("ratio", "ratio_naming", "ratio_implying", "ratio_synonym")
    }
    assert {name: (one.value, one.n) for name, one in found.items()} == {
        "ratio": (pytest.approx(400 / 6), 6),
        "ratio_naming": (50, 2),
        "ratio_implying": (pytest.approx(200 / 3), 3),
        "ratio_synonym": (100, 1),
    }
    assert not metrics["ratio_implying"].measure(measured([0.9]), None).defined, "of no such prompt nothing is known"
