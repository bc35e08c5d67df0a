"""A method that changes one parameter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from erasebench.plugins import EraseContext, Method

if TYPE_CHECKING:
    from erasebench.concepts import Concept
    from erasebench.models.diffusion import DiffusionModel
    from erasebench.models.erasure import Erasure


@dataclass(frozen=True)
class Blank(Method):
    """Scale the bias of the U-Net's last layer."""

    scale: Annotated[float, Field(ge=0)] = 0.5

    def erase(self, model: DiffusionModel, concepts: Sequence[Concept], context: EraseContext) -> Erasure:
        """One parameter changes."""
        from erasebench.models.erasure import Erasure

        name = "unet.conv_out.bias"
        return Erasure({name: model.parameters()[name].detach() * self.scale})
