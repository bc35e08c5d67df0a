"""Stage generate: a model with an erasure, prompts and seeds in; images out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from erasebench.engine.cells import Cell, short_hash
from erasebench.images import join_images, write_images

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from erasebench.concepts import Prompt
    from erasebench.models.diffusion import DiffusionModel
    from erasebench.models.loading import ModelSource
    from erasebench.stages.session import Session

PIECES = 4
"""A cell is divided into so many pieces for each worker, so that none is idle for long while another ends."""


def cell(
    erasure: Cell,
    prompts: Sequence[Prompt],
    sampler: Mapping[str, Any],
    source: ModelSource,
    dtype: str,
    title: str,
) -> Cell:
    """The cell that draws an image for each prompt.

    Args:
        erasure: the cell of the erasure in force.
        prompts: what to draw.
        sampler: :class:`~erasebench.sampling.Sampler`'s arguments.
        source: the model; ``dtype`` its precision.
        title: of the cell.
    """
    spec = {
        "model": source.fingerprint,
        "ids": [prompt.id for prompt in prompts],
        "prompts": [prompt.text for prompt in prompts],
        "seeds": [prompt.seed for prompt in prompts],
        "sampler": sampler,
        "dtype": dtype,
    }
    kind = f"{sampler['name']} {short_hash([source.fingerprint, sampler])}"
    return Cell("generate", spec, {"erasure": erasure}, title, kind, len(prompts), "images")


def run(cell: Cell, session: Session, folder: Path, part: slice = slice(None)) -> dict[str, Any]:
    """Draw the images, or those of a part of the prompts, and write them with their index."""
    from erasebench.sampling import Sampler, draw

    ids, prompts, seeds = (cell.spec[name][part] for name in ("ids", "prompts", "seeds"))
    erasure = session.erasure(cell)
    sampler = Sampler(**cell.spec["sampler"])

    def images(model: DiffusionModel) -> Iterator[NDArray[np.uint8]]:
        drawn = 0
        for batch in draw(model, prompts, seeds, sampler, ids=ids):
            yield from batch
            drawn += len(batch)
            session.progress(drawn, len(prompts), "images")

    with session.model.erased(erasure) as model:
        session.fit(sampler)
        write_images(folder, images(model), ids, prompts, seeds)
    return {"images": len(prompts)}


def divide(cell: Cell, batch_size: int, workers: int) -> list[slice]:
    """Parts of the prompts that together give the same bytes as all at once: each begins where a batch begins."""
    batches = -(-cell.units // batch_size)
    step = batch_size * -(-batches // min(batches, PIECES * workers))
    return [slice(start, start + step) for start in range(0, cell.units, step)]


def join(parts: Sequence[Path], folder: Path) -> None:
    """Write one payload of those of all parts, in their order."""
    join_images(parts, folder)
