"""Distances to the unerased model's images, by hand."""

from __future__ import annotations

import pandas as pd
import pytest

from erasebench.metrics.metric import load_metrics
from tests.metrics.measurements import of_probes


@pytest.mark.parametrize(("name", "value", "direction"), [("distance_e", 0.5, "higher"), ("distance_s", 0.2, "lower")])
def test_by_hand(name: str, value: float, direction: str) -> None:
    row = of_probes(
        concept=pd.DataFrame({"style": [0.9, 0.1], "label": "style", "distance": [0.4, 0.6]}),
        others=pd.DataFrame({"style": [0.1, 0.1, 0.1], "label": "style", "distance": [0.1, 0.2, 0.3]}),
    )
    metric = load_metrics()[name]
    found = metric.measure(row, None)
    assert found.value == pytest.approx(value) and found.low < found.value < found.high
    assert metric.note(row) == "a-distance" and metric.direction == direction
    assert list(metric.roles) == ["distance"] and metric.on_request
