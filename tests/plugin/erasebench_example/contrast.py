"""A metric: how far apart the concept's scores are."""

from __future__ import annotations

import math

from erasebench.metrics.metric import Measured, Metric
from erasebench.metrics.stats import Estimate


class Contrast(Metric):
    """The highest score less the lowest."""

    probes = ("concept",)
    title = "Contrast"
    direction = "higher"
    meaning = "highest score of the concept less the lowest"

    def measure(self, measured: Measured, base: Measured | None) -> Estimate:
        """No interval."""
        scores = measured.probe("concept")["score"]
        return Estimate(float(scores.max() - scores.min()), math.nan, math.nan, len(scores))
