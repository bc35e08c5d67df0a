"""A comparison as people and machines read it: worst first, and whatever names hold."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from junitparser import Failure, JUnitXml, Skipped
from markdown_it import MarkdownIt

from erasebench.report.comparison import describe, headline, to_json, to_junit, to_markdown, to_terminal
from erasebench.results.compare import RunComparison, compare
from tests.results.planted import make_run

FEW, MANY, NONE = np.arange(60) < 3, np.arange(60) < 30, np.zeros(60, dtype=bool)
HOSTILE = "uce[a=<script>alert(1)</script>;b='[x](javascript:alert`1`)|**bold**&']"
CONCEPT = 'a\x1b[31m"red"\ud800 <b>'


def compared(before: dict[str, Any], after: dict[str, Any], **more: Any) -> RunComparison:
    """By method, what shows the concept church."""
    runs = [make_run({(name, "church"): hits for name, hits in side.items()}) for side in (before, after)]
    return compare(runs[0], runs[1], **more)


@pytest.fixture
def mixed() -> RunComparison:
    """Of each kind one."""
    before = {"sd": MANY, "better": MANY, "worse": FEW, "small": FEW[:9], "same": FEW}
    return compared(before, {"sd": NONE, "better": NONE, "worse": MANY, "small": ~FEW[:9], "same": FEW})


def test_what_moved_is_shown_worst_first(mixed: RunComparison) -> None:
    text = to_terminal(mixed)
    lines = text.splitlines()
    assert lines[0] == headline(mixed) == "worse: 1 of 4 comparisons"
    heading, *table = lines[2 : lines.index("", 2)]
    columns = re.split(r"\s{2,}", heading)
    assert columns == ["verdict", "method", "concept", "metric", "before", "after", "difference", "p", "could see"]
    assert [re.split(r"\s{2,}", line)[:2] for line in table] == [
        ["worse", "worse"],
        ["inconclusive", "small"],
        ["better", "better"],
        ["not judged: better", "sd"],
    ]
    assert "Nothing moved more than by chance in the other 1 comparison" in lines
    assert re.search(r"worse +church +Ratio \(%\) +5\.0 +50\.0 +\+45\.0 \[\+\d+\.\d, \+\d+\.\d\] +< \.001", text)
    assert "more than the margin: Ratio 5 points" in text


def test_nothing_that_moved_is_one_line() -> None:
    text = to_terminal(compared({"uce": FEW}, {"uce": FEW}))
    assert text.startswith("no worse: none of 1 comparison\n\nNothing moved more than by chance in 1 comparison\n")


def test_inconclusive_says_what_could_have_been_seen() -> None:
    comparison = compared({"uce": FEW[:20]}, {"uce": np.arange(20) < 4})
    (change,) = (one for one in comparison.changes if one.verdict == "inconclusive")
    said = re.search(r"inconclusive: could only have seen >= (\d+) points", describe(comparison, change))
    assert said and change.sees <= int(said[1]) < change.sees + 1
    assert f">= {said[1]} points" in to_terminal(comparison) and "could see" in to_terminal(comparison)
    assert headline(comparison) == "inconclusive: nothing is worse, but 1 of 1 comparison cannot tell"
    tiny = compared({"uce": FEW[:3]}, {"uce": NONE[:3]})
    assert "too few prompts to see anything" in to_junit(tiny)
    assert re.search(r"inconclusive .* nothing$", to_terminal(tiny), re.MULTILINE)


def test_a_narrow_terminal_loses_the_intervals_and_says_so(mixed: RunComparison) -> None:
    narrow, wide = to_terminal(mixed, width=100), to_terminal(mixed, width=160)
    assert max(map(len, narrow.splitlines())) <= 100
    assert "too narrow for the 95 % intervals" in narrow and "[+" not in narrow and "[+" in wide
    assert "\x1b[" in to_terminal(mixed, color=True) and "\x1b[" not in wide


def test_names_of_methods_rows_of_one_run_and_notes_are_told() -> None:
    old = make_run({("checkpoint[path=a]", "church"): FEW, ("uce", "church"): FEW}, environment={"python": "3.11"})
    new = make_run({("checkpoint[path=b]", "church"): FEW, ("mace", "church"): FEW}, environment={"python": "3.12"})
    comparison = compare(old, new, allow_missing=True)
    for text in (to_terminal(comparison), to_markdown(comparison).replace("\\", "").replace("&gt;", ">")):
        assert "Compared under two names: checkpoint[path=a] -> checkpoint[path=b]" in text
        assert (
            "Not compared, of the base run: uce, church" in text
            and "Not compared, of the new run: mace, church" in text
        )
        assert "Note: python 3.11 before, 3.12 after" in text


def test_a_row_that_failed_says_why() -> None:
    run = make_run({("uce", "church"): FEW, ("mace", "church"): FEW})
    rows = (run.rows[0], replace(run.rows[1], status="failed", reason="diverged"))
    comparison = compare(run, replace(run, rows=rows))
    assert re.search(r"worse +mace +church +failed: diverged", to_terminal(comparison))
    shown = compare(run, replace(run, rows=rows), [])
    assert re.search(r"not judged +mace +church +failed: diverged", to_terminal(shown))
    case = ElementTree.fromstring(to_junit(comparison)).find(".//testcase[failure]")
    assert case is not None and case.get("classname") == "mace, church"
    assert case[0].get("message") == "worse: could be measured before, now failed: diverged"


def test_junit_is_read_by_a_consumer(mixed: RunComparison, tmp_path: Path) -> None:
    (tmp_path / "junit.xml").write_text(to_junit(mixed), encoding="utf-8")
    suites = JUnitXml.fromfile(str(tmp_path / "junit.xml"))
    (suite,) = suites
    assert (suite.name, suite.tests, suite.failures, suite.errors, suite.skipped) == ("erasebench compare", 4, 1, 0, 1)
    found = {case.classname: [type(result) for result in case.result] for case in suite}
    assert found == {"worse, church": [Failure], "small, church": [Skipped], "better, church": [], "same, church": []}
    assert {case.name for case in suite} == {"Ratio (%)"}
    recount = JUnitXml.fromfile(str(tmp_path / "junit.xml"))
    recount.update_statistics()  # type: ignore[no-untyped-call]
    assert (recount.tests, recount.failures, recount.errors) == (suites.tests, suites.failures, suites.errors)


@pytest.mark.parametrize(("fails", "result"), [(False, Skipped), (True, Failure)])
def test_inconclusive_fails_in_junit_if_asked_to(fails: bool, result: type) -> None:
    comparison = compared({"uce": FEW[:20]}, {"uce": np.arange(20) < 4})
    (suite,) = JUnitXml.fromstring(to_junit(comparison, fails).partition("\n")[2])
    assert [type(one) for case in suite for one in case.result] == [result]


def test_names_are_escaped_everywhere() -> None:
    runs = [make_run({(HOSTILE, CONCEPT): hits}) for hits in (FEW, MANY)]
    comparison = compare(runs[0], runs[1])
    suite = ElementTree.fromstring(to_junit(comparison))
    case = suite.find(".//testcase")
    assert case is not None
    assert case.get("classname") == f"{HOSTILE}, {CONCEPT}".replace("\x1b", "\ufffd").replace("\ud800", "\ufffd")
    page = MarkdownIt("commonmark", {"html": True}).enable("table").render(to_markdown(comparison))
    assert "<script" not in page and "<a " not in page and "<strong" not in page and "<code" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page and "[x](javascript:alert`1`)|**bold**" in page
    assert "<b>" not in page
    assert page.count("<td") == 8 * page.count("<tr>") - 8
    for written in (to_markdown(comparison), to_terminal(comparison), to_json(comparison), to_junit(comparison)):
        assert "\x1b" not in written
        written.encode()
    assert json.loads(to_json(comparison))["verdict"] == "worse"


def test_json_holds_all_of_it_and_nothing_that_is_no_json(mixed: RunComparison) -> None:
    content = json.loads(to_json(mixed), parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert content["verdict"] == "worse" and len(content["changes"]) == len(mixed.changes)
    first = next(one for one in content["changes"] if one["method"] == "worse")
    assert (first["before"], first["after"], first["difference"]["value"], first["verdict"]) == (5, 50, 45, "worse")
    assert next(one for one in content["changes"] if one["method"] == "sd")["p"] is None


def test_what_is_missing_is_named_and_fails_in_junit() -> None:
    comparison = compared({"uce": FEW, "mace": FEW}, {"uce": FEW})
    text = to_terminal(comparison)
    assert re.search(r"^inconclusive +mace +missing in the new run", text, re.MULTILINE)
    assert "Missing in the new run: mace; --allow-missing accepts that" in text and "could see" not in text
    case = ElementTree.fromstring(to_junit(comparison)).find(".//testcase[failure]")
    assert case is not None and case.get("classname") == "mace"
    assert case[0].get("message") == "inconclusive: could be measured before, now missing in the new run"
    allowed = to_junit(compared({"uce": FEW, "mace": FEW}, {"uce": FEW}, allow_missing=True))
    assert 'failures="0"' in allowed and 'tests="1"' in allowed


def test_what_is_not_paired_is_not_said_to_be_of_prompts() -> None:
    base, new = (make_run({("uce", "church"): FEW}, fid=fid) for fid in (1.0, 2.0))
    comparison = compare(base, new, ["fid", "ratio"])
    said = {change.metric: describe(comparison, change) for change in comparison.changes}
    assert "100 images a run, two intervals, unpaired" in said["fid"] and "prompts" not in said["fid"]
    assert "60 prompts, McNemar" in said["ratio"]
    assert "95 % intervals of the difference, over prompts, but of FID over images, without pairs" in to_terminal(
        comparison
    )
