"""CLIP kept: what an erasure leaves of the CLIP score of unrelated images (EraseEval, arXiv 2502.13989, M3)."""

from __future__ import annotations

import math

import numpy as np

from erasebench.metrics.metric import Measured, Metric
from erasebench.metrics.over_images import same_images
from erasebench.metrics.stats import UNDEFINED, Estimate, clusters, resampled, vector
from erasebench.registry import METRICS

RESAMPLES = 1000


@METRICS.register("clip_kept")
class ClipKept(Metric):
    """EraseEval's M3: 100 x the CLIP score of unrelated images / the unerased model's, at most 100.

    Its interval is of bootstrap percentiles over prompts, with both models' images of each.
    """

    probes = ("retain",)
    title = "CLIP kept"
    unit = "%"
    direction = "higher"
    meaning = "CLIP score of images of unrelated captions as a share of the unerased model's, at most 100"
    on_request = True
    order = 31

    def measure(self, measured: Measured, base: Measured | None) -> Estimate:
        """The share; undefined without images, and without the unerased model's of the same prompts and seeds."""
        if base is None or not same_images(measured, base, "retain"):
            return UNDEFINED
        images = measured.probe("retain")
        unit = clusters(images["prompt_id"], len(images))
        own, unerased = (np.bincount(unit, vector(row.probe("retain")["score"])) for row in (measured, base))
        if not len(images) or unerased.sum() <= 0:
            return UNDEFINED
        draws = [own[rows].sum(axis=1) / unerased[rows].sum(axis=1) for rows in resampled(len(own), RESAMPLES)]
        low, high = np.quantile(np.concatenate(draws), (0.025, 0.975)) if len(own) > 1 else (math.nan, math.nan)
        value, low, high = np.minimum(1, [own.sum() / unerased.sum(), low, high]).tolist()
        return Estimate(value, low, high, len(images)).scaled(100)
