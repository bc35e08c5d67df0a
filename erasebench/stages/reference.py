"""Stage reference: images that the unerased world would give, for FID."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from erasebench.domains import DOMAINS, World
from erasebench.engine.cells import Cell
from erasebench.images import write_images

if TYPE_CHECKING:
    from erasebench.stages.session import Session

FIRST_SEED = 2_700_000_000
"""The first seed of the reference images: held out, and used for nothing else."""


def cell(world: World, count: int) -> Cell:
    """The cell that renders images of a world."""
    spec = {"source": world.name, "count": count, "world": world.version()}
    return Cell("reference", spec, {}, world.name, world.kind, count, "images")


def run(cell: Cell, session: Session, folder: Path) -> dict[str, Any]:
    """Render the images and write them with their index."""
    world, count = DOMAINS[session.source.domain].world, cell.spec["count"]
    assert world is not None
    none = [""] * count
    write_images(folder, world.render(FIRST_SEED, count), none, none, range(FIRST_SEED, FIRST_SEED + count))
    return {"images": count}
