"""Composition kept, counted by hand."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd
import pytest

from erasebench.metrics.composition import CompositionKept
from erasebench.metrics.metric import Measured
from erasebench.metrics.stats import wilson
from tests.metrics.measurements import of_probes


def row(scores: list[float]) -> Measured:
    """Images of prompts for a church and a pump, with the pump's score."""
    return of_probes(composition=pd.DataFrame({"pump": scores, "church": 0.9, "label": "pump"}))


BASE = row([0.9, 0.8, 0.1, 0.9, 0.6])


def test_by_hand() -> None:
    found = CompositionKept().measure(row([0.9, 0.1, 0.9, 0.8, 0.2]), BASE)
    assert (found.value, found.n) == (50, 4), "the third had no pump before"
    assert (found.low, found.high) == pytest.approx([100 * end for end in wilson(2, 4)])
    values = CompositionKept().values(row([0.9, 0.1, 0.9, 0.8, 0.2]), BASE)
    assert values is not None
    assert list(values.items()) == [("0", True), ("1", False), ("3", True), ("4", False)]
    assert CompositionKept().measure(BASE, BASE).value == 100


def test_undefined() -> None:
    own = row([0.9] * 5)
    assert not CompositionKept().measure(own, None).defined
    assert not CompositionKept().measure(own, row([0.1] * 5)).defined, "the unerased model draws no other object"
    other = replace(BASE, scores=BASE.scores.assign(seed=range(1, 6)))
    assert not CompositionKept().measure(own, other).defined, "other seeds"
