"""The report in a browser: opened from disk, clicked through, with scripts and without."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from erasebench.report.html import render_report, write_report
from erasebench.results.rows import TableRow
from tests.browser import address
from tests.report.synthetic import HOSTILE, METHODS, matrix, run_of


@dataclass
class Watched:
    """A page, and what it asked for and complained about."""

    page: Page
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def check(self) -> None:
        assert not self.complaints
        assert self.requests and all(url.startswith(("file:", "data:", "blob:")) for url in self.requests)


@pytest.fixture
def opened(browser: Browser, report: Path) -> Iterator[Watched]:
    watched = watch(browser)
    watched.page.goto(report.as_uri())
    yield watched
    watched.check()
    watched.page.context.close()


def watch(browser: Browser, **options: Any) -> Watched:
    watched = Watched(browser.new_context(accept_downloads=True, **options).new_page())
    watched.page.on("request", lambda request: watched.requests.append(request.url))
    watched.page.on("console", lambda message: watched.complaints.append(message.text))
    watched.page.on("pageerror", lambda error: watched.complaints.append(str(error)))
    watched.page.on("dialog", lambda dialog: watched.complaints.append(dialog.message))
    return watched


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a run with attacks, flags, a failure and names that are scripts."""
    rows = matrix(METHODS, ["church", "nudity"], ["none", "rab", "standard"], {"ca": ("wide",)})
    rows += [
        TableRow("broken", "church", "failed", "diverged"),
        *matrix(["sd", HOSTILE[0]], [HOSTILE[1]], [HOSTILE[2]]),
    ]
    file = tmp_path_factory.mktemp("report") / "report.html"
    file.write_text(render_report([run_of(rows)], [], file), encoding="utf-8")
    return file


def methods(page: Page, table: str = "table-church") -> list[str]:
    """The rows of a table that can be seen, in their order."""
    rows = page.locator(f"#{table} tbody tr:visible th .value")
    return [str(text) for text in rows.all_inner_texts()]


def test_a_click_on_a_heading_sorts_and_another_turns_it_round(opened: Watched) -> None:
    page = opened.page
    before = methods(page)
    head = page.locator("#table-church thead th").nth(1)
    head.click()
    ratios = [float(text) for text in page.locator("#table-church tbody td:nth-child(2)").evaluate_all(SORT_KEYS)]
    assert ratios[0] == -1, "what has no number is below all"
    assert ratios == sorted(ratios) and head.get_attribute("aria-sort") == "ascending"
    assert methods(page) != before and sorted(methods(page)) == sorted(before)
    head.focus()
    page.keyboard.press("Enter")
    turned = [float(text) for text in page.locator("#table-church tbody td:nth-child(2)").evaluate_all(SORT_KEYS)]
    assert turned == sorted(turned, reverse=True) and head.get_attribute("aria-sort") == "descending"
    clip = page.locator("#table-church thead th").nth(3)
    clip.click()
    assert clip.get_attribute("aria-sort") == "descending", "where more is better the best is first"


SORT_KEYS = "cells => cells.map(cell => cell.dataset.sort || '-1')"


def test_filters_hide_rows_and_stand_in_the_address(opened: Watched, report: Path, browser: Browser) -> None:
    page = opened.page
    page.locator("select[name=concept]").select_option("church")
    page.locator("input[name=q]").fill("ESD")
    assert methods(page) == ["esd-x"] and methods(page, "attacks-church") == ["esd-x"]
    assert not page.locator("#table-nudity").is_visible()
    assert page.locator("form.filter output").inner_text().startswith("2 of ")
    assert "concept=church" in address(page) and "q=ESD" in address(page)
    page.locator("#table-church thead th").nth(1).click()
    again = watch(browser)
    again.page.goto(address(page))
    assert methods(again.page) == ["esd-x"] and again.page.locator("input[name=q]").input_value() == "ESD"
    assert again.page.locator("#table-church thead th").nth(1).get_attribute("aria-sort") == "ascending"
    again.check()
    page.get_by_role("button", name="Clear").click()
    expect(page.locator("form.filter output")).to_be_empty()
    assert len(methods(page)) == len(METHODS) + 1 and "q=" not in address(page)


def test_a_status_finds_what_failed(opened: Watched) -> None:
    opened.page.locator("select[name=status]").select_option("failed")
    assert methods(opened.page) == ["broken"]


def test_the_drawer_opens(opened: Watched) -> None:
    page = opened.page
    drawer = page.locator("#drawer")
    assert not drawer.get_by_text("Checksum of the run").is_visible()
    drawer.locator("summary").click()
    assert drawer.get_by_text("Checksum of the run").is_visible()


