"""Tables and lists in Markdown, read back by a Markdown parser."""

from __future__ import annotations

import pandas as pd
import pytest
from bs4 import BeautifulSoup
from markdown_it import MarkdownIt

from erasebench.report.markdown import bullets, escape, pipe_table

TABLE = pd.DataFrame(
    [["uce", "church", "7.5", "a|b"], ["esd-x\n[steps=2]", "nudity", "", "c"]],
    columns=["Method", "Concept", "Ratio ↓", "Note"],
)


def read(markdown: str) -> BeautifulSoup:
    return BeautifulSoup(MarkdownIt("commonmark").enable("table").render(markdown), "html.parser")


def test_every_cell_stands_in_its_column_whatever_is_in_it() -> None:
    page = read(pipe_table(TABLE, [0, 1, -1]))
    assert [cell.get_text() for cell in page.select("th")] == list(TABLE.columns)
    rows = [[cell.get_text() for cell in row.select("td")] for row in page.select("tbody tr")]
    assert rows == [["uce", "church", "7.5", "a|b"], ["esd-x [steps=2]", "nudity", "", "c"]]


@pytest.mark.parametrize("left", [[0, 1, -1], [-1, -3, -4], [0, 1, 3]])
def test_numbers_stand_right_and_names_left(left: list[int]) -> None:
    styles = [str(cell.get("style", "")) for cell in read(pipe_table(TABLE, left)).select("th")]
    assert styles == ["", "", "text-align:right", ""]


def test_a_table_without_rows_has_its_heading() -> None:
    page = read(pipe_table(TABLE.iloc[:0], [0]))
    assert len(page.select("th")) == 4 and not page.select("td")


def test_a_list_has_one_item_a_line() -> None:
    items = read(bullets(["one\ntwo", "three", "- four"])).select("li")
    assert [item.get_text(strip=True) for item in items if not item.select("li")] == ["one two", "three", "four"]
    assert bullets([]) == ""


def test_what_is_escaped_is_on_one_line() -> None:
    assert escape("a |  b\r\n\tc ") == "a \\| b c"
