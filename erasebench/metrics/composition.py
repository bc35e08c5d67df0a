"""Composition kept: whether an image of the erased concept and another one still shows the other."""

from __future__ import annotations

from typing import TYPE_CHECKING

from erasebench.metrics.metric import Measured
from erasebench.metrics.over_images import ImageShare, same_images
from erasebench.metrics.stats import UNDEFINED, Estimate
from erasebench.registry import METRICS

if TYPE_CHECKING:
    import pandas as pd


@METRICS.register("composition")
class CompositionKept(ImageShare):
    """100 x images of two objects that still show the one that is not erased / those that did before the erasure.

    Counted are images whose prompt and seed give the unerased model an image that shows the other object, since models
    fail at two objects by themselves.  The unerased model's own row is 100 by definition.  What is done here is this
    project's; the papers ask for one object at a time.
    """

    probes = ("composition",)
    title = "Composition kept"
    direction = "higher"
    meaning = "images of prompts for the erased object and another one that show the other, of those that did unerased"
    on_request = True
    order = 28

    def measure(self, measured: Measured, base: Measured | None) -> Estimate:
        """The share, over prompts; undefined where the unerased model draws no other object, and without it."""
        return UNDEFINED if self.values(measured, base) is None else super().measure(measured, base)

    def values(self, measured: Measured, base: Measured | None) -> pd.Series | None:
        """True for each of these images that shows the other object; None without the unerased model's images."""
        if base is None or not same_images(measured, base, "composition"):
            return None
        drawn = base.probe("composition")["shown"].to_numpy(bool)
        return measured.probe("composition")[drawn].set_index("prompt_id")["shown"]
