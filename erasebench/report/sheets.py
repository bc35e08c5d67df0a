"""Images of a run folder: their names, and what they say that they were drawn from."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from erasebench.files import durably

MAX_BYTES = 80
"""Bytes of a method's or concept's name in the name of a file."""


def file_name(text: str) -> str:
    """A method's or concept's name as part of a file's, with a hash where it has to be changed or cut for that."""
    name = "".join(c if c.isalnum() or c in "-_=.+" else "_" for c in text).encode()[:MAX_BYTES].decode(errors="ignore")
    return name if name == text else f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def file_names(things: Iterable[tuple[str, ...]]) -> dict[tuple[str, ...], str]:
    """The file names of things that have names of several parts: joined by hyphens, with a hash where two would be one.

    On some disks names that differ by capitals are one, too.
    """
    joined = {parts: joined_name(parts) for parts in things}
    counts = Counter(name.casefold() for name in joined.values())
    return {parts: joined_name(parts, hashed=counts[name.casefold()] > 1) for parts, name in joined.items()}


def joined_name(parts: tuple[str, ...], hashed: bool = False) -> str:
    """The parts of a name as part of a file's, joined by hyphens, and if asked for with a hash of where they part."""
    name = "-".join(map(file_name, parts))
    return f"{name}-{hashlib.sha256(repr(parts).encode()).hexdigest()[:8]}" if hashed else name


def source_of(path: Path) -> str | None:
    """The source that an image of a run folder says it was drawn from; None if there is no such image."""
    if not path.exists():
        return None
    try:
        with Image.open(path) as image:
            return str(image.info.get("Source"))
    except (OSError, ImportError):  # ultralytics makes Image.open ask for pi_heif where it fails
        return None


def save_sheet(sheet: Image.Image, path: Path, source: str) -> None:
    """Write a sheet that says what it was drawn from."""
    text = PngInfo()
    text.add_text("Source", source)
    with durably(path) as stream:
        sheet.save(stream, format="PNG", pnginfo=text)
