"""Images on disk: lossless PNGs in one archive, with an index that people can read."""

from __future__ import annotations

import csv
import io
import struct
import warnings
import zipfile
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from erasebench.errors import EraseBenchError

ARCHIVE, INDEX = "images.zip", "index.csv"
COLUMNS = ("file", "id", "text", "seed")
"""Of the index."""
MAX_PIXELS = 2**26
"""Of an image that a user has: a file of a few bytes may stand for more than any memory holds."""
COMPRESSED_AHEAD = 256
"""Images that may wait to be compressed."""
_EPOCH = (1980, 1, 1, 0, 0, 0)


def write_images(
    folder: Path, images: Iterable[NDArray[np.uint8]], ids: Sequence[str], texts: Sequence[str], seeds: Sequence[int]
) -> None:
    """Write images and an index of files and prompts; equal images give equal bytes.

    Args:
        folder: where to.
        images: uint8 ``[height, width, 3]`` each, compressed while the next ones are being made.
        ids: of the images' prompts; ``texts`` and ``seeds`` likewise.

    Raises:
        ValueError: there are more images than prompts, or fewer.
    """
    names = [_name(k) for k in range(len(ids))]
    with (
        zipfile.ZipFile(folder / ARCHIVE, "w", zipfile.ZIP_STORED) as archive,
        ThreadPoolExecutor(1, "compress") as thread,
    ):
        waiting: deque[tuple[str, Future[bytes]]] = deque()

        def write_one() -> None:
            name, png = waiting.popleft()
            archive.writestr(zipfile.ZipInfo(name, _EPOCH), png.result())

        for name, image in zip(names, images, strict=True):
            waiting.append((name, thread.submit(_to_png, image)))
            while len(waiting) > COMPRESSED_AHEAD or (waiting and waiting[0][1].done()):
                write_one()
        while waiting:
            write_one()
    with open(folder / INDEX, "w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows([name, *prompt] for name, *prompt in zip(names, ids, texts, seeds, strict=True))


def _to_png(image: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


def read_images(folder: Path, first: int | None = None) -> NDArray[np.uint8]:
    """The images of a folder, uint8 ``[n, height, width, 3]``; only the ``first`` few if given."""
    with zipfile.ZipFile(folder / ARCHIVE) as archive:
        names = sorted(archive.namelist())[:first]
        return np.stack([np.asarray(Image.open(io.BytesIO(archive.read(name))).convert("RGB")) for name in names])


def check_image(path: Path) -> None:
    """Look at the head of an image that a user has, without decoding it.

    Raises:
        EraseBenchError: it is no image, or one of more than :data:`MAX_PIXELS`.
    """
    with _opened(path):
        pass


def read_image(path: Path) -> NDArray[np.uint8]:
    """An image that a user has, uint8 ``[1, height, width, 3]``.

    Raises:
        EraseBenchError: as :func:`check_image`, or it is cut short.
    """
    with _opened(path) as image:
        return np.asarray(image.convert("RGB"))[None]


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    if not path.is_file():
        raise EraseBenchError(f"{path} is no file")
    try:
        with (
            warnings.catch_warnings(action="ignore", category=Image.DecompressionBombWarning),
            Image.open(path) as image,
        ):
            pixels = image.width * image.height
            if pixels > MAX_PIXELS:
                raise EraseBenchError(f"{path} has {pixels:,} pixels; {MAX_PIXELS:,} at most")
            yield image
    except Image.DecompressionBombError:
        raise EraseBenchError(f"{path} has more than {MAX_PIXELS:,} pixels") from None
    # What a damaged file makes of its decoder; ultralytics makes PIL's open look for a package that it may lack.
    except (OSError, ValueError, SyntaxError, IndexError, struct.error, ImportError, EOFError) as error:
        raise EraseBenchError(f"{path} cannot be read as an image") from error


def read_png(folder: Path, place: int) -> bytes:
    """The file of one image of a folder, as it was written; places count from 0."""
    with zipfile.ZipFile(folder / ARCHIVE) as archive:
        return archive.read(_name(place))


def read_index(folder: Path) -> tuple[list[str], list[str], list[int]]:
    """The ids, texts and seeds of the prompts of a folder's images, in their order."""
    with open(folder / INDEX, newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    return [row["id"] for row in rows], [row["text"] for row in rows], [int(row["seed"]) for row in rows]


def join_images(parts: Sequence[Path], folder: Path) -> None:
    """Write the images of several folders as one: the same bytes as if they had been written at once."""
    rows: list[dict[str, str]] = []
    with zipfile.ZipFile(folder / ARCHIVE, "w", zipfile.ZIP_STORED) as joined:
        for part in parts:
            with zipfile.ZipFile(part / ARCHIVE) as archive, open(part / INDEX, newline="", encoding="utf-8") as index:
                for row in csv.DictReader(index):
                    name = _name(len(rows))
                    joined.writestr(zipfile.ZipInfo(name, _EPOCH), archive.read(row["file"]))
                    rows.append({**row, "file": name})
    with open(folder / INDEX, "w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _name(k: int) -> str:
    return f"{k:06d}.png"
