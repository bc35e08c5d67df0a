"""A report of many rows: it is small, and opens at once."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Browser

from erasebench.engine.store import Store
from erasebench.report.html import render_report
from erasebench.report.viewer import BUDGET
from tests.report.synthetic import METHODS, matrix, run_of, with_cells
from tests.report.test_html import Page
from tests.whole.test_html_browser import watch

SECOND = 1.0
TRAINED = ("esd-x", "ca", "mace", "dm2", "trained-0", "trained-1")
"""Methods whose erasures have a curve here."""


@pytest.fixture(scope="module", params=[6, 60], ids="{} rows".format)
def rows(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.fixture(scope="module")
def report(rows: int, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a run of so many rows with images and attacks, and the curves of those that trained."""
    methods = [*METHODS, *(f"trained-{k}" for k in range(14))] if rows == 60 else [METHODS[0], TRAINED[0]]
    folder = tmp_path_factory.mktemp("rows")
    store = Store(folder / "store")
    attacks = ["none", "rab", "standard"]
    run = with_cells(run_of(matrix(methods, [f"concept-{k}" for k in range(3)], attacks)), store, TRAINED)
    file = folder / "report.html"
    file.write_text(render_report([run], [store], file), encoding="utf-8")
    return file


@pytest.mark.slow
def test_with_images_attacks_and_curves_it_is_small(report: Path, rows: int) -> None:
    page = Page(report.read_text(encoding="utf-8"))
    assert sum(1 for row in page.all("tr") if row.get("id", "").startswith("row-")) == rows
    curves = {a["id"] for a in page.all("figure") if a.get("id", "").startswith("curve-")}
    assert len(curves) == 3 * (len(TRAINED) if rows == 60 else 1)
    assert {"images", "attacks", "budget", "curves"} <= set(page.ids)
    thumbnails = sum(len(a["src"]) for a in page.all("img") if a.get("src", "").startswith("data:image/webp"))
    assert (0.9 * BUDGET if rows == 60 else 0) < thumbnails <= BUDGET, "as many as there may be"
    assert report.stat().st_size < (8e6 if rows == 60 else 1.5e6)


@pytest.mark.slow
@pytest.mark.parametrize("scripts", [True, False])
def test_it_opens_within_a_second(browser: Browser, report: Path, scripts: bool) -> None:
    watched = watch(browser, java_script_enabled=scripts)
    page = watched.page
    measuring = page.context.new_cdp_session(page)
    # The processor's time of the page's thread, however busy the machine is.
    measuring.send("Performance.enable", {"timeDomain": "threadTicks"})
    page.goto(report.as_uri())
    taken = {one["name"]: one["value"] for one in measuring.send("Performance.getMetrics")["metrics"]}
    assert 0 < taken["LayoutDuration"] < taken["TaskDuration"] < SECOND
    assert page.locator("#images img").count() and page.locator("#curves svg").count()
    page.context.close()
