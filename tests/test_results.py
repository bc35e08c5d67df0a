"""The results that the project commits can be read, and their report is of them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from erasebench.results.run_folder import RunFolder, read_run

RESULTS = Path(__file__).parents[1] / "results" / "picturebook"
REPORT_BYTES = 4e6


@pytest.fixture(scope="module")
def run() -> RunFolder:
    return read_run(RESULTS / "attacks")


def test_every_row_was_measured_and_attacked(run: RunFolder) -> None:
    assert {row.status for row in run.rows} == {"ok"}
    assert len(run.record.attacks) == 9 * 11 and len(run.attacks) == 9 * 11 * 10


def test_the_committed_report_is_of_the_committed_run_and_small(run: RunFolder) -> None:
    text = (RESULTS / "attacks" / "report.html").read_text(encoding="utf-8")
    assert len(text.encode()) < REPORT_BYTES
    assert run.record.protocol and run.record.protocol.checksum("church") in text
    plain = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", text))
    for row in run.rows:
        ratio = row.metrics.get("ratio")
        if ratio:
            assert f"{ratio.value:.2f} [{ratio.low:.2f}, {ratio.high:.2f}]" in plain, row.method
    assert not re.search(r'(?:src|data-src)="(?!data:)[^"]*:', text), "nothing is loaded from elsewhere"


def test_no_machine_is_named(run: RunFolder) -> None:
    for path in RESULTS.rglob("*"):
        if path.suffix in (".yaml", ".json", ".csv", ".md", ".html"):
            text = path.read_text(encoding="utf-8")
            assert str(Path.home()) not in text and str(RESULTS.parents[1]) not in text, path
