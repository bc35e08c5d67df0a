from pathlib import Path

import pytest
import torch

from benchmarks.gpu.kit import Part
from benchmarks.gpu.parts import passes
from benchmarks.gpu.parts.measuring import OUT_OF_TIME
from benchmarks.gpu.parts.sd import TINY


def test_the_part_at_tiny_scale(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Tracing a U-Net takes seconds.
    monkeypatch.setattr(torch, "compile", lambda module, **options: module)
    part = Part("passes", scale="tiny", out=tmp_path, limit=300)
    passes.run(part)
    assert not part.problems
    batches = [str(images) for images in TINY.batches]
    assert list(part.figures["autocast"]) == list(part.figures["copy"]) == batches
    assert list(part.figures["compiled"]) == batches[-1:]
    for ways in ("autocast", "copy", "compiled"):
        for images, row in part.figures[ways].items():
            rate = int(images) / (TINY.steps * row["milliseconds"] / 1000)
            assert abs(row["images_per_second"] / rate - 1) < 0.01


def test_without_time_every_row_says_so(tmp_path: Path) -> None:
    part = Part("passes", scale="tiny", out=tmp_path, limit=0.0)
    passes.run(part)
    assert not part.problems
    assert {row for way in ("autocast", "copy", "compiled") for row in part.figures[way].values()} == {OUT_OF_TIME}
