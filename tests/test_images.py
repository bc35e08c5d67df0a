"""Pictures on disk, with their index."""

from __future__ import annotations

import csv
import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from erasebench.errors import EraseBenchError
from erasebench.images import (
    ARCHIVE,
    INDEX,
    check_image,
    join_images,
    read_image,
    read_images,
    read_index,
    read_png,
    write_images,
)


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


def png(width: int, height: int) -> bytes:
    """A file whose head says that it is an image of a size, and which holds none of it."""
    head = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = [struct.pack(">I", len(part) - 4) + part + struct.pack(">I", zlib.crc32(part)) for part in (head, b"IDAT")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "cannot be read as an image"),
        (b"hello", "cannot be read as an image"),
        (b"\x89PNG\r\n\x1a\n", "cannot be read as an image"),
        (png(0, 0), "cannot be read as an image"),
        (png(9000, 9000), "has 81,000,000 pixels; 67,108,864 at most"),
        (png(60_000, 60_000), "has more than 67,108,864 pixels"),
        (b"RIFF\xff\xff\xff\xffWEBPVP8 ", "cannot be read as an image"),
        (b"\xff\xd8\xff\xe0\x00\x10JFIF", "cannot be read as an image"),
    ],
    ids=range(8),
)
def test_what_is_no_image_is_refused_by_its_head(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    path.write_bytes(content)
    for look in (check_image, read_image):
        with pytest.raises(EraseBenchError, match=rf"x\.png {message}"):
            look(path)


def test_an_image_that_is_cut_short_is_found_when_it_is_read(tmp_path: Path) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    path = tmp_path / "x.png"
    Image.fromarray(picture).save(path)
    assert np.array_equal(read_image(path), picture[None])
    path.write_bytes(path.read_bytes()[:1000])
    check_image(path)
    with pytest.raises(EraseBenchError, match=r"x\.png cannot be read as an image"):
        read_image(path)
    for other in ("folder.png", "pipe.png"):
        (os.mkfifo if other[0] == "p" else os.mkdir)(tmp_path / other)
        with pytest.raises(EraseBenchError, match=rf"{other} is no file"):
            check_image(tmp_path / other)


def test_images_are_taken_one_after_the_other(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (300, 8, 8, 3), dtype=np.uint8)
    names = [str(k) for k in range(300)]
    for name in ("whole", "drawn"):
        (tmp_path / name).mkdir()
    write_images(tmp_path / "whole", images, names, names, range(300))
    write_images(tmp_path / "drawn", (image for image in images), names, names, range(300))
    for name in (ARCHIVE, INDEX):
        assert (tmp_path / "drawn" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    for count in (299, 301):
        with pytest.raises(ValueError, match="argument"):
            write_images(tmp_path / "drawn", images, names[:count] + ["x"] * (count - 300), names, range(300))
