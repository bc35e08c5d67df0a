"""Scores on disk name the prompts that they belong to."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from erasebench.judging import Scores, read_array, read_column, write_scores


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
