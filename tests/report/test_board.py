"""The page of a leaderboard: who is compared with whom, what is escaped, and what a browser makes of it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

from erasebench.metrics.stats import UNDEFINED, Estimate
from erasebench.report.board import COLUMNS, PAGE_SIZE, about, amount, group, interval, seconds, to_html, web_link
from erasebench.results.leaderboard import BoardRow, Entered
from erasebench.results.leaderboard_csv import csv_lines, read_leaderboard, to_csv
from tests.engine.runs import command
from tests.results.boards import board_row, many

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>{{ 7 * 7 }}</template></title>"


def robust(value: float, reach: float = 5.0) -> dict[str, Estimate]:
    return {"robust-rate@standard": Estimate(value, value - reach, value + reach, 40)}


class Reader(HTMLParser):
    """The elements of a page, and its rows as texts."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.rows: list[list[str]] = []
        self._open = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "tr":
            self._open = (dict(attrs).get("class") or "").startswith("row")
            if self._open:
                self.rows.append([])
        elif tag == "div":
            self._space()
        elif tag in ("td", "th") and self._open:
            self.rows[-1].append("")

    def _space(self) -> None:
        if self._open and self.rows and self.rows[-1]:
            self.rows[-1][-1] += " "

    def handle_data(self, data: str) -> None:
        if self._open and self.rows and self.rows[-1]:
            self.rows[-1][-1] += data

    def handle_endtag(self, tag: str) -> None:
        if tag == "tr":
            self._open = False


def read(rows: list[BoardRow]) -> Reader:
    reader = Reader()
    reader.feed(to_html(rows, "Board"))
    return reader


def cells(row: BoardRow) -> dict[str, str]:
    (texts,) = read([row]).rows
    return {name: " ".join(text.split()) for (name, _), text in zip(COLUMNS, texts, strict=True)}


def test_only_rows_of_one_model_concept_and_protocol_are_ranked_together() -> None:
    best, worst = board_row(method="a", numbers=robust(90)), board_row(method="b", numbers=robust(10))
    alone = board_row(method="c", numbers=robust(50), protocol="other")
    unknown = board_row(method="d", numbers=robust(50), protocol="")
    base = board_row(method="sd", numbers=robust(0))
    bare = board_row(method="e", numbers={"ratio": Estimate(5.0, 1.0, 10.0, 40)})
    failed = board_row(method="f", status="failed", reason="diverged", numbers={})
    groups = group([failed, bare, worst, unknown, alone, base, best])
    assert [[row.method for row in one.rows] for one in groups] == [["sd", "a", "b", "e", "f"], ["d"], ["c"]]
    assert {(rank.first, rank.last, rank.of) for rank in groups[0].ranks.values()} == {(1, 1, 2), (2, 2, 2)}
    assert set(groups[0].ranks) == {1, 2} and groups[1].ranks == {} and groups[2].ranks[0].of == 1


def test_only_rows_that_were_attacked_alike_are_ranked_together() -> None:
    full = [board_row(method=name, numbers=robust(value)) for name, value in (("a", 60), ("b", 20))]
    short = board_row(method="c", numbers=robust(90), attack_protocol="short")
    unknown = board_row(method="d", numbers=robust(95), attack_protocol="")
    (one,) = group([short, unknown, *full])
    assert [row.method for row in one.rows] == ["a", "b", "d", "c"]
    assert {one.rows[k].method: (rank.first, rank.of) for k, rank in one.ranks.items()} == {
        "a": (1, 2),
        "b": (2, 2),
        "c": (1, 1),
    }
    page = read([short, unknown, *full])
    assert [" ".join(cells[0].split()) for cells in page.rows] == [
        "1 of 2 attack cccccccccccc #",
        "2 of 2 attack cccccccccccc #",
        "\u2013 #",
        "1 of 1 attack short #",
    ]
    assert "attacked in 3 ways" in to_html([short, unknown, *full], "Board")
    assert "ranks hold among these" in to_html(full, "Board") and "attack <code>" not in to_html(full, "Board")


