"""Intervals and AUC against independent formulations."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest

from erasebench.metrics import stats
from erasebench.metrics.stats import (
    bootstrap,
    clusters,
    effective_size,
    mcnemar_mid_p,
    mean,
    paired_difference,
    rank_auc,
    rate,
    resampled,
    wilson,
)
from tests.marks import first_quick


@pytest.mark.parametrize(("hits", "n"), [(0, 10), (1, 10), (7, 10), (10, 10), (450, 500)])
def test_wilson_inverts_the_score_test(hits: int, n: int) -> None:
    # The limits are the proportions p for which |hits/n - p| is exactly 1.96 standard errors under p.
    for limit in wilson(hits, n):
        if 0 < limit < 1:
            error = math.sqrt(limit * (1 - limit) / n)
            assert abs(hits / n - limit) / error == pytest.approx(1.959964)
    low, high = wilson(hits, n)
    assert low <= hits / n <= high


def test_wilson_needs_trials() -> None:
    with pytest.raises(ValueError, match="at least one"):
        wilson(0, 0)


@pytest.mark.parametrize(
    ("truth", "correlation"), first_quick([(0.05, 0.5), (0.1, 0.5), (0.1, 0.3), (0.3, 0.5), (0.3, 0.1), (0.5, 0.3)])
)
def test_the_interval_of_a_rate_covers_the_truth_and_the_bootstrap_joined_to_wilsons_covers_it_less(
    truth: float, correlation: float
) -> None:
    """20 prompts with 10 images each; how often a prompt shows the concept is drawn from a beta distribution."""
    prompts, images, runs, joined_runs = 20, 10, 4000, 200
    rng, groups, spread = np.random.default_rng(0), np.repeat(np.arange(prompts), images), 1 / correlation - 1
    covered, joined = np.zeros(runs, dtype=bool), 0
    for run in range(runs):
        shares = rng.beta(truth * spread, (1 - truth) * spread, size=(prompts, 1))
        hits = (rng.random((prompts, images)) < shares).ravel()
        estimate = rate(hits, groups)
        covered[run] = estimate.low <= truth <= estimate.high
        if run < joined_runs:
            over_prompts, over_images = bootstrap(hits, 300, groups=groups), wilson(int(hits.sum()), len(hits))
            joined += min(over_prompts[0], over_images[0]) <= truth <= max(over_prompts[1], over_images[1])
    assert 0.90 <= round(covered.mean(), 2) <= 0.96
    assert joined < covered[:joined_runs].sum()
    if correlation == 0.5 and truth <= 0.1:
        assert joined / joined_runs < 0.87


def test_effective_size_by_hand() -> None:
    # Means 1, 1/2, 0: SE^2 = (1/4 + 0 + 1/4) / (2 * 3) = 1/12, and p(1 - p) / SE^2 = 3; t of two degrees is 4.3027.
    hits, cluster = np.array([1, 1, 1, 0, 0, 0], dtype=bool), np.array([0, 0, 1, 1, 2, 2])
    assert effective_size(hits, cluster) == pytest.approx(3 * (1.959964 / 4.302653) ** 2)
    # Prompts that split more evenly than chance would are worth no more than their images.
    hits, cluster = np.array([1, 0] * 9 + [1, 1]).astype(bool), np.repeat(np.arange(10), 2)
    assert effective_size(hits, cluster) == pytest.approx(20 * (1.959964 / 2.262157) ** 2)


def test_prompts_that_agree_count_once_each() -> None:
    cluster = np.array([0, 0, 1, 1, 1, 1])
    for hits in ([1, 1, 1, 1, 1, 1], [0, 0, 0, 0, 0, 0], [1, 0, 1, 1, 0, 0]):
        assert effective_size(np.array(hits, dtype=bool), cluster) == 2


def test_prompts_with_unequal_numbers_of_images_against_the_bootstrap() -> None:
    rng = np.random.default_rng(5)
    groups = np.repeat(np.arange(200), rng.integers(1, 12, size=200))
    hits = rng.random(len(groups)) < rng.beta(1, 1, size=200)[groups]
    estimate, resampling = rate(hits, groups), bootstrap(hits, groups=groups)
    assert (estimate.low, estimate.high) == pytest.approx(resampling, abs=0.01)


@pytest.mark.parametrize("groups", [None, np.arange(30), np.zeros(30)])
def test_a_rate_of_one_image_a_prompt_or_of_one_prompt_has_wilsons_interval(groups: object) -> None:
    hits = np.arange(30) < 7
    estimate = rate(hits, None if groups is None else np.asarray(groups))
    assert (estimate.low, estimate.high) == wilson(7, 30)


def test_a_rate_of_nothing_is_undefined() -> None:
    assert rate([]).n == 0 and not rate([]).defined


def test_rank_auc_against_all_pairs() -> None:
    rng = np.random.default_rng(0)
    positives, negatives = rng.integers(0, 9, size=40), rng.integers(0, 7, size=30)
    pairs = [1.0 if p > n else 0.5 if p == n else 0.0 for p in positives for n in negatives]
    assert rank_auc(positives, negatives) == pytest.approx(sum(pairs) / len(pairs))
    assert rank_auc([1, 2], [0]) == 1
    assert rank_auc([1.0], [1.0]) == 0.5


def test_bootstrap_is_close_to_the_normal_interval_and_seeded() -> None:
    values = np.random.default_rng(1).normal(5, 2, size=400)
    low, high = bootstrap(values)
    error = values.std() / 20
    assert low == pytest.approx(values.mean() - 1.96 * error, abs=0.3 * error)
    assert high == pytest.approx(values.mean() + 1.96 * error, abs=0.3 * error)
    assert (low, high) == bootstrap(values)


def test_cluster_bootstrap_against_a_loop_over_whole_prompts() -> None:
    rng = np.random.default_rng(2)
    groups = np.repeat(["a", "b", "c", "d", "e", "f"], [1, 2, 3, 4, 5, 6])
    values = rng.normal(size=len(groups)) + np.repeat(rng.normal(0, 3, size=6), [1, 2, 3, 4, 5, 6])
    order = rng.permutation(len(groups))
    means = []
    for _ in range(5000):
        drawn = rng.choice(["a", "b", "c", "d", "e", "f"], size=6)
        means.append(np.concatenate([values[groups == name] for name in drawn]).mean())
    expected = np.quantile(means, (0.025, 0.975))
    found = bootstrap(values[order], resamples=5000, groups=groups[order])
    assert found == pytest.approx(expected, abs=0.1)
    assert found[1] - found[0] > 1.5 * np.diff(bootstrap(values))[0]  # the images alone would claim too much


def test_groups_of_copies_count_once() -> None:
    # Ten equal images of a prompt are one observation.
    values = np.random.default_rng(3).normal(size=50)
    copied = bootstrap(np.repeat(values, 10), groups=np.repeat(np.arange(50), 10))
    assert copied == pytest.approx(bootstrap(values))


@pytest.mark.parametrize("groups", [np.arange(30), np.zeros(30), ["only"] * 30])
def test_one_image_a_prompt_and_one_prompt_for_all_are_resampled_by_image(groups: object) -> None:
    values = np.random.default_rng(4).normal(size=30)
    assert bootstrap(values, groups=np.asarray(groups)) == bootstrap(values)


def test_blocks_do_not_change_the_draw_of_a_block_and_cover_all(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = np.concatenate(list(resampled(8, 10)))
    monkeypatch.setattr(stats, "_BLOCK", 24)
    blocks = list(resampled(8, 10))
    assert [len(block) for block in blocks] == [3, 3, 3, 1]
    assert np.array_equal(blocks[0], whole[:3])
    assert whole.shape == (10, 8) and whole.min() >= 0 and whole.max() < 8


def test_mean_has_a_value_scale_and_n() -> None:
    estimate = mean([0.2, 0.4, 0.6], scale=100)
    assert estimate.value == pytest.approx(40) and estimate.n == 3
    assert estimate.low < 40 < estimate.high and estimate.defined


def test_mean_of_nothing_and_of_one() -> None:
    nothing = mean([])
    assert nothing.n == 0 and not nothing.defined and math.isnan(nothing.low) and math.isnan(nothing.high)
    one = mean([0.5])
    assert (one.value, one.n) == (0.5, 1) and math.isnan(one.low) and math.isnan(one.high)


def test_one_prompt_left_of_many_has_no_interval() -> None:
    kept = np.array([True, True, False, False])
    estimate = mean([0.5, 0.7, 0.1, 0.1], ["a", "a", "b", "b"], kept=kept)
    assert estimate.value == pytest.approx(0.6) and estimate.n == 2 and math.isnan(estimate.low)


def test_bad_values_and_groups_are_refused() -> None:
    with pytest.raises(ValueError, match="1 of 2 scores are not finite"):
        mean([0.1, math.nan])
    with pytest.raises(ValueError, match=r"shape \(1, 2\)"):
        mean([[0.1, 0.2]])
    with pytest.raises(ValueError, match="3 images have groups of shape"):
        clusters([0, 1], 3)
    with pytest.raises(ValueError, match="at least one value"):
        bootstrap([])


def pairs(gained: int, lost: int, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Hits after and before of n prompts, the unchanged ones alternating."""
    after, before = np.arange(n) % 2 == 0, np.arange(n) % 2 == 0
    after[:gained], before[:gained] = True, False
    after[gained : gained + lost], before[gained : gained + lost] = False, True
    return after, before


