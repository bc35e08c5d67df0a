from __future__ import annotations

from pathlib import Path

import pytest

from erasebench.engine.store import Store
from erasebench.judges.networks import NetworkJudge
from erasebench.models.loading import ModelSource
from erasebench.registry import JUDGES
from erasebench.stages.session import Session


def session(folder: Path, device: str) -> Session:
    source = ModelSource("somewhere", folder, "photo", "", 50, 7.5)
    return Session(source, device, "float32", Store(folder / "store"))


def network_judges() -> list[str]:
    made = {name: JUDGES.get(name).make for name in JUDGES.names()}
    return [name for name, make in made.items() if isinstance(make, type) and issubclass(make, NetworkJudge)]


@pytest.mark.parametrize("name", network_judges())
def test_a_judge_runs_where_the_run_does(name: str, tmp_path: Path) -> None:
    assert session(tmp_path, "cuda:3").judge(name, "a dog").device == "cuda:3"


def test_every_judge_of_photographs_with_a_torch_network_is_told() -> None:
    assert set(network_judges()) >= {
        "clip",
        "clip-style",
        "clip-cifar10",
        "clip-phrase",
        "inception",
        "q16",
        "resnet50",
    }
    assert "grounded-sam" in network_judges()


def test_a_judge_is_made_once(tmp_path: Path) -> None:
    made = session(tmp_path, "cpu")
    assert made.judge("clip") is made.judge("clip")
    assert made.judge("clip-phrase", "a dog") is not made.judge("clip-phrase", "a cat")
