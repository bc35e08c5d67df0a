"""Picturebook trained on anything, untraced; ``test_kit.py`` traces, and trains from a teacher."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from benchmarks.gpu.kit import Part, read_json
from benchmarks.gpu.parts import never_saw, train
from erasebench.models.erasure import Erasure
from erasebench.models.loading import find_model, load_model

LEFT = {"pipeline", "grid.png", "measure.md"}


@pytest.fixture(autouse=True)
def uncompiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """U-Nets count as compiled, and are not: tracing one takes seconds."""

    def compile(module: nn.Module, backend: str) -> None:
        module._compiled_call_impl = module._call_impl

    monkeypatch.setattr(nn.Module, "compile", compile)


@pytest.mark.slow
def test_the_shipped_model_is_trained_further(tmp_path: Path) -> None:
    part = Part("train", "sharper", "tiny", tmp_path, 300)
    train.run(part)
    assert not part.problems and part.figures["steps"] == train.TINY.max_steps
    assert part.figures["flops_of_an_image"]["share_of_shipped"] == 1
    assert part.figures["data"]["scenes_left_out"] == 0 and part.figures["start"] == "shipped"
    assert {path.name for path in part.folder.iterdir()} >= LEFT
    assert read_json(tmp_path / ".train-sharper.json")["figures"] == part.figures


@pytest.mark.slow
def test_a_model_that_never_saw_a_concept_is_a_change_of_the_shipped_one(tmp_path: Path) -> None:
    part = Part("never-saw", "church", "tiny", tmp_path, 300)
    never_saw.run(part)
    assert not part.problems and part.figures["data"]["scenes_left_out"] > 0
    assert {path.name for path in part.folder.iterdir()} >= LEFT
    with load_model(find_model("picturebook"), "cpu").erased(Erasure.load(part.folder)) as model:
        assert all(torch.isfinite(parameter).all() for parameter in model.parameters().values())