@pytest.mark.parametrize("gained", range(6))
@pytest.mark.parametrize("lost", range(6))
def test_mid_p_against_all_ways_in_which_changed_prompts_could_have_gone(gained: int, lost: int) -> None:
    seen = abs(gained - lost)
    splits = [abs(sum(signs)) for signs in product((-1, 1), repeat=gained + lost)]
    expected = np.mean([1.0 if split > seen else 0.5 if split == seen else 0.0 for split in splits])
    found = mcnemar_mid_p(*pairs(gained, lost, 15))
    assert found == pytest.approx(expected if gained + lost else 1)
    assert found == mcnemar_mid_p(*pairs(lost, gained, 30)), "neither the direction nor the unchanged count"


def test_mid_p_as_published() -> None:
    # Fagerland, Lydersen and Laake 2013, table 1 (Bentur et al.): of 21 children 7 changed one way, 1 the other.
    assert mcnemar_mid_p(*pairs(7, 1, 21)) == pytest.approx(0.0391, abs=5e-5)


def test_mid_p_is_statsmodels_exact_p_less_the_probability_of_what_was_seen() -> None:
    from statsmodels.stats.contingency_tables import mcnemar

    for gained, lost in ((1, 7), (12, 5), (40, 20), (0, 9)):
        exact = mcnemar([[3, gained], [lost, 2]], exact=True).pvalue
        seen = math.comb(gained + lost, lost) / 2 ** (gained + lost)
        assert mcnemar_mid_p(*pairs(gained, lost, 80)) == pytest.approx(exact - seen)