def test_a_deep_link_leads_to_its_row_and_opens_what_it_is_in(opened: Watched, report: Path, browser: Browser) -> None:
    row = watch(browser)
    row.page.goto(f"{report.as_uri()}#attacked-mace~nudity")
    expect(row.page.locator("tr:target")).to_be_in_viewport()
    assert row.page.evaluate("document.querySelector(':target').dataset.method") == "mace"
    row.check()
    page = opened.page
    page.locator("#table-church .flag").first.click()
    expect(page.locator("#flag-wide")).to_have_attribute("open", "")
    expect(page.locator("#flag-wide").get_by_text("Run with more prompts.")).to_be_visible()


def test_the_state_of_tables_and_that_of_images_leave_each_other_alone(
    browser: Browser, finished: Path, tmp_path: Path
) -> None:
    file = write_report([finished / "out"], tmp_path / "report.html")
    watched = watch(browser)
    page = watched.page
    page.goto(f"{file.as_uri()}#images?img.min=0.25")
    page.locator("form.filter input[name=q]").fill("uce")
    assert "img.min=0.25" in address(page) and "q=uce" in address(page)
    page.locator("#images input[name=max]").fill("0.75")
    assert all(part in address(page) for part in ("#images?", "img.min=0.25", "img.max=0.75", "q=uce"))
    again = watch(browser)
    again.page.goto(address(page))
    assert again.page.locator("#images input[name=min]").input_value() == "0.25"
    assert methods(again.page) == ["uce"]
    watched.check()
    again.check()


def test_files_can_be_saved(opened: Watched, tmp_path: Path) -> None:
    with opened.page.expect_download() as started:
        opened.page.locator("#results .button", has_text="CSV").first.click()
    assert started.value.suggested_filename == "table.csv"
    started.value.save_as(tmp_path / "table.csv")
    assert (tmp_path / "table.csv").read_text().startswith("method,concept,attack,ratio,")
    uri = str(opened.page.locator("#results .button", has_text="CSV").first.get_attribute("href"))
    assert base64.b64decode(uri.partition(",")[2]) == (tmp_path / "table.csv").read_bytes()


def test_hostile_names_are_shown_and_do_nothing(opened: Watched) -> None:
    names = opened.page.locator("th .value", has_text="<script>").all_inner_texts()
    assert set(names) == {HOSTILE[0]}
    opened.page.locator("select[name=method]").select_option(HOSTILE[0])
    assert HOSTILE[1] in opened.page.locator("#results table:visible caption").all_inner_texts()


def test_without_scripts_all_of_it_is_there(browser: Browser, report: Path) -> None:
    watched = watch(browser, java_script_enabled=False)
    page = watched.page
    page.goto(report.as_uri())
    assert page.locator("#table-church tbody tr").count() == len(METHODS) + 1
    assert not page.locator("form.filter").is_visible() and not page.locator("button.copy").is_visible()
    page.locator("#drawer summary").click()
    assert page.locator("#drawer").get_by_text("Checksum of the run").is_visible()
    assert page.locator("#overall svg").first.is_visible()
    with page.expect_download() as started:
        page.locator("#results .button", has_text="JSON").first.click()
    assert started.value.suggested_filename == "table.json"
    assert not [text for text in watched.complaints if "Blocked script" not in text]


OPEN = "[...document.querySelectorAll('details')].map(one => one.open)"


def test_on_paper_all_drawers_are_open_and_afterwards_as_they_were(opened: Watched) -> None:
    page = opened.page
    page.locator("#flags summary").first.click()
    before = page.evaluate(OPEN)
    assert True in before and False in before
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert all(page.evaluate(OPEN))
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.evaluate(OPEN) == before


def test_on_paper_drawers_are_open_without_scripts_too(browser: Browser, report: Path) -> None:
    watched = watch(browser, java_script_enabled=False)
    page = watched.page
    page.goto(report.as_uri())
    inside = page.locator("#drawer").get_by_text("Checksum of the run")
    assert not inside.evaluate(SEEN)
    page.emulate_media(media="print")
    assert inside.evaluate(SEEN)
    assert page.locator("details > :not(summary)").evaluate_all(f"all => all.every({SEEN})")
    page.context.close()


SEEN = "element => element.checkVisibility({contentVisibilityAuto: true})"


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_width_makes_the_page_scroll_sideways(browser: Browser, report: Path, scheme: str) -> None:
    watched = watch(browser, color_scheme=scheme)
    watched.page.goto(report.as_uri())
    for width in (390, 768, 1280):
        watched.page.set_viewport_size({"width": width, "height": 800})
        assert watched.page.evaluate("document.documentElement.scrollWidth") <= width
    background = watched.page.evaluate("getComputedStyle(document.body).backgroundColor")
    light = sum(map(int, background.removeprefix("rgb(").removesuffix(")").split(","))) > 384
    assert light == (scheme == "light")
    watched.check()
    watched.page.context.close()
