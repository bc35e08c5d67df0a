"""What is left of the CLIP score, by hand; its interval against fresh prompts."""

from __future__ import annotations

import math

import numpy as np
import pytest

from erasebench.metrics.clip_kept import ClipKept
from tests.metrics.measurements import measured


def kept(own: list[float], unerased: list[float], prompts: object = None) -> tuple[float, float, float, int]:
    rows = (measured(scores, prompts=prompts, probe="retain") for scores in (own, unerased))  # type: ignore[arg-type]
    found = ClipKept().measure(*rows)
    return found.value, found.low, found.high, found.n


def test_by_hand() -> None:
    assert kept([20.0, 10], [30.0, 30]) == pytest.approx((50, 100 / 3, 200 / 3, 2))
    assert kept([20.0, 20], [20.0, 20]) == kept([25.0, 25], [20.0, 20]) == (100, 100, 100, 2), "no more than all"
    one, other = [10.0, 20, 15, 15], [20.0] * 4
    assert kept(one, other, "aabb") == pytest.approx((75, 75, 75, 4)), "prompts are resampled, not images"


def test_without_the_same_images_of_the_unerased_model_it_is_undefined() -> None:
    row, fewer = (measured([20.0] * n, probe="retain") for n in (4, 3))
    assert not ClipKept().measure(row, None).defined and not ClipKept().measure(row, fewer).defined
    assert not ClipKept().measure(*(measured([], probe="retain"),) * 2).defined
    assert ClipKept().measure(row, row).value == 100
    assert math.isnan(kept([20.0], [25.0])[1]) and kept([20.0], [25.0])[0] == 80
    assert math.isnan(kept([20.0], [0.0])[0])


@pytest.mark.slow
def test_its_interval_covers_the_share_that_is_kept() -> None:
    rng, covered = np.random.default_rng(0), 0
    for _ in range(200):
        unerased = rng.normal(30, 4, 60)
        _, low, high, _ = kept((0.9 * unerased + rng.normal(0, 2, 60)).tolist(), unerased.tolist())
        covered += low <= 90 <= high
    assert 0.9 <= covered / 200 <= 0.99
