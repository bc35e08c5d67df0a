"""The image viewer in a browser: filters, links, the lightbox, comparing, revealing; with scripts and without."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote

import pytest

from erasebench.report.assets import asset
from erasebench.report.viewer import viewer_section
from tests.browser import address
from tests.report.viewed import attacked, judged_again, read_finished

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

CELLS = ".img-sheet td:visible:not(.img-dim)"
PAGE = """<!doctype html><html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1"><title>Images</title>
<style>:root {{ color-scheme: light dark }} {css}</style></head><body>{section}<script>{js}</script></body></html>"""


@pytest.fixture(scope="module")
def report(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of one run in photographs, so that nudity is sensitive, with attacks and a second judge."""
    run, store = read_finished(finished)
    run = attacked(run, {("uce", "rab"): "c-", ("uce", "<b>p4d</b>"): "r-"})
    run = judged_again(run, {0: 0.9, 1: 0.1, 2: 0.9, 3: 0.9})
    run = replace(run, record=run.record.model_copy(update={"domain": "photo"}))
    out = tmp_path_factory.mktemp("viewer") / "my 100% report #1?.html"
    section = viewer_section([run], [store], out)
    css, js = (asset(f"viewer.{kind}") for kind in ("css", "js"))
    out.write_text(PAGE.format(css=css, js=js, section=section), encoding="utf-8")
    return out


@pytest.fixture
def page(browser: Browser, report: Path) -> Iterator[Page]:
    """The page, opened from disk; nothing may be logged as an error and nothing asked of a network."""
    yield from opened(browser, report)


def opened(browser: Browser, report: Path, **context: Any) -> Iterator[Page]:
    with browser.new_context(**context) as own:
        page, errors, requests = own.new_page(), [], []
        page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(report.as_uri())
        yield page
        assert not [each for each in errors if "ERR_FILE_NOT_FOUND" not in each]
        assert {request.partition(":")[0] for request in requests} <= {"file", "data"}


def counted(page: Page) -> int:
    """How many images match, in the page's own words."""
    words = page.locator(".img-count").inner_text()
    return int(words.split()[0]) if words[0].isdigit() else 0


def fragment(page: Page) -> set[tuple[str, str]]:
    """The pairs in the page's address, behind the section."""
    section, _, query = address(page).partition("#")[2].partition("?")
    assert section in ("", "images")
    return set(parse_qsl(query, keep_blank_values=True))


def test_filters_narrow_what_is_seen_and_are_in_the_link(page: Page) -> None:
    every = counted(page)
    assert every == page.locator(".img-sheet td[data-s]").count() == page.locator(CELLS).count() > 30
    page.select_option("[name=concept]", "church")
    assert page.locator("[data-concept=nudity]").is_hidden() and 0 < counted(page) < every
    page.select_option("[name=shows]", "1")
    assert page.locator(f"{CELLS}[data-v='0']").count() == 0 < page.locator(f"{CELLS}[data-v='1']").count()
    page.fill("[name=min]", "0.6")
    page.fill("[name=max]", "0.8")
    scores = [float(score) for score in page.eval_on_selector_all(CELLS, "all => all.map(each => each.dataset.s)")]
    assert scores and all(0.6 <= score <= 0.8 for score in scores) and len(scores) == counted(page)
    assert fragment(page) == {("img.concept", "church"), ("img.shows", "1"), ("img.min", "0.6"), ("img.max", "0.8")}
    page.click("text=Reset")
    page.wait_for_function("!location.hash.includes('?')")
    assert counted(page) == every


def test_methods_and_kinds(page: Page) -> None:
    page.click("summary")
    page.uncheck("[name=method][data-name=sd]")
    assert page.locator("td[data-m='0']:visible, thead th[data-m='0']:visible").count() == 0
    assert page.locator("td[data-m='1']:visible").count() > 5
    assert fragment(page) == {("img.method", "uce"), ("img.method", "failing")}
    page.select_option("[name=kind]", "implying")
    kinds = page.eval_on_selector_all("tbody tr", "all => all.filter(e => e.offsetParent).map(e => e.dataset.kind)")
    assert set(kinds) == {"implying"}
    page.click("[data-do=none]")
    assert counted(page) == 0 and "No image matches" in page.locator(".img-count").inner_text()
    page.reload()
    assert counted(page) == 0 and fragment(page) == {("img.method", ""), ("img.kind", "implying")}


