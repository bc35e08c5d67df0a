"""The results that the project commits can be read, and their report is of them."""

from __future__ import annotations

import csv
import re
from collections import Counter
from pathlib import Path

import pytest

from erasebench.config import make_config, read_layer
from erasebench.named_files import suite_files
from erasebench.results.run_folder import RunFolder, read_run
from erasebench.results.table import read_csv
from erasebench.suites import parse_suite

RESULTS = Path(__file__).parents[2] / "results" / "picturebook"
REPORT_BYTES, RESULTS_BYTES = 4e6, 8e6


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


@pytest.mark.parametrize("name", sorted(suite_files()))
def test_the_quick_run_of_every_suite_is_committed(name: str) -> None:
    folder = RESULTS / "suites" / name
    suite = parse_suite(suite_files()[name])
    rows = [row for row in read_csv((folder / "table.csv").read_text(encoding="utf-8")) if not row.attack]
    config = make_config(read_layer(folder / "run.yaml"))
    assert config.suite == name and {row.status for row in rows} == {"ok"}
    assert {row.concept for row in rows} == set(config.concepts)
    assert {row.method for row in rows} == {"sd", *config.methods}
    text = (folder / "suite.md").read_text(encoding="utf-8")
    assert text.startswith(f"# {suite.title}\n\nQuick scale on Picturebook: not the paper's models or prompts.")
    assert all(f"Not verified: {line}" in text for line in suite.unverified)
    with (folder / "reproduce.csv").open(encoding="utf-8", newline="") as stream:
        beside = list(csv.DictReader(stream))
    assert bool(beside) == (name not in ("erase-eval", "esd-figure-7"))
    assert all("model: picturebook" in line["differs"] and not line["agrees"] for line in beside)


def test_dark_miners_attacks_are_there_prompt_by_prompt() -> None:
    with (RESULTS / "suites" / "dark-miner-table-1" / "attacks.csv").open(encoding="utf-8", newline="") as stream:
        tried = Counter((row["method"], row["concept"], row["attack"]) for row in csv.DictReader(stream))
    assert len(tried) == 8 * 4 * 5 and set(tried.values()) == {5}


def test_all_that_is_kept_is_small() -> None:
    assert sum(path.stat().st_size for path in RESULTS.parent.rglob("*") if path.is_file()) < RESULTS_BYTES


def test_no_machine_is_named() -> None:
    for path in RESULTS.rglob("*"):
        if path.suffix in (".yaml", ".json", ".csv", ".md", ".html"):
            text = path.read_text(encoding="utf-8")
            assert str(Path.home()) not in text and str(RESULTS.parents[1]) not in text, path
