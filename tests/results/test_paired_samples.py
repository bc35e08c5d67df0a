from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from erasebench.errors import EraseBenchError
from erasebench.metrics.attack_success import drawn_prompts
from erasebench.results.compare import compare
from erasebench.results.verdicts import ALL, Margin
from tests.results.planted import NONE, attacked, find, make_run, one_row


def test_numbers_are_those_of_scipy_on_prompt_means() -> None:
    rng = np.random.default_rng(0)
    before, after = rng.normal(30, 3, (2, 50)), rng.normal(29, 3, (2, 50))
    hits = rng.random((2, 40, 3)) < 0.3
    rows = [("uce", "church")]
    runs = [make_run({rows[0]: hits[side]}, {rows[0]: (before, after)[side][0]}, seed=side) for side in (0, 1)]
    comparison = compare(runs[0], runs[1])
    clip, ratio = find(comparison, "clip"), find(comparison, "ratio")
    expected = stats.ttest_rel(after[0], before[0])
    assert clip.difference.value == pytest.approx(after[0].mean() - before[0].mean())
    interval = expected.confidence_interval()
    assert (clip.difference.low, clip.difference.high) == pytest.approx((interval.low, interval.high))
    # Two metrics are judged; CLIP is worse where it is lower.
    sided = {"clip": stats.ttest_rel(before[0], after[0], alternative="greater").pvalue}
    means = 100 * hits.mean(axis=2)
    sided["ratio"] = stats.ttest_rel(means[1], means[0], alternative="greater").pvalue
    smaller = min(sided, key=sided.__getitem__)
    assert find(comparison, smaller).p == pytest.approx(min(1.0, 2 * sided[smaller]))
    assert ratio.before == pytest.approx(means[0].mean()) and ratio.difference.n == 40


@pytest.mark.parametrize(("score", "unmoved"), [(0.2005, True), (0.202, False)])
def test_rounding_does_not_count_as_movement(score: float, unmoved: bool) -> None:
    first, second = (make_run({("uce", "church"): [0.2, value]}) for value in (0.2, score))
    assert find(compare(first, second), "ratio").unmoved is unmoved
    at_the_threshold = make_run({("uce", "church"): [0.2, 0.4999]}), make_run({("uce", "church"): [0.2, 0.5001]})
    assert not find(compare(*at_the_threshold), "ratio").unmoved


def test_what_erasures_differ_by_is_in_interval_and_p() -> None:
    names = ("esd-x", "esd-x[seed=1]", "esd-x[seed=2]")
    before = make_run({(name, concept): np.arange(40) < 2 for name in names for concept in ("church", "dog")})
    shown = {"church": (2, 12, 31), "dog": (12, 2, 31)}
    after = make_run(
        {(name, concept): np.arange(40) < shown[concept][k] for k, name in enumerate(names) for concept in shown}
    )
    comparison = compare(before, after)
    over_seeds = find(comparison, "ratio", "church", "esd-x (all seeds)")
    rises = [0.0, 25.0, 72.5]
    half = stats.ttest_1samp(rises, 0).confidence_interval().high - np.mean(rises)
    assert (
        over_seeds.difference.value == pytest.approx(np.mean(rises))
        and over_seeds.difference.low < np.mean(rises) - half
    )
    assert over_seeds.test.endswith(", and erasures") and over_seeds.verdict == "inconclusive"
    assert find(comparison, "ratio", ALL, "esd-x").test.endswith(", and erasures")
    # Four degrees of freedom, and a mean over two concepts: half as wide by squares, and a smaller quantile.
    error = np.sqrt(np.var(rises, ddof=1) / 6) * stats.t.ppf(0.975, 4)
    both = find(comparison, "ratio", ALL, "esd-x").difference
    assert error < both.value - both.low < 1.3 * error


def test_unrelated_prompts_of_several_concepts_are_the_same_prompts() -> None:
    rows = [("uce", "church"), ("uce", "dog")]
    hits = dict.fromkeys(rows, NONE[:10])
    clip = dict.fromkeys(rows, np.linspace(20, 40, 30))
    change = find(compare(make_run(hits, clip), make_run(hits, clip)), "clip", ALL)
    assert change.difference.n == 30
    assert find(compare(make_run(hits, clip), make_run(hits, clip)), "ratio", ALL).difference.n == 20


def test_the_robust_rate_is_over_prompts_that_both_runs_draw() -> None:
    drawn = np.arange(60) < 50
    stands = {"rab": np.arange(60) < 55}
    base, new = attacked(stands, drawn), attacked({"rab": np.arange(60) < 20}, drawn | (np.arange(60) > 57), seed=1)
    change = find(compare(base, new), "robust-rate", attack="rab")
    assert (change.before, change.after, change.difference.n, change.verdict) == (100, 40, 50, "worse")
    assert len(drawn_prompts(new.attacks[new.attacks["method"] == "sd"])) > 50
    assert find(compare(base, new), "asr-confirmed", attack="rab").verdict == "not judged"
    assert find(compare(base, new, ["asr-confirmed"]), "asr-confirmed", attack="rab").verdict == "worse"


def test_fid_is_shown_and_fails_only_if_asked_to() -> None:
    base, new = one_row(NONE, fid=1.0), one_row(NONE, fid=2.0)
    comparison = compare(base, new)
    change = find(comparison, "fid")
    assert change.verdict == "not judged" and change.moved and comparison.verdict == "no worse"
    assert (change.difference.low, change.difference.high) == pytest.approx((1 - math.sqrt(0.02), 1 + math.sqrt(0.02)))
    assert find(compare(base, new, ["fid"]), "fid").verdict == "worse"
    assert compare(base, new, ["fid"], {"fid": Margin(150, relative=True)}).verdict == "no worse"
    assert compare(base, one_row(NONE, fid=1.11), ["fid"]).verdict == "inconclusive"


def test_scores_that_are_not_numbers_are_refused() -> None:
    base = one_row(NONE, clip={("sd", "church"): np.ones(5), ("uce", "church"): np.full(5, np.nan)})
    with pytest.raises(EraseBenchError, match="clip of uce, church cannot be compared: a value is not finite"):
        compare(base, base)
