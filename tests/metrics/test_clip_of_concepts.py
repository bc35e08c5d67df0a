"""CLIP scores of images of the erased concept and of others, by hand."""

from __future__ import annotations

import pandas as pd
import pytest

from erasebench.metrics.metric import load_metrics
from tests.metrics.measurements import of_probes

ROW = of_probes(
    concept=pd.DataFrame({"style": [0.9, 0.1], "label": "style", "clip": [20.0, 22.0]}),
    others=pd.DataFrame({"style": [0.1, 0.1, 0.1], "label": "style", "clip": [30.0, 31.0, 35.0]}),
)


def test_by_hand() -> None:
    metrics = load_metrics()
    found = {name: metrics[name].measure(ROW, None) for name in ("clip_e", "clip_s", "h_a")}
    assert [(one.value, one.n) for one in found.values()] == [(21, 2), (32, 3), (11, 5)]
    assert all(one.low < one.value < one.high for one in found.values())
    assert [metrics[name].direction for name in found] == ["lower", "higher", "higher"]
    assert {metrics[name].note(ROW) for name in found} == {"a-clip"}


def test_they_are_not_the_scores_of_the_first_judge_and_say_whom_they_need() -> None:
    metrics = load_metrics()
    assert metrics["clip_e"].roles == {"clip": ("concept",)} and metrics["clip_s"].roles == {"clip": ("others",)}
    values = metrics["clip_s"].values(ROW, None)
    assert values is not None and list(values.items()) == [("0", 30), ("1", 31), ("2", 35)]
    with pytest.raises(KeyError, match="clip"):
        metrics["clip_e"].measure(of_probes(concept=pd.DataFrame({"style": [0.9], "label": "style"})), None)