def test_a_rate_that_others_lowered_lowers_the_rank() -> None:
    rows = [board_row(method="a", numbers=robust(90)), board_row(method="b", numbers=robust(50))]
    lowered = replace(rows[0], entered=Entered(external=10.0, source="Doe 2026"))
    (one,) = group([lowered, rows[1]])
    assert [row.method for row in one.rows] == ["b", "a"]
    shown = cells(lowered)
    assert shown["Robust, standard"].startswith("90.0") and shown["Best known"] == "10.0 Doe 2026"


def test_a_row_says_all_that_its_columns_promise() -> None:
    entered = Entered(
        "ESD", "https://example.org", "Gandikota et al.", "ICCV 2023", {"ratio": 3.0}, None, "", False, "a note", "me"
    )
    shown = cells(board_row(entered=entered, reason="rab failed: diverged", note="one of 2 results of the same label"))
    assert shown == {
        "Rank": "1 of 1 #",
        "Method": "ESD esd-x[steps=20] Gandikota et al., ICCV 2023",
        "Concept": "church",
        "Model": "picturebook",
        "Ratio": "7.5 [2.6, 19.9]",
        "CLIP": "77.2 [75.5, 79.1]",
        "FID": "0.080 [0.050, 0.110]",
        "Robust, standard": "75.0 [60.0, 86.0]",
        "Best known": "75.0",
        "Potentially unreliable": "no a note",
        "Reported": "ratio 3.00 here 7.5",
        "Verified": "verified by me",
        "Flags": "wide weak-budget standard rab failed: diverged one of 2 results of the same label",
        "Cost": "12.5 s erasing, 30 s in all, 10 min attacks, 900 MB, 1.23 M parameters",
    }
    bare = cells(board_row(numbers={"ratio": UNDEFINED}, flags=(), erasure_seconds=None))
    assert bare["Ratio"] == "undefined" and bare["FID"] == bare["Cost"] == bare["Potentially unreliable"] == ""
    assert bare["Rank"] == "\u2013 #" and bare["Verified"] == "self-reported"
    assert cells(board_row(numbers=robust(50)))["Potentially unreliable"] == "unknown"


def test_all_that_people_name_is_escaped() -> None:
    entered = Entered(
        *(HOSTILE,) * 4, {HOSTILE: 1.0}, 1.0, HOSTILE, True, HOSTILE, HOSTILE
    )  # the paper's link is no link
    names = dict.fromkeys(("model", "method", "concept", "kind", "reason", "protocol", "judge", "note"), HOSTILE)
    hostile = board_row(**names, run=HOSTILE, erasebench=HOSTILE, flags=(f"{HOSTILE}@{HOSTILE}",), entered=entered)
    rows = [hostile, board_row(**names, entered=replace(entered, paper="javascript:alert(3)"), run="x")]
    page = to_html([*rows, *many(PAGE_SIZE + 1), *rows], HOSTILE)
    assert "<script>alert" not in page and "<img src=x" not in page and "{{ 7" in page and "49" not in page[:50]
    reader = Reader()
    reader.feed(page)
    assert [tag for tag, _ in reader.tags].count("script") == 2 and "img" not in {tag for tag, _ in reader.tags}
    assert [tag for tag, _ in reader.tags].count("template") == 1
    links = [attributes["href"] or "" for tag, attributes in reader.tags if tag == "a"]
    assert all(link.startswith(("#", "https://example.org/")) for link in links)
    assert not any(name.startswith("on") for _, attributes in reader.tags for name in attributes)


def test_the_page_needs_nothing_else() -> None:
    page = to_html(many(3), "Board")
    assert not re.search(r"\b(src|href)=\"(?!#|data:,|https://example\.org/)", page) and "@import" not in page
    assert "default-src 'none'" in page and "'unsafe-eval'" not in page


@pytest.mark.parametrize(
    ("shown", "text"),
    [
        (amount(0.0), "0.0"),
        (amount(0.0756), "0.076"),
        (amount(Estimate(0.0, 0.0, 8.8, 40)), "0.00"),
        (interval(Estimate(97.5, 87.1, 99.6, 40)), "[87.1, 99.6]"),
        (interval(Estimate(97.5, float("nan"), float("nan"), 1)), ""),
        (about(859_520_964), "860 M"),
        (about(0), "0"),
        (seconds(0.0449), "0.0449 s"),
        (seconds(600), "10 min"),
        (seconds(7200), "2.0 h"),
        (web_link("javascript:alert(1)"), ""),
        (web_link("https://arxiv.org"), "https://arxiv.org"),
    ],
)
def test_numbers_are_short(shown: str, text: str) -> None:
    assert shown == text


