"""FID: how far images of prompts that have nothing to do with the concept are from reference images."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from erasebench.metrics.metric import Measured, Metric
from erasebench.metrics.stats import UNDEFINED, Estimate, clusters, resampled
from erasebench.registry import METRICS

Floats = NDArray[np.float64]


@METRICS.register("fid")
class FID(Metric):
    """The Frechet distance of the features of two sets of images (Heusel et al. 2017).

    It is |m - r|^2 + tr(M + R - 2 (M R)^1/2), with means m and r and covariances M and R of the features of unrelated
    images and of the reference.
    """

    probes = ("retain", "reference")
    title = "FID"
    direction = "lower"
    meaning = "distance of images of unrelated captions to reference images"
    caveat = "comparable only for equal n, features and reference"
    noted = "features"
    order = 40

    def measure(self, measured: Measured, base: Measured | None) -> Estimate:
        """The distance of the unrelated prompts' images to the reference."""
        return fid(measured.features("retain"), measured.features("reference"), measured.probe("retain")["prompt_id"])

    def note(self, measured: Measured) -> str:
        """Whose features are compared."""
        return measured.probes["retain"].features_of


def frechet_distance(features_a: ArrayLike, features_b: ArrayLike) -> float:
    """The Frechet distance of the Gaussians fitted to two sets of features (Heusel et al. 2017, equation 6).

    |m_a - m_b|^2 + tr(S_a + S_b - 2 (S_b^1/2 S_a S_b^1/2)^1/2), with covariances over n - 1, in float64.  Both
    roots are of symmetric matrices, so that eigenvalues give them exactly; S_a S_b, whose root others take, is not
    symmetric, and its root comes out complex where few images leave it singular.

    Args:
        features_a: [n, d], n > 1.
        features_b: [m, d], m > 1.

    Returns:
        0 for two equal sets (up to rounding), never negative.

    Raises:
        ValueError: other shapes, or features that are not finite.
    """
    return _Distance(features_a, features_b).weighted(np.ones(len(np.asarray(features_a))))


def fid(features: ArrayLike, reference: ArrayLike, groups: ArrayLike | None = None, resamples: int = 100) -> Estimate:
    """The Frechet distance of generated images to reference images, with an interval for the sampling of the former.

    The interval is the value +- 1.96 bootstrap standard deviations over images, cut off at 0.  A percentile interval
    would not do: FID is biased upward, the more so the fewer different images there are, and a resample with repeats
    holds only 63 % of them, so nearly all resampled values lie above the value itself.  Their spread is usable, their
    place is not.  The bias of the value itself is in no interval: compare FIDs of equal ``n`` and one reference only.

    Args:
        features: [n, d] of the generated images.
        reference: [m, d] of the reference images, m > 1; taken as fixed.
        groups: [n], the prompt of each generated image: whole prompts are resampled.
        resamples: how many; 2048 features of 5000 images take about a second for each.

    Returns:
        Lower is better; ``n`` is the number of generated images; undefined for fewer than two of them.

    Raises:
        ValueError: other shapes, or features that are not finite.
    """
    if len(np.asarray(features)) < 2:
        return UNDEFINED
    distance = _Distance(features, reference)
    cluster = clusters(groups, distance.n)
    units = int(cluster.max()) + 1
    value = distance.weighted(np.ones(distance.n))
    draws = [
        distance.weighted(np.bincount(row, minlength=units)[cluster].astype(np.float64))
        for rows in resampled(units, resamples)
        for row in rows
        if row.min() < row.max()  # n copies of one unit have no spread to fit a Gaussian to
    ]
    reach = 1.959964 * float(np.std(draws, ddof=1)) if len(draws) > 1 else math.nan
    return Estimate(value, max(0.0, value - reach), value + reach, distance.n)


class _Distance:
    """The distance of features, each with a weight, to fixed reference features."""

    def __init__(self, features: ArrayLike, reference: ArrayLike) -> None:
        own, fixed = _matrix(features), _matrix(reference)
        if own.shape[1] != fixed.shape[1]:
            raise ValueError(f"features have {own.shape[1]} numbers an image, the reference's {fixed.shape[1]}")
        centre = fixed.mean(axis=0)
        covariance = (fixed - centre).T @ (fixed - centre) / (len(fixed) - 1)
        values, vectors = np.linalg.eigh(covariance)
        root = (vectors * np.sqrt(values.clip(min=0))) @ vectors.T
        self.n, self.features = len(own), own - centre
        self.projected, self.trace = self.features @ root, float(np.trace(covariance))

    def weighted(self, weights: Floats) -> float:
        """The distance with each image counted ``weights`` [n] times."""
        mask = weights > 0
        weight, features, projected = weights[mask], self.features[mask], self.projected[mask]
        total = weight.sum()
        gap, share = weight @ features / total, weight[:, None] / (total - 1)
        spread = float((share * (features - gap) ** 2).sum())
        # The eigenvalues of S_b^1/2 S_a S_b^1/2, from whichever of the two products of this matrix is the smaller.
        half = np.sqrt(share) * (projected - weight @ projected / total)
        product = half.T @ half if half.shape[0] >= half.shape[1] else half @ half.T
        shared = float(np.sqrt(np.linalg.eigvalsh(product).clip(min=0)).sum())
        return max(0.0, float(gap @ gap) + spread + self.trace - 2 * shared)


def _matrix(features: ArrayLike) -> Floats:
    matrix = np.asarray(features, dtype=np.float64)
    if matrix.ndim != 2 or len(matrix) < 2 or not matrix.shape[1]:
        raise ValueError(f"features are [images, numbers] of at least two images, not of shape {matrix.shape}")
    if not np.isfinite(matrix).all():
        raise ValueError("some features are not finite")
    return matrix
