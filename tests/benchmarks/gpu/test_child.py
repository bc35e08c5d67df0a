"""The process of one part, as a copy of this one, which has torch already."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from benchmarks.gpu import child
from benchmarks.gpu.kit import KitError, Part, read_json
from tests.forks import in_a_child

Fake = Callable[[Callable[[Part], object]], None]


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Fake:
    """Gives the part "no-such" something to do."""

    def do(run: Callable[[Part], object]) -> None:
        monkeypatch.setitem(sys.modules, "benchmarks.gpu.parts.no_such", SimpleNamespace(run=run))

    return do


def run_child(out: Path) -> int:
    return in_a_child(lambda: child.main("no-such", "", "full", str(out), "30"))


def test_a_part_that_does_all_has_no_problem(tmp_path: Path, fake: Fake) -> None:
    fake(lambda part: part.record("limit", part.limit))
    assert run_child(tmp_path) == 0
    assert read_json(tmp_path / ".no-such.json") == {"figures": {"limit": 30.0}, "problems": []}


def test_what_an_earlier_run_left_is_gone(tmp_path: Path, fake: Fake) -> None:
    (tmp_path / "no-such").mkdir()
    (tmp_path / "no-such" / "weights").write_text("old")
    fake(lambda part: part.record("files", len([*part.folder.iterdir()])))
    assert run_child(tmp_path) == 0
    assert read_json(tmp_path / ".no-such.json")["figures"] == {"files": 0}


def test_what_a_part_lacks_is_its_problem(tmp_path: Path, fake: Fake) -> None:
    def run(part: Part) -> None:
        part.record("first", 1)
        raise KitError("no weights; get them there")

    fake(run)
    assert run_child(tmp_path) == 1
    assert read_json(tmp_path / ".no-such.json") == {
        "figures": {"first": 1},
        "problems": ["no weights; get them there"],
    }


def test_a_part_whose_module_is_missing(tmp_path: Path) -> None:
    assert run_child(tmp_path) == 1
    (problem,) = read_json(tmp_path / ".no-such.json")["problems"]
    assert problem.startswith("the module benchmarks.gpu.parts.no_such is missing; where there is a network, ")


def test_no_gpu_is_a_problem_of_the_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setitem(sys.modules, "benchmarks.gpu.parts.gpu", SimpleNamespace(run=lambda part: part.device))
    assert in_a_child(lambda: child.main("gpu", "", "full", str(tmp_path), "30")) == 1
    (problem,) = read_json(tmp_path / ".gpu.json")["problems"]
    assert problem.startswith("no CUDA device: torch ")
    assert problem.endswith("sees none; --scale tiny tries the kit on a CPU")
