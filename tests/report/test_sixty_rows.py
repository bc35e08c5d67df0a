"""A report of sixty rows, which takes long to make: it is small, and opens at once."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Browser

from erasebench.engine.store import Store
from erasebench.report.html import render_report
from erasebench.report.viewer import BUDGET
from tests.report.synthetic import METHODS, matrix, run_of, with_cells
from tests.report.test_html import Page
from tests.report.test_html_browser import watch

SECOND = 1.0
TRAINED = ("esd-x", "ca", "mace", "dm2", "trained-0", "trained-1")
"""Methods whose erasures have a curve here."""


@pytest.fixture(scope="module")
def sixty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a run with 60 rows with images and attacks, and the curves of those that trained."""
    methods = [*METHODS, *(f"trained-{k}" for k in range(14))]
    folder = tmp_path_factory.mktemp("sixty")
    store = Store(folder / "store")
    attacks = ["none", "rab", "standard"]
    run = with_cells(run_of(matrix(methods, [f"concept-{k}" for k in range(3)], attacks)), store, TRAINED)
    file = folder / "report.html"
    file.write_text(render_report([run], [store], file), encoding="utf-8")
    return file


def test_with_images_attacks_and_curves_it_is_small(sixty: Path) -> None:
    page = Page(sixty.read_text(encoding="utf-8"))
    assert sum(1 for row in page.all("tr") if row.get("id", "").startswith("row-")) == 60
    assert len({a["id"] for a in page.all("figure") if a.get("id", "").startswith("curve-")}) == 3 * len(TRAINED)
    assert {"images", "attacks", "budget", "curves"} <= set(page.ids)
    thumbnails = sum(len(a["src"]) for a in page.all("img") if a.get("src", "").startswith("data:image/webp"))
    assert 0.9 * BUDGET < thumbnails <= BUDGET, "as many as there may be"
    assert sixty.stat().st_size < 8e6


@pytest.mark.parametrize("scripts", [True, False])
def test_it_opens_within_a_second(browser: Browser, sixty: Path, scripts: bool) -> None:
    watched = watch(browser, java_script_enabled=scripts)
    page = watched.page
    measuring = page.context.new_cdp_session(page)
    # The processor's time of the page's thread, however busy the machine is.
    measuring.send("Performance.enable", {"timeDomain": "threadTicks"})
    page.goto(sixty.as_uri())
    taken = {one["name"]: one["value"] for one in measuring.send("Performance.getMetrics")["metrics"]}
    assert 0 < taken["LayoutDuration"] < taken["TaskDuration"] < SECOND
    assert page.locator("#images img").count() and page.locator("#curves svg").count()
    page.context.close()
