from pathlib import Path

import pytest
import torch

from benchmarks.gpu.kit import Part
from benchmarks.gpu.parts import passes
from benchmarks.gpu.parts.measuring import OUT_OF_TIME
from benchmarks.gpu.parts.sd import TINY


@pytest.mark.slow
def test_the_part_at_tiny_scale(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Tracing a U-Net takes seconds.
    monkeypatch.setattr(torch, "compile", lambda module, **options: module)
    for name, few in {"WARM_UPS": 1, "PASSES": 1, "TRAINED_ROWS": (1, 4)}.items():
        monkeypatch.setattr(passes, name, few)
    part = Part("passes", scale="tiny", out=tmp_path, limit=300)
    passes.run(part)
    assert not part.problems
    batches = [str(images) for images in TINY.batches]
    for way in ("autocast", "recorded", "copy"):
        assert list(part.figures[way]) == batches
    assert list(part.figures["compiled"]) == batches[-1:]
    for ways in ("autocast", "recorded", "copy", "compiled"):
        for images, row in part.figures[ways].items():
            rate = int(images) / (TINY.steps * row["milliseconds"] / 1000)
            assert abs(row["images_per_second"] / rate - 1) < 0.01
    for gradients in ("gradients to the text", "gradients to cross-attention"):
        for row in part.figures[gradients].values():
            assert row["ratio"] == pytest.approx(row["autocast_milliseconds"] / row["here_milliseconds"], rel=1e-3)


def test_without_time_every_row_says_so(tmp_path: Path) -> None:
    part = Part("passes", scale="tiny", out=tmp_path, limit=0.0)
    passes.run(part)
    assert not part.problems
    ways = [way for way in part.figures if way not in ("tflop", "precision")]
    assert len(ways) == 6
    assert {row for way in ways for row in part.figures[way].values()} == {OUT_OF_TIME}
