"""ESR-k and PSR-k: what a classifier still finds of the erased classes, and of the others.

They are of Adversarial Preservation (Bui et al. 2024, section 5.1).  A class is found in an image if it is among the
classifier's k most probable ones.  The paper prints means over four splits of ten classes into erased and others, and
their standard deviation (over n); here each erasure has a row, and an interval over prompts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from erasebench.metrics.metric import Direction, Measured
from erasebench.metrics.over_images import ImageShare
from erasebench.registry import METRICS

if TYPE_CHECKING:
    import pandas as pd


class _OfRanks(ImageShare):
    """A share of images, by the rank of their own class.

    Attributes:
        k: a class is found if its rank is ``k`` at most.
        counts_hits: whether images count whose class is found, or those whose class is not.
    """

    direction: ClassVar[Direction] = "higher"
    on_request = True
    k: ClassVar[int]
    counts_hits: ClassVar[bool]

    def values(self, measured: Measured, base: Measured | None) -> pd.Series:
        """True for each image that counts.

        Raises:
            ValueError: a rank is missing or less than 1.
        """
        (probe,) = self.probes
        ranks = measured.ranks(probe)
        if not (ranks >= 1).all():
            raise ValueError("ranks count from 1, and each image needs one")
        return ((ranks <= self.k) == self.counts_hits).set_axis(measured.probe(probe)["prompt_id"])


class _ErasingSuccess(_OfRanks):
    probes = ("concept",)
    counts_hits = False


class _PreservingSuccess(_OfRanks):
    probes = ("others",)
    counts_hits = True


@METRICS.register("esr_1")
class ErasingSuccess1(_ErasingSuccess):
    """ESR-1: 100 x images of the erased classes whose class is not the most probable / images of these classes."""

    title = "ESR-1"
    meaning = "images of the erased classes whose class is not the judge's first"
    order = 50
    k = 1


@METRICS.register("esr_5")
class ErasingSuccess5(_ErasingSuccess):
    """ESR-5: 100 x images of the erased classes whose class is not in the top 5 / images of these classes."""

    title = "ESR-5"
    meaning = "images of the erased classes whose class is not among the judge's first five"
    order = 51
    k = 5


@METRICS.register("psr_1")
class PreservingSuccess1(_PreservingSuccess):
    """PSR-1: 100 x images of the other classes whose class is the most probable / images of these classes."""

    title = "PSR-1"
    meaning = "images of the other classes whose class is the judge's first"
    order = 52
    k = 1


@METRICS.register("psr_5")
class PreservingSuccess5(_PreservingSuccess):
    """PSR-5: 100 x images of the other classes whose class is in the top 5 / images of these classes."""

    title = "PSR-5"
    meaning = "images of the other classes whose class is among the judge's first five"
    order = 53
    k = 5
