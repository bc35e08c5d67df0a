"""Pictures on disk, with their index."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from erasebench.images import ARCHIVE, INDEX, read_images, write_images


def test_pictures_are_kept_to_the_byte_and_the_index_names_their_prompts(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), dtype=np.uint8)
    for name in ("once", "again"):
        (tmp_path / name).mkdir()
        write_images(tmp_path / name, images, ["i", "j"], ["a, b", "c"], [5, 6])
    assert np.array_equal(read_images(tmp_path / "once"), images)
    assert np.array_equal(read_images(tmp_path / "once", 1), images[:1])
    assert (tmp_path / "once" / ARCHIVE).read_bytes() == (tmp_path / "again" / ARCHIVE).read_bytes()
    with open(tmp_path / "once" / INDEX, newline="", encoding="utf-8") as stream:
        assert list(csv.DictReader(stream)) == [
            {"file": "000000.png", "id": "i", "text": "a, b", "seed": "5"},
            {"file": "000001.png", "id": "j", "text": "c", "seed": "6"},
        ]
