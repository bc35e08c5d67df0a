"""Methods that do nothing, with hyper-parameters of every sort."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Literal

import pydantic.dataclasses
from pydantic import Field

from erasebench.errors import EraseBenchError, UnknownNameError
from erasebench.plugins import Count, EraseContext, Method, NonNegative, Positive, SamplingSteps, Share

if TYPE_CHECKING:
    from erasebench.concepts import Concept
    from erasebench.models.diffusion import DiffusionModel
    from erasebench.models.erasure import Erasure


class Nothing(Method):
    """A method without hyper-parameters."""

    def erase(self, model: DiffusionModel, concepts: Sequence[Concept], context: EraseContext) -> Erasure:
        raise AssertionError


@dataclass(frozen=True)
class Plain(Nothing):
    """A method with one hyper-parameter of each sort, as Python has dataclasses."""

    where: Literal["inside", "outside"]
    steps: Count = 1000
    rate: Positive | None = 1e-5
    sampling_steps: SamplingSteps = 50
    share: Share = 0.5
    weight: NonNegative = 0.0
    own: Annotated[float, Field(gt=-1, lt=1)] = 0.0
    words: tuple[str, ...] = ()
    seen: list[str] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        if self.steps == 13:
            raise EraseBenchError("steps must not be 13")
        if self.words == ("unknown",):
            raise UnknownNameError("unknown word 'unknown'")


@pydantic.dataclasses.dataclass(frozen=True)
class Validated(Nothing):
    """The same sort of method as pydantic has dataclasses."""

    where: Literal["inside", "outside"]
    steps: Count = 1000


DEFAULTS = {
    "where": "inside",
    "steps": 1000,
    "rate": 1e-5,
    "sampling_steps": 50,
    "share": 0.5,
    "weight": 0.0,
    "own": 0.0,
    "words": [],
}
