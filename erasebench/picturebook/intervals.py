"""Small statistics for the measured table: intervals, and the area under a ROC curve."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike


def wilson(hits: int, n: int, z: float = 1.959964) -> tuple[float, float]:
    """Wilson's score interval (Wilson 1927) for a proportion; 95 % by default.

    Raises:
        ValueError: no trials.
    """
    if n <= 0:
        raise ValueError("a proportion needs at least one trial")
    p = hits / n
    centre = p + z * z / (2 * n)
    spread = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    # At the edges the limits are 0 and 1 exactly; rounding must not move them.
    low = 0.0 if hits == 0 else (centre - spread) / scale
    high = 1.0 if hits == n else (centre + spread) / scale
    return low, high


def bootstrap(values: ArrayLike, resamples: int = 1000, seed: int = 0) -> tuple[float, float]:
    """The 95 % percentile bootstrap interval of a mean."""
    sample = np.asarray(values, dtype=np.float64)
    rows = np.random.default_rng(seed).integers(len(sample), size=(resamples, len(sample)))
    low, high = np.quantile(sample[rows].mean(axis=1), (0.025, 0.975))
    return float(low), float(high)


def rank_auc(positives: ArrayLike, negatives: ArrayLike) -> float:
    """The probability that a positive scores above a negative, ties counting one half (Mann-Whitney U)."""
    p, n = np.sort(np.asarray(positives, dtype=np.float64)), np.sort(np.asarray(negatives, dtype=np.float64))
    below, through = np.searchsorted(n, p, side="left"), np.searchsorted(n, p, side="right")
    return float((below + through).sum() / (2 * len(p) * len(n)))