def test_the_interval_of_a_paired_difference_as_published() -> None:
    # R's PropCIs::scoreci.mp(60, 20, 1000), whose difference is the other way round.
    estimate = paired_difference(*pairs(60, 20, 1000))
    assert (estimate.value, estimate.n) == (0.04, 1000)
    assert (estimate.low, estimate.high) == pytest.approx((0.0231, 0.0584), abs=5e-5)


@pytest.mark.parametrize(("gained", "lost", "n"), [(3, 1, 10), (12, 2, 50), (0, 0, 20), (5, 0, 20), (0, 7, 20)])
def test_the_interval_of_a_paired_difference_inverts_the_score_test(gained: int, lost: int, n: int) -> None:
    """The likeliest rates under each limit are searched for over a grid; there the score is 1.96 errors away."""
    estimate = paired_difference(*pairs(gained, lost, n))
    for limit in (estimate.low, estimate.high):
        loss = np.linspace(max(0.0, -limit), (1 - limit) / 2, 400_001)[1:-1]
        likelihood = np.log1p(-2 * loss - limit) * (n - gained - lost)
        likelihood += gained * np.log(loss + limit) + lost * np.log(loss)
        best = loss[np.argmax(likelihood)]
        error = math.sqrt((2 * best + limit - limit**2) / n)
        assert abs(estimate.value - limit) / error == pytest.approx(1.959964, rel=2e-3)


@pytest.mark.parametrize("n", [10, 40])
def test_the_interval_of_a_paired_difference_covers_the_truth(n: int) -> None:
    """Over all outcomes, each with its multinomial probability."""
    for up, down in ((0.3, 0.05), (0.1, 0.1), (0.5, 0.2), (0.05, 0.0)):
        covered = 0.0
        for gained in range(n + 1):
            for lost in range(n + 1 - gained):
                ways = math.comb(n, gained) * math.comb(n - gained, lost)
                chance = ways * up**gained * down**lost * (1 - up - down) ** (n - gained - lost)
                estimate = paired_difference(*pairs(gained, lost, n)) if chance > 1e-9 else None
                covered += chance if estimate and estimate.low <= up - down <= estimate.high else 0
        assert covered > 0.93, (up, down)


def test_a_paired_difference_has_a_width_and_stays_within_its_bounds() -> None:
    for gained, lost, n in ((0, 0, 5), (5, 0, 5), (0, 5, 5), (1, 0, 1)):
        estimate = paired_difference(*pairs(gained, lost, n))
        assert -1 <= estimate.low <= estimate.value <= estimate.high <= 1 and estimate.low < estimate.high
    assert paired_difference([], []).n == 0 and not paired_difference([], []).defined
    for function in (paired_difference, mcnemar_mid_p):
        with pytest.raises(ValueError, match="1 prompts before and 2 after are not the same prompts"):
            function([True, False], [True])
