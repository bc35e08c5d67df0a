"""A judge: how bright a picture is."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from erasebench.judging import Images, Scores
from erasebench.plugins import Judge


class Brightness(Judge):
    """The mean of all pixels, in [0, 1]."""

    labels = ("bright",)

    def identity(self) -> dict[str, str]:
        """It has no weights."""
        return {"version": "1"}

    def scores(self, images: Images, prompts: Sequence[str]) -> Scores:
        """One column."""
        return Scores({"bright": (images.mean((1, 2, 3)) / 255).astype(np.float32)})
