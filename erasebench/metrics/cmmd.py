"""CMMD: how far CLIP features of unrelated images are from those of reference images, and how much of it is kept.

CMMD (Jayasumana et al. 2024) is the squared maximum mean discrepancy with a Gaussian kernel of sigma 10, x 1000,
estimated over all pairs, also of an image with itself: a V-statistic, never below 0.  Its authors take CLIP
ViT-L/14-336.  EraseEval (arXiv 2502.13989, M4) compares an erased model's with the unerased one's.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from erasebench.metrics.metric import Measured, Metric
from erasebench.metrics.over_images import same_images
from erasebench.metrics.stats import UNDEFINED, Estimate, clusters, resampled
from erasebench.registry import METRICS

Floats = NDArray[np.float64]
SIGMA, SCALE = 10.0, 1000.0
RESAMPLES = 200


class _OfFeatures(Metric):
    """A metric of the CLIP features of unrelated images and of reference images."""

    probes = ("retain", "reference")
    roles: ClassVar = {"clip": ("retain", "reference")}
    on_request = True
    noted = "features"

    def note(self, measured: Measured) -> str:
        """The judge whose features are compared."""
        return measured.probes["reference"].judges["clip"]


@METRICS.register("cmmd")
class CMMD(_OfFeatures):
    """1000 x the squared maximum mean discrepancy of unrelated images and reference images in CLIP's features."""

    title = "CMMD"
    unit = "x1000"
    direction = "lower"
    meaning = "distance of images of unrelated captions to reference images in CLIP's features, normalised"
    caveat = "comparable only for equal n, CLIP and reference"
    order = 41

    def measure(self, measured: Measured, base: Measured | None) -> Estimate:
        """The distance, +- 1.96 bootstrap standard deviations over prompts, see :func:`~erasebench.metrics.fid.fid`.

        Undefined for fewer than two images.
        """
        distance = _distance(measured)
        if distance is None:
            return UNDEFINED
        units = distance.units
        return _around(distance.weighted(np.ones(units)), [distance.weighted(w) for w in _weights(units)], distance.n)


@METRICS.register("cmmd_kept")
class CMMDKept(_OfFeatures):
    """EraseEval's M4: 100 x (1 - (CMMD - CMMD of the unerased model) / CMMD of the unerased model), from 0 to 100.

    Its interval is 1.96 bootstrap standard deviations to either side, over prompts, with both models' images of each.
    """

    title = "CMMD kept"
    unit = "%"
    direction = "higher"
    meaning = "1 less what CMMD grew by, as a share of the unerased model's; 0 if it doubled or more"
    order = 42

    def measure(self, measured: Measured, base: Measured | None) -> Estimate:
        """The share, with an interval that resamples the prompts of both sides together.

        Undefined as CMMD is, without the unerased model, and where it had other prompts.
        """
        if base is None or not same_images(measured, base, "retain"):
            return UNDEFINED
        own, unerased = _distance(measured), _distance(base)
        if own is None or unerased is None:
            return UNDEFINED

        def share_left(weights: Floats) -> float:
            return 2 - own.weighted(weights) / unerased.weighted(weights)

        share = _around(share_left(np.ones(own.units)), [share_left(w) for w in _weights(own.units)], own.n)
        value, low, high = np.clip([share.value, share.low, share.high], 0, 1).tolist()
        return Estimate(value, low, high, share.n).scaled(100)


def cmmd(features: ArrayLike, reference: ArrayLike) -> float:
    """1000 x the squared maximum mean discrepancy of two sets of L2-normalised features.

    It is the mean of k(x, x') over all pairs of the one, plus that of the other, less twice that of one of each, with
    k(x, y) = exp(-|x - y|^2 / (2 sigma^2)).

    Args:
        features: [n, d].
        reference: [m, d].

    Raises:
        ValueError: other shapes, no images, or features that are not finite or all 0.
    """
    distance = Discrepancy(features, reference)
    return distance.weighted(np.ones(distance.units))


class Discrepancy:
    """The squared discrepancy, x 1000, of features to a fixed reference, with whole prompts weighted.

    Args:
        features: [n, d].
        reference: [m, d].
        groups: [n], the prompt of each image; each its own if omitted.

    Raises:
        ValueError: as of :func:`cmmd`.
    """

    def __init__(self, features: ArrayLike, reference: ArrayLike, groups: ArrayLike | None = None) -> None:
        own, fixed = _normalised(features), _normalised(reference)
        if own.shape[1] != fixed.shape[1]:
            raise ValueError(f"features have {own.shape[1]} numbers an image, the reference's {fixed.shape[1]}")
        self.n = len(own)
        cluster = clusters(groups, self.n)
        own = own[np.argsort(cluster, kind="stable")]
        self.sizes = np.bincount(cluster)
        self.units = len(self.sizes)
        starts = np.cumsum(self.sizes) - self.sizes
        self._within = np.add.reduceat(np.add.reduceat(_kernel(own, own), starts, axis=0), starts, axis=1)
        self._between = np.add.reduceat(_kernel(own, fixed).mean(axis=1), starts)
        self._fixed = float(_kernel(fixed, fixed).mean())

    def weighted(self, weights: Floats) -> float:
        """The distance with each prompt counted ``weights`` [units] times."""
        total = float(weights @ self.sizes)
        own = float(weights @ self._within @ weights) / total**2
        return SCALE * max(0.0, own + self._fixed - 2 * float(weights @ self._between) / total)


def _distance(measured: Measured) -> Discrepancy | None:
    """The row's; None where there is none that can be told."""
    images = measured.probe("retain")
    if len(images) < 2:
        return None
    own, reference = (measured.features(probe, "clip") for probe in ("retain", "reference"))
    return Discrepancy(own, reference, images["prompt_id"])


def _weights(units: int) -> list[Floats]:
    """The number of times that each prompt comes up in each resample."""
    return [np.bincount(row, minlength=units).astype(float) for rows in resampled(units, RESAMPLES) for row in rows]


def _around(value: float, draws: list[float], n: int) -> Estimate:
    reach = 1.959964 * float(np.std(draws, ddof=1))
    return Estimate(value, max(0.0, value - reach), value + reach, n)


def _normalised(features: ArrayLike) -> Floats:
    matrix = np.asarray(features, dtype=np.float64)
    if matrix.ndim != 2 or not matrix.size:
        raise ValueError(f"features are [images, numbers] of at least one image, not of shape {matrix.shape}")
    norms = np.linalg.norm(matrix, axis=1, keepdims=True)
    if not (np.isfinite(norms) & (norms > 0)).all():
        raise ValueError("some features are not finite, or all 0")
    unit: Floats = matrix / norms
    return unit


def _kernel(one: Floats, other: Floats) -> Floats:
    """exp(-|x - y|^2 / (2 sigma^2)) of unit vectors, whose squared distance is 2 - 2 xy: [n, m]."""
    kernel: Floats = np.exp((one @ other.T - 1) / SIGMA**2)
    return kernel
