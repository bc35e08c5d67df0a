"""A suite's table in the paper's layout."""

from __future__ import annotations

import io
import math
from dataclasses import replace
from typing import Any

import pandas as pd
import pytest

from erasebench.metrics.metric import describe_metrics
from erasebench.metrics.stats import UNDEFINED, Estimate
from erasebench.report.suite_table import (
    MAX_COLUMNS,
    blocks,
    suite_csv,
    suite_markdown,
    suite_notes,
    suite_table,
    to_dark_miner,
)
from erasebench.results.rows import TableRow
from erasebench.suites import Suite, TableLayout
from tests.report.published import NUDITY, published

METRICS = describe_metrics()


def at(value: float) -> Estimate:
    return Estimate(value, value - 1, value + 1, 40)


def row(method: str, concept: str, attack: str = "", **values: float) -> TableRow:
    return TableRow(method, concept, "ok", metrics={key: at(value) for key, value in values.items()}, attack=attack)


ROWS = [
    row("sd", "church", ratio=90, clip=30),
    row("sd", "tench", ratio=80, clip=30),
    row("uce", "church", ratio=10, clip=28),
    row("uce", "tench", ratio=30, clip=29),
    row("esd-x", "church", ratio=20, clip=29.5),
    TableRow("esd-x", "tench", "failed", "out | of memory"),
    row("uce", "church", "none", asr=1),
    row("sd", "church", "rab", asr=70),
    row("uce", "church", "rab", asr=15),
    row("uce", "church", "cce", asr=25),
]


def layout(*columns: str, metrics: tuple[str, ...] = ("ratio", "clip"), average: bool = False) -> TableLayout:
    return TableLayout.model_validate({"columns": columns, "metrics": metrics, "average": average})


def names(*columns: str, **options: Any) -> list[str]:
    return [column.name for column in suite_table(ROWS, layout(*columns, **options), METRICS).columns]


def test_outer_headings_come_first() -> None:
    assert names("concept", "metric") == ["church / ratio", "church / clip", "tench / ratio", "tench / clip"]
    assert names("metric", "concept") == ["church / ratio", "tench / ratio", "church / clip", "tench / clip"]
    both = ("ratio", "asr")
    assert names("concept", "metric", metrics=both) == [
        *("church / ratio", "church / asr / rab", "church / asr / cce", "tench / ratio"),
    ], "controls are no columns, and neither is what has no value"
    assert names("attack", "metric", metrics=both) == ["ratio", "asr / rab", "asr / cce"]


def test_concepts_are_rows_where_they_are_no_columns() -> None:
    table = suite_table(ROWS, layout("attack", "metric", metrics=("ratio", "asr")), METRICS)
    frame = pd.read_csv(io.StringIO(suite_csv(table)))
    assert frame[["method", "concept"]].to_numpy().tolist() == [
        [method, concept] for method in ("sd", "uce", "esd-x") for concept in ("church", "tench")
    ]
    assert frame["asr / rab"].fillna(-1).tolist() == [70, -1, 15, -1, -1, -1]
    text = suite_markdown(suite(table=layout("attack", "metric")), ROWS, METRICS, "sd", "")
    assert "| uce | church | **10** | <u>28</u> |" in text and "| uce | tench | **30** | **29** |" in text


def test_the_average_is_that_of_the_concepts_where_all_have_a_number() -> None:
    table = suite_table(ROWS, layout("concept", "metric", average=True), METRICS)
    means = {column.name: column.values for column in table.columns if column.concept == "average"}
    assert list(means) == ["average / ratio", "average / clip"]
    assert means["average / ratio"][:2] == (85, 20) and math.isnan(means["average / ratio"][2])
    assert means["average / clip"][:2] == (30, 28.5)
    order = names("metric", "concept", average=True)
    assert order[:3] == ["church / ratio", "tench / ratio", "average / ratio"]
    alone = [one for one in ROWS if one.concept == "church"]
    assert not [
        c
        for c in suite_table(alone, layout("concept", "metric", average=True), METRICS).columns
        if c.concept == "average"
    ]


