"""Ratio corrected for the judge's errors: what it would be by a judge that never errs.

Where a judge finds the concept in a share Se of the images that show it, and finds nothing in a share Sp of the others,
to find it in a share p means that (p + Sp - 1) / (Se + Sp - 1) show it (Rogan and Gladen 1978).  Se and Sp are counted
on labelled images, see ``validated.csv`` beside the judges, and hold for others only as far as these resemble them.
"""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from erasebench.metrics.metric import Measured, Metric
from erasebench.metrics.stats import UNDEFINED, Estimate, clusters, effective_size
from erasebench.registry import METRICS

VALIDATED = Path(__file__).parents[1] / "judges" / "validated.csv"
"""Counts of validated judges, written by ``erasebench validate picturebook-detector picturebook-style --out FILE``."""
MIN_LABELLED = 200
"""A judge that was validated on fewer images that show the concept, or on fewer others, is marked."""
Z = 1.959964


@dataclass(frozen=True)
class Counts:
    """The number of times that a judge was right on labelled images.

    Attributes:
        positives: images that show the concept, of which it ``found`` so many.
        negatives: other images, of which it ``rejected`` so many.
    """

    positives: int
    found: int
    negatives: int
    rejected: int


@METRICS.register("ratio_corrected")
class RatioCorrected(Metric):
    """Ratio corrected for the judge's sensitivity and specificity, 100 x (p + Sp - 1) / (Se + Sp - 1), from 0 to 100.

    The interval is Lang and Reiczigel's (2014), which takes into account that Se and Sp are estimates; of prompts with
    several images it counts the effective number.
    """

    probes = ("concept",)
    title = "Ratio, corrected"
    unit = "%"
    direction = "lower"
    meaning = "Ratio as a judge would have it that never errs, by this one's errors on labelled images"
    caveat = "of Picturebook's judges these are renders of its world, and not what a model draws"
    on_request = True
    noted = "validation"
    order = 13

    def measure(self, measured: Measured, base: Measured | None) -> Estimate:
        """The rate over prompts.

        Undefined without images, and of a judge that is not validated with these weights, label and threshold; so also
        where several concepts, of which a judge sees one better than another, are erased together.
        """
        counts, images = read_validated(VALIDATED).get(measured.judge), measured.probe("concept")
        if counts is None or not len(images):
            return UNDEFINED
        shown = images["shown"].to_numpy(bool)
        size = effective_size(shown, clusters(images["prompt_id"], len(images)))
        estimate = corrected(float(shown.mean()), size, counts)
        return Estimate(estimate.value, estimate.low, estimate.high, len(images) if estimate.defined else 0).scaled(100)

    def note(self, measured: Measured) -> str:
        """On how many images it rests, where these are few; else ""."""
        counts = read_validated(VALIDATED).get(measured.judge)
        if counts is None or min(counts.positives, counts.negatives) >= MIN_LABELLED:
            return ""
        return f"few labelled images: {counts.positives} and {counts.negatives}"


def corrected(share: float, size: float, counts: Counts) -> Estimate:
    """The share of images that show the concept, given the share in which a judge finds it.

    The interval is of Lang and Reiczigel 2014 (Preventive Veterinary Medicine 113, 13-22): each of the three shares is
    drawn towards one half, that of the images as by Wilson's interval, the others by one success and one failure, and
    their variances are added up where the corrected share depends on them.

    Args:
        share: in [0, 1].
        size: of how many images, or of how many that would tell as much; more than 0.
        counts: of the judge.

    Returns:
        In [0, 1]; undefined for a judge that finds the concept no more often where it is than where it is not.
    """
    sensitivity, specificity = counts.found / counts.positives, counts.rejected / counts.negatives
    if sensitivity + specificity <= 1:
        return UNDEFINED
    value = min(1.0, max(0.0, (share + specificity - 1) / (sensitivity + specificity - 1)))
    n, n_se, n_sp = size + Z**2, counts.positives + 2, counts.negatives + 2
    p, se, sp = (share * size + Z**2 / 2) / n, (counts.found + 1) / n_se, (counts.rejected + 1) / n_sp
    youden = se + sp - 1
    if youden <= 0:
        return Estimate(value, 0.0, 1.0, round(size))
    centre = (p + sp - 1) / youden
    of_se, of_sp = se * (1 - se) / n_se, sp * (1 - sp) / n_sp
    reach = Z / youden * math.sqrt(p * (1 - p) / n + centre**2 * of_se + (1 - centre) ** 2 * of_sp)
    middle = centre + 2 * Z**2 * (centre * of_se - (1 - centre) * of_sp)
    return Estimate(value, max(0.0, min(value, middle - reach)), min(1.0, max(value, middle + reach)), round(size))


@cache
def read_validated(path: Path) -> dict[str, Counts]:
    """Counts by judge, as tables name it with version, weights, label and threshold."""
    with open(path, newline="", encoding="utf-8") as stream:
        return {
            row["judge"]: Counts(*(int(row[name]) for name in ("positives", "found", "negatives", "rejected")))
            for row in csv.DictReader(stream)
        }
