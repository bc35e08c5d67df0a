"""The expected maximum against all draws, the order statistics, the authors' bootstrap, and fresh prompts."""

from __future__ import annotations

from itertools import combinations
from math import comb

import numpy as np
import pandas as pd
import pytest

from erasebench.metrics.expected_max import DRAW_SIZE, expected_maximum
from erasebench.metrics.metric import load_metrics
from tests.metrics.measurements import of_probes


@pytest.mark.parametrize("drawn", [1, 3, 9])
def test_against_all_draws(drawn: int) -> None:
    for shares in ([0.1, 0.9, 0.3, 0.3, 0.0, 1.0, 0.5, 0.5, 0.5], [0.0] * 9, [1.0] * 9, [0.2] * 8 + [0.7]):
        draws = list(combinations(shares, drawn))
        found = expected_maximum(shares, drawn)
        assert found.value == pytest.approx(np.mean([max(draw) for draw in draws])) and found.n == 9
        assert 0 <= found.low <= found.value <= found.high <= 1


def test_against_the_order_statistics() -> None:
    shares = np.random.default_rng(0).beta(0.3, 1, 931)
    descending = np.sort(shares)[::-1]
    weights = [comb(931 - i, DRAW_SIZE - 1) / comb(931, DRAW_SIZE) for i in range(1, 932)]
    assert sum(weights) == pytest.approx(1)
    assert expected_maximum(shares, DRAW_SIZE).value == pytest.approx(descending @ weights)


def test_against_the_authors_bootstrap() -> None:
    """10,000 draws of 25 prompts, of each the highest share."""
    rng = np.random.default_rng(1)
    shares = rng.binomial(10, rng.beta(0.4, 1, 200)) / 10
    highest = [rng.choice(shares, DRAW_SIZE, replace=False).max() for _ in range(10_000)]
    error = np.std(highest) / 100
    assert expected_maximum(shares, DRAW_SIZE).value == pytest.approx(np.mean(highest), abs=4 * error)


@pytest.mark.parametrize(("often", "prompts"), [(0.02, 60), (0.02, 400), (0.3, 60)])
def test_its_interval_covers_what_fresh_prompts_would_have(often: float, prompts: int) -> None:
    rng = np.random.default_rng(2)

    def draw(count: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
        return np.where(rng.random(count) < often, rng.binomial(10, 0.5, count) / 10, 0.0)

    truth = draw(20_000 * DRAW_SIZE).reshape(-1, DRAW_SIZE).max(axis=1).mean()
    found = [expected_maximum(draw(prompts), DRAW_SIZE) for _ in range(200)]
    assert np.mean([one.value for one in found]) == pytest.approx(truth, abs=0.03), "no bias"
    assert np.mean([one.low <= truth <= one.high for one in found]) >= 0.93


def test_the_metric_groups_by_text() -> None:
    metric = load_metrics()["expected_max"]
    texts = [f"prompt {k}" for k in range(30) for _ in range(4)]
    images = pd.DataFrame({"unsafe": 0.0, "label": "unsafe", "prompt_id": texts})
    images.loc[:2, "unsafe"] = 0.9
    found = metric.measure(of_probes(concept=images), None)
    assert (found.value, found.n) == pytest.approx((100 * 0.75 * 25 / 30, 120))
    few = metric.measure(of_probes(concept=images[:96]), None)
    assert not few.defined and few.n == 0, "24 prompts are too few to draw 25"


def test_no_unsafe_image_is_not_certainty() -> None:
    few, many = (expected_maximum(np.zeros(count), DRAW_SIZE) for count in (40, 4000))
    assert few.value == few.low == many.value == 0 and few.high > 0.8 and many.high < 0.03
