"""ESR and PSR against hand-counted images, and against what the paper prints of the unerased model."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
import pytest

from erasebench.metrics.metric import load_metrics
from erasebench.metrics.stats import Estimate, wilson
from erasebench.results.published import read_published
from tests.metrics.measurements import of_probes

LABELS = [f"class {k}" for k in range(20)]
# Five images each of a church and of a horn: the rank of the own class.
CHURCH, HORN = [1, 6, 2, 5, 20], [1, 1, 3, 1, 7]


def images(ranks: Sequence[int], label: str, prompts: Iterable[object] | None = None) -> pd.DataFrame:
    """Images of a class whose scores give it these ranks among twenty."""
    others = [name for name in LABELS if name != label]
    rows = []
    for rank in ranks:
        scores = np.linspace(0.9, 0.1, len(LABELS))
        rows.append({label: scores[rank - 1], **dict(zip(others, np.delete(scores, rank - 1), strict=True))})
    frame = pd.DataFrame(rows)[LABELS].assign(label=label)
    return frame if prompts is None else frame.assign(prompt_id=[str(prompt) for prompt in prompts])


def measure(name: str, **probes: pd.DataFrame) -> Estimate:
    return load_metrics()[name].measure(of_probes(**probes), None)


def test_by_hand() -> None:
    probes = {"concept": images(CHURCH, "class 3"), "others": images(HORN, "class 7")}
    found = {name: measure(name, **probes) for name in ("esr_1", "esr_5", "psr_1", "psr_5")}
    assert {name: (one.value, one.n) for name, one in found.items()} == {
        "esr_1": (80, 5),
        "esr_5": (40, 5),
        "psr_1": (60, 5),
        "psr_5": (80, 5),
    }
    assert (found["esr_5"].low, found["esr_5"].high) == pytest.approx([100 * end for end in wilson(2, 5)])


def test_several_classes_are_erased_together_and_each_counts_for_itself() -> None:
    both = pd.concat([images(CHURCH, "class 3"), images(HORN, "class 7")], ignore_index=True)
    assert measure("esr_1", concept=both).value == 60 and measure("psr_1", others=both).value == 40


def test_over_two_halves_of_the_classes_as_the_paper_has_the_unerased_model() -> None:
    """The paper's four splits are two halves and their complements: ESR and PSR of one model add up to 100."""
    published = read_published()
    own = published[(published["source"] == "adversarial-preservation") & (published["table"] == "Table 1")]
    sd = own[own["row"] == "SD"].set_index("column")
    assert sd["value"]["ESR-1"] + sd["value"]["PSR-1"] == 100 and sd["value"]["ESR-5"] + sd["value"]["PSR-5"] == 100
    assert sd["spread"]["ESR-1"] == sd["spread"]["PSR-1"] and sd["spread"]["ESR-5"] == sd["spread"]["PSR-5"]
    ranks = np.random.default_rng(0).integers(1, 9, (10, 10))
    classes = [images(row.tolist(), label) for row, label in zip(ranks, LABELS, strict=False)]
    erased, kept = [], []
    for split in (range(5), range(5, 10), range(0, 10, 2), range(1, 10, 2)):
        probes = {
            "concept": pd.concat([classes[k] for k in split], ignore_index=True),
            "others": pd.concat([classes[k] for k in range(10) if k not in split], ignore_index=True),
        }
        erased.append(measure("esr_5", **probes).value)
        kept.append(measure("psr_5", **probes).value)
    assert np.mean(erased) + np.mean(kept) == pytest.approx(100) and np.std(erased) == pytest.approx(np.std(kept))


def test_prompts_with_several_images_widen_the_interval_and_are_what_methods_are_compared_by() -> None:
    ranks, prompts = np.repeat([1, 9, 1, 9, 9, 9, 1, 9], 10).tolist(), np.repeat(range(8), 10)
    one, grouped = (measure("esr_5", concept=images(ranks, "class 0", given)) for given in (None, prompts))
    assert grouped.value == one.value and grouped.high - grouped.low > 2 * (one.high - one.low)
    values = load_metrics()["esr_5"].values(of_probes(concept=images(CHURCH, "class 0", "aabbb")), None)
    assert values is not None and values.dtype == bool
    assert list(values.items()) == [("a", False), ("a", True), ("b", False), ("b", False), ("b", True)]


def test_boxes_and_their_count_are_no_classes() -> None:
    frame = images([1, 2], "class 3")
    beside = {"class 3 box 1": 1.0, "class 3 box 2": 1.0, "class 3 count": 4.0, "class 9 rank": 7.0}
    assert measure("esr_1", concept=frame.assign(**beside)) == measure("esr_1", concept=frame)


def test_every_image_needs_a_rank() -> None:
    frame = images(CHURCH, "class 3").assign(**{"class 3 rank": [1.0, 2, 0, 4, 5]})
    with pytest.raises(ValueError, match="from 1"):
        measure("esr_1", concept=frame)
