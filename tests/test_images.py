from __future__ import annotations

from pathlib import Path

import numpy as np

from erasebench.images import ARCHIVE, INDEX, join_images, read_images, read_prompts, write_images


def test_pictures_that_are_joined_are_the_bytes_of_those_written_at_once(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), dtype=np.uint8)
    prompts, seeds = ["a dog", "", 'a "cat", or two', "a\nb", "é"], [3, 2, 1, 2**62, 0]
    for name in ("whole", "joined", "0", "1", "2"):
        (tmp_path / name).mkdir()
    write_images(tmp_path / "whole", images, prompts, seeds)
    parts = [slice(0, 2), slice(2, 4), slice(4, 5)]
    for k, part in enumerate(parts):
        write_images(tmp_path / str(k), images[part], prompts[part], seeds[part])
    join_images([tmp_path / str(k) for k in range(3)], tmp_path / "joined")
    for name in (ARCHIVE, INDEX):
        assert (tmp_path / "joined" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert np.array_equal(read_images(tmp_path / "joined"), images)
    assert read_prompts(tmp_path / "joined") == prompts
