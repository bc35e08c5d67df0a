"""A negative prompt: the concept takes the place of the blank prompt in classifier-free guidance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from erasebench.method import EraseContext
from erasebench.models.diffusion import DiffusionModel
from erasebench.models.erasure import Erasure
from erasebench.models.guidance import ClassifierFreeGuidance
from erasebench.registry import METHODS

if TYPE_CHECKING:
    from erasebench.concepts import Concept


@METHODS.register("negative-prompt")
@dataclass(frozen=True)
class NegativePrompt:
    """``e(x, concepts) + s (e(x, prompt) - e(x, concepts))``; several concepts are joined by commas.

    Nothing is trained and nothing stored, and whoever holds the weights undoes it.
    """

    guidance_only: ClassVar[bool] = True

    def erase(self, model: DiffusionModel, concepts: Sequence[Concept], context: EraseContext) -> Erasure:
        """Guide away from the concepts."""
        return Erasure(guidance=ClassifierFreeGuidance(negative=", ".join(concept.phrase for concept in concepts)))
