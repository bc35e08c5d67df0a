from __future__ import annotations

from pathlib import Path

import pytest

from erasebench.engine.store import Store
from erasebench.models.loading import ModelSource
from erasebench.registry import JUDGES
from erasebench.stages.session import Session


def session(folder: Path, device: str) -> Session:
    source = ModelSource("somewhere", folder, "photo", "", 50, 7.5)
    return Session(source, device, "float32", Store(folder / "store"))


@pytest.mark.parametrize("name", JUDGES.names())
def test_a_judge_runs_where_the_run_does(name: str, tmp_path: Path) -> None:
    assert session(tmp_path, "cuda:3").judge(name, "a dog").device == "cuda:3"


def test_a_judge_is_made_once(tmp_path: Path) -> None:
    made = session(tmp_path, "cpu")
    assert made.judge("clip") is made.judge("clip")
    assert made.judge("clip-phrase", "a dog") is not made.judge("clip-phrase", "a cat")
