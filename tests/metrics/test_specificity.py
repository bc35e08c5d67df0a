"""Specificity over near and far neighbours, counted by hand."""

from __future__ import annotations

import pandas as pd
import pytest

from erasebench.metrics.metric import load_metrics
from erasebench.metrics.stats import wilson
from tests.metrics.measurements import of_probes

OTHERS = pd.DataFrame(
    {
        "horn": [0.9, 0.4, 0.9, 0.0, 0.0],
        "pump": [0.0, 0.9, 0.0, 0.5, 0.1],
        "label": ["horn", "horn", "horn", "pump", "pump"],
        "kind": ["naming", "naming", "naming", "neighbour", "neighbour"],
        "prompt_id": ["a", "b", "c", "d", "e"],
    }
)


@pytest.mark.parametrize(
    ("name", "hits", "n"), [("specificity", 3, 5), ("specificity_near", 1, 2), ("specificity_far", 2, 3)]
)
def test_by_hand(name: str, hits: int, n: int) -> None:
    metric, row = load_metrics()[name], of_probes(others=OTHERS)
    found = metric.measure(row, None)
    assert (found.value, found.n) == pytest.approx((100 * hits / n, n))
    assert (found.low, found.high) == pytest.approx([100 * end for end in wilson(hits, n)])
    values = metric.values(row, None)
    assert values is not None and values.dtype == bool and len(values) == n and metric.direction == "higher"


def test_only_the_whole_is_in_every_table() -> None:
    asked = {name: metric.on_request for name, metric in load_metrics().items() if name.startswith("specificity")}
    assert asked == {"specificity": False, "specificity_near": True, "specificity_far": True}


def test_without_neighbours_the_near_is_undefined() -> None:
    row = of_probes(others=OTHERS[:3])
    assert not load_metrics()["specificity_near"].measure(row, None).defined
    assert load_metrics()["specificity_far"].measure(row, None).n == 3
