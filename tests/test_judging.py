"""Scores on disk name the prompts that they belong to."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from erasebench.errors import EraseBenchError
from erasebench.judging import BOXES, Scores, box_columns, part_counts, read_array, read_column, write_scores


def test_scores_are_read_back_by_prompt_and_seed(tmp_path: Path) -> None:
    columns = {"seed": np.array([0.1, 0.2, 0.3], dtype=np.float32), "id": np.array([1.0, 2, 3], dtype=np.float32)}
    features = np.arange(6, dtype=np.float32).reshape(3, 2)
    scores = Scores(columns, {"features": features})
    assert len(scores) == len(Scores({}, {"features": features})) == 3
    write_scores(tmp_path, scores, ["a", "a", "b, \n"], [0, 1, 0])
    keys = [("a", 0), ("a", 1), ("b, \n", 0)]
    assert list(read_column(tmp_path, "seed")) == keys
    assert np.array_equal(np.array(list(read_column(tmp_path, "seed").values()), dtype=np.float32), columns["seed"])
    assert list(read_column(tmp_path, "id").values()) == [1, 2, 3]
    assert np.array_equal(read_array(tmp_path, "features"), features)


def test_a_prompt_is_missing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="argument"):
        write_scores(tmp_path, Scores({"x": np.zeros(2, dtype=np.float32)}), ["a"], [0])


FOUND = [[0.3, 0.9, 0.6], [], [0.25] * 3 + [0.7] * 9]


def test_boxes_are_kept_by_their_scores() -> None:
    columns = box_columns("FEET", FOUND)
    assert list(columns) == ["FEET count", *(f"FEET box {k}" for k in range(1, BOXES + 1))]
    assert {column.dtype for column in columns.values()} == {np.dtype(np.float32)}
    assert columns["FEET count"].tolist() == [3, 0, 12]
    assert [columns[f"FEET box {k}"][0] for k in (1, 2, 3, 4)] == pytest.approx([0.9, 0.6, 0.3, 0])
    assert columns["FEET box 8"].tolist() == pytest.approx([0, 0, 0.7])
    assert {len(column) for column in box_columns("FEET", []).values()} == {0}


@pytest.mark.parametrize(
    ("threshold", "counts"), [(0, [3, 0, 8]), (0.6, [2, 0, 8]), (0.61, [1, 0, 8]), (0.8, [1, 0, 0])]
)
def test_any_threshold_counts_from_what_was_kept(threshold: float, counts: list[int], tmp_path: Path) -> None:
    import pandas as pd

    columns = box_columns("FEET", FOUND)
    assert part_counts(columns, "FEET", threshold).tolist() == counts
    write_scores(tmp_path, Scores(columns), ["a", "b", "c"], [0, 0, 0])
    read = part_counts(pd.read_csv(tmp_path / "scores.csv"), "FEET", threshold)
    assert read.tolist() == counts and read.dtype == np.int64


def test_scores_without_boxes_cannot_be_counted() -> None:
    with pytest.raises(EraseBenchError, match=r"no boxes of BELLY to count.* judge these images again"):
        part_counts({"BELLY": np.zeros(2)}, "BELLY", 0.5)
