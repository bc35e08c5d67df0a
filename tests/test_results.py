"""The results that the project commits can be read, and their report is of them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from erasebench.results.run_folder import RunFolder, read_run

RESULTS = Path(__file__).parents[1] / "results" / "picturebook"
REPORT_BYTES = 4e6


@pytest.fixture(scope="module")
def runs() -> tuple[RunFolder, RunFolder]:
    return read_run(RESULTS / "church"), read_run(RESULTS / "attacks")


def test_every_row_was_measured_and_attacked(runs: tuple[RunFolder, RunFolder]) -> None:
    erased, attacked = runs
    assert {row.status for run in runs for row in run.rows} == {"ok"}
    assert len(erased.rows) == 16
    assert len(attacked.record.attacks) == 9 * 11 and len(attacked.attacks) == 9 * 11 * 10


def test_the_committed_report_is_of_the_committed_runs_and_small(runs: tuple[RunFolder, RunFolder]) -> None:
    text = (RESULTS / "report.html").read_text(encoding="utf-8")
    assert len(text.encode()) < REPORT_BYTES
    plain = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", text))
    for run in runs:
        assert run.record.protocol and run.record.protocol.checksum("church") in text
        for row in run.rows:
            if ratio := row.metrics.get("ratio"):
                shown = (f"{ratio.value:.{d}f} [{ratio.low:.{d}f}, {ratio.high:.{d}f}]" for d in (1, 2))
                assert any(one in plain for one in shown), row.method
    assert not re.search(r'(?:src|data-src)="(?!data:)[^"]*:', text), "nothing is loaded from elsewhere"


def test_no_machine_is_named() -> None:
    for path in RESULTS.rglob("*"):
        if path.suffix in (".yaml", ".json", ".csv", ".md", ".html"):
            text = path.read_text(encoding="utf-8")
            assert str(Path.home()) not in text and str(RESULTS.parents[1]) not in text, path
