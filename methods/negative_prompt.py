"""A negative prompt: the concept takes the place of the blank prompt in classifier-free guidance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from pydantic.dataclasses import dataclass

from erasebench.models.diffusion import DiffusionModel
from erasebench.models.erasure import Erasure
from erasebench.models.guidance import ClassifierFreeGuidance
from erasebench.plugins import EraseContext, Method
from erasebench.registry import METHODS

if TYPE_CHECKING:
    from erasebench.concepts import Concept


@METHODS.register("negative-prompt")
@dataclass(frozen=True)
class NegativePrompt(Method):
    """Guide away from the concepts, joined by commas, instead of away from the blank prompt.

    The prediction is ``e(x, concepts) + s (e(x, prompt) - e(x, concepts))``.  Nothing is trained and nothing stored,
    and whoever holds the weights undoes it.
    """

    guidance_only: ClassVar[bool] = True
    seeded: ClassVar[bool] = False

    def erase(self, model: DiffusionModel, concepts: Sequence[Concept], context: EraseContext) -> Erasure:
        """Guide away from the concepts."""
        return Erasure(guidance=ClassifierFreeGuidance(negative=", ".join(concept.phrase for concept in concepts)))
