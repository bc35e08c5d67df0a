"""Which rows and cells a configuration asks for, and what cannot be planned."""

from __future__ import annotations

import numpy as np
import pytest

from erasebench.errors import EraseBenchError, NotApplicable
from erasebench.metrics.metric import Measured, Metric
from erasebench.metrics.stats import Estimate, rate
from erasebench.planning import check_limit
from tests.engine.runs import plan_of


def test_the_same_others_are_drawn_once_by_the_unerased_model() -> None:
    rows = plan_of(concepts=["church", "parachute"], others=["church", "parachute", "crayon"]).rows
    assert rows[0].probes["others"].images.key == rows[1].probes["others"].images.key
    assert rows[2].probes["others"].images.key != rows[3].probes["others"].images.key


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"concepts": ["church+church"]}, "names church twice"),
        ({"concepts": ["church+nudity"]}, "of the kinds object, explicit, which are not counted alike"),
        ({"concepts": ["church+chruch"]}, "church"),
        ({"concepts": ["church+tench+"]}, "an empty name in 'church"),
        ({"others": ["neighbors"]}, "neighbours"),
        ({"metrics": ["raito"]}, "ratio"),
    ],
)
def test_bad_input(options: dict[str, object], message: str) -> None:
    with pytest.raises(EraseBenchError, match=message.replace("(", r"\(")):
        plan_of(**options)


def test_a_metric_of_others_without_any_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class Kept(Metric):
        probes, title, direction, meaning, on_request = ("others",), "Kept", "higher", "for a test", True

        def measure(self, measured: Measured, base: Measured | None) -> Estimate:
            return rate(np.array([True]))

    monkeypatch.setattr("erasebench.planning.asked_metrics", lambda names: {"ratio": Kept()})
    with pytest.raises(EraseBenchError, match="name some with --others"):
        plan_of(metrics=["ratio"])


def test_only_cells_of_the_judge_are_added() -> None:
    asked = {"concepts": ["church", "nudity"]}
    before, after = (list(plan_of(**asked, **more).cells) for more in ({}, {"second_judge": "clip-phrase"}))
    keys = [cell.key for cell in before]
    assert {cell.key for cell in after} > set(keys)
    added = [cell for cell in after if cell.key not in keys]
    assert [(cell.stage, cell.spec["judge"], cell.spec["label"]) for cell in added] == [
        ("judge", "clip-phrase", label) for label in ("church", "nudity", "church", "nudity")
    ]
    other = plan_of(**asked, second_judge="clip-phrase[threshold=0.9]")
    assert {cell.key for cell in other.cells} == {cell.key for cell in after}


def test_memory_is_limited_on_a_gpu_alone() -> None:
    check_limit(8.0, "cuda:1")
    check_limit(None, "cpu")
    with pytest.raises(EraseBenchError, match="--max-memory is of a GPU, and this is on the CPU"):
        check_limit(8.0, "cpu")


def test_a_method_that_does_not_apply_is_a_row_with_its_reason_and_has_no_cells(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from erasebench.methods.uce import UCE

    def refuse(self: UCE, domain: str, concepts: object) -> None:
        raise NotApplicable("not today")

    before = plan_of(methods=["esd-x"])
    monkeypatch.setattr(UCE, "check", refuse)
    plan = plan_of(methods=["uce", "esd-x"])
    assert [(row.method, row.reason) for row in plan.rows] == [("sd", None), ("uce", "not today"), ("esd-x", None)]
    assert {cell.key for cell in plan.cells} == {cell.key for cell in before.cells}
