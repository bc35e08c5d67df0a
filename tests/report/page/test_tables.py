"""Tables of the page: what cells show, sort by and say, and files that hold the same."""

from __future__ import annotations

import base64
import json
import math

import pandas as pd
import pytest

from erasebench.metrics.metric import describe_metrics
from erasebench.metrics.stats import Estimate
from erasebench.report.page.tables import (
    NONE,
    Bar,
    Scale,
    Table,
    attack_tables,
    badge,
    data_uri,
    downloads,
    identifier,
    model_tables,
)
from erasebench.results.rows import TableRow
from tests.report.synthetic import HOSTILE, attack_row, matrix, model_row

METRICS = describe_metrics()


def content(uri: str) -> str:
    head, _, text = uri.partition(",")
    assert head.startswith("data:") and head.endswith(";base64")
    return base64.b64decode(text).decode()


def the_row(table: Table, method: str) -> dict[str, str]:
    (row,) = [row for row in table.rows if row.method == method]
    return {column.title: cell.text for column, cell in zip(table.columns, row.cells, strict=True)}


def test_a_table_for_each_concept_with_intervals_and_n() -> None:
    rows = [model_row("sd", "church", 40), model_row("a", "church", 1), model_row("a", "nudity", 2)]
    church, nudity = model_tables(rows, METRICS, "", "sd")
    assert (church.caption, nudity.caption) == ("church", "nudity")
    assert [column.title for column in church.columns[:3]] == ["Method", "Ratio (%)", "Score (x100)"]
    assert church.columns[1].small == "↓ lower is better\nn = 40"
    ratio = church.rows[1].cells[1]
    assert (ratio.text, ratio.interval, ratio.sort) == ("2.50", "[0.44, 12.88]", "2.5")
    assert ratio.tooltip == "2.5; n = 40 images; 95 % interval 0.4427 to 12.88"
    assert ratio.bar == Bar(0.4, 2.5, 12.9)
    assert church.rows[0].cells[0].tooltip == "unerased" and church.rows[1].cells[0].tooltip == ""


def test_rows_without_numbers_say_why_and_sort_below_all() -> None:
    rows = [
        model_row("a", "church", 1),
        TableRow("b", "church", "failed", "diverged"),
        TableRow("c", "church", "n/a", "no"),
    ]
    (table,) = model_tables(rows, METRICS, "", "sd")
    failed, absent = table.rows[1:]
    assert failed.cells[1].text == NONE and failed.cells[1].sort == ""
    assert (failed.cells[-1].text, failed.cells[-1].tooltip, failed.cells[-1].tone) == ("failed", "diverged", "failed")
    assert (absent.status, absent.cells[-1].text) == ("n/a", "n/a")


def test_an_undefined_number_says_so() -> None:
    row = TableRow("a", "church", "ok", metrics={"ratio": Estimate(math.nan, math.nan, math.nan, 0)})
    (table,) = model_tables([row], METRICS, "", "sd")
    assert the_row(table, "a")["Ratio (%)"] == "undefined"


def test_flags_are_badges_that_lead_to_what_they_mean() -> None:
    (table,) = model_tables([model_row("a", "church", 1, flags=("wide",))], METRICS, "r1-", "sd")
    (flag,) = table.rows[0].cells[-1].flags
    assert (flag.name, flag.target) == ("wide", "r1-flag-wide")
    assert flag.tooltip == (
        "Ratio's 95 % interval spans more than 30 points. There are too few prompts to rank methods by it. Run with"
        " more prompts."
    )
    assert badge("odd", "").tooltip == "a flag without a description"
    assert badge("wide", "", ["rab", "cce"]).name == "wide ×2"  # noqa: RUF001


def test_methods_by_attacks() -> None:
    rows = [
        attack_row("sd", "church", "rab", 10),
        attack_row("a", "church", "rab", 2, flags=("unconfirmed",)),
        attack_row("a", "church", "standard", 3),
        TableRow("b", "church", "n/a", "no gradients", attack="rab"),
    ]
    (table,) = attack_tables(rows, METRICS, "")
    assert [column.title for column in table.columns] == ["Method", "rab", "standard", "Flags"]
    a = table.rows[1]
    assert (a.cells[1].text, a.cells[1].heat) == ("20.0", 0.2)
    assert (a.cells[2].text, a.cells[2].heat) == ("70.0", 0.3), "a robust rate is the more heated the less is left"
    assert a.cells[-1].flags[0].tooltip.startswith("rab: ")
    b = table.rows[2]
    assert (b.status, b.cells[1].text, b.cells[1].tooltip, b.cells[2].text) == ("n/a", "n/a", "no gradients", NONE)


def test_ids_are_distinct_and_hold_nothing_that_means_anything() -> None:
    rows = matrix(["sd", *HOSTILE], ["church", *HOSTILE], ["rab", *HOSTILE])
    models = model_tables([row for row in rows if not row.attack], METRICS, "", "sd")
    attacked = attack_tables([row for row in rows if row.attack], METRICS, "")
    ids = [row.identity for table in (*models, *attacked) for row in table.rows]
    ids += [table.identity for table in (*models, *attacked)]
    assert len(set(ids)) == len(ids)
    assert not [one for one in ids if set(one) & set("<>\"'&# ?:/")]
    assert identifier("a-b", "c") != identifier("a", "b-c")


def test_files_hold_the_table() -> None:
    frame = pd.DataFrame({"method": ["<b>", 'say "x"'], "value": [1.5, math.nan]})
    csv, json_file = downloads("table", frame)
    assert (csv.name, json_file.name) == ("table.csv", "table.json")
    assert content(csv.uri) == 'method,value\n<b>,1.5\n"say ""x""",\n'
    assert json.loads(content(json_file.uri)) == [{"method": "<b>", "value": 1.5}, {"method": 'say "x"', "value": None}]


@pytest.mark.parametrize("text", HOSTILE)
def test_a_uri_holds_no_character_that_means_anything(text: str) -> None:
    uri = data_uri("text/csv", text)
    assert content(uri) == text and not set(uri) & set("<>\"'& ")


def test_a_scale_is_that_of_all_rows() -> None:
    rows = [model_row("a", "church", 1, clip=60), model_row("a", "nudity", 1, clip=80)]
    scale = Scale.of(rows, "clip", METRICS["clip"])
    assert (scale.low, scale.high) == (58, 82)
    assert scale.bar(Estimate(70, 58, 82, 1)) == Bar(0, 50, 100)
    assert scale.bar(Estimate(70, math.nan, math.nan, 1)) == Bar(50, 50, 50)
    assert scale.words(Estimate(70, math.nan, math.nan, 1)) == ("70.0", "")
    assert Scale.of(rows, "ratio", METRICS["ratio"]).high == 100
