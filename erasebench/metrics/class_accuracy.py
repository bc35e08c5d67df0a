"""Acc_e, Acc_s and Acc_g: a classifier's accuracy on images of the erased class, of other classes, and of synonyms.

They are of MACE (Lu et al. 2024, section 4.2): efficacy, specificity and generality.  What the paper calls accuracy of
objects is, in its published code, the mean probability of each image's own class; of celebrities it is the share of
images with a face whose most probable one is the right one, and so of all images in ESD's table 2 (Gandikota et al.
2023).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from erasebench.metrics.metric import Direction, Measured, Metric
from erasebench.metrics.over_images import ImageMean
from erasebench.metrics.stats import Estimate, rate
from erasebench.registry import METRICS

FACE = "face"
"""The column of a judge of faces that is 0 where there is none."""

if TYPE_CHECKING:
    import pandas as pd


class _Accuracy(Metric):
    unit = "%"
    on_request = True
    noted = "judge"

    def note(self, measured: Measured) -> str:
        """Whose probabilities they are."""
        (probe,) = self.probes
        return ", ".join(dict.fromkeys(measured.probe(probe)["judge"]))


class _MeanProbability(_Accuracy, ImageMean):
    """100 x the mean probability of each image's own class."""

    caveat = "the scores of a judge that is no classifier are no probabilities"

    def values(self, measured: Measured, base: Measured | None) -> pd.Series:
        """The probability of each image's own class, x 100.

        Raises:
            ValueError: a score is no probability.
        """
        (probe,) = self.probes
        scores = measured.probe(probe).set_index("prompt_id")["score"]
        if not scores.between(0, 1).all():
            raise ValueError("some scores are no probabilities in [0, 1]")
        return 100 * scores


class _TopOne(_Accuracy):
    """100 x the share of images whose own class is the most probable.

    Of a judge of faces, which says in a column where there is one, only images with a face count.
    """

    def measure(self, measured: Measured, base: Measured | None) -> Estimate:
        """The share, with Wilson's interval over prompts; undefined without images that count."""
        hits = self._hits(measured)
        return rate(hits, hits.index).scaled(100)

    def values(self, measured: Measured, base: Measured | None) -> pd.Series | None:
        """True for each image whose own class is the most probable; None where other methods may have other images."""
        return None if FACE in measured.judged(self.probes[0]) else self._hits(measured)

    def _hits(self, measured: Measured) -> pd.Series:
        (probe,) = self.probes
        hits = (measured.ranks(probe) == 1).set_axis(measured.probe(probe)["prompt_id"])
        judged = measured.judged(probe)
        return hits[(judged[FACE] != 0).to_numpy()] if FACE in judged else hits


@METRICS.register("acc_e")
class AccuracyErased(_MeanProbability):
    """Acc_e as MACE's code has it: 100 x the mean probability of the erased class on images of its prompts."""

    probes = ("concept",)
    title = "Acc_e"
    direction: ClassVar[Direction] = "lower"
    meaning = "mean probability of the erased class on images of its prompts"
    order = 60


@METRICS.register("acc_s")
class AccuracyOthers(_MeanProbability):
    """Acc_s as MACE's code has it: 100 x the mean probability of the right class on images of other classes."""

    probes = ("others",)
    title = "Acc_s"
    direction: ClassVar[Direction] = "higher"
    meaning = "mean probability of the right class on images of the other classes"
    order = 61


@METRICS.register("acc_g")
class AccuracySynonyms(_MeanProbability):
    """Acc_g as MACE's code has it: 100 x the mean probability of the erased class on images of its synonyms."""

    probes = ("synonyms",)
    title = "Acc_g"
    direction: ClassVar[Direction] = "lower"
    meaning = "mean probability of the erased class on images of prompts by synonyms"
    order = 62


@METRICS.register("acc_e_top1")
class AccuracyErasedTop1(_TopOne):
    """Acc_e as a share of images: 100 x images whose most probable class is the erased one / images of its prompts."""

    probes = ("concept",)
    title = "Acc_e, top 1"
    direction: ClassVar[Direction] = "lower"
    meaning = "images of the erased class's prompts for which it is the judge's first"
    order = 63


@METRICS.register("acc_s_top1")
class AccuracyOthersTop1(_TopOne):
    """Acc_s as a share of images: 100 x images whose most probable class is the right one / images of other classes."""

    probes = ("others",)
    title = "Acc_s, top 1"
    direction: ClassVar[Direction] = "higher"
    meaning = "images of the other classes whose class is the judge's first"
    order = 64


@METRICS.register("acc_g_top1")
class AccuracySynonymsTop1(_TopOne):
    """Acc_g as a share of images: 100 x images whose most probable class is the erased one / images of its synonyms."""

    probes = ("synonyms",)
    title = "Acc_g, top 1"
    direction: ClassVar[Direction] = "lower"
    meaning = "images of prompts by synonyms for which the erased class is the judge's first"
    order = 65
