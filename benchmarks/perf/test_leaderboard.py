"""How long a leaderboard of ten thousand rows takes: its file, its page, and a filter of the page in Chromium.

Bars: 10 s for file and page together, 0.2 s for each letter of a filter.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import sync_playwright

from benchmarks.perf.conftest import Show
from erasebench.report.board import to_html
from erasebench.results.leaderboard import BoardRow, merge
from erasebench.results.leaderboard_csv import read_leaderboard, to_csv
from tests.browser import CHROMIUM, FLAGS
from tests.results.boards import many

ROWS = 10_000
EXPORT, LETTER = 10.0, 0.2
WORDS = "esd-x learning_rate=1e-5"
TYPE = """async (text) => {
  const input = document.querySelector("input[type=search]"), times = [];
  input.focus();
  await new Promise((done) => setTimeout(done, 500));
  for (let k = 1; k <= text.length; k++) {
    const began = performance.now();
    input.value = text.slice(0, k);
    input.dispatchEvent(new Event("input", { bubbles: true }));
    await new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
    times.push((performance.now() - began) / 1000);
  }
  return times;
}"""
"""Types a text, and says how many seconds pass from each letter until what fits is on the screen."""


def write(rows: Sequence[BoardRow], folder: Path) -> None:
    """What ``export`` and ``leaderboard`` do with rows."""
    (folder / "leaderboard.csv").write_text(to_csv(merge(rows)), encoding="utf-8")
    read = merge(read_leaderboard(folder / "leaderboard.csv"))
    (folder / "board.html").write_text(to_html(read, "Leaderboard"), encoding="utf-8")


def test_leaderboard(benchmark: Any, tmp_path: Path, show: Show) -> None:
    """Ten thousand rows, of a hundred methods on ten concepts and ten models."""
    rows = many(ROWS)
    benchmark.pedantic(write, args=(rows, tmp_path), rounds=3)
    took = benchmark.stats.stats.min
    sizes = {path.name: f"{path.stat().st_size / 1e6:.1f} MB" for path in sorted(tmp_path.iterdir())}
    show(f"A leaderboard of {ROWS:,} rows", {"file and page": f"{took:.1f} s", **sizes})
    assert took < EXPORT


@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")
def test_filter(benchmark: Any, tmp_path: Path, show: Show) -> None:
    """The same, opened in Chromium, where a filter is typed."""
    (tmp_path / "board.html").write_text(to_html(many(ROWS), "Leaderboard"), encoding="utf-8")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        page = browser.new_page()
        began = time.perf_counter()
        page.goto((tmp_path / "board.html").as_uri())
        opened = time.perf_counter() - began
        letters = benchmark.pedantic(page.evaluate, args=(TYPE, WORDS), rounds=1)
        assert page.locator("output").inner_text() == "2,000 of 10,000 rows"
        browser.close()
    middle = statistics.median(letters)
    figures = {"to open": f"{opened:.2f} s", "a letter": f"{middle:.3f} s", "the slowest": f"{max(letters):.3f} s"}
    benchmark.extra_info.update(figures)
    show(f"A page of {ROWS:,} rows in Chromium", figures)
    assert middle < LETTER
