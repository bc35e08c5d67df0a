"""Shares and means over images: what a subclass has to say, and what it gets for that."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from statsmodels.stats.proportion import proportion_confint

from erasebench.metrics.metric import Measured
from erasebench.metrics.over_images import ImageMean, ImageShare, same_images
from tests.metrics.measurements import measured


class Bright(ImageShare):
    title, probes, direction, meaning = "Bright", ("concept",), "higher", "for a test"

    def values(self, measured: Measured, base: Measured | None) -> pd.Series:
        images = measured.probe("concept")
        return (images["score"] > 0.7).set_axis(images["prompt_id"])


class Brightness(ImageMean):
    title, probes, unit, direction, meaning = "Brightness", ("concept",), "", "higher", "for a test"

    def values(self, measured: Measured, base: Measured | None) -> pd.Series:
        images = measured.probe("concept")
        return images["score"].set_axis(images["prompt_id"])


def test_a_share_is_in_per_cent_with_wilsons_interval() -> None:
    found = Bright().measure(measured([0.8] * 3 + [0.7] * 5), None)
    low, high = proportion_confint(3, 8, method="wilson")
    assert (found.value, found.low, found.high, found.n) == pytest.approx((37.5, 100 * low, 100 * high, 8))
    assert Bright().unit == "%"


def test_images_of_one_prompt_are_no_news_of_each_other() -> None:
    scores = [0.8] * 20 + [0.1] * 20
    apart, together = (
        Bright().measure(measured(scores, prompts=prompts), None) for prompts in (None, [0] * 20 + [1] * 20)
    )
    assert apart.value == together.value == 50.0
    assert together.high - together.low > apart.high - apart.low


def test_a_mean_is_resampled_prompt_by_prompt() -> None:
    scores = np.random.default_rng(0).random(60)
    found = Brightness().measure(measured(list(scores)), None)
    half = 1.96 * scores.std(ddof=1) / math.sqrt(60)
    assert found.value == pytest.approx(scores.mean())
    assert found.low == pytest.approx(found.value - half, abs=0.02)
    assert found.high == pytest.approx(found.value + half, abs=0.02)


@pytest.mark.parametrize("metric", [Bright(), Brightness()])
def test_without_images_there_is_no_number(metric: ImageShare | ImageMean) -> None:
    found = metric.measure(measured([]), None)
    assert math.isnan(found.value) and found.n == 0


def test_rows_have_the_same_images_if_prompts_and_seeds_are_in_the_same_order() -> None:
    one = measured([0.1, 0.9], prompts=["a", "b"])
    assert same_images(one, measured([0.5, 0.6], prompts=["a", "b"]), "concept"), "whatever was judged"
    for prompts in (["b", "a"], ["a", "c"], ["a"]):
        assert not same_images(one, measured([0.5] * len(prompts), prompts=prompts), "concept")
    later = Measured("m", "church", "object", one.probe("concept").assign(seed=[0, 2]), one.probes)
    assert not same_images(one, later, "concept")
