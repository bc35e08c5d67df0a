"""Pictures on disk: lossless PNGs in one archive, with an index that people can read."""

from __future__ import annotations

import csv
import io
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

ARCHIVE, INDEX = "images.zip", "index.csv"
_EPOCH = (1980, 1, 1, 0, 0, 0)


def write_images(
    folder: Path, images: NDArray[np.uint8], ids: Sequence[str], texts: Sequence[str], seeds: Sequence[int]
) -> None:
    """Write uint8 ``[n, height, width, 3]`` and an index of files and prompts; equal pictures give equal bytes.

    Args:
        folder: where to.
        images: the pictures; the rest is [n] each: the ids, texts and seeds of their prompts.
    """
    with zipfile.ZipFile(folder / ARCHIVE, "w", zipfile.ZIP_STORED) as archive:
        for k, image in enumerate(images):
            buffer = io.BytesIO()
            Image.fromarray(image).save(buffer, "PNG")
            archive.writestr(zipfile.ZipInfo(_name(k), _EPOCH), buffer.getvalue())
    with open(folder / INDEX, "w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["file", "id", "text", "seed"])
        writer.writerows([_name(k), *prompt] for k, prompt in enumerate(zip(ids, texts, seeds, strict=True)))


def read_images(folder: Path, first: int | None = None) -> NDArray[np.uint8]:
    """The pictures of a folder, uint8 ``[n, height, width, 3]``; only the ``first`` few if given."""
    with zipfile.ZipFile(folder / ARCHIVE) as archive:
        names = sorted(archive.namelist())[:first]
        return np.stack([np.asarray(Image.open(io.BytesIO(archive.read(name))).convert("RGB")) for name in names])


def _name(k: int) -> str:
    return f"{k:06d}.png"
