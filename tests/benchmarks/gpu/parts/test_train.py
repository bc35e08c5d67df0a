"""Picturebook trained on anything, untraced; ``gpu/test_kit.py`` traces, and trains from a teacher."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.gpu.kit import Part, read_json
from benchmarks.gpu.parts import train

pytestmark = pytest.mark.usefixtures("untraced")
LEFT = {"pipeline", "grid.png", "measure.md"}


@pytest.mark.slow
def test_the_shipped_model_is_trained_further(tmp_path: Path) -> None:
    part = Part("train", "sharper", "tiny", tmp_path, 300)
    train.run(part)
    assert not part.problems and part.figures["steps"] == train.TINY.max_steps
    assert part.figures["flops_of_an_image"]["share_of_shipped"] == 1
    assert part.figures["data"]["scenes_left_out"] == 0 and part.figures["start"] == "shipped"
    assert {path.name for path in part.folder.iterdir()} >= LEFT
    assert read_json(tmp_path / ".train-sharper.json")["figures"] == part.figures
