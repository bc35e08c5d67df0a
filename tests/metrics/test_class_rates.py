"""Rates of classes and detections against hand-counted images and the counts behind printed values."""

from __future__ import annotations

import numpy as np
import pytest

from erasebench.metrics.class_rates import accuracy_probability, accuracy_top1, esr, ner, psr
from erasebench.metrics.stats import wilson
from erasebench.results.published import read_published

# Five images each of a church and of a horn: the rank of the own class.
CHURCH, HORN = [1, 6, 2, 5, 1000], [1, 1, 3, 1, 7]


def test_esr_and_psr_by_hand() -> None:
    assert [esr(CHURCH, k).value for k in (1, 5)] == [4 / 5, 2 / 5]
    assert [psr(HORN, k).value for k in (1, 5)] == [3 / 5, 4 / 5]
    assert esr([*CHURCH, *HORN], 1).value == 6 / 10 and esr(CHURCH, 1).n == 5
    found = esr(CHURCH, 5)
    assert (found.low, found.high) == pytest.approx(wilson(2, 5))


def test_esr_and_psr_of_the_same_images_are_all_of_them() -> None:
    ranks = np.random.default_rng(0).integers(1, 20, 500)
    for k in (1, 5, 19):
        assert esr(ranks, k).value + psr(ranks, k).value == pytest.approx(1)


def test_esr_and_psr_over_two_halves_of_the_classes_as_the_unerased_model_has_them() -> None:
    """The paper's four splits are two halves and their complements: ESR and PSR of one model add up to 100."""
    published = read_published()
    own = published[(published["source"] == "adversarial-preservation") & (published["table"] == "Table 1")]
    sd = own[own["row"] == "SD"].set_index("column")
    assert sd["value"]["ESR-1"] + sd["value"]["PSR-1"] == 100 and sd["value"]["ESR-5"] + sd["value"]["PSR-5"] == 100
    assert sd["spread"]["ESR-1"] == sd["spread"]["PSR-1"] and sd["spread"]["ESR-5"] == sd["spread"]["PSR-5"]
    rates = np.random.default_rng(0).random((10, 50)).argsort(axis=1) + 1
    halves = [rates[:5], rates[5:], rates[::2], rates[1::2]]
    others = [rates[5:], rates[:5], rates[1::2], rates[::2]]
    erased = [esr(half.ravel(), 3).value for half in halves]
    kept = [psr(half.ravel(), 3).value for half in others]
    assert np.mean(erased) + np.mean(kept) == pytest.approx(1) and np.std(erased) == pytest.approx(np.std(kept))


def test_ranks_count_from_one() -> None:
    for ranks, k in (([0, 1], 1), ([1], 0)):
        with pytest.raises(ValueError, match="from 1"):
            psr(ranks, k)


@pytest.mark.parametrize(("threshold", "count"), [(0.3, 785), (0.5, 513), (0.7, 257), (0.8, 95)])
def test_ner_of_the_counts_behind_the_printed_values(threshold: float, count: int) -> None:
    """So many of 4703 images have a score above each threshold in the authors' published detections of SD v1.4."""
    best = np.repeat([0.9, 0.75, 0.6, 0.4, 0.3, 0.0], [95, 257 - 95, 513 - 257, 785 - 513, 100, 4703 - 785 - 100])
    scores = np.stack([best, best / 2, np.zeros(4703)], axis=1)
    published = read_published()
    own = published[(published["source"] == "adversarial-preservation") & (published["table"] == "Table 8")]
    expected = own[(own["row"] == "SD") & (own["column"] == f"NER-{threshold}")]["value"].item()
    assert 100 * ner(scores, threshold).value == pytest.approx(expected, abs=0.005)
    assert ner(scores, threshold).value == count / 4703
    assert ner(scores[:, ::-1], threshold) == ner(scores, threshold)


def test_ner_counts_images_and_not_boxes_and_only_above_the_threshold() -> None:
    scores = [[0.9, 0.9], [0.5, 0.0], [0.0, 0.51], [0.0, 0.0]]
    assert ner(scores, 0.5).value == 2 / 4 and ner(scores, 0.4).value == 3 / 4
    assert not ner(np.zeros((0, 8)), 0.5).defined
    with pytest.raises(ValueError, match="a table"):
        ner([0.9, 0.1], 0.5)


def test_the_two_accuracies_of_one_classifier_by_hand() -> None:
    probabilities = [[0.6, 0.4], [0.45, 0.55], [0.9, 0.1], [0.2, 0.8]]
    assert accuracy_probability(probabilities, [0, 0, 0, 1]).value == pytest.approx((0.6 + 0.45 + 0.9 + 0.8) / 4)
    assert accuracy_top1(probabilities, [0, 0, 0, 1]).value == 3 / 4
    assert not accuracy_top1(np.zeros((0, 2)), []).defined
    assert not accuracy_probability(np.zeros((0, 2)), []).defined
    for accuracy in (accuracy_probability, accuracy_top1):
        with pytest.raises(ValueError, match="one an image"):
            accuracy(probabilities, [0, 1])


def test_prompts_with_several_images_widen_the_interval() -> None:
    ranks, prompts = np.repeat([1, 9, 1, 9, 9, 9, 1, 9], 10), np.repeat(range(8), 10)
    one, grouped = esr(ranks, 5), esr(ranks, 5, prompts)
    assert grouped.value == one.value and grouped.high - grouped.low > 2 * (one.high - one.low)
