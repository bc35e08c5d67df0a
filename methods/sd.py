"""No erasure: the model as it is, the first row of every table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from erasebench.models.erasure import Erasure
from erasebench.registry import METHODS

if TYPE_CHECKING:
    from erasebench.concepts import Concept
    from erasebench.method import EraseContext
    from erasebench.models.diffusion import DiffusionModel


@METHODS.register("sd")
@dataclass(frozen=True)
class Unerased:
    """The unerased model."""

    def erase(self, model: DiffusionModel, concepts: Sequence[Concept], context: EraseContext) -> Erasure:
        """Nothing changes."""
        return Erasure()
