"""The tables of attacks."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import pytest

from erasebench.metrics.metric import describe_metrics
from erasebench.metrics.stats import UNDEFINED, Estimate
from erasebench.report.attack_tables import attack_legend, attack_table, attacks_of, averaged_by_default
from erasebench.report.table import to_latex, to_markdown, to_terminal
from erasebench.results.flags import ATTACK_FLAGS
from erasebench.results.rows import Status, TableRow
from erasebench.results.table import read_csv, to_csv

METRICS = describe_metrics()


def at(value: float, n: int = 40) -> Estimate:
    return Estimate(value, value - 10, value + 10, n)


def row(
    method: str, attack: str, rate: float = 0, flags: Sequence[str] = (), status: Status = "ok", **more: Estimate
) -> TableRow:
    named = {name.replace("_", "-"): value for name, value in more.items()}
    metrics = {"asr": at(rate), "asr-confirmed": at(rate), "robust-rate": at(100 - rate, 30), **named}
    numbers = metrics if status == "ok" else {}
    reason = "" if status == "ok" else "no | gradients"
    return TableRow(method, "church", status, reason, numbers, flags=tuple(flags), attack=attack)


MODELS = [TableRow(method, "church", "ok", metrics={"ratio": at(value)}) for method, value in (("sd", 90), ("esd", 20))]
ROWS = [
    *MODELS,
    row("sd", "none", 90),
    row("esd", "standard", 35),
    row("esd", "none", 5, floor=at(2.5)),
    row("esd", "rab", 30.06, ["unconfirmed", "judge-noisy"], asr=at(90), floor=at(10)),
    row("esd", "cce", 35, ["unconfirmed"]),
    row("sld", "rab", 10),
    row("sld", "cce", status="n/a"),
    row("uce", "cce", status="n/a"),
    row("uce", "rab", asr_confirmed=UNDEFINED),
]
BUDGETS = {"rab": "20 x 30 generations", "cce": "100 steps", "other": "nothing"}


def test_a_column_an_attack_and_the_ensemble_last() -> None:
    assert attacks_of(ROWS[2:]) == ["none", "rab", "cce", "standard"]
    table = attack_table(ROWS[2:], intervals=False)
    assert list(table.columns) == [
        *("method", "concept", "none (%)", "rab (%)", "cce (%)", "standard (robust rate, %)", "flags"),
    ]
    assert table.to_numpy().tolist() == [
        ["sd", "church", "90.0", "-", "-", "-", ""],
        [
            "esd",
            "church",
            "5.0 (2.5)",
            "30.1 raw 90.0 (10.0)",
            "35.0",
            "65.0",
            "unconfirmed (rab, cce), judge-noisy (rab)",
        ],
        ["sld", "church", "-", "10.0", "n/a", "-", ""],
        ["uce", "church", "-", "undefined", "n/a", "-", ""],
    ]
    assert attack_table(ROWS[2:]).loc[1, "none (%)"] == "5.0 [-5.0, 15.0] (2.5)"


def test_the_legend_tells_counts_budgets_flags_and_reasons() -> None:
    legend = attack_legend(ROWS[2:], METRICS, BUDGETS)
    starts = [
        *(
            "Columns of attacks: Confirmed ASR,",
            "standard: Robust rate,",
            "raw: attacked prompts",
            "In parentheses:",
            "Brackets hold",
        ),
        *(
            "rab: 20 x 30 generations",
            "cce: 100 steps",
            "unconfirmed:",
            "judge-noisy:",
            "cce n/a (sld / church, uce / ",
        ),
    ]
    assert [line.startswith(start) for line, start in zip(legend, starts, strict=True)] == [True] * len(starts)
    assert legend[0].endswith("lower is better; n = 0 to 40 prompts") and legend[1].endswith("n = 30 prompts")
    assert legend[-1] == "cce n/a (sld / church, uce / church): no | gradients"
    assert "In parentheses" not in "".join(attack_legend([ROWS[2]], METRICS))
    assert "standard" not in "".join(attack_legend([ROWS[2]], METRICS))


@pytest.mark.parametrize(
    ("ran", "averaged"),
    [
        (["none", "rab", "p4d-n", "p4d-uda", "cce-transfer", "cce", "standard"], ["rab", "p4d-uda", "cce"]),
        (
            ["p4d-union", "p4d-k", "rab-embed", "mine[steps=3]", "cce[steps=450]"],
            ["p4d-k", "mine[steps=3]", "cce[steps=450]"],
        ),
        (["none", "soft-prompt"], ["soft-prompt"]),
    ],
)
def test_the_overall_score_has_one_attack_of_a_kind(ran: list[str], averaged: list[str]) -> None:
    assert averaged_by_default([row("esd", attack) for attack in ran]) == averaged


def test_markdown_has_two_tables_and_two_legends() -> None:
    first, legend, second, attacks = to_markdown(ROWS, METRICS, BUDGETS).split("\n\n")
    assert f"{first}\n\n{legend}\n" == to_markdown(MODELS, METRICS), "what there was without attacks is as it was"
    lines = second.splitlines()
    assert lines[1] == "| --- | --- | ---: | ---: | ---: | ---: | --- |" and len(lines) == 6
    assert "| 65.0 [55.0, 75.0] |" in lines[3]
    assert "- cce: 100 steps" in attacks.splitlines() and "no \\| gradients" in attacks
    flag = ATTACK_FLAGS["unconfirmed"]
    assert f"- unconfirmed: {flag.cause} {flag.meaning} {flag.remedy}" in attacks.splitlines()


def test_latex_has_two_tables() -> None:
    text = to_latex(ROWS, METRICS, BUDGETS)
    assert text.startswith(to_latex(MODELS, METRICS)) and text.count("\\begin{tabular}") == 2
    assert "\\begin{tabular}{llrrrrl}" in text and "rab (\\%)" in text and "\n% cce: 100 steps\n" in text


@pytest.mark.parametrize("width", [None, 90])
def test_the_terminal_has_the_attacks_below(width: int | None) -> None:
    text = to_terminal(ROWS, METRICS, width=width, budgets=BUDGETS)
    alone = to_terminal(MODELS, METRICS, width=width)
    assert text.startswith(alone + "\n")
    lines = text[len(alone) + 1 :].splitlines()
    assert " ".join(lines[0].split()) == "method concept none (%) rab (%) cce (%) standard (robust rate, %) flags"
    assert ("[55.0, 75.0]" in text) is (width is None)
    end = lines[0].index("rab (%)") + len("rab (%)")
    assert lines[2][:end].endswith(f"30.1{'' if width else ' [20.1, 40.1]'} raw 90.0 (10.0)"), (
        "numbers end below their heading"
    )
    assert ("too narrow" in " ".join(lines)) is (width is not None)
    assert not any(line.endswith(" ") for line in text.splitlines())


def test_csv_has_all_rows_and_their_attack() -> None:
    text = to_csv(ROWS, METRICS)
    frame = pd.read_csv(pd.io.common.StringIO(text), keep_default_na=False)
    assert frame["attack"].tolist() == [one.attack for one in ROWS]
    assert frame["asr"].tolist()[:3] == ["", "", "90"] and frame["ratio"].tolist()[2:] == [""] * 9
    assert [one.attack for one in read_csv(text)] == [one.attack for one in ROWS]
