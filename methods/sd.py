"""No erasure: the model as it is, the first row of every table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from pydantic.dataclasses import dataclass

from erasebench.models.erasure import Erasure
from erasebench.plugins import EraseContext, Method
from erasebench.registry import METHODS

if TYPE_CHECKING:
    from erasebench.concepts import Concept
    from erasebench.models.diffusion import DiffusionModel


@METHODS.register("sd")
@dataclass(frozen=True)
class Unerased(Method):
    """The unerased model."""

    seeded: ClassVar[bool] = False

    def erase(self, model: DiffusionModel, concepts: Sequence[Concept], context: EraseContext) -> Erasure:
        """Nothing changes."""
        return Erasure()
