"""Base classes of plug-ins: hyper-parameters and their ranges, and what a method need not have."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Literal

import pydantic.dataclasses
import pytest
from pydantic import Field

from erasebench.errors import EraseBenchError, UnknownNameError
from erasebench.plugins import (
    Count,
    EraseContext,
    Method,
    NonNegative,
    Positive,
    SamplingSteps,
    Share,
    decided,
    hyper_parameters,
    make_plugin,
)
from tests.tiny import concept

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


def test_all_hyper_parameters_are_given_with_their_defaults() -> None:
    assert hyper_parameters(make_plugin(Plain, {"where": "inside"})) == DEFAULTS
    assert hyper_parameters(make_plugin(Validated, {"where": "inside"})) == {"where": "inside", "steps": 1000}
    assert hyper_parameters(Nothing()) == {}


def test_values_are_converted_and_are_fit_for_json() -> None:
    made = make_plugin(Plain, {"where": "inside", "steps": "20", "rate": "1e-4", "weight": 1, "words": ["a", "b"]})
    assert (made.steps, made.rate, made.words) == (20, 1e-4, ("a", "b"))
    assert isinstance(made.weight, float)
    assert hyper_parameters(made) == {**DEFAULTS, "steps": 20, "rate": 1e-4, "weight": 1.0, "words": ["a", "b"]}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"step": 3}, "unknown hyper-parameter 'step'; nearest: steps"),
        ({"seen": []}, "unknown hyper-parameter 'seen'"),
        ({"where": "above"}, "^where: Input should be 'inside' or 'outside', not 'above'$"),
        ({"where": None}, "^where: Input should be 'inside' or 'outside', not None$"),
        ({"steps": "many"}, "^steps: Input should be a valid integer, .*, not 'many'$"),
        ({"steps": 1.5}, "^steps: Input should be a valid integer, .*, not 1.5$"),
        ({"steps": 0}, "^steps: Input should be greater than or equal to 1, not 0$"),
        ({"steps": 13}, "^steps must not be 13$"),
        ({"rate": 0}, "^rate: Input should be greater than 0, not 0$"),
        ({"rate": math.nan}, "^rate: Input should be a finite number, not nan$"),
        ({"own": math.nan}, "^own: Input should be a finite number, not nan$"),
        ({"weight": math.inf}, "^weight: Input should be a finite number, not inf$"),
        ({"weight": -0.1}, "^weight: Input should be greater than or equal to 0, not -0.1$"),
        ({"share": 1.1}, "^share: Input should be less than or equal to 1, not 1.1$"),
        ({"sampling_steps": 1001}, "^sampling_steps: Input should be less than or equal to 1000, not 1001$"),
        ({"words": ["unknown"]}, "^unknown word 'unknown'$"),
    ],
)
def test_what_does_not_fit_is_named(values: dict[str, object], message: str) -> None:
    with pytest.raises(EraseBenchError, match=message):
        make_plugin(Plain, {"where": "inside", **values})


def test_what_is_missing_is_named() -> None:
    with pytest.raises(EraseBenchError, match=r"^where: Field required$"):
        make_plugin(Plain, {})


def test_an_unknown_name_is_an_error_of_its_own() -> None:
    with pytest.raises(UnknownNameError):
        make_plugin(Plain, {"were": "inside"})


def test_pydantics_dataclasses_are_validated_in_python_too() -> None:
    given: Any = {"where": "inside", "step": 3}
    with pytest.raises(EraseBenchError, match=r"^steps: Input should be greater than or equal to 1, not 0$"):
        Validated("inside", 0)
    with pytest.raises(EraseBenchError, match=r"^where: Input should be 'inside' or 'outside', not 'above'$"):
        Validated("above")  # type: ignore[arg-type]
    with pytest.raises(EraseBenchError, match=r"^step: Unexpected keyword argument, not 3$"):
        Validated(**given)
    with pytest.raises(EraseBenchError, match=r"^steps: "):
        dataclasses.replace(Validated("inside"), steps=-1)


def test_what_a_method_need_not_have() -> None:
    method, concepts = Nothing(), [concept("church")]
    assert (method.version, method.guidance_only, method.low_rank) == (1, False, False)
    assert method.resolved(concepts) is method
    assert (method.identity(), method.judges("photo", concepts)) == ({}, ())
    method.check("photo", concepts)


def test_values_fill_only_what_is_none() -> None:
    method = make_plugin(Plain, {"where": "inside", "rate": None})
    assert method.filled({"rate": 1.0, "steps": 7}) == dataclasses.replace(method, rate=1.0)


def test_what_is_not_resolved_is_no_number() -> None:
    assert decided(0.0) == 0.0
    with pytest.raises(TypeError, match=r"call resolved\(concepts\) first"):
        decided(None)
