"""Stage learn: what an attack learns once for all prompts of a concept, such as a new token."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from erasebench.engine.cells import Cell
from erasebench.images import read_images
from erasebench.judging import read_column
from erasebench.registry import ATTACKS
from erasebench.stages.attack import LEARNED, Aim, aimed, context

if TYPE_CHECKING:
    from erasebench.stages.session import Session


def cell(aim: Aim, images: Cell, judged: Cell | None) -> Cell:
    """The cell in which an attack learns.

    Args:
        aim: the attack.
        images: the cell of images of the concept by the unerased model.
        judged: the cell of the judge's scores of them; those that show the concept best come first.  As they are, if
            omitted.
    """
    reads = {"erasure": aim.erasure, "images": images, **({"judged": judged} if judged else {})}
    return Cell("learn", aim.spec, reads, aim.title, aim.kind)


def run(cell: Cell, session: Session, folder: Path) -> dict[str, Any]:
    """Learn, and write what was learnt as safetensors.

    Raises:
        FloatingPointError: it is not finite.
    """
    from safetensors.torch import save_file

    attack = ATTACKS.get(cell.spec["attack"]).make(**cell.spec["parameters"])
    images = read_images(session.store.read(cell.reads["images"].key))
    if "judged" in cell.reads:
        scores = read_column(session.store.read(cell.reads["judged"].key), cell.spec["label"])
        images = images[np.argsort([-score for score in scores.values()], kind="stable")]
    with aimed(session, cell, ()) as target:
        learned = attack.learn(target, images, context(session, cell))
    wrong = [name for name, tensor in learned.items() if not tensor.isfinite().all()]
    if wrong:
        raise FloatingPointError(f"{cell.spec['attack']} learnt numbers that are not finite: {', '.join(wrong)}")
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in learned.items()}, folder / LEARNED)
    return {}
