"""Figures of training steps, kept and told."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pytest

from erasebench.plugins import AttackContext
from erasebench.training.trace import Trace, check_loss
from tests.tiny import erase_context


def test_figures_are_kept_and_told() -> None:
    told: list[Mapping[str, float]] = []
    trace = Trace(erase_context(steps=told), 3, done=[{"step": 1.0, "loss": 9.0}])
    trace.step(loss=2.0, word="church")
    trace.step(loss=1.0)
    assert trace.rows == [
        {"step": 1.0, "loss": 9.0},
        {"step": 2.0, "loss": 2.0, "word": "church"},
        {"step": 3.0, "loss": 1.0},
    ]
    assert told == [{"done": 2, "total": 3, "loss": 2.0}, {"done": 3, "total": 3, "loss": 1.0}]


def test_attacks_are_told_as_methods_are() -> None:
    told: list[tuple[int, int, Mapping[str, float]]] = []
    Trace(AttackContext(0, lambda *figures: told.append(figures)), 3).step(loss=2.0)
    assert told == [(1, 3, {"loss": 2.0})]


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_loss_that_is_no_number_is_an_error(loss: float) -> None:
    told: list[Mapping[str, float]] = []
    trace = Trace(erase_context(steps=told), 5)
    trace.step(loss=1.0)
    with pytest.raises(FloatingPointError, match="at step 2"):
        trace.step(loss=loss)
    assert len(told) == len(trace.rows) == 1


@pytest.mark.parametrize("loss", [float("nan"), float("inf"), -float("inf")])
def test_a_loss_that_is_not_finite(loss: float) -> None:
    with pytest.raises(FloatingPointError, match=f"diverged: the loss is {loss} at step 7"):
        check_loss(loss, 7)


def test_a_finite_loss_passes() -> None:
    check_loss(1e30, 1)
