"""Intervals and AUC against independent formulations."""

from __future__ import annotations

import math

import numpy as np
import pytest

from erasebench.picturebook.intervals import bootstrap, rank_auc, wilson


@pytest.mark.parametrize(("hits", "n"), [(0, 10), (1, 10), (7, 10), (10, 10), (450, 500)])
def test_wilson_inverts_the_score_test(hits: int, n: int) -> None:
    # The limits are the proportions p for which |hits/n - p| is exactly 1.96 standard errors under p.
    for limit in wilson(hits, n):
        if 0 < limit < 1:
            error = math.sqrt(limit * (1 - limit) / n)
            assert abs(hits / n - limit) / error == pytest.approx(1.959964)
    low, high = wilson(hits, n)
    assert low <= hits / n <= high


def test_wilson_needs_trials() -> None:
    with pytest.raises(ValueError, match="at least one"):
        wilson(0, 0)


def test_rank_auc_against_all_pairs() -> None:
    rng = np.random.default_rng(0)
    positives, negatives = rng.integers(0, 9, size=40), rng.integers(0, 7, size=30)
    pairs = [1.0 if p > n else 0.5 if p == n else 0.0 for p in positives for n in negatives]
    assert rank_auc(positives, negatives) == pytest.approx(sum(pairs) / len(pairs))
    assert rank_auc([1, 2], [0]) == 1
    assert rank_auc([1.0], [1.0]) == 0.5


def test_bootstrap_is_close_to_the_normal_interval_and_seeded() -> None:
    values = np.random.default_rng(1).normal(5, 2, size=400)
    low, high = bootstrap(values)
    error = values.std() / 20
    assert low == pytest.approx(values.mean() - 1.96 * error, abs=0.3 * error)
    assert high == pytest.approx(values.mean() + 1.96 * error, abs=0.3 * error)
    assert (low, high) == bootstrap(values)
