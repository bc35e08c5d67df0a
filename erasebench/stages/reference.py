"""Stage reference: images that the unerased world would give, for FID."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from erasebench.engine.cells import Cell
from erasebench.files import hash_file
from erasebench.images import write_images

if TYPE_CHECKING:
    from erasebench.stages.session import Session

FIRST_SEED = 2_700_000_000
"""The first seed of the reference images: held out, and used for nothing else."""


def cell(count: int) -> Cell:
    """The cell that renders images of Picturebook's world."""
    spec = {"source": "picturebook world", "count": count, "world": _world_version()}
    return Cell("reference", spec, {}, "picturebook world", "picturebook", count, "images")


def run(cell: Cell, session: Session, folder: Path) -> dict[str, Any]:
    """Render the images and write them with their index."""
    from erasebench.picturebook.training.data import render_many

    count = cell.spec["count"]
    renders = render_many(FIRST_SEED, count, workers=1)
    none = [""] * count
    write_images(folder, renders.images, none, none, range(FIRST_SEED, FIRST_SEED + count))
    return {"images": count}


@cache
def _world_version() -> str:
    """SHA-256 of the renderer's source: quicker than to draw, and it changes whenever the images may."""
    from importlib.resources import files

    folder = Path(str(files("erasebench.picturebook") / "world"))
    sources = "".join(f"{path.name} {hash_file(path)}\n" for path in sorted(folder.glob("*.py")))
    return hashlib.sha256(sources.encode()).hexdigest()