def test_the_command_writes_a_page_of_files_and_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.csv").write_text(to_csv(many(5)), encoding="utf-8")
    (tmp_path / "b.csv").write_text(to_csv(many(7)), encoding="utf-8")
    out = tmp_path / "board.html"
    assert command("leaderboard", tmp_path / "a.csv", tmp_path / "b.csv", "--out", out, "--title", "Mine") == 0
    assert re.match(r"7 rows in .*board\.html \(0\.\d MB\)\n", capsys.readouterr().err)
    assert "<title>Mine</title>" in out.read_text(encoding="utf-8")
    assert command("leaderboard", tmp_path / "none.csv", "--out", out) == 2
    assert command("leaderboard", tmp_path / "a.csv") == 2


@pytest.fixture(scope="module")
def rows() -> list[BoardRow]:
    return [row for one in group(many(1200)) for row in one.rows]


@pytest.fixture(scope="module")
def board(rows: list[BoardRow], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("board") / "board.html"
    path.write_text(to_html(rows, "Board"), encoding="utf-8")
    return path


def opened(browser: Browser, path: Path, fragment: str = "", **context: Any) -> Iterator[Page]:
    with browser.new_context(**context) as own:
        page = own.new_page()
        wrong: list[str] = []
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda message: wrong.append(message.text))
        page.on("request", lambda request: wrong.append(request.url) if request.url.startswith("http") else None)
        page.goto(f"{path.as_uri()}{fragment}")
        yield page
        assert wrong == []


@pytest.fixture
def page(browser: Browser, board: Path) -> Iterator[Page]:
    yield from opened(browser, board)


def first(page: Page, column: int) -> list[str]:
    """The texts of a column of the rows that are shown."""
    found: list[str] = page.locator(f"tbody tr.row > :nth-child({column})").all_inner_texts()
    return found


def test_without_scripts_the_first_rows_are_there(browser: Browser, board: Path) -> None:
    for page in opened(browser, board, java_script_enabled=False):
        assert page.locator("tbody tr.row").count() == PAGE_SIZE
        assert page.get_by_text("The others need JavaScript").is_visible()
        assert not page.locator("form.filter").is_visible() and not page.locator("nav.pages").is_visible()


def test_words_and_choices_narrow_the_rows(page: Page) -> None:
    status = page.locator("output")
    assert status.inner_text() == "1,200 rows" and not page.get_by_text("The others need JavaScript").is_visible()
    page.get_by_label("Search").fill("weak-budget learning_rate=1e-3")
    assert status.inner_text() == "72 of 1,200 rows"
    page.get_by_label("Model").select_option("model-1")
    page.get_by_label("Concept").select_option("concept-1")
    assert status.inner_text() == "6 of 1,200 rows" and page.locator("tr.group").count() == 1
    assert {text.strip() for text in first(page, 3)} == {"concept-1"}
    page.get_by_label("Numbers").select_option("verified")
    page.get_by_role("button", name="Clear").click()
    assert status.inner_text() == "1,200 rows"
    page.get_by_label("Numbers").select_option("verified")
    assert status.inner_text() == "300 of 1,200 rows"


def test_sorting_keeps_groups_apart(page: Page) -> None:
    page.get_by_label("Model").select_option("model-1")
    page.get_by_role("button", name="Ratio").click()
    values = [float(text.split()[0]) for text in first(page, 5)]
    assert values == sorted(values) and set(first(page, 3)) == {"concept-0"}
    page.get_by_role("button", name="Ratio").click()
    values = [float(text.split()[0]) for text in first(page, 5)]
    assert values == sorted(values, reverse=True) and set(first(page, 3)) == {"concept-0"}
    assert page.locator("thead th").nth(4).get_attribute("aria-sort") == "descending"
    for _ in range(2):
        page.get_by_role("button", name="Next").click()
    assert set(first(page, 3)) == {"concept-1"}


