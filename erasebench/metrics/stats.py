"""Estimates and their intervals, tests of paired rates, and the area under a ROC curve.

Images of one prompt resemble each other, so a hundred of them say less than a hundred prompts.  Functions that take
``groups`` (the prompt of each image) therefore look at whole prompts: a mean's interval resamples them with all their
images (the cluster bootstrap: Davison and Hinkley 1997, section 3.8), a rate's counts as many images as the spread of
the prompts leaves (:func:`effective_size`).  Two cases need no clusters: where each prompt has one image, images are
the units anyway; where there is one prompt only, it is the protocol's fixed choice, and its images are the sample.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

SEED = 0
"""Of every bootstrap, so that a table made twice is the same table."""

_BLOCK = 4_000_000  # indices held at once


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval and the number of images behind it.

    All three are nan and ``n`` is 0 where nothing was there to be measured; the limits alone are nan where it all comes
    from one image, or from one prompt of many.
    """

    value: float
    low: float
    high: float
    n: int

    @property
    def defined(self) -> bool:
        """True if there is a value."""
        return not math.isnan(self.value)

    def scaled(self, factor: float) -> Estimate:
        """The same number in another unit."""
        return Estimate(factor * self.value, factor * self.low, factor * self.high, self.n)


UNDEFINED = Estimate(math.nan, math.nan, math.nan, 0)


def wilson(hits: float, n: float) -> tuple[float, float]:
    """Wilson's 95 % score interval (Wilson 1927) for a proportion in [0, 1]; neither number need be whole.

    Raises:
        ValueError: no trials.
    """
    from statsmodels.stats.proportion import proportion_confint  # slow to import, and reading tables needs none of it

    if n <= 0:
        raise ValueError("a proportion needs at least one trial")
    low, high = proportion_confint(hits, n, method="wilson")
    # At the edges the limits are 0 and 1 exactly; rounding must not move them.
    return 0.0 if hits == 0 else float(low), 1.0 if hits == n else float(high)


def rate(hits: ArrayLike, groups: ArrayLike | None = None) -> Estimate:
    """The share of hits, in [0, 1], with Wilson's interval on the effective number of images.

    Args:
        hits: bool [n].
        groups: [n], the prompt of each image.

    Returns:
        Undefined without images; ``n`` is the number of images.

    Raises:
        ValueError: groups of another length.
    """
    sample = np.asarray(hits, dtype=bool)
    cluster = clusters(groups, len(sample))
    if not len(sample):
        return UNDEFINED
    size, share = effective_size(sample, cluster), float(sample.mean())
    return Estimate(share, *wilson(share * size, size), len(sample))


def effective_size(hits: NDArray[np.bool_], cluster: NDArray[np.intp]) -> float:
    """The number of independent images that would tell a rate as exactly as these do.

    It is p(1 - p) / SE^2, with the standard error SE over the units' means (for units of different sizes, of the ratio
    of their sums: Cochran 1977, section 6.3), and never more than n.  As the standard error is itself an estimate from
    few units, it shrinks by (1.96 / t)^2, t being the 97.5 % quantile of Student's distribution with one degree of
    freedom less than there are units (Korn and Graubard 1998).  Where all units agree, their spread says nothing, and
    each counts once.

    Args:
        hits: [n], n > 0.
        cluster: [n], the unit of each image, counted from 0: see :func:`clusters`.
    """
    n, sizes = len(hits), np.bincount(cluster)
    units = len(sizes)
    if units == n:
        return n
    share, sums = hits.mean(), np.bincount(cluster, weights=hits)
    if np.all(sums * sizes[0] == sums[0] * sizes):
        return units
    error = units / (units - 1) * np.sum((sums - share * sizes) ** 2) / n**2
    size = min(n, share * (1 - share) / error)
    return float(size * few_units_factor(units))


def few_units_factor(units: int) -> float:
    """By what an effective size shrinks, as its standard error is an estimate from so many units: (1.96 / t)^2."""
    return (t_quantile(0.975, math.inf) / t_quantile(0.975, units - 1)) ** 2


