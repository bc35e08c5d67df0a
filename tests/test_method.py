"""Hyper-parameters of methods, and what training that diverges says."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import pytest

from erasebench.errors import EraseBenchError, UnknownNameError
from erasebench.method import check_loss, hyper_parameters


@dataclass(frozen=True)
class Made:
    """A method with one hyper-parameter of each sort."""

    where: Literal["inside", "outside"]
    steps: int = 1000
    rate: float = 1e-5
    seen: list[str] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise EraseBenchError(f"steps must be positive, not {self.steps}")


def test_all_hyper_parameters_are_given_with_their_defaults() -> None:
    assert hyper_parameters(Made, {"where": "inside"}) == {"where": "inside", "steps": 1000, "rate": 1e-5}


def test_values_are_converted() -> None:
    found = hyper_parameters(Made, {"where": "inside", "steps": "20", "rate": "1e-4"})
    assert (found["steps"], found["rate"]) == (20, 1e-4)
    assert isinstance(hyper_parameters(Made, {"where": "inside", "rate": 1})["rate"], float)


@pytest.mark.parametrize(
    ("presets", "message"),
    [
        ({"where": "inside", "step": 3}, "unknown hyper-parameter 'step'; nearest: steps"),
        ({"where": "inside", "seen": []}, "unknown hyper-parameter 'seen'"),
        ({"where": "above"}, "where: Input should be 'inside' or 'outside'"),
        ({}, "where: .*required"),
        ({"where": "inside", "steps": "many"}, "steps: Input should be a valid integer"),
        ({"where": "inside", "steps": 0}, "^steps must be positive, not 0$"),
    ],
)
def test_what_does_not_fit_is_named(presets: dict[str, object], message: str) -> None:
    with pytest.raises(EraseBenchError, match=message):
        hyper_parameters(Made, presets)


def test_an_unknown_name_is_an_error_of_its_own() -> None:
    with pytest.raises(UnknownNameError):
        hyper_parameters(Made, {"were": "inside"})


@pytest.mark.parametrize("loss", [float("nan"), float("inf"), -float("inf")])
def test_a_loss_that_is_not_finite(loss: float) -> None:
    with pytest.raises(FloatingPointError, match=f"diverged: the loss is {loss} at step 7"):
        check_loss(loss, 7)


def test_a_finite_loss_passes() -> None:
    check_loss(1e30, 1)
