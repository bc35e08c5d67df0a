"""Noise that a model in training is to predict."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

Target = Literal["from-blank", "from-concept"]


def erased_noise(
    blank: Tensor,
    concept: Tensor,
    negative_guidance: float,
    target: Target = "from-blank",
    origin: Tensor | None = None,
) -> Tensor:
    """The noise that the erased model shall predict for the concept, as in ESD (Gandikota et al., ICCV 2023).

    Its eq. 7: ``e*(x_t, t) - eta (e*(x_t, c, t) - e*(x_t, t))``.  Its code of 2024 starts from ``e*(x_t, c, t)``
    instead, so that its ``negative_guidance`` of 2 is an eta of 1; or from ``origin``, the prediction for what the
    concept is erased from, if it is given.
    """
    start = blank if target == "from-blank" else concept if origin is None else origin
    return start - negative_guidance * (concept - blank)