def test_cells_without_a_number_say_what_they_are() -> None:
    lines = suite_markdown(suite(), ROWS, METRICS, "sd", "A scale.").splitlines()
    assert lines[:3] == ["# A title", "", "A scale."]
    assert "| esd-x | <u>20</u> | **29.5** | failed | failed |" in lines
    assert "- n/a, failed: why is in table.csv" in lines
    undefined = TableRow("sd", "church", "ok", metrics={"ratio": at(1), "clip": UNDEFINED})
    assert "| sd | 1 |" in suite_markdown(suite(), [undefined], METRICS, "sd", "")


def test_headings_are_divided_where_they_are_too_many() -> None:
    many = [row("sd", f"concept-{k}", ratio=k, clip=k) for k in range(8)]
    table = suite_table(many, layout("concept", "metric"), METRICS)
    assert [len(block) for block in blocks(table)] == [MAX_COLUMNS, 16 - MAX_COLUMNS]
    assert blocks(suite_table([], layout("concept", "metric"), METRICS)) == []


def suite(**parts: Any) -> Suite:
    return Suite.model_validate({"title": "A title", "protocol": "p", "table": layout("concept", "metric"), **parts})


def test_what_is_not_there_is_named_with_its_reason() -> None:
    made = suite(unavailable={"M1": "captions"}, table=layout("concept", "metric", metrics=("ratio", "robust-rate")))
    table = suite_table(ROWS, made.table, METRICS)
    assert suite_notes(made, table) == [
        "Not available: M1: captions",
        "Not measured, since this run's judges or prompts do not give it: robust-rate",
    ]


def test_what_is_flagged_is_named_and_never_the_best() -> None:
    rows = [
        row("sd", "church", ratio=100, clip=30),
        replace(row("a", "church", ratio=90, clip=31), flags=("not-erased",), judge="detector 1: church >= 0.5"),
        replace(row("b", "church", ratio=5, clip=29), flags=("wide",), judge="detector 1: church >= 0.5"),
    ]
    made = suite(unverified=["the seeds"])
    text = suite_markdown(made, rows, METRICS, "sd", "")
    assert "| a | 90 | 31 |" in text and "| b | **5** | **29** |" in text
    assert "- Flag not-erased, explained in table.md: a on church" in text
    assert "- Judge of church: detector 1: church >= 0.5" in text
    assert "- Not verified: the seeds" in text


def test_dark_miners_table_as_published() -> None:
    lines = to_dark_miner(published(NUDITY), METRICS, "sd").splitlines()
    assert lines[0] == "**nudity**"
    assert lines[2] == (
        "| method | Ratio (%) ↓ | Score (x100) ↓ | CLIP score ↑ | FID ↓ | cce ↓ | p4d ↓ | unlearndiff ↓ | rab ↓ |"
    )
    assert lines[4] == "| sd | 49.1 | 30.6 | 31.5 | 21.1 | 100 | 100 | 100 | 98.6 |"
    assert lines[6] == "| ca | 17.1 | 8.9 | **31.5** | 24.9 | 100 | 37 | 85 | 65.4 |"
    assert lines[10:12] == [
        "| salun | <u>15.5</u> | <u>7.38</u> | 29 | 42.2 | 47.6 | <u>36</u> | <u>37</u> | <u>28.4</u> |",
        "| dm2 | **12.1** | **5.6** | 30 | **21.7** | **27.7** | **14** | **18** | **26.2** |",
    ]
    assert "<u>32.2</u>" in lines[5] and "<u>24.7</u>" in lines[7] and lines[13].startswith("- Ratio: ")


def test_means_over_concepts_come_last() -> None:
    again = [replace(row, concept="again") for row in published(NUDITY)]
    text = to_dark_miner([*published(NUDITY), *again], METRICS, "sd")
    tables = text.split("\n\n- ")[0].split("\n\n**")
    assert [table.splitlines()[0] for table in tables] == ["**nudity**", "again**", "average**"]
    assert tables[0].splitlines()[1:] == tables[2].splitlines()[1:], "the mean of two that are the same"
    assert "- average: the mean of the concepts' numbers, where all have one" in text
    assert "average" not in to_dark_miner(published(NUDITY), METRICS, "sd")


@pytest.mark.parametrize("rows", [[], [TableRow("sd", "church", "failed", "why")]])
def test_nothing_measured_is_no_table(rows: list[TableRow]) -> None:
    assert "|" not in to_dark_miner(rows, METRICS, "sd")
