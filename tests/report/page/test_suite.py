"""The suite's section of the page."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from erasebench.report.html import render_report
from erasebench.report.page.suite import suite_page
from erasebench.results.run_folder import RunFolder
from erasebench.suites import FILE, find_suite
from tests.report.page.test_tables import content
from tests.report.synthetic import HOSTILE, matrix, run_of


def run_of_suite(folder: Path, text: str | None = None) -> RunFolder:
    """A run of Dark Miner's table 1, or of another suite."""
    text = text or find_suite("dark-miner-table-1").read_text(encoding="utf-8")
    (folder / FILE).write_text(text, encoding="utf-8")
    run = run_of(matrix(["sd", "uce", "dm2"], ["church", "nudity"], ["none", "rab"]))
    record = run.record.model_copy(update={"files": {FILE: ""}, "suite_scale": "Some scale."})
    return replace(run, folder=folder, record=record)


def test_a_table_for_as_many_headings_as_fit(tmp_path: Path) -> None:
    page = suite_page(run_of_suite(tmp_path), "r1-")
    assert page and page.scale == "Some scale." and len(page.tables) == 1
    (table,) = page.tables
    assert (table.identity, table.caption) == ("r1-suite-1", "church, nudity")
    assert [column.title for column in table.columns][:3] == [
        *("Method", "church / Ratio (%) ↓", "church / Score (x100) ↓"),
    ]
    assert [row.cells[0].text for row in table.rows] == ["sd", "uce", "dm2"]
    cell = table.rows[1].cells[1]
    assert cell.sort and float(cell.sort) == float(cell.text)
    assert content(page.downloads[0].uri).startswith("method,church / ratio,")


def test_a_run_of_no_suite_has_no_section(tmp_path: Path) -> None:
    run = run_of(matrix(["sd"], ["church"], []))
    assert suite_page(run, "") is None
    assert 'id="suite"' not in render_report([run], [], tmp_path / "report.html")


@pytest.mark.slow
def test_what_a_suite_says_is_text_and_no_markup(tmp_path: Path) -> None:
    hostile = HOSTILE[0]
    text = f'title: "{hostile}"\nprotocol: "{hostile}"\nunverified: ["{hostile}"]\ntable: {{metrics: [ratio]}}\n'
    page = render_report([run_of_suite(tmp_path, text)], [], tmp_path / "report.html")
    assert hostile not in page and page.count("&lt;script&gt;alert(1)") >= 3
    assert 'href="#suite"' in page and "Some scale." in page