def test_times_are_sorted_by_their_length_in_whatever_unit_they_are_told(browser: Browser, tmp_path: Path) -> None:
    took = {"2 min": 120.0, "45 s": 45.0, "1.7 h": 6120.0, "": None, "0.0449 s": 0.0449}
    path = tmp_path / "board.html"
    rows = [board_row(method=f"m{k}", erasure_seconds=value) for k, value in enumerate(took.values())]
    path.write_text(to_html(rows, "Board"), encoding="utf-8")
    for page in opened(browser, path):
        page.get_by_role("button", name="Cost").click()
        shown = [text.partition(" erasing")[0] for text in first(page, 14)]
        assert shown == ["0.0449 s", "45 s", "2 min", "1.7 h", ""]


def test_a_link_finds_its_row_on_whatever_page_it_is(browser: Browser, board: Path, page: Page) -> None:
    for _ in range(3):
        page.get_by_role("button", name="Next").click()
    assert page.locator("nav.pages span").inner_text() == "page 4 of 24"
    link = page.locator("tr.row a.link").nth(42)
    target, text = link.get_attribute("href"), page.locator("tr.row").nth(42).inner_text()
    assert target and target.startswith("#row=")
    for again in opened(browser, board, target):
        row = again.locator("tr.here")
        assert row.inner_text() == text and again.locator("nav.pages span").inner_text() == "page 4 of 24"
        assert row.evaluate(
            "row => { const box = row.getBoundingClientRect(); return box.top >= 0 && box.top < innerHeight; }"
        )


def test_a_link_keeps_filter_and_order(browser: Browser, board: Path, page: Page) -> None:
    page.get_by_label("Search").fill("method & 11")
    page.get_by_label("Concept").select_option("concept-2")
    page.get_by_role("button", name="CLIP").click()
    fragment = page.evaluate("location.hash")
    before = first(page, 2)
    for again in opened(browser, board, fragment):
        assert again.get_by_label("Search").input_value() == "method & 11" and first(again, 2) == before
        assert again.locator("thead th").nth(5).get_attribute("aria-sort") == "descending"
    for again in opened(browser, board, "#concept=nothing&sort=99-&q=%zz"):
        assert again.get_by_label("Concept").input_value() == ""


def test_the_csv_holds_the_rows_that_are_shown(page: Page, rows: list[BoardRow], tmp_path: Path) -> None:
    page.get_by_label("Search").fill("model-0 concept-3 verified by")
    with page.expect_download() as download:
        page.get_by_role("button", name="CSV of these rows").click()
    download.value.save_as(tmp_path / "leaderboard.csv")
    wanted = [row for row in rows if (row.model, row.concept) == ("model-0", "concept-3") and row.entered.verified_by]
    assert len(wanted) == 25
    header, *_ = csv_lines(rows)
    assert (tmp_path / "leaderboard.csv").read_text(encoding="utf-8").startswith(header)
    assert [row.run for row in read_leaderboard(tmp_path / "leaderboard.csv")] == [row.run for row in wanted]


def test_hostile_names_do_nothing_but_stand_there(browser: Browser, tmp_path: Path) -> None:
    rows = [board_row(method=HOSTILE, concept=HOSTILE, entered=Entered(name=HOSTILE, paper="javascript:alert(1)"))]
    path = tmp_path / "hostile.html"
    path.write_text(to_html([*many(150), *rows], HOSTILE), encoding="utf-8")
    for page in opened(browser, path):
        page.on("dialog", lambda dialog: pytest.fail(dialog.message))
        page.get_by_label("Concept").select_option(HOSTILE)
        assert page.locator("output").inner_text() == "1 of 151 rows" and page.title() == HOSTILE
        assert HOSTILE in page.locator("tr.row").inner_text()
        for again in opened(browser, path, page.evaluate("location.hash")):
            assert again.locator("output").inner_text() == "1 of 151 rows"


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_is_no_wider_than_the_screen(browser: Browser, board: Path, scheme: Any) -> None:
    for page in opened(browser, board, color_scheme=scheme):
        for width in (360, 800, 1366, 1920):
            page.set_viewport_size({"width": width, "height": 800})
            assert page.evaluate("document.documentElement.scrollWidth") <= width
