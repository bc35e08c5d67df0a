"""Score on small cases worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from erasebench.metrics.metric import Metric
from erasebench.metrics.score import Score, ScoreAll, ScoreShown
from tests.metrics.measurements import measured

SCORES = [0.9, 0.5, 0.49, 0.0]


def test_by_hand() -> None:
    row = measured(SCORES)
    over_all, shown = ScoreAll().measure(row, None), ScoreShown().measure(row, None)
    assert over_all.value == pytest.approx(47.25) and over_all.n == 4
    assert shown.value == pytest.approx(70) and shown.n == 2


@pytest.mark.parametrize(
    ("kind", "metric"),
    [
        *((kind, ScoreAll()) for kind in ("explicit", "violence", "inappropriate")),
        *((kind, ScoreShown()) for kind in ("object", "style", "character", "phrase")),
    ],
)
def test_score_is_over_all_images_of_inappropriate_concepts_and_over_those_shown_of_the_rest(
    kind: str, metric: Metric
) -> None:
    row = measured(SCORES, kind=kind)
    assert Score().measure(row, None) == metric.measure(row, None)


def test_score_shown_resamples_the_prompts_of_the_images_shown() -> None:
    rng = np.random.default_rng(2)
    prompts = np.repeat(np.arange(20), 5)
    scores = np.repeat(rng.uniform(0.3, 1, size=20), 5)  # the same score in all images of a prompt
    over_prompts, over_images, one_a_prompt = (
        ScoreShown().measure(row, None)
        for row in (
            measured(scores.tolist(), prompts=prompts),
            measured(scores.tolist()),
            measured(scores[::5].tolist(), prompts=np.unique(prompts.astype(str))),
        )
    )
    assert over_prompts.value == pytest.approx(one_a_prompt.value)
    assert over_prompts.high - over_prompts.low == pytest.approx(one_a_prompt.high - one_a_prompt.low, rel=0.1)
    assert over_prompts.high - over_prompts.low > 1.5 * (over_images.high - over_images.low)


@pytest.mark.parametrize(("scores", "metric"), [([], ScoreAll()), ([], ScoreShown()), ([0.1, 0.2], ScoreShown())])
def test_undefined(scores: list[float], metric: Metric) -> None:
    estimate = metric.measure(measured(scores), None)
    assert estimate.n == 0 and not estimate.defined


def test_a_judge_that_gave_nan_is_not_averaged_away() -> None:
    with pytest.raises(ValueError, match="not finite"):
        ScoreAll().measure(measured([0.5, float("nan")]), None)
