"""Sample sizes against statsmodels, brute force and simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import f_oneway
from statsmodels.stats.proportion import proportion_confint, samplesize_confint_proportion

from erasebench.metrics.precision import half_width, images_needed, intraclass_correlation, prompts_needed
from erasebench.metrics.stats import rate
from tests.marks import first_quick


@pytest.mark.parametrize(
    ("half", "share"), [(0.02, 0.5), (0.05, 0.5), (0.05, 0.1), (0.1, 0.03), (0.1, 0.0), (0.2, 1.0)]
)
def test_prompts_needed_are_the_first_whose_interval_is_narrow_enough(half: float, share: float) -> None:
    n = np.arange(1, 2500)
    low, high = proportion_confint(share * n, n, method="wilson")
    assert prompts_needed(half, share) == n[np.argmax((high - low) / 2 <= half)]


def test_the_worst_case_against_the_normal_sample_size() -> None:
    # Wilson's interval of a half is as wide as Wald's with z^2 images more.
    for half in (0.01, 0.02, 0.1):
        wald = samplesize_confint_proportion(0.5, half)
        assert prompts_needed(half, 0.5) == math.ceil(wald - 1.959964**2)


@pytest.mark.parametrize(("prompts", "images", "icc"), first_quick([(40, 5, 0.5), (80, 10, 0.2), (25, 3, 0.8)]))
def test_images_that_agree_widen_the_interval_as_expected(prompts: int, images: int, icc: float) -> None:
    rng, groups, spread = np.random.default_rng(0), np.repeat(np.arange(prompts), images), 1 / icc - 1
    widths = []
    for _ in range(300):
        shares = rng.beta(0.4 * spread, 0.6 * spread, size=(prompts, 1))
        found = rate((rng.random((prompts, images)) < shares).ravel(), groups)
        widths.append((found.high - found.low) / 2)
    assert half_width(0.4, prompts, images, icc) == pytest.approx(np.mean(widths), rel=0.05)


def test_images_needed() -> None:
    assert images_needed(0.1, 0.5, 100, 0.5) == 1
    found = images_needed(0.1, 0.5, 60, 0.3)
    assert found and half_width(0.5, 60, found, 0.3) <= 0.1 < half_width(0.5, 60, found - 1, 0.3)
    assert images_needed(0.1, 0.5, 40, 0.5) is None, "two images' worth of each prompt is all that there is"
    # Worth 80 prompts, less what it costs that their spread is estimated from 40.
    assert half_width(0.5, 40, 10**9, 0.5) == pytest.approx(half_width(0.5, 75), abs=1e-3)
    more_prompts = prompts_needed(0.1, 0.5, 4, 0.5)
    assert more_prompts and half_width(0.5, more_prompts, 4, 0.5) <= 0.1 < half_width(0.5, more_prompts - 1, 4, 0.5)
    assert prompts_needed(1e-9, 0.5) is None


def test_agreement_of_images_against_the_analysis_of_variance() -> None:
    rng = np.random.default_rng(0)
    hits = rng.random((30, 4)) < rng.beta(0.5, 0.5, size=(30, 1))
    statistic = f_oneway(*hits.astype(float)).statistic
    groups = np.repeat(np.arange(30), 4)
    assert intraclass_correlation(hits.ravel(), groups) == pytest.approx((statistic - 1) / (statistic + 3))
    many = rng.random((4000, 5)) < rng.beta(0.35, 0.35, size=(4000, 1))  # 1 / (1 + .35 + .35)
    kept = np.arange(20_000) % 7 != 0  # prompts of four images and of five
    found = intraclass_correlation(many.ravel()[kept], np.repeat(np.arange(4000), 5)[kept])
    assert found == pytest.approx(1 / 1.7, abs=0.02)
    assert intraclass_correlation([True, False] * 6, np.repeat(np.arange(6), 2)) == 0
    assert math.isnan(intraclass_correlation([True] * 4, [0, 0, 1, 1]))
    assert math.isnan(intraclass_correlation([True, False], [0, 1]))
    assert math.isnan(intraclass_correlation([True, False], [0, 0]))
