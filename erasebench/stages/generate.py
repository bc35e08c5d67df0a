"""Stage generate: a model with an erasure, prompts and seeds in; pictures out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from erasebench.engine.cells import Cell
from erasebench.engine.session import Session
from erasebench.images import write_images


def run(cell: Cell, session: Session, folder: Path) -> dict[str, Any]:
    """Draw the pictures and write them with their index; reference pictures are rendered instead of sampled."""
    if "reference" in cell.spec:
        return _render_reference(cell.spec["count"], folder)
    from erasebench.models.erasure import Erasure
    from erasebench.sampling import Sampler, sample

    ids, prompts, seeds = cell.spec["ids"], cell.spec["prompts"], cell.spec["seeds"]
    erasure = Erasure.load(session.store.read(cell.reads[0].key))
    made = 0

    def progress(count: int) -> None:
        nonlocal made
        made += count
        session.progress(made, len(prompts), "images")

    with session.model.erased(erasure) as model:
        images = sample(model, prompts, seeds, Sampler(**cell.spec["sampler"]), session.batch_size, progress, ids)
    write_images(folder, images, ids, prompts, seeds)
    return {"images": len(images)}


REFERENCE_SEED = 2_700_000_000
"""The first seed of the reference pictures: held out, and used for nothing else."""


def _render_reference(count: int, folder: Path) -> dict[str, Any]:
    from erasebench.picturebook.training.data import render_many

    renders = render_many(REFERENCE_SEED, count, workers=1)
    none = [""] * count
    write_images(folder, renders.images, none, none, range(REFERENCE_SEED, REFERENCE_SEED + count))
    return {"images": count}
