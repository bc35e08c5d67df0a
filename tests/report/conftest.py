from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright

from erasebench.report.html import render_report
from tests.report.synthetic import METHODS, matrix, run_of

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium without a window; tests that need it are skipped where there is none."""
    if CHROMIUM is None:
        pytest.skip("there is no Chromium here: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def sixty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a run with 60 rows."""
    methods = [*METHODS, "salun", "fmn", "ap-x", "ap-u"]
    file = tmp_path_factory.mktemp("sixty") / "report.html"
    run = run_of(matrix(methods, [f"concept-{k}" for k in range(6)], []))
    file.write_text(render_report([run], [], file), encoding="utf-8")
    return file
