from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from erasebench.engine.cells import Cell
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


class Together:
    """A stage that computes cells at once, and can tell which need not be."""

    @staticmethod
    def run_together(cells: Sequence[Cell], session: Session, folders: Sequence[Path]) -> list[dict[str, int]]:
        session.progress(1, 2, "steps")
        return [
            {"n": cell.spec["n"] + len(cells), "name": len(folder.name)}
            for cell, folder in zip(cells, folders, strict=True)
        ]

    @staticmethod
    def unneeded(cell: Cell, session: Session) -> str:
        return ", ".join(other.title for other in cell.unless if session.store.marker(other.key) is None)


class Single:
    """A stage that computes one cell at a time, or a part of it."""

    @staticmethod
    def run(cell: Cell, session: Session, folder: Path, part: slice = slice(None)) -> dict[str, int]:
        return {"n": cell.spec["n"], "part": part.stop}


@pytest.fixture
def stages(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, stage in (("together", Together), ("single", Single)):
        monkeypatch.setitem(sys.modules, f"erasebench.stages.{name}", stage)


@pytest.mark.usefixtures("stages")
def test_a_stage_gets_all_cells_of_a_task_if_it_can_do_them_at_once(tmp_path: Path) -> None:
    made, told = session(tmp_path, "cpu"), list[Any]()
    folders = [tmp_path / "a", tmp_path / "bc"]
    cells = [Cell("together", {"n": n}) for n in (10, 20)]
    costs = made.work(cells, None, folders, lambda *far: told.append(far))
    assert costs == [{"n": 12, "name": 1}, {"n": 22, "name": 2}] and told == [(1, 2, "steps")]
    single = [Cell("single", {"n": n}) for n in (10, 20)]
    assert made.work(single, None, folders, made.progress) == [{"n": 10, "part": None}, {"n": 20, "part": None}]
    assert made.work(single[:1], slice(0, 3), folders[:1], made.progress) == [{"n": 10, "part": 3}]


@pytest.mark.usefixtures("stages")
def test_a_stage_is_asked_whether_a_cell_is_needed_if_it_can_tell(tmp_path: Path) -> None:
    made, other = session(tmp_path, "cpu"), Cell("erase", {}, title="uce")
    assert made.unneeded(Cell("together", {}, unless=(other,))) == "uce"
    assert made.unneeded(Cell("single", {}, unless=(other,))) == ""
    assert made.together(other) == 16
