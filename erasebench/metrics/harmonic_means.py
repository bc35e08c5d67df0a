"""The overall numbers of MACE (Lu et al. 2024): efficacy, specificity and generality of an erasure in one number.

Accuracies and harmonic means are shares, in [0, 1]; the paper prints them x 100.  MACE averages H_o over classes, which
is not H_o of the averaged accuracies.
"""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np

from erasebench.metrics.class_accuracy import (
    AccuracyErased,
    AccuracyErasedTop1,
    AccuracyOthers,
    AccuracyOthersTop1,
    AccuracySynonyms,
)
from erasebench.metrics.clip_of_concepts import ClipErased, ClipOthers
from erasebench.metrics.metric import Direction, Measured, Metric
from erasebench.metrics.stats import UNDEFINED, Estimate
from erasebench.registry import METRICS


class _Overall(Metric):
    """A number made of others, each measured on images of its own.

    Attributes:
        parts: what it is made of.
    """

    direction: ClassVar[Direction] = "higher"
    on_request = True
    noted = "judge"
    parts: ClassVar[tuple[Metric, ...]]

    def note(self, measured: Measured) -> str:
        """The judges of its parts."""
        return ", ".join(dict.fromkeys(part.note(measured) for part in self.parts))

    def _estimates(self, measured: Measured, base: Measured | None) -> list[Estimate]:
        return [part.measure(measured, base) for part in self.parts]


@METRICS.register("h_o")
class HarmonicMeanOfObjects(_Overall):
    """H_o: 100 x the harmonic mean of 1 - Acc_e, Acc_s and 1 - Acc_g, mean probabilities as in MACE's code.

    The interval adds up those of the three (Zou and Donner 2008).  MACE averages H_o over its classes, each of which is
    a row here.
    """

    probes = ("concept", "others", "synonyms")
    title = "H_o"
    unit = "%"
    meaning = "harmonic mean of 1 - Acc_e, Acc_s and 1 - Acc_g, which are mean probabilities"
    order = 66
    parts = (AccuracyErased(), AccuracyOthers(), AccuracySynonyms())

    def measure(self, measured: Measured, base: Measured | None) -> Estimate:
        """The harmonic mean; undefined where an accuracy is."""
        return h_o(*(part.scaled(0.01) for part in self._estimates(measured, base))).scaled(100)


@METRICS.register("h_c")
class HarmonicMeanOfCelebrities(_Overall):
    """H_c: 100 x the harmonic mean of 1 - Acc_e and Acc_s, shares of images, as MACE counts celebrities.

    The interval adds up those of the two (Zou and Donner 2008).
    """

    probes = ("concept", "others")
    title = "H_c"
    unit = "%"
    meaning = "harmonic mean of 1 - Acc_e and Acc_s, both top 1"
    order = 67
    parts = (AccuracyErasedTop1(), AccuracyOthersTop1())

    def measure(self, measured: Measured, base: Measured | None) -> Estimate:
        """The harmonic mean; undefined where an accuracy is."""
        return h_c(*(part.scaled(0.01) for part in self._estimates(measured, base))).scaled(100)


@METRICS.register("h_a")
class DifferenceOfArtists(_Overall):
    """H_a: CLIP_s - CLIP_e, which MACE calls the overall ability to erase artists.

    The interval adds up those of the two (Zou and Donner 2008).
    """

    probes = ("concept", "others")
    roles: ClassVar = {"clip": ("concept", "others")}
    title = "H_a"
    meaning = "CLIP_s - CLIP_e"
    order = 82
    parts = (ClipErased(), ClipOthers())

    def measure(self, measured: Measured, base: Measured | None) -> Estimate:
        """The difference; undefined where a CLIP score is."""
        return h_a(*self._estimates(measured, base))


def h_o(acc_e: Estimate, acc_s: Estimate, acc_g: Estimate) -> Estimate:
    """H_o of objects (equation 8): 3 / (1 / (1 - Acc_e) + 1 / Acc_s + 1 / (1 - Acc_g)).

    Args:
        acc_e: the accuracy on images of the erased class.
        acc_s: on images of the other classes.
        acc_g: on images of the erased class's synonyms, with that class as their label.

    Raises:
        ValueError: an accuracy is outside [0, 1].
    """
    return harmonic_mean(_rest(acc_e), acc_s, _rest(acc_g))


def h_c(acc_e: Estimate, acc_s: Estimate) -> Estimate:
    """H_c of celebrities (equation 9): 2 / (1 / (1 - Acc_e) + 1 / Acc_s).

    Args:
        acc_e: the accuracy on images of the erased people.
        acc_s: on images of the others.

    Raises:
        ValueError: an accuracy is outside [0, 1].
    """
    return harmonic_mean(_rest(acc_e), acc_s)


def h_a(clip_e: Estimate, clip_s: Estimate) -> Estimate:
    """H_a of artists (section 4.5): CLIP_s - CLIP_e, in the unit of the two.

    Args:
        clip_e: the CLIP score of images and prompts of the erased artists.
        clip_s: of the other artists.

    Returns:
        With the interval of a difference of independent numbers (Zou and Donner 2008); undefined where one is.
    """
    if not (clip_e.defined and clip_s.defined):
        return UNDEFINED
    value = clip_s.value - clip_e.value
    below = math.hypot(clip_s.value - clip_s.low, clip_e.high - clip_e.value)
    above = math.hypot(clip_s.high - clip_s.value, clip_e.value - clip_e.low)
    return Estimate(value, value - below, value + above, clip_e.n + clip_s.n)


def harmonic_mean(*parts: Estimate) -> Estimate:
    """The harmonic mean of shares that were measured on different images.

    The interval is that of the sum of their reciprocals, whose reaches add up by squares, each side by itself (Zou and
    Donner 2008): Wilson's intervals of the parts keep their lopsidedness.

    Args:
        parts: in [0, 1], at least one.

    Returns:
        In [0, 1], 0 where a part is 0; ``n`` is the number of all images.  Undefined where a part is.

    Raises:
        ValueError: no parts, or one that is outside [0, 1].
    """
    if not parts:
        raise ValueError("a harmonic mean needs at least one part")
    if not all(part.defined for part in parts):
        return UNDEFINED
    if any(not 0 <= part.value <= 1 for part in parts):
        raise ValueError(f"shares are in [0, 1], not {', '.join(f'{part.value:g}' for part in parts)}")
    values, lows, highs = (np.array([getattr(part, end) for part in parts]) for end in ("value", "low", "high"))
    n = sum(part.n for part in parts)
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = 1 / values
        if np.isinf(terms).any():
            # The mean is 0; how far it might reach follows from the upper limits alone.
            return Estimate(0.0, 0.0, float(len(parts) / np.sum(1 / highs)), n)
        total = terms.sum()
        up, down = np.linalg.norm(1 / lows - terms), np.linalg.norm(terms - 1 / highs)
    value, low, high = (float(len(parts) / reciprocals) for reciprocals in (total, total + up, total - down))
    return Estimate(value, low, high, n)


def _rest(share: Estimate) -> Estimate:
    return Estimate(1 - share.value, 1 - share.high, 1 - share.low, share.n)