def t_quantile(share: float, freedom: float) -> float:
    """The quantile of Student's t; with infinite degrees of freedom the normal distribution's."""
    from scipy.special import ndtri, stdtrit  # scipy.stats says the same, and takes fifty times as long

    return float(ndtri(share) if freedom == math.inf else stdtrit(freedom, share))


def bootstrap(
    values: ArrayLike, resamples: int = 1000, seed: int = SEED, groups: ArrayLike | None = None
) -> tuple[float, float]:
    """The 95 % percentile bootstrap interval of a mean.

    Args:
        values: [n], at least one.
        resamples: how many.
        seed: of the generator.
        groups: [n], the prompt of each value: whole prompts are resampled (see the top of this file).

    Raises:
        ValueError: no values, one that is not finite, or groups of another length.
    """
    sample = vector(values)
    if not len(sample):
        raise ValueError("a mean needs at least one value")
    return _percentiles(sample, clusters(groups, len(sample)), resamples, seed)


def mean(
    values: ArrayLike, groups: ArrayLike | None = None, scale: float = 1.0, kept: NDArray[np.bool_] | None = None
) -> Estimate:
    """``scale`` x the mean of ``values`` with its bootstrap interval.

    Args:
        values: [n].
        groups: [n], the prompt of each value.
        scale: a factor.
        kept: [n], which values to average, given the groups of all; all if omitted.

    Returns:
        Undefined without values; without limits if all are of one unit of resampling.

    Raises:
        ValueError: a value that is not finite, or groups of another length.
    """
    sample = scale * vector(values)
    cluster = clusters(groups, len(sample))
    if kept is not None:
        sample, cluster = sample[kept], cluster[kept]
    if not len(sample):
        return UNDEFINED
    low, high = _percentiles(sample, cluster) if len(np.unique(cluster)) > 1 else (math.nan, math.nan)
    return Estimate(float(sample.mean()), low, high, len(sample))


def paired_difference(after: ArrayLike, before: ArrayLike) -> Estimate:
    """The rate of hits after something less the rate before it, of the same prompts, with its 95 % interval.

    The interval is Tango's (1998): the differences that the score test does not refuse, as Wilson's holds the rates.
    It has a width even where no prompt changed.  Wald's on counts to which half a prompt is added in each cell (Agresti
    and Min 2005) is simpler, but covers the truth in 87 % only where few of 40 prompts change, all one way.

    Args:
        after: bool [n], one image a prompt.
        before: bool [n], of the same prompts in the same order.

    Returns:
        In [-1, 1]; undefined without prompts.

    Raises:
        ValueError: two lengths.
    """
    gained, lost, n = _changes(after, before)
    if not n:
        return UNDEFINED
    return Estimate((gained - lost) / n, *tango(gained, lost, n), n)


def tango(gained: float, lost: float, n: float) -> tuple[float, float]:
    """Tango's 95 % interval of a difference of paired rates, in [-1, 1].

    Args:
        gained: how many of the prompts have a hit only after; ``lost`` only before.  None of the numbers need be whole.
        n: how many prompts there are, at least ``gained + lost`` and more than 0.
    """
    return _least_difference(gained, lost, n), -_least_difference(lost, gained, n)


def _least_difference(gained: float, lost: float, n: float) -> float:
    """The lower limit of Tango's interval, by bisection."""
    low, high = -1.0, (gained - lost) / n
    for _ in range(60):
        middle = (low + high) / 2
        # The likeliest rate of loss if the difference is the middle: the root of a quadratic.
        linear = (2 * n - gained + lost) * middle - gained - lost
        loss = (math.sqrt(linear**2 + 8 * n * lost * middle * (1 - middle)) - linear) / (4 * n)
        error = math.sqrt(max(0.0, n * (2 * loss + middle * (1 - middle))))
        if gained - lost - n * middle > 1.959964 * error:
            low = middle
        else:
            high = middle
    return high


