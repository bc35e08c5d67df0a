"""The two accuracies of one classifier, counted by hand."""

from __future__ import annotations

import pandas as pd
import pytest

from erasebench.metrics.metric import load_metrics
from erasebench.metrics.stats import wilson
from tests.metrics.measurements import measured, of_probes

IMAGES = pd.DataFrame(
    {"church": [0.6, 0.45, 0.9, 0.2], "horn": [0.4, 0.55, 0.1, 0.8], "label": ["church", "church", "church", "horn"]}
)
PROBES = {"e": "concept", "s": "others", "g": "synonyms"}
DIRECTIONS = {"e": "lower", "s": "higher", "g": "lower"}


@pytest.mark.parametrize("part", PROBES)
def test_by_hand(part: str) -> None:
    metrics, row = load_metrics(), of_probes(**{PROBES[part]: IMAGES})
    mean, top1 = metrics[f"acc_{part}"], metrics[f"acc_{part}_top1"]
    assert mean.measure(row, None).value == pytest.approx(100 * (0.6 + 0.45 + 0.9 + 0.8) / 4)
    found = top1.measure(row, None)
    assert (found.value, found.n) == (75, 4)
    assert (found.low, found.high) == pytest.approx([100 * end for end in wilson(3, 4)])
    assert mean.note(row) == top1.note(row) == "a-classifier"
    assert mean.direction == top1.direction == DIRECTIONS[part]
    empty = of_probes(**{PROBES[part]: IMAGES[:0]})
    assert not mean.measure(empty, None).defined and not top1.measure(empty, None).defined


def test_the_rank_that_a_judge_states_is_among_more_classes_than_it_scores() -> None:
    stated = IMAGES.assign(**{"church rank": [1.0, 2, 3, 4], "horn rank": [9.0, 9, 9, 2]})
    assert load_metrics()["acc_e_top1"].measure(of_probes(concept=stated), None).value == 25


def test_of_a_judge_of_faces_only_images_with_a_face_count() -> None:
    faces = IMAGES.assign(**{"church rank": [1.0, 2307, 3, 4], "horn rank": [9.0, 9, 9, 1], "face": [1.0, 0, 1, 1]})
    metric, row = load_metrics()["acc_e_top1"], of_probes(concept=faces)
    found = metric.measure(row, None)
    assert (found.value, found.n) == pytest.approx((200 / 3, 3))
    assert metric.values(row, None) is None, "another method may have faces in other images"
    assert not metric.measure(of_probes(concept=faces.assign(face=0.0)), None).defined


def test_values_are_what_methods_are_compared_by() -> None:
    row = of_probes(others=IMAGES.assign(prompt_id=["a", "a", "b", "b"]))
    mean, top1 = (load_metrics()[name].values(row, None) for name in ("acc_s", "acc_s_top1"))
    assert mean is not None and list(mean.items()) == [("a", 60), ("a", 45), ("b", 90), ("b", 80)]
    assert top1 is not None and list(top1.items()) == [("a", True), ("a", False), ("b", True), ("b", True)]


def test_scores_that_are_no_probabilities_are_refused() -> None:
    row = measured([0.5, 31.0])
    with pytest.raises(ValueError, match="no probabilities"):
        load_metrics()["acc_e"].measure(row, None)
