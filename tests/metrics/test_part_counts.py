"""Counts of parts by hand, and of what NudeNet keeps of its boxes."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from erasebench.judging import box_columns
from erasebench.metrics.metric import Measured, load_metrics
from erasebench.metrics.part_counts import PARTS
from erasebench.metrics.stats import wilson
from erasebench.results.published import read_published
from tests.metrics.measurements import of_probes

COUNTS = {name: metric for name, metric in load_metrics().items() if name.startswith("count_")}
BELLY, FEET = PARTS[1], PARTS[3]


def row(boxes: dict[str, list[list[float]]], prompts: list[str] | None = None, threshold: float = 0.6) -> Measured:
    """Images with these boxes of some parts and none of the others."""
    n = len(next(iter(boxes.values())))
    columns: dict[str, object] = {
        "exposed": [0.5] * n,
        "label": "exposed",
        "prompt_id": prompts or list(map(str, range(n))),
    }
    for part in PARTS:
        columns |= box_columns(part, boxes.get(part, [[]] * n))
    found = of_probes(concept=pd.DataFrame(columns))
    found.scores["threshold"] = threshold
    return found


def test_by_hand() -> None:
    images = row({BELLY: [[0.7, 0.6, 0.3], [], [0.59], [0.9]], FEET: [[], [], [0.8], [0.9]]})
    found = {name: metric.measure(images, None) for name, metric in COUNTS.items()}
    assert {name: one.value for name, one in found.items() if one.value} == {
        "count_total": 5,
        "count_belly": 3,
        "count_feet": 2,
    }
    assert all(one.n == 4 for one in found.values())
    assert 0 <= found["count_total"].low < 5 < found["count_total"].high
    none = found["count_armpits"]
    assert (none.low, none.high) == pytest.approx((0, 4 * wilson(0, 4)[1])), "no hit in four images is not certainty"


def test_the_total_is_of_the_parts_as_in_maces_table() -> None:
    published = read_published()
    own = published[(published["source"] == "mace") & (published["table"] == "Table 2")]
    titles = [metric.title for name, metric in COUNTS.items() if name != "count_total"]
    for _, printed in own[own["unit"] == "detections"].groupby("row"):
        values = printed.set_index(printed["column"].str.rpartition(" / ")[2])["value"]
        assert set(values.index) == {*titles, "Total"} and values[titles].sum() == values["Total"]
    assert [metric.labels for name, metric in COUNTS.items() if name != "count_total"] == [(part,) for part in PARTS]  # type: ignore[attr-defined]


def test_prompts_are_resampled() -> None:
    boxes = {BELLY: [[0.9] * k for k in np.random.default_rng(0).integers(0, 4, 10) for _ in range(5)]}
    prompts = [str(k) for k in range(10) for _ in range(5)]
    one, grouped = (COUNTS["count_belly"].measure(row(boxes, given), None) for given in (None, prompts))
    assert one.value == grouped.value and grouped.high - grouped.low > 1.7 * (one.high - one.low)


def test_the_judges_threshold_counts() -> None:
    boxes = {BELLY: [[0.3], [0.5], [0.7]]}
    counts = [COUNTS["count_belly"].measure(row(boxes, threshold=t), None).value for t in (0.25, 0.5, 0.6, 0.8)]
    assert counts == [3, 2, 1, 0]
    mixed = row(boxes)
    mixed.scores["threshold"] = [0.5, 0.5, 0.6]
    with pytest.raises(ValueError, match="one threshold"):
        COUNTS["count_belly"].measure(mixed, None)


def test_a_judge_without_boxes_has_no_counts() -> None:
    plain = of_probes(concept=pd.DataFrame({"exposed": [0.5, 0.9], "label": "exposed"}))
    assert not any(metric.measure(plain, None).defined for metric in COUNTS.values())
    assert COUNTS["count_total"].measure(plain, None).n == 0


def test_a_detector_of_the_concept_as_a_whole_has_a_total_and_no_parts() -> None:
    boxes = box_columns("nudity", [[0.9, 0.7], [0.55], []])
    images = of_probes(concept=pd.DataFrame({"nudity": [0.9, 0.55, 0.1], "label": "nudity", **boxes}))
    found = {name: metric.measure(images, None) for name, metric in COUNTS.items()}
    assert found.pop("count_total").value == 3 and not any(one.defined for one in found.values())


def test_images_that_another_judge_saw_do_not_count() -> None:
    images = row({BELLY: [[0.7], [0.8], [0.9]]})
    judged = images.judged("concept").copy()
    judged.iloc[2] = np.nan
    half = of_probes(concept=judged.assign(label="exposed"))
    half.scores["threshold"] = [0.6, 0.6, 0.5]
    found = COUNTS["count_belly"].measure(half, None)
    assert (found.value, found.n) == (2, 2)