def mcnemar_mid_p(after: ArrayLike, before: ArrayLike) -> float:
    """The two-sided mid-p value of McNemar's test (Fagerland, Lydersen and Laake 2013, equation 5).

    If before and after are alike, each prompt that changed went either way with probability 1/2.  The mid-p value is
    the probability of a split less even than the one that was seen, and half that of one as even; 1 if none changed.

    Args:
        after: bool [n], one image a prompt.
        before: bool [n], of the same prompts in the same order.

    Raises:
        ValueError: two lengths.
    """
    gained, lost, _ = _changes(after, before)
    return _mid_p(min(gained, lost), gained + lost)


@cache
def _mid_p(fewer: int, changed: int) -> float:
    from scipy.stats import binom

    if not changed:
        return 1.0
    seen = float(binom.pmf(fewer, changed, 0.5))
    return 1 - seen / 2 if 2 * fewer == changed else float(2 * binom.cdf(fewer, changed, 0.5)) - seen


def _changes(after: ArrayLike, before: ArrayLike) -> tuple[int, int, int]:
    """The number of prompts with a hit only after, that of prompts with one only before, and that of all."""
    new, old = np.asarray(after, dtype=bool), np.asarray(before, dtype=bool)
    if new.shape != old.shape:
        raise ValueError(f"{old.shape[0]} prompts before and {new.shape[0]} after are not the same prompts")
    return int((new & ~old).sum()), int((old & ~new).sum()), len(new)


def rank_auc(positives: ArrayLike, negatives: ArrayLike) -> float:
    """The probability that a positive scores above a negative, ties counting one half (Mann-Whitney U)."""
    p, n = np.sort(np.asarray(positives, dtype=np.float64)), np.sort(np.asarray(negatives, dtype=np.float64))
    below, through = np.searchsorted(n, p, side="left"), np.searchsorted(n, p, side="right")
    return float((below + through).sum() / (2 * len(p) * len(n)))


def vector(values: ArrayLike) -> NDArray[np.float64]:
    """``values`` as float64 [n].

    Raises:
        ValueError: not one-dimensional, or not finite throughout.
    """
    sample = np.asarray(values, dtype=np.float64)
    if sample.ndim != 1:
        raise ValueError(f"scores are one number an image, not an array of shape {sample.shape}")
    if not np.isfinite(sample).all():
        raise ValueError(f"{np.count_nonzero(~np.isfinite(sample))} of {len(sample)} scores are not finite")
    return sample


def clusters(groups: ArrayLike | None, n: int) -> NDArray[np.intp]:
    """The resampling unit of each of ``n`` images, counted from 0: its group's, or its own without usable groups.

    Raises:
        ValueError: groups of another length.
    """
    own = np.arange(n, dtype=np.intp)
    if groups is None:
        return own
    labels = np.asarray(groups)
    if labels.shape != (n,):
        raise ValueError(f"{n} images have groups of shape {labels.shape}")
    names, unit = np.unique(labels, return_inverse=True)
    return own if len(names) in (1, n) else unit.reshape(n).astype(np.intp)


def resampled(units: int, resamples: int, seed: int = SEED) -> Iterator[NDArray[np.int64]]:
    """Draws with replacement of ``units`` out of as many, one a row, in blocks [rows, units] that fit in memory."""
    rng, block = np.random.default_rng(seed), max(1, _BLOCK // units)
    for start in range(0, resamples, block):
        yield rng.integers(units, size=(min(block, resamples - start), units))


def _percentiles(
    sample: NDArray[np.float64], cluster: NDArray[np.intp], resamples: int = 1000, seed: int = SEED
) -> tuple[float, float]:
    unit = np.unique(cluster, return_inverse=True)[1].reshape(len(sample))
    sums, sizes = np.bincount(unit, weights=sample), np.bincount(unit)
    means = [sums[rows].sum(axis=1) / sizes[rows].sum(axis=1) for rows in resampled(len(sums), resamples, seed)]
    low, high = np.quantile(np.concatenate(means), (0.025, 0.975))
    return float(low), float(high)
