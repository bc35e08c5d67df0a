from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest

from erasebench.errors import EraseBenchError
from erasebench.metrics.stats import UNDEFINED, Estimate
from erasebench.results import leaderboard_csv
from erasebench.results.leaderboard import Entered
from erasebench.results.leaderboard_csv import COLUMNS, read_leaderboard, to_csv
from tests.results.boards import board_row


def test_every_column_is_explained() -> None:
    page = (Path(__file__).parents[2] / "docs" / "leaderboard.md").read_text(encoding="utf-8")
    for text in (page.partition("## `leaderboard.csv`")[2], (leaderboard_csv.__doc__ or "").replace("``", "`")):
        assert [name for name in COLUMNS if f"`{name}`" not in text] == []


def test_a_file_gives_back_what_was_written(tmp_path: Path) -> None:
    rows = [
        board_row(),
        board_row(method='nasty, "quoted"\nname', status="n/a", reason="it,\nsaid", numbers={}, flags=(), seconds=None),
        board_row(
            concept="style",
            numbers={"ratio": UNDEFINED, "asr-confirmed@cce[steps=2]": Estimate(3.0, math.nan, math.nan, 1)},
            entered=Entered("M", "https://example.org", "A, B", "V", {"ratio": 1.5}, 20.0, "S", False, "why", "me"),
        ),
    ]
    path = tmp_path / "leaderboard.csv"
    path.write_text(to_csv(rows), encoding="utf-8", newline="")
    read = read_leaderboard(path)
    # nan is not nan; the text of what was read is that of what was written.
    assert to_csv(read) == to_csv(rows)
    assert [replace(row, numbers={}) for row in read] == [replace(row, numbers={}) for row in rows]
    assert (
        read[0] == rows[0] and read[2].numbers["ratio"].n == 0 and "asr-confirmed@cce[steps=2]" not in read[0].numbers
    )


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (("model,method", "name,method"), "is no leaderboard: it has no column 'model'"),
        (("model,method", "method,model"), "its columns are in another order"),
        ((",ok,", ",good,"), "line 2: the status is 'good', not one of ok, failed, n/a"),
        (("7.5,", "seven,"), "line 2: could not convert string to float: 'seven'"),
        (("wide;", "wide,"), "line 2: it has .* cells, the header"),
        ((",12.5,30", ",12.5,30\n"), "line 2: it has"),
        ((": 3.0}", ': ""low""}'), "line 2: reported: ratio is 'low', not a number"),
        ((": 3.0}", ": NaN}"), "line 2: reported: ratio is nan, not a number"),
        ((",20,", ",nan,"), "line 2: external is 'nan', not a finite number"),
        ((",20,", ",-9,"), "line 2: external is '-9', not a rate in per cent"),
    ],
)
def test_what_is_no_leaderboard_is_refused(edit: tuple[str, str], message: str, tmp_path: Path) -> None:
    path = tmp_path / "leaderboard.csv"
    text = to_csv([board_row(entered=Entered(reported={"ratio": 3.0}, external=20.0))])
    assert edit[0] in text
    path.write_text(text.replace(*edit, 1))
    with pytest.raises(EraseBenchError, match=message):
        read_leaderboard(path)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (("model,", f"{'m' * 200_000},"), "line 1: field larger than field limit"),
        ((",ok,", f",{'o' * 200_000},"), "line 2: field larger than field limit"),
        (('{""ratio"": 3.0}', "[" * 100_000), "line 2: maximum recursion depth exceeded"),
        ((": 3.0}", f": {10**400}}}"), "line 2: int too large to convert to float"),
    ],
    ids=["header", "text", "nested", "number"],
)
def test_what_no_reader_takes_is_refused(edit: tuple[str, str], message: str, tmp_path: Path) -> None:
    path = tmp_path / "leaderboard.csv"
    text = to_csv([board_row(entered=Entered(reported={"ratio": 3.0}))])
    assert edit[0] in text
    path.write_text(text.replace(*edit, 1))
    with pytest.raises(EraseBenchError, match=message):
        read_leaderboard(path)
