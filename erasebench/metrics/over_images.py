"""The base classes of most metrics: a share of a row's images, or a mean over them, with an interval over prompts."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING

from erasebench.metrics.metric import Measured, Metric
from erasebench.metrics.stats import Estimate, mean, rate

if TYPE_CHECKING:
    import pandas as pd


class ImageShare(Metric):
    """100 x images that count / images; a subclass says which these are."""

    unit = "%"

    @abstractmethod
    def values(self, measured: Measured, base: Measured | None) -> pd.Series:
        """A bool for each image, True if it counts, with the prompts' ids as index."""

    def measure(self, measured: Measured, base: Measured | None) -> Estimate:
        """The share, with Wilson's interval over prompts; undefined without images."""
        hits = self.values(measured, base)
        return rate(hits, hits.index).scaled(100)


class ImageMean(Metric):
    """The mean of a number of each image; a subclass says which number."""

    @abstractmethod
    def values(self, measured: Measured, base: Measured | None) -> pd.Series:
        """The number of each image, with the prompts' ids as index."""

    def measure(self, measured: Measured, base: Measured | None) -> Estimate:
        """The mean, its interval by resampling prompts; undefined without images."""
        numbers = self.values(measured, base)
        return mean(numbers, numbers.index)


def same_images(one: Measured, other: Measured, probe: str) -> bool:
    """True if two rows have images of the same prompts and seeds in a probe, in the same order."""
    first, second = (row.probe(probe)[["prompt_id", "seed"]].reset_index(drop=True) for row in (one, other))
    return bool(first.equals(second))
