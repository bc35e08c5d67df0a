"""The number of prompts, and of images of each, that an interval of a wanted width takes.

Images of one prompt agree more than images of different prompts do: their correlation is the ICC, and K images of each
prompt tell as much as 1 / (1 + (K - 1) ICC) times as many that have nothing to do with each other (the design effect:
Kish 1965, section 5.4).  So more prompts narrow an interval before more images a prompt do, which reach an end: with an
ICC of .5, any number of images of a prompt tells no more than two prompts would.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from erasebench.metrics.stats import clusters, few_units_factor, wilson

MAX_COUNT = 10_000_000
"""More prompts than this, or images of each, are not looked for."""


def half_width(rate: float, prompts: int, images: int = 1, icc: float = 0.0) -> float:
    """Half the width of the 95 % interval that :func:`~erasebench.metrics.stats.rate` gives, in [0, 0.5].

    Args:
        rate: in [0, 1].
        prompts: at least one; at least two if there are several images of each.
        images: of each prompt.
        icc: how far images of a prompt agree, in [0, 1].
    """
    size = prompts * images / (1 + (images - 1) * icc)
    if images > 1:
        size *= few_units_factor(prompts)
    low, high = wilson(rate * size, size)
    return (high - low) / 2


def prompts_needed(half: float, rate: float, images: int = 1, icc: float = 0.0) -> int | None:
    """The fewest prompts whose interval reaches no further than ``half``; None if these are too many to look for.

    Args:
        half: the wanted half-width, more than 0.
        rate: in [0, 1]; ``images`` and ``icc`` likewise as of :func:`half_width`.
    """
    return _first(lambda prompts: half_width(rate, prompts, images, icc) <= half, 1 if images == 1 else 2)


def images_needed(half: float, rate: float, prompts: int, icc: float) -> int | None:
    """The fewest images of each prompt whose interval reaches no further than ``half``; None if no number does.

    Args:
        half: the wanted half-width, more than 0.
        rate: in [0, 1].
        prompts: at least two.
        icc: how far images of a prompt agree, in [0, 1].
    """
    if half_width(rate, prompts) <= half:
        return 1
    return _first(lambda images: half_width(rate, prompts, images, icc) <= half, 2)


def intraclass_correlation(hits: ArrayLike, groups: ArrayLike) -> float:
    """The agreement of images of a prompt: the ICC of a one-way analysis of variance (Fisher 1925), cut off to [0, 1].

    Args:
        hits: bool [n].
        groups: [n], the prompt of each image.

    Returns:
        nan where it cannot be told: one image a prompt, one prompt, or all images alike.
    """
    sample = np.asarray(hits, dtype=np.float64)
    unit = clusters(groups, len(sample))
    sizes = np.bincount(unit)
    n, units = len(sample), len(sizes)
    if not 1 < units < n or sample.min() == sample.max():
        return math.nan
    means = np.bincount(unit, weights=sample) / sizes
    between = float(sizes @ (means - sample.mean()) ** 2) / (units - 1)
    within = float(((sample - means[unit]) ** 2).sum()) / (n - units)
    size = (n - float(sizes @ sizes) / n) / (units - 1)
    return min(1.0, max(0.0, (between - within) / (between + (size - 1) * within)))


def _first(fits: Callable[[int], bool], start: int) -> int | None:
    """The first whole number from ``start`` on that fits, all after it doing so too."""
    low, high = start - 1, start
    while not fits(high):
        if high > MAX_COUNT:
            return None
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if fits(middle) else (middle, high)
    return high
