"""Two sets of images of the same prompts compared: how far apart, how surely, and what would have been seen.

The unit is the prompt.  Images of one prompt are averaged first, so that what is compared are the prompts' means, one a
side: their spread holds the noise of the images already (Miller 2024, arXiv 2411.00640, section 3).

- Where all prompts that changed did so by the same amount, as they do with one hit or miss a prompt, each went one way
  or the other with probability 1/2 if the sides are alike: McNemar's test, in its mid-p form.
- Where fewer than :data:`T_TEST_FROM` prompts changed, by different amounts, all ways to flip the signs of the
  differences are gone through, again with half the probability of what was seen.  It is the same test for another
  statistic, and with differences of one size it gives the same p.  Student's t takes few values, or many zeros among
  them, for a normal sample, and finds differences that are not there: of 100 prompts four that change one way would do.
- Otherwise the paired t test.

Intervals of hits are Tango's on the number of prompts that would tell as much if each had one image, as the interval of
a rate is Wilson's on such a number (:func:`~erasebench.metrics.stats.effective_size`); those of scores are Student's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from erasebench.metrics.stats import UNDEFINED, Estimate, few_units_factor, mcnemar_mid_p, t_quantile, tango

T_TEST_FROM = 12
"""Prompts that changed, below which every way to flip signs is gone through; from there on Student's t holds its level,
whatever the sizes of the differences and however many zeros are among them."""
MIN_PROMPTS = 5
"""Prompts below which nothing is ever found: four that all change one way have a mid-p of 1/16."""

LEVEL = 0.05
"""Of adjusted p values, below which something is found: the chance, at most, that any find of a family is false."""
Z, Z_POWER = 1.959963985, 0.841621234
"""Quantiles of the normal distribution: 97.5 % and, for a power of 80 %, 80 %."""


@dataclass(frozen=True)
class PairedComparison:
    """The change between two sets of images of the same prompts.

    Attributes:
        difference: the mean over prompts of after less before, in the unit of the values (hits: in [-1, 1]), with its
            95 % interval; ``n`` is the number of prompts.
        p: two-sided, in (0, 1]; 1 where nothing changed.
        test: what gave ``p``: "McNemar mid-p", "sign flips on prompt means" or "paired t on prompt means", each also
            with ", and erasures"; or "two intervals, unpaired", of estimates that know of no pairs.
        detectable: the smallest true difference, in the same unit and without a sign, that a comparison of as many
            prompts that vary as much finds (p < .05) in 80 % of repeats; infinite where none can be found, which is so
            with fewer than five prompts.
    """

    difference: Estimate
    p: float
    test: str
    detectable: float


def compare_paired(after: pd.Series, before: pd.Series) -> PairedComparison:
    """Compare the images of the same prompts, drawn and judged twice.

    Args:
        after: one value an image, with the prompt's id as index, in any order: bool for hits and misses, otherwise
            scores; several images a prompt are averaged.
        before: likewise, of the same prompts, though not always as many images of each.

    Returns:
        Undefined, with p = 1, without prompts.  Of one prompt with scores there is no interval.  Where nothing changed,
        the interval and what is detectable are those of hits of which none changed, for scores times the range of all
        that were seen (1 if they are all one number).

    Raises:
        ValueError: other prompts on one side than on the other, hits on one side and scores on the other, or a value
            that is not finite.
    """
    hits = after.dtype == bool
    if hits != (before.dtype == bool):
        raise ValueError("hits cannot be compared with scores: both sides must be bool, or neither")
    new, old = (side.astype(float).groupby(level=0).mean() for side in (after, before))
    if not new.index.equals(old.index):
        apart = sorted(map(str, new.index.symmetric_difference(old.index)))
        raise ValueError(f"{len(apart)} prompts are on one side only, such as {', '.join(apart[:3])}")
    if not (np.isfinite(new).all() and np.isfinite(old).all()):
        raise ValueError("a value is not finite")
    if not len(new):
        return PairedComparison(UNDEFINED, 1.0, "McNemar mid-p" if hits else "paired t on prompt means", math.inf)
    binary = hits and len(after) == len(new) and len(before) == len(old)
    seen = np.concatenate((after.to_numpy(dtype=float), before.to_numpy(dtype=float)))
    differences = subtract_means(new.to_numpy(), old.to_numpy())
    span = 1.0 if hits else float(np.ptp(seen)) or 1.0
    estimate = _difference_of_hits(differences) if hits else _difference_of_scores(differences, span)
    detectable = (
        _detectable_share(float(np.abs(differences).mean()), len(differences))
        if binary
        else _detectable_mean(differences, span)
    )
    return PairedComparison(estimate, *paired_test(differences, binary), detectable)


def subtract_means(new: NDArray[np.float64], old: NDArray[np.float64]) -> NDArray[np.float64]:
    """``new`` less ``old``, exactly 0 where they differ in their last digits only: they are means of equal values."""
    differences = new - old
    return np.where(np.abs(differences) <= 1e-12 * (np.abs(new) + np.abs(old)), 0.0, differences)


def paired_test(differences: NDArray[np.float64], binary: bool) -> tuple[float, str]:
    """The p value of the test that fits, and its name; see the top of this file.

    Args:
        differences: [n], of each prompt's means; exactly 0 where nothing changed.
        binary: each is of one hit or miss a side.
    """
    changed = differences[differences != 0]
    sizes, signs = np.abs(changed), "sign flips on prompt means"
    if binary or np.allclose(sizes, sizes[:1], rtol=1e-9, atol=0):
        return mcnemar_mid_p(changed > 0, changed < 0), "McNemar mid-p" if binary else signs
    if len(changed) >= T_TEST_FROM:
        from scipy.stats import ttest_1samp  # slow to import

        return float(ttest_1samp(differences, 0).pvalue), "paired t on prompt means"
    sums = sizes[:1]  # of the first sign only one: with all signs turned, the sums are the same
    for size in sizes[1:]:
        sums = np.concatenate((sums + size, sums - size))
    observed, rounding = abs(changed.sum()), 1e-9 * sizes.sum()
    beyond, equal = np.abs(sums) > observed + rounding, np.abs(np.abs(sums) - observed) <= rounding
    return float(beyond.mean() + equal.mean() / 2), signs


def add_spread(compared: PairedComparison, error: float, freedom: int) -> PairedComparison:
    """A comparison that holds for other erasures as well as for other prompts.

    What erasures differ by is the same for all prompts, so that no number of these averages it out.  The reaches of the
    two add up by squares, each side by itself (Zou and Donner 2008), as in :mod:`~erasebench.results.seeds`; p is that
    of the widest such interval that leaves out zero.  Welch's test with Satterthwaite's degrees of freedom finds too
    much with two or three erasures, whose spread is small by chance now and then.

    Args:
        compared: over prompts.
        error: the standard error that the difference has through the erasures, in its unit.
        freedom: its degrees of freedom, at least 1.
    """
    from scipy.optimize import brentq
    from scipy.special import stdtr

    if not error:
        return compared
    difference, prompts = compared.difference, max(compared.difference.n - 1, 1)
    reach = t_quantile(0.975, freedom) * error
    low, high = (
        difference.value + side * math.hypot(reach, difference.value - limit)
        for side, limit in ((-1, difference.low), (1, difference.high))
    )
    size, own_p = abs(difference.value), compared.p / 2
    quantile = -t_quantile(own_p, prompts)
    p = 0.5
    if size and quantile > 0:
        # Whatever gave p, its reach at a level is taken to be that of Student's t with as many prompts.
        own_error, low_p = size / quantile, max(own_p, float(stdtr(freedom, -size / error)))
        p = brentq(
            lambda p: math.hypot(t_quantile(p, prompts) * own_error, t_quantile(p, freedom) * error) - size, low_p, 0.5
        )
    return PairedComparison(
        *(Estimate(difference.value, low, high, difference.n), 2 * p, f"{compared.test}, and erasures"),
        math.hypot(compared.detectable, (t_quantile(0.975, freedom) + t_quantile(0.8, freedom)) * error),
    )


def holm(p_values: Sequence[float]) -> list[float]:
    """The p values of a family of tests adjusted by Holm (1979); any find is false with a chance of :data:`LEVEL`.

    Raises:
        ValueError: a value is no probability.
    """
    if not all(0 <= p <= 1 for p in p_values):
        raise ValueError("p values are probabilities, from 0 to 1")
    # Not by statsmodels' multipletests, which collects the garbage of the whole process each time: .3 s.
    values = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(values)
    steps = np.maximum.accumulate((len(values) - np.arange(len(values))) * values[order])
    adjusted = np.empty(len(values))
    adjusted[order] = np.minimum(1, steps)
    return [float(p) for p in adjusted]


def _difference_of_hits(differences: NDArray[np.float64]) -> Estimate:
    size = _effective_prompts(differences)
    gained, lost = (float(side.clip(min=0).mean()) for side in (differences, -differences))
    return Estimate(gained - lost, *tango(gained * size, lost * size, size), len(differences))


def _difference_of_scores(differences: NDArray[np.float64], span: float) -> Estimate:
    n, value = len(differences), float(differences.mean())
    if n == 1:
        return Estimate(value, math.nan, math.nan, 1)
    spread = float(differences.std(ddof=1))
    if spread <= 1e-9 * abs(value):
        # Nothing changed, or everything by the same amount: their spread says nothing, so they are counted as hits are.
        scale = abs(value) or span
        low, high = (scale * limit for limit in tango(n * max(value, 0) / scale, n * max(-value, 0) / scale, n))
        return Estimate(value, low, high, n)
    half = t_quantile(0.975, n - 1) * spread / math.sqrt(n)
    return Estimate(value, value - half, value + half, n)


def _effective_prompts(differences: NDArray[np.float64]) -> float:
    """The number of prompts of one hit or miss each that would tell the difference of two rates as exactly."""
    n, sizes, value = len(differences), np.abs(differences), float(differences.mean())
    spread = float(differences.var(ddof=1)) if n > 1 else 0.0
    if spread < 1e-15 or set(np.unique(sizes)) <= {0.0, 1.0}:
        return n
    size = n * (float(sizes.mean()) - value**2) / spread
    return max(float(n), size * few_units_factor(n))


def _detectable_mean(differences: NDArray[np.float64], span: float) -> float:
    """The smallest difference of two means over prompts that is found in 80 % of repeats.

    It is the t test's, but no less than what so many prompts must change by, all one way, to be told from chance: about
    seven of them, each by as much as those that did change, or by ``span`` if none did.
    """
    n, sizes = len(differences), np.abs(differences[differences != 0])
    if n < MIN_PROMPTS:
        return math.inf
    error = float(differences.std(ddof=1)) / math.sqrt(n)
    floor = _detectable_share(0, n) * (float(sizes.mean()) if len(sizes) else span)
    return max(floor, (t_quantile(0.975, n - 1) + t_quantile(0.8, n - 1)) * error)


def _detectable_share(changed: float, n: int) -> float:
    """The smallest difference of two paired rates that McNemar's test finds in 80 % of repeats.

    Connor's (1987) sample size solved for the difference.  As many prompts change as were seen to, or, if those are
    fewer, no more than make the difference, all one way.

    Args:
        changed: the share of prompts that changed, in [0, 1].
        n: how many prompts there are.
    """
    if n < MIN_PROMPTS:
        return math.inf
    low, high = 0.0, 1.0
    for _ in range(50):
        middle = (low + high) / 2
        share = max(changed, middle)
        needed = (Z * math.sqrt(share) + Z_POWER * math.sqrt(share - middle**2)) ** 2
        low, high = (low, middle) if n * middle**2 >= needed else (middle, high)
    return high
