from __future__ import annotations

import csv
import io

import pytest

from erasebench.errors import EraseBenchError
from erasebench.texts import check_text, defused, is_blank, printable, restored, shown


@pytest.mark.parametrize(
    "text", ["", " ", "\t\n", "\u200b\u200b", "\ufeff", "\u2060\u00a0", "\u3164", "\u2800", "\u0301"]
)
def test_a_text_that_shows_nothing_is_blank(text: str) -> None:
    assert is_blank(text)


@pytest.mark.parametrize("text", ["a", "\u200ba", "é", "e\u0301", "שלום", "\u200f!", "👩\u200d🔬", "\U0001fae9", "-"])
def test_a_text_that_shows_something_is_not(text: str) -> None:
    assert not is_blank(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a\0b", r"here: the text 'a\\x00b' holds a control character, U\+0000"),
        ("\x1b[31m", r"holds a control character, U\+001B"),
        ("\x7f", r"U\+007F"),
        ("\x9b31m", r"U\+009B"),
        ("a\udcff", r"'a\\udcff' is no valid Unicode: it holds half a pair, U\+DCFF"),
    ],
)
def test_texts_that_no_file_or_terminal_should_have(text: str, message: str) -> None:
    with pytest.raises(EraseBenchError, match=message):
        check_text(text, "here")


def test_other_texts_are_let_through() -> None:
    for text in ("", "two\nlines\r\nand\ta tab", "שלום \u200f", "👩\u200d🔬", "a" * 10**6):
        check_text(text, "here")


def test_a_terminal_gets_nothing_that_acts_on_it() -> None:
    assert printable("a\x1b[2Jb\x07\x9b\r\0") == r"a\x1b[2Jb\x07\x9b\r\x00"
    assert printable("\u202egpj.exe \u2028 \ufeff \udcff") == r"\u202egpj.exe \u2028 \ufeff \udcff"
    assert printable("ä שלום 👩\u200d🔬\n\t") == "ä שלום 👩\u200d🔬\n\t"


def test_styles_stay_where_they_were_put_and_nothing_else_does() -> None:
    assert printable("\x1b[1;31mred\x1b[0m \x1b[2J", styled=True) == "\x1b[1;31mred\x1b[0m \\x1b[2J"


def test_values_are_cut_short() -> None:
    assert shown("a'b") == '"a\'b"'
    assert shown("a" * 100) == f"'{'a' * 80}'..."
    assert shown([1] * 100) == f"{'[' + '1, ' * 100:.80}..."
    assert shown(5) == "5"


FORMULAS = ["=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "\t=1", "\r=1", "\uff1d1", "'=1", "''=1", "-", "=", "'-1"]
PLAIN = ["", "a", "'tis", "1", "-0.5", "+1e-3", "-0.5 0.25", "a=b", " =1", "'", "''", "0.1 -0.2"]


@pytest.mark.parametrize("text", [*FORMULAS, *PLAIN])
def test_a_cell_gives_its_text_back(text: str) -> None:
    assert restored(defused(text)) == text
    file = io.StringIO()
    csv.writer(file).writerow([defused(text)])
    assert [restored(cell) for row in csv.reader(io.StringIO(file.getvalue(), newline="")) for cell in row] == [text]


def test_only_what_begins_like_a_formula_is_changed() -> None:
    assert all(defused(text) == f"'{text}" for text in FORMULAS)
    assert [defused(text) for text in PLAIN] == PLAIN
