"""Means of what further judges say; the metrics of CLIP scores and of distances are such."""

from __future__ import annotations

import pandas as pd
import pytest

from erasebench.metrics.asked import AskedMean
from tests.metrics.measurements import of_probes

ROW = of_probes(
    concept=pd.DataFrame({"church": [0.9, 0.1, 0.5], "label": "church", "clip": [30.0, 10.0, 11.0]}),
    others=pd.DataFrame({"church": [0.1], "label": "church", "distance": [0.25], "prompt_id": ["only"]}),
)


class OfConcept(AskedMean):
    title, probes, roles, unit, direction, meaning = "A", ("concept",), {"clip": ("concept",)}, "", "lower", "test"


class OfOthers(AskedMean):
    title, probes, roles, unit, direction, meaning = "B", ("others",), {"distance": ("others",)}, "", "lower", "test"


def test_it_is_the_mean_of_its_own_role_over_its_own_images() -> None:
    assert OfConcept().measure(ROW, None).value == pytest.approx(17.0)
    assert OfOthers().measure(ROW, None).value == pytest.approx(0.25)


def test_each_image_has_its_score_and_its_prompt() -> None:
    assert OfConcept().values(ROW, None).to_dict() == {"0": 30.0, "1": 10.0, "2": 11.0}
    assert OfOthers().values(ROW, None).to_dict() == {"only": 0.25}


def test_it_is_there_on_request_and_names_whom_it_asked() -> None:
    assert AskedMean.on_request and AskedMean.noted == "judge"
    assert (OfConcept().note(ROW), OfOthers().note(ROW)) == ("a-clip", "a-distance")


def test_it_is_of_one_role_and_one_set_of_images() -> None:
    class OfBoth(OfConcept):
        roles = {"clip": ("concept", "others")}  # noqa: RUF012

    with pytest.raises(ValueError, match="too many values"):
        OfBoth().values(ROW, None)
