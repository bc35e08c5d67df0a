"""Thumbnails for a page that is one file, within a budget of bytes, and the originals in a folder beside it."""

from __future__ import annotations

import base64
import hashlib
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from erasebench.engine.markers import CorruptCellError
from erasebench.engine.store import Store
from erasebench.files import cannot_write, durably
from erasebench.images import read_png
from erasebench.report.grids import blurred

SIDE = 96
"""Pixels of the longer side of a thumbnail; smaller images stay as they are."""
BLURRED_SIDE = 24
"""Likewise, of a blurred one, which has no more to show."""
QUALITY = 70
"""Of WebP."""

_ORIGINAL = re.compile(r"[0-9a-f]{24}\.png")


@dataclass(frozen=True)
class Source:
    """An image of a store.

    Attributes:
        store: where it is; ``cell`` the key of its cell, ``place`` its place there.
        blur: whether its thumbnail shows no more than the large masses of colour.
    """

    store: Store
    cell: str
    place: int
    blur: bool = False


@dataclass(frozen=True)
class Thumbnail:
    """A thumbnail.

    Attributes:
        uri: the thumbnail itself, a data URI.
        original: where the image is, relative to the page.
    """

    uri: str
    original: str


class Thumbnails:
    """The thumbnails of a page.

    Args:
        page: the page's file; the originals are in a folder beside it that is called after it, as files that are named
            after their content.
    """

    def __init__(self, page: Path) -> None:
        self.folder = _folder(page)
        self.bytes = 0
        self.problems: dict[str, str] = {}
        self._thumbnails: dict[tuple[Path, str, int, bool], Thumbnail] = {}
        self._names: set[str] = set()

    def add(self, sources: Sequence[Source], limit: int) -> list[Thumbnail | None] | None:
        """Thumbnails of images that belong together, and their originals in the folder.

        Args:
            sources: the images.
            limit: bytes that all thumbnails of the page may take, these included.

        Returns:
            One for each image, None for those whose cell the store lacks or has damaged: attribute ``problems`` says by
            cell what is wrong.  None for all if they would take more than the limit; then nothing was written.

        Raises:
            EraseBenchError: the folder cannot be written.
        """
        read = [self._read(source) for source in sources]
        thumbnails = [
            self._make(source, png) if png is not None else None for source, png in zip(sources, read, strict=True)
        ]
        size = sum(len(thumbnail.uri) for thumbnail in thumbnails if thumbnail)
        if self.bytes + size > limit:
            return None
        self.bytes += size
        for thumbnail, png in zip(thumbnails, read, strict=True):
            if thumbnail and png is not None:
                self._keep(thumbnail.original.rpartition("/")[2], png)
        return thumbnails

    def _read(self, source: Source) -> bytes | None:
        if source.cell in self.problems:
            return None
        try:
            return read_png(source.store.read(source.cell), source.place)
        except CorruptCellError as error:
            self.problems[source.cell] = str(error)
            return None

    def _make(self, source: Source, png: bytes) -> Thumbnail:
        key = (source.store.root, source.cell, source.place, source.blur)
        if key not in self._thumbnails:
            name = f"{hashlib.sha256(png).hexdigest()[:24]}.png"
            self._thumbnails[key] = Thumbnail(_data_uri(png, source.blur), f"{self.folder.name}/{name}")
        return self._thumbnails[key]

    def _keep(self, name: str, png: bytes) -> None:
        path = self.folder / name
        if name in self._names:
            return
        self._names.add(name)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if path.is_file() and path.read_bytes() == png:
                return
            with durably(path) as stream:
                stream.write(png)
        except OSError as error:
            raise cannot_write(f"the report's images {self.folder}", error) from error


def remove_others(page: Path, text: str) -> None:
    """Remove the originals of an earlier page that this one does not show; to be called once the page is written.

    Args:
        page: the page's file; ``text`` what is in it.

    Raises:
        EraseBenchError: the folder cannot be written.
    """
    folder = _folder(page)
    try:
        for path in folder.iterdir() if folder.is_dir() else ():
            if _ORIGINAL.fullmatch(path.name) and path.name not in text:
                path.unlink()
    except OSError as error:
        raise cannot_write(f"the report's images {folder}", error) from error


def _folder(page: Path) -> Path:
    return page.with_name(f"{page.stem}-images")


def _data_uri(png: bytes, blur: bool) -> str:
    with Image.open(io.BytesIO(png)) as opened:
        image = opened.convert("RGB")
    if blur:
        image = blurred(image)
    side = BLURRED_SIDE if blur else SIDE
    image.thumbnail((side, side))
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=QUALITY)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"