def test_judges_that_disagree(page: Page) -> None:
    page.check("[name=disagree]")
    assert page.locator(CELLS).count() == counted(page) > 0
    assert page.locator(f"{CELLS}:not([data-disputed])").count() == 0
    assert fragment(page) == {("img.disagree", "1")}


def test_a_link_restores_what_was_seen_and_leaves_other_keys_alone(browser: Browser, report: Path) -> None:
    state = "#images?sort=t:1:ascending&img.concept=church&img.shows=0&img.method=uce&img.close=1&q=a%20b"
    for page in opened(browser, Path(f"{report}")):
        page.goto(report.as_uri() + state)
        page.reload()
        assert page.input_value("[name=concept]") == "church" and page.input_value("[name=shows]") == "0"
        assert page.is_checked("[name=close]") and not page.is_checked("[name=method][data-name=sd]")
        page.uncheck("[name=close]")
        expected = {("sort", "t:1:ascending"), ("q", "a b"), ("img.concept", "church"), ("img.shows", "0")}
        assert fragment(page) == expected | {("img.method", "uce")}
        page.evaluate("location.hash = 'img.concept=nudity&q=a'")
        page.wait_for_function("document.querySelector('[name=concept]').value === 'nudity'")
        assert page.is_checked("[name=method][data-name=sd]")
        page.evaluate("location.hash = 'elsewhere'")
        page.wait_for_timeout(100)
        assert page.input_value("[name=concept]") == "nudity", "a link to another section changes no filter"
        page.goto(report.as_uri() + "#images?img.concept=%E0%A4%A&img.method=nobody&img.open=9-9-9&img.pair=x")
        page.reload()
        assert page.locator("dialog[open]").count() == 0 and counted(page) == 0, "nonsense is no error"


def test_the_lightbox_goes_by_keyboard_and_can_be_linked(page: Page) -> None:
    page.locator(".img-sheet a").first.focus()
    page.keyboard.press("Enter")
    box = page.locator(".img-lightbox")
    title, prompt = box.locator("h3"), box.locator("figcaption .img-prompt")
    assert box.is_visible() and title.inner_text() == "church: sd"
    page.wait_for_function("document.querySelector('.img-lightbox img').src.endsWith('.png')")
    before = prompt.inner_text(), box.locator("figcaption").inner_text()
    page.keyboard.press("ArrowRight")
    assert title.inner_text() == "church: uce" and prompt.inner_text() == before[0]
    page.keyboard.press("ArrowDown")
    assert title.inner_text() == "church: uce" and box.locator("figcaption").inner_text() != before[1]
    (link,) = fragment(page)
    page.reload()
    assert box.is_visible() and title.inner_text() == "church: uce" and fragment(page) == {link}
    page.keyboard.press("Escape")
    page.wait_for_function("!location.hash.includes('?')")
    assert box.is_hidden() and page.evaluate("document.activeElement.matches('.img-sheet a')")


def test_two_methods_are_compared_with_a_slider_by_keyboard(page: Page) -> None:
    page.select_option("[name=concept]", "church")
    page.click("[data-do=compare]")
    dialog = page.locator(".img-compare")
    assert dialog.locator("h3").inner_text().startswith("church: pair 1 of ")
    assert [text.split("\n")[0] for text in dialog.locator(".img-ends p").all_inner_texts()] == ["A: sd", "B: uce"]

    def edge() -> float:
        clip = dialog.locator(".img-pair img").last.evaluate("e => getComputedStyle(e).clipPath")
        return float(re.findall(r"([\d.]+)%", clip)[-1]) if "%" in clip else 0.0

    assert edge() == 50
    for _ in range(10):
        page.keyboard.press("ArrowRight")
    assert edge() == 60
    page.keyboard.press("End")
    assert edge() == 100
    page.keyboard.press("n")
    assert "pair 2" in dialog.locator("h3").inner_text() and "img.pair=0-1" in address(page)
    page.focus(".img-compare [data-do=back]")
    page.keyboard.press("ArrowRight")
    assert "pair 3" in dialog.locator("h3").inner_text()
    box = dialog.locator(".img-pair").bounding_box()
    assert box
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 20)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 4, box["y"] + 20)
    page.mouse.up()
    assert 24 <= edge() <= 26
    page.check(".img-beside")
    assert page.locator(".img-compare input[type=range]").is_hidden()
    page.keyboard.press("Escape")
    page.wait_for_function("!location.hash.includes('pair')")
    assert dialog.is_hidden()


