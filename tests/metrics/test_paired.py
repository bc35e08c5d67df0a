"""Paired comparisons against evalstats, statsmodels, brute force and simulation."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pandas as pd
import pytest
from evalstats.core.resampling import tango_scc_paired_ci
from evalstats.tests import _mcnemar_midp_p
from numpy.typing import NDArray
from scipy.stats import t, ttest_rel
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower

from erasebench.metrics.paired import T_TEST_FROM, PairedComparison, add_spread, compare_paired, holm
from tests.marks import first_quick


def side(values: NDArray[np.generic] | list[object], images: int = 1) -> pd.Series:
    flat = np.asarray(values).ravel()
    return pd.Series(flat, index=[f"p{k // images:04d}" for k in range(len(flat))])


def pairs(gained: int, lost: int, n: int) -> tuple[pd.Series, pd.Series]:
    after = np.array([True] * gained + [False] * (n - gained))
    before = np.array([False] * gained + [True] * lost + [False] * (n - gained - lost))
    return side(after), side(before)


@pytest.mark.parametrize(("gained", "lost", "n"), [(9, 2, 20), (6, 0, 50), (3, 4, 9), (40, 21, 200), (1, 0, 8)])
def test_one_hit_or_miss_a_prompt_against_evalstats(gained: int, lost: int, n: int) -> None:
    after, before = pairs(gained, lost, n)
    found = compare_paired(after.sample(frac=1, random_state=1), before)
    assert found.test == "McNemar mid-p"
    assert found.p == pytest.approx(_mcnemar_midp_p(after.to_numpy(float), before.to_numpy(float)))
    low, high = tango_scc_paired_ci(after.to_numpy(float), before.to_numpy(float), 0.05, c=0.0)
    assert (found.difference.low, found.difference.high) == pytest.approx((low, high), abs=1e-6)
    assert found.difference.value == pytest.approx((gained - lost) / n)
    assert found.difference.n == n


def test_scores_of_several_images_a_prompt_are_the_t_test_on_means() -> None:
    rng = np.random.default_rng(0)
    after, before = rng.normal(0.3, 1, (30, 4)), rng.normal(0, 1, (30, 3))
    found = compare_paired(side(after, 4), side(before, 3))
    expected = ttest_rel(after.mean(axis=1), before.mean(axis=1))
    assert found.test == "paired t on prompt means"
    assert found.p == pytest.approx(expected.pvalue)
    assert (found.difference.low, found.difference.high) == pytest.approx(tuple(expected.confidence_interval()))
    spread = float(np.std(after.mean(axis=1) - before.mean(axis=1), ddof=1))
    exact = TTestPower().solve_power(None, 30, 0.05, 0.8) * spread
    assert found.detectable == pytest.approx(exact, rel=0.02)


@pytest.mark.parametrize(
    "differences", [[3, -1, 4, 1, 5, -9, 2, 6], [0, 0, 0, 0, 1, 2, 2, 3, -2], [2, 1, 1, 0.5, 0.25]]
)
def test_few_prompts_flip_all_signs(differences: list[float]) -> None:
    found = compare_paired(side(np.array(differences, dtype=float)), side(np.zeros(len(differences))))
    flipped = [
        abs(sum(sign * one for sign, one in zip(signs, differences, strict=True)))
        for signs in product((-1, 1), repeat=len(differences))
    ]
    seen = abs(sum(differences))
    more, equal = (sum(test) for test in ([one > seen for one in flipped], [one == seen for one in flipped]))
    assert found.test == "sign flips on prompt means"
    assert found.p == pytest.approx((more + equal / 2) / len(flipped))


def test_flips_of_differences_of_one_size_are_mcnemars_test() -> None:
    hits = pairs(30, 11, 60)
    means = (side(np.repeat(one.to_numpy(), 2), 2) for one in hits)
    assert compare_paired(*means).p == pytest.approx(compare_paired(*hits).p)


def simulate(
    prompts: int, images: int, rates: tuple[float, float], correlation: float, repeats: int, seed: int = 0
) -> list[PairedComparison]:
    """Hits of prompts that differ (a beta distribution), those of both sides about their prompt's own rate."""
    rng, spread = np.random.default_rng(seed), 1 / correlation - 1
    found = []
    for _ in range(repeats):
        own = rng.beta(rates[1] * spread, (1 - rates[1]) * spread, size=(prompts, 1))
        raised = own + (rates[0] - rates[1]) / (1 - rates[1]) * (1 - own)
        after, before = (rng.random((prompts, images)) < share for share in (raised, own))
        found.append(compare_paired(side(after, images), side(before, images)))
    return found


