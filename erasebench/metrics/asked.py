"""Means of what the domain's further judges say of images of the erased concept, and of the others."""

from __future__ import annotations

from typing import TYPE_CHECKING

from erasebench.metrics.metric import Measured
from erasebench.metrics.over_images import ImageMean

if TYPE_CHECKING:
    import pandas as pd


class AskedMean(ImageMean):
    """The mean of the only role's scores over the images of the only probe; its note names the judge."""

    on_request = True
    noted = "judge"

    def values(self, measured: Measured, base: Measured | None) -> pd.Series:
        """The score of each image."""
        ((role, (probe,)),) = self.roles.items()
        return measured.asked(role, probe).set_axis(measured.probe(probe)["prompt_id"])

    def note(self, measured: Measured) -> str:
        """The judge that was asked."""
        ((role, (probe,)),) = self.roles.items()
        return measured.probes[probe].judges[role]