def test_only_what_differs(page: Page) -> None:
    page.check("[name=diff]")
    rows = page.locator(".img-sheet tbody tr:visible").all()
    verdicts = [[row.locator(f"td[data-m='{m}']").get_attribute("data-v") for m in (0, 1)] for row in rows]
    assert verdicts and all(sorted(filter(None, pair)) == ["0", "1"] for pair in verdicts)
    page.select_option("[name=b]", "0")
    assert counted(page) == 0, "a method does not differ from itself"


def test_sensitive_images_are_loaded_by_a_click_only_and_never_by_a_link(page: Page, report: Path) -> None:
    image = page.locator("[data-concept=nudity] .img-sheet img").first
    assert image.get_attribute("src").startswith("data:")  # type: ignore[union-attr]
    assert "blur" in image.evaluate("e => getComputedStyle(e).filter")
    image.click()
    page.wait_for_function("document.querySelector('[data-concept=nudity] .img-sheet img').src.endsWith('.png')")
    assert image.evaluate("e => getComputedStyle(e).filter") == "none"
    assert page.locator("dialog[open]").count() == 0 and not fragment(page), "the first click only reveals"
    image.click()
    assert page.locator(".img-lightbox").is_visible()
    page.keyboard.press("ArrowRight")
    large = page.locator(".img-lightbox figure > img")
    assert large.get_attribute("src").startswith("data:"), "the next one is still blurred"  # type: ignore[union-attr]
    assert "blur" in large.evaluate("e => getComputedStyle(e).filter") and page.locator(".img-file").is_hidden()
    page.reload()
    assert page.locator(".img-lightbox").is_visible() and page.locator(".img-revealed").count() == 0
    page.click(".img-lightbox [data-do=show]")
    page.wait_for_function("document.querySelector('.img-lightbox figure > img').src.endsWith('.png')")
    page.keyboard.press("Escape")
    page.click("[data-concept=nudity] [data-do=reveal]")
    page.wait_for_function(
        "[...document.querySelectorAll('[data-concept=nudity] .img-sheet img')].every(e => e.src.endsWith('.png'))"
    )


def test_without_the_originals_the_page_works_and_says_so(browser: Browser, report: Path, tmp_path: Path) -> None:
    alone = Path(shutil.copy(report, tmp_path / "alone.html"))
    for page in opened(browser, alone):
        page.locator(".img-sheet a").first.click()
        message = page.locator(".img-lightbox .img-message")
        message.filter(
            has_text="The original is not there: keep the folder my 100% report #1?-images beside"
        ).wait_for()
        assert page.locator(".img-lightbox figure > img").get_attribute("src").startswith("data:")  # type: ignore[union-attr]
        page.keyboard.press("Escape")
        page.locator("[data-concept=nudity] .img-sheet a").first.click()
        message.filter(has_text="The original is not there").wait_for()
        assert page.locator(".img-revealed").count() == 0


def test_without_scripts_all_is_there_but_the_filters(browser: Browser, report: Path) -> None:
    for page in opened(browser, report, java_script_enabled=False):
        assert page.locator(".img-bar").is_hidden() and page.locator(".img-sheet td[data-s]").first.is_visible()
        assert page.locator("dialog:visible, button:visible").count() == 0
        href = page.locator(".img-sheet a").first.get_attribute("href")
        assert href and (report.parent / unquote(href)).is_file()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_is_wider_than_the_screen(browser: Browser, report: Path, width: int, scheme: str) -> None:
    for page in opened(browser, report, viewport={"width": width, "height": 800}, color_scheme=scheme):
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        page.click("[data-do=compare]")
        box = page.locator(".img-compare").bounding_box()
        assert box and box["x"] >= 0 and box["x"] + box["width"] <= width
        light = page.evaluate("getComputedStyle(document.querySelector('.img-compare')).backgroundColor")
        assert (light == "rgb(255, 255, 255)") == (scheme == "light")


def test_it_prints_the_grid_alone(page: Page) -> None:
    page.emulate_media(media="print")
    assert page.locator(".img-bar").is_hidden() and page.locator(".img-sheet img").first.is_visible()
    assert page.evaluate("getComputedStyle(document.querySelector('.img-scroll')).maxHeight") == "none"