@pytest.mark.parametrize(
    ("prompts", "images", "rate"), first_quick([(12, 4, 0.3), (40, 4, 0.1), (40, 10, 0.5), (150, 2, 0.05)])
)
def test_the_level_of_hits(prompts: int, images: int, rate: float) -> None:
    found = simulate(prompts, images, (rate, rate), 0.4, 400)
    assert 0.02 <= np.mean([one.p < 0.05 for one in found]) <= 0.07
    assert 0.93 <= np.mean([one.difference.low <= 0 <= one.difference.high for one in found]) <= 0.985


@pytest.mark.parametrize("prompts", first_quick([12, 6, 40]))
def test_the_level_of_scores(prompts: int) -> None:
    rng = np.random.default_rng(0)
    drawn = rng.normal(size=(400, 2, prompts, 2)) + rng.exponential(size=(400, 1, prompts, 1))
    found = [compare_paired(side(after, 2), side(before, 2)) for after, before in drawn]
    assert 0.02 <= np.mean([one.p < 0.05 for one in found]) <= 0.07
    assert 0.93 <= np.mean([one.difference.low <= 0 <= one.difference.high for one in found]) <= 0.97


def test_four_prompts_of_a_hundred_that_change_are_not_found_as_the_t_test_would() -> None:
    after = np.zeros(100)
    after[:4] = 0.5, 0.5, 0.5, 0.25
    assert ttest_rel(after, np.zeros(100)).pvalue < 0.06
    assert compare_paired(side(after), side(np.zeros(100))).p == pytest.approx(1 / 16)


@pytest.mark.slow
@pytest.mark.parametrize(("prompts", "images", "rate"), [(40, 4, 0.3), (100, 1, 0.02), (15, 6, 0.3), (60, 2, 0.1)])
def test_what_is_detectable_is_found_in_four_of_five_repeats(prompts: int, images: int, rate: float) -> None:
    # The spread is that at the difference itself: iterated, as it hardly depends on the difference.
    step = 0.1
    for _ in range(3):
        step = float(np.median([one.detectable for one in simulate(prompts, images, (rate + step, rate), 0.4, 40, 1)]))
    found = simulate(prompts, images, (rate + step, rate), 0.4, 300)
    assert 0.7 <= np.mean([one.p < 0.05 for one in found]) <= 0.9


def test_where_nothing_changed() -> None:
    hits = side(np.array([True, False] * 20))
    found = compare_paired(hits, hits)
    assert found.p == 1 and found.difference.value == 0
    low, high = tango_scc_paired_ci(hits.to_numpy(float), hits.to_numpy(float), 0.05, c=0.0)
    assert (found.difference.low, found.difference.high) == pytest.approx((low, high), abs=1e-6)
    assert high > 0.05
    assert found.detectable == pytest.approx(7.2 / 40, rel=0.05)  # about seven prompts, all one way
    scores = side(np.linspace(10, 30, 40))
    scaled = compare_paired(scores, scores)
    assert scaled.p == 1
    assert (scaled.difference.low, scaled.difference.high) == pytest.approx((20 * low, 20 * high), abs=1e-4)
    assert scaled.detectable == pytest.approx(20 * found.detectable)
    constant = side(np.full(40, 7.0))
    assert compare_paired(constant, constant).difference.high == pytest.approx(high, abs=1e-6)


def test_where_everything_changed_by_the_same_amount() -> None:
    found = compare_paired(side(np.full(30, 2.5)), side(np.full(30, 0.5)))
    assert 0 < found.p < 1e-8
    assert found.difference.low < 2 == found.difference.high
    assert 0 < found.detectable < 2


