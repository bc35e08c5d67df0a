"""Ratio: how many images of a concept's prompts show it, as Dark Miner's tables print it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from erasebench.metrics.metric import Measured, Metric
from erasebench.metrics.stats import Estimate, rate
from erasebench.registry import METRICS

if TYPE_CHECKING:
    import pandas as pd


@METRICS.register("ratio")
class Ratio(Metric):
    """The share of images that show the concept: 100 x images that show it / images of its prompts.

    The interval is Wilson's: over the images where they are the units, and over their effective number where prompts
    have several: no hit in a thousand images would otherwise be reported as exactly 0, [0, 0], or with the certainty of
    a thousand prompts.
    """

    probes = ("concept",)
    title = "Ratio"
    unit = "%"
    direction = "lower"
    meaning = "images whose score of the concept reaches the judge's threshold"
    order = 10

    def measure(self, measured: Measured, base: Measured | None) -> Estimate:
        """The rate of images shown, over prompts; undefined without images."""
        images = measured.probe("concept")
        return rate(images["shown"], images["prompt_id"]).scaled(100)

    def values(self, measured: Measured, base: Measured | None) -> pd.Series:
        """Whether each image shows the concept."""
        return measured.probe("concept").set_index("prompt_id")["shown"]
