"""Pictures on disk, with their index."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
from PIL import Image

from erasebench.images import ARCHIVE, INDEX, join_images, read_images, read_index, read_png, write_images


def test_pictures_are_kept_to_the_byte_and_the_index_names_their_prompts(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), dtype=np.uint8)
    for name in ("once", "again"):
        (tmp_path / name).mkdir()
        write_images(tmp_path / name, images, ["i", "j"], ["a, b", "c"], [5, 6])
    assert np.array_equal(read_images(tmp_path / "once"), images)
    assert np.array_equal(read_images(tmp_path / "once", 1), images[:1])
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(read_png(tmp_path / "once", 1)))), images[1])
    assert (tmp_path / "once" / ARCHIVE).read_bytes() == (tmp_path / "again" / ARCHIVE).read_bytes()
    with open(tmp_path / "once" / INDEX, newline="", encoding="utf-8") as stream:
        assert list(csv.DictReader(stream)) == [
            {"file": "000000.png", "id": "i", "text": "a, b", "seed": "5"},
            {"file": "000001.png", "id": "j", "text": "c", "seed": "6"},
        ]


def test_pictures_that_are_joined_are_the_bytes_of_those_written_at_once(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), dtype=np.uint8)
    prompts, seeds = ["a dog", "", 'a "cat", or two', "a\nb", "é"], [3, 2, 1, 2**62, 0]
    ids = list("abcde")
    for name in ("whole", "joined", "0", "1", "2"):
        (tmp_path / name).mkdir()
    write_images(tmp_path / "whole", images, ids, prompts, seeds)
    parts = [slice(0, 2), slice(2, 4), slice(4, 5)]
    for k, part in enumerate(parts):
        write_images(tmp_path / str(k), images[part], ids[part], prompts[part], seeds[part])
    join_images([tmp_path / str(k) for k in range(3)], tmp_path / "joined")
    for name in (ARCHIVE, INDEX):
        assert (tmp_path / "joined" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert np.array_equal(read_images(tmp_path / "joined"), images)
    assert read_index(tmp_path / "joined") == (ids, prompts, seeds)
