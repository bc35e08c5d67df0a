"""Picturebook without one concept: which one is asked for before any training."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks.gpu.kit import KitError, Part
from benchmarks.gpu.parts import never_saw
from erasebench.models.erasure import Erasure
from erasebench.models.loading import find_model, load_model

LEFT = {"pipeline", "grid.png", "measure.md"}


@pytest.mark.parametrize(
    ("name", "message"), [("chruch", "unknown concept 'chruch'; nearest: church"), ("photo", "unknown concept 'photo'")]
)
def test_what_the_world_has_not_is_refused_before_any_training(
    name: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(never_saw, "train_picturebook", lambda *_, **options: pytest.fail("it was trained"))
    with pytest.raises(KitError, match=message):
        never_saw.run(Part("never-saw", name, "tiny", tmp_path))


@pytest.mark.slow
@pytest.mark.usefixtures("untraced")
def test_a_model_that_never_saw_a_concept_is_a_change_of_the_shipped_one(tmp_path: Path) -> None:
    part = Part("never-saw", "church", "tiny", tmp_path, 300)
    never_saw.run(part)
    assert not part.problems and part.figures["data"]["scenes_left_out"] > 0
    assert {path.name for path in part.folder.iterdir()} >= LEFT
    with load_model(find_model("picturebook"), "cpu").erased(Erasure.load(part.folder)) as model:
        assert all(torch.isfinite(parameter).all() for parameter in model.parameters().values())
