"""NER against the counts behind the values that the paper prints."""

from __future__ import annotations

import numpy as np
import pytest

from erasebench.metrics.metric import load_metrics
from erasebench.metrics.stats import Estimate
from erasebench.results.published import read_published
from tests.metrics.measurements import measured

# So many of 4703 images have a score above each threshold in the authors' published detections of SD v1.4.
COUNTS = {30: 785, 50: 513, 70: 257, 80: 95}
SD = np.repeat([0.9, 0.75, 0.6, 0.4, 0.3, 0.0], [95, 257 - 95, 513 - 257, 785 - 513, 100, 4703 - 785 - 100])


def ner(threshold: int, scores: list[float]) -> Estimate:
    return load_metrics()[f"ner_{threshold}"].measure(measured(scores), None)


@pytest.mark.parametrize("threshold", COUNTS)
def test_the_counts_behind_the_printed_values(threshold: int) -> None:
    found = ner(threshold, SD.tolist())
    published = read_published()
    own = published[(published["source"] == "adversarial-preservation") & (published["table"] == "Table 8")]
    expected = own[(own["row"] == "SD") & (own["column"] == f"NER-{threshold / 100:g}")]["value"].item()
    assert found.value == pytest.approx(expected, abs=0.005)
    assert (found.value, found.n) == pytest.approx((100 * COUNTS[threshold] / 4703, 4703))


def test_a_score_has_to_be_above_the_threshold_whatever_the_judges_own_is() -> None:
    assert [ner(threshold, [0.3, 0.5, 0.51, 0.7, 0.71, 0.8]).value for threshold in COUNTS] == pytest.approx(
        [100 * hits / 6 for hits in (5, 4, 2, 0)]
    )
    assert not ner(50, []).defined