def test_too_few_prompts_find_nothing_and_say_so() -> None:
    assert compare_paired(side([True] * 4), side([False] * 4)).p > 0.05
    assert compare_paired(side([True] * 4), side([False] * 4)).detectable == math.inf
    assert compare_paired(side([True] * 5), side([False] * 5)).p < 0.05
    assert compare_paired(side([True] * 5), side([False] * 5)).detectable < 1
    assert compare_paired(side([1.0, 2.0, 3.0, 5.0]), side([0.0] * 4)).detectable == math.inf
    one = compare_paired(side([1.0]), side([0.5]))
    assert one.p == pytest.approx(0.5) and math.isnan(one.difference.low)
    assert (one.difference.n, one.detectable) == (1, math.inf)
    none = compare_paired(side(np.array([], dtype=bool)), side(np.array([], dtype=bool)))
    assert none.p == 1 and not none.difference.defined and none.detectable == math.inf


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="2 prompts are on one side only, such as p0001, q"):
        compare_paired(side([1.0, 2.0]), pd.Series([1.0, 2.0], index=["p0000", "q"]))
    with pytest.raises(ValueError, match="hits cannot be compared with scores"):
        compare_paired(side([True]), side([1.0]))
    with pytest.raises(ValueError, match="not finite"):
        compare_paired(side([math.nan]), side([1.0]))


def test_holm_by_hand_and_against_statsmodels() -> None:
    rng = np.random.default_rng(0)
    for size in (1, 2, 7, 40):
        values = rng.random(size).round(1) ** 3
        assert holm(list(values)) == pytest.approx(list(multipletests(values, method="holm")[1]))
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([]) == []
    with pytest.raises(ValueError, match="probabilities"):
        holm([0.5, math.nan])


def test_few_is_where_all_signs_can_still_be_flipped() -> None:
    rng = np.random.default_rng(1)
    below, from_there = (
        compare_paired(side(rng.normal(size=n)), side(np.zeros(n))) for n in (T_TEST_FROM - 1, T_TEST_FROM)
    )
    assert (below.test, from_there.test) == ("sign flips on prompt means", "paired t on prompt means")


def test_what_erasures_add_by_squares() -> None:
    rng = np.random.default_rng(0)
    after, before = rng.normal(1, 1, 30), rng.normal(0, 1, 30)
    prompts = compare_paired(side(after), side(before))
    one = add_spread(prompts, 0.4, 2)
    own = float(np.std(after - before, ddof=1) / np.sqrt(30))
    reach = np.hypot(t.isf(one.p / 2, 29) * own, t.isf(one.p / 2, 2) * 0.4)
    assert reach == pytest.approx(abs(prompts.difference.value)) and one.p > prompts.p
    assert one.test == "paired t on prompt means, and erasures"
    reach = np.hypot(t.ppf(0.975, 29) * own, t.ppf(0.975, 2) * 0.4)
    assert one.difference.high - one.difference.value == pytest.approx(reach)
    assert one.difference.value - one.difference.low == pytest.approx(reach)
    assert one.detectable > prompts.detectable
    assert add_spread(prompts, 0.0, 2) == prompts


@pytest.mark.slow
@pytest.mark.parametrize("between", [0.5, 0.1, 2.0])
def test_with_erasures_the_level_holds_whatever_they_differ_by(between: float) -> None:
    rng, found = np.random.default_rng(0), []
    for _ in range(400):
        rows = rng.normal(0, between, (3, 1)) + rng.normal(0, 1, 40) + rng.normal(0, 0.5, (3, 40))
        compared = compare_paired(side(rows.mean(axis=0)), side(np.zeros(40)))
        error = float(rows.mean(axis=1).std(ddof=1) / np.sqrt(3))
        one = add_spread(compared, error, 2)
        found.append((one.p < 0.05, one.difference.low <= 0 <= one.difference.high))
    wrong, covered = np.mean(found, axis=0)
    assert wrong <= 0.075 and covered >= 0.925  # .05 and .95, +- 2.3 standard errors
    assert np.mean([(p_small != inside) for p_small, inside in found]) == 1, "p and interval agree"
