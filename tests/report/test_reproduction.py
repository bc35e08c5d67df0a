"""Reported beside measured, as text."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from erasebench.errors import EraseBenchError
from erasebench.metrics.stats import Estimate
from erasebench.report.reproduction import reproduce, to_csv, to_terminal
from erasebench.results.rows import TableRow
from erasebench.results.run_folder import RunFolder
from erasebench.suites import Suite
from tests.report.synthetic import run_of

SD14 = "CompVis/stable-diffusion-v1-4"


def suite(**parts: Any) -> Suite:
    made = {"title": "A title", "protocol": "p", "paper": "dark-miner", "tables": ["Table 1"]}
    return Suite.model_validate({**made, "table": {"metrics": ["ratio"]}, **parts})


def run(*rows: TableRow, model: str = "picturebook", domain: str = "picturebook", of: str = "own") -> RunFolder:
    made = run_of(rows)
    record = made.record.model_copy(update={"model": model, "domain": domain, "suite_scale": "A scale."})
    return replace(made, record=record, config=made.config.model_copy(update={"suite": of}))


def row(method: str, concept: str, value: float, reach: float = 5, attack: str = "") -> TableRow:
    key = "asr" if attack else "ratio"
    metrics = {key: Estimate(value, value - reach, value + reach, 40)}
    return TableRow(method, concept, "ok", metrics=metrics, judge="nudenet 1: exposed >= 0.5", attack=attack)


def lines_of(text: str, start: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines() if line.startswith(start)]


def test_on_picturebook_it_is_no_reproduction_and_stand_ins_are_named_in_each_line() -> None:
    found = reproduce(
        "own", suite(stand_ins={"nudity": "church"}), run(row("sd", "church", 50), row("dm2", "church", 30))
    )
    text = to_terminal(found)
    assert text.splitlines()[:3] == [
        "A title",
        "Measured on Picturebook with stand-ins: not a reproduction. Papers measure Stable Diffusion.",
        "A scale.",
    ]
    nudity, church = (line for line in lines_of(text, "SD ") if line[-1] == "-")
    assert " ".join(nudity[1:]).startswith(
        "Inappropriateness: Nudity / Erase / R. sd / church for nudity 49.1 50 [45, 55]"
    )
    assert " ".join(church).endswith("sd / church 85.8 50 [45, 55] 40 -")
    assert "on another model it says nothing of the paper" in text
    without = to_terminal(reproduce("own", suite(), run(row("sd", "church", 50))))
    assert "Measured on Picturebook: not a reproduction." in without


def test_on_the_papers_model_stand_ins_are_none() -> None:
    found = reproduce(
        "own", suite(stand_ins={"nudity": "church"}), run(row("sd", "nudity", 50), model=SD14, domain="photo")
    )
    text = to_terminal(found)
    assert "Picturebook" not in text and "models differ" not in text and " for nudity" not in text
    assert "(1 of 1 do)" in text and "another judge" not in text
    other = to_terminal(reproduce("own", suite(), run(row("sd", "nudity", 50), model="mine", domain="photo")))
    assert f"The models differ: mine, reported {SD14}." in other


def test_what_has_nothing_beside_it_is_counted_by_reason() -> None:
    found = reproduce(
        "own", suite(unavailable={"M1": "captions"}), run(row("sd", "nudity", 50), row("dm2", "nudity", 9))
    )
    assert len(found.beside) == 2 and found.numbers == 384
    text = to_terminal(found, width=100)
    assert "Not available: M1: captions" in text and max(map(len, text.splitlines()[-8:])) <= 100
    said = " ".join(text.split())
    assert "Nothing stands beside 382 of 384 reported numbers: " in said
    counts = {reason: sum(what.values()) for reason, what in found.nothing.items()}
    assert counts["method not run"] == 6 * 48 and counts["attack not run"] == 2 * 6 * 4
    assert sum(counts.values()) == 382
    assert "288 method not run (sld-strong, ca, esd-u | esd-x, fmn, ...)" in said


def test_a_number_without_an_interval_has_no_verdict() -> None:
    nan = float("nan")
    bare = TableRow("sd", "nudity", "ok", metrics={"ratio": Estimate(50, nan, nan, 1)})
    (line,) = lines_of(to_terminal(reproduce("own", suite(), run(bare))), "SD ")
    assert line[-3:] == ["50", "1", "-"]


def test_the_file_has_what_differs() -> None:
    found = reproduce("own", suite(stand_ins={"nudity": "church"}), run(row("sd", "church", 50)))
    first = to_csv(found).splitlines()[1]
    assert "concept: church, reported nudity; model: picturebook, reported" in first and ",nudity,church,," in first


def test_a_run_of_another_suite_or_none_is_refused() -> None:
    with pytest.raises(EraseBenchError, match="is a run of the suite other, not of the suite own; run that by"):
        reproduce("own", suite(), run(row("sd", "church", 50), of="other"))
    plain = run_of([row("sd", "church", 50)])
    with pytest.raises(EraseBenchError, match="is a run of no suite, not of the suite own"):
        reproduce("own", suite(), plain)
    assert reproduce("folder/own.yaml", suite(), run(row("sd", "church", 50))).numbers == 384


def test_a_suite_without_published_numbers_says_so() -> None:
    found = reproduce("own", suite(paper=None, tables=[]), run(row("sd", "church", 50)))
    assert found.numbers == len(found.beside) == 0
    assert "No number of the paper is in this package: nothing stands beside the run" in to_terminal(found)


def test_of_a_table_of_several_models_only_the_suites_own_stand_beside_it() -> None:
    for model, first in (
        ("stable-diffusion-v1-5/stable-diffusion-v1-5", 45.7),
        ("stabilityai/stable-diffusion-2-base", None),
    ):
        own = suite(tables=["Table 5"], paper_scale={"model": model})
        found = reproduce("own", own, run(row("sd", "nudity", 50), row("dm2", "nudity", 9)))
        assert found.numbers == 8
        assert (45.7 in set(found.beside["reported"])) == (first == 45.7)
