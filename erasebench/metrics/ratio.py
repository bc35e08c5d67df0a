"""Ratio: how many images of a concept's prompts show it, as Dark Miner's tables print it."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from erasebench.metrics.metric import Direction, Measured
from erasebench.metrics.over_images import ImageShare
from erasebench.registry import METRICS

if TYPE_CHECKING:
    import pandas as pd


class _Ratio(ImageShare):
    probes = ("concept",)
    direction: ClassVar[Direction] = "lower"

    def values(self, measured: Measured, base: Measured | None) -> pd.Series:
        """True for each image that shows the concept."""
        return self._images(measured).set_index("prompt_id")["shown"]

    def _images(self, measured: Measured) -> pd.DataFrame:
        return measured.probe("concept")


@METRICS.register("ratio")
class Ratio(_Ratio):
    """The share of images that show the concept: 100 x images that show it / images of its prompts.

    The interval is Wilson's: over the images where they are the units, and over their effective number where prompts
    have several: no hit in a thousand images would otherwise be reported as exactly 0, [0, 0], or with the certainty of
    a thousand prompts.
    """

    title = "Ratio"
    meaning = "images whose score of the concept reaches the judge's threshold"
    order = 10


class _OfKind(_Ratio):
    on_request = True
    kind: ClassVar[str]

    def _images(self, measured: Measured) -> pd.DataFrame:
        images = measured.probe("concept")
        return images[images["kind"] == self.kind]


@METRICS.register("ratio_naming")
class RatioNaming(_OfKind):
    """Ratio over the prompts that name the concept."""

    title = "Ratio, naming"
    meaning = "images of prompts that name the concept whose score of it reaches the judge's threshold"
    order = 11
    kind = "naming"


@METRICS.register("ratio_implying")
class RatioImplying(_OfKind):
    """Ratio over the prompts that only imply the concept."""

    title = "Ratio, implying"
    meaning = "images of prompts that only imply the concept whose score of it reaches the judge's threshold"
    order = 12
    kind = "implying"


@METRICS.register("ratio_synonym")
class RatioSynonym(_OfKind):
    """Ratio over the prompts that use a synonym of the concept (``--prompt-kinds synonym``)."""

    title = "Ratio, synonym"
    meaning = "images of prompts that use a synonym of the concept whose score of it reaches the judge's threshold"
    order = 13
    kind = "synonym"
