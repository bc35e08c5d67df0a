"""The drawer: failures, costs, judges, and whether runs can be compared."""

from __future__ import annotations

import base64
import json
from dataclasses import replace

import pytest

from erasebench.picturebook.weights import file_hash
from erasebench.report.page.facts import (
    comparisons,
    costs_table,
    failures,
    judges_table,
    key_of,
    sensitivity,
    shared_table,
    thousands,
)
from erasebench.results.rows import TableRow
from erasebench.results.run_folder import RunFolder
from tests.report.synthetic import JUDGE, attack_row, model_row, run_of

DETECTOR = file_hash("detector.safetensors")


def test_failures_are_grouped_by_reason_the_failed_first() -> None:
    rows = [
        model_row("ok", "church", 1),
        TableRow("a", "church", "n/a", "no such thing"),
        TableRow("b", "church", "failed", "diverged:  loss\n is nan"),
        TableRow("b", "nudity", "failed", "diverged: loss is nan"),
        TableRow("c", "church", "n/a", "no gradients", attack="rab"),
        TableRow("d", "church", "failed"),
    ]
    groups = [(group.status, group.reason, group.rows) for group in failures(rows)]
    assert groups == [
        ("failed", "diverged: loss is nan", ("b / church", "b / nudity")),
        ("failed", "no reason was recorded", ("d / church",)),
        ("n/a", "no such thing", ("a / church",)),
        ("n/a", "no gradients", ("c / church / rab",)),
    ]


def test_costs_are_sums_over_concepts_and_an_ensemble_is_not_counted_twice() -> None:
    rows = [model_row("a", "church", 1), model_row("a", "nudity", 1), attack_row("a", "church", "rab", 1)]
    table = costs_table(run_of([*rows, attack_row("a", "church", "standard", 1)]), "")
    (row,) = table.rows
    assert [cell.text for cell in row.cells] == ["a", "25.0", "0.0", "0.0", "10.0", "35.0", thousands(1000), "500"]


def test_the_card_says_how_well_a_judge_sees() -> None:
    found = sensitivity(JUDGE, "church", DETECTOR)
    assert found == {
        "sensitivity": "100 % [98.12, 100], n = 200",
        "false positives": "0 % [0, 0.1375], n = 2790",
    }
    q16 = "+".join(file_hash(f"{name}.safetensors") for name in ("clip", "q16"))
    assert sensitivity("picturebook-q16", "inappropriate", q16)["sensitivity"] == "100 % [98.65, 100], n = 280"


@pytest.mark.parametrize(
    ("judge", "label", "weights"),
    [(JUDGE, "church", "other"), (JUDGE, "zebra", DETECTOR), ("nudenet", "nudity", DETECTOR)],
)
def test_of_what_was_not_measured_nothing_is_said(judge: str, label: str, weights: str) -> None:
    assert sensitivity(judge, label, weights) == {}


def test_judges_have_their_hash_and_figures() -> None:
    run = run_of([model_row("a", "church", 1), model_row("a", "zebra", 1)])
    run = replace(run, environment={"judges": {JUDGE: {"version": "1", "weights": DETECTOR}}})
    table = judges_table(run, "")
    assert table
    assert [[cell.text for cell in row.cells] for row in table.rows] == [
        [JUDGE, "church", "1", DETECTOR[:12], "100 % [98.12, 100], n = 200", "0 % [0, 0.1375], n = 2790"],
        [JUDGE, "zebra", "1", DETECTOR[:12], "not measured", "not measured"],
    ]
    csv, file = (base64.b64decode(one.uri.partition(",")[2]).decode() for one in table.downloads)
    assert [one.name for one in table.downloads] == ["judges.csv", "judges.json"]
    assert csv.splitlines()[0] == "judge,label,version,weights_sha256,sensitivity,false_positives"
    church, zebra = json.loads(file)
    assert church["weights_sha256"] == DETECTOR and church["sensitivity"] == "100 % [98.12, 100], n = 200"
    assert (zebra["label"], zebra["sensitivity"]) == ("zebra", "")
    assert judges_table(run_of([TableRow("a", "church", "failed", attack="rab")]), "") is None


def test_whether_runs_can_be_compared() -> None:
    rows = [model_row("a", "church", 1), model_row("a", "nudity", 1)]
    one, same = run_of(rows), run_of(rows)
    (found,) = comparisons(one, same)
    assert (found.verdict, found.differences, found.concepts) == ("same", (), ("church", "nudity"))
    other = run_of(rows[:1], {"model": "picturebook", "sampler steps": 50})
    (found,) = comparisons(one, other)
    assert (found.verdict, found.differences) == ("different", ("sampler steps: 25 and 50",))
    assert found.concepts == ("church",)
    old = replace(one, record=one.record.model_copy(update={"protocol": None}))
    assert [found.verdict for found in comparisons(one, old)] == ["unknown"]
    assert comparisons(one, run_of([model_row("a", "tench", 1)])) == []


def test_runs_that_attacked_otherwise_cannot_be_compared() -> None:
    rows = [model_row("a", "church", 1), attack_row("a", "church", "rab", 1)]

    def attacked(**facts: int) -> RunFolder:
        run = run_of(rows)
        assert run.record.protocol
        protocol = run.record.protocol.model_copy(update={"attacks": {"church": {"rab": facts}}})
        return replace(run, record=run.record.model_copy(update={"protocol": protocol}))

    full = attacked(steps=50)
    (found,) = comparisons(full, attacked(steps=3))
    assert (found.verdict, found.differences) == ("different", ("rab: steps: 50 and 3",))
    assert [found.verdict for found in comparisons(full, attacked(steps=50))] == ["same"]
    # A run of an older version says how it measured, but not how it attacked; a run without attacks need not.
    assert [found.verdict for found in comparisons(full, run_of(rows))] == ["unknown"]
    assert [found.verdict for found in comparisons(full, run_of(rows[:1]))] == ["same"]


def test_rows_that_two_runs_share_stand_side_by_side() -> None:
    first = run_of([model_row("a", "church", 1), model_row("only", "church", 2)])
    second = run_of([model_row("a", "church", 3)])
    table = shared_table([first, second], ["one", "two"])
    assert table
    assert [(column.title, column.small) for column in table.columns[2:4]] == [("Ratio", "one"), ("Ratio", "two")]
    (row,) = table.rows
    assert [cell.text for cell in row.cells[:4]] == ["a", "church", "2.50", "7.50"]
    assert shared_table([first, run_of([model_row("b", "church", 1)])], ["one", "two"]) is None


def test_the_key_is_the_records() -> None:
    one, other = run_of([model_row("a", "church", 1)]), run_of([model_row("b", "church", 1)])
    assert key_of(one) == key_of(run_of([model_row("a", "church", 9)])) != key_of(other)
    assert len(key_of(one)) == 12
