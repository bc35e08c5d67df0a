"""The figures of a training, on disk and back."""

from __future__ import annotations

import csv
from pathlib import Path

from erasebench.traces import TRACE, read_trace, write_trace


def test_numbers_and_words_come_back_and_a_step_may_lack_some(tmp_path: Path) -> None:
    trace: tuple[dict[str, float | str], ...] = (
        {"step": 1.0, "loss": 0.1 + 0.2},
        {"step": 2.0, "word": 'a "town", by\r\nthe sea'},
        {"loss": 1e-30},
    )
    write_trace(tmp_path / TRACE, trace)
    assert read_trace(tmp_path / TRACE) == trace


def test_it_is_a_table_with_a_column_for_all_that_any_step_has(tmp_path: Path) -> None:
    write_trace(tmp_path / TRACE, [{"step": 1, "loss": 2.5}, {"word": "town", "step": 2}])
    with open(tmp_path / TRACE, encoding="utf-8", newline="") as stream:
        assert list(csv.reader(stream)) == [["step", "loss", "word"], ["1", "2.5", ""], ["2", "", "town"]]


def test_what_trained_nothing_has_none(tmp_path: Path) -> None:
    assert read_trace(tmp_path / TRACE) == ()
    write_trace(tmp_path / TRACE, [])
    assert read_trace(tmp_path / TRACE) == ()
