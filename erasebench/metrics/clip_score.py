"""CLIP score: whether images of prompts that have nothing to do with the concept still match them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from erasebench.metrics.metric import Measured, Metric
from erasebench.metrics.stats import Estimate, mean
from erasebench.registry import METRICS

if TYPE_CHECKING:
    import pandas as pd


@METRICS.register("clip")
class ClipScore(Metric):
    """The mean CLIP score of images and their prompts, 100 x the cosine, as papers print it."""

    probes = ("retain",)
    title = "CLIP score"
    direction = "higher"
    meaning = "how well images of unrelated captions match these captions"
    order = 30

    def measure(self, measured: Measured, base: Measured | None) -> Estimate:
        """The mean over images; undefined without any."""
        images = measured.probe("retain")
        return mean(images["score"], images["prompt_id"])

    def values(self, measured: Measured, base: Measured | None) -> pd.Series:
        """The score of each image."""
        return measured.probe("retain").set_index("prompt_id")["score"]
