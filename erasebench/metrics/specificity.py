"""Specificity: how many images of other concepts still show what they were asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from erasebench.metrics.metric import Direction, Measured
from erasebench.metrics.over_images import ImageShare
from erasebench.registry import METRICS

if TYPE_CHECKING:
    import pandas as pd


class _OthersShown(ImageShare):
    """The share of images of other concepts, each judged for its own, that show it."""

    probes = ("others",)
    direction: ClassVar[Direction] = "higher"

    def values(self, measured: Measured, base: Measured | None) -> pd.Series:
        """True for each image that shows its own concept."""
        return self._images(measured).set_index("prompt_id")["shown"]

    def _images(self, measured: Measured) -> pd.DataFrame:
        return measured.probe("others")


@METRICS.register("specificity")
class Specificity(_OthersShown):
    """100 x images of other concepts that show their own / images of their prompts."""

    title = "Specificity"
    meaning = "images of other concepts that still show their own"
    order = 25


@METRICS.register("specificity_near")
class SpecificityNear(_OthersShown):
    """Specificity over the neighbours of what was erased, which an erasure that reaches too far takes with it."""

    title = "Specificity, near"
    meaning = "images of the erased concept's neighbours that still show their own"
    on_request = True
    order = 26

    def _images(self, measured: Measured) -> pd.DataFrame:
        images = measured.probe("others")
        return images[images["kind"] == "neighbour"]


@METRICS.register("specificity_far")
class SpecificityFar(_OthersShown):
    """Specificity over those of the other concepts that are no neighbours of what was erased."""

    title = "Specificity, far"
    meaning = "images of other concepts, no neighbours of the erased one, that still show their own"
    on_request = True
    order = 27

    def _images(self, measured: Measured) -> pd.DataFrame:
        images = measured.probe("others")
        return images[images["kind"] != "neighbour"]
