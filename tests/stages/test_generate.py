from __future__ import annotations

import pytest

from erasebench.engine.cells import Cell
from erasebench.stages.generate import PIECES, divide


@pytest.mark.parametrize("batch_size", [1, 3, 16, 100])
@pytest.mark.parametrize("workers", [2, 7])
@pytest.mark.parametrize("images", [1, 2, 16, 17, 40, 1000])
def test_parts_hold_every_image_once_in_the_batches_of_the_whole(images: int, workers: int, batch_size: int) -> None:
    parts = divide(Cell("generate", {}, units=images), batch_size, workers)
    held = [list(range(images))[part] for part in parts]
    assert [k for part in held for k in part] == list(range(images))
    assert all(part.start % batch_size == 0 for part in parts)
    assert len(parts) <= PIECES * workers and all(held)
    assert len(parts) > 1 or images <= batch_size
