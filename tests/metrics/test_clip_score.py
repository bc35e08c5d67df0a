from __future__ import annotations

from erasebench.metrics.clip_score import ClipScore
from tests.metrics.measurements import measured


def test_the_mean_over_unrelated_prompts_in_the_unit_given() -> None:
    estimate = ClipScore().measure(measured([30.0, 31, 32, 33], prompts=[0, 0, 1, 1], probe="retain"), None)
    assert (estimate.value, estimate.n, estimate.low, estimate.high) == (31.5, 4, 30.5, 32.5)
    assert not ClipScore().measure(measured([30.0, 31]), None).defined, "the concept's own images do not count"
